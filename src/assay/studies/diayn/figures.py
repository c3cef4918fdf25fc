"""What the page shows."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from assay.lab import Results
from assay.lab.figures import COLOURS, bars, curves, figure
from assay.studies.diayn import study

CORNER = {
    "corner/meta": "frozen skills",
    "corner/joint": "skills trained on",
    "corner/repeat": "one move repeated",
    "corner/random-skills": "random skills",
    "corner/flat": "single moves",
}
CARS = {
    "car/with-logp": "log q + log K",
    "car/no-logp": "log q",
    "car/constant": "−1 a step",
    "car/init": "untrained",
}


def _paths(axes: Axes, results: Results, arm: str, bound: float) -> None:
    """Trajectories of one seed, coloured by skill, over the discriminator's map where there is one."""
    seed = results.seeds(arm)[0]
    found = results.artifact(arm, seed, "paths")
    if found is None:
        return
    states, skill = np.asarray(found["states"]), np.asarray(found["skill"])
    colours = colormaps["tab20"](np.arange(skill.max() + 1) % 20)
    picture = results.artifact(arm, seed, "map")
    if picture is not None:
        axes.imshow(
            colours[np.minimum(np.asarray(picture), len(colours) - 1)],
            extent=(-1.5, 1.5, -1.5, 1.5),
            alpha=0.25,
            interpolation="nearest",
            aspect="auto",
        )
    for n in range(min(states.shape[1], 48)):
        axes.plot(states[:, n, 0], states[:, n, 1], color=colours[skill[n]], linewidth=0.8)
    axes.set_xlim(-bound, bound)
    axes.set_ylim(-bound, bound)
    axes.set_aspect("equal")


@study.figure("Trajectories coloured by skill, over the map of what the discriminator would say")
def trajectories(results: Results) -> Figure | None:
    """One seed of three arms."""
    arms = [
        (arm, title)
        for arm, title in (
            ("skills/random", "untrained"),
            ("skills/diayn", "trained, in a box"),
            ("open/diayn", "trained, in the open"),
        )
        if arm in results.arms and results.seeds(arm)
    ]
    if not arms:
        return None
    fig, axes = figure(height=2.6, cols=len(arms), squeeze=False)
    for ax, (arm, title) in zip(axes[0], arms, strict=True):
        _paths(ax, results, arm, 1.5 if arm.startswith("open") else 1.1)
        ax.set_title(title)
        ax.set_xticks([])
        ax.set_yticks([])
    return fig


@study.figure("Skills that the prior still uses, and skills that a fresh discriminator recognises")
def alive(results: Results) -> Figure | None:
    """Over training, for three priors."""
    names = {"skills/diayn": "uniform", "skills/vic": "VIC-like", "skills/official": "released option"}
    shown = [arm for arm in names if arm in results.arms]
    if not shown:
        return None
    fig, axes = figure(height=2.8, cols=2)
    for colour, arm in zip(COLOURS, shown, strict=False):
        for ax, curve in ((axes[0], "effective"), (axes[1], "alive")):
            steps, values = results.curve(arm, curve)
            curves(ax, steps, values, names[arm], colour)
    axes[0].set_title("effective number of the prior")
    axes[1].set_title("recognised (of all)")
    for ax in axes:
        ax.set_xlabel("environment steps")
        ax.set_ylim(bottom=0)
    axes[0].legend()
    return fig


@study.figure("States visited: skills against uniformly random actions")
def exploration(results: Results) -> Figure | None:
    """The panel without a claim."""
    shown = [
        (arm, name)
        for arm, name in (("skills/diayn", "box"), ("open/diayn", "open plane"))
        if arm in results.arms
    ]
    if not shown:
        return None
    fig, axes = figure(height=2.4, cols=2)
    for ax, metric, title in (
        (axes[0], "coverage", "share of squares entered"),
        (axes[1], "distance", "distance at the end"),
    ):
        labels, values = [], []
        for arm, name in shown:
            labels += [f"{name}:\nskills", f"{name}:\nrandom"]
            values += [results.metric(arm, metric), results.metric(arm, f"{metric}_of_random_actions")]
        bars(ax, labels, values, colours=[COLOURS[0], COLOURS[3]] * len(shown))
        ax.set_title(title)
    return fig


@study.figure("Three corners in order: return while learning")
def corners(results: Results) -> Figure | None:
    """Environment steps on the task; learning the skills took further steps, which the text counts."""
    shown = [arm for arm in CORNER if arm in results.arms]
    if not shown:
        return None
    fig, ax = figure(height=3.2)
    for colour, arm in zip(COLOURS, shown, strict=False):
        steps, values = results.curve(arm, "score")
        curves(ax, steps, values, CORNER[arm], colour)
    ax.set_xlabel("environment steps on the task")
    ax.set_ylabel("corners an episode")
    ax.set_ylim(0, 3.1)
    ax.legend()
    return fig


@study.figure("Mountain car without reward: does a skill arrive, and do skills differ?")
def mountain_car(results: Results) -> Figure | None:
    """Success of the best skill beside what a fresh discriminator can tell."""
    shown = [arm for arm in CARS if arm in results.arms]
    if not shown:
        return None
    fig, axes = figure(height=2.6, cols=2)
    labels = [CARS[arm] for arm in shown]
    for ax, metric, title in (
        (axes[0], "best_success", "success of the best skill"),
        (axes[1], "mi", "I(S; Z), nats"),
    ):
        bars(ax, labels, [results.metric(arm, metric) for arm in shown], colours=list(COLOURS[: len(shown)]))
        ax.set_title(title)
        ax.tick_params(axis="x", rotation=20)
    return fig


@study.figure("How often each skill reaches the flag (all seeds)")
def histogram(results: Results) -> Figure | None:
    """Without reward some skills score high."""
    shown = [arm for arm in CARS if arm in results.arms]
    found = {
        arm: [v for s in results.seeds(arm) if (v := results.artifact(arm, s, "success")) is not None]
        for arm in shown
    }
    if not any(found.values()):
        return None
    fig, axes = figure(height=2.2, cols=len(shown), squeeze=False, sharey=True)
    for ax, arm, colour in zip(axes[0], shown, COLOURS, strict=False):
        if found[arm]:
            ax.hist(
                np.concatenate([np.ravel(v) for v in found[arm]]), bins=np.linspace(0, 1, 9), color=colour
            )
        ax.set_title(CARS[arm])
        ax.set_xlabel("success")
    axes[0][0].set_ylabel("skills")
    return fig


@study.figure("Where skills go when the discriminator sees part of the state")
def subsets(results: Results) -> Figure | None:
    """One seed an arm."""
    shown = [
        arm for arm in ("subset/x", "subset/y", "subset/xy") if arm in results.arms and results.seeds(arm)
    ]
    if not shown:
        return None
    fig, axes = figure(height=2.4, cols=len(shown), squeeze=False)
    for ax, arm in zip(axes[0], shown, strict=True):
        _paths(ax, results, arm, 1.1)
        ax.set_title(f"sees {arm.partition('/')[2]}")
    return fig


@study.figure("One corner: a skill trained on, against scratch")
def tuning(results: Results) -> Figure | None:
    """Success while learning."""
    names = {"tune/skill": "from the best skill", "tune/scratch": "from scratch"}
    shown = [arm for arm in names if arm in results.arms]
    if not shown:
        return None
    fig, ax = figure(height=2.6)
    for colour, arm in zip(COLOURS, shown, strict=False):
        steps, values = results.curve(arm, "score")
        curves(ax, steps, values, names[arm], colour)
    ax.set_xlabel("environment steps on the task")
    ax.set_ylabel("success")
    ax.legend()
    return fig
