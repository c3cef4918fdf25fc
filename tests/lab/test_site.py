"""The site: what its pages say, that they hold together, and that a real browser shows them as meant."""

import json
import re
import shutil
import wave
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from assay.lab import (
    All,
    AnyOf,
    Arm,
    Claim,
    Decision,
    Difference,
    Equivalence,
    InputError,
    Level,
    Paper,
    Question,
    Ratio,
    Results,
    Statistic,
    Study,
    Trend,
    TrialResult,
)
from assay.lab.evidence import Evidence, PublishedFigure
from assay.lab.figures import curves, figure, to_svg, verdict_figure
from assay.lab.site import Entry, build, examples, intervals, markdown, views

TEXT = r"""# The headline, which the page has already

Some text with $x_i < y$ and *emphasis*, a raw <script>alert(1)</script> and "quotes". It costs 5$ or 10$.

$$\hat{\theta} = \arg\max_\theta \; \mathbb{E}_{x \sim p}\left[ \sum_{i=1}^{n} \log p_\theta(x_i) \right]$$

## Mechanism

$$\begin{aligned} A &= \begin{bmatrix} 1 & 0 \\ 0 & 1 \end{bmatrix} \\ &= \frac{a}{b} \end{aligned}$$

### Smaller

| paper | here |
| --- | --- |
| $10^6$ steps | 800 |

```python
from assay import run  # a comment
```

A very long word: Donaudampfschifffahrtselektrizitaetenhauptbetriebswerkbauunterbeamtengesellschaft_of_the_second_kind.

| a | wide | table | with | many | columns | that | cannot | fit | on | a | phone | at | all |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| aaaaaaaa | bbbbbbbb | cccccccc | dddddddd | eeeeeeee | ffffffff | g | h | i | j | k | l | m | n |
"""


@dataclass(frozen=True)
class Config:
    steps: int = 1


def make_study(
    id: str, number: int, domain: str, arms: tuple[str | Arm, ...], claims: tuple[Claim, ...], **more: Any
) -> Study:
    study = Study(
        id=id,
        number=number,
        domain=domain,
        title=f"{id.capitalize()}: a headline",
        paper=Paper(f"The {id} paper & its <title>", "Doe et al.", 2018, "1801.00001", "ICML 2018"),
        arms=arms,
        config=Config(),
        claims=claims,
        **more,
    )
    study.trial(lambda run, arm, config: {})
    return study


def make_results(study: Study, table: dict[str, Callable[[int], dict[str, float]]]) -> Results:
    trials = [
        TrialResult(arm, seed, "ok", metrics(seed), seconds=2.5, peak_memory=300.0)
        for arm, metrics in table.items()
        for seed in study.seeds_of(arm)
    ]
    return Results(study, "laptop", study.config, trials)


def around(centre: float, spread: float) -> Callable[[int], float]:
    """The same few deviations for every seed count: results with known means."""
    return lambda seed: centre + spread * (-1, 1, -0.5, 0.5, 0)[seed % 5]


def vision() -> tuple[Study, Results]:
    x = {"good": around(0.9, 0.01), "bad": around(0.4, 0.02), "same": around(0.9, 0.011)}
    claims = (
        Claim(
            "better",
            "Good beats bad <script>alert(1)</script> & all.",
            "0.9 against -0.4",
            Difference("score", arm="good", versus="bad", at_least=0.3),
            requires=Level("score", arm="bad", at_least=0.3),
        ),
        Claim(
            "reversed", "Bad beats good.", "none", Difference("score", arm="bad", versus="good", at_least=0.3)
        ),
        Claim(
            "smaller-than-counts",
            "Good is far better.",
            "0.9",
            Difference("score", arm="good", versus="bad", at_least=0.7),
        ),
        Claim(
            "a-tenth",
            "It needs half the steps.",
            "“10 times faster”",
            Ratio("score", arm="bad", versus="good", at_most=0.5),
        ),
        Claim(
            "the-same",
            "It makes no difference.",
            "0.04 % $\\pm$ 0.1",
            Equivalence("score", arm="good", versus="same", within=0.01),
        ),
        Claim(
            "precondition",
            "Needs what fails.",
            "1",
            Difference("score", arm="good", versus="bad", at_least=0.3),
            requires=Level("score", arm="bad", at_least=0.8),
        ),
        Claim("failed", "Rests on a failed arm.", "1", Level("score", arm="broken", at_least=0.8)),
        Claim("in-order", "It grows.", "1", Trend("score", arms=("bad", "same", "good"), at_least=0.1)),
    )
    study = make_study(
        "vision-study",
        39,
        "vision",
        (
            Arm("good", "has `more` channels", seeds=5),
            "bad",
            "same",
            "broken",
            Arm("extra/raw", seeds=3, extra=True),
        ),
        claims,
        profiles={"demo": {}, "paper": {"steps": 9}},
        needs=("mnist",),
        mechanisms={"coordinate channels": "assay.nn.coords.AddCoords", "both": ("assay.run", "arm:good")},
        questions=(Question("raw", "Does raw input matter?", ("extra/raw",), "Yes, by **four** times."),),
        usage="from assay.nn import CoordConv2d\n\nlayer = CoordConv2d(3, 16, kernel_size=3)  # <two> more channels\n",
    )
    results = make_results(
        study,
        {arm: lambda s, f=f: {"score": f(s), "a_second_metric_with_a_long_name": 1e5} for arm, f in x.items()}
        | {"extra/raw": lambda s: {"score": 0.1 * s}},
    )
    broken = TrialResult("broken", 0, "failed", error="ValueError: no <luck>")
    return study, Results(study, "laptop", study.config, (*results.trials, broken))


def games() -> tuple[Study, Results]:
    claims = (
        Claim(
            "reciprocity",
            "Pairs cooperate by reciprocity.",
            "-1.06 against -1.98 (table)",
            All(
                Level("value", arm="lola", at_least=-1.25),
                Level("value", arm="nl", at_most=-1.9),
                AnyOf(
                    Difference("tft", arm="lola", versus="nl", at_least=0.25),
                    Level("tft", arm="lola", at_least=2.0),
                ),
            ),
        ),
        Claim(
            "eight-of-ten",
            "Most pairs agree.",
            "8 of 10",
            Statistic(
                lambda t: float(np.median(t["lola"]["tft"])), arms=("lola",), at_least=0.5, name="median tft"
            ),
        ),
        Claim(
            "far-out",
            "A few pairs are far out.",
            "none",
            Difference("wild", arm="lola", versus="nl", at_least=0.1),
        ),
    )
    study = make_study("game-study", 61, "games", ("nl", "lola"), claims, seeds=256)
    results = make_results(
        study,
        {
            "nl": lambda s: {"value": -2.0, "tft": 0.5, "wild": 0.0},
            "lola": lambda s: {
                "value": -1.0 - 0.001 * s,
                "tft": 0.5 + s % 2 / 2,
                "wild": 1e4 if s == 9 else s % 7 - 3.0,
            },
        },
    )
    return study, results


def entries(folder: Path) -> list[Entry]:
    """Studies with every outcome: fresh, stale, missing and not importable."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    seen, played = vision()[1], games()[1]
    fig, axes = figure()
    for k in range(3):
        curves(axes, np.arange(30), rng.normal(size=(4, 30)).cumsum(1), f"arm {k}")
    axes.legend()
    (folder / "curves.svg").write_text(to_svg(fig), encoding="utf-8")
    shutil.copy(folder / "curves.svg", folder / "more.svg")  # two equal figures: their ids must not clash
    (folder / "raw-input.svg").write_text(to_svg(verdict_figure(seen.verdicts)), encoding="utf-8")
    with wave.open(str(folder / "sample one.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))
    (folder / "chorale.mid").write_bytes(b"MThd")
    (folder / "evidence.json").write_text("{}", encoding="utf-8")

    def evidence(results: Results, **more: Any) -> Evidence:
        return Evidence(
            results=results,
            published="2026-02-14",
            commit="0123456789+",
            seconds=263.0,
            core_seconds=500.0,
            extra_seconds=40.0,
            workers=2,
            fingerprints={},
            folder=folder,
            environment={"python": "3.11.2", "torch": "2.6.0", "cpu": "A & B", "cores": 2},
            **more,
        )

    figures = (
        PublishedFigure("curves.svg", "Loss while training, <mean> and interval"),
        PublishedFigure("more.svg", "The same again"),
        PublishedFigure("raw-input.svg", "Raw input", "raw"),
    )
    absent = make_study(
        "absent-study",
        57,
        "language",
        ("a", "b"),
        (
            Claim(
                "both-sides", "Both sides help.", "84.6", Difference("x", arm="a", versus="b", at_least=0.1)
            ),
        ),
    )
    return [
        Entry(
            61,
            "game-study",
            "games",
            "Learners that see each other learn",
            played.study,
            evidence(played, figures=(), media=()),
            "stale",
            "code of arm 'lola' changed",
            TEXT,
        ),
        Entry(
            39,
            "vision-study",
            "vision",
            "It's a convolution",
            seen.study,
            evidence(seen, figures=figures, media=("sample one.wav", "chorale.mid")),
            "fresh",
            "",
            TEXT,
        ),
        Entry(
            57,
            "absent-study",
            "language",
            "Masked words",
            absent,
            None,
            "missing",
            "no evidence: assay publish absent-study",
            "Text.",
        ),
        Entry(
            0,
            "odd-study",
            "rl",
            "Cannot be imported",
            None,
            None,
            "missing",
            "the package music21 is not installed",
            "",
        ),
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    return build(entries(folder / "evidence"), folder / "out").parent


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


# -- the pages as documents ------------------------------------------------------------------------------------------

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


@dataclass
class Document(HTMLParser):
    """A page taken apart: ids, references, headings, text; complains about tags that do not match."""

    path: Path
    open: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    assets: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    headings: list[int] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open, f"{self.path.name}: never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("p", "td", "th", "li", "div", "tr", "h3", "dt", "dd", "span"):
            self.text.append(" ")
        self.tags.append((tag, values))
        if values.get("id"):
            self.ids.append(values["id"] or "")
        if tag == "a":
            self.links.append(values.get("href") or "")
        elif tag in ("link", "use", "image"):
            self.assets.append(values.get("href") or "")
        elif "src" in values:
            self.assets.append(values["src"] or "")
        for name in ("aria-labelledby", "for"):
            if values.get(name):
                self.labels.append(values[name] or "")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"{self.path.name}: </{tag}> closes nothing"
        assert self.open[-1] == tag, (
            f"{self.path.name}: </{tag}> in <{self.open[-1]}>, line {self.getpos()[0]}"
        )
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "script" not in self.open:
            self.text.append(data)


@pytest.fixture(scope="module")
def documents(site: Path) -> dict[str, Document]:
    return {str(path.relative_to(site)): Document(path) for path in pages(site)}


def test_a_page_for_every_study(documents: dict[str, Document]) -> None:
    names = ("absent-study", "game-study", "odd-study", "vision-study")
    assert set(documents) == {"index.html", "verdicts.html", *(f"studies/{name}.html" for name in names)}


def test_ids_are_unique_and_labels_exist(documents: dict[str, Document]) -> None:
    for name, page in documents.items():
        assert len(page.ids) == len(set(page.ids)), name
        assert set(page.labels) <= set(page.ids), name


def test_every_link_and_asset_resolves(site: Path, documents: dict[str, Document]) -> None:
    checked = 0
    for name, page in documents.items():
        for target in page.links + page.assets:
            parts = urlsplit(target)
            if parts.scheme == "data":
                continue
            if parts.scheme:
                assert target in page.links, f"{name}: {target} would leave the folder"
                assert parts.scheme == "https"
                continue
            path = (site / name).parent / unquote(parts.path) if parts.path else site / name
            assert path.resolve().is_file(), f"{name}: {target}"
            if parts.fragment and "=" not in parts.fragment:
                assert parts.fragment in documents[str(path.resolve().relative_to(site))].ids, (
                    f"{name}: {target}"
                )
            checked += 1
    assert checked > 100


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for path in (*pages(site), *(site / "assets").iterdir()):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?:src|srcset|poster|data)\s*=\s*[\"']?(?:https?:)?//", text), path.name
        assert not re.search(r"@import|url\(\s*[\"']?(?:https?:)?//|fetch\(|XMLHttpRequest|import\(", text), (
            path.name
        )


def test_headings_skip_no_level(documents: dict[str, Document]) -> None:
    for name, page in documents.items():
        assert page.headings[0] == 1, name
        assert page.headings.count(1) == 1, name
        for before, after in zip(page.headings, page.headings[1:], strict=False):
            assert after <= before + 1, f"{name}: h{before} then h{after}"


def test_text_is_escaped(site: Path, documents: dict[str, Document]) -> None:
    for name, page in documents.items():
        assert "alert(1)" not in "".join(
            re.findall(r"<script[^>]*>.*?</script>", (site / name).read_text(encoding="utf-8"), re.DOTALL)
        )
        assert not [
            attribute for _, values in page.tags for attribute in values if attribute.startswith("on")
        ]
    vision = "".join(documents["studies/vision-study.html"].text)
    for words in (
        "<script>alert(1)</script> & all",
        "its <title>",
        "<mean> and interval",
        "# <two> more channels",
        "<luck>",
    ):
        assert words in vision


def test_the_same_input_gives_the_same_bytes(site: Path, tmp_path: Path) -> None:
    again = build(entries(tmp_path / "evidence"), tmp_path / "out").parent
    for path in pages(site):
        assert path.read_bytes() == (again / path.relative_to(site)).read_bytes()


def test_the_page_says_what_the_verdicts_are(documents: dict[str, Document], site: Path) -> None:
    words = " ".join("".join(documents["studies/vision-study.html"].text).split())
    results = vision()[1]
    outcomes = {v.claim: v.outcome for v in results.verdicts}
    assert outcomes == {
        "better": "supported",
        "reversed": "refuted",
        "smaller-than-counts": "inconclusive",
        "a-tenth": "supported",
        "the-same": "supported",
        "precondition": "inconclusive",
        "failed": "not decided",
        "in-order": "supported",
    }
    index = site.joinpath("index.html").read_text(encoding="utf-8")
    for claim, outcome in outcomes.items():
        assert f"{outcome.capitalize()} {claim} " in words
        assert re.search(
            rf'data-outcome="{outcome}"><a href="studies/vision-study.html#claim-{claim}"', index
        )
    for part in (
        "0.500 0.490 to 0.510",  # the difference of "better", rounded by its interval
        "Mean difference over 5 paired seeds, 95 % interval (Student’s t)",
        "p = 0.0625, the least that 5 seeds can give",
        "The mean reaches 0.3, and the whole interval lies above 0.",
        "The whole interval lies below 0. Reversed: the effect goes the other way.",
        "but the mean falls short of 0.7: an effect, smaller than counts.",
        "Mean ratio over 5 paired seeds",
        "Precondition refuted: score(bad) ≥ 0.8.",
        "The whole interval lies inside the margin of ±0.01.",
        "Arm 'broken', seed 0 failed: ValueError: no <luck>.",
        "adjusted for 7 claims",
        "0.9 against −0.4",
        "It’s a convolution",
        "Evidence is fresh published 2026-02-14 commit 0123456789+",
        "from start to end 4 min 23 s",
        "pip install mlxtend",
        "assay run vision-study --extras",
        "Does raw input matter? Yes, by four times.",
        "Peak memory 300 MiB",
    ):
        assert part.lower() in words.lower(), part


def test_parts_of_a_combined_test_are_shown(documents: dict[str, Document]) -> None:
    page = documents["studies/game-study.html"]
    words = " ".join("".join(page.text).split())
    assert "3 of 3 parts supported Supported if every part is, refuted if one part is" in words
    assert "Combines any of the tests below." in words
    depths = [
        values["class"] for tag, values in page.tags if tag == "li" and "part " in (values.get("class") or "")
    ]
    assert depths == ["part depth-1", "part depth-1", "part depth-1", "part depth-2", "part depth-2"]
    assert "Statistic over 256 seeds, 95 % interval (bootstrap)" in words
    assert "1 seed lies outside" in words  # the one at 10,000
    assert "value(lola) ≥ −1.25" in words


def test_studies_without_evidence_are_there(documents: dict[str, Document]) -> None:
    absent = " ".join("".join(documents["studies/absent-study.html"].text).split())
    assert "No evidence published" in absent
    assert "Not decided both-sides" in absent
    assert "assay run absent-study" in absent
    odd = "".join(documents["studies/odd-study.html"].text)
    assert "The package music21 is not installed." in odd


def test_arms_table_tells_failures_and_groups(documents: dict[str, Document]) -> None:
    words = " ".join("".join(documents["studies/vision-study.html"].text).split())
    assert "broken 0 of 1" in words
    assert "good has more channels 5 0.900 ± 0.008 100 000 2.5 s" in words
    assert "1 trial failed" in words


def test_formulas_are_mathml(site: Path) -> None:
    text = (site / "studies/vision-study.html").read_text(encoding="utf-8")
    formulas = re.findall(r"<math.*?</math>", text)
    assert len(formulas) == 5  # one stands in a claim
    for formula in formulas:
        root = ET.fromstring(formula)
        assert "\\" not in "".join(root.itertext())
        assert "$" not in "".join(root.itertext())
    assert "5$ or 10$" in text


def test_json_of_all_verdicts(site: Path) -> None:
    records = json.loads((site / "verdicts.json").read_text(encoding="utf-8"))
    assert records["vision-study"][0]["verdict"] == "supported"
    assert records["absent-study"][0]["verdict"] == "not decided"


def test_build_replaces_a_site_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    some = [Entry(i, f"study-{i}", "games", "T", None, None, "missing", "no package") for i in (1, 2)]
    build(some, out)
    build(some[:1], out)
    assert [path.name for path in (out / "studies").iterdir()] == ["study-1.html"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(InputError, match=r"other holds files that are not a site's"):
        build(some, other)
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="is a file"):
        build(some, other / "thesis.tex")


def test_a_site_of_nothing(tmp_path: Path) -> None:
    index = build([], tmp_path / "out")
    assert "No study is installed." in "".join(Document(index).text)


def test_a_bad_formula_names_study_and_formula(tmp_path: Path) -> None:
    study = games()[0]
    entry = Entry(1, "game-study", "games", "T", study, None, "missing", "", r"Here: $\frobnicate{x}$.")
    with pytest.raises(ValueError, match=r"study game-study: no MathML .*frobnicate"):
        build([entry], tmp_path / "out")
    assert not (tmp_path / "out").exists()  # nothing is half written


# -- the parts -------------------------------------------------------------------------------------------------------


def strip_of(decision: Decision, log: bool = False) -> ET.Element:
    return ET.fromstring(intervals.strip(decision, log))


def decision(effects: list[float], **more: Any) -> Decision:
    from assay.lab import statistics
    from assay.lab.verdict import decide

    about = {"threshold": 0.3, "beyond": 0.0, "refuted": 0.0, "smaller": False} | more
    seeds = tuple(range(len(effects)))
    return decide(
        float(np.mean(effects)),
        statistics.mean_interval(effects),
        effects=tuple(effects),
        seeds=seeds,
        n=len(seeds),
        **about,
    )


def places(root: ET.Element, kind: str) -> list[float]:
    return [
        float((e.get("cx") or e.get("x1") or e.get("x") or "").rstrip("%"))
        for e in root.iter()
        if (e.get("class") or "").split(" ")[0] == kind and e.tag != "text"
    ]


def test_strip_keeps_the_order_of_its_numbers() -> None:
    root = strip_of(decision([0.5, 0.2, 0.45, 0.6]))
    zero, threshold, effect = (
        places(root, "beyond")[0],
        places(root, "threshold")[0],
        places(root, "effect")[0],
    )
    seeds = places(root, "seed")
    assert zero < threshold < effect
    assert len(seeds) == 4
    assert seeds == sorted(seeds)
    # A linear scale: the threshold divides the way from 0 to the mean as 0.3 divides 0.4375.
    assert (threshold - zero) / (effect - zero) == pytest.approx(0.3 / 0.4375, abs=2e-3)
    assert (
        root.get("aria-label")
        == "effect 0.44, 95 % interval 0.17 to 0.71, threshold at least 0.3, 4 seeds: supported"
    )


def test_strip_of_ratios_is_logarithmic() -> None:
    d = decision([0.25, 0.25, 0.25], threshold=0.5, beyond=1.0, refuted=1.0, smaller=True)
    root = strip_of(d, log=True)
    effect, threshold, one = (
        places(root, "effect")[0],
        places(root, "threshold")[0],
        places(root, "beyond")[0],
    )
    assert threshold - effect == pytest.approx(one - threshold, abs=0.05)


def test_strip_of_an_equivalence_has_both_margins() -> None:
    d = Decision("supported", 0.0, (-0.1, 0.1), 0.2, 0.2, 0.2, smaller=True, level=0.9, n=5)
    root = strip_of(d)
    low, high = places(root, "threshold")
    assert low + high == pytest.approx(100, abs=0.1)
    assert "margin ±0.2" in "".join(root.itertext())


def test_many_seeds_become_a_histogram() -> None:
    root = strip_of(decision([0.01 * i for i in range(41)]))
    assert all(e.tag == "rect" for e in root.iter() if e.get("class") == "seed")
    assert not list(root.iter("title"))


def test_far_seeds_are_counted_not_hidden() -> None:
    effects = [0.1, 0.11, 0.12, 0.13] * 8 + [1e4, -1e4]
    d = Decision("inconclusive", 0.12, (0.1, 0.13), 0.3, 0.0, 0.0, n=34, effects=tuple(effects))
    root = strip_of(d)
    assert "2 seeds lie outside" in "".join(root.itertext())
    assert len(places(root, "seed")) == 32


def test_labels_of_a_strip_do_not_overlap_on_a_phone() -> None:
    for threshold, beyond, refuted, smaller in (
        (0.3, 0.29, 0.28, False),
        (0.5, 0.0, -0.01, False),
        (0.1, 0.11, 0.12, True),
        (0.9, 0.89, 0.5, False),
    ):
        d = decision([0.1, 0.9], threshold=threshold, beyond=beyond, refuted=refuted, smaller=smaller)
        boxes = []
        for text in strip_of(d).iter("text"):
            if text.get("class") == "tick":
                continue
            width = len(text.text or "") * 6.5 + 5
            x = float(text.get("x", "").rstrip("%")) * 3
            left = x - width if text.get("text-anchor") == "end" else x
            boxes.append((left, left + width, float(text.get("y", ""))))
        assert len(boxes) == 3
        for i, a in enumerate(boxes):
            assert a[0] > -15, "runs out on the left"
            assert a[1] < 315, "runs out on the right"
            for b in boxes[:i]:
                assert a[2] != b[2] or a[1] <= b[0] or b[1] <= a[0]


@pytest.mark.parametrize(
    "d",
    [
        Decision("not decided", reason="no evidence"),
        Decision("not decided", 0.5, None, 0.3, 0.0, 0.0, n=1, effects=(0.5,), seeds=(0,)),
        Decision("not decided", float("nan"), (float("nan"), float("nan")), 0.3, 0.0, 0.0),
        Decision("supported", 1.0, (1.0, 1.0), 1.0, 1.0, 1.0, n=3, effects=(1.0, 1.0, 1.0)),
        Decision("supported", 0.0, (0.0, 0.0), 0.0, 0.0, 0.0, n=2, effects=(0.0, 0.0)),
        Decision("supported", 1e-9, (1e-9, 2e-9), 1e-10, 0.0, 0.0),
        Decision("refuted", -1e12, (-2e12, -1e11), 1e3, 0.0, 0.0),
    ],
)
def test_any_decision_can_be_drawn(d: Decision) -> None:
    for log in (False, True):
        for markup in (intervals.strip(d, log), intervals.spark(d, log)):
            for element in ET.fromstring(markup or "<svg/>").iter():
                for name in ("x", "x1", "x2", "cx", "width"):
                    if (value := element.get(name, "0")).endswith("%"):
                        assert -0.01 <= float(value.rstrip("%")) <= 100


@pytest.mark.parametrize(
    ("d", "words"),
    [
        (decision([0.4, 0.5, 0.6]), "The mean reaches 0.3, and the whole interval lies above 0."),
        (decision([0.4, 0.5, 0.6], beyond=0.3), "The mean reaches 0.3, but the interval does not clear 0.3."),
        (decision([0.45, 0.5, 0.55], beyond=0.3, refuted=0.1), "The whole interval lies above 0.3."),
        (
            decision([0.1, 0.12, 0.11]),
            "The whole interval lies above 0, but the mean falls short of 0.3: an effect, smaller than counts.",
        ),
        (
            decision([-0.1, 0.3, 0.1]),
            "The mean falls short of 0.3, and the interval neither clears 0 nor refutes.",
        ),
        (decision([-0.1, -0.12, -0.11]), "The whole interval lies below 0."),
        (
            decision([0.1, 0.12, 0.11], threshold=0.2, beyond=1.0, refuted=1.0, smaller=True),
            "The mean stays within 0.2, and the whole interval lies below 1.",
        ),
        (
            decision([2.0, 2.1], threshold=0.2, beyond=1.0, refuted=1.0, smaller=True),
            "The whole interval lies above 1.",
        ),
        (
            decision([1.0, 1.0], threshold=1.0, beyond=1.0, refuted=1.0),
            "The mean reaches 1, and every seed gives the same.",
        ),
        (Decision("not decided", reason="x"), ""),
    ],
)
def test_because(d: Decision, words: str) -> None:
    assert views.because(d) == words


def test_examples_of_the_explanation_are_what_they_are_called() -> None:
    found = {name: example.outcome for name, example in examples.outcomes().items()}
    assert found == {
        "supported": "supported",
        "refuted": "refuted",
        "small": "inconclusive",
        "crossing": "inconclusive",
    }
    assert examples.reading().p == "0.0625"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.004, "< 0.01 s"),
        (0.44, "0.44 s"),
        (45.2, "45 s"),
        (200, "3 min 20 s"),
        (1234, "21 min"),
        (7500, "2 h 5 min"),
        (7200, "2 h"),
    ],
)
def test_duration(seconds: float, words: str) -> None:
    assert views.duration(seconds) == words


def math(tex: str, block: bool = True) -> ET.Element:
    return ET.fromstring(markdown.math(tex, block))


def shape(element: ET.Element) -> str:
    """`msub(mi:x,mn:1)`: a formula's structure in one line, rows left out."""
    inside = ",".join(map(shape, element))
    if element.tag in ("math", "mrow"):
        return inside
    return f"{element.tag}({inside})" if len(element) else f"{element.tag}:{element.text or ''}"


@pytest.mark.parametrize(
    ("tex", "block", "expected"),
    [
        (r"\frac{a}{b}", True, "mfrac(mi:a,mi:b)"),
        (r"\hat{\theta}", True, "mover(mi:θ,mo:^)"),
        (r"\mathbb{R}", True, "mi:ℝ"),
        (r"\sum_{i=1}^{n} x_i", True, "munderover(mo:∑,mi:i,mo:=,mn:1,mi:n),msub(mi:x,mi:i)"),
        (r"\sum_{i=1}^{n} x_i", False, "msubsup(mo:∑,mi:i,mo:=,mn:1,mi:n),msub(mi:x,mi:i)"),
        (r"\max_\theta f", True, "munder(mi:max,mi:θ),mspace:,mi:f"),
        (r"\arg\max_x", True, "munder(mi:arg\u2009max,mi:x)"),
        (r"\begin{bmatrix} 1 & 2 \end{bmatrix}", True, "mo:[,mtable(mtr(mtd(mn:1),mtd(mn:2))),mo:]"),
        (
            r"\begin{aligned} a &= b \\ &= c \end{aligned}",
            True,
            "mtable(mtr(mtd(mi:a),mtd(mi:,mo:=,mi:b)),mtr(mtd:,mtd(mi:,mo:=,mi:c)))",
        ),
        (r"\boldsymbol{\theta}", True, "mi:𝜽"),
        (r"\mathrm{KL}(p \,\|\, q)", True, "mi:KL,mo:(,mi:p,mspace:,mo:‖,mspace:,mi:q,mo:)"),
        (r"x \sim p", True, "mi:x,mo:∼,mi:p"),
        (r"\log p", True, "mi:log,mspace:,mi:p"),
        (r"\text{tft\_state}", True, "mtext:tft_state"),
    ],
)
def test_formulas(tex: str, block: bool, expected: str) -> None:
    assert shape(math(tex, block)) == expected


def test_formulas_where_attributes_matter() -> None:
    assert math(r"\tilde{x}").find("mrow/mover").get("accent") == "true"  # type: ignore[union-attr]
    assert math(r"\Delta x").find("mrow/mi").get("mathvariant") == "normal"  # type: ignore[union-attr]
    assert [e.get("form") for e in math("a = -1").iter("mo")] == [None, "prefix"]
    assert [e.get("form") for e in math("a - 1").iter("mo")] == [None]
    aligned = math(r"\begin{aligned} a &= b \end{aligned}").find("mrow/mtable")
    assert aligned is not None
    assert aligned.get("class") == "aligned"
    assert [cell.get("style") for cell in aligned.iter("mtd")] == ["text-align:right", "text-align:left"]
    assert math("x").get("display") == "block"
    assert math("x", False).get("display") == "inline"


@pytest.mark.parametrize("tex", [r"\frobnicate", r"\frac{", r"\text{a $x$}", r"\begin{tikzpicture}"])
def test_formulas_that_cannot_be_shown_say_so(tex: str) -> None:
    with pytest.raises(ValueError, match="no MathML for"):
        markdown.math(tex)


def test_markdown() -> None:
    page = markdown.page(TEXT)
    assert "The headline" not in page
    assert re.findall(r"<(h\d)>", page) == ["h3", "h4"]
    assert "<script" not in page
    assert '<span class="kn">from</span>' in page
    assert '<div class="scroll" tabindex="0"><table>' in page
    assert "javascript:" not in markdown.page("[x](javascript:alert(1))").replace(
        "[x](javascript:alert(1))", ""
    )
    assert (
        markdown.inline("-1.06 (-0.2), 3-4, `x -1`, _so_ <b>")
        == "−1.06 (−0.2), 3-4, <code>x -1</code>, <em>so</em> &lt;b&gt;"
    )


# -- in a browser ----------------------------------------------------------------------------------------------------

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
browser = pytest.mark.browser


@dataclass
class Browser:
    driver: Any
    site: Path

    def open(self, name: str, *, width: int = 1280, dark: bool = False) -> None:
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.driver.get("about:blank")  # a change of the fragment alone would not load the page anew
        self.driver.get(f"{self.site.as_uri()}/{name}")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def requested(self) -> set[str]:
        """Every address that was asked for since the last call."""
        events = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        return {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}

    def shown(self) -> list[str]:
        """Ids of the studies that the index shows."""
        return self.run(
            "return [...document.querySelectorAll('.study')].filter(e => e.offsetParent)"
            ".map(e => e.querySelector('a').getAttribute('href').slice(8, -5))"
        )


@pytest.fixture(scope="module")
def chromium(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs the packages chromium and chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the package selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield Browser(driver, site)
    finally:
        driver.quit()


@browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_load_without_complaint_or_network(chromium: Browser, site: Path, dark: bool) -> None:
    chromium.requested()  # what the browser asked for when it started
    for path in pages(site):
        chromium.open(str(path.relative_to(site)), dark=dark)
        assert chromium.driver.get_log("browser") == [], path.name
        asked = {
            address for address in chromium.requested() if not address.startswith("chrome:")
        }  # its own first tab
        assert {urlsplit(address).scheme for address in asked} <= {"file", "data"}, path.name
        assert {Path(urlsplit(a).path).name for a in asked if a.startswith("file:")} == {
            path.name,
            "site.css",
            "site.js",
        }
        assert chromium.run("return document.title")


@browser
@pytest.mark.parametrize("width", [320, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_scrolls_sideways_on_a_phone(chromium: Browser, site: Path, width: int, dark: bool) -> None:
    for path in pages(site):
        chromium.open(str(path.relative_to(site)), width=width, dark=dark)
        assert chromium.run("return document.scrollingElement.scrollWidth") <= width, path.name
        # Nothing is cut off either: what is wider stands in a box that scrolls.
        cut = chromium.run(
            """return [...document.querySelectorAll('main *')].filter(e => {
                 const box = e.getBoundingClientRect();
                 return box.right > innerWidth + 1 && box.width
                   && !e.closest('.scroll, pre, .formula, .unseen, .words, svg');
               }).map(e => e.outerHTML.slice(0, 90))"""
        )
        assert cut == [], path.name
    chromium.open("studies/vision-study.html", width=width)
    assert chromium.run(
        "return [...document.querySelectorAll('.scroll')].some(e => e.scrollWidth > e.clientWidth + 20)"
    ), "the wide table should scroll in its own box"


CONTRAST = """
const canvas = Object.assign(document.createElement('canvas'), {width: 1, height: 1});
const context = canvas.getContext('2d', {willReadFrequently: true});
const read = (colour) => {
  context.clearRect(0, 0, 1, 1); context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
};
const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
const ground = (e) => {
  const layers = [];
  for (; e && layers.at(-1)?.[3] !== 1; e = e.parentElement) layers.push(read(getComputedStyle(e).backgroundColor));
  return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
};
const linear = (v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
const light = (c) => [.2126, .7152, .0722].reduce((sum, share, i) => sum + share * linear(c[i] / 255), 0);
const bad = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let seen = 0;
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement;
  const words = walker.currentNode.data.trim();
  if (!words || !e.getClientRects().length || e.closest('.plot, script, noscript, title, .unseen')) continue;
  const style = getComputedStyle(e), below = ground(e);
  const ink = over(read(e instanceof SVGElement ? style.fill : style.color), below);
  const [a, b] = [light(ink), light(below)].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
  seen += 1;
  if (ratio < 4.5) bad.push(`${ratio.toFixed(2)} ${e.tagName}.${e.getAttribute('class')}: ${words.slice(0, 30)}`);
}
return [seen, bad];
"""


@browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_all_text_has_contrast(chromium: Browser, site: Path, dark: bool) -> None:
    for path in pages(site):
        chromium.open(str(path.relative_to(site)), dark=dark)
        seen, bad = chromium.run(CONTRAST)
        assert seen > 15
        assert bad == [], path.name


@browser
def test_formulas_are_laid_out(chromium: Browser) -> None:
    chromium.open("studies/vision-study.html")
    boxes = chromium.run(
        "return [...document.querySelectorAll('math')].map(e => e.getBoundingClientRect())"
        ".map(box => [box.width, box.height])"
    )
    assert len(boxes) == 5
    assert all(width > 5 and height > 5 for width, height in boxes)
    # A fraction is one thing above the other; the limits of a sum in a display stand below and above it.
    assert chromium.run(
        "const [a, b] = document.querySelector('mfrac').children;"
        "return a.getBoundingClientRect().bottom <= b.getBoundingClientRect().top + 1"
    )
    assert chromium.run(
        "const parts = [...document.querySelector('munderover').children];"
        "const [sum, low, high] = parts.map(e => e.getBoundingClientRect());"
        "return low.top >= sum.bottom - 2 && high.bottom <= sum.top + 2"
    )


@browser
def test_figures_follow_the_theme(chromium: Browser) -> None:
    inks = []
    for dark in (False, True):
        chromium.open("studies/vision-study.html", dark=dark)
        assert len(chromium.run("return [...document.querySelectorAll('.plot svg')]")) == 3
        inks.append(chromium.run("return getComputedStyle(document.querySelector('.plot svg text')).fill"))
    assert inks[0] != inks[1]


@browser
def test_the_theme_can_be_chosen_and_is_kept(chromium: Browser) -> None:
    paper = "return getComputedStyle(document.body).backgroundColor"
    chromium.open("index.html")
    light = chromium.run(paper)
    chromium.find("#theme").click()
    dark = chromium.run(paper)
    assert dark != light
    assert chromium.find("#theme").text == "Theme: dark"
    chromium.open("studies/vision-study.html")
    assert chromium.run(paper) == dark
    chromium.find("#theme").click()
    assert chromium.find("#theme").text == "Theme: light"
    chromium.open("index.html", dark=True)
    assert chromium.run(paper) == light
    chromium.find("#theme").click()
    assert chromium.find("#theme").text == "Theme: auto"
    assert chromium.run(paper) == dark
    chromium.open("index.html")
    assert chromium.run(paper) == light


@browser
def test_the_filter_filters(chromium: Browser) -> None:
    chromium.open("index.html")
    everything = ["game-study", "absent-study", "odd-study", "vision-study"]
    assert chromium.shown() == everything
    find = chromium.find("#q")
    find.send_keys("RECIPROCITY doe")  # a claim's word and an author, in any case
    assert chromium.shown() == ["game-study"]
    assert chromium.find("#found").text == "1 study, 3 claims shown"
    assert (
        chromium.run(
            "return [...document.querySelectorAll('section.domain')].filter(e => e.offsetParent).length"
        )
        == 1
    )
    find.send_keys(" nowhere")
    assert chromium.shown() == []
    assert chromium.find("#none").is_displayed()
    chromium.find("#clear").click()
    assert chromium.shown() == everything
    assert not chromium.find("#none").is_displayed()

    chromium.run("document.querySelector('input[value=\"not decided\"]').click()")
    assert chromium.shown() == ["absent-study", "vision-study"]
    assert (
        chromium.run(
            "return [...document.querySelectorAll('[data-outcome]')].filter(e => e.offsetParent)"
            ".map(e => e.dataset.outcome)"
        )
        == ["not decided"] * 2
    )
    chromium.run(
        "const d = document.getElementById('domain'); d.value = 'vision';"
        "d.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    assert chromium.shown() == ["vision-study"]

    address = chromium.driver.current_url
    assert "outcome=not+decided" in address
    chromium.driver.get("about:blank")
    chromium.driver.get(address)  # a link to what was found
    assert chromium.shown() == ["vision-study"]


@browser
def test_domain_links_arrive_filtered(chromium: Browser) -> None:
    chromium.open("studies/game-study.html")
    chromium.find(".crumb a:nth-of-type(2)").click()
    assert chromium.shown() == ["game-study"]


@browser
def test_a_phone_starts_with_marks_and_can_show_words(chromium: Browser) -> None:
    height = "return document.querySelector('#ledger').offsetHeight"
    chromium.open("index.html", width=390)
    short = chromium.run(height)
    chromium.find("#words").click()
    assert chromium.run(height) > short + 100
    chromium.open("index.html", width=1280)
    assert chromium.find("#words").is_selected()


@browser
def test_everything_can_be_reached_by_key_and_has_a_name(chromium: Browser, site: Path) -> None:
    for path in pages(site):
        chromium.open(str(path.relative_to(site)))
        nameless = chromium.run(
            """return [...document.querySelectorAll('a, button, input, select, audio, svg[role=img], img')].filter(e =>
                 !(e.textContent.trim() || e.getAttribute('aria-label') || e.alt || e.labels?.[0]?.textContent.trim())
               ).map(e => e.outerHTML.slice(0, 90))"""
        )
        assert nameless == [], path.name
    chromium.open("index.html")
    chromium.find("body").send_keys("\ue004")  # Tab
    assert chromium.run("return document.activeElement.className") == "skip"
    assert chromium.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"


@browser
def test_pages_read_without_script(chromium: Browser) -> None:
    chromium.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        chromium.open("index.html")
        words = chromium.find("body").text
        assert "Pairs cooperate by reciprocity." in words
        assert not chromium.find("#filter").is_displayed()
        assert not chromium.find("#theme").is_displayed()
    finally:
        chromium.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
