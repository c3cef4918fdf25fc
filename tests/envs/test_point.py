"""The point: how far it moves, what stops it, what is rewarded."""

import math

import pytest
import torch

from assay.envs import CornerTask, PointBox, PointMaze
from assay.envs.base import Step, TensorEnv
from assay.envs.grid import grid_distance
from assay.envs.point import LAYOUTS, STAY, directions

from .common import check_env, generator

VARIANTS = [{}, {"momentum": True}, {"continuous": True}, {"momentum": True, "continuous": True}]


@pytest.mark.parametrize("options", VARIANTS)
def test_common(options: dict[str, bool]) -> None:
    check_env(lambda **k: PointBox(start_spread=0.5, **options, **k), reward_range=(0, 0))
    check_env(lambda **k: PointBox(closed=False, **options, **k), steps=70)
    check_env(lambda **k: CornerTask(radius=0.9, **options, **k), reward_range=(0, 1))

    def in_free_cells(env: TensorEnv, step: Step) -> None:
        assert isinstance(env, PointMaze)
        assert not bool(env.walls.flatten()[env.cell_of(env.position)].any()), "inside a wall"
        assert not bool(env.walls.flatten()[step.info["cell"]].any())
        assert torch.equal(step.info["cell"], env.cell_of(step.info["state"]))

    for layout in LAYOUTS:

        def make(layout: str = layout, **k: object) -> TensorEnv:
            return PointMaze(layout=layout, random_start=True, max_steps=50, **options, **k)  # type: ignore[arg-type]

        check_env(make, num_envs=32, steps=100, invariants=in_free_cells, reward_range=(0, 1))


def test_ten_thousand_steps_never_enter_a_wall() -> None:
    env = PointMaze(
        100, layout="four-rooms", momentum=True, max_steps=None, terminate=False, generator=generator(0)
    )
    env.reset()
    g = generator(1)
    rooms = set()
    for _ in range(100):
        # Pushes held for several steps, so that walls are hit at full speed.
        action = torch.randint(9, (100,), generator=g)
        for _ in range(10):
            step = env.step(action)
            assert not bool(env.walls.flatten()[step.info["cell"]].any())
            rooms.update(step.info["cell"].tolist())
    assert len(rooms) > 40


def test_directions_have_one_length() -> None:
    table = directions()
    assert torch.allclose(table[:8].norm(dim=1), torch.ones(8))
    assert table[STAY].tolist() == [0.0, 0.0]
    assert torch.allclose(table[:8].roll(-4, 0), -table[:8], atol=1e-6)
    assert table[0].tolist() == [1.0, 0.0]
    assert float(table[2, 1]) == 1.0


def test_box_moves_and_walls() -> None:
    env = PointBox(9, step=0.15, max_steps=None)
    env.reset()
    every = torch.arange(9)
    step = env.step(every)
    assert torch.allclose(step.obs, 0.15 * directions(), atol=1e-6)
    for _ in range(9):
        step = env.step(every)
    assert torch.allclose(step.obs[0], torch.tensor([1.0, 0.0]))
    assert torch.allclose(step.obs[5], torch.tensor([-1.0, -1.0]))
    plane = PointBox(1, closed=False, step=0.5, max_steps=None)
    plane.reset()
    for _ in range(5):
        step = plane.step(torch.tensor([2]))
    assert step.obs.tolist() == [[0.0, 2.5]]


def test_momentum_follows_its_recursion_and_stops_at_walls() -> None:
    env = PointBox(1, momentum=True, max_steps=None)
    env.reset()
    v = x = 0.0
    for _ in range(8):
        v = 0.9 * v + 0.02
        x += v
        obs = env.step(torch.tensor([0])).obs[0]
        assert torch.allclose(obs, torch.tensor([x, 0.0, v, 0.0]), atol=1e-6)
    for _ in range(8):
        obs = env.step(torch.tensor([1])).obs[0]
    assert float(obs[0]) == 1.0
    assert float(obs[2]) == 0.0, "the wall takes the velocity into it"
    assert float(obs[3]) > 0.05, "and leaves the one along it"
    assert env.fastest == pytest.approx(0.2)


def test_time_limits() -> None:
    assert PointBox(1).max_steps == 30
    assert PointBox(1, momentum=True).max_steps == 60
    assert PointBox(1, max_steps=None).max_steps is None
    assert CornerTask(1).max_steps == 120


def test_corners_count_in_order_only() -> None:
    env = CornerTask(2)
    obs, _ = env.reset()
    assert obs[0].tolist() == [0.0, 0.0, 1.0, 0.0, 0.0]
    # Row 0 goes to the corners in order; row 1 begins with the second.
    plan = [[1] * 14 + [4] * 20 + [6] * 20, [3] * 14 + [6] * 20 + [STAY] * 20]
    rewards = torch.zeros(2)
    done = None
    for t in range(54):
        step = env.step(torch.tensor([plan[0][t], plan[1][t]]))
        rewards += step.reward
        if bool(step.terminated[0]):
            done = t
            assert step.final_obs[0, 2:].tolist() == [0.0, 0.0, 0.0]
            assert int(step.info["progress"][0]) == 3
            assert step.obs[0].tolist() == [0.0, 0.0, 1.0, 0.0, 0.0]
            break
    assert done is not None
    assert rewards.tolist() == [3.0, 0.0]
    hidden = CornerTask(2, show_progress=False)
    assert hidden.reset()[0].shape == (2, 2)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_layout_can_be_solved(layout: str) -> None:
    """The goal is reached along a shortest path of cells, found on the walls alone."""
    env = PointMaze(16, layout=layout, max_steps=None, generator=generator(2))
    env.reset()
    distance = grid_distance(env.walls, env.goals).flatten()
    begun = distance[env.cell_of(env.position)]
    assert bool((begun > 0).all())
    done = torch.zeros(16, dtype=torch.bool)
    best = begun.clone()
    for _ in range(400):
        cell = env.cell_of(env.position)
        row, column = cell // env.width, cell % env.width
        # Walk to the middle of the neighbouring cell that is nearest to the goal.
        options = []
        for dr, dc in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            r, c = (row + dr).clamp(0, env.height - 1), (column + dc).clamp(0, env.width - 1)
            d = distance[r * env.width + c].double()
            d = torch.where(d < 0, torch.inf, d)  # unreachable
            options.append(torch.where(env.walls[r, c], torch.inf, d))
        k = torch.stack(options).argmin(0)
        r = row + torch.tensor([0, 0, 1, -1])[k]
        c = column + torch.tensor([1, -1, 0, 0])[k]
        target = torch.stack(((c + 0.5) * 2 / env.width - 1, 1 - (r + 0.5) * 2 / env.height), 1)
        # Centre across the way first, so that no edge of a wall is scraped.
        gap = target - env.position
        across = torch.where((k < 2)[:, None], gap * torch.tensor([0.0, 1.0]), gap * torch.tensor([1.0, 0.0]))
        gap = torch.where((across.abs().max(1).values > 0.05)[:, None], across, gap)
        step = env.step((directions()[:8] @ gap.T).argmax(0))
        best = torch.minimum(best, distance[step.info["cell"]])
        done = done | step.terminated
        assert torch.equal(step.terminated, step.reward > 0)
    assert bool(done.all())


def test_barriers_are_mirror_images() -> None:
    left, right = LAYOUTS["barrier-left"], LAYOUTS["barrier-right"]
    assert [line[::-1] for line in left] == list(right)


def test_goal_may_pay_every_step() -> None:
    env = PointMaze(1, layout=["SG"], step=0.5, terminate=False, max_steps=None)
    env.reset()
    env.position = torch.tensor([[0.5, 0.0]])
    for _ in range(3):
        step = env.step(torch.tensor([STAY]))
        assert step.reward.item() == 1.0
        assert not bool(step.terminated.any())


def test_pictures() -> None:
    for env in (PointBox(2), CornerTask(2), PointMaze(2)):
        env.reset()
        image = env.render(1)
        assert image.dtype == torch.uint8
        assert image.shape == (128, 128, 3)
        assert len(image.flatten(0, 1).unique(dim=0)) >= 2


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="step"):
        PointBox(2, step=0)
    with pytest.raises(ValueError, match="friction"):
        PointBox(2, friction=1.0)
    with pytest.raises(ValueError, match="start_spread"):
        PointBox(2, start_spread=2.0)
    with pytest.raises(ValueError, match="corners"):
        CornerTask(2, corners=())
    with pytest.raises(ValueError, match="radius"):
        CornerTask(2, radius=0)
    with pytest.raises(ValueError, match="unknown layout"):
        PointMaze(2, layout="circle")
    with pytest.raises(ValueError, match="equally long"):
        PointMaze(2, layout=["S.", "G"])
    with pytest.raises(ValueError, match="start 'S'"):
        PointMaze(2, layout=["..", "G."])
    with pytest.raises(ValueError, match="jump a cell"):
        PointMaze(2, step=0.3)
    env = PointMaze(2, continuous=True)
    env.reset()
    with pytest.raises(ValueError, match="finite"):
        env.step(torch.full((2, 2), math.inf))
