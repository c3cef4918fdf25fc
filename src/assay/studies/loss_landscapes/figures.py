"""What the page shows."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from assay.lab import Results
from assay.lab.figures import COLOURS, bars, curves, figure

CELLS = {"cells/no-decay": "no decay", "cells/decay": "weight decay"}
SIDES = {"small": COLOURS[0], "large": COLOURS[1]}
LIMITS = (-2.0, 1.5)  # log10 of the loss, the same in all planes
WALK = 6 / np.pi**2


def first(results: Results, arm: str, name: str) -> Any:
    """The artifact of the arm's first seed that has it."""
    if arm not in results.arms:
        return None
    found = (results.artifact(arm, seed, name) for seed in results.seeds(arm))
    return next((value for value in found if value is not None), None)


def stacked(results: Results, arm: str, name: str, key: str) -> np.ndarray | None:
    """One array of an artifact over seeds."""
    if arm not in results.arms:
        return None
    found = [results.artifact(arm, seed, name) for seed in results.seeds(arm)]
    found = [value[key] for value in found if value is not None]
    return np.stack(found) if found else None


def contour(ax: Any, surface: np.ndarray, a: np.ndarray, b: np.ndarray) -> Any:
    """log10 of the loss with the same limits everywhere, as an image with contour lines."""
    height = np.log10(np.maximum(surface, 1e-6)).T
    extent = (a[0], a[-1], b[0], b[-1])
    image = ax.imshow(
        height, origin="lower", extent=extent, vmin=LIMITS[0], vmax=LIMITS[1], cmap="viridis", aspect="auto",
        interpolation="bilinear",
    )  # fmt: skip
    ax.contour(a, b, height, levels=np.arange(-2, 2, 0.25), colors="#dddddd", linewidths=0.35)
    ax.contour(a, b, height, levels=[0.0], colors="white", linewidths=1.1)
    ax.grid(visible=False)
    return image


def batch_and_decay(results: Results) -> Figure | None:
    """Figures 2 to 4 of the paper in one."""
    arms = [arm for arm in CELLS if first(results, arm, "interpolation") is not None]
    if not arms:
        return None
    fig, axes = figure(height=6.6, rows=3, cols=len(arms), squeeze=False)
    for column, arm in enumerate(arms):
        top, middle, bottom = axes[:, column]
        place = first(results, arm, "interpolation")["alpha"]
        loss = stacked(results, arm, "interpolation", "train_loss")
        wrong = stacked(results, arm, "interpolation", "test_error")
        assert loss is not None
        assert wrong is not None
        curves(top, place, np.log10(loss + 1e-6), "training loss", COLOURS[2], band="range")
        top.axvline(0, color=SIDES["small"], linewidth=1, linestyle="--")
        top.axvline(1, color=SIDES["large"], linewidth=1, linestyle="--")
        top.set_title(CELLS[arm])
        top.set_xlabel("small batch at 0, large batch at 1")
        top.set_ylim(-5.5, 1)
        beside = top.twinx()
        beside.spines[:].set_visible(False)
        beside.plot(
            place, 100 * wrong.mean(0), color=COLOURS[3], linewidth=1.2, linestyle=":", label="test error"
        )
        beside.set_ylim(0, 100)
        beside.grid(visible=False)
        if column == len(arms) - 1:
            beside.set_ylabel("test error, % (dotted)")
        for side, colour in SIDES.items():
            saved = first(results, arm, "weights")
            middle.stairs(
                saved[side] / saved[side].sum(), saved["edges"], color=colour, label=f"{side} batch"
            )
            lines = stacked(results, arm, f"lines-{side}", "filter")
            if lines is not None:
                curves(
                    bottom,
                    np.linspace(-1, 1, lines.shape[-1]),
                    lines.mean(1),
                    f"{side} batch",
                    colour,
                    band="range",
                )
        middle.set_xlabel("weight")
        middle.set_ylim(0, None)
        bottom.set_xlabel("along a filter-normalised direction")
        bottom.set_ylim(0, 1.5)
    axes[0, 0].set_ylabel("log10 training loss")
    axes[1, 0].set_ylabel("share of weights")
    axes[2, 0].set_ylabel("training loss")
    axes[1, 0].legend(loc="upper left")
    axes[2, 0].legend(loc="upper center")
    return fig


def planes(results: Results) -> Figure | None:
    """Contours of plain and residual networks at two depths, first seed."""
    names = {
        f"skip/{kind}-{depth}": f"{kind}, {words}"
        for depth, words in (("shallow", "shallow"), ("deep", "deep"))
        for kind in ("plain", "residual")
    }
    found = {arm: plane for arm in names if (plane := first(results, arm, "plane")) is not None}
    if not found:
        return None
    fig, axes = figure(height=5.0, rows=2, cols=2, sharex=True, sharey=True)
    image = None
    for ax, (arm, plane) in zip(axes.flat, found.items(), strict=False):
        grid = np.linspace(-1, 1, len(plane["surface"]))
        image = contour(ax, plane["surface"], grid, grid)
        ax.set_title(names[arm])
    fig.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    return fig


def convexity(results: Results) -> Figure | None:
    """Shares and ratios of eigenvalues."""
    order = [
        f"skip/{kind}-{what}"
        for what in ("shallow", "deep", "deepest", "deep-wide")
        for kind in ("plain", "residual")
    ]
    arms = [arm for arm in order if arm in results.arms]
    if not arms:
        return None
    fig, axes = figure(height=2.8, cols=2)
    names = [arm.partition("/")[2].replace("-", ", ", 1) for arm in arms]
    shades = [COLOURS[1] if "plain" in arm else COLOURS[0] for arm in arms]
    for ax, metric, label in (
        (axes[0], "nonconvex", "share of the plane"),
        (axes[1], "hessian_ratio", "|lowest / highest eigenvalue|"),
    ):
        bars(ax, names, [results.metric(arm, metric) for arm in arms], colours=shades, horizontal=True)
        ax.set_xlabel(label)
    axes[1].set_yticklabels([])
    return fig


def convolutional(results: Results) -> Figure | None:
    """Surfaces of the convolutional pair."""
    names = {
        "pictures/resnet": "with skips",
        "pictures/plain": "without skips",
        "pictures/vgg": "VGG",
        "pictures/densenet": "DenseNet",
    }
    found = {arm: plane for arm in names if (plane := first(results, arm, "plane")) is not None}
    if not found:
        return None
    fig, axes = figure(height=3.0, cols=len(found), squeeze=False, subplot_kw={"projection": "3d"})
    for ax, (arm, plane) in zip(axes[0], found.items(), strict=True):
        grid = np.linspace(-1, 1, len(plane["surface"]))
        a, b = np.meshgrid(grid, grid, indexing="ij")
        height = np.log10(np.maximum(plane["surface"], 1e-6))
        ax.plot_surface(
            a, b, height, cmap="viridis", vmin=LIMITS[0], vmax=LIMITS[1], linewidth=0.2, edgecolor="#333333",
            rcount=21, ccount=21, rasterized=True,
        )  # fmt: skip
        ax.set_zlim(LIMITS)
        ax.set_title(names[arm])
        ax.set_xticks([-1, 0, 1])
        ax.set_yticks([-1, 0, 1])
    return fig


def trajectory(results: Results) -> Figure | None:
    """The path over its contour, on random axes, and shares of variance beside the random walk's."""
    found = {arm: path for arm in CELLS if (path := first(results, arm, "path-small")) is not None}
    if not found:
        return None
    fig, axes = figure(height=2.9, cols=3, width_ratios=(1.3, 1, 1.1))
    arm, path = next(iter(found.items()))
    image = contour(axes[0], path["surface"], path["alphas"], path["betas"])
    x, y = path["path"].T
    axes[0].plot(x, y, color="white", linewidth=0.8)
    axes[0].scatter(
        x, y, s=12, c=np.log10(np.maximum(path["loss"], 1e-6)), cmap="viridis", vmin=LIMITS[0], vmax=LIMITS[1],
        edgecolor="white", linewidth=0.5, zorder=3,
    )  # fmt: skip
    share = path["share"]
    axes[0].set(title="principal axes", xlabel=f"{100 * share[0]:.0f} %", ylabel=f"{100 * share[1]:.0f} %")
    fig.colorbar(image, ax=axes[0], fraction=0.07, pad=0.03)
    axes[1].plot(*path["random"].T, "o-", color=COLOURS[6], markersize=3, linewidth=0.7)
    reach = 1.1 * np.abs(path["path"]).max()
    axes[1].set(title="random axes", xlim=(-reach, reach), ylim=(-reach, reach))
    names, values, shades = [], [], []
    for arm in found:
        for side, colour in SIDES.items():
            if (shares := results.metric(arm, f"path_share_{side}")).size:
                names.append(f"{side}, {CELLS[arm]}")
                values.append(shares)
                shades.append(colour)
    names.append("walk, same steps")
    values.append(
        np.concatenate([results.metric(arm, f"null_share_{side}") for arm in found for side in SIDES])
    )
    shades.append(COLOURS[6])
    bars(axes[2], names, values, colours=shades, horizontal=True)
    axes[2].axvline(1.25 * WALK, color="black", linewidth=0.8, linestyle="--")
    axes[2].set(title="two axes hold", xlabel="share of variance", xlim=(0, 1))
    return fig


def ranks(results: Results) -> Figure | None:
    """Normalised sharpness, raw sharpness and the rise beyond the solution, against test error."""
    arms = [arm for arm in CELLS if arm in results.arms]
    if not arms:
        return None
    fig, axes = figure(height=2.7, cols=3, sharey=True)
    for ax, metric, title in (
        (axes[0], "sharpness", "normalised sharpness"),
        (axes[1], "raw_sharpness", "raw sharpness"),
        (axes[2], "rise", "rise on the line"),
    ):
        for arm in arms:
            for side, colour in SIDES.items():
                x, y = (
                    results.metric(arm, f"{metric}_{side}"),
                    100 * results.metric(arm, f"test_error_{side}"),
                )
                hollow = arm == "cells/decay"
                ax.plot(
                    x, y, "o", color=colour, markersize=5, markerfacecolor="none" if hollow else colour,
                    label=f"{side}, {CELLS[arm]}",
                )  # fmt: skip
        ax.set(xlabel=title)
    axes[0].set_ylabel("test error, %")
    axes[2].legend(fontsize=8)
    return fig


def rescaling(results: Results) -> Figure | None:
    """The curves of one function under three parametrisations."""
    saved = first(results, "rescale/mlp", "curves")
    if saved is None:
        return None
    fig, axes = figure(height=2.6, cols=3)
    for ax, norm, title in zip(axes, ("filter", "layer", "none"), ("filter", "layer", "raw"), strict=True):
        keys = [key for key in saved if key.startswith(f"{norm}:")]
        for k, key in enumerate(keys):
            values = saved[key]
            ax.plot(
                np.linspace(-1, 1, len(values)), np.log10(np.maximum(values, 1e-6)), color=COLOURS[k],
                linewidth=(4.5, 2.5, 1.2)[k % 3], alpha=0.8, label=f"c = {key.partition(':')[2]}",
            )  # fmt: skip
        ax.set(title=title, xlabel="position")
    axes[0].set_ylabel("log10 loss")
    axes[0].legend()
    return fig
