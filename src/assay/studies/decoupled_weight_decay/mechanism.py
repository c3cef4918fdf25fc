"""Which weights decay shrinks, what normalising the decay does, and schedules."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from assay.analysis.scaling import interpolated_minimum
from assay.lab import Batch
from assay.studies.decoupled_weight_decay.config import BudgetConfig, ScheduleConfig, ShrinkConfig
from assay.studies.decoupled_weight_decay.grids import OPTIMISERS
from assay.studies.decoupled_weight_decay.training import Cell, cosine, load, train


def shrink(run: Batch, pairs: list[tuple[str, int]], config: ShrinkConfig) -> Iterable[dict[str, float]]:
    """log(|weight without decay| / |weight with it|) against the root of the second moment, in quantile groups.

    The seed, the initial weights and the batches of both runs are the same.
    """
    for number in run.steps(len(pairs)):
        arm, seed = pairs[number]
        kind, decay = OPTIMISERS[arm.split("/")[1]]
        value = config.l2 if decay == "l2" else config.decay
        found = train(
            run,
            load(run, seed, config.data),
            seed,
            [Cell(config.rate, 0.0), Cell(config.rate, value)],
            kind=kind,
            decay=decay,
            hidden=config.hidden,
            batch=config.batch,
            steps=config.steps,
        )
        weights = [p for p in found.net.parameters() if p.ndim > 2]
        without, with_decay = (torch.cat([p.detach()[k].flatten() for p in weights]).abs() for k in (0, 1))
        moments = torch.cat([found.optimizer.state[p]["square"][0].flatten() for p in weights])
        sizes, shrinks = groups(moments.sqrt(), without, with_decay, config.groups)
        slope = np.polyfit(np.log(sizes), shrinks, 1)[0]
        run.save("groups", {"sizes": sizes, "shrinks": shrinks}, arm=arm, seed=seed)
        yield {
            "slope": float(slope),
            "mean_shrink": float(shrinks.mean()),
            "error_without": float(found.report[0]),
            "error_with": float(found.report[1]),
        }


def groups(size: Tensor, without: Tensor, with_decay: Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Geometric mean of `size` and mean of log(without / with) in `count` quantile groups of size.

    Weights whose inputs are always zero (the digits' margins) have no gradient and are left out.
    """
    kept = (size > 0) & (without > 0) & (with_decay > 0)
    order = size[kept].argsort()
    ratio = (without[kept] / with_decay[kept]).log()[order].double()
    logs = size[kept].log()[order].double()
    parts = zip(logs.tensor_split(count), ratio.tensor_split(count), strict=True)
    found = np.array([(float(a.mean()), float(b.mean())) for a, b in parts])
    return np.exp(found[:, 0]), found[:, 1]


def budgets(run: Batch, pairs: list[tuple[str, int]], config: BudgetConfig) -> Iterable[dict[str, float]]:
    """The best decay for short and long runs: raw, and normalised by the square root of the number of steps.

    With batch b of B images for T epochs a run has BT / b steps, so the normalised decay is the raw one times the root
    of the steps.
    """
    for number in run.steps(len(pairs)):
        arm, seed = pairs[number]
        kind, decay = OPTIMISERS[arm.split("/")[1]]
        task = load(run, seed, config.data)
        metrics: dict[str, float] = {}
        best, table = [], []
        for steps in config.budgets:
            found = train(
                run,
                task,
                seed,
                [Cell(config.rate, value) for value in config.decays],
                kind=kind,
                decay=decay,
                hidden=config.hidden,
                batch=config.batch,
                steps=steps,
                norm=True,
            )
            errors = ((found.select + found.report) / 2).double().cpu().numpy()
            table.append(errors)
            smooth = np.convolve(np.pad(errors, 1, mode="edge"), (0.25, 0.5, 0.25), mode="valid")
            value, edge = interpolated_minimum(np.array(config.decays), smooth)
            best.append(value)
            metrics |= {
                f"best_{steps}": value,
                f"best_norm_{steps}": value * math.sqrt(steps),
                f"edge_{steps}": float(edge),
                f"error_{steps}": float(errors.min()),
            }
        raw = np.log2(best)
        norm = raw + 0.5 * np.log2(config.budgets)
        run.save("errors", {"errors": np.array(table), "decays": np.array(config.decays)}, arm=arm, seed=seed)
        yield metrics | {"raw_spread": float(np.ptp(raw)), "norm_spread": float(np.ptp(norm))}


SCHEDULES = ("constant", "drops", "cosine", "restarts")


def multiplier(name: str, steps: int, first: int) -> list[float]:
    """The multiplier of every step of a run."""
    if name == "constant":
        return [1.0] * steps
    if name == "drops":
        return [1.0 if t < steps / 2 else 0.1 if t < 0.8 * steps else 0.01 for t in range(steps)]
    if name == "cosine":
        return [float(cosine(steps)(t)) for t in range(steps)]
    values: list[float] = []
    period = first
    while len(values) < steps:
        values += [float(cosine(period)(t)) for t in range(period)]
        period *= 2
    return values[:steps]


def schedules(run: Batch, pairs: list[tuple[str, int]], config: ScheduleConfig) -> Iterable[dict[str, float]]:
    """Four schedules times three decays, one ensemble a seed; test error during training and at the end."""
    for number in run.steps(len(pairs)):
        arm, seed = pairs[number]
        optimiser = arm.split("/")[1]
        kind, decay = OPTIMISERS[optimiser]
        sgd = "sgd" in optimiser
        decays = config.sgd_decays if sgd else config.adam_decays
        cells = [Cell(config.sgd_rate if sgd else config.adam_rate, d) for _ in SCHEDULES for d in decays]
        table = torch.tensor([multiplier(s, config.steps, config.first_period) for s in SCHEDULES])
        table = table.repeat_interleave(len(decays), 0)
        seen: list[tuple[int, Tensor]] = []
        found = train(
            run,
            load(run, seed, config.data),
            seed,
            cells,
            kind=kind,
            decay=decay,
            hidden=config.hidden,
            batch=config.batch,
            steps=config.steps,
            schedule=lambda t, table=table: table[:, t],
            norm=True,
            every=25,
            look=lambda step, errors, seen=seen: seen.append((step, errors)),
        )
        metrics = {}
        for k, name in enumerate(SCHEDULES):
            mine = slice(k * len(decays), (k + 1) * len(decays))
            chosen = int(found.select[mine].argmin())
            metrics[f"error_{name}"] = float(found.report[mine][chosen])
            for step, errors in seen:
                run.log(step, arm=arm, seed=seed, **{name: float(errors[mine][chosen])})
            run_errors = [float(errors[mine][chosen]) for _, errors in seen]
            metrics[f"anytime_{name}"] = float(np.mean(run_errors))
        yield metrics
