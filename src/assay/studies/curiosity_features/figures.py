"""What the page shows."""

import numpy as np
from matplotlib.figure import Figure

from assay.lab import Results
from assay.lab.figures import COLOURS, bars, curves, figure, heatmap
from assay.studies.curiosity_features import CONTROLS, GAMES, LEAKS, TV, study

COLOUR = {
    "random": COLOURS[6], "pixels": COLOURS[1], "rf": COLOURS[0], "idf": COLOURS[2], "vae": COLOURS[3],
}  # fmt: skip
NAMES = {
    "random": "random actions", "pixels": "pixels", "rf": "random features", "idf": "inverse dynamics",
    "vae": "autoencoder",
}  # fmt: skip
SCORE = {
    "scroller": "furthest column",
    "rooms": "rooms an episode",
    "breakout": "bricks an episode",
    "pong": "returns a rally",
    "maze": "goals an episode",
    "car": "height reached",
}


def there(results: Results, arms: list[str]) -> list[str]:
    """Those that were run."""
    return [arm for arm in arms if arm in results.arms and results.seeds(arm)]


@study.figure("Scores that no agent ever saw")
def scores(results: Results) -> Figure | None:
    """Mean score of the episodes that ended in an update; dashed: random actions. Last two: controls."""
    shown = {game: there(results, [f"{game}/{kind}" for kind in NAMES if kind != "random"]) for game in SCORE}
    games = [game for game, arms in shown.items() if arms]
    if not games:
        return None
    cols = min(3, len(games))
    rows = -(-len(games) // cols)
    fig, axes = figure(height=2.3 * rows, rows=rows, cols=cols, squeeze=False)
    named: set[str] = set()
    for ax in axes.flat[len(games) :]:
        ax.axis("off")
    for ax, game in zip(axes.flat, games, strict=False):
        for arm in shown[game]:
            kind = arm.partition("/")[2]
            steps, values = results.curve(arm, "score")
            values = np.asarray(values, dtype=float)
            kept = np.isfinite(values).all(0)
            if kept.any():
                label = None if kind in named else NAMES[kind]
                named.add(kind)
                curves(ax, np.asarray(steps)[kept] / 1000, values[:, kept], label, COLOUR[kind])
        for arm in there(results, [f"{game}/random"]):
            chance = float(np.nanmean(results.metric(arm, "score")))
            ax.axhline(chance, color="black", linewidth=0.9, linestyle=(0, (3, 2)))
        ax.set_title(game + (" (control)" if game in CONTROLS else ""))
        ax.set_ylabel(SCORE[game])
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=7)
    for ax in axes[-1]:
        ax.set_xlabel("thousand steps")
    return fig


@study.figure("Score over the whole run, in units of the range from chance to the best feature space")
def spaces(results: Results) -> Figure | None:
    """0: random actions. Dots are seeds; where no space beats chance there is no unit, and the game is left out."""
    rows = []
    for game, kinds in GAMES.items():
        if len(there(results, [f"{game}/{kind}" for kind in kinds])) < len(kinds):
            continue
        chance = float(np.mean(results.metric(f"{game}/random", "score")))
        found = {
            kind: np.asarray(results.metric(f"{game}/{kind}", "score")) for kind in kinds if kind != "random"
        }
        span = max(float(np.mean(values)) for values in found.values()) - chance
        if span > 0:
            rows += [(game, kind, (values - chance) / span) for kind, values in found.items()]
    if not rows:
        return None
    fig, ax = figure(height=0.7 + 0.24 * len(rows))
    bars(
        ax,
        [f"{game}, {NAMES[kind]}" for game, kind, _ in rows],
        [values for *_, values in rows],
        colours=[COLOUR[kind] for _, kind, _ in rows],
        horizontal=True,
    )
    return fig


@study.figure("Where the runner was, in each sixth of the run (log of visits, one seed)")
def visits(results: Results) -> Figure | None:
    """Places that became familiar are left; when the whole way is familiar, nothing pulls to the right any more."""
    kept = {}
    for kind in ("random", "rf", "idf"):
        arm = f"scroller/{kind}"
        for seed in results.seeds(arm) if arm in results.arms else ():
            if (value := results.artifact(arm, seed, "visits")) is not None:
                kept[kind] = value["value"] if isinstance(value, dict) else value
                break
    if not kept:
        return None
    fig, axes = figure(height=1.4 * len(kept) + 0.3, rows=len(kept), squeeze=False)
    for ax, (kind, counts) in zip(axes[:, 0], kept.items(), strict=True):
        heatmap(ax, np.log10(np.asarray(counts) + 1), bar=False, aspect="auto", cmap="magma")
        ax.set_title(NAMES[kind])
        ax.set_yticks([0, 5], ["first", "last"])
    axes[-1, 0].set_xlabel("column of the level")
    return fig


@study.figure("Before a television: share of actions at its button (line: chance), and rooms found of nine")
def television(results: Results) -> Figure | None:
    """Arms with and without a television."""
    every = [
        f"tv/{kind}-{tv}" for kind in ("rf", "pixels", "idf") for tv in ("off", "button", "image", "noise")
    ]
    arms = there(results, every)
    if not any(f"tv/{name}" in arms for name in TV):
        return None
    fig, axes = figure(height=0.9 + 0.32 * len(arms), cols=2)
    pressed = [arm for arm in arms if arm.endswith(("button", "image"))]
    for ax, names, metric in ((axes[0], pressed, "tv_share"), (axes[1], arms, "rooms")):
        labels = [arm.partition("/")[2].replace("-", ", ") for arm in names]
        colours = [COLOUR[arm.partition("/")[2].partition("-")[0]] for arm in names]
        if names:
            bars(ax, labels, [results.metric(arm, metric) for arm in names], colours=colours, horizontal=True)
    axes[0].axvline(0.2, color="black", linewidth=0.9, linestyle=(0, (3, 2)))
    axes[0].set_title("share of actions")
    axes[1].set_title("rooms found")
    return fig


@study.figure("Stationary, sufficient, compact: the feature spaces measured", question="why-random")
def diagnostics(results: Results) -> Figure | None:
    """Platform game, on transitions of a random policy: linear probes, and change between two examinations."""
    arms = there(results, [f"scroller/{kind}" for kind in ("pixels", "rf", "idf", "vae")])
    if not arms:
        return None
    fig, axes = figure(height=3.6, rows=2, cols=2)
    panels = (
        ("probe_r2", "true state read off (held-out $R^2$)"),
        ("inverse_accuracy", "actions told right"),
        ("drift_mse", "change of the features (variances)"),
        ("score", "score: furthest column"),
    )
    for ax, (metric, title) in zip(axes.flat, panels, strict=True):
        kinds = [arm.partition("/")[2] for arm in arms]
        bars(ax, kinds, [results.metric(arm, metric) for arm in arms], colours=[COLOUR[k] for k in kinds])
        ax.set_title(title)
    return fig


@study.figure("A constant reward is not neutral: length of life")
def lives(results: Results) -> Figure | None:
    """Mean length of the episodes that ended; cut off at 300 steps."""
    arms = there(results, [f"leak/{name}" for name in LEAKS if name != "random"])
    if not arms:
        return None
    fig, ax = figure(height=2.8)
    for colour, arm in zip(COLOURS, arms, strict=False):
        steps, values = results.curve(arm, "length")
        values = np.asarray(values, dtype=float)
        kept = np.isfinite(values).all(0)
        if kept.any():
            label = LEAKS[arm.partition("/")[2]]
            curves(ax, np.asarray(steps)[kept] / 1000, values[:, kept], label, colour)
    for arm in there(results, ["leak/random"]):
        ax.axhline(
            float(np.mean(results.metric(arm, "length"))), color="black", linewidth=0.9, linestyle=(0, (3, 2))
        )
    ax.set_xlabel("thousand steps")
    ax.set_ylabel("steps of an episode")
    ax.legend(fontsize=7)
    return fig


@study.figure("Surprise, while the platform game becomes familiar")
def surprise(results: Results) -> Figure | None:
    """Mean error of the forward model on the steps of an update; sizes of different spaces cannot be compared."""
    arms = there(results, [f"scroller/{kind}" for kind in ("pixels", "rf", "idf", "vae")])
    if not arms:
        return None
    fig, ax = figure(height=2.5)
    for arm in arms:
        kind = arm.partition("/")[2]
        steps, values = results.curve(arm, "bonus")
        curves(ax, np.asarray(steps) / 1000, np.asarray(values, dtype=float), NAMES[kind], COLOUR[kind])
    ax.set_yscale("log")
    ax.set_xlabel("thousand steps")
    ax.set_ylabel("squared error a feature")
    ax.legend(fontsize=8)
    return fig
