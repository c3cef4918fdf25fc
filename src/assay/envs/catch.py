"""Catch: a ball falls, a paddle has to be under it (the rules of bsuite's `catch`)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.envs.base import Tabular
from assay.envs.grid import Board


class Catch(Board):
    """A ball falls one row a step from a random column; reward 1 if the paddle is under it at the end, else -1.

    The paddle begins in the middle of the last row. Every episode takes rows - 1 steps, and the reward comes with
    the last (Osband et al. 2020, bsuite).

    Args:
        num_envs: N.
        rows: of the board, at least 2.
        columns: of the board.
        moves: columns that each action moves the paddle by; (1, 0, -1) mirrors the actions.
        view: "board" [rows, columns] as in bsuite, "flat", or "planes" (paddle, ball).
        **options: of `Board`.

    Example:
        >>> game = Catch(2)
        >>> game.reset()[0].sum((1, 2))  # ball and paddle
        tensor([2., 2.])
    """

    state_names = ("row", "ball", "paddle")
    lowest, highest = -1.0, 1.0

    def __init__(
        self,
        num_envs: int,
        rows: int = 10,
        columns: int = 5,
        *,
        moves: Sequence[int] = (-1, 0, 1),
        view: str = "board",
        **options: Any,
    ):
        if rows < 2:
            raise ValueError(f"the ball needs a row to fall: got rows={rows}")
        super().__init__(num_envs, board=(rows, columns), moves=moves, view=view, **options)
        self.row = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.ball = torch.zeros_like(self.row)
        self.paddle = torch.full_like(self.row, columns // 2)

    def _reset_rows(self, mask: Tensor) -> None:
        self.ball = torch.where(mask, self.integers(self.width), self.ball)
        self.row = self.row.masked_fill(mask, 0)
        self.paddle = self.paddle.masked_fill(mask, self.width // 2)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        self.paddle = (self.paddle + self.moves[action]).clamp(0, self.width - 1)
        self.row = self.row + 1
        landed = self.row == self.height - 1
        caught = landed & (self.paddle == self.ball)
        reward = 2.0 * caught.float() - landed.float()
        state = torch.stack((self.row, self.ball, self.paddle), 1)
        return reward, landed, {"state": state, "success": caught}

    def _marks(self) -> Tensor:
        return self._marked(self.paddle + (self.height - 1) * self.width, self.row * self.width + self.ball)

    def state_index(self) -> Tensor:
        """[N] int64: (row * columns + ball) * columns + paddle."""
        return (self.row * self.width + self.ball) * self.width + self.paddle

    def tabular(self) -> Tabular:
        """All rows * columns**2 states; those of the last row are terminal."""
        device = self.device
        grid = [torch.arange(n, device=device) for n in (self.height, self.width, self.width)]
        row, ball, paddle = (x.flatten() for x in torch.meshgrid(*grid, indexing="ij"))
        size = len(row)
        terminal = row == self.height - 1
        moved = (paddle[:, None] + self.moves).clamp(0, self.width - 1)
        after = ((row + 1)[:, None] * self.width + ball[:, None]) * self.width + moved
        after = torch.where(terminal[:, None], torch.arange(size, device=device)[:, None], after)
        landed = (row == self.height - 2)[:, None]
        R = torch.where(landed, torch.where(moved == ball[:, None], 1.0, -1.0), 0.0).double()
        first = (row == 0) & (paddle == self.width // 2)
        return Tabular(F.one_hot(after, size).double(), R, first.double() / self.width, terminal)
