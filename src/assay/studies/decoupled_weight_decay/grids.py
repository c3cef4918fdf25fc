"""The heat maps: error over learning rate and decay, for five optimisers with and without batch normalisation."""

from collections.abc import Iterable

import numpy as np
import torch

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
    """One grid a seed: 40 members, one ensemble; a row or column more where the best cell lies at the edge."""
    for number in run.steps(len(pairs)):
        arm, seed = pairs[number]
        network, optimiser = arm.split("/")
        norm = network == "norm"
        kind, decay = OPTIMISERS[optimiser]
        task = load(run, seed, config.data)

        def fill(
            rates: tuple[float, ...],
            decays: tuple[float, ...],
            task=task,
            seed=seed,
            kind=kind,
            decay=decay,
            norm=norm,
        ) -> np.ndarray:
            """Selection error, reported error and training loss of these cells: [3, rates, decays]."""
            found = train(
                run,
                task,
                seed,
                [Cell(rate, value) for rate in rates for value in decays],
                kind=kind,
                decay=decay,
                hidden=config.hidden,
                batch=config.batch,
                steps=config.norm_steps if norm else config.steps,
                norm=norm,
            )
            parts = torch.stack([found.select, found.report, found.train_loss]).double().cpu().numpy()
            return parts.reshape(3, len(rates), len(decays))

        rates, decays = axes(config, optimiser, norm)
        table = fill(rates, decays)
        widened = 0
        while widened < config.widenings:
            _, (row, column), edge = best_cell(table[0], table[1])
            if not edge:
                break
            widened += 1
            if row in (0, len(rates) - 1):
                more = rates[row] * (rates[1] / rates[0]) ** (1 if row else -1)
                new = fill((more,), decays)
                rates = (*rates, more) if row else (more, *rates)
                table = np.concatenate([table, new] if row else [new, table], 1)
            else:
                more = decays[column] * config.factor ** (1 if column else -1)
                if decay == "independent" and more >= 1:
                    break  # a step would shrink the weights to nothing
                new = fill(rates, (more,))
                decays = (*decays, more) if column else (more, *decays)
                table = np.concatenate([table, new] if column else [new, table], 2)
        select, report, loss = table
        error, cell, edge = best_cell(select, report)
        metrics = {
            "error": error,
            "best_rate": rates[cell[0]],
            "best_decay": decays[cell[1]],
            "at_edge": float(edge),
            "widened": float(widened),
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
