"""Made-up results for the pages that explain verdicts, decided by the same code as real ones."""

from dataclasses import dataclass

from markupsafe import Markup

from assay.lab import statistics
from assay.lab.figures import number, spread
from assay.lab.site import intervals
from assay.lab.site.views import because
from assay.lab.verdict import Decision, decide


@dataclass(frozen=True)
class Example:
    outcome: str
    strip: Markup
    because: str


@dataclass(frozen=True)
class Reading:
    """One example worked through."""

    strip: Markup
    effects: tuple[str, ...]
    effect: str
    low: str
    high: str
    p: str


def _decide(effects: list[float], threshold: float = 0.3, beyond: float = 0.0) -> Decision:
    return decide(
        sum(effects) / len(effects),
        statistics.mean_interval(effects),
        threshold=threshold,
        beyond=beyond,
        refuted=beyond,
        smaller=False,
        p=statistics.sign_flip_p(effects, beyond),
        n=len(effects),
        effects=tuple(effects),
        seeds=tuple(range(len(effects))),
    )


def reading() -> Reading:
    """Five seeds, one supported claim."""
    decision = _decide([0.42, 0.55, 0.36, 0.61, 0.48])
    assert decision.interval is not None
    assert decision.p is not None
    half = spread(decision)
    low, high = decision.interval
    return Reading(
        intervals.strip(decision),
        tuple(f"{x:.2f}" for x in decision.effects),
        number(decision.effect, half),
        number(low, half),
        number(high, half),
        number(decision.p),
    )


def outcomes() -> dict[str, Example]:
    """An example of each outcome that has an interval."""
    made = {
        "supported": _decide([0.42, 0.55, 0.36, 0.61, 0.48]),
        "small": _decide([0.14, 0.19, 0.09, 0.17, 0.12]),
        "crossing": _decide([0.72, -0.11, 0.58, 0.09, 0.41]),
        "refuted": _decide([-0.08, -0.15, -0.05, -0.19, -0.11]),
    }
    return {name: Example(d.outcome, intervals.strip(d), because(d)) for name, d in made.items()}
