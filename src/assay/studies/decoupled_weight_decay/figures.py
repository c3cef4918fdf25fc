"""Figures."""

import numpy as np
from matplotlib.figure import Figure

from assay.lab import Results
from assay.lab.figures import COLOURS, bars, curves, figure
from assay.studies.decoupled_weight_decay.grids import OPTIMISERS
from assay.studies.decoupled_weight_decay.mechanism import SCHEDULES

NAMES = {
    "l2-sgd": "L2-SGD",
    "sgdw": "SGDW",
    "l2-adam": "L2-Adam",
    "adamw": "AdamW",
    "adamw-scaled": "AdamW, torch's",
}


def heat_maps(results: Results) -> Figure | None:
    """Mean error of both halves over seeds; the best cell, and the contour's direction through it."""
    arms = [(net, o) for net in ("plain", "norm") for o in OPTIMISERS if f"{net}/{o}" in results.arms]
    if not arms:
        return None
    nets = list(dict.fromkeys(net for net, _ in arms))
    fig, panels = figure(
        width=9.6, height=2.2 * len(nets) + 0.4, rows=len(nets), cols=len(OPTIMISERS), squeeze=False
    )
    for (net, optimiser), axes in zip(
        [(net, o) for net in nets for o in OPTIMISERS], panels.flat, strict=True
    ):
        arm = f"{net}/{optimiser}"
        found = (
            [results.artifact(arm, seed, "grid") for seed in results.seeds(arm)]
            if arm in results.arms
            else []
        )
        found = [one for one in found if one is not None]
        if not found:
            axes.set_axis_off()
            continue
        # Grids that grew differ between seeds: show the cells that all of them have.
        rates, decays = (
            np.array(sorted(set.intersection(*({float(v) for v in one[name]} for one in found))))
            for name in ("rates", "decays")
        )
        error = np.mean(
            [
                ((one["select"] + one["report"]) / 2)[
                    np.ix_(np.isin(one["rates"], rates), np.isin(one["decays"], decays))
                ]
                for one in found
            ],
            0,
        )
        rates, decays = np.log2(rates), np.log2(decays)
        image = axes.pcolormesh(
            decays,
            rates,
            error,
            cmap="viridis_r",
            vmin=error.min(),
            vmax=1.6 * error.min(),
            shading="nearest",
        )
        row, column = np.unravel_index(np.nanargmin(error), error.shape)
        axes.plot(decays[column], rates[row], "o", markersize=5, color="white", markeredgecolor="black")
        slopes = results.metric(arm, "slope")
        slope = float(np.nanmean(slopes)) if np.isfinite(slopes).any() else np.nan
        if np.isfinite(slope):
            # Along a contour log2 decay + slope * log2 rate is constant.
            span = rates - rates[row]
            axes.plot(decays[column] - slope * span, rates, color="white", linewidth=1.2)
        axes.set_xlim(decays[0] - 0.7, decays[-1] + 0.7)
        axes.set_ylim(rates[0] - 1, rates[-1] + 1)
        kind = "batch norm" if net == "norm" else "plain"
        axes.set_title(f"{NAMES[optimiser]}, {kind}\nslope {slope:.2f}", fontsize=8)
        image.set_rasterized(True)
        axes.tick_params(labelsize=6)
    for axes in panels[-1]:
        axes.set_xlabel("log2 decay", fontsize=7)
    for axes in panels[:, 0]:
        axes.set_ylabel("log2 rate", fontsize=7)
    return fig


def shrinkage(results: Results) -> Figure | None:
    """How much decay shrinks weights, by the root of their second moment without decay."""
    arms = [arm for arm in ("shrink/l2-adam", "shrink/adamw") if arm in results.arms]
    found = {arm: [results.artifact(arm, seed, "groups") for seed in results.seeds(arm)] for arm in arms}
    if not arms or any(one is None for tables in found.values() for one in tables):
        return None
    fig, axes = figure(height=3.0)
    for arm, colour in zip(arms, COLOURS, strict=False):
        sizes = np.exp(np.mean([np.log(one["sizes"]) for one in found[arm]], 0))
        shrinks = np.array([one["shrinks"] for one in found[arm]])
        curves(axes, sizes, shrinks, NAMES[arm.split("/")[1]], colour, marker="o", markersize=3)
    axes.set_xscale("log")
    axes.set_xlabel("root of the second moment of the gradient (runs without decay)")
    axes.set_ylabel("log shrink by decay")
    axes.legend()
    return fig


def best_of_grid(results: Results) -> Figure | None:
    """Reported error of the cell chosen on other images."""
    arms = [f"{net}/{o}" for net in ("plain", "norm") for o in OPTIMISERS]
    if not all(arm in results.arms for arm in arms):
        return None
    fig, panels = figure(height=2.8, cols=2, sharey=True)
    for axes, net in zip(panels, ("plain", "norm"), strict=True):
        bars(
            axes,
            [NAMES[o].replace(", ", "\n") for o in OPTIMISERS],
            [results.metric(f"{net}/{o}", "error") for o in OPTIMISERS],
            colours=list(COLOURS[:5]),
        )
        axes.set_title("batch norm" if net == "norm" else "plain")
        axes.tick_params(axis="x", labelsize=6)
    low = min(results.metric(arm, "error").min() for arm in arms)
    panels[0].set_ylim(0.8 * low, None)
    panels[0].set_ylabel("test error, %")
    return fig


def budgets(results: Results) -> Figure | None:
    """The best raw and normalised decay by length of the run."""
    if "budget/adamw" not in results.arms:
        return None
    steps = results.config.budget.budgets
    fig, axes = figure(height=2.8)
    for prefix, label, colour in (("best_", "raw", COLOURS[0]), ("best_norm_", "normalised", COLOURS[1])):
        values = np.array([results.metric("budget/adamw", f"{prefix}{k}") for k in steps]).T
        curves(
            axes, np.array(steps), np.log2(values / values[:, :1]), label, colour, marker="o", markersize=4
        )
    axes.set_xscale("log")
    axes.set_xticks(steps, [str(k) for k in steps])
    axes.minorticks_off()
    axes.set_xlabel("steps")
    axes.set_ylabel("log2 of the best decay,\nrelative to the shortest run")
    axes.legend()
    return fig


def anytime(results: Results) -> Figure | None:
    """Test error during training under four schedules."""
    arms = [arm for arm in ("schedule/adamw", "schedule/sgdw") if arm in results.arms]
    if not arms or not len(results.curve(arms[0], "cosine")[0]):
        return None
    fig, panels = figure(height=2.8, cols=len(arms), sharey=True, squeeze=False)
    for axes, arm in zip(panels[0], arms, strict=True):
        for name, colour in zip(SCHEDULES, COLOURS, strict=False):
            steps, values = results.curve(arm, name)
            curves(axes, steps, values, name, colour, band=None)
        axes.set_title(NAMES[arm.split("/")[1]])
        axes.set_xlabel("step")
    panels[0][0].set_ylabel("test error, %")
    panels[0][0].set_ylim(10, 30)
    panels[0][0].legend(fontsize=7)
    return fig
