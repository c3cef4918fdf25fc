"""What the page shows."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from assay.lab import Results
from assay.lab.figures import COLOURS, bars, curves, figure, heatmap
from assay.rl.information import entropy, jensen_shannon
from assay.studies.max_exploration import BASELINES, LENGTHS, PLACES, study

NAMES = {
    "max": "MAX",
    "count-optimism": "planned counts",
    "dirichlet": "MAX, exact posterior",
    "jdr-reactive": "disagreement as bonus",
    "boot-dqn": "bootstrapped DQN",
    "eb-dqn": "count bonus DQN",
    "icm": "ICM",
    "rnd": "RND",
    "random": "random",
    "jsd": "disagreement",
    "entropy": "entropy of the mean",
    "error": "expected surprise",
    "error-reactive": "surprise as bonus",
    "tvax": "TVAX",
    "perx": "PERX",
    "1": "1 step",
    "5": "5 steps",
}
CHAIN = ("max", "count-optimism", "dirichlet", "jdr-reactive", *BASELINES, "random")
NOISE = ("jsd", "dirichlet", "entropy", "error", "error-reactive", "random")


def filled(results: Results, arm: str, name: str, episodes: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Episodes 0..E and shares [seeds, E + 1]; a run stops when nothing is left, so its last value goes on."""
    if not results.seeds(arm):
        return None
    steps, values = results.curve(arm, name)
    values = np.atleast_2d(np.asarray(values, dtype=float))
    if values.size == 0:
        return None
    x = np.concatenate([[0], np.asarray(steps)])
    y = np.concatenate([np.zeros((len(values), 1)), values], 1)
    if x[-1] < episodes:
        x, y = np.append(x, episodes), np.concatenate([y, y[:, -1:]], 1)
    return x, y


def explored(results: Results, group: str, kinds: Sequence[str], episodes: int) -> Figure | None:
    fig, axes = figure(height=3.6)
    drawn = False
    for k, kind in enumerate(kinds):
        found = filled(results, f"{group}/{kind}", "share", episodes)
        if found is not None:
            style = {"linestyle": "-" if k < len(COLOURS) else "--"}
            curves(axes, *found, NAMES[kind], COLOURS[k % len(COLOURS)], **style)
            drawn = True
    if not drawn:
        return None
    axes.set(xlabel="episode", ylabel="share of (s, a) executed", ylim=(0, 1.03), xlim=(0, episodes))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


@study.figure("Three pairs: what the utility subtracts", question="specification")
def three_pairs(results: Results) -> Figure:
    """Closed form: three members, three next states."""
    cases = {
        "known": [[0.98, 0.01, 0.01]] * 3,
        "noise, and all know it": [[0.34, 0.33, 0.33]] * 3,
        "contested": [[0.98, 0.01, 0.01], [0.01, 0.98, 0.01], [0.01, 0.01, 0.98]],
    }
    fig, axes = figure(height=2.5, cols=3, sharey=True)
    for ax, (name, rows) in zip(axes, cases.items(), strict=True):
        probs = torch.tensor(rows, dtype=torch.float64)
        parts = [float(entropy(probs.mean(0))), float(entropy(probs).mean()), float(jensen_shannon(probs))]
        ax.bar(range(3), parts, color=COLOURS[:3], alpha=0.75)
        for k, value in enumerate(parts):
            ax.annotate(
                f"{value:.2f}", (k, value), (0, 3), textcoords="offset points", ha="center", fontsize=8.5
            )
        ax.set_xticks(range(3), ["H(mean)", "mean H", "utility"], fontsize=8.5)
        ax.set(title=name, ylim=(0, 1.3))
    axes[0].set_ylabel("nats")
    return fig


@study.figure("Share of the chain explored (30 states)")
def chain_explored(results: Results) -> Figure | None:
    return explored(results, "chain", CHAIN, results.config.chain.episodes)


@study.figure("Seeds that have not yet explored 90 % (a seed still open at the end is censored there)")
def survival(results: Results) -> Figure | None:
    fig, axes = figure(height=2.8)
    drawn = False
    for k, kind in enumerate(CHAIN):
        arm = f"chain/{kind}"
        if not results.seeds(arm):
            continue
        # All seeds are censored at the same episode, so the Kaplan-Meier curve is the empirical one.
        at = np.asarray(results.metric(arm, "episodes90"), dtype=float)
        open_yet = np.asarray(results.metric(arm, "censored"), dtype=float) > 0
        end = results.config.chain.episodes
        x = np.arange(end + 1)
        y = [(np.where(open_yet, np.inf, at) > t).mean() for t in x]
        axes.step(x, y, where="post", label=NAMES[kind], color=COLOURS[k % len(COLOURS)])
        drawn = True
    if not drawn:
        return None
    axes.set(xlabel="episode", ylabel="share of seeds", ylim=(-0.03, 1.05))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


@study.figure(
    "With a trap and a television: share of the chain's own pairs, and of actions spent on the television"
)
def noise_explored(results: Results) -> Figure | None:
    kinds = [kind for kind in NOISE if results.seeds(f"noise/{kind}")]
    if not kinds:
        return None
    fig, axes = figure(height=2.8, cols=2)
    for ax, name, label in (
        (axes[0], "share15", "share explored"),
        (axes[1], "tv_share", "share of actions"),
    ):
        values = [results.metric(f"noise/{kind}", name) for kind in kinds]
        bars(
            ax, [NAMES[kind] for kind in kinds], values, horizontal=True, colours=list(COLOURS[: len(kinds)])
        )
        ax.set(xlabel=label, xlim=(0, 1.03))
    axes[1].set_yticks([])
    return fig


@study.figure(
    "What attracts: utility by state (larger of the two moves) and episode, one seed; the trap is state 0"
)
def attraction(results: Results) -> Figure | None:
    panels = (("trap/jsd", "MAX: disagreement"), ("trap/error-reactive", "PERX: surprise"))
    found = []
    for arm, title in panels:
        seeds = results.seeds(arm)
        value = results.artifact(arm, seeds[0], "utility") if seeds else None
        if value is None:
            return None
        found.append((title, value[..., :2].max(-1)))
    fig, axes = figure(height=3.0, cols=2, sharey=True)
    for ax, (title, picture) in zip(axes, found, strict=True):
        heatmap(ax, picture, label="nats")
        ax.set(title=title, xlabel="state")
    axes[0].set_ylabel("episode after warm-up")
    return fig


@study.figure("A noisy pair's utility (solid) and entropy (dashed) after n visits")
def fading(results: Results) -> Figure | None:
    arms = [arm for arm in ("utility/network", "utility/dirichlet") if results.seeds(arm)]
    if not arms:
        return None
    fig, axes = figure(height=2.7, cols=len(arms), squeeze=False)
    for ax, arm in zip(axes[0], arms, strict=True):
        for k, (name, label) in enumerate((("trap", "trap"), ("tv", "television"))):
            for what, style in (("u", "-"), ("h", "--")):
                steps, values = results.curve(arm, f"{what}_{name}")
                extra = {"label": label} if what == "u" else {}
                curves(ax, steps, values, colour=COLOURS[k], linestyle=style, band=None, **extra)
        ax.set(title=arm.partition("/")[2], xlabel="visits", ylabel="nats", ylim=(0, None))
        ax.set_xscale("symlog", linthresh=1)
        ax.set_xlim(0, None)
        ax.legend()
    return fig


@study.figure("The same ensemble, looking further ahead")
def horizons(results: Results) -> Figure | None:
    shown = [(NAMES[h], f"horizon/{h}") for h in ("1", "5")] + [("to the end", "chain/max")]
    shown = [(name, arm) for name, arm in shown if results.seeds(arm)]
    if len(shown) < 2:
        return None
    fig, axes = figure(height=2.4)
    bars(axes, [name for name, _ in shown], [results.metric(arm, "share15") for _, arm in shown])
    axes.set(ylabel="share explored\nafter 15 episodes", ylim=(0, 1.05))
    return fig


@study.figure("A task given afterwards: success against steps explored")
def downstream(results: Results) -> Figure | None:
    fig, axes = figure(height=2.7, cols=2, sharey=True)
    drawn = False
    for ax, place, title in zip(axes, PLACES, ("mountain car", "maze"), strict=True):
        for k, kind in enumerate(("max", "tvax", "perx", "random")):
            arm = f"control/{place}-{kind}"
            if results.seeds(arm):
                steps, values = results.curve(arm, "success")
                curves(ax, steps, values, NAMES[kind], COLOURS[k], band="range", marker="o", markersize=4)
                drawn = True
        ax.set(title=title, xlabel="steps explored", ylim=(-0.05, 1.08))
    axes[0].set_ylabel("share of starts solved")
    if not drawn:
        return None
    axes[1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


@study.figure("Where exploration without a task went (one seed)")
def places(results: Results) -> Figure | None:
    fig, axes = figure(height=3.6, rows=2, cols=4)
    drawn = False
    for row, place in enumerate(PLACES):
        for column, kind in enumerate(("max", "tvax", "perx", "random")):
            ax = axes[row][column]
            arm = f"control/{place}-{kind}"
            seeds = results.seeds(arm)
            value = results.artifact(arm, seeds[0], "states") if seeds else None
            if value is not None:
                x, y = value.T
                ax.scatter(x, y, s=5, color=COLOURS[column], alpha=0.5, linewidth=0, rasterized=True)
                drawn = True
            if row == 0:
                ax.set(title=NAMES[kind], xlim=(-1.25, 0.65), ylim=(-0.075, 0.075))
            else:
                ax.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05))
            ax.tick_params(labelsize=7)
            if column:
                ax.set_yticklabels([])
    axes[0][0].set_ylabel("velocity", fontsize=9)
    axes[1][0].set_ylabel("maze, y", fontsize=9)
    return fig if drawn else None


@study.figure("Episodes until 90 % are explored, against length (censored runs at the top)")
def against_length(results: Results) -> Figure | None:
    fig, axes = figure(height=2.8)
    drawn = False
    for k, (kind, label) in enumerate((("max", "MAX, exact posterior"), ("random", "random"))):
        arms = [f"length/{kind}-{n}" for n in LENGTHS]
        if all(results.seeds(arm) for arm in arms):
            values = np.stack([np.asarray(results.metric(arm, "episodes90"), dtype=float) for arm in arms], 1)
            curves(axes, LENGTHS, values, label, COLOURS[k], band="range", marker="o", markersize=4)
            drawn = True
    if not drawn:
        return None
    axes.set(xlabel="length", ylabel="episodes", xscale="log", yscale="log")
    axes.set_xticks(LENGTHS, [str(n) for n in LENGTHS])
    axes.minorticks_off()
    axes.legend()
    return fig


@study.figure("The same posterior (10 states), other planners")
def planners(results: Results) -> Figure | None:
    kinds = [kind for kind in ("exact", "mcts", "cem", "shooting") if results.seeds(f"planner/{kind}")]
    if not kinds:
        return None
    fig, axes = figure(height=2.3)
    bars(axes, kinds, [results.metric(f"planner/{kind}", "episodes90") for kind in kinds])
    axes.set_ylabel("episodes to 90 %")
    return fig
