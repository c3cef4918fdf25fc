"""Tasks of different rewards in one batch."""

from functools import partial

import pytest
import torch
from torch import Tensor

from assay.envs.base import Step, TensorEnv
from assay.envs.catch import Catch
from assay.envs.goto import GotoGrid
from assay.envs.suite import DensityGrid, Jackpot, MultiTask, RoomsSuite, SnackGrid, TaskSuite

from .common import assert_same_step, check_env, check_tabular, generator, random_actions, rows


class TestMultiTask:
    def test_each_task_is_as_alone(self) -> None:
        scales = (1.0, 100.0)
        tasks = [Catch, partial(Catch, moves=(1, 0, -1))]
        both = MultiTask(tasks, (3, 5), reward_scales=scales, generator=generator(0))
        both.reset()
        alone = [make(n, generator=generator(9)) for make, n in zip(tasks, (3, 5), strict=True)]
        for env, part in zip(alone, (slice(0, 3), slice(3, 8)), strict=True):
            env.ball = both.observe()[part, 0].argmax(1)
        g = generator(1)
        for _ in range(9):
            action = random_actions(both, g)
            step = both.step(action)
            for k, part in enumerate((slice(0, 3), slice(3, 8))):
                single = alone[k].step(action[part])
                assert torch.equal(step.final_obs[part], single.final_obs)
                assert torch.equal(step.reward[part], scales[k] * single.reward)
                assert torch.equal(step.info["raw_reward"][part], single.reward)
                assert torch.equal(step.terminated[part], single.terminated)
        assert step.info["task"].tolist() == [0] * 3 + [1] * 5
        assert bool(step.terminated.all())

    def test_blocks_hold_every_task_and_do_not_depend_on_each_other(self) -> None:
        make = partial(TaskSuite, (2, 3), ("catch", "goal"), reward_scales=(1.0, 10.0))
        both = make(generator=[generator(1), generator(2)])
        alone = [make(generator=generator(1 + b)) for b in range(2)]
        assert both.task.tolist() == [0, 0, 1, 1, 1] * 2
        for env in (both, *alone):
            env.reset()
        g = generator(3)
        for _ in range(60):
            action = random_actions(both, g)
            step = both.step(action)
            for b, env in enumerate(alone):
                part = slice(5 * b, 5 * b + 5)
                assert_same_step(rows(step, part), env.step(action[part]))

    def test_reset_of_some_rows_leaves_the_others(self) -> None:
        suite = TaskSuite(2, generator=[generator(1), generator(2)])
        suite.reset()
        act = generator(0)
        for _ in range(4):
            suite.step(random_actions(suite, act))
        before = suite.observe()
        mask = torch.arange(suite.num_envs) % 3 == 0
        after = suite.reset_where(mask)
        assert torch.equal(before[~mask], after[~mask])
        assert torch.equal(suite.elapsed == 0, mask)

    def test_every_task_keeps_its_own_time_limit(self) -> None:
        tasks = [partial(GotoGrid, size=7, max_steps=k) for k in (2, 3)]
        both = MultiTask(tasks, 1)
        both.reset()
        for env in both.envs:
            env.agent, env.goal = torch.tensor([0]), torch.tensor([48])
        up = torch.zeros(2, dtype=torch.int64)
        assert [both.step(up).truncated.tolist() for _ in range(2)] == [[False, False], [True, False]]

    def test_common(self) -> None:
        def make(num_envs: int, generator: torch.Generator) -> TensorEnv:
            return TaskSuite(num_envs // 4, generator=generator)

        check_env(make, split=False)
        check_env(
            lambda num_envs, generator: RoomsSuite(num_envs // 6, generator=generator),
            num_envs=12,
            split=False,
            reward_range=(0, 1),
        )

    def test_bad_arguments(self) -> None:
        with pytest.raises(ValueError, match="equal observations"):
            MultiTask([Catch, GotoGrid], 2)
        with pytest.raises(ValueError, match="as many copies"):
            MultiTask([Catch], (1, 2))
        with pytest.raises(ValueError, match="tasks are"):
            TaskSuite(2, ("tetris",))
        with pytest.raises(ValueError, match="tasks are"):
            RoomsSuite(2, (6,))


class TestTaskSuite:
    @pytest.mark.parametrize(("flat", "shape"), [(False, (4, 7, 7)), (True, (50,))])
    def test_shapes(self, flat: bool, shape: tuple[int, ...]) -> None:
        suite = TaskSuite(2, TaskSuite.names, flat=flat)
        assert suite.obs_shape == shape
        assert suite.num_actions == 4
        assert suite.reset()[0].shape == (10, *shape)

    def test_reward_scales_change_nothing_else(self) -> None:
        plain, scaled = TaskSuite(4), TaskSuite(4, reward_scales=(1, 10, 100, 1000))
        plain.reset(seed=0)
        scaled.reset(seed=0)
        factor = torch.tensor([1.0, 10.0, 100.0, 1000.0]).repeat_interleave(4)
        g = generator(0)
        for _ in range(50):
            action = random_actions(plain, g)
            a, b = plain.step(action), scaled.step(action)
            assert torch.equal(a.obs, b.obs)
            assert torch.equal(a.reward * factor, b.reward)

    def test_scores(self) -> None:
        suite = TaskSuite(1)
        assert suite.lowest.tolist() == [-1, 0, 0, 0]
        assert suite.highest.tolist() == [1, 1, 0.5, 100]
        score = suite.normalised(torch.tensor([0.0, 0.5, 0.25, 18.0]))
        assert torch.allclose(score, torch.tensor([0.5, 0.5, 0.5, 0.18]))


class TestJackpot:
    def play(self, action: int, steps: int = 40) -> tuple[float, Step]:
        world = Jackpot(1, 25.0)
        world.reset()
        total = 0.0
        for _ in range(steps):
            step = world.step(torch.tensor([action]))
            total += step.reward.item()
            if bool(step.ended):
                break
        return total, step

    def test_left_pays_18_times_and_right_once(self) -> None:
        total, step = self.play(0)
        assert total == 18.0
        assert step.truncated.item()
        total, step = self.play(1)
        assert total == 25.0
        assert step.terminated.item()

    def test_clipped_rewards_prefer_the_left(self) -> None:
        """The point of the task: with rewards clipped to 1, going left is worth more."""
        table = Jackpot(1).tabular()
        for reward, best in ((table.R, 1), (table.R.clamp(max=1.0), 0)):
            value = torch.zeros(11, dtype=torch.float64)
            for _ in range(500):
                value = (reward + 0.99 * table.P @ value).amax(1)
            chosen = (reward + 0.99 * table.P @ value)[5].argmax()
            assert int(chosen) == best

    def test_table_and_common(self) -> None:
        check_tabular(Jackpot(64, max_steps=None, generator=generator(0)), 100)
        check_env(
            lambda num_envs, generator: Jackpot(num_envs, board=(7, 7), generator=generator),
            reward_range=(0, 100),
        )
        with pytest.raises(ValueError, match="corridor"):
            Jackpot(1, board=(2, 5))


class TestSnackGrid:
    def test_every_pellet_pays_once(self) -> None:
        world = SnackGrid(16, max_steps=None, generator=generator(0))
        obs, _ = world.reset()
        assert bool((obs[:, 2].sum((1, 2)) == 10).all())
        assert not bool((obs[:, 0] * obs[:, 2]).any()), "no pellet under the agent at first"
        total = torch.zeros(16)
        # Into the corner, then line by line over the whole board.
        lines = [a for k in range(7) for a in [1 if k % 2 == 0 else 3] * 6 + [2]]
        for action in [0] * 6 + [3] * 6 + lines:
            step = world.step(torch.full((16,), action))
            total += step.reward
        assert torch.allclose(total, torch.full((16,), world.highest))
        assert bool(step.info["success"].all())

    def test_common(self) -> None:
        check_env(
            lambda num_envs, generator: SnackGrid(num_envs, generator=generator), reward_range=(0, 0.05)
        )
        with pytest.raises(ValueError, match="pellets"):
            SnackGrid(1, 3, pellets=9)


class TestDensityGrid:
    def play(self, dense: bool) -> tuple[Tensor, Tensor]:
        world = DensityGrid(256, dense, generator=generator(0))
        world.reset()
        total, paid = torch.zeros(256), torch.zeros(256)
        for _ in range(20):
            row = world.goal // 7 - world.agent // 7
            column = world.goal % 7 - world.agent % 7
            aside = torch.where(column > 0, 1, torch.where(column < 0, 3, 4))
            action = torch.where(row > 0, 2, torch.where(row < 0, 0, aside))
            step = world.step(action)
            total += step.reward
            paid += step.reward > 0
        assert bool(step.terminated.all())
        return total, paid

    def test_one_policy_serves_both_and_returns_are_of_one_size(self) -> None:
        dense, often = self.play(True)
        sparse, once = self.play(False)
        assert bool((sparse == 1).all())
        assert bool((once == 1).all())
        assert float(often.mean()) > 14
        assert 0.7 < float(dense.mean()) < 1.0

    @pytest.mark.parametrize("dense", [True, False])
    def test_common(self, dense: bool) -> None:
        check_env(
            lambda num_envs, generator: DensityGrid(num_envs, dense, 3, generator=generator),
            reward_range=(0, 1),
        )
