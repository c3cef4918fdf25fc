import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data import UniqueFeatureAugmenter, add_unique_features, wilson_dataset, wilson_test_set


def by_the_book(labels, first=1):
    """Wilson et al., section 3.3, entry by entry (their indices count from 1)."""
    rows = []
    for i, y in enumerate(labels, start=first):
        row = {1: y, 2: 1.0, 3: 1.0}
        for j in range(4 + 5 * (i - 1), (4 if y > 0 else 8) + 5 * (i - 1) + 1):
            row[j] = 1.0
        rows.append(row)
    width = 3 + 5 * (first - 1 + len(labels))
    return torch.tensor([[row.get(j, 0.0) for j in range(1, width + 1)] for row in rows], dtype=torch.float64)


@settings(deadline=None, max_examples=20)
@given(n_pos=st.integers(1, 7), n_neg=st.integers(1, 7), seed=st.integers(0, 99))
def test_the_data_set_is_the_papers(n_pos, n_neg, seed):
    x, y = wilson_dataset(n_pos, n_neg, torch.Generator().manual_seed(seed))
    assert (int((y == 1).sum()), int((y == -1).sum())) == (n_pos, n_neg)
    assert torch.equal(x, by_the_book(y.tolist()))
    fresh, labels = wilson_test_set(
        n_neg, n_pos, n_train=len(y), generator=torch.Generator().manual_seed(seed)
    )
    assert torch.equal(fresh, by_the_book(labels.tolist(), first=len(y) + 1))
    seen = (x[:, 3:] != 0).any(0)
    assert not (fresh[:, 3 : 3 + 5 * len(y)][:, seen] != 0).any()


def test_the_condition_of_the_lemma_holds_exactly():
    x, y = wilson_dataset(12, 8)
    assert x.shape == (20, 103)
    assert torch.equal(x @ (x.T @ y).sign(), 4 * y)
    assert torch.equal(y[:12], torch.ones(12, dtype=torch.float64))


def test_unique_features_have_strength_count_and_owner():
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([1.0, -1, -1, 1, 1, -1])
    out = add_unique_features(x, y, 0.3, k_pos=2, k_neg=3)
    assert torch.equal(out[:, :4], x)
    blocks = out[:, 4:].unflatten(1, (6, 3))
    own = blocks[torch.arange(6), torch.arange(6)]
    assert torch.allclose(own.sum(1), torch.where(y > 0, 0.6, 0.9))
    assert torch.allclose(blocks.sum((1, 2)), own.sum(1)), "nothing outside one's own block"
    assert ((blocks != 0).sum(0) <= 1).all(), "nobody shares a column"
    both = add_unique_features(x[:2], y[:2], 1.0, first=6, total=8)
    assert both.shape == (2, 4 + 8 * 5)
    assert both[:, 4 : 4 + 30].abs().sum() == 0
    assert torch.equal(add_unique_features(x, y, 0.0)[:, 4:], torch.zeros(6, 30))


def test_the_transformer_fits_into_a_pipeline():
    from sklearn.base import clone
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), np.where(rng.random(30) < 0.6, 1, -1)
    augmenter = UniqueFeatureAugmenter(strength=2.0, k_pos=1, k_neg=3)
    out = augmenter.fit_transform(x, y)
    expected = add_unique_features(torch.as_tensor(x), torch.as_tensor(y, dtype=torch.float64), 2.0, 1, 3)
    assert np.array_equal(out, expected.numpy())
    fresh = augmenter.transform(x[:5] + 1)
    assert np.array_equal(fresh[:, :4], x[:5] + 1)
    assert fresh.shape == (5, out.shape[1])
    assert not fresh[:, 4:].any()
    model = make_pipeline(clone(augmenter), LinearRegression(fit_intercept=False)).fit(x, y)
    plain = LinearRegression(fit_intercept=False).fit(out, y).coef_
    assert np.allclose(model.predict(x[:5]), x[:5] @ plain[:4]), "at prediction nobody has unique features"
    assert augmenter.set_params(strength=0.5).get_params() == {"strength": 0.5, "k_pos": 1, "k_neg": 3}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wilson_dataset(0, 3), "both classes"),
        (lambda: wilson_test_set(3, 0, 5), "both classes"),
        (lambda: wilson_test_set(3, 1, -1), "n_train"),
        (lambda: add_unique_features(torch.ones(2, 1), torch.tensor([0.0, 1.0]), 1.0), "label"),
        (lambda: add_unique_features(torch.ones(1, 1), torch.ones(1), -0.1), "strength"),
        (lambda: add_unique_features(torch.ones(1, 1), torch.ones(1), 1.0, k_neg=-1), "k_neg"),
        (lambda: add_unique_features(torch.ones(2, 1), torch.ones(2), 1.0, first=1, total=2), "blocks"),
        (lambda: UniqueFeatureAugmenter().transform([[1.0]]), "fit"),
        (lambda: UniqueFeatureAugmenter().fit([[1.0]], [1]).transform([[1.0, 2.0]]), "as in fit"),
        (lambda: UniqueFeatureAugmenter().set_params(power=2), "parameters are"),
        (lambda: UniqueFeatureAugmenter().fit([1.0], [1]), "two axes"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
