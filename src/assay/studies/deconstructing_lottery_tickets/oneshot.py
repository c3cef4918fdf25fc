"""Which weights to keep: every criterion prunes the same dense network once, to each density, and retrains."""

from collections.abc import Iterator

from assay.lab import Batch
from assay.studies.deconstructing_lottery_tickets import study
from assay.studies.deconstructing_lottery_tickets.common import Bench, area, as_step, layer_densities
from assay.studies.deconstructing_lottery_tickets.config import OneshotConfig


@study.batch("oneshot/*", config="oneshot", group="seed")
def criteria(run: Batch, pairs: list[tuple[str, int]], config: OneshotConfig) -> Iterator[dict[str, float]]:
    """All criteria of one seed."""
    seed = pairs[0][1]
    bench = Bench(lambda name: run.generator(name, seed, "cpu"), run.device, config)
    progress = iter(run.steps(len(pairs) * len(config.densities)))
    dense = bench.pruner("large_final", 0.5)
    dense.train_dense()
    for arm, _ in pairs:
        pruner = bench.pruner(arm.partition("/")[2], 0.5, like=dense)
        pruner.train_fn = bench.trainer(config.retrain)
        reached, early = [], []
        for density in config.densities:
            next(progress, None)
            masks = pruner.one_shot_masks(layer_densities(pruner.rates, density))
            metrics = pruner.branch(dense.train_dense(), masks).metrics
            reached.append(metrics["accuracy"])
            early.append(metrics["early_accuracy"])
            run.log(as_step(density), arm=arm, seed=seed, accuracy=reached[-1], early_accuracy=early[-1])
        yield {
            "area": area(config.densities, reached),
            "early_area": area(config.densities, early),
            "smallest_accuracy": reached[config.densities.index(min(config.densities))],
        }
