import math

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.analysis.search import (
    Choice,
    LogUniform,
    QuasiRandomSearch,
    ReverseLogUniform,
    Uniform,
    best_within,
    expected_best,
    measurement_table,
    steps_to_result,
    tune_rate,
    tuning_regret,
)

AXES = [LogUniform(1e-4, 10.0), ReverseLogUniform(0.9, 0.9999), Uniform(-2.0, 5.0)]


@pytest.mark.parametrize("axis", AXES)
def test_axes_run_from_low_to_high(axis):
    assert axis.at(0) == pytest.approx(axis.low)
    assert axis.at(1) == pytest.approx(axis.high)


@given(unit=st.floats(0, 1), k=st.integers(0, 2))
def test_unit_is_the_inverse_of_at(unit, k):
    assert AXES[k].unit(AXES[k].at(unit)) == pytest.approx(unit, abs=1e-9)


def test_equal_steps_of_a_reverse_logarithm_divide_the_distance_to_one():
    axis = ReverseLogUniform(0.9, 0.9999)
    assert [1 - axis.at(u) for u in (0, 1 / 3, 2 / 3, 1)] == pytest.approx([0.1, 0.01, 0.001, 0.0001])


def test_points_are_spread_evenly_and_repeat_with_the_seed():
    space = {
        "lr": LogUniform(1e-3, 1.0),
        "momentum": ReverseLogUniform(0.9, 0.999),
        "steps": Uniform(3, 9, True),
    }
    search = QuasiRandomSearch(space, 16, seed=3)
    points = list(search)
    assert len(points) == len(search) == 16
    # Every eighth of each axis holds its share: random points would not.
    for k in range(3):
        assert np.histogram(search.units[:, k], 8, (0, 1))[0].tolist() == [2] * 8
    assert all(isinstance(point["steps"], int) and 3 <= point["steps"] <= 9 for point in points)
    assert points == list(QuasiRandomSearch(space, 16, seed=3))
    assert points != list(QuasiRandomSearch(space, 16, seed=4))
    assert points[:5] == list(QuasiRandomSearch(space, 5, seed=3))


def test_the_edge_is_where_no_point_lies_beyond():
    search = QuasiRandomSearch({"lr": LogUniform(1e-3, 1.0), "act": Choice(("relu", "tanh"))}, 8)
    rates = sorted(point["lr"] for point in search)
    assert search.edge({"lr": rates[0], "act": "relu"}) == {"lr"}
    assert search.edge({"lr": rates[-1], "act": "relu"}) == {"lr"}
    assert search.edge({"lr": rates[3], "act": "tanh"}) == set()
    assert search.edge({"lr": rates[3], "act": "tanh"}, margin=0.49) == {"lr"}
    wider = search.widen("lr", 10)
    assert wider.space["lr"] == LogUniform(1e-4, 10.0)
    assert wider.n == 8
    with pytest.raises(ValueError, match="no border"):
        search.widen("act")
    assert ReverseLogUniform(0.9, 0.99).widened(2).low == pytest.approx(0.8)
    assert Uniform(0, 2).widened(2) == Uniform(-1, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QuasiRandomSearch({}, 4), "empty"),
        (lambda: QuasiRandomSearch({"a": Uniform(0, 1)}, 0), "at least one point"),
        (lambda: LogUniform(0, 1), "low > 0"),
        (lambda: LogUniform(2, 1), "low < high"),
        (lambda: ReverseLogUniform(0.9, 1.0), "high < 1"),
        (lambda: Uniform(1, math.inf), "finite"),
        (lambda: Choice(()), "at least one value"),
    ],
)
def test_impossible_boxes_end_in_one_clear_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def table(rows):
    return measurement_table(
        [
            {
                "batch_size": b,
                "trial": t,
                "step": s,
                "status": "infeasible" if t == 9 else "complete",
                "valid_error": e,
            }
            for b, t, s, e in rows
        ]
    )


ROWS = [
    (4, 0, 0, 0.9),
    (4, 0, 10, 0.2),
    (4, 0, 20, 0.1),  # equal to the goal: not better
    (4, 0, 30, 0.05),
    (4, 1, 20, math.nan),
    (4, 1, 25, 0.09),
    (4, 1, 30, 0.3),
    (4, 9, 10, 0.5),
    (4, 9, 20, math.nan),
    (8, 2, 10, 0.04),  # a tie in steps: the lower trial counts
    (8, 1, 10, 0.01),
    (16, 1, 10, 0.4),
]


def test_the_first_strictly_better_measurement_counts():
    found = steps_to_result(table(ROWS), goal=0.1).set_index("batch_size")
    assert found["steps"].tolist()[:2] == [25, 10]
    assert math.isnan(found["steps"][16])
    assert found["trial"].tolist() == [1, 1, None] or found["trial"].isna().tolist() == [False, False, True]
    assert found.loc[8, "trial"] == 1
    assert found["trials"].tolist() == [3, 2, 1]
    assert found["infeasible"].tolist() == [1, 0, 0]


def test_the_order_of_the_rows_does_not_matter():
    shuffled = table([ROWS[k] for k in np.random.default_rng(0).permutation(len(ROWS))])
    pandas.testing.assert_frame_equal(steps_to_result(shuffled, 0.1), steps_to_result(table(ROWS), 0.1))


def test_two_in_a_row_are_of_one_trial():
    rows = [
        (4, 0, 10, 0.05),
        (4, 1, 10, 0.3),
        (4, 0, 20, 0.2),
        (4, 1, 20, 0.05),
        (4, 1, 30, 0.05),
        (4, 0, 30, 0.05),
    ]
    assert steps_to_result(table(rows), 0.1)["steps"].tolist() == [10]
    twice = steps_to_result(table(rows), 0.1, consecutive=2)
    assert twice["steps"].tolist() == [20]
    assert twice["trial"].tolist() == [1]


def test_larger_can_be_better():
    rows = [(4, 0, 10, 0.5), (4, 0, 20, 0.8)]
    assert steps_to_result(table(rows), 0.7, maximize=True)["steps"].tolist() == [20]


def test_bad_tables_and_goals_are_refused():
    with pytest.raises(ValueError, match="before the first step"):
        steps_to_result(table(ROWS), goal=0.95)
    with pytest.raises(ValueError, match="lacks the columns momentum"):
        steps_to_result(table(ROWS), 0.1, group_by=["batch_size", "momentum"])
    with pytest.raises(ValueError, match="lacks status"):
        measurement_table([{"trial": 0, "step": 1}])
    with pytest.raises(ValueError, match="status is"):
        measurement_table([{"trial": 0, "step": 1, "status": "fine"}])


def test_budgets_are_in_steps_or_in_examples():
    rows = [(4, 0, 10, 0.5), (4, 0, 20, 0.2), (8, 0, 10, 0.4), (8, 1, 10, math.nan), (8, 0, 20, 0.1)]
    assert best_within(table(rows), steps=10)["best"].tolist() == [0.5, 0.4]
    assert best_within(table(rows), steps=20)["best"].tolist() == [0.2, 0.1]
    assert best_within(table(rows), examples=80)["best"].tolist() == [0.2, 0.4]
    assert best_within(table(rows), steps=20, maximize=True)["step"].tolist() == [10, 10]


def test_a_grid_is_extended_while_the_best_is_at_its_edge():
    asked = []

    def score(rate):
        asked.append(rate)
        return (math.log2(rate) - 4) ** 2 if rate < 100 else math.nan

    result = tune_rate(score, start=1.0, n=5, max_extensions=3)
    assert result.best == 16
    assert not result.at_edge
    assert result.extended == 3
    assert asked == [0.25, 0.5, 1, 2, 4, 8, 16, 32]
    short = tune_rate(score, start=1.0, n=5, max_extensions=1)
    assert (short.best, short.at_edge, short.extended) == (8, True, 1)
    diverged = tune_rate(score, start=64.0, n=3)
    assert diverged.grid[128.0] == math.inf
    assert diverged.best == 16
    with pytest.raises(ValueError, match="factor > 1"):
        tune_rate(score, 1.0, factor=1.0)


def test_expected_best_is_exact():
    from itertools import combinations

    scores = [3.0, 1.0, 4.0, 1.5, 9.0]
    for k in range(1, 6):
        brute = np.mean([min(chosen) for chosen in combinations(scores, k)])
        assert expected_best(scores, k) == pytest.approx(brute)
        assert tuning_regret(scores, k) == pytest.approx(brute - 1)
    assert expected_best([1.0, 2.0, math.inf], 2) == pytest.approx((1 + 1 + 2) / 3)
    assert expected_best([1.0, math.inf], 1) == math.inf
    with pytest.raises(ValueError, match=r"k lies in 1\.\.5"):
        expected_best(scores, 6)
    with pytest.raises(ValueError, match="not dropped"):
        expected_best([1.0, math.nan], 1)
