"""Instructions: hash buckets, padding, and the encoder that reads them."""

import subprocess
import sys
import zlib

import pytest
import torch

from assay.rl.instruction import InstructionEncoder, hash_words
from assay.rl.nets import DictTorso, ImpalaResNet


def test_words_fall_into_buckets_whatever_their_case_and_punctuation() -> None:
    ids = hash_words(["Go to the red door!", "go, TO the", ""], buckets=1000, length=6)
    assert ids.dtype == torch.int64
    assert ids.shape == (3, 6)
    assert torch.equal(ids[0, :3], ids[1, :3])
    assert ids[0, 0] == zlib.crc32(b"go") % 1000 + 1
    assert (ids[0, :5] > 0).all()
    assert ids[0, 5] == ids[1, 3] == 0
    assert not ids[2].any()
    assert hash_words(["a b c d"], length=2).shape == (1, 2)
    assert hash_words(["a few words more"], buckets=3).max() <= 3


def test_the_hash_is_that_of_every_other_process() -> None:
    """Python's own hash of strings differs between processes: actors and learner would disagree."""
    program = (
        "from assay.rl.instruction import hash_words; print(hash_words(['take the key'], length=3).tolist())"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.strip() == str(hash_words(["take the key"], length=3).tolist())


def test_paddings_change_nothing_and_words_and_their_order_do() -> None:
    torch.manual_seed(0)
    encoder = InstructionEncoder()
    assert encoder.features == 64
    assert encoder.embedding.weight.shape == (1001, 20)
    texts = ["find the key", "the key find", "find the door"]
    short, long = (encoder(hash_words(texts, length=n)) for n in (3, 11))
    torch.testing.assert_close(short, long)
    assert not torch.allclose(short[0], short[1], atol=1e-3)
    assert not torch.allclose(short[0], short[2], atol=1e-3)
    assert not encoder(hash_words([""])).any()


def test_it_reads_sequences_and_joins_pictures() -> None:
    torso = DictTorso({"image": ImpalaResNet(3, 16, (4,), 8), "text": InstructionEncoder(50, 4, 6)})
    obs = {"image": torch.rand(5, 2, 3, 16, 16), "text": hash_words(["go up", "stay"], 50, 4).expand(5, 2, 4)}
    out = torso(obs)
    assert out.shape == (5, 2, 14)
    torch.testing.assert_close(out[0, :, 8:], out[4, :, 8:])
    out.sum().backward()
    grad = torso.torsos["text"].embedding.weight.grad
    used = set(hash_words(["go up", "stay"], 50, 4).unique().tolist()) - {0}
    assert set(grad.any(1).nonzero().flatten().tolist()) == used


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        hash_words(["x"], buckets=0)
    with pytest.raises(TypeError, match="ids of words"):
        InstructionEncoder()(torch.zeros(1, 3))
