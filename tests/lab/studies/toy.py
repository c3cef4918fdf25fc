"""Toy: adds a gain. The plain case: trials, a batch, an extra arm, a figure."""

from dataclasses import dataclass, field

import torch

from assay.lab import Arm, Batch, Claim, Difference, Level, Paper, Question, Results, Study, Trial


@dataclass(frozen=True)
class Inner:
    """Values of the batch."""

    shift: float = 1.0


@dataclass(frozen=True)
class Config:
    """Laptop values."""

    steps: int = 5
    gain: float = 1.0
    pause: float = 0.0
    inner: Inner = field(default_factory=Inner)


study = Study(
    number=901,
    id="toy",
    paper=Paper("A toy", "Nobody", 2020),
    domain="test",
    arms=("plain", "gain", Arm("many", seeds=30), Arm("more", extra=True, seeds=2)),
    config=Config(),
    claims=(
        Claim("gain-helps", "Gain helps.", "1.0", Difference("y", arm="gain", versus="plain", at_least=0.5)),
        Claim("many-high", "Many are high.", "1.0", Level("y", arm="many", at_least=0.5)),
    ),
    profiles={"smoke": {"steps": 2, "seeds": 2}, "paper": {"steps": 50, "inner.shift": 2.0}},
    mechanisms={"addition": "arm:gain"},
    questions=(Question("more", "What of more?", ("more",), "More of the same."),),
    usage="print(1 + 1)",
)


@study.trial("plain", "gain", "more")
def trial(run: Trial, arm: str, config: Config) -> dict[str, float]:
    import time

    noise = 0.1 * torch.randn((), generator=run.generator("noise"))
    for step in run.steps(config.steps):
        time.sleep(config.pause)
        run.log(step, loss=noise / (step + 1))
    run.save("noise", noise)
    run.save("tune.mid", b"MThd")
    return {"y": noise.item() + config.gain * (arm == "gain"), "steps": config.steps}


@study.batch("many", config="inner", group="arm", size=16)
def many(run: Batch, pairs: list[tuple[str, int]], config: Inner):
    noise = torch.stack([0.3 * torch.randn((), generator=run.generator("noise", seed)) for _, seed in pairs])
    for (arm, seed), y in zip(pairs, noise + config.shift, strict=True):
        run.log(0, arm=arm, seed=seed, y=y)
        yield {"y": y}


@study.figure("The gain")
def gain(results: Results):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    axes.plot(results.metric("gain", "y"))
    return figure


@study.figure("More", question="more")
def more(results: Results):
    return gain(results) if "more" in results.arms else None
