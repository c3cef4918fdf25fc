"""The figures of the study's page."""

import numpy as np
from matplotlib.figure import Figure

from assay.lab import Results
from assay.lab.figures import COLOURS, bars, curves, figure

BLUE, RUST, GREEN, PLUM, GOLD, VIOLET, GREY, *_ = COLOURS
TASKS = ("catch", "goal", "snack", "jackpot")
ARMS = (("popart", "PopArt", BLUE), ("clip", "clipped", GOLD), ("raw", "raw", RUST))
VARIANTS = (
    ("popart", "PopArt", BLUE),
    ("popart-lag4", "PopArt, lag 4", BLUE),
    ("art", "ART without POP", GREEN),
    ("return-std", "rewards / std of returns", PLUM),
    ("clip", "clipped rewards", GOLD),
    ("single", "one normaliser", VIOLET),
    ("raw", "raw rewards", RUST),
)


def ran(results: Results, *arms: str) -> bool:
    """Whether all these arms have results."""
    return all(arm in results.arms and np.isfinite(results.metric(arm, "score")).any() for arm in arms)


def curves_by_task(results: Results) -> Figure | None:
    """Normalised score of each task over training."""
    arms = [f"suite/{name}" for name, *_ in ARMS]
    if not all(len(results.curve(arm, f"score_{task}")[0]) for arm in arms for task in TASKS):
        return None
    fig, axes = figure(height=2.5, cols=len(TASKS), sharey=True)
    for panel, task in zip(axes, TASKS, strict=True):
        for name, label, colour in ARMS:
            curves(panel, *results.curve(f"suite/{name}", f"score_{task}"), label, colour)
        panel.set_title(task, fontsize=9.5)
        panel.set(xlabel="updates", ylim=(-0.05, 1.05))
    axes[0].set_ylabel("normalised score")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig


def scores_by_arm(results: Results) -> Figure | None:
    """Mean score of the last fifth, arm by arm, and how evenly the tasks pulled."""
    shown = [one for one in VARIANTS if ran(results, f"suite/{one[0]}")]
    if len(shown) < 3:
        return None
    fig, axes = figure(height=0.8 + 0.3 * len(shown), cols=2, sharey=True)
    for panel, metric, label in zip(
        axes, ("score", "evenness"), ("normalised score", "evenness of gradient shares"), strict=True
    ):
        values = [results.metric(f"suite/{name}", metric) for name, *_ in shown]
        bars(panel, [text for _, text, _ in shown], values, colours=[c for *_, c in shown], horizontal=True)
        panel.set(xlabel=label, xlim=(0, 1.02))
    axes[1].axvline(0.8, color=GREY, linestyle="--", linewidth=0.9)
    axes[1].invert_yaxis()  # both panels turned the shared axis
    return fig


def statistics_over_time(results: Results) -> Figure | None:
    """Scale and shift of each task's statistics against the targets of the moment (first seed)."""
    arm = "suite/popart"
    if not all(len(results.curve(arm, f"sigma_{task}")[0]) for task in TASKS):
        return None
    fig, axes = figure(height=2.7, cols=2)
    for task, colour in zip(TASKS, (BLUE, RUST, GREEN, PLUM), strict=True):
        for panel, (kept, batch) in zip(axes, (("sigma", "target_std"), ("mu", "target_mean")), strict=True):
            steps, values = results.curve(arm, f"{kept}_{task}")
            panel.plot(steps, np.abs(values[0]), color=colour, label=task, linewidth=1.7)
            steps, values = results.curve(arm, f"{batch}_{task}")
            panel.plot(steps, np.abs(values[0]), "o", color=colour, markersize=2.5, alpha=0.6)
    for panel, label in zip(axes, ("scale of the targets", "mean, absolute value"), strict=True):
        panel.set(xlabel="updates", ylabel=label, yscale="log")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig


def gradient_shares(results: Results) -> Figure | None:
    """Share of each task in the gradient that enters the shared layers, stacked."""
    arms = [(name, label) for name, label, _ in ARMS]
    if not all(len(results.curve(f"suite/{name}", f"share_{task}")[0]) for name, _ in arms for task in TASKS):
        return None
    fig, axes = figure(height=2.6, cols=len(arms), sharey=True)
    for panel, (name, label) in zip(axes, arms, strict=True):
        found = [results.curve(f"suite/{name}", f"share_{task}") for task in TASKS]
        parts = [values.mean(0) for _, values in found]
        panel.stackplot(found[0][0], parts, colors=(BLUE, RUST, GREEN, PLUM), alpha=0.75, labels=TASKS)
        panel.set_title(label, fontsize=9.5)
        panel.set(xlabel="updates", ylim=(0, 1))
    axes[0].set_ylabel("share of the gradient")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig


def scale_sweep(results: Results) -> Figure | None:
    """Area under the learning curve against the multiplier of one task's rewards."""
    factors = ("0.01", "0.1", "1", "10", "100", "1000", "10000")
    if not ran(results, *(f"sweep/{name}-{factor}" for name in ("popart", "raw") for factor in factors)):
        return None
    fig, axes = figure(height=2.8)
    for name, label, colour in (("popart", "PopArt", BLUE), ("raw", "raw rewards", RUST)):
        values = np.stack([results.metric(f"sweep/{name}-{factor}", "auc") for factor in factors], 1)
        curves(axes, [float(factor) for factor in factors], values, label, colour, band="range", marker="o")
    axes.set(
        xlabel="rewards of one task multiplied by",
        ylabel="mean score over training",
        xscale="log",
        ylim=(0, 1),
    )
    axes.legend()
    return fig


def two_objectives(results: Results) -> Figure | None:
    """The corridor with a jackpot, and the pull of a sparse task beside a dense one of equal return."""
    if not ran(results, *(f"jackpot/{name}" for name, *_ in ARMS)):
        return None
    pulls = [arm for arm in ARMS[:2] if len(results.curve(f"density/{arm[0]}", "share_sparse")[0])]
    fig, axes = figure(height=2.6, cols=2 if pulls else 1, squeeze=False)
    for name, label, colour in ARMS:
        curves(axes[0, 0], *results.curve(f"jackpot/{name}", "score"), label, colour)
    axes[0, 0].set(xlabel="updates", ylabel="return / jackpot", ylim=(-0.03, 1.03))
    axes[0, 0].legend()
    if pulls:
        panel = axes[0, 1]
        for name, label, colour in pulls:
            curves(panel, *results.curve(f"density/{name}", "share_sparse"), label, colour)
        panel.axhline(0.5, color=GREY, linestyle="--", linewidth=0.9)
        panel.set(xlabel="updates", ylabel="gradient share, sparse", ylim=(0, 1))
    return fig


def preservation(results: Results) -> Figure | None:
    """With and without POP, for statistics that follow slowly and fast."""
    betas = ("0.003", "0.03", "0.3")
    if not ran(results, *(f"beta/{name}-{beta}" for name in ("popart", "art") for beta in betas)):
        return None
    fig, axes = figure(height=2.6)
    labels = [f"{text}\nbeta {beta}" for beta in betas for text in ("PopArt", "ART only")]
    values = [results.metric(f"beta/{name}-{beta}", "auc") for beta in betas for name in ("popart", "art")]
    bars(axes, labels, values, colours=[BLUE, GREEN] * len(betas))
    axes.set_ylabel("mean score over training")
    return fig
