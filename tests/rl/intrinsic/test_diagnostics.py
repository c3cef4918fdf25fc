"""Feature diagnostics: drift, probes and dimension where the answers are known."""

import pytest
import torch

from assay.envs import SideScroller
from assay.rl.intrinsic import FeatureDiagnostics, PixelFeatures, ProbeBatch, RandomFeatures, make_features
from assay.rl.intrinsic.diagnostics import ridge_fit
from assay.rl.rollout import random_rollout
from tests.rl.intrinsic.test_features import _g


def _batch(rows: int = 256, dims: int = 4) -> ProbeBatch:
    g = _g()
    x = torch.randn(rows, dims, generator=g)
    action = torch.randint(3, (rows,), generator=g)
    after = x.clone()
    after[:, 0] += action.float()
    return ProbeBatch(x, action, after, x[:, :2])


class _Linear(PixelFeatures):
    """x W, and W can be changed."""

    def __init__(self, weight: torch.Tensor):
        super().__init__((len(weight),))
        self.weight, self.size = weight, weight.shape[1]

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


def test_ridge_regression_is_least_squares_without_penalty() -> None:
    g = _g()
    x, y = torch.randn(50, 3, generator=g), torch.randn(50, 2, generator=g)
    fit = ridge_fit(5 * x + 7, y, 1e-12)
    design = torch.cat((5 * x + 7, torch.ones(50, 1)), 1).double()
    torch.testing.assert_close(fit, torch.linalg.lstsq(design, y.double()).solution, rtol=1e-6, atol=1e-8)
    strong = ridge_fit(x, y, 1e9)
    torch.testing.assert_close(strong[-1], y.double().mean(0), rtol=1e-6, atol=1e-6)
    assert strong[:-1].abs().max() < 1e-6
    dead = ridge_fit(torch.cat((x, torch.full((50, 1), 3.0)), 1), y, 1e-6)
    assert dead[3].abs().max() == 0
    assert dead.isfinite().all()


def test_what_is_there_is_found_and_what_is_not_is_not() -> None:
    batch = _batch()
    whole = FeatureDiagnostics(_Linear(torch.eye(4)), batch)()
    assert whole["probe_r2"] > 0.999
    assert whole["inverse_accuracy"] > 0.8
    assert 3.5 < whole["dimension"] <= 4
    half = FeatureDiagnostics(_Linear(torch.eye(4)[:, [0, 2]]), batch)()
    assert 0.4 < half["probe_r2"] < 0.6, "one of the two numbers of the state"
    none = FeatureDiagnostics(_Linear(torch.eye(4)[:, [3]]), batch)()
    assert none["probe_r2"] < 0.1
    assert none["inverse_accuracy"] < 0.55, "chance is a third"
    assert none["dimension"] == pytest.approx(1)


def test_drift_is_zero_for_what_stays_and_tells_rotation_from_change() -> None:
    batch = _batch()
    space = make_features("random", (4,), 8, 16, normalize=False, generator=_g())
    assert isinstance(space, RandomFeatures)
    look = FeatureDiagnostics(space, batch)
    first = look()
    assert first["drift_mse"] != first["drift_mse"]
    second = look()
    assert second["drift_mse"] == 0
    assert second["drift_cka"] == pytest.approx(0, abs=1e-9)
    turning = _Linear(torch.eye(4))
    look = FeatureDiagnostics(turning, batch)
    look()
    turning.weight = -torch.eye(4)
    turned = look()
    assert turned["drift_cka"] == pytest.approx(0, abs=1e-6)
    # (x - (-x))^2 is 4 x^2, up to the mean.
    x = batch.obs
    assert isinstance(x, torch.Tensor)
    assert turned["drift_mse"] == pytest.approx(
        float(4 * x.square().mean(0).sum() / x.var(0, correction=0).sum())
    )
    turning.weight = torch.diag(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert look()["drift_cka"] > 0.3


def test_batches_from_a_rollout_are_valid_transitions() -> None:
    env = SideScroller(8, max_steps=30, generator=_g())
    rollout = random_rollout(env, 50, _g(1), info=("state",))
    rollout.valid[:, 3] = False
    rollout.obs[:-1, 3] = float("nan")
    batch = ProbeBatch.of(rollout, rollout.info["state"], 100, _g(2))
    assert batch.obs.shape == (100, 131)
    assert batch.state.shape == (100, 4)
    assert batch.obs.isfinite().all()
    every = ProbeBatch.of(rollout, rollout.info["state"], 10_000, _g(2))
    assert len(every.action) == int(rollout.valid.sum())
    found = FeatureDiagnostics(make_features("pixels", (131,), normalize=False), batch)()
    assert {"drift_cka", "drift_mse", "probe_r2", "inverse_accuracy", "dimension"} == set(found)


def test_continuous_actions_are_judged_by_explained_variance() -> None:
    x, push = torch.randn(200, 2, generator=_g()), torch.randn(200, 2, generator=_g(1))
    batch = ProbeBatch(x, push, x + push, x)
    assert FeatureDiagnostics(_Linear(torch.eye(2)), batch)()["inverse_accuracy"] > 0.999


def test_bad_input_is_refused() -> None:
    batch = _batch(4)
    with pytest.raises(ValueError, match="at least 8"):
        FeatureDiagnostics(_Linear(torch.eye(4)), batch)
    batch = _batch()
    with pytest.raises(ValueError, match="one row a transition"):
        FeatureDiagnostics(_Linear(torch.eye(4)), batch._replace(state=batch.state[:9]))
    with pytest.raises(ValueError, match="ridge is positive"):
        FeatureDiagnostics(_Linear(torch.eye(4)), batch, ridge=0)
