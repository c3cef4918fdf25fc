"""Depth, width and skips: planes around solutions and the full Hessian; convolutional pictures; rescaled layers."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from assay.analysis.hessian import convexity_map
from assay.analysis.landscape import (
    loss_line,
    loss_plane,
    nonconvex_fraction,
    random_direction,
    rescale_layers,
)
from assay.lab import Trial
from assay.nn.cifar import VGG, CifarResNet, DenseNet
from assay.nn.residual import DeepMLP
from assay.studies.loss_landscapes.common import Task, build, fit, given, load, parts, score
from assay.studies.loss_landscapes.config import PicturesConfig, RescaleConfig, SkipsConfig


def network(name: str, task: Task, config: SkipsConfig) -> nn.Module:
    """`plain-deep`, `residual-shallow`, `plain-deep-wide`, ..."""
    kind, depth_name, *rest = name.split("-")
    depth = {"shallow": config.shallow, "deep": config.deep, "deepest": config.deepest}[depth_name]
    width = config.width * (config.wider if rest == ["wide"] else 1)
    channels, height, side = task.shape
    if config.network == "resnet":
        return CifarResNet(depth, task.classes, width, kind == "residual", channels)
    return DeepMLP(channels * height * side, task.classes, depth, width, kind == "residual")


def convnet(name: str, task: Task, config: PicturesConfig) -> nn.Module:
    """`resnet`, `plain` (the same without skips), `vgg` or `densenet`."""
    channels, height, _ = task.shape
    if name == "vgg":
        return VGG(config.vgg, task.classes, 4 * config.width, in_channels=channels, size=height)
    if name == "densenet":
        return DenseNet(config.dense, config.growth, task.classes, channels)
    return CifarResNet(config.depth, task.classes, config.width, name == "resnet", channels)


def surface(
    run: Trial, net: nn.Module, task: Task, images: int, points: int
) -> tuple[Tensor, tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """The plane of two filter-normalised random directions, [-1, 1] in both."""
    source = run.generator("directions", device="cpu")
    d1, d2 = (random_direction(net, generator=source) for _ in range(2))
    some = (task.train[0][:images], task.train[1][:images])
    return loss_plane(net, cross_entropy, some, d1, d2, points, points), (d1, d2)


def trained(
    run: Trial, name: str, net: nn.Module, task: Task, config: SkipsConfig | PicturesConfig
) -> tuple[nn.Module, dict[str, float]]:
    """The network at its solution (trained here or the user's), and how good it is."""
    found = given(config.states, name, net, run)
    if found is None:
        fit(
            run, net, task.train, steps=config.steps, batch=config.batch, rate=config.rate,
            momentum=config.momentum, decay=config.decay, drops=config.drops, augment=config.augment,
            log="train_loss",
        )  # fmt: skip
        found = net
    (train_loss, _), (_, test_error) = (
        score(found, parts(part, config.eval_batch)) for part in (task.train, task.test)
    )
    return found, {"train_loss": train_loss, "test_error": test_error}


def trial(run: Trial, arm: str, config: SkipsConfig) -> dict[str, float]:
    """One network: its plane, the share of it that is not convex, the Hessian's extremes."""
    name = arm.partition("/")[2]
    task = load(run, config.source, config.train, config.test)
    net, metrics = trained(run, name, build(run, partial(network, name, task, config)), task, config)
    values, (d1, d2) = surface(run, net, task, config.plot_images, config.points)
    saved = {"surface": values}
    metrics["nonconvex"] = nonconvex_fraction(values, 2 / (config.points - 1))
    metrics["log10_highest"] = values.max().log10().item()
    n = config.hessian_points
    some = (task.train[0][: config.hessian_images], task.train[1][: config.hessian_images])
    places = [0.0] if n == 1 else torch.linspace(-1, 1, n)
    saved["hessian"] = convexity_map(net, cross_entropy, some, d1, d2, places, places)
    low, high = saved["hessian"][n // 2, n // 2].tolist()
    metrics |= {"hessian_low": low, "hessian_high": high, "hessian_ratio": abs(low) / max(abs(high), 1e-12)}
    run.save("plane", saved)
    return metrics


def picture(run: Trial, arm: str, config: PicturesConfig) -> dict[str, float]:
    """One convolutional network and its plane."""
    name = arm.partition("/")[2]
    task = load(run, config.source, config.train, config.test)
    net, metrics = trained(run, name, build(run, partial(convnet, name, task, config)), task, config)
    values, _ = surface(run, net, task, config.plot_images, config.points)
    run.save("plane", {"surface": values})
    return metrics | {"nonconvex": nonconvex_fraction(values, 2 / (config.points - 1))}


def rescaled(run: Trial, arm: str, config: RescaleConfig) -> dict[str, float]:
    """Layers times c, 1/c, c, 1/c: how much the curves along the same draws change, normalised and not."""
    task = load(run, config.source, config.train, config.test)
    channels, height, width = task.shape

    def make() -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        fan_in = channels * height * width
        for units in config.hidden:
            layers += [nn.Linear(fan_in, units), nn.ReLU()]
            fan_in = units
        return nn.Sequential(*layers, nn.Linear(fan_in, task.classes))

    net = build(run, make)
    fit(
        run, net, task.train, steps=config.steps, batch=config.batch, rate=config.rate, momentum=config.momentum
    )  # fmt: skip
    # Float64: what is asked is whether two functions are one, not how their rounding differs.
    net = net.double()
    batch = (task.train[0].double(), task.train[1])
    depth = len(config.hidden) + 1
    models: dict[float, nn.Module] = {1.0: net}
    for c in config.factors:
        pairs = [c, 1 / c] * (depth // 2) + [1.0] * (depth % 2)
        models[c] = rescale_layers(net, pairs)
    curves: dict[str, Tensor] = {}
    changes: dict[str, list[float]] = {}
    for norm in ("filter", "layer", "none"):
        for c, model in models.items():
            source = run.generator("directions", device="cpu")
            direction = random_direction(model, norm, generator=source)
            curves[f"{norm}:{c:g}"] = loss_line(model, cross_entropy, batch, direction, config.points)
        reference = curves[f"{norm}:1"]
        changes[norm] = [
            ((curves[f"{norm}:{c:g}"] - reference).abs() / reference).max().item() for c in config.factors
        ]
    at_one = [
        (abs(curves[f"none:{c:g}"][-1] - curves["none:1"][-1]) / curves["none:1"][-1]).item()
        for c in config.factors
    ]
    run.save("curves", curves)
    return {
        "normalised_change": max(changes["filter"]),
        "layer_change": max(changes["layer"]),
        "raw_change": min(at_one),
        "train_loss": score(net, [batch])[0],
    }
