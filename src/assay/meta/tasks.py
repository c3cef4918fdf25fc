"""Three families of small tasks whose structure is known: linear maps, Fourier series, contextual bandits.

The families of Rabinowitz (2019), "Meta-learners' learning dynamics are unlike learners'" (arXiv 1905.01320). Each task
is a draw from a prior, each draw of a task a sequence of examples, all as batched tensors.
"""

from typing import Any, NamedTuple, SupportsInt

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from assay._extras import require

__all__ = [
    "BanditTasks",
    "ContextBandit",
    "FourierBatch",
    "FourierTasks",
    "LinearBatch",
    "LinearTasks",
    "as_gymnasium",
    "fourier_features",
    "random_orthogonal",
    "visit_numbers",
]


def _positive(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _scale(name: str, value: float, zero: bool = False) -> float:
    if not (value > 0 or (zero and value == 0)) or value == float("inf"):
        raise ValueError(f"{name} must be {'zero or ' if zero else ''}positive and finite, got {value}")
    return float(value)


def random_orthogonal(
    n: int, size: int, generator: torch.Generator | None = None, device: torch.device | str | None = None
) -> Float[Tensor, "n size size"]:
    """`n` orthogonal matrices drawn uniformly (Haar): QR of Gaussian matrices, signs fixed (Mezzadri 2007).

    >>> q = random_orthogonal(4, 3)
    >>> bool(torch.allclose(q @ q.mT, torch.eye(3).expand(4, 3, 3), atol=1e-5))
    True
    """
    device = generator.device if generator is not None and device is None else device
    q, r = torch.linalg.qr(torch.randn(n, size, size, generator=generator, device=device))
    return q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)


class LinearBatch(NamedTuple):
    """Sequences of linear regression, one task each."""

    weight: Float[Tensor, "n ny nx"]
    x: Float[Tensor, "n steps nx"]
    y: Float[Tensor, "n steps ny"]


class LinearTasks:
    """Linear regression: $y = W x + \\sigma\\epsilon$ with $x, \\epsilon \\sim N(0, I)$.

    Parameters
    ----------
    nx, ny
        Sizes of inputs and targets.
    sigma
        Standard deviation of the noise on targets; 0 is allowed.
    prior_scale
        Entries of $W$ are $N(0, \\text{prior\\_scale}^2)$.
    spectrum
        Singular values, largest first, ``min(nx, ny)`` of them: then $W = \\text{prior\\_scale}\\; U S V^\\top$ with
        $U$ and $V$ uniformly orthogonal, for experiments that need modes of known strength.

    >>> batch = LinearTasks(3, 2, sigma=0.1).sample(8, steps=20, generator=torch.Generator().manual_seed(0))
    >>> tuple(batch.weight.shape), tuple(batch.x.shape), tuple(batch.y.shape)
    ((8, 2, 3), (8, 20, 3), (8, 20, 2))
    """

    def __init__(
        self,
        nx: int,
        ny: int,
        sigma: float = 0.1,
        prior_scale: float = 1.0,
        spectrum: tuple[float, ...] | None = None,
    ) -> None:
        _positive(nx=nx, ny=ny)
        self.nx, self.ny = nx, ny
        self.sigma = _scale("sigma", sigma, zero=True)
        self.prior_scale = _scale("prior_scale", prior_scale)
        if spectrum is not None:
            if len(spectrum) != min(nx, ny) or any(s <= 0 for s in spectrum):
                raise ValueError(
                    f"spectrum needs min(nx, ny) = {min(nx, ny)} positive values, got {spectrum}"
                )
            if sorted(spectrum, reverse=True) != list(spectrum):
                raise ValueError(f"spectrum goes from the largest value to the smallest, got {spectrum}")
        self.spectrum = spectrum

    @property
    def x_dim(self) -> int:
        """Inputs of a learner."""
        return self.nx

    @property
    def y_dim(self) -> int:
        """Targets of a learner."""
        return self.ny

    def weights(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n ny nx"]:
        """The maps of `n` tasks."""
        device = None if generator is None else generator.device
        if self.spectrum is None:
            return self.prior_scale * torch.randn(n, self.ny, self.nx, generator=generator, device=device)
        rank = len(self.spectrum)
        u = random_orthogonal(n, self.ny, generator, device)[..., :rank]
        v = random_orthogonal(n, self.nx, generator, device)[..., :rank]
        return self.prior_scale * (u * torch.tensor(self.spectrum, device=device)) @ v.mT

    def sample(self, n: int, steps: int, generator: torch.Generator | None = None) -> LinearBatch:
        """`n` fresh tasks with `steps` examples each, on the generator's device."""
        _positive(n=n, steps=steps)
        device = None if generator is None else generator.device
        weight = self.weights(n, generator)
        x = torch.randn(n, steps, self.nx, generator=generator, device=device)
        noise = torch.randn(n, steps, self.ny, generator=generator, device=device)
        return LinearBatch(weight, x, x @ weight.mT + self.sigma * noise)


def fourier_features(theta: Float[Tensor, "*batch"], low: int, high: int) -> Float[Tensor, "*batch features"]:
    """$\\cos k\\theta$ for k = low .. high, then $\\sin k\\theta$: 2 (high - low + 1) features."""
    angle = theta.unsqueeze(-1) * torch.arange(low, high + 1, device=theta.device)
    return torch.cat([angle.cos(), angle.sin()], -1)


class FourierBatch(NamedTuple):
    """Sequences of one-dimensional regression, one function each."""

    coefficients: Complex[Tensor, "n frequencies"]
    """$a_k - i b_k$ for the frequencies of the band."""
    theta: Float[Tensor, "n steps"]
    x: Float[Tensor, "n steps 2"]
    """$\\cos\\theta, \\sin\\theta$: what learners see."""
    y: Float[Tensor, "n steps 1"]


class FourierTasks:
    """Nonlinear regression on a circle: $f(\\theta) = \\sum_k a_k\\cos k\\theta + b_k\\sin k\\theta$.

    Angles are uniform on $[0, 2\\pi)$.

    Parameters
    ----------
    k
        Highest frequency of the band 1..k.
    sigma
        Standard deviation of the noise; 0 is allowed.
    band
        (lowest, highest) frequency instead of (1, k), for functions outside the band that was trained on.
    amplitude
        None: $a_k, b_k \\sim N(0, 1)$. A number: $a_k^2 + b_k^2$ is its square in every frequency and only the phase is
        random, as a fixed spectrum of singular values is for linear maps; the prior's root mean square is $\\sqrt 2$.

    >>> batch = FourierTasks(3, sigma=0.1).sample(8, steps=24, generator=torch.Generator().manual_seed(0))
    >>> tuple(batch.coefficients.shape), tuple(batch.x.shape), tuple(batch.y.shape)
    ((8, 3), (8, 24, 2), (8, 24, 1))
    """

    x_dim = 2
    """Inputs of a learner."""
    y_dim = 1
    """Targets of a learner."""

    def __init__(
        self,
        k: int,
        sigma: float = 0.1,
        band: tuple[int, int] | None = None,
        amplitude: float | None = None,
    ) -> None:
        _positive(k=k)
        self.low, self.high = (1, k) if band is None else band
        if not 1 <= self.low <= self.high:
            raise ValueError(f"band is (lowest, highest) frequency with 1 <= lowest <= highest, got {band}")
        self.sigma = _scale("sigma", sigma, zero=True)
        self.amplitude = None if amplitude is None else _scale("amplitude", amplitude)

    def coefficients(
        self, n: int, generator: torch.Generator | None = None
    ) -> Complex[Tensor, "n frequencies"]:
        """$a_k - i b_k$ of `n` functions."""
        device = None if generator is None else generator.device
        count = self.high - self.low + 1
        a, b = torch.randn(2, n, count, generator=generator, device=device)
        coefficients = torch.complex(a, -b)
        if self.amplitude is None:
            return coefficients
        return self.amplitude * coefficients / coefficients.abs()

    def function(
        self, coefficients: Complex[Tensor, "n frequencies"], theta: Float[Tensor, "n points"]
    ) -> Float[Tensor, "n points"]:
        """The functions' true values at `theta`."""
        parts = torch.cat([coefficients.real, -coefficients.imag], -1)
        return (fourier_features(theta, self.low, self.high) @ parts.unsqueeze(-1)).squeeze(-1)

    def sample(self, n: int, steps: int, generator: torch.Generator | None = None) -> FourierBatch:
        """`n` fresh functions with `steps` noisy values each, on the generator's device."""
        _positive(n=n, steps=steps)
        device = None if generator is None else generator.device
        coefficients = self.coefficients(n, generator)
        theta = 2 * torch.pi * torch.rand(n, steps, generator=generator, device=device)
        noise = torch.randn(n, steps, generator=generator, device=device)
        y = self.function(coefficients, theta) + self.sigma * noise
        return FourierBatch(coefficients, theta, fourier_features(theta, 1, 1), y.unsqueeze(-1))


class BanditTasks(NamedTuple):
    """Episodes of the contextual bandit, one task each."""

    correct: Int[Tensor, "n contexts"]
    """The one rewarded action of each context."""
    contexts: Int[Tensor, "n steps"]
    """The context shown at each step."""


class ContextBandit:
    """Several contexts, several actions, one rewarded action in each context; many copies at once.

    A task draws the rewarded action of every context uniformly and independently; each step draws a context uniformly.
    Reward is 1 for the rewarded action and else 0, without noise.

    >>> world = ContextBandit(contexts=3, actions=3)
    >>> tasks = world.sample(4, steps=30, generator=torch.Generator().manual_seed(0))
    >>> obs = world.reset(tasks)
    >>> obs, reward, done = world.step(torch.zeros(4, dtype=torch.int64))
    >>> tuple(obs.shape), tuple(reward.shape), done
    ((4, 7), (4,), False)
    """

    def __init__(self, contexts: int, actions: int) -> None:
        _positive(contexts=contexts)
        if actions < 2:
            raise ValueError(f"a choice needs at least 2 actions, got {actions}")
        self.contexts, self.actions = contexts, actions
        self.tasks: BanditTasks | None = None
        self.time = 0

    @property
    def obs_dim(self) -> int:
        """Context, last action (both one-hot) and last reward."""
        return self.contexts + self.actions + 1

    def sample(self, n: int, steps: int, generator: torch.Generator | None = None) -> BanditTasks:
        """`n` fresh tasks of `steps` steps, on the generator's device."""
        _positive(n=n, steps=steps)
        device = None if generator is None else generator.device
        correct = torch.randint(self.actions, (n, self.contexts), generator=generator, device=device)
        shown = torch.randint(self.contexts, (n, steps), generator=generator, device=device)
        return BanditTasks(correct, shown)

    def reset(self, tasks: BanditTasks) -> Float[Tensor, "n obs"]:
        """Start these tasks; the first observation shows a context and no last action."""
        self.tasks, self.time = tasks, 0
        n = len(tasks.correct)
        blank = torch.zeros(n, self.actions + 1, device=tasks.correct.device)
        return torch.cat([self._context(), blank], -1)

    def step(self, action: Int[Tensor, " n"]) -> tuple[Float[Tensor, "n obs"], Float[Tensor, " n"], bool]:
        """Act in all copies: the next observation, the rewards, and whether the episode is over.

        After the last step the observation's context is all zeros.
        """
        if self.tasks is None or self.time >= self.tasks.contexts.shape[1]:
            raise ValueError("the episode is over or has not begun: call reset first")
        if bool(((action < 0) | (action >= self.actions)).any()):
            raise ValueError(f"actions lie in 0 .. {self.actions - 1}")
        reward = self.reward(self.tasks, self.time, action)
        self.time += 1
        chosen = torch.nn.functional.one_hot(action, self.actions).float()
        obs = torch.cat([self._context(), chosen, reward.unsqueeze(-1)], -1)
        return obs, reward, self.time == self.tasks.contexts.shape[1]

    def reward(self, tasks: BanditTasks, time: int, action: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """What `action` earns in the context of step `time`."""
        right = tasks.correct.gather(1, tasks.contexts[:, time : time + 1]).squeeze(1)
        return (action == right).float()

    def _context(self) -> Tensor:
        assert self.tasks is not None
        shown = self.tasks.contexts
        if self.time == shown.shape[1]:
            return torch.zeros(len(shown), self.contexts, device=shown.device)
        return torch.nn.functional.one_hot(shown[:, self.time], self.contexts).float()


def visit_numbers(contexts: Int[Tensor, "n steps"], count: int) -> Int[Tensor, "n steps"]:
    """How often each step's context has been shown up to and with that step: 1 at its first visit.

    >>> visit_numbers(torch.tensor([[0, 1, 0, 0]]), 2).tolist()
    [[1, 1, 2, 3]]
    """
    shown = torch.nn.functional.one_hot(contexts, count)
    return (shown.cumsum(1) * shown).sum(-1)


def as_gymnasium(bandit: ContextBandit, steps: int = 30, seed: int = 0) -> Any:
    """One copy of the bandit as a `gymnasium.Env` (the extra ``rl``): a task an episode.

    Observations are float32 vectors in [0, 1] (context and last action one-hot, last reward), actions
    ``Discrete(actions)``; an episode is truncated after `steps`, never terminated. `info` of a step holds the rewarded
    action of the context that was answered.

    >>> world = as_gymnasium(ContextBandit(2, 3), steps=5)
    >>> obs, info = world.reset(seed=1)
    >>> world.step(0)[2:4]
    (False, False)
    """
    gymnasium = require("gymnasium", "rl")

    class BanditEnv(gymnasium.Env):  # type: ignore[misc,name-defined]
        metadata = {"render_modes": []}

        def __init__(self) -> None:
            self.world = ContextBandit(bandit.contexts, bandit.actions)
            self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (bandit.obs_dim,), np.float32)
            self.action_space = gymnasium.spaces.Discrete(bandit.actions)
            self.source = torch.Generator().manual_seed(seed)

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[Any, dict]:
            super().reset(seed=seed)
            if seed is not None:
                self.source.manual_seed(seed)
            return self.world.reset(self.world.sample(1, steps, self.source))[0].numpy(), {}

        def step(self, action: SupportsInt) -> tuple[Any, float, bool, bool, dict]:
            tasks, time = self.world.tasks, self.world.time
            obs, reward, done = self.world.step(torch.tensor([int(action)]))
            right = int(tasks.correct[0, tasks.contexts[0, time]])  # type: ignore[union-attr]
            return obs[0].numpy(), float(reward[0]), False, done, {"correct": right}

    return BanditEnv()
