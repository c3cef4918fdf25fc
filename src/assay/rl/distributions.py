r"""Action distributions that cost a few tensor operations: what a policy head returns.

`torch.distributions` validates and builds objects at every step; acting in thousands of copies needs neither. Each
class holds its parameters in one tensor (`params`), so a rollout can store the behaviour distribution and build it
again later. Sampling takes a generator and never touches torch's global one.
"""

import abc
import math

import torch
from torch import Tensor
from torch.nn import functional as F

_LOG_TWO_PI = math.log(2 * math.pi)


class ActionDistribution(abc.ABC):
    """A batch of distributions over actions, with any leading dimensions."""

    params: Tensor
    """[..., P]: the parameters, in one tensor."""

    @abc.abstractmethod
    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One action a row."""

    @abc.abstractmethod
    def log_prob(self, action: Tensor) -> Tensor:
        """[...]: log-probability (density) of the actions."""

    @abc.abstractmethod
    def entropy(self) -> Tensor:
        """[...] in nats."""

    @abc.abstractmethod
    def mode(self) -> Tensor:
        """The likeliest action."""


class Categorical(ActionDistribution):
    """Over A actions, from unnormalised `logits` [..., A]; where `mask` [..., A] is False, never taken.

    Raises:
        ValueError: the mask leaves a row without any action.
    """

    def __init__(self, logits: Tensor, mask: Tensor | None = None):
        if mask is not None:
            if not bool(mask.any(-1).all()):
                raise ValueError("an action mask must leave at least one legal action in every row")
            # Finite: an infinite logit times a zero probability gives NaN in entropy and gradients.
            logits = logits.masked_fill(~mask, -1e9)
        self.params = logits
        self._logp: Tensor | None = None

    @property
    def logp(self) -> Tensor:
        """[..., A]: log-probabilities."""
        if self._logp is None:
            self._logp = F.log_softmax(self.params, -1)
        return self._logp

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """[...] int64. Exponential race: the smallest E_a / p_a wins with probability p_a."""
        noise = torch.empty_like(self.params).exponential_(generator=generator)
        return (self.params - noise.log_()).argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """[...]."""
        return self.logp.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """[...] in nats."""
        return -(self.logp.exp() * self.logp).sum(-1)

    def mode(self) -> Tensor:
        """[...] int64: the likeliest action."""
        return self.params.argmax(-1)


class MultiCategorical(ActionDistribution):
    """k independent categorical choices: `logits` [..., sum(sizes)], actions [..., k]."""

    def __init__(self, logits: Tensor, sizes: tuple[int, ...]):
        if logits.shape[-1] != sum(sizes):
            raise ValueError(f"choices among {sizes} need {sum(sizes)} logits: got {logits.shape[-1]}")
        self.params, self.sizes = logits, sizes
        self.parts = [Categorical(part) for part in logits.split(sizes, -1)]

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """[..., k]."""
        return torch.stack([part.sample(generator) for part in self.parts], -1)

    def log_prob(self, action: Tensor) -> Tensor:
        """[...]: sum over the choices."""
        pairs = zip(self.parts, action.unbind(-1), strict=True)
        return torch.stack([part.log_prob(choice) for part, choice in pairs], -1).sum(-1)

    def entropy(self) -> Tensor:
        """[...]: sum over the choices."""
        return torch.stack([part.entropy() for part in self.parts], -1).sum(-1)

    def mode(self) -> Tensor:
        """[..., k]."""
        return torch.stack([part.mode() for part in self.parts], -1)


class DiagGaussian(ActionDistribution):
    r"""Independent normals with `mean` and `log_std` [..., d]; `squash` sends samples through tanh into (-1, 1).

    The squashed log-density has the change of variables $-\sum_i \log(1 - a_i^2)$ (SAC, appendix C). Its entropy has
    no closed form; `entropy` then is the normal's own, before squashing.
    """

    def __init__(self, mean: Tensor, log_std: Tensor, squash: bool = False):
        self.mean, self.log_std, self.squash = mean, log_std.expand_as(mean), squash
        self.params = torch.cat([self.mean, self.log_std], -1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """[..., d], without gradient."""
        return self.rsample(generator).detach()

    def rsample(self, generator: torch.Generator | None = None) -> Tensor:
        """[..., d], differentiable in mean and standard deviation."""
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        x = self.mean + self.log_std.exp() * noise
        return torch.tanh(x) if self.squash else x

    def log_prob(self, action: Tensor) -> Tensor:
        """[...]: log-density."""
        if self.squash:
            # Tanh saturates in float32: pull the action inside by one part in ten million.
            inside = action.clamp(-1 + 1e-7, 1 - 1e-7)
            x, stretch = torch.atanh(inside), torch.log1p(-inside.square()).sum(-1)
        else:
            x, stretch = action, action.new_zeros(())
        z = (x - self.mean) * (-self.log_std).exp()
        return (-0.5 * (z.square() + _LOG_TWO_PI) - self.log_std).sum(-1) - stretch

    def entropy(self) -> Tensor:
        """[...] in nats (of the normal, before any squashing)."""
        return (self.log_std + 0.5 * (1 + _LOG_TWO_PI)).sum(-1)

    def mode(self) -> Tensor:
        """[..., d]."""
        return torch.tanh(self.mean) if self.squash else self.mean


class UniformBox(ActionDistribution):
    """Uniform in a box: `params` [..., 2 d] are its low and high corners side by side."""

    def __init__(self, params: Tensor):
        self.params = params
        self.low, self.high = params.chunk(2, -1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """[..., d]."""
        return self.low + (self.high - self.low) * torch.empty_like(self.low).uniform_(generator=generator)

    def log_prob(self, action: Tensor) -> Tensor:
        """[...]: minus the log-volume inside the box, minus infinity outside."""
        inside = ((action >= self.low) & (action <= self.high)).all(-1)
        return torch.where(inside, -self.entropy(), -torch.inf)

    def entropy(self) -> Tensor:
        """[...]: the log-volume."""
        return (self.high - self.low).log().sum(-1)

    def mode(self) -> Tensor:
        """[..., d]: the middle (every point is as likely)."""
        return (self.low + self.high) / 2
