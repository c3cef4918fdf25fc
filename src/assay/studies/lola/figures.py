"""What the page shows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from assay.games import STATES, ipd
from assay.lab import Results
from assay.lab.figures import COLOURS, bars, curves, figure, heatmap
from assay.optim.opponent import opponent_shaping_grad
from assay.studies.lola import MODES_SHOWN, PLAYERS, WORLDS, study

NAMES = {"nl": "naive", "lola": "LOLA", "lookahead": "LookAhead", "full": "full Taylor", "sos": "SOS"}
SHORT = dict(
    zip(PLAYERS, ("naive", "LOLA", "ahead", "SOS", "Q", "JAL", "PHC", "WoLF", "TFT", "all D"), strict=True)
)
COLOUR = dict(zip(NAMES, COLOURS, strict=False))


def present(results: Results, arms: Sequence[str]) -> list[str]:
    return [arm for arm in arms if arm in results.arms]


def policies(results: Results, arm: str) -> np.ndarray | None:
    """P(C) of both players of all pairs, ``[pairs, 2, 5]``; it was saved with the first pair of each batch."""
    found = [
        value["probability"]
        for seed in results.seeds(arm)
        if (value := results.artifact(arm, seed, "policies")) is not None
    ]
    return np.concatenate(found) if found else None


@study.figure(
    "The direction in which an even policy is pushed: naive to defection, LOLA's term to tit-for-tat"
)
def even_policies(results: Results) -> Figure:
    """Closed form at theta = 0 on both sides; the numbers of the page's text."""
    zero = torch.zeros(5, dtype=torch.float64)
    naive = -opponent_shaping_grad(ipd().losses, zero, zero.clone(), 1.0, "naive")[0]
    term = -opponent_shaping_grad(ipd().losses, zero, zero.clone(), 1.0, "lola")[0] - naive
    fig, axes = figure(height=2.5, cols=2, sharey=True)
    for ax, values, title in (
        (axes[0], naive, "naive gradient"),
        (axes[1], term, "LOLA's term, look-ahead 1"),
    ):
        values = values.numpy().round(6) + 0.0
        ax.bar(range(5), values, color=[COLOURS[2] if v >= 0 else COLOURS[1] for v in values], alpha=0.75)
        for k, value in enumerate(values.tolist()):
            aside = (0, 4 if value >= 0 else -11)
            ax.annotate(
                f"{value:g}", (k, value), aside, textcoords="offset points", ha="center", fontsize=8.5
            )
        ax.set_xticks(range(5), STATES)
        ax.set_title(title)
        ax.axhline(0, color="black", linewidth=0.7)
        ax.set_ylim(-6, 6)
    axes[0].set_ylabel("change of the logit of C")
    return fig


@study.figure("Where policies end: probability of cooperation after each outcome")
def final_policies(results: Results) -> Figure | None:
    fig, axes = figure(height=3.2, rows=2, cols=5, sharex=True, sharey=True)
    drawn = False
    for k, (mode, name) in enumerate((("nl", "naive"), ("lola", "LOLA"))):
        found = policies(results, f"ipd/{mode}")
        if found is None:
            continue
        drawn = True
        for state in range(5):
            ax = axes[k][state]
            x, y = found[:, :, state].T
            ax.scatter(x, y, s=9, color=COLOUR[mode], alpha=0.35, linewidth=0, rasterized=True)
            ax.set(xlim=(-0.06, 1.06), ylim=(-0.06, 1.06), xticks=(0, 1), yticks=(0, 1))
            ax.set_aspect("equal")
            if k == 0:
                ax.set_title(f"after {STATES[state]}" if state < 4 else "start")
            else:
                ax.set_xlabel("player 1")
        axes[k][0].set_ylabel(f"{name}\nplayer 2")
    return fig if drawn else None


@study.figure("Returns while learning: exact values and rollouts (bands: one standard deviation over pairs)")
def learning(results: Results) -> Figure | None:
    fig, axes = figure(height=3.0, cols=2, sharey=True)
    for mode in MODES_SHOWN:
        steps, values = results.curve(f"ipd/{mode}", "return")
        curves(
            axes[0], steps, values, NAMES[mode], COLOUR[mode], band="sd" if mode in ("nl", "lola") else None
        )
    sampled = (
        ("pg/nl", "naive", COLOUR["nl"]),
        ("pg/lola", "LOLA", COLOUR["lola"]),
        ("pg/lola-om", "LOLA, fitted opponent", COLOURS[5]),
    )
    for arm, name, colour in sampled:
        steps, values = results.curve(arm, "return")
        curves(axes[1], steps, values, name, colour, band="sd")
    if not any(ax.lines for ax in axes):
        return None
    axes[0].set(title="exact values", xlabel="step", ylabel="return per step of play")
    axes[1].set(title="rollouts", xlabel="update")
    for ax in axes:
        ax.set_ylim(-2.2, -0.8)
        ax.legend(loc="center right")
    return fig


@study.figure("Two games of two numbers: the bilinear zero-sum game (above) and the tandem game (below)")
def phase_portraits(results: Results) -> Figure | None:
    arms = present(results, [f"toy/{m}" for m in ("nl", "lola", "lookahead", "sos")])
    fig, axes = figure(height=4.2, rows=2, cols=4)
    drawn = False
    for k, arm in enumerate(arms):
        mode = arm.partition("/")[2]
        for row, game in enumerate(("bilinear", "tandem")):
            ax = axes[row][k]
            for seed in results.seeds(arm)[:5]:
                paths = results.artifact(arm, seed, "paths")
                if paths is None:
                    continue
                drawn = True
                x, y = paths[game].T
                ax.plot(x, y, color=COLOUR[mode], linewidth=0.9, alpha=0.8)
                ax.plot(x[-1], y[-1], "o", color=COLOUR[mode], markersize=3.5)
            if game == "bilinear":
                ax.plot(0, 0, "+", color="black", markersize=8)
                ax.set_title(NAMES[mode])
                ax.set(xlim=(-4, 4), ylim=(-4, 4))
            else:
                ends = np.array([-3.0, 4.0])
                ax.plot(ends, 1 - ends, color="black", linewidth=0.8, linestyle="--")
                ax.set(xlim=(-2.5, 3.5), ylim=(-2.5, 3.5))
            ax.set_aspect("equal")
            ax.set_xticks([])
            ax.set_yticks([])
            if k == 0:
                ax.set_ylabel(game)
    return fig if drawn else None


@study.figure("The same policies under other parameters")
def reparametrisation(results: Results) -> Figure | None:
    names = {
        "ipd/lola": "tabular logits",
        "reparam/scaled-3": "logits = 3 x parameters",
        "reparam/scaled-0.3": "logits = 0.3 x parameters",
        "reparam/mlp-10": "network of 10 units",
    }
    arms = present(results, list(names))
    if len(arms) < 2:
        return None
    fig, ax = figure(height=2.2)
    bars(
        ax, [names[a] for a in arms], [results.metric(a, "return") + 2 for a in arms], colours=COLOUR["lola"],
        horizontal=True, points=False,
    )  # fmt: skip
    ticks = np.array([-2, -1.75, -1.5, -1.25, -1])
    ax.set_xticks(ticks + 2, [f"{t:g}" for t in ticks])
    ax.set_xlabel("return (-2 mutual defection, -1 mutual cooperation)")
    return fig


# -- open questions ----------------------------------------------------------------------------------------------


@study.figure("How far LOLA must look ahead", question="look-ahead")
def eta_sweep(results: Results) -> Figure | None:
    arms = {0.0: "eta/0", 0.03: "eta/0.03", 0.1: "eta/0.1", 0.3: "eta/0.3", 1.0: "ipd/lola", 3.0: "eta/3"}
    if any(arm not in results.arms for arm in arms.values()):
        return None
    fig, ax = figure(height=2.6)
    bars(
        ax, [f"{eta:g}" for eta in arms], [results.metric(a, "return") + 2 for a in arms.values()],
        colours=COLOUR["lola"], points=False,
    )  # fmt: skip
    ticks = np.array([-2, -1.75, -1.5, -1.25, -1])
    ax.set_yticks(ticks + 2, [f"{t:g}" for t in ticks])
    ax.set(xlabel="look-ahead (eta)", ylabel="return")
    return fig


@study.figure("Return against knowledge of the opponent", question="knowledge")
def knowledge_ladder(results: Results) -> Figure | None:
    names = {
        "know/rate-1": "naive, rate as believed (1)",
        "know/rate-0.1": "naive, ten times slower",
        "know/rate-0": "does not learn at all",
        "know/own-rewards": "LOLA pair, payoffs taken for own",
        "know/noisy-rewards": "LOLA pair, noisy payoffs",
        "know/episodes-64": "LOLA pair, 64 episodes seen",
        "know/episodes-16": "LOLA pair, 16 episodes seen",
        "know/episodes-4": "LOLA pair, 4 episodes seen",
        "know/episodes-1": "LOLA pair, 1 episode seen",
        "know/vs-tft": "fixed tit-for-tat",
        "know/vs-always-d": "fixed defection",
        "know/vs-q": "Q-learner",
    }
    arms = present(results, list(names))
    if not arms:
        return None
    fig, ax = figure(height=4.2)
    places = np.arange(len(arms))
    for key, label, colour, shift in (
        ("return_1", "the LOLA player", COLOUR["lola"], -0.17),
        ("return_2", "its opponent", COLOURS[6], 0.17),
    ):
        values = [results.metric(a, key) for a in arms]
        ax.errorbar(
            [v.mean() for v in values], places + shift, xerr=[1.96 * v.std() / np.sqrt(len(v)) for v in values],
            fmt="o", markersize=5, color=colour, label=label, linewidth=1.3,
        )  # fmt: skip
    ax.set_yticks(places, [names[a] for a in arms])
    ax.invert_yaxis()
    ax.set(xlabel="return", xlim=(-2.2, -0.6))
    ax.legend(loc="lower right")
    return fig


@study.figure("Other games and other discounts: mean return of a pair", question="other-games")
def other_games(results: Results) -> Figure | None:
    names = {
        "chicken": "chicken",
        "stag": "stag hunt",
        "ipd-0.8": "dilemma, discount 0.8",
        "ipd-0.9": "dilemma, 0.9",
    }
    if any(f"games/{w}:{m}" not in results.arms for w in WORLDS for m in MODES_SHOWN):
        return None
    table = np.array(
        [[results.metric(f"games/{w}:{m}", "return").mean() for m in MODES_SHOWN] for w in WORLDS]
    )
    labels = [names[w] for w in WORLDS]
    if all(f"ipd/{m}" in results.arms for m in MODES_SHOWN):
        table = np.vstack([table, [results.metric(f"ipd/{m}", "return").mean() for m in MODES_SHOWN]])
        labels.append("dilemma, 0.96")
    best = table.max(1, keepdims=True)
    shade = (table - best) / np.maximum(best - table.min(1, keepdims=True), 1e-9)
    fig, ax = figure(height=2.8)
    heatmap(ax, shade, rows=labels, cols=[NAMES[m] for m in MODES_SHOWN], bar=False, cmap="viridis")
    for (i, j), value in np.ndenumerate(table):
        ink = "white" if shade[i, j] < -0.45 else "#111111"
        ax.text(j, i, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=9)
    return fig


@study.figure("Does LOLA lead out of defection?", question="basin")
def basin(results: Results) -> Figure | None:
    names = {
        "ipd/lola": "LOLA from random policies",
        "basin/lola-from-tft": "LOLA from tit-for-tat",
        "basin/lola-from-naive": "LOLA from where naive learners end",
        "basin/lola-from-defection": "LOLA from firm defection",
        "basin/nl-from-tft": "naive from tit-for-tat",
    }
    arms = present(results, list(names))
    if len(arms) < 3:
        return None
    shares = [(results.metric(a, "return") >= -1.25).astype(float) for a in arms]
    fig, ax = figure(height=2.4)
    bars(ax, [names[a] for a in arms], shares, horizontal=True, points=False, colours=COLOURS[0])
    ax.set(xlabel="share of pairs that end in cooperation", xlim=(0, 1))
    return fig


@study.figure("Round robin: return of the row's player against the column's", question="tournament")
def tournament(results: Results) -> Figure | None:
    games = [("tournament", "prisoner's dilemma"), ("tournament-imp", "matching pennies")]
    games = [g for g in games if all(f"{g[0]}/{p}" in results.arms for p in PLAYERS)]
    if not games:
        return None
    fig, axes = figure(height=3.9 * len(games), rows=len(games), squeeze=False)
    for (prefix, title), ax in zip(games, axes[:, 0], strict=True):
        table = np.array(
            [[results.metric(f"{prefix}/{p}", f"vs-{q}").mean() for q in PLAYERS] for p in PLAYERS]
        )
        mean = table.mean(1, keepdims=True)
        order = np.argsort(-mean[:, 0])
        heatmap(
            ax, np.hstack([table, mean])[order], rows=[SHORT[PLAYERS[i]] for i in order],
            cols=[*SHORT.values(), "mean"], annotate=".2f", bar=False,
        )  # fmt: skip
        ax.set_title(title)
    return fig


@study.figure("LOLA with DiCE objectives (bands: one standard deviation over pairs)", question="dice")
def dice_curves(results: Results) -> Figure | None:
    names = {
        "dice/lookahead-1": "one simulated step",
        "dice/lookahead-2": "two simulated steps",
        "dice/own-baseline-1": "one, DiCE's own baseline",
    }
    return _curves(results, names, "return", "update", "return")


@study.figure(
    "The coin game, one run each: share of picked coins that were of the own colour", question="coin-game"
)
def coin_curves(results: Results) -> Figure | None:
    names = {"coin/nl": "naive", "coin/lola": "LOLA", "coin/lola-om": "LOLA, fitted opponent"}
    fig = _curves(results, names, "own_share", "update", "own colour")
    if fig is not None:
        fig.axes[0].axhline(0.5, color="black", linewidth=0.8, linestyle="--")
    return fig


def _curves(results: Results, names: dict[str, str], metric: str, x: str, y: str) -> Figure | None:
    fig, ax = figure(height=2.8)
    for colour, (arm, name) in zip(COLOURS, names.items(), strict=False):
        if arm in results.arms:
            curves(ax, *results.curve(arm, metric), name, colour, band="sd")
    if not ax.lines:
        return None
    ax.set(xlabel=x, ylabel=y)
    ax.legend()
    return fig


@study.figure("A GAN on eight Gaussians: samples of the first seed (crosses: the modes)", question="gan")
def ring_samples(results: Results) -> Figure | None:
    names = {"naive": "naive", "lola": "LOLA", "lookahead": "LookAhead", "unrolled": "unrolled"}
    shown: list[tuple[str, Any]] = []
    for kind, name in names.items():
        arm = f"ring/{kind}"
        if (
            arm in results.arms
            and (saved := results.artifact(arm, results.seeds(arm)[0], "samples")) is not None
        ):
            modes = results.metric(arm, "modes").mean()
            shown.append((f"{name}\n{modes:.1f} of 8 modes", saved["points"].astype(np.float32)))
    if not shown:
        return None
    fig, axes = figure(height=2.2, cols=4)
    angle = np.arange(8) * np.pi / 4
    for ax, (name, points) in zip(axes, shown, strict=False):
        ax.scatter(points[:, 0], points[:, 1], s=3, color=COLOURS[0], alpha=0.5, linewidth=0, rasterized=True)
        ax.plot(np.cos(angle), np.sin(angle), "+", color="black", markersize=6)
        ax.set(title=name, xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), xticks=[], yticks=[])
        ax.set_aspect("equal")
    return fig
