"""The site: a static folder that shows every study with its verdicts, and opens without a server or a network."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from assay.lab.errors import InputError
from assay.lab.verdict import clean

if TYPE_CHECKING:
    from assay.lab.results import Results
    from assay.lab.study import Study

MARK = ".assay-site"
"""A file in every folder that `build` wrote; other folders that hold something are left alone."""
OWN = ("assets", "files", "studies")


class PublishedFigure(Protocol):
    """A figure in the evidence folder."""

    @property
    def file(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def question(self) -> str | None: ...


class Evidence(Protocol):
    """What `assay publish` wrote about one study."""

    @property
    def results(self) -> "Results": ...
    @property
    def figures(self) -> Sequence[PublishedFigure]: ...
    @property
    def media(self) -> Sequence[str]: ...
    @property
    def published(self) -> str: ...
    @property
    def commit(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def core_seconds(self) -> float: ...
    @property
    def extra_seconds(self) -> float: ...
    @property
    def environment(self) -> Mapping[str, Any]: ...
    @property
    def workers(self) -> int: ...
    @property
    def folder(self) -> Path: ...


@dataclass(frozen=True)
class Entry:
    """One study of the site.

    Attributes:
        number, id, domain, title: where it stands and its headline.
        study: None if it cannot be imported here (`reason` says why).
        evidence: None if nothing is published.
        status: whether the evidence is that of the present code.
        reason: why it is stale or missing.
        page_text: the study module's docstring, in Markdown with TeX formulas.
    """

    number: int
    id: str
    domain: str
    title: str
    study: "Study | None"
    evidence: Evidence | None
    status: Literal["fresh", "stale", "missing"]
    reason: str = ""
    page_text: str = ""


def build(entries: Sequence[Entry], out: Path) -> Path:
    """Write the site into the folder `out` and return its index.

    A site that stands there already is replaced.

    Raises:
        InputError: `out` holds something else.
        ValueError: a page's text has a formula that cannot be shown; the message names study and formula.
    """
    from assay.lab.site import views

    site = views.site(entries)
    pages = _render(site)  # everything is rendered before anything is written
    _prepare(out)
    for name, text in pages.items():
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    (out / "assets").mkdir()
    for asset in resources.files(__package__).joinpath("assets").iterdir():
        (out / "assets" / asset.name).write_bytes(asset.read_bytes())
    for study in site.studies:
        for source, name in study.files:
            target = out / "files" / study.id / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    records = {study.id: [verdict.record() for verdict in study.verdicts] for study in site.studies}
    (out / "verdicts.json").write_text(
        json.dumps(clean(records), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return out / "index.html"


def _prepare(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: name a folder for the site")
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).exists():
        raise InputError(f"{out} holds files that are not a site's: name a new or an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).write_text("A site written by `assay site`, which replaces it.\n", encoding="utf-8")
    for name in OWN:
        shutil.rmtree(out / name, ignore_errors=True)


def _render(site: Any) -> dict[str, str]:
    import jinja2

    from assay.lab import statistics
    from assay.lab.site import examples, markdown, views

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("assay.lab.site", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"inline": markdown.inline, "code": markdown.code, "domain": views.domain_name}
    environment.globals |= {
        "site": site,
        "math": markdown.math,
        "outcomes": views.OUTCOMES,
        "count": views.count,
        "few": statistics.FEW,
        "exact": statistics.EXACT_SIGNS,
    }
    pages = {
        "index.html": environment.get_template("index.html").render(root="", example=examples.reading()),
        "verdicts.html": environment.get_template("verdicts.html").render(
            root="", examples=examples.outcomes()
        ),
    }
    template = environment.get_template("study.html")
    for study in site.studies:
        pages[f"studies/{study.id}.html"] = template.render(root="../", study=study)
    return pages


__all__ = ["Entry", "build"]
