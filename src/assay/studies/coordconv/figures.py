"""The figures of the study's page."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from assay.lab import Results
from assay.lab.figures import COLOURS, bars, curves, figure

BLUE, RUST, GREEN, PLUM, GOLD, VIOLET, GREY, *_ = COLOURS
NETWORKS = (("coordconv", "CoordConv", BLUE), ("deconv", "deconvolution", RUST))
GREYS = ListedColormap([(0.5, 0.5, 0.5, alpha) for alpha in np.linspace(0, 1, 64)])


def ran(results: Results, *arms: str) -> bool:
    """Whether all these arms have metrics."""
    return all(arm in results.arms and np.isfinite(results.metric(arm, "parameters")).any() for arm in arms)


def picture(axes: Axes, image: np.ndarray, **options: object) -> None:
    """A bare image, rasterised, any colour of page behind it."""
    axes.imshow(image, **({"cmap": GREYS, "vmin": 0, "vmax": 1, "interpolation": "nearest"} | options))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)


def first(results: Results, arm: str, name: str) -> object:
    """An artifact of the first seed that has it."""
    found = (results.artifact(arm, seed, name) for seed in results.seeds(arm))
    return next((value for value in found if value is not None), None)


def accuracy_over_time(results: Results) -> Figure | None:
    """Train and test accuracy against seconds of training."""
    arms = [f"{split}/{name}" for split in ("uniform", "quadrant") for name, *_ in NETWORKS]
    if not all(len(results.curve(arm, "seconds")[0]) for arm in arms):
        return None
    fig, axes = figure(height=3.1, cols=2, sharey=True)
    for panel, split in zip(axes, ("uniform", "quadrant"), strict=True):
        for name, label, colour in NETWORKS:
            arm = f"{split}/{name}"
            seconds = results.curve(arm, "seconds")[1].mean(0)
            curves(
                panel, seconds, results.curve(arm, "test_accuracy")[1], f"{label}, test", colour, band="range"
            )
            curves(
                panel,
                seconds,
                results.curve(arm, "train_accuracy")[1],
                f"{label}, training",
                colour,
                band=None,
                linestyle=":",
            )
        panel.set(title=f"{split} split", xlabel="seconds of training", ylim=(-0.03, 1.03))
    axes[0].set_ylabel("share of positions right")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return fig


def where_right(results: Results) -> Figure | None:
    """Canvas maps: which centres each network gets right (first seed)."""
    arms = [(split, name, label) for split in ("uniform", "quadrant") for name, label, _ in NETWORKS]
    found = [first(results, f"{split}/{name}", "right") for split, name, _ in arms]
    if any(one is None for one in found):
        return None
    fig, axes = figure(height=2.7, cols=4)
    # test wrong, test right, training wrong, training right
    colours = ListedColormap([RUST, BLUE, "#e0b49a", "#bcd0f2"])
    for panel, (split, _, label), one in zip(axes, arms, found, strict=True):
        side = round(len(one["xy"]) ** 0.5)
        code = one["right"].astype(int) + 2 * (~one["test"].astype(bool)).astype(int)
        picture(panel, code.reshape(side, side), cmap=colours, vmin=-0.5, vmax=3.5)
        right = one["right"][one["test"].astype(bool)].mean()
        panel.set_title(f"{label},\n{split}: {right:.0%}", fontsize=8.5)
    names = ("test, wrong", "test, right", "training, wrong", "training, right")
    for colour, name in zip(colours.colors, names, strict=True):
        axes[0].plot([], [], "s", color=colour, label=name)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return fig


def held_out_positions(results: Results) -> Figure | None:
    """Where the regressors put the pixels of a quadrant that they never saw (first seed)."""
    names = (("coordconv", "CoordConv"), ("dense", "convolution + dense"), ("strided", "strided convolution"))
    found = [first(results, f"regress/quadrant-{name}", "found") for name, _ in names]
    if any(one is None for one in found):
        return None
    fig, axes = figure(height=2.6, cols=3, sharex=True, sharey=True)
    for panel, (name, label), one in zip(axes, names, found, strict=True):
        test = one["test"].astype(bool)
        for start, end in zip(one["xy"][test], one["found"][test], strict=True):
            panel.plot(*np.stack([start, end], 1), color=GREY, linewidth=0.35, alpha=0.6, rasterized=True)
        panel.plot(*one["xy"][~test].T, ".", color=GREEN, markersize=1.4, alpha=0.7, rasterized=True)
        panel.plot(
            *one["found"][test].T,
            ".",
            color=RUST if name != "coordconv" else BLUE,
            markersize=3,
            rasterized=True,
        )
        error = results.metric(f"regress/quadrant-{name}", "test_error").mean()
        panel.set_title(f"{label}:\n{error:.2g} px", fontsize=8.5)
        edge = results.config.regress.canvas - 1
        panel.set(aspect="equal", xlim=(0, edge), ylim=(edge, 0), xlabel="column")
    axes[0].set_ylabel("row")
    return fig


def drawings(results: Results) -> Figure | None:
    """What the painters draw at test positions (first seed)."""
    names = (
        ("uniform-coordconv", "CoordConv"),
        ("uniform-deconv", "deconvolution"),
        ("uniform-onehot", "from one-hot"),
    )
    found = [first(results, f"paint/{name}", "pictures") for name, _ in names]
    if any(one is None for one in found):
        return None
    shown = min(8, *(len(one["painted"]) for one in found))
    fig, axes = figure(height=3.4, rows=4, cols=shown)
    rows = [
        ("wanted", found[0]["wanted"]),
        *((n[1], one["painted"]) for n, one in zip(names, found, strict=True)),
    ]
    for line, (label, images) in zip(axes, rows, strict=True):
        for panel, image in zip(line, images[:shown], strict=True):
            picture(panel, image.astype(np.float32))
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    return fig


def cost_table(results: Results) -> Figure | None:
    """Parameters, training time and accuracy of task 1, with the paper's numbers."""
    arms = [f"{split}/{name}" for split in ("uniform", "quadrant") for name, *_ in NETWORKS]
    if not ran(results, *arms):
        return None
    paper = {
        "uniform/coordconv": ("7,553", "10-20 s", "1.00"),
        "uniform/deconv": ("about 200,000", "4,000 s", "0.83-0.86"),
        "quadrant/coordconv": ("7,553", "10-20 s", "1.00"),
        "quadrant/deconv": ("about 200,000", "4,000 s", "about 0"),
    }
    rows = []
    for arm in arms:
        reach, end = time_to(results, arm, 0.95)
        rows.append(
            [
                arm.replace("deconv", "deconvolution").replace("coordconv", "CoordConv"),
                f"{results.metric(arm, 'parameters')[0]:,.0f}",
                reach,
                end,
                f"{results.metric(arm, 'test_accuracy').mean():.2f}",
                *paper[arm],
            ]
        )
    fig, axes = figure(height=1.9)
    axes.axis("off")
    head = ["split / network", "parameters", "s to 95 %", "s in all", "test", "parameters", "time", "test"]
    table = axes.table(
        rows, colLabels=head, loc="center", cellLoc="right", edges="horizontal", bbox=(0, 0, 1, 0.86)
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    table.auto_set_column_width(range(len(head)))
    for line in range(len(rows) + 1):
        table[line, 0].get_text().set_ha("left")
    axes.text(0.42, 0.95, "here", ha="center", fontsize=8.5, transform=axes.transAxes)
    axes.text(0.83, 0.95, "in the paper (64x64)", ha="center", fontsize=8.5, transform=axes.transAxes)
    return fig


def time_to(results: Results, arm: str, level: float) -> tuple[str, str]:
    """Mean seconds of training until the test accuracy first passes `level`, and in all; dashes where unknown."""
    _, accuracy = results.curve(arm, "test_accuracy")
    _, seconds = results.curve(arm, "seconds")
    if not seconds.size:
        return "-", "-"
    reached = accuracy >= level
    end = f"{seconds[:, -1].mean():.0f}"
    if not reached.any(1).all():
        return f"{reached.any(1).sum()} of {len(reached)} seeds" if reached.any() else "never", end
    return f"{np.take_along_axis(seconds, reached.argmax(1)[:, None], 1).mean():.1f}", end


def places_covered(results: Results) -> Figure | None:
    """Where GAN samples put the square: counts over all seeds, and samples of the first."""
    names = (("coordconv", "CoordConv"), ("deconv", "deconvolution"))
    arms = [f"gan/{name}" for name, _ in names]
    counts = [[results.artifact(arm, seed, "places-0") for seed in results.seeds(arm)] for arm in arms]
    counts = [[one for one in group if one is not None] for group in counts]
    if not all(counts):
        return None
    seeds = len(counts[0])
    fig, axes = figure(height=3.9, rows=2, cols=1 + seeds, width_ratios=[1.5] + [1] * seeds)
    for line, (_, label), arm, group in zip(axes, names, arms, counts, strict=True):
        samples = first(results, arm, "samples")[:9, 0].astype(np.float32)
        rows = [
            np.concatenate([np.pad(s, 1, constant_values=0.35) for s in samples[k : k + 3]], 1)
            for k in (0, 3, 6)
        ]
        picture(line[0], np.concatenate(rows))
        line[0].set_title(f"{label}, samples", fontsize=8.5)
        for panel, seed, places in zip(line[1:], results.seeds(arm), group, strict=False):
            picture(panel, np.log1p(places), cmap="viridis", vmax=None)
            entropy = results.metrics(arm, seed)["entropy"]
            panel.set_title(f"{(places > 0).sum()} places\n{entropy:.2f} nats", fontsize=8)
    return fig


def coverage_over_steps(results: Results) -> Figure | None:
    """Entropy of the places over training."""
    arms = [("gan/coordconv", "CoordConv", BLUE), ("gan/deconv", "deconvolution", RUST)]
    if not all(len(results.curve(arm, "entropy")[0]) for arm, *_ in arms):
        return None
    fig, axes = figure(height=2.7, cols=2)
    for arm, label, colour in arms:
        for panel, name in zip(axes, ("entropy", "valid"), strict=True):
            curves(panel, *results.curve(arm, name), label, colour, band="range")
    axes[0].axhline(np.log(144), color=GREY, linewidth=0.8, linestyle="--")
    axes[0].set(xlabel="steps", ylabel="entropy of places, nats")
    axes[1].set(xlabel="steps", ylabel="share of valid samples")
    axes[1].legend()
    return fig


def coordinate_weights(results: Results) -> Figure | None:
    """How large the coordinate weights become, relative to the others."""
    arms = (
        ("mnist/coordconv", "centred digits, first layer", BLUE),
        ("mnist/coordconv-all", "centred digits, all layers", GREEN),
        ("mnist/translated-coordconv", "translated digits, first layer", GOLD),
        ("detect/coordconv", "boxes in clutter, first layer", RUST),
    )
    found = [(arm, *rest) for arm, *rest in arms if len(results.curve(arm, "coordinate_share")[0])]
    if len(found) < 2:
        return None
    fig, axes = figure(height=2.8)
    for arm, label, colour in found:
        curves(axes, *results.curve(arm, "coordinate_share"), label, colour, band="range")
    axes.set(xlabel="steps", ylabel="coordinate / other weights, RMS", ylim=(0, None))
    axes.legend(fontsize=8)
    return fig


def gain_by_task(results: Results) -> Figure | None:
    """How much of the possible gain coordinates bring, from pure coordinates to pure classification."""
    tasks: Sequence[tuple[str, str, str, str]] = (
        ("classify, uniform", "uniform/coordconv", "uniform/deconv", "test_accuracy"),
        ("classify, quadrant", "quadrant/coordconv", "quadrant/deconv", "test_accuracy"),
        ("paint, uniform", "paint/uniform-coordconv", "paint/uniform-deconv", "test_iou"),
        ("paint, quadrant", "paint/quadrant-coordconv", "paint/quadrant-deconv", "test_iou"),
        ("boxes, global average", "detect/global-coordconv", "detect/global-conv", "test_iou"),
        ("boxes, dense layer", "detect/coordconv", "detect/conv", "test_iou"),
        ("translated digits", "mnist/translated-coordconv", "mnist/translated-conv", "test_accuracy"),
        ("centred digits", "mnist/coordconv", "mnist/conv", "test_accuracy"),
    )
    found = [task for task in tasks if ran(results, *task[1:3])]
    if len(found) < 3:
        return None
    gains = []
    for _, arm, versus, metric in found:
        seeds = [seed for seed in results.seeds(arm) if seed in results.seeds(versus)]
        gains.append([results.metrics(arm, s)[metric] - results.metrics(versus, s)[metric] for s in seeds])
    fig, axes = figure(height=0.6 + 0.34 * len(found))
    bars(axes, [task[0] for task in found], gains, horizontal=True)
    axes.set_xlabel("accuracy or IoU with coordinates, minus without")
    return fig


def raw_or_scaled(results: Results) -> Figure | None:
    """Task 1 with positions in [-1, 1] or as pixel indices."""
    arms = ["uniform/coordconv", "uniform/coordconv-raw", "uniform/deconv", "uniform/deconv-raw"]
    if not ran(results, *arms):
        return None
    fig, axes = figure(height=2.7, cols=2)
    labels = ["CoordConv, scaled", "CoordConv, raw", "deconv., scaled", "deconv., raw"]
    bars(
        axes[0], labels, [results.metric(a, "test_accuracy") for a in arms], colours=[BLUE, GREEN, RUST, GOLD]
    )
    axes[0].set(ylabel="test accuracy at the end", ylim=(0, 1.03))
    for arm, label, colour in zip(arms, labels, (BLUE, GREEN, RUST, GOLD), strict=True):
        curves(axes[1], *results.curve(arm, "train_accuracy"), label, colour, band="range")
    axes[1].set(xlabel="steps", ylabel="training accuracy", xscale="log", ylim=(-0.03, 1.03))
    axes[1].legend(fontsize=8)
    return fig


def padding(results: Results) -> Figure | None:
    """Error of the strided regressor under three kinds of padding; dashed: always answering the mean."""
    kinds = (("", "zero"), ("-reflect", "reflect"), ("-circular", "circular"))
    arms = [f"regress/{split}-strided{kind}" for split in ("uniform", "quadrant") for kind, _ in kinds]
    if not ran(results, *arms):
        return None
    fig, axes = figure(height=2.5, cols=2, sharey=True)
    for panel, split in zip(axes, ("uniform", "quadrant"), strict=True):
        chosen = [f"regress/{split}-strided{kind}" for kind, _ in kinds]
        bars(panel, [label for _, label in kinds], [results.metric(arm, "test_error") for arm in chosen])
        guess = results.metric(chosen[0], "guess_error").mean()
        panel.axhline(guess, color=GREY, linestyle="--", linewidth=0.9)
        panel.set_title(f"{split} split", fontsize=9)
    axes[0].set_ylabel("test error, px")
    return fig


def where_coordinates_help_a_gan(results: Results) -> Figure | None:
    """Coverage with coordinates in the generator, the discriminator, or both."""
    arms = (
        ("gan/deconv", "none"),
        ("gan/deconv-g", "generator"),
        ("gan/deconv-d", "discriminator"),
        ("gan/deconv-both", "both"),
        ("gan/coordconv-g", "1x1 generator"),
        ("gan/coordconv", "1x1 generator\nand discriminator"),
    )
    if not ran(results, *(arm for arm, _ in arms)):
        return None
    fig, axes = figure(height=2.9, cols=2)
    colours = [RUST] * 4 + [BLUE] * 2
    for panel, name, label in zip(
        axes, ("entropy", "valid"), ("entropy, nats", "valid samples"), strict=True
    ):
        bars(
            panel, [text for _, text in arms], [results.metric(arm, name) for arm, _ in arms], colours=colours
        )
        panel.set_ylabel(label)
    return fig


def autoencoders(results: Results) -> Figure | None:
    """Variational autoencoders with and without coordinates."""
    arms = (("vae/coordconv", "CoordConv"), ("vae/deconv", "deconvolution"))
    if not ran(results, *(arm for arm, _ in arms)):
        return None
    fig, axes = figure(height=2.4, cols=3)
    for panel, name, label in zip(
        axes,
        ("bound", "valid", "entropy"),
        ("negative bound, nats", "valid samples", "entropy, nats"),
        strict=True,
    ):
        bars(panel, [t for _, t in arms], [results.metric(a, name) for a, _ in arms], colours=[BLUE, RUST])
        panel.set_ylabel(label)
    return fig


def walking_to_a_goal(results: Results) -> Figure | None:
    """Learning curves of the agents, and the mean height of each."""
    arms = (
        ("rl/conv", "convolution", RUST),
        ("rl/coordconv", "CoordConv", BLUE),
        ("rl/coordconv-zero", "CoordConv, from zero", GREEN),
    )
    name, label = "efficiency", "shortest path / steps taken"
    if not len(results.curve(arms[0][0], name)[0]):
        name, label = "return", "score"  # of a game
    if not all(len(results.curve(arm, name)[0]) for arm, *_ in arms):
        return None
    fig, axes = figure(height=2.7, cols=2, width_ratios=[1.5, 1])
    for arm, text, colour in arms:
        steps, values = results.curve(arm, name)
        curves(axes[0], np.asarray(steps) / 1000, values, text, colour, band="range")
    axes[0].set(xlabel="thousand steps of the environment", ylabel=label)
    if name == "efficiency":  # a game's score may be negative
        axes[0].set_ylim(0, None)
    axes[0].legend(fontsize=8)
    bars(
        axes[1],
        [text.replace(", ", ",\n") for _, text, _ in arms],
        [results.metric(arm, "area") for arm, *_ in arms],
        colours=[colour for *_, colour in arms],
    )
    axes[1].set_ylabel("mean over training")
    return fig
