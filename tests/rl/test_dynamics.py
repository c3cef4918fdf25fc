"""Ensembles of dynamics: members, groups, fits, posteriors, imagination."""

import math
from itertools import pairwise

import pytest
import torch

from assay.rl.dynamics import (
    DirichletEnsemble,
    DynamicsEnsemble,
    GaussianPrediction,
    Imagination,
    ImaginationEnv,
    Transitions,
)
from assay.rl.information import jensen_shannon


def g(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table_data(groups: int = 1, states: int = 4) -> Transitions:
    """A ring: action 1 moves on, action 0 stays; the last state was never visited."""
    state = torch.eye(states).repeat_interleave(2, 0)
    action = torch.eye(2).repeat(states, 1)
    index = torch.arange(states).repeat_interleave(2)
    following = (index + torch.arange(2).repeat(states)) % states
    weight = (index < states - 1).float().expand(groups, -1)
    return Transitions(state, action, torch.eye(states)[following].expand(groups, -1, -1), weight)


def line_data(rows: int = 400, seed: int = 0) -> Transitions:
    state = torch.randn(rows, 2, generator=g(seed))
    action = torch.rand(rows, 1, generator=g(seed + 1)) * 2 - 1
    return Transitions(state, action, state + torch.cat((5 * action, 0.01 * state[:, :1]), 1))


def test_members_agree_where_there_was_data_and_differ_elsewhere() -> None:
    model = DynamicsEnsemble(4, 2, 8, generators=g(0))
    data = table_data()
    losses = model.fit(data._replace(target=data.target[0], weight=data.weight[0]), 60, 1e-2)
    assert losses.shape == (8,)
    assert float(losses.max()) < 0.05
    u = model.disagreement(model(data.state, data.action)).detach()
    assert float(u[:6].max()) < 0.1 < float(u[6:].min())


def test_noise_fades_from_the_utility() -> None:
    data = table_data()
    target = data.target[0].clone()
    target[3] = 0.25  # state 1, action 1: seen to lead anywhere, equally often
    model = DynamicsEnsemble(4, 2, 8, generators=g(1))
    model.fit(data._replace(target=target, weight=data.weight[0]), 200, 1e-2)
    probs = model(data.state, data.action).probs[:, 3].detach()
    assert float(jensen_shannon(probs)) < 0.02
    assert float(torch.special.entr(probs.mean(0)).sum()) > 0.95 * math.log(4)


def test_a_group_alone_and_in_company() -> None:
    def fitted(seeds: list[int], groups: int | None) -> torch.Tensor:
        model = DynamicsEnsemble(
            4, 2, 3, (8,), groups=groups, generators=[g(s) for s in seeds], bootstrap="poisson"
        )
        data = table_data(len(seeds))
        if groups is None:
            data = data._replace(target=data.target[0], weight=data.weight[0])
        for _ in range(2):
            model.fit(data, 5, 1e-2)
        out = model(data.state, data.action).probs.detach()
        return out if groups is None else out[seeds.index(7)]

    both = fitted([3, 7, 11], 3)
    assert torch.allclose(both, fitted([7], 1), atol=1e-6)
    assert torch.allclose(both, fitted([7], None), atol=1e-6)
    assert not torch.allclose(both, fitted([7, 3], 2)[:, :1].expand_as(both))


def test_minibatches_of_groups_too() -> None:
    def fitted(seeds: list[int]) -> torch.Tensor:
        data = [line_data(50, s) for s in seeds]
        stacked = Transitions(
            *(torch.stack([getattr(d, f) for d in data]) for f in ("state", "action", "target"))
        )
        model = DynamicsEnsemble(
            2, 1, 2, (8,), "gaussian", groups=len(seeds), generators=[g(s) for s in seeds]
        )
        model.fit(stacked, 7, 1e-2, batch=16)
        return model(torch.ones(1, 2), torch.ones(1, 1)).mean[seeds.index(5)].detach()

    assert torch.allclose(fitted([5]), fitted([1, 5]), atol=1e-6)


def test_members_differ_and_refits_forget() -> None:
    model = DynamicsEnsemble(4, 2, 4, generators=g(0))
    weight = model.net.linears[0].weight
    assert not torch.allclose(weight[0], weight[1]), "a shared seed would make members identical"
    before = weight.detach().clone()
    model.reset()
    assert not torch.allclose(before, model.net.linears[0].weight)
    data = table_data()
    data = data._replace(target=data.target[0], weight=data.weight[0])
    torch.manual_seed(3)
    untouched = torch.get_rng_state()
    model.fit(data, 3)
    assert torch.equal(untouched, torch.get_rng_state()), "the global generator was used"


def test_every_row_is_seen_and_none_twice_in_an_epoch() -> None:
    model = DynamicsEnsemble(2, 1, 3, likelihood="gaussian", generators=g(0))
    orders = list(
        model._orders(10, 4, 5, torch.device("cpu"))
    )  # 20 draws: two epochs, batches across their border
    for member in torch.cat(orders, 1):
        assert sorted(member[:10].tolist()) == sorted(member[10:].tolist()) == list(range(10))
    assert not torch.equal(orders[0][0], orders[0][1]), "members see the same data in different orders"


@pytest.mark.parametrize("bootstrap", ["poisson", "multinomial"])
def test_resampling(bootstrap: str) -> None:
    model = DynamicsEnsemble(4, 2, 50, bootstrap=bootstrap, generators=g(0))
    data = table_data()
    weight = model._resampled(data._replace(target=data.target[0], weight=data.weight[0]))
    assert weight is not None
    assert float(weight[:, 6:].abs().max()) == 0, "rows without weight stay out"
    assert 0.8 < float(weight[:, :6].mean()) < 1.2
    assert float(weight[:, :6].std()) > 0.5


def test_gaussian_fit_and_units() -> None:
    model = DynamicsEnsemble(2, 1, 4, (32, 32), "gaussian", act="swish", min_logvar=-8.0, generators=g(0))
    data = line_data()
    model.fit(data, 400, 1e-2, batch=64, clip=5.0)
    test = line_data(100, seed=50)
    guess = model.sample(test.state, test.action, "mean")
    error = (guess - test.target).abs().mean(0) / (test.target - test.state).std(0)
    assert float(error.max()) < 0.15, "both coordinates are learnt, though one moves 500 times as far"
    inside = model.disagreement(model(test.state, test.action)).detach().mean()
    far = model.disagreement(model(test.state + 20, test.action)).detach().mean()
    assert float(far) > float(inside) + 0.1


def test_variances_stay_in_their_bounds_and_are_pulled_up() -> None:
    model = DynamicsEnsemble(2, 1, 3, likelihood="gaussian", min_logvar=-5, max_logvar=-1, generators=g(0))
    prediction = model(1e3 * torch.randn(20, 2), torch.randn(20, 1))
    assert isinstance(prediction, GaussianPrediction)
    assert bool((prediction.var.log() >= -5.001).all() & (prediction.var.log() <= -0.999).all())
    narrow = GaussianPrediction(
        torch.zeros(2, 1, 1), torch.tensor([math.exp(-5), math.exp(-1)]).view(2, 1, 1)
    )
    assert float(model.disagreement(narrow, decay=None)) < -0.01
    assert abs(float(model.disagreement(narrow))) < 0.01, "the pull hides the negative values"


def test_clipping_is_by_member() -> None:
    from assay.rl.dynamics import _clip_members

    p = torch.nn.Parameter(torch.zeros(2, 3))
    p.grad = torch.tensor([[3.0, 4.0, 0.0], [0.3, 0.4, 0.0]])
    _clip_members([p], 1.0)
    assert torch.allclose(p.grad, torch.tensor([[0.6, 0.8, 0.0], [0.3, 0.4, 0.0]]))


def test_samples_have_the_members_distribution() -> None:
    model = DynamicsEnsemble(3, 1, 2, generators=g(0))
    state, action = torch.eye(3)[:1].expand(20_000, -1), torch.zeros(20_000, 1)
    drawn = model.sample(state, action, 1, g(1)).mean(0)
    assert torch.allclose(drawn, model(state[:1], action[:1]).probs[1, 0], atol=0.015)
    mixed = model.sample(state, action, "random", g(2)).mean(0)
    assert torch.allclose(mixed, model(state[:1], action[:1]).probs.mean(0)[0], atol=0.015)


def test_dirichlet_utility_falls_with_visits_also_for_noise() -> None:
    for random in (False, True):
        posterior = DirichletEnsemble(5, 1, 0.1)
        values = []
        for n in range(200):
            values.append(float(posterior.information_gain()[0, 0]))
            following = n % 5 if random else 2
            posterior.observe(*(torch.tensor([x]) for x in (0, 0, following)))
        start = 5 if random else 0  # the first visits of a noisy pair are surprises
        tail = values[start :: 5 if random else 1]
        assert all(a > b for a, b in pairwise(tail))
        assert values[-1] < 0.05 * values[0]


def test_dirichlet_closed_form_is_the_limit_of_many_members() -> None:
    posterior = DirichletEnsemble(4, 2, 0.5, groups=2)
    index = torch.tensor([[0, 0, 1], [2, 2, 2]])
    posterior.observe(index, torch.zeros_like(index), torch.tensor([[1, 1, 2], [3, 0, 1]]))
    tables = posterior.sample(4_000, [g(0), g(1)])
    assert tables.shape == (4_000, 2, 4, 2, 4)
    assert torch.allclose(tables.mean(0), posterior.mean(), atol=0.03)
    assert torch.allclose(jensen_shannon(tables), posterior.information_gain(), atol=0.03)
    assert torch.allclose(tables[:, 1], posterior.sample(4_000, [g(5), g(1)])[:, 1]), (
        "groups draw for themselves"
    )


def dream(**options: object) -> ImaginationEnv:
    model = DynamicsEnsemble(4, 2, 3, likelihood="gaussian", generators=g(0))
    model.fit(
        Transitions(
            torch.randn(50, 4, generator=g(1)),
            torch.eye(2)[torch.arange(50) % 2],
            torch.randn(50, 4, generator=g(2)),
        ),
        20,
    )
    options = {"num_actions": 2, "horizon": 5, "generator": g(3)} | options
    return ImaginationEnv(6, model, torch.randn(3, 4, generator=g(4)), **options)


def test_imagination_is_an_environment() -> None:
    env = dream()
    obs, _ = env.reset()
    assert all(any(torch.equal(o, s) for s in env.starts) for o in obs)
    for t in range(5):
        before, action = env.state, torch.full((6,), t % 2)
        step = env.step(action)
        hot = torch.eye(2)[action]
        expected = env.ensemble.disagreement(env.ensemble(before, hot))
        assert torch.allclose(step.reward, expected.float())
    assert bool(step.truncated.all())
    assert not bool(step.terminated.any())


def test_imagination_follows_one_member_without_noise() -> None:
    env = dream(noise=False)
    env.reset()
    state, member = env.state, env.member
    assert len(set(member.tolist())) > 1
    step = env.step(torch.zeros(6, dtype=torch.int64))
    hot = torch.eye(2)[torch.zeros(6, dtype=torch.int64)]
    for i in range(6):
        alone = env.ensemble.next_state(env.ensemble(state, hot), state, torch.full((6,), int(member[i])))
        assert torch.allclose(step.obs[i], alone[i])
    assert torch.equal(env.member, member)


def test_ppo_trains_in_imagination() -> None:
    from assay.rl.policies import actor_critic
    from assay.rl.ppo import PPO
    from assay.rl.train import train

    env = dream()
    model = actor_critic(env, hidden=(8,), generator=g(0))
    ppo = PPO(model, torch.optim.Adam(model.parameters(), 1e-3), epochs=1, minibatches=1)
    (update,) = list(train(env, model, ppo, 1, 5, generator=g(1)))
    assert update.env_steps == 30
    assert float(update.rollout.reward.abs().sum()) > 0


def test_tasks_and_continuous_actions() -> None:
    model = DynamicsEnsemble(2, 1, 2, likelihood="gaussian", generators=g(0))
    env = ImaginationEnv(
        4, model, torch.zeros(1, 2), reward=lambda s, a, n: a[:, 0], propagate="random", generator=g(1)
    )
    env.reset()
    assert env.step(torch.full((4, 1), 0.5)).reward.tolist() == [0.5] * 4
    following, reward = Imagination(model)(torch.zeros(4, 2), torch.full((4, 1), 9.0))
    assert torch.allclose(following, Imagination(model)(torch.zeros(4, 2), torch.ones(4, 1))[0]), (
        "cut to the bounds"
    )
    assert reward.shape == (4,)


@pytest.mark.parametrize(
    "wrong",
    [
        {"likelihood": "beta"},
        {"bootstrap": "jackknife"},
        {"members": 0},
        {"min_logvar": 0.0},
        {"act": "gelu"},
    ],
)
def test_bad_arguments(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"one of|at least one|lies below"):
        DynamicsEnsemble(2, 1, **wrong)


def test_bad_calls() -> None:
    model = DynamicsEnsemble(2, 1, likelihood="gaussian")
    with pytest.raises(ValueError, match="numbers"):
        model(torch.zeros(3, 3), torch.zeros(3, 1))
    with pytest.raises(ValueError, match="at least one row"):
        model.fit(line_data(), 0)
    with pytest.raises(ValueError, match="positive weight"):
        model.fit(line_data()._replace(weight=torch.zeros(400)), 1)
    with pytest.raises(ValueError, match="member"):
        model.sample(torch.zeros(1, 2), torch.zeros(1, 1), "median")
    with pytest.raises(ValueError, match="alpha"):
        DirichletEnsemble(2, 1, 0.0)
    with pytest.raises(ValueError, match="one-hot"):
        dream(num_actions=3)
    with pytest.raises(ValueError, match="propagate"):
        dream(propagate="all")
