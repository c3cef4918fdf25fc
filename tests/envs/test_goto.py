"""GotoGrid: where agent and goal begin, and where moves lead."""

import pytest
import torch

from assay.envs.base import Step, TensorEnv
from assay.envs.goto import GotoGrid

from .common import check_env, generator


def test_agent_and_goal_begin_in_two_uniform_cells() -> None:
    world = GotoGrid(24_000, 3, generator=generator(0))
    obs, _ = world.reset()
    assert obs.shape == (24_000, 2, 3, 3)
    assert bool((obs.sum((2, 3)) == 1).all())
    pairs = torch.bincount(world.agent * 9 + world.goal, minlength=81).view(9, 9).double()
    assert not bool(pairs.diagonal().any())
    expected = 24_000 / 72
    statistic = float(((pairs - expected) ** 2 / expected).masked_fill(torch.eye(9).bool(), 0).sum())
    assert statistic < 122  # chi-square, 71 degrees of freedom, p = 1e-4


def test_the_shortest_way_takes_the_distance() -> None:
    world = GotoGrid(64, generator=generator(1))
    world.reset()
    distance = world.distance()
    assert int(distance.max()) > 15
    earned = torch.full((64,), -1)
    for t in range(1, 31):
        row = world.goal // 16 - world.agent // 16
        column = world.goal % 16 - world.agent % 16
        vertical = torch.where(row < 0, 0, 2)
        action = torch.where(row != 0, vertical, torch.where(column > 0, 1, 3))
        step = world.step(action)
        assert torch.equal(step.reward == 1, step.terminated)
        earned = torch.where((earned < 0) & step.terminated, t, earned)
    assert torch.equal(earned, distance)


def test_edges_hold_and_staying_is_an_action() -> None:
    world = GotoGrid(1, (2, 3), moves=(0, 1, 2, 3, 4))
    world.reset()
    world.agent, world.goal = torch.tensor([0]), torch.tensor([5])
    cells = [
        int(world.step(torch.tensor([a])).info["state"][0, :2] @ torch.tensor([3, 1])) for a in (0, 3, 4, 1)
    ]
    assert cells == [0, 0, 0, 1]


def test_common() -> None:
    def on_the_board(env: TensorEnv, step: Step) -> None:
        assert isinstance(env, GotoGrid)
        assert bool(((env.agent >= 0) & (env.agent < 16)).all())
        assert bool((env.agent != env.goal).all()), "at the goal the next episode has begun"

    check_env(
        lambda num_envs, generator: GotoGrid(num_envs, 4, max_steps=30, generator=generator),
        invariants=on_the_board,
        reward_range=(0, 1),
        deterministic=True,
    )


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="two cells"):
        GotoGrid(1, 1)
