"""Results on disk: written whole or not at all, found again, safe for two processes at once.

    RESULTS/<study>/<fingerprint>/<unit>/record.json     trials with metrics, checksums, environment
                                        /curves.npz
                                        /<arm>@<seed>/   artifacts
    RESULTS/<study>/failures/<unit>.txt                  the last traceback of a failed unit

A unit is what one call produced: a trial, or a batch of them. It is written into a scratch folder and renamed, so a
reader sees all of it or nothing. Nothing is ever unpickled: json, npz and plain files only.
"""

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from assay.lab.errors import InputError
from assay.lab.results import TrialResult
from assay.lab.trial import trial_folder

Pair = tuple[str, int]
RECORD = "record.json"
SCRATCH = ".scratch-"


class StoreError(Exception):
    """Results could not be written (disk full, folder gone); the message names the folder. Exit code 1."""


class Damaged(Exception):
    """A result file is not what was written."""


def results_root(folder: str | Path | None = None) -> Path:
    """Where results go: `folder`, else ASSAY_RESULTS, else ./results."""
    return Path(folder or os.environ.get("ASSAY_RESULTS") or "results").expanduser().absolute()


class Store:
    """The results folder."""

    def __init__(
        self, root: str | Path | None = None, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        self.root = results_root(root)
        self.warn = warn
        self._seen: dict[tuple[Path, int], dict[str, Any]] = {}

    def prepare(self, study: str) -> None:
        """Make the folder of a study, or say in one line why results cannot be kept there."""
        place = self.root / study
        try:
            place.mkdir(parents=True, exist_ok=True)
            probe = place / f"{SCRATCH}{os.getpid()}-{uuid.uuid4().hex[:8]}"
            probe.mkdir()
            probe.rmdir()
        except OSError as error:
            raise InputError(
                f"cannot write results to {place}: {error.strerror}; choose another with --results"
            ) from None
        for leftover in place.glob(f"{SCRATCH}*"):
            if not _alive(leftover.name.removeprefix(SCRATCH).partition("-")[0]):
                shutil.rmtree(leftover, ignore_errors=True)

    def scratch(self, study: str) -> Path:
        """A new empty folder next to the results, for one unit that is being written."""
        place = self.root / study / f"{SCRATCH}{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            place.mkdir(parents=True)
        except OSError as error:
            raise StoreError(f"cannot write results to {place.parent}: {error.strerror}") from error
        return place

    def commit(
        self,
        scratch: Path,
        study: str,
        fingerprint: str,
        trials: list[dict[str, Any]],
        files: Mapping[str, str],
        environment: Mapping[str, Any],
    ) -> Path:
        """Seal a scratch folder as the result of `trials`; if another process was first, its result stays."""
        body = {
            "study": study,
            "fingerprint": fingerprint,
            "trials": trials,
            "files": dict(files),
            "environment": dict(environment),
        }
        unit = unit_name([(t["arm"], t["seed"]) for t in trials])
        try:
            text = json.dumps(body, sort_keys=True)
            with open(scratch / RECORD, "w", encoding="utf-8") as file:
                json.dump({"sha256": _sha(text), "body": body}, file, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            return self._seal(scratch, study, fingerprint, unit)
        except OSError as error:
            shutil.rmtree(scratch, ignore_errors=True)
            raise StoreError(
                f"cannot write results to {self.root / study}: {error.strerror or error}"
            ) from error

    def adopt(self, study: str, fingerprint: str, unit: str, files: Mapping[str, bytes]) -> Path:
        """Store a sealed unit that was written on another machine."""
        scratch = self.scratch(study)
        try:
            for name, content in files.items():
                (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                (scratch / name).write_bytes(content)
            return self._seal(scratch, study, fingerprint, unit)
        except OSError as error:
            shutil.rmtree(scratch, ignore_errors=True)
            raise StoreError(
                f"cannot write results to {self.root / study}: {error.strerror or error}"
            ) from error

    def _seal(self, scratch: Path, study: str, fingerprint: str, unit: str) -> Path:
        """Rename a complete scratch folder to its place."""
        target = self.root / study / fingerprint / unit
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(scratch, target)
        except OSError:
            if not target.exists():
                raise
            if self._intact(target):
                shutil.rmtree(scratch, ignore_errors=True)
            else:
                self._set_aside(target)
                os.rename(scratch, target)
        return target

    def read(self, study: str, fingerprint: str) -> dict[Pair, TrialResult]:
        """Every finished trial under a fingerprint. Damaged units are reported, set aside and left out."""
        found: dict[Pair, TrialResult] = {}
        place = self.root / study / fingerprint
        for unit in sorted(place.iterdir()) if place.is_dir() else ():
            if not unit.is_dir() or ".damaged" in unit.name:
                continue
            try:
                stamp = (unit, (unit / RECORD).stat().st_mtime_ns)
                body = self._seen.get(stamp) or self._seen.setdefault(stamp, _open(unit))
            except (Damaged, OSError) as problem:
                self.warn(f"damaged result {unit}: {problem}; it is set aside and will be run again")
                self._set_aside(unit)
                continue
            for trial in body["trials"]:
                found[trial["arm"], trial["seed"]] = TrialResult(
                    environment=body["environment"],
                    reused=True,
                    read=_reader(unit, body["files"], trial["arm"], trial["seed"], self.warn),
                    **trial,
                )
        return found

    def _intact(self, unit: Path) -> bool:
        try:
            _open(unit)
        except (Damaged, OSError):
            return False
        return True

    def _set_aside(self, unit: Path) -> None:
        try:
            os.rename(unit, unit.with_name(f"{unit.name}.damaged-{uuid.uuid4().hex[:6]}"))
        except OSError as error:
            if unit.exists():
                raise InputError(f"cannot set the damaged result {unit} aside: {error.strerror}") from None

    def note_failure(self, study: str, pairs: Iterable[Pair], text: str) -> Path:
        """Keep the traceback of a failed unit."""
        place = self.root / study / "failures" / f"{unit_name(list(pairs))}.txt"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")
        except OSError as error:
            raise StoreError(f"cannot write results to {place.parent}: {error.strerror}") from error
        return place

    def lock(self, study: str, fingerprint: str, pairs: list[Pair]) -> FileLock | None:
        """The right to run a unit, or None while another process has it (it is freed when that one ends or dies)."""
        place = self.root / study / ".locks"
        try:
            place.mkdir(parents=True, exist_ok=True)
            lock = FileLock(place / f"{fingerprint}-{unit_name(pairs)}.lock", timeout=0)
            lock.acquire()
        except Timeout:
            return None
        except OSError as error:
            raise StoreError(f"cannot write results to {self.root / study}: {error.strerror}") from error
        return lock

    def fingerprints(self, study: str) -> list[str]:
        """The fingerprints that have results."""
        place = self.root / study
        hexadecimal = re.compile(r"[0-9a-f]{16}(-\w+)?")
        return (
            sorted(p.name for p in place.iterdir() if hexadecimal.fullmatch(p.name)) if place.is_dir() else []
        )

    def clean(self, studies: Iterable[str] | None = None, keep: Mapping[str, set[str]] | None = None) -> int:
        """Delete results (of some studies; but those whose fingerprints are in `keep`); bytes freed."""
        freed = 0
        names = list(studies) if studies is not None else [p.name for p in self.root.glob("*") if p.is_dir()]
        for name in names:
            place = self.root / name
            if not place.is_dir():
                continue
            kept = (keep or {}).get(name, set())
            for entry in [place] if not kept else [p for p in place.iterdir() if p.name not in kept]:
                freed += sum(f.stat().st_size for f in entry.rglob("*") if f.is_file())
                shutil.rmtree(entry, ignore_errors=True)
        return freed


def unit_name(pairs: list[Pair]) -> str:
    """A readable folder name for a set of trials, the same for the same set."""
    if len(pairs) == 1:
        return trial_folder(*pairs[0])
    digest = hashlib.sha256(json.dumps(sorted(pairs)).encode()).hexdigest()[:10]
    arms = sorted({arm for arm, _ in pairs})
    label = arms[0].replace("/", "~") if len(arms) == 1 else f"{len(arms)}-arms"
    return f"{label}@{len(pairs)}-trials-{digest}"


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _open(unit: Path) -> dict[str, Any]:
    """The body of a unit's record, if it is what was written."""
    try:
        outer = json.loads((unit / RECORD).read_text(encoding="utf-8"))
        body = outer["body"]
        good = outer["sha256"] == _sha(json.dumps(body, sort_keys=True))
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{RECORD} is not readable ({type(error).__name__})") from None
    if not good:
        raise Damaged(f"the checksum of {RECORD} does not fit")
    for name, checksum in body["files"].items():
        path = unit / name
        if not path.is_file():
            raise Damaged(f"{name} is missing")
        if hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
            raise Damaged(f"the checksum of {name} does not fit")
    return body


def _reader(
    unit: Path, files: Mapping[str, str], arm: str, seed: int, warn: Callable[[str], None]
) -> Callable[[str], Any]:
    folder = trial_folder(arm, seed)

    def read(name: str) -> Any:
        if name.startswith("curve:"):
            if "curves.npz" not in files:
                return None
            with np.load(unit / "curves.npz", allow_pickle=False) as arrays:
                key = f"{folder}/{name.removeprefix('curve:')}"
                if f"{key}/steps" not in arrays:
                    return None
                return arrays[f"{key}/steps"], arrays[f"{key}/values"]
        if name == "":  # the files there are
            return sorted(Path(f).name for f in files if Path(f).parent.name == folder)
        for suffix in ("", ".npz", ".json", ".txt"):
            path = unit / folder / f"{name}{suffix}"
            if f"{folder}/{name}{suffix}" in files:
                return _read_file(path)
        return None

    return read


def _read_file(path: Path) -> Any:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["value"] if arrays.files == ["value"] else dict(arrays.items())
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    if path.suffix in (".txt", ".md", ".csv"):
        return path.read_text(encoding="utf-8")
    return path.read_bytes()


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except OSError:
        return True  # someone else's
    try:  # ended, but not yet collected by its parent: as in containers whose first process collects nothing
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True
