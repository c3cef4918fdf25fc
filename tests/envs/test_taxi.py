"""Taxi: Gymnasium's table, the rooms of the option-learning paper, tasks and starts."""

from functools import partial
from typing import Any

import pytest
import torch

from assay.envs import MultiTask, as_gymnasium_vector
from assay.envs.base import Step, TensorEnv
from assay.envs.taxi import Taxi
from assay.rl.tabular import value_iteration

from .common import check_env, check_tabular, generator


@pytest.fixture(scope="module")
def official() -> Any:
    """Gymnasium's own: the table has not changed since v3."""
    taxi = pytest.importorskip("gymnasium.envs.toy_text.taxi", reason="the extra rl")
    return taxi.TaxiEnv()


def test_the_table_is_gymnasiums(official: Any) -> None:
    world = Taxi(1)
    assert world.num_states == 500
    for state in range(500):
        for action in range(6):
            ((probability, successor, reward, ends),) = official.P[state][action]
            assert probability == 1
            told = world.successor[state, action], world.rewards[state, action], world.ends[state, action]
            assert told == (successor, reward, ends), (state, action)
        world.state = torch.tensor([state])
        assert torch.equal(world.action_mask()[0], torch.as_tensor(official.action_mask(state)).bool()), state
    expected = torch.as_tensor(official.initial_state_distrib)
    torch.testing.assert_close(world.tabular().rho0, expected, rtol=0, atol=1e-12)


def test_a_thousand_steps_beside_gymnasium(official: Any) -> None:
    world = Taxi(1, one_hot=False, autoreset=False, generator=generator(3))
    world.reset()
    assert world.max_steps == 200
    for action in torch.randint(6, (1000,), generator=generator(4)).tolist():
        official.s = int(world.state)
        seen, reward, terminated, _, _ = official.step(action)
        step = world.step(torch.tensor([action]))
        assert (int(step.obs), float(step.reward), bool(step.terminated)) == (seen, reward, terminated)
        if bool(step.ended):
            world.reset_where(step.ended)


def test_the_best_policy_delivers() -> None:
    world = Taxi(300, generator=generator(0))
    table = world.tabular()
    solved = value_iteration(table, 0.99)
    best = solved.policy.argmax(1)
    world.reset()
    returns, discount = torch.zeros(300), 1.0
    value = solved.value[world.state]
    world.autoreset, done = False, torch.zeros(300, dtype=torch.bool)
    for _ in range(25):
        state = world.state
        reward = world.rewards[state, best[state]]
        step = world.step(best[state])
        returns += discount * reward.masked_fill(done, 0.0)
        discount *= 0.99
        done |= step.terminated
        world._ended = torch.zeros_like(world._ended)
    assert done.all()
    torch.testing.assert_close(returns.double(), value, rtol=0, atol=1e-4)


def test_the_rooms_of_the_paper() -> None:
    world = Taxi(2000, layout="msol", generator=generator(0))
    assert world.max_steps == 50
    assert int(world._free.sum()) == 30
    assert len(world._start) == 26
    obs, _ = world.reset()
    assert obs.shape == (2000, 72)
    cell, _, passenger, destination = world._parts(world.state)
    aboard = passenger == 4
    assert abs(float(aboard.float().mean()) - 0.5) < 0.05
    assert torch.equal(world.tasks[world.task, 1], destination)
    assert torch.equal(world.tasks[world.task, 0][~aboard], passenger[~aboard])
    assert not torch.isin(cell, world._stop_cells).any()
    assert torch.equal(obs.argmax(1), 2 * cell + aboard)
    assert not (Taxi(500, layout="msol", aboard=0).reset()[0].argmax(1) % 2).any()


def _at(world: Taxi, row: int, column: int, passenger: int, destination: int, heading: int = 0) -> None:
    cell = torch.tensor([row * world.width + column])
    world.state = world._encode(cell, heading, torch.tensor([passenger]), torch.tensor([destination]))


def test_msol_moves_picks_and_drops() -> None:
    world = Taxi(1, layout="msol", task=2)  # from red, in the top left, to blue
    world.reset()
    assert world.tasks[2].tolist() == [0, 3]
    _at(world, 0, 1, 0, 3)

    def go(*actions: int) -> tuple[list[int], float, bool]:
        for action in actions:
            step = world.step(torch.tensor([action]))
        return step.info["state"][0].tolist(), round(float(step.reward), 6), bool(step.terminated)

    assert go(1) == ([0, 1, 0, 3], -0.1, False)  # a wall
    assert go(4) == ([0, 1, 0, 3], -0.1, False)  # the edge
    assert go(5) == ([0, 1, 0, 3], -0.1, False)  # nobody here
    assert go(3, 5) == ([0, 0, 4, 3], -0.1, False)
    assert go(5) == ([0, 0, 4, 3], -0.1, False)  # not the destination: they stay aboard
    assert go(2, 2, 1, 1, 1, 1, 2, 2, 2) == ([5, 4, 4, 3], -0.1, False)
    assert go(0) == ([5, 4, 4, 3], -0.1, False)
    assert go(5) == ([5, 4, 3, 3], 2.0, True)


@pytest.mark.parametrize(
    ("turns", "right_turns"), [("cyclic", [(0, 1), (1, 0), (0, -1), (-1, 0)]), ("released", None)]
)
def test_headings(turns: str, right_turns: list[tuple[int, int]] | None) -> None:
    world = Taxi(1, layout="msol", directional=True, turns=turns)
    assert world.reset()[0].shape == (1, 288)
    went = []
    for heading in range(4):
        _at(world, 2, 3, 0, 1, heading)
        row, column = world.step(torch.tensor([1])).info["state"][0, :2].tolist()
        went.append((row - 2, column - 3))
        _at(world, 2, 3, 0, 1, heading)
        for action, turned in ((3, heading + 1), (2, heading), (2, heading - 1)):
            world.step(torch.tensor([action]))
            assert int(world._parts(world.state)[1]) == turned % 4
    assert sorted(went) == [(-1, 0), (0, -1), (0, 1), (1, 0)]
    if right_turns is not None:
        assert went == right_turns
    else:
        assert went[1] == tuple(-x for x in went[0]), "one turn can reverse the taxi"


def test_random_headings() -> None:
    world = Taxi(8000, layout="msol", directional=True, reorient=0.4, generator=generator(0))
    world.reset()
    before = world._parts(world.state)[1]
    world.step(torch.zeros(8000, dtype=torch.int64))
    changed = (world._parts(world.state)[1] != before).float().mean()
    assert abs(float(changed) - 0.3) < 0.02


def test_tasks_are_drawn_or_given() -> None:
    drawn = Taxi(12_000, generator=generator(1))
    drawn.reset()
    counts = torch.bincount(drawn.task, minlength=12)
    assert ((counts - 1000).abs() < 130).all()
    fixed = Taxi(24, layout="msol", task=torch.arange(12).repeat(2), generator=generator(1))
    fixed.reset()
    for _ in range(120):
        fixed.step(torch.randint(6, (24,), generator=generator(2)))
    assert torch.equal(fixed.task, torch.arange(12).repeat(2))
    _, _ = fixed.reset(options={"task": 7})
    assert (fixed.task == 7).all()
    vector = as_gymnasium_vector(Taxi(3))
    vector.reset(seed=0, options={"task": 5})
    assert vector.unwrapped.tensor_env.task.tolist() == [5, 5, 5]
    together = MultiTask([partial(Taxi, layout="msol", task=k) for k in range(12)], copies=2)
    together.reset()
    step = together.step(torch.zeros(24, dtype=torch.int64))
    assert torch.equal(step.info["task"], torch.arange(12).repeat_interleave(2))


@pytest.mark.parametrize(
    "options",
    [
        {"layout": "v3", "max_steps": 30},
        {"layout": "v3", "masked": True, "aboard": 0.3},
        {"layout": "msol", "one_hot": False},
        {"layout": "msol", "directional": True, "reorient": 0.1},
    ],
    ids=str,
)
def test_common(options: dict[str, Any]) -> None:
    def on_free_cells(env: TensorEnv, step: Step) -> None:
        assert isinstance(env, Taxi)
        cell = env._parts(env.state)[0]
        assert bool(env._free[cell].all())
        arrived = step.info["state"][:, 2] == step.info["state"][:, 3]
        assert torch.equal(step.terminated, arrived)
        assert torch.equal(step.terminated, step.reward >= 2)

    check_env(
        lambda num_envs, generator: Taxi(num_envs, generator=generator, **options),
        num_envs=64,
        invariants=on_free_cells,
        reward_range=(-10, 20),
        deterministic="reorient" not in options,
    )


@pytest.mark.parametrize("options", [{}, {"layout": "msol"}, {"layout": "msol", "task": 3}], ids=str)
def test_random_play_has_the_frequencies_of_the_table(options: dict[str, Any]) -> None:
    check_tabular(Taxi(256, max_steps=0, **options), 400)


def test_the_table_of_random_headings() -> None:
    table = Taxi(1, layout="msol", task=0, directional=True, reorient=0.1).tabular()
    assert torch.allclose(table.P.sum(2), torch.ones(()).double())
    running = table.P[~table.terminal]
    values = torch.tensor([0, 0.025, 0.925, 1], dtype=torch.float64)
    assert torch.isclose(running[..., None], values).any(-1).all()
    certain = torch.isclose(running, values[3]).any(-1)
    assert torch.equal(certain, torch.isclose(table.R[~table.terminal], torch.tensor(2.0).double()))
    assert torch.isclose(table.rho0.sum(), torch.ones(()).double())


def test_pictures_differ_with_what_they_show() -> None:
    world = Taxi(2, layout="v3", generator=generator(0))
    world.reset()
    picture = world.render(0)
    assert picture.shape == (80, 80, 3)
    assert picture.dtype == torch.uint8
    world.step(torch.zeros(2, dtype=torch.int64))
    heading = Taxi(1, layout="msol", directional=True)
    heading.reset()
    a = heading.render()
    heading.step(torch.tensor([3]))
    assert not torch.equal(a, heading.render())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "v4"}, "'v3' or 'msol'"),
        ({"directional": True}, "no heading"),
        ({"layout": "msol", "reorient": 0.1}, "take directional=True"),
        ({"turns": "left"}, "'cyclic' or 'released'"),
        ({"aboard": 1.5}, "a share"),
        ({"task": 12}, "tasks are 0..11"),
        ({"task": [1, 2]}, "one for each of 3 copies"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Taxi(3, **options)
    with pytest.raises(ValueError, match="no reset options"):
        Taxi(1).reset(options={"goal": 1})
