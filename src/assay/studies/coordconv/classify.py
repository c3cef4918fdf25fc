"""Task 1, supervised coordinate classification: (x, y) to the one pixel at that place."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from assay.data.shapes import NotSoClevr, Split
from assay.lab import Trial
from assay.nn.painters import CoordPainter, DeconvPainter, scale_positions
from assay.studies.coordconv.common import Stopwatch, batches, build, checkpoints, one_cycle, parameters


@dataclass(frozen=True)
class ClassifyConfig:
    """Where a field holds several values they are a grid: each setting is trained on a tuning seed with a tenth of
    the training positions held out, and the best one there is used."""

    canvas: int = 32
    radius: int = 4
    strict: bool = False  # the released rule of the quadrant
    coord_widths: tuple[int, ...] = (32,)  # hidden channels w, w, 2w, 2w
    coord_rates: tuple[float, ...] = (1e-2,)
    coord_decays: tuple[float, ...] = (0.0,)
    coord_batches: tuple[int, ...] = (16,)
    coord_steps: int = 400
    deconv_filters: tuple[int, ...] = (3,)
    deconv_multipliers: tuple[int, ...] = (1,)
    deconv_rates: tuple[float, ...] = (1e-2,)
    deconv_decays: tuple[float, ...] = (0.0,)
    deconv_batches: tuple[int, ...] = (16,)
    deconv_steps: int = 1_600
    evaluations: int = 20


@dataclass(frozen=True)
class Setting:
    """One network and how it is trained."""

    make: Callable[[], nn.Module]
    rate: float
    decay: float
    batch: int
    steps: int


def settings(network: str, config: ClassifyConfig) -> list[Setting]:
    """The grid of one network."""
    if network == "coordconv":
        grid = product(config.coord_widths, config.coord_rates, config.coord_decays, config.coord_batches)
        return [
            Setting(
                lambda w=w: CoordPainter(config.canvas, widths=(w, w, 2 * w, 2 * w)),
                *rest,
                config.coord_steps,
            )
            for w, *rest in grid
        ]
    grid = product(
        config.deconv_filters,
        config.deconv_multipliers,
        config.deconv_rates,
        config.deconv_decays,
        config.deconv_batches,
    )
    return [
        Setting(lambda f=f, m=m: DeconvPainter(config.canvas, f, m), *rest, config.deconv_steps)
        for f, m, *rest in grid
    ]


def accuracy(net: nn.Module, inputs: Tensor, target: Tensor, index: Tensor) -> tuple[float, Tensor]:
    """Share of positions whose pixel has the largest logit, and which ones."""
    net.eval()
    with torch.no_grad():
        found = torch.cat([net(inputs[part]).flatten(1).argmax(1) for part in index.split(64)])
    net.train()
    right = found == target[index]
    return right.float().mean().item(), right


def fit(
    run: Trial,
    setting: Setting,
    inputs: Tensor,
    target: Tensor,
    train: Tensor,
    test: Tensor,
    looks: int,
    stream: str,
) -> tuple[nn.Module, float]:
    """Train one network, log accuracy against steps and seconds; the network and its seconds of training."""
    net = build(run, setting.make, stream)
    optimizer = torch.optim.Adam(net.parameters(), setting.rate, weight_decay=setting.decay)
    schedule = one_cycle(optimizer, setting.rate, setting.steps)
    draw = batches(train, setting.batch, run.generator(f"{stream}-batches", device="cpu"))
    look, watch = checkpoints(setting.steps, looks), Stopwatch()
    for step in run.steps(setting.steps):
        with watch:
            index = next(draw)
            loss = cross_entropy(net(inputs[index]).flatten(1), target[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        if looks and step in look:
            run.log(
                step + 1,
                train_accuracy=accuracy(net, inputs, target, train)[0],
                test_accuracy=accuracy(net, inputs, target, test)[0],
                seconds=watch.seconds,
            )
    return net, watch.seconds


def trial(run: Trial, arm: str, config: ClassifyConfig) -> dict[str, float]:
    """One network on one split, with positions scaled to [-1, 1] or (arms `-raw`) as pixel indices."""
    split, _, network = arm.partition("/")
    kind: Split = "quadrant" if split == "quadrant" else "uniform"
    data = NotSoClevr(
        config.canvas, config.radius, kind, run.generator("split", device="cpu").initial_seed(), config.strict
    )
    raw = network.endswith("-raw")
    inputs = (data.xy if raw else scale_positions(data.xy, config.canvas)).to(run.device)
    target = data.target.to(run.device)
    grid = settings(network.removesuffix("-raw"), config)
    chosen = 0
    if len(grid) > 1:
        order = data.train[torch.randperm(len(data.train), generator=run.generator("tuning", device="cpu"))]
        held, kept = order[: len(order) // 10], order[len(order) // 10 :]
        scores = [
            accuracy(fit(run, one, inputs, target, kept, held, 0, "tuning-network")[0], inputs, target, held)[
                0
            ]
            for one in grid
        ]
        chosen = max(range(len(grid)), key=scores.__getitem__)
    net, seconds = fit(
        run, grid[chosen], inputs, target, data.train, data.test, config.evaluations, "network"
    )
    everything = torch.arange(len(data))
    _, right = accuracy(net, inputs, target, everything)
    with torch.no_grad():
        net.eval()
        picture = (
            net(inputs[data.test[:1]]).flatten(1).softmax(1).unflatten(1, (config.canvas, config.canvas))[0]
        )
    run.save("right", {"xy": data.xy, "right": right, "test": torch.isin(everything, data.test)})
    run.save("softmax", {"map": picture, "xy": data.xy[data.test[0]]})
    return {
        "test_accuracy": right[data.test].float().mean().item(),
        "train_accuracy": right[data.train].float().mean().item(),
        "parameters": parameters(net),
        "setting": float(chosen),
        "train_seconds": seconds,
    }
