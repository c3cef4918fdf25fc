"""Adversarial losses against their definitions, and steps whose gradients stay where they belong."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from assay.generate.adversarial import (
    AdversarialTrainer,
    discriminator_loss,
    discriminator_step,
    frozen,
    generator_loss,
    generator_step,
)

REAL = torch.tensor([[-2.0, 0.3], [1.5, 4.0]])
FAKE = torch.tensor([-3.0, 0.2, 2.5])
LOSSES = ["nonsaturating", "minimax", "hinge", "wasserstein", "least_squares"]


def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3)), nn.Sequential(
        nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)
    )


def test_losses_match_their_definitions() -> None:
    ones, zeros = torch.ones_like, torch.zeros_like
    cross = bce(REAL, ones(REAL)) + bce(FAKE, zeros(FAKE))
    assert torch.allclose(discriminator_loss(REAL, FAKE), cross)
    assert torch.allclose(discriminator_loss(REAL, FAKE, "minimax"), cross)
    assert torch.allclose(generator_loss(FAKE), bce(FAKE, ones(FAKE)))
    assert torch.allclose(generator_loss(FAKE, "minimax"), -bce(FAKE, zeros(FAKE)))
    assert discriminator_loss(REAL, FAKE, "hinge").item() == pytest.approx(
        (3 + 0.7 + 0 + 0) / 4 + (0 + 1.2 + 3.5) / 3
    )
    assert generator_loss(FAKE, "hinge").item() == pytest.approx(0.3 / 3)
    assert discriminator_loss(REAL, FAKE, "wasserstein").item() == pytest.approx(-0.3 / 3 - 3.8 / 4)
    squares = 0.5 * (REAL - 1).square().mean() + 0.5 * FAKE.square().mean()
    assert torch.allclose(discriminator_loss(REAL, FAKE, "least_squares"), squares)
    assert torch.allclose(generator_loss(FAKE, "least_squares"), 0.5 * (FAKE - 1).square().mean())
    with pytest.raises(ValueError, match="nonsaturating"):
        getattr(generator_loss, "__wrapped__", generator_loss)(FAKE, "nonsense")


def test_hinge_of_a_sure_discriminator_has_no_gradient() -> None:
    real, fake = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([-1.5, -4.0], requires_grad=True)
    discriminator_loss(real, fake, "hinge").backward()
    assert not real.grad[1:].any()
    assert not fake.grad.any()


def test_extreme_logits_stay_finite() -> None:
    big = torch.tensor([1e4, -1e4])
    for loss in LOSSES:
        assert torch.isfinite(discriminator_loss(big, big, loss))
        assert torch.isfinite(generator_loss(big, loss))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_discriminator_step_leaves_the_generator_alone(loss: str) -> None:
    g, d = pair()
    before = copy.deepcopy(g.state_dict())
    optimizer = torch.optim.SGD(d.parameters(), lr=0.1)
    real, z = torch.randn(6, 3), torch.randn(6, 2)
    old = copy.deepcopy(d)
    value, r, f = discriminator_step(optimizer, d, real, g(z), loss)
    assert all(p.grad is None for p in g.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), g.state_dict().values(), strict=True))
    expected = discriminator_loss(old(real), old(g(z)), loss)
    assert torch.allclose(value, expected)
    gradients = torch.autograd.grad(expected, list(old.parameters()))
    for new, was, gradient in zip(d.parameters(), old.parameters(), gradients, strict=True):
        assert torch.allclose(new, was - 0.1 * gradient, atol=1e-6)
    assert not any(result.requires_grad for result in (value, r, f))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_generator_step_leaves_the_discriminator_alone(loss: str) -> None:
    g, d = pair()
    d[0].bias.requires_grad_(False)  # frozen by the user: must stay so
    before = copy.deepcopy(d.state_dict())
    old = copy.deepcopy(g)
    z = torch.randn(6, 2)
    extra_weight = 0.5
    fake = g(z)
    value = generator_step(
        torch.optim.SGD(g.parameters(), lr=0.1), d, d, fake, loss, extra=extra_weight * fake.square().mean()
    )
    assert all(p.grad is None for p in d.parameters())
    assert [p.requires_grad for p in d.parameters()] == [True, False, True, True]
    assert all(torch.equal(a, b) for a, b in zip(before.values(), d.state_dict().values(), strict=True))
    expected = generator_loss(d(old(z)), loss) + extra_weight * old(z).square().mean()
    assert torch.allclose(value, expected)
    for new, was, gradient in zip(
        g.parameters(), old.parameters(), torch.autograd.grad(expected, list(old.parameters())), strict=True
    ):
        assert torch.allclose(new, was - 0.1 * gradient, atol=1e-6)


def test_stale_gradients_are_not_used() -> None:
    g, d = pair()
    for p in (*g.parameters(), *d.parameters()):
        p.grad = torch.full_like(p, 1e6)
    before = copy.deepcopy(g), copy.deepcopy(d)
    trainer = AdversarialTrainer(
        g, d, torch.optim.SGD(g.parameters(), 0.01), torch.optim.SGD(d.parameters(), 0.01)
    )
    trainer.step(torch.randn(4, 3), lambda: torch.randn(4, 2))
    for old, new in zip(before, (g, d), strict=True):
        moved = [(a - b).abs().max() for a, b in zip(old.parameters(), new.parameters(), strict=True)]
        assert max(moved) < 1


def test_frozen_restores_after_an_error() -> None:
    net = nn.Linear(1, 1)
    with frozen(net):
        assert not net.weight.requires_grad
    with pytest.raises(RuntimeError, match="shapes"), frozen(net):
        net(torch.zeros(1, 2))
    assert net.weight.requires_grad


def test_the_penalty_counts_and_sees_detached_fakes() -> None:
    g, d = pair()
    seen = []

    def penalty(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        seen.append(fake.requires_grad)
        return d[0].weight.square().sum()

    optimizer = torch.optim.SGD(d.parameters(), lr=0.0)
    real, fake = torch.randn(3, 3), g(torch.randn(3, 2))
    plain, _, _ = discriminator_step(optimizer, d, real, fake)
    value, _, _ = discriminator_step(optimizer, d, real, fake, penalty=penalty)
    assert seen == [False]
    assert torch.allclose(value - plain, d[0].weight.detach().square().sum(), atol=1e-5)


def test_a_one_dimensional_gan_finds_the_mean() -> None:
    torch.manual_seed(0)
    g, d = nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 1))
    trainer = AdversarialTrainer(
        g,
        d,
        torch.optim.Adam(g.parameters(), 0.02, (0.5, 0.9)),
        torch.optim.Adam(d.parameters(), 0.02, (0.5, 0.9)),
    )
    for _ in range(600):
        trainer.step(lambda: 3 + 0.5 * torch.randn(64, 1), lambda: torch.randn(64, 1))
    sample = g(torch.randn(4000, 1))
    assert sample.mean().item() == pytest.approx(3, abs=0.35)


def test_several_discriminator_steps_draw_several_batches() -> None:
    g, d = pair()
    drawn: list[str] = []
    trainer = AdversarialTrainer(
        g,
        d,
        torch.optim.SGD(g.parameters(), 0.1),
        torch.optim.SGD(d.parameters(), 0.1),
        discriminator_steps=3,
    )

    def real() -> torch.Tensor:
        drawn.append("real")
        return torch.randn(4, 3)

    def latent() -> torch.Tensor:
        drawn.append("latent")
        return torch.randn(4, 2)

    trainer.step(real, latent)
    assert drawn.count("real") == 3
    assert drawn.count("latent") == 4


def test_mixed_up_optimisers_are_refused() -> None:
    g, d = pair()
    sgd = torch.optim.SGD
    with pytest.raises(ValueError, match="generator_optimizer"):
        AdversarialTrainer(g, d, sgd(d.parameters(), 0.1), sgd(d.parameters(), 0.1))
    with pytest.raises(ValueError, match="discriminator_optimizer"):
        AdversarialTrainer(g, d, sgd(g.parameters(), 0.1), sgd([*g.parameters(), *d.parameters()], 0.1))
    with pytest.raises(ValueError, match="at least 1"):
        AdversarialTrainer(g, d, sgd(g.parameters(), 0.1), sgd(d.parameters(), 0.1), discriminator_steps=0)
