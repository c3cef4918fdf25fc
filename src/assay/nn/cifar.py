"""Convolutional networks for small images (32x32 CIFAR, 28x28 digits, 14x14 pooled digits).

`CifarResNet`, with or without its skip connections, `VGG` and `DenseNet` as the papers on CIFAR-10 use them; each takes
any number of channels and classes and any image side from 8 up.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

VGG_BLOCKS: dict[int, tuple[int, ...]] = {
    9: (2, 2, 3),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
"""Convolutions in each block; the blocks have 1, 2, 4, 8 and 8 times the width."""


def _he_normal(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to their own input: relu(F(x) + shortcut(x)).

    The shortcut is the identity, or a 1x1 convolution with batch norm where the shape changes. Without `skip` it is
    relu(F(x)): the same layers, nothing added.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1, skip: bool = True):
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut: nn.Module | None = None
        if skip:
            self.shortcut = nn.Identity()
            if stride != 1 or in_channels != channels:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
                )

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out new_height new_width"]:
        """Feature maps to feature maps."""
        out = self.branch(x)
        return torch.relu(out if self.shortcut is None else out + self.shortcut(x))


class CifarResNet(nn.Module):
    """The residual networks of the CIFAR-10 papers: a 3x3 stem and three stages of (depth - 2) / 6 basic blocks.

    ResNet-20 for CIFAR-10 has 272,474 parameters, ResNet-56 855,770. ``width=16 * k`` gives the wide ResNet-56-k of
    the loss-landscape paper.

    Args:
        depth: 6n + 2: 8, 20, 32, 44, 56, 110, ...
        classes: outputs.
        width: channels of the first stage; the next ones have twice and four times as many.
        skip: whether blocks add their input; without, the same layers in a plain chain.
        in_channels: of the images.

    Source: He et al. 2016 (arXiv 1512.03385), section 4.2, with projection shortcuts where the shape changes; plain
    variants as in Li et al. 2018 (arXiv 1712.09913).

    >>> CifarResNet(20)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self, depth: int = 20, classes: int = 10, width: int = 16, skip: bool = True, in_channels: int = 3
    ):
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth must be 6n + 2 (8, 14, 20, 32, 44, 56, 110): got {depth}")
        if min(width, classes, in_channels) < 1:
            raise ValueError("width, classes and in_channels must be positive")
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        channels = width
        stages: list[nn.Module] = []
        for stage in range(3):
            blocks: list[nn.Module] = []
            for k in range((depth - 2) // 6):
                out = width * 2**stage
                blocks.append(BasicBlock(channels, out, 2 if stage and k == 0 else 1, skip))
                channels = out
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, classes)
        _he_normal(self)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Images to logits."""
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


class VGG(nn.Module):
    """Blocks of 3x3 convolutions with maximum pooling between, then a hidden dense layer and the classifier.

    Args:
        depth: 9, 11, 13, 16 or 19 (convolutions and dense layers of the original; 9 has three blocks).
        classes: outputs.
        width: channels of the first block.
        batch_norm: after every convolution and the hidden dense layer.
        dropout: 0.3 after the first convolution, 0.4 after the others but the last of a block, 0.5 around the hidden
            dense layer (the VGG with batch norm and dropout that is common on CIFAR-10).
        hidden: units of the hidden dense layer; None for as many as the last block has channels; 0 for none.
        in_channels, size: of the images (side in pixels; odd sides are rounded up at each pooling).

    Source: Simonyan & Zisserman 2015 (arXiv 1409.1556); VGG-9 as in Li et al. 2018 (arXiv 1712.09913).

    >>> VGG(9)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        depth: int = 16,
        classes: int = 10,
        width: int = 64,
        batch_norm: bool = True,
        dropout: bool = False,
        hidden: int | None = None,
        in_channels: int = 3,
        size: int = 32,
    ):
        super().__init__()
        if depth not in VGG_BLOCKS:
            raise ValueError(f"depth must be one of {', '.join(map(str, VGG_BLOCKS))}: got {depth}")
        if size < 1:
            raise ValueError(f"size must be the side of the images in pixels: got {size}")
        layers: list[nn.Module] = []
        channels, side = in_channels, size
        for block, count in enumerate(VGG_BLOCKS[depth]):
            out = width * min(2**block, 8)
            for k in range(count):
                layers.append(nn.Conv2d(channels, out, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(out))
                layers.append(nn.ReLU())
                if dropout and k < count - 1:
                    layers.append(nn.Dropout(0.3 if block == 0 else 0.4))
                channels = out
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
            side = (side + 1) // 2
        self.features = nn.Sequential(*layers)
        flat = channels * side**2
        units = channels if hidden is None else hidden
        head: list[nn.Module] = [nn.Flatten()]
        if units:
            head += [nn.Dropout(0.5)] if dropout else []
            head += [nn.Linear(flat, units), *([nn.BatchNorm1d(units)] if batch_norm else []), nn.ReLU()]
            flat = units
        head += [nn.Dropout(0.5)] if dropout else []
        self.head = nn.Sequential(*head, nn.Linear(flat, classes))
        self.size = size
        _he_normal(self)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Images to logits."""
        if x.shape[-1] != self.size or x.shape[-2] != self.size:
            raise ValueError(f"this network was made for {self.size}x{self.size} images (size={self.size})")
        return self.head(self.features(x))


class _DenseLayer(nn.Module):
    """Norm, ReLU, 1x1 convolution to four times the growth, norm, ReLU, 3x3; the result stands beside the input."""

    def __init__(self, in_channels: int, growth: int):
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            nn.Conv2d(in_channels, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch(x), x], 1)


class DenseNet(nn.Module):
    """Every layer of a block sees the outputs of all earlier ones; 1x1 convolutions halve the channels between blocks.

    Args:
        blocks: layers in each block: (6, 12, 24, 16) is DenseNet-121, (6, 12, 32, 32) DenseNet-169.
        growth: channels that each layer adds (32 for the large networks, 12 for small ones).
        classes, in_channels: outputs and channels of the images.

    Source: Huang et al. 2017 (arXiv 1608.06993), with a 3x3 stem for small images. DenseNet-121 for CIFAR-10 has
    6,956,298 parameters.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (6, 12, 24, 16),
        growth: int = 32,
        classes: int = 10,
        in_channels: int = 3,
    ):
        super().__init__()
        if not blocks or min(blocks) < 1 or growth < 1:
            raise ValueError(f"blocks and growth must be positive: got {tuple(blocks)} and {growth}")
        channels = 2 * growth
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)]
        for count, following in pairwise((*blocks, 0)):
            for _ in range(count):
                layers.append(_DenseLayer(channels, growth))
                channels += growth
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
            if following:
                layers += [
                    nn.Conv2d(channels, channels // 2, 1, bias=False),
                    nn.AvgPool2d(2, ceil_mode=True),
                ]
                channels //= 2
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)
        _he_normal(self)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Images to logits."""
        return self.head(self.features(x).mean((2, 3)))
