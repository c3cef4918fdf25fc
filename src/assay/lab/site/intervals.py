"""A decision as a picture: the interval, the effect and each seed's own effect against the lines that decide.

Places are percentages and text is text, so the picture takes any width without its letters shrinking.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from assay.lab.figures import is_equivalence, lines, number, plain, spread
from assay.lab.verdict import Decision

DOTS = 40
"""Up to so many seeds are drawn as dots; above, as a histogram."""
BINS = 48
LETTER = 6.7
"""Rough width of a letter of the labels in pixels."""
NARROW = 300
"""The narrowest picture that labels must fit, in pixels."""


@dataclass(frozen=True)
class Scale:
    """Numbers to percentages of the width. `log` spaces ratios evenly."""

    low: float
    high: float
    log: bool = False

    def at(self, x: float) -> float:
        low, high, x = (
            (math.log(v) for v in (self.low, self.high, x)) if self.log else (self.low, self.high, x)
        )
        return round(2.5 + 95 * min(1.0, max(0.0, (x - low) / (high - low))), 2)

    def outside(self, x: float) -> bool:
        return not self.low <= x <= self.high

    def ticks(self) -> list[float]:
        """Round numbers inside the scale, four or so."""
        if self.log:
            found = [
                m * 10.0**e
                for e in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
                for m in (1, 2, 5)
                if self.low <= m * 10.0**e <= self.high
            ]
            if len(found) >= 2:
                return found[:: max(1, math.ceil(len(found) / 5))]
        step = _round_step((self.high - self.low) / 4)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(i * step, 12) for i in range(first, last + 1)]


def _round_step(step: float) -> float:
    unit = 10.0 ** math.floor(math.log10(step))
    return next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= step * 0.999)


def scale(decision: Decision, log: bool = False) -> Scale | None:
    """The scale of a decision's picture; None where it has no number to show.

    Seeds so far out that the rest would be a speck are left outside (and counted).
    """
    core = [*lines(decision), *(decision.interval or ())]
    core += [] if decision.effect is None else [decision.effect]
    core = [x for x in core if math.isfinite(x)]
    seeds = [x for x in decision.effects if math.isfinite(x)]
    if decision.effect is None or not core:
        return None
    log = log and min([*core, *seeds]) > 0
    low, high = min([*core, *seeds]), max([*core, *seeds])
    narrow = max(core) - min(core)
    if narrow > 0 and not log and high - low > 8 * narrow:
        low, high = max(low, min(core) - narrow), min(high, max(core) + narrow)
    if log:
        pad = (high / low) ** 0.06 if high > low else 1.5
        return Scale(low / pad, high * pad, log=True)
    size = high - low or abs(high) or 1.0
    return Scale(low - 0.06 * size, high + 0.06 * size)


def spark(decision: Decision, log: bool = False) -> Markup:
    """The picture without words, for one line of a list."""
    axis = scale(decision, log)
    if axis is None:
        return Markup("")
    body = [*_zones(decision, axis, 1, 14)]
    body += [_line(axis.at(x), 1, 15, "threshold") for x in _thresholds(decision)]
    body += _interval(decision, axis, 8, 4, 3.2)
    kind = f"spark o-{_slug(decision.outcome)}"
    return Markup(  # made of numbers only
        f'<svg class="{kind}" width="100%" height="16" aria-hidden="true">{"".join(body)}</svg>'
    )


def strip(decision: Decision, log: bool = False) -> Markup:
    """The whole picture, with what each line means, a mark for each seed and a scale."""
    axis = scale(decision, log)
    if axis is None:
        return Markup("")
    notes = _notes(decision)
    rows = _rows(axis, notes)
    top = 15 * (max((row for *_, row in rows), default=-1) + 1) + 3
    middle = top + 16
    seeds = [x for x in decision.effects if math.isfinite(x)]
    bottom = top + 32 + (24 if seeds else 0)
    body = [*_zones(decision, axis, top, bottom - top)]
    body.append(f'<line class="axis" x1="0" x2="100%" y1="{bottom}" y2="{bottom}"/>')
    values = axis.ticks()
    apart = (values[1] - values[0]) * 0.1 if len(values) > 1 and not axis.log else None
    for value in values:
        at = axis.at(value)
        label = plain(round(value, 10)) if axis.log or apart is None else _tick(value, values)
        body.append(_line(at, bottom, bottom + 4, "axis"))
        body.append(_text(at, bottom + 16, label, "tick", _anchor(at, label)))
    for x, text, kind, row in rows:
        at = axis.at(x)
        body.append(_line(at, 15 * row + 5 if text else top, bottom, kind))
    for x, text, kind, row in rows:
        if text:
            at = axis.at(x)
            side = "end" if at > 50 else "start"
            body.append(_text(at, 15 * row + 12, text, kind, side, 5 if side == "start" else -5))
    body += _interval(decision, axis, middle, 7, 5.5)
    body += _seeds(decision, axis, bottom)
    return Markup(  # text is escaped in _text and here, the rest is numbers
        f'<svg class="strip o-{_slug(decision.outcome)}" width="100%" height="{bottom + 21}" role="img" '
        f'aria-label="{escape(describe(decision))}">{"".join(body)}</svg>'
    )


def describe(decision: Decision) -> str:
    """The picture in words."""
    half = spread(decision)
    parts = [f"effect {number(decision.effect, half)}"]
    if decision.interval is not None:
        low, high = decision.interval
        parts.append(
            f"{decision.level:.0%} interval {number(low, half)} to {number(high, half)}".replace("%", " %")
        )
    if decision.threshold is not None:
        kind = (
            "margin"
            if is_equivalence(decision)
            else "threshold at most"
            if decision.smaller
            else "threshold at least"
        )
        parts.append(f"{kind} {plain(decision.threshold)}")
    if decision.n:
        parts.append(f"{decision.n} seeds")
    return ", ".join(parts) + f": {decision.outcome}"


# -- parts ---------------------------------------------------------------------------------------------------------


def _slug(outcome: str) -> str:
    return outcome.replace(" ", "-")


def _tick(value: float, values: Sequence[float]) -> str:
    places = max(0, -math.floor(math.log10(abs(values[1] - values[0])) + 1e-9))
    if places < 6 and abs(round(values[1] - values[0], places) - (values[1] - values[0])) > 1e-12:
        places += 1  # steps of 0.25 and 2.5
    return plain(value) if places > 5 else f"{value:.{places}f}".replace("-", "−") if value else "0"


def _thresholds(decision: Decision) -> list[float]:
    if decision.threshold is None:
        return []
    return [-decision.threshold, decision.threshold] if is_equivalence(decision) else [decision.threshold]


def _notes(decision: Decision) -> list[tuple[float, str, str]]:
    """(place, words, kind) of every line."""
    threshold, beyond, refuted = decision.threshold, decision.beyond, decision.refuted
    if threshold is None:
        return []
    if is_equivalence(decision):
        return [(-threshold, "", "threshold"), (threshold, f"margin ±{plain(threshold)}", "threshold")]
    up, over = ("up to", "above") if decision.smaller else ("from", "below")
    inside = "below" if decision.smaller else "above"
    if threshold == beyond == refuted:
        return [(threshold, f"threshold {plain(threshold)}", "threshold")]
    notes = []
    if threshold == beyond:
        notes.append((threshold, f"threshold {plain(threshold)}", "threshold"))
    else:
        notes.append((threshold, f"counts {up} {plain(threshold)}", "threshold"))
        if beyond is not None:
            text = (
                f"must clear {plain(beyond)}" if beyond == refuted else f"interval {inside} {plain(beyond)}"
            )
            notes.append((beyond, text, "beyond"))
    if refuted is not None and refuted != beyond:
        notes.append((refuted, f"refuted {over} {plain(refuted)}", "refute"))
    return notes


def _rows(axis: Scale, notes: Iterable[tuple[float, str, str]]) -> list[tuple[float, str, str, int]]:
    """A row for each label, so that no two overlap even where the picture is narrow."""
    taken: list[list[tuple[float, float]]] = []
    placed = []
    for x, text, kind in notes:
        at, width = axis.at(x), 100 * (LETTER * len(text) + 14) / NARROW
        span = (at - width, at + 1) if at > 50 else (at - 1, at + width)
        row = 0
        while text and row < len(taken) and any(span[0] < b and a < span[1] for a, b in taken[row]):
            row += 1
        if row == len(taken):
            taken.append([])
        taken[row].append(span if text else (at, at))
        placed.append((x, text, kind, row))
    return placed


def _zones(decision: Decision, axis: Scale, top: float, height: float) -> list[str]:
    """Where the interval must lie to support, and where it refutes."""
    beyond, refuted = decision.beyond, decision.refuted
    if beyond is None or refuted is None:
        return []

    def zone(a: float, b: float, kind: str) -> str:
        width = max(0.0, round(b - a, 2))
        return f'<rect class="zone {kind}" x="{a:g}%" width="{width:g}%" y="{top}" height="{height}"/>'

    if is_equivalence(decision):
        low, high = axis.at(-beyond), axis.at(beyond)
        return [zone(0, low, "against"), zone(low, high, "for"), zone(high, 100, "against")]
    if decision.smaller:
        return [zone(0, axis.at(beyond), "for"), zone(axis.at(refuted), 100, "against")]
    return [zone(0, axis.at(refuted), "against"), zone(axis.at(beyond), 100, "for")]


def _interval(decision: Decision, axis: Scale, y: float, thick: float, radius: float) -> list[str]:
    body = []
    if decision.interval is not None and all(map(math.isfinite, decision.interval)):
        low, high = (axis.at(x) for x in decision.interval)
        body.append(
            f'<rect class="interval" x="{low:g}%" width="{max(0.3, round(high - low, 2)):g}%" y="{y - thick / 2:g}" '
            f'height="{thick:g}" rx="{thick / 2:g}"/>'
        )
    if decision.effect is not None and math.isfinite(decision.effect):
        body.append(f'<circle class="effect" cx="{axis.at(decision.effect):g}%" cy="{y:g}" r="{radius:g}"/>')
    return body


def _seeds(decision: Decision, axis: Scale, bottom: float) -> list[str]:
    pairs = [(x, s) for x, s in zip(decision.effects, _numbers(decision), strict=True) if math.isfinite(x)]
    inside = sorted((x, s) for x, s in pairs if not axis.outside(x))
    body = []
    if len(pairs) > DOTS:
        counts = [0] * BINS
        for x, _ in inside:
            counts[min(BINS - 1, int((axis.at(x) - 2.5) / 95 * BINS))] += 1
        most = max(counts, default=0)
        for i, count in enumerate(counts):
            if count:
                height = max(
                    1.5, round(20 * math.sqrt(count / most), 1)
                )  # roots, or one tall bin hides the rest
                body.append(
                    f'<rect class="seed" x="{2.5 + 95 * i / BINS:.2f}%" width="{95 / BINS - 0.25:.2f}%" '
                    f'y="{bottom - height:g}" height="{height:g}"/>'
                )
    else:
        ends: list[
            float
        ] = []  # the right end of the last dot on each level: dots that would overlap are stacked
        half = spread(decision)
        for x, seed in inside:
            at = axis.at(x)
            level = next((i for i, end in enumerate(ends) if at > end), len(ends))
            if level == len(ends):
                ends.append(0.0)
            ends[level] = at + 2.1
            y = bottom - 6 - 5 * min(level, 3)
            title = f"<title>seed {seed}: {number(x, half)}</title>"
            body.append(f'<circle class="seed" cx="{at:g}%" cy="{y:g}" r="3">{title}</circle>')
    missing = len(pairs) - len(inside)
    if missing:
        side = "end" if sum(x > axis.high for x, _ in pairs) * 2 >= missing else "start"
        words = f"{missing} {'seed lies' if missing == 1 else 'seeds lie'} outside"
        body.append(_text(97.5 if side == "end" else 2.5, bottom - 12, words, "tick", side))
    return body


def _numbers(decision: Decision) -> Sequence[int]:
    return decision.seeds if len(decision.seeds) == len(decision.effects) else range(len(decision.effects))


def _anchor(at: float, label: str) -> str:
    half = 100 * LETTER * len(label) / 2 / NARROW
    return "start" if at < half else "end" if at > 100 - half else "middle"


def _line(at: float, y1: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{at:g}%" x2="{at:g}%" y1="{y1:g}" y2="{y2:g}"/>'


def _text(at: float, y: float, text: str, kind: str, anchor: str, aside: float = 0) -> str:
    dx = f' dx="{aside:g}"' if aside else ""
    return f'<text class="{kind}" x="{at:g}%" y="{y:g}"{dx} text-anchor="{anchor}">{escape(text)}</text>'
