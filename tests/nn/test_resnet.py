"""Residual networks: the published sizes, and blocks that begin as the identity."""

import pytest
import torch

from assay.nn.resnet import Bottleneck, ResNet


def test_resnet50_has_the_published_size() -> None:
    with torch.device("meta"):
        net = ResNet()
        assert net(torch.zeros(2, 3, 224, 224)).shape == (2, 1000)
        larger = ResNet(blocks=(3, 4, 23, 3))
    assert sum(p.numel() for p in net.parameters()) == 25_557_032
    assert sum(p.numel() for p in larger.parameters()) == 44_549_160


def test_stages_halve_the_map() -> None:
    net = ResNet(classes=5, blocks=(1, 1, 1, 1), width=4).eval()
    sizes = []
    for stage in net.stages:
        stage.register_forward_hook(lambda module, inputs, out: sizes.append(tuple(out.shape[1:])))
    net(torch.zeros(1, 3, 64, 64))
    assert sizes == [(16, 16, 16), (32, 8, 8), (64, 4, 4), (128, 2, 2)]


def test_a_block_starts_as_the_identity() -> None:
    x = torch.rand(2, 16, 6, 6)
    assert torch.equal(Bottleneck(16, 4)(x), x)


def test_wrong_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="four positive"):
        ResNet(blocks=(3, 4))
