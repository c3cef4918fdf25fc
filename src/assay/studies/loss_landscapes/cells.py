"""Batch size x weight decay: interpolation, normalised lines, sharpness, and the paths of training."""

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from assay.analysis.landscape import (
    interpolate,
    loss_line,
    loss_plane,
    random_direction,
    recalibrate_batchnorm,
    with_state,
)
from assay.analysis.trajectory import TrajectoryPCA, random_walk_null
from assay.lab import Trial
from assay.nn.cifar import VGG
from assay.studies.loss_landscapes.common import Task, build, error, fit, given, load, parts, score, weights
from assay.studies.loss_landscapes.config import CellsConfig

SIDES = ("small", "large")
RISE_FLOOR = 1e-3
"""Rises below it count as this: the logarithm of a flat side would be of noise."""


def network(task: Task, config: CellsConfig) -> nn.Module:
    """The network of all four cells, with batch norm."""
    channels, height, width = task.shape
    if config.network == "vgg9":
        return VGG(9, task.classes, in_channels=channels, size=height)
    layers: list[nn.Module] = [nn.Flatten()]
    fan_in = channels * height * width
    for units in config.hidden:
        layers += [nn.Linear(fan_in, units), nn.BatchNorm1d(units), nn.ReLU()]
        fan_in = units
    return nn.Sequential(*layers, nn.Linear(fan_in, task.classes))


def trial(run: Trial, arm: str, config: CellsConfig) -> dict[str, float]:
    """Both batch sizes at one weight decay, from one initialisation."""
    kind = arm.partition("/")[2]
    decay = config.decay if kind == "decay" else 0.0
    task = load(run, config.source, config.train, config.test)
    train, test = parts(task.train, config.eval_batch), parts(task.test, config.eval_batch)
    nets: dict[str, nn.Module] = {}
    metrics: dict[str, float] = {}
    for side, batch in zip(SIDES, (config.small, config.large), strict=True):
        net = build(run, partial(network, task, config))
        path: list[dict[str, Tensor]] = []
        found = given(config.states, f"{side}-{kind}", net, run)
        if found is None:
            steps = config.epochs * (len(task.train[1]) // min(batch, len(task.train[1])))
            path = fit(
                run, net, task.train, steps=steps, batch=batch, rate=config.rate, momentum=config.momentum,
                decay=decay, drops=config.drops, augment=config.augment, looks=config.checkpoints,
                log=f"train_loss_{side}",
            )  # fmt: skip
            found = net
        nets[side] = found
        metrics |= {f"{k}_{side}": v for k, v in quality(found, train, test).items()}
        metrics |= {f"{k}_{side}": v for k, v in lines(run, side, found, train, config).items()}
        if path:
            metrics |= {f"{k}_{side}": v for k, v in paths(run, side, found, path, task, config).items()}
    metrics |= between(run, nets, train, test, config)
    metrics["loss_gap"] = abs(metrics["train_loss_small"] - metrics["train_loss_large"])
    metrics["error_gap"] = metrics["test_error_large"] - metrics["test_error_small"]
    span = 1.5 * max(weights(net).abs().quantile(0.99).item() for net in nets.values())
    counts = {side: torch.histc(weights(net).cpu(), 61, -span, span) for side, net in nets.items()}
    run.save("weights", {"edges": torch.linspace(-span, span, 62), **counts})
    return metrics


def quality(net: nn.Module, train: list, test: list) -> dict[str, float]:
    """Losses, test error and the length of the weights."""
    train_loss, train_error = score(net, train)
    test_loss, test_error = score(net, test)
    return {
        "train_loss": train_loss,
        "train_error": train_error,
        "test_loss": test_loss,
        "test_error": test_error,
        "weight_norm": weights(net).norm().item(),
    }


def lines(run: Trial, side: str, net: nn.Module, train: list, config: CellsConfig) -> dict[str, float]:
    """Loss along random directions, normalised by filters and not; its rise at 1 is the sharpness."""
    found: dict[str, Tensor] = {}
    metrics: dict[str, float] = {}
    middle = config.line_points // 2
    for norm in ("filter", "none"):
        source = run.generator("directions", device="cpu")
        curves = torch.stack(
            [
                loss_line(
                    net, cross_entropy, train, random_direction(net, norm, generator=source), config.line_points,
                    calibration=train[0][0],
                )
                for _ in range(config.directions)
            ]
        )  # fmt: skip
        found[norm] = curves
        rises = curves[:, -1] - curves[:, middle]
        name = "sharpness" if norm == "filter" else "raw_sharpness"
        metrics[name] = rises.mean().item()
        metrics[f"{name}_sd"] = rises.std().item() if len(rises) > 1 else 0.0
    run.save(f"lines-{side}", found)
    return metrics


def between(
    run: Trial, nets: dict[str, nn.Module], train: list, test: list, config: CellsConfig
) -> dict[str, float]:
    """The line from the small-batch to the large-batch solution and half its length beyond."""
    table = interpolate(
        nets["small"], nets["large"], config.interpolation_points, {"loss": cross_entropy, "error": error},
        {"train": train, "test": test}, calibration=train[0][0],
    )  # fmt: skip
    run.save("interpolation", table)
    loss = dict(zip(table["alpha"].round(decimals=4).tolist(), table["train_loss"].tolist(), strict=True))
    rises = {"small": loss[-0.5] - loss[0.0], "large": loss[1.5] - loss[1.0]}
    ratio = max(rises["small"], RISE_FLOOR) / max(rises["large"], RISE_FLOOR)
    return {f"rise_{side}": rise for side, rise in rises.items()} | {"log_ratio": math.log(ratio)}


def paths(
    run: Trial, side: str, net: nn.Module, path: list[dict[str, Tensor]], task: Task, config: CellsConfig
) -> dict[str, float]:
    """The path's share of variance on two components, beside a random walk's and that of random directions."""
    pca = TrajectoryPCA().fit(path)
    plane = pca.plane()
    flat = torch.stack([torch.cat([t.reshape(-1) for t in state.values()]) for state in path]).cpu().double()
    rows = flat[:-1] - flat[-1]
    norms = flat.diff(dim=0).norm(dim=1)
    null = random_walk_null(norms, flat.shape[1], run.generator("null", device="cpu"))
    axes = torch.randn(2, flat.shape[1], generator=run.generator("axes", device="cpu"), dtype=torch.float64)
    axes = axes / axes.norm(dim=1, keepdim=True)
    seen = (rows - rows.mean(0)) @ axes.T
    images, labels = (t[: config.path_images] for t in task.train)
    losses = []
    for state in path:
        copied = recalibrate_batchnorm(with_state(net, {**net.state_dict(), **state}), images)
        losses.append(score(copied, [(images, labels)])[0])
    saved = {
        "path": plane.path,
        "distance": plane.distance,
        "loss": torch.tensor(losses),
        "random": (flat - flat[-1]) @ axes.T,
        "null": null,
        "share": pca.explained_variance_ratio_,
    }
    if side == "small":
        n = config.path_points
        a, b = (torch.linspace(*ends, n) for ends in (plane.alphas, plane.betas))
        surface = loss_plane(net, cross_entropy, (images, labels), plane.d1, plane.d2, a, b)
        saved |= {"alphas": a, "betas": b, "surface": surface}
    run.save(f"path-{side}", saved)
    return {
        "path_share": pca.explained_variance_ratio_.sum().item(),
        "first_share": pca.explained_variance_ratio_[0].item(),
        "null_share": null.sum().item(),
        "random_share": (seen.square().sum() / (rows - rows.mean(0)).square().sum()).item(),
    }
