"""Masks on weights that were never trained: what does a mask know by itself?"""

from collections.abc import Iterator

import torch
from torch import Tensor

from assay.analysis.pruning import CRITERIA, RESETS, SwapIn, build_mask
from assay.lab import Batch
from assay.studies.deconstructing_lottery_tickets import study
from assay.studies.deconstructing_lottery_tickets.common import Bench, as_step, layer_densities
from assay.studies.deconstructing_lottery_tickets.config import SupermaskConfig


@study.batch("supermask/*", config="supermask", group="seed")
def untrained(
    run: Batch, pairs: list[tuple[str, int]], config: SupermaskConfig
) -> Iterator[dict[str, float]]:
    """All criteria of one seed: their masks come from one dense run, and meet its initial weights."""
    seed = pairs[0][1]
    bench = Bench(lambda name: run.generator(name, seed, "cpu"), run.device, config)
    pruner = bench.pruner("large_final", 0.5)
    dense = pruner.train_dense()
    init = pruner.store.get(0).model
    constant = {
        name: RESETS["signed_constant"](init[name], dense.final[name], mask)
        for name, mask in dense.masks.items()
    }
    bench.draw = bench.stream("init")
    network = bench.network()
    for arm, _ in run_pairs(run, pairs):
        name = arm.partition("/")[2]
        ties = bench.stream(arm)
        found: dict[str, list[tuple[float, float]]] = {"init": [], "constant": []}
        scores = {layer: CRITERIA[name].score(init[layer], w) for layer, w in dense.final.items()}
        for density in config.densities:
            wanted = layer_densities(scores, density)
            masks = {layer: build_mask(s, wanted[layer], generator=ties) for layer, s in scores.items()}
            for kind, weights in (("init", init), ("constant", constant)):
                found[kind].append(masked_accuracy(bench, network, masks, weights))
            run.log(
                as_step(density),
                arm=arm,
                seed=seed,
                **{kind: values[-1][1] for kind, values in found.items()},
            )
        if config.scatter:
            run.save("scatter", scatter(bench, init, dense.final, scores, config), arm=arm, seed=seed)
        metrics = {"dense_accuracy": dense.metrics["accuracy"]}
        for kind, values in found.items():
            # The density is chosen on validation images.
            best = max(range(len(values)), key=lambda k: values[k][0])
            metrics |= {f"{kind}_accuracy": values[best][1], f"{kind}_density": config.densities[best]}
        yield metrics


def run_pairs(run: Batch, pairs: list[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """The pairs, with progress shown."""
    for k in run.steps(len(pairs)):
        yield pairs[k]


@torch.no_grad()
def masked_accuracy(
    bench: Bench, network: torch.nn.Module, masks: dict[str, Tensor], weights: dict[str, Tensor]
) -> tuple[float, float]:
    """Validation and test accuracy of mask times weights, biases as they were drawn (zero)."""
    with SwapIn(network) as swap:
        swap({layer: weights[layer] * mask.to(weights[layer].dtype) for layer, mask in masks.items()})
        return bench.evaluate(network)


def scatter(
    bench: Bench,
    init: dict[str, Tensor],
    final: dict[str, Tensor],
    scores: dict[str, Tensor],
    config: SupermaskConfig,
) -> dict[str, Tensor]:
    """Some weights of the second layer, before and after training, and whether the criterion keeps them."""
    layer = list(scores)[min(1, len(scores) - 1)]
    mask = build_mask(scores[layer], config.scatter_density, generator=bench.stream("scatter ties"))
    order = torch.randperm(mask.numel(), generator=bench.stream("scatter"))[: config.scatter].to(mask.device)
    return {
        "init": init[layer].flatten()[order],
        "final": final[layer].flatten()[order],
        "kept": mask.flatten()[order],
    }
