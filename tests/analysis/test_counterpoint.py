import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.analysis.counterpoint import (
    counterpoint_report,
    interval_histogram,
    jensen_shannon,
    parallels,
    phrase_novelty,
)


def test_what_a_teacher_marks() -> None:
    piece = torch.tensor(
        [
            [
                [72, 67, 64, 48],  # C major
                [74, 69, 66, 50],  # all up a tone: S-B octaves, A-B fifths, S-A fourths, ...
                [74, 55, 66, 50],  # alto below the tenor, and far below the soprano
                [-1, 55, 45, 50],  # tenor out of range and below the bass; soprano rests
            ]
        ]
    )
    report = counterpoint_report(piece)
    assert report.parallel_octaves == 25.0  # one in four steps
    assert report.parallel_fifths == 25.0
    assert report.crossings == 2 / 4
    assert report.out_of_range == 1 / 15
    assert report.wide_spacing == 1 / 4
    assert report.held == pytest.approx((0 + 3 + 2) / 11)
    assert report.stepwise == pytest.approx(4 / 6)
    assert report.large_leaps == pytest.approx(2 / 6)
    # Beats are steps 0 and 2: none of the six pairs of the first; of the second (62-55, 66-74, ...) those marked:
    # S-A 19=7, S-T 8, S-B 0, A-T -11=1 *, A-B 5, T-B 4.
    assert report.dissonant_beats == pytest.approx(1 / 12)
    assert set(report.metrics()) >= {"crossings", "held"}


def test_nothing_to_count() -> None:
    report = counterpoint_report(torch.full((1, 2, 4), -1))
    assert math.isnan(report.out_of_range)
    assert report.parallel_fifths == 0


def test_parallels_and_crossings_agree_with_music21() -> None:
    """On white keys, where the spelling of a fifth is never in doubt."""
    music21 = pytest.importorskip("music21")
    white = torch.tensor([p for p in range(48, 77) if p % 12 in (0, 2, 4, 5, 7, 9, 11)])
    generator = torch.Generator().manual_seed(0)
    quartets = white[torch.randint(len(white), (1500, 2, 2), generator=generator)]
    quartets[::3, :, 0] = quartets[::3, :, 1] + 7  # enough fifths ...
    quartets[1::3, :, 0] = quartets[1::3, :, 1] + 12  # ... and octaves
    quartets = quartets[~torch.isin(quartets % 12, torch.tensor([1, 3, 6, 8, 10])).any(-1).any(-1)]
    fifths, octaves = (parallels(quartets, interval)[:, 0, 0].bool() for interval in (7, 0))
    assert fifths.sum() > 50
    assert octaves.sum() > 50
    for index, ((a, b), (c, d)) in enumerate(quartets.tolist()):
        quartet = music21.voiceLeading.VoiceLeadingQuartet(
            *(music21.note.Note(pitch) for pitch in (a, c, b, d))
        )
        if a >= b and c >= d:  # music21 names intervals from the upper voice down otherwise
            assert quartet.parallelFifth() == bool(fifths[index]), (a, b, c, d)
            both = quartet.parallelOctave() or quartet.parallelUnison()
            simple = (a - b) % 12 == (c - d) % 12 == 0 and a - b != c - d  # an octave to a unison or back
            assert both == bool(octaves[index]) or simple, (a, b, c, d)
        crossed = counterpoint_report(quartets[index : index + 1], ranges=((0, 127),) * 2).crossings > 0
        assert quartet.voiceCrossing() == crossed


def test_histograms() -> None:
    piece = torch.tensor([[[72, 67, 64], [72, 65, -1]]])
    vertical = interval_histogram(piece)
    assert vertical.nonzero().flatten().tolist() == [3, 5, 7, 8]  # 67-64, 72-67, 72-65, 72-64
    torch.testing.assert_close(vertical[[3, 5, 7, 8]], torch.full((4,), 0.25))
    melodic = interval_histogram(piece, kind="melodic")
    assert melodic.nonzero().flatten().tolist() == [10, 12]  # down a tone, and a held note
    assert interval_histogram(torch.full((1, 2, 3), -1)).sum() == 0
    with pytest.raises(ValueError, match="kind is"):
        interval_histogram(piece, kind="diagonal")


@given(seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_jensen_shannon_properties(seed: int) -> None:
    p, q = torch.rand(2, 5, 12, generator=torch.Generator().manual_seed(seed)).double()
    p, q = (
        (p * (p > 0.3) + 1e-12) / (p * (p > 0.3) + 1e-12).sum(-1, keepdim=True),
        q / q.sum(-1, keepdim=True),
    )
    forth, back = jensen_shannon(p, q), jensen_shannon(q, p)
    torch.testing.assert_close(forth, back)
    assert bool(((forth >= 0) & (forth <= math.log(2))).all())
    middle = (p + q) / 2
    expected = (torch.kl_div(middle.log(), p).sum(-1) + torch.kl_div(middle.log(), q).sum(-1)) / 2
    torch.testing.assert_close(forth, expected)


def test_jensen_shannon_ends() -> None:
    p = torch.tensor([0.5, 0.5, 0.0, 0.0])
    assert jensen_shannon(p, p).item() == 0
    assert jensen_shannon(p, p.flip(0)).item() == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match="adding up to 1"):
        jensen_shannon(p, p * 2)


def test_novelty() -> None:
    generator = torch.Generator().manual_seed(0)
    corpus = torch.randint(40, 80, (50, 4, 3), generator=generator)
    corpus[0, 1, 1] = -1
    copied = torch.cat([corpus[:1], corpus[7:8] + 3])  # a transposed copy is a copy
    assert phrase_novelty(copied, corpus) == 0.0
    new = copied.clone()
    new[1, 2, 0] += 1
    assert phrase_novelty(new, corpus) == 0.5
    longer = torch.cat([corpus[3], corpus[9]])[None]  # five phrases of four steps, two of them known
    assert phrase_novelty(longer, corpus) == pytest.approx(3 / 5)
    with pytest.raises(ValueError, match="no phrase of 4"):
        phrase_novelty(corpus[:, :2], corpus)


def test_bad_options() -> None:
    piece = torch.zeros(1, 2, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="4 ranges for 3 voices"):
        counterpoint_report(piece[..., :3])
    with pytest.raises(ValueError, match="beat"):
        counterpoint_report(piece, beat=0)
