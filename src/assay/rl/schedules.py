"""Coefficients that change with experience: callables of consumed environment steps, never of updates.

A schedule in updates changes its meaning with the number of copies, the length of a rollout and the number of actors;
one in environment steps does not.

    >>> entropy = Linear(0.01, 0.0, steps=1_000_000)
    >>> entropy(250_000)
    0.0075
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@runtime_checkable
class Schedule(Protocol):
    """A coefficient as a function of environment steps."""

    def __call__(self, env_steps: float) -> float:
        """The value after so many steps."""
        ...


def _whole(env_steps: float) -> float:
    if not env_steps >= 0:
        raise ValueError(f"environment steps count from 0: got {env_steps}")
    return env_steps


@dataclass(frozen=True)
class Constant:
    """The same value for ever."""

    value: float

    def __call__(self, env_steps: float) -> float:
        """The value."""
        _whole(env_steps)
        return self.value


@dataclass(frozen=True)
class Linear:
    """From `start` to `end` in a straight line over `steps` environment steps, the first `begin` of all at `start`.

    Raises:
        ValueError: steps <= 0 or begin < 0.
    """

    start: float
    end: float
    steps: float
    begin: float = 0

    def __post_init__(self) -> None:
        if self.steps <= 0 or self.begin < 0:
            raise ValueError(f"a line needs steps > 0 and begin >= 0: got {self.steps}, {self.begin}")

    def __call__(self, env_steps: float) -> float:
        """The value after so many steps."""
        done = min(max((_whole(env_steps) - self.begin) / self.steps, 0.0), 1.0)
        return self.start * (1 - done) + self.end * done


@dataclass(frozen=True)
class Exponential:
    """`start` times one half every `half_life` environment steps, never nearer to zero than `floor`.

    Raises:
        ValueError: half_life <= 0 or floor < 0.
    """

    start: float
    half_life: float
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.half_life <= 0 or self.floor < 0:
            raise ValueError(f"decay needs half_life > 0 and floor >= 0: got {self.half_life}, {self.floor}")

    def __call__(self, env_steps: float) -> float:
        """The value after so many steps."""
        size = abs(self.start) * 0.5 ** (_whole(env_steps) / self.half_life)
        return math.copysign(max(size, min(self.floor, abs(self.start))), self.start)


@dataclass(frozen=True)
class Piecewise:
    """Straight lines between points (env_steps, value); constant before the first and after the last.

    Two points at one step make a jump: from that step on the later one holds.

    Raises:
        ValueError: no points, or steps that fall.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        steps = [step for step, _ in self.points]
        if not steps or steps != sorted(steps):
            raise ValueError(f"give points (env_steps, value) with rising steps: got {self.points}")

    def __call__(self, env_steps: float) -> float:
        """The value after so many steps."""
        now = _whole(env_steps)
        before = [point for point in self.points if point[0] <= now]
        after = [point for point in self.points if point[0] > now]
        if not before:
            return after[0][1]
        if not after:
            return before[-1][1]
        (t0, v0), (t1, v1) = before[-1], after[0]
        done = (now - t0) / (t1 - t0)
        return v0 * (1 - done) + v1 * done


def as_schedule(value: float | Schedule) -> Schedule:
    """A number as a constant schedule; a schedule as it is."""
    return Constant(float(value)) if isinstance(value, int | float) else value
