"""The loop: full density reproduces the dense run to the bit, rewinding restores everything, masks are nested."""

import copy
import itertools
import random

import numpy as np
import pytest
import torch
from torch import nn

from assay.analysis.pruning import (
    IterativePruner,
    MaskedModel,
    RewindStore,
    TrainState,
    linear_warmup,
    prunable,
    shuffle_masks,
    stability,
)
from assay.analysis.pruning.pruner import _global_rng, _set_global_rng
from assay.data import EpochBatches

STEPS = 12
X = torch.randn(64, 6, generator=torch.Generator().manual_seed(5))
Y = (X[:, 0] + X[:, 1] > 0).long()


def network() -> nn.Module:
    """A net with norm buffers and dropout: all that a sloppy rewind forgets."""
    return nn.Sequential(
        nn.Linear(6, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2)
    )


def fresh_network() -> nn.Module:
    torch.manual_seed(0)
    return network()


def train(model: nn.Module, resume, store: RewindStore) -> dict[str, float]:
    """SGD with momentum and decay, a rate schedule, shuffled batches and dropout."""
    torch.manual_seed(7)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 9])
    batches = EpochBatches(64, 10, [torch.Generator().manual_seed(3)])
    state = TrainState(model, optimizer, scheduler, batches, global_rng=True)
    if resume is not None:
        state.restore(resume)
    seen = 0
    while state.step < STEPS:
        store.visit(state)
        index = next(batches)[0]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X[index]), Y[index]).backward()
        optimizer.step()
        scheduler.step()
        state.step += 1
        seen += 1
    store.visit(state)
    return {"steps": float(seen), "lr": optimizer.param_groups[0]["lr"]}


def pruner(**options) -> IterativePruner:
    return IterativePruner(fresh_network, train, **{"per_layer_rate": 0.5, **options})


@pytest.mark.parametrize("k", [0, 1, 6, 7, STEPS])
def test_full_density_reproduces_the_dense_run_to_the_bit_from_every_step(k: int) -> None:
    run = pruner(rewind_step=k)
    dense = run.train_dense()
    again = run.branch(dense, dense.masks)
    assert again.metrics["steps"] == STEPS - k
    assert again.metrics["lr"] == dense.metrics["lr"]
    for name, value in dense.state.items():
        assert torch.equal(value, again.state[name]), name


def test_rewinding_to_the_end_is_pruning_without_retraining() -> None:
    run = pruner(rewind_step=STEPS)
    dense, first = run.run(1)
    expected = {n: torch.where(first.masks[n], dense.final[n], 0.0) for n in first.masks}
    assert all(torch.equal(first.state[n], expected[n]) for n in expected)
    assert stability(dense.final, first.state, mask=first.masks).l2 == 0


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize(
    "criterion", ["large_final", "magnitude_increase", "random", "large_init_large_final"]
)
def test_rounds_are_nested_and_of_the_right_size(scope, criterion) -> None:
    rounds = pruner(scope=scope, criterion=criterion, generator=torch.Generator().manual_seed(0)).run(3)
    left = {n: m.numel() for n, m in rounds[0].masks.items()}
    for before, after in itertools.pairwise(rounds):
        for name, mask in after.masks.items():
            assert not (mask & ~before.masks[name]).any()
            if scope == "layer":
                left[name] = round(0.5 * left[name])
                assert int(mask.sum()) == left[name]
    assert [r.density for r in rounds] == pytest.approx([1, 0.5, 0.25, 0.125], abs=0.01)
    assert all(r.metrics["steps"] == STEPS for r in rounds)


def test_rewind_restores_weights_biases_and_buffers_of_step_k() -> None:
    store = RewindStore([0, 4])
    run = pruner(rewind_step=4, store=store)
    run.train_dense()
    seen = {}

    def spy(model, resume, store):
        seen["resume"] = resume
        return train(model, resume, store)

    run.train_fn = spy
    last = run.branch(run.dense, run.next_masks(run.dense))
    kept = store.get(4)
    assert seen["resume"].step == 4
    assert seen["resume"].model["1.running_mean"].any()  # buffers have moved by step 4
    for name, value in kept.model.items():
        if name not in run.rates:
            assert torch.equal(seen["resume"].model[name], value), name
    for name, mask in last.masks.items():
        assert torch.equal(last.start[name], torch.where(mask, kept.model[name], 0.0))
        assert not last.state[name][~mask].any()


def test_a_pruned_weight_remembers_the_value_that_it_was_pruned_at() -> None:
    rounds = pruner(pruned_value="zero_toward").run(2)
    gone = rounds[1].masks["0.weight"] & ~rounds[2].masks["0.weight"]
    long_gone = ~rounds[1].masks["0.weight"]
    assert torch.equal(rounds[2].final["0.weight"][gone], rounds[1].state["0.weight"][gone])
    assert torch.equal(rounds[2].final["0.weight"][long_gone], rounds[0].state["0.weight"][long_gone])
    # and stays frozen where it was frozen first
    assert torch.equal(rounds[2].frozen["0.weight"][long_gone], rounds[1].frozen["0.weight"][long_gone])


def test_branches_share_masks_and_differ_in_what_was_asked() -> None:
    run = pruner(generator=torch.Generator().manual_seed(0))
    dense = run.train_dense()
    masks = run.one_shot_masks(0.25)
    one = run.branch(dense, masks)
    two = run.branch(dense, masks, reset="signed_constant", pruned_value="freeze_init")
    assert all(torch.equal(one.masks[n], two.masks[n]) for n in masks)
    init = run.store.get(0).model["0.weight"]
    assert torch.equal(two.start["0.weight"][~masks["0.weight"]], init[~masks["0.weight"]])
    assert len(two.start["0.weight"][masks["0.weight"]].abs().unique()) == 1
    shuffled = run.branch(dense, shuffle_masks(masks, torch.Generator().manual_seed(1)))
    assert shuffled.density == one.density
    assert [r.density for r in run.run_to([0.5, 0.25])] == [0.5, 0.25]


def test_reinit_draws_from_the_models_own_initialiser() -> None:
    seeds = itertools.count()

    def constant_network() -> nn.Module:
        net = network()
        nn.init.constant_(net[0].weight, float(next(seeds)))
        return net

    run = IterativePruner(constant_network, train, per_layer_rate=0.5, reset="reinit")
    starts = [r.start["0.weight"][r.masks["0.weight"]].unique().tolist() for r in run.run(2)]
    assert starts == [[0.0], [1.0], [2.0]]


def test_snapshot_and_restore_go_on_to_the_bit_with_adam_and_global_generators() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    model = network()
    state = TrainState(
        model,
        torch.optim.Adam(model.parameters(), 0.01),
        data=EpochBatches(64, 10, [torch.Generator().manual_seed(0)]),
        generators=[torch.Generator().manual_seed(1)],
        global_rng=True,
    )

    def go_on(n: int) -> list[float]:
        out = []
        for _ in range(n):
            index = next(state.data)[0]
            noise = torch.randn(10, 6, generator=state.generators[0])
            state.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(X[index] + 0.1 * noise), Y[index])
            loss.backward()
            state.optimizer.step()
            state.step += 1
            out.append(float(loss.detach()))
        return [*out, float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002

    go_on(4)
    kept = state.snapshot()
    first = go_on(9)
    assert state.step == 13
    state.restore(kept)
    assert state.step == 4
    assert go_on(9) == first


def test_pythons_own_generator_is_kept_too() -> None:
    # Apart: the run-time checks of types in these tests draw from it.
    random.seed(0)
    kept = _global_rng()
    first = random.random()
    _set_global_rng(kept)
    assert random.random() == first


def test_optimiser_state_follows_names_between_dense_and_masked_models() -> None:
    """Masking reorders parameters; momentum buffers must not be handed to the wrong ones."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    state = TrainState(net, torch.optim.SGD(net.parameters(), 0.1, momentum=0.9))
    net(torch.randn(3, 4)).square().sum().backward()
    state.optimizer.step()
    kept = state.snapshot()
    masked = MaskedModel(copy.deepcopy(net), {"0.weight": torch.ones(4, 4, dtype=torch.bool)})
    other = TrainState(masked, torch.optim.SGD(masked.parameters(), 0.1, momentum=0.9))
    other.restore(kept)
    assert other.snapshot().optimizer["state"].keys() == kept.optimizer["state"].keys()
    for name, values in other.snapshot().optimizer["state"].items():
        assert torch.equal(values["momentum_buffer"], kept.optimizer["state"][name]["momentum_buffer"])


def test_snapshots_on_disk_are_the_same(tmp_path) -> None:
    on_disk, in_memory = RewindStore([0, 3], folder=tmp_path), RewindStore([0, 3])
    for store in (on_disk, in_memory):
        train(fresh_network(), None, store)
    assert on_disk.steps == in_memory.steps == (0, 3)
    one, two = on_disk.get(3), in_memory.get(3)
    assert all(torch.equal(one.model[n], two.model[n]) for n in two.model)
    model = fresh_network()
    train(model, one, RewindStore(()))
    other = fresh_network()
    train(other, two, RewindStore(()))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_linear_warmup_reaches_the_full_rate() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], 0.4)
    scheduler = linear_warmup(optimizer, 4)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_prunable_leaves_out_biases_and_norms() -> None:
    assert prunable(network()) == ["0.weight", "4.weight"]
    assert prunable(nn.Conv1d(1, 1, 1)) == ["weight"]


def test_bad_input_is_told() -> None:
    with pytest.raises(ValueError, match="large_final"):
        pruner(criterion="biggest")
    with pytest.raises(ValueError, match=r"\(0, 1\)"):
        pruner(per_layer_rate=1.0)
    with pytest.raises(ValueError, match="named x"):
        pruner(per_layer_rate={"x": 0.5})
    with pytest.raises((ValueError, TypeError), match="scope"):
        pruner(scope="both")
    with pytest.raises(ValueError, match="gradients"):
        pruner(criterion="snip")
    with pytest.raises(ValueError, match="beyond the last step"):
        pruner(rewind_step=STEPS + 1).run(1)
    run = pruner()
    run.train_dense()
    with pytest.raises(ValueError, match="kept: 0"):
        run.branch(run.dense, run.dense.masks, rewind_step=3)
    with pytest.raises(ValueError, match="not pruned"):
        run.branch(run.dense, {"1.weight": torch.ones(16, dtype=torch.bool)})
    small = IterativePruner(
        lambda: nn.Sequential(nn.Linear(6, 40), nn.Linear(40, 2)),
        _tiny_last,
        per_layer_rate=0.9,
        scope="global",
    )
    with pytest.warns(UserWarning, match="collapsed"):
        small.run(1)


def _tiny_last(model: nn.Module, resume, store: RewindStore) -> dict[str, float]:
    state = TrainState(model)
    if resume is not None:
        state.restore(resume)
    store.visit(state)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.startswith("1."):
                p.mul_(1e-9)
    return {}
