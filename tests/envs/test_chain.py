"""The chain against its table, and the fastest way through it."""

from collections import deque

import pytest
import torch

from assay.envs.chain import Chain, chain_process, explored_fraction

from .common import check_env, check_tabular, generator


def test_the_table_of_a_given_swap() -> None:
    table = chain_process(3, torch.tensor([False, True, False]))
    successor = table.P.argmax(-1).tolist()
    assert successor == [[0, 1], [2, 0], [1, 2]], "state 1 is swapped, both ends are walls"
    assert table.R[:, 0].tolist() == [0.001, 0.0, 1.0]
    assert table.rho0.tolist() == [0.0, 1.0, 0.0]


def test_trap_and_television() -> None:
    world = Chain(1, length=8, trap_state=0, trap_stay=0.25, tv_actions=1, tv_choices=4, swap_seed=5)
    P = world.tabular().P
    for action in (0, 1):
        assert P[0, action, :2].tolist() == [0.25, 0.75], "both moves are the same gamble"
    assert bool((P[:, 2] == P[0, 2]).all()), "the television jumps alike from anywhere"
    assert sorted(P[0, 2].tolist())[-4:] == [0.25] * 4
    assert bool(((P[1:, :2] == 0) | (P[1:, :2] == 1)).all()), "all else is certain"
    near = Chain(1, length=8, tv_actions=1, tv_choices=3, tv_near=True, tv_states=(6,)).tabular().P
    assert torch.allclose(near[6, 2, :3], torch.full((3,), 1 / 3, dtype=torch.float64))
    assert near[2, 2, 2] == 1, "elsewhere the television is off"
    last = Chain(1, length=8, trap_state=7).tabular().P
    assert last[7, 0, 6:].tolist() == [0.5, 0.5]


def test_half_of_the_states_are_swapped_and_seeds_differ() -> None:
    world = Chain(40, length=50, swap_seed=list(range(40)))
    assert 0.4 < float(world.swapped.float().mean()) < 0.6
    assert len({tuple(row.tolist()) for row in world.swapped}) == 40
    assert torch.equal(world.swapped[7], Chain(1, length=50, swap_seed=7).swapped[0])


def test_the_fastest_explorer_needs_a_step_a_pair() -> None:
    """Every state has as many ways in as out, so one round trip covers all 2 L pairs; breadth-first search agrees."""
    world = Chain(1, length=4, swap_seed=2)
    successor = world.tabular().P.argmax(-1).tolist()
    queue: deque[tuple[int, int, list[int]]] = deque([(1, 0, [])])
    met = {(1, 0)}
    plan: list[int] = []
    while queue:
        state, seen, plan = queue.popleft()
        if seen == 2**8 - 1:
            break
        for action in (0, 1):
            after = (successor[state][action], seen | 1 << (2 * state + action))
            if after not in met:
                met.add(after)
                queue.append((*after, [*plan, action]))
    assert len(plan) == 8
    visits = torch.zeros(1, 4, 2)
    obs, _ = world.reset()
    for k, action in enumerate(plan):
        assert float(explored_fraction(visits)[0]) == k / 8, "only executed pairs count"
        visits[0, obs.argmax(1), action] += 1
        obs = world.step(torch.tensor([action])).obs
    assert float(explored_fraction(visits)[0]) == 1.0


def test_explored_fraction_can_leave_the_television_out() -> None:
    visits = torch.tensor([[1.0, 0.0, 9.0], [2.0, 1.0, 0.0]])
    assert float(explored_fraction(visits)) == pytest.approx(4 / 6)
    assert float(explored_fraction(visits, actions=2)) == pytest.approx(3 / 4)


def test_common_checks() -> None:
    def make(num_envs: int, generator):
        return Chain(
            num_envs, length=6, swap_seed=1, trap_state=0, tv_actions=1, tv_choices=3, generator=generator
        )

    check_env(make, reward_range=(0.0, 1.0))
    check_tabular(
        Chain(64, length=6, trap_state=2, tv_actions=1, tv_choices=3, max_steps=None, generator=generator(0)),
        400,
    )


def test_episodes_last_nine_steps_longer_than_the_chain() -> None:
    world = Chain(2, length=10)
    world.reset()
    ends = [bool(world.step(torch.zeros(2, dtype=torch.int64)).truncated.all()) for _ in range(19)]
    assert ends == [False] * 18 + [True]


@pytest.mark.parametrize(
    "wrong",
    [
        {"length": 2},
        {"length": 5, "trap_state": 5},
        {"length": 5, "tv_actions": 1, "tv_choices": 6},
        {"trap_stay": 1.5},
    ],
)
def test_bad_arguments(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"at least 3|states are|jumps to|probability"):
        Chain(1, **wrong)
