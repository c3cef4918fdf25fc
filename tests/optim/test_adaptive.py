import numpy as np
import pytest
import torch
from torch import nn

from assay.data import wilson_dataset
from assay.optim import (
    DevDecay,
    EnsembleOptimizer,
    FixedFrequencyDecay,
    general_update,
    min_norm_solution,
    sign_condition,
    sign_solution,
    solution_diagnostics,
)

METHODS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.5),
    "hb": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.002),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
}


def fit(x, y, optimizer, steps, decay=True):
    """Full-batch least squares from exactly 0; the rate falls linearly to 0."""
    w = nn.Parameter(torch.zeros(x.shape[1], dtype=x.dtype))
    optimizer = optimizer([w])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1 - k / steps if decay else 1.0)
    for _ in range(steps):
        w.grad = x.T @ (x @ w.detach() - y) / len(y)
        optimizer.step()
        schedule.step()
    return w.detach(), optimizer


@pytest.mark.parametrize(
    ("p", "n", "a_pos", "a_neg"),
    [
        (12, 8, 0.037871033776867964, -0.05015353121801433),
        (60, 40, 0.008158220024721878, -0.011915945611866503),
    ],
)
def test_the_minimum_norm_solution_has_the_closed_form(p, n, a_pos, a_neg):
    x, y = wilson_dataset(p, n)
    d = 8 * p * n + 15 * p + 3 * n + 5
    assert a_pos == pytest.approx((4 * n + 5) / d, abs=1e-15)
    assert a_neg == pytest.approx(-(4 * p + 1) / d, abs=1e-15)
    w = min_norm_solution(x, y)
    assert torch.allclose(
        w, x.T @ torch.full_like(y, a_pos).where(y > 0, torch.full_like(y, a_neg)), atol=1e-12
    )
    assert np.allclose(w.numpy(), np.linalg.pinv(x.numpy()) @ y.numpy(), atol=1e-10)
    positive, negative = w[:3].sum(), -w[0] + w[1] + w[2]
    assert float(positive) == pytest.approx((8 * p * n + 15 * p - n) / d, abs=1e-12)
    assert float(negative) == pytest.approx((-8 * p * n + 5 * p - 3 * n) / d, abs=1e-12)
    if p == 12:
        assert float(positive) == pytest.approx(0.962128966, abs=1e-9)
        assert float(negative) == pytest.approx(-0.749232344, abs=1e-9)
        assert solution_diagnostics(sign_solution(x, y), x, y).cos_minnorm == pytest.approx(
            0.498924, abs=1e-6
        )


@pytest.mark.parametrize("method", ["sgd", "hb"])
def test_gradient_descent_finds_the_minimum_norm(method):
    from sklearn.linear_model import LinearRegression

    x, y = wilson_dataset(12, 8)
    w, _ = fit(x, y, METHODS[method], 1500, decay=False)
    assert solution_diagnostics(w, x, y).span_residual <= 1e-10
    theirs = LinearRegression(fit_intercept=False).fit(x.numpy(), y.numpy()).coef_
    assert np.allclose(w.numpy(), theirs, atol=1e-6)
    noise, target = torch.randn(7, 30, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    w, _ = fit(noise, target, lambda p: torch.optim.SGD(p, 0.1), 4000, decay=False)
    assert torch.allclose(w, min_norm_solution(noise, target), atol=1e-6), "not only on this data"


@pytest.mark.parametrize("method", ["adagrad", "rmsprop", "adam"])
def test_adaptive_methods_find_the_sign_solution(method):
    x, y = wilson_dataset(12, 8)
    w, _ = fit(x, y, METHODS[method], 3000)
    assert torch.allclose(w, sign_solution(x, y), atol=1e-3)
    assert torch.allclose(w, (x.T @ y).sign() / 4, atol=1e-3)
    found = solution_diagnostics(w, x, y)
    assert found.cos_sign > 0.999999
    assert found.cos_minnorm == pytest.approx(0.498924, abs=1e-4)
    assert found.span_residual > 0.5
    assert float(w[0] + w[1] + w[2]) == pytest.approx(0.75, abs=1e-3)
    assert float(-w[0] + w[1] + w[2]) == pytest.approx(0.25, abs=1e-3), "a fresh negative is called positive"


def test_the_accumulated_magnitude_is_proportional_to_xty():
    x, y = wilson_dataset(12, 8)
    xty = (x.T @ y).abs()
    seen = xty > 0
    for steps, tolerance in ((1, 1e-12), (200, 1e-6)):
        w, optimizer = fit(x, y, METHODS["adam"], steps)
        ratio = next(iter(optimizer.state.values()))["exp_avg_sq"].sqrt()[seen] / xty[seen]
        assert float(ratio.std() / ratio.mean()) < tolerance
        assert (w[~seen] == 0).all(), "0/0 stays where it was"


def test_a_large_epsilon_turns_adam_into_gradient_descent():
    x, y = wilson_dataset(12, 8)
    eps = 1e3
    w, _ = fit(
        x, y, lambda p: torch.optim.Adam(p, 0.02 * eps, betas=(0.0, 0.999), eps=eps), 8000, decay=False
    )
    assert torch.allclose(w, min_norm_solution(x, y), atol=1e-3)


@pytest.mark.parametrize(("p", "n"), [(8, 8), (5, 12)])
def test_nothing_is_claimed_without_a_majority_of_positives(p, n):
    x, y = wilson_dataset(p, n)
    assert sign_condition(x, y) is None
    with pytest.raises(ValueError, match="does not apply"):
        sign_solution(x, y)


def test_the_condition_gives_its_constant():
    x, y = wilson_dataset(12, 8)
    assert sign_condition(x, y) == 4.0
    assert sign_condition(2.5 * x, y) == 10.0
    with pytest.raises(ValueError, match=r"\+1 or -1"):
        sign_condition(x, 2 * y)
    with pytest.raises(ValueError, match="not all 0"):
        solution_diagnostics(torch.zeros(x.shape[1], dtype=x.dtype), x, y)


@pytest.mark.parametrize("method", ["sgd", "hb", "nesterov", "adagrad", "adam"])
def test_the_general_update_contains_the_methods(method):
    g = torch.Generator().manual_seed(0)
    hessian = torch.randn(6, 6, generator=g, dtype=torch.float64)
    hessian, start = hessian @ hessian.T, torch.randn(6, generator=g, dtype=torch.float64)
    p = nn.Parameter(start.clone())
    lr, beta, b1, b2 = 0.02, 0.8, 0.9, 0.99
    theirs = {
        "sgd": lambda: torch.optim.SGD([p], lr),
        "hb": lambda: torch.optim.SGD([p], lr, momentum=beta),
        "nesterov": lambda: torch.optim.SGD([p], lr, momentum=beta, nesterov=True),
        "adagrad": lambda: torch.optim.Adagrad([p], lr, eps=0),
        "adam": lambda: torch.optim.Adam([p], lr, betas=(b1, b2), eps=0),
    }[method]()
    w = previous = start
    square, scale = torch.zeros(6, dtype=torch.float64), torch.ones(6, dtype=torch.float64)
    for k in range(1, 30):
        p.grad = hessian @ p.detach()
        theirs.step()
        at = w + beta * (w - previous) if method == "nesterov" else w
        gradient, last = hessian @ at, scale
        rate, momentum = lr, beta if method in ("hb", "nesterov") else 0.0
        if method == "adagrad":
            square = square + gradient**2
            scale = square.sqrt()
        elif method == "adam":
            square = b2 * square + (1 - b2) * gradient**2
            scale = (square / (1 - b2**k)).sqrt()
            rate, momentum = lr * (1 - b1) / (1 - b1**k), b1 * (1 - b1 ** (k - 1)) / (1 - b1**k)
        w, previous = general_update(w, previous, gradient, rate, momentum, scale, last), w
        # torch's Nesterov stores the point at which the gradient is taken
        ours = w + beta * (w - previous) if method == "nesterov" else w
        assert torch.allclose(ours, p.detach(), atol=1e-10)


def test_where_the_scale_is_zero_nothing_moves():
    w = torch.tensor([1.0, 2.0])
    moved = general_update(w, w - 1, torch.tensor([0.0, 1.0]), 0.5, 0.9, torch.tensor([0.0, 2.0]), 1.0)
    assert moved[0] == 1.0
    assert float(moved[1]) == pytest.approx(2 + 0.9 / 2 - 0.25)


METRICS = torch.tensor(
    [
        [0.5, 0.4, 0.45, 0.4, 0.39, 0.41, 0.42, 0.3],
        [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2],
        [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2],
        [0.5, float("nan"), 0.4, 0.3, 0.35, float("nan"), 0.2, 0.2],
    ],
    dtype=torch.float64,
)


def plain():
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_dev_decay_is_torchs_plateau_without_patience_for_every_member(mode):
    metrics = METRICS[:3] if mode == "min" else -METRICS[:3]
    ensemble = EnsembleOptimizer([nn.Parameter(torch.zeros(3, 2))], "sgd", 1.0)
    decay = DevDecay(ensemble, 0.5, mode)
    singles = [plain() for _ in range(3)]
    ours = [DevDecay(optimizer, 0.5, mode) for optimizer in singles]
    references = [plain() for _ in range(3)]
    theirs = [
        torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, mode, factor=0.5, patience=0, threshold=0, eps=0
        )
        for optimizer in references
    ]
    for column in metrics.T:
        decay.step(column)
        for one, other, value in zip(ours, theirs, column.tolist(), strict=True):
            one.step(value)
            other.step(value)
        rates = [optimizer.param_groups[0]["lr"] for optimizer in references]
        assert ensemble.scale.tolist() == rates
        assert [optimizer.param_groups[0]["lr"] for optimizer in singles] == rates
    assert rates == [1 / 2**4, 1 / 2**7, 1.0]


def test_a_diverged_metric_is_no_improvement():
    optimizer = plain()
    decay = DevDecay(optimizer, 0.5)
    for value in METRICS[3].tolist():
        decay.step(value)
    assert optimizer.param_groups[0]["lr"] == 0.5**4


def test_fixed_frequency_decay_is_torchs_step_schedule_and_chains():
    single, reference = plain(), plain()
    ours = FixedFrequencyDecay(single, 3, 0.1)
    theirs = torch.optim.lr_scheduler.StepLR(reference, 3, 0.1)
    ensemble = EnsembleOptimizer([nn.Parameter(torch.zeros(2, 2))], "adam", torch.tensor([1.0, 2.0]))
    fixed = FixedFrequencyDecay(ensemble, 3, torch.tensor([0.1, 1.0]))
    dev = DevDecay(ensemble, torch.tensor([1.0, 0.5]))
    for k in range(10):
        reference.step()
        ours.step()
        theirs.step()
        fixed.step()
        dev.step(torch.tensor([1.0, 1.0 if k != 4 else 0.5]))
        assert single.param_groups[0]["lr"] == pytest.approx(reference.param_groups[0]["lr"])
    assert ensemble.scale.tolist() == pytest.approx([0.1**3, 0.5**8])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DevDecay(plain(), 0.0), "factor"),
        (lambda: DevDecay(plain(), 1.5), "factor"),
        (lambda: DevDecay(plain(), 0.5, "least"), "mode"),
        (lambda: FixedFrequencyDecay(plain(), 0), "every"),
        (lambda: FixedFrequencyDecay(plain(), 2, torch.tensor([0.5, 0.5])), "members"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
