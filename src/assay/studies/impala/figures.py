"""What the page shows."""

from collections import Counter

import numpy as np
from matplotlib.figure import Figure

from assay.lab import Results
from assay.lab.figures import COLOURS, bars, curves, figure, heatmap

BLUE, RUST, GREEN, PLUM, GOLD, *_ = COLOURS
NAMES = {
    "vtrace": ("V-trace", BLUE),
    "onestep": ("one-step", GREEN),
    "epsilon": ("epsilon", GOLD),
    "none": ("none", RUST),
}
BARS = ("1/4", "1/2", "1", "2", "4", "inf")


def truncation_maps(results: Results) -> Figure | None:
    """Bias by rho_bar, iterations and variance by both bars: medians over the processes."""
    arm = "theory/garnets"
    found = [maps for seed in results.seeds(arm) if (maps := results.artifact(arm, seed, "maps")) is not None]
    if not found:
        return None
    bias, iterations, variance = (
        np.median([one[name] for one in found], axis=0) for name in ("bias", "iterations", "variance")
    )
    if len(bias) != len(BARS):
        return None
    fig, axes = figure(height=2.9, cols=3, width_ratios=(0.45, 1, 1))
    heatmap(axes[0], bias[:, None], rows=BARS, cols=("any",), annotate=".2f", bar=False)
    heatmap(axes[1], iterations, rows=BARS, cols=BARS, annotate=".0f", bar=False)
    heatmap(axes[2], np.log10(variance), rows=BARS, cols=BARS, annotate=".1f", bar=False)
    for ax, title in zip(axes, ("bias", "iterations", "log10 variance"), strict=True):
        ax.set(title=title, xlabel="bar on the trace c")
    axes[0].set_ylabel("bar on the difference rho")
    return fig


def correction_curves(results: Results) -> Figure | None:
    """Mean return over updates under each correction."""
    # One learning rate, the same in both panels.
    panels = (
        ("lag30", "return_at_0.005", "lag 30, no replay"),
        ("replay", "return", "lag 8, half of the batch replayed"),
    )
    if not any(len(results.curve(f"{group}/{c}", name)[0]) for group, name, _ in panels for c in NAMES):
        return None
    fig, axes = figure(height=3.0, cols=2, sharey=True)
    for ax, (group, name, title) in zip(axes, panels, strict=True):
        for correction, (label, colour) in NAMES.items():
            steps, values = results.curve(f"{group}/{correction}", name)
            curves(ax, steps, values, label, colour)
        ax.set(title=title, xlabel="updates")
    axes[0].set_ylabel("mean return")
    fig.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return fig


def lag_panel(results: Results) -> Figure | None:
    """Final return of every correction at every lag."""
    groups = [g for g in ("lag0", "lag10", "lag30") if all(f"{g}/{c}" in results.arms for c in NAMES)]
    if not groups:
        return None
    fig, axes = figure(height=2.7, cols=len(groups), sharey=True, squeeze=False)
    for ax, group in zip(axes[0], groups, strict=True):
        values = [results.metric(f"{group}/{c}", "final_return") for c in NAMES]
        bars(
            ax,
            [label for label, _ in NAMES.values()],
            values,
            colours=[colour for _, colour in NAMES.values()],
        )
        ax.set_title(f"{group.removeprefix('lag')} updates old")
    axes[0, 0].set_ylabel("final return")
    return fig


def throughput_bars(results: Results) -> Figure | None:
    """Environment steps a second of every arrangement, and the lag of what the decoupled learner got."""
    arms = [arm for arm in results.arms if arm.startswith(("throughput/", "steady/"))]
    if not arms:
        return None
    labels = [arm.replace("throughput/", "").replace("steady/", "even: ") for arm in arms]
    colours = [BLUE if "impala" in arm else RUST for arm in arms]
    fig, (left, right) = figure(height=3.2, cols=2, width_ratios=(1.5, 1))
    rates = [results.metric(arm, "env_steps_per_s") for arm in arms]
    bars(left, labels, rates, colours=colours, horizontal=True)
    left.set(xlabel="environment steps a second")
    for arm, colour in (("throughput/impala-thread", BLUE), ("throughput/impala-process", GREEN)):
        unrolls: Counter[int] = Counter()
        for seed in results.seeds(arm):
            if (lags := results.artifact(arm, seed, "lags")) is not None:
                unrolls.update(dict(zip(lags["lag"], lags["unrolls"], strict=True)))
        if unrolls:
            at = sorted(unrolls)
            share = [unrolls[lag] / unrolls.total() for lag in at]
            right.plot(at, share, "o-", color=colour, label=arm.rpartition("-")[2], markersize=4)
            right.legend(fontsize=8)
    right.set(xlabel="lag in updates", ylabel="share of unrolls")
    return fig


def transfer_bars(results: Results) -> Figure | None:
    """Normalised score of every task, and the multi-task agent's curve."""
    arms = (("transfer/multi", "one agent", BLUE), ("transfer/experts", "experts", RUST))
    if not all(arm in results.arms for arm, *_ in arms):
        return None
    seeds = results.seeds("transfer/multi")
    tasks = [name for name in results.metrics("transfer/multi", seeds[0]) if name.startswith("score_")]
    if not tasks:
        return None
    fig, axes = figure(height=2.8)
    places = np.arange(len(tasks))
    for k, (arm, label, colour) in enumerate(arms):
        values = np.stack([results.metric(arm, task) for task in tasks])
        aside = places + 0.4 * (k - 0.5)
        axes.bar(aside, values.mean(1), 0.36, color=colour, alpha=0.55, label=label)
        axes.plot(np.repeat(aside, values.shape[1]), values.ravel(), "o", color=colour, markersize=3)
    axes.set_xticks(places, [task.removeprefix("score_") for task in tasks])
    axes.set_ylabel("normalised score")
    axes.legend(fontsize=8)
    return fig


def sorted_draws(results: Results) -> Figure | None:
    """Final returns from best to worst draw, and mean returns over updates."""
    arms = (("draws/impala", "IMPALA, lag 2", BLUE), ("draws/a2c", "synchronous", RUST))
    if not all(arm in results.arms for arm, *_ in arms):
        return None
    fig, (left, right) = figure(height=2.8, cols=2, sharey=True)
    for arm, label, colour in arms:
        final = np.sort(results.metric(arm, "final_return"))[::-1]
        left.plot(np.arange(1, len(final) + 1), final, "o-", color=colour, label=label, markersize=3.5)
        steps, values = results.curve(arm, "return")
        curves(right, steps, values, label, colour)
    left.set(xlabel="draw, best first", ylabel="return")
    right.set(xlabel="updates")
    left.legend(fontsize=8)
    return fig
