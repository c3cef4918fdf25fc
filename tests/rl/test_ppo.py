"""PPO and A2C: what an update does, and that they learn."""

import pytest
import torch

from assay.rl.evaluate import evaluate
from assay.rl.policies import actor_critic
from assay.rl.ppo import A2C, PPO
from assay.rl.rollout import Rollout, collect, start
from assay.rl.schedules import Linear
from assay.rl.train import train
from tests.rl.worlds import Line, Memory


def _g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _collected(streams: int = 1, **options):
    env = Line(16, max_steps=9)
    model = actor_critic(env, streams=streams, generator=_g(1), **options)
    rollout = Rollout(12, 16, streams)
    collect(env, model, rollout, start(env, model, 0), _g(2))
    return model, rollout


def test_the_first_a2c_step_is_the_policy_gradient() -> None:
    model, rollout = _collected()
    # By hand: -mean(log pi A) + 1/2 * 1/2 mean (V - G)^2 - c mean H, from the same rollout.
    advantage = rollout.advantages(0.99, 0.95)[..., 0]
    out = model(rollout.obs[:-1])
    target = advantage + rollout.value[:-1, :, 0]
    loss = -(out.dist.log_prob(rollout.action) * advantage).mean()
    loss = loss + 0.25 * (out.value[..., 0] - target).square().mean() - 0.01 * out.dist.entropy().mean()
    expected = torch.autograd.grad(loss, list(model.parameters()))
    before = [p.detach().clone() for p in model.parameters()]
    A2C(model, torch.optim.SGD(model.parameters(), 1.0), max_grad_norm=None).update(rollout, generator=_g())
    for p, old, grad in zip(model.parameters(), before, expected, strict=True):
        torch.testing.assert_close(old - p, grad, rtol=1e-4, atol=1e-6)


def test_entropy_bonus_raises_entropy() -> None:
    model, rollout = _collected()
    with torch.no_grad():
        model.policy_head.linear.bias.copy_(torch.tensor([1.0, -1.0]))
    rollout.reward.zero_()
    before = model(rollout.obs[:-1]).dist.entropy().mean()
    ppo = PPO(
        model, torch.optim.SGD(model.policy_head.parameters(), 0.5), ent_coef=1.0, vf_coef=0.0, adv_norm=None
    )
    rollout.value.zero_(), rollout.next_value.zero_()
    ppo.update(rollout, generator=_g())
    assert model(rollout.obs[:-1]).dist.entropy().mean() > before


def test_streams_are_weighted_in_the_policy_and_regress_alone() -> None:
    model, rollout = _collected(streams=2)
    rollout.reward[..., 1] = torch.randn(12, 16, generator=_g(5))
    ppo = PPO(
        model,
        torch.optim.SGD(model.parameters(), 0.0),
        gamma=(0.9, 0.5),
        lam=(0.9, 0.8),
        episodic=(True, False),
        stream_weights=(2.0, 0.5),
        clip=None,
        epochs=1,
        minibatches=1,
        adv_norm=None,
    )
    metrics = ppo.update(rollout, generator=_g())
    a = rollout.advantages((0.9, 0.5), (0.9, 0.8), (True, False))
    logp = model(rollout.obs[:-1]).dist.log_prob(rollout.action)
    expected = -(logp * (2 * a[..., 0] + 0.5 * a[..., 1])).mean()
    assert metrics["policy"] == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
    assert metrics["value"] == pytest.approx(0.5 * a.square().mean((0, 1)).sum().item(), rel=1e-4)


def test_relabelled_rewards_replace_the_rollouts() -> None:
    model, rollout = _collected()
    ppo = PPO(model, torch.optim.SGD(model.parameters(), 0.0))
    low = ppo.update(rollout, reward=torch.zeros_like(rollout.reward), generator=_g())
    high = ppo.update(rollout, reward=torch.full_like(rollout.reward, 100.0), generator=_g())
    assert high["value"] > 100 * low["value"]
    with pytest.raises(ValueError, match="relabelled rewards are"):
        ppo.update(rollout, reward=torch.zeros(12, 16))


def test_target_kl_stops_early_and_schedules_count_env_steps() -> None:
    model, rollout = _collected()
    optimizer = torch.optim.Adam(model.parameters(), 1.0)
    ppo = PPO(model, optimizer, epochs=50, target_kl=1e-3, learning_rate=Linear(0.1, 0.0, steps=384))
    ppo.update(rollout, generator=_g())
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
    steps = int(optimizer.state[next(iter(model.parameters()))]["step"])
    assert steps < 50 * 4


def test_auxiliary_losses_are_trained_and_reported() -> None:
    model, rollout = _collected()
    extra = torch.nn.Parameter(torch.tensor(3.0))
    optimizer = torch.optim.SGD([*model.parameters(), extra], 0.1)
    ppo = PPO(model, optimizer, aux_losses=[lambda batch: ("square", extra**2, 0.5)], max_grad_norm=None)
    metrics = ppo.update(rollout, generator=_g())
    assert extra.item() < 3
    assert metrics["square"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": 0.0}, "clip is positive"),
        ({"epochs": 0}, "at least 1"),
        ({"adv_norm": "global"}, "adv_norm is"),
        ({"gamma": (0.9, 0.9)}, "one entry for each"),
        ({"stream_weights": (1.0, 1.0)}, "one entry for each"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    model, _ = _collected()
    with pytest.raises(ValueError, match=message):
        PPO(model, torch.optim.SGD(model.parameters(), 0.1), **options)


def test_two_runs_with_one_seed_are_equal() -> None:
    def run() -> torch.Tensor:
        env = Line(8, max_steps=9, generator=_g(1))
        model = actor_critic(env, hidden=(16,), generator=_g(2))
        ppo = PPO(model, torch.optim.Adam(model.parameters(), 1e-2))
        for _ in train(env, model, ppo, updates=3, steps=8, generator=_g(3)):
            pass
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(run(), run())


def test_ppo_learns_the_line() -> None:
    env = Line(32, length=8, max_steps=24, validate=False)
    model = actor_critic(env, hidden=(32,), generator=_g(1))
    ppo = PPO(model, torch.optim.Adam(model.parameters(), 3e-3))
    for _ in train(env, model, ppo, updates=15, steps=32, generator=_g(2)):
        pass
    result = evaluate(model, Line(32, length=8, max_steps=24), 32, deterministic=True)
    assert result.returns.mean() == 1
    assert (result.lengths == 8).all()
    assert result.terminated.all()


def test_memory_needs_a_recurrent_policy() -> None:
    scores = {}
    for lstm in (None, 16):
        env = Memory(64, generator=_g(1), validate=False)
        model = actor_critic(env, hidden=(32,), lstm=lstm, shared=True, generator=_g(2))
        ppo = PPO(model, torch.optim.Adam(model.parameters(), 1e-2), ent_coef=0.0)
        for _ in train(env, model, ppo, updates=25, steps=16, generator=_g(3)):
            pass
        scores[lstm] = evaluate(model, Memory(64), 256, generator=_g(4)).returns.mean().item()
    assert scores[16] > 0.9
    assert abs(scores[None]) < 0.3
