"""Equal effort for every method: the same grid, extended at its edge, with the same two decay schemes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from assay.analysis.search import TuneResult, expected_best, tune_rate, tuning_regret
from assay.optim import DevDecay, EnsembleOptimizer, FixedFrequencyDecay

KINDS = {"sgd": "sgd", "hb": "momentum", "adagrad": "adagrad", "rmsprop": "rmsprop", "adam": "adam"}
"""Method -> kind of `EnsembleOptimizer`."""
ADAPTIVE = ("adagrad", "rmsprop", "adam")
SCHEMES = ("fixed", "dev")


@dataclass(frozen=True)
class Grid:
    """How a rate is tuned."""

    sgd: float = 0.32  # middle of each method's grid
    hb: float = 0.04
    adagrad: float = 0.04
    rmsprop: float = 0.002
    adam: float = 0.008
    default: float = 0.001  # Adam's untuned rate
    rates: int = 5
    factor: float = 2.0
    extensions: int = 3  # rates added at most, while the best lies at the edge
    fixed_every: float = 0.4  # fixed-frequency decay: share of the steps between decays
    fixed_factor: float = 0.1
    dev_factor: float = 0.5  # dev-decay, after an epoch without improvement


@dataclass(frozen=True)
class Member:
    """One training of an ensemble."""

    search: int  # index of the search (the seed) that it belongs to
    rate: float
    scheme: str


@dataclass(frozen=True)
class Tuned:
    """One search's outcome."""

    rate: float
    scheme: str
    result: TuneResult
    scores: dict[tuple[float, str], float]

    def metrics(self) -> dict[str, float]:
        """What the search found, and what k random rates of it would have given."""
        scores = list(self.result.grid.values())
        found = {
            "rate": self.rate,
            "dev_decay": float(self.scheme == "dev"),
            "extended": float(self.result.extended),
            "at_edge": float(self.result.at_edge),
            "score": self.result.score,
        }
        for k in (1, 2, 3, 5):
            if k <= len(scores):
                found[f"score_of_{k}"] = expected_best(scores, k)
                found[f"regret_of_{k}"] = tuning_regret(scores, k)
        return found


class _Wanted(Exception):
    """A search asks for a rate that has not been run."""


def tune_together(
    evaluate: Callable[[list[Member]], list[float]], searches: int, method: str, grid: Grid
) -> list[Tuned]:
    """`tune_rate` for several searches at once: whatever they still want is run as one ensemble.

    Args:
        evaluate: members -> scores to minimise, finite (a diverged member has its bad score).
        searches: how many; member.search tells them apart.
        method: of `KINDS`, or "adam-default": one rate, only the decay is tuned.
    """
    if method == "adam-default":
        start, count, extensions = grid.default, 1, 0
    else:
        start, count, extensions = getattr(grid, method), grid.rates, grid.extensions
    scores: list[dict[tuple[float, str], float]] = [{} for _ in range(searches)]
    first = [start * grid.factor ** (k - (count - 1) // 2) for k in range(count)]
    todo = [Member(s, rate, scheme) for s in range(searches) for rate in first for scheme in SCHEMES]
    while todo:
        for member, score in zip(todo, evaluate(todo), strict=True):
            scores[member.search][member.rate, member.scheme] = score
        todo, results = [], []
        for s, known in enumerate(scores):

            def best_scheme(rate: float, known: dict[tuple[float, str], float] = known) -> float:
                if (rate, SCHEMES[0]) not in known:
                    raise _Wanted(rate)
                return min(known[rate, scheme] for scheme in SCHEMES)

            try:
                results.append(tune_rate(best_scheme, start, grid.factor, count, extensions))
            except _Wanted as wanted:
                todo += [Member(s, float(wanted.args[0]), scheme) for scheme in SCHEMES]
    return [
        Tuned(result.best, min(SCHEMES, key=lambda scheme: known[result.best, scheme]), result, known)
        for result, known in zip(results, scores, strict=True)
    ]


class Schedules:
    """Both decay schemes on one ensemble, each for its own members."""

    def __init__(self, optimizer: EnsembleOptimizer, members: list[Member], epochs: int, grid: Grid) -> None:
        dev = torch.tensor([member.scheme == "dev" for member in members])
        self.dev = DevDecay(optimizer, torch.where(dev, grid.dev_factor, 1.0))
        every = max(1, math.ceil(grid.fixed_every * epochs))
        self.fixed = FixedFrequencyDecay(optimizer, every, torch.where(dev, 1.0, grid.fixed_factor))

    def step(self, metric: torch.Tensor) -> None:
        """After an epoch, with every member's held-out metric [K]."""
        self.dev.step(metric)
        self.fixed.step()


def crossing(leader: list[float], follower: list[float]) -> float:
    """Share of the run after which `follower` is at most `leader` for good; 1 if it never is.

    Both are held-out metrics at the same evenly spaced points.
    """
    behind = [a > b for a, b in zip(follower, leader, strict=True)]
    if not behind or behind[-1]:
        return 1.0
    last = max((k for k, yes in enumerate(behind) if yes), default=-1)
    return (last + 1) / len(behind)
