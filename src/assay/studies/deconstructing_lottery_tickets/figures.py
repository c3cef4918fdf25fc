"""What the page shows."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from assay.lab import Results
from assay.lab.figures import COLOURS, bars, curves, figure
from assay.studies.deconstructing_lottery_tickets import KEPT, PRUNED, RETRAINED, SIGN_AWARE, study

SCALE = 1e-3
"""Logged densities are in units of 1e-5: this makes them per cent."""


def draw(axes: Any, results: Results, arm: str, curve: str, label: str, colour: str, **line: Any) -> bool:
    """One curve over density, in per cent; False where there is none."""
    steps, values = results.curve(arm, curve)
    if values.size == 0:
        return False
    order = np.argsort(steps)
    curves(axes, steps[order] * SCALE, values[:, order], label, colour, **line)
    return True


def over_density(axes: Any, title: str) -> None:
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xlabel("weights remaining in dense layers (%)")
    axes.set_title(title)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


@study.figure("Accuracy after retraining against the weights that remain")
def criteria_over_density(results: Results) -> Figure | None:
    """One-shot criteria on the left, iterative pruning on the right."""
    fig, axes = figure(width=7.4, height=3.9, cols=2)
    drawn = False
    for k, name in enumerate(RETRAINED):
        line = "--" if name == "random" else "-"
        colour = COLOURS[k % len(COLOURS)]
        drawn |= draw(
            axes[0], results, f"oneshot/{name}", "accuracy", name, colour, band=None, linestyle=line
        )
    for k, name in ((0, "large_final"), (6, "magnitude_increase")):
        drawn |= draw(axes[1], results, f"iterative/{name}", "accuracy", name, COLOURS[k])
    if not drawn:
        return None
    over_density(axes[0], "pruned once")
    over_density(axes[1], "pruned in rounds (other scale)")
    axes[0].set_ylabel("test accuracy (%)")
    axes[0].legend(fontsize=7.5)
    axes[1].legend(fontsize=8.5)
    return fig


@study.figure("What kept weights restart from, and what pruned weights become (intervals over seeds)")
def actions(results: Results) -> Figure | None:
    """Accuracy of every mask-1 and mask-0 action at both densities."""
    kept = [f"kept/{name}" for name in KEPT if f"kept/{name}" in results.arms]
    pruned = [f"pruned/{name}" for name in PRUNED if f"pruned/{name}" in results.arms]
    if "kept/rewind" in kept:
        pruned = ["kept/rewind", *pruned]
    if len(kept) < 2 or len(pruned) < 2:
        return None
    fig, axes = figure(width=7.4, height=5.4, rows=2, cols=2, sharex=False, height_ratios=(7, 6))
    every = np.concatenate(
        [results.metric(arm, f"accuracy_{mark}") for arm in {*kept, *pruned} for mark in ("5pc", "2pc")]
    )
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    for row, (arms, what) in enumerate(((kept, "kept weights"), (pruned, "pruned weights"))):
        names = [
            "zero" if row and arm == "kept/rewind" else arm.partition("/")[2].replace("_", " ")
            for arm in arms
        ]
        for col, mark in enumerate(("5pc", "2pc")):
            values = [results.metric(arm, f"accuracy_{mark}") for arm in arms]
            shades = [
                COLOURS[0]
                if arm == "kept/rewind"
                else COLOURS[2]
                if "signed" in arm or "toward" in arm
                else COLOURS[1]
                for arm in arms
            ]
            axes[row, col].set_title(f"{what}, about {mark.removesuffix('pc')} %")
            bars(axes[row, col], names, values, colours=shades, horizontal=True)
            axes[row, col].set_xlim(low - 1, high + 0.5)
            if col:
                axes[row, col].set_yticklabels([])
    for ax in axes[1]:
        ax.set_xlabel("test accuracy (%)")
    return fig


@study.figure("Masks on weights that were never trained")
def untrained_over_density(results: Results) -> Figure | None:
    """Accuracy at initialisation against density: initial weights, and signed constants."""
    names = (
        "large_final_same_sign",
        "large_final",
        "magnitude_increase_same_sign",
        "magnitude_increase",
        "movement",
        "large_init",
        "large_final_diff_sign",
        "random",
    )
    fig, axes = figure(width=7.4, height=4.2, cols=2, sharey=True)
    drawn = False
    for ax, kind in zip(axes, ("init", "constant"), strict=True):
        for k, name in enumerate(names):
            drawn |= draw(ax, results, f"supermask/{name}", kind, name, COLOURS[k], band=None)
    if not drawn:
        return None
    over_density(axes[0], "initial weights")
    over_density(axes[1], "their signs times a constant")
    axes[0].set_ylabel("test accuracy (%)")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return fig


@study.figure("Learnt masks beside learnt weights (intervals over seeds)")
def learned_masks(results: Results) -> Figure | None:
    """Accuracy of masks learnt on frozen weights."""
    arms = [arm for arm in results.arms if arm.startswith("learned/")]
    if len(arms) < 2:
        return None
    fig, axes = figure(height=2.4)
    values = [results.metric(arm, "accuracy") for arm in arms]
    shades = [COLOURS[0] if arm == "learned/weights" else COLOURS[2] for arm in arms]
    names = [arm.partition("/")[2].replace("-", ", ") for arm in arms]
    bars(axes, names, values, colours=shades, horizontal=True)
    axes.set_xlim(max(0.0, min(float(np.nanmin(v)) for v in values) - 3), None)
    axes.set_xlabel("test accuracy (%)")
    return fig


@study.figure("Weights before and after training, and which of them each criterion keeps (blue; first seed)")
def kept_regions(results: Results) -> Figure | None:
    """Scatter of final against initial weights of the second layer."""
    names = [n for n in (*RETRAINED, *SIGN_AWARE) if f"supermask/{n}" in results.arms and n != "random"]
    found = []
    for name in names:
        arm = f"supermask/{name}"
        points = results.artifact(arm, results.seeds(arm)[0], "scatter")
        if points is not None:
            found.append((name, points))
    if not found:
        return None
    cols = min(4, len(found))
    rows = -(-len(found) // cols)
    fig, axes = figure(
        width=7.4, height=1.95 * rows, rows=rows, cols=cols, squeeze=False, sharex=True, sharey=True
    )
    for ax, (name, points) in zip(axes.flat, found, strict=False):
        kept = points["kept"].astype(bool)
        for where, colour, size in ((~kept, COLOURS[6], 1.6), (kept, COLOURS[0], 2.4)):
            ax.plot(
                points["init"][where], points["final"][where], ".", color=colour, markersize=size, alpha=0.8
            )
        ax.set_title(name.replace("_", " "), fontsize=7.5)
        ax.set_xticks([])
        ax.set_yticks([])
    for ax in axes.flat[len(found) :]:
        ax.set_axis_off()
    fig.supxlabel("initial weight", fontsize=9)
    fig.supylabel("final weight", fontsize=9)
    return fig
