"""The V-trace learner, TensorFlow's RMSProp and the replay of unrolls."""

import pytest
import torch

from assay.rl.impala import RMSPropTF, VTraceLearner
from assay.rl.policies import actor_critic
from assay.rl.ppo import A2C
from assay.rl.replay import TrajectoryReplay
from assay.rl.rollout import Rollout, collect, start
from tests.rl.worlds import Line, NextStepReset


def _g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _collected(env=None, **options):
    env = env or Line(16, max_steps=9)
    model = actor_critic(env, generator=_g(1), **options)
    rollout = Rollout(12, env.num_envs)
    collect(env, model, rollout, start(env, model, 0), _g(2))
    return model, rollout


def _step(learner_of) -> torch.Tensor:
    model, rollout = _collected()
    learner_of(model).update(rollout, generator=_g())
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_on_policy_it_is_the_advantage_actor_critic() -> None:
    # On fresh data every ratio is 1, and V-trace with lambda 1 is the n-step return.
    options = {"gamma": 0.9, "lam": 1.0, "ent_coef": 0.02, "max_grad_norm": None}
    vtrace = _step(lambda m: VTraceLearner(m, torch.optim.SGD(m.parameters(), 0.1), **options))
    a2c = _step(lambda m: A2C(m, torch.optim.SGD(m.parameters(), 0.1), **options))
    torch.testing.assert_close(vtrace, a2c, rtol=1e-4, atol=1e-6)


def test_the_ratio_is_of_the_behaviour_that_acted() -> None:
    model, rollout = _collected()
    learner = VTraceLearner(model, torch.optim.SGD(model.parameters(), 0.5), max_grad_norm=None)
    first = learner.update(rollout)
    assert first["rho_mean"] == pytest.approx(1, abs=1e-5)
    assert first["lag"] == 0
    assert first["effective_sample_share"] == pytest.approx(1, abs=1e-4)
    second = learner.update(rollout)  # the same data, one update older
    assert second["rho_max"] - 1 > 1e-4
    assert second["lag"] == 1
    assert second["effective_sample_share"] < first["effective_sample_share"]


def test_summed_losses_are_the_mean_times_the_transitions() -> None:
    def of(reduction: str) -> float:
        model, rollout = _collected()
        optimizer = torch.optim.SGD(model.parameters(), 0.0)
        return VTraceLearner(model, optimizer, reduction=reduction).update(rollout)["loss"]

    assert of("sum") == pytest.approx(of("mean") * 12 * 16, rel=1e-4)


def test_no_dummy_row_enters_the_loss() -> None:
    model, rollout = _collected(NextStepReset(8, length=3, max_steps=6))
    assert (~rollout.valid).any()
    learner = VTraceLearner(model, torch.optim.SGD(model.parameters(), 0.0))
    before = learner.update(rollout)
    rollout.reward[~rollout.valid] = 1e6
    assert learner.update(rollout)["loss"] == pytest.approx(before["loss"])
    assert learner.env_steps == 2 * int(rollout.valid.sum())


def test_one_stream_only() -> None:
    model, _ = _collected(streams=2)
    with pytest.raises(ValueError, match="trains one value"):
        VTraceLearner(model, torch.optim.SGD(model.parameters(), 0.1))


def test_rmsprop_of_tensorflow() -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    optimizer = RMSPropTF([x], lr=0.5, alpha=0.9, eps=0.1)
    square, expected = torch.ones(2), x.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        x.square().sum().backward()
        grad = 2 * expected
        square = 0.9 * square + 0.1 * grad**2
        expected = expected - 0.5 * grad / (square + 0.1).sqrt()
        optimizer.step()
        torch.testing.assert_close(x.detach(), expected)
    with pytest.raises(ValueError, match="alpha"):
        RMSPropTF([x], alpha=1.0)


def test_rmsprop_momentum() -> None:
    x = torch.tensor([1.0], requires_grad=True)
    optimizer = RMSPropTF([x], lr=0.1, alpha=0.9, eps=0.1, momentum=0.5)
    velocity, square, expected = torch.zeros(1), torch.ones(1), torch.ones(1)
    for _ in range(3):
        x.grad = torch.ones(1)
        optimizer.step()
        square = 0.9 * square + 0.1
        velocity = 0.5 * velocity + 0.1 / (square + 0.1).sqrt()
        expected = expected - velocity
    torch.testing.assert_close(x.detach(), expected)


def test_replay_keeps_the_last_or_the_best() -> None:
    unrolls = [Rollout(1, 1) for _ in range(5)]
    fifo, elite = TrajectoryReplay(3, generator=_g()), TrajectoryReplay(3, "elite", generator=_g())
    for i, unroll in enumerate(unrolls):
        fifo.add(unroll)
        elite.add(unroll, priority=-abs(i - 1.0))
    assert set(map(id, fifo.sample(200))) == set(map(id, unrolls[2:]))
    assert set(map(id, elite.sample(200))) == set(map(id, unrolls[:3]))
    with pytest.raises(ValueError, match="empty"):
        TrajectoryReplay(2).sample(1)
    with pytest.raises(ValueError, match="at least one unroll"):
        TrajectoryReplay(0)
