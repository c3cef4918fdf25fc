"""The coin game: a spatial social dilemma for two."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from assay.envs.base import TensorMultiEnv, where_rows

_MOVES = ((0, 1), (0, -1), (1, 0), (-1, 0))  # right, left, down, up: (row, column)
_TIES = ("red", "both", "random")


class CoinGame(TensorMultiEnv):
    """Two players on a torus and one coin in the colour of one of them.

    Whoever steps on the coin earns 1, whatever its colour; if it was the other's colour, its owner loses 2. A taken
    coin comes back in the other colour on a free cell. So taking every coin pays at once and costs both in the end;
    taking only one's own is the cooperative outcome. The share of own coins among those taken is 50 % for the blind
    and 100 % for the considerate (Lerer & Peysakhovich 2017; Foerster et al. 2018, section 5.2).

    Actions [N, 2]: 0 right, 1 left, 2 down, 3 up. Observations [N, 2, 4, size, size], each player's own view: planes
    of own place, the other's place, a coin of the own colour, a coin of the other's. `info["own"]` and
    `info["other"]` [N, 2] bool say who took a coin of the own or the other's colour.

    Args:
        num_envs: N independent games.
        size: side of the square torus.
        max_steps: after which a game is cut off and begun anew.
        tie: who takes the coin when both reach it in the same step: "random" one of them (fair), "both", or always
            "red" (player 0), which is what the released environment of Foerster et al. does.
        **options: of `TensorEnv`.

    Raises:
        ValueError: a board too small for two players and a coin, an unknown tie rule.

    >>> CoinGame(3).reset()[0].shape
    torch.Size([3, 2, 4, 3, 3])
    """

    agents = ("red", "blue")
    num_actions = 4
    state_names = ("players", "coin", "owner")

    def __init__(
        self,
        num_envs: int = 1,
        size: int = 3,
        *,
        max_steps: int | None = 150,
        tie: Literal["red", "both", "random"] = "random",
        **options: Any,
    ):
        if size < 2:
            raise ValueError(f"size must be at least 2 (two players and a coin need three cells), got {size}")
        if tie not in _TIES:
            raise ValueError(f"unknown tie rule {tie!r}: choose from {', '.join(_TIES)}")
        super().__init__(num_envs, max_steps=max_steps, **options)
        self.size, self.tie = size, tie
        self.obs_shape = (2, 4, size, size)
        self._moves = torch.tensor(_MOVES, device=self.device)
        self._each = torch.arange(2, device=self.device)
        self.players = torch.zeros((num_envs, 2), dtype=torch.int64, device=self.device)
        """[N, 2]: flat cells."""
        self.coin = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        """[N]: flat cell."""
        self.owner = torch.zeros_like(self.coin)
        """[N]: whose colour it has."""

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return spaces.Box(0.0, 1.0, self.obs_shape[1:]), spaces.Discrete(4)

    def _reset_rows(self, mask: Tensor) -> None:
        """Players and coin on three different cells, the coin in a random colour."""
        cells = self.uniform(self.size**2).argsort(1)
        self.players = where_rows(mask, cells[:, :2], self.players)
        self.coin = torch.where(mask, cells[:, 2], self.coin)
        self.owner = torch.where(mask, self.integers(2), self.owner)

    def observe(self) -> Tensor:
        """[N, 2, 4, size, size]: what the players see now."""
        places = one_hot(self.players, self.size**2).float()
        coin = one_hot(self.coin, self.size**2).float()[:, None]
        mine = (self.owner[:, None] == self._each).float()[..., None]
        planes = torch.stack([places, places.flip(1), mine * coin, (1 - mine) * coin], 2)
        return planes.unflatten(-1, (self.size, self.size))

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        row, column = self.players // self.size, self.players % self.size
        move = self._moves[action]
        players = (row + move[..., 0]) % self.size * self.size + (column + move[..., 1]) % self.size
        took = self._taken(players == self.coin[:, None])
        mine = self.owner[:, None] == self._each
        own, other = took & mine, took & ~mine
        # The owner pays for a coin that the other player took.
        reward = took.float() - 2 * other.flip(1).float()
        gone = took.any(1)
        free = self.uniform(self.size**2).scatter(1, players, -1.0).argmax(1)
        self.players = players
        self.coin = torch.where(gone, free, self.coin)
        self.owner = torch.where(gone, 1 - self.owner, self.owner)
        return reward, torch.zeros_like(gone), {"own": own, "other": other}

    def _taken(self, on_coin: Tensor) -> Tensor:
        if self.tie == "both":
            return on_coin
        winner = torch.zeros_like(self.owner) if self.tie == "red" else self.integers(2)
        return torch.where(on_coin.all(1)[:, None], winner[:, None] == self._each, on_coin)
