"""Supermasks: the straight-through gradient by hand, densities, rescaling; and the lottery networks."""

import math

import pytest
import torch
from torch import nn

from assay.nn.lottery import glorot_normal_, lottery_conv, lottery_mlp, lottery_rates
from assay.nn.supermask import SupermaskConv2d, SupermaskLinear, sample_mask, supermaskify


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_mask_is_exactly_zero_or_one() -> None:
    mask = sample_mask(3 * torch.randn(2000, generator=generator()), "bernoulli", generator(1))
    assert set(mask.tolist()) == {0.0, 1.0}
    scores = torch.tensor([-0.1, 0.0, 0.1])
    assert sample_mask(scores, "round").tolist() == [0, 1, 1]
    assert supermaskify(nn.Linear(2, 2), mode="round").density() == 1


@pytest.mark.parametrize("mode", ["bernoulli", "round"])
def test_score_gradient_is_that_of_the_mask_times_the_slope_of_sigmoid(mode: str) -> None:
    scores = torch.randn(50, generator=generator(), dtype=torch.float64).requires_grad_()
    mask = sample_mask(scores, mode, generator(1))
    mask.retain_grad()
    (mask * torch.randn(50, generator=generator(2), dtype=torch.float64)).sum().square().backward()
    p = torch.sigmoid(scores.detach())
    torch.testing.assert_close(scores.grad, mask.grad * p * (1 - p), rtol=1e-6, atol=1e-12)


def test_layer_gradient_by_hand() -> None:
    layer = SupermaskLinear(6, 4, mode="round", generator=generator(), dtype=torch.float64)
    with torch.no_grad():
        layer.scores.normal_(generator=generator(1))
    x = torch.randn(5, 6, generator=generator(2), dtype=torch.float64)
    layer(x).square().sum().backward()
    p = torch.sigmoid(layer.scores.detach())
    weight = (p >= 0.5) * layer.weight
    d_mask = (2 * x @ weight.T).T @ x * layer.weight
    torch.testing.assert_close(layer.scores.grad, d_mask * p * (1 - p), rtol=1e-6, atol=1e-12)


def test_mean_sampled_density_is_the_mean_probability() -> None:
    scores = torch.randn(100, 100, generator=generator())
    g = generator(1)
    draws = torch.stack([sample_mask(scores, "bernoulli", g).mean() for _ in range(50)])
    p = torch.sigmoid(scores)
    error = float((p * (1 - p)).mean().sqrt()) / math.sqrt(50 * 10_000)
    assert abs(float(draws.mean() - p.mean())) < 3 * error


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_density_is_set_by_the_initial_score(density: float) -> None:
    layer = SupermaskLinear(300, 200, density=density, generator=generator())
    assert layer.density() == pytest.approx(density, abs=1e-6)
    assert float(sample_mask(layer.scores.detach()).mean()) == pytest.approx(density, abs=0.01)


def test_rescaling_preserves_the_expected_sum_of_a_row() -> None:
    layer = SupermaskLinear(400, 50, dwr=True, density=0.3, generator=generator())
    layer.weight.fill_(0.1)
    plain = SupermaskLinear(400, 50, density=0.3, generator=generator())
    plain.weight.fill_(0.1)
    with torch.no_grad():
        # The draw has exactly size / ones as its factor: the layer's total is preserved to rounding.
        assert float(layer.effective_weight().sum()) == pytest.approx(0.1 * 400 * 50, rel=1e-5)
        rows = torch.stack([layer.effective_weight().sum(1) for _ in range(200)]).mean()
        assert float(rows) == pytest.approx(40, rel=0.01)
        assert float(plain.effective_weight().sum(1).mean()) == pytest.approx(12, rel=0.05)


def test_signed_constant_weights() -> None:
    layer = SupermaskLinear(30, 20, weights="signed_constant", generator=generator())
    same = SupermaskLinear(30, 20, generator=generator())
    assert torch.equal(layer.weight.sign(), same.weight.sign())
    assert float(layer.weight.abs().unique()) == pytest.approx(float(same.weight.double().std(correction=0)))


def test_supermaskify_keeps_weights_and_trains_scores_only() -> None:
    net = lottery_conv(2, 1, 8, width=0.1, generator=generator())
    weights = [m.weight.detach().clone() for m in net if hasattr(m, "weight")]
    masked = supermaskify(net, generator=generator(1))
    layers = [m for m in masked if isinstance(m, SupermaskLinear | SupermaskConv2d)]
    assert [type(m) for m in layers] == [SupermaskConv2d] * 2 + [SupermaskLinear] * 3
    optimizer = torch.optim.SGD(masked.parameters(), 10.0, momentum=0.9)
    before = [m.scores.detach().clone() for m in layers]
    for _ in range(3):
        optimizer.zero_grad()
        masked(torch.rand(4, 1, 8, 8)).square().sum().backward()
        optimizer.step()
    assert all(torch.equal(m.weight, w) for m, w in zip(layers, weights, strict=True))
    assert not any(torch.equal(m.scores, s) for m, s in zip(layers, before, strict=True))
    assert type(supermaskify(nn.Linear(2, 2))) is SupermaskLinear
    assert "scores" in supermaskify(nn.Linear(2, 2)).state_dict()


def test_a_supermask_convolution_is_the_convolution_with_the_masked_weight() -> None:
    layer = SupermaskConv2d(3, 5, 3, stride=2, padding=1, mode="round", generator=generator())
    with torch.no_grad():
        layer.scores.normal_(generator=generator(1))
        x = torch.randn(2, 3, 9, 9)
        expected = nn.functional.conv2d(x, (layer.scores > 0) * layer.weight, layer.bias, 2, 1)
        torch.testing.assert_close(layer(x), expected)


def test_lottery_networks_have_the_papers_sizes() -> None:
    count = {d: sum(p.numel() for p in lottery_conv(d).parameters() if p.ndim > 1) for d in (2, 4, 6)}
    # 3x3 convolutions, then side^2 * channels * 256 + 256 * 256 + 256 * 10 (the papers' 1.7 M of Conv-6 is a misprint).
    assert count == {2: 4_300_992, 4: 2_425_024, 6: 2_261_184}
    assert sum(p.numel() for p in lottery_mlp().parameters() if p.ndim > 1) == 266_200
    assert lottery_rates(lottery_conv(2)) == {
        "0.weight": 0.1,
        "2.weight": 0.1,
        "6.weight": 0.2,
        "8.weight": 0.2,
        "10.weight": 0.1,
    }


def test_initialisation_is_glorot_normal_with_zero_biases() -> None:
    layer = lottery_mlp(generator=generator())[1]
    assert float(layer.weight.detach().std()) == pytest.approx((2 / 1084) ** 0.5, rel=0.01)
    assert not layer.bias.any()
    one, two = (glorot_normal_(nn.Linear(4, 4), generator(3)).weight for _ in range(2))
    assert torch.equal(one, two)


def test_bad_input_is_told() -> None:
    with pytest.raises((ValueError, TypeError), match="mode"):
        SupermaskLinear(2, 2, mode="soft")
    with pytest.raises(ValueError, match="density"):
        SupermaskLinear(2, 2, density=1.0)
    with pytest.raises(ValueError, match="no Linear"):
        supermaskify(nn.ReLU())
    with pytest.raises(ValueError, match="depth"):
        lottery_conv(3)
    with pytest.raises(ValueError, match="halved"):
        lottery_conv(6, size=20)
