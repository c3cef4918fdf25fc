r"""Instructions in words as features: the language part of IMPALA's agent for DMLab (figure 3 of the paper)."""

import re
import zlib
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor, nn

from assay.rl.nets import Torso

_WORD = re.compile(r"\w+")


def hash_words(texts: Sequence[str], buckets: int = 1000, length: int = 16) -> Int[Tensor, "batch {length}"]:
    """Texts as ids of hash buckets: each word, in lower case, to 1..buckets; 0 is padding.

    No vocabulary is needed and no word is unknown; two words share a bucket now and then. The hash (CRC-32) is the
    same in every process, unlike Python's own.

    Args:
        texts: one a row.
        buckets: how many.
        length: words kept; the rest of a longer text is cut off.

    Raises:
        ValueError: buckets or length below 1.

    Example:
        >>> hash_words(["Go to the red door", "go"], length=5).shape
        torch.Size([2, 5])
    """
    if buckets < 1 or length < 1:
        raise ValueError(f"buckets and length are at least 1: got {buckets} and {length}")
    ids = torch.zeros(len(texts), length, dtype=torch.int64)
    for row, text in enumerate(texts):
        words = _WORD.findall(text.lower())[:length]
        if words:
            ids[row, : len(words)] = torch.tensor([zlib.crc32(w.encode()) % buckets + 1 for w in words])
    return ids


class InstructionEncoder(Torso):
    """Word ids [..., L] through embeddings and an LSTM; its state after the last word is the feature.

    A torso like others: `DictTorso({"image": ImpalaResNet(3, 72), "instruction": InstructionEncoder()})` joins it with
    the picture. A text of padding alone gives zeros.

    Args:
        buckets: ids are 0 (padding) to this (`hash_words`); 1,000 in the paper.
        dim: of the embeddings; 20 in the paper.
        hidden: units of the LSTM, the number of features; 64 in the paper.

    Example:
        >>> InstructionEncoder()(hash_words(["take the key", "open the door"])).shape
        torch.Size([2, 64])
    """

    obs_ndim = 1

    def __init__(self, buckets: int = 1000, dim: int = 20, hidden: int = 64):
        super().__init__()
        self.buckets = buckets
        self.embedding = nn.Embedding(buckets + 1, dim, padding_idx=0)
        self.lstm = nn.LSTM(dim, hidden, batch_first=True)
        self.features = hidden

    def encode(self, obs: Tensor) -> Tensor:
        """[B, L] int64 to [B, hidden]."""
        if obs.is_floating_point():
            raise TypeError(f"instructions are ids of words (hash_words), int64: got {obs.dtype}")
        outputs, _ = self.lstm(self.embedding(obs))
        words = (obs != 0).sum(1)
        last = outputs[torch.arange(len(obs), device=obs.device), (words - 1).clamp(min=0)]
        return last * (words > 0)[:, None]
