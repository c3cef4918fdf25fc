"""Which studies there are. Listing them reads one small file; only loading one imports it (and torch)."""

import hashlib
import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assay.lab.errors import InputError, unknown
from assay.lab.study import Study

CATALOGUE = "catalogue.json"


def study_folders() -> tuple[Path, ...]:
    """The folders that hold study modules: assay's own, then those named in ASSAY_STUDIES."""
    own = Path(__file__).resolve().parents[1] / "studies"
    more = [
        Path(p).expanduser().resolve() for p in os.environ.get("ASSAY_STUDIES", "").split(os.pathsep) if p
    ]
    return (own, *more)


def modules() -> dict[str, Path]:
    """Study id -> its module's file (a package's `__init__.py`)."""
    found: dict[str, Path] = {}
    for folder in study_folders():
        for path in sorted(folder.glob("*.py")) + sorted(folder.glob("*/__init__.py")):
            name = path.parent.name if path.name == "__init__.py" and path.parent != folder else path.stem
            if not name.startswith("_"):
                found.setdefault(name.replace("_", "-"), path)
    return found


def load(study_id: str) -> Study:
    """Import one study (InputError with the nearest name if there is none)."""
    known = modules()
    if study_id not in known:
        raise unknown("study", study_id, known)
    package = importlib.import_module("assay.studies")
    for folder in study_folders():
        if str(folder) not in package.__path__:
            package.__path__.append(str(folder))
    name = f"assay.studies.{study_id.replace('-', '_')}"
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise InputError(f"study {study_id} cannot be imported: {type(error).__name__}: {error}") from error
    study = getattr(module, "study", None)
    if not isinstance(study, Study):
        raise InputError(f"{known[study_id]} defines no `study = Study(...)`")
    if study.id != study_id:
        raise InputError(
            f"{known[study_id]} holds the study {study.id!r}: name the file {study.id.replace('-', '_')}.py"
        )
    study.module = name
    for arm in study.all_arms:
        study.experiment(arm)
    return study


def page_text(study: Study) -> str:
    """The study module's docstring: the text of its page."""
    return (importlib.import_module(study.module).__doc__ or "").strip()


def catalogue() -> list[dict[str, Any]]:
    """What `assay list` tells of every study, by number. Imports only studies that changed since it was written."""
    stored = _stored()
    entries = []
    for study_id, path in modules().items():
        entry = stored.get(study_id)
        source = _source_hash(path)
        if entry is None or entry["source"] != source:
            try:
                entry = load(study_id).describe() | {"source": source}
            except InputError as error:  # one broken study must not hide the others
                entry = dict.fromkeys(("arms", "extras", "claims", "profiles", "needs"), ()) | {
                    "number": 0, "id": study_id, "domain": "broken", "title": str(error), "seeds": 0,
                    "paper": {}, "mechanisms": {}, "source": source,
                }  # fmt: skip
        entries.append({k: v for k, v in entry.items() if k != "source"})
    return sorted(entries, key=lambda e: (e["number"] or 1_000, e["id"]))


def write_catalogue() -> Path:
    """Write the file that `catalogue` reads (run by `make catalogue` and by `assay publish`)."""
    own = study_folders()[0]
    entries = []
    for study_id, path in modules().items():
        if own in path.parents:
            entries.append(load(study_id).describe() | {"source": _source_hash(path)})
    entries.sort(key=lambda e: (e["number"] or 1_000, e["id"]))
    target = own / CATALOGUE
    target.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return target


def _stored() -> dict[str, dict[str, Any]]:
    path = study_folders()[0] / CATALOGUE
    try:
        return {entry["id"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # without the file everything is imported: slower, still right


def _source_hash(path: Path) -> str:
    digest = hashlib.sha256()
    for file in _sources(path):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _sources(path: Path) -> Iterator[Path]:
    yield from sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else (path,)
