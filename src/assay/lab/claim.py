"""Claims and the tests that decide them.

Every test is written down before the run. It turns metrics into one effect per seed (or, for a `Statistic`, into one
number over all seeds) and compares effect and interval with three numbers: the smallest effect that counts
(`at_least`), what the whole interval must clear (`beyond`), and the line below which an interval refutes
(`refuted_below`). `at_most` and `refuted_above` are their mirror images, for claims that something is small.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from assay.lab import statistics
from assay.lab.verdict import Decision, Outcome, Verdict, decide, with_requirement

if TYPE_CHECKING:
    from assay.lab.results import Results

Metrics = Mapping[str, float]


class Undecidable(Exception):
    """The results lack what a test needs; the message is the reason that the verdict shows."""


@dataclass(frozen=True)
class Bounds:
    """Where an effect counts and where it refutes. Give `at_least` or `at_most`."""

    at_least: float | None = None
    at_most: float | None = None
    beyond: float | None = None
    refuted_below: float | None = None
    refuted_above: float | None = None

    def resolve(self, default_beyond: float | None) -> tuple[float, float, float, bool]:
        """(threshold, beyond, refuted, smaller); `default_beyond` None means the threshold itself."""
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give exactly one of at_least and at_most")
        smaller = self.at_most is not None
        threshold = self.at_most if self.at_most is not None else self.at_least
        assert threshold is not None
        if (self.refuted_below is not None and smaller) or (self.refuted_above is not None and not smaller):
            raise ValueError("refuted_below goes with at_least, refuted_above with at_most")
        beyond = self.beyond
        if beyond is None:
            beyond = threshold if default_beyond is None else default_beyond
        refuted = self.refuted_above if smaller else self.refuted_below
        return threshold, beyond, beyond if refuted is None else refuted, smaller

    def words(self) -> str:
        sign, value = ("<=", self.at_most) if self.at_most is not None else (">=", self.at_least)
        return f"{sign} {value:g}"


class Test:
    """Something that decides a claim from results."""

    __test__ = False  # not a pytest class
    arms: tuple[str, ...]

    def decide(self, results: "Results") -> Decision:
        """The decision; never raises for missing or broken results, which are 'not decided' with the reason."""
        try:
            return self._decide(results)
        except Undecidable as reason:
            return Decision("not decided", text=self.text, reason=str(reason))

    @property
    def text(self) -> str:
        """The test in words."""
        raise NotImplementedError

    def _decide(self, results: "Results") -> Decision:
        raise NotImplementedError


class PerSeed(Test):
    """A test with one effect per seed: mean, interval over seeds, exact sign-flip p."""

    bounds: Bounds
    default_beyond: float | None = 0.0
    signed = True

    def effect(self, cell: Mapping[str, Metrics]) -> float:
        """The effect of one seed from its `{arm: metrics}`."""
        raise NotImplementedError

    def _decide(self, results: "Results") -> Decision:
        seeds, note = shared_seeds(results, self.arms)
        effects = np.array([self._checked(results, seed) for seed in seeds])
        threshold, beyond, refuted, smaller = self.bounds.resolve(self.default_beyond)
        more: dict[str, Any] = {
            "n": len(seeds),
            "seeds": seeds,
            "effects": tuple(map(float, effects)),
            "text": self.text,
            "reason": note,
        }
        if len(seeds) < 2:
            mean = float(effects.mean())
            more["reason"] = "one seed has no interval: run at least two"
            return Decision("not decided", mean, None, threshold, beyond, refuted, smaller, **more)
        return decide(
            float(effects.mean()),
            statistics.mean_interval(effects),
            threshold=threshold,
            beyond=beyond,
            refuted=refuted,
            smaller=smaller,
            signed=self.signed,
            p=statistics.sign_flip_p(effects, beyond),
            **more,
        )

    def _checked(self, results: "Results", seed: int) -> float:
        cell = {arm: _Needed(arm, seed, results.metrics(arm, seed)) for arm in self.arms}
        value = float(self.effect(cell))
        if not math.isfinite(value):
            raise Undecidable(f"seed {seed}: the effect is {value}")
        return value


class _Needed(dict[str, float]):
    """Metrics of one trial that explain which metric is missing or not a number."""

    def __init__(self, arm: str, seed: int, metrics: Metrics) -> None:
        super().__init__(metrics)
        self._where = f"arm {arm!r}, seed {seed}"

    def __missing__(self, key: str) -> float:
        raise Undecidable(f"{self._where}: no metric {key!r} (it reports {', '.join(self) or 'none'})")

    def __getitem__(self, key: str) -> float:
        value = super().__getitem__(key)
        if math.isnan(value):
            raise Undecidable(f"{self._where}: {key} is NaN")
        return value


def shared_seeds(results: "Results", arms: Iterable[str]) -> tuple[tuple[int, ...], str]:
    """The seeds that all `arms` ran, and a note where some ran more; every one of them must have succeeded."""
    planned = {}
    for arm in arms:
        planned[arm] = results.seeds(arm)
        if not planned[arm]:
            raise Undecidable(f"arm {arm!r} was not run")
        for seed in planned[arm]:
            failure = results.failure(arm, seed)
            if failure:
                raise Undecidable(f"arm {arm!r}, seed {seed} {failure}")
    common = sorted(set.intersection(*(set(seeds) for seeds in planned.values())))
    if not common:
        raise Undecidable(f"arms {', '.join(planned)} share no seed")
    note = ""
    if any(len(seeds) != len(common) for seeds in planned.values()):
        note = f"paired on the {len(common)} seeds that all arms share"
    return tuple(common), note


@dataclass(frozen=True)
class _Compare(PerSeed):
    metric: str
    arm: str
    versus: str
    at_least: float | None = None
    at_most: float | None = None
    beyond: float | None = None
    refuted_below: float | None = None
    refuted_above: float | None = None

    def __post_init__(self) -> None:
        self.bounds.resolve(self.default_beyond)

    @property
    def arms(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.arm, self.versus)

    @property
    def bounds(self) -> Bounds:  # type: ignore[override]
        return Bounds(self.at_least, self.at_most, self.beyond, self.refuted_below, self.refuted_above)


@dataclass(frozen=True)
class Difference(_Compare):
    """`metric` of `arm` minus that of `versus`, paired by seed."""

    @property
    def text(self) -> str:
        return f"{self.metric}({self.arm}) - {self.metric}({self.versus}) {self.bounds.words()}"

    def effect(self, cell: Mapping[str, Metrics]) -> float:
        return cell[self.arm][self.metric] - cell[self.versus][self.metric]


@dataclass(frozen=True)
class Ratio(_Compare):
    """`metric` of `arm` over that of `versus`, paired by seed; mean and interval in logs, reported as a ratio.

    Thresholds are ratios; `beyond` is 1 unless given. Both metrics must be positive.
    """

    default_beyond = 1.0

    @property
    def text(self) -> str:
        return f"{self.metric}({self.arm}) / {self.metric}({self.versus}) {self.bounds.words()}"

    def __post_init__(self) -> None:
        threshold, beyond, refuted, _ = self.bounds.resolve(1.0)
        if min(threshold, beyond, refuted) <= 0:
            raise ValueError("the thresholds of a Ratio are ratios: positive numbers")

    def effect(self, cell: Mapping[str, Metrics]) -> float:
        top, bottom = cell[self.arm][self.metric], cell[self.versus][self.metric]
        if top <= 0 or bottom <= 0:
            raise Undecidable(f"a ratio needs positive values: {self.metric} is {top:g} and {bottom:g}")
        return math.log(top / bottom)

    def _decide(self, results: "Results") -> Decision:
        seeds, note = shared_seeds(results, self.arms)
        logs = np.array([self._checked(results, seed) for seed in seeds])
        threshold, beyond, refuted, smaller = self.bounds.resolve(1.0)
        more: dict[str, Any] = {
            "n": len(seeds),
            "seeds": seeds,
            "effects": tuple(map(float, np.exp(logs))),
            "text": self.text,
        }
        if len(seeds) < 2:
            reason = "one seed has no interval: run at least two"
            mean = float(np.exp(logs.mean()))
            return Decision(
                "not decided", mean, None, threshold, beyond, refuted, smaller, reason=reason, **more
            )
        low, high = statistics.mean_interval(logs)
        decision = decide(
            float(np.exp(logs.mean())),
            (math.exp(low), math.exp(high)),
            threshold=threshold,
            beyond=beyond,
            refuted=refuted,
            smaller=smaller,
            p=statistics.sign_flip_p(logs, math.log(beyond)),
            reason=note,
            **more,
        )
        against = decision.interval is not None and (low > 0 if smaller else high < 0)
        if decision.outcome == "refuted" and against:
            reason = "; ".join(filter(None, (note, "reversed: the effect goes the other way")))
            decision = replace(decision, reason=reason)
        return decision


@dataclass(frozen=True)
class Level(PerSeed):
    """`metric` of one arm against a constant; the whole interval must clear the threshold unless `beyond` is given."""

    metric: str
    arm: str
    at_least: float | None = None
    at_most: float | None = None
    beyond: float | None = None
    refuted_below: float | None = None
    refuted_above: float | None = None

    default_beyond = None
    signed = False

    def __post_init__(self) -> None:
        self.bounds.resolve(None)

    @property
    def arms(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.arm,)

    @property
    def bounds(self) -> Bounds:  # type: ignore[override]
        return Bounds(self.at_least, self.at_most, self.beyond, self.refuted_below, self.refuted_above)

    @property
    def text(self) -> str:
        return f"{self.metric}({self.arm}) {self.bounds.words()}"

    def effect(self, cell: Mapping[str, Metrics]) -> float:
        return cell[self.arm][self.metric]


@dataclass(frozen=True)
class Trend(PerSeed):
    """Slope or rank correlation of `metric` over ordered `arms`, one per seed.

    `x` are the arms' positions (0, 1, 2, ... unless given). Methods: "slope" (least squares), "spearman", "kendall".
    """

    metric: str
    arms: tuple[str, ...]
    x: tuple[float, ...] | None = None
    method: Literal["slope", "spearman", "kendall"] = "slope"
    at_least: float | None = None
    at_most: float | None = None
    beyond: float | None = None
    refuted_below: float | None = None
    refuted_above: float | None = None

    def __post_init__(self) -> None:
        self.bounds.resolve(0.0)
        if len(self.arms) < 3:
            raise ValueError("a trend needs at least three arms")
        if self.x is not None and len(self.x) != len(self.arms):
            raise ValueError("x needs one position for each arm")
        if self.method not in ("slope", "spearman", "kendall"):
            raise ValueError(f"unknown method {self.method!r}: slope, spearman or kendall")

    @property
    def bounds(self) -> Bounds:  # type: ignore[override]
        return Bounds(self.at_least, self.at_most, self.beyond, self.refuted_below, self.refuted_above)

    @property
    def text(self) -> str:
        return f"{self.method} of {self.metric} over {', '.join(self.arms)} {self.bounds.words()}"

    def effect(self, cell: Mapping[str, Metrics]) -> float:
        from scipy import stats

        y = [cell[arm][self.metric] for arm in self.arms]
        x = self.x or tuple(range(len(y)))
        if self.method == "slope":
            return float(np.polyfit(x, y, 1)[0])
        if len(set(y)) == 1:
            return 0.0  # no order at all: correlation is undefined, the trend is none
        function = stats.spearmanr if self.method == "spearman" else stats.kendalltau
        return float(function(x, y).statistic)


@dataclass(frozen=True)
class Equivalence(PerSeed):
    """`metric` of two arms differs by less than `within`: two one-sided t-tests at 5 % (a 90 % interval inside it).

    Refuted if the 90 % interval lies wholly outside the margin.
    """

    metric: str
    arm: str
    versus: str
    within: float = 0.0

    def __post_init__(self) -> None:
        if not self.within > 0:
            raise ValueError("within must be positive")

    @property
    def arms(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.arm, self.versus)

    @property
    def text(self) -> str:
        return f"|{self.metric}({self.arm}) - {self.metric}({self.versus})| < {self.within:g}"

    def effect(self, cell: Mapping[str, Metrics]) -> float:
        return cell[self.arm][self.metric] - cell[self.versus][self.metric]

    def _decide(self, results: "Results") -> Decision:
        seeds, note = shared_seeds(results, self.arms)
        effects = np.array([self._checked(results, seed) for seed in seeds])
        mean = float(effects.mean())
        low, high = statistics.t_interval(effects, 0.9) if len(seeds) > 1 else (mean, mean)
        outcome = "inconclusive"
        if len(seeds) < 2:
            outcome, note = "not decided", "one seed has no interval: run at least two"
        elif -self.within < low and high < self.within:
            outcome = "supported"
        elif low > self.within or high < -self.within:
            outcome = "refuted"
        return Decision(
            outcome,  # type: ignore[arg-type]
            mean,
            (low, high) if len(seeds) > 1 else None,
            threshold=self.within,
            beyond=self.within,
            refuted=self.within,
            smaller=True,
            p=statistics.tost_p(effects, self.within) if len(seeds) > 1 else None,
            n=len(seeds),
            effects=tuple(map(float, effects)),
            seeds=seeds,
            text=self.text,
            reason=note,
            level=0.9,
        )


@dataclass(frozen=True)
class Effect(PerSeed):
    """Any function of one seed's `{arm: metrics}`."""

    function: Callable[[Mapping[str, Metrics]], float]
    arms: tuple[str, ...]
    at_least: float | None = None
    at_most: float | None = None
    beyond: float | None = None
    refuted_below: float | None = None
    refuted_above: float | None = None
    name: str = ""

    def __post_init__(self) -> None:
        self.bounds.resolve(0.0)

    @property
    def bounds(self) -> Bounds:  # type: ignore[override]
        return Bounds(self.at_least, self.at_most, self.beyond, self.refuted_below, self.refuted_above)

    @property
    def text(self) -> str:
        return f"{self.name or self.function.__name__} {self.bounds.words()}"

    def effect(self, cell: Mapping[str, Metrics]) -> float:
        return self.function(cell)


@dataclass(frozen=True)
class Statistic(Test):
    """What exists only over all seeds together: a correlation over networks, a median, "in 8 of 10 seeds".

    `function` takes `{arm: {metric: values [seeds]}}` and returns one number; the interval is a BCa bootstrap over
    seeds, and there is no p-value.
    """

    function: Callable[[Mapping[str, Mapping[str, np.ndarray]]], float]
    arms: tuple[str, ...]
    at_least: float | None = None
    at_most: float | None = None
    beyond: float | None = None
    refuted_below: float | None = None
    refuted_above: float | None = None
    name: str = ""

    def __post_init__(self) -> None:
        self.bounds.resolve(0.0)

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.at_least, self.at_most, self.beyond, self.refuted_below, self.refuted_above)

    @property
    def text(self) -> str:
        return f"{self.name or self.function.__name__} {self.bounds.words()}"

    def _decide(self, results: "Results") -> Decision:
        seeds, note = shared_seeds(results, self.arms)
        table: dict[str, dict[str, np.ndarray]] = {}
        for arm in self.arms:
            rows = [results.metrics(arm, seed) for seed in seeds]
            table[arm] = _Columns(arm, {k: np.array([row.get(k, np.nan) for row in rows]) for k in rows[0]})

        def value(rows: np.ndarray) -> float:
            return float(
                self.function(
                    {arm: _Columns(arm, {k: v[rows] for k, v in c.items()}) for arm, c in table.items()}
                )
            )

        whole = value(np.arange(len(seeds)))
        threshold, beyond, refuted, smaller = self.bounds.resolve(0.0)
        more: dict[str, Any] = {"n": len(seeds), "seeds": seeds, "text": self.text, "reason": note}
        if not math.isfinite(whole):
            raise Undecidable(f"the statistic is {whole}")
        if len(seeds) < 2:
            more["reason"] = "one seed has no interval: run at least two"
            return Decision("not decided", whole, None, threshold, beyond, refuted, smaller, **more)
        interval = statistics.bootstrap_interval(value, len(seeds), resamples=2_000)
        decision = decide(
            whole, interval, threshold=threshold, beyond=beyond, refuted=refuted, smaller=smaller, **more
        )
        if decision.outcome == "not decided":
            raise Undecidable("the statistic is not a number in more than a tenth of the bootstrap samples")
        return decision


class _Columns(dict[str, np.ndarray]):
    """Columns of one arm that explain which metric is missing or not a number."""

    def __init__(self, arm: str, columns: Mapping[str, np.ndarray]) -> None:
        super().__init__(columns)
        self._arm = arm

    def __missing__(self, key: str) -> np.ndarray:
        raise Undecidable(f"arm {self._arm!r}: no metric {key!r} (it reports {', '.join(self) or 'none'})")

    def __getitem__(self, key: str) -> np.ndarray:
        column = super().__getitem__(key)
        if np.isnan(column).any():
            raise Undecidable(f"arm {self._arm!r}: {key} is NaN or missing in some seed")
        return column


class _Combined(Test):
    """Several tests as one: the outcome `one` of a single part settles it, the outcome `every` takes all parts."""

    tests: tuple[Test, ...]
    word: str
    one: Outcome
    every: Outcome

    def __init__(self, *tests: Test) -> None:
        if len(tests) < 2:
            raise ValueError(f"{type(self).__name__} combines at least two tests")
        self.tests = tests

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.tests))})"

    @property
    def arms(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys(arm for test in self.tests for arm in test.arms))

    @property
    def text(self) -> str:
        return f" {self.word} ".join(
            f"({test.text})" if isinstance(test, _Combined) else test.text for test in self.tests
        )

    def _p(self, parts: list[float]) -> float:
        raise NotImplementedError

    def _decide(self, results: "Results") -> Decision:
        parts = tuple(test.decide(results) for test in self.tests)
        outcomes = {part.outcome for part in parts}
        if self.one in outcomes:
            outcome: Outcome = self.one
        elif "not decided" in outcomes:
            outcome = "not decided"
        else:
            outcome = self.every if outcomes == {self.every} else "inconclusive"
        p = [part.p for part in parts if part.p is not None]
        return _combine(self, outcome, parts, self._p(p) if len(p) == len(parts) else None)


class All(_Combined):
    """Supported if every part is, refuted if one part is. Its p-value is the largest of its parts'."""

    word = "and"
    one = "refuted"
    every = "supported"

    def _p(self, parts: list[float]) -> float:
        return max(parts)


class AnyOf(_Combined):
    """Supported if one part is, refuted if every part is. Its p-value is the smallest, times the number of parts."""

    word = "or"
    one = "supported"
    every = "refuted"

    def _p(self, parts: list[float]) -> float:
        return min(1.0, len(parts) * min(parts))


def _combine(test: Test, outcome: str, parts: tuple[Decision, ...], p: float | None) -> Decision:
    deciding = [part for part in parts if part.outcome == outcome and part.reason]
    reason = "; ".join(dict.fromkeys(part.reason for part in deciding))
    n = min((part.n for part in parts), default=0)
    return Decision(outcome, p=p, n=n, text=test.text, reason=reason, parts=parts)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Claim:
    """One sentence that the paper asserts, with the paper's own figure and a pre-registered test.

    `requires` is a precondition: where it does not hold, the verdict is inconclusive and says so.
    """

    id: str
    statement: str
    paper: str
    test: Test
    requires: Test | None = None

    @property
    def arms(self) -> tuple[str, ...]:
        needed = self.test.arms + (self.requires.arms if self.requires else ())
        return tuple(dict.fromkeys(needed))


def verdicts(claims: Iterable[Claim], results: "Results") -> tuple[Verdict, ...]:
    """Decide every claim; p-values are Holm-adjusted over the claims that have one."""
    claims = tuple(claims)
    raw = []
    for claim in claims:
        required = claim.requires.decide(results) if claim.requires else None
        raw.append((claim, with_requirement(claim.test.decide(results), required), required))
    adjusted = statistics.holm([decision.p for _, decision, _ in raw])
    tested = sum(decision.outcome != "not decided" for _, decision, _ in raw)
    return tuple(
        Verdict(claim.id, claim.statement, claim.paper, decision, p, tested, required)
        for (claim, decision, required), p in zip(raw, adjusted, strict=True)
    )
