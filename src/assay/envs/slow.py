"""Worlds that keep their agent waiting: what simulators, robots and remote services are like."""

import time
from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

from assay.envs.base import Generators, TensorEnv
from assay.envs.wrappers import Wrapper

_AHEAD = 64
"""Steps whose times are drawn at once."""


class SlowEnv(Wrapper):
    """Waits a log-normal time before every step; the copies wait side by side, so a step takes as long as the slowest.

    The waiting is a sleep: it uses no processor, and other threads run meanwhile. Observations, rewards and the
    environment's own draws are those of the wrapped world; the times come from the wrapper's own stream.

    Args:
        env: what to wrap.
        mean: seconds that one copy takes on average.
        sigma: standard deviation of the time's logarithm; 0: every step takes exactly `mean`. (With 1 one step in
            twenty takes more than three times the mean.)
        generator: of the times; None: derived from the seeds of `env`.

    Raises:
        ValueError: a negative mean or sigma.

    Example:
        >>> from assay.envs import Catch
        >>> world = SlowEnv(Catch(2), mean=0.001, sigma=1.0)
        >>> world.waiting().shape  # seconds of a next step, one a copy
        torch.Size([2, 1])
    """

    def __init__(
        self, env: TensorEnv, mean: float = 0.005, sigma: float = 1.0, generator: Generators | None = None
    ):
        if not (mean >= 0 and sigma >= 0):
            raise ValueError(f"mean (seconds) and sigma are not negative: got mean={mean}, sigma={sigma}")
        super().__init__(env, generator)
        self.mean, self.sigma = mean, sigma
        self.waited = 0.0
        """Seconds slept so far."""
        self._next: Iterator[float] = iter(())

    def waiting(self, steps: int = 1) -> Float[Tensor, "envs {steps}"]:
        """Drawn seconds that each copy's next steps take."""
        # A log-normal's mean is exp(mu + sigma^2 / 2).
        return self.mean * (self.sigma * self.normal(steps) - self.sigma**2 / 2).exp()

    def _seed_own(self, seed: int) -> None:
        super()._seed_own(seed)
        self._next = iter(())

    def _act(self, action: Tensor) -> Tensor:
        seconds = self.mean
        if self.sigma:
            found = next(self._next, None)
            if (
                found is None
            ):  # drawn ahead, for a draw at every step would cost more than a fast world's step
                self._next = iter(self.waiting(_AHEAD).amax(0).tolist())
                found = next(self._next)
            seconds = found
        time.sleep(seconds)
        self.waited += seconds
        return action
