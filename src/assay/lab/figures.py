"""The house style of figures: made without pyplot, drawn to SVG that fits into a light or a dark page.

    from assay.lab.figures import bars, figure

    fig, axes = figure(height=2.8)
    bars(axes, ["conv", "coordconv"], [results.metric(arm, "accuracy") for arm in ("conv", "coordconv")])

Leave the colour of text and axes alone (black): `to_svg` turns it into the page's own text colour. The style holds
inside `figure`, its axes and `to_svg` only; matplotlib's settings stay what they were.
"""

import hashlib
import io
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from assay.lab import statistics
from assay.lab.verdict import Decision, Verdict

COLOURS: tuple[str, ...] = (
    "#6094e9",  # blue
    "#a44901",  # rust
    "#3fa38c",  # green
    "#9f4778",  # plum
    "#a38e18",  # gold
    "#7450bf",  # violet
    "#808690",  # grey
    "#2b87a8",  # petrol
)
"""For lines and bars: at least 3:1 on white and on near-black; the first six stay apart for colour-blind eyes."""

OUTCOME_COLOURS: dict[str, str] = {
    "supported": "#2a8f77",
    "refuted": "#d0562b",
    "inconclusive": "#9c8112",
    "not decided": "#808690",
}

STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # for measuring; the SVG asks for the reader's own sans-serif
    "font.size": 10,
    "mathtext.fontset": "dejavusans",
    "axes.prop_cycle": f"cycler(color={list(COLOURS)!r})",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelsize": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "grid.color": "black",
    "grid.alpha": 0.13,
    "grid.linewidth": 0.6,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handlelength": 1.4,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "image.interpolation": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "assay",
    "svg.id": None,
    "path.simplify": True,
}

FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Liberation Sans', sans-serif"


def house_style() -> Any:
    """A context in which matplotlib draws in the house style."""
    rc: Any = STYLE
    return rc_context(rc)


# -- making figures ----------------------------------------------------------------------------------------------


class HouseAxes(Axes):
    """Axes whose titles and legends follow the house style whenever they are added."""

    name = "house"

    def set_title(self, *args: Any, **kwargs: Any) -> Any:
        with house_style():
            return super().set_title(*args, **kwargs)

    def legend(self, *args: Any, **kwargs: Any) -> Any:
        with house_style():
            return super().legend(*args, **kwargs)

    def imshow(self, *args: Any, **kwargs: Any) -> Any:
        with house_style():
            return super().imshow(*args, **kwargs)


class HouseFigure(Figure):
    """A figure whose titles, legends and colour bars follow the house style whenever they are added."""

    def suptitle(self, t: str, **kwargs: Any) -> Any:
        kwargs.setdefault("x", 0.01)
        kwargs.setdefault("ha", "left")
        with house_style():
            return super().suptitle(t, **kwargs)

    def legend(self, *args: Any, **kwargs: Any) -> Any:
        with house_style():
            return super().legend(*args, **kwargs)

    def colorbar(self, *args: Any, **kwargs: Any) -> Any:
        with house_style():
            bar = super().colorbar(*args, **kwargs)
        bar.outline.set_visible(False)
        return bar


def figure(
    width: float = 6.4, height: float = 3.6, rows: int = 1, cols: int = 1, **kw: Any
) -> tuple[Figure, Any]:
    """A figure in house style and its axes: one `Axes`, or an array of them as `Figure.subplots` gives.

    Args:
        width, height: inches; 6.4 fills the column of a page.
        rows, cols: how many panels.
        **kw: for `Figure.subplots` (`sharex`, `sharey`, `width_ratios`, `squeeze`, ...).
    """
    with house_style():
        fig = HouseFigure(figsize=(width, height), layout="constrained")
        subplot = {"axes_class": HouseAxes} | dict(kw.pop("subplot_kw", None) or {})
        if "projection" in subplot:
            subplot.pop("axes_class")  # a projection brings its own kind of axes
        return fig, fig.subplots(rows, cols, subplot_kw=subplot, **kw)


def bars(
    axes: Axes,
    labels: Sequence[str],
    values: Any,
    intervals: Any = None,
    *,
    colours: str | Sequence[str] | None = None,
    horizontal: bool = False,
    points: bool = True,
    width: float = 0.62,
) -> None:
    """One bar for each label, with its interval and, where per-seed values are given, a dot for each seed.

    Args:
        values: one number a label, or one sequence of per-seed values a label (the bar is their mean, the interval
            the 95 % interval of the mean that verdicts use).
        intervals: (low, high) a label; replaces the computed ones.
        colours: one colour, or one a label (default: the first of `COLOURS`).
        horizontal: labels down the left side, for long or many of them.
        points: whether seeds are drawn as dots.
    """
    if len(labels) != len(values):
        raise ValueError(f"{len(labels)} labels for {len(values)} values: give one of each a bar")
    if intervals is not None and len(intervals) != len(labels):
        raise ValueError(f"{len(labels)} labels for {len(intervals)} intervals: give one (low, high) a bar")
    groups = [np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in values]
    groups = [g[np.isfinite(g)] for g in groups]
    means = np.array([g.mean() if g.size else np.nan for g in groups])
    if intervals is None:
        spans = [statistics.mean_interval(g) if g.size > 1 else None for g in groups]
    else:
        spans = [None if span is None else (float(span[0]), float(span[1])) for span in intervals]
    shades = (
        [colours] * len(labels) if isinstance(colours, str) else list(colours or [COLOURS[0]] * len(labels))
    )
    if len(shades) != len(labels):
        raise ValueError(f"{len(labels)} labels for {len(shades)} colours: give one, or one a bar")
    places = np.arange(len(labels))
    draw = axes.barh if horizontal else axes.bar
    draw(places, means, width, color=shades, alpha=0.55, linewidth=0)
    for place, mean, span, shade, group in zip(places, means, spans, shades, groups, strict=True):
        if points and 1 < group.size <= 40:
            aside = place + np.linspace(-0.3, 0.3, group.size) * width
            at = (group, aside) if horizontal else (aside, group)
            axes.plot(*at, "o", color=shade, markersize=3.2, markeredgewidth=0, zorder=3)
        if span is not None:
            ends = (np.array(span), [place, place]) if horizontal else ([place, place], np.array(span))
            axes.plot(*ends, color="black", linewidth=1.3, solid_capstyle="butt", zorder=4)
            dot = ([mean], [place]) if horizontal else ([place], [mean])
            axes.plot(*dot, "_" if not horizontal else "|", color="black", markersize=9, zorder=4)
    if horizontal:
        axes.set_yticks(places, labels)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    else:
        crowded = sum(len(label) for label in labels) > 11 * _inches(axes)
        turn: dict[str, Any] = {"rotation": 28, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
        axes.set_xticks(places, labels, **turn)
        axes.grid(visible=False, axis="x")
        axes.tick_params(axis="x", length=0)


def curves(
    axes: Axes,
    steps: Any,
    values: Any,
    label: str | None = None,
    colour: str | None = None,
    *,
    band: str | None = "interval",
    **line: Any,
) -> None:
    """The mean of `values` [seeds, k] over `steps` [k], with a band around it. Nothing is drawn for no seeds.

    Args:
        band: "interval" (95 % of the mean, Student's t), "sd" (one standard deviation), "range" (lowest to highest
            seed) or None.
        **line: for `Axes.plot`.
    """
    if band not in ("interval", "sd", "range", None):
        raise ValueError(f"unknown band {band!r}: 'interval', 'sd', 'range' or None")
    x = np.asarray(steps, dtype=np.float64)
    y = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if y.size == 0:
        return
    if y.shape[-1] != x.size:
        raise ValueError(f"values {y.shape} do not fit {x.size} steps: they are [seeds, steps]")
    mean = y.mean(0)
    (drawn,) = axes.plot(x, mean, label=label, color=colour, **({"linewidth": 1.7} | line))
    if band is None or len(y) < 2:
        return
    if band == "range":
        low, high = y.min(0), y.max(0)
    else:
        half = y.std(0, ddof=1)
        if band == "interval":
            from scipy import stats

            half = stats.t.ppf(0.975, len(y) - 1) * half / math.sqrt(len(y))
        low, high = mean - half, mean + half
    axes.fill_between(x, low, high, color=drawn.get_color(), alpha=0.22, linewidth=0)


def heatmap(
    axes: Axes,
    array: Any,
    *,
    rows: Sequence[str] | None = None,
    cols: Sequence[str] | None = None,
    annotate: str | None = None,
    label: str | None = None,
    bar: bool = True,
    **image: Any,
) -> Any:
    """A matrix as colours, row 0 at the top. Returns the image.

    Args:
        rows, cols: names of the rows and columns.
        annotate: a format such as ".2f" writes each value into its cell.
        label: name of the colour bar.
        bar: whether there is one.
        **image: for `Axes.imshow` (`cmap`, `vmin`, `vmax`, `origin`, `extent`, `aspect`, ...).
    """
    data = np.asarray(array, dtype=np.float64)
    if data.ndim != 2:
        raise ValueError(f"a heat map needs a matrix, not an array of shape {data.shape}")
    drawn = axes.imshow(data, **({"aspect": "auto", "cmap": "viridis", "interpolation": "none"} | image))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if rows is not None:
        axes.set_yticks(range(len(rows)), rows)
    if cols is not None:
        crowded = sum(len(name) for name in cols) > 11 * _inches(axes)
        turn: dict[str, Any] = {"rotation": 28, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
        axes.set_xticks(range(len(cols)), cols, **turn)
    axes.tick_params(length=0 if rows is not None or cols is not None else 3)
    if annotate is not None:
        shades = np.asarray(drawn.cmap(drawn.norm(data)))[..., :3] @ [0.2126, 0.7152, 0.0722]
        for (i, j), value in np.ndenumerate(data):
            if math.isfinite(value):
                # Near-black, not black: the text lies on a colour and must not follow the page's.
                ink = "#111111" if shades[i, j] > 0.45 else "white"
                axes.text(j, i, format(value, annotate), ha="center", va="center", color=ink, fontsize=8.5)
    if bar and axes.figure is not None:
        axes.figure.colorbar(drawn, ax=axes, label=label or "", fraction=0.05, pad=0.02)
    return drawn


def _inches(axes: Axes) -> float:
    """The rough width of a panel in inches."""
    fig = axes.get_figure(root=True)
    return 1.0 if fig is None else float(fig.get_figwidth() * axes.get_position().width)


# -- a verdict in numbers ------------------------------------------------------------------------------------------


def is_equivalence(decision: Decision) -> bool:
    """Whether `decision` comes from an equivalence test (its threshold is a margin on both sides of zero)."""
    return decision.level < 0.95 and decision.smaller


def lines(decision: Decision) -> tuple[float, ...]:
    """The distinct numbers that the effect and its interval are held against."""
    found = {x for x in (decision.threshold, decision.beyond, decision.refuted) if x is not None}
    if is_equivalence(decision):
        found |= {-x for x in found}
    return tuple(sorted(found))


def number(value: float | None, like: float | None = None) -> str:
    """`value` for reading: three significant digits, or (at most four) as many as mean something beside `like`.

    `like` is the half width of an interval, or a standard deviation.
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    size = abs(value)
    free = not like or not math.isfinite(like)
    if size >= 1e6 or (size < 1e-4 and (free or abs(like or 0.0) < 1e-4)):
        mantissa, _, power = f"{value:.2e}".partition("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"
    elif free:
        text = f"{value:,.{max(0, 2 - math.floor(math.log10(size)))}f}"
        if "." in text:
            text = text.rstrip("0").rstrip(".")
    else:
        assert like is not None
        most = max(0, 3 - math.floor(math.log10(max(size, abs(like)))))
        places = min(most, max(0, math.ceil(-math.log10(abs(like) / 5))))
        text = f"{value:,.{places}f}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")
    return text.replace(",", "\u202f").replace("-", "−")  # thin spaces group thousands


def plain(value: float | None) -> str:
    """A threshold as it was written down (`0.3`, `−1.25`), without padding."""
    return number(value) if value is None or not math.isfinite(value) else f"{value:g}".replace("-", "−")


def spread(decision: Decision) -> float | None:
    """Half the width of the interval: the scale on which an effect's digits mean something."""
    if decision.interval is None:
        return None
    low, high = decision.interval
    half = (high - low) / 2
    return half if math.isfinite(half) and half > 0 else None


def verdict_figure(verdicts: Sequence[Verdict]) -> Figure:
    """Every claim's effect and interval against its threshold; each row has its own scale, as units differ."""
    shown = list(verdicts)
    fig, axes = figure(height=0.9 + 0.52 * max(1, len(shown)))
    for row, verdict in enumerate(shown):
        decision = verdict.headline
        shade = OUTCOME_COLOURS[verdict.outcome]
        marks = [x for x in (decision.effect, *(decision.interval or ()), *lines(decision)) if x is not None]
        marks = [x for x in marks if math.isfinite(x)]
        low, high = (min(marks), max(marks)) if marks else (0.0, 1.0)
        size = (high - low) or abs(high) or 1.0

        def place(x: float, low: float = low, high: float = high, size: float = size) -> float:
            return 0.5 if low == high else (x - low) / size

        for x in lines(decision):
            solid = x == decision.threshold or is_equivalence(decision)
            axes.plot(
                [place(x)] * 2,
                [row - 0.33, row + 0.33],
                color="black",
                linewidth=1.1 if solid else 0.7,
                linestyle="-" if solid else (0, (3, 2)),
                alpha=0.75,
            )
            if solid:
                axes.annotate(
                    plain(x),
                    (place(x), row - 0.33),
                    (0, 1.5),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    fontsize=7.5,
                    alpha=0.8,
                )
        if decision.interval is not None and all(map(math.isfinite, decision.interval)):
            ends = [place(x) for x in decision.interval]
            axes.plot(ends, [row, row], color=shade, linewidth=4, solid_capstyle="round", alpha=0.55)
        if decision.effect is not None and math.isfinite(decision.effect):
            axes.plot([place(decision.effect)], [row], "o", color=shade, markersize=6.5, markeredgewidth=0)
        half = spread(decision)
        words = number(decision.effect, half)
        if decision.interval is not None:
            words += f" [{number(decision.interval[0], half)}, {number(decision.interval[1], half)}]"
        axes.text(
            1.07, row - 0.02, verdict.outcome, va="bottom", fontsize=8.5, color=shade, fontweight="bold"
        )
        axes.text(1.07, row + 0.06, words if marks else "", va="top", fontsize=8.5)
    axes.set_yticks(range(len(shown)), [v.claim for v in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(-0.05, 1.62)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    if not shown:
        axes.text(0.5, -0.5, "no claims", ha="center", va="center")
    return fig


# -- SVG -----------------------------------------------------------------------------------------------------------

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_INK = re.compile(r"#000000|#000\b|\bblack\b")
_LONG = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_MEASURES = (
    "d",
    "points",
    "transform",
    "x",
    "y",
    "x1",
    "x2",
    "y1",
    "y2",
    "cx",
    "cy",
    "r",
    "width",
    "height",
    "style",
)


def to_svg(fig: Figure) -> str:
    """`fig` as an SVG for a web page: scalable, transparent, its black drawn in the colour of the surrounding text.

    Text stays text, in the reader's own sans-serif. Equal figures give equal bytes. Every id carries a prefix that
    no other figure has, so several can stand in one page.
    """
    if not isinstance(fig, Figure):
        raise TypeError(f"to_svg needs a matplotlib Figure, not {type(fig).__name__}")
    target = io.StringIO()
    with house_style(), _clear_legends(fig):
        fig.savefig(
            target,
            format="svg",
            transparent=True,
            dpi=150,  # of what is rasterised
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    root = ET.fromstring(target.getvalue())
    _tidy(root)
    body = _write(root)
    return prefix_ids(body, "f" + hashlib.sha256(body.encode()).hexdigest()[:8])


def prefix_ids(svg: str, prefix: str) -> str:
    """`svg` with every id, and every reference to one, replaced by `prefix-1`, `prefix-2`, ..."""
    root = ET.fromstring(svg)
    names: dict[str, str] = {}
    for element in root.iter():
        if "id" in element.attrib:
            names[element.attrib["id"]] = f"{prefix}-{len(names) + 1}"
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, names[value])
            elif key in ("href", f"{{{_XLINK}}}href") and value.startswith("#"):
                element.set(key, "#" + names.get(value[1:], value[1:]))
            elif "url(#" in value:
                element.set(key, _REFERENCE.sub(lambda m: f"url(#{names.get(m[1], m[1])})", value))
    return _write(root)


@contextmanager
def _clear_legends(fig: Figure) -> Iterator[None]:
    """Legend boxes without their white ground while a figure is drawn."""
    frames = [legend.get_frame() for legend in fig.findobj(Legend)]
    faces = [(frame.get_facecolor(), frame.get_edgecolor()) for frame in frames]
    for frame in frames:
        frame.set_facecolor("none")
        frame.set_edgecolor("none")
    try:
        yield
    finally:
        for frame, (face, edge) in zip(frames, faces, strict=True):
            frame.set_facecolor(face)
            frame.set_edgecolor(edge)


def _write(root: ET.Element) -> str:
    ET.register_namespace("", _SVG)
    return ET.tostring(root, encoding="unicode")


def _round(match: re.Match[str]) -> str:
    value = float(match[0])
    text = f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.4f}"
    text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def _tidy(root: ET.Element) -> None:
    """Drop what a page does not need, in place, and hand colour and font over to the page."""
    for parent in list(root.iter()):
        for child in list(parent):
            style = child.get("style", "")
            rules_for_everyone = child.tag == f"{{{_SVG}}}style"  # would leak into the page around it
            unseen = "fill: none" in style and ("opacity: 0;" in f"{style};" or "stroke:" not in style)
            if rules_for_everyone or unseen or child.tag == f"{{{_SVG}}}metadata":
                parent.remove(child)
    used = set()
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == f"{{{_XLINK}}}href":
                del element.attrib[key]
                element.set("href", value)
            if "href" in key and value.startswith("#"):
                used.add(value[1:])
            used.update(_REFERENCE.findall(value))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        for key in _MEASURES:
            if element.attrib.get(key):
                element.set(key, _LONG.sub(_round, element.attrib[key]))
        if "style" in element.attrib:
            element.set("style", _style(element.attrib["style"]))
            if not element.attrib["style"]:
                del element.attrib["style"]
        if "d" in element.attrib:
            element.set("d", " ".join(element.attrib["d"].split()))
        if element.text and not element.text.strip():
            element.text = None
        if element.tail and not element.tail.strip():
            element.tail = None
    for parent in reversed(list(root.iter())):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}g", f"{{{_SVG}}}defs") and len(child) == 0:
                parent.remove(child)
    root.attrib.pop("height", None)
    root.attrib.pop("version", None)
    for key, value in {
        "width": "100%",
        "role": "img",
        "fill": "currentColor",
        "stroke-linejoin": "round",
        "stroke-linecap": "butt",
        "font-family": FONTS,
    }.items():
        root.set(key, value)
    # Tick labels and the like come in groups of one: a group that says nothing is its child.
    for parent in reversed(list(root.iter())):
        children: list[ET.Element] = []
        for child in parent:
            bare = child.tag == f"{{{_SVG}}}g" and not child.attrib and not (child.text or child.tail)
            children += list(child) if bare else [child]
        if len(children) != len(parent) or any(a is not b for a, b in zip(children, parent, strict=True)):
            parent[:] = children


def _style(style: str) -> str:
    """Declarations with ink as `currentColor`, without font families and the initial values that they repeat."""
    kept = []
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":
            shape = [word for word in ("italic", "oblique") if re.search(rf"\b{word}\b", value)]
            weight = re.search(r"\b(bold|[1-9]00)\b", value.partition("px")[0])
            size = re.search(r"([\d.]+)px", value)
            kept += [f"font-style:{shape[0]}"] if shape else []
            heavy = {"bold": "600", "700": "600"}  # a page's bold is lighter than DejaVu's
            kept += (
                [f"font-weight:{heavy.get(weight[1], weight[1])}"] if weight and weight[1] != "400" else []
            )
            kept += [f"font-size:{size[1]}px"] if size else []
        elif name and (name, value) not in (("stroke-linejoin", "round"), ("stroke-linecap", "butt")):
            kept.append(f"{name}:{_INK.sub('currentColor', value)}" if name != "font-family" else "")
    return ";".join(filter(None, kept))


__all__ = [
    "COLOURS",
    "bars",
    "curves",
    "figure",
    "heatmap",
    "prefix_ids",
    "to_svg",
    "verdict_figure",
]
