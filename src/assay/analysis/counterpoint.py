"""What a harmony teacher would mark in four-part writing, counted over whole batches of grids.

A grid is `[pieces, steps, voices]` of MIDI numbers, highest voice first, -1 where a voice rests (see
`assay.data.PianorollCodec`). Bach breaks these rules too, now and then: the numbers mean something beside his.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor

RANGES: tuple[tuple[int, int], ...] = ((60, 81), (53, 74), (48, 69), (36, 62))
"""Lowest and highest pitch of soprano, alto, tenor and bass."""

DISSONANT = (1, 2, 6, 10, 11)
"""Interval classes: seconds, sevenths and the tritone. The fourth counts as consonant."""


@dataclass(frozen=True)
class CounterpointReport:
    """Shares between 0 and 1 unless said otherwise; NaN where there was nothing to count.

    Attributes:
        out_of_range: notes outside their voice's range.
        crossings: steps at which some voice lies below the next lower one.
        wide_spacing: steps with more than an octave between neighbouring upper voices (the bass may be further off).
        parallel_fifths, parallel_octaves: a hundred steps' count of voice pairs that move in the same direction from
            a fifth (an octave or unison) to another.
        dissonant_beats: voice pairs on beats that are a second, a seventh or a tritone apart.
        held: steps at which a voice stays where it was.
        stepwise: of the moves, those by one or two semitones.
        large_leaps: of the moves, those by more than an octave.
    """

    out_of_range: float
    crossings: float
    wide_spacing: float
    parallel_fifths: float
    parallel_octaves: float
    dissonant_beats: float
    held: float
    stepwise: float
    large_leaps: float

    def metrics(self) -> dict[str, float]:
        """Name -> number."""
        return asdict(self)


def counterpoint_report(
    pieces: Int[Tensor, "pieces steps voices"],
    *,
    beat: int = 2,
    ranges: Sequence[tuple[int, int]] = RANGES,
) -> CounterpointReport:
    """Counts of `pieces`, which begin on a beat.

    Args:
        pieces: MIDI numbers, highest voice first, -1 for a rest.
        beat: steps to a beat (2 on a grid of eighths).
        ranges: lowest and highest pitch of each voice.

    Example:
        >>> chord = torch.tensor([[[72, 67, 64, 48], [74, 69, 65, 50]]])
        >>> counterpoint_report(chord).parallel_octaves
        50.0
    """
    voices = pieces.shape[2]
    if len(ranges) != voices:
        raise ValueError(f"{len(ranges)} ranges for {voices} voices: give one for each voice")
    if beat < 1:
        raise ValueError(f"beat is at least 1 step, not {beat}")
    sounds = pieces >= 0
    low, high = torch.tensor(ranges, device=pieces.device).T
    neighbours = sounds[..., :-1] & sounds[..., 1:]
    gap = pieces[..., :-1] - pieces[..., 1:]
    move = pieces[:, 1:] - pieces[:, :-1]
    both = sounds[:, 1:] & sounds[:, :-1]
    moved = both & (move != 0)
    strong, strong_sounds = _pairs(pieces[:, ::beat])
    return CounterpointReport(
        out_of_range=_share(((pieces < low) | (pieces > high)) & sounds, sounds),
        crossings=_share(((gap < 0) & neighbours).any(-1), neighbours.any(-1)),
        wide_spacing=_share(((gap > 12) & neighbours)[..., :-1].any(-1), neighbours[..., :-1].any(-1)),
        parallel_fifths=_parallels(pieces, 7),
        parallel_octaves=_parallels(pieces, 0),
        dissonant_beats=_share(
            torch.isin(strong, torch.tensor(DISSONANT, device=pieces.device)) & strong_sounds, strong_sounds
        ),
        held=_share(both & (move == 0), both),
        stepwise=_share(moved & (move.abs() <= 2), moved),
        large_leaps=_share(moved & (move.abs() > 12), moved),
    )


def parallels(pieces: Int[Tensor, "pieces steps voices"], interval: int) -> Int[Tensor, "pieces moves pairs"]:
    """1 where two voices move in the same direction from `interval` (mod 12) to `interval`, by step and voice pair.

    Pairs are in the order of `itertools.combinations(range(voices), 2)`; 7 is a fifth, 0 an octave or unison.
    """
    classes, sounds = _pairs(pieces)
    move = pieces[:, 1:] - pieces[:, :-1]
    first, second = _indices(pieces)
    together = move[..., first].sign() * move[..., second].sign() > 0
    kept = (classes[:, 1:] == interval) & (classes[:, :-1] == interval) & sounds[:, 1:] & sounds[:, :-1]
    return (together & kept).long()


def interval_histogram(
    pieces: Int[Tensor, "pieces steps voices"], *, kind: str = "vertical"
) -> Float[Tensor, "bins"]:
    """How often each interval sounds, as shares that add up to 1 (all zero if there is none).

    "vertical": classes 0..11 of the earlier minus the later voice (soprano minus bass), all voice pairs at each step.
    "melodic": moves of a voice from step to step, clipped to -12..12 semitones, holds included (25 bins).
    """
    if kind == "vertical":
        classes, sounds = _pairs(pieces)
        counts = torch.bincount(classes[sounds], minlength=12)
    elif kind == "melodic":
        both = (pieces[:, 1:] >= 0) & (pieces[:, :-1] >= 0)
        move = (pieces[:, 1:] - pieces[:, :-1]).clamp(-12, 12) + 12
        counts = torch.bincount(move[both].long(), minlength=25)
    else:
        raise ValueError(f"kind is 'vertical' or 'melodic', not {kind!r}")
    return counts.float() / counts.sum().clamp(min=1)


def jensen_shannon(
    p: Float[Tensor, "*batch bins"], q: Float[Tensor, "*batch bins"]
) -> Float[Tensor, "*batch"]:
    """Jensen-Shannon divergence of two distributions, in nats: 0 if equal, log 2 if they never meet."""
    for side in (p, q):
        if bool((side < 0).any()) or not bool(((side.sum(-1) - 1).abs() < 1e-4).all()):
            raise ValueError("both sides must be distributions: not negative, adding up to 1")
    middle = (p + q) / 2
    terms = [torch.special.xlogy(side, side / middle.clamp(min=1e-30)) for side in (p, q)]
    return (terms[0] + terms[1]).sum(-1) / 2


def phrase_novelty(
    pieces: Int[Tensor, "pieces steps voices"], corpus: Int[Tensor, "windows length voices"]
) -> float:
    """Share of the `length`-step phrases of `pieces` that `corpus` has at no pitch level.

    Phrases are compared by all voices at all steps, relative to the first note that sounds: 0 is copied, 1 is new.

    Args:
        pieces: grids to look at, at least `length` steps long.
        corpus: the phrases that were there to copy, e.g. `ChoraleSet.windows(length)`.
    """
    length = corpus.shape[1]
    if pieces.shape[1] < length:
        raise ValueError(
            f"pieces of {pieces.shape[1]} steps have no phrase of {length}: take shorter phrases"
        )
    phrases = pieces.unfold(1, length, 1).permute(0, 1, 3, 2).flatten(0, 1)
    known = _relative(corpus).to(phrases.device)
    both = torch.cat([known, _relative(phrases)])
    label = both.unique(dim=0, return_inverse=True)[1]
    return float((~torch.isin(label[len(known) :], label[: len(known)])).float().mean())


def _relative(phrases: Tensor) -> Tensor:
    flat = phrases.long().flatten(1)
    first = (flat >= 0).long().argmax(1, keepdim=True)
    return torch.where(flat >= 0, flat - flat.gather(1, first), -128).to(torch.int16)


def _indices(pieces: Tensor) -> tuple[Tensor, Tensor]:
    pairs = list(combinations(range(pieces.shape[2]), 2))
    first, second = torch.tensor(pairs, device=pieces.device).T
    return first, second


def _pairs(pieces: Tensor) -> tuple[Tensor, Tensor]:
    """Interval class of every voice pair, and whether both sound."""
    first, second = _indices(pieces)
    classes = (pieces[..., first] - pieces[..., second]).long() % 12
    return classes, (pieces[..., first] >= 0) & (pieces[..., second] >= 0)


def _parallels(pieces: Tensor, interval: int) -> float:
    return 100 * float(parallels(pieces, interval).sum()) / max(1, pieces.shape[0] * pieces.shape[1])


def _share(hits: Tensor, cases: Tensor) -> float:
    count = int(cases.sum())
    return float(hits.sum()) / count if count else float("nan")
