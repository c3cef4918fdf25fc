"""Intervals and p-values for a handful of per-seed effects. scipy does the work; it is imported late."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np

FEW = 20
"""From so many seeds on, the interval is a BCa bootstrap; below, Student's t."""
RESAMPLES = 9_999
EXACT_SIGNS = 16
"""Up to so many effects, all 2^n sign patterns are enumerated; above, 100,000 random ones."""


def t_interval(effects: Sequence[float] | np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Student-t interval of the mean of n >= 2 effects (a point if they are all equal)."""
    from scipy import stats

    x = np.asarray(effects, dtype=np.float64)
    if x.size < 2:
        raise ValueError("an interval needs at least two effects")
    half = float(stats.t.ppf(0.5 + level / 2, x.size - 1) * x.std(ddof=1) / np.sqrt(x.size))
    return float(x.mean()) - half, float(x.mean()) + half


def bca_interval(effects: Sequence[float] | np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """BCa bootstrap interval of the mean (Efron 1987), with fixed resampling seed."""
    x = np.asarray(effects, dtype=np.float64)
    return bootstrap_interval(
        lambda rows: float(x[rows].mean()), x.size, level, vectorised=lambda r: x[r].mean(-1)
    )


def mean_interval(effects: Sequence[float] | np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The interval that verdicts use: t below 20 effects, BCa from 20 on."""
    return t_interval(effects, level) if len(effects) < FEW else bca_interval(effects, level)


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float],
    n: int,
    level: float = 0.95,
    vectorised: Callable[[np.ndarray], np.ndarray] | None = None,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """BCa interval of `statistic(rows)` over n rows (seeds) resampled with replacement.

    `vectorised` maps rows [resamples, n] to values [resamples]. Where BCa is not defined (the statistic hardly
    varies, as a minimum or a share near 1 does) the percentile interval is returned instead.
    """
    from scipy import stats

    if n < 2:
        raise ValueError("an interval needs at least two seeds")
    rows = np.random.default_rng(0).integers(0, n, (resamples, n))
    values = vectorised(rows) if vectorised else np.array([statistic(r) for r in rows])
    values = np.sort(values[np.isfinite(values)])
    if values.size < 0.9 * resamples:
        return float("nan"), float("nan")
    if values[0] == values[-1]:
        return float(values[0]), float(values[0])
    alpha = np.array([(1 - level) / 2, (1 + level) / 2])
    observed = statistic(np.arange(n))
    # Ties count half, so that a discrete statistic is not called biased.
    share = ((values < observed).mean() + (values <= observed).mean()) / 2
    left_out = np.array([statistic(np.delete(np.arange(n), i)) for i in range(n)])
    centred = left_out.mean() - left_out
    spread = float((centred**2).sum())
    if 0 < share < 1 and spread > 0:
        z0, z = stats.norm.ppf(share), stats.norm.ppf(alpha)
        acceleration = float((centred**3).sum()) / (6 * spread**1.5)
        corrected = stats.norm.cdf(z0 + (z0 + z) / (1 - acceleration * (z0 + z)))
        if np.isfinite(corrected).all():
            alpha = corrected
    low, high = np.quantile(values, alpha)
    return float(low), float(high)


def sign_flip_p(effects: Sequence[float] | np.ndarray, centre: float = 0.0) -> float:
    """Two-sided sign-flip p-value of "the effects are symmetric about `centre`" (exact up to 16 effects).

    The smallest attainable value is 2 / 2^n: 0.0625 for five seeds.
    """
    x = np.asarray(effects, dtype=np.float64) - centre
    if x.size <= EXACT_SIGNS:
        signs = np.array(list(product((1.0, -1.0), repeat=x.size)))
        extra = 0
    else:
        signs = np.random.default_rng(0).choice((1.0, -1.0), (100_000, x.size))
        extra = 1
    sums, observed = np.abs(signs @ x), abs(x.sum())
    hits = int((sums >= observed - 1e-12 * max(1.0, observed)).sum())
    return (hits + extra) / (len(signs) + extra)


def tost_p(effects: Sequence[float] | np.ndarray, within: float) -> float:
    """p-value of two one-sided t-tests: small where the mean effect lies inside (-within, within)."""
    from scipy import stats

    x = np.asarray(effects, dtype=np.float64)
    error = x.std(ddof=1) / np.sqrt(x.size)
    if error == 0:
        return 0.0 if abs(x.mean()) < within else 1.0
    lower = stats.t.sf((x.mean() + within) / error, x.size - 1)
    upper = stats.t.cdf((x.mean() - within) / error, x.size - 1)
    return float(max(lower, upper))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment; `None` entries have no p-value and stay so."""
    order = sorted((i for i, value in enumerate(p) if value is not None), key=lambda i: p[i] or 0.0)
    adjusted: list[float | None] = [None] * len(p)
    worst = 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * (p[i] or 0.0)))
        adjusted[i] = worst
    return adjusted
