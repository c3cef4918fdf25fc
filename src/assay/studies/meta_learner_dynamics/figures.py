"""What the page shows."""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from assay.analysis import saxe_curve, stagger_index
from assay.lab import Results
from assay.lab.figures import COLOURS, bars, curves, figure
from assay.studies.meta_learner_dynamics import study


def gather(results: Results, arm: str, artifact: str, name: str) -> np.ndarray | None:
    """One array of every seed, ``[seeds, ...]``."""
    found = [results.artifact(arm, seed, artifact) for seed in results.seeds(arm)]
    arrays = [value[name] for value in found if value is not None]
    return np.stack(arrays) if arrays else None


def panel(ax: Any, steps: np.ndarray, values: np.ndarray | None, names: tuple[str, ...], title: str) -> None:
    """One curve a mode, ``[seeds, modes, times]``."""
    ax.set_title(title)
    ax.axhline(1, color="black", linewidth=0.6, linestyle=":")
    ax.set_ylim(-0.05, 1.2)
    if values is not None:
        for mode, name in enumerate(names[: values.shape[1]]):
            curves(ax, steps, values[:, mode], name, COLOURS[mode], band="range")


@study.figure(
    "Linear maps: strength of each mode in a learner, a meta-learner and Bayesian inference (bands: all seeds)"
)
def linear_modes(results: Results) -> Figure | None:
    learner = gather(results, "linear/learner", "curves", "strength")
    meta, bayes = (gather(results, "linear/meta", "curves", name) for name in ("meta", "bayes"))
    if learner is None or meta is None or bayes is None:
        return None
    spectrum = results.config.learner.spectrum
    names = tuple(f"s = {s:g}" for s in spectrum)
    fig, axes = figure(height=2.7, cols=3, sharey=True)
    steps = gather(results, "linear/learner", "curves", "steps")
    assert steps is not None
    panel(axes[0], steps[0], learner, names, "two-layer learner")
    t = torch.from_numpy(steps[0]).double()
    for mode, s in enumerate(spectrum):
        theory = saxe_curve(s, t, results.config.learner.start, 1 / results.config.learner.rate) / s
        axes[0].plot(steps[0], theory, color=COLOURS[mode], linewidth=0.8, linestyle="--")
    pairs = np.arange(meta.shape[-1])
    panel(axes[1], pairs, meta, names, "meta-learner")
    panel(axes[2], pairs, bayes, names, "Bayes")
    axes[0].set(xlabel="gradient steps (dashed: theory)", ylabel="strength")
    for ax in axes[1:]:
        ax.set(xlabel="pairs seen", xticks=range(0, len(pairs), 5))
    axes[0].legend(loc="lower right")
    return fig


@study.figure("Fourier series: strength of each frequency (dotted black: frequencies outside of the band)")
def fourier_modes(results: Results) -> Figure | None:
    learner = gather(results, "fourier/learner", "curves", "strength")
    meta, bayes, outside = (
        gather(results, "fourier/meta", "curves", name) for name in ("meta", "bayes", "outside")
    )
    if learner is None or meta is None or bayes is None or outside is None:
        return None
    names = tuple(f"k = {k + 1}" for k in range(meta.shape[1]))
    fig, axes = figure(height=2.7, cols=3, sharey=True)
    steps = gather(results, "fourier/learner", "curves", "steps")
    assert steps is not None
    panel(axes[0], np.maximum(steps[0], 1), learner, names, "ReLU network")
    axes[0].set_xscale("log")
    points = np.arange(meta.shape[-1])
    panel(axes[1], points, meta, names, "meta-learner")
    for mode in range(outside.shape[1]):
        axes[1].plot(points, outside[:, mode].mean(0), color="black", linewidth=0.9, linestyle=":")
    panel(axes[2], points, bayes, names, "Bayes")
    axes[0].set(xlabel="gradient steps", ylabel="strength")
    for ax in axes[1:]:
        ax.set_xlabel("points seen")
    axes[2].legend(loc="lower right")
    return fig


@study.figure(
    "Bandits: success by visit, contexts in the order in which a learner gets them, and one run of 5 contexts"
)
def bandits(results: Results) -> Figure | None:
    meta, bayes = (gather(results, "bandit/meta", "curves", name) for name in ("meta", "bayes"))
    coupled, free = (
        gather(results, f"bandit/{kind}", "curves", "chance") for kind in ("coupled", "decoupled")
    )
    if meta is None or bayes is None or coupled is None or free is None:
        return None
    fig, axes = figure(height=2.7, cols=3)
    visits = np.arange(1, meta.shape[-1] + 1)
    curves(axes[0], visits, meta, "meta-learner", COLOURS[0], band="range", marker="o", markersize=3.5)
    axes[0].plot(visits, bayes[0], color="black", linewidth=1, linestyle="--", label="Bayes")
    axes[0].set(title="success", xlabel="visit of a context", ylim=(0, 1.05), ylabel="chance of reward")
    axes[0].legend(loc="lower right")
    shown = min(coupled.shape[-1], 121)
    for place in range(coupled.shape[1]):
        colour = COLOURS[place % len(COLOURS)]
        curves(
            axes[1], np.arange(shown), coupled[:, place, :shown], f"context {place + 1}", colour, band=None
        )
        axes[1].plot(
            np.arange(shown), free[:, place, :shown].mean(0), color=colour, linewidth=0.8, linestyle="--"
        )
    axes[1].set(title="learner, 3 contexts", xlabel="steps (dashed: no shared bias)", ylim=(0, 1.05))
    axes[1].legend(loc="lower right")
    run = results.artifact("bandit/coupled", results.seeds("bandit/coupled")[0], "curves")
    for chance in run["example"]:
        axes[2].plot(run["example_steps"], chance, linewidth=1.2)
    axes[2].set(title="learner, one run of 5", xlabel="steps", ylim=(0, 1.05))
    return fig


@study.figure("Outer training: half time of each mode within an episode, at stages of outer training")
def outer_training(results: Results) -> Figure | None:
    """Inner curves at successive stages of meta-training: in which order does the outer loop find the modes?"""
    panels = (
        ("linear/meta", "linear maps", [f"s = {s:g}" for s in results.config.linear.spectrum]),
        ("fourier/meta", "Fourier series", [f"k = {k + 1}" for k in range(results.config.fourier.k)]),
    )
    found = {arm: gather(results, arm, "stages", "strength") for arm, _, _ in panels}
    visits = gather(results, "bandit/meta", "curves", "stages")
    if any(value is None for value in found.values()) or visits is None:
        return None
    fig, axes = figure(height=2.8, cols=3)
    for ax, (arm, title, names) in zip(axes, panels, strict=False):
        strength = found[arm]
        share = gather(results, arm, "stages", "share")
        assert strength is not None
        assert share is not None
        for mode, name in enumerate(names):
            curves(
                ax,
                100 * share[0],
                strength[:, :, mode, -1],
                name,
                COLOURS[mode],
                band="range",
                marker="o",
                markersize=3.5,
            )
        ax.set(title=title, xscale="log", xlabel="% of outer training", ylim=(-0.1, 1.3))
        ax.legend(loc="upper left")
    axes[0].set_ylabel("strength at the episode's end")
    share = gather(results, "bandit/meta", "curves", "share")
    assert share is not None
    for stage, percent in enumerate(100 * share[0]):
        shade = COLOURS[stage % len(COLOURS)]
        axes[2].plot(
            np.arange(1, visits.shape[-1] + 1), visits[:, stage].mean(0), color=shade, label=f"{percent:g} %"
        )
    axes[2].set(title="bandits", xlabel="visit of a context", ylim=(0, 1.05), ylabel="chance of reward")
    axes[2].legend(loc="lower right")
    return fig


@study.figure("Stagger index against outer-training progress (where both modes are learned to one half)")
def stagger_by_stage(results: Results) -> Figure | None:
    fig, ax = figure(height=3.0)
    drawn = False
    for colour, (arm, name) in enumerate(
        (("linear/meta", "linear maps"), ("fourier/meta", "Fourier series"))
    ):
        strength, share = gather(results, arm, "stages", "strength"), gather(results, arm, "stages", "share")
        if strength is None or share is None:
            continue
        index = stagger_index(torch.from_numpy(strength)).numpy()
        for seed, row in enumerate(index):
            ok = np.isfinite(row)
            drawn = drawn or bool(ok.any())
            ax.plot(100 * share[0][ok], row[ok], "o-", color=COLOURS[colour], linewidth=1, markersize=4, alpha=0.8,
                    label=name if seed == 0 else None)  # fmt: skip
    if not drawn:
        return None
    for arm, name, style in (
        ("linear/learner", "linear learner", "--"),
        ("fourier/learner", "ReLU network", ":"),
    ):
        if arm in results.arms:
            ax.axhline(
                results.metric(arm, "index").mean(), color="black", linewidth=1, linestyle=style, label=name
            )
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set(xscale="log", xlim=(1.5, 130), xlabel="% of outer training", ylabel="stagger index")
    ax.legend(loc="best")
    return fig


@study.figure("Stagger index of every learner and meta-learner: the larger, the more one after the other")
def indices(results: Results) -> Figure | None:
    rows = [
        (arm, results.metric(arm, "index"))
        for arm in results.arms
        if arm != "bandit/meta" and np.isfinite(results.metric(arm, "index")).any()
    ]
    if not rows:
        return None
    fig, ax = figure(height=4.2)
    shades = [COLOURS[0] if "/meta" in arm else COLOURS[1] for arm, _ in rows]
    bars(ax, [arm for arm, _ in rows], [values for _, values in rows], colours=shades, horizontal=True)
    ax.axvline(0, color="black", linewidth=0.7)
    ax.set_xlabel("log2(half time of the last mode / of the first)")
    return fig
