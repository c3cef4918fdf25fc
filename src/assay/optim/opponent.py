r"""Gradients for two players who learn at once: opponent shaping, unrolling, DiCE.

Two players with losses $L_1(\theta_1,\theta_2)$ and $L_2(\theta_1,\theta_2)$ both descend. Each may look ahead to
the other's next gradient step $\Delta\theta_2=-\eta\nabla_2L_2$ and expand its own loss to first order,
$L_1(\theta_1,\theta_2+\Delta\theta_2)\approx L_1-\eta\,\langle\nabla_2L_1,\nabla_2L_2\rangle$. Which factor of the
inner product is held constant while player 1 differentiates it is all that separates the modes:

=============  =================================================  =============================================
mode           player 1 descends                                  source
=============  =================================================  =============================================
``naive``      $\nabla_1L_1$                                      simultaneous gradient descent
``lola``       $\nabla_1L_1-\eta\nabla_1\langle\mathrm{stop}(\nabla_2L_1),\nabla_2L_2\rangle$   Foerster et al. 2018
``lookahead``  $\nabla_1L_1-\eta\nabla_1\langle\nabla_2L_1,\mathrm{stop}(\nabla_2L_2)\rangle$   Zhang & Lesser 2010
``full``       both terms                                         the whole Taylor gradient
``sos``        lookahead and a chosen fraction of the lola term   Letcher et al. 2019
``lola2``      lola against an opponent that is itself ``lola``   Foerster et al. 2018, section 4.1
=============  =================================================  =============================================

Everything is done with Hessian-vector products, so a step costs a small multiple of a naive step whatever the number
of parameters. Losses are **descended**; players who maximise a value hand in its negative.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

__all__ = [
    "LOLAOptimizer",
    "Mode",
    "dice_objective",
    "lola_cross_term",
    "lola_policy_gradient",
    "magic_box",
    "opponent_shaping_grad",
    "sos_fraction",
    "unrolled_grad",
]

Mode: TypeAlias = Literal["naive", "lola", "lookahead", "full", "sos", "lola2"]
Params: TypeAlias = Any  # a tensor, an nn.Module, or any nesting of tuples, lists and dicts of tensors
Rate: TypeAlias = int | float | Tensor

_MODES: tuple[str, ...] = get_args(Mode)
_SHAPES_WITH_LOLA = frozenset({"lola", "full", "sos"})
_SHAPES_WITH_LOOKAHEAD = frozenset({"lookahead", "full", "sos"})


# ---------------------------------------------------------------------------------------------------------------
# Any two-player differentiable game
# ---------------------------------------------------------------------------------------------------------------
def opponent_shaping_grad(
    losses: Callable[[Params, Params], tuple[Tensor, Tensor]],
    params1: Params,
    params2: Params,
    eta: Rate | tuple[Rate, Rate],
    mode: Mode | tuple[Mode, Mode] = "lola",
    *,
    sos: tuple[float, float] = (0.5, 0.1),
) -> tuple[Params, Params]:
    r"""The directions that two players descend when they take the other's next step into account.

    Parameters
    ----------
    losses
        Called once as ``losses(params1, params2)``; returns the two losses. A loss is a scalar, or has shape
        ``batch``: then it stands for independent games whose parameters are stacked along the same leading axes, and
        everything (the fraction of ``sos`` too) is worked out for each game on its own.
    params1, params2
        A tensor, a (nested) tuple, list or dict of tensors, or an ``nn.Module``. They are not changed and no ``.grad``
        is written.
    eta
        Step size that each player believes its opponent to take (in the opponent's parameters, on the opponent's
        loss). A pair gives ``(belief of player 1, belief of player 2)``; a tensor has the shape of the batch.
    mode
        One of ``naive``, ``lola``, ``lookahead``, ``full``, ``sos``, ``lola2`` (see the module's table), or a pair,
        one for each player.
    sos
        The constants ``(a, b)`` of the two-part criterion of stable opponent shaping, see `sos_fraction`.

    Returns
    -------
    ``(g1, g2)``, each of the structure of its parameters; for a module a dict from parameter name to gradient.

    Raises
    ------
    ValueError
        For an unknown mode, parameters shared by both players, losses that depend on nothing of a player, or losses
        whose shape is not a leading shape of every parameter.

    Example
    -------
    The bilinear game, where plain gradients spiral away from the equilibrium and shaped ones reach it:

    >>> import torch
    >>> x, y = torch.tensor(1.0), torch.tensor(1.0)
    >>> for _ in range(100):
    ...     gx, gy = opponent_shaping_grad(lambda x, y: (-x * y, x * y), x, y, eta=1.0, mode="lola")
    ...     x, y = x - 0.1 * gx, y - 0.1 * gy
    >>> bool(x.abs() < 1e-3)
    True
    """
    modes = _modes(mode)
    leaves1, rebuild1, argument1 = _open(params1)
    leaves2, rebuild2, argument2 = _open(params2)
    _check_not_shared(_tensors(params1), _tensors(params2))
    with torch.enable_grad():
        loss1, loss2 = losses(argument1, argument2)
        gradients1, gradients2 = _shaped(loss1, loss2, leaves1, leaves2, _pair(eta), modes, sos)
    return rebuild1(gradients1), rebuild2(gradients2)


def unrolled_grad(
    losses: Callable[[Params, Params], tuple[Tensor, Tensor]],
    params1: Params,
    params2: Params,
    eta: Rate | tuple[Rate, Rate],
    steps: int | tuple[int, int] = 1,
) -> tuple[Params, Params]:
    r"""Each player differentiates through ``steps`` gradient steps of its opponent, without a Taylor expansion.

    Player 1 descends $\nabla_1L_1(\theta_1,\theta_2^{K}(\theta_1))$ with
    $\theta_2^{k+1}=\theta_2^{k}-\eta\nabla_2L_2(\theta_1,\theta_2^{k})$. With ``steps=(K, 0)`` this is the unrolled GAN
    of Metz et al. 2016 (player 1 the generator); to first order in ``eta``, ``steps=1`` is mode ``full`` of
    `opponent_shaping_grad`.

    ``losses`` is called several times, with other tensors in the place of the parameters, so these must be a tensor or
    a nesting of tensors (for a module: ``dict(module.named_parameters())`` and ``torch.func.functional_call``). Shapes
    and errors as in `opponent_shaping_grad`; a negative number of steps raises ``ValueError``.
    """
    ahead = steps if isinstance(steps, tuple) else (steps, steps)
    if min(ahead) < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    for params in (params1, params2):
        if isinstance(params, nn.Module):
            raise TypeError(
                "unrolling replaces parameters: pass dict(module.named_parameters()) and use torch.func.functional_call"
            )
    _check_not_shared(_tensors(params1), _tensors(params2))
    etas = _pair(eta)
    with torch.enable_grad():
        return (
            _unroll(lambda own, other: losses(own, other), params1, params2, etas[0], ahead[0]),
            _unroll(lambda own, other: losses(other, own)[::-1], params2, params1, etas[1], ahead[1]),
        )


def sos_fraction(
    simultaneous: Sequence[Tensor],
    lookahead: Sequence[Tensor],
    shaping: Sequence[Tensor],
    a: float = 0.5,
    b: float = 0.1,
    batch: Sequence[int] = (),
) -> Tensor:
    r"""How much of the shaping term stable opponent shaping lets through, in [0, 1] (Letcher et al. 2019, algorithm 1).

    With $\xi$ the simultaneous gradient, $\xi_0$ the look-ahead gradient and $-\alpha\chi$ the shaping term of both
    players together: $p_1=1$ where $\langle-\alpha\chi,\xi_0\rangle>0$, else
    $\min(1,-a\lVert\xi_0\rVert^2/\langle-\alpha\chi,\xi_0\rangle)$, so that the step never turns against look-ahead;
    $p_2=\lVert\xi\rVert^2$ where $\lVert\xi\rVert<b$, else 1, so that shaping vanishes at fixed points and these are
    kept. Returns $\min(p_1,p_2)$ with shape ``batch``.

    The three arguments are lists of tensors with leading axes ``batch``; ``shaping`` is $\alpha\chi$, i.e. what is
    subtracted.
    """
    inner = -_dot(shaping, lookahead, batch)
    norm = _dot(lookahead, lookahead, batch)
    safe = torch.where(inner < 0, inner, torch.full_like(inner, -1.0))
    first = torch.where(inner > 0, torch.ones_like(inner), (-a * norm / safe).clamp(max=1.0))
    # An inner product of exactly zero is no conflict.
    first = torch.where(inner == 0, torch.ones_like(inner), first)
    squared = _dot(simultaneous, simultaneous, batch)
    second = torch.where(squared < b * b, squared, torch.ones_like(squared))
    return torch.minimum(first, second)


class LOLAOptimizer(torch.optim.Optimizer):
    r"""Two players' parameters, stepped at once with opponent shaping.

    Parameters
    ----------
    params1, params2
        Iterables of parameters (or one tensor each) of player 1 and player 2. They become the two parameter groups, so
        learning-rate schedulers work as usual.
    lr
        Step size, or a pair.
    eta
        Step size that each player believes the other to take, or a pair.
    mode
        As in `opponent_shaping_grad`, or a pair.

    `step` takes a closure that returns the two losses computed from the parameters, and returns their values before
    the step. Both players move from the same old parameters. Plain steps, on purpose: an adaptive step would change
    the geometry in which the opponent is believed to move.

    >>> import torch
    >>> x, y = torch.nn.Parameter(torch.tensor(1.0)), torch.nn.Parameter(torch.tensor(1.0))
    >>> players = LOLAOptimizer([x], [y], lr=0.1, eta=1.0)
    >>> _ = players.step(lambda: (-x * y, x * y))
    """

    def __init__(
        self,
        params1: Tensor | Iterable[Tensor],
        params2: Tensor | Iterable[Tensor],
        lr: float | tuple[float, float] = 1.0,
        eta: float | tuple[float, float] = 1.0,
        mode: Mode | tuple[Mode, Mode] = "lola",
    ) -> None:
        lists = [[p] if isinstance(p, Tensor) else list(p) for p in (params1, params2)]
        _check_not_shared(*lists)
        lrs, etas, modes = _pair(lr), _pair(eta), _modes(mode)
        if min(float(rate) for rate in (*lrs, *etas)) < 0:
            raise ValueError(f"lr and eta must not be negative, got lr={lr}, eta={eta}")
        groups = [
            {"params": params, "lr": lrs[i], "eta": etas[i], "mode": modes[i]}
            for i, params in enumerate(lists)
        ]
        super().__init__(groups, {"lr": lrs[0], "eta": etas[0], "mode": modes[0]})

    def step(self, closure: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """One simultaneous step; ``closure()`` returns ``(loss1, loss2)``."""
        first, second = self.param_groups
        with torch.enable_grad():
            loss1, loss2 = closure()
            gradients = _shaped(
                loss1,
                loss2,
                first["params"],
                second["params"],
                (first["eta"], second["eta"]),
                _modes((first["mode"], second["mode"])),
                (0.5, 0.1),
            )
        with torch.no_grad():
            for group, grads in zip(self.param_groups, gradients, strict=True):
                torch._foreach_add_(group["params"], grads, alpha=-group["lr"])
        return loss1.detach(), loss2.detach()


# ---------------------------------------------------------------------------------------------------------------
# From rollouts only
# ---------------------------------------------------------------------------------------------------------------
def magic_box(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""$\exp(x-\mathrm{stop}(x))$: one in value, the score function in every derivative (DiCE, equation 4)."""
    return torch.exp(x - x.detach())


def discounts(steps: int, gamma: float, like: Tensor) -> Tensor:
    """``gamma ** t`` for ``t = 0 .. steps - 1``, shaped to multiply a time-major tensor such as ``like``."""
    powers = gamma ** torch.arange(steps, dtype=like.dtype, device=like.device)
    return powers.reshape(-1, *([1] * (like.ndim - 1)))


def dice_objective(
    logp_sum: Float[Tensor, "steps *replicas rollouts"],
    rewards: Float[Tensor, "steps *replicas rollouts"],
    values: Float[Tensor, "steps *replicas #rollouts"] | None = None,
    gamma: float = 1.0,
) -> Float[Tensor, "*replicas"]:
    r"""The DiCE objective of rollouts: its derivatives of any order estimate those of the expected return.

    $\frac1N\sum_n\sum_t\gamma^t\,\mathrm{box}\big(\sum_{l\le t}\log\pi_l\big)r_t+\sum_t\gamma^t\,
    (1-\mathrm{box}(\log\pi_t))\,b_t$ (Foerster et al. 2018, 1802.05098, equations 5 and 8); to be **maximised**.

    Parameters
    ----------
    logp_sum
        Log-probability of step t's actions, summed over all players whose parameters are differentiated (sum them, do
        not average).
    rewards
        The reward of the player whose return is meant.
    values
        Baseline for the return from t on, in units of the reward at t; constant given the state (it is detached). It
        lowers the variance of first derivatives alone. To calm the higher ones too, take the mean over rollouts at each
        step off the rewards before they come here: nobody's action moves it, so no derivative moves in expectation.
    gamma
        Discount.
    """
    _check_gamma(gamma, closed=True)
    weight = discounts(logp_sum.shape[0], gamma, rewards)
    objective = (weight * magic_box(logp_sum.cumsum(0)) * rewards).sum(0)
    if values is not None:
        objective = objective + (weight * (1 - magic_box(logp_sum)) * values.detach()).sum(0)
    return objective.mean(-1)


def lola_cross_term(
    logp1: Float[Tensor, "steps *replicas rollouts"],
    logp2: Float[Tensor, "steps *replicas rollouts"],
    rewards: Float[Tensor, "steps *replicas rollouts"],
    gamma: float = 1.0,
    baseline: Literal["step", "overall"] | None = "step",
) -> Float[Tensor, "*replicas"]:
    r"""A surrogate whose mixed derivative estimates that of the expected return, from rollouts.

    $\nabla_1\nabla_2\,\mathbb E[R]=\mathbb E\big[\sum_t\gamma^tr_t\big(\sum_{l\le t}\nabla_1\log\pi_{1,l}\big)
    \big(\sum_{l\le t}\nabla_2\log\pi_{2,l}\big)^\top\big]$ (Foerster et al. 2018, equation 4.6). Only the derivative
    with respect to both players' parameters means anything; value and first derivatives do not.

    ``baseline`` is subtracted from the rewards: their mean over rollouts at each step, over everything, or nothing. A
    mean for each trajectory would bias the estimate.
    """
    _check_gamma(gamma, closed=True)
    if baseline == "step":
        rewards = rewards - rewards.mean(-1, keepdim=True)
    elif baseline == "overall":
        rewards = rewards - rewards.mean(-1, keepdim=True).mean(0, keepdim=True)
    elif baseline is not None:
        raise ValueError(f"baseline must be 'step', 'overall' or None, got {baseline!r}")
    weight = discounts(logp1.shape[0], gamma, rewards) * rewards
    return (weight.detach() * logp1.cumsum(0) * logp2.cumsum(0)).sum(0).mean(-1)


def lola_policy_gradient(
    logp1: Float[Tensor, "steps *replicas rollouts"],
    logp2: Float[Tensor, "steps *replicas rollouts"],
    rewards1: Float[Tensor, "steps *replicas rollouts"],
    rewards2: Float[Tensor, "steps *replicas rollouts"],
    params1: Params,
    params2: Params,
    *,
    gamma: float,
    eta: Rate | tuple[Rate, Rate],
    mode: Mode | tuple[Mode, Mode] = "lola",
) -> tuple[Params, Params]:
    r"""LOLA from rollouts: what two players descend to raise their expected discounted returns.

    First-order terms are REINFORCE with the discounted return to go, less its mean over the rollouts at each step; the
    second-order term is `lola_cross_term` (Foerster et al. 2018, section 4.2). The two log-probabilities must have been
    computed from ``params1`` and ``params2`` (a tensor, nested tensors, or a module; leaves that require grad) and
    carry their graph; rewards are constants. Only the modes ``naive`` and ``lola`` have such estimators (for the others
    use `dice_objective`). Returns gradients of the *negative* returns, structured as in `opponent_shaping_grad`.
    """
    _check_gamma(gamma, closed=True)
    modes, etas = _modes(mode), _pair(eta)
    if not set(modes) <= {"naive", "lola"}:
        raise ValueError(
            f"from rollouts only 'naive' and 'lola', got {modes}: use dice_objective for other modes"
        )
    _check_not_shared(_tensors(params1), _tensors(params2))
    (leaves1, rebuild1), (leaves2, rebuild2) = _live(params1), _live(params2)
    together = logp1 + logp2

    def first_order(rewards: Tensor, logp: Tensor) -> Tensor:
        weight = discounts(rewards.shape[0], gamma, rewards)
        to_go = (weight * rewards).flip(0).cumsum(0).flip(0)
        advantage = (to_go - to_go.mean(-1, keepdim=True)).detach()
        return (advantage * logp).sum(0).mean(-1).sum()

    def player(
        own: list[Tensor], other: list[Tensor], rewards: Tensor, other_rewards: Tensor, belief: Rate, how: str
    ) -> list[Tensor]:
        surrogate = first_order(rewards, together)
        if how == "naive":
            return [
                -g for g in _grad(surrogate, own, "the log-probabilities do not depend on the parameters")
            ]
        missing = "the log-probabilities do not depend on the parameters of both players: were they detached?"
        grads = _grad(surrogate, own + other, missing)
        mine, theirs = grads[: len(own)], grads[len(own) :]
        cross = lola_cross_term(logp1, logp2, other_rewards, gamma).sum()
        step = _grad(cross, other, missing, create=True)
        shaping = _vjp(step, own, [belief * g for g in theirs])
        # Values are ascended: value + belief * shaping, hence the sign of both.
        return [-(g + s) for g, s in zip(mine, shaping, strict=True)]

    with torch.enable_grad():
        gradients1 = player(leaves1, leaves2, rewards1, rewards2, etas[0], modes[0])
        gradients2 = player(leaves2, leaves1, rewards2, rewards1, etas[1], modes[1])
    return rebuild1(gradients1), rebuild2(gradients2)


# ---------------------------------------------------------------------------------------------------------------
# Inside
# ---------------------------------------------------------------------------------------------------------------
def _shaped(
    loss1: Tensor,
    loss2: Tensor,
    leaves1: list[Tensor],
    leaves2: list[Tensor],
    etas: tuple[Rate, Rate],
    modes: tuple[str, str],
    sos: tuple[float, float],
) -> tuple[list[Tensor], list[Tensor]]:
    batch = _batch(loss1, loss2, leaves1 + leaves2)
    missing = "loss {} does not depend on the parameters of player {}: compute both losses from the given parameters"
    if modes == ("naive", "naive"):
        return (
            _grad(loss1.sum(), leaves1, missing.format(1, 1)),
            _grad(loss2.sum(), leaves2, missing.format(2, 2)),
        )
    # xi[i]: of loss i by its own parameters; effect[i]: of loss i by the opponent's.
    leaves = (leaves1, leaves2)
    xi, effect = [], []
    for i, loss in enumerate((loss1, loss2)):
        grads = _grad(loss.sum(), leaves1 + leaves2, None, create=True)
        parts = [grads[: len(leaves1)], grads[len(leaves1) :]]
        for j, part in enumerate(parts):
            if all(g is None for g in part):
                raise ValueError(missing.format(i + 1, j + 1))
        xi.append([_dense(g, p) for g, p in zip(parts[i], leaves[i], strict=True)])
        effect.append([_dense(g, p) for g, p in zip(parts[1 - i], leaves[1 - i], strict=True)])

    terms: dict[tuple[str, int], list[Tensor]] = {}
    for i, mode in enumerate(modes):
        # The criterion of SOS looks at both players' terms, whichever of them uses it.
        for k in (0, 1) if mode == "sos" else (i,):
            if mode in _SHAPES_WITH_LOLA and ("lola", k) not in terms:
                held = [t.detach() for t in _scaled(etas[k], effect[k], batch)]
                terms["lola", k] = _vjp(xi[1 - k], leaves[k], held)
            if mode in _SHAPES_WITH_LOOKAHEAD and ("lookahead", k) not in terms:
                held = [t.detach() for t in _scaled(etas[k], xi[1 - k], batch)]
                terms["lookahead", k] = _vjp(effect[k], leaves[k], held)
        if mode == "lola2":
            # The opponent's own LOLA direction as a function of both players' parameters: nothing in it is held.
            j = 1 - i
            shaping = _vjp(xi[i], leaves[j], _scaled(etas[j], effect[j], batch), create=True)
            direction = [g - s for g, s in zip(xi[j], shaping, strict=True)]
            held = [t.detach() for t in _scaled(etas[i], effect[i], batch)]
            terms["lola2", i] = _vjp(direction, leaves[i], held)

    results: list[list[Tensor]] = []
    for i, mode in enumerate(modes):
        out = [g.detach() for g in xi[i]]
        for name in ("lookahead", "lola", "lola2"):
            wanted = (
                name == mode
                or (mode == "full" and name != "lola2")
                or (mode == "sos" and name == "lookahead")
            )
            if wanted:
                out = [g - s for g, s in zip(out, terms[name, i], strict=True)]
        if mode == "sos":
            ahead = [
                g.detach() - s for k in (0, 1) for g, s in zip(xi[k], terms["lookahead", k], strict=True)
            ]
            fraction = sos_fraction(
                [g.detach() for k in (0, 1) for g in xi[k]],
                ahead,
                [t for k in (0, 1) for t in terms["lola", k]],
                *sos,
                batch=batch,
            )
            out = [g - _spread(fraction, batch, s) * s for g, s in zip(out, terms["lola", i], strict=True)]
        results.append(out)
    return results[0], results[1]


def _unroll(
    losses: Callable[[Params, Params], Sequence[Tensor]], own: Params, other: Params, eta: Rate, steps: int
) -> Params:
    """Gradient of the own (first) loss by the own parameters, through `steps` steps of the other."""
    mine, rebuild_mine, argument_mine = _open(own)
    theirs, spec = tree_flatten(other)
    theirs = [t.detach().requires_grad_() for t in theirs]
    for _ in range(steps):
        loss = losses(argument_mine, tree_unflatten(theirs, spec))[1]
        batch = _batch(loss, loss, mine + theirs)
        grads = _grad(
            loss.sum(), theirs, "the opponent's loss does not depend on its own parameters", create=True
        )
        theirs = [t - _spread(eta, batch, g) * g for t, g in zip(theirs, grads, strict=True)]
    loss = losses(argument_mine, tree_unflatten(theirs, spec))[0]
    return rebuild_mine(_grad(loss.sum(), mine, "a loss does not depend on the player's own parameters"))


def _open(params: Params) -> tuple[list[Tensor], Callable[[list[Tensor]], Params], Params]:
    """Leaves to differentiate by, how to give gradients back, and what to hand to the losses."""
    if isinstance(params, nn.Module):
        leaves, rebuild = _live(params)
        return leaves, rebuild, params
    tensors, spec = tree_flatten(params)
    _check_tensors(tensors)
    leaves = [t.detach().requires_grad_() for t in tensors]
    return leaves, lambda grads: tree_unflatten(grads, spec), tree_unflatten(leaves, spec)


def _live(params: Params) -> tuple[list[Tensor], Callable[[list[Tensor]], Params]]:
    """Leaves as they are (they carry a graph already), and how to give gradients back."""
    if isinstance(params, nn.Module):
        named = [(name, p) for name, p in params.named_parameters() if p.requires_grad]
        if not named:
            raise ValueError("the module has no parameter that requires grad")
        return [p for _, p in named], lambda grads: dict(zip((n for n, _ in named), grads, strict=True))
    tensors, spec = tree_flatten(params)
    _check_tensors(tensors)
    return tensors, lambda grads: tree_unflatten(grads, spec)


def _check_tensors(tensors: list[Any]) -> None:
    if not tensors:
        raise ValueError("a player without parameters cannot learn: pass at least one tensor")
    for t in tensors:
        if not isinstance(t, Tensor) or not t.is_floating_point():
            raise TypeError(f"parameters must be floating-point tensors or a module, got {type(t).__name__}")


def _tensors(params: Params) -> list[Tensor]:
    return list(params.parameters()) if isinstance(params, nn.Module) else tree_flatten(params)[0]


def _check_not_shared(first: Sequence[Any], second: Sequence[Any]) -> None:
    if {id(t) for t in first} & {id(t) for t in second}:
        raise ValueError("the players share parameters: give each its own (clone them)")


def _modes(mode: Any) -> tuple[str, str]:
    modes = mode if isinstance(mode, tuple) else (mode, mode)
    if len(modes) != 2 or any(m not in _MODES for m in modes):
        raise ValueError(f"unknown mode {mode!r}: choose from {', '.join(_MODES)}, or a pair of them")
    return modes


def _pair(rate: Any) -> tuple[Any, Any]:
    pair = rate if isinstance(rate, tuple) else (rate, rate)
    if len(pair) != 2:
        raise ValueError(f"one rate or a pair of rates, got {len(pair)}")
    return pair


def _check_gamma(gamma: float, closed: bool = False) -> None:
    if not (0 <= gamma < 1 or (closed and gamma == 1)):
        raise ValueError(f"gamma must lie in [0, 1{']' if closed else ')'}, got {gamma}")


def _batch(loss1: Tensor, loss2: Tensor, leaves: list[Tensor]) -> tuple[int, ...]:
    if loss1.shape != loss2.shape:
        raise ValueError(
            f"both losses must have one shape, got {tuple(loss1.shape)} and {tuple(loss2.shape)}"
        )
    batch = tuple(loss1.shape)
    for leaf in leaves:
        if tuple(leaf.shape[: len(batch)]) != batch:
            raise ValueError(
                f"losses of shape {batch} mean that many independent games, but a parameter has shape "
                f"{tuple(leaf.shape)}: reduce the losses to scalars, or stack the parameters along these axes"
            )
    return batch


def _spread(rate: Rate, batch: Sequence[int], like: Tensor) -> Rate:
    """A rate for each game, shaped to multiply a parameter."""
    if not isinstance(rate, Tensor) or rate.ndim == 0:
        return rate
    if tuple(rate.shape) != tuple(batch):
        raise ValueError(
            f"a tensor of rates must have the shape of the losses {tuple(batch)}, got {tuple(rate.shape)}"
        )
    return rate.reshape(*batch, *([1] * (like.ndim - len(batch))))


def _scaled(rate: Rate, tensors: list[Tensor], batch: Sequence[int]) -> list[Tensor]:
    return [_spread(rate, batch, t) * t for t in tensors]


def _dense(grad: Tensor | None, leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if grad is None else grad


def _grad(output: Tensor, inputs: list[Tensor], missing: str | None, create: bool = False) -> list[Any]:
    """Gradients with the graph kept; with `missing`, zeros for unused inputs and that error when all are unused."""
    if not output.requires_grad:
        raise ValueError(missing or "a loss carries no graph to the parameters: was it detached?")
    grads = torch.autograd.grad(output, inputs, create_graph=create, retain_graph=True, allow_unused=True)
    if missing is None:
        return list(grads)
    if all(g is None for g in grads):
        raise ValueError(missing)
    return [_dense(g, p) for g, p in zip(grads, inputs, strict=True)]


def _vjp(
    outputs: list[Tensor], inputs: list[Tensor], weights: list[Tensor], create: bool = False
) -> list[Tensor]:
    """Gradient of <weights, outputs> by `inputs`, the weights held constant."""
    live = [(o, w) for o, w in zip(outputs, weights, strict=True) if o.requires_grad]
    if not live:  # a game without mixed second derivatives
        return [torch.zeros_like(p) for p in inputs]
    grads = torch.autograd.grad(
        [o for o, _ in live],
        inputs,
        [w for _, w in live],
        create_graph=create,
        retain_graph=True,
        allow_unused=True,
    )
    return [_dense(g, p) for g, p in zip(grads, inputs, strict=True)]


def _dot(left: Sequence[Tensor], right: Sequence[Tensor], batch: Sequence[int]) -> Tensor:
    parts = [(a * b).reshape(*batch, -1).sum(-1) for a, b in zip(left, right, strict=True)]
    return torch.stack(parts).sum(0)
