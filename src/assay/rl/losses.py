r"""Loss functions for anybody's loop: a scalar to minimise, for any leading dimensions, with an optional mask.

`mask` is bool and its shape begins that of the tensors ([T, N] for values [T, N, K]); rows where it is False enter
neither the sum nor the count nor any gradient, whatever they hold (NaN included). An empty mask gives 0, never NaN.
Advantages, returns, baselines, targets and old log-probabilities are detached here.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from assay.rl.returns import trailing

Reduction = Literal["mean", "sum"]


def _hide(mask: Tensor | None, *tensors: Tensor) -> list[Tensor]:
    """The tensors with 0 where the mask is False, put in BEFORE the arithmetic: no NaN can come back by a gradient."""
    if mask is None:
        return list(tensors)
    return [torch.where(trailing(mask, t), t, 0) for t in tensors]


def _reduce(x: Tensor, mask: Tensor | None, reduction: Reduction) -> Tensor:
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is 'mean' or 'sum': got {reduction!r}")
    if mask is not None:
        shown = trailing(mask, x).expand_as(x)
        x, count = torch.where(shown, x, 0), shown.sum().clamp(min=1)
    else:
        count = max(x.numel(), 1)
    return x.sum() if reduction == "sum" else x.sum() / count


def _same(**tensors: Tensor) -> None:
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"these need one shape: {', '.join(f'{k} {v}' for k, v in shapes.items())}")


def policy_gradient_loss(
    logp: Float[Tensor, "..."],
    advantage: Float[Tensor, "..."],
    mask: Bool[Tensor, "..."] | None = None,
    reduction: Reduction = "mean",
    epsilon: float = 0.0,
) -> Float[Tensor, ""]:
    r"""$-\log\pi(a|x)\,A$; with `epsilon` $-\log(\pi(a|x) + \epsilon)\,A$, the epsilon-correction of V-trace's paper.

    Args:
        logp: log-probability of the action taken, under the policy that learns.
        advantage: its weight, the same shape (importance weights included); detached.
        mask: rows that count.
        reduction: "mean" over the rows that count, or "sum" (IMPALA's released code).
        epsilon: added to the probability.

    Raises:
        ValueError: shapes that differ, a negative epsilon, an unknown reduction.
    """
    _same(logp=logp, advantage=advantage)
    if epsilon < 0:
        raise ValueError(f"epsilon is added to a probability and is not negative: got {epsilon}")
    logp, advantage = _hide(mask, logp, advantage.detach())
    if epsilon:
        logp = torch.logaddexp(logp, logp.new_tensor(math.log(epsilon)))
    return _reduce(-logp * advantage, mask, reduction)


def reinforce_loss(
    logp: Float[Tensor, "..."],
    returns: Float[Tensor, "..."],
    baseline: Float[Tensor, "..."] | None = None,
    mask: Bool[Tensor, "..."] | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, ""]:
    r"""$-\log\pi(a|x)\,(G - b)$ (Williams 1992); the baseline is detached, so that it is trained by its own loss only.

    Args:
        logp: log-probability of the action taken.
        returns: return that followed, the same shape.
        baseline: what is subtracted, the same shape; None: nothing.
        mask: rows that count.
        reduction: "mean" or "sum".

    Raises:
        ValueError: shapes that differ, an unknown reduction.
    """
    if baseline is not None:
        _same(returns=returns, baseline=baseline)
        returns = returns - baseline
    return policy_gradient_loss(logp, returns, mask, reduction)


def ppo_clip_loss(
    logp: Float[Tensor, "..."],
    logp_old: Float[Tensor, "..."],
    advantage: Float[Tensor, "..."],
    clip: float,
    mask: Bool[Tensor, "..."] | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, ""]:
    r"""$-\min(\rho A, \mathrm{clip}(\rho, 1-\epsilon, 1+\epsilon) A)$ with $\rho = \pi/\pi_{old}$.

    Source: Schulman et al., arXiv 1707.06347, equation 7.

    May be used for each factor of an action (option, action, message) on its own.

    Args:
        logp: log-probability under the policy that learns.
        logp_old: log-probability when the action was taken; detached.
        advantage: the same shape; detached.
        clip: epsilon, positive; inf: no clipping.
        mask: rows that count.
        reduction: "mean" or "sum".

    Raises:
        ValueError: shapes that differ, clip <= 0, an unknown reduction.
    """
    _same(logp=logp, logp_old=logp_old, advantage=advantage)
    if not clip > 0:
        raise ValueError(f"clip bounds the change of the ratio and is positive: got {clip}")
    logp, logp_old, advantage = _hide(mask, logp, logp_old.detach(), advantage.detach())
    ratio = (logp - logp_old).exp()
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    return _reduce(-surrogate, mask, reduction)


def value_loss(
    value: Float[Tensor, "..."],
    target: Float[Tensor, "..."],
    old_value: Float[Tensor, "..."] | None = None,
    clip: float | None = None,
    mask: Bool[Tensor, "..."] | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, ""]:
    r"""$\frac12 (V - G)^2$; with `clip` the larger of it and $\frac12 (V_{old} + \mathrm{clip}(V - V_{old}) - G)^2$.

    Args:
        value: prediction.
        target: the same shape; detached.
        old_value: prediction when the data were gathered; needed for `clip`; detached.
        clip: how far the value may move before its gradient stops, in units of value (PPO's released code).
        mask: rows that count; its shape may begin that of the values.
        reduction: "mean" or "sum".

    Raises:
        ValueError: shapes that differ, clip without old_value, clip <= 0, an unknown reduction.
    """
    _same(value=value, target=target)
    value, target = _hide(mask, value, target.detach())
    loss = (value - target).square()
    if clip is not None:
        if old_value is None or not clip > 0:
            raise ValueError(f"value clipping needs old_value and a positive clip: got clip={clip}")
        _same(value=value, old_value=old_value)
        (old,) = _hide(mask, old_value.detach())
        loss = torch.maximum(loss, (old + (value - old).clamp(-clip, clip) - target).square())
    return _reduce(0.5 * loss, mask, reduction)


def entropy_loss(
    entropy: Float[Tensor, "..."],
    mask: Bool[Tensor, "..."] | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, ""]:
    """Minus the entropy of the policy: ADD it, times a positive coefficient, and the entropy rises.

    Args:
        entropy: in nats, of each row's action distribution.
        mask: rows that count.
        reduction: "mean" or "sum".
    """
    (entropy,) = _hide(mask, entropy)
    return _reduce(-entropy, mask, reduction)


@torch.no_grad()
def approximate_kl(
    logp: Float[Tensor, "..."], logp_old: Float[Tensor, "..."], mask: Bool[Tensor, "..."] | None = None
) -> Float[Tensor, ""]:
    r"""Estimate of KL(old || new) from actions of the old policy: the mean of $\rho - 1 - \log\rho$, never negative.

    Args:
        logp: log-probability under the new policy.
        logp_old: under the policy that acted, the same shape.
        mask: rows that count.
    """
    _same(logp=logp, logp_old=logp_old)
    logp, logp_old = _hide(mask, logp, logp_old)
    log_ratio = logp - logp_old
    return _reduce(log_ratio.expm1() - log_ratio, mask, "mean")


@torch.no_grad()
def clip_share(
    logp: Float[Tensor, "..."],
    logp_old: Float[Tensor, "..."],
    clip: float,
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, ""]:
    """Share of the rows whose ratio lies outside [1 - clip, 1 + clip].

    Args:
        logp: log-probability under the new policy.
        logp_old: under the policy that acted, the same shape.
        clip: as in `ppo_clip_loss`.
        mask: rows that count.
    """
    _same(logp=logp, logp_old=logp_old)
    logp, logp_old = _hide(mask, logp, logp_old)
    return _reduce((((logp - logp_old).exp() - 1).abs() > clip).to(logp.dtype), mask, "mean")
