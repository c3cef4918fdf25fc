"""Members of an ensemble move as their networks would alone, under torch's own optimisers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from assay.data import EpochBatches
from assay.nn import EnsembleMLP, ensemble_cross_entropy
from assay.optim import EnsembleOptimizer, select_members
from assay.optim.decay import SGDW

RATES = [0.3, 0.05, 0.01]
DECAYS = [0.0, 0.02, 0.1]
X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
Y = torch.randint(4, (40,), generator=torch.Generator().manual_seed(1))


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def make(dtype: torch.dtype = torch.float64, norm: str | None = None) -> EnsembleMLP:
    return EnsembleMLP((6, 8, 4), members=3, norm=norm, generators=generators(1, 2, 3)).to(dtype)


def train(net, opt, steps=50, batches=None, each=None):
    batches = batches or EpochBatches(len(X), 8, generators(11, 12, 13)[: net.members])
    x = X.to(net.linears[0].weight.dtype)
    for step in range(steps):
        index = next(batches)
        opt.zero_grad()
        ensemble_cross_entropy(net(x[index]), Y[index]).sum().backward()
        if each:
            each(step)
        opt.step()


def weights(model: nn.Sequential) -> list[nn.Parameter]:
    return [layer.weight for layer in model if isinstance(layer, nn.Linear)]


def solo(kind: str, model: nn.Sequential, k: int, weight_decay: bool, decay: str):
    rate, wd = RATES[k], DECAYS[k] if weight_decay else 0.0
    held = {id(p) for p in weights(model)}
    groups = [
        {"params": weights(model), "weight_decay": wd},
        {"params": [p for p in model.parameters() if id(p) not in held], "weight_decay": 0.0},
    ]
    if kind == "adam" and decay == "lr_scaled":
        return torch.optim.AdamW(groups, lr=rate)
    make = {
        "sgd": lambda: torch.optim.SGD(groups, lr=rate),
        "momentum": lambda: torch.optim.SGD(groups, lr=rate, momentum=0.9),
        "nesterov": lambda: torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True),
        "adagrad": lambda: torch.optim.Adagrad(groups, lr=rate),
        "rmsprop": lambda: torch.optim.RMSprop(groups, lr=rate),
        "adam": lambda: torch.optim.Adam(groups, lr=rate),
    }
    return make[kind]()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("norm", [None, "batch"])
@pytest.mark.parametrize(
    ("kind", "weight_decay", "decay"),
    [
        (kind, wd, "l2")
        for kind in ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam")
        for wd in (0, 1)
    ]
    + [("adam", 1, "lr_scaled")],
)
def test_members_follow_torch_optimisers(kind, weight_decay, decay, norm, dtype):
    net = make(dtype, norm)
    alone = [net.member(k) for k in range(3)]
    opt = EnsembleOptimizer(
        net.parameters(),
        kind,
        lr=torch.tensor(RATES, dtype=torch.float64),
        weight_decay=torch.tensor(DECAYS, dtype=torch.float64) if weight_decay else 0.0,
        decay=decay,
    )
    train(net, opt)
    for k, model in enumerate(alone):
        torch_opt = solo(kind, model, k, bool(weight_decay), decay)
        batches = EpochBatches(len(X), 8, generators(11 + k))
        for _ in range(50):
            index = next(batches)[0]
            torch_opt.zero_grad()
            F.cross_entropy(model(X.to(dtype)[index]), Y[index]).backward()
            torch_opt.step()
        if dtype == torch.float32 and kind not in ("sgd", "momentum", "nesterov"):
            continue  # sign-like steps amplify rounding: their parity is shown in float64
        tolerance = 1e-11 if dtype == torch.float64 else 2e-4 if norm else 1e-5
        got = torch.cat([p.flatten() for p in net.member(k).parameters()])
        expected = torch.cat([p.flatten() for p in model.parameters()])
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def test_independent_decay_is_the_papers():
    # theta_t = theta - eta (alpha g + lambda theta), with theta before the step (Algorithm 1 without momentum).
    p = nn.Parameter(torch.tensor([[[1.0, -2.0]], [[1.0, -2.0]]], dtype=torch.float64))
    opt = EnsembleOptimizer(
        [p], "sgd", lr=0.1, weight_decay=torch.tensor([0.01, 0.0], dtype=torch.float64), decay="independent"
    )
    opt.scale = 0.5
    p.grad = torch.full_like(p, 0.4)
    opt.step()
    torch.testing.assert_close(
        p.detach()[0, 0], torch.tensor([1.0, -2.0]).double() * (1 - 0.005) - 0.02, rtol=0, atol=1e-12
    )
    torch.testing.assert_close(
        p.detach()[1, 0], torch.tensor([0.98, -2.02], dtype=torch.float64), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgdw_is_the_single_optimisers_schedule_and_all(nesterov):
    g = torch.Generator().manual_seed(0)
    start, gradients = (
        torch.randn(3, 2, 4, dtype=torch.float64, generator=g),
        torch.randn(9, 3, 2, 4, dtype=torch.float64, generator=g),
    )
    stacked = nn.Parameter(start.clone())
    kind = "nesterov" if nesterov else "momentum"
    decays = torch.tensor([0.0, 0.01, 0.05], dtype=torch.float64)
    opt = EnsembleOptimizer(
        [stacked], kind, 0.1, 0.9, weight_decay=decays, decay="independent", schedule_inside=True
    )
    alone = [nn.Parameter(one.clone()) for one in start]
    solo = [
        SGDW([p], 0.1, 0.9, weight_decay=float(d), nesterov=nesterov)
        for p, d in zip(alone, decays, strict=True)
    ]
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(o, 9) for o in solo]
    for t, gradient in enumerate(gradients):
        opt.scale = solo[0].param_groups[0]["lr"] / 0.1
        stacked.grad = gradient.clone()
        opt.step()
        for p, o, schedule, one in zip(alone, solo, schedules, gradient, strict=True):
            p.grad = one.clone()
            o.step()
            schedule.step()
        assert t == 0 or opt.scale[0] < 1
    torch.testing.assert_close(
        stacked.detach(), torch.stack([p.detach() for p in alone]), rtol=1e-11, atol=1e-11
    )


def test_a_member_does_not_depend_on_its_companions():
    company = make()
    alone = EnsembleMLP((6, 8, 4), members=1, generators=generators(2)).double()
    kwargs = {"kind": "adam", "weight_decay": 0.01}
    train(
        company,
        EnsembleOptimizer(company.parameters(), lr=torch.tensor(RATES, dtype=torch.float64), **kwargs),
    )
    train(
        alone,
        EnsembleOptimizer(alone.parameters(), lr=RATES[1], **kwargs),
        batches=EpochBatches(len(X), 8, generators(12)),
    )
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(company.state_dict()[name][1], value[0], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", ["sgd", "momentum", "adam"])
def test_inactive_members_stay_even_with_nan_gradients(kind):
    net = make()
    opt = EnsembleOptimizer(net.parameters(), kind, lr=0.1)
    train(net, opt, 5)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    opt.active = torch.tensor([True, False, True])

    def spoil(step):
        for p in net.parameters():
            p.grad[1] = torch.nan

    train(net, opt, 5, each=spoil)
    for name, value in net.state_dict().items():
        assert torch.equal(value[1], before[name][1]), name
        assert not torch.equal(value[0], before[name][0]), name
    assert opt.steps.tolist() == [10, 5, 10]
    opt.active = None
    train(net, opt, 1)
    assert all(value.isfinite().all() for value in net.state_dict().values())


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_a_stopped_member_goes_on_as_if_nothing_had_happened(kind):
    batches = [next(EpochBatches(len(X), 8, generators(5, 6, 7))) for _ in range(1)] * 6
    net, other = make(), make()
    opt, plain = (EnsembleOptimizer(n.parameters(), kind, lr=0.1) for n in (net, other))
    train(other, plain, 6, iter(batches))
    train(net, opt, 3, iter(batches[:3]))
    opt.active = torch.tensor([False, True, True])
    train(net, opt, 4, iter(batches[:4]))
    opt.active = None
    train(net, opt, 3, iter(batches[3:]))
    for name, value in other.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name][0], value[0], rtol=1e-12, atol=1e-12)


def test_masked_entries_never_move():
    net = make()
    opt = EnsembleOptimizer(net.parameters(), "adam", lr=0.1, weight_decay=0.1, decay="independent")
    weight = net.linears[0].weight
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(3)) < 0.3
    before = weight.detach().clone()
    opt.mask(weight, mask)
    train(net, opt, 20)
    assert torch.equal(weight[~mask], before[~mask])
    assert (weight[mask] != before[mask]).all()
    opt.mask(weight, None)
    train(net, opt, 1)
    assert (weight[~mask] != before[~mask]).any()


def test_selected_members_go_on_as_before():
    net, whole = make(norm="batch"), make(norm="batch")
    opt, opt_whole = (
        EnsembleOptimizer(n.parameters(), "adam", lr=torch.tensor(RATES, dtype=torch.float64))
        for n in (net, whole)
    )
    batches = EpochBatches(len(X), 8, generators(11, 12, 13))
    train(whole, opt_whole, 30)
    train(net, opt, 15, batches)
    select_members(net, opt, torch.tensor([True, False, True]))
    batches.select(torch.tensor([0, 2]))
    assert net.members == opt.members == 2
    graph = sum(p.sum() for p in net.parameters())  # still holds the parameters as they are now
    select_members(net, opt, torch.tensor([1, 0]))
    select_members(net, opt, torch.tensor([1, 0]))
    train(net, opt, 15, batches)
    assert graph.requires_grad
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, whole.state_dict()[name][[0, 2]], rtol=1e-11, atol=1e-11)


def test_reset_starts_a_member_afresh():
    net, fresh = make(), make()
    opt = EnsembleOptimizer(net.parameters(), "adam", lr=0.1)
    train(net, opt, 7)
    opt.reset(1)
    assert opt.steps.tolist() == [7, 0, 7]
    fresh.load_state_dict(net.state_dict())
    opt_fresh = EnsembleOptimizer(fresh.parameters(), "adam", lr=0.1)
    train(net, opt, 5)
    train(fresh, opt_fresh, 5)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value[1], fresh.state_dict()[name][1], rtol=1e-12, atol=1e-12)
        assert not torch.allclose(value[0], fresh.state_dict()[name][0])


def test_scale_is_a_schedule_for_each_member():
    net = make()
    before = net.linears[0].weight.detach().clone()
    opt = EnsembleOptimizer(net.parameters(), "sgd", lr=0.1, weight_decay=0.1, decay="lr_scaled")
    opt.scale = torch.tensor([0.0, 0.5, 1.0])
    train(net, opt, 1)
    moved = (net.linears[0].weight.detach() - before).flatten(1).norm(dim=1)
    assert moved[0] == 0
    assert moved[2] > moved[1] > 0


def test_bad_hyperparameters_end_in_one_clear_error():
    net = make()

    def build(**kwargs):
        return EnsembleOptimizer(net.parameters(), **{"kind": "sgd", "lr": 0.1, **kwargs})

    for message, kwargs in (
        ("kind is one of", {"kind": "lbfgs"}),
        ("decay is one of", {"decay": "l1"}),
        ("lr must not be negative", {"lr": -1.0}),
        ("lr must not be negative", {"lr": torch.tensor([0.1, 0.1, torch.nan])}),
        ("one for each of the 3 members", {"lr": torch.ones(2)}),
        ("betas lie in", {"betas": (1.0, 0.9)}),
    ):
        with pytest.raises(ValueError, match=message):
            build(**kwargs)
    with pytest.raises(ValueError, match="members first"):
        EnsembleOptimizer([nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))], "sgd", lr=0.1)
    with pytest.raises(ValueError, match="boolean"):
        build().active = torch.ones(3)
    with pytest.raises(ValueError, match="mask must be boolean"):
        build().mask(net.linears[0].weight, torch.ones(2))
    with pytest.raises(ValueError, match="does not hold"):
        build().mask(nn.Parameter(torch.ones(3, 2)), torch.ones(3, 2).bool())
    with pytest.raises(ValueError, match="does not hold linears"):
        select_members(net, EnsembleOptimizer([net.linears[0].weight], "sgd", lr=0.1), torch.tensor([0]))
