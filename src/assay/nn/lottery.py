"""The networks of the lottery-ticket papers: a dense one for MNIST and Conv-2, Conv-4, Conv-6 for CIFAR-10.

Frankle & Carbin 2019 (arXiv 1803.03635, figure 2) and Zhou et al. 2019 (arXiv 1905.01067, table S1): ReLU,
Glorot-normal weights, zero biases.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

BLOCKS: dict[int, tuple[tuple[int, int], ...]] = {
    2: ((64, 64),),
    4: ((64, 64), (128, 128)),
    6: ((64, 64), (128, 128), (256, 256)),
}
"""Channels of the convolutions of each block; a block ends in 2x2 max-pooling."""


def glorot_normal_(model: nn.Module, generator: torch.Generator | None = None) -> nn.Module:
    """Redraw all linear and convolution layers, in place: weights from N(0, 2 / (fan_in + fan_out)), biases zero."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_normal_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model


def lottery_mlp(
    sizes: Sequence[int] = (784, 300, 100, 10), generator: torch.Generator | None = None
) -> nn.Sequential:
    """The dense network (784-300-100-10 for MNIST). It flattens its input.

    >>> lottery_mlp()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes are those of the input, hidden layers and output: got {tuple(sizes)}")
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    net = nn.Sequential(*layers[:-1])
    glorot_normal_(net, generator)
    return net


def lottery_conv(
    depth: int,
    channels: int = 3,
    size: int = 32,
    classes: int = 10,
    width: float = 1.0,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Conv-2, Conv-4 or Conv-6: pairs of 3x3 convolutions ("same") and 2x2 pooling, then 256, 256, classes.

    Args:
        depth: 2, 4 or 6 convolutions.
        channels, size: of the square input images.
        classes: outputs.
        width: scales the number of channels and hidden units.
        generator: of the initial weights.

    >>> lottery_conv(4)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    if depth not in BLOCKS:
        raise ValueError(f"depth must be one of {', '.join(map(str, BLOCKS))}: got {depth}")
    if size % 2 ** len(BLOCKS[depth]):
        raise ValueError(f"images of side {size} cannot be halved {len(BLOCKS[depth])} times")
    layers: list[nn.Module] = []
    last, side = channels, size
    for block in BLOCKS[depth]:
        for full in block:
            layers += [nn.Conv2d(last, max(1, round(full * width)), 3, padding=1), nn.ReLU()]
            last = layers[-2].out_channels  # type: ignore[assignment]
        layers.append(nn.MaxPool2d(2))
        side //= 2
    hidden = max(1, round(256 * width))
    layers += [nn.Flatten(), nn.Linear(last * side**2, hidden), nn.ReLU()]
    layers += [nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes)]
    net = nn.Sequential(*layers)
    glorot_normal_(net, generator)
    return net


def lottery_rates(
    model: nn.Module, conv: float = 0.1, dense: float = 0.2, output: float = 0.1
) -> dict[str, float]:
    """Share of the remaining weights that a round of pruning removes from each layer, as in the papers.

    10 % of convolutions (15 % in Conv-6), 20 % of dense layers, 10 % of the output layer.

    >>> lottery_rates(lottery_mlp())
    {'1.weight': 0.2, '3.weight': 0.2, '5.weight': 0.1}
    """
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    if not layers:
        raise ValueError("the model has no linear or convolution layer")
    rates = {f"{n}.weight".lstrip("."): conv if isinstance(m, nn.Conv2d) else dense for n, m in layers}
    rates[f"{layers[-1][0]}.weight".lstrip(".")] = output
    return rates
