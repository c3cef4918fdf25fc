"""The heat maps: error over learning rate and decay, for five optimisers with and without batch normalisation."""

from collections.abc import Iterable

import numpy as np

from assay.analysis.grids import best_cell, contour_slope, separability
from assay.lab import Batch
from assay.studies.decoupled_weight_decay.config import GridConfig, geometric
from assay.studies.decoupled_weight_decay.training import Cell, load, train

OPTIMISERS = {
    "l2-sgd": ("momentum", "l2"),
    "sgdw": ("momentum", "independent"),
    "l2-adam": ("adam", "l2"),
    "adamw": ("adam", "independent"),
    "adamw-scaled": ("adam", "lr_scaled"),
}


def axes(config: GridConfig, optimiser: str, norm: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Learning rates and decays of one grid."""
    prefix = "norm_" if norm else ""
    rates = getattr(config, prefix + ("sgd_rates" if "sgd" in optimiser else "adam_rates"))
    middle = getattr(config, prefix + optimiser.replace("-", "_"))
    half = config.decays // 2
    return rates, geometric(middle, config.factor, half, config.decays - half - 1)


def grid(run: Batch, pairs: list[tuple[str, int]], config: GridConfig) -> Iterable[dict[str, float]]:
    """One grid a seed: 40 members, one ensemble."""
    for number in run.steps(len(pairs)):
        arm, seed = pairs[number]
        network, optimiser = arm.split("/")
        norm = network == "norm"
        kind, decay = OPTIMISERS[optimiser]
        rates, decays = axes(config, optimiser, norm)
        found = train(
            run,
            load(run, seed, config.data),
            seed,
            [Cell(rate, value) for rate in rates for value in decays],
            kind=kind,
            decay=decay,
            hidden=config.hidden,
            batch=config.batch,
            steps=config.norm_steps if norm else config.steps,
            norm=norm,
        )
        shape = (len(rates), len(decays))
        select, report, loss = (
            t.double().cpu().numpy().reshape(shape) for t in (found.select, found.report, found.train_loss)
        )
        error, cell, edge = best_cell(select, report)
        metrics = {
            "error": error,
            "best_rate": rates[cell[0]],
            "best_decay": decays[cell[1]],
            "at_edge": float(edge),
            "train_loss": float(loss[cell]),
            "separability": separability((select + report) / 2, cap=2.0),
        }
        try:
            # Slopes use both halves: they compare cells, they do not choose one.
            contour = contour_slope((select + report) / 2, np.array(rates), np.array(decays))
            metrics |= {"slope": contour.slope, "steepness": abs(contour.slope), "r2": contour.r2}
        except ValueError:  # too few cells trained at all (in the smoke profile): no contour
            metrics |= {"slope": np.nan, "steepness": np.nan, "r2": np.nan}
        run.save(
            "grid",
            {"select": select, "report": report, "rates": np.array(rates), "decays": np.array(decays)},
            arm=arm,
            seed=seed,
        )
        yield metrics
