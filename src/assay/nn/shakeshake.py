"""Shake-shake residual networks (Gastaldi 2017, arXiv 1705.07485)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class _Shake(torch.autograd.Function):
    r"""$\alpha a + (1 - \alpha) b$ forwards, an independent $\beta$ for the gradients; a draw an image."""

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> Tensor:  # type: ignore[override]
        alpha = torch.rand(len(a), 1, 1, 1, device=a.device, dtype=a.dtype)
        return alpha * a + (1 - alpha) * b

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        beta = torch.rand(len(grad), 1, 1, 1, device=grad.device, dtype=grad.dtype)
        return beta * grad, (1 - beta) * grad


def shake(a: Tensor, b: Tensor, training: bool) -> Tensor:
    """Two branches mixed at random in training, by half in evaluation."""
    return _Shake.apply(a, b) if training else (a + b) / 2


class _Shortcut(nn.Module):
    """Halve the resolution twice, the second time shifted by a pixel, each path giving half of the channels."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels // 2, 1, bias=False)
        self.second = nn.Conv2d(in_channels, out_channels - out_channels // 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        shifted = nn.functional.pad(x, (-1, 1, -1, 1))
        return self.norm(torch.cat([self.first(x[..., ::2, ::2]), self.second(shifted[..., ::2, ::2])], 1))


class _Block(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(),
                nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )
            for _ in range(2)
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride == 2:
            self.shortcut = _Shortcut(in_channels, out_channels)
        elif in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + shake(self.branches[0](x), self.branches[1](x), self.training)


class ShakeShake26(nn.Module):
    """26 layers, two branches a block, mixed at random: "26 2x64d" with width 64, "26 2x96d" with 96.

    Images go through a 3x3 convolution to 16 channels and three stages of four blocks with 1, 2 and 4 times `width`
    channels. 2x64d has 11.7 million parameters for CIFAR-10. Forward and backward mix with independent draws, one an
    image.

    Args:
        width: channels of the first stage.
        num_classes: outputs.
        in_channels: of the images.

    >>> ShakeShake26(8)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, width: int = 64, num_classes: int = 10, in_channels: int = 3):
        super().__init__()
        if min(width, num_classes, in_channels) < 1:
            raise ValueError("width, num_classes and in_channels must be positive")
        self.stem = nn.Sequential(nn.Conv2d(in_channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        blocks: list[nn.Module] = []
        channels = 16
        for stage in range(3):
            for k in range(4):
                blocks.append(_Block(channels, width * 2**stage, 2 if stage and k == 0 else 1))
                channels = width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Images to logits."""
        return self.head(torch.relu(self.blocks(self.stem(x))).mean((2, 3)))
