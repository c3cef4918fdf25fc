"""The paper's scale: shake-shake networks on CIFAR-10 and 32x32 ImageNet, decoupled and not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from assay.data import EpochBatches, ImageSplits, cifar10, crop_and_flip
from assay.lab import Trial
from assay.nn.shakeshake import ShakeShake26
from assay.optim.decay import SGDW, AdamW, decay_groups, normalized_weight_decay
from assay.studies.decoupled_weight_decay.config import PaperConfig

Pixels = tuple[Tensor, Tensor]
"""Images [n, 3, 32, 32] uint8 and labels [n]."""

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "l2-sgd": lambda groups, lr: torch.optim.SGD(groups, lr, momentum=0.9),
    "sgdw": lambda groups, lr: SGDW(groups, lr, momentum=0.9),
    "l2-adam": lambda groups, lr: torch.optim.Adam(groups, lr),
    "adamw": lambda groups, lr: AdamW(groups, lr),
}


def load_imagenet32(folder: str) -> tuple[Pixels, Pixels]:
    """The 32x32 ImageNet in the npz form of its authors (Chrabaszcz et al. 2017, arXiv 1707.08819).

    `train_data_batch_1.npz` to `_10.npz` and `val_data.npz`, with arrays data [n, 3072] and labels 1..1000.
    """
    place = Path(folder)
    names = [[f"train_data_batch_{k}.npz" for k in range(1, 11)], ["val_data.npz"]]
    missing = [name for part in names for name in part if not (place / name).is_file()]
    if not folder or missing:
        raise FileNotFoundError(
            f"paper.imagenet32={folder!r} lacks {', '.join(missing[:3])}: give the folder with the npz batches of the "
            "32x32 ImageNet (--set paper.imagenet32=/path)"
        )
    parts = []
    for part in names:
        files = [np.load(place / name, allow_pickle=False) for name in part]
        data = np.concatenate([np.asarray(file["data"], np.uint8) for file in files]).reshape(-1, 3, 32, 32)
        labels = np.concatenate([np.asarray(file["labels"], np.int64) for file in files]) - 1
        parts.append((torch.from_numpy(data), torch.from_numpy(labels)))
    return parts[0], parts[1]


def load(name: str, config: PaperConfig, seed: int) -> tuple[Pixels, Pixels, Pixels]:
    """Train, selection and test images."""
    if name == "imagenet32":
        (x, y), test = load_imagenet32(config.imagenet32)
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
        held = max(1, len(y) // 50)
        return (x[order[held:]], y[order[held:]]), (x[order[:held]], y[order[:held]]), test
    splits: ImageSplits = cifar10(config.source, seed)
    train, valid, test = (
        ((part.images * 255).to(torch.uint8), part.labels)
        for part in (splits.train, splits.valid, splits.test)
    )
    return train, valid, test


def trial(run: Trial, arm: str, config: PaperConfig) -> dict[str, float]:
    """A grid of trainings with cosine annealing; error of the cell that is best on the selection images."""
    name, kind = arm.split("/")[1].split("-", 1)
    train_set, select, report = load(name, config, run.seed)
    if config.limit:
        train_set = tuple(t[: config.limit] for t in train_set)  # type: ignore[assignment]
    rates = config.sgd_rates if "sgd" in kind else config.adam_rates
    cells = [(rate, value) for rate in rates for value in config.decays]
    found = []
    for number in run.steps(len(cells)):
        rate, value = cells[number]
        net = fit(run, name, kind, train_set, rate, value, number, config)
        found.append((evaluate(net, select, run.device), evaluate(net, report, run.device), rate, value))
    run.save("grid", {"cells": np.array(found)})
    _, error, rate, value = min(found)
    return {"error": error, "best_rate": rate, "best_normalised_decay": value}


def fit(
    run: Trial,
    name: str,
    kind: str,
    data: Pixels,
    rate: float,
    value: float,
    number: int,
    config: PaperConfig,
) -> nn.Module:
    """One training. L2 penalties are the decay over the rate (Proposition 1), so that grids are comparable."""
    torch.manual_seed(int(run.numpy(f"init-{number}").integers(2**31)))
    images, labels = data
    net = ShakeShake26(config.width, 1000 if name == "imagenet32" else 10).to(run.device)
    decay = normalized_weight_decay(value, config.batch, len(labels), config.epochs)
    groups: Any = decay_groups(net, decay / rate if kind.startswith("l2") else decay)
    optimizer = OPTIMISERS[kind](groups, rate)
    batches = EpochBatches(len(labels), config.batch, [run.generator("order", device="cpu")])
    augment = run.generator("augment", device="cpu")
    steps = config.epochs * batches.per_epoch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    mixed = torch.device(run.device).type == "cuda"
    for step in range(steps):
        index = next(batches)[0]
        x = crop_and_flip(scaled(images[index]), augment).to(run.device)
        with torch.autocast(torch.device(run.device).type, torch.bfloat16, enabled=mixed):
            loss = cross_entropy(net(x), labels[index].to(run.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            run.log(step, **{f"loss-{number}": loss.detach()})
    return net.eval()


def scaled(images: Tensor) -> Tensor:
    """Bytes to numbers of about unit size around zero."""
    return images.float().div_(127.5).sub_(1).mul_(2)


@torch.no_grad()
def evaluate(net: nn.Module, data: Pixels, device: torch.device | str) -> float:
    """Error in per cent."""
    wrong = sum(
        int((net(scaled(x).to(device)).argmax(1).cpu() != y).sum())
        for x, y in zip(data[0].split(500), data[1].split(500), strict=True)
    )
    return 100 * wrong / len(data[1])
