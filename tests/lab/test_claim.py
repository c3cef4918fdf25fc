"""Each test of a claim: supported, refuted, inconclusive, not decided."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.lab import All, AnyOf, Claim, Difference, Effect, Equivalence, Level, Ratio, Statistic, Trend
from assay.lab.claim import verdicts

from .conftest import make_results


def decide(test, **arms):
    table = {
        arm: [{"m": v} if not isinstance(v, str | dict) else v for v in values]
        for arm, values in arms.items()
    }
    return test.decide(make_results(table, test))


B, A = [1.0, 1.1, 0.9, 1.2, 1.0], [0.1, 0.0, 0.2, 0.1, 0.1]
GAP = Difference("m", arm="b", versus="a", at_least=0.5)


def test_difference() -> None:
    decision = decide(GAP, a=A, b=B)
    assert decision.outcome == "supported"
    assert decision.effect == pytest.approx(0.94)
    assert decision.effects == pytest.approx([0.9, 1.1, 0.7, 1.1, 0.9])
    assert decision.p == 2 / 32
    assert decision.n == 5
    # A solid effect that is too small: the interval is above 0, so it is not refuted either.
    assert decide(GAP, a=A, b=[x + 0.3 for x in A]).outcome == "inconclusive"
    reversed_ = decide(GAP, a=B, b=A)
    assert (reversed_.outcome, "reversed" in reversed_.reason) == ("refuted", True)
    noisy = decide(GAP, a=[0.0, 2.0, -1.0], b=[3.0, 0.0, 1.0])
    assert noisy.outcome == "inconclusive"


def test_pairing_matters() -> None:
    """A spread between seeds that both arms share does not widen the interval."""
    seeds = np.array([0.0, 10.0, -20.0, 35.0])
    decision = decide(GAP, a=list(seeds), b=list(seeds + np.array([1.0, 1.1, 0.9, 1.0])))
    assert decision.outcome == "supported"


def test_beyond_and_refuted_below() -> None:
    args = {"a": [0.0] * 5, "b": [0.9, 1.1, 1.0, 1.05, 0.95]}
    assert decide(Difference("m", "b", "a", at_least=0.5, beyond=0.8), **args).outcome == "supported"
    assert decide(Difference("m", "b", "a", at_least=0.5, beyond=0.95), **args).outcome == "inconclusive"
    assert decide(Difference("m", "b", "a", at_least=2.0, refuted_below=1.5), **args).outcome == "refuted"
    assert decide(Difference("m", "b", "a", at_least=2.0), **args).outcome == "inconclusive"


def test_smaller_is_better() -> None:
    loss = Difference("m", arm="b", versus="a", at_most=-0.5)
    assert decide(loss, a=B, b=A).outcome == "supported"
    assert decide(loss, a=A, b=B).outcome == "refuted"
    assert "reversed" in decide(loss, a=A, b=B).reason
    assert decide(Level("m", "a", at_most=0.3), a=A).outcome == "supported"
    assert decide(Level("m", "a", at_most=0.05), a=[0.2, 0.21, 0.22]).outcome == "refuted"
    assert decide(Level("m", "a", at_most=0.0), a=[0.0, 0.0]).outcome == "supported"


def test_level() -> None:
    assert decide(Level("m", "b", at_least=0.8), b=B).outcome == "supported"
    assert (
        decide(Level("m", "b", at_least=1.0), b=B).outcome == "inconclusive"
    )  # the interval reaches below 1
    assert decide(Level("m", "b", at_least=1.0), b=[1.0] * 5).outcome == "supported"
    assert decide(Level("m", "b", at_least=2.0), b=B).outcome == "refuted"
    assert decide(Level("m", "b", at_least=2.0, refuted_below=0.5), b=B).outcome == "inconclusive"


def test_ratio_is_geometric() -> None:
    decision = decide(Ratio("m", arm="b", versus="a", at_least=1.5), a=[1.0, 10.0, 5.0], b=[2.0, 22.0, 9.0])
    assert decision.effect == pytest.approx((2.0 * 2.2 * 1.8) ** (1 / 3))
    assert decision.outcome == "supported"
    assert (
        decide(Ratio("m", "b", "a", at_least=1.5), a=[2.0, 2.1, 1.9], b=[1.0, 1.0, 1.0]).outcome == "refuted"
    )
    assert "positive" in decide(Ratio("m", "b", "a", at_least=1.5), a=[0.0, 1.0], b=[1.0, 1.0]).reason
    with pytest.raises(ValueError, match="positive"):
        Ratio("m", "b", "a", at_least=0.0)


def test_trend() -> None:
    arms = {"a": [0.0, 0.1, 0.0], "b": [1.0, 1.2, 0.9], "c": [2.0, 1.9, 2.1]}
    slope = decide(Trend("m", ("a", "b", "c"), at_least=0.5), **arms)
    assert (slope.outcome, round(slope.effect, 3)) == ("supported", 0.983)
    assert decide(Trend("m", ("a", "b", "c"), x=(0, 10, 20), at_least=0.05), **arms).effect == pytest.approx(
        0.0983, abs=1e-3
    )
    assert decide(Trend("m", ("a", "b", "c"), method="spearman", at_least=0.9), **arms).effect == 1.0
    assert decide(Trend("m", ("c", "b", "a"), method="kendall", at_least=0.9), **arms).outcome == "refuted"
    flat = {arm: [1.0, 1.0] for arm in "abc"}
    assert decide(Trend("m", ("a", "b", "c"), method="spearman", at_least=0.5), **flat).effect == 0.0


def test_equivalence() -> None:
    same = Equivalence("m", "a", "b", within=0.05)
    assert decide(same, a=[0.90, 0.91, 0.92], b=[0.90, 0.92, 0.91]).outcome == "supported"
    assert decide(same, a=[0.90, 0.80, 0.99], b=[0.90, 0.92, 0.85]).outcome == "inconclusive"
    assert decide(same, a=[0.5, 0.51, 0.52], b=[0.90, 0.92, 0.91]).outcome == "refuted"
    assert decide(same, a=[0.5, 0.51], b=[0.5, 0.51]).level == 0.9


def test_effect_and_statistic() -> None:
    interaction = Effect(
        lambda cell: cell["b"]["m"] - 2 * cell["a"]["m"], arms=("a", "b"), at_least=0.5, name="interaction"
    )
    assert decide(interaction, a=A, b=B).effect == pytest.approx(0.84)
    smallest = Statistic(lambda t: float((t["b"]["m"] - t["a"]["m"]).min()), arms=("a", "b"), at_least=0.5)
    decision = decide(smallest, a=A, b=B)
    assert (decision.outcome, decision.p) == ("supported", None)
    assert decision.effect == pytest.approx(0.7)
    share = Statistic(lambda t: float((t["a"]["m"] > 0.05).mean()), arms=("a",), at_least=0.9)
    assert decide(share, a=A).outcome == "inconclusive"


def test_combinations() -> None:
    yes, no = Level("m", "b", at_least=0.5), Level("m", "a", at_least=0.5)
    maybe = Level("m", "b", at_least=1.0)
    assert decide(All(yes, yes), a=A, b=B).outcome == "supported"
    assert decide(All(yes, no), a=A, b=B).outcome == "refuted"
    assert decide(All(yes, maybe), a=A, b=B).outcome == "inconclusive"
    assert decide(AnyOf(yes, no), a=A, b=B).outcome == "supported"
    assert decide(AnyOf(no, no), a=A, b=B).outcome == "refuted"
    assert decide(AnyOf(no, maybe), a=A, b=B).outcome == "inconclusive"
    missing = Level("m", "c", at_least=0.5)
    assert decide(All(yes, missing), a=A, b=B).outcome == "not decided"
    assert decide(All(no, missing), a=A, b=B).outcome == "refuted"
    assert decide(AnyOf(yes, missing), a=A, b=B).outcome == "supported"
    assert decide(All(yes, GAP), a=A, b=B).p == 2 / 32


def test_not_decided_says_why() -> None:
    assert "two" in decide(GAP, a=[0.0], b=[1.0]).reason
    assert decide(GAP, a=[0.0], b=[1.0]).effect == 1.0
    assert "not run" in decide(GAP, b=B).reason
    assert "NaN" in decide(GAP, a=[0.0, float("nan")], b=[1.0, 1.0]).reason
    failed = decide(GAP, a=[0.0, "RuntimeError: exploded", 0.0], b=[1.0, 1.0, 1.0])
    assert (failed.outcome, "seed 1 failed: RuntimeError: exploded" in failed.reason) == ("not decided", True)
    other = decide(Difference("q", "b", "a", at_least=0.5), a=A, b=B)
    assert "no metric 'q' (it reports m)" in other.reason
    nothing = Effect(lambda cell: float("inf"), arms=("a",), at_least=0.5)
    assert "inf" in decide(nothing, a=A).reason
    assert (
        "NaN"
        in decide(Statistic(lambda t: t["a"]["m"].mean(), ("a",), at_least=0), a=[1.0, float("nan")]).reason
    )
    assert "no metric" in decide(Statistic(lambda t: t["a"]["q"].mean(), ("a",), at_least=0), a=A).reason


def test_arms_with_other_numbers_of_seeds_are_paired_on_what_they_share() -> None:
    decision = decide(GAP, a=A, b=[*B, 5.0])
    assert (decision.n, "5 seeds that all arms share" in decision.reason) == (5, True)


def test_requirement() -> None:
    claim = Claim("c", "s", "p", GAP, requires=Level("m", "b", at_least=2.0))
    results = make_results({"a": [{"m": v} for v in A], "b": [{"m": v} for v in B]}, GAP)
    verdict = verdicts([claim], results)[0]
    assert verdict.outcome == "inconclusive"
    assert "precondition refuted: m(b) >= 2" in verdict.decision.reason
    assert verdict.decision.effect == pytest.approx(0.94)
    met = Claim("c", "s", "p", GAP, requires=Level("m", "b", at_least=0.5))
    assert verdicts([met], results)[0].outcome == "supported"


def test_holm_over_the_claims_of_a_study() -> None:
    results = make_results({"a": [{"m": v} for v in A], "b": [{"m": v} for v in B]}, GAP, GAP, GAP)
    assert [v.adjusted_p for v in results.verdicts] == pytest.approx([6 / 32] * 3)
    assert [v.tested for v in results.verdicts] == [3] * 3
    record = results.verdicts[0].record()
    assert {"claim", "statement", "paper", "verdict", "effect", "interval", "threshold", "seeds"} <= set(
        record
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: Difference("m", "a", "b"),
        lambda: Difference("m", "a", "b", at_least=1, at_most=2),
        lambda: Level("m", "a", at_least=1, refuted_above=2),
        lambda: Level("m", "a", at_most=1, refuted_below=2),
        lambda: Equivalence("m", "a", "b"),
        lambda: Trend("m", ("a", "b"), at_least=1),
        lambda: Trend("m", ("a", "b", "c"), x=(1,), at_least=1),
        lambda: Trend("m", ("a", "b", "c"), method="pearson", at_least=1),
        lambda: All(GAP),
    ],
)
def test_a_test_that_makes_no_sense_is_refused(make) -> None:
    with pytest.raises(ValueError, match=r".+"):
        make()


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8), st.floats(-2, 2))
def test_mirror_image(values: list[float], threshold: float) -> None:
    """`at_most` of the negated metric decides as `at_least` of the metric."""
    up = decide(Level("m", "a", at_least=threshold), a=values)
    down = decide(Level("m", "a", at_most=-threshold), a=[-v for v in values])
    assert up.outcome == down.outcome
