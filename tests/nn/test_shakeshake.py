import pytest
import torch

from assay.nn.shakeshake import ShakeShake26, shake


def test_the_papers_sizes():
    # 26 2x64d has 11.7 million parameters, 26 2x96d 26.2 million (Gastaldi 2017, tables 1 and 2).
    assert sum(p.numel() for p in ShakeShake26(64).parameters()) == 11_653_978
    assert round(sum(p.numel() for p in ShakeShake26(96).parameters()) / 1e6, 1) == 26.2


def test_forward_and_backward_mix_with_independent_draws():
    torch.manual_seed(0)
    a, b = torch.zeros(500, 2, 3, 3, requires_grad=True), torch.ones(500, 2, 3, 3, requires_grad=True)
    mixed = shake(a, b, training=True)
    share_b = mixed[:, 0, 0, 0].detach()
    assert torch.equal(mixed.detach(), share_b[:, None, None, None].expand_as(mixed))
    mixed.sum().backward()
    weight_a = a.grad[:, 0, 0, 0]
    torch.testing.assert_close(a.grad + b.grad, torch.ones_like(a))
    for draws in (share_b, weight_a):
        assert draws.min() >= 0
        assert draws.max() <= 1
        assert draws.mean().item() == pytest.approx(0.5, abs=0.05)
    assert abs(torch.corrcoef(torch.stack([1 - share_b, weight_a]))[0, 1]) < 0.15


def test_evaluation_takes_the_mean_and_repeats():
    net = ShakeShake26(4).eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(net(x), net(x))
    a, b = torch.randn(2, 2, 1, 1), torch.randn(2, 2, 1, 1)
    torch.testing.assert_close(shake(a, b, training=False), (a + b) / 2)
    net.train()
    assert not torch.equal(net(x), net(x))
    with pytest.raises(ValueError, match="positive"):
        ShakeShake26(0)
