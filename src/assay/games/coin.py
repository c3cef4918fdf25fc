"""The coin game: a spatial social dilemma for two, as a batched tensor program."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from assay.games.step import GameStep

__all__ = ["CoinGame"]

_MOVES = ((0, 1), (0, -1), (1, 0), (-1, 0))  # right, left, down, up: (row, column)
_TIES = ("red", "both", "random")


class CoinGame:
    """Two players on a torus and one coin in the colour of one of them.

    Whoever steps on the coin earns 1, whatever its colour; if it was the other's colour, its owner loses 2. A taken
    coin comes back in the other colour on a free cell. So taking every coin pays at once and costs both in the end;
    taking only one's own is the cooperative outcome. The share of own coins among those taken is 50 % for the blind
    and 100 % for the considerate (Lerer & Peysakhovich 2017; Foerster et al. 2018, section 5.2).

    Parameters
    ----------
    copies
        Number of independent games.
    size
        Side of the square torus.
    horizon
        Steps after which a copy is cut off and started anew.
    generator
        The only source of randomness.
    tie
        Who takes the coin when both reach it in the same step: ``"random"`` one of them (fair), ``"both"``, or always
        ``"red"`` (player 0), which is what the released environment of Foerster et al. does.

    Actions ``int64 [copies, 2]``: 0 right, 1 left, 2 down, 3 up. Observations ``float32 [copies, 2, 4, size,
    size]``, each player's own view: planes of own place, the other's place, a coin of the own colour, a coin of the
    other's.
    ``info["own"]`` and ``info["other"]`` ``bool [copies, 2]`` say who took a coin of the own or the other's colour.

    >>> import torch
    >>> world = CoinGame(copies=3, generator=torch.Generator().manual_seed(0))
    >>> tuple(world.reset().shape)
    (3, 2, 4, 3, 3)
    """

    agents: tuple[str, str] = ("red", "blue")
    actions: int = 4

    def __init__(
        self,
        copies: int = 1,
        size: int = 3,
        horizon: int = 150,
        generator: torch.Generator | None = None,
        tie: Literal["red", "both", "random"] = "random",
    ) -> None:
        if copies < 1 or horizon < 1:
            raise ValueError(f"copies and horizon must be at least 1, got {copies} and {horizon}")
        if size < 2:
            raise ValueError(f"size must be at least 2 (two players and a coin need three cells), got {size}")
        if tie not in _TIES:
            raise ValueError(f"unknown tie rule {tie!r}: choose from {', '.join(_TIES)}")
        self.generator = torch.Generator().manual_seed(0) if generator is None else generator
        self.device = self.generator.device
        self.copies, self.size, self.horizon, self.tie = copies, size, horizon, tie
        self._moves = torch.tensor(_MOVES, device=self.device)
        self.reset()

    def reset(self) -> Float[Tensor, "copies 2 4 size size"]:
        """Start all copies: players and coin on three different cells, the coin in a random colour."""
        self.players, self.coin, self.owner = self._fresh()
        self.time = torch.zeros(self.copies, dtype=torch.int64, device=self.device)
        return self.observe()

    def observe(self) -> Float[Tensor, "copies 2 4 size size"]:
        """What the players see now; changes nothing."""
        cells = self.size * self.size
        places = torch.nn.functional.one_hot(self.players, cells).float()
        coin = torch.nn.functional.one_hot(self.coin, cells).float()
        mine = (self.owner.unsqueeze(-1) == torch.arange(2, device=self.device)).float()
        planes = torch.stack(
            [
                places,
                places.flip(1),
                mine.unsqueeze(-1) * coin.unsqueeze(1),
                (1 - mine).unsqueeze(-1) * coin.unsqueeze(1),
            ],
            2,
        )
        return planes.unflatten(-1, (self.size, self.size))

    def step(self, actions: Int[Tensor, "copies 2"]) -> GameStep:
        """Both players of every copy move at once (they may share a cell)."""
        if bool(((actions < 0) | (actions >= self.actions)).any()):
            raise ValueError("actions must be 0 (right), 1 (left), 2 (down) or 3 (up)")
        row, column = self.players // self.size, self.players % self.size
        move = self._moves[actions]
        self.players = (row + move[..., 0]) % self.size * self.size + (column + move[..., 1]) % self.size
        took = self._taken(self.players == self.coin.unsqueeze(-1))
        mine = self.owner.unsqueeze(-1) == torch.arange(2, device=self.device)
        own, other = took & mine, took & ~mine
        # The owner pays for a coin that the other player took.
        reward = took.float() - 2 * other.flip(1).float()
        gone = took.any(1)
        self.coin = torch.where(gone, self._free_cell(self.players), self.coin)
        self.owner = torch.where(gone, 1 - self.owner, self.owner)
        self.time = self.time + 1
        ended = self.time >= self.horizon
        final = self.observe()
        if bool(ended.any()):
            players, coin, owner = self._fresh()
            self.players = torch.where(ended.unsqueeze(-1), players, self.players)
            self.coin = torch.where(ended, coin, self.coin)
            self.owner = torch.where(ended, owner, self.owner)
            self.time = torch.where(ended, 0, self.time)
            obs = self.observe()
        else:
            obs = final
        return GameStep(
            obs=obs,
            reward=reward,
            terminated=torch.zeros_like(ended),
            truncated=ended,
            final_obs=final,
            info={"own": own, "other": other},
        )

    def _taken(self, on_coin: Bool[Tensor, "copies 2"]) -> Bool[Tensor, "copies 2"]:
        if self.tie == "both":
            return on_coin
        both = on_coin.all(1)
        if self.tie == "red":
            winner = torch.zeros_like(self.owner)
        else:
            winner = torch.randint(2, (self.copies,), generator=self.generator, device=self.device)
        wins = winner.unsqueeze(-1) == torch.arange(2, device=self.device)
        return torch.where(both.unsqueeze(-1), wins, on_coin)

    def _free_cell(self, taken: Int[Tensor, "copies 2"]) -> Int[Tensor, " copies"]:
        score = torch.rand(self.copies, self.size * self.size, generator=self.generator, device=self.device)
        return score.scatter(1, taken, -1.0).argmax(1)

    def _fresh(self) -> tuple[Tensor, Tensor, Tensor]:
        score = torch.rand(self.copies, self.size * self.size, generator=self.generator, device=self.device)
        cells = score.argsort(1)
        owner = torch.randint(2, (self.copies,), generator=self.generator, device=self.device)
        return cells[:, :2], cells[:, 2], owner
