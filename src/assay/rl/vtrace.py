r"""V-trace (Espeholt et al., arXiv 1802.01561): targets for data that another policy gathered.

A learner that trails its actors sees actions of a behaviour policy $\mu$ while it improves a target policy $\pi$. With
$\rho_t = \min(\bar\rho, \pi/\mu)$ and $c_t = \lambda \min(\bar c, \pi/\mu)$ the target is

$$v_s = V(x_s) + \sum_{t \ge s} \gamma^{t-s} \Big(\prod_{i=s}^{t-1} c_i\Big) \rho_t
\big(r_t + \gamma V(x_{t+1}) - V(x_t)\big).$$

$\bar\rho$ decides WHICH policy is evaluated (`vtrace_fixed_point_policy`), $\bar c$ only how fast and how noisily
(`vtrace_operator` gives both exactly for tabular problems). The policy gradient weighs $\nabla\log\pi$ by
$\rho_s (r_s + \gamma v_{s+1} - V(x_s))$: note $v_{s+1}$, not $v_s$.
"""

import math
import warnings
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from assay.rl.returns import _scan, at_most_one, check_steps, check_unit, cuts, trailing

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are cut to +- this before they are exponentiated: e^20 is 4.9e8, far beyond any useful ratio."""

CORRECTIONS: tuple[str, ...] = ("vtrace", "onestep", "epsilon", "none", "is", "retrace")
"""What `corrected_targets` knows."""


class VTrace(NamedTuple):
    """What `vtrace` gives; nothing carries a gradient."""

    vs: Tensor
    """[T, N, ...]: target of the value."""
    pg_advantage: Tensor
    """[T, N, ...]: weight of the gradient of log pi(a | x), importance weight included."""
    rho: Tensor
    """[T, N]: the ratios pi/mu before truncation, for statistics."""


class Corrected(NamedTuple):
    """What `corrected_targets` gives; nothing carries a gradient."""

    targets: Tensor
    """[T, N, ...]: target of the value (of Q(x_t, a_t) for "retrace")."""
    pg_advantage: Tensor
    """[T, N, ...]: weight of the policy gradient, importance weight included."""
    rho: Tensor
    """[T, N]: the ratios pi/mu before truncation, for statistics."""
    epsilon: float
    """The gradient is that of log(pi + epsilon): hand it to `policy_gradient_loss`."""


def _check_bars(rho_bar: float, c_bar: float, pg_rho_bar: float | None) -> None:
    for name, bar in (("rho_bar", rho_bar), ("c_bar", c_bar), ("pg_rho_bar", pg_rho_bar)):
        if bar is not None and not bar >= 0:
            raise ValueError(f"{name} truncates a ratio and is not negative (inf: no truncation): got {bar}")
    if rho_bar < c_bar:
        warnings.warn(
            f"rho_bar={rho_bar} is below c_bar={c_bar}: V-trace assumes rho_bar >= c_bar (section 4.1)",
            stacklevel=3,
        )


def _ratio(logp_target: Tensor, logp_behaviour: Tensor, reward: Tensor) -> Tensor:
    if logp_target.shape != logp_behaviour.shape:
        raise ValueError(
            f"both log-probabilities need one shape: got {tuple(logp_target.shape)} and "
            f"{tuple(logp_behaviour.shape)}"
        )
    trailing(logp_target, reward, "log-probabilities")
    return (logp_target - logp_behaviour).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()


def _targets(
    ratio: Tensor,
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float | Tensor,
    rho_bar: float,
    c_bar: float,
    lam: float,
    valid: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """(v_s, r_s + gamma v_{s+1} - V(x_s)) for given ratios."""
    check_steps(reward, value=value, next_value=next_value)
    check_unit("gamma", gamma)
    check_unit("lam", lam)
    # Masks become numbers of the reward's precision first: a Python number times a bool is float32.
    discount = gamma * trailing(~terminated, reward, "terminated").to(reward.dtype)
    ratio = trailing(ratio, reward, "log-probabilities")
    cut = trailing(cuts(terminated, truncated, valid), reward, "truncated")
    delta = ratio.clamp(max=rho_bar) * (reward + discount * next_value - value)
    coef = (gamma * lam * ratio.clamp(max=c_bar).masked_fill(cut, 0)).expand_as(delta)
    if valid is not None:
        shown = trailing(valid, reward, "valid")
        delta, coef = torch.where(shown, delta, 0), torch.where(shown, coef, 0)
    vs = value + _scan(delta, coef, at_most_one(gamma, lam, c_bar))
    # The successor's target, where the batch holds it.
    follows = torch.cat((torch.where(cut[:-1], next_value[:-1], vs[1:]), next_value[-1:]))
    advantage = reward + discount * follows - value
    if valid is not None:
        advantage = torch.where(shown, advantage, 0)
    return vs, advantage


@torch.no_grad()
def vtrace(
    logp_target: Float[Tensor, "time ..."],
    logp_behaviour: Float[Tensor, "time ..."],
    reward: Float[Tensor, "time ..."],
    value: Float[Tensor, "time ..."],
    next_value: Float[Tensor, "time ..."],
    terminated: Bool[Tensor, "time ..."],
    truncated: Bool[Tensor, "time ..."],
    gamma: float | Tensor,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
    pg_rho_bar: float | None = None,
    lam: float = 1.0,
    valid: Bool[Tensor, "time ..."] | None = None,
) -> VTrace:
    r"""V-trace targets and policy-gradient advantages (Espeholt et al., section 4, equation 1 and remark 1).

    Where an episode was truncated the target bootstraps from `next_value`, the value of its final observation, where it
    terminated from zero; in both cases the trace is cut, so that nothing of the next episode enters.

    Args:
        logp_target: log pi(a_t | x_t) of the policy that learns, [T, N].
        logp_behaviour: log mu(a_t | x_t) of the policy that acted, as it was recorded then, [T, N]. (Recomputed with
            the learner's weights the ratio is silently 1.)
        reward: [T, N] or [T, N, K].
        value: V(x_t), the shape of `reward`.
        next_value: value of the true successor, the shape of `reward`.
        terminated: [T, N].
        truncated: [T, N].
        gamma: discount, a number or one a stream [K].
        rho_bar: truncation of the weight of the temporal difference; inf: none.
        c_bar: truncation of the trace; inf: none (then T steps of large ratios may overflow).
        pg_rho_bar: truncation of the weight of the policy gradient; None: that of `rho_bar`.
        lam: further decay of the trace.
        valid: [T, N]: rows that are true transitions; others get their own value as target and advantage 0.

    Returns:
        `VTrace(vs, pg_advantage, rho)`, detached.

    Raises:
        ValueError: negative bars, gamma or lam outside [0, 1], no steps, shapes that do not fit.

    Warns:
        UserWarning: rho_bar < c_bar.

    Example:
        >>> logp, behaviour = torch.tensor([[0.5], [2.0]]).log(), torch.zeros(2, 1)
        >>> value, next_value = torch.tensor([[1.0], [2.0]]), torch.tensor([[2.0], [4.0]])
        >>> end = torch.tensor([[False], [True]])
        >>> out = vtrace(logp, behaviour, torch.ones(2, 1), value, next_value, end, ~end & end, gamma=0.5)
        >>> out.vs.flatten(), out.pg_advantage.flatten()
        (tensor([1.2500, 1.0000]), tensor([ 0.2500, -1.0000]))
    """
    _check_bars(rho_bar, c_bar, pg_rho_bar)
    rho = _ratio(logp_target, logp_behaviour, reward)
    vs, advantage = _targets(
        rho, reward, value, next_value, terminated, truncated, gamma, rho_bar, c_bar, lam, valid
    )
    weight = rho.clamp(max=rho_bar if pg_rho_bar is None else pg_rho_bar)
    return VTrace(vs, trailing(weight, reward) * advantage, rho)


@torch.no_grad()
def corrected_targets(
    kind: str,
    logp_target: Float[Tensor, "time ..."],
    logp_behaviour: Float[Tensor, "time ..."],
    reward: Float[Tensor, "time ..."],
    value: Float[Tensor, "time ..."],
    next_value: Float[Tensor, "time ..."],
    terminated: Bool[Tensor, "time ..."],
    truncated: Bool[Tensor, "time ..."],
    gamma: float | Tensor,
    *,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
    pg_rho_bar: float | None = None,
    lam: float = 1.0,
    epsilon: float = 1e-6,
    q: Float[Tensor, "time ..."] | None = None,
    valid: Bool[Tensor, "time ..."] | None = None,
) -> Corrected:
    r"""Targets of an actor-critic under one of six corrections for stale data, with one signature.

    - `vtrace`: V-trace targets; the gradient's weight is truncated at `pg_rho_bar` (default `rho_bar`).
    - `onestep`: n-step Bellman targets, as if on-policy; weight pi/mu, truncated only where `pg_rho_bar` is given.
    - `epsilon`: n-step Bellman targets, no weight; gradient of log(pi + epsilon).
    - `none`: n-step Bellman targets, no weight.
    - `is`: V-trace without truncation (full importance sampling); weight pi/mu.
    - `retrace`: targets of action values, $Q + \sum_t \gamma^{t-s} (\prod c_i) (r_t + \gamma V_{t+1} - Q_t)$ (Munos et
      al., arXiv 1606.02647); the gradient's advantage is $Q^{ret} - V$, its weight truncated as in `vtrace`.

    The first four are the arms of Espeholt et al., table 2. `lam` decays every trace.

    Args:
        kind: one of `CORRECTIONS`.
        logp_target: see `vtrace`, as the arguments up to `gamma`, and the bars.
        epsilon: what is added to the probability under "epsilon".
        q: Q(x_t, a_t), the shape of `reward`; "retrace" needs it, with `value` and `next_value` the expectations of Q
            under the target policy.

    Returns:
        `Corrected(targets, pg_advantage, rho, epsilon)`, detached; `epsilon` is 0 but for "epsilon", so that
        `policy_gradient_loss(logp, c.pg_advantage, epsilon=c.epsilon)` serves all kinds.

    Raises:
        ValueError: an unknown kind, "retrace" without q, a negative epsilon, and as `vtrace`.
    """
    if kind not in CORRECTIONS:
        raise ValueError(f"unknown correction {kind!r}: choose from {', '.join(CORRECTIONS)}")
    if epsilon < 0:
        raise ValueError(f"epsilon is added to a probability and is not negative: got {epsilon}")
    if kind in ("vtrace", "retrace"):
        _check_bars(rho_bar, c_bar, pg_rho_bar)
        weight_bar = rho_bar if pg_rho_bar is None else pg_rho_bar
    else:
        _check_bars(math.inf, 0.0, pg_rho_bar)
        weight_bar = math.inf if pg_rho_bar is None else pg_rho_bar
        rho_bar = c_bar = math.inf if kind == "is" else 1.0
    rho = _ratio(logp_target, logp_behaviour, reward)
    rest = (terminated, truncated, gamma)
    if kind == "retrace":
        targets, advantage = _retrace(rho, reward, value, next_value, *rest, c_bar, lam, q, valid)
    else:
        ratio = rho if kind in ("vtrace", "is") else torch.ones_like(rho)
        targets, advantage = _targets(ratio, reward, value, next_value, *rest, rho_bar, c_bar, lam, valid)
    if kind not in ("none", "epsilon"):
        advantage = trailing(rho.clamp(max=weight_bar), reward) * advantage
    return Corrected(targets, advantage, rho, epsilon if kind == "epsilon" else 0.0)


def _retrace(
    ratio: Tensor,
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float | Tensor,
    c_bar: float,
    lam: float,
    q: Tensor | None,
    valid: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """(Q^ret, Q^ret - V): the action at t is given, so the trace begins with the ratio of step t+1."""
    if q is None:
        raise ValueError("'retrace' corrects action values: give q=Q(x_t, a_t)")
    check_steps(reward, value=value, next_value=next_value, q=q)
    check_unit("gamma", gamma)
    check_unit("lam", lam)
    discount = gamma * trailing(~terminated, reward, "terminated").to(reward.dtype)
    delta = reward + discount * next_value - q
    trace = lam * trailing(ratio, reward, "log-probabilities").clamp(max=c_bar)
    trace = torch.cat((trace[1:], torch.zeros_like(trace[-1:])))
    cut = trailing(cuts(terminated, truncated, valid), reward, "truncated")
    coef = (gamma * trace.masked_fill(cut, 0)).expand_as(delta)
    if valid is not None:
        shown = trailing(valid, reward, "valid")
        delta, coef = torch.where(shown, delta, 0), torch.where(shown, coef, 0)
    targets = q + _scan(delta, coef, at_most_one(gamma, lam, c_bar))
    advantage = targets - value
    if valid is not None:
        advantage = torch.where(shown, advantage, 0)
    return targets, advantage


def _weighted(pi: Tensor, mu: Tensor, bar: float) -> Tensor:
    """mu min(bar, pi/mu) without a division: the truncated ratio's expectation, action by action."""
    return torch.where(mu > 0, pi if math.isinf(bar) else torch.minimum(bar * mu, pi), 0)


def vtrace_fixed_point_policy(
    pi: Float[Tensor, "*batch states actions"], mu: Float[Tensor, "*batch states actions"], rho_bar: float
) -> Float[Tensor, "*batch states actions"]:
    r"""The policy that V-trace evaluates: $\pi_{\bar\rho} \propto \min(\bar\rho\,\mu, \pi)$ (equation 3).

    Args:
        pi: target policy, rows sum to 1.
        mu: behaviour policy.
        rho_bar: positive; inf gives pi (on the actions that mu takes), towards 0 it tends to mu.

    Returns:
        [..., S, A], rows sum to 1.

    Raises:
        ValueError: rho_bar <= 0, or a state where pi and mu share no action.
    """
    if not rho_bar > 0:
        raise ValueError(f"rho_bar must be positive for a fixed point to exist: got {rho_bar}")
    weight = _weighted(pi, mu, rho_bar)
    total = weight.sum(-1, keepdim=True)
    if bool((total <= 0).any()):
        raise ValueError("some state's behaviour policy takes no action that the target policy takes")
    return weight / total


def vtrace_operator(
    P: Float[Tensor, "*batch states actions states"],
    R: Float[Tensor, "*batch states actions"],
    gamma: float,
    pi: Float[Tensor, "*batch states actions"],
    mu: Float[Tensor, "*batch states actions"],
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
    lam: float = 1.0,
) -> tuple[Float[Tensor, "*batch states states"], Float[Tensor, "*batch states"]]:
    r"""The V-trace operator over infinitely long traces, exactly: $\mathcal{R}V = M V + b$ (Theorem 1).

    With $C = \mathbb{E}_\mu[c\,P]$, $P_\rho = \mathbb{E}_\mu[\rho\,P]$, $r_\rho = \mathbb{E}_\mu[\rho\,R]$,
    $d = \mathbb{E}_\mu[\rho]$ and $K = (I - \gamma C)^{-1}$: $M = I + K(\gamma P_\rho - \mathrm{diag}\,d)$ and
    $b = K r_\rho$.

    Args:
        P: [..., S, A, S] transition probabilities.
        R: [..., S, A] expected rewards.
        gamma: discount, in [0, 1).
        pi: target policy [..., S, A].
        mu: behaviour policy [..., S, A].
        rho_bar: truncation of the temporal difference's weight; inf: none.
        c_bar: truncation of the trace; inf: none.
        lam: further decay of the trace.

    Returns:
        (M [..., S, S], b [..., S]) in float64. The fixed point is `torch.linalg.solve(I - M, b)`.

    Raises:
        ValueError: negative bars, gamma outside [0, 1).

    Warns:
        UserWarning: rho_bar < c_bar.
    """
    _check_bars(rho_bar, c_bar, None)
    check_unit("lam", lam)
    if not 0 <= gamma < 1:
        raise ValueError(f"infinite traces need gamma in [0, 1): got {gamma}")
    P, R, pi, mu = P.double(), R.double(), pi.double(), mu.double()
    rho, c = _weighted(pi, mu, rho_bar), lam * _weighted(pi, mu, c_bar)
    eye = torch.eye(P.shape[-1], dtype=torch.float64, device=P.device)
    trace = eye - gamma * torch.einsum("...sa,...sat->...st", c, P)
    step = gamma * torch.einsum("...sa,...sat->...st", rho, P) - torch.diag_embed(rho.sum(-1))
    vector = (rho * R).sum(-1)
    solved = torch.linalg.solve(trace, torch.cat((step, vector[..., None]), -1))
    return eye + solved[..., :-1], solved[..., -1]
