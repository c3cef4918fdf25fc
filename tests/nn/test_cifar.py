"""Networks for small images: published sizes, skips that are only an addition, other image sides."""

import pytest
import torch
from torch import nn

from assay.nn.cifar import VGG, BasicBlock, CifarResNet, DenseNet


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_published_sizes() -> None:
    with torch.device("meta"):
        assert size(CifarResNet(20)) == 272_474
        assert size(CifarResNet(56)) == 855_770
        assert size(DenseNet()) == 6_956_298
        # Convolutions of VGG-16 (14,714,688) with their norms (2 x 4,224), and the classifier.
        assert size(VGG(16, hidden=0)) == 14_714_688 + 8_448 + 5_130


@pytest.mark.parametrize("side", [32, 28, 14])
def test_other_sides_and_channels(side: int) -> None:
    x = torch.rand(2, 1, side, side)
    for net in (
        CifarResNet(8, 7, width=4, in_channels=1),
        CifarResNet(8, 7, width=4, skip=False, in_channels=1),
        VGG(9, 7, width=4, in_channels=1, size=side),
        VGG(16, 7, width=4, in_channels=1, size=side, dropout=True, hidden=12),
        DenseNet((2, 2, 2, 2), 4, 7, in_channels=1),
    ):
        assert net(x).shape == (2, 7)


def test_depth_counts_layers_with_weights() -> None:
    """6n + 1 convolutions and the classifier, without the 1x1 shortcuts."""
    for depth in (8, 20):
        net = CifarResNet(depth, width=4, skip=False)
        assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules()) == depth
    assert sum(isinstance(m, nn.Conv2d) for m in VGG(19, width=4).modules()) == 16


def test_a_skip_adds_the_input_and_nothing_else() -> None:
    block = BasicBlock(4, 4).eval()
    plain = BasicBlock(4, 4, skip=False).eval()
    plain.branch.load_state_dict(block.branch.state_dict())
    x = torch.rand(2, 4, 5, 5)
    assert torch.allclose(block(x), torch.relu(block.branch(x) + x))
    assert torch.allclose(plain(x), torch.relu(block.branch(x)))
    # Plain and residual networks have the same layers, up to the projections at two changes of shape.
    with_skip, without = CifarResNet(8, width=4), CifarResNet(8, width=4, skip=False)
    extra = size(with_skip) - size(without)
    assert extra == (4 * 8 + 16) + (8 * 16 + 32)


def test_norm_and_dropout_are_options() -> None:
    bare = VGG(9, width=4, batch_norm=False)
    assert not any(isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d | nn.Dropout) for m in bare.modules())
    rates = [m.p for m in VGG(16, width=4, dropout=True).modules() if isinstance(m, nn.Dropout)]
    assert rates == [0.3, 0.4, *[0.4] * 6, 0.5, 0.5]


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="6n"):
        CifarResNet(18)
    with pytest.raises(ValueError, match="depth must be one of"):
        VGG(12)
    with pytest.raises(ValueError, match="32x32"):
        VGG(9, width=2)(torch.rand(1, 3, 28, 28))
    with pytest.raises(ValueError, match="positive"):
        DenseNet(())
