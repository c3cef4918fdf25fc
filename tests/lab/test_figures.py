"""Figures: drawn without pyplot, in colours that everybody can tell apart, as SVG that fits into any page."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import rcParams
from matplotlib.figure import Figure

from assay.lab import statistics
from assay.lab.figures import (
    COLOURS,
    OUTCOME_COLOURS,
    bars,
    curves,
    figure,
    heatmap,
    is_equivalence,
    lines,
    number,
    plain,
    prefix_ids,
    to_svg,
    verdict_figure,
)
from assay.lab.verdict import Decision, Verdict

SVG = "{http://www.w3.org/2000/svg}"


def linear(colour: str) -> np.ndarray:
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    bright, dark = sorted((linear(x) @ [0.2126, 0.7152, 0.0722] for x in (a, b)), reverse=True)
    return float((bright + 0.05) / (dark + 0.05))


def oklab(rgb: np.ndarray) -> np.ndarray:
    cone = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    mix = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(mix) @ np.cbrt(np.array(cone) @ np.clip(rgb, 0, None))


# Machado, Oliveira, Fernandes 2009, severity 1.
EYES = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}


@pytest.mark.parametrize("colour", [*COLOURS, *OUTCOME_COLOURS.values()])
def test_colours_read_on_light_and_dark(colour: str) -> None:
    assert contrast(colour, "#fdfdfb") >= 2.95
    assert contrast(colour, "#15181b") >= 2.95


@pytest.mark.parametrize("eye", EYES)
def test_first_six_colours_stay_apart(eye: str) -> None:
    seen = [oklab(EYES[eye] @ linear(colour)) for colour in COLOURS[:6]]
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)) > 0.1


def drawing() -> Figure:
    rng = np.random.default_rng(0)
    fig, axes = figure(cols=2)
    curves(axes[0], np.arange(50), rng.normal(size=(5, 50)), "an arm", COLOURS[0])
    axes[0].set_title("Loss < 0.123456 & falling")
    axes[0].legend()
    bars(axes[1], ["conv", "coordconv"], [rng.normal(size=5), rng.normal(size=5)])
    return fig


def test_svg_is_the_same_to_the_byte() -> None:
    assert to_svg(drawing()) == to_svg(drawing())


def test_svg_hands_colour_font_and_width_to_the_page() -> None:
    svg = to_svg(drawing())
    root = ET.fromstring(svg)
    assert root.get("width") == "100%"
    assert root.get("height") is None
    assert root.get("viewBox") == "0 0 460.8 259.2"
    assert "currentColor" in svg
    assert "#000000" not in svg
    assert "DejaVu" not in svg
    assert "<style" not in svg  # it would hold for the whole page
    assert "<metadata" not in svg
    assert "Date" not in svg
    words = "".join(t for e in root.iter(f"{SVG}text") for t in e.itertext())
    assert "Loss < 0.123456 & falling" in words  # text is text, and is not rounded
    assert "an arm" in words


def test_svg_numbers_are_short() -> None:
    root = ET.fromstring(to_svg(drawing()))
    paths = " ".join(e.get("d", "") for e in root.iter(f"{SVG}path"))
    assert re.search(r"\d\.\d", paths)
    assert not re.search(r"\d\.\d{5,}", paths)


def ids(svg: str) -> list[str]:
    return re.findall(r'\bid="([^"]+)"', svg)


def test_ids_never_clash() -> None:
    other = figure()[0]
    other.axes[0].plot([1, 2], "o-")
    first, second = to_svg(drawing()), to_svg(other)
    for svg in (first, second, prefix_ids(first, "p")):
        assert len(ids(svg)) == len(set(ids(svg))) > 0
        referenced = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg)
        assert referenced
        assert {a or b for a, b in referenced} == set(ids(svg))  # none is missing, none is idle
    assert not set(ids(first)) & set(ids(second))
    assert not set(ids(prefix_ids(first, "a"))) & set(ids(prefix_ids(first, "b")))


def test_a_plain_matplotlib_figure_fits_too() -> None:
    fig = Figure()
    axes = fig.subplots()
    axes.plot([1, 2], label="x")
    legend = axes.legend()
    svg = to_svg(fig)
    assert "#ffffff" not in svg  # neither ground nor legend hides the page
    assert legend.get_frame().get_facecolor()[:3] == (1, 1, 1)  # and the figure is as it was
    assert "stroke:#1f77b4" in svg


def test_images_keep_their_pixels() -> None:
    fig, axes = figure()
    heatmap(axes, np.arange(12.0).reshape(3, 4), bar=False)
    root = ET.fromstring(to_svg(fig))
    (image,) = root.iter(f"{SVG}image")
    assert len(image.get("href", "")) < 400  # 3 x 4 pixels, not a screenful
    assert "pixelated" in image.get("style", "")


def test_only_figures_are_drawn() -> None:
    with pytest.raises(TypeError, match="needs a matplotlib Figure, not Axes"):
        to_svg(Figure().subplots())  # type: ignore[arg-type]


def test_matplotlib_settings_stay() -> None:
    before = dict(rcParams)
    to_svg(drawing())
    assert dict(rcParams) == before


def test_no_pyplot() -> None:
    program = (
        "import sys; from assay.lab.figures import figure, to_svg; fig, axes = figure(); axes.plot([1, 2]); "
        "to_svg(fig); assert 'matplotlib.pyplot' not in sys.modules, 'pyplot was imported'"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_curves_draw_mean_and_band() -> None:
    y = np.array([[0.0, 1.0, 4.0], [2.0, 3.0, 4.0], [4.0, 2.0, 4.0]])
    for band, half in (
        ("sd", y.std(0, ddof=1)),
        ("interval", [(b - a) / 2 for a, b in map(statistics.t_interval, y.T)]),
    ):
        _, axes = figure()
        curves(axes, [0, 10, 20], y, band=band)
        np.testing.assert_allclose(axes.lines[0].get_ydata(), [2, 2, 4])
        corners = axes.collections[0].get_paths()[0].vertices
        for x, mean, reach in zip([0, 10, 20], [2, 2, 4], half, strict=True):
            at = corners[np.isclose(corners[:, 0], x), 1]
            assert at.min() == pytest.approx(mean - reach)
            assert at.max() == pytest.approx(mean + reach)


def test_curves_of_nothing_and_of_one_seed() -> None:
    _, axes = figure()
    curves(axes, np.empty(0), np.empty((0, 0)))
    assert not axes.lines
    curves(axes, [0, 1], [[1.0, 2.0]])
    assert len(axes.lines) == 1
    assert not axes.collections


def test_bars_draw_what_verdicts_use() -> None:
    values = [[1.0, 2.0, 4.0], [0.5, 0.7, 0.6]]
    _, axes = figure()
    bars(axes, ["a", "b"], values)
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([7 / 3, 0.6])
    drawn = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 2]
    for line, value in zip(drawn, values, strict=True):
        np.testing.assert_allclose(line, statistics.t_interval(value))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]


def test_bars_side_by_side_or_down() -> None:
    _, axes = figure()
    bars(axes, ["a", "b"], [1.0, 2.0], [(0.5, 1.5), None], horizontal=True, colours=COLOURS[:2])
    assert [bar.get_width() for bar in axes.patches] == [1.0, 2.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda axes: bars(axes, ["a"], [1.0, 2.0]), "1 labels for 2 values"),
        (lambda axes: bars(axes, ["a"], [1.0], [(0, 1), (0, 1)]), "1 labels for 2 intervals"),
        (lambda axes: bars(axes, ["a"], [1.0], colours=["red", "blue"]), "1 labels for 2 colours"),
        (lambda axes: curves(axes, [0, 1], [[1.0, 2.0, 3.0]]), r"values \(1, 3\) do not fit 2 steps"),
        (lambda axes: curves(axes, [0], [[1.0]], band="ci"), "unknown band 'ci'"),
        (lambda axes: heatmap(axes, [1.0, 2.0]), "needs a matrix"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(figure()[1])


def test_heatmap_writes_values_that_can_be_read() -> None:
    fig, axes = figure()
    heatmap(axes, [[0.0, 1.0]], annotate=".1f", rows=["r"], cols=["c", "d"], label="share")
    assert [text.get_text() for text in axes.texts] == ["0.0", "1.0"]
    assert [text.get_color() for text in axes.texts] == [
        "white",
        "#111111",
    ]  # viridis: dark below, bright above
    assert "share" in to_svg(fig)


@pytest.mark.parametrize(
    ("value", "like", "text"),
    [
        (0.5123, None, "0.512"),
        (0.5123, 0.1, "0.51"),
        (0.9988, 0.0004, "0.9988"),
        (-0.77, 0.49, "−0.77"),
        (2298.4, 48, "2\u202f298"),
        (0.0, None, "0"),
        (-0.0001, 0.2, "0.00"),
        (100.0, None, "100"),
        (0.0625, None, "0.0625"),
        (1e-5, None, "1e−5"),
        (1.5e7, None, "1.5e7"),
        (None, None, "–"),
        (float("nan"), None, "–"),
        (float("inf"), None, "∞"),
        (float("-inf"), None, "−∞"),
    ],
)
def test_number(value: float | None, like: float | None, text: str) -> None:
    assert number(value, like) == text


@given(st.floats(1e-9, 1e9) | st.floats(-1e9, -1e-9))
def test_number_keeps_three_digits(value: float) -> None:
    read = float(number(value).replace("−", "-").replace("\u202f", ""))
    assert read == pytest.approx(value, rel=0.0051)


@given(st.floats(-1e5, 1e5), st.floats(1e-3, 1e3))
def test_number_is_as_fine_as_its_interval(value: float, half: float) -> None:
    read = float(number(value, half).replace("−", "-").replace("\u202f", ""))
    assert abs(read - value) <= max(0.11 * half, 0.00051 * abs(value))


def test_thresholds_read_as_written() -> None:
    assert [plain(x) for x in (0.3, -1.25, 1.0, None)] == ["0.3", "−1.25", "1", "–"]


def test_lines_of_a_decision() -> None:
    assert lines(Decision("supported", 0.5, (0.4, 0.6), 0.3, 0.0, 0.0)) == (0.0, 0.3)
    margin = Decision("supported", 0.0, (-0.1, 0.1), 0.2, 0.2, 0.2, smaller=True, level=0.9)
    assert is_equivalence(margin)
    assert lines(margin) == (-0.2, 0.2)


def test_verdict_figure_tells_every_claim() -> None:
    decisions = (
        Decision("supported", 0.5, (0.4, 0.6), 0.3, 0.0, 0.0),
        Decision("refuted", -50.0, (-60.0, -40.0), 30.0, 0.0, 0.0),
        Decision("inconclusive", 1.0, (1.0, 1.0), 1.0, 1.0, 1.0),
        Decision("not decided", reason="arm 'x' was not run"),
    )
    svg = to_svg(verdict_figure([Verdict(f"claim-{i}", "It is.", "", d) for i, d in enumerate(decisions)]))
    for words in (
        "claim-0",
        "claim-3",
        "supported",
        "refuted",
        "not decided",
        "0.50 [0.40, 0.60]",
        "−50 [−60, −40]",
    ):
        assert words in svg
    assert "no claims" in to_svg(verdict_figure([]))
