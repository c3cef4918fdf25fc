"""Schedules of environment steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.rl.schedules import Constant, Exponential, Linear, Piecewise, Schedule, as_schedule


def test_linear() -> None:
    line = Linear(1.0, 0.2, steps=100, begin=50)
    assert [line(t) for t in (0, 50, 100, 150, 10_000)] == pytest.approx([1.0, 1.0, 0.6, 0.2, 0.2])


def test_exponential() -> None:
    decay = Exponential(0.8, half_life=10, floor=0.1)
    assert [decay(t) for t in (0, 10, 20, 1000)] == pytest.approx([0.8, 0.4, 0.2, 0.1])
    assert Exponential(-0.8, 10, 0.1)(1000) == pytest.approx(-0.1)
    assert Exponential(0.0, 10)(5) == 0


def test_piecewise() -> None:
    curve = Piecewise(((10, 0.0), (20, 1.0), (20, 5.0), (30, 3.0)))
    assert [curve(t) for t in (0, 10, 15, 20, 25, 30, 99)] == pytest.approx([0, 0, 0.5, 5, 4, 3, 3])


@given(st.floats(0, 1e9), st.floats(-10, 10), st.floats(-10, 10))
def test_a_line_stays_between_its_ends(step: float, start: float, end: float) -> None:
    low, high = min(start, end), max(start, end)
    assert low - 1e-9 <= Linear(start, end, 1e6)(step) <= high + 1e-9


def test_numbers_become_schedules() -> None:
    assert as_schedule(3)(10**9) == 3.0
    line = Linear(1.0, 0.0, 10)
    assert as_schedule(line) is line
    assert isinstance(Constant(1.0), Schedule)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="steps > 0"):
        Linear(1.0, 0.0, 0)
    with pytest.raises(ValueError, match="half_life"):
        Exponential(1.0, 0)
    with pytest.raises(ValueError, match="rising"):
        Piecewise(((10, 1.0), (5, 2.0)))
    with pytest.raises(ValueError, match="rising"):
        Piecewise(())
    with pytest.raises(ValueError, match="from 0"):
        Linear(1.0, 0.0, 10)(-1)
