"""Four-part chorales by J. S. Bach as grids of pitches.

The default source is the corpus that music21 carries with it: 408 MusicXML files named `bwv*`, of which 364 have
exactly four parts. The compositions are in the public domain; the encodings come with music21 "by permission", some
with restrictions, and no licence for passing them on is stated file by file. So assay ships none of them: it reads the
corpus of the reader's own music21 once (about half a minute on one core) and keeps the grids in the user's cache.

Other sources: `Jsb16thSeparated.json` (the four-part set of Boulanger-Lewandowski et al., 2012, at sixteenths, with its
own splits), and any folder of MusicXML or MIDI files with one part a voice.
"""

import hashlib
import json
import math
import os
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import Int
from platformdirs import user_cache_path
from torch import Tensor

from assay._extras import require
from assay.data.pianoroll import SILENCE, PianorollCodec

GRID = 0.25
"""Files are read at sixteenths; a coarser step takes every second, fourth, ... point."""

PARSER_VERSION = 1
"""Raised whenever the same files would give other grids: the cache then reads them anew."""

SPLITS = {"train": 0.70, "valid": 0.15, "test": 0.15}
SCORES = {".mxl", ".musicxml", ".xml", ".mid", ".midi", ".krn"}

Split = Literal["train", "valid", "test", "all"]


@dataclass(frozen=True)
class ChoraleSet:
    """Pieces on one grid.

    Attributes:
        names: what each piece is called.
        pieces: MIDI numbers `[steps, voices]` (int16) of each, soprano first, -1 for a rest.
        step: length of a grid step in quarter notes.
    """

    names: tuple[str, ...]
    pieces: tuple[Int[Tensor, "_ voices"], ...]
    step: float

    def __post_init__(self) -> None:
        if len(self.names) != len(self.pieces):
            raise ValueError(f"{len(self.names)} names for {len(self.pieces)} pieces")

    def __len__(self) -> int:
        return len(self.pieces)

    def subset(self, indices: Sequence[int]) -> "ChoraleSet":
        """The pieces at `indices`, in that order."""
        return ChoraleSet(
            tuple(self.names[i] for i in indices), tuple(self.pieces[i] for i in indices), self.step
        )

    def transposed(self, shifts: range | Sequence[int], low: int = 36, high: int = 81) -> "ChoraleSet":
        """Every piece moved by every shift (in semitones) that keeps it inside `low..high`."""
        names: list[str] = []
        pieces: list[Tensor] = []
        for name, piece in zip(self.names, self.pieces, strict=True):
            sounding = piece[piece != SILENCE]
            for shift in shifts:
                if len(sounding) and (sounding.min() + shift < low or sounding.max() + shift > high):
                    continue
                names.append(f"{name}{shift:+d}" if shift else name)
                pieces.append(torch.where(piece == SILENCE, piece, piece + shift).to(piece.dtype))
        return ChoraleSet(tuple(names), tuple(pieces), self.step)

    def windows(self, length: int, hop: int = 1) -> Int[Tensor, "windows length voices"]:
        """All stretches of `length` steps that begin at a multiple of `hop`; shorter pieces give none.

        Raises:
            ValueError: when no piece is long enough.
        """
        if length < 1 or hop < 1:
            raise ValueError(f"length and hop are at least 1 step, not {length} and {hop}")
        cut = [piece.unfold(0, length, hop).transpose(1, 2) for piece in self.pieces if len(piece) >= length]
        if not cut:
            raise ValueError(
                f"no piece has {length} steps of {self.step:g} quarter notes: ask for shorter windows"
            )
        return torch.cat(cut)


def load_chorales(
    step: float = 0.5,
    *,
    split: Split = "train",
    transpose: tuple[int, int] | None = None,
    source: str | Path = "music21",
    voices: int = 4,
    unique: bool = True,
) -> ChoraleSet:
    """Chorales on a grid of `step` quarter notes.

    Pieces with another number of parts are left out. Of pieces with the same soprano line (on the beats, at any pitch)
    only the first is kept, so that no tune stands on both sides of a split: 318 of the default source. Splits are
    drawn by the hash of a piece's name (70/15/15 %), so they stay as they are when files are added. Every chorale
    of the default source begins on a beat: even points of a grid of eighths are beats.

    Args:
        step: 0.25 (sixteenths) or a multiple of it.
        split: "train", "valid", "test" or "all".
        transpose: lowest and highest shift in semitones; every piece is repeated at each shift within MIDI 36..81.
        source: "music21", the path of a `Jsb16thSeparated.json`, or a folder of MusicXML/MIDI files.
        voices: parts of a piece (of the default source: 4).
        unique: leave out pieces with a soprano line seen before (the json source keeps its own splits as they are).

    Raises:
        ValueError: a step off the grid, an unknown split, a file that is not what it should be.
        FileNotFoundError: no such source.
        assay._extras.MissingExtra: music21 is needed and not installed.
    """
    every = step / GRID
    if every < 1 or every != round(every):
        raise ValueError(f"step is a multiple of {GRID} quarter notes, not {step}")
    if split not in (*SPLITS, "all"):
        raise ValueError(f"split is one of {', '.join(SPLITS)} or all, not {split!r}")
    if str(source).endswith(".json"):
        names, grids = _read_json(Path(source), split, voices)
    else:
        names, grids = _read_scores(source, voices)
        if unique:
            kept = _first_of_each_tune(grids)
            names, grids = [names[i] for i in kept], [grids[i] for i in kept]
        chosen = [i for i, name in enumerate(names) if split in ("all", split_of(name))]
        names, grids = [names[i] for i in chosen], [grids[i] for i in chosen]
    pieces = tuple(torch.from_numpy(grid[:: round(every)].astype(np.int16)) for grid in grids)
    chorales = ChoraleSet(tuple(names), pieces, step)
    if transpose is None:
        return chorales
    return chorales.transposed(range(transpose[0], transpose[1] + 1))


def split_of(name: str) -> str:
    """The split of a piece, from the hash of its name."""
    draw = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    for split, share in SPLITS.items():
        if draw < share:
            return split
        draw -= share
    return "test"


def synthetic_chorales(
    count: int, steps: int, *, generator: torch.Generator | None = None, step: float = 0.5
) -> ChoraleSet:
    """Made-up pieces for trying things out: triads of a major key in four voices, one chord a beat (two steps).

    The bass has the root; tenor, alto and soprano the three notes of the triad in a random inversion. All pitches
    lie in MIDI 40..80.
    """
    if count < 1 or steps < 1:
        raise ValueError(f"count and steps are at least 1, not {count} and {steps}")
    beats = math.ceil(steps / 2)

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    scale = torch.tensor([0, 2, 4, 5, 7, 9, 11])
    # Chords move by at most a third; an inversion lifts the lowest notes of a triad by an octave.
    degree = (draw(7, count, 1) + draw(5, count, beats).sub(2).cumsum(1)) % 7
    tonic = 40 + draw(6, count, 1)
    triad = torch.stack([scale[(degree + k) % 7] for k in (0, 2, 4)], -1).sort(-1).values
    lift = 12 * (torch.arange(3) < draw(3, count, beats, 1)).long()
    upper = (tonic[..., None] + 12 + triad + lift).sort(-1).values.flip(-1)
    chords = torch.cat([upper, (tonic + scale[degree])[..., None]], -1)
    grids = chords.repeat_interleave(2, 1)[:, :steps].to(torch.int16)
    return ChoraleSet(tuple(f"made-up {i + 1}" for i in range(count)), tuple(grids), step)


def cache_folder() -> Path:
    """Where parsed scores are kept: `ASSAY_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("ASSAY_CACHE") or user_cache_path("assay"))


def _first_of_each_tune(grids: Sequence[np.ndarray]) -> list[int]:
    """Indices of the pieces whose soprano, heard on the beats and at any pitch, has not come before."""
    seen: set[bytes] = set()
    kept = []
    for index, grid in enumerate(grids):
        soprano = grid[:: round(1 / GRID), 0].astype(np.int64)
        sounding = soprano[soprano != SILENCE]
        tune = np.where(soprano == SILENCE, -128, soprano - (sounding[0] if len(sounding) else 0)).tobytes()
        if tune not in seen:
            seen.add(tune)
            kept.append(index)
    return kept


def _read_json(path: Path, split: str, voices: int) -> tuple[list[str], list[np.ndarray]]:
    """Names and grids of one split (or all) of a `Jsb16thSeparated.json`: {split: [[[s, a, t, b], ...], ...]}."""
    if not path.is_file():
        raise FileNotFoundError(
            f"no file {path}: get Jsb16thSeparated.json (github.com/czhuang/JSB-Chorales-dataset) and give its path"
        )
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    wanted = list(SPLITS) if split == "all" else [split]
    if not isinstance(content, dict) or any(part not in content for part in wanted):
        raise ValueError(
            f"{path} does not look like Jsb16thSeparated.json: it needs the keys {', '.join(wanted)}"
        )
    names, grids = [], []
    for part in wanted:
        for number, piece in enumerate(content[part]):
            name = f"{part} {number}"
            try:
                grid = np.asarray(piece, dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}: piece {name} is not a table of {voices} pitches a step") from error
            if grid.ndim != 2 or grid.shape[1] != voices or not np.isfinite(grid).all():
                raise ValueError(f"{path}: piece {name} is not a table of {voices} pitches a step")
            names.append(name)
            grids.append(np.where(grid < 0, SILENCE, grid).astype(np.int16))
    return names, grids


def _read_scores(source: str | Path, voices: int) -> tuple[list[str], list[np.ndarray]]:
    """Names and grids at sixteenths of a folder of scores, from the cache or (once, under a lock) from the files."""
    if str(source) == "music21":
        music21 = require("music21", extra="music")
        files = sorted(Path(music21.__path__[0], "corpus", "bach").glob("bwv*.mxl"))
        if not files:
            raise FileNotFoundError(
                "this music21 came without its corpus: install the one from the package index (pip install music21)"
            )
        title = "bach"
    else:
        folder = Path(source)
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}: give 'music21', a .json file or a folder of scores")
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SCORES)
        if not files:
            raise FileNotFoundError(f"{folder} holds no score ({', '.join(sorted(SCORES))})")
        music21 = require("music21", extra="music")
        # Another set of files, or a changed one, is another cache entry.
        state = "\n".join(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)
        title = "folder-" + hashlib.sha256(f"{voices}\n{state}".encode()).hexdigest()[:16]
    path = cache_folder() / "chorales" / f"{title}-music21-{music21.__version__}-parser-{PARSER_VERSION}.npz"
    stored = _load(path)
    if stored is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            stored = _load(path)  # another process may have written it while this one waited
            if stored is None:
                stored = _parse(files, voices)
                _store(path, *stored)
    return stored


def _parse(files: Sequence[Path], voices: int) -> tuple[list[str], list[np.ndarray]]:
    """Reads scores in as many processes as there are cores; those without `voices` parts are left out."""
    from joblib import Parallel, delayed, parallel_config

    workers = 1 if len(files) < 16 else max(1, min(len(files) // 8, os.cpu_count() or 1))
    with parallel_config(backend="loky", inner_max_num_threads=1):
        read = Parallel(n_jobs=workers)(delayed(_parse_file)(str(path), voices) for path in files)
    failed = [(path.name, problem) for path, (_, problem) in zip(files, read, strict=True) if problem]
    names = [path.stem for path, (grid, _) in zip(files, read, strict=True) if grid is not None]
    grids = [grid for grid, _ in read if grid is not None]
    if not grids:
        reason = f"; the first: {failed[0][0]}: {failed[0][1]}" if failed else ""
        raise ValueError(f"none of {len(files)} scores has exactly {voices} single-note parts{reason}")
    if failed:
        warnings.warn(
            f"{len(failed)} of {len(files)} scores could not be used; the first: {failed[0][0]}: {failed[0][1]}",
            stacklevel=2,
        )
    return names, grids


def _parse_file(path: str, voices: int) -> tuple[np.ndarray | None, str]:
    """The grid at sixteenths of one score, or None and (where that is not by its number of parts) the problem."""
    music21 = require("music21", extra="music")
    try:
        score: Any = music21.converter.parse(path, forceSource=True)
        if len(score.parts) != voices:
            return None, ""
        grid = PianorollCodec(voices=voices, step=GRID).grid(score, name=Path(path).name)
        return grid.numpy().astype(np.int16), ""
    except (music21.exceptions21.Music21Exception, ValueError, OSError, zipfile.BadZipFile) as error:
        return None, str(error) or type(error).__name__


def _store(path: Path, names: Sequence[str], grids: Sequence[np.ndarray]) -> None:
    """Writes the cache file in one move, so that a reader sees all of it or nothing."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(
                file,
                names=np.asarray(names),
                lengths=np.asarray([len(grid) for grid in grids]),
                pitches=np.concatenate(grids).astype(np.int16),
            )
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _load(path: Path) -> tuple[list[str], list[np.ndarray]] | None:
    """What the cache file holds; None when it is absent or damaged (it is then written anew)."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            names, lengths, pitches = (stored[key] for key in ("names", "lengths", "pitches"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if len(names) != len(lengths) or lengths.sum() != len(pitches):
        return None
    return names.tolist(), np.split(pitches, np.cumsum(lengths)[:-1])
