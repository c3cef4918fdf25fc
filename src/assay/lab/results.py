"""Results: all trials of one study under one config."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from assay.lab.claim import verdicts
from assay.lab.study import Study
from assay.lab.verdict import Verdict, clean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Status = Literal["ok", "failed", "timeout", "died"]


@dataclass(frozen=True)
class TrialResult:
    """What one (arm, seed) gave.

    `seconds` and `cpu_seconds` of a trial that ran in a batch are its share of the batch. `read` opens its curves and
    artifacts, where they are at hand.
    """

    arm: str
    seed: int
    status: Status
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory: float = 0.0
    error: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    started: float = 0.0
    ended: float = 0.0
    reused: bool = False
    read: Callable[[str], Any] | None = None

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {
            "arm": self.arm,
            "seed": self.seed,
            "status": self.status,
            "metrics": dict(self.metrics),
            "seconds": round(self.seconds, 3),
        }
        return clean(values | ({"error": self.error} if self.error else {}))


class Results:
    """All trials of one study under one config, and what they say about its claims.

    Attributes:
        study, profile, config: what ran.
        trials: one `TrialResult` for each planned (arm, seed), in that order.
    """

    def __init__(self, study: Study, profile: str, config: Any, trials: Iterable[TrialResult]) -> None:
        self.study = study
        self.profile = profile
        self.config = config
        self.trials = tuple(trials)
        self._cells = {(t.arm, t.seed): t for t in self.trials}

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that ran."""
        return tuple(dict.fromkeys(t.arm for t in self.trials))

    def seeds(self, arm: str) -> tuple[int, ...]:
        """The seeds planned for `arm` (failed ones too); empty if it did not run."""
        return tuple(seed for a, seed in self._cells if a == arm)

    def failure(self, arm: str, seed: int) -> str:
        """Why a trial has no metrics ("" if it has)."""
        trial = self._cells[arm, seed]
        return "" if trial.status == "ok" else f"{trial.status}: {trial.error}"

    def metrics(self, arm: str, seed: int) -> Mapping[str, float]:
        """Metrics of one trial (KeyError if it did not run)."""
        return self._cells[arm, seed].metrics

    def metric(self, arm: str, name: str) -> np.ndarray:
        """One metric of an arm over its seeds [seeds]; NaN where a trial failed or lacks it."""
        return np.array(
            [self._cells[arm, s].metrics.get(name, np.nan) for s in self.seeds(arm)], dtype=np.float64
        )

    def curve(self, arm: str, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A logged curve: steps [k] and values [seeds, k]. Both are empty where nothing is at hand.

        Seeds that logged at other steps are interpolated to those of the first one.
        """
        found = [curve for s in self.seeds(arm) if (curve := self._read(arm, s, f"curve:{name}")) is not None]
        if not found:
            return np.empty(0), np.empty((0, 0))
        steps = found[0][0]
        rows = [v if np.array_equal(x, steps) else np.interp(steps, x, v, right=np.nan) for x, v in found]
        return steps, np.stack(rows)

    def artifact(self, arm: str, seed: int, name: str) -> Any:
        """What the trial saved under `name` (array, dict of arrays, bytes, text or JSON value); None if absent."""
        return self._read(arm, seed, name)

    def _read(self, arm: str, seed: int, name: str) -> Any:
        trial = self._cells.get((arm, seed))
        return None if trial is None or trial.read is None else trial.read(name)

    @property
    def failed(self) -> tuple[TrialResult, ...]:
        return tuple(t for t in self.trials if t.status != "ok")

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdict on every claim, in the study's order."""
        return verdicts(self.study.claims, self)

    @property
    def core_seconds(self) -> float:
        """Seconds of one core that all trials took together."""
        return sum(t.seconds for t in self.trials)

    @property
    def elapsed(self) -> float:
        """Wall seconds in which at least one of the trials was running."""
        spans = sorted({(t.started, t.ended) for t in self.trials if t.ended > t.started})
        total, reach = 0.0, -np.inf
        for start, end in spans:
            total += max(0.0, end - max(start, reach))
            reach = max(reach, end)
        return float(total)

    def table(self) -> Any:
        """One row a trial: a pandas DataFrame if pandas is installed, else a list of dicts."""
        rows = [
            {"arm": t.arm, "seed": t.seed, "status": t.status, **t.metrics, "seconds": t.seconds}
            for t in self.trials
        ]
        try:
            import pandas
        except ImportError:
            return rows
        return pandas.DataFrame(rows)

    def plot(self) -> "Figure":
        """Every claim's effect and interval against its threshold, as one figure."""
        from assay.lab.figures import verdict_figure

        return verdict_figure(self.verdicts)

    def record(self) -> dict[str, Any]:
        """What `assay run --json` prints."""
        return {
            "study": self.study.id,
            "profile": self.profile,
            "trials": [t.record() for t in self.trials],
            "claims": [v.record() for v in self.verdicts],
            "seconds": round(self.elapsed, 3),
        }

    def __repr__(self) -> str:
        outcomes = ", ".join(f"{v.claim}: {v.outcome}" for v in self.verdicts)
        return f"Results({self.study.id}, {self.profile}, {len(self.trials)} trials; {outcomes})"
