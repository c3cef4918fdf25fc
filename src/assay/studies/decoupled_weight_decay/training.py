"""Grids of small trainings as one ensemble, on digits with noisy labels."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.data import EpochBatches, corrupt_labels, digits, mnist5k
from assay.lab import Batch
from assay.nn import EnsembleMLP, ensemble_cross_entropy, ensemble_error
from assay.optim import EnsembleOptimizer
from assay.studies.decoupled_weight_decay.config import Data


@dataclass(frozen=True)
class Task:
    """One seed's images (standardised, flat) and labels: train (noisy), and two halves of the rest."""

    x: Tensor
    y: Tensor
    select_x: Tensor
    select_y: Tensor
    report_x: Tensor
    report_y: Tensor
    classes: int


def load(run: Batch, seed: int, config: Data) -> Task:
    """The seed's split: cells are chosen on one half of the images not trained on, and reported on the other."""
    if config.source == "mnist5k":
        rest = (5000 - config.train) // 2
        splits = mnist5k(pool=2, split_seed=seed, sizes=(config.train, rest, rest))
    elif config.source == "digits":
        splits = digits(split_seed=seed)
    else:
        raise ValueError(f"data.source is mnist5k or digits: got {config.source!r}")
    train = splits.train.subset(slice(config.train))
    mean, std = train.images.mean(), train.images.std()
    labels = corrupt_labels(
        train.labels, config.noise, len(train.classes), run.generator("noise", seed, device="cpu")
    )
    tensors = [((train.images - mean) / std).flatten(1), labels]
    for part in (splits.valid, splits.test):
        tensors += [((part.images - mean) / std).flatten(1), part.labels]
    return Task(*(t.to(run.device) for t in tensors), classes=len(train.classes))


@dataclass(frozen=True)
class Cell:
    """One member: a learning rate and a decay."""

    rate: float
    decay: float


Schedule = Callable[[int], float | Tensor]


def cosine(steps: int) -> Schedule:
    """From 1 to 0 over the run."""
    return lambda t: 0.5 * (1 + math.cos(math.pi * t / steps))


@dataclass
class Trained:
    """What an ensemble ended with: errors [members] in per cent, weights, and second moments where there are any."""

    select: Tensor
    report: Tensor
    train_loss: Tensor
    net: EnsembleMLP
    optimizer: EnsembleOptimizer


def train(
    run: Batch,
    task: Task,
    seed: int,
    cells: Sequence[Cell],
    *,
    kind: str,
    decay: str,
    hidden: Sequence[int],
    batch: int,
    steps: int,
    schedule: Schedule | None = None,
    norm: bool = False,
    every: int = 0,
    look: Callable[[int, Tensor], None] | None = None,
) -> Trained:
    """Train one member a cell, all from the same initial weights and on the same batches.

    A member whose loss is not finite stops; its errors are 100 %. `look(step, report errors)` is called every
    `every` steps.
    """
    members = len(cells)
    sizes = (task.x.shape[1], *hidden, task.classes)

    def stream(name: str) -> list[torch.Generator]:
        return [run.generator(name, seed, device="cpu") for _ in cells]

    net = EnsembleMLP(sizes, members, norm="batch" if norm else None, generators=stream("init")).to(
        run.device
    )
    optimizer = EnsembleOptimizer(
        net.parameters(),
        kind,
        lr=torch.tensor([cell.rate for cell in cells]),
        weight_decay=torch.tensor([cell.decay for cell in cells]),
        decay=decay,
        schedule_inside=True,
    )
    order = EpochBatches(len(task.x), batch, [run.generator("order", seed, device="cpu")])
    schedule = schedule or cosine(steps)
    for step in range(steps):
        index = next(order)[0].to(run.device)
        optimizer.scale = schedule(step)
        optimizer.zero_grad()
        losses = ensemble_cross_entropy(net(task.x[index]), task.y[index])
        losses.sum().backward()
        if step % 50 == 49:
            finite = losses.detach().isfinite()
            optimizer.active = finite if optimizer.active is None else finite & optimizer.active
        optimizer.step()
        if look and every and (step + 1) % every == 0:
            look(step + 1, evaluate(net, task, "report"))
    with torch.no_grad():
        net.recalibrate(task.x)
        net.eval()
        loss = ensemble_cross_entropy(net(task.x), task.y)
    return Trained(evaluate(net, task, "select"), evaluate(net, task, "report"), loss, net, optimizer)


@torch.no_grad()
def evaluate(net: EnsembleMLP, task: Task, part: str) -> Tensor:
    """Errors of all members in per cent; running statistics are recomputed on the whole training set before."""
    training = net.training
    if net.norm:
        net.recalibrate(task.x)
    net.eval()
    x, y = getattr(task, f"{part}_x"), getattr(task, f"{part}_y")
    errors = 100 * ensemble_error(net(x), y)
    net.train(training)
    return errors
