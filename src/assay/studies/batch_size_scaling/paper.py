"""The paper's scale: convolutional networks on whole data sets, one search of many trials for every batch size."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from assay.analysis.scaling import scaling_curve
from assay.analysis.search import (
    LogUniform,
    QuasiRandomSearch,
    ReverseLogUniform,
    Uniform,
    measurement_table,
    steps_to_result,
)
from assay.data import EpochBatches, ImageSplits, cifar10, crop_and_flip, fashion_mnist, image_folder, mnist
from assay.data.images import split
from assay.lab import Trial
from assay.nn.cifar import CifarResNet
from assay.nn.resnet import ResNet


@dataclass(frozen=True)
class PaperConfig:
    source: str = "hub"  # of MNIST, Fashion-MNIST and CIFAR-10: "hub" or a folder
    imagenet: str = ""  # a folder with one folder of images a class
    batch_sizes: tuple[int, ...] = (8, 32, 128, 512)
    trials: int = 10
    steps: int = 2000  # of every trial
    evaluations: int = 200
    rates: tuple[float, float] = (1e-4, 10.0)
    momenta: tuple[float, float] = (0.9, 0.9999)  # 1 - momentum is log-uniform
    end_factor: tuple[float, float] = (1e-4, 0.1)  # learning rate at the end of its decay, over the first
    decay_from: float = 0.5  # the decay ends uniformly between this share of the steps and all
    goals: tuple[tuple[str, float], ...] = (
        ("mnist", 0.01),
        ("fashion", 0.08),
        ("cifar10", 0.3),
        ("imagenet", 0.25),
    )


class SimpleCNN(nn.Sequential):
    """Two 5x5 convolutions (32 and 64 channels) with pooling, and a hidden layer of 1,024 units."""

    def __init__(self, classes: int = 10, channels: int = 1, size: int = 28):
        super().__init__(
            *(nn.Conv2d(channels, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(64 * (size // 4) ** 2, 1024), nn.ReLU(), nn.Linear(1024, classes)),
        )


def load(name: str, config: PaperConfig, seed: int) -> ImageSplits:
    """The data set of a workload; one clear error where it is not there."""
    if name == "imagenet":
        if not Path(config.imagenet).is_dir() or not config.imagenet:
            raise FileNotFoundError(
                f"paper.imagenet={config.imagenet!r}: give a folder with one folder of images a class "
                "(--set paper.imagenet=/path/to/train), or leave this arm out (--arms)"
            )
        whole = image_folder(config.imagenet, 224)
        held = max(1, len(whole) // 50)
        return split(whole.images, whole.labels, whole.classes, (len(whole) - 2 * held, held, held), seed)
    return {"mnist": mnist, "fashion": fashion_mnist, "cifar10": cifar10}[name](config.source, seed)


def build(name: str, classes: int) -> nn.Module:
    """ResNet-8 for CIFAR-10, ResNet-50 for ImageNet, a simple convolutional network for the others."""
    if name == "cifar10":
        return CifarResNet(8, classes=classes)
    return ResNet(classes) if name == "imagenet" else SimpleCNN(classes)


def trial(run: Trial, arm: str, config: PaperConfig) -> dict[str, float]:
    """Steps to result for every batch size, each with its own quasi-random search."""
    name, kind = arm.split("/")[1].split("-")
    data = load(name, config, run.seed)
    space: dict[str, Any] = {
        "rate": LogUniform(*config.rates),
        "end_factor": LogUniform(*config.end_factor),
        "decay_steps": Uniform(config.decay_from * config.steps, config.steps, integer=True),
    }
    if kind != "sgd":
        space["momentum"] = ReverseLogUniform(*config.momenta)
    if name == "imagenet":
        space["smoothing"] = Uniform(0.0, 0.1)
    rows: list[dict[str, Any]] = []
    sizes = [b for b in config.batch_sizes if b <= len(data.train)]
    for position in run.steps(len(sizes) * config.trials):
        size, number = sizes[position // config.trials], position % config.trials
        if number == 0:
            points = list(QuasiRandomSearch(space, config.trials, run.seed))
        rows += train(run, data, name, size, number, points[number], kind, config)
    table = measurement_table(rows)
    run.save(
        "measurements",
        {
            c: table[c].to_numpy()
            for c in ("trial", "batch_size", "rate", "step", "valid_loss", "valid_error")
        },
    )
    found = steps_to_result(table, dict(config.goals)[name])
    steps = dict(zip(found["batch_size"].astype(int), found["steps"], strict=True))
    metrics = {f"steps_{b}": float(s) for b, s in steps.items()}
    metrics["infeasible"] = float(found["infeasible"].sum())
    if len(steps) >= 3 and all(map(math.isfinite, steps.values())):
        metrics["b_critical"] = scaling_curve(list(steps), list(steps.values())).fit().b_critical
    return metrics


def train(
    run: Trial,
    data: ImageSplits,
    name: str,
    size: int,
    number: int,
    point: dict[str, Any],
    kind: str,
    config: PaperConfig,
) -> list[dict[str, Any]]:
    """One trial: rows of measurements, up to divergence."""
    torch.manual_seed(int(run.numpy(f"init-{number}").integers(2**31)))
    net = build(name, len(data.train.classes)).to(run.device)
    optimizer = torch.optim.SGD(
        net.parameters(), point["rate"], momentum=point.get("momentum", 0.0), nesterov=kind == "nesterov"
    )
    end, last = point["end_factor"], point["decay_steps"]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 - (1 - end) * min(t, last) / last)
    batches = EpochBatches(len(data.train), size, [run.generator(f"order-{number}", device="cpu")])
    augment = run.generator(f"augment-{number}", device="cpu")
    rows = []
    every = max(1, math.ceil(config.steps / config.evaluations))
    for step in range(1, config.steps + 1):
        index = next(batches)[0]
        x = data.train.images[index]
        if name == "cifar10":
            x = crop_and_flip(x, augment)
        loss = cross_entropy(
            net(x.to(run.device)),
            data.train.labels[index].to(run.device),
            label_smoothing=point.get("smoothing", 0.0),
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % every and step != config.steps:
            continue
        valid_loss, valid_error = evaluate(net, data.valid.images, data.valid.labels, run.device)
        row = {"trial": number, "batch_size": size, **point, "step": step}
        if not math.isfinite(valid_loss):
            rows.append({**row, "status": "infeasible", "valid_loss": math.nan, "valid_error": math.nan})
            break
        rows.append({**row, "status": "complete", "valid_loss": valid_loss, "valid_error": valid_error})
    return rows


@torch.no_grad()
def evaluate(
    net: nn.Module, images: Tensor, labels: Tensor, device: torch.device | str
) -> tuple[float, float]:
    """Mean loss and error."""
    net.eval()
    loss = wrong = 0.0
    for first in range(0, len(labels), 500):
        y = labels[first : first + 500].to(device)
        logits = net(images[first : first + 500].to(device))
        loss += float(cross_entropy(logits, y, reduction="sum"))
        wrong += float((logits.argmax(1) != y).sum())
    net.train()
    return loss / len(labels), wrong / len(labels)
