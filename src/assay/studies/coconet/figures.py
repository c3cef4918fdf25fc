"""The figures of the study's page."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from assay.lab import Results
from assay.lab.figures import COLOURS, bars, figure
from assay.studies.coconet.learn import CONTEXTS

BLUE, RUST, GREEN, PLUM, GOLD, VIOLET, GREY, *_ = COLOURS
VOICES = (RUST, GREEN, BLUE, PLUM)
CLASSES = ("P1", "m2", "M2", "m3", "M3", "P4", "TT", "P5", "m6", "M6", "m7", "M7")


def ran(results: Results, *arms: str) -> bool:
    """Whether all these arms have metrics."""
    return all(
        arm in results.arms and any(results.metrics(arm, s) for s in results.seeds(arm)) for arm in arms
    )


def first(results: Results, arm: str, name: str) -> dict[str, np.ndarray] | None:
    """An artifact of the first seed that has it."""
    found = (results.artifact(arm, seed, name) for seed in results.seeds(arm))
    return next((value for value in found if value is not None), None)


def roll(axes: Axes, pitches: np.ndarray, erased: np.ndarray | None = None) -> None:
    """A piano roll: thick what was there, thin what was just drawn."""
    steps, voices = pitches.shape
    thin = np.zeros((voices, steps), dtype=bool) if erased is None else erased.astype(bool)
    for voice in range(voices):
        begin = 0
        for step in range(1, steps + 1):
            ends = (
                step == steps
                or pitches[step, voice] != pitches[begin, voice]
                or thin[voice, step] != thin[voice, begin]
            )
            if not ends:
                continue
            if pitches[begin, voice] >= 0:
                axes.plot(
                    [begin + 0.08, step - 0.08],
                    [pitches[begin, voice]] * 2,
                    color=VOICES[voice % len(VOICES)],
                    linewidth=1.1 if thin[voice, begin] else 3.4,
                    solid_capstyle="butt",
                )
            begin = step
    axes.set(xlim=(0, steps), ylim=(35, 82), xticks=range(0, steps + 1, 4), yticks=(36, 48, 60, 72))
    axes.set_yticklabels(("C2", "C3", "C4", "C5"))


def gibbs_steps(results: Results) -> Figure | None:
    """One score on its way through the Gibbs steps."""
    saved = first(results, "sample/gibbs", "steps") if ran(results, "sample/gibbs") else None
    if saved is None:
        return None
    passes = results.config.passes
    names = [n for n in (0, 1, 4, 16, 63) if n < passes - 1] + [passes - 1]
    fig, axes = figure(height=2.3, cols=len(names), sharey=True, squeeze=False)
    for panel, name, pitches, erased in zip(axes[0], names, saved["pitches"], saved["erased"], strict=False):
        roll(panel, pitches, erased)
        panel.set_title(f"step {name + 1}", fontsize=9)
    return fig


def nll_by_sampler(results: Results) -> Figure | None:
    """Judge NLL and interval divergence of the two samplers that the claims compare."""
    arms = ("sample/gibbs", "sample/ancestral")
    if not ran(results, "train/judge", *arms):
        return None
    fig, axes = figure(height=2.8, cols=2)
    labels = ["annealed Gibbs", "ancestral"]
    for panel, metric, title in (
        (axes[0], "judge_nll", "nats a note under the judge"),
        (axes[1], "interval_js", "divergence of intervals (nats)"),
    ):
        bars(panel, labels, [results.metric(arm, metric) for arm in arms], colours=[BLUE, RUST])
        held_out = np.nanmean(results.metric("train/judge", metric))
        panel.axhline(held_out, color=GREEN, linestyle="--", linewidth=1.4, label="held-out Bach")
        panel.set_title(title)
    axes[0].legend(loc="lower left")
    return fig


def orders(results: Results) -> Figure | None:
    """The likelihood of the test pieces by order of revealing."""
    if not ran(results, "train/full"):
        return None
    fig, axes = figure(height=3.1, cols=2, width_ratios=(5, 4))
    notes = {
        "random": "note_nll_random",
        "left to right": "note_nll_chronological",
        "contiguous": "note_nll_contiguous",
        "5 random,\nmixed": "note_nll_mixture",
        "5 random,\naveraged": "note_nll_averaged",
    }
    frames = {
        "random": "frame_nll_random",
        "left to right": "frame_nll_chronological",
        "5 random,\naveraged": "frame_nll_random_averaged",
        "5 l. to r.,\naveraged": "frame_nll_chronological_averaged",
    }
    for panel, names, title in (
        (axes[0], notes, "nats a note"),
        (axes[1], frames, "nats a frame"),
    ):
        shades = [RUST if "averaged" in metric else BLUE for metric in names.values()]
        bars(
            panel,
            list(names),
            [results.metric("train/full", name) for name in names.values()],
            colours=shades,
        )
        panel.set_xticks(
            range(len(names)), list(names), rotation=35, ha="right", rotation_mode="anchor", fontsize=8
        )
        panel.set_title(title)
    return fig


def ablations(results: Results) -> Figure | None:
    """Note NLL without the mask channels and without the reweighting."""
    arms = {"full": "train/full", "no mask": "train/no-mask", "flat weight": "train/flat-weight"}
    if not ran(results, *arms.values()):
        return None
    panels = {"note_nll": "test pieces", "note_nll_resting": "pieces in which a voice rests"}
    found = {metric: [results.metric(arm, metric) for arm in arms.values()] for metric in panels}
    found = {metric: values for metric, values in found.items() if np.isfinite(np.concatenate(values)).all()}
    if not found:
        return None
    fig, axes = figure(height=2.8, cols=len(found), squeeze=False)
    axes = axes[0]
    for panel, (metric, values) in zip(axes, found.items(), strict=True):
        bars(panel, list(arms), values, colours=[BLUE, RUST, GOLD])
        panel.set_title(panels[metric])
        low, high = np.concatenate(values).min(), np.concatenate(values).max()
        panel.set_ylim(low - 0.6 * (high - low) - 1e-3, high + 0.2 * (high - low) + 1e-3)
    axes[0].set_ylabel("nats a note (axis cut)")
    return fig


def intervals(results: Results) -> Figure | None:
    """How often each vertical interval class sounds."""
    arms = {"held-out Bach": "train/judge", "annealed Gibbs": "sample/gibbs", "ancestral": "sample/ancestral"}
    if not ran(results, *arms.values()):
        return None
    found = {
        name: [h for s in results.seeds(arm) if (h := results.artifact(arm, s, "intervals")) is not None]
        for name, arm in arms.items()
    }
    if not all(found.values()):
        return None
    fig, axes = figure(height=2.9)
    for index, (name, colour) in enumerate(zip(arms, (GREEN, BLUE, RUST), strict=True)):
        places = np.arange(12) + (index - 1) * 0.27
        axes.bar(places, np.mean(found[name], axis=0), 0.25, color=colour, alpha=0.75, label=name)
    axes.set_xticks(range(12), CLASSES)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("share of voice pairs")
    axes.legend()
    return fig


def rules(results: Results) -> Figure | None:
    """What a teacher would mark, beside Bach."""
    arms = {"Bach": "train/judge", "Gibbs": "sample/gibbs", "ancestral": "sample/ancestral"}
    if not ran(results, *arms.values()):
        return None
    marks = {
        "parallel fifths\n(a hundred steps)": "parallel_fifths",
        "parallel octaves\n(a hundred steps)": "parallel_octaves",
        "steps with\ncrossed voices": "crossings",
        "dissonant pairs\non beats": "dissonant_beats",
        "moves by step": "stepwise",
    }
    fig, axes = figure(height=2.5, cols=len(marks))
    for panel, (title, metric) in zip(axes, marks.items(), strict=True):
        bars(
            panel,
            list(arms),
            [results.metric(arm, metric) for arm in arms.values()],
            colours=[GREEN, BLUE, RUST],
        )
        panel.set_title(title, fontsize=8)
        panel.set_xticks(range(3), list(arms), rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
        panel.tick_params(axis="y", labelsize=8)
    return fig


def tasks(results: Results) -> Figure | None:
    """One chorale, re-composed in four ways."""
    saved = first(results, "sample/gibbs", "tasks") if ran(results, "sample/gibbs") else None
    if saved is None:
        return None
    names = {
        "original": "Bach",
        "harmonise": "soprano given",
        "one voice": "new tenor",
        "middle": "new middle",
        "chunks": "new chunks",
    }
    fig, axes = figure(height=2.3, cols=len(names), sharey=True)
    for panel, (name, title) in zip(axes, names.items(), strict=True):
        roll(panel, saved[name], saved.get(f"{name} erased"))
        panel.set_title(title, fontsize=9)
        panel.set_xticks(range(0, len(saved[name]) + 1, 8))
    return fig


# -- open questions --------------------------------------------------------------------------------------------------

SHORT = {
    "train/judge": "Bach",
    "sample/gibbs-256": "Gibbs, 256 steps",
    "sample/upsampled": "Gibbs, quarters first",
    "sample/gibbs": "Gibbs, 64 steps",
    "sample/erase-02": "Gibbs, down to 2 %",
    "sample/erase-30": "Gibbs, down to 30 %",
    "sample/constant-50": "Gibbs, constant 50 %",
    "sample/spans-50": "Gibbs, spans of 50 %",
    "sample/gibbs-16": "Gibbs, 16 steps",
    "sample/gibbs-4": "Gibbs, 4 steps",
    "sample/exact-blocks": "Gibbs, cell by cell",
    "sample/contiguous": "ancestral, contiguous",
    "sample/chronological": "ancestral, left to right",
    "sample/ancestral": "ancestral, random",
    "sample/one-shot": "one pass",
}


def quality(results: Results) -> Figure | None:
    """Every sampler, from the most to the least probable: judge NLL, divergence of intervals, novelty, held notes."""
    arms = [arm for arm in SHORT if ran(results, arm)]
    if len(arms) < 6 or "train/judge" not in arms:
        return None
    arms.sort(key=lambda arm: np.nanmean(results.metric(arm, "judge_nll")))
    columns = {
        "nats a note\n(judge)": "judge_nll",
        "divergence\nof intervals": "interval_js",
        "new phrases": "novelty",
        "steps held": "held",
    }
    fig, axes = figure(height=0.27 * len(arms) + 0.9, cols=len(columns), sharey=True)
    places = np.arange(len(arms))
    for panel, (title, metric) in zip(axes, columns.items(), strict=True):
        for place, arm in zip(places, arms, strict=True):
            colour = GREEN if arm == "train/judge" else BLUE if SHORT[arm].startswith("Gibbs") else RUST
            values = results.metric(arm, metric)
            panel.plot(values, np.full(len(values), place), "o", color=colour, markersize=3.5, alpha=0.6)
            panel.plot(np.nanmean(values), place, "|", color=colour, markersize=11, markeredgewidth=2)
        panel.axvline(
            np.nanmean(results.metric("train/judge", metric)), color=GREEN, linestyle="--", linewidth=1
        )
        panel.set_title(title, fontsize=8.5)
        panel.tick_params(axis="x", labelsize=7.5)
    axes[0].set_yticks(places, [SHORT[arm] for arm in arms], fontsize=8)
    axes[0].invert_yaxis()
    axes[1].set_xscale("log")
    return fig


def contexts(results: Results) -> Figure | None:
    """What helps to predict a note."""
    names = [f"nll given {name}" for name in CONTEXTS]
    if not ran(results, "train/full"):
        return None
    fig, axes = figure(height=2.8)
    bars(
        axes,
        list(CONTEXTS),
        [results.metric("train/full", name) for name in names],
        colours=PLUM,
        horizontal=True,
    )
    axes.set_xlabel("nats a note")
    return fig


def with_rests(results: Results) -> Figure | None:
    """The mask where silence is common."""
    arms: Sequence[str] = ("train/full", "train/no-mask", "rests/full", "rests/no-mask")
    if not ran(results, *arms):
        return None
    fig, axes = figure(height=2.8)
    labels = ["Bach,\nwith mask", "Bach,\nwithout", "20 % rests,\nwith mask", "20 % rests,\nwithout"]
    bars(axes, labels, [results.metric(arm, "note_nll") for arm in arms], colours=[BLUE, RUST] * 2)
    axes.set_ylabel("nats a note")
    return fig


def passes(results: Results) -> Figure | None:
    """Quality over the number of Gibbs steps."""
    arms = ("sample/gibbs-4", "sample/gibbs-16", "sample/gibbs", "sample/gibbs-256")
    if not ran(results, *arms, "sample/ancestral", "train/judge"):
        return None
    fig, axes = figure(height=2.8, cols=2)
    for panel, metric, title in (
        (axes[0], "judge_nll", "nats a note under the judge"),
        (axes[1], "interval_js", "divergence of intervals"),
    ):
        x = [np.nanmean(results.metric(arm, "passes")) for arm in arms]
        panel.plot(
            x, [np.nanmean(results.metric(arm, metric)) for arm in arms], "o-", color=BLUE, label="Gibbs"
        )
        for arm, name, colour in (("sample/ancestral", "ancestral", RUST), ("train/judge", "Bach", GREEN)):
            panel.axhline(np.nanmean(results.metric(arm, metric)), color=colour, linestyle="--", label=name)
        panel.set(xscale="log", xlabel="forward passes", title=title)
        panel.set_xticks(x, [f"{n:.0f}" for n in x])
        panel.minorticks_off()
    axes[1].set_yscale("log")
    axes[0].legend()
    return fig


def order_gap(results: Results) -> Figure | None:
    """NLL by order, after the usual training and after a longer one."""
    arms = {"usual training": "train/full", "longer": "train/long"}
    if not ran(results, *arms.values()):
        return None
    fig, axes = figure(height=2.8)
    measures = {"one random order": "note_nll_random", "left to right": "note_nll_chronological"}
    measures["5 averaged"] = "note_nll_averaged"
    labels, values = [], []
    for name, arm in arms.items():
        for order, metric in measures.items():
            labels.append(f"{name},\n{order}")
            values.append(results.metric(arm, metric))
    bars(axes, labels, values, colours=[BLUE, PLUM, RUST] * 2)
    axes.set_ylabel("nats a note")
    return fig
