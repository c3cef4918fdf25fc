"""Task 3, rendering: (x, y) to the square at that place; and the control, from a one-hot canvas to the square."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from assay.data.shapes import NotSoClevr, Split
from assay.lab import Trial
from assay.nn.painters import CoordPainter, DeconvPainter, scale_positions
from assay.studies.coordconv.common import Stopwatch, batches, build, checkpoints, one_cycle, parameters


@dataclass(frozen=True)
class PaintConfig:
    canvas: int = 32
    radius: int = 4
    strict: bool = False
    batch: int = 32
    coord_widths: tuple[int, ...] = (16, 16, 16)
    coord_refine: tuple[int, ...] = (8,)
    coord_rate: float = 3e-2
    coord_steps: int = 300
    deconv_filter: int = 4
    deconv_multiplier: int = 1
    deconv_rate: float = 1e-2
    deconv_steps: int = 600
    onehot_rate: float = 3e-2
    onehot_steps: int = 300
    evaluations: int = 20


def network(name: str, config: PaintConfig) -> nn.Module:
    """`coordconv`, `deconv`, or `onehot`: two plain convolutions whose view just spans the square."""
    if name == "coordconv":
        return CoordPainter(config.canvas, widths=config.coord_widths, refine=config.coord_refine)
    if name == "deconv":
        return DeconvPainter(config.canvas, config.deconv_filter, config.deconv_multiplier)
    side = config.radius + 1 + config.radius % 2  # two such filters see 2 * side - 1 >= 2 * radius + 1 pixels
    return nn.Sequential(
        nn.Conv2d(1, 8, side, padding=side // 2), nn.ReLU(), nn.Conv2d(8, 1, side, padding=side // 2)
    )


def overlap(painted: Tensor, wanted: Tensor) -> Tensor:
    """Intersection over union of each painted square (pixels with a positive logit) and the wanted one."""
    lit, want = painted > 0, wanted > 0.5
    return (lit & want).flatten(1).sum(1) / (lit | want).flatten(1).sum(1)


def trial(run: Trial, arm: str, config: PaintConfig) -> dict[str, float]:
    """One painter on one split."""
    split, _, name = arm.removeprefix("paint/").partition("-")
    kind: Split = "quadrant" if split == "quadrant" else "uniform"
    seed = run.generator("split", device="cpu").initial_seed()
    data = NotSoClevr(config.canvas, config.radius, kind, seed, config.strict)
    image = data.image.to(run.device)
    inputs = (data.onehot if name == "onehot" else scale_positions(data.xy, config.canvas)).to(run.device)
    net = build(run, lambda: network(name, config))
    rate = getattr(config, f"{name.replace('coordconv', 'coord')}_rate")
    steps = getattr(config, f"{name.replace('coordconv', 'coord')}_steps")
    optimizer = torch.optim.Adam(net.parameters(), rate)
    schedule = one_cycle(optimizer, rate, steps)
    draw = batches(data.train, config.batch, run.generator("batches", device="cpu"))
    look, watch = checkpoints(steps, config.evaluations), Stopwatch()

    def paint() -> Tensor:
        net.eval()
        with torch.no_grad():
            painted = torch.cat([net(part) for part in inputs.split(72)])
        net.train()
        return painted

    for step in run.steps(steps):
        with watch:
            index = next(draw)
            loss = binary_cross_entropy_with_logits(net(inputs[index]), image[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        if step in look:
            iou = overlap(paint(), image)
            run.log(
                step + 1,
                train_iou=iou[data.train].mean(),
                test_iou=iou[data.test].mean(),
                seconds=watch.seconds,
            )
    painted = paint()
    iou = overlap(painted, image)
    shown = data.test[:: max(len(data.test) // 8, 1)][:8]
    run.save("pictures", {"painted": painted[shown, 0].sigmoid().half(), "wanted": image[shown, 0].half()})
    return {
        "test_iou": iou[data.test].mean().item(),
        "train_iou": iou[data.train].mean().item(),
        "parameters": parameters(net),
    }
