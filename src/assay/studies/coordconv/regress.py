"""Task 2, supervised regression: a one-hot canvas to the (x, y) of its lit pixel."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from assay.data.shapes import NotSoClevr, Split
from assay.lab import Trial
from assay.nn.painters import ConvRegressor, CoordRegressor
from assay.studies.coordconv.common import Stopwatch, batches, build, checkpoints, one_cycle, parameters


@dataclass(frozen=True)
class RegressConfig:
    canvas: int = 32
    radius: int = 4  # decides which centres exist; the square itself is not shown
    strict: bool = False
    amplitude: float = 30.0  # value of the lit pixel
    batch: int = 32
    decay: float = 1e-5
    coord_rate: float = 1e-2
    coord_steps: int = 300
    dense_rate: float = 3e-2
    strided_rate: float = 3e-2
    conv_steps: int = 500
    evaluations: int = 20


def network(name: str, config: RegressConfig) -> nn.Module:
    """`coordconv`, `dense` or `strided`, the last two with `-circular` or `-reflect` padding if asked for."""
    kind, _, padding = name.partition("-")
    if kind == "coordconv":
        return CoordRegressor(amplitude=config.amplitude)
    return ConvRegressor(config.canvas, kind, config.amplitude, padding or "zeros")


def predict(net: nn.Module, onehot: Tensor) -> Tensor:
    """Positions in pixels."""
    net.eval()
    with torch.no_grad():
        found = torch.cat([net(part) for part in onehot.split(144)]) * onehot.shape[-1]
    net.train()
    return found


def trial(run: Trial, arm: str, config: RegressConfig) -> dict[str, float]:
    """One regressor on one split; errors are distances in pixels."""
    split, _, name = arm.removeprefix("regress/").partition("-")
    kind: Split = "quadrant" if split == "quadrant" else "uniform"
    seed = run.generator("split", device="cpu").initial_seed()
    data = NotSoClevr(config.canvas, config.radius, kind, seed, config.strict)
    # Few channels: the channels-last layout halves the time of these convolutions.
    onehot = data.onehot.to(run.device).contiguous(memory_format=torch.channels_last)
    xy = data.xy.to(run.device)
    net = build(run, lambda: network(name, config)).to(memory_format=torch.channels_last)
    rates = {"coordconv": config.coord_rate, "dense": config.dense_rate, "strided": config.strided_rate}
    rate = rates[name.partition("-")[0]]
    steps = config.coord_steps if name == "coordconv" else config.conv_steps
    optimizer = torch.optim.Adam(net.parameters(), rate, weight_decay=config.decay)
    schedule = one_cycle(optimizer, rate, steps)
    draw = batches(data.train, config.batch, run.generator("batches", device="cpu"))
    look, watch = checkpoints(steps, config.evaluations), Stopwatch()

    def errors() -> Tensor:
        return (predict(net, onehot) - xy).norm(dim=1)

    for step in run.steps(steps):
        with watch:
            index = next(draw)
            loss = mse_loss(net(onehot[index]), xy[index] / config.canvas)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        if step in look:
            error = errors()
            run.log(
                step + 1,
                train_error=error[data.train].mean(),
                test_error=error[data.test].mean(),
                seconds=watch.seconds,
            )
    found = predict(net, onehot)
    error = (found - xy).norm(dim=1)
    run.save("found", {"xy": xy, "found": found, "test": torch.isin(torch.arange(len(data)), data.test)})
    guess = (xy[data.train].mean(0) - xy[data.test]).norm(dim=1).mean()
    return {
        "test_error": error[data.test].mean().item(),
        "train_error": error[data.train].mean().item(),
        "guess_error": guess.item(),  # of always answering the mean training position: a stalled network
        "parameters": parameters(net),
    }
