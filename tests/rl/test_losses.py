"""Losses: values and gradients by hand, signs, and masks that hide whatever they cover."""

import math

import pytest
import torch

from assay.rl.losses import (
    approximate_kl,
    clip_share,
    entropy_loss,
    policy_gradient_loss,
    ppo_clip_loss,
    reinforce_loss,
    value_loss,
)

LOSSES = {
    "policy_gradient": lambda x, y, mask: policy_gradient_loss(x, y, mask),
    "epsilon": lambda x, y, mask: policy_gradient_loss(x, y, mask, epsilon=1e-6),
    "reinforce": lambda x, y, mask: reinforce_loss(x, y, y * 0.5, mask),
    "ppo": lambda x, y, mask: ppo_clip_loss(x, y, y + 1, 0.2, mask),
    "value": lambda x, y, mask: value_loss(x, y, mask=mask),
    "value_clip": lambda x, y, mask: value_loss(x, y, y + 0.1, 0.2, mask),
    "entropy": lambda x, y, mask: entropy_loss(x, mask),
}


@pytest.mark.parametrize("name", LOSSES)
class TestMasks:
    def test_hidden_rows_hold_anything(self, name: str) -> None:
        g = torch.Generator().manual_seed(0)
        mask = torch.tensor([[True, False, True], [False, True, False]])
        x, y = torch.randn(2, 3, generator=g), torch.randn(2, 3, generator=g)
        short = [t[mask].clone().requires_grad_() for t in (x, y)]
        expected = LOSSES[name](*short, None)
        expected.backward()
        dirty = torch.where(mask, x, torch.nan).requires_grad_()
        loss = LOSSES[name](dirty, torch.where(mask, y, torch.inf), mask)
        loss.backward()
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(dirty.grad[mask], short[0].grad)
        assert (dirty.grad[~mask] == 0).all()

    def test_an_empty_mask_gives_zero(self, name: str) -> None:
        x = torch.full((2, 3), torch.nan, requires_grad=True)
        loss = LOSSES[name](x, torch.full((2, 3), torch.nan), torch.zeros(2, 3, dtype=torch.bool))
        loss.backward()
        assert loss.item() == 0
        assert (x.grad == 0).all()

    def test_any_leading_dimensions(self, name: str) -> None:
        x, y = torch.randn(24), torch.randn(24)
        expected = LOSSES[name](x, y, None)
        torch.testing.assert_close(LOSSES[name](x.view(2, 3, 4), y.view(2, 3, 4), None), expected)


def test_a_mask_over_time_and_copies_covers_all_streams() -> None:
    value, target = torch.arange(12.0).view(2, 3, 2), torch.zeros(2, 3, 2)
    mask = torch.tensor([[True, False, False], [False, False, True]])
    assert value_loss(value, target, mask=mask).item() == pytest.approx(0.5 * (0 + 1 + 100 + 121) / 4)
    assert value_loss(value, target, mask=mask, reduction="sum").item() == pytest.approx(0.5 * 222)


def test_policy_gradient() -> None:
    logp, advantage = (
        torch.tensor([-1.0, -2.0], requires_grad=True),
        torch.tensor([3.0, -1.0], requires_grad=True),
    )
    loss = policy_gradient_loss(logp, advantage)
    loss.backward()
    assert loss.item() == pytest.approx(0.5)
    torch.testing.assert_close(logp.grad, torch.tensor([-1.5, 0.5]))
    assert advantage.grad is None  # the critic is not trained by the policy's loss


def test_the_baseline_is_detached() -> None:
    logp, baseline = torch.zeros(2, requires_grad=True), torch.tensor([1.0, 1.0], requires_grad=True)
    reinforce_loss(logp, torch.tensor([2.0, 0.0]), baseline, reduction="sum").backward()
    torch.testing.assert_close(logp.grad, torch.tensor([-1.0, 1.0]))
    assert baseline.grad is None


def test_ppo_by_hand() -> None:
    # Inside; clipped gain (no gradient); pessimistic loss (gradient); clipped loss; pessimistic gain.
    ratio = torch.tensor([1.1, 1.5, 1.5, 0.5, 0.5])
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0])
    logp = ratio.log().requires_grad_()
    loss = ppo_clip_loss(logp, torch.zeros(5), advantage, 0.2, reduction="sum")
    assert loss.item() == pytest.approx(-(1.1 + 1.2 - 1.5 - 0.8 + 0.5))
    loss.backward()
    torch.testing.assert_close(logp.grad, -torch.tensor([1.1, 0.0, -1.5, 0.0, 0.5]))


def test_ppo_begins_as_the_policy_gradient() -> None:
    g = torch.Generator().manual_seed(0)
    old, advantage = torch.randn(9, generator=g), torch.randn(9, generator=g)
    first, second = old.clone().requires_grad_(), old.clone().requires_grad_()
    ppo_clip_loss(first, old, advantage, 0.1).backward()
    policy_gradient_loss(second, advantage).backward()
    torch.testing.assert_close(first.grad, second.grad)
    far, shift = first.detach() + 2, torch.full((9,), 2.0)
    unclipped = ppo_clip_loss(far, old, advantage, math.inf)
    torch.testing.assert_close(unclipped, -(shift.exp() * advantage).mean())


def test_value_clip_by_hand() -> None:
    value = torch.tensor([1.5, 1.5, 0.0], requires_grad=True)
    target, old = torch.tensor([1.0, 3.0, 0.1]), torch.tensor([1.0, 1.0, 0.0])
    loss = value_loss(value, target, old, 0.2, reduction="sum")
    # Overshoot: the larger error counts; moving right: the clipped one, without a gradient; inside: the plain one.
    assert loss.item() == pytest.approx(0.5 * (0.25 + 1.8**2 + 0.01))
    loss.backward()
    torch.testing.assert_close(value.grad, torch.tensor([0.5, 0.0, -0.1]))


def test_minimising_the_entropy_loss_raises_the_entropy() -> None:
    logits = torch.tensor([2.0, 0.0, -1.0], requires_grad=True)

    def entropy() -> torch.Tensor:
        logp = torch.log_softmax(logits, -1)
        return -(logp.exp() * logp).sum()

    before = entropy().item()
    optimizer = torch.optim.SGD([logits], 0.5)
    for _ in range(20):
        optimizer.zero_grad()
        entropy_loss(entropy()).backward()
        optimizer.step()
    assert entropy().item() > before + 0.1


def test_diagnostics() -> None:
    old = torch.log_softmax(torch.tensor([0.3, -1.0, 0.5]).double(), -1)
    new = torch.log_softmax(torch.tensor([0.1, -0.5, 0.9]).double(), -1)
    g = torch.Generator().manual_seed(0)
    action = torch.multinomial(old.exp(), 200_000, True, generator=g)
    exact = float((old.exp() * (old - new)).sum())
    assert approximate_kl(new[action], old[action]).item() == pytest.approx(exact, rel=0.03)
    assert clip_share(torch.tensor([0.0, 1.0, -1.0, 0.05]), torch.zeros(4), 0.2).item() == 0.5


def test_bad_input() -> None:
    x = torch.zeros(3)
    with pytest.raises(ValueError, match="one shape"):
        policy_gradient_loss(x, torch.zeros(3, 1))  # would broadcast to [3, 3]
    with pytest.raises(ValueError, match="one shape"):
        value_loss(torch.zeros(3, 1), x)
    with pytest.raises(ValueError, match="clip"):
        ppo_clip_loss(x, x, x, 0.0)
    with pytest.raises(ValueError, match="old_value"):
        value_loss(x, x, clip=0.2)
    with pytest.raises(ValueError, match="mask"):
        entropy_loss(x, torch.ones(2, dtype=torch.bool))
