"""Small worlds that count, for the tests of adapters and wrappers."""

from typing import Any

import torch
from torch import Tensor

from assay.envs.base import Obs, TensorEnv, TensorMultiEnv


class Counter(TensorEnv):
    """Counts steps: observes (episode number, step, a random tag of the episode, the last action).

    Reward: the step's number. Terminates after `length` steps; action 2 terminates at once.
    """

    state_names = ("episode", "count", "tag", "acted")
    num_actions = 3
    obs_shape = (4,)

    def __init__(self, num_envs: int, length: int = 5, **kwargs: Any):
        super().__init__(num_envs, **kwargs)
        self.length = length
        self.episode = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        self.count = torch.zeros_like(self.episode)
        self.tag = torch.zeros(num_envs, device=self.device)
        self.acted = torch.full_like(self.episode, -1)

    def seed(self, seed: int) -> None:
        super().seed(seed)
        self.episode = torch.zeros_like(self.episode)

    def _reset_rows(self, mask: Tensor) -> None:
        self.episode = self.episode + mask
        self.count = self.count.masked_fill(mask, 0)
        self.acted = self.acted.masked_fill(mask, -1)
        self.tag = torch.where(mask, self.uniform(), self.tag)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        self.count = self.count + 1
        self.acted = action.clone()
        over = (self.count >= self.length) | (action == 2)
        return self.count.float(), over, {"count": self.count, "success": action == 2}

    def observe(self) -> Obs:
        return torch.stack((self.episode.float(), self.count.float(), self.tag, self.acted.float()), 1)

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return spaces.Box(-1.0, 1e6, (4,)), spaces.Discrete(3)

    def tabular(self) -> Any:
        from assay.envs.base import Tabular

        states = self.length + 1
        return Tabular(
            torch.zeros(states, 3, states).double(),
            torch.zeros(states, 3).double(),
            torch.zeros(states).double(),
            torch.zeros(states).bool(),
        )

    def state_index(self) -> Tensor:
        return self.count


class Painting(Counter):
    """The counter as a picture [2, 4, 5] uint8 that shows the step."""

    obs_shape = (2, 4, 5)

    def observe(self) -> Obs:
        return self.count.to(torch.uint8)[:, None, None, None].expand(-1, 2, 4, 5).clone() + 1

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return spaces.Box(0, 255, (2, 4, 5), "uint8"), spaces.Discrete(3)

    def render(self, i: int = 0) -> Tensor:
        return torch.full((8, 8, 3), int(self.count[i]), dtype=torch.uint8)


class Pair(Counter):
    """The counter as a dictionary of observations."""

    obs_shape = ()

    def observe(self) -> Obs:
        return {"flat": super().observe(), "steps": self.count.clone()}  # type: ignore[dict-item]

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        flat = spaces.Box(-1.0, 1e6, (4,))
        return spaces.Dict({"flat": flat, "steps": spaces.Discrete(100)}), spaces.Discrete(3)


class Two(TensorMultiEnv):
    """Two agents; each is paid its own action."""

    state_names = ("count",)
    agents = ("left", "right")
    num_actions = 3
    obs_shape = (2, 2)

    def __init__(self, num_envs: int, length: int = 4, **kwargs: Any):
        super().__init__(num_envs, **kwargs)
        self.length = length
        self.count = torch.zeros(num_envs, dtype=torch.int64)

    def _reset_rows(self, mask: Tensor) -> None:
        self.count = self.count.masked_fill(mask, 0)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        self.count = self.count + 1
        return action.float(), self.count >= self.length, {"moves": action}

    def observe(self) -> Obs:
        who = torch.tensor([0.0, 1.0]).expand(self.num_envs, 2)
        return torch.stack((who, self.count[:, None].expand(-1, 2).float()), -1)

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return spaces.Box(0.0, 1e6, (2,)), spaces.Discrete(3)
