r"""What adaptive methods find: implicit bias in least squares, and the decay schedules that tune them fairly.

In least squares with more features than points many weight vectors fit. Started from 0, gradient descent finds the
one of smallest norm; AdaGrad, RMSProp and Adam find a multiple of $\mathrm{sign}(X^\top y)$ whenever one fits (Wilson
et al. 2017, arXiv 1705.08292, Lemma 3.1). The reason is one line: at weights $\tau\,\mathrm{sign}(X^\top y)$ every
residual is the same multiple of its label, so all gradients, past and present, are multiples of $X^\top y$, and
dividing by their accumulated magnitude leaves the sign.
"""

from dataclasses import dataclass
from typing import Any

import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from assay.optim.ensemble import EnsembleOptimizer

# ------------------------------------------------------------------------------------------------------------
# least squares


def min_norm_solution(
    x: Float[Tensor, "points features"], y: Float[Tensor, " points"]
) -> Float[Tensor, " features"]:
    """The least-squares solution of smallest norm: the limit of gradient descent (with or without momentum) from 0.

    >>> min_norm_solution(torch.tensor([[1.0, 1.0]]), torch.tensor([2.0])).round(decimals=4)
    tensor([1., 1.])
    """
    solution = scipy.linalg.lstsq(x.detach().cpu().numpy(), y.detach().cpu().numpy())[0]
    return torch.from_numpy(solution).to(x)


def sign_condition(
    x: Float[Tensor, "points features"], y: Float[Tensor, " points"], tolerance: float = 1e-9
) -> float | None:
    r"""The constant c > 0 with $X\,\mathrm{sign}(X^\top y) = c\,y$, or None if there is none.

    Only where it holds does the lemma say what adaptive methods converge to.

    Raises:
        ValueError: a label is not +1 or -1.
    """
    if not bool((y.abs() == 1).all()):
        raise ValueError("labels are +1 or -1")
    ratios = (x @ (x.T @ y).sign()) * y
    c = float(ratios.mean())
    return c if c > 0 and float((ratios - c).abs().max()) <= tolerance * c else None


def sign_solution(
    x: Float[Tensor, "points features"], y: Float[Tensor, " points"]
) -> Float[Tensor, " features"]:
    r"""$\mathrm{sign}(X^\top y) / c$: the limit of AdaGrad, RMSProp and Adam from 0 (Lemma 3.1).

    Raises:
        ValueError: no multiple of the signs fits the labels (see `sign_condition`).

    >>> sign_solution(torch.tensor([[1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]]), torch.tensor([1.0, -1.0]))
    tensor([ 0.5000,  0.5000, -0.5000])
    """
    c = sign_condition(x, y)
    if c is None:
        raise ValueError("no multiple of sign(X'y) fits the labels, so the lemma does not apply")
    return (x.T @ y).sign() / c


@dataclass(frozen=True)
class SolutionDiagnostics:
    """Which solution a weight vector is."""

    xty: Float[Tensor, " features"]
    r"""$X^\top y$: per feature, the sum over positive examples minus the sum over negative ones. All that the first
    gradient knows."""
    cos_sign: float
    """Cosine with its sign."""
    cos_minnorm: float
    """Cosine with the solution of smallest norm."""
    span_residual: float
    """Share of the weights' norm outside the span of the examples: 0 for whatever non-adaptive steps reach."""


def solution_diagnostics(
    w: Float[Tensor, " features"], x: Float[Tensor, "points features"], y: Float[Tensor, " points"]
) -> SolutionDiagnostics:
    """How close trained linear weights are to either of the two limits.

    Raises:
        ValueError: the weights are all 0 or not finite: they point nowhere.
    """
    norm = w.norm()
    if not 0 < float(norm) < float("inf"):
        raise ValueError("the weights must be finite and not all 0")
    xty = x.T @ y
    inside = min_norm_solution(x, x @ w)
    return SolutionDiagnostics(
        xty,
        float(torch.cosine_similarity(w, xty.sign(), dim=0)),
        float(torch.cosine_similarity(w, min_norm_solution(x, y), dim=0)),
        float((w - inside).norm() / norm),
    )


def general_update(
    w: Float[Tensor, "..."],
    previous: Float[Tensor, "..."],
    gradient: Float[Tensor, "..."],
    rate: float,
    momentum: float = 0.0,
    scale: Float[Tensor, "..."] | float = 1.0,
    previous_scale: Float[Tensor, "..."] | float = 1.0,
) -> Float[Tensor, "..."]:
    r"""The update that all methods of the lemma share (Wilson et al. 2017, equation 2.3 and table 1).

    $w_{k+1} = w_k - \alpha_k H_k^{-1} \tilde g + \beta_k H_k^{-1} H_{k-1} (w_k - w_{k-1})$ with
    $\tilde g = \nabla f(w_k + \gamma_k (w_k - w_{k-1}))$ and diagonal $H$.

    =================  ==================================================================================
    SGD                $H = 1$, $\beta = 0$
    heavy ball         $H = 1$, $\gamma = 0$
    Nesterov           $H = 1$, $\gamma = \beta$
    AdaGrad            $H_k = (\sum_{i \le k} g_i^2)^{1/2}$, $\beta = 0$
    RMSProp            $H_k$ from the moving average of $g^2$, $\beta = 0$
    Adam               $H_k$ from the corrected average, $\alpha_k = \alpha \frac{1-\beta_1}{1-\beta_1^k}$,
                       $\beta_k = \beta_1 \frac{1-\beta_1^{k-1}}{1-\beta_1^k}$
    =================  ==================================================================================

    Args:
        w, previous: $w_k$ and $w_{k-1}$.
        gradient: $\tilde g$, taken where the method wants it.
        rate, momentum: $\alpha_k$ and $\beta_k$.
        scale, previous_scale: the diagonals of $H_k$ and $H_{k-1}$. Where `scale` is 0 (a coordinate whose
            gradient was always 0) nothing moves.
    """
    scale = torch.as_tensor(scale, dtype=w.dtype, device=w.device)
    move = (momentum * previous_scale * (w - previous) - rate * gradient) / scale
    return w + torch.where(scale == 0, torch.zeros_like(w), move)


# ------------------------------------------------------------------------------------------------------------
# decay schedules


def _multiply(optimizer: torch.optim.Optimizer, factor: Tensor) -> None:
    """Multiply the learning rate of every member [K] (of every group, by [1], for an ordinary optimiser)."""
    if isinstance(optimizer, EnsembleOptimizer):
        scale = optimizer.scale
        factor = factor.to(optimizer.lr)
        optimizer.scale = factor if scale is None else scale * factor
    else:
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * float(factor)


def _factors(factor: float | Tensor, members: int) -> Tensor:
    factors = torch.as_tensor(factor, dtype=torch.float64).cpu()
    if factors.ndim > 0 and factors.shape != (members,):
        raise ValueError(f"factor is one number or one for each of the {members} members: got {factor}")
    if not bool(((factors > 0) & (factors <= 1)).all()):
        raise ValueError(f"factor lies in (0, 1]: got {factor}")
    return factors.expand(members)


class DevDecay:
    """Multiply the rate by `factor` whenever an epoch brought no better held-out metric than the best so far.

    The *dev-decay* scheme of Wilson et al. 2017, section 4.1. On an ordinary optimiser it is torch's
    `ReduceLROnPlateau(patience=0, threshold=0)`; on an `EnsembleOptimizer` every member decays by its own metric,
    through `scale`.

    Args:
        optimizer: whose rate decays.
        factor: in (0, 1]; for an ensemble also one a member [K] (1: this member does not decay).
        mode: "min" if lower metrics are better, else "max".

    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> decay = DevDecay(optimizer, 0.5)
    >>> for error in (0.3, 0.2, 0.25, 0.1):
    ...     decay.step(error)
    >>> optimizer.param_groups[0]["lr"]
    0.5
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, factor: float | Tensor = 0.9, mode: str = "min"
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode is 'min' or 'max': got {mode!r}")
        self.optimizer, self.mode = optimizer, mode
        self.members: int = optimizer.members if isinstance(optimizer, EnsembleOptimizer) else 1
        self.factor = _factors(factor, self.members)
        self.best = torch.full((self.members,), float("inf"), dtype=torch.float64)
        """Best metric so far [K] (negated in mode "max")."""

    def step(self, metric: float | Float[Tensor, "..."]) -> None:
        """After every epoch: the held-out metric, one number or one a member [K]. NaN is no improvement."""
        value = torch.as_tensor(metric, dtype=torch.float64).cpu().expand(self.members)
        value = value if self.mode == "min" else -value
        better = value < self.best  # False for NaN
        self.best = torch.where(better, value, self.best)
        _multiply(self.optimizer, torch.where(better, torch.ones_like(self.factor), self.factor))


class FixedFrequencyDecay:
    """Multiply the rate by `factor` after every `every` epochs: torch's `StepLR`, for ensembles too.

    Chains with `DevDecay`: give each factor 1 for the members that the other one decays.

    Args:
        optimizer: whose rate decays.
        every: epochs between decays, >= 1.
        factor: in (0, 1]; for an ensemble also one a member [K].
    """

    def __init__(self, optimizer: torch.optim.Optimizer, every: int, factor: float | Tensor = 0.1) -> None:
        if every < 1:
            raise ValueError(f"every is a number of epochs, at least 1: got {every}")
        self.optimizer, self.every, self.epoch = optimizer, every, 0
        members: Any = optimizer.members if isinstance(optimizer, EnsembleOptimizer) else 1
        self.factor = _factors(factor, members)

    def step(self) -> None:
        """After every epoch."""
        self.epoch += 1
        if self.epoch % self.every == 0:
            _multiply(self.optimizer, self.factor)
