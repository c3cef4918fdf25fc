r"""Optimisers over stacked networks (`assay.nn.ensemble`): every member with its own rate, decay and mask.

Each kind follows the torch optimiser of that name in its parametrisation, so a member moves as it would alone:

=========  =====================================================================
sgd        $\theta \leftarrow \theta - \eta g$
momentum   $v \leftarrow \gamma v + g$; $\theta \leftarrow \theta - \eta v$
nesterov   $v$ as above; $\theta \leftarrow \theta - \eta (g + \gamma v)$
adagrad    $s \leftarrow s + g^2$; $\theta \leftarrow \theta - \eta g / (\sqrt{s} + \epsilon)$
rmsprop    $s \leftarrow \alpha s + (1 - \alpha) g^2$; then as adagrad
adam       Kingma & Ba 2014, with bias correction
=========  =====================================================================
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

KINDS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam")
DECAYS = ("l2", "lr_scaled", "independent")

PerMember = float | Tensor


class EnsembleOptimizer(torch.optim.Optimizer):
    r"""One optimiser for K stacked networks, each with its own hyperparameters.

    Args:
        params: stacked parameters, members first: [K, ...].
        kind: "sgd", "momentum", "nesterov", "adagrad", "rmsprop" or "adam".
        lr: learning rate, one number or one a member [K].
        momentum: of "momentum" and "nesterov"; one number or [K].
        betas: of "adam".
        alpha: smoothing constant of "rmsprop".
        eps: added after the root; default: torch's (1e-10 for "adagrad", else 1e-8).
        weight_decay: one number or [K].
        decay: how decay acts. "l2": added to the gradient. "lr_scaled": $\theta \leftarrow \theta - \eta
            \lambda \theta$ beside the step, as `torch.optim.AdamW` does. "independent": $\theta \leftarrow
            \theta - \lambda \theta$ beside the step, not multiplied by the rate (Loshchilov & Hutter 2019,
            arXiv 1711.05101, Algorithms 1 and 2). All use $\theta$ before the step.
        schedule_inside: with momentum, multiply the gradient by `scale` before it enters the velocity (SGDW as
            Algorithm 1 has it) rather than the step (as torch's schedulers do).
        decay_params: the parameters that decay; None: those with a weight's axes (more than [K, out]), so
            biases and norm gains do not.

    Between steps you may set `scale`, a schedule's multiplier (one number or [K], for the step and for
    decoupled decay alike), and `active`, a boolean [K]: members where it is False stay exactly as they are,
    whatever their gradients hold (NaN of a diverged member, say).

    >>> weight = torch.nn.Parameter(torch.ones(2, 3))
    >>> opt = EnsembleOptimizer([weight], "sgd", lr=torch.tensor([0.1, 0.5]))
    >>> weight.sum().backward(); opt.step(); weight[:, 0].tolist()
    [0.8999999761581421, 0.5]
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        kind: str,
        lr: PerMember,
        momentum: PerMember = 0.9,
        betas: tuple[float, float] = (0.9, 0.999),
        alpha: float = 0.99,
        eps: float | None = None,
        weight_decay: PerMember = 0.0,
        decay: str = "l2",
        schedule_inside: bool = False,
        decay_params: Iterable[nn.Parameter] | None = None,
    ):
        if kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}: got {kind!r}")
        if decay not in DECAYS:
            raise ValueError(f"decay is one of {', '.join(DECAYS)}: got {decay!r}")
        if not (0 <= betas[0] < 1 and 0 <= betas[1] < 1):
            raise ValueError(f"betas lie in [0, 1): got {betas}")
        defaults: dict[str, Any] = {
            "kind": kind,
            "betas": betas,
            "alpha": alpha,
            "eps": eps if eps is not None else 1e-10 if kind == "adagrad" else 1e-8,
            "decay": decay,
            "schedule_inside": schedule_inside,
        }
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise ValueError("an EnsembleOptimizer takes one list of parameters, not groups")
        stacked = self.param_groups[0]["params"]
        sizes = {p.shape[0] if p.ndim else 0 for p in stacked}
        if len(sizes) != 1 or 0 in sizes:
            raise ValueError(
                f"every parameter must be stacked with the members first: their first axes are {sorted(sizes)}"
            )
        self.members: int = sizes.pop()
        first = stacked[0]
        self._like = first.detach().new_empty(0)
        self._lr = self._per_member(lr, "lr")
        self._momentum = self._per_member(momentum, "momentum")
        self._weight_decay = self._per_member(weight_decay, "weight_decay")
        self._decays = bool((self._weight_decay > 0).any())
        chosen = None if decay_params is None else {id(p) for p in decay_params}
        self._decayed = {id(p) for p in stacked if (p.ndim > 2 if chosen is None else id(p) in chosen)}
        self._masks: dict[int, Tensor] = {}
        self._scratch: dict[int, Tensor] = {}
        self._steps = torch.zeros(self.members, dtype=torch.float64, device=first.device)
        self._scale: Tensor | None = None
        self._active: Tensor | None = None

    def _per_member(self, value: PerMember, name: str) -> Tensor:
        tensor = torch.as_tensor(value, dtype=self._like.dtype, device=self._like.device)
        if tensor.ndim == 0:
            tensor = tensor.expand(self.members)
        if tensor.shape != (self.members,):
            raise ValueError(
                f"{name} is one number or one for each of the {self.members} members: got {tuple(tensor.shape)}"
            )
        if not bool((tensor >= 0).all()):
            raise ValueError(f"{name} must not be negative or NaN: got {tensor.tolist()}")
        return tensor.clone()

    @property
    def lr(self) -> Tensor:
        """Learning rates [K], without `scale`. Assign a number or [K]."""
        return self._lr

    @lr.setter
    def lr(self, value: PerMember) -> None:
        self._lr = self._per_member(value, "lr")

    @property
    def scale(self) -> Tensor | None:
        """Multiplier of a schedule [K]; None is 1."""
        return self._scale

    @scale.setter
    def scale(self, value: PerMember | None) -> None:
        self._scale = None if value is None else self._per_member(value, "scale")

    @property
    def active(self) -> Tensor | None:
        """Which members move [K]; None: all."""
        return self._active

    @active.setter
    def active(self, value: Tensor | None) -> None:
        if value is not None and (value.dtype != torch.bool or value.shape != (self.members,)):
            raise ValueError(
                f"active is a boolean tensor [{self.members}]: got {value.dtype} {tuple(value.shape)}"
            )
        self._active = None if value is None or bool(value.all()) else value.clone()

    @property
    def steps(self) -> Tensor:
        """Steps that every member has taken [K]."""
        return self._steps.long()

    def mask(self, param: nn.Parameter, mask: Tensor | None) -> None:
        """Entries of `param` where `mask` is False never move (they are pruned, or frozen); None lifts it."""
        if not any(param is p for p in self.param_groups[0]["params"]):
            raise ValueError("this optimiser does not hold that parameter")
        if mask is None:
            self._masks.pop(id(param), None)
            return
        if mask.shape != param.shape or mask.dtype != torch.bool:
            raise ValueError(
                f"the mask must be boolean of shape {tuple(param.shape)}: got {mask.dtype} {tuple(mask.shape)}"
            )
        self._masks[id(param)] = mask.to(param)
        for moment in self.state[param].values():  # what has built up there must not move it either
            moment.mul_(self._masks[id(param)])

    @torch.no_grad()
    def reset(self, member: int | Tensor) -> None:
        """Forget moments and step count of one member (or of the members that an index or mask picks)."""
        self._steps[member] = 0
        for state in self.state.values():
            for value in state.values():
                value[member] = 0

    def _select(self, index: Tensor, fresh: dict[int, nn.Parameter]) -> None:
        """Go on with these members only; `fresh` holds the cut parameter for the id of every old one."""
        group = self.param_groups[0]
        old = group["params"]
        group["params"] = [fresh[id(p)] for p in old]
        for p in old:
            new = fresh[id(p)]
            if p in self.state:
                self.state[new] = {name: value[index].clone() for name, value in self.state.pop(p).items()}
        self._masks = {id(fresh[key]): mask[index] for key, mask in self._masks.items()}
        self._decayed = {id(fresh[key]) for key in self._decayed}
        self._scratch.clear()
        self._steps = self._steps[index]
        self.members = len(self._steps)
        for name in ("_lr", "_momentum", "_weight_decay", "_scale", "_active"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else value[index])

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        """One step of every active member from the gradients at hand."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        group = self.param_groups[0]
        kind, decay = group["kind"], group["decay"]
        scale, active = self._scale, self._active
        self._steps += 1 if active is None else active
        inside = group["schedule_inside"] and kind in ("momentum", "nesterov") and scale is not None
        lr = self._lr if scale is None or inside else self._lr * scale
        rate = self._weight_decay
        shrink = rate if decay == "independent" else rate * self._lr
        if scale is not None:
            shrink = shrink * scale
        if kind == "adam":
            beta1, beta2 = group["betas"]
            steps = self._steps.clamp(min=1)
            correction = (1 - beta1**steps).to(lr.dtype)
            over_root_correction = (1 - beta2**steps).rsqrt().to(lr.dtype)
            lr = lr / correction
        for p in group["params"]:
            if p.grad is None:
                continue
            shape = (self.members, *[1] * (p.ndim - 1))
            step = lr.view(shape).neg()
            grad, state, mask = p.grad, self.state[p], self._masks.get(id(p))
            # The common path allocates nothing: small ensembles are bound by memory, not by arithmetic.
            kept = (
                None
                if active is None
                else (p.clone(), {name: value.clone() for name, value in state.items()})
            )
            if self._decays and id(p) in self._decayed:
                if decay == "l2":
                    grad = grad.addcmul(p, rate.view(shape))
                else:
                    share = -shrink.view(shape) if mask is None else -shrink.view(shape) * mask
                    p.addcmul_(p, share)
            if mask is not None:
                grad = grad * mask
            if inside and scale is not None:
                grad = grad * scale.view(shape)
            if kind == "sgd":
                p.addcmul_(grad, step)
            elif kind in ("momentum", "nesterov"):
                gamma = self._momentum.view(shape)
                velocity = self._moment(state, "velocity", p)
                velocity.mul_(gamma).add_(grad)
                if kind == "momentum":
                    p.addcmul_(velocity, step)
                else:
                    p.addcmul_(grad, step).addcmul_(velocity, step * gamma)
            else:
                if kind == "adagrad":
                    square = self._moment(state, "sum", p).addcmul_(grad, grad)
                elif kind == "rmsprop":
                    square = self._moment(state, "square", p).mul_(group["alpha"])
                    square.addcmul_(grad, grad, value=1 - group["alpha"])
                else:
                    square = self._moment(state, "square", p).mul_(beta2)
                    square.addcmul_(grad, grad, value=1 - beta2)
                    grad = self._moment(state, "mean", p).lerp_(grad, 1 - beta1)
                root = torch.sqrt(square, out=self._scratch_like(p))
                if kind == "adam":
                    root.mul_(over_root_correction.view(shape))
                torch.div(grad, root.add_(group["eps"]), out=root)
                p.addcmul_(root, step)
            if active is not None and kept is not None:
                moves, (before, moments) = active.view(shape), kept
                p.copy_(torch.where(moves, p, before))
                for name, value in state.items():
                    value.copy_(torch.where(moves, value, moments.get(name, torch.zeros_like(value))))
        return loss

    def _scratch_like(self, p: Tensor) -> Tensor:
        """Room for one parameter's update, kept between steps."""
        if id(p) not in self._scratch or self._scratch[id(p)].shape != p.shape:
            self._scratch[id(p)] = torch.empty_like(p)
        return self._scratch[id(p)]

    @staticmethod
    def _moment(state: dict[str, Tensor], name: str, p: Tensor) -> Tensor:
        if name not in state:
            state[name] = torch.zeros_like(p)
        return state[name]


@torch.no_grad()
def select_members(module: nn.Module, optimizer: EnsembleOptimizer, index: Tensor) -> None:
    """Shrink an ensemble to the members that `index` picks (indices or a mask): weights, moments, buffers.

    What has stopped then costs nothing any more. The module gets new parameters (a parameter cannot change its
    shape under a graph that still knows the old one), so ask it for them again.
    """
    if index.dtype == torch.bool:
        index = index.nonzero().squeeze(1)
    held = {id(p) for p in optimizer.param_groups[0]["params"]}
    loose = [name for name, p in module.named_parameters() if id(p) not in held]
    if loose:
        raise ValueError(f"the optimiser does not hold {', '.join(loose)}: their members would not be cut")
    fresh = {id(p): nn.Parameter(p[index].clone(), p.requires_grad) for p in module.parameters()}
    if set(fresh) != held:
        raise ValueError(
            "the optimiser holds parameters that are not the module's: their members would not be cut"
        )
    optimizer._select(index, fresh)
    for part in module.modules():
        for name, p in part.named_parameters(recurse=False):
            setattr(part, name, fresh[id(p)])
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, buffer[index].clone())
