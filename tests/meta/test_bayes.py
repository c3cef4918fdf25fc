"""Bayes-optimal learners: printed values, parity with scikit-learn, order of evidence."""

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct
from sklearn.linear_model import Ridge

from assay.analysis import mode_strength
from assay.meta import (
    BayesBandit,
    BayesFourier,
    BayesLinear,
    ContextBandit,
    FourierTasks,
    LinearTasks,
    visit_numbers,
)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


X = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
Y = torch.tensor([[2.0, 0.0], [1.0, 1.0]], dtype=torch.float64)


def test_the_printed_posterior():
    expected = [[1.97068246, -0.96107174], [0.0097078, 0.98048733]]
    found = BayesLinear(0.1, torch.eye(2)).update(X, Y).mean
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-8, rtol=0)


def test_equals_ridge_regression_and_a_gaussian_process():
    batch = LinearTasks(4, 3, 0.3).sample(1, 6, source())
    x, y = batch.x[0].double(), batch.y[0].double()
    learner = BayesLinear(0.3, torch.eye(4)).update(x, y)
    ridge = Ridge(alpha=0.09, fit_intercept=False, solver="svd", tol=0).fit(x.numpy(), y.numpy())
    assert float((learner.mean - torch.from_numpy(ridge.coef_)).abs().max()) < 1e-10
    new = torch.randn(5, 4, generator=source(1), dtype=torch.float64)
    mean, variance = learner.predict(new)
    gp = GaussianProcessRegressor(DotProduct(0.0, "fixed"), alpha=0.09, optimizer=None).fit(
        x.numpy(), y.numpy()
    )
    expected, deviation = gp.predict(new.numpy(), return_std=True)
    assert float((mean - torch.from_numpy(expected)).abs().max()) < 1e-8
    deviation = np.asarray(deviation).reshape(5, -1)[:, 0]
    assert (variance - 0.09).tolist() == pytest.approx((deviation**2).tolist(), abs=1e-8)


def test_any_prior_covariance():
    """Against the posterior written out: mean = Y^T X (X^T X + sigma^2 P^-1)^-1."""
    root = torch.randn(3, 3, generator=source(2), dtype=torch.float64)
    prior = root @ root.T + 0.1 * torch.eye(3)
    batch = LinearTasks(3, 2, 0.2).sample(1, 2, source())
    x, y = batch.x[0].double(), batch.y[0].double()
    expected = y.T @ x @ torch.linalg.inv(x.T @ x + 0.04 * torch.linalg.inv(prior))
    learner = BayesLinear(0.2, prior).update(x, y)
    torch.testing.assert_close(learner.mean, expected, atol=1e-10, rtol=0)
    new = torch.randn(4, 3, generator=source(3), dtype=torch.float64)
    cov = 0.04 * torch.linalg.inv(x.T @ x + 0.04 * torch.linalg.inv(prior))
    torch.testing.assert_close(
        learner.predict(new)[1], ((new @ cov) * new).sum(-1) + 0.04, atol=1e-10, rtol=0
    )


def test_order_and_portions_do_not_matter():
    batch = LinearTasks(3, 2, 0.1).sample(5, 12, source())
    whole = BayesLinear(0.1, torch.eye(3)).update(batch.x, batch.y).mean
    order = torch.randperm(12, generator=source(1))
    shuffled = BayesLinear(0.1, torch.eye(3)).update(batch.x[:, order], batch.y[:, order]).mean
    torch.testing.assert_close(whole, shuffled, atol=1e-10, rtol=0)
    portions = BayesLinear(0.1, torch.eye(3))
    for t in range(12):
        portions.update(batch.x[:, t : t + 1], batch.y[:, t : t + 1])
    torch.testing.assert_close(whole, portions.mean, atol=1e-10, rtol=0)
    path = BayesLinear(0.1, torch.eye(3)).path(batch.x, batch.y)
    assert path.shape == (5, 13, 2, 3)
    assert float(path[:, 0].abs().max()) == 0.0
    torch.testing.assert_close(path[:, 12], whole, atol=1e-10, rtol=0)


def test_without_noise_it_is_the_limit():
    batch = LinearTasks(4, 2, 0.0).sample(3, 2, source())
    exact = BayesLinear(0.0, torch.eye(4)).update(batch.x, batch.y)
    near = BayesLinear(1e-4, torch.eye(4)).update(batch.x, batch.y)
    torch.testing.assert_close(exact.mean, near.mean, atol=1e-5, rtol=0)
    mean, variance = exact.predict(batch.x)
    torch.testing.assert_close(mean, batch.y.double(), atol=1e-5, rtol=0)
    assert float(variance.max()) < 1e-8
    new = torch.randn(3, 5, 4, generator=source(1))
    torch.testing.assert_close(exact.predict(new)[1], near.predict(new)[1], atol=1e-5, rtol=0)


def test_bayes_learns_all_modes_together():
    """For a rotation-invariant prior the mean strength is the same for every mode: t / nx while t < nx, no noise."""
    tasks = LinearTasks(3, 3, 1e-3, spectrum=(3.0, 1.5, 0.75)).sample(4000, 4, source())
    path = BayesLinear(1e-3, torch.eye(3)).path(tasks.x, tasks.y)
    strength = mode_strength(path, tasks.weight.double().unsqueeze(1)).strength.mean(0)
    expected = torch.tensor([0.0, 1 / 3, 2 / 3, 1.0, 1.0], dtype=torch.float64).unsqueeze(1).expand(5, 3)
    torch.testing.assert_close(strength, expected, atol=0.03, rtol=0)


def test_fourier_posterior():
    batch = FourierTasks(3, 0.1).sample(4, 9, source())
    y = batch.y.squeeze(-1)
    learner = BayesFourier(3, 0.1).update(batch.theta, y)
    k = np.arange(1, 4)
    theta = batch.theta[0].double().numpy()[:, None] * k
    design = np.concatenate([np.cos(theta), np.sin(theta)], 1)
    ridge = Ridge(alpha=0.01, fit_intercept=False, solver="svd").fit(design, y[0].double().numpy())
    expected = torch.complex(torch.from_numpy(ridge.coef_[:3]), -torch.from_numpy(ridge.coef_[3:]))
    assert float((learner.coefficients[0] - expected).abs().max()) < 1e-6
    path = BayesFourier(3, 0.1).path(batch.theta, y)
    torch.testing.assert_close(path[:, -1], learner.coefficients)
    order = torch.randperm(9, generator=source(1))
    shuffled = BayesFourier(3, 0.1).update(batch.theta[:, order], y[:, order])
    torch.testing.assert_close(shuffled.coefficients, learner.coefficients)
    mean, variance = learner.predict(batch.theta)
    assert float((mean - y).abs().max()) < 0.6
    assert float(variance.min()) > 0.01


def test_the_bandit_posterior_and_its_success():
    assert BayesBandit.success(torch.arange(1, 7), 5).tolist() == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    )
    world = ContextBandit(3, 4)
    tasks = world.sample(20_000, 30, source())
    world.reset(tasks)
    learner = BayesBandit(20_000, 3, 4)
    rewards = []
    for t in range(30):
        context = tasks.contexts[:, t]
        action = learner.act(context, source(t + 1))
        _, reward, _ = world.step(action)
        learner.update(context, action, reward)
        rewards.append(reward)
    reward, visit = torch.stack(rewards, 1), visit_numbers(tasks.contexts, 3)
    for n in range(1, 7):
        assert float(reward[visit == n].mean()) == pytest.approx(min(n / 4, 1.0), abs=0.01)
    torch.testing.assert_close(learner.posterior.sum(-1), torch.ones(20_000, 3))


def test_errors():
    with pytest.raises(ValueError, match="singular"):
        BayesLinear(0.1, torch.zeros(2, 2))
    with pytest.raises(ValueError, match="symmetric"):
        BayesLinear(0.1, torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="sigma"):
        BayesLinear(-1.0, torch.eye(2))
    with pytest.raises(ValueError, match="first update"):
        _ = BayesLinear(0.1, torch.eye(2)).mean
    with pytest.raises(ValueError, match="frequencies"):
        BayesFourier(0, 0.1)
    zero, one = torch.tensor([0]), torch.tensor([1])
    learner = BayesBandit(1, 1, 2).update(zero, zero, torch.tensor([0.0]))
    with pytest.raises(ValueError, match="contradict"):
        learner.update(zero, one, torch.tensor([0.0]))
