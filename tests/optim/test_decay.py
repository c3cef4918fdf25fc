import math
import warnings

import pytest
import torch
from torch import nn

from assay.optim.decay import (
    SGDW,
    AdamW,
    CosineRestarts,
    convert_decay,
    decay_groups,
    l2_equivalent,
    normalized_weight_decay,
)

GRADIENTS = ((0.5, -0.1), (0.1, 0.3), (-0.2, 0.05))
ETA = (1.0, 0.5, 0.25, 0.1)


def parameter(values=(1.0, -2.0), dtype=torch.float64):
    return nn.Parameter(torch.tensor(values, dtype=dtype))


def walk(make, gradients=GRADIENTS, eta=ETA):
    p = parameter()
    optimizer = make([p])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: eta[min(k, len(eta) - 1)])
    for g in gradients:
        p.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
        schedule.step()
    return p.tolist()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.01), (0.85025627, -1.93077158)),
        (lambda p: AdamW(p, 0.1, weight_decay=0.01), (0.83467562, -1.90249966)),
        (lambda p: AdamW(p, 0.1, weight_decay=0.01, decay="lr_scaled"), (0.84957501, -1.93320849)),
    ],
)
def test_three_steps_by_hand(make, expected):
    assert walk(make) == pytest.approx(expected, abs=1e-7)


def test_sgdw_and_l2_differ_with_momentum():
    decoupled = walk(lambda p: SGDW(p, 0.1, momentum=0.9, weight_decay=0.01), eta=(1.0,))
    coupled = walk(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1), eta=(1.0,))
    assert max(abs(a - b) for a, b in zip(decoupled, coupled, strict=True)) > 1e-3


def test_sgdw_by_hand():
    m, theta, alpha, decay = (0.0, 0.0), (1.0, -2.0), 0.1, 0.01
    for eta, g in zip(ETA, GRADIENTS, strict=False):
        m = tuple(0.9 * a + eta * alpha * b for a, b in zip(m, g, strict=True))
        theta = tuple(t - a - eta * decay * t for t, a in zip(theta, m, strict=True))
    assert walk(lambda p: SGDW(p, 0.1, momentum=0.9, weight_decay=0.01)) == pytest.approx(theta, abs=1e-12)


def random_gradients(steps, n=7, seed=0):
    return torch.randn(steps, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def run(optimizer, p, gradients, schedule=None):
    path = []
    for g in gradients:
        p.grad = g.to(p.dtype).clone()
        optimizer.step()
        if schedule:
            schedule.step()
        path.append(p.detach().clone())
    return torch.stack(path)


def test_proposition_1_plain_sgd_with_l2_is_decay():
    start, gradients = random_gradients(1)[0], random_gradients(100, seed=1)
    paths = []
    for make in (
        lambda p: SGDW(p, 0.05, weight_decay=0.002),
        lambda p: torch.optim.SGD(p, 0.05, weight_decay=l2_equivalent(0.05, 0.002)),
    ):
        p = nn.Parameter(start.clone())
        optimizer = make([p])
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
        paths.append(run(optimizer, p, gradients, cosine))
    assert (paths[0] - paths[1]).abs().max() <= 1e-12


def test_proposition_2_no_penalty_reproduces_decay_under_a_preconditioner():
    start, scale = torch.ones(2, dtype=torch.float64), torch.tensor([1.0, 25.0], dtype=torch.float64)
    curvature = torch.tensor([1.0, 3.0], dtype=torch.float64)

    def path(penalty, decay):
        theta, points = start.clone(), []
        for _ in range(50):
            gradient = curvature * theta + penalty * theta
            theta = theta - 0.05 * gradient / scale - decay * theta
            points.append(theta)
        return torch.stack(points)

    goal = path(0.0, 0.01)
    distances = [(path(penalty, 0.0) - goal).norm().item() for penalty in torch.logspace(-4, 2, 400).tolist()]
    assert min(distances) > 0.1
    scale = torch.ones(2, dtype=torch.float64)  # a multiple of the identity: now one does
    goal = path(0.0, 0.01)
    assert (path(0.01 / 0.05, 0.0) - goal).norm() < 1e-12


def test_proposition_3_for_a_fixed_preconditioner_decay_is_a_scaled_penalty():
    g = torch.Generator().manual_seed(0)
    start = torch.randn(5, dtype=torch.float64, generator=g)
    v = torch.rand(5, dtype=torch.float64, generator=g) + 0.1
    curvature = torch.rand(5, dtype=torch.float64, generator=g)
    alpha, decay, eps = 0.01, 0.003, 1e-8
    s = v.sqrt() + eps
    decoupled = penalised = start
    for _ in range(200):
        decoupled = decoupled - alpha * curvature * decoupled / s - decay * decoupled
        # gradient of f + decay / (2 alpha) * |theta * sqrt(s)|^2
        penalised = penalised - alpha * (curvature * penalised + decay / alpha * s * penalised) / s
    assert (decoupled - penalised).abs().max() < 1e-10


def test_lr_scaled_is_torchs_bit_for_bit():
    gradients = random_gradients(50)
    paths = []
    for make in (AdamW, torch.optim.AdamW):
        p = nn.Parameter(torch.linspace(-1, 1, 7))
        options = {"decay": "lr_scaled"} if make is AdamW else {}
        optimizer = make([p], lr=1e-2, weight_decay=0.1, **options)
        assert type(optimizer) is torch.optim.AdamW
        paths.append(run(optimizer, p, gradients))
    assert torch.equal(paths[0], paths[1])


def test_independent_decay_is_torchs_with_the_decay_divided_by_the_rate():
    gradients = random_gradients(200)
    paths = []
    for make in (
        lambda p: AdamW(p, lr=1e-2, weight_decay=1e-3),
        lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
    ):
        p = nn.Parameter(torch.linspace(-1, 1, 7, dtype=torch.float64))
        paths.append(run(make([p]), p, gradients))
    torch.testing.assert_close(paths[0], paths[1], rtol=1e-6, atol=1e-12)


def test_decay_follows_the_schedule_and_nothing_else():
    zeros = torch.zeros(5, 7, dtype=torch.float64)
    for make in (
        lambda p: AdamW(p, lr=1e-3, weight_decay=0.02),
        lambda p: SGDW(p, lr=0.3, momentum=0.9, weight_decay=0.02),
    ):
        p = nn.Parameter(torch.linspace(1, 2, 7, dtype=torch.float64))
        start = p.detach().clone()
        optimizer = make([p])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: ETA[min(k, 3)])
        end = run(optimizer, p, zeros, schedule)[-1]
        shrunk = math.prod(1 - 0.02 * eta for eta in (*ETA, ETA[-1]))
        torch.testing.assert_close(end, start * shrunk, rtol=1e-12, atol=0)


def test_without_a_scheduler_a_changed_rate_leaves_the_decay():
    p = parameter()
    optimizer = AdamW([p], lr=1e-2, weight_decay=0.02)
    optimizer.param_groups[0]["lr"] = 1e-5
    p.grad = torch.zeros_like(p)
    optimizer.step()
    assert p.tolist() == pytest.approx([0.98, -1.96])
    assert optimizer.param_groups[0]["weight_decay"] == 0.02


def test_l2_adam_moves_by_the_rate_whatever_the_penalty():
    # The flaw: with no gradient but the penalty's, Adam divides the penalty by itself.
    for penalty in (1e-3, 1e-1):
        p = parameter((1.0, 0.5))
        optimizer = torch.optim.Adam([p], lr=0.01, weight_decay=penalty)
        run(optimizer, p, torch.zeros(10, 2))
        assert [1 - p[0].item(), 0.5 - p[1].item()] == pytest.approx([0.1, 0.1], rel=0.02)


def test_nesterov_is_torchs_with_the_schedule_inside():
    gradients = random_gradients(30)
    paths = []
    for make in (
        lambda p: SGDW(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.0),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    ):
        p = nn.Parameter(torch.linspace(-1, 1, 7, dtype=torch.float64))
        paths.append(run(make([p]), p, gradients))
    torch.testing.assert_close(paths[0], paths[1], rtol=1e-12, atol=1e-12)


def test_low_precision_and_complex_weights_keep_their_moments():
    p = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    optimizer = SGDW([p], lr=1e-3, momentum=0.9, weight_decay=0.0)
    p.grad = torch.full_like(p, 0.1)
    optimizer.step()
    assert optimizer.state[p]["momentum"].dtype == torch.float32
    z = nn.Parameter(torch.tensor([1 + 2j], dtype=torch.complex64))
    z.grad = torch.tensor([1 - 1j])
    SGDW([z], lr=0.1, weight_decay=0.01).step()
    assert torch.allclose(z.detach(), torch.tensor([0.99 * (1 + 2j) - 0.1 * (1 - 1j)]))


def test_bad_decays_are_refused_or_warned_of():
    p = parameter()
    with pytest.raises(ValueError, match="to zero or beyond"):
        AdamW([p], weight_decay=1.0)
    with pytest.raises(ValueError, match="to zero or beyond"):
        SGDW([p], lr=0.1, weight_decay=1.5)
    with pytest.warns(UserWarning, match="every step shrinks"):
        AdamW([p], weight_decay=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AdamW([p], lr=1e-3, weight_decay=0.2, decay="lr_scaled")
        SGDW([p], lr=0.1, weight_decay=0.2, decay="lr_scaled")
    for make in (AdamW, SGDW):
        with pytest.raises(ValueError, match="must not be negative"):
            make([p], weight_decay=-0.1)
        with pytest.raises(ValueError, match="'independent'"):
            make([p], decay="l2")
    with pytest.raises(ValueError, match="momentum lies"):
        SGDW([p], momentum=1.0)
    with pytest.raises(ValueError, match="nesterov needs"):
        SGDW([p], nesterov=True)
    p.grad = torch.sparse_coo_tensor([[0]], [1.0], (2,), dtype=torch.float64)
    with pytest.raises(RuntimeError, match="sparse"):
        SGDW([p]).step()


def test_biases_and_norms_are_left_alone():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    decayed, plain = decay_groups(model, 0.1)
    assert [p.shape for p in decayed["params"]] == [(2, 1, 3, 3), (3, 8)]
    assert len(plain["params"]) == 4
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert len(decay_groups(model, 0.1, skip=("bias",))[0]["params"]) == 3
    assert len(decay_groups(model, 0.1, skip=("3.",))[0]["params"]) == 4
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    assert sum(len(group["params"]) for group in decay_groups(tied, 0.1)) == 3


def test_normalised_decay():
    assert normalized_weight_decay(0.05, 128, 50_000, 100) == pytest.approx(2.529822e-4, rel=1e-6)
    assert normalized_weight_decay(0.025, 128, 50_000, 1800) == pytest.approx(2.981424e-5, rel=1e-6)
    with pytest.raises(ValueError, match="positive"):
        normalized_weight_decay(0.05, 128, 50_000, 0)


def test_restarts_come_after_periods_that_double():
    p = parameter()
    optimizer = AdamW([p], lr=1e-3, weight_decay=1e-4)
    schedule = CosineRestarts(optimizer, t0=100, t_mult=2, normalized=(0.05, 128, 50_000))
    assert optimizer.param_groups[0]["weight_decay"] == pytest.approx(2.529822e-4, rel=1e-6)
    rates, decays = [], []
    for _ in range(701):
        rates.append(optimizer.param_groups[0]["lr"])
        decays.append(optimizer.param_groups[0]["weight_decay"])
        p.grad = torch.zeros_like(p)
        optimizer.step()
        schedule.step()
    restarts = [k for k in range(1, 701) if rates[k] > rates[k - 1]]
    assert restarts == [100, 300, 700]
    assert rates[50] == pytest.approx(0.5e-3)
    assert rates[0] == rates[100] == rates[300] == 1e-3
    assert decays[150] == pytest.approx(normalized_weight_decay(0.05, 128, 50_000, 200))
    schedule.step(100.5)
    assert schedule.T_i == 200
    floor = CosineRestarts(SGDW([p], lr=0.2), t0=10, eta_min=0.1)
    floor.step(9.999)
    assert floor.optimizer.param_groups[0]["lr"] == pytest.approx(0.02, rel=1e-3)
    with pytest.raises(ValueError, match="no group has any"):
        CosineRestarts(torch.optim.SGD([p], 0.1), 10, normalized=(0.05, 128, 50_000))


def test_conversions_are_inverse():
    assert convert_decay(convert_decay(0.01, 1e-3, "independent"), 1e-3, "lr_scaled") == pytest.approx(0.01)
    with pytest.raises(ValueError, match="lr must be positive"):
        l2_equivalent(0.0, 0.1)
