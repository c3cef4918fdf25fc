r"""Running statistics: of observations (`RunningMeanStd`) and of discounted returns (`ReturnNormalizer`).

Batches are merged by the formula of Chan, Golub and LeVeque in float64: the result does not depend on how the data were
split into batches, and the variance is still right after 1e8 samples. (A float32 count stops growing at 1.7e7.)
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from assay.rl.returns import check_unit, reverse_scan, trailing


def merge_moments(
    count: Tensor, mean: Tensor, m2: Tensor, other_count: Tensor, other_mean: Tensor, other_m2: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Counts, means and sums of squared deviations of two samples, joined (Chan et al. 1979), elementwise.

    Args:
        count: of the first sample; 0 is allowed, for either.
        mean: its mean.
        m2: its sum of squared deviations from that mean.
        other_count: of the second.
        other_mean: of the second.
        other_m2: of the second.

    Returns:
        (count, mean, m2) of both together.
    """
    total = count + other_count
    share = other_count / total.clamp(min=1e-300)
    apart = other_mean - mean
    return total, mean + apart * share, m2 + other_m2 + apart.square() * count * share


class DoubleBuffers(nn.Module):
    """A module whose float64 buffers stay float64 when it is cast (`.half()`, `.to(torch.bfloat16)`)."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, old in before.items():
            new = self._buffers[name]
            if old is not None and new is not None and old.dtype == torch.float64 != new.dtype:
                self._buffers[name] = old.to(new.device)
        return self


class RunningMeanStd(DoubleBuffers):
    """Mean and variance of everything seen so far, elementwise over a shape.

    Buffers (float64, saved with the module, kept in float64 by casts): `count` [], `mean` and `var` [*shape].
    Gather statistics before the first use, from some thousand random steps: `normalize` refuses to guess.

    Args:
        shape: shape of one sample; () for a number.
        eps: added to the variance before the root.

    Example:
        >>> stats = RunningMeanStd((2,))
        >>> stats.update(torch.tensor([[0.0, 10.0], [2.0, 30.0]]))
        >>> stats.normalize(torch.tensor([[1.0, 40.0]]), clip=5.0)
        tensor([[0., 2.]])
    """

    count: Tensor
    mean: Tensor
    var: Tensor
    frozen: Tensor

    def __init__(self, shape: tuple[int, ...] = (), eps: float = 1e-8):
        super().__init__()
        self.shape, self.eps = tuple(shape), eps
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(self.shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(self.shape, dtype=torch.float64))
        self.register_buffer("frozen", torch.zeros((), dtype=torch.bool))

    def extra_repr(self) -> str:
        """Shape."""
        return f"shape={self.shape}"

    @property
    def std(self) -> Tensor:
        """[*shape] float64: root of the variance (of the population), `eps` included."""
        return (self.var + self.eps).sqrt()

    def _check(self, x: Tensor) -> None:
        if len(self.shape) > x.ndim or tuple(x.shape[x.ndim - len(self.shape) :]) != self.shape:
            raise ValueError(f"samples must end in the shape {self.shape}: got {tuple(x.shape)}")

    @torch.no_grad()
    def update(self, x: Float[Tensor, "..."], mask: Bool[Tensor, "..."] | None = None) -> None:
        """Take in a batch; nothing happens while frozen.

        Args:
            x: [..., *shape], any number of leading dimensions.
            mask: [...] rows that count; the others may hold anything.

        Raises:
            ValueError: a wrong shape, or values that are not finite (the statistics stay as they were).
        """
        self._check(x)
        if bool(self.frozen):
            return
        rows = x.detach().double().reshape(-1, *self.shape)
        if mask is not None:
            leading = x.shape[: x.ndim - len(self.shape)]
            if mask.shape != leading:
                raise ValueError(
                    f"the mask needs the leading shape {tuple(leading)}: got {tuple(mask.shape)}"
                )
            rows = rows[mask.reshape(-1)]
        if not len(rows):
            return
        var, mean = torch.var_mean(rows, 0, correction=0)
        if not bool(var.isfinite().all()):
            raise ValueError("samples must be finite: got NaN or infinity")
        self._take(mean.new_tensor(float(len(rows))), mean, var)

    def _take(self, count: Tensor, mean: Tensor, var: Tensor) -> None:
        total, mean, m2 = merge_moments(
            self.count, self.mean, self.var * self.count, count, mean, var * count
        )
        self.count.copy_(total)
        self.mean.copy_(mean)
        self.var.copy_(m2 / total)

    @torch.no_grad()
    def merge(self, others: Iterable["RunningMeanStd"]) -> None:
        """Take in what other instances saw (workers that saw different data since they were empty).

        Raises:
            ValueError: another shape.
        """
        for other in others:
            if other.shape != self.shape:
                raise ValueError(f"cannot merge statistics of shape {other.shape} into {self.shape}")
            if bool(other.count > 0):
                device = self.count.device
                self._take(other.count.to(device), other.mean.to(device), other.var.to(device))

    def freeze(self, frozen: bool = True) -> None:
        """Stop (or resume) taking in batches."""
        self.frozen.fill_(frozen)

    def normalize(self, x: Float[Tensor, "..."], clip: float | None = None) -> Float[Tensor, "..."]:
        """(x - mean) / std, cut to [-clip, clip].

        Args:
            x: [..., *shape].
            clip: None: no cut.

        Raises:
            ValueError: nothing was seen yet, a wrong shape, or clip <= 0.
        """
        self._check(x)
        if clip is not None and not clip > 0:
            raise ValueError(f"clip is positive: got {clip}")
        if not bool(self.count > 0):
            raise ValueError("no statistics yet: update them with some random steps before the first use")
        result = (x - self.mean.to(x.dtype)) / self.std.to(x.dtype)
        return result if clip is None else result.clamp(-clip, clip)


def _filter(state: Tensor, reward: Tensor, gamma: float, ended: Tensor | None) -> tuple[Tensor, Tensor]:
    """(F [T, N], state after): F_t = gamma F_{t-1} + r_t, begun anew after an end where `ended` is given."""
    keep = torch.full_like(reward, gamma)
    if ended is not None:
        keep[1:] = keep[1:] * ~ended[:-1]
    first = reward[:1] + gamma * state
    filtered = reverse_scan(torch.cat((first, reward[1:])).flip(0), keep.flip(0)).flip(0)
    last = filtered[-1] if ended is None else filtered[-1] * ~ended[-1]
    return filtered, last


class ReturnNormalizer(DoubleBuffers):
    r"""Divides rewards by the running std of their discounted sum (Burda et al., arXiv 1810.12894, section 2.4).

    Every copy keeps a filter $F_t = \gamma F_{t-1} + r_t$ that runs forward in TIME and is never reset (unless `ended`
    is given); the variance is over all F of all copies so far. No mean is subtracted, nothing is cut. The batch is
    taken into the statistics before it is divided.

    (A popular copy of the method loops over the rows of a [T, N] array where the original held [N, T], and so
    filters across copies instead of time.)

    Args:
        gamma: discount of the filter.
        num_envs: N.
        eps: smallest std.

    Example:
        >>> normalizer = ReturnNormalizer(0.9, num_envs=2)
        >>> normalizer(torch.rand(16, 2)).shape
        torch.Size([16, 2])
    """

    state: Tensor

    def __init__(self, gamma: float, num_envs: int, eps: float = 1e-8):
        super().__init__()
        check_unit("gamma", gamma)
        if num_envs < 1:
            raise ValueError(f"a normaliser needs at least one copy: got num_envs={num_envs}")
        self.gamma, self.num_envs, self.eps = gamma, num_envs, eps
        self.register_buffer("state", torch.zeros(num_envs, dtype=torch.float64))
        self.stats = RunningMeanStd(())

    @property
    def std(self) -> Tensor:
        """[] float64: what rewards are divided by."""
        return self.stats.var.sqrt().clamp(min=self.eps)

    def filter(
        self, reward: Float[Tensor, "time envs"], ended: Bool[Tensor, "time envs"] | None = None
    ) -> Float[Tensor, "time envs"]:
        """The discounted sums F of a rollout, float64; the filter's state moves on.

        Args:
            reward: [T, N].
            ended: [T, N]: the episode ended in this step, F begins anew in the next (for extrinsic rewards).

        Raises:
            ValueError: another number of copies, or no steps.
        """
        if reward.shape[1] != self.num_envs or len(reward) < 1:
            raise ValueError(
                f"give rewards [T >= 1, {self.num_envs}], time first: got shape {tuple(reward.shape)}"
            )
        if ended is not None:
            trailing(ended, reward, "ended")
        filtered, last = _filter(self.state, reward.detach().double(), self.gamma, ended)
        if not bool(last.isfinite().all()):
            raise ValueError("rewards must be finite: got NaN or infinity")
        self.state.copy_(last)
        return filtered

    @torch.no_grad()
    def forward(
        self,
        reward: Float[Tensor, "time envs"],
        ended: Bool[Tensor, "time envs"] | None = None,
        valid: Bool[Tensor, "time envs"] | None = None,
    ) -> Float[Tensor, "time envs"]:
        """Update the statistics with a rollout and divide its rewards.

        Args:
            reward: [T, N].
            ended: see `filter`.
            valid: [T, N]: rows that are true transitions; others are left out of the statistics.

        Returns:
            reward / std, [T, N].
        """
        if valid is not None:
            reward = torch.where(valid, reward, 0)
        self.stats.update(self.filter(reward, ended), valid)
        return (reward / self.std).to(reward.dtype)
