import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from assay.analysis.scaling import (
    NoisyQuadratic,
    exact_noise_scale,
    gradient_noise_scale,
    interpolated_minimum,
    load_released_measurements,
    lr_rule_error,
    scaling_curve,
)
from assay.analysis.search import steps_to_result


def test_the_fit_recovers_exact_data():
    fit = scaling_curve([1, 10, 50, 500], [5100, 600, 200, 110]).fit()
    assert fit.s_min == pytest.approx(100, rel=1e-6)
    assert fit.b_critical == pytest.approx(50, rel=1e-6)
    assert fit.r2 == pytest.approx(1, abs=1e-9)


def test_slopes_and_regimes():
    curve = scaling_curve([4, 8, 16, 32, 64, 128], [800, 400, 200, 140, 130, 130])
    assert curve.slopes == pytest.approx([-1, -1, -0.5146, -0.1069, 0], abs=1e-4)
    assert curve.slope(4, 16) == pytest.approx(-1)
    assert curve.regimes().perfect_until == 16
    assert curve.regimes().flat_from == 32
    falling = scaling_curve([4, 8, 16], [400, 200, 100]).regimes()
    assert (falling.perfect_until, falling.flat_from) == (16, None)
    flat = scaling_curve([4, 8, 16], [400, 400, 400]).regimes()
    assert (flat.perfect_until, flat.flat_from) == (None, 4)
    # A dip in the middle does not end the flat stretch before it begins for good.
    bumpy = scaling_curve([1, 2, 4, 8], [100, 99, 40, 40]).regimes()
    assert (bumpy.perfect_until, bumpy.flat_from) == (None, 4)


@pytest.mark.parametrize(
    ("sizes", "steps", "message"),
    [
        ([4, 4, 8], [3, 2, 1], "rising"),
        ([8, 4], [3, 2], "rising"),
        ([4, 8], [3, math.nan], "positive and finite"),
        ([4, 8], [3, 0], "positive and finite"),
        ([4], [3], "two or more"),
    ],
)
def test_curves_that_are_none_are_refused(sizes, steps, message):
    with pytest.raises(ValueError, match=message):
        scaling_curve(sizes, steps)


def test_fits_and_slopes_that_cannot_be_are_refused():
    curve = scaling_curve([4, 8], [3, 2])
    with pytest.raises(ValueError, match="at least 3"):
        curve.fit()
    with pytest.raises(ValueError, match="not among"):
        curve.slope(4, 16)


def test_the_best_rate_is_read_between_the_grid_points():
    rates = 0.01 * 4.0 ** np.arange(5)
    steps = 100 * np.exp((np.log(rates) - math.log(0.3)) ** 2)
    best, edge = interpolated_minimum(rates, steps)
    assert best == pytest.approx(0.3, rel=1e-6)
    assert not edge
    assert interpolated_minimum(rates, rates) == (0.01, True)
    steps[3] = math.nan  # the neighbour diverged
    assert interpolated_minimum(rates, steps) == (pytest.approx(0.16), True)
    with pytest.raises(ValueError, match="no value"):
        interpolated_minimum(rates, np.full(5, np.inf))


def test_rules_are_wrong_by_octaves():
    sizes, best = [4, 16, 64, 256, 1024], [0.04, 0.16, 0.64, 0.64, 0.64]
    assert lr_rule_error(sizes, best, "linear", anchor=4) == pytest.approx(4)
    assert lr_rule_error(sizes, best, "sqrt", anchor=4) == pytest.approx(2)
    assert lr_rule_error(sizes, [1, 4, 16, 64, 256], "linear", anchor=16) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="anchor"):
        lr_rule_error(sizes, best, "linear", anchor=5)
    with pytest.raises(ValueError, match="'linear' or 'sqrt'"):
        lr_rule_error(sizes, best, "cubic", anchor=4)


# the noisy quadratic model


def test_expected_losses_are_those_of_simulated_chains():
    model = NoisyQuadratic([1.0, 0.3, 0.05], [1.0, 0.5, 0.2])
    lr, batch, steps, chains = 0.4, 8, 60, 20_000
    rng = np.random.default_rng(0)
    theta = np.ones((chains, 3))
    expected = model.losses(lr, batch, steps)
    for t in range(1, steps + 1):
        noise = rng.normal(size=theta.shape) * np.sqrt(model.c / batch)
        theta = theta - lr * (model.h * theta + noise)
        if t % 10 == 0:
            simulated = 0.5 * (model.h * theta**2).sum(1).mean()
            assert simulated == pytest.approx(expected[t], rel=0.02)


def test_infinite_batches_are_gradient_descent():
    model = NoisyQuadratic([1.0, 0.3], [1.0, 0.5], [4.0, 9.0])
    theta = np.array([2.0, 3.0])
    for expected in model.losses(0.7, math.inf, 50):
        assert abs(0.5 * (model.h * theta**2).sum() - expected) <= 1e-12
        theta = theta * (1 - 0.7 * model.h)


def test_the_first_step_below_the_target_is_found():
    model = NoisyQuadratic(1 / np.arange(1, 20))
    for lr, batch, target in ((0.5, 64, 0.1), (0.1, 4, 0.3), (1.0, math.inf, 0.01)):
        losses = model.losses(lr, batch, 5_000)
        assert model.steps(lr, batch, target) == np.flatnonzero(losses < target)[0]
    assert model.steps(3.0, 64, 0.1) == math.inf  # unstable
    assert model.steps(0.5, 1, 0.01) == math.inf  # below the noise floor
    assert model.steps(0.5, 4, 100.0) == 0


def test_a_tuned_search_on_the_model_shows_all_three_regimes():
    model = NoisyQuadratic(1 / np.arange(1, 101))
    lrs = 2.0 ** np.arange(-14, 1)
    sizes = [2.0**k for k in range(0, 21, 2)]
    steps = [model.optimal_steps(batch, lrs, 0.3)[0] for batch in sizes]
    regimes = scaling_curve(sizes, steps).regimes()
    assert regimes.perfect_until is not None
    assert regimes.flat_from is not None
    assert regimes.perfect_until < regimes.flat_from
    assert all(a >= b for a, b in pairwise(steps))


def test_models_that_are_none_are_refused():
    with pytest.raises(ValueError, match="curvatures"):
        NoisyQuadratic([1.0, 0.0])
    with pytest.raises(ValueError, match="one length"):
        NoisyQuadratic([1.0, 2.0], [1.0])


# gradient noise


def problem():
    torch.manual_seed(0)
    x, y = torch.randn(200, 5), torch.randint(3, (200,))
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)), x, y


def test_per_example_gradients_give_the_definition():
    model, x, y = problem()
    gradients = []
    for one, label in zip(x, y, strict=True):
        g = torch.autograd.grad(F.cross_entropy(model(one[None]), label[None]), list(model.parameters()))
        gradients.append(torch.cat([part.flatten() for part in g]))
    table = torch.stack(gradients)
    noise = exact_noise_scale(model, F.cross_entropy, x, y, chunk=64)
    assert noise.g2 == pytest.approx(float(table.mean(0).square().sum()), rel=1e-4)
    assert noise.trace == pytest.approx(float(table.var(0, correction=0).sum()), rel=1e-4)
    assert noise.b_simple == pytest.approx(noise.trace / noise.g2)


def test_two_batch_sizes_agree_with_it():
    model, x, y = problem()
    before = [p.clone() for p in model.parameters()]
    exact = exact_noise_scale(model, F.cross_entropy, x, y)
    noise = gradient_noise_scale(
        model, F.cross_entropy, x, y, 4, 64, draws=2_000, generator=torch.Generator().manual_seed(0)
    )
    assert noise.trace == pytest.approx(exact.trace, rel=0.03)
    assert noise.g2 == pytest.approx(exact.g2, rel=0.05)
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, model.parameters(), strict=True))


def test_identical_examples_have_no_noise():
    model, x, y = problem()
    x, y = x[:1].expand(50, -1), y[:1].expand(50)
    assert exact_noise_scale(model, F.cross_entropy, x, y).trace == pytest.approx(0, abs=1e-5)
    assert gradient_noise_scale(model, F.cross_entropy, x, y, 2, 8, draws=2).trace == pytest.approx(
        0, abs=1e-5
    )
    with pytest.raises(ValueError, match="b_small < b_big"):
        gradient_noise_scale(model, F.cross_entropy, x, y, 8, 8)


# the released archive


def test_the_released_archive_is_read(tmp_path):
    place = tmp_path / "cifar_10" / "resnet_8" / "sgd"
    for batch, trial, status, errors in (
        (2, 1, "COMPLETE", [0.9, 0.4, 0.2]),
        (2, 2, "INFEASIBLE", [0.9, "nan", "nan"]),
        (2, 3, "INCOMPLETE", [0.9, 0.1, 0.1]),
        (64, 1, "COMPLETE", [0.9, 0.25, 0.2]),
    ):
        folder = place / str(batch) / str(trial)
        folder.mkdir(parents=True)
        about = {
            "trial_id": trial,
            "status": status,
            "steps": 200,
            "parameters": {"learning_rate": 0.1 * trial},
        }
        (folder / "metadata.json").write_text(json.dumps(about))
        lines = [f"{100 * k},{e}" for k, e in enumerate(errors)]
        (folder / "measurements.csv").write_text("\n".join(["step,val/classification_error", *lines]))
    table = load_released_measurements(tmp_path, "cifar_10", "resnet_8", "sgd")
    assert sorted(table["trial"].unique()) == [1, 2]
    assert table["learning_rate"].max() == pytest.approx(0.2)
    found = steps_to_result(table, 0.3, metric="val/classification_error")
    assert found["steps"].tolist() == [200, 100]
    assert found["infeasible"].tolist() == [1, 0]
    with pytest.raises(FileNotFoundError, match="batch_science"):
        load_released_measurements(tmp_path, "cifar_10", "vgg", "sgd")
    (place / "64" / "1" / "measurements.csv").unlink()
    with pytest.raises(FileNotFoundError, match="not unpacked whole"):
        load_released_measurements(tmp_path, "cifar_10", "resnet_8", "sgd")
