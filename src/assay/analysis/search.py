"""Fair searches over hyperparameters: quasi-random boxes, edge checks, one table of raw measurements.

A comparison of methods is only as good as the search each of them got. So: a box a hyperparameter, a
low-discrepancy set of points in it (Bousquet et al. 2017, arXiv 1706.03200), diverged trials kept and marked
*infeasible*, and a check that the best point does not lie at the border of the box.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import comb
from scipy.stats import qmc

if TYPE_CHECKING:
    from pandas import DataFrame

Value = float | int | str | bool | None


@dataclass(frozen=True)
class Uniform:
    """Uniform between `low` and `high`; rounded if `integer`.

    >>> Uniform(0, 10).at(0.25)
    2.5
    """

    low: float
    high: float
    integer: bool = False

    def __post_init__(self) -> None:
        _ordered(self, self.low, self.high)

    def at(self, unit: float) -> float | int:
        """The value at `unit`."""
        value = self.low + unit * (self.high - self.low)
        return round(value) if self.integer else value

    def unit(self, value: float) -> float:
        """The inverse of `at`."""
        return (value - self.low) / (self.high - self.low)

    def widened(self, factor: float) -> "Uniform":
        """`factor` times as wide around the same middle."""
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2 * factor
        return replace(self, low=middle - half, high=middle + half)


@dataclass(frozen=True)
class LogUniform:
    """Uniform in the logarithm, between `low` > 0 and `high`.

    >>> round(LogUniform(1e-4, 1.0).at(0.5), 6)
    0.01
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if self.low <= 0:
            raise ValueError(f"a logarithmic axis needs low > 0: got {self.low}")
        _ordered(self, self.low, self.high)

    def at(self, unit: float) -> float:
        """The value at `unit`."""
        return float(self.low * (self.high / self.low) ** unit)

    def unit(self, value: float) -> float:
        """The inverse of `at`."""
        return math.log(value / self.low) / math.log(self.high / self.low)

    def widened(self, factor: float) -> "LogUniform":
        """`low / factor` to `high * factor`."""
        return LogUniform(self.low / factor, self.high * factor)


@dataclass(frozen=True)
class ReverseLogUniform:
    """$1 - x$ uniform in the logarithm: for momentum, where 0.9, 0.99 and 0.999 are equal steps.

    >>> round(ReverseLogUniform(0.9, 0.999).at(0.5), 6)
    0.99
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if self.high >= 1:
            raise ValueError(f"a reverse logarithmic axis needs high < 1: got {self.high}")
        _ordered(self, self.low, self.high)

    def at(self, unit: float) -> float:
        """The value at `unit`."""
        return float(1 - (1 - self.low) * ((1 - self.high) / (1 - self.low)) ** unit)

    def unit(self, value: float) -> float:
        """The inverse of `at`."""
        return math.log((1 - value) / (1 - self.low)) / math.log((1 - self.high) / (1 - self.low))

    def widened(self, factor: float) -> "ReverseLogUniform":
        """$1 - x$ from `factor` times further to `factor` times nearer to 0."""
        return ReverseLogUniform(1 - (1 - self.low) * factor, 1 - (1 - self.high) / factor)


@dataclass(frozen=True)
class Choice:
    """One of some values, equally likely. Has no border."""

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a Choice needs at least one value")

    def at(self, unit: float) -> Value:
        """The value at `unit`."""
        return self.values[min(int(unit * len(self.values)), len(self.values) - 1)]

    def unit(self, value: Any) -> None:
        """None: choices are in no order."""
        return


Axis = Uniform | LogUniform | ReverseLogUniform | Choice


def _ordered(axis: object, low: float, high: float) -> None:
    if not low < high or not math.isfinite(low) or not math.isfinite(high):
        raise ValueError(f"{type(axis).__name__} needs low < high, both finite: got {low} and {high}")


class QuasiRandomSearch:
    """`n` points of a box, spread evenly (scrambled Sobol' sequence), as dictionaries.

    Args:
        space: hyperparameter -> `LogUniform`, `ReverseLogUniform`, `Uniform` or `Choice`.
        n: points.
        seed: of the scrambling. The first points of a longer search are those of a shorter one.

    Raises:
        ValueError: the space is empty, or n < 1.

    >>> search = QuasiRandomSearch({"lr": LogUniform(1e-3, 1.0), "momentum": Choice((0.0, 0.9))}, n=4)
    >>> len(list(search)), sorted(next(iter(search)))
    (4, ['lr', 'momentum'])
    """

    def __init__(self, space: Mapping[str, Axis], n: int, seed: int = 0):
        if not space:
            raise ValueError("the search space is empty: name at least one hyperparameter")
        if n < 1:
            raise ValueError(f"a search has at least one point: got n = {n}")
        self.space, self.n, self.seed = dict(space), n, seed
        sobol = qmc.Sobol(len(space), scramble=True, rng=np.random.default_rng(seed))
        self.units: NDArray[np.float64] = sobol.random_base2(max(0, math.ceil(math.log2(n))))[:n]
        """[n, hyperparameters] in the unit cube."""

    def __iter__(self) -> Iterator[dict[str, Value]]:
        for row in self.units:
            yield {name: axis.at(float(u)) for (name, axis), u in zip(self.space.items(), row, strict=True)}

    def __len__(self) -> int:
        return self.n

    def edge(self, best: Mapping[str, Any], margin: float | None = None) -> set[str]:
        """The hyperparameters of `best` that lie at the border of the box: within `margin` of it in units of the
        box's width, or (default) with none of the search's points between them and the border."""
        found = set()
        for k, (name, axis) in enumerate(self.space.items()):
            unit = axis.unit(best[name])
            if unit is None:
                continue
            low, high = self.units[:, k].min(), self.units[:, k].max()
            near = (low, 1 - high) if margin is None else (margin, margin)
            if unit <= near[0] + 1e-12 or unit >= 1 - near[1] - 1e-12:
                found.add(name)
        return found

    def widen(self, name: str, factor: float = 4.0) -> "QuasiRandomSearch":
        """The same search in a box that is wider along `name` (on both sides, in that axis's own sense)."""
        axis = self.space[name]
        if not isinstance(axis, Uniform | LogUniform | ReverseLogUniform):
            raise ValueError(f"{name} is a {type(axis).__name__}: it has no border to move")
        return QuasiRandomSearch({**self.space, name: axis.widened(factor)}, self.n, self.seed)


# ------------------------------------------------------------------------------------------------------------
# the table


def measurement_table(rows: Sequence[Mapping[str, Any]]) -> "DataFrame":
    """Raw measurements as one table: a row a (trial, step), with columns `trial`, `step`, `status` ("complete",
    "incomplete" or "infeasible": it diverged), the hyperparameters and the metrics. Every figure of a
    search is recomputed from it.

    Raises:
        ValueError: a row lacks `trial`, `step` or `status`, or has another status.
    """
    import pandas

    for row in rows:
        missing = {"trial", "step", "status"} - set(row)
        if missing:
            raise ValueError(
                f"a measurement needs trial, step and status: one lacks {', '.join(sorted(missing))}"
            )
        if row["status"] not in ("complete", "incomplete", "infeasible"):
            raise ValueError(f"status is 'complete', 'incomplete' or 'infeasible': got {row['status']!r}")
    return pandas.DataFrame(list(rows))


def steps_to_result(
    measurements: "DataFrame",
    goal: float,
    metric: str = "valid_error",
    maximize: bool = False,
    group_by: str | list[str] = "batch_size",
    consecutive: int = 1,
) -> "DataFrame":
    """The fewest steps after which any trial of a group is first strictly better than `goal`.

    Rows are put in the order (step, trial); the first that is better counts (Shallue et al. 2019, arXiv 1811.03600,
    section 3.1). A value equal to the goal, a NaN, and rows of infeasible trials after they diverged (NaN) do not
    count.

    Args:
        measurements: see `measurement_table`.
        goal: to be beaten.
        metric: column.
        maximize: larger is better.
        group_by: one search a group.
        consecutive: how many evaluations of that trial in a row must be better; the first of them counts.

    Returns:
        Columns: the group, `steps` (NaN where the goal is never reached), `trial`, `trials`, `infeasible` (counts).

    Raises:
        ValueError: a column is missing, or the goal is met before the first step.
    """
    import pandas

    keys = [group_by] if isinstance(group_by, str) else list(group_by)
    absent = {"trial", "step", metric, *keys} - set(measurements.columns)
    if absent:
        raise ValueError(f"the table lacks the columns {', '.join(sorted(absent))}")
    table = measurements.sort_values(["step", "trial"], kind="stable")
    better = table[metric] > goal if maximize else table[metric] < goal
    if bool((better & (table["step"] <= 0)).any()):
        raise ValueError(f"the goal {goal} is met before the first step: choose a harder one")
    if consecutive > 1:
        runs = better.astype(int).groupby([table[key] for key in [*keys, "trial"]])
        ahead = [runs.shift(-k) for k in range(consecutive)]
        better = sum(ahead).eq(consecutive)  # type: ignore[union-attr]
    rows = []
    for name, group in table.assign(_better=better).groupby(keys, sort=True):
        reached = group[group["_better"]]
        infeasible = 0
        if "status" in group:
            infeasible = group.loc[group["status"] == "infeasible", "trial"].nunique()
        rows.append(
            {
                **dict(zip(keys, name, strict=True)),
                "steps": float(reached["step"].iloc[0]) if len(reached) else math.nan,
                "trial": reached["trial"].iloc[0] if len(reached) else None,
                "trials": group["trial"].nunique(),
                "infeasible": infeasible,
            }
        )
    return pandas.DataFrame(rows)


def best_within(
    measurements: "DataFrame",
    metric: str = "valid_error",
    steps: float = math.inf,
    examples: float = math.inf,
    maximize: bool = False,
    group_by: str = "batch_size",
) -> "DataFrame":
    """The best value of any trial of a group within a budget of `steps`, or of `examples` seen (batch size times
    step; then `group_by` must be the batch size).

    Returns:
        Columns: the group, `best`, `trial`, `step`. NaN never wins.
    """
    import pandas

    within = (measurements["step"] <= steps) & (
        measurements["step"] * (measurements[group_by] if math.isfinite(examples) else 1) <= examples
    )
    rows = []
    for name, group in measurements[within & measurements[metric].notna()].groupby(group_by, sort=True):
        index = group[metric].idxmax() if maximize else group[metric].idxmin()
        rows.append(
            {
                group_by: name,
                "best": group.loc[index, metric],
                "trial": group.loc[index, "trial"],
                "step": group.loc[index, "step"],
            }
        )
    return pandas.DataFrame(rows)


# ------------------------------------------------------------------------------------------------------------
# grids


@dataclass(frozen=True)
class TuneResult:
    """What a one-dimensional search found."""

    best: float
    """The rate with the lowest score."""
    score: float
    grid: dict[float, float]
    """Every rate tried, in order, with its score (infinite where it diverged)."""
    extended: int
    """How often the grid was extended because the best lay at its edge."""
    at_edge: bool
    """The best still lies at the edge after all extensions."""


def tune_rate(
    trial_fn: Callable[[float], float],
    start: float,
    factor: float = 2.0,
    n: int = 5,
    max_extensions: int = 3,
) -> TuneResult:
    """Try `n` rates around `start`, each `factor` apart; while the best is at the edge, try the next beyond it.

    The protocol of Wilson et al. 2017 (arXiv 1705.08292, section 4): no method is judged by a rate at the border
    of its grid.

    Args:
        trial_fn: rate -> score to minimise. NaN means diverged and counts as infinite.
        start: middle of the grid.
        factor: between neighbours, > 1.
        n: rates at first.
        max_extensions: rates added at most.
    """
    if start <= 0 or factor <= 1 or n < 1:
        raise ValueError(f"start must be > 0, factor > 1 and n >= 1: got {start}, {factor}, {n}")

    def score(rate: float) -> float:
        value = float(trial_fn(rate))
        return math.inf if math.isnan(value) else value

    grid = {rate: score(rate) for rate in (start * factor ** (k - (n - 1) // 2) for k in range(n))}
    extended = 0
    while True:
        best = min(grid, key=lambda rate: grid[rate])
        at_edge = best in (min(grid), max(grid))
        if not at_edge or extended == max_extensions:
            return TuneResult(best, grid[best], dict(sorted(grid.items())), extended, at_edge)
        rate = best / factor if best == min(grid) else best * factor
        grid[rate] = score(rate)
        extended += 1


def expected_best(scores: Sequence[float], k: int) -> float:
    r"""Expected lowest score among `k` different points drawn at random from a grid of n, exactly.

    $E = \sum_i s_{(i)} \binom{n-i}{k-1} / \binom{n}{k}$ over the sorted scores.

    Raises:
        ValueError: k is not in 1..n, or a score is NaN (give diverged trials their loss, do not drop them).
    """
    ordered = np.sort(np.asarray(scores, dtype=float))
    n = len(ordered)
    if not 1 <= k <= n:
        raise ValueError(f"k lies in 1..{n}, the number of scores: got {k}")
    if np.isnan(ordered).any():
        raise ValueError("a score is NaN: a diverged trial counts with its (bad) score, it is not dropped")
    weights = comb(n - np.arange(1, n + 1), k - 1) / comb(n, k)
    chosen = weights > 0
    return float(ordered[chosen] @ weights[chosen])


def tuning_regret(scores: Sequence[float], k: int) -> float:
    """What one loses by trying only `k` random points of the grid: `expected_best(scores, k) - min(scores)`."""
    return expected_best(scores, k) - float(np.min(np.asarray(scores, dtype=float)))
