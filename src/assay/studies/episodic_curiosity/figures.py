"""What the page shows."""

import numpy as np
from matplotlib.figure import Figure

from assay.lab import Results
from assay.lab.figures import COLOURS, bars, curves, figure
from assay.studies.episodic_curiosity import ABLATIONS, DENSITIES, KINDS, SCREENS, study

COLOUR = dict(zip(KINDS, COLOURS, strict=False))
SHORT = {"ppo": "PPO", "icm": "ICM", "ec": "EC", "eco": "ECO", "oracle": "oracle", "random": "random"}


def present(results: Results, arms: list[str]) -> list[str]:
    """Those that have a result."""
    return [arm for arm in arms if arm in results.arms and results.seeds(arm)]


@study.figure("What the network calls near, by true distance, in layouts that it never saw")
def reach(results: Results) -> Figure | None:
    """Mean similarity against steps."""
    if not present(results, ["rnet/unseen"]):
        return None
    fig, ax = figure(height=2.6)
    steps, values = results.curve("rnet/unseen", "similarity")
    curves(ax, steps, values, "C", COLOURS[0])
    ax.axvline(2, color="grey", linewidth=0.8, linestyle=":")
    ax.axvline(8, color="grey", linewidth=0.8, linestyle=":")
    ax.set_xlabel("steps between two cells (dotted: close until 2, far beyond 8)")
    ax.set_ylabel("C")
    ax.set_ylim(0, 1)
    return fig


@study.figure("Rooms in an episode while learning, without any reward and with a very distant one")
def rooms(results: Results) -> Figure | None:
    """Means over the episodes that ended; bands from the lowest to the highest seed."""
    worlds = [w for w in ("none", "very_sparse") if present(results, [f"{w}/{k}" for k in DENSITIES[w]])]
    if not worlds:
        return None
    fig, axes = figure(height=3.0, cols=len(worlds), squeeze=False, sharey=True)
    for ax, world in zip(axes[0], worlds, strict=True):
        for kind in DENSITIES[world]:
            if kind != "random" and present(results, [f"{world}/{kind}"]):
                steps, values = results.curve(f"{world}/{kind}", "rooms")
                curves(ax, steps / 1000, values, SHORT[kind], COLOUR[kind], band="range")
        ax.set_title(world.replace("_", " "))
        ax.set_xlabel("thousand environment steps")
    axes[0][0].set_ylabel("rooms")
    axes[0][0].legend()
    return fig


@study.figure("Return while learning, from dense to very sparse reward")
def densities(results: Results) -> Figure | None:
    """Share of the best return; bands from the lowest to the highest seed."""
    worlds = [w for w in DENSITIES if w != "none" and present(results, [f"{w}/{k}" for k in DENSITIES[w]])]
    if not worlds:
        return None
    fig, axes = figure(height=4.6, rows=2, cols=3, sharey=True, sharex=True)
    for ax, world in zip(axes.flat, worlds, strict=False):
        for kind in DENSITIES[world]:
            if kind != "random" and present(results, [f"{world}/{kind}"]):
                steps, values = results.curve(f"{world}/{kind}", "score")
                curves(ax, steps / 1000, values, SHORT[kind], COLOUR[kind], band="range")
        ax.set_title(world.replace("_", " "))
    for ax in axes.flat[len(worlds) :]:
        ax.axis("off")
    for ax in axes[1]:
        ax.set_xlabel("thousand steps")
    handles, labels = axes.flat[min(2, len(worlds) - 1)].get_legend_handles_labels()
    axes.flat[-1].legend(handles, labels, loc="center")
    return fig


@study.figure("Noisy screens: share of actions spent on the button (line: chance), and rooms reached")
def television(results: Results) -> Figure | None:
    """All kinds of screen."""
    arms = present(results, [f"tv-{s}/{k}" for s in SCREENS for k in ("icm", "ec")])
    if not arms:
        return None
    fig, axes = figure(height=2.8, cols=2)
    pressed = [a for a in arms if not a.startswith("tv-noise/")]
    for ax, names, metric in ((axes[0], pressed, "tv_share"), (axes[1], arms, "rooms")):
        labels = [f"{SHORT[a.partition('/')[2]]}\n{a[3:].partition('/')[0].replace('_', ' ')}" for a in names]
        colours = [COLOUR[a.partition("/")[2]] for a in names]
        bars(ax, labels, [results.metric(a, metric) for a in names], colours=colours)
        ax.tick_params(axis="x", labelsize=6)
    axes[0].axhline(0.2, color="black", linewidth=0.8)
    axes[0].set_title("share of television")
    axes[1].set_title("rooms")
    return fig


@study.figure("One episode: where the agent went, and where it was paid")
def episode(results: Results) -> Figure | None:
    """The path of one copy, coloured by the bonus of each step."""
    arms = present(results, ["none/ec", "none/icm"])
    found = [(arm, results.artifact(arm, results.seeds(arm)[0], "episode")) for arm in arms]
    found = [(arm, value) for arm, value in found if value is not None]
    if not found:
        return None
    fig, axes = figure(height=3.0, cols=len(found), squeeze=False)
    for ax, (arm, value) in zip(axes[0], found, strict=True):
        place, paid = np.asarray(value["place"]), np.asarray(value["bonus"])
        ax.plot(place[:, 1], place[:, 0], color="grey", linewidth=0.5)
        dots = ax.scatter(place[:, 1], place[:, 0], c=paid, s=14, cmap="viridis")
        ax.invert_yaxis()
        ax.set_aspect("equal")
        ax.set_title(SHORT[arm.partition("/")[2]])
        ax.set_xticks([])
        ax.set_yticks([])
        fig.colorbar(dots, ax=ax, shrink=0.8)
    return fig


@study.figure("Share of steps with a wall ahead")
def walls(results: Results) -> Figure | None:
    """Textured against plain walls."""
    arms = present(results, [f"walls/{k}-{w}" for k in ("icm", "ec") for w in ("plain", "textured")])
    if not arms:
        return None
    fig, ax = figure(height=2.4)
    labels = [a.partition("/")[2].replace("-", "\n") for a in arms]
    bars(ax, labels, [results.metric(a, "wall_share") for a in arms])
    return fig


@study.figure(
    "Episodic curiosity with one thing changed: rooms in an episode at the end", question="what-matters"
)
def ablations(results: Results) -> Figure | None:
    """Means over the last fifth of training, no reward."""
    arms = present(results, [f"ablate/{name}" for name in ABLATIONS])
    if not arms:
        return None
    fig, ax = figure(height=2.6)
    arms = [*present(results, ["none/ec"]), *arms]
    labels = [a.partition("/")[2].replace("-", " = ").replace("ec", "as it is") for a in arms]
    bars(ax, labels, [results.metric(a, "rooms_mean") for a in arms])
    ax.set_ylabel("rooms")
    return fig
