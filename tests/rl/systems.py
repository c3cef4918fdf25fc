"""What actors in other processes build: functions of a module, so that they can be pickled."""

import time

import torch
from torch import Tensor

from assay.rl.policies import ActorCritic, actor_critic
from tests.rl.worlds import Line


def line(index: int) -> Line:
    """A line of two copies, seeded by the actor."""
    return Line(2, length=4, max_steps=7, generator=torch.Generator().manual_seed(index))


def policy() -> ActorCritic:
    """Always the same first weights."""
    return actor_critic(Line(2), hidden=(8,), generator=torch.Generator().manual_seed(0))


def memory_policy() -> ActorCritic:
    """With an LSTM."""
    return actor_critic(Line(2), hidden=(8,), lstm=4, generator=torch.Generator().manual_seed(0))


class Faulty(Line):
    """Breaks after some steps."""

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        if int(self.elapsed.max()) >= 3:
            raise ArithmeticError("the world broke")
        return super()._step(action)


def faulty(index: int) -> Line:
    """Actor 2's world breaks."""
    return (Faulty if index == 2 else Line)(2, length=50)


class Slow(Line):
    """Waits at every step, actor 0 longest."""

    wait = 0.0

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        time.sleep(self.wait)
        return super()._step(action)


def slow(index: int) -> Line:
    """A world that takes two milliseconds a step."""
    world = Slow(2, length=4, max_steps=7)
    world.wait = 0.002
    return world
