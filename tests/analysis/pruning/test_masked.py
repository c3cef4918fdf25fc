"""MaskedModel: pruned entries never move, gradients reach kept entries only, export to other formats."""

import copy

import pytest
import torch
from torch import nn

from assay.analysis.pruning import MaskedModel, SwapIn, effective_state, load_plain
from assay.analysis.pruning.masked import plain_name


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))


def some_masks(net: nn.Module) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return {n: torch.rand(p.shape, generator=g) < 0.3 for n, p in net.named_parameters() if p.ndim > 1}


@pytest.mark.parametrize("frozen_at", ["zero", "init"])
def test_pruned_entries_equal_their_frozen_value_bit_for_bit_after_training(frozen_at: str) -> None:
    net = network()
    masks = some_masks(net)
    begin = {n: p.detach().clone() for n, p in net.named_parameters()}
    frozen = {} if frozen_at == "zero" else {n: begin[n] for n in masks}
    masked = MaskedModel(net, masks, frozen)
    optimizer = torch.optim.Adam(masked.parameters(), 0.01, weight_decay=0.1)
    x, y = torch.randn(32, 1, 8, 8), torch.randint(5, (32,))
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(masked(x), y).backward()
        optimizer.step()
    end = effective_state(masked)
    for name, mask in masks.items():
        expected = begin[name] if frozen_at == "init" else torch.zeros_like(begin[name])
        assert torch.equal(end[name][~mask], expected[~mask])
        assert (end[name][mask] != begin[name][mask]).all()


def test_gradient_reaches_kept_entries_only_and_equals_that_of_the_plain_weight() -> None:
    net = network()
    masks = some_masks(net)
    masked = MaskedModel(copy.deepcopy(net), masks)
    baked = masked.bake()
    x = torch.randn(6, 1, 8, 8)
    for model in (masked, baked):
        model(x).square().sum().backward()
    for name, mask in masks.items():
        stored = dict(masked.module.named_parameters())[
            name.replace("weight", "parametrizations.weight.original")
        ].grad
        assert not stored[~mask].any()
        torch.testing.assert_close(stored[mask], dict(baked.named_parameters())[name].grad[mask])


def test_bake_prune_and_sparse_compute_the_same() -> None:
    net = network()
    masks = some_masks(net)
    masked = MaskedModel(net, masks).eval()
    x = torch.randn(3, 1, 8, 8)
    expected = masked(x)
    baked = masked.bake()
    assert type(baked[0]) is nn.Conv2d
    assert set(dict(baked.named_parameters())) == set(dict(network().named_parameters()))
    assert torch.equal(baked(x), expected)
    assert torch.equal(masked.to_prune()(x), expected)
    sparse = masked.to_sparse()
    for name, mask in masks.items():
        assert sparse[name].coalesce().values().numel() == int(mask.sum())
        assert torch.equal(sparse[name].to_dense(), effective_state(masked)[name])
    total = sum(m.numel() for m in masks.values())
    assert masked.density() == sum(int(m.sum()) for m in masks.values()) / total


def test_frozen_weights_do_not_go_into_formats_that_have_zeros_only() -> None:
    net = network()
    masks = some_masks(net)
    masked = MaskedModel(net, masks, {n: torch.ones_like(m, dtype=torch.float32) for n, m in masks.items()})
    for export in (masked.to_prune, masked.to_sparse):
        with pytest.raises(ValueError, match="other than 0"):
            export()


def test_state_goes_between_masked_and_plain_models() -> None:
    net = network()
    state = effective_state(net)
    masked = MaskedModel(network(), some_masks(net))
    load_plain(masked, {n: v + 1 for n, v in state.items()})
    end = effective_state(masked)
    assert end.keys() == state.keys()
    assert torch.equal(end["1.running_mean"], state["1.running_mean"] + 1)
    with pytest.raises(ValueError, match=r"4\.bias"):
        load_plain(masked, {n: v for n, v in state.items() if n != "4.bias"})
    assert plain_name("a.0.parametrizations.weight.original") == "a.0.weight"
    assert plain_name("parametrizations.weight.original") == "weight"


def test_double_precision_stays_double() -> None:
    layer = nn.Linear(3, 2).double()
    masked = MaskedModel(layer, {"weight": torch.tensor([[True, True, False]] * 2)})
    assert masked(torch.ones(1, 3, dtype=torch.float64)).dtype == torch.float64
    assert layer.weight.dtype == torch.float64


def test_swapped_weights_are_used_and_the_old_ones_come_back() -> None:
    net = nn.Linear(4, 3)
    before = net.weight.detach().clone()
    new = torch.randn(3, 4)
    x = torch.randn(2, 4)
    with torch.no_grad(), SwapIn(net) as swap:
        swap({"weight": new})
        assert torch.equal(net(x), nn.functional.linear(x, new, net.bias))
        with pytest.raises(ValueError, match="no parameter 'w'"):
            swap({"w": new})
        with pytest.raises(ValueError, match="not"):
            swap({"weight": new.T})
    assert torch.equal(net.weight, before)


def test_bad_masks_are_told() -> None:
    net = network()
    good = some_masks(net)
    with pytest.raises(ValueError, match="unknown parameter 'x'"):
        MaskedModel(net, {"x": torch.ones(1, dtype=torch.bool)})
    with pytest.raises(ValueError, match="shape"):
        MaskedModel(net, {"0.weight": torch.ones(1, dtype=torch.bool)})
    with pytest.raises(ValueError, match="boolean"):
        MaskedModel(net, {n: m.float() for n, m in good.items()})
    with pytest.raises(ValueError, match="no mask"):
        MaskedModel(net, {}, {"0.weight": net[0].weight.detach()})
    with pytest.raises(ValueError, match="finite"):
        MaskedModel(net, good, {"0.weight": torch.full((4, 1, 3, 3), float("nan"))})
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="shared"):
        MaskedModel(tied, {"0.weight": torch.ones(3, 3, dtype=torch.bool)})
