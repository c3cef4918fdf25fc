"""Mask-1 and mask-0 actions: signs, multisets, frozen values."""

import pytest
import torch

from assay.analysis.pruning import PRUNED_VALUES, RESETS, layer_scale, masking_is_training, moved_toward_zero
from assay.analysis.pruning.actions import find_pruned_value, find_reset


@pytest.fixture
def layer() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    wi, wf = torch.randn(30, 20, generator=g), torch.randn(30, 20, generator=g)
    return wi, wf, torch.rand(30, 20, generator=g) < 0.4


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", [n for n in RESETS if n.startswith("signed_")])
def test_signed_resets_keep_every_sign(name: str, layer) -> None:
    wi, wf, mask = layer
    start = RESETS[name](wi, wf, mask, generator())
    assert torch.equal(start[mask].sign(), wi[mask].sign())
    assert not torch.equal(start[mask], wi[mask])


@pytest.mark.parametrize("name", ["reinit", "reinit_permutation", "reshuffle", "constant"])
def test_unsigned_resets_lose_about_half_of_the_signs(name: str, layer) -> None:
    wi, wf, mask = layer
    agree = (RESETS[name](wi, wf, mask, generator()).sign() == wi.sign())[mask].float().mean()
    assert 0.35 < agree < 0.65


@pytest.mark.parametrize("name", ["reshuffle", "signed_reshuffle"])
def test_reshuffle_keeps_the_kept_values_as_a_multiset(name: str, layer) -> None:
    wi, wf, mask = layer
    start = RESETS[name](wi, wf, mask, generator())
    assert torch.equal(start[mask].sort().values, wi[mask].sort().values)


def test_constant_is_the_population_deviation_of_the_layer(layer) -> None:
    wi, wf, mask = layer
    assert layer_scale(wi) == pytest.approx(float(wi.double().std(correction=0)), rel=1e-12)
    for name in ("constant", "signed_constant"):
        start = RESETS[name](wi, wf, mask, generator())
        torch.testing.assert_close(start.abs(), torch.full_like(wi, layer_scale(wi)))
    # A weight of exactly zero counts as positive: it must not start dead.
    assert (RESETS["signed_constant"](torch.tensor([0.0, 1.0]), wf[0, :2], mask[0, :2]) > 0).all()


def test_reinit_takes_the_fresh_draw_or_follows_the_initial_values(layer) -> None:
    wi, wf, mask = layer
    fresh = torch.randn(wi.shape, generator=generator(9))
    assert torch.equal(RESETS["reinit"](wi, wf, mask, None, fresh), fresh)
    assert torch.equal(RESETS["signed_reinit"](wi, wf, mask, None, fresh).abs(), fresh.abs())
    assert torch.isin(RESETS["reinit"](wi, wf, mask, generator()), wi).all()
    assert torch.equal(RESETS["rewind"](wi, wf, mask), wi)
    assert torch.equal(RESETS["final"](wi, wf, mask), wf)


def test_pruned_values(layer) -> None:
    wi, wf, mask = layer
    out, toward = ~mask, moved_toward_zero(wi, wf)
    values = {name: f(wi, wf, mask, generator()) for name, f in PRUNED_VALUES.items()}
    assert not values["zero"].any()
    assert torch.equal(values["freeze_init"], wi)
    assert torch.equal(values["zero_toward"][out] == 0, toward[out])
    assert torch.equal(values["zero_away"][out] == 0, ~toward[out])
    assert int((values["zero_random"][out] == 0).sum()) == int(toward[out].sum())
    assert not torch.equal(values["zero_random"][out] == 0, toward[out])
    for name in ("zero_toward", "zero_away", "zero_random"):  # what is not zero is the initial value
        frozen = values[name]
        assert torch.equal(frozen[frozen != 0], wi[frozen != 0])


def test_only_the_second_variant_zeroes_kept_weights(layer) -> None:
    wi, wf, _ = layer
    for name, action in PRUNED_VALUES.items():
        start = action.start(wi, wi, wf)
        if name == "zero_toward_all":
            assert torch.equal(start, masking_is_training(wi, wf))
            assert torch.equal(start == 0, moved_toward_zero(wi, wf))
        else:
            assert torch.equal(start, wi)


def test_inputs_are_never_written_to(layer) -> None:
    wi, wf, mask = layer
    before = wi.clone(), wf.clone(), mask.clone()
    for action in (*RESETS.values(), *PRUNED_VALUES.values()):
        action(wi, wf, mask, generator()).add_(1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, (wi, wf, mask), strict=True))


def test_unknown_names_are_listed() -> None:
    with pytest.raises(ValueError, match="signed_constant"):
        find_reset("nope")
    with pytest.raises(ValueError, match="zero_toward_all"):
        find_pruned_value("nope")
