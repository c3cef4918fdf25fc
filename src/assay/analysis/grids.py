"""Reading grids of two hyperparameters: which way do the contours of the error run?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar


@dataclass(frozen=True)
class Contour:
    """The direction along which the error does not change."""

    slope: float
    """s in error = f(log2 decay + s log2 rate): 0, the best decay is the same at all rates; 1, it falls as 1 / rate;
    -1, it grows with the rate."""
    r2: float
    """Share of the variance that a function of this one index explains."""
    cells: int
    """Cells that entered."""


def contour_slope(
    error: ArrayLike, rates: ArrayLike, decays: ArrayLike, cap: float = 2.0, degree: int = 4
) -> Contour:
    """The slope s that best makes the error a polynomial of `log2(decay) + s * log2(rate)`.

    Args:
        error: [rates, decays]; NaN or infinite where a training diverged.
        rates, decays: positive.
        cap: cells with an error of at least `cap` times the best are left out: far from the optimum the contours
            tell how training fails, not how decay acts.
        degree: of the polynomial.

    Raises:
        ValueError: the shapes do not fit, or fewer than `degree + 3` cells remain.
    """
    table = np.asarray(error, dtype=float)
    a, l = np.asarray(rates, dtype=float), np.asarray(decays, dtype=float)  # noqa: E741
    if table.shape != (len(a), len(l)):
        raise ValueError(f"error must be [{len(a)} rates, {len(l)} decays]: got {table.shape}")
    if not (a > 0).all() or not (l > 0).all():
        raise ValueError("rates and decays must be positive: their logarithms are the axes")
    finite = np.where(np.isfinite(table), table, np.inf)
    near = finite < cap * finite.min()
    if near.sum() < degree + 3:
        raise ValueError(
            f"only {int(near.sum())} cells lie below {cap:g} times the best error: a contour needs {degree + 3}"
        )
    y = table[near]
    log_rate, log_decay = (
        np.broadcast_to(axis, table.shape)[near] for axis in (np.log2(a)[:, None], np.log2(l)[None])
    )
    total = float(((y - y.mean()) ** 2).sum())

    def unexplained(s: float) -> float:
        index = log_decay + s * log_rate
        index = (index - index.mean()) / (index.std() or 1.0)
        basis = np.polynomial.legendre.legvander(index / max(1.0, np.abs(index).max()), degree)
        residual = y - basis @ np.linalg.lstsq(basis, y, rcond=None)[0]
        return float((residual**2).sum())

    coarse = np.linspace(-2.5, 2.5, 101)
    best = coarse[int(np.argmin([unexplained(s) for s in coarse]))]
    fine = minimize_scalar(unexplained, bounds=(best - 0.05, best + 0.05), method="bounded")
    slope = float(fine.x) if fine.fun <= unexplained(best) else float(best)
    return Contour(slope, 1 - unexplained(slope) / total if total else 1.0, int(near.sum()))


def separability(error: ArrayLike, cap: float = np.inf) -> float:
    """Share of the variance of a grid that rows plus columns explain: 1 if the two hyperparameters do not interact.

    Cells at or above `cap` times the best, or not finite, are left out (least squares on the others).
    """
    table = np.asarray(error, dtype=float)
    finite = np.where(np.isfinite(table), table, np.inf)
    near = finite < (np.inf if np.isinf(cap) else cap * finite.min())
    rows, columns = np.nonzero(near)
    y = table[near]
    basis = np.concatenate([np.eye(table.shape[0])[rows], np.eye(table.shape[1])[columns]], axis=1)
    residual = y - basis @ np.linalg.lstsq(basis, y, rcond=None)[0]
    total = float(((y - y.mean()) ** 2).sum())
    return 1 - float((residual**2).sum()) / total if total else 1.0


def best_cell(select: ArrayLike, report: ArrayLike) -> tuple[float, tuple[int, ...], bool]:
    """The reported error of the cell with the lowest selection error: choosing and reporting on different data.

    Args:
        select, report: grids of one shape; cells that are not finite in `select` are never chosen.

    Returns:
        The reported value, the cell, and whether it lies at an edge of the grid.
    """
    chosen, shown = np.asarray(select, dtype=float), np.asarray(report, dtype=float)
    if chosen.shape != shown.shape:
        raise ValueError(f"the grids differ in shape: {chosen.shape} and {shown.shape}")
    if not np.isfinite(chosen).any():
        raise ValueError("no cell is finite: nothing to choose")
    flat = int(np.argmin(np.where(np.isfinite(chosen), chosen, np.inf)))
    cell: NDArray = np.array(np.unravel_index(flat, chosen.shape))
    edge = any(k in (0, n - 1) for k, n in zip(cell, chosen.shape, strict=True) if n > 1)
    return float(shown[tuple(cell)]), tuple(int(k) for k in cell), edge
