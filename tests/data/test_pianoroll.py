import io
import wave

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data.pianoroll import PianorollCodec, _delta, _runs, render_wav

CODEC = PianorollCodec()


def random_grid(steps: int, seed: int, rests: float = 0.2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    grid = torch.randint(36, 82, (steps, 4), generator=generator)
    return torch.where(torch.rand(steps, 4, generator=generator) < rests, -1, grid)


def test_a_pitch_stands_in_its_voice_step_and_row() -> None:
    roll = CODEC.encode(torch.tensor([[72, 67, 64, 36], [81, 67, -1, 48]]))
    assert roll.shape == (4, 2, 46)
    assert roll.nonzero().tolist() == [
        [0, 0, 36],
        [0, 1, 45],
        [1, 0, 31],
        [1, 1, 31],
        [2, 0, 28],
        [3, 0, 0],
        [3, 1, 12],
    ]


@given(steps=st.integers(1, 20), seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_decoding_undoes_encoding(steps: int, seed: int) -> None:
    grid = random_grid(steps, seed)
    assert torch.equal(CODEC.decode(CODEC.encode(grid)), grid)
    batch = torch.stack([grid, grid.flip(0)])
    assert torch.equal(CODEC.decode(CODEC.encode(batch.numpy())), batch)


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        (torch.tensor([[60, 55, 50, 35]]), "bwv 1 has the pitch 35, outside 36..81"),
        (torch.tensor([[82, 55, 50, 40]]), "transpose the piece or widen"),
        (torch.tensor([[60, 55, 50]]), "4 voices"),
        (torch.zeros(0, 4, dtype=torch.long), "no steps"),
        (torch.tensor([[60.0, float("nan"), 50.0, 40.0]]), "not numbers"),
        (torch.tensor([[60.5, 55.0, 50.0, 40.0]]), "between two semitones"),
        (torch.ones(2, 4, dtype=torch.bool), "expected MIDI numbers"),
    ],
)
def test_bad_pieces_are_named(piece: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CODEC.encode(piece, name="bwv 1")


def test_only_sampled_rolls_can_be_decoded() -> None:
    with pytest.raises(ValueError, match="zeros and ones"):
        CODEC.decode(torch.full((4, 2, 46), 1 / 46))
    with pytest.raises(ValueError, match="at most one pitch"):
        CODEC.decode(torch.ones(4, 2, 46))
    with pytest.raises(ValueError, match="46 pitches"):
        CODEC.decode(torch.zeros(4, 2, 45))


@pytest.mark.parametrize("bad", [{"min_pitch": 90}, {"max_pitch": 128}, {"voices": 0}, {"step": 0.0}])
def test_bad_codecs(bad: dict) -> None:
    with pytest.raises(ValueError, match="not"):
        PianorollCodec(**bad)


@pytest.mark.parametrize("step", [0.5, 0.25, 1.0])
def test_midi_read_by_music21_gives_the_same_grid(step: float) -> None:
    music21 = pytest.importorskip("music21")
    codec = PianorollCodec(step=step)
    grid = random_grid(24, 3).repeat_interleave(2, 0)
    grid[-1] = torch.tensor([72, 67, 64, 48])  # the file ends when the last note does
    score = music21.converter.parseData(codec.to_midi(grid, tempo=90.0), format="midi")
    assert torch.equal(codec.grid(score), grid)
    assert score.recurse().getElementsByClass("MetronomeMark").first().number == pytest.approx(90, abs=0.01)
    # A run of equal pitches is one note as long as the run.
    first = next(iter(score.parts[0].flatten().notes))
    value, _, length = next(run for run in _runs(grid[:, 0].tolist()) if run[0] >= 0)
    assert (first.pitch.midi, float(first.quarterLength)) == (value, length * step)


def test_a_stream_made_from_a_grid_gives_the_grid() -> None:
    pytest.importorskip("music21")
    grid = random_grid(15, 4)
    stream = CODEC.to_stream(grid)
    assert torch.equal(CODEC.grid(stream), grid)
    assert torch.equal(CODEC.encode(stream), CODEC.encode(grid))


def test_the_grid_holds_what_sounds_at_each_point() -> None:
    music21 = pytest.importorskip("music21")
    codec = PianorollCodec(voices=1)
    part = music21.stream.Part()
    # Two sixteenths (only the first is heard at a grid point), a dotted eighth that reaches over one, a rest.
    for pitch, length in ((60, 0.25), (62, 0.25), (64, 0.75), (65, 0.25), (None, 0.5)):
        element = music21.note.Note(pitch) if pitch else music21.note.Rest()
        element.quarterLength = length
        part.append(element)
    score = music21.stream.Score([part])
    assert codec.grid(score)[:, 0].tolist() == [60, 64, 64, -1]
    part.insert(0.5, music21.note.Note(70, quarterLength=0.5))
    with pytest.raises(ValueError, match="the score: part 1 has several notes at once near quarter"):
        codec.grid(score)
    with pytest.raises(ValueError, match="has 1 parts, not 4"):
        CODEC.grid(score)
    with pytest.raises(ValueError, match="is empty"):
        codec.grid(music21.stream.Score([music21.stream.Part()]))


@pytest.mark.parametrize(
    ("ticks", "code"), [(0, b"\x00"), (127, b"\x7f"), (128, b"\x81\x00"), (0x3FFF, b"\xff\x7f")]
)
def test_midi_lengths(ticks: int, code: bytes) -> None:
    assert _delta(ticks) == code


def test_wav_sounds_at_the_right_pitch_and_length() -> None:
    grid = torch.tensor([[69], [69], [69], [69]])
    data = render_wav(grid, step=0.5, tempo=60.0, rate=8000)
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)
    assert len(samples) == pytest.approx((2.0 + 0.4) * 8000, abs=1)
    spectrum = np.abs(np.fft.rfft(samples[:16000]))
    assert np.fft.rfftfreq(16000, 1 / 8000)[spectrum.argmax()] == pytest.approx(440, abs=0.6)
    assert abs(samples).max() == pytest.approx(0.9 * 32767, abs=2)  # no clipping
    with wave.open(io.BytesIO(render_wav(torch.full((2, 3), -1)))) as file:
        assert not any(file.readframes(file.getnframes()))
    with pytest.raises(ValueError, match="at least one step"):
        render_wav(torch.zeros(0, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="tempo"):
        CODEC.to_midi(grid.expand(4, 4), tempo=0.0)
