"""Trial and Batch: what a study's function gets to run with: seeds, generators, device, progress, logs, artifacts."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch

CURVE_POINTS = 400
"""A saved curve is thinned to at most so many points, evenly, first and last kept."""


class TimeLimitReached(Exception):
    """A trial ran past its time limit."""


class Reporter(Protocol):
    """Where progress goes."""

    def __call__(self, fraction: float) -> None: ...


def stream_seed(study: str, stream: str, seed: int) -> int:
    """The seed of a random stream: a hash of study, stream name and seed, the same in every arm (63 bits)."""
    digest = hashlib.sha256(f"{study}\0{stream}\0{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class _Run:
    """What a single trial and a batch of trials have in common."""

    def __init__(
        self,
        study: str,
        profile: str,
        device: "str | torch.device",
        folder: Path,
        time_limit: float,
        report: Reporter | None,
        board: "Callable[[str, int], Any] | None" = None,
    ) -> None:
        import torch

        self.study = study
        self.profile = profile
        self.device = torch.device(device)
        self._folder = folder
        self._time_limit = time_limit
        self._report = report
        self._reported = 0.0
        self._begun = time.monotonic()
        self._curves: dict[tuple[str, int, str], tuple[list[int], list[Any]]] = {}
        self._files: dict[str, str] = {}
        self._board = board
        self._boards: dict[tuple[str, int], Any] = {}
        self._board_time: dict[tuple[str, int], float] = {}

    def steps(self, n: int) -> Iterator[int]:
        """0, 1, ..., n - 1, with progress shown and the time limit kept (raises `TimeLimitReached`)."""
        for step in range(n):
            now = time.monotonic()
            if now - self._begun > self._time_limit:
                raise TimeLimitReached(
                    f"longer than its time limit of {self._time_limit:g} s (at step {step} of {n})"
                )
            if self._report is not None and now - self._reported > 0.2:
                self._reported = now
                self._report(step / n)
            yield step

    def _generator(self, stream: str, seed: int, device: Any) -> "torch.Generator":
        import torch

        generator = torch.Generator(device=self.device if device is None else device)
        generator.manual_seed(stream_seed(self.study, stream, seed))
        return generator

    def _numpy(self, stream: str, seed: int) -> np.random.Generator:
        return np.random.default_rng(stream_seed(self.study, stream, seed))

    def _log(self, arm: str, seed: int, step: int, values: dict[str, Any]) -> None:
        for name, value in values.items():
            steps, seen = self._curves.setdefault((arm, seed, name), ([], []))
            steps.append(step)
            # Tensors are kept, not read: reading one would wait for the device at every step.
            seen.append(value.detach().clone() if hasattr(value, "detach") else value)
        if self._board is not None:
            now = time.monotonic()
            if now - self._board_time.get((arm, seed), -1.0) > 0.5:
                self._board_time[arm, seed] = now
                writer = self._boards.get((arm, seed)) or self._boards.setdefault(
                    (arm, seed), self._board(arm, seed)
                )
                for name, value in values.items():
                    writer.add_scalar(name, float(value), step)

    def _save(self, arm: str, seed: int, name: str, value: Any) -> None:
        if not name or name.startswith((".", "/")) or ".." in name or "/" in name:
            raise ValueError(f"artifact name {name!r}: use a plain file name")
        if name.startswith("curve:"):
            raise ValueError("artifact names must not start with 'curve:'")
        place = trial_folder(arm, seed)
        (self._folder / place).mkdir(parents=True, exist_ok=True)
        path = self._folder / place / name
        if isinstance(value, bytes):
            path.write_bytes(value)
        elif isinstance(value, str):
            path = path.with_name(name if "." in name else f"{name}.txt")
            path.write_text(value, encoding="utf-8")
        elif arrays := _arrays(value):
            path = path.with_name(f"{name}.npz")
            np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
        else:
            path = path.with_name(f"{name}.json")
            path.write_text(json.dumps(value), encoding="utf-8")
        self._files[path.relative_to(self._folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()

    def finish(self, pairs: Iterable[tuple[str, int]]) -> dict[str, str]:
        """Write the curves of finished pairs; return the checksum of every file that belongs to them."""
        pairs = set(pairs)
        for pair in pairs & set(self._boards):
            self._boards.pop(pair).close()
        arrays: dict[str, np.ndarray] = {}
        for arm, seed, name in [key for key in self._curves if key[:2] in pairs]:
            steps, values = self._curves.pop((arm, seed, name))
            keep = np.unique(
                np.linspace(0, len(steps) - 1, min(len(steps), CURVE_POINTS)).round().astype(int)
            )
            key = f"{trial_folder(arm, seed)}/{name}"
            arrays[f"{key}/steps"] = np.array(steps, dtype=np.int64)[keep]
            arrays[f"{key}/values"] = np.array([float(values[i]) for i in keep], dtype=np.float64)
        if arrays:
            path = self._folder / "curves.npz"
            np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
            self._files["curves.npz"] = hashlib.sha256(path.read_bytes()).hexdigest()
        folders = {trial_folder(*pair) for pair in pairs} | {"curves.npz"}
        mine = {name: sha for name, sha in self._files.items() if name.partition("/")[0] in folders}
        for name in mine:
            del self._files[name]
        return mine

    def move(self, folder: Path) -> None:
        """Go on in another folder, taking along the files of the pairs that have not finished."""
        for place in {name.partition("/")[0] for name in self._files}:
            (self._folder / place).rename(folder / place)
        self._folder = folder


def _arrays(value: Any) -> dict[str, np.ndarray] | None:
    """`value` as named arrays if it is a tensor, an array, or a dict of them; else None."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            raise TypeError("an array of Python objects cannot be saved: give it a numeric dtype")
        return {"value": value}
    if (
        isinstance(value, dict)
        and value
        and all(hasattr(v, "detach") or isinstance(v, np.ndarray) for v in value.values())
    ):
        return {str(k): (_arrays(v) or {})["value"] for k, v in value.items()}
    return None


def trial_folder(arm: str, seed: int) -> str:
    """The folder name of one trial's files (an arm's `/` cannot stand in one)."""
    return f"{arm.replace('/', '~')}@{seed}"


class Trial(_Run):
    """One (arm, seed) run of a study.

    Attributes:
        arm, seed, profile: what runs.
        device: where its tensors belong.
    """

    def __init__(self, arm: str, seed: int, **run: Any) -> None:
        super().__init__(**run)
        self.arm = arm
        self.seed = seed

    def generator(self, stream: str, device: "str | torch.device | None" = None) -> "torch.Generator":
        """A torch generator seeded from (study, stream, seed): the same in every arm, so that arms are paired.

        It lives on the run's device unless `device` says otherwise.
        """
        return self._generator(stream, self.seed, device)

    def numpy(self, stream: str) -> np.random.Generator:
        """The same for numpy."""
        return self._numpy(stream, self.seed)

    def log(self, step: int, **values: Any) -> None:
        """Add points to the curves named by the keywords (floats or 0-d tensors), which are read at the end only."""
        self._log(self.arm, self.seed, step, values)

    def save(self, name: str, value: Any) -> None:
        """Keep an artifact: tensors, arrays or a dict of them (npz), bytes or text (a file of that name), or JSON."""
        self._save(self.arm, self.seed, name, value)


class Batch(_Run):
    """Many (arm, seed) pairs run as one tensor program; each pair keeps its own random streams, curves and files."""

    def __init__(self, pairs: list[tuple[str, int]], **run: Any) -> None:
        super().__init__(**run)
        self.pairs = list(pairs)

    def generator(
        self, stream: str, seed: int, device: "str | torch.device | None" = None
    ) -> "torch.Generator":
        """The torch generator of one seed's stream, as `Trial.generator` gives it."""
        return self._generator(stream, seed, device)

    def numpy(self, stream: str, seed: int) -> np.random.Generator:
        """The same for numpy."""
        return self._numpy(stream, seed)

    def log(self, step: int, *, arm: str, seed: int, **values: Any) -> None:
        """Add points to one pair's curves."""
        self._log(arm, seed, step, values)

    def save(self, name: str, value: Any, *, arm: str, seed: int) -> None:
        """Keep an artifact of one pair."""
        self._save(arm, seed, name, value)
