"""What the page shows."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from assay.lab import Results
from assay.lab.figures import COLOURS, bars, curves, figure, heatmap
from assay.studies.random_network_distillation import CLASSES, TASKS, study
from assay.studies.random_network_distillation.sources import CONDITIONS

COLOUR = {"ppo": COLOURS[6], "rnd": COLOURS[0], "dynamics": COLOURS[1], "count": COLOURS[2]}
NAMES = {"ppo": "no bonus", "rnd": "RND", "dynamics": "forward model", "count": "true counts"}


def kept(results: Results, arm: str, name: str) -> Any:
    """The artifact of the first seed that has one, or None."""
    for seed in results.seeds(arm) if arm in results.arms else ():
        if (value := results.artifact(arm, seed, name)) is not None:
            return value
    return None


@study.figure("Novelty of a digit falls with the number of its examples")
def novelty_of_digits(results: Results) -> Figure | None:
    """Error on unseen digits of a class after training on zeros and n of its examples."""
    if not any(f"digits/{c}" in results.arms for c in CLASSES):
        return None
    fig, axes = figure(height=3.0)
    for c, colour in zip(CLASSES, COLOURS, strict=False):
        arm = f"digits/{c}"
        if arm not in results.arms:
            continue
        names = results.config.digits.examples
        rows = np.stack([results.metric(arm, f"novelty_{n}") for n in names], 1)
        at = [max(n, 0.3) for n in names]
        curves(axes, at, rows, f"unseen {c}s", colour, marker="o", markersize=3)
        known = np.stack([results.metric(arm, f"zeros_{n}") for n in names], 1)
        curves(axes, at, known, "zeros (trained on)" if c == CLASSES[-1] else None, COLOURS[6], linewidth=0.9)
    axes.set_xscale("log")
    axes.set_xticks(at, [str(n) for n in names])
    axes.set_xlabel("examples of the class among the training data")
    axes.set_ylabel("prediction error")
    axes.set_ylim(bottom=0)
    axes.legend()
    return fig


@study.figure("Four sources of prediction error, one at a time")
def sources_of_error(results: Results) -> Figure | None:
    """Unexplained share of the target's variance on fresh data."""
    arms = [arm for arm in ("sources/rnd", "sources/dynamics") if arm in results.arms]
    if not arms:
        return None
    shown = dict(
        zip(
            (*CONDITIONS, "short"),
            ("none of them", "1 too little data", "2 noise", "3 too complex a world", "4 too few steps"),
            strict=True,
        )
    )
    fig, axes = figure(height=2.8, cols=len(arms), sharex=True, squeeze=False)
    for ax, arm in zip(axes[0], arms, strict=True):
        kind = arm.partition("/")[2]
        bars(
            ax,
            list(shown.values()),
            [results.metric(arm, name) for name in shown],
            colours=COLOUR[kind],
            horizontal=True,
        )
        ax.set_title(NAMES[kind])
        ax.set_xlabel("unexplained variance")
        if ax is not axes[0, 0]:
            ax.set_yticklabels([])
    return fig


@study.figure("Rooms found, of sixteen")
def rooms_over_time(results: Results) -> Figure | None:
    """Any copy counts; the reward lies in the last room."""
    arms = [f"rooms/{kind}" for kind in NAMES if f"rooms/{kind}" in results.arms]
    if not arms:
        return None
    fig, axes = figure(height=3.0)
    for arm in arms:
        kind = arm.partition("/")[2]
        steps, values = results.curve(arm, "rooms")
        curves(axes, np.asarray(steps) / 1000, values, NAMES[kind], COLOUR[kind])
    axes.set_xlabel("thousand environment steps")
    axes.set_ylabel("rooms found")
    axes.legend()
    return fig


@study.figure("Where the agents were, in each quarter of the training (log of visits, one seed)")
def visits(results: Results) -> Figure | None:
    """The snake of rooms begins in the upper left corner."""
    found = {kind: kept(results, f"rooms/{kind}", "visits") for kind in ("ppo", "rnd", "dynamics")}
    maps = {kind: value for kind, value in found.items() if value is not None}
    if not maps:
        return None
    fig, axes = figure(height=1.75 * len(maps), rows=len(maps), cols=4, squeeze=False)
    for row, (kind, value) in zip(axes, maps.items(), strict=True):
        for quarter, (ax, counts) in enumerate(zip(row, value, strict=True)):
            heatmap(ax, np.log10(counts + 1), bar=False, aspect="equal", vmin=0, vmax=4, cmap="magma")
            ax.set_xticks([])
            ax.set_yticks([])
            if quarter == 0:
                ax.set_ylabel(NAMES[kind])
            if kind == next(iter(maps)):
                ax.set_title(f"quarter {quarter + 1}")
    return fig


@study.figure("The bonus along the way through all rooms, as training goes on")
def bonus_along_the_way(results: Results) -> Figure | None:
    """RND's error on the cells of the shortest path; lines mark where a room begins."""
    value = kept(results, "rooms/rnd", "bonus")
    if value is None:
        return None
    fig, axes = figure(height=2.8)
    for k, (line, update) in enumerate(zip(value["bonus"], value["update"], strict=True)):
        axes.plot(line + 1e-6, color=COLOURS[k], linewidth=1.4, label=f"update {int(update) + 1}")
    for at in np.flatnonzero(np.diff(value["room"])):
        axes.axvline(at + 1, color="black", linewidth=0.5, alpha=0.3)
    axes.set_yscale("log")
    axes.set_xlabel("steps from the start (rooms are set off by lines)")
    axes.set_ylabel("prediction error")
    axes.legend(ncols=2)
    return fig


@study.figure("A television in the world")
def television(results: Results) -> Figure | None:
    """Share of actions that press its button (uniform: 0.2), and rooms found of nine with and without it."""
    kinds = [k for k in ("rnd", "dynamics") if f"tv/{k}-on" in results.arms]
    if not kinds:
        return None
    fig, axes = figure(height=2.7, cols=2, width_ratios=(1, 2))
    share = [results.metric(f"tv/{k}-on", "tv_share") for k in kinds]
    bars(axes[0], [NAMES[k] for k in kinds], share, colours=[COLOUR[k] for k in kinds])
    axes[0].axhline(0.2, color="black", linewidth=0.8, linestyle=(0, (3, 2)))
    axes[0].set_title("actions at the button")
    arms = [(k, power) for k in kinds for power in ("off", "on") if f"tv/{k}-{power}" in results.arms]
    bars(
        axes[1],
        [f"{NAMES[k]}, {'with TV' if power == 'on' else 'without'}" for k, power in arms],
        [results.metric(f"tv/{k}-{power}", "rooms") for k, power in arms],
        colours=[COLOUR[k] for k, _ in arms],
    )
    axes[1].set_title("rooms found")
    return fig


@study.figure("Death traps: does the bonus's return go on after the end?")
def after_death(results: Results) -> Figure | None:
    """Rooms found of sixteen, and how often the reward half way was reached in the last quarter."""
    names = {
        "non-episodic": "bonus only, goes on",
        "episodic": "bonus only, stops",
        "two-heads": "with reward, two heads",
        "one-head": "with reward, one head",
    }
    arms = [name for name in names if f"traps/{name}" in results.arms]
    if not arms:
        return None
    fig, axes = figure(height=2.4)
    shades = [COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[3]][: len(arms)]
    bars(
        axes,
        [names[a] for a in arms],
        [results.metric(f"traps/{a}", "rooms") for a in arms],
        colours=shades,
        horizontal=True,
    )
    axes.set_xlabel("rooms found")
    return fig


@study.figure("Six tasks with and without the bonus", question="two-games")
def six_tasks(results: Results) -> Figure | None:
    """Score after training: 0 for random actions, 1 for the largest return."""
    tasks = [t for t in TASKS if {f"suite/{t}-ppo", f"suite/{t}-rnd"} <= set(results.arms)]
    if not tasks:
        return None
    fig, axes = figure(height=0.7 + 0.42 * 2 * len(tasks))
    pairs = [(task, kind) for task in tasks for kind in ("ppo", "rnd")]
    bars(
        axes,
        [f"{task.replace('-', ' ')}, {'PPO' if kind == 'ppo' else 'with RND'}" for task, kind in pairs],
        [results.metric(f"suite/{task}-{kind}", "score") for task, kind in pairs],
        colours=[COLOUR[kind] for _, kind in pairs],
        horizontal=True,
    )
    axes.set_xlabel("score")
    return fig
