"""Scores as tensors, and back as something to hear.

A score of `voices` parts on a grid of `steps` points is an integer tensor `[steps, voices]` of MIDI numbers with
`SILENCE` (-1) where a part rests. `PianorollCodec` turns it into one-hot rolls `[voices, steps, pitches]` and back, and
writes Standard MIDI files; `render_wav` plays it with a few sine waves, without a synthesiser.

A grid holds the pitch that *sounds* at each point. Two equal pitches in a row may have been one held note or two struck
ones: that difference is lost, as is every note that begins and ends between two grid points.
"""

import io
import math
import struct
import wave
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from assay._extras import require

SILENCE = -1
"""What stands in a grid where a voice rests."""

TICKS = 480  # of a quarter note, in the MIDI files


@dataclass(frozen=True)
class PianorollCodec:
    """Between grids of pitches `[..., steps, voices]` and one-hot rolls `[..., voices, steps, pitches]`.

    A rest is a column of zeros: no pitch at all. The defaults are those of the paper's data (MIDI 36 to 81, four
    voices, soprano first) on a grid of eighth notes.

    Args:
        min_pitch: lowest MIDI number that a roll can hold.
        max_pitch: highest MIDI number that a roll can hold.
        voices: number of parts.
        step: length of a grid step in quarter notes (0.5 is an eighth, 0.25 a sixteenth).

    Source: Huang et al. (2017), section 3 (arXiv:1903.07227).

    Example:
        >>> codec = PianorollCodec()
        >>> chord = torch.tensor([[72, 67, 64, 48]])
        >>> roll = codec.encode(chord)
        >>> tuple(roll.shape), codec.decode(roll).tolist()
        ((4, 1, 46), [[72, 67, 64, 48]])
    """

    min_pitch: int = 36
    max_pitch: int = 81
    voices: int = 4
    step: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.min_pitch <= self.max_pitch <= 127:
            raise ValueError(
                f"pitches are MIDI numbers with 0 <= min_pitch <= max_pitch <= 127, not {self.min_pitch} "
                f"to {self.max_pitch}"
            )
        if self.voices < 1:
            raise ValueError(f"a score needs at least one voice, not {self.voices}")
        if not self.step > 0:
            raise ValueError(f"step is a positive number of quarter notes, not {self.step}")

    @property
    def pitches(self) -> int:
        """How many pitches a roll holds."""
        return self.max_pitch - self.min_pitch + 1

    def encode(self, piece: Any, *, name: str = "the piece") -> Float[Tensor, "*batch voices steps pitches"]:
        """One-hot rolls of `piece`; a resting cell is all zeros.

        Args:
            piece: pitches `[..., steps, voices]` (tensor or array, -1 for a rest), or a music21 stream.
            name: what errors call the piece.

        Raises:
            ValueError: a wrong number of voices, no steps, a pitch out of range, not whole or not a number.
        """
        grid = _whole(self.grid(piece, name=name) if _is_stream(piece) else piece, name)
        if grid.ndim < 2 or grid.shape[-1] != self.voices:
            raise ValueError(
                f"{name}: expected pitches of shape [..., steps, {self.voices} voices], got {tuple(grid.shape)}"
            )
        if grid.shape[-2] == 0:
            raise ValueError(f"{name} has no steps: give at least one grid point")
        outside = (grid != SILENCE) & ((grid < self.min_pitch) | (grid > self.max_pitch))
        if outside.any():
            raise ValueError(
                f"{name} has the pitch {int(grid[outside][0])}, outside {self.min_pitch}..{self.max_pitch}: "
                "transpose the piece or widen the codec's range"
            )
        cells = grid.transpose(-1, -2)
        levels = torch.arange(self.min_pitch, self.max_pitch + 1, device=grid.device)
        return (cells[..., None] == levels).float()

    def decode(
        self, roll: Float[Tensor, "*batch voices steps pitches"]
    ) -> Int[Tensor, "*batch steps voices"]:
        """The pitches of one-hot rolls, -1 where a cell holds none.

        Raises:
            ValueError: wrong sizes, or a cell that holds more than one pitch.
        """
        if roll.shape[-1] != self.pitches or roll.shape[-3] != self.voices:
            raise ValueError(
                f"expected rolls [..., {self.voices} voices, steps, {self.pitches} pitches], got {tuple(roll.shape)}"
            )
        held = roll.sum(-1)
        if not bool(((roll == 0) | (roll == 1)).all()) or bool((held > 1).any()):
            raise ValueError(
                "a roll to decode holds zeros and ones, at most one pitch in a cell: sample it first"
            )
        grid = torch.where(held > 0, roll.argmax(-1) + self.min_pitch, SILENCE)
        return grid.transpose(-1, -2)

    def grid(self, stream: Any, *, name: str = "the score") -> Int[Tensor, "steps voices"]:
        """The pitch that each part of a music21 score sounds at every grid point.

        Parts are voices in score order. Written repeats are not played out.

        Raises:
            ValueError: a wrong number of parts, an empty score, or a part with two notes at once.
        """
        require("music21", extra="music")
        parts = list(stream.parts)
        if len(parts) != self.voices:
            raise ValueError(f"{name} has {len(parts)} parts, not {self.voices}")
        steps = math.ceil(float(stream.highestTime) / self.step - 1e-9)
        if steps < 1:
            raise ValueError(f"{name} is empty: it has no notes")
        grid = np.full((steps, self.voices), SILENCE, dtype=np.int64)
        for voice, part in enumerate(parts):
            for note in part.flatten().notes:
                # The note sounds at the grid points in [offset, offset + length).
                first = math.ceil(float(note.offset) / self.step - 1e-9)
                last = math.ceil(float(note.offset + note.quarterLength) / self.step - 1e-9)
                if last <= first:
                    continue
                if len(note.pitches) != 1 or (grid[first:last, voice] != SILENCE).any():
                    raise ValueError(
                        f"{name}: part {voice + 1} has several notes at once near quarter {float(note.offset):g}; "
                        "give each voice a part of its own"
                    )
                grid[first:last, voice] = note.pitches[0].midi
        return torch.from_numpy(grid)

    def to_stream(self, piece: Int[Tensor, "steps voices"], *, tempo: float = 72.0) -> Any:
        """A music21 score of a grid of pitches; equal neighbours become one held note."""
        m21 = require("music21", extra="music")
        score = m21.stream.Score()
        for voice in range(self._checked(piece).shape[1]):
            part = m21.stream.Part(id=f"voice-{voice + 1}")
            if voice == 0:
                part.append(m21.tempo.MetronomeMark(number=tempo))
            for pitch, _, length in _runs(piece[:, voice].tolist()):
                element = m21.note.Rest() if pitch == SILENCE else m21.note.Note(int(pitch))
                element.quarterLength = length * self.step
                part.append(element)
            score.insert(0, part)
        return score

    def to_midi(self, piece: Int[Tensor, "steps voices"], *, tempo: float = 72.0, program: int = 52) -> bytes:
        """A Standard MIDI file (format 1, one track a voice) of a grid of pitches.

        Args:
            piece: MIDI numbers, -1 for a rest; equal neighbours become one held note.
            tempo: quarter notes a minute.
            program: General MIDI instrument, from 0 (52 is a choir).
        """
        if not tempo > 0:
            raise ValueError(f"tempo is a positive number of quarter notes a minute, not {tempo}")
        voices = self._checked(piece).shape[1]
        microseconds = round(60e6 / tempo)
        tracks = [b"\x00\xff\x51\x03" + microseconds.to_bytes(3, "big")]
        for voice in range(voices):
            channel = voice + (voice >= 9)  # channel 10 is for drums
            events, now = bytes([0, 0xC0 | channel % 16, program]), 0
            for pitch, start, length in _runs(piece[:, voice].tolist()):
                if pitch == SILENCE:
                    continue
                on, off = (round(step * self.step * TICKS) for step in (start, start + length))
                events += _delta(on - now) + bytes([0x90 | channel % 16, pitch, 80])
                events += _delta(off - on) + bytes([0x80 | channel % 16, pitch, 0])
                now = off
            tracks.append(events)
        header = b"MThd" + struct.pack(">IHHH", 6, 1, len(tracks), TICKS)
        bodies = [track + b"\x00\xff\x2f\x00" for track in tracks]
        return header + b"".join(b"MTrk" + struct.pack(">I", len(body)) + body for body in bodies)

    def _checked(self, piece: Tensor) -> Tensor:
        self.encode(piece)
        return piece


def render_wav(
    piece: Int[Tensor, "steps voices"], *, step: float = 0.5, tempo: float = 72.0, rate: int = 8_000
) -> bytes:
    """A mono 16-bit WAV file of a grid of pitches: every note four harmonics with a soft attack and release.

    Args:
        piece: MIDI numbers, -1 for a rest; equal neighbours become one held note.
        step: length of a grid step in quarter notes.
        tempo: quarter notes a minute.
        rate: samples a second; 8 000 is enough for voices and keeps eight bars under 200 kB.
    """
    if piece.shape[0] < 1 or not (tempo > 0 and step > 0 and rate > 0):
        raise ValueError("needs at least one step and a positive step, tempo and rate")
    seconds = step * 60.0 / tempo
    tail = 0.4
    sound = np.zeros(math.ceil((piece.shape[0] * seconds + tail) * rate))
    for voice in range(piece.shape[1]):
        for pitch, start, length in _runs(piece[:, voice].tolist()):
            if pitch == SILENCE:
                continue
            time = np.arange(math.floor((length * seconds + tail) * rate)) / rate
            frequency = 440.0 * 2 ** ((pitch - 69) / 12)
            tone = sum(
                0.5**k * np.sin(2 * np.pi * (k + 1) * frequency * time)
                for k in range(4)
                if (k + 1) * frequency < rate / 2
            )
            envelope = np.minimum(1, time / 0.03) * np.clip((length * seconds + tail - time) / tail, 0, 1)
            first = math.floor(start * seconds * rate)
            sound[first : first + len(time)] += (tone * envelope)[: len(sound) - first]
    loudest = np.abs(sound).max()
    samples = np.round(sound / (loudest if loudest > 0 else 1) * 0.9 * 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.tobytes())
    return file.getvalue()


def _runs(cells: list[int]) -> list[tuple[int, int, int]]:
    """(value, first index, length) of every run of equal neighbours."""
    values = np.asarray(cells)
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    lengths = np.diff(np.r_[starts, len(values)])
    return [(int(values[s]), int(s), int(n)) for s, n in zip(starts, lengths, strict=True)]


def _delta(ticks: int) -> bytes:
    """A MIDI variable-length quantity: seven bits a byte, the high bit set on all but the last."""
    out = bytes([ticks & 0x7F])
    while ticks := ticks >> 7:
        out = bytes([ticks & 0x7F | 0x80]) + out
    return out


def _is_stream(piece: Any) -> bool:
    return hasattr(piece, "parts") and hasattr(piece, "highestTime")


def _whole(piece: Any, name: str) -> Tensor:
    """`piece` as whole numbers, or an error that says why not."""
    grid = torch.as_tensor(piece)
    if grid.is_floating_point():
        if not bool(torch.isfinite(grid).all()):
            raise ValueError(f"{name} has pitches that are not numbers (NaN or infinite): write a rest as -1")
        if not bool((grid == grid.round()).all()):
            raise ValueError(f"{name} has pitches between two semitones: round them first")
    elif grid.is_complex() or grid.dtype == torch.bool:
        raise ValueError(f"{name}: expected MIDI numbers, got {grid.dtype}")
    return grid.long()
