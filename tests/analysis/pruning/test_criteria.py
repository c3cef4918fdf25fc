"""Scores and masks: the paper's small example, exact counts, nestedness, parity with torch.nn.utils.prune."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from assay.analysis.pruning import (
    CRITERIA,
    build_mask,
    density,
    global_magnitude_masks,
    quadrant_mask,
    same_sign,
    shuffle_masks,
)

WI = torch.tensor([0.5, -0.2, 0.1, -0.4])
WF = torch.tensor([0.6, 0.3, -0.05, -0.1])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def kept(name: str, n: int = 2) -> set[int]:
    mask = build_mask(CRITERIA[name].score(WI, WF, torch.ones(4)), n_keep=n, generator=generator())
    return set(mask.nonzero().flatten().tolist())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("large_final", {0, 1}),
        ("small_final", {2, 3}),
        ("large_init", {0, 3}),
        ("small_init", {1, 2}),
        ("magnitude_increase", {0, 1}),
        ("movement", {1, 3}),
        ("large_final_same_sign", {0, 3}),
        ("large_final_diff_sign", {1, 2}),
        ("magnitude_increase_diff_sign", {1}),
        ("snip", {0, 3}),
    ],
)
def test_the_four_weights_of_the_example(name: str, expected: set[int]) -> None:
    assert expected <= kept(name, max(2, len(expected)))


def test_all_criteria_of_the_paper_are_there() -> None:
    assert len(CRITERIA) == 15
    assert sum(getattr(c, "needs_grad", False) for c in CRITERIA.values()) == 2


@pytest.mark.parametrize("name", list(CRITERIA))
@pytest.mark.parametrize("share", [0.01, 0.1, 0.333, 0.5, 1.0])
def test_every_criterion_keeps_exactly_round_of_density_times_n(name: str, share: float) -> None:
    # Rounded values: many ties, also at zero.
    wi, wf = (torch.randn(20, 15, generator=generator(k)).mul(3).round() / 3 for k in (1, 2))
    scores = CRITERIA[name].score(wi, wf, torch.ones_like(wi))
    assert int(build_mask(scores, share, generator=generator()).sum()) == round(share * 300)
    assert int(build_mask(scores, share).sum()) == round(share * 300)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(-3, 3), min_size=1, max_size=40),
    share=st.floats(0.01, 1.0),
    seed=st.integers(0, 5),
)
def test_no_pruned_score_is_above_a_kept_one_and_pruned_weights_stay_pruned(values, share, seed) -> None:
    scores = torch.tensor(values, dtype=torch.float32)
    alive = torch.rand(len(values), generator=generator(seed)) < 0.7
    n = int(share * int(alive.sum()))
    mask = build_mask(scores, n_keep=n, alive=alive, generator=generator(seed))
    assert int(mask.sum()) == n
    assert not (mask & ~alive).any()
    rest = alive & ~mask
    if n and rest.any():
        assert scores[mask].min() >= scores[rest].max()


def test_ties_fall_at_random_with_a_generator_and_in_order_without() -> None:
    ties = torch.zeros(1000)
    one, two = (build_mask(ties, n_keep=300, generator=generator(k)) for k in (0, 1))
    assert abs(int((one & two).sum()) - 90) < 40
    assert build_mask(ties, n_keep=300)[:300].all()


def test_quadrant_mask_is_one_percentile_in_both() -> None:
    a, b = (torch.rand(4000, generator=generator(k), dtype=torch.float64) for k in (0, 1))
    mask = quadrant_mask(a, b, 700)
    assert int(mask.sum()) == 700
    # Bisection on the percentile, as in the paper.
    low, high = 0.0, 1.0
    for _ in range(40):
        q = (low + high) / 2
        count = int(((a >= a.quantile(q)) & (b >= b.quantile(q))).sum())
        low, high = (q, high) if count >= 700 else (low, q)
    assert int(((a >= a.quantile(low)) & (b >= b.quantile(low)) & ~mask).sum()) <= 1
    # Ranks are taken among the living: what is dead must not matter.
    alive = torch.arange(4000) < 2000
    a[2000:] = 9
    assert torch.equal(quadrant_mask(a, b, 100, alive)[:2000], quadrant_mask(a[:2000], b[:2000], 100))
    score = CRITERIA["large_init_large_final"].score(a[:2000], b[:2000])
    assert torch.equal(build_mask(score, n_keep=100), quadrant_mask(a[:2000], b[:2000], 100))


def test_zero_has_no_sign_and_counts_as_the_same() -> None:
    wi, wf = torch.tensor([0.0, 1.0, -1.0, 1e-30]), torch.tensor([-1.0, 0.0, 1.0, -1e-30])
    assert same_sign(wi, wf).tolist() == [True, True, False, False]


def test_layer_masks_equal_torchs() -> None:
    layer = nn.Linear(40, 30)
    weight = layer.weight.detach().clone()
    prune.l1_unstructured(layer, "weight", amount=1200 - 360)
    assert torch.equal(build_mask(weight.abs(), 0.3), layer.weight_mask.bool())


def test_global_masks_equal_torchs_and_are_nested() -> None:
    net = nn.Sequential(nn.Linear(17, 13), nn.ReLU(), nn.Linear(13, 7))
    state = {n: p.detach().clone() for n, p in net.named_parameters() if n.endswith("weight")}
    masks = None
    for _ in range(4):
        before, masks = masks, global_magnitude_masks(state, masks, 0.3)
        pairs = [(net[0], "weight"), (net[2], "weight")]
        prune.global_unstructured(pairs, prune.L1Unstructured, amount=0.3)
        for name, mask in masks.items():
            layer = net.get_submodule(name.partition(".")[0])
            assert torch.equal(mask, layer.weight_mask.bool())
            assert before is None or not (mask & ~before[name]).any()
    # Equal magnitudes: the same answer every time, and the exact number.
    flat = {"a": torch.ones(10), "b": -torch.ones(10)}
    assert global_magnitude_masks(flat, None, 0.45)["a"].all()
    assert density(global_magnitude_masks(flat, None, 0.45)) == 11 / 20


def test_shuffled_masks_keep_the_density_of_each_layer() -> None:
    masks = {"a": torch.rand(30, 20, generator=generator()) < 0.1, "b": torch.ones(4, dtype=torch.bool)}
    other = shuffle_masks(masks, generator(1))
    assert {n: int(m.sum()) for n, m in other.items()} == {n: int(m.sum()) for n, m in masks.items()}
    assert not torch.equal(other["a"], masks["a"])


def test_bad_input_is_told() -> None:
    scores = torch.rand(5)
    with pytest.raises(ValueError, match=r"density must be in \(0, 1\]"):
        build_mask(scores, 0.0)
    with pytest.raises(ValueError, match="exactly one of"):
        build_mask(scores)
    with pytest.raises((ValueError, TypeError), match="alive"):
        build_mask(scores, 0.5, alive=torch.ones(4, dtype=torch.bool))
    with pytest.raises(ValueError, match="cannot keep 3 of 2"):
        build_mask(scores, n_keep=3, alive=torch.tensor([True, True, False, False, False]))
    with pytest.raises(ValueError, match="NaN"):
        build_mask(torch.tensor([1.0, float("nan")]), 0.5)
    with pytest.raises(ValueError, match="did training diverge"):
        CRITERIA["large_final"].score(torch.ones(2), torch.tensor([1.0, float("inf")]))
    with pytest.raises(ValueError, match="gradient"):
        CRITERIA["snip"].score(torch.ones(2), torch.ones(2))
    with pytest.raises(ValueError, match=r"\(0, 1\)"):
        global_magnitude_masks({"a": scores}, None, 1.0)
    with pytest.raises(ValueError, match="no weights named 'b'"):
        global_magnitude_masks({"a": scores}, {"b": scores > 0}, 0.5)
