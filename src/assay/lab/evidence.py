"""Evidence: the published results of the laptop profile, kept with the code so that a fresh clone shows them."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from assay.lab import registry, runner
from assay.lab.config import flat
from assay.lab.errors import InputError
from assay.lab.executor import check_workers
from assay.lab.results import Results, TrialResult
from assay.lab.study import Study

SCHEMA = 1
LIMIT = 1_000_000
"""Bytes that the evidence of one study may take."""
MEDIA = (".mid", ".wav", ".mp3", ".ogg", ".png", ".gif", ".mp4")
Status = Literal["fresh", "stale", "missing"]


@dataclass(frozen=True)
class PublishedFigure:
    """A rendered figure in a study's evidence folder."""

    file: str
    title: str
    question: str | None = None


@dataclass(frozen=True)
class Evidence:
    """What was published of one study.

    Attributes:
        results: default and extra arms, metrics only (curves and artifacts stay with the results).
        figures, media: files in `folder`.
        published, commit: when, and of which commit.
        seconds, core_seconds: wall time and time of one core of the default arms; `extra_seconds`: wall time of extras.
        environment: versions and machine; workers: processes.
        fingerprints: arm -> what its trials stood under.
    """

    results: Results
    figures: tuple[PublishedFigure, ...]
    media: tuple[str, ...]
    published: str
    commit: str
    seconds: float
    core_seconds: float
    extra_seconds: float
    environment: Mapping[str, Any]
    workers: int
    fingerprints: Mapping[str, str]
    folder: Path


@dataclass(frozen=True)
class Freshness:
    """Whether the evidence of a study still speaks of the code as it is."""

    study: str
    status: Status
    reason: str


def evidence_root() -> Path:
    """Where evidence lies: ASSAY_EVIDENCE, else the checkout's `evidence/`, else what the wheel brought."""
    if place := os.environ.get("ASSAY_EVIDENCE"):
        return Path(place).expanduser().absolute()
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1]
    return checkout / "evidence" if (checkout / "pyproject.toml").is_file() else package / "_evidence"


def publish(
    study: Study,
    *,
    extras: bool = False,
    root: Path | None = None,
    allow_dirty: bool = False,
    **run_options: Any,
) -> Evidence:
    """Run what is missing of the laptop profile, then write evidence and figures. The only writer of evidence.

    Extra arms are run and included if `extras`; else those are included whose results are all there already.

    Raises:
        InputError: uncommitted source, or more than 1 MB of evidence.
    """
    root = root or evidence_root()
    if not allow_dirty and (changed := _uncommitted()):
        raise InputError(f"evidence speaks of committed code: commit {changed} first")
    results = runner.run(study, "laptop", extras=extras, **run_options)
    more = [arm for arm in study.select_arms(extras=True) if study.all_arms[arm].extra]
    if more and not extras:
        found = runner.collect(study, arms=more, results=run_options.get("results"))
        whole = {arm for arm in more if not any(found.failure(arm, seed) for seed in found.seeds(arm))}
        trials = results.trials + tuple(trial for trial in found.trials if trial.arm in whole)
        results = Results(study, "laptop", results.config, trials)
    target = root / study.id
    root.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{study.id}-", dir=root))
    try:
        scratch.chmod(0o755)
        figures = _draw(study, results, scratch)
        media = _copy_media(results, scratch)
        workers = check_workers(run_options.get("workers"))
        record = _record(study, results, figures, media, workers)
        (scratch / "evidence.json").write_text(
            json.dumps(record, separators=(",", ":"), ensure_ascii=False, allow_nan=True) + "\n",
            encoding="utf-8",
        )
        sizes = {p.name: p.stat().st_size for p in scratch.iterdir()}
        if sum(sizes.values()) > LIMIT:
            largest = ", ".join(f"{n} {s:,}" for n, s in sorted(sizes.items(), key=lambda i: -i[1])[:4])
            raise InputError(
                f"evidence of {study.id} is {sum(sizes.values()):,} bytes, above {LIMIT:,} ({largest})"
            )
        if target.exists():
            shutil.rmtree(target)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    loaded = load(study, root)
    assert loaded is not None
    return loaded


def _uncommitted() -> str:
    """Source files that differ from the commit ("" outside a checkout)."""
    package = Path(__file__).resolve().parents[1]
    try:
        lines = subprocess.run(
            ["git", "status", "--porcelain", "--", str(package)],
            cwd=package, capture_output=True, text=True, timeout=10, check=True,
        ).stdout.splitlines()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    names = [line[3:] for line in lines if line.endswith((".py", "/"))]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _draw(study: Study, results: Results, folder: Path) -> list[PublishedFigure]:
    from assay.lab.figures import to_svg

    drawn = []
    for spec in study.figures:
        figure = spec.function(results)
        if figure is not None:
            (folder / f"{spec.name}.svg").write_text(to_svg(figure), encoding="utf-8")
            drawn.append(PublishedFigure(f"{spec.name}.svg", spec.title, spec.question))
    return drawn


def _copy_media(results: Results, folder: Path) -> list[str]:
    """Media that the first seed of each arm saved."""
    copied = []
    for arm in results.arms:
        seed = results.seeds(arm)[0]
        for name in results.artifact(arm, seed, "") or ():
            if Path(name).suffix in MEDIA:
                file = name if name not in copied else f"{arm.replace('/', '-')}-{name}"
                (folder / file).write_bytes(results.artifact(arm, seed, name))
                copied.append(file)
    return copied


def _record(
    study: Study, results: Results, figures: list[PublishedFigure], media: list[str], workers: int
) -> dict[str, Any]:
    default = [t for t in results.trials if not study.all_arms[t.arm].extra]
    extra = [t for t in results.trials if study.all_arms[t.arm].extra]
    parts = {
        name: Results(study, "laptop", results.config, t)
        for name, t in (("default", default), ("extra", extra))
    }
    environment = next((dict(t.environment) for t in default if t.environment), {})
    commit = environment.pop("commit", "")
    arms: dict[str, Any] = {}
    for arm in results.arms:
        trials = [t for t in results.trials if t.arm == arm]
        names = list(dict.fromkeys(name for t in trials for name in t.metrics))
        arms[arm] = {
            "fingerprint": runner.key(study, arm, results.config),
            "seeds": [t.seed for t in trials],
            "metrics": {name: [_short(t.metrics.get(name)) for t in trials] for name in names},
            "seconds": [round(t.seconds, 3) for t in trials],
            "peak_memory": max(t.peak_memory for t in trials),
            "failed": {str(t.seed): [t.status, t.error] for t in trials if t.status != "ok"},
        }
    return {
        "schema": SCHEMA,
        "study": study.id,
        "profile": "laptop",
        "published": datetime.now(UTC).date().isoformat(),
        "commit": commit,
        "environment": environment,
        "workers": workers,
        "seconds": round(parts["default"].elapsed, 1),
        "core_seconds": round(parts["default"].core_seconds, 3),
        "extra_seconds": round(parts["extra"].elapsed, 1),
        "config": flat(results.config),
        "arms": arms,
        "figures": [{"file": f.file, "title": f.title, "question": f.question} for f in figures],
        "media": media,
    }


def _short(value: float | None) -> float | None:
    """Nine significant digits: what a float32 holds."""
    return None if value is None else float(f"{value:.9g}")


def load(study: Study, root: Path | None = None) -> Evidence | None:
    """The evidence of a study, or None if there is none.

    Raises:
        InputError: the file is damaged or of another schema.
    """
    folder = (root or evidence_root()) / study.id
    record = _read(folder)
    if record is None:
        return None
    try:
        trials = []
        for arm, data in record["arms"].items():
            if arm not in study.all_arms:
                continue  # an arm that the study no longer has
            for i, seed in enumerate(data["seeds"]):
                status, error = data["failed"].get(str(seed), ("ok", ""))
                metrics = {n: column[i] for n, column in data["metrics"].items() if column[i] is not None}
                trials.append(
                    TrialResult(
                        arm,
                        seed,
                        status,
                        metrics,
                        data["seconds"][i],
                        error=error,
                        peak_memory=data["peak_memory"],
                    )
                )
        results = Results(study, record["profile"], study.configure(record["profile"]), trials)
        return Evidence(
            results=results,
            figures=tuple(PublishedFigure(**f) for f in record["figures"]),
            media=tuple(record["media"]),
            published=record["published"],
            commit=record["commit"],
            seconds=record["seconds"],
            core_seconds=record["core_seconds"],
            extra_seconds=record["extra_seconds"],
            environment=record["environment"],
            workers=record["workers"],
            fingerprints={arm: data["fingerprint"] for arm, data in record["arms"].items()},
            folder=folder,
        )
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(
            f"{folder / 'evidence.json'} is damaged ({error!r}): assay publish {study.id}"
        ) from None


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / "evidence.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}): assay publish {folder.name}") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise InputError(f"{path} is not of schema {SCHEMA}: assay publish {folder.name}")
    return record


def freshness(study: Study, root: Path | None = None) -> Freshness:
    """Is the evidence of the code and config as they are now, with all arms and seeds?"""
    try:
        record = _read((root or evidence_root()) / study.id)
        if record is None:
            return Freshness(study.id, "missing", f"no evidence: assay publish {study.id}")
        arms = record["arms"]
        for arm in study.all_arms.values():
            data = arms.get(arm.name)
            if data is None:
                if not arm.extra:
                    return Freshness(study.id, "stale", f"arm {arm.name!r} is not in the evidence")
                continue
            if data["fingerprint"] != runner.key(study, arm.name, study.config):
                return Freshness(
                    study.id, "stale", f"code or config of arm {arm.name!r} changed since it ran"
                )
            if lacking := set(study.seeds_of(arm.name)) - set(data["seeds"]):
                return Freshness(study.id, "stale", f"arm {arm.name!r} lacks {len(lacking)} of its seeds")
    except (InputError, KeyError, TypeError) as error:
        return Freshness(study.id, "stale", f"the evidence is damaged: {error}")
    return Freshness(study.id, "fresh", "")


def verdict_rows(studies: list[str], root: Path | None = None) -> list[dict[str, Any]]:
    """One row a claim, for `assay verdicts`."""
    rows = []
    for study_id in studies:
        study = registry.load(study_id)
        evidence = load(study, root)
        fresh = freshness(study, root).status == "fresh"
        about = {"study": study.id, "number": study.number}
        if evidence is None:
            for claim in study.claims:
                nothing = {
                    "verdict": "not decided",
                    "effect": None,
                    "interval": None,
                    "threshold": None,
                    "seeds": 0,
                }
                text = {"claim": claim.id, "statement": claim.statement, "paper": claim.paper}
                rows.append(
                    about
                    | text
                    | nothing
                    | {"fresh": False, "seconds": None, "reason": "no evidence published"}
                )
            continue
        more = {"fresh": fresh, "seconds": evidence.seconds}
        rows += [about | verdict.record() | more for verdict in evidence.results.verdicts]
    return rows
