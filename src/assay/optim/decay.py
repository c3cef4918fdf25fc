r"""Weight decay that is decoupled from the gradient: SGDW, AdamW, and what goes with them.

Adding $\frac{\lambda'}{2} \|\theta\|^2$ to the loss is the same as shrinking the weights by
$\lambda = \alpha \lambda'$ a step only for plain SGD with a constant rate. Momentum and, more so, a division by
$\sqrt{v}$ change the penalty's gradient with the rest. Decoupled, the weights shrink by themselves (Loshchilov &
Hutter 2019, arXiv 1711.05101).

Two parametrisations are in use, and every optimiser here names the one it takes:

==============  =========================================================  ===============================
decay           a step does                                                who
==============  =========================================================  ===============================
"independent"   $\theta \leftarrow (1 - \eta_t \lambda)\,\theta - \dots$         the paper
"lr_scaled"     $\theta \leftarrow (1 - \eta_t \alpha \lambda)\,\theta - \dots$  `torch.optim.AdamW`, Optax
==============  =========================================================  ===============================

$\alpha$ is the base rate and $\eta_t$ the multiplier of a schedule, read as `group["lr"] / group["initial_lr"]`; the
second is set by any torch scheduler. Without one, $\eta_t = 1$.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

DECAYS = ("independent", "lr_scaled")


def _check_decay(decay: str, weight_decay: float) -> None:
    if decay not in DECAYS:
        raise ValueError(f"decay is 'independent' (the paper's) or 'lr_scaled' (torch's): got {decay!r}")
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay must not be negative or NaN: got {weight_decay}")


def _check_share(share: float) -> None:
    """Whether a step may take this share of the weights."""
    if share >= 1:
        raise ValueError(
            f"a step would shrink the weights by {share:g}, that is to zero or beyond: with decay='independent' "
            "weight_decay is not multiplied by the learning rate, so use about 1e-4"
        )
    if share >= 0.1:
        warnings.warn(
            f"every step shrinks the weights by {share:.0%}: with decay='independent' weight_decay is not multiplied "
            "by the learning rate (convert_decay translates)",
            stacklevel=3,
        )


class SGDW(torch.optim.Optimizer):
    r"""SGD with momentum and decoupled weight decay (Algorithm 1).

    $m_t = \beta m_{t-1} + \eta_t \alpha g_t$; $\theta_t = \theta_{t-1} - m_t - \eta_t \lambda \theta_{t-1}$. The decay
    never enters $m$. Works with any torch scheduler.

    Args:
        params: parameters or groups.
        lr: base rate $\alpha$.
        momentum: $\beta$.
        weight_decay: $\lambda$, a step. Without normalisation layers the best value grows with the rate.
        nesterov: step along $\beta m_t + \eta_t \alpha g_t$ instead of $m_t$.
        decay: "independent" (the paper's) or "lr_scaled" (times the rate).

    Raises:
        ValueError: a negative hyperparameter, or a decay that would take the whole weight in a step.
        RuntimeError: sparse gradients.

    >>> layer = nn.Linear(2, 1)
    >>> optimizer = SGDW(layer.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.05,
        momentum: float = 0.0,
        weight_decay: float = 1e-4,
        nesterov: bool = False,
        decay: str = "independent",
    ):
        if not lr >= 0:
            raise ValueError(f"lr must not be negative or NaN: got {lr}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum lies in [0, 1): got {momentum}")
        if nesterov and not momentum:
            raise ValueError("nesterov needs momentum > 0")
        _check_decay(decay, weight_decay)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "decay": decay,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            _check_decay(group["decay"], group["weight_decay"])
            _check_share(self._share(group))

    @staticmethod
    def _share(group: dict[str, Any]) -> float:
        """What part of the weights one step takes now."""
        lr, decay = float(group["lr"]), group["weight_decay"]
        if group["decay"] == "lr_scaled":
            return lr * decay
        base = float(group.get("initial_lr", lr))
        return decay * (lr / base if base else 1.0)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """One step from the gradients at hand."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, momentum = float(group["lr"]), group["momentum"]
            held = [p for p in group["params"] if p.grad is not None]
            if any(p.grad.is_sparse for p in held):
                raise RuntimeError("SGDW does not support sparse gradients")
            if not held:
                continue
            # Low precision only in the weights: a sum of small steps in bfloat16 would lose them.
            steps = [torch.view_as_real(p.grad) if p.is_complex() else p.grad for p in held]
            steps = [g.float() * lr if g.dtype in (torch.bfloat16, torch.float16) else g * lr for g in steps]
            if momentum:
                moments = []
                for p, step in zip(held, steps, strict=True):
                    state = self.state[p]
                    if "momentum" not in state:
                        state["momentum"] = torch.zeros_like(step)
                    moments.append(state["momentum"])
                torch._foreach_mul_(moments, momentum)
                torch._foreach_add_(moments, steps)
                if group["nesterov"]:
                    torch._foreach_add_(steps, moments, alpha=momentum)
                else:
                    steps = moments
            share = self._share(group)
            for p, step in zip(held, steps, strict=True):
                weight = torch.view_as_real(p) if p.is_complex() else p
                if share:
                    weight.mul_(
                        1 - share
                    )  # theta before the step: the step itself does not depend on it any more
                weight.sub_(step.to(weight.dtype))
        return loss


class IndependentAdamW(torch.optim.AdamW):
    r"""`torch.optim.AdamW` with the paper's decay, $\theta \leftarrow (1 - \eta_t \lambda)\,\theta - \dots$ (Alg. 2).

    Torch shrinks by lr times its `weight_decay`, and lr is $\eta_t \alpha$: so handing it $\lambda / \alpha$ gives
    $\eta_t \lambda$. Everything else, the fast paths included, is torch's. Made by `AdamW`.
    """

    def __init__(self, params: Iterable[Any], **options: Any):
        super().__init__(params, **options)
        for group in self.param_groups:
            _check_decay("independent", group["weight_decay"])
            _check_share(group["weight_decay"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step from the gradients at hand."""
        decays = [group["weight_decay"] for group in self.param_groups]
        try:
            for group, decay in zip(self.param_groups, decays, strict=True):
                base = float(group.get("initial_lr", group["lr"]))
                if decay and not base:
                    raise ValueError("decay='independent' needs a base learning rate above 0")
                group["weight_decay"] = decay / base if decay else 0.0
            return super().step(closure)
        finally:
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay


def AdamW(
    params: Iterable[Any],
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-4,
    decay: str = "independent",
    amsgrad: bool = False,
    **options: Any,
) -> torch.optim.AdamW:
    r"""Adam with decoupled weight decay, in the paper's parametrisation or in torch's.

    Args:
        params: parameters or groups.
        lr, betas, eps, amsgrad, **options: as in `torch.optim.AdamW` (`foreach`, `fused`, ...).
        weight_decay: with decay="independent" a share of the weights each step: 0.01 is a lot (0.99^600 = 0.0024).
        decay: "independent": $\eta_t \lambda$ (Algorithm 2). "lr_scaled": $\eta_t \alpha \lambda$; this is then a plain
            `torch.optim.AdamW`.

    >>> optimizer = AdamW(nn.Linear(2, 1).parameters(), lr=1e-3, weight_decay=1e-4)
    """
    _check_decay(decay, weight_decay)
    make = torch.optim.AdamW if decay == "lr_scaled" else IndependentAdamW
    return make(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, **options)


def decay_groups(
    model: nn.Module, weight_decay: float, skip: Sequence[str] = ("bias", "norm")
) -> list[dict[str, Any]]:
    """Parameter groups with decay and without: biases and normalisation layers are usually left alone.

    Args:
        model: any module.
        weight_decay: of the first group.
        skip: "bias": every parameter of that name; "norm": all parameters of normalisation layers; any other word:
            parameters whose full name contains it.

    >>> [len(group["params"]) for group in decay_groups(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)), 0.1)]
    [1, 3]
    """
    norms = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    plain: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for name, p in module.named_parameters(recurse=False):
            if id(p) in seen:
                continue
            seen.add(id(p))
            full = f"{prefix}.{name}" if prefix else name
            left = (
                ("norm" in skip and isinstance(module, norms))
                or ("bias" in skip and name.rpartition(".")[2].startswith("bias"))
                or any(word in full for word in skip if word not in ("bias", "norm"))
            )
            (plain if left else decayed).append(p)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def normalized_weight_decay(norm_value: float, batch_size: int, n_examples: int, epochs: float) -> float:
    r"""Decay a step from the normalised one: $\lambda = \lambda_{norm} \sqrt{b / (B T)}$ (appendix B.1).

    The best $\lambda_{norm}$ is meant to be the same for short and long runs.

    Args:
        norm_value: $\lambda_{norm}$, 0.025 to 0.05 in the paper.
        batch_size: b.
        n_examples: B, training examples.
        epochs: T, of the run, or of the current period between restarts.

    >>> round(normalized_weight_decay(0.05, 128, 50_000, 100), 10)
    0.0002529822
    """
    if norm_value < 0 or min(batch_size, n_examples) < 1 or not epochs > 0:
        raise ValueError(
            "norm_value must not be negative, batch_size, n_examples and epochs must be positive"
        )
    return norm_value * math.sqrt(batch_size / (n_examples * epochs))


class CosineRestarts(CosineAnnealingWarmRestarts):
    r"""Cosine annealing with warm restarts (SGDR; AdamWR and SGDWR with a decoupled decay).

    $\eta_t = \eta_{min} + \frac12 (1 - \eta_{min}) (1 + \cos(\pi T_{cur} / T_i))$ with periods
    $T_{i+1} = T_{mult} T_i$. Call `step(epoch)` with fractions of epochs after each batch, or `step()` once an epoch.

    Args:
        optimizer: any.
        t0: epochs of the first period.
        t_mult: factor between periods.
        eta_min: smallest multiplier.
        normalized: (norm_value, batch_size, n_examples): then every period's weight decay is
            `normalized_weight_decay` for its own length, in the groups that decay.

    Source: Loshchilov & Hutter 2017 (arXiv 1608.03983); decay by period: 1711.05101, appendix B.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        t0: int,
        t_mult: int = 2,
        eta_min: float = 0.0,
        normalized: tuple[float, int, int] | None = None,
    ):
        self.normalized = normalized
        self.decaying = [group.get("weight_decay", 0.0) > 0 for group in optimizer.param_groups]
        if normalized and not any(self.decaying):
            raise ValueError("normalized rescales weight_decay, but no group has any")
        self._eta_min = eta_min
        super().__init__(optimizer, t0, t_mult)

    def get_lr(self) -> list[Any]:
        """Rates of all groups at `T_cur`."""
        turn = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [base * (self._eta_min + (1 - self._eta_min) * turn) for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:  # type: ignore[override]
        """Move to `epoch` (a number with fraction), or one epoch on."""
        super().step(epoch)  # type: ignore[arg-type]
        if self.normalized:
            decay = normalized_weight_decay(*self.normalized, epochs=self.T_i)
            for group, decays in zip(self.optimizer.param_groups, self.decaying, strict=True):
                if decays:
                    group["weight_decay"] = decay


def l2_equivalent(lr: float, weight_decay: float) -> float:
    r"""The L2 coefficient $\lambda' = \lambda / \alpha$ with which plain SGD does what decay $\lambda$ does (Prop. 1).

    Exact for SGD without momentum at a constant rate; under a schedule if $\lambda$ follows it, as "independent"
    decay does.
    """
    if not lr > 0:
        raise ValueError(f"lr must be positive: got {lr}")
    return weight_decay / lr


def convert_decay(value: float, lr: float, to: str) -> float:
    """Translate a weight decay between the parametrisations, at base rate `lr`.

    >>> convert_decay(0.01, lr=1e-3, to="independent")
    1e-05
    """
    _check_decay(to, value)
    if not lr > 0:
        raise ValueError(f"lr must be positive: got {lr}")
    return value * lr if to == "independent" else value / lr
