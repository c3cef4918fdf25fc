"""Data, training and checkpoints, as all experiments share them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from assay.analysis.landscape import with_state
from assay.data import EpochBatches, ImageSplits, cifar10, crop_and_flip, digits, mnist5k
from assay.lab import Trial

Examples = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """Standardised images, on the run's device."""

    train: Examples
    test: Examples
    classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        _, channels, height, width = self.train[0].shape
        return channels, height, width


def load(run: Trial, source: str, train: int, test: int) -> Task:
    """The first `train` and `test` images of a split that depends on the seed."""
    seed = run.generator("split", device="cpu").initial_seed()
    if source == "mnist5k":
        data: ImageSplits = mnist5k(pool=2, split_seed=seed, sizes=(train, 10, min(test, 4_990 - train)))
    elif source == "digits":
        data = digits(split_seed=seed)
    else:
        data = cifar10(source, split_seed=seed)
    kept = data.train.subset(slice(train)), data.test.subset(slice(test))
    mean = kept[0].images.mean((0, 2, 3), keepdim=True)
    scale = kept[0].images.std((0, 2, 3), keepdim=True)
    one, other = (((part.images - mean) / scale, part.labels) for part in kept)
    return Task(
        (one[0].to(run.device), one[1].to(run.device)),
        (other[0].to(run.device), other[1].to(run.device)),
        len(data.train.classes),
    )


def parts(examples: Examples, size: int) -> list[Examples]:
    """The examples in batches that fit into memory."""
    return list(zip(*(t.split(size) for t in examples), strict=True))


def build(run: Trial, make: Callable[[], nn.Module]) -> nn.Module:
    """A network whose initial weights depend on the seed only."""
    torch.manual_seed(run.generator("network", device="cpu").initial_seed())
    return make().to(run.device)


def fit(
    run: Trial,
    net: nn.Module,
    examples: Examples,
    *,
    steps: int,
    batch: int,
    rate: float,
    momentum: float,
    decay: float = 0.0,
    drops: Sequence[float] = (),
    augment: bool = False,
    looks: int = 0,
    log: str = "",
) -> list[dict[str, Tensor]]:
    """Train by SGD with momentum; the parameters at `looks` moments, evenly from the first to the last."""
    images, labels = examples
    optimizer = torch.optim.SGD(net.parameters(), rate, momentum, weight_decay=decay, foreach=True)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [round(d * steps) for d in drops], 0.1)
    batches = EpochBatches(len(labels), min(batch, len(labels)), [run.generator("batches", device="cpu")])
    shift = run.generator("augmentation", device="cpu")
    moments = {round(k * steps / (looks - 1)) for k in range(looks)} if looks > 1 else set()
    path: list[dict[str, Tensor]] = []

    def look(step: int) -> None:
        if step in moments:
            path.append({name: p.detach().clone() for name, p in net.named_parameters()})

    net.train()
    every = max(1, steps // 60)
    for step in run.steps(steps):
        look(step)
        index = next(batches)[0].to(run.device)
        x = crop_and_flip(images[index], shift) if augment else images[index]
        loss = cross_entropy(net(x), labels[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if log and step % every == 0:
            run.log(step, **{log: loss})
    look(steps)
    net.eval()
    return path


def given(folder: str, name: str, net: nn.Module, run: Trial) -> nn.Module | None:
    """The user's checkpoint of this network, if a folder is named."""
    return with_state(net, Path(folder) / f"{name}.pt").to(run.device).eval() if folder else None


def score(net: nn.Module, examples: Sequence[Examples]) -> tuple[float, float]:
    """Mean loss and share of errors, in evaluation mode."""
    loss = wrong = 0.0
    total = sum(len(y) for _, y in examples)
    with torch.no_grad():
        for x, y in examples:
            logits = net(x)
            loss += cross_entropy(logits, y, reduction="sum").item()
            wrong += (logits.argmax(1) != y).sum().item()
    return loss / total, wrong / total


def error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Share of wrong answers."""
    return (outputs.argmax(-1) != targets).float().mean()


def weights(net: nn.Module) -> Tensor:
    """All weights of layers, flat, without biases and the parameters of norms."""
    return torch.cat([p.detach().reshape(-1) for p in net.parameters() if p.dim() > 1])
