"""Figures, from metrics, curves and the saved weights."""

import numpy as np
from matplotlib.figure import Figure

from assay.lab import Results
from assay.lab.figures import COLOURS, bars, curves, figure
from assay.studies.adaptive_generalization.tuning import ADAPTIVE, KINDS, crossing

NAMES = {
    "sgd": "SGD",
    "hb": "heavy ball",
    "adagrad": "AdaGrad",
    "rmsprop": "RMSProp",
    "adam": "Adam",
    "adam-default": "Adam at 0.001",
}
COLOUR = dict(zip(NAMES, COLOURS, strict=False))
HELD = {"image": "valid_error", "chars": "valid_loss"}
SCORE = {"image": "test_error", "chars": "test_loss"}
TASKS = {"image": "images: error, %", "chars": "characters: nats"}


def ran(results: Results, task: str, names: tuple[str, ...] = tuple(NAMES)) -> list[str]:
    """The methods whose arm of a task ran without failing."""
    arms = [name for name in names if f"{task}/{name}" in results.arms]
    return [
        name
        for name in arms
        if not any(results.failure(f"{task}/{name}", s) for s in results.seeds(f"{task}/{name}"))
    ]


def weights(results: Results) -> Figure | None:
    """Weights of SGD and Adam on the smallest adversarial data set, over X'y."""
    found = {}
    for name in ("sgd", "adam"):
        seeds = results.seeds(f"linear/{name}")
        found[name] = results.artifact(f"linear/{name}", seeds[0], "weights") if seeds else None
    if any(value is None for value in found.values()):
        return None
    xty = found["sgd"]["xty"]
    unique = np.flatnonzero(xty[3:]) + 3
    shown = np.concatenate([np.arange(3), unique[np.argsort(-xty[unique], kind="stable")]])
    fig, panels = figure(height=4.6, rows=3, sharex=True)
    for axes, values, title, colour in (
        (panels[0], xty, r"what the first gradient knows: $X^\top y$", COLOURS[6]),
        (panels[1], found["sgd"]["w"], "weights found by SGD", COLOUR["sgd"]),
        (panels[2], found["adam"]["w"], "weights found by Adam", COLOUR["adam"]),
    ):
        axes.bar(np.arange(len(shown)), values[shown], color=colour, width=0.8)
        axes.set_title(title)
        axes.axvline(2.5, color="grey", linewidth=0.7, linestyle="--")
    panels[2].set_xlabel(
        "feature: the true one, two constants | unique features, of positives and of negatives"
    )
    return fig


def strengths(results: Results) -> Figure | None:
    """Test error on digits against strength and number of the unique features."""
    methods = ran(results, "digits", tuple(KINDS))
    if not methods:
        return None
    fig, panels = figure(height=3.2, cols=2, sharey=True)
    config = results.config.digits
    at = list(range(len(config.strengths)))
    counts = sorted({*config.counts, 5})
    for name in methods:
        arm = f"digits/{name}"
        by_strength = [results.metric(arm, f"error_s{s:g}") for s in config.strengths]
        curves(panels[0], at, np.array(by_strength).T, NAMES[name], COLOUR[name], marker="o", markersize=3)
        by_count = [results.metric(arm, f"error_k{c}" if c in config.counts else "error_s1") for c in counts]
        if np.isfinite(by_count).all():
            curves(
                panels[1], counts, np.array(by_count).T, NAMES[name], COLOUR[name], marker="o", markersize=3
            )
    panels[0].set_xticks(at, [f"{s:g}" for s in config.strengths])
    panels[0].set_xlabel("strength of the unique features")
    panels[0].set_ylabel("test error, %")
    panels[0].legend(fontsize=8)
    panels[1].set_xlabel("unique features of a negative (strength 1)")
    return fig


def crossings(results: Results) -> Figure | None:
    """Held-out and training curves; where the better of SGD and heavy ball passes each adaptive method."""
    tasks = [task for task in TASKS if ran(results, task, tuple(KINDS))]
    tasks = [task for task in tasks if len(results.curve(f"{task}/sgd", HELD[task])[0])]
    if not tasks:
        return None
    fig, panels = figure(height=3.0 * len(tasks), rows=len(tasks), cols=2, squeeze=False)
    for row, task in zip(panels, tasks, strict=True):
        for axes, metric, title in (
            (row[0], "train_loss", "training loss"),
            (row[1], HELD[task], "held-out"),
        ):
            for name in ran(results, task, tuple(KINDS)):
                steps, values = results.curve(f"{task}/{name}", metric)
                curves(axes, steps, values, NAMES[name], COLOUR[name], band=None)
            axes.set_title(f"{TASKS[task].split(':')[0]}: {title}")
            axes.set_xlabel("step")
            if metric == "train_loss":
                axes.set_yscale("log")
        for name, share in crossing_times(results, task).items():
            steps, values = results.curve(f"{task}/{name}", HELD[task])
            place = float(np.mean(share))
            if place < 1:
                at = place * steps[-1]
                height = np.interp(at, steps, values.mean(0))
                row[1].plot([at], [height], "o", color=COLOUR[name], markersize=6)
    panels[0][0].legend(fontsize=8)
    return fig


def crossing_times(results: Results, task: str) -> dict[str, list[float]]:
    """Of every adaptive method, by seed: share of the run after which SGD or heavy ball is at least as good."""
    plain = [results.curve(f"{task}/{name}", HELD[task])[1] for name in ran(results, task, ("sgd", "hb"))]
    if not plain or any(not values.size for values in plain):
        return {}
    best = np.minimum.reduce(plain)
    found = {}
    for name in ran(results, task, ADAPTIVE):
        values = results.curve(f"{task}/{name}", HELD[task])[1]
        if values.shape == best.shape:
            found[name] = [crossing(list(a), list(b)) for a, b in zip(values, best, strict=True)]
    return found


def table(results: Results) -> Figure | None:
    """Method by task: tuned, what three random rates of the grid would give, crossing time, rank."""
    tasks = [task for task in TASKS if ran(results, task)]
    if not tasks:
        return None
    fig, panels = figure(height=2.4 * len(tasks), rows=len(tasks), squeeze=False)
    for (axes,), task in zip(panels, tasks, strict=True):
        methods = ran(results, task)
        times = crossing_times(results, task)
        among = [name for name in methods if name in ADAPTIVE]
        scores = {name: results.metric(f"{task}/{name}", SCORE[task]) for name in methods}
        cells = []
        for name in methods:
            arm, values = f"{task}/{name}", scores[name]
            lost = results.metric(arm, "regret_of_3")
            rank = (
                1 + sum(values > scores[other] for other in among if other != name) if name in among else None
            )
            cells.append(
                [
                    NAMES[name],
                    f"{values.mean():.3f}",
                    f"+{lost.mean():.3f}" if np.isfinite(lost).all() else "",
                    f"{np.exp(np.log(results.metric(arm, 'rate')).mean()):.2g}",
                    f"{np.mean(times[name]):.2f}" if name in times else "",
                    f"{np.mean(rank):.1f}" if rank is not None else "",
                ]
            )
        head = ["", "tuned", "three random rates", "best rate", "crossing", "rank"]
        axes.axis("off")
        axes.set_title(f"test {TASKS[task]}")
        drawn = axes.table(cells, colLabels=head, loc="center", cellLoc="center", edges="horizontal")
        drawn.auto_set_font_size(False)
        drawn.set_fontsize(8)
        drawn.scale(1, 1.15)
    return fig


def sensitivity(results: Results) -> Figure | None:
    """What tuning with few random rates costs, by method."""
    tasks = [task for task in TASKS if ran(results, task, tuple(KINDS))]
    if not tasks:
        return None
    fig, panels = figure(height=2.8, cols=len(tasks), squeeze=False)
    for axes, task in zip(panels[0], tasks, strict=True):
        methods = ran(results, task, tuple(KINDS))
        values = [results.metric(f"{task}/{name}", "regret_of_1") for name in methods]
        bars(
            axes,
            [NAMES[name] for name in methods],
            values,
            colours=[COLOUR[name] for name in methods],
        )
        axes.set_ylabel(TASKS[task].split(": ")[1])
        axes.set_title(TASKS[task].split(":")[0])
    return fig
