"""What the page shows."""

import numpy as np
from matplotlib.figure import Figure

from assay.lab import Results
from assay.lab.figures import COLOURS, bars, curves, figure, heatmap
from assay.studies.pwcca import study
from assay.studies.pwcca.config import LEVELS

GROUPS = (
    ("noise/0", "generalising", COLOURS[0]),
    ("noise/1", "memorising", COLOURS[1]),
    ("noise/between", "between", COLOURS[6]),
)
TITLES = {
    "pwcca": "PWCCA",
    "svcca": "SVCCA",
    "mean_cca": "mean CCA",
    "linear_cka": "linear CKA",
    "procrustes": "Procrustes",
}


def layers_of(results: Results, arm: str) -> list[str]:
    """Names of the layers that an arm reports, hidden ones by number, then the output."""
    if arm not in results.arms:
        return []
    known = results.metrics(arm, results.seeds(arm)[0])
    numbers = sorted(
        int(k.removeprefix("floor_")) for k in known if k.startswith("floor_") and k[6:].isdigit()
    )
    return [*map(str, numbers), "output"] if numbers else []


@study.figure(
    "Distance between networks, layer by layer, by five measures (dotted: what shuffled images give)"
)
def distance_by_layer(results: Results) -> Figure | None:
    names = layers_of(results, "noise/0")
    if not names:
        return None
    fig, axes = figure(height=2.6, cols=len(TITLES), sharey=True)
    for ax, (measure, title) in zip(axes, TITLES.items(), strict=True):
        for arm, label, colour in GROUPS:
            if arm not in results.arms:
                continue
            values = np.stack([results.metric(arm, f"{measure}_{name}") for name in names], 1)
            curves(ax, range(len(names)), values, label, colour)
            if measure == "pwcca":
                floor = np.stack([results.metric(arm, f"floor_{name}") for name in names], 1)
                curves(
                    ax, range(len(names)), 1 - floor, None, colour, band=None, linestyle=":", linewidth=1.0
                )
        ax.set_title(title)
        ax.set_xticks(range(len(names)), [name if name != "output" else "out" for name in names])
        ax.set_xlabel("layer")
    axes[0].set_ylabel("distance")
    axes[1].legend(loc="upper left", fontsize=8)
    return fig


@study.figure("Test error against the distance between networks on their training images (last hidden layer)")
def test_error_by_distance(results: Results) -> Figure | None:
    arms = [f"noise/{level}" for level in LEVELS if f"noise/{level}" in results.arms]
    if not arms:
        return None
    fig, ax = figure(height=3.3)
    for k, arm in enumerate(arms):
        shade = COLOURS[k % len(COLOURS)]
        x, y = results.metric(arm, "pwcca_last"), results.metric(arm, "test_error")
        ax.plot(x, y, "o", color=shade, markersize=5, markeredgewidth=0, label=arm.partition("/")[2])
    ax.set(xlabel="mean PWCCA distance", ylabel="test error")
    ax.legend(title="labels redrawn", loc="lower right")
    return fig


@study.figure(
    "Which networks are alike: distances sorted by learning rate, at the intermediate layer and at the output"
)
def distance_matrices(results: Results) -> Figure | None:
    shown = [
        (arm, found)
        for arm in ("rates/conv", "rates/mlp")
        for seed in results.seeds(arm)[:1]
        if (found := results.artifact(arm, seed, "distances")) is not None and "middle" in found
    ]
    if not shown:
        return None
    fig, axes = figure(height=2.9 * len(shown), rows=len(shown), cols=2, squeeze=False)
    for row, (arm, found) in zip(axes, shown, strict=True):
        group, rates = found["group"], found["rates"]
        starts = [int(np.argmax(group == g)) for g in np.unique(group)]
        for ax, place in zip(row, ("middle", "output"), strict=True):
            heatmap(ax, found[place], aspect="equal", label="PWCCA distance")
            ax.set_title(f"{'convolutional' if arm == 'rates/conv' else 'perceptrons'}, {place}")
            for start in starts[1:]:
                ax.axhline(start - 0.5, color="white", linewidth=0.8)
                ax.axvline(start - 0.5, color="white", linewidth=0.8)
            ax.set_yticks(starts, [f"{rates[g]:g}" for g in np.unique(group)])
            ax.set_xticks([])
        row[0].set_ylabel("learning rate")
    return fig


@study.figure("Agreement of clusters with learning rates, layer by layer (1: the same groups, 0: chance)")
def clusters_by_layer(results: Results) -> Figure | None:
    shown = [arm for arm in ("rates/conv", "rates/mlp") if arm in results.arms]
    if not shown:
        return None
    fig, axes = figure(height=2.7, cols=len(shown), sharey=True, squeeze=False)
    for ax, arm in zip(axes[0], shown, strict=True):
        known = results.metrics(arm, results.seeds(arm)[0])
        names = [key.removeprefix("ari_") for key in known if key.startswith("ari_") and key != "ari_middle"]
        bars(ax, names, [results.metric(arm, f"ari_{name}") for name in names])
        ax.set_title("convolutional" if arm == "rates/conv" else "perceptrons")
        ax.set_xlabel("layer")
    axes[0][0].set_ylabel("adjusted Rand index")
    return fig


@study.figure(
    "Where the mass lies: sorted canonical correlations and their weights at the last hidden layer (one pair)"
)
def correlations_and_weights(results: Results) -> Figure | None:
    shown = [
        (title, found)
        for arm, title in (
            ("noise/0", "generalising"),
            ("noise/1", "memorising"),
            ("synthetic/signal", "10 shared, 30 private"),
        )
        for seed in results.seeds(arm)[:1]
        if (found := results.artifact(arm, seed, "coefficients")) is not None
    ]
    if not shown:
        return None
    fig, axes = figure(height=2.8, cols=len(shown), sharey=True, squeeze=False)
    for ax, (title, found) in zip(axes[0], shown, strict=True):
        place = np.arange(1, len(found["rho"]) + 1)
        ax.plot(place, found["rho"], color=COLOURS[0], label="correlation")
        for weight, colour in (("l1", COLOURS[1]), ("variance", COLOURS[2])):
            name = "magnitudes" if weight == "l1" else "squares"
            ax.plot(
                place, np.cumsum(found[weight]), color=colour, linestyle="--", label=f"weight so far, {name}"
            )
        ax.set(title=title, xlabel="canonical direction")
    axes[0][-1].legend(loc="center right", fontsize=7)
    return fig


@study.figure("Distance of a layer to its own final state while training, and what becomes of directions")
def over_training(results: Results) -> Figure | None:
    fig, axes = figure(height=2.8, cols=4, sharey=True)
    for ax, (arm, title) in zip(
        axes,
        (("noise/0", "generalising"), ("noise/1", "memorising"), ("sequence/gru", "GRU on text")),
        strict=False,
    ):
        for k in range(1, 9):
            steps, values = results.curve(arm, f"distance_{k}")
            if len(steps):
                curves(ax, np.maximum(steps, steps[1] / 2), values, f"layer {k}", COLOURS[k - 1])
        if ax.lines:
            ax.set_xscale("log")
            ax.legend(fontsize=8)
        ax.set(title=title, xlabel="step")
    for arm, name, style in (("noise/0", "generalising", "-"), ("noise/1", "memorising", "--")):
        for kind, colour in (("stable", COLOURS[2]), ("unstable", COLOURS[3])):
            steps, values = results.curve(arm, kind)
            if len(steps):
                x = steps / steps[-1]
                curves(axes[3], x, values, f"{kind}, {name}", colour, band=None, linestyle=style)
    if not any(ax.lines for ax in axes):
        return None
    axes[3].set(title="directions", xlabel="share of training")
    axes[3].legend(fontsize=7)
    axes[0].set_ylabel("distance, or correlation")
    return fig


@study.figure("Wider networks: similarity above chance at the last hidden layer, and test error")
def by_width(results: Results) -> Figure | None:
    arms = [f"width/{k}" for k in range(1, 5) if f"width/{k}" in results.arms]
    if not arms:
        return None
    widths = [f"{int(np.nanmean(results.metric(arm, 'width')))}" for arm in arms]
    fig, axes = figure(height=2.7, cols=3)
    for ax, (name, title) in zip(
        axes,
        (
            ("pwcca_last", "PWCCA distance"),
            ("excess_last", "similarity above chance"),
            ("test_error", "test error"),
        ),
        strict=True,
    ):
        bars(ax, widths, [results.metric(arm, name) for arm in arms])
        ax.set(title=title, xlabel="units a layer")
    return fig


@study.figure(
    "What a measure does not see: similarity of a layer with linear images of itself, and with a noisy relative"
)
def invariances(results: Results) -> Figure | None:
    if "synthetic/maps" not in results.arms:
        return None
    kinds = {
        "permutation": "permutation",
        "rotation": "rotation",
        "scaling": "scaling",
        "any": "any linear map",
    }
    measures = {
        "pwcca": "PWCCA",
        "pwcca_variance": "PWCCA, squares",
        "mean_cca": "mean CCA",
        "svcca": "SVCCA",
        "linear_cka": "linear CKA",
        "procrustes": "Procrustes",
        "neurons": "neuron by neuron",
    }
    table = [[np.nanmean(results.metric("synthetic/maps", f"{m}_{k}")) for k in kinds] for m in measures]
    columns = list(kinds.values())
    if "synthetic/signal" in results.arms:
        for row, measure in zip(table, measures, strict=True):
            row.append(np.nanmean(results.metric("synthetic/signal", measure)))
        columns.append("10 of 40 shared")
    fig, ax = figure(height=3.2)
    heatmap(
        ax,
        table,
        rows=list(measures.values()),
        cols=columns,
        annotate=".2f",
        vmin=0,
        vmax=1,
        label="similarity",
    )
    return fig


@study.figure("States of the top recurrent layer at different positions of the same texts")
def positions(results: Results) -> Figure | None:
    for seed in results.seeds("sequence/gru")[:1]:
        found = results.artifact("sequence/gru", seed, "positions")
        if found is not None:
            fig, ax = figure(width=4.6, height=3.4)
            names = [str(int(p)) for p in found["places"]]
            heatmap(
                ax, found["similarity"], rows=names, cols=names, annotate=".2f", label="PWCCA", vmin=0, vmax=1
            )
            ax.set(xlabel="position", ylabel="position")
            return fig
    return None
