"""Coverage of known modes: exact counts, and a measure that cannot be fooled by blur."""

import math

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.analysis.coverage import nearest_template, position_coverage
from assay.data.shapes import NotSoClevr

SQUARES = NotSoClevr(canvas=16, radius=2).image


@pytest.fixture
def no_shape_checks():
    """Turns off the checks of the tests, so that the library's own messages show."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@given(st.lists(st.integers(0, 143), min_size=1, max_size=200))
@settings(max_examples=25, deadline=None)
def test_counts_and_entropy_are_exact(drawn: list[int]) -> None:
    result = position_coverage(SQUARES[torch.tensor(drawn)], SQUARES, tol=0.005)
    shares = [drawn.count(mode) / len(drawn) for mode in set(drawn)]
    assert result["valid"] == 1
    assert result["covered"] == len(shares)
    assert result["entropy"] == pytest.approx(-sum(p * math.log(p) for p in shares), abs=1e-9)


def test_everything_once_is_the_maximum() -> None:
    assert len(SQUARES) == 144
    result = position_coverage(SQUARES, SQUARES, tol=0.0)
    assert result == {"valid": 1.0, "covered": 144.0, "entropy": pytest.approx(math.log(144))}


def test_blurs_and_blanks_are_not_valid() -> None:
    fakes = torch.cat(
        [torch.zeros(3, 1, 16, 16), SQUARES.mean(0, keepdim=True), (SQUARES[:1] + SQUARES[1:2]) / 2]
    )
    assert position_coverage(fakes, SQUARES, tol=0.005) == {"valid": 0.0, "covered": 0.0, "entropy": 0.0}


def test_invalid_samples_do_not_dilute_the_entropy() -> None:
    mixed = torch.cat([SQUARES[:8], torch.zeros(8, 1, 16, 16)])
    result = position_coverage(mixed, SQUARES, tol=0.005)
    assert result["valid"] == 0.5
    assert result["entropy"] == pytest.approx(math.log(8))


def test_nearest_is_by_mean_squared_difference() -> None:
    noisy = SQUARES + 0.05 * torch.randn(SQUARES.shape, generator=torch.Generator().manual_seed(0))
    index, distance = nearest_template(noisy, SQUARES)
    assert torch.equal(index, torch.arange(144))
    assert torch.allclose(distance, (noisy - SQUARES).square().mean((1, 2, 3)), atol=1e-5)


@pytest.mark.usefixtures("no_shape_checks")
def test_wrong_shapes_and_tolerances_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        position_coverage(torch.zeros(1, 1, 8, 8), SQUARES, tol=0.1)
    with pytest.raises(ValueError, match="tol"):
        position_coverage(SQUARES, SQUARES, tol=-1.0)
