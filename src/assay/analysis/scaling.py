"""How training time falls with batch size: curves, regimes, learning-rate rules, gradient noise.

Shallue et al. 2019 (arXiv 1811.03600) measure *steps to result*; McCandlish et al. 2018 (arXiv 1812.06162) explain the
curve by the gradient noise scale; Zhang et al. 2019 (arXiv 1907.04164) by a noisy quadratic model.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import curve_fit
from torch import Tensor, nn

if TYPE_CHECKING:
    from pandas import DataFrame


# ------------------------------------------------------------------------------------------------------------
# the curve


@dataclass(frozen=True)
class Fit:
    """Parameters of $steps(B) = S_{min} (1 + B_c / B)$."""

    s_min: float
    """Steps that remain however large the batch."""
    b_critical: float
    """Batch size at which twice as many steps are needed: the turn of the curve."""
    r2: float
    """Share of the variance of log steps that the fit explains."""


@dataclass(frozen=True)
class Regimes:
    """Where the three regimes of data parallelism lie."""

    perfect_until: float | None
    """Largest batch size up to which doubling (nearly) halves the steps: local slope <= -0.8."""
    flat_from: float | None
    """Smallest batch size from which more data in parallel no longer helps: local slope >= -0.2."""


@dataclass(frozen=True)
class ScalingCurve:
    """Steps to result by batch size. Made by `scaling_curve`."""

    batch_sizes: NDArray[np.float64]
    steps: NDArray[np.float64]

    @property
    def slopes(self) -> NDArray[np.float64]:
        """Slope between neighbours on log-log axes: -1 is perfect scaling, 0 is flat."""
        return np.diff(np.log2(self.steps)) / np.diff(np.log2(self.batch_sizes))

    def slope(self, low: float, high: float) -> float:
        """Slope between two of the batch sizes."""
        at = {float(b): math.log2(s) for b, s in zip(self.batch_sizes, self.steps, strict=True)}
        for b in (low, high):
            if float(b) not in at:
                raise ValueError(f"{b} is not among the batch sizes {self.batch_sizes.tolist()}")
        return (at[float(high)] - at[float(low)]) / math.log2(high / low)

    def regimes(self, perfect: float = -0.8, flat: float = -0.2) -> Regimes:
        """The borders of perfect scaling and of maximal data parallelism; None where a regime is absent."""
        slopes = self.slopes
        steep = slopes <= perfect
        count = int(np.argmin(steep)) if not steep.all() else len(steep)  # leading steep stretches
        level = slopes >= flat
        trailing = int(np.argmin(level[::-1])) if not level.all() else len(level)
        return Regimes(
            perfect_until=float(self.batch_sizes[count]) if count else None,
            flat_from=float(self.batch_sizes[len(slopes) - trailing]) if trailing else None,
        )

    def fit(self) -> Fit:
        """Least squares in log steps.

        Raises:
            ValueError: fewer than three batch sizes.
        """
        if len(self.steps) < 3:
            raise ValueError(f"a fit needs at least 3 batch sizes: got {len(self.steps)}")
        log_steps = np.log(self.steps)

        def model(batch: NDArray, log_s: float, log_b: float) -> NDArray:
            return log_s + np.log1p(np.exp(log_b) / batch)

        # A curve that is still falling at its end leaves B_c unbounded: look within a factor 1000 of the range.
        low, high = math.log(self.batch_sizes[0] / 1e3), math.log(self.batch_sizes[-1] * 1e3)
        begin = (log_steps.min(), math.log(math.sqrt(self.batch_sizes[0] * self.batch_sizes[-1])))
        (log_s, log_b), _ = curve_fit(
            model,
            self.batch_sizes,
            log_steps,
            p0=begin,
            bounds=((-np.inf, low), (np.inf, high)),
            ftol=1e-14,
            xtol=1e-14,
            gtol=1e-14,
        )
        residual = log_steps - model(self.batch_sizes, log_s, log_b)
        total = float(((log_steps - log_steps.mean()) ** 2).sum())
        r2 = 1 - float((residual**2).sum()) / total if total else 1.0
        return Fit(math.exp(log_s), math.exp(log_b), r2)


def scaling_curve(batch_sizes: ArrayLike, steps: ArrayLike) -> ScalingCurve:
    """A curve of steps to result.

    Raises:
        ValueError: batch sizes that are not rising, or steps that are not positive (a goal that was never reached
            has no place on the curve: leave that batch size out and say so).

    >>> curve = scaling_curve([1, 10, 50, 500], [5100, 600, 200, 110])
    >>> round(curve.fit().s_min), round(curve.fit().b_critical)
    (100, 50)
    """
    sizes, counts = np.asarray(batch_sizes, dtype=float), np.asarray(steps, dtype=float)
    if sizes.ndim != 1 or sizes.shape != counts.shape or len(sizes) < 2:
        raise ValueError(
            f"give two or more batch sizes and as many steps: got {sizes.shape} and {counts.shape}"
        )
    if not (np.diff(sizes) > 0).all() or sizes[0] <= 0:
        raise ValueError(f"batch sizes must be positive and rising: got {sizes.tolist()}")
    if not (np.isfinite(counts) & (counts > 0)).all():
        raise ValueError(f"steps must be positive and finite: got {counts.tolist()}")
    return ScalingCurve(sizes, counts)


def interpolated_minimum(x: ArrayLike, y: ArrayLike) -> tuple[float, bool]:
    """Where a parabola through the lowest point and its neighbours has its minimum, in log x and log y.

    On a grid of learning rates the best one jumps by octaves; this reads between them.

    Args:
        x: positive, rising.
        y: positive; infinite or NaN where there is no value.

    Returns:
        The minimum's x, and whether the lowest point is at the edge of what has values (then x is that point).
    """
    grid, values = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    usable = np.isfinite(values)
    if not usable.any():
        raise ValueError("no value is finite: the search has no best point")
    values = np.where(usable, values, np.inf)
    k = int(np.argmin(values))
    if k in (0, len(grid) - 1) or not (usable[k - 1] and usable[k + 1]):
        return float(grid[k]), True
    a, b, _ = np.polyfit(np.log(grid[k - 1 : k + 2]), np.log(values[k - 1 : k + 2]), 2)
    if a <= 0:  # a flat stretch
        return float(grid[k]), False
    return float(np.exp(np.clip(-b / (2 * a), math.log(grid[k - 1]), math.log(grid[k + 1])))), False


def lr_rule_error(batch_sizes: ArrayLike, best_lrs: ArrayLike, rule: str, anchor: float) -> float:
    r"""How far a rule for the learning rate is off, in octaves: $\max_B |\log_2 (best(B) / rule(B))|$.

    The rule is $best(anchor) \cdot (B / anchor)^p$ with p = 1 ("linear") or 1/2 ("sqrt").
    """
    if rule not in ("linear", "sqrt"):
        raise ValueError(f"rule is 'linear' or 'sqrt': got {rule!r}")
    sizes, best = np.asarray(batch_sizes, dtype=float), np.asarray(best_lrs, dtype=float)
    if anchor not in sizes:
        raise ValueError(f"the anchor {anchor} is not among the batch sizes {sizes.tolist()}")
    predicted = best[sizes == anchor][0] * (sizes / anchor) ** (1.0 if rule == "linear" else 0.5)
    return float(np.abs(np.log2(best / predicted)).max())


# ------------------------------------------------------------------------------------------------------------
# gradient noise


@dataclass(frozen=True)
class NoiseScale:
    """Size of the gradient's noise against its mean."""

    g2: float
    """Squared norm of the true gradient, $|G|^2$ (unbiased: may come out negative)."""
    trace: float
    r"""Sum of the variances of one example's gradient, $tr(\Sigma)$."""

    @property
    def b_simple(self) -> float:
        r"""$tr(\Sigma) / |G|^2$: the batch size at which noise and signal are equal."""
        return self.trace / self.g2 if self.g2 > 0 else math.inf


Loss = Callable[[Tensor, Tensor], Tensor]


def gradient_noise_scale(
    model: nn.Module,
    loss_fn: Loss,
    x: Tensor,
    y: Tensor,
    b_small: int,
    b_big: int,
    draws: int = 20,
    generator: torch.Generator | None = None,
) -> NoiseScale:
    r"""The noise scale from the norms of gradients of two batch sizes (McCandlish et al. 2018, appendix A.1).

    From $E|g_B|^2 = |G|^2 + tr(\Sigma) / B$. Numerator and denominator are averaged over draws before they are
    divided: the ratio of single draws is biased.

    Args:
        model: any module; it is left as it is (mode, parameters, gradients).
        loss_fn: (outputs, y) -> mean loss.
        x, y: examples to draw batches from, with replacement.
        b_small, b_big: the two batch sizes, b_small < b_big.
        draws: batches of each size.
        generator: of the draws.
    """
    if not 1 <= b_small < b_big:
        raise ValueError(f"batch sizes must be 1 <= b_small < b_big: got {b_small} and {b_big}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1: got {draws}")
    parameters = [p for p in model.parameters() if p.requires_grad]

    def squared_norm(batch: int) -> float:
        total = 0.0
        for _ in range(draws):
            index = torch.randint(len(x), (batch,), generator=generator).to(x.device)
            gradients = torch.autograd.grad(loss_fn(model(x[index]), y[index]), parameters)
            total += float(sum(g.square().sum() for g in gradients))
        return total / draws

    small, big = squared_norm(b_small), squared_norm(b_big)
    return NoiseScale(
        g2=(b_big * big - b_small * small) / (b_big - b_small),
        trace=(small - big) / (1 / b_small - 1 / b_big),
    )


def exact_noise_scale(model: nn.Module, loss_fn: Loss, x: Tensor, y: Tensor, chunk: int = 256) -> NoiseScale:
    r"""The noise scale of a finite data set from the gradient of every example (`torch.func.vmap` of `grad`).

    Here $|G|^2$ is the squared norm of the mean gradient over the data, and $tr(\Sigma)$ the population variance.
    The model must treat examples independently: no batch normalisation in training mode.
    """
    from torch.func import functional_call, grad, vmap

    state = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], one: Tensor, label: Tensor) -> Tensor:
        return loss_fn(functional_call(model, parameters, (one[None],)), label[None])

    per_example = vmap(grad(loss), in_dims=(None, 0, 0))
    mean = {name: torch.zeros_like(p) for name, p in state.items()}
    square = 0.0
    for first in range(0, len(x), chunk):
        gradients = per_example(state, x[first : first + chunk], y[first : first + chunk])
        for name, g in gradients.items():
            mean[name] += g.sum(0) / len(x)
            square += float(g.square().sum()) / len(x)
    g2 = float(sum(m.square().sum() for m in mean.values()))
    return NoiseScale(g2=g2, trace=square - g2)


# ------------------------------------------------------------------------------------------------------------
# the noisy quadratic model


class NoisyQuadratic:
    r"""SGD on $\frac12 \sum_i h_i \theta_i^2$ with gradient noise of variance $c_i / B$: exact expected curves.

    $E[\theta_i^2]_{t+1} = (1 - \eta h_i)^2 E[\theta_i^2]_t + \eta^2 c_i / B$ (Zhang et al. 2019, section 2). It
    shows all three regimes of data parallelism, and no sampling is needed.

    Args:
        h: curvatures, positive.
        c: noise variances, not negative; default h (noise in proportion to curvature).
        theta2: $E[\theta_i^2]$ at the start; default 1.
    """

    def __init__(self, h: ArrayLike, c: ArrayLike | None = None, theta2: ArrayLike | None = None):
        self.h = np.asarray(h, dtype=float)
        self.c = self.h.copy() if c is None else np.asarray(c, dtype=float)
        self.theta2 = np.ones_like(self.h) if theta2 is None else np.asarray(theta2, dtype=float)
        if self.h.ndim != 1 or self.c.shape != self.h.shape or self.theta2.shape != self.h.shape:
            raise ValueError("h, c and theta2 are vectors of one length")
        if not (self.h > 0).all() or not (self.c >= 0).all():
            raise ValueError("curvatures must be positive and noise variances not negative")

    def losses(self, lr: float, batch: float, steps: int) -> NDArray[np.float64]:
        """Expected loss before the first and after every step, [steps + 1]; `batch` may be infinite."""
        shrink, noise = (1 - lr * self.h) ** 2, lr**2 * self.c / batch
        t = np.arange(steps + 1)[:, None]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            power = shrink**t
            # The geometric sum of the noise, also where nothing shrinks.
            total = np.where(
                np.isclose(shrink, 1.0), t, (1 - power) / np.where(shrink == 1.0, 1.0, 1 - shrink)
            )
            return 0.5 * ((self.theta2 * power + noise * total) * self.h).sum(1)

    def steps(self, lr: float, batch: float, target: float, limit: int = 1_000_000) -> float:
        """First step at which the expected loss is below `target`; infinite if there is none within `limit`."""
        stable = bool((lr * self.h < 2).all())
        if not stable:
            return math.inf
        shrink = (1 - lr * self.h) ** 2
        if 0.5 * float((self.h * lr**2 * self.c / batch / (1 - shrink)).sum()) >= target and np.isfinite(
            batch
        ):
            return math.inf  # the noise floor lies above the target (the loss falls towards it from above)
        low, high = 0, 1
        if self._loss_at(lr, batch, 0) < target:
            return 0.0
        while self._loss_at(lr, batch, high) >= target:
            low, high = high, high * 2
            if high > limit:
                return math.inf
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._loss_at(lr, batch, middle) >= target else (low, middle)
        return float(high)

    def _loss_at(self, lr: float, batch: float, t: int) -> float:
        shrink = (1 - lr * self.h) ** 2
        power = shrink**t
        floor = lr**2 * self.c / batch / (1 - shrink)
        return 0.5 * float(((self.theta2 * power + floor * (1 - power)) * self.h).sum())

    def optimal_steps(self, batch: float, lrs: ArrayLike, target: float) -> tuple[float, float]:
        """Fewest steps over the rates, and the rate: a search tuned for this batch size."""
        return min((self.steps(lr, batch, target), lr) for lr in np.atleast_1d(lrs).tolist())


# ------------------------------------------------------------------------------------------------------------
# released measurements


def load_released_measurements(
    folder: str | Path,
    dataset: str,
    model: str,
    optimizer: str,
    statuses: Sequence[str] = ("complete", "infeasible"),
) -> "DataFrame":
    """The measurements that Shallue et al. released (168,160 models), for one workload, as a `measurement_table`.

    The archive (batch_science_data.tar.bz2, 802 MB, linked from github.com/google-research/google-research, folder
    batch_science) holds `<dataset>/<model>/<optimizer>/<batch_size>/<trial>/` with `metadata.json` and
    `measurements.csv`. Columns: trial, batch_size, status, step, the hyperparameters, and the archive's own
    metrics, such as `val/classification_error`.

    >>> table = load_released_measurements("batch_science", "cifar_10", "resnet_8", "sgd")  # doctest: +SKIP
    >>> steps_to_result(table, goal=0.3, metric="val/classification_error")  # doctest: +SKIP

    Args:
        folder: the unpacked archive.
        dataset, model, optimizer: the workload, as the archive spells it.
        statuses: which trials: "complete", "incomplete", "infeasible".

    Raises:
        FileNotFoundError: the workload, or a file in it, is missing.
    """
    import pandas

    place = Path(folder) / dataset / model / optimizer
    if not place.is_dir():
        raise FileNotFoundError(
            f"no {place}: give the folder of the unpacked batch_science archive, with <dataset>/<model>/<optimizer>"
        )
    tables = []
    for path in place.glob("*/*/metadata.json"):
        about = json.loads(path.read_text())
        status = about["status"].lower()
        if status not in statuses:
            continue
        measured = path.with_name("measurements.csv")
        if not measured.is_file():
            raise FileNotFoundError(f"no {measured}: the archive was not unpacked whole")
        table = pandas.read_csv(measured)
        table.insert(0, "trial", int(about["trial_id"]))
        table.insert(1, "batch_size", int(path.parent.parent.name))
        table.insert(2, "status", status)
        tables.append(table.assign(**about["parameters"]))
    if not tables:
        raise FileNotFoundError(f"{place} holds no trial that is {' or '.join(statuses)}")
    return pandas.concat(tables, ignore_index=True).sort_values(
        ["batch_size", "trial", "step"], ignore_index=True
    )
