"""GotoGrid: walk to a goal whose place changes every episode; seen as one-hot planes."""

from typing import Any

import torch
from torch import Tensor

from assay.envs.grid import Board, open_board_moves


class GotoGrid(Board):
    """An open board; agent and goal begin in two different random cells; reward 1 at the goal, which terminates.

    Actions are the numbers in `moves`: 0 up, 1 right, 2 down, 3 left, 4 stay.

    Args:
        num_envs: N.
        size: side of the board, or (height, width).
        max_steps: of an episode.
        **options: of `Board`; the planes are agent and goal.

    Example:
        >>> GotoGrid(4096).reset()[0].shape
        torch.Size([4096, 2, 16, 16])
    """

    state_names = ("agent", "goal")

    def __init__(
        self, num_envs: int, size: int | tuple[int, int] = 16, *, max_steps: int | None = 64, **options: Any
    ):
        board = (size, size) if isinstance(size, int) else size
        if board[0] * board[1] < 2:
            raise ValueError(f"agent and goal need two cells: got a board of {board}")
        super().__init__(num_envs, board=board, max_steps=max_steps, **options)
        self._next = open_board_moves(*board).to(self.device)[:, self.moves].flatten()
        self.agent = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        """[N]: flat cell."""
        self.goal = torch.full_like(self.agent, self.area - 1)

    def _reset_rows(self, mask: Tensor) -> None:
        place = self.uniform(2)
        agent = (place[:, 0] * self.area).long().clamp(max=self.area - 1)
        # One of the other cells: so many further on, around the end of the board.
        further = 1 + (place[:, 1] * (self.area - 1)).long().clamp(max=self.area - 2)
        self.agent = torch.where(mask, agent, self.agent)
        self.goal = torch.where(mask, (agent + further) % self.area, self.goal)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        self.agent = self._next[self.agent * self.num_actions + action]
        there = self.agent == self.goal
        cells = torch.stack((self.agent, self.goal), 1)
        state = torch.stack((cells // self.width, cells % self.width), 2).flatten(1)
        return there.float(), there, {"state": state, "success": there}

    def _marks(self) -> Tensor:
        return self._marked(self.agent, self.goal)

    def distance(self) -> Tensor:
        """[N] int64: steps from the agent to the goal."""
        row = self.agent // self.width - self.goal // self.width
        return row.abs() + (self.agent % self.width - self.goal % self.width).abs()
