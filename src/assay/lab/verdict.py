"""Verdict: what the evidence says about one claim."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Outcome = Literal["supported", "refuted", "inconclusive", "not decided"]


@dataclass(frozen=True)
class Decision:
    """The outcome of one test.

    Attributes:
        outcome: supported, refuted, inconclusive or not decided.
        effect: mean over seeds (or the statistic), in the metric's units.
        interval: 95 % interval (90 % for an equivalence test, as two one-sided tests want it).
        threshold: smallest (or, with `at_most`, largest) effect that counts.
        beyond: what the whole interval must clear.
        refuted: the line on whose far side an interval refutes.
        smaller: whether small effects support the claim (`at_most`).
        p: exact two-sided sign-flip p-value against `beyond` (TOST p for an equivalence), None where none exists.
        n: number of seeds.
        effects: the per-seed effects.
        seeds: their seeds.
        text: the test in words.
        reason: why it is not decided, or what else the reader must know.
        parts: the decisions that a combined test rests on.
    """

    outcome: Outcome
    effect: float | None = None
    interval: tuple[float, float] | None = None
    threshold: float | None = None
    beyond: float | None = None
    refuted: float | None = None
    smaller: bool = False
    p: float | None = None
    n: int = 0
    effects: tuple[float, ...] = ()
    seeds: tuple[int, ...] = ()
    text: str = ""
    reason: str = ""
    level: float = 0.95
    parts: "tuple[Decision, ...]" = ()


@dataclass(frozen=True)
class Verdict:
    """A claim's decision, with the p-value adjusted for all claims of the study."""

    claim: str
    statement: str
    paper: str
    decision: Decision
    adjusted_p: float | None = None
    tested: int = 0
    requires: Decision | None = field(default=None)

    @property
    def outcome(self) -> Outcome:
        return self.decision.outcome

    @property
    def headline(self) -> Decision:
        """The decision whose numbers stand for the claim: the part that holds the verdict back, for a combination."""
        decision = self.decision
        while decision.parts:
            decision = next((p for p in decision.parts if p.outcome == decision.outcome), decision.parts[0])
        return decision

    def record(self) -> dict[str, Any]:
        """Plain values for JSON (infinities and NaN as None)."""
        head = self.headline
        return clean(
            {
                "claim": self.claim,
                "statement": self.statement,
                "paper": self.paper,
                "verdict": self.outcome,
                "effect": head.effect,
                "interval": list(head.interval) if head.interval else None,
                "level": head.level,
                "threshold": head.threshold,
                "beyond": head.beyond,
                "p": self.decision.p,
                "p_adjusted": self.adjusted_p,
                "claims_tested": self.tested,
                "seeds": self.decision.n,
                "test": self.decision.text,
                "reason": self.decision.reason,
                "parts": [asdict(part) for part in self.decision.parts],
            }
        )


def clean(value: Any) -> Any:
    """`value` with every number that JSON cannot carry replaced by None."""
    if isinstance(value, Mapping):
        return {k: clean(v) for k, v in value.items()}
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return [clean(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def decide(
    effect: float,
    interval: tuple[float, float],
    *,
    threshold: float,
    beyond: float,
    refuted: float,
    smaller: bool,
    **more: Any,
) -> Decision:
    """Supported, refuted or inconclusive, from an effect, its interval and three numbers fixed beforehand."""
    low, high = interval
    if not (math.isfinite(effect) and math.isfinite(low) and math.isfinite(high)):
        return Decision("not decided", effect, interval, threshold, beyond, refuted, smaller, **more)
    if smaller:
        supports, refutes, reversed_ = effect <= threshold and high < beyond, low > refuted, low > 0
        at_line = effect <= threshold and high <= beyond and low == high
    else:
        supports, refutes, reversed_ = effect >= threshold and low > beyond, high < refuted, high < 0
        at_line = effect >= threshold and low >= beyond and low == high
    # An interval without width that sits on the line itself counts: a perfect score can be no better than perfect.
    if supports or at_line:
        outcome: Outcome = "supported"
    elif refutes:
        outcome = "refuted"
    else:
        outcome = "inconclusive"
    reason = more.pop("reason", "")
    # A threshold below zero ("not much worse") makes a negative effect a smaller one, not a reversed one.
    claimed = threshold <= 0 if smaller else threshold >= 0
    if outcome == "refuted" and reversed_ and claimed and more.pop("signed", False):
        reason = "; ".join(filter(None, (reason, "reversed: the effect goes the other way")))
    more.pop("signed", None)
    return Decision(outcome, effect, interval, threshold, beyond, refuted, smaller, reason=reason, **more)


def with_requirement(decision: Decision, required: Decision | None) -> Decision:
    """`decision`, or inconclusive (or not decided) where the precondition does not hold."""
    if required is None or required.outcome == "supported" or decision.outcome == "not decided":
        return decision
    outcome: Outcome = "not decided" if required.outcome == "not decided" else "inconclusive"
    why = f"precondition {required.outcome}: {required.text}"
    if required.reason:
        why += f" ({required.reason})"
    return replace(decision, outcome=outcome, reason="; ".join(filter(None, (why, decision.reason))))
