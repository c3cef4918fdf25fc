"""Catch against bsuite's rules, written out once more for a single game."""

from dataclasses import dataclass

import pytest
import torch

from assay.envs.base import Step, TensorEnv
from assay.envs.catch import Catch

from .common import check_env, check_tabular, generator


@dataclass
class OneGame:
    """One game of catch, number by number."""

    ball: int
    rows: int = 10
    columns: int = 5

    def __post_init__(self) -> None:
        self.row, self.paddle = 0, self.columns // 2

    def board(self) -> list[list[float]]:
        cells = [[0.0] * self.columns for _ in range(self.rows)]
        cells[self.row][self.ball] = 1.0
        cells[self.rows - 1][self.paddle] = 1.0
        return cells

    def step(self, action: int) -> tuple[float, bool]:
        self.paddle = min(max(self.paddle + (-1, 0, 1)[action], 0), self.columns - 1)
        self.row += 1
        if self.row < self.rows - 1:
            return 0.0, False
        return (1.0 if self.paddle == self.ball else -1.0), True


def test_catch_plays_as_one_game_after_the_other() -> None:
    world = Catch(32, generator=generator(0))
    obs, _ = world.reset()
    g = generator(1)
    games = [OneGame(int(board[0].argmax())) for board in obs]
    rewards = []
    for _ in range(30):
        action = torch.randint(3, (32,), generator=g)
        step = world.step(action)
        for i, game in enumerate(games):
            reward, ended = game.step(int(action[i]))
            assert (step.reward[i].item(), bool(step.terminated[i])) == (reward, ended)
            assert step.final_obs[i].tolist() == game.board()
            if ended:
                rewards.append(reward)
                games[i] = OneGame(int(step.obs[i, 0].argmax()))
                assert step.obs[i].tolist() == games[i].board()
    assert {-1.0, 1.0} <= set(rewards)
    assert len(rewards) == 32 * 3, "every episode takes nine steps"


def test_mirrored_actions_are_the_game_in_a_mirror() -> None:
    plain, mirror = Catch(16), Catch(16, moves=(1, 0, -1))
    plain.reset(seed=3)
    mirror.reset(seed=3)
    mirror.ball = 4 - plain.ball
    g = generator(0)
    for _ in range(8):
        action = torch.randint(3, (16,), generator=g)
        a, b = plain.step(action), mirror.step(action)
        assert torch.equal(a.obs, b.obs.flip(2))


def test_views_show_the_same() -> None:
    board, flat, planes = (Catch(8, view=v) for v in ("board", "flat", "planes"))
    seen = [w.reset(seed=1)[0] for w in (board, flat, planes)]
    assert [tuple(s.shape[1:]) for s in seen] == [(10, 5), (50,), (2, 10, 5)]
    assert torch.equal(seen[0].flatten(1), seen[1])
    assert torch.equal(seen[2].amax(1), seen[0])
    assert board.render().shape == (160, 80, 3)


def test_the_perfect_player_always_catches() -> None:
    world = Catch(64, generator=generator(0))
    world.reset()
    for _ in range(9):
        step = world.step((world.ball - world.paddle).sign() + 1)
    assert bool((step.reward == 1).all())
    assert bool(step.info["success"].all())


def test_table() -> None:
    check_tabular(Catch(256, 6, 3, generator=generator(4)), 80)


def test_the_best_value_of_the_table_is_one() -> None:
    table = Catch(1).tabular()
    value = torch.zeros(len(table.rho0), dtype=torch.float64)
    for _ in range(10):
        value = (table.R + table.P @ value).amax(1)
    assert float(table.rho0 @ value) == pytest.approx(1.0)


@pytest.mark.parametrize("view", ["board", "planes"])
def test_common(view: str) -> None:
    def fair(env: TensorEnv, step: Step) -> None:
        assert torch.equal(step.reward != 0, step.terminated)

    check_env(
        lambda num_envs, generator: Catch(num_envs, view=view, generator=generator),
        invariants=fair,
        reward_range=(-1, 1),
        deterministic=True,
    )


class _Rewrites(Catch):
    """Edits an observation that it handed out."""

    def observe(self) -> torch.Tensor:
        seen = super().observe()
        if not hasattr(self, "_buffer") or len(self._buffer) != len(seen):
            self._buffer = seen
        return self._buffer.copy_(seen)


class _GlobalDraws(Catch):
    """Draws from torch's global generator."""

    def _reset_rows(self, mask: torch.Tensor) -> None:
        torch.rand(1)
        super()._reset_rows(mask)


class _SharedDraws(Catch):
    """Lets one block's draws serve all."""

    def _reset_rows(self, mask: torch.Tensor) -> None:
        super()._reset_rows(mask)
        fresh = torch.rand(self.num_envs, generator=self.generator)
        self.ball = torch.where(mask, (fresh * self.width).long(), self.ball)


class _Forgets(Catch):
    """Leaves the ball out of its snapshots."""

    state_names = ("row", "paddle")


class _TooMuch(Catch):
    """Pays more than it says."""

    def _step(self, action: torch.Tensor) -> tuple:
        reward, ended, info = super()._step(action)
        return 2 * reward, ended, info


@pytest.mark.parametrize("faulty", [_Rewrites, _GlobalDraws, _SharedDraws, _Forgets, _TooMuch])
def test_the_common_checks_find_faults(faulty: type[Catch]) -> None:
    with pytest.raises(AssertionError):
        check_env(lambda num_envs, generator: faulty(num_envs, generator=generator), reward_range=(-1, 1))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="row to fall"):
        Catch(1, rows=1)
    with pytest.raises(ValueError, match="planes"):
        Catch(1, planes=1)
    with pytest.raises(ValueError, match="brightness"):
        Catch(1, brightness=(1.0,))
