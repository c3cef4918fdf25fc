"""Figures, all recomputed from the raw measurements or from the metrics."""

import numpy as np
from matplotlib.figure import Figure

from assay.lab import Results
from assay.lab.figures import COLOURS, curves, figure
from assay.studies.batch_size_scaling.sweep import WORKLOADS

NAMES = {
    "mlp/sgd": "1 hidden layer, SGD",
    "mlp/momentum": "1 hidden layer, momentum",
    "mlp/nesterov": "1 hidden layer, Nesterov",
    "softmax/sgd": "softmax regression",
    "deep/sgd": "3 hidden layers",
    "digits/sgd": "digits",
    "subset/sgd": "1,000 images",
}


def series(results: Results, arm: str, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """Batch sizes, and the metrics `prefix_<batch size>` [seeds, batch sizes]."""
    seeds = results.seeds(arm)
    names = {
        int(name.removeprefix(prefix)): name
        for name in (results.metrics(arm, seeds[0]) if seeds else {})
        if name.startswith(prefix) and name.removeprefix(prefix).isdigit()
    }
    sizes = sorted(names)
    values = [results.metric(arm, names[size]) for size in sizes]
    return np.array(sizes), np.array(values).T if values else np.empty((0, 0))


def logarithmic(axes, sizes: np.ndarray) -> None:
    """Log-log axes with the batch sizes as ticks."""
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes[::2], [str(int(size)) for size in sizes[::2]])
    axes.minorticks_off()
    axes.set_xlabel("batch size")


def steps_by_batch(results: Results) -> Figure | None:
    """One panel for the optimisers, one for the models and data."""
    if "mlp/sgd" not in results.arms:
        return None
    fig, panels = figure(height=3.2, cols=2, sharey=True)
    lowest, highest = np.inf, 0.0
    for axes, arms in (
        (panels[0], ("mlp/sgd", "mlp/momentum", "mlp/nesterov")),
        (panels[1], ("softmax/sgd", "mlp/sgd", "deep/sgd", "digits/sgd", "subset/sgd")),
    ):
        for arm, colour in zip(arms, COLOURS, strict=False):
            if arm not in results.arms:
                continue
            sizes, steps = series(results, arm, "steps_")
            curves(axes, sizes, steps, NAMES[arm], colour, marker="o", markersize=3)
            if arm == arms[0]:
                first = np.nanmean(steps[:, 0])
                axes.plot(sizes, first * sizes[0] / sizes, "--", color="grey", linewidth=0.8)
                logarithmic(axes, sizes)
            lowest, highest = min(lowest, float(np.nanmin(steps))), max(highest, float(np.nanmax(steps)))
        axes.legend(fontsize=7)
    panels[0].set_ylim(max(1, lowest / 2), 1.5 * highest)
    panels[0].set_ylabel("steps to result")
    return fig


def best_rate(results: Results) -> Figure | None:
    """Best rates, effective rates, and the rules through the anchor."""
    arms = [arm for arm in ("mlp/sgd", "mlp/momentum", "mlp/nesterov") if arm in results.arms]
    if "mlp/sgd" not in arms:
        return None
    fig, panels = figure(height=3.0, cols=2, sharey=True)
    for axes, effective in zip(panels, (False, True), strict=True):
        for arm, colour in zip(arms, COLOURS, strict=False):
            sizes, rates = series(results, arm, "rate_")
            momentum = 0.0 if arm.endswith("sgd") else results.config.sweep.momentum
            shown = rates / (1 - momentum) if effective else rates
            curves(axes, sizes, shown, NAMES[arm].split(", ")[1], colour, marker="o", markersize=3)
        sizes, rates = series(results, "mlp/sgd", "rate_")
        anchor = results.config.sweep.anchor
        if anchor in sizes:
            at = np.nanmean(rates[:, list(sizes).index(anchor)])
            axes.plot(sizes, at * sizes / anchor, ":", color="grey", label="linear rule")
            axes.plot(sizes, at * np.sqrt(sizes / anchor), "--", color="grey", label="square-root rule")
        axes.set_ylim(np.nanmin(rates) / 16, np.nanmax(rates) * 8)
        logarithmic(axes, sizes)
        axes.set_title("rate / (1 - momentum)" if effective else "learning rate")
    panels[0].legend(fontsize=7)
    return fig


def budget_errors(results: Results) -> Figure | None:
    """Best error against batch size under three budgets."""
    if "budget/sgd" not in results.arms:
        return None
    config = results.config.budget
    fig, axes = figure(height=3.0)
    for name, label, colour in zip(
        ("example", "step", "long"),
        (f"{config.examples:,} examples", f"{config.steps:,} steps", f"{config.long_steps:,} steps"),
        COLOURS,
        strict=False,
    ):
        sizes, errors = series(results, "budget/sgd", f"{name}_error_")
        curves(axes, sizes, errors, label, colour, marker="o", markersize=3)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(int(size)) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("batch size")
    axes.set_ylabel("best validation error, %")
    axes.legend()
    return fig


def trials(results: Results) -> Figure | None:
    """Steps to the goal of every trial of plain SGD and momentum, over rate and batch size."""
    arms = [arm for arm in ("mlp/sgd", "mlp/momentum") if arm in results.arms]
    tables = {
        arm: [results.artifact(arm, seed, "measurements") for seed in results.seeds(arm)] for arm in arms
    }
    if not arms or any(table is None for found in tables.values() for table in found):
        return None
    fig, panels = figure(height=3.4, cols=len(arms), sharey=True, squeeze=False)
    goal = results.config.sweep.goal or WORKLOADS["mlp"].goal
    scatter = None
    for axes, arm in zip(panels[0], arms, strict=True):
        sizes, rates, steps, feasible = [], [], [], []
        for table in tables[arm]:
            keys = np.stack([table["batch_size"], table["trial"]], 1)
            for key in np.unique(keys, axis=0):
                mine = (keys == key).all(1)
                below = mine & (table["valid_error"] < goal)
                sizes.append(key[0])
                rates.append(table["rate"][mine][0])
                steps.append(table["step"][below].min() if below.any() else np.nan)
                feasible.append(not np.isnan(table["valid_error"][mine]).any())
        x, y, c, ok = (np.array(values) for values in (sizes, rates, steps, feasible))
        jitter = 2 ** np.random.default_rng(0).uniform(-0.3, 0.3, len(x))
        axes.scatter((x * jitter)[~ok], y[~ok], marker="x", s=12, color="grey", linewidths=0.7)
        missed = ok & np.isnan(c)
        axes.scatter(
            (x * jitter)[missed], y[missed], s=12, facecolors="none", edgecolors="grey", linewidths=0.7
        )
        hit = ~np.isnan(c)
        scatter = axes.scatter(
            (x * jitter)[hit], y[hit], c=np.log10(c[hit]), s=14, cmap="viridis", vmin=1, vmax=3.5
        )
        axes.set_yscale("log")
        logarithmic(axes, np.unique(x))
        axes.set_title(NAMES[arm].split(", ")[1])
    panels[0][0].set_ylabel("learning rate")
    fig.colorbar(scatter, ax=list(panels[0]), label="log10 of steps to the goal")
    return fig
