"""The action-conditioned U-Net: shapes, where the action goes, and that it learns to move a picture."""

import pytest
import torch

from assay.rl.intrinsic import ActionCode, ActionUNet, ForwardDynamics, make_features
from tests.rl.intrinsic.test_features import _batch, _g


@pytest.mark.parametrize("shape", [(4, 84, 84), (1, 10, 10), (3, 9, 13), (2, 37, 42), (4, 8, 8)])
def test_pictures_of_any_size(shape: tuple[int, int, int]) -> None:
    net = ActionUNet(shape, 3, width=4, hidden=8, generator=_g())
    x = torch.rand(2, *shape).flatten(1)
    out = net(x, torch.eye(3)[:2])
    assert out.shape == x.shape
    assert out.isfinite().all()


def test_every_layer_is_told_the_action_and_every_weight_learns() -> None:
    net = ActionUNet((2, 12, 12), 3, width=4, hidden=8, generator=_g())
    inputs = [m.in_features for m in net.modules() if isinstance(m, torch.nn.Linear)]
    assert inputs == [net.squeeze.in_features, 8 + 3, 8 + 3, 8 + 3]
    assert [m.in_channels for m in net.down] == [2 + 3, 4 + 3, 8 + 3]
    assert [m.in_channels for m in net.up] == [2 * 8 + 3, 2 * 8 + 3, 2 * 4 + 3]
    x, action = torch.rand(5, 288), torch.eye(3)[[0, 1, 2, 0, 1]]
    net(x, action).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
    assert not torch.allclose(net(x[:1], action[:1]), net(x[:1], action[1:2]))
    one, two = (ActionUNet((1, 8, 8), 2, 4, 8, generator=_g(7)) for _ in (1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_it_learns_to_move_a_picture_as_the_action_says() -> None:
    shape, g = (1, 8, 8), _g()
    code = ActionCode(num_actions=2)
    bonus = ForwardDynamics(
        make_features("pixels", shape, normalize=False), code, ActionUNet(shape, 2, 8, 32, generator=g)
    )
    optimizer = torch.optim.Adam(bonus.parameters(), 3e-3)
    losses = []
    for _ in range(200):
        column, action = torch.randint(8, (64,), generator=g), torch.randint(2, (64,), generator=g)
        x = torch.eye(8)[column][:, None, None].expand(64, *shape).contiguous()
        after = torch.where(action[:, None, None, None] == 1, x.roll(1, 3), x)
        loss = bonus.loss(_batch(x, action, after))["forward"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    # A copy of the picture errs in two of eight columns half of the time, the best guess without the action by half.
    assert losses[-1] < 0.2 * 0.0625


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="channels first"):
        ActionUNet((84, 84, 4), 3)
    with pytest.raises(ValueError, match="at least 8 x 8"):
        ActionUNet((1, 5, 9), 3)
    with pytest.raises(ValueError, match="sizes are positive"):
        ActionUNet((1, 9, 9), 0)
    with pytest.raises(ValueError, match="numbers"):
        ActionUNet((1, 9, 9), 2, 4, 8)(torch.zeros(1, 80), torch.zeros(1, 2))
