import numpy as np
import pytest

from assay.analysis.grids import best_cell, contour_slope, separability

RATES, DECAYS = 4.0 ** np.arange(5), 2.5 ** np.arange(8)


@pytest.mark.parametrize("slope", [-1.0, -0.35, 0.0, 0.65, 1.0])
def test_the_slope_of_a_grid_of_one_index_is_found(slope):
    index = np.log2(DECAYS)[None] + slope * np.log2(RATES)[:, None]
    error = 0.1 + 0.002 * (index - index.mean()) ** 2
    noisy = error + np.random.default_rng(0).normal(scale=1e-4, size=error.shape)
    found = contour_slope(noisy, RATES, DECAYS)
    assert found.slope == pytest.approx(slope, abs=0.02)
    assert found.r2 > 0.99


def test_far_and_diverged_cells_do_not_enter():
    index = np.log2(DECAYS)[None] + 0.0 * np.log2(RATES)[:, None]
    error = 0.1 + 0.001 * (index - 5) ** 2
    spoiled = error.copy()
    spoiled[4] = 0.9
    spoiled[3, 0] = np.nan
    found = contour_slope(spoiled, RATES, DECAYS)
    assert found.slope == pytest.approx(0, abs=0.02)
    assert found.cells == 31
    with pytest.raises(ValueError, match="only 1 cells"):
        contour_slope(np.where(np.arange(40).reshape(5, 8) == 3, 0.1, 0.9), RATES, DECAYS)
    with pytest.raises(ValueError, match="5 rates"):
        contour_slope(error.T, RATES, DECAYS)
    with pytest.raises(ValueError, match="positive"):
        contour_slope(error, RATES - 1, DECAYS)


def test_separability_is_one_for_a_sum_and_less_for_a_product():
    rows, columns = np.arange(5.0)[:, None], np.arange(8.0)[None]
    assert separability(rows + columns**2) == pytest.approx(1)
    assert separability((rows - 2) * (columns - 3.5)) == pytest.approx(0, abs=1e-12)
    table = rows + columns**2
    table[2, 2] = np.inf
    assert separability(table) == pytest.approx(1)


def test_choosing_and_reporting_are_kept_apart():
    select = np.array([[0.3, 0.2, 0.4], [0.25, np.nan, 0.1], [0.5, 0.5, 0.5]])
    report = np.arange(9.0).reshape(3, 3)
    assert best_cell(select, report) == (5.0, (1, 2), True)
    select[1, 2], select[1, 1] = 0.9, 0.05
    assert best_cell(select, report) == (4.0, (1, 1), False)
    with pytest.raises(ValueError, match="differ in shape"):
        best_cell(select, report[:2])
    with pytest.raises(ValueError, match="no cell"):
        best_cell(np.full((2, 2), np.nan), np.zeros((2, 2)))
