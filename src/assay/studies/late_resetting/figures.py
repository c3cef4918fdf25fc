"""What the page shows."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from assay.lab import Results
from assay.lab.figures import COLOURS, bars, curves, figure, heatmap
from assay.studies.late_resetting import LATE, REWINDS, study
from assay.studies.late_resetting.tickets import mark

SHOWN = (
    (f"deep/k-{LATE}", f"rewound to step {LATE}", COLOURS[0], "-"),
    ("deep/k-0", "rewound to step 0", COLOURS[1], "-"),
    ("deep/warmup", "step 0, trained with warm-up", COLOURS[2], "-"),
    ("deep/lr-rewind", "rate rewound, weights kept", COLOURS[4], "-"),
    ("deep/reinit", "reinitialised", COLOURS[3], "--"),
    ("deep/random", "random mask", COLOURS[5], ":"),
)


def table(results: Results, arm: str, name: str, marks: list[str]) -> np.ndarray:
    """A metric at several densities, [seeds, densities]."""
    return np.stack([results.metric(arm, f"{name}_{m}") for m in marks], 1)


def rewound(results: Results, family: str = "deep") -> list[tuple[int, str]]:
    """(step, arm) of the rewinding points that ran."""
    return [(k, f"{family}/k-{k}") for k in REWINDS if f"{family}/k-{k}" in results.arms]


@study.figure("Accuracy on held-out images against the weights left (bands: lowest to highest seed)")
def accuracy_by_density(results: Results) -> Figure | None:
    """At the high rate on the left, at a tenth of it on the right."""
    densities = results.config.deep.densities
    marks = [mark(d) for d in densities]
    fig, axes = figure(width=7.4, height=3.6, cols=2, sharey=True, width_ratios=(3, 2))
    low = (
        (f"deep/low-k-{LATE}", f"rewound to step {LATE}", COLOURS[0], "-"),
        ("deep/low-k-0", "rewound to step 0", COLOURS[1], "-"),
    )
    seen = []
    for ax, arms in zip(axes, (SHOWN, low), strict=True):
        present = [row for row in arms if row[0] in results.arms]
        for arm, label, colour, line in present:
            values = table(results, arm, "accuracy", marks)
            curves(
                ax, 100 * np.array(densities), values, label, colour, band="range", marker="o", ls=line, ms=3
            )
            seen.append(values)
        if present:
            dense = results.metric(present[0][0], "dense_accuracy").mean()
            ax.axhline(dense, color="black", linewidth=0.8, linestyle=(0, (1, 2)))
            ax.annotate("dense", (0, dense), (3, 2), ("axes fraction", "data"), "offset points", ha="left")
            ax.legend(fontsize=7.5, loc="lower left")
        ax.set_xscale("log")
        ax.invert_xaxis()
        ax.set_xticks([100 * d for d in densities], marks)
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("weights left (%)")
    if not seen:
        return None
    axes[0].set(title=f"rate {results.config.deep.rate:g}", ylabel="accuracy (%)")
    axes[1].set_title(f"rate {results.config.deep.low_rate:g}")
    axes[0].set_ylim(max(0.0, min(70.0, float(np.nanmin(seen[0])) - 2)), 97)
    return fig


@study.figure("Accuracy and stability at the smallest density against the rewinding point (bands: all seeds)")
def accuracy_and_stability(results: Results) -> Figure | None:
    """Accuracy on the left axis; the normalised distances on the right one."""
    points = rewound(results)
    if len(points) < 2:
        return None
    last = mark(results.config.deep.densities[-1])
    fig, ax = figure(height=3.6)
    right = ax.twinx()
    place = np.arange(len(points))

    def column(name: str) -> np.ndarray:
        return np.stack([results.metric(arm, name) for _, arm in points], 1)

    curves(ax, place, column(f"accuracy_{last}"), "accuracy", COLOURS[0], band="range", marker="o")
    curves(
        right,
        place,
        column(f"pruning_distance_{last}"),
        "distance, dense to pruned",
        COLOURS[1],
        band="range",
        marker="s",
    )
    curves(
        right, place, column("order_distance"), "distance, two orders", COLOURS[2], band="range", marker="^"
    )
    ax.set_xticks(place, [str(k) for k, _ in points])
    ax.set(xlabel="rewound to step", ylabel="accuracy (%)")
    right.set_ylabel("distance over displacement of the dense run")
    lines = [*ax.lines, *right.lines]
    ax.legend(lines, [str(line.get_label()) for line in lines], fontsize=8, loc="lower left")
    return fig


@study.figure("Error barrier between two copies trained on different orders, and accuracy (a dot a seed)")
def barrier_and_accuracy(results: Results) -> Figure | None:
    """Of tickets on the left; of dense runs that part at the rewinding point on the right."""
    last = mark(results.config.deep.densities[-1])
    fig, axes = figure(width=7.0, height=3.5, cols=2, sharey=True)
    names = ("order_barrier", "dense_barrier")
    titles = ("two copies of the ticket", "two dense runs that part at that step")
    drawn = False
    for ax, name, title in zip(axes, names, titles, strict=True):
        arms = [(f"step {k}", arm) for k, arm in rewound(results)]
        if name == "order_barrier":
            arms += [
                (what, f"deep/{what}") for what in ("reinit", "random") if f"deep/{what}" in results.arms
            ]
        for k, (label, arm) in enumerate(arms):
            x, y = results.metric(arm, name), results.metric(arm, f"accuracy_{last}")
            ax.scatter(x, y, s=16, color=COLOURS[k % len(COLOURS)], label=label, alpha=0.85)
            drawn = True
        ax.set(xlabel="barrier (points of error)", title=title)
    axes[0].set_ylabel(f"accuracy at {last} % (%)")
    if not drawn:
        return None
    axes[0].legend(fontsize=7.5, loc="lower left")
    return fig


def anatomy_of(results: Results, arm: str) -> dict[str, np.ndarray] | None:
    """Mean over seeds of the arrays that describe an arm's smallest tickets."""
    if arm not in results.arms:
        return None
    found = [results.artifact(arm, seed, "anatomy") for seed in results.seeds(arm)]
    kept = [one for one in found if one is not None]
    return {name: np.mean([one[name] for one in kept], 0) for name in kept[0]} if kept else None


@study.figure("Anatomy of the smallest tickets: layers, initial magnitudes, final weights, input pixels")
def anatomy(results: Results) -> Figure | None:
    """Averages over seeds."""
    arms = (
        (f"deep/k-{LATE}", f"step {LATE}", COLOURS[0]),
        ("deep/k-0", "step 0", COLOURS[1]),
        ("deep/low-k-0", "step 0, low rate", COLOURS[2]),
    )
    found = [(label, colour, a) for arm, label, colour in arms if (a := anatomy_of(results, arm)) is not None]
    if not found:
        return None
    fig, axes = figure(width=7.4, height=5.2, rows=2, cols=2)
    for label, colour, a in found:
        layers = np.arange(1, len(a["density"]) + 1)
        line: dict[str, Any] = {"label": label, "color": colour, "linewidth": 1.6}
        axes[0, 0].plot(layers, 100 * a["density"], marker="o", markersize=3, **line)
        share = [np.nansum(a["kept"] * a[f"decile_{k}"]) / a["kept"].sum() for k in range(1, 11)]
        axes[0, 1].plot(np.arange(1, 11), 100 * np.array(share), marker="o", markersize=3, **line)
        histogram = a["histogram_final"] / a["histogram_final"].sum()
        axes[1, 0].step(np.linspace(-1.5, 1.5, len(histogram)), 100 * histogram, where="mid", **line)
    axes[0, 0].set(xlabel="layer", ylabel="weights left (%)", yscale="log")
    axes[0, 0].set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    axes[0, 0].yaxis.set_minor_locator(NullLocator())
    axes[0, 1].axhline(10, color="black", linewidth=0.7)
    axes[0, 1].set(xlabel="tenth of initial magnitude", ylabel="survivors (%)")
    axes[1, 0].set(xlabel="surviving weight at the end", ylabel="share (%)")
    axes[0, 0].legend(fontsize=8)
    pixels = found[0][2]["pixels"]
    side = round(len(pixels) ** 0.5)
    heatmap(axes[1, 1], pixels.reshape(side, side), label="weights left a pixel")
    axes[1, 1].set(xticks=[], yticks=[], title=f"inputs, {found[0][0]}")
    return fig


@study.figure("Every condition at the smallest density (bars: mean and 95 % interval; a dot a seed)")
def all_arms(results: Results) -> Figure | None:
    """Accuracies of all arms of the deep network, and of the shallow control."""
    arms = [arm for arm in results.arms if arm.startswith(("deep/", "lenet/"))]
    if not arms:
        return None
    last = mark(results.config.deep.densities[-1])
    fig, ax = figure(height=0.8 + 0.24 * len(arms))
    values = [results.metric(arm, f"accuracy_{last}") for arm in arms]
    shades = [COLOURS[0] if "/k-" in arm else COLOURS[1] for arm in arms]
    bars(ax, arms, values, colours=shades, horizontal=True)
    low = float(np.nanmin(np.concatenate(values)))
    ax.set_xlim(max(0.0, low - 2), 97)
    ax.set_xlabel(f"accuracy at {last} % (%)")
    return fig


PREDICTORS = {
    "dense_barrier": "barrier of two dense runs",
    "dense_moved": "way left to go",
    "loss_at_k": "training loss at k",
    "pruning_distance": "distance, dense to pruned",
    "order_distance": "distance, two orders",
}
"""Metric -> words; the first three are known before anything is pruned."""


def left_out_r2(x: np.ndarray, y: np.ndarray) -> float:
    """R2 of predictions of `y` by a line through the other points, each point left out in turn; 1 at best."""
    if len(x) < 4:
        return float("nan")
    predicted = []
    for k in range(len(x)):
        others = np.arange(len(x)) != k
        if np.ptp(x[others]) == 0:
            predicted.append(y[others].mean())
        else:
            predicted.append(np.polyval(np.polyfit(x[others], y[others], 1), x[k]))
    return float(1 - np.square(y - predicted).sum() / np.square(y - y.mean()).sum())


@study.figure(
    "What tells the accuracy of a ticket? R2 on conditions left out (above 0: better than the mean)",
    question="tautology",
)
def predictors(results: Results) -> Figure | None:
    """A line in the rank of each quantity over (rewinding point, rate), per seed; the first three need no pruning."""
    from scipy.stats import rankdata

    arms = [arm for _, arm in rewound(results)] + [f"deep/low-k-{k}" for k in (0, LATE)]
    arms = [arm for arm in arms if arm in results.arms]
    last = mark(results.config.deep.densities[-1])
    if len(arms) < 5:
        return None
    accuracy = np.stack([results.metric(arm, f"accuracy_{last}") for arm in arms], 1)
    scores = []
    for name in PREDICTORS:
        metric = f"{name}_{last}" if name == "pruning_distance" else name
        values = np.stack([results.metric(arm, metric) for arm in arms], 1)
        scores.append([left_out_r2(rankdata(x), y) for x, y in zip(values, accuracy, strict=True)])
    fig, ax = figure(height=2.6)
    shades = [COLOURS[0]] * 3 + [COLOURS[1]] * 2
    bars(ax, list(PREDICTORS.values()), [np.maximum(s, -2) for s in scores], colours=shades, horizontal=True)
    ax.axvline(0, color="black", linewidth=0.7)
    ax.set_xlabel("R2 on conditions left out (cut at -2)")
    return fig
