"""What the templates show: studies, claims and tables, with every number already in words."""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from markupsafe import Markup

from assay._extras import packages
from assay.lab import statistics
from assay.lab.claim import AnyOf, Difference, Equivalence, Level, Ratio, Statistic, Test, Trend
from assay.lab.figures import is_equivalence, number, plain, prefix_ids, spread
from assay.lab.results import Results, TrialResult
from assay.lab.site import Entry, Evidence, intervals, markdown
from assay.lab.study import Paper, Study
from assay.lab.verdict import Decision, Verdict

OUTCOMES = ("supported", "refuted", "inconclusive", "not decided")
AUDIO = (".wav", ".mp3", ".ogg", ".flac", ".m4a")
VIDEO = (".mp4", ".webm")
IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")


@dataclass(frozen=True)
class DecisionView:
    """One test: its numbers in words, its picture."""

    outcome: str
    depth: int
    joins: str  # "all of", "any of" or "" for a test that stands alone
    test: str
    kind: str
    effect: str
    interval: str
    facts: str
    p: str
    because: str
    reason: str
    strip: Markup


@dataclass(frozen=True)
class ClaimView:
    """One claim with everything its card says."""

    id: str
    number: int
    statement: Markup
    paper: Markup
    outcome: str
    decisions: tuple[DecisionView, ...]  # the test; for a combined one, it and then its parts
    requires: DecisionView | None
    adjusted: str
    spark: Markup

    @property
    def main(self) -> DecisionView:
        return self.decisions[0]

    @property
    def slug(self) -> str:
        return self.outcome.replace(" ", "-")


@dataclass(frozen=True)
class FigureView:
    title: str
    svg: Markup
    width: int


@dataclass(frozen=True)
class ArmRow:
    name: str
    about: Markup
    seeds: str
    values: tuple[tuple[str, str], ...]  # mean, and what stands smaller beside it
    seconds: str


@dataclass(frozen=True)
class ArmTable:
    caption: str
    metrics: tuple[str, ...]
    rows: tuple[ArmRow, ...]


@dataclass(frozen=True)
class MediaView:
    name: str
    href: str
    kind: str
    size: str


@dataclass(frozen=True)
class QuestionView:
    id: str
    ask: Markup
    answer: Markup
    tables: tuple[ArmTable, ...]
    figures: tuple[FigureView, ...]


@dataclass(frozen=True)
class StudyView:
    """One study's page, and its line in the index."""

    number: int
    id: str
    domain: str
    title: str
    status: str
    reason: str
    paper: Paper | None
    claims: tuple[ClaimView, ...]
    verdicts: tuple[Verdict, ...]
    search: str
    published: str = ""
    commit: str = ""
    profile: str = "laptop"
    text: Markup = field(default_factory=Markup)
    figures: tuple[FigureView, ...] = ()
    tables: tuple[ArmTable, ...] = ()
    failures: tuple[str, ...] = ()
    media: tuple[MediaView, ...] = ()
    questions: tuple[QuestionView, ...] = ()
    extra_tables: tuple[ArmTable, ...] = ()
    mechanisms: tuple[tuple[str, tuple[Markup, ...]], ...] = ()
    cost: tuple[tuple[str, str], ...] = ()
    commands: tuple[tuple[str, str], ...] = ()
    usage: str = ""
    files: tuple[tuple[Path, str], ...] = field(default=())
    record: str = ""

    @property
    def tally(self) -> tuple[tuple[str, int], ...]:
        return tally(claim.outcome for claim in self.claims)


@dataclass(frozen=True)
class DomainView:
    name: str
    studies: tuple[StudyView, ...]

    @property
    def tally(self) -> tuple[tuple[str, int], ...]:
        return tally(claim.outcome for study in self.studies for claim in study.claims)


@dataclass(frozen=True)
class SiteView:
    studies: tuple[StudyView, ...]
    domains: tuple[DomainView, ...]

    @property
    def claims(self) -> int:
        return sum(len(study.claims) for study in self.studies)

    @property
    def tally(self) -> dict[str, int]:
        return dict.fromkeys(OUTCOMES, 0) | dict(
            tally(c.outcome for study in self.studies for c in study.claims)
        )


def site(entries: Sequence[Entry]) -> SiteView:
    """Views of all studies, by number within their domain; domains by their first study's name."""
    studies = [_study(entry) for entry in sorted(entries, key=lambda e: (e.number or 10_000, e.id))]
    names = sorted({study.domain for study in studies}, key=domain_name)
    domains = [DomainView(name, tuple(s for s in studies if s.domain == name)) for name in names]
    return SiteView(tuple(studies), tuple(domains))


def tally(outcomes: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """(outcome, how many) of those that occur."""
    found = list(outcomes)
    return tuple((outcome, found.count(outcome)) for outcome in OUTCOMES if outcome in found)


def count(n: int, noun: str) -> str:
    """`1 claim`, `2 claims`, `2 studies`."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{n:,} {noun if n == 1 else plural}"


def domain_name(domain: str) -> str:
    return {"rl": "Reinforcement learning"}.get(domain, domain.replace("-", " ").capitalize()) or "Other"


def duration(seconds: float) -> str:
    """`0.42 s`, `45 s`, `3 min 20 s`, `2 h 5 min`."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 9.95:
        return (
            f"{seconds:.1f} s" if seconds >= 0.95 else f"{seconds:.2f} s" if seconds >= 0.005 else "< 0.01 s"
        )
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


# -- claims --------------------------------------------------------------------------------------------------------


def claims(study: Study, results: Results | None) -> tuple[tuple[Verdict, ...], tuple[ClaimView, ...]]:
    """Verdicts and cards of a study's claims; all undecided where there are no results."""
    if results is None:
        reason = "no evidence is published yet"
        verdicts = tuple(
            Verdict(c.id, c.statement, c.paper, Decision("not decided", text=c.test.text, reason=reason))
            for c in study.claims
        )
    else:
        verdicts = results.verdicts
    tests = {claim.id: claim for claim in study.claims}
    views = []
    for index, verdict in enumerate(verdicts, 1):
        claim = tests.get(verdict.claim)
        test = claim.test if claim else None
        head, head_test = headline(verdict.decision, test)
        requires = None
        if verdict.requires is not None:
            requires = _decision(verdict.requires, claim.requires if claim else None, 0)
        views.append(
            ClaimView(
                id=verdict.claim,
                number=index,
                statement=markdown.inline(verdict.statement),
                paper=markdown.inline(verdict.paper) if verdict.paper else Markup("no figure given"),
                outcome=verdict.outcome,
                decisions=tuple(_decision(d, t, depth) for d, t, depth in _walk(verdict.decision, test, 0)),
                requires=requires,
                adjusted=_adjusted(verdict, verdicts),
                spark=intervals.spark(head, log=isinstance(head_test, Ratio)),
            )
        )
    return verdicts, tuple(views)


def _walk(decision: Decision, test: Test | None, depth: int) -> Iterator[tuple[Decision, Test | None, int]]:
    yield decision, test, depth
    parts: Sequence[Test | None] = getattr(test, "tests", ())
    if len(parts) != len(decision.parts):
        parts = [None] * len(decision.parts)
    for part, of in zip(decision.parts, parts, strict=True):
        yield from _walk(part, of, depth + 1)


def headline(decision: Decision, test: Test | None) -> tuple[Decision, Test | None]:
    """The part that decides a combination (as `Verdict.headline`), with its test."""
    while decision.parts:
        tests: Sequence[Test | None] = getattr(test, "tests", ())
        if len(tests) != len(decision.parts):
            tests = [None] * len(decision.parts)
        pairs = list(zip(decision.parts, tests, strict=True))
        decision, test = next((pair for pair in pairs if pair[0].outcome == decision.outcome), pairs[0])
    return decision, test


def _decision(decision: Decision, test: Test | None, depth: int) -> DecisionView:
    half = spread(decision)
    text = ""
    if decision.interval is not None:
        low, high = decision.interval
        text = f"{number(low, half)} to {number(high, half)}"
    joins = ""
    if decision.parts:
        joins = "any of" if isinstance(test, AnyOf) else "all of"
    return DecisionView(
        outcome=decision.outcome,
        depth=depth,
        joins=joins,
        test=signs(decision.text),
        kind=kind(decision, test),
        effect=number(decision.effect, half) if decision.effect is not None else "",
        interval=text,
        facts=_facts(decision, test),
        p=_p_words(decision),
        because=because(decision),
        reason=_sentence(decision.reason),
        strip=intervals.strip(decision, log=isinstance(test, Ratio)),
    )


def signs(text: str) -> str:
    """A test's text with real signs."""
    text = text.replace(">=", "≥").replace("<=", "≤").replace(" - ", " − ")
    return re.sub(r"(?<=[\s(])-(?=[\d.])", "−", text)


def kind(decision: Decision, test: Test | None) -> str:
    """What the number is."""
    if isinstance(test, Ratio):
        return "mean ratio"
    if isinstance(test, Level):
        return "mean"
    if isinstance(test, Trend):
        return (
            "mean slope" if test.method == "slope" else f"mean rank correlation ({test.method.capitalize()})"
        )
    if isinstance(test, Statistic):
        return "statistic"
    if isinstance(test, Difference | Equivalence) or is_equivalence(decision):
        return "mean difference"
    return "mean effect"


def _facts(decision: Decision, test: Test | None) -> str:
    """What the numbers are: the kind of effect, the seeds, the interval."""
    seeds = count(decision.n, "paired seed" if isinstance(test, Difference | Ratio | Equivalence) else "seed")
    words = [seeds if decision.parts else f"{kind(decision, test)} over {seeds}"] if decision.n else []
    if decision.interval is not None:
        resampled = isinstance(test, Statistic) or (
            decision.n >= statistics.FEW and not is_equivalence(decision)
        )
        name = f"{decision.level:.0%} interval".replace("%", "\u202f%")
        words.append(f"{name} ({'bootstrap' if resampled else 'Student’s t'})")
    return _sentence(", ".join(words)).rstrip(".")


def _p_words(decision: Decision) -> str:
    if decision.p is None:
        return ""
    least = 2.0 ** (1 - decision.n)
    at_floor = not decision.parts and not is_equivalence(decision) and decision.p <= least * 1.001
    few = at_floor and 1 < decision.n <= 10
    return p_value(decision.p) + (f", the least that {decision.n} seeds can give" if few else "")


def p_value(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {number(p)}"


def _adjusted(verdict: Verdict, verdicts: Sequence[Verdict]) -> str:
    with_p = sum(v.adjusted_p is not None for v in verdicts)
    if verdict.adjusted_p is None or with_p < 2:
        return ""
    return f"{p_value(verdict.adjusted_p).removeprefix('p = ')} adjusted for {with_p} claims"


def because(decision: Decision) -> str:
    """Why the numbers give this outcome, in one sentence ("" for combinations and undecided tests)."""
    threshold, beyond, refuted = decision.threshold, decision.beyond, decision.refuted
    if (
        decision.parts
        or decision.interval is None
        or decision.effect is None
        or decision.outcome == "not decided"
    ):
        return ""
    if threshold is None or beyond is None or refuted is None:
        return ""
    t, b, r = plain(threshold), plain(beyond), plain(refuted)
    if is_equivalence(decision):
        where = {"supported": "inside", "refuted": "outside"}.get(decision.outcome)
        if where:
            return f"The whole interval lies {where} the margin of ±{t}."
        return f"The interval crosses the margin of ±{t}."
    near, far = ("below", "above") if decision.smaller else ("above", "below")
    low, high = decision.interval
    reaches = decision.effect <= threshold if decision.smaller else decision.effect >= threshold
    clears = high < beyond if decision.smaller else low > beyond
    verb = (
        ("exceeds", "stays within")[reaches] if decision.smaller else ("falls short of", "reaches")[reaches]
    )
    if decision.outcome == "supported":
        if not clears:
            return f"The mean {verb} {t}, and every seed gives the same."
        if t == b:
            return f"The whole interval lies {near} {t}."
        return f"The mean {verb} {t}, and the whole interval lies {near} {b}."
    if decision.outcome == "refuted":
        return f"The whole interval lies {far} {r}."
    refutes = low > refuted if decision.smaller else high < refuted
    if (reaches and clears) or refutes:
        return ""  # held back by a precondition, which the reason names
    if reaches:
        return f"The mean {verb} {t}, but the interval does not clear {b}."
    if clears:
        return f"The whole interval lies {near} {b}, but the mean {verb} {t}: an effect, smaller than counts."
    return f"The mean {verb} {t}, and the interval neither clears {b} nor refutes."


def _sentence(text: str) -> str:
    text = signs(text.strip())
    if not text:
        return ""
    first = text.split()[0].rstrip(",:;")
    if first.isalpha():  # not the name of a module or an arm
        text = text[0].upper() + text[1:]
    return text + ("" if text.endswith((".", "!", "?")) else ".")


# -- the rest of a page --------------------------------------------------------------------------------------------


def _study(entry: Entry) -> StudyView:
    study, evidence = entry.study, entry.evidence
    results = evidence.results if evidence is not None else None
    if study is None and results is not None:
        study = results.study
    title = entry.title or (study.title or study.paper.title if study else entry.id)
    title = title.replace("'", "’")
    if study is None:
        search = " ".join(
            (str(entry.number), entry.id, entry.domain, domain_name(entry.domain), title)
        ).lower()
        text = markdown.page(entry.page_text) if entry.page_text else Markup("")
        return StudyView(
            entry.number,
            entry.id,
            entry.domain,
            title,
            entry.status,
            _sentence(entry.reason),
            None,
            (),
            (),
            search,
            text=text,
        )
    try:
        return _full(entry, study, results, title)
    except ValueError as error:
        raise ValueError(f"study {entry.id}: {error}") from error


def _full(entry: Entry, study: Study, results: Results | None, title: str) -> StudyView:
    evidence = entry.evidence
    verdicts, cards = claims(study, results)
    figures: dict[str | None, list[FigureView]] = {}
    files: list[tuple[Path, str]] = []
    media: tuple[MediaView, ...] = ()
    cost: tuple[tuple[str, str], ...] = ()
    record = ""
    if evidence is not None:
        for i, item in enumerate(evidence.figures, 1):
            figures.setdefault(item.question, []).append(_figure(evidence.folder / item.file, item.title, i))
        media = tuple(_media(evidence.folder, name, entry.id) for name in evidence.media)
        files = [(evidence.folder / name, name) for name in evidence.media]
        if (evidence.folder / "evidence.json").is_file():
            files.append((evidence.folder / "evidence.json", "evidence.json"))
            record = f"files/{entry.id}/evidence.json"
        cost = tuple(_cost(evidence))
    answered = {q.id for q in study.questions}
    asked = {arm for q in study.questions for arm in q.arms}
    extras = [arm for arm in study.all_arms.values() if arm.extra]
    words = (
        str(entry.number),
        entry.id,
        entry.domain,
        domain_name(entry.domain),
        title,
        study.paper.title,
        study.paper.authors,
        str(study.paper.year),
        study.paper.arxiv,
        study.paper.venue,
        *(c.statement for c in study.claims),
        *(c.id for c in study.claims),
    )
    return StudyView(
        number=entry.number,
        id=entry.id,
        domain=entry.domain,
        title=title,
        status=entry.status,
        reason=_sentence(entry.reason),
        paper=study.paper,
        claims=cards,
        verdicts=verdicts,
        search=" ".join(" ".join(words).lower().split()),
        published=evidence.published if evidence else "",
        commit=evidence.commit if evidence else "",
        profile=results.profile if results else "laptop",
        text=markdown.page(entry.page_text),
        figures=tuple(f for q, group in figures.items() if q not in answered for f in group),
        tables=_tables(study, results, [a.name for a in study.all_arms.values() if not a.extra]),
        failures=tuple(map(_failure, results.failed)) if results else (),
        media=media,
        questions=tuple(
            QuestionView(
                id=q.id,
                ask=markdown.inline(q.ask),
                answer=markdown.page(q.answer),
                tables=_tables(study, results, q.arms) if results else (),
                figures=tuple(figures.get(q.id, ())),
            )
            for q in study.questions
        ),
        extra_tables=_tables(study, results, [a.name for a in extras if a.name not in asked])
        if results
        else (),
        mechanisms=tuple(
            (item, tuple(_public(name) for name in ((names,) if isinstance(names, str) else names)))
            for item, names in study.mechanisms.items()
        ),
        cost=cost,
        commands=tuple(_commands(study)),
        usage=study.usage.strip("\n"),
        files=tuple(files),
        record=record,
    )


def _failure(trial: TrialResult) -> str:
    return f"{trial.arm}, seed {trial.seed}: {trial.status}. {trial.error}".strip()


def _figure(path: Path, title: str, index: int) -> FigureView:
    """A published SVG, ready to stand in a page: ids of its own, a name for those who cannot see it."""
    try:
        svg = prefix_ids(path.read_text(encoding="utf-8"), f"figure{index}")
    except ET.ParseError as error:
        raise ValueError(f"{path} is not an SVG: {error}") from error
    box = re.search(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+) [\d.]+"', svg)
    label = Markup.escape(title)
    svg = (
        re.sub(r"<svg\b", f'<svg aria-label="{label}"', svg, count=1)
        if "aria-label" not in svg[:600]
        else svg
    )
    return FigureView(title, Markup(svg), round(float(box[1])) if box else 460)


def _media(folder: Path, name: str, study: str) -> MediaView:
    suffix = Path(name).suffix.lower()
    kinds = (("audio", AUDIO), ("video", VIDEO), ("image", IMAGES))
    kind = next((kind for kind, suffixes in kinds if suffix in suffixes), "file")
    size = (folder / name).stat().st_size
    return MediaView(name, f"files/{study}/{name}", kind, f"{max(1, round(size / 1024))} KB")


def _tables(study: Study, results: Results | None, arms: Sequence[str]) -> tuple[ArmTable, ...]:
    """One table for each experiment: the arms that share a prefix, or else their metrics."""
    if results is not None:
        arms = [arm for arm in arms if results.seeds(arm)]
    groups: dict[tuple[str, ...], list[str]] = {}
    for arm in arms:
        names = _metrics(results, arm) if results is not None else ()
        groups.setdefault((arm.partition("/")[0],) if "/" in arm else ("", *names), []).append(arm)
    tables = []
    for key, members in groups.items():
        metrics = (
            tuple(dict.fromkeys(m for arm in members for m in _metrics(results, arm))) if results else ()
        )
        rows = tuple(_row(study, results, arm, metrics) for arm in members)
        tables.append(ArmTable(key[0], metrics, rows))
    return tuple(tables)


def _metrics(results: Results | None, arm: str) -> tuple[str, ...]:
    if results is None:
        return ()
    return tuple(dict.fromkeys(name for seed in results.seeds(arm) for name in results.metrics(arm, seed)))


def _row(study: Study, results: Results | None, arm: str, metrics: Sequence[str]) -> ArmRow:
    about = markdown.inline(study.all_arms[arm].about) if arm in study.all_arms else Markup("")
    if results is None:
        return ArmRow(arm, about, str(len(study.seeds_of(arm))), (), "–")
    trials = [t for t in results.trials if t.arm == arm]
    good = [t for t in trials if t.status == "ok"]
    seeds = str(len(trials)) if len(good) == len(trials) else f"{len(good)} of {len(trials)}"
    values = []
    for name in metrics:
        x = results.metric(arm, name)
        x = x[~np.isnan(x)]
        if not x.size:
            values.append(("–", ""))
            continue
        with np.errstate(invalid="ignore"):
            sd = float(x.std(ddof=1)) if x.size > 1 else 0.0
        mean = number(float(x.mean()), sd or None)
        places = len(mean.partition(".")[2]) if "e" not in mean else None
        beside = number(sd) if places is None else f"{sd:,.{places}f}".replace(",", "\u202f")
        values.append((mean, f"± {beside}" if sd > 0 else ""))
    each = sum(t.seconds for t in good) / len(good) if good else math.nan
    return ArmRow(arm, about, seeds, tuple(values), duration(each))


def _public(name: str) -> Markup:
    """A dotted name that may break after its dots, or an arm."""
    if name.startswith("arm:"):
        return Markup("arm <code>{}</code>").format(name.removeprefix("arm:"))
    return Markup("<code>{}</code>").format(Markup("<wbr>").join(part for part in re.split(r"(?<=\.)", name)))


_LABELS = {
    "python": "Python",
    "torch": "PyTorch",
    "numpy": "NumPy",
    "scipy": "SciPy",
    "assay": "assay",
    "cpu": "Processor",
    "cores": "Cores",
    "gpu": "GPU",
    "platform": "System",
    "threads": "Threads a trial",
    "device": "Device",
    "memory": "Memory",
}


def _cost(evidence: Evidence) -> Iterator[tuple[str, str]]:
    results = evidence.results
    if evidence.seconds > 0:
        yield "From start to end", duration(evidence.seconds)
    if evidence.core_seconds > 0:
        yield "On one core", duration(evidence.core_seconds)
    if evidence.extra_seconds > 0:
        yield "Open questions", duration(evidence.extra_seconds)
    yield "Trials", f"{len(results.trials)}" + (f", {len(results.failed)} failed" if results.failed else "")
    if evidence.workers:
        yield "Processes", str(evidence.workers)
    if memory := max((t.peak_memory for t in results.trials), default=0.0):
        yield "Peak memory", f"{memory:,.0f} MiB".replace(",", "\u202f")
    for key in (*_LABELS, *(k for k in evidence.environment if k not in _LABELS)):
        value = evidence.environment.get(key)
        if value not in (None, "", {}, []):
            shown = (
                ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
            )
            yield _LABELS.get(key, key.replace("_", " ").capitalize()), shown


def _commands(study: Study) -> Iterator[tuple[str, str]]:
    if study.needs:
        names = list(dict.fromkeys(name for extra in study.needs for name in packages(extra)))
        count = len(names)
        yield (
            "It needs one more package" if count == 1 else f"It needs {count} more packages",
            f"pip install {' '.join(names)}",
        )
    yield "Every claim, as on this page", f"assay run {study.id}"
    if "demo" in study.profile_names:
        yield "A look in under a minute", f"assay run {study.id} --profile demo"
    if study.questions or any(arm.extra for arm in study.all_arms.values()):
        yield "With the arms of the open questions", f"assay run {study.id} --extras"
    if "paper" in study.profile_names:
        yield "At the paper’s scale", f"assay run {study.id} --profile paper"


__all__ = ["OUTCOMES", "SiteView", "StudyView", "claims", "count", "site"]
