"""Masks learnt by gradient descent on frozen weights, beside the same network with its weights learnt."""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from assay.data import EpochBatches
from assay.lab import Trial
from assay.nn.supermask import SupermaskConv2d, SupermaskLinear, supermaskify
from assay.studies.deconstructing_lottery_tickets import study
from assay.studies.deconstructing_lottery_tickets.common import Bench
from assay.studies.deconstructing_lottery_tickets.config import LearnedConfig

OPTIONS: dict[str, dict[str, Any]] = {
    "init": {"weights": "init", "dwr": False},
    "init-dwr": {"weights": "init", "dwr": True},
    "constant": {"weights": "signed_constant", "dwr": False},
    "constant-dwr": {"weights": "signed_constant", "dwr": True},
    "round-constant-dwr": {"weights": "signed_constant", "dwr": True, "mode": "round"},
}
"""What each arm gives to `supermaskify`."""


@study.trial("learned/*", config="learned")
def learned(run: Trial, arm: str, config: LearnedConfig) -> dict[str, float]:
    """Learn the scores of frozen weights, or (arm `weights`) the weights, from the same batches."""
    name = arm.partition("/")[2]
    bench = Bench(lambda name: run.generator(name, "cpu"), run.device, config)
    network = bench.network()
    if name == "weights":
        model: nn.Module = network
        optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), config.rate, fused=True)
        draws = 1
    else:
        draw = run.generator("masks")
        options: dict[str, Any] = OPTIONS[name]
        model = supermaskify(network, density=config.density, generator=draw, **options)
        # Norm layers, if any, stay as they are: only scores are learnt.
        scores = [p for key, p in model.named_parameters() if key.endswith("scores")]
        optimizer = torch.optim.SGD(scores, config.mask_rate, momentum=0.9)
        draws = 1 if name.startswith("round") else config.draws
    order = EpochBatches(len(bench.train_y), config.batch, [bench.stream("batches")])
    for step in run.steps(config.steps):
        index = next(order)[0].to(run.device)
        loss = cross_entropy(model(bench.train_x[index]), bench.train_y[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if (step + 1) % config.evaluate_every == 0:
            run.log(step + 1, loss=loss, accuracy=bench.evaluate(model)[1])
    values = [bench.evaluate(model)[1] for _ in range(draws)]
    layers = [m for m in model.modules() if isinstance(m, SupermaskLinear | SupermaskConv2d)]
    sizes = [layer.scores.numel() for layer in layers]
    ones = sum(layer.density() * n for layer, n in zip(layers, sizes, strict=True))
    return {"accuracy": sum(values) / len(values), "density": ones / sum(sizes) if layers else 1.0}
