"""One search for every batch size: trials of all seeds as one ensemble, first crossings of the goal, edges widened."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from assay.analysis.scaling import interpolated_minimum, lr_rule_error, scaling_curve
from assay.analysis.search import (
    LogUniform,
    QuasiRandomSearch,
    best_within,
    measurement_table,
    steps_to_result,
)
from assay.data import EpochBatches, ImageSet, digits, fashion_mnist, mnist, mnist5k
from assay.lab import Batch
from assay.nn import EnsembleMLP, ensemble_cross_entropy, ensemble_error
from assay.optim import EnsembleOptimizer, select_members


@dataclass(frozen=True)
class Workload:
    """What an arm trains."""

    hidden: tuple[int, ...]
    goal: float
    data: str = ""  # another data set than the config's
    examples: int = 0  # train on so many only; 0: all
    smoothing: float = 0.0
    batch_sizes: tuple[int, ...] = ()  # others than the config's


WORKLOADS = {
    "mlp": Workload((64,), 0.08),
    "softmax": Workload((), 0.12),
    "deep": Workload((64, 64, 64), 0.08),
    "digits": Workload((64,), 0.06, data="digits"),
    "subset": Workload((64,), 0.14, examples=1000),
    "smoothed": Workload((64,), 0.08, smoothing=0.1, batch_sizes=(64, 256, 1024)),
}


@dataclass(frozen=True)
class SweepConfig:
    data: str = "mnist5k"  # mnist5k, digits, or mnist / fashion-mnist from `source`
    source: str = "hub"  # of the full sets: "hub" or a folder of IDX files
    batch_sizes: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
    trials: int = 8  # points of a search
    rates: tuple[float, float] = (0.005, 2.56)  # box of plain SGD
    momentum_rates: tuple[float, float] = (0.00125, 0.64)  # box with momentum
    momentum: float = 0.9
    widenings: int = 2  # at most, where the best rate lies at the edge
    first_limit: int = 4000  # steps at the smallest batch size
    patience: float = 2.5  # limit at the others: times the best of the batch size before
    evaluations: int = 200  # a run; every step where there are fewer steps
    easy_goal: float = 0.15  # one that all models reach: for comparing them at the same error
    goal: float = 0.0  # instead of the workload's own; 0: its own
    anchor: int = 16  # batch size at which the rules for the learning rate are fixed
    early: tuple[int, int] = (4, 16)  # batch sizes between which the early slope is taken
    late: tuple[int, int] = (256, 1024)


@dataclass(frozen=True)
class BudgetConfig:
    data: str = "mnist5k"
    source: str = "hub"
    batch_sizes: tuple[int, ...] = (16, 64, 256, 1024)
    trials: int = 8
    rates: tuple[float, float] = (0.005, 2.56)
    steps: int = 400  # step budget
    examples: int = 12_000  # example budget
    long_steps: int = 800  # enough to saturate at every batch size
    hidden: tuple[int, ...] = (64,)


@dataclass(frozen=True)
class Split:
    """Training and validation inputs of every seed: [seeds, n, inputs], labels [seeds, n]."""

    x: Tensor
    y: Tensor
    valid_x: Tensor
    valid_y: Tensor


def load(name: str, source: str, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training and validation images of one seed's split."""
    if name == "mnist5k":
        splits = mnist5k(pool=2, split_seed=seed)
    elif name == "digits":
        splits = digits(split_seed=seed)
    else:
        splits = (mnist if name == "mnist" else fashion_mnist)(source, seed).pooled(2)
        return splits.train, splits.valid
    # The small sets have no test images to keep apart here: all that is not trained on validates.
    held = ImageSet(
        torch.cat([splits.valid.images, splits.test.images]),
        torch.cat([splits.valid.labels, splits.test.labels]),
        splits.train.classes,
    )
    return splits.train, held


def prepare(run: Batch, seeds: list[int], name: str, source: str, examples: int = 0) -> Split:
    """The splits of these seeds, standardised by one mean and one deviation."""
    parts: list[list[Tensor]] = [[], [], [], []]
    for seed in seeds:
        train, valid = load(name, source, seed)
        train = train.subset(slice(0, examples or len(train)))
        mean, std = train.images.mean(), train.images.std()
        for part, images in ((0, train), (2, valid)):
            parts[part].append(((images.images - mean) / std).flatten(1))
            parts[part + 1].append(images.labels)
    return Split(*(torch.stack(part).to(run.device) for part in parts))


@dataclass(frozen=True)
class Member:
    """One trial of one seed's search."""

    seed: int  # index into the split
    trial: int
    rate: float
    limit: int  # steps


def train(
    run: Batch,
    split: Split,
    seeds: list[int],
    members: list[Member],
    batch_size: int,
    kind: str,
    hidden: tuple[int, ...],
    *,
    goal: float | None,
    momentum: float = 0.9,
    smoothing: float = 0.0,
    evaluations: int = 200,
    dense: int = 0,
) -> list[dict[str, float | int | str]]:
    """Train all members as one ensemble; a seed's members stop together, whatever other seeds do.

    They stop when one has beaten `goal` and at least half of the feasible ones have, or at their limit. A member stops
    by itself one evaluation after it beat the goal: what it does later does not enter.
    Returns rows for `measurement_table`: one an evaluation of a member, `seed` among them.
    """

    def stream(name: str) -> list[torch.Generator]:
        return [run.generator(f"{name}-{m.trial}", seeds[m.seed], device="cpu") for m in members]

    sizes = (split.x.shape[2], *hidden, int(split.y.max()) + 1)
    net = EnsembleMLP(sizes, len(members), generators=stream("init")).to(run.device)
    rates = torch.tensor([m.rate for m in members])
    optimizer = EnsembleOptimizer(net.parameters(), kind, lr=rates.to(run.device), momentum=momentum)
    n = split.x.shape[1]
    batches = EpochBatches(n, batch_size, stream("order"))
    flat_x, flat_y = split.x.flatten(0, 1), split.y.flatten()
    rows: list[dict[str, float | int | str]] = []
    alive = list(members)
    reached: set[tuple[int, int]] = set()
    diverged: set[tuple[int, int]] = set()
    intervals = {m.seed: max(1, math.ceil(m.limit / evaluations)) for m in members}
    where = torch.tensor([m.seed for m in alive])
    valid_x, valid_y = split.valid_x[where], split.valid_y[where]
    step = 0
    while alive:
        step += 1
        index = (next(batches) + where[:, None] * n).to(run.device)
        optimizer.zero_grad()
        losses = ensemble_cross_entropy(net(flat_x[index]), flat_y[index], label_smoothing=smoothing)
        losses.sum().backward()
        optimizer.step()
        due = {m.seed for m in alive if step % intervals[m.seed] == 0 or step <= dense or step == m.limit}
        if not due:
            continue
        before = set(reached)
        with torch.no_grad():
            logits = net(valid_x)
            errors = ensemble_error(logits, valid_y).tolist()
            valid_losses = ensemble_cross_entropy(logits, valid_y).tolist()
        for m, error, valid_loss, loss in zip(alive, errors, valid_losses, losses.tolist(), strict=True):
            if m.seed not in due:
                continue
            feasible = math.isfinite(valid_loss) and math.isfinite(loss)
            if not feasible:
                diverged.add((m.seed, m.trial))
            elif goal is not None and error < goal:
                reached.add((m.seed, m.trial))
            rows.append(
                {
                    "seed": m.seed,
                    "trial": m.trial,
                    "batch_size": batch_size,
                    "rate": m.rate,
                    "step": step,
                    "status": "complete" if feasible else "infeasible",
                    "train_loss": loss if feasible else math.nan,
                    "valid_loss": valid_loss if feasible else math.nan,
                    "valid_error": error if feasible else math.nan,
                }
            )
        finished = set()
        for seed in due:
            count = sum(m.seed == seed and (seed, m.trial) not in diverged for m in members)
            done = sum(s == seed for s, _ in reached)
            limit = next(m.limit for m in alive if m.seed == seed)
            if (done and 2 * done >= count) or step >= limit:
                finished.add(seed)
        over = diverged | {key for key in before if key[0] in due}
        keep = [m.seed not in finished and (m.seed, m.trial) not in over for m in alive]
        if not all(keep):
            alive = [m for m, stays in zip(alive, keep, strict=True) if stays]
            if alive:
                chosen = torch.tensor(keep).nonzero().squeeze(1)
                select_members(net, optimizer, chosen.to(run.device))
                batches.select(chosen)
                where = torch.tensor([m.seed for m in alive])
                valid_x, valid_y = split.valid_x[where], split.valid_y[where]
    return rows


def rates_of(box: tuple[float, float], trials: int, seed: int) -> list[float]:
    """The learning rates of one seed's search, in the order of their trial numbers."""
    return [float(point["rate"]) for point in QuasiRandomSearch({"rate": LogUniform(*box)}, trials, seed)]  # type: ignore[arg-type]


def beyond(rates: list[float], best: float, seed: int, points: int = 2, factor: float = 4.0) -> list[float]:
    """Rates to try next where the best of them is the lowest or the highest: the box goes on by `factor`."""
    low, high = min(rates), max(rates)
    if best == low:
        return rates_of((low / factor, low), points, seed + 1)
    return rates_of((high, high * factor), points, seed + 1) if best == high else []


def search(run: Batch, pairs: list[tuple[str, int]], config: SweepConfig) -> Iterable[dict[str, float]]:
    """Steps to result for every batch size of one workload and optimiser, all seeds together."""
    model, kind = pairs[0][0].split("/")
    work = WORKLOADS[model]
    goal = config.goal or work.goal
    seeds = [seed for _, seed in pairs]
    split = prepare(run, seeds, work.data or config.data, config.source, work.examples)
    box = config.rates if kind == "sgd" else config.momentum_rates
    sizes = [b for b in work.batch_sizes or config.batch_sizes if b <= split.x.shape[1]]
    limits = dict.fromkeys(range(len(seeds)), config.first_limit)
    rows: list[dict[str, float | int | str]] = []
    edges = dict.fromkeys(range(len(seeds)), 0)
    widened = dict.fromkeys(range(len(seeds)), 0)

    for position in run.steps(len(sizes)):
        size = sizes[position]
        rates = {k: rates_of(box, config.trials, seed) for k, seed in enumerate(seeds)}
        todo = [Member(k, t, rate, limits[k]) for k in rates for t, rate in enumerate(rates[k])]
        found: list[dict[str, float | int | str]] = []
        for widening in range(config.widenings + 1):
            found += train(
                run,
                split,
                seeds,
                todo,
                size,
                kind,
                work.hidden,
                goal=goal,
                momentum=config.momentum,
                smoothing=work.smoothing,
                evaluations=config.evaluations,
            )
            table = DataFrame(found)
            best = steps_to_result(table, goal, group_by="seed").set_index("seed")
            todo = []
            for k in range(len(seeds)):
                steps = best["steps"][k]
                if math.isnan(steps):
                    continue
                limits[k] = max(1, math.ceil(config.patience * steps))
                further = beyond(rates[k], rates[k][int(best["trial"][k])], seeds[k])
                if further and widening == config.widenings:
                    edges[k] += 1
                elif further:
                    first = len(rates[k])
                    rates[k] += further
                    widened[k] += 1
                    todo += [Member(k, first + t, rate, limits[k]) for t, rate in enumerate(further)]
            if not todo:
                break
        rows += found

    for k, (arm, seed) in enumerate(pairs):
        mine = measurement_table([row for row in rows if row["seed"] == k])
        run.save(
            "measurements",
            {
                name: mine[name].to_numpy(dtype=np.float32)
                for name in ("trial", "batch_size", "rate", "step", "train_loss", "valid_loss", "valid_error")
            },
            arm=arm,
            seed=seed,
        )
        yield summary(mine, goal, config) | {"edges": float(edges[k]), "widened": float(widened[k])}


def best_rates(table: DataFrame, goal: float, sizes: list[int]) -> list[float]:
    """The best learning rate of every batch size, read between the trials by a parabola."""
    found = []
    each = steps_to_result(table, goal, group_by=["batch_size", "rate"])
    for size in sizes:
        mine = each[each["batch_size"] == size].sort_values("rate")
        steps = mine["steps"].to_numpy()
        found.append(interpolated_minimum(mine["rate"], steps)[0] if np.isfinite(steps).any() else math.nan)
    return found


def summary(table: DataFrame, goal: float, config: SweepConfig) -> dict[str, float]:
    """One seed's metrics from its raw measurements."""
    steps = steps_to_result(table, goal)
    sizes, counts = [int(b) for b in steps["batch_size"]], steps["steps"].tolist()
    easy = steps_to_result(table, config.easy_goal)["steps"].tolist()
    twice = steps_to_result(table, goal, consecutive=2)["steps"].tolist()
    rates = best_rates(table, goal, sizes)
    metrics: dict[str, float] = {}
    for k, size in enumerate(sizes):
        metrics |= {f"steps_{size}": counts[k], f"easy_steps_{size}": easy[k], f"twice_{size}": twice[k]}
        metrics[f"rate_{size}"] = rates[k]
    metrics |= {"steps_smallest": counts[0], "steps_largest": counts[-1]}
    metrics["trials"] = float(steps["trials"].sum())
    metrics["infeasible"] = float(steps["infeasible"].sum())
    missing = {"early_slope", "late_slope", "s_min", "b_critical", "fit_r2", "easy_b_critical"}
    if len(sizes) >= 3 and all(map(math.isfinite, counts)):
        curve, fit = scaling_curve(sizes, counts), scaling_curve(sizes, counts).fit()
        metrics |= {"s_min": fit.s_min, "b_critical": fit.b_critical, "fit_r2": fit.r2}
        for name, (low, high) in (("early_slope", config.early), ("late_slope", config.late)):
            if low in sizes and high in sizes:
                metrics[name] = curve.slope(low, high)
        if all(map(math.isfinite, easy)):
            metrics["easy_b_critical"] = scaling_curve(sizes, easy).fit().b_critical
    metrics |= dict.fromkeys(missing - set(metrics), math.nan)
    if config.anchor in sizes and all(map(math.isfinite, rates)):
        metrics["linear_error"] = lr_rule_error(sizes, rates, "linear", config.anchor)
        metrics["sqrt_error"] = lr_rule_error(sizes, rates, "sqrt", config.anchor)
    return metrics


def budgets(run: Batch, pairs: list[tuple[str, int]], config: BudgetConfig) -> Iterable[dict[str, float]]:
    """Best validation error of a full search at every batch size, within a budget of steps and of examples."""
    seeds = [seed for _, seed in pairs]
    split = prepare(run, seeds, config.data, config.source)
    rows: list[dict[str, float | int | str]] = []
    for position in run.steps(len(config.batch_sizes)):
        size = config.batch_sizes[position]
        limit = max(config.long_steps, config.examples // size)
        todo = [
            Member(k, t, rate, limit)
            for k, seed in enumerate(seeds)
            for t, rate in enumerate(rates_of(config.rates, config.trials, seed))
        ]
        # Twelve steps of 1,024 examples are the whole example budget: look at every one of the first.
        rows += train(
            run, split, seeds, todo, size, "sgd", config.hidden, goal=None, evaluations=100, dense=50
        )
    for k, (arm, seed) in enumerate(pairs):
        mine = measurement_table([row for row in rows if row["seed"] == k])
        metrics = {}
        for name, limits in (
            ("step", {"steps": config.steps}),
            ("example", {"examples": config.examples}),
            ("long", {"steps": config.long_steps}),
        ):
            found = best_within(mine, **limits)  # type: ignore[arg-type]
            for size, error in zip(found["batch_size"], found["best"], strict=True):
                metrics[f"{name}_error_{int(size)}"] = 100 * float(error)
            metrics[f"{name}_error_smallest"] = metrics[f"{name}_error_{min(config.batch_sizes)}"]
            metrics[f"{name}_error_largest"] = metrics[f"{name}_error_{max(config.batch_sizes)}"]
        columns = ("trial", "batch_size", "rate", "step", "train_loss", "valid_loss", "valid_error")
        run.save("measurements", {c: mine[c].to_numpy(dtype=np.float32) for c in columns}, arm=arm, seed=seed)
        yield metrics
