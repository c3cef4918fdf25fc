"""Residual networks for images (He et al. 2015, arXiv 1512.03385), as a body to convert, prune or probe."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 convolutions to `4 * width` channels, added to the input."""

    def __init__(self, in_channels: int, width: int, stride: int = 1):
        super().__init__()
        out = 4 * width
        self.branch = nn.Sequential(
            *(nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)),
        )
        # Every block begins as the identity: the last normalisation of a branch starts at zero.
        nn.init.zeros_(self.branch[-1].weight)
        same = stride == 1 and in_channels == out
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(in_channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        )
        self.activation = nn.ReLU()

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch out new_height new_width"]:
        """Branch plus shortcut."""
        return self.activation(self.branch(x) + self.shortcut(x))


class ResNet(nn.Module):
    """Bottleneck residual network: 7x7 stem, four stages, global average, linear classifier.

    The default is ResNet-50 (25,557,032 parameters for 1,000 classes), with the stride in the 3x3 convolutions.

    Args:
        classes: outputs.
        blocks: residual blocks in each of the four stages: (3, 4, 6, 3) is ResNet-50, (3, 4, 23, 3) ResNet-101.
        width: channels of the stem and of the first stage's inner convolutions.
        in_channels: of the images.
    """

    def __init__(
        self, classes: int = 1000, blocks: Sequence[int] = (3, 4, 6, 3), width: int = 64, in_channels: int = 3
    ):
        super().__init__()
        if len(blocks) != 4 or min(blocks) < 1:
            raise ValueError(
                f"blocks must be four positive numbers, such as (3, 4, 6, 3): got {tuple(blocks)}"
            )
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 7, 2, 3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        channels = width
        stages: list[nn.Module] = []
        for stage, count in enumerate(blocks):
            inner = width * 2**stage
            layers: list[nn.Module] = []
            for k in range(count):
                layers.append(Bottleneck(channels, inner, stride=2 if stage and k == 0 else 1))
                channels = 4 * inner
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Images to logits."""
        return self.head(self.stages(self.stem(x)))
