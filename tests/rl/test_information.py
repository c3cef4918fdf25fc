"""Divergences against closed forms, joint tables, loops, quadrature and scipy."""

import math

import numpy as np
import pytest
import torch

from assay.rl.information import (
    entropy,
    expected_information_gain,
    jensen_renyi_gaussian,
    jensen_shannon,
    mean_variance,
    predictive_entropy,
)

THREE = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]], dtype=torch.float64)


def random_probs(*shape: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=g, dtype=torch.float64).log().neg().softmax(-1)


def test_the_worked_example() -> None:
    assert float(jensen_shannon(THREE)) == pytest.approx(0.2881483, abs=1e-7)
    assert float(jensen_shannon(THREE, "bit")) == pytest.approx(0.4157101, abs=1e-7)
    assert float(predictive_entropy(THREE)) == pytest.approx(
        float(jensen_shannon(THREE) + entropy(THREE).mean())
    )


def test_it_is_the_mutual_information_of_member_and_outcome() -> None:
    probs = random_probs(4, 5)
    joint = probs / 4
    information = (joint * (joint / (joint.sum(0) * 0.25)).log()).sum()
    assert float(jensen_shannon(probs)) == pytest.approx(float(information), abs=1e-12)


def test_it_is_the_expected_information_gain() -> None:
    probs = random_probs(2, 3, seed=1)
    outcome = probs.mean(0)
    posterior = probs / probs.sum(0)
    gain = (outcome * (posterior * (posterior / 0.5).log()).sum(0)).sum()
    assert float(expected_information_gain(probs)) == pytest.approx(float(gain), abs=1e-12)


def test_bounds_and_symmetry() -> None:
    probs = random_probs(6, 7, 5)
    values = jensen_shannon(probs)
    assert bool((values >= 0).all() & (values <= math.log(6)).all())
    assert torch.allclose(values, jensen_shannon(probs[torch.tensor([3, 1, 5, 0, 2, 4])]))
    assert torch.equal(jensen_shannon(THREE[:1].repeat(5, 1)), torch.zeros((), dtype=torch.float64))
    assert float(jensen_shannon(torch.eye(4))) == pytest.approx(math.log(4))


def test_agreed_noise_is_worth_nothing() -> None:
    fair = torch.full((8, 10), 0.1)
    assert float(jensen_shannon(fair)) == pytest.approx(0.0, abs=1e-6)
    assert float(predictive_entropy(fair)) == pytest.approx(math.log(10), abs=1e-6)


def test_two_members_as_scipy() -> None:
    distance = pytest.importorskip("scipy.spatial.distance", reason="the peer is scipy")
    p = random_probs(2, 6, seed=3)
    assert float(jensen_shannon(p)) == pytest.approx(distance.jensenshannon(*p.numpy()) ** 2, abs=1e-12)


def test_gradients() -> None:
    logits = torch.randn(
        3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    assert torch.autograd.gradcheck(lambda x: jensen_shannon(x.softmax(-1)), logits)
    mean = torch.randn(
        4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True
    )
    raw = torch.randn(
        4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True
    )
    assert torch.autograd.gradcheck(lambda m, r: jensen_renyi_gaussian(m, r.exp()), (mean, raw))


def loop(mean: torch.Tensor, var: torch.Tensor) -> float:
    members, d = mean.shape
    total = own = 0.0
    for i in range(members):
        own += 0.5 * float(var[i].log().sum()) + d / 2 * math.log(4 * math.pi)
        for j in range(members):
            both = var[i] + var[j]
            total += (
                (2 * math.pi) ** (-d / 2)
                * float(both.prod()) ** -0.5
                * math.exp(-0.5 * float(((mean[i] - mean[j]) ** 2 / both).sum()))
            )
    return -math.log(total / members**2) - own / members


def test_renyi_as_the_double_loop_and_by_parts() -> None:
    g = torch.Generator().manual_seed(0)
    mean = torch.randn(9, 5, 3, generator=g, dtype=torch.float64)
    var = torch.rand(9, 5, 3, generator=g, dtype=torch.float64) + 0.1
    expected = torch.tensor([loop(m, v) for m, v in zip(mean, var, strict=True)])
    for chunk in (1, 100, 1 << 18):
        assert torch.allclose(jensen_renyi_gaussian(mean, var, chunk), expected.double(), atol=1e-12)
    assert torch.allclose(jensen_renyi_gaussian(mean.float(), var.float()), expected.float(), atol=1e-5)


def test_renyi_by_quadrature() -> None:
    mean, var = torch.tensor([[0.0], [1.5], [-0.7]]).double(), torch.tensor([[0.3], [1.0], [0.6]]).double()
    x = np.linspace(-12, 12, 200_001)
    density = np.exp(-((x - mean.numpy()) ** 2) / (2 * var.numpy())) / np.sqrt(2 * np.pi * var.numpy())

    def h2(p: np.ndarray) -> float:
        return -math.log(np.trapezoid(p**2, x))

    expected = h2(density.mean(0)) - np.mean([h2(p) for p in density])
    assert float(jensen_renyi_gaussian(mean, var)) == pytest.approx(expected, rel=1e-4)


def test_renyi_special_cases() -> None:
    same = torch.zeros(4, 3, dtype=torch.float64)
    assert float(jensen_renyi_gaussian(same, same + 0.2)) == pytest.approx(0.0, abs=1e-12)
    apart = torch.arange(5.0).double()[:, None] * 1e3
    assert float(jensen_renyi_gaussian(apart, torch.ones_like(apart))) == pytest.approx(math.log(5))
    unequal = torch.tensor([[0.01], [1.0], [4.0], [0.5], [2.0]]).double()
    assert float(jensen_renyi_gaussian(apart, unequal)) < math.log(5) - 0.01
    for low, value in ((0.01, -0.0881239), (1e-4, -0.9538590)):
        var = torch.tensor([[low], [1.0]], dtype=torch.float64)
        assert float(jensen_renyi_gaussian(torch.zeros(2, 1).double(), var)) == pytest.approx(value, abs=1e-6)


def test_renyi_does_not_overflow_in_many_dimensions() -> None:
    mean = torch.zeros(3, 400)
    assert float(jensen_renyi_gaussian(mean, torch.full((3, 400), 1e-6))) == pytest.approx(0.0, abs=1e-2)
    assert torch.isfinite(jensen_renyi_gaussian(mean, torch.full((3, 400), 1e6)))


def test_mean_variance() -> None:
    assert float(mean_variance(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))) == 0.5


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="two members"):
        jensen_shannon(THREE[:1])
    with pytest.raises(ValueError, match="summing to 1"):
        jensen_shannon(THREE * 1.1)
    with pytest.raises(ValueError, match="base"):
        jensen_shannon(THREE, "digit")
    with pytest.raises(ValueError, match="positive"):
        jensen_renyi_gaussian(torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="two members"):
        jensen_renyi_gaussian(torch.zeros(1, 1), torch.ones(1, 1))
