"""Small worlds whose every number is known."""

from typing import Any

import torch
from torch import Tensor

from assay.envs.base import Step, TensorEnv


class Line(TensorEnv):
    """Walk a line of `length` cells; action 1 goes right. The right end terminates and pays 1.

    The observation is the position; so a reset observation can be told from a last one.
    """

    state_names = ("position",)
    num_actions = 2
    obs_shape = (1,)

    def __init__(self, num_envs: int, length: int = 5, **options: Any):
        super().__init__(num_envs, **options)
        self.length = length
        self.position = torch.zeros(num_envs, dtype=torch.int64, device=self.device)

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return spaces.Box(0, self.length, (1,)), spaces.Discrete(2)

    def _reset_rows(self, mask: Tensor) -> None:
        self.position = torch.where(mask, 0, self.position)

    def observe(self) -> Tensor:
        return self.position[:, None].float()

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        self.position = (self.position + 2 * action - 1).clamp(min=0)
        there = self.position >= self.length
        return there.float(), there, {"where": self.position}


class Memory(TensorEnv):
    """Shows a bit once, then asks for it three steps later: solvable with memory only."""

    state_names = ("bit", "clock")
    num_actions = 2
    obs_shape = (2,)
    delay = 3

    def __init__(self, num_envs: int, **options: Any):
        super().__init__(num_envs, **options)
        self.bit = self.integers(2)
        self.clock = torch.zeros_like(self.bit)

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return spaces.Box(-1, 1, (2,)), spaces.Discrete(2)

    def _reset_rows(self, mask: Tensor) -> None:
        self.bit = torch.where(mask, self.integers(2), self.bit)
        self.clock = torch.where(mask, 0, self.clock)

    def observe(self) -> Tensor:
        shown = torch.where(self.clock == 0, 2.0 * self.bit - 1, 0.0)
        return torch.stack([shown, (self.clock == self.delay).float()], 1)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        asked = self.clock == self.delay
        reward = asked * torch.where(action == self.bit, 1.0, -1.0)
        self.clock = self.clock + 1
        return reward, asked, {}


class NextStepReset(Line):
    """Autoreset as Gymnasium's default does it: the step after an end is a dummy that returns the reset observation."""

    def __init__(self, num_envs: int, **options: Any):
        super().__init__(num_envs, **options)
        self.waiting = torch.zeros(num_envs, dtype=torch.bool)

    def step(self, action: Tensor) -> Step:
        dummy = self.waiting
        step = super().step(torch.where(dummy, 0, action))
        # The inner world resets at once; show the last observation for one step more, then a dummy row.
        position = torch.where(dummy, 0, self.position)
        self.position = position
        obs = torch.where(step.ended[:, None], step.final_obs, position[:, None].float())
        ended = step.ended & ~dummy
        self.waiting = ended
        return Step(
            obs,
            torch.where(dummy, 100.0, step.reward),  # poison: no loss may see it
            step.terminated & ~dummy,
            step.truncated & ~dummy,
            obs,
            {"valid": ~dummy},
        )
