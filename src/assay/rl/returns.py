r"""Returns and advantages of a rollout: pure functions of time-major tensors [T, N, ...].

Three facts of a transition decide every target, and each has its own tensor:

- `terminated`: the world ended, what follows is worth zero;
- `truncated`: time ran out, what follows is worth `next_value`, the value of the TRUE successor (never of the first
  observation of the next episode);
- the end of the rollout: bootstrapped from `next_value` as well.

So `next_value[t]` is the value of the observation that step t really led to: `value[t + 1]` inside an episode, the
value of the final observation where one ended. Masks [T, N] apply to all trailing dimensions of the values, such as K
reward streams. Nothing here lets a gradient through except `reverse_scan`.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Method = Literal["auto", "loop", "doubling"]

_DOUBLING_STEPS, _DOUBLING_WIDTH = 32, 512
"""From so many steps on, and up to so many numbers a step, doubling wins on one CPU core (T = 128: 2.6 times as fast
at N = 64, half as fast at N = 1024)."""


def _loop(delta: Tensor, coef: Tensor) -> Tensor:
    x, out = delta[-1], [delta[-1]]
    for d, c in zip(reversed(delta.unbind(0)[:-1]), reversed(coef.unbind(0)[:-1]), strict=True):
        x = torch.addcmul(d, c, x)
        out.append(x)
    out.reverse()
    return torch.stack(out)


def _doubling(delta: Tensor, coef: Tensor) -> Tensor:
    # After the pass with stride k, x_t holds the terms t..t+2k-1, and c_t the product of their coefficients; the last
    # k rows were complete before it.
    steps, x, c, k = len(delta), delta, coef, 1
    while k < steps:
        x = torch.cat((torch.addcmul(x[:-k], c[:-k], x[k:]), x[-k:]))
        if 2 * k < steps:
            c = torch.cat((c[:-k] * c[k:], c[-k:]))
        k *= 2
    return x


def _scan(delta: Tensor, coef: Tensor, bounded: bool) -> Tensor:
    """`reverse_scan` for callers who know whether all coefficients are at most 1."""
    steps = len(delta)
    narrow = steps >= _DOUBLING_STEPS and delta.numel() <= _DOUBLING_WIDTH * steps
    return (_doubling if bounded and (narrow or delta.is_cuda) else _loop)(delta, coef)


def reverse_scan(
    delta: Float[Tensor, "time ..."], coef: Float[Tensor, "time ..."], method: Method = "auto"
) -> Float[Tensor, "time ..."]:
    r"""$x_t = \delta_t + c_t\, x_{t+1}$ with $x_T = 0$: the recursion below all returns and advantages.

    Args:
        delta: [T, ...].
        coef: [T, ...] of the same shape, or one that broadcasts to it.
        method: "loop" goes through time (T operations, wide batches); "doubling" needs about 3 log2 T operations on the
            whole array, but forms products of coefficients, which overflow where they are large; "auto" doubles
            small arrays (all on CUDA) whose coefficients do not exceed 1 in size.

    Returns:
        x [T, ...]; gradients flow to both arguments.

    Raises:
        ValueError: no steps, an unknown method, or shapes that do not fit.

    Example:
        >>> reverse_scan(torch.ones(3), torch.full((3,), 0.5))
        tensor([1.7500, 1.5000, 1.0000])
    """
    if len(delta) < 1:
        raise ValueError("a scan needs at least one step: the first dimension (time) is 0")
    try:
        coef = coef.expand_as(delta)
    except RuntimeError as error:
        raise ValueError(
            f"coefficients {tuple(coef.shape)} do not broadcast to {tuple(delta.shape)}"
        ) from error
    if method == "auto":
        return _scan(delta, coef, bool(coef.detach().abs().amax() <= 1) if delta.numel() else False)
    if method not in ("loop", "doubling"):
        raise ValueError(f"method is 'auto', 'loop' or 'doubling': got {method!r}")
    return (_loop if method == "loop" else _doubling)(delta, coef)


def trailing(mask: Tensor, like: Tensor, name: str = "mask") -> Tensor:
    """View `mask`, whose shape begins that of `like`, so that it broadcasts over the trailing dimensions of `like`.

    Raises:
        ValueError: the shape of `mask` does not begin that of `like`.
    """
    if mask.shape != like.shape[: mask.ndim]:
        raise ValueError(f"{name} {tuple(mask.shape)} must begin the shape of the values {tuple(like.shape)}")
    return mask.view(*mask.shape, *(1,) * (like.ndim - mask.ndim))


def check_steps(reward: Tensor, **others: Tensor | None) -> None:
    """Raise a ValueError unless there is a step and every other tensor has the shape of `reward`."""
    if reward.ndim < 1 or len(reward) < 1:
        raise ValueError(f"a rollout needs at least one step: got rewards of shape {tuple(reward.shape)}")
    for name, tensor in others.items():
        if tensor is not None and tensor.shape != reward.shape:
            raise ValueError(
                f"{name} {tuple(tensor.shape)} must have the shape of the reward {tuple(reward.shape)}"
            )


def check_unit(name: str, x: float | Tensor) -> None:
    """Raise a ValueError unless the number lies in [0, 1] (tensors are trusted)."""
    if not isinstance(x, Tensor) and not 0 <= x <= 1:
        raise ValueError(f"{name} lies in [0, 1]: got {x}")


def at_most_one(*factors: float | Tensor) -> bool:
    """Whether a product of such factors is known not to exceed 1 without looking at a device's memory."""
    return all(bool(f <= 1) for f in factors if not isinstance(f, Tensor))


def cuts(terminated: Tensor, truncated: Tensor, valid: Tensor | None) -> Tensor:
    """[T, ...] bool: step t+1 of the batch does not go on where step t stopped."""
    cut = terminated | truncated
    if valid is not None:
        cut = torch.cat((cut[:-1] | ~valid[1:], cut[-1:]))
    return cut


@torch.no_grad()
def gae(
    reward: Float[Tensor, "time ..."],
    value: Float[Tensor, "time ..."],
    next_value: Float[Tensor, "time ..."],
    terminated: Bool[Tensor, "time ..."],
    truncated: Bool[Tensor, "time ..."],
    gamma: float | Tensor,
    lam: float | Tensor,
    episodic: bool | Tensor = True,
    valid: Bool[Tensor, "time ..."] | None = None,
    last_value: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "time ..."]:
    r"""Generalised advantage estimate (Schulman et al., arXiv 1506.02438, equations 11-16).

    $\delta_t = r_t + \gamma (1 - \text{terminated}_t) V(x'_t) - V(x_t)$ and
    $A_t = \delta_t + \gamma\lambda (1 - \text{ended}_t) A_{t+1}$, where $x'_t$ is the true successor.

    Args:
        reward: [T, N] or [T, N, K] (K reward streams).
        value: V(x_t), the same shape.
        next_value: value of the true successor (of the final observation where an episode ended), the same shape.
        terminated: [T, N]: the world ended.
        truncated: [T, N]: time ran out.
        gamma: discount, a number or one a stream [K].
        lam: decay of the trace, a number or [K].
        episodic: False: an end is no end (intrinsic rewards, Burda et al., arXiv 1810.12894, section 2.3): returns go
            on into the next episode, and the successor of an ended step is the first observation of the next episode. A
            bool tensor [K] decides stream by stream.
        valid: [T, N]: rows that are true transitions. A row that is not (the dummy step of next-step autoreset)
            has advantage 0 and passes nothing to the row before it.
        last_value: [N] or [N, K], for non-episodic streams only: value of the observation that the policy sees after
            the rollout (of the new episode where the last step ended one). Default: `next_value[-1]`.

    Returns:
        Advantages, the shape of `reward`, detached. `advantage + value` is the target of the value.

    Raises:
        ValueError: shapes that do not fit, no steps, or gamma or lam outside [0, 1].

    Example:
        >>> off = torch.tensor([[False], [False]])
        >>> on = torch.tensor([[False], [True]])
        >>> value, next_value = torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [4.0]])
        >>> gae(torch.ones(2, 1), value, next_value, off, on, gamma=0.5, lam=1.0).flatten()   # truncated: V = 4
        tensor([1.5000, 1.0000])
        >>> gae(torch.ones(2, 1), value, next_value, on, off, gamma=0.5, lam=1.0).flatten()   # terminated
        tensor([ 0.5000, -1.0000])
    """
    check_steps(reward, value=value, next_value=next_value)
    check_unit("gamma", gamma)
    check_unit("lam", lam)
    alive = trailing(~terminated, reward, "terminated")
    ended = trailing(terminated | truncated, reward, "truncated")
    going = ~ended
    if episodic is not True:
        keep = torch.as_tensor(episodic, device=reward.device)
        last = next_value[-1] if last_value is None else last_value
        follows = torch.cat((value[1:], last[None]))
        next_value = torch.where(ended & ~keep, follows, next_value)
        alive, going = alive | ~keep, going | ~keep
    # Masks become numbers of the reward's precision first: a Python number times a bool is float32.
    delta = reward + gamma * alive.to(reward.dtype) * next_value - value
    coef = (gamma * lam * going.to(reward.dtype)).expand_as(delta)
    if valid is not None:
        shown = trailing(valid, reward, "valid")
        delta, coef = torch.where(shown, delta, 0), coef * shown
    return _scan(delta, coef, at_most_one(gamma, lam))


@torch.no_grad()
def lambda_returns(
    reward: Float[Tensor, "time ..."],
    next_value: Float[Tensor, "time ..."],
    terminated: Bool[Tensor, "time ..."],
    truncated: Bool[Tensor, "time ..."],
    gamma: float | Tensor,
    lam: float | Tensor,
    valid: Bool[Tensor, "time ..."] | None = None,
) -> Float[Tensor, "time ..."]:
    r"""TD($\lambda$) returns $G_t = r_t + \gamma (1-\text{terminated}_t)[(1-\lambda) V(x'_t) + \lambda G_{t+1}]$.

    Where the episode was truncated or the rollout ends, $G_{t+1}$ is $V(x'_t)$. Equal to `gae(...) + value` where
    `next_value` agrees with `value` inside episodes.

    Args:
        reward: [T, N] or [T, N, K].
        next_value: value of the true successor, the same shape.
        terminated: [T, N].
        truncated: [T, N].
        gamma: discount, a number or [K].
        lam: a number or [K]; 1 is the Monte-Carlo return, 0 the one-step target.
        valid: [T, N]; the return of a row that is not a true transition is 0, and no return passes through it.

    Returns:
        Returns of the shape of `reward`, detached.

    Raises:
        ValueError: shapes that do not fit, no steps, or gamma or lam outside [0, 1].
    """
    check_steps(reward, next_value=next_value)
    check_unit("gamma", gamma)
    check_unit("lam", lam)
    alive = trailing(~terminated, reward, "terminated").to(reward.dtype)
    cut = cuts(terminated, truncated, valid)
    cut = trailing(torch.cat((cut[:-1], torch.ones_like(cut[-1:]))), reward, "truncated")
    lam_here = lam * (~cut).to(reward.dtype)
    delta = reward + gamma * alive * (1 - lam_here) * next_value
    coef = (gamma * lam_here).expand_as(delta)
    if valid is not None:
        shown = trailing(valid, reward, "valid")
        delta, coef = torch.where(shown, delta, 0), coef * shown
    return _scan(delta, coef, at_most_one(gamma, lam))


@torch.no_grad()
def nstep_returns(
    reward: Float[Tensor, "time ..."],
    next_value: Float[Tensor, "time ..."],
    terminated: Bool[Tensor, "time ..."],
    truncated: Bool[Tensor, "time ..."],
    gamma: float | Tensor,
    n: int,
    valid: Bool[Tensor, "time ..."] | None = None,
) -> Float[Tensor, "time ..."]:
    r"""$G_t = \sum_{k<m} \gamma^k r_{t+k} + \gamma^m V(x'_{t+m-1})$: m rewards and a bootstrap.

    m is n, or fewer where the episode or the rollout ends first. The bootstrap value is dropped where the world
    terminated within the m steps.

    Args:
        reward: [T, N] or [T, N, K].
        next_value: value of the true successor, the same shape.
        terminated: [T, N].
        truncated: [T, N].
        gamma: discount, a number or [K].
        n: steps, at least 1. The cost is n operations on the whole array, whatever T.
        valid: [T, N]; see `lambda_returns`.

    Returns:
        Returns of the shape of `reward`, detached.

    Raises:
        ValueError: n < 1, shapes that do not fit, no steps, or gamma outside [0, 1].
    """
    if n < 1:
        raise ValueError(f"n-step returns need n of at least 1: got {n}")
    if n >= len(reward):
        return lambda_returns(reward, next_value, terminated, truncated, gamma, 1.0, valid)
    check_steps(reward, next_value=next_value)
    check_unit("gamma", gamma)
    bootstrap = trailing(~terminated, reward, "terminated") * next_value
    cut = trailing(cuts(terminated, truncated, valid), reward, "truncated")[:-1]
    result = reward + gamma * bootstrap
    for _ in range(n - 1):
        follows = torch.cat((torch.where(cut, bootstrap[:-1], result[1:]), bootstrap[-1:]))
        result = reward + gamma * follows
    return result if valid is None else torch.where(trailing(valid, reward, "valid"), result, 0)


@torch.no_grad()
def discounted_return(
    reward: Float[Tensor, "time ..."],
    terminated: Bool[Tensor, "time ..."],
    truncated: Bool[Tensor, "time ..."],
    gamma: float | Tensor,
    next_value: Float[Tensor, "time ..."] | None = None,
    valid: Bool[Tensor, "time ..."] | None = None,
) -> Float[Tensor, "time ..."]:
    r"""$G_t = r_t + \gamma (1-\text{ended}_t) G_{t+1}$: the discounted sum of rewards to the end of the episode.

    Args:
        reward: [T, N] or [T, N, K].
        terminated: [T, N].
        truncated: [T, N].
        gamma: discount, a number or [K].
        next_value: value of the true successor; with it truncated episodes and the end of the rollout bootstrap, else
            what follows counts nothing.
        valid: [T, N]; see `lambda_returns`.

    Returns:
        Returns of the shape of `reward`, detached.

    Raises:
        ValueError: shapes that do not fit, no steps, or gamma outside [0, 1].
    """
    if next_value is None:
        next_value = torch.zeros_like(reward)
    return lambda_returns(reward, next_value, terminated, truncated, gamma, 1.0, valid)
