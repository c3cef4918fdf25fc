"""Probing and mode strengths: closed forms, exact recoveries, and what must not matter."""

import math

import pytest
import torch

from assay.analysis import (
    explained_share,
    fourier_strength,
    half_time,
    mode_strength,
    probe_fourier,
    probe_linear,
    saxe_curve,
    stagger_index,
    subspace_overlap,
)
from assay.meta import FourierTasks, LinearTasks, fourier_features, random_orthogonal


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- the two-layer linear network ---------------------------------------------------------------------------------


def test_saxe_curve_has_the_printed_values():
    t = torch.tensor([0.5, 1.0, 2.0, 5.0], dtype=torch.float64)
    assert saxe_curve(3.0, t[:3], 1e-3, 1.0).tolist() == pytest.approx(
        [0.019959, 0.355712, 2.945721], abs=1e-6
    )
    assert saxe_curve(1.0, t[2:], 1e-3, 1.0).tolist() == pytest.approx([0.051821, 0.956613], abs=1e-6)
    times = torch.linspace(0, 20, 200_001, dtype=torch.float64)
    for s, expected in ((3.0, 1.334339), (1.0, 3.453377), (0.3, 9.500739)):
        assert float(half_time(saxe_curve(s, times, 1e-3, 1.0) / s, times=times)) == pytest.approx(
            expected, abs=1e-5
        )
    assert float(saxe_curve(3.0, torch.tensor([500.0]), 1e-3, 1.0)) == pytest.approx(3.0)


def test_a_simulated_two_layer_network_follows_saxe():
    """Gradient descent on the population loss, balanced and aligned start."""
    s, s0, rate = torch.tensor([3.0, 1.0, 0.3], dtype=torch.float64), 1e-3, 1e-3
    u, v = random_orthogonal(2, 3, source()).double()
    w = u @ s.diag() @ v.T
    first, second = math.sqrt(s0) * v.T, math.sqrt(s0) * u
    strengths, steps = [], 12_000
    for _ in range(steps):
        product = second @ first
        strengths.append((u.T @ product @ v).diagonal())
        error = w - product
        first, second = first + rate * second.T @ error, second + rate * error @ first.T
    seen = torch.stack(strengths)[::100]
    t = torch.arange(0, steps, 100, dtype=torch.float64)
    expected = saxe_curve(s, t.unsqueeze(1), s0, 1 / rate)
    # relative to each mode's end; the finite rate shifts the steep part a little
    assert float(((seen - expected) / s).abs().max()) < 0.02


# -- probing ------------------------------------------------------------------------------------------------------


def test_a_known_map_is_returned():
    w = torch.randn(5, 4, 3, generator=source(), dtype=torch.float64)
    b = torch.randn(5, 1, 4, generator=source(1), dtype=torch.float64)
    found = probe_linear(lambda x: x @ w.mT + b, 3, 24, source(2), dtype=torch.float64)
    torch.testing.assert_close(found.weight, w, atol=1e-10, rtol=0)
    torch.testing.assert_close(found.intercept, b.squeeze(1), atol=1e-10, rtol=0)
    assert float((found.r2 - 1).abs().max()) < 1e-12


def test_r2_tells_curved_from_straight():
    found = probe_linear(lambda x: x.square(), 2, 4000, source())
    assert float(found.r2) < 0.05
    assert float(probe_linear(lambda x: torch.ones(30, 1), 2, 30).r2) == 1.0


def test_probing_is_the_least_squares_fit():
    x_seen = []

    def learner(x):
        x_seen.append(x)
        return (x @ torch.tensor([[1.0], [2.0]])).tanh()

    found = probe_linear(learner, 2, 24, source())
    assert len(x_seen) == 1, "one call for all probes"
    design = torch.cat([x_seen[0], torch.ones(24, 1)], 1).numpy()
    import numpy as np

    expected = np.linalg.lstsq(design, learner(x_seen[0]).numpy(), rcond=None)[0]
    assert found.weight[0].tolist() == pytest.approx(expected[:2, 0].tolist(), abs=1e-5)
    assert float(found.intercept) == pytest.approx(float(expected[2, 0]), abs=1e-5)


@pytest.mark.parametrize("grid", [63, 64])
def test_the_spectrum_equals_least_squares_on_the_grid(grid):
    tasks = FourierTasks(5)
    f = tasks.coefficients(7, source()).to(torch.complex128)

    def learned(theta):
        return tasks.function(0.7 * f, theta.expand(7, -1)).exp()  # not band-limited

    found = probe_fourier(learned, grid, dtype=torch.float64)
    theta = 2 * torch.pi * torch.arange(grid, dtype=torch.float64) / grid
    design = fourier_features(theta, 1, 5)
    parts = torch.linalg.lstsq(design, learned(theta).mT).solution.mT
    expected = torch.complex(parts[:, :5], -parts[:, 5:])
    assert float((found[:, 1:6] - expected).abs().max()) < 1e-10
    strengths = fourier_strength(found[:, 1:6], f), fourier_strength(expected, f)
    assert float((strengths[0] - strengths[1]).abs().max()) < 1e-10
    assert found[:, 0].real.tolist() == pytest.approx(learned(theta).mean(-1).tolist())


def test_a_function_in_the_band_is_returned_exactly():
    tasks = FourierTasks(3)
    f = tasks.coefficients(4, source()).to(torch.complex128)
    found = probe_fourier(lambda t: tasks.function(f, t.expand(4, -1)), 64, dtype=torch.float64)
    torch.testing.assert_close(found[:, 1:4], f, atol=1e-12, rtol=0)
    assert float(found[:, 4:].abs().max()) < 1e-12


# -- strengths ----------------------------------------------------------------------------------------------------


def test_strengths_of_a_map_made_of_its_modes():
    w = LinearTasks(4, 3, spectrum=(3.0, 1.5, 0.75)).weights(10, source())
    u, s, vt = torch.linalg.svd(w, full_matrices=False)
    share = torch.tensor([0.2, 0.9, 1.1])
    learned = u @ (share * s).diag_embed() @ vt
    found = mode_strength(learned, w)
    torch.testing.assert_close(found.strength, share.expand(10, 3), atol=1e-5, rtol=0)
    assert float(found.off_diagonal.max()) < 1e-5
    # what lies between modes is not strength
    mixed = u @ torch.tensor([[0.0, 2.0, 0], [0, 0, 0], [0, 0, 0]]) @ vt
    found = mode_strength(mixed, w)
    assert float(found.strength.abs().max()) < 1e-5
    expected = 2.0 / math.sqrt(9 + 2.25 + 0.5625)
    assert found.off_diagonal.tolist() == pytest.approx([expected] * 10, abs=1e-4)


def test_strengths_do_not_depend_on_coordinates():
    """Rotating inputs and outputs of both maps changes nothing."""
    w, learned = LinearTasks(3, 3, spectrum=(3.0, 1.5, 0.75)).weights(2, source()).unbind()
    r, q = random_orthogonal(2, 3, source(5))
    for function in (lambda a, b: mode_strength(a, b).strength, explained_share):
        torch.testing.assert_close(
            function(r @ learned @ q, r @ w @ q), function(learned, w), atol=1e-5, rtol=1e-5
        )


def test_many_moments_of_many_tasks_at_once():
    w = LinearTasks(3, 2, spectrum=(2.0, 0.4)).weights(5, source())
    path = torch.linspace(0, 1, 4).view(1, 4, 1, 1) * w.unsqueeze(1)
    expected = torch.linspace(0, 1, 4).view(1, 4, 1).expand(5, 4, 2)
    torch.testing.assert_close(mode_strength(path, w.unsqueeze(1)).strength, expected, atol=1e-5, rtol=0)


def test_frequencies_count_phase():
    f = torch.polar(torch.tensor([2.0, 2.0, 2.0]), torch.tensor([0.3, 1.0, 2.0]))
    turned = f * torch.polar(torch.tensor([1.0, 1.0, 0.5]), torch.tensor([0.0, math.pi / 2, math.pi]))
    assert fourier_strength(turned, f).tolist() == pytest.approx([1.0, 0.0, -0.5], abs=1e-6)


def test_other_measures_of_progress():
    """Equal strengths: shares go with the squared singular values, and the subspace is right from the start."""
    w = LinearTasks(3, 3, spectrum=(3.0, 1.5, 0.75)).weights(6, source())
    s2 = torch.tensor([3.0, 1.5, 0.75]).square()
    torch.testing.assert_close(
        explained_share(0.5 * w, w), (0.75 * s2 / s2.sum()).expand(6, 3), atol=1e-5, rtol=1e-5
    )
    assert explained_share(w, w).sum(-1).tolist() == pytest.approx([1.0] * 6, abs=1e-5)
    assert subspace_overlap(0.1 * w, w, 2).tolist() == pytest.approx([1.0] * 6, abs=1e-4)
    u, s, vt = torch.linalg.svd(w)
    swapped = u @ s.flip(-1).diag_embed() @ vt  # the smallest mode leads
    assert float(subspace_overlap(swapped, w, 1).max()) < 1e-5


# -- half times and the index -------------------------------------------------------------------------------------


def test_half_times():
    curves = torch.tensor([[0.0, 0.4, 0.8, 0.3, 0.9], [0.0, 0.1, 0.2, 0.3, 0.4], [0.6, 0.7, 0.8, 0.9, 1.0]])
    assert half_time(curves).tolist() == pytest.approx([1.25, math.inf, 0.0])
    times = torch.tensor([0.0, 10.0, 20.0, 40.0, 80.0])
    assert float(half_time(curves[0], times=times)) == pytest.approx(12.5)
    assert float(half_time(curves[1], level=0.35, times=times)) == pytest.approx(60.0)


def test_stagger_index_is_signed_and_in_the_order_of_modes():
    t = torch.arange(5.0)
    early, late = t / 2, t / 4
    assert float(stagger_index(torch.stack([early, late]))) == pytest.approx(1.0)
    assert float(stagger_index(torch.stack([late, early]))) == pytest.approx(-1.0)
    assert float(stagger_index(torch.stack([early, early]))) == 0.0
    assert math.isinf(float(stagger_index(torch.stack([early, 0 * t]))))
    assert math.isnan(float(stagger_index(torch.stack([0 * t, 0 * t]))))


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="at least 4 probes"):
        probe_linear(lambda x: x, 3, 3)
    with pytest.raises(ValueError, match="predict_fn must answer"):
        probe_linear(lambda x: x[:2], 3, 8)
    with pytest.raises(ValueError, match="predict_fn must answer"):
        probe_fourier(lambda t: t[:5])
    with pytest.raises(ValueError, match="vanishing singular value"):
        mode_strength(torch.zeros(2, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match="does not contain"):
        fourier_strength(torch.ones(2, dtype=torch.complex64), torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="rank lies in"):
        subspace_overlap(torch.eye(2), torch.eye(2), 3)
    with pytest.raises(ValueError, match="positive"):
        saxe_curve(1.0, torch.ones(2), 0.0, 1.0)
    with pytest.raises(ValueError, match="two points"):
        half_time(torch.ones(1))
