"""Rollouts: true successors, time limits, memory, dummy rows."""

import pytest
import torch

from assay.rl.nets import CategoricalHead, LSTMCore, MLPTorso, ValueHead
from assay.rl.policies import ActorCritic, actor_critic
from assay.rl.ppo import PPO
from assay.rl.rollout import (
    Batch,
    RandomPolicy,
    Rollout,
    behaviour,
    collect,
    minibatches,
    random_rollout,
    start,
    true_next_value,
)
from tests.rl.worlds import Line, Memory, NextStepReset


def _g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _position_as_value(env) -> ActorCritic:
    """A critic whose value is the observed position."""
    model = actor_critic(env, shared=False, generator=_g())
    model.value_torso = torch.nn.Identity()
    model.value_head = ValueHead(1, 1)
    torch.nn.init.ones_(model.value_head.linear.weight)
    return model


def _rollout(env, steps: int = 40, model=None, seed: int = 0, **options) -> tuple[ActorCritic, Rollout]:
    model = model or _position_as_value(env)
    rollout = Rollout(steps, env.num_envs, model.streams, **options)
    collect(env, model, rollout, start(env, model, seed), _g(seed))
    return model, rollout


def test_next_value_is_of_the_true_successor() -> None:
    _, r = _rollout(Line(16, length=3, max_steps=7), info=("where",))
    where = r.info["where"].float()
    assert r.terminated.any()
    assert r.truncated.any()
    assert not (r.terminated & r.truncated).any()
    expected = torch.where(r.terminated, 0.0, where)  # where the agent truly went, before any reset
    torch.testing.assert_close(r.next_value[..., 0], expected)
    torch.testing.assert_close(r.next_obs()[..., 0], where)
    # The policy, in contrast, sees the next episode's first observation.
    assert (r.obs[1:][r.ended] == 0).all()
    assert (where[r.truncated] > 0).any(), "the test must tell a reset observation from a last one"


def test_truncation_bootstraps_and_termination_does_not() -> None:
    _, r = _rollout(Line(16, length=3, max_steps=7))
    advantage = r.advantages(gamma=0.9, lam=0.0)[..., 0]
    td = r.reward[..., 0] + 0.9 * r.next_value[..., 0] - r.value[:-1, :, 0]
    torch.testing.assert_close(advantage, td)


def test_a_stream_that_is_not_episodic_goes_on_into_the_next_episode() -> None:
    env = Line(8, length=3, max_steps=7)
    model = actor_critic(env, streams=2, generator=_g())
    _, r = _rollout(env, model=model)
    r.reward[..., 1] = torch.randn(r.reward.shape[:2], generator=_g(1))
    a = r.advantages((0.9, 0.8), (0.95, 0.7), (True, False))
    # By definition: values of what the policy sees next, no mask anywhere.
    v = r.value[..., 1]
    expected, tail = torch.zeros(r.steps, 8), torch.zeros(8)
    for t in reversed(range(r.steps)):
        tail = r.reward[t, :, 1] + 0.8 * v[t + 1] - v[t] + 0.8 * 0.7 * tail
        expected[t] = tail
    torch.testing.assert_close(a[..., 1], expected)
    alone = Rollout.advantages(r, 0.9, 0.95, True)[..., 0]
    torch.testing.assert_close(a[..., 0], alone)


def test_log_probabilities_are_those_that_acted() -> None:
    env = Line(8, max_steps=9)
    model = actor_critic(env, generator=_g(3))
    _, r = _rollout(env, model=model)
    again = model(r.obs[:-1]).dist.log_prob(r.action)
    torch.testing.assert_close(r.logp, again)
    torch.testing.assert_close(behaviour(model, r).log_prob(r.action), r.logp)


def test_recomputed_outputs_of_a_recurrent_policy_equal_the_behaviour() -> None:
    env = Memory(6, validate=True)
    model = actor_critic(env, hidden=(16,), lstm=8, generator=_g(1))
    with torch.no_grad():
        model.policy_head.linear.weight.mul_(100)  # far from uniform: a wrong state would show
    rollout, carry = Rollout(11, 6), start(env, model, 0)
    for _ in range(2):  # the second begins in the middle of episodes, from a handed-over state
        carry = collect(env, model, rollout, carry, _g(2))
    out = model(rollout.obs[:-1], rollout.core_state, rollout.first[:-1])
    torch.testing.assert_close(out.dist.log_prob(rollout.action), rollout.logp, rtol=1e-5, atol=1e-5)


def test_memory_is_cleared_before_the_step_that_begins_an_episode() -> None:
    torch.manual_seed(0)
    core = LSTMCore(3, 4)
    x, first = torch.randn(6, 2, 3), torch.zeros(6, 2, dtype=torch.bool)
    first[3, 0] = True
    state = (torch.randn(2, 4), torch.randn(2, 4))
    y, _ = core(x, state, first)
    alone, _ = core(x[3:, :1], core.initial(1), torch.zeros(3, 1, dtype=torch.bool))
    torch.testing.assert_close(y[3:, :1], alone)  # one step late or early would differ
    untouched, _ = core(x[:, 1:], (state[0][1:], state[1][1:]), first[:, 1:])
    torch.testing.assert_close(y[:, 1:], untouched)


def test_truncation_value_of_a_recurrent_policy_uses_the_memory_of_that_moment() -> None:
    env = Line(3, length=50, max_steps=4)
    model = actor_critic(env, hidden=(8,), lstm=8, generator=_g(1))
    rollout, carry = Rollout(10, 3), start(env, model, 0)
    collect(env, model, rollout, carry, _g(2))
    obs = torch.cat([rollout.obs[:4], rollout.next_obs()[3][None]])  # the first episode and its true end
    value = model.value(obs, model.initial_state(3), rollout.first[:5] & False)
    torch.testing.assert_close(rollout.next_value[3], value[-1], rtol=1e-5, atol=1e-6)


def test_dummy_rows_of_next_step_autoreset_enter_no_loss() -> None:
    env = NextStepReset(8, length=3, max_steps=6)
    model, r = _rollout(env)
    assert (~r.valid).any()
    assert (r.reward[~r.valid] == 100).all()
    assert (r.advantages(0.9, 0.95)[~r.valid] == 0).all()
    assert r.advantages(0.9, 0.95).abs().max() < 20  # the poisoned reward reached no other row
    for batch in minibatches(r, 3, generator=_g()):
        assert batch.valid.all()
    torch.testing.assert_close(r.first[1:-1][~r.valid[:-1]], torch.ones_like(r.first[1:-1][~r.valid[:-1]]))
    metrics = PPO(model, torch.optim.SGD(model.parameters(), 0.0)).update(r, generator=_g())
    assert metrics["value"] < 50


def test_stored_observations_do_not_change_when_the_world_goes_on() -> None:
    env = Line(4, max_steps=5)
    _, r = _rollout(env)
    copy = r.obs.clone()
    random_rollout(env, 20, _g())
    assert torch.equal(copy, r.obs)


def test_minibatches_share_all_transitions_evenly() -> None:
    _, r = _rollout(Line(7, max_steps=5), steps=5)
    parts = [batch.index for batch in minibatches(r, 4, generator=_g())]
    assert sorted(torch.cat(parts).tolist()) == list(range(35))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    whole = [batch.index for batch in minibatches(r, 3, recurrent=True, generator=_g())]
    assert sorted(torch.cat(whole).tolist()) == list(range(7))
    with pytest.raises(ValueError, match="cannot make 36 batches"):
        next(minibatches(r, 36))


def test_batches_of_sequences_keep_time() -> None:
    _, r = _rollout(Line(7, max_steps=5), steps=6)
    batch = Batch(r, torch.tensor([2, 5]), sequences=True)
    assert torch.equal(batch.obs, r.obs[:-1, [2, 5]])
    assert torch.equal(batch.action, r.action[:, [2, 5]])
    assert len(batch) == 12


def test_random_policy_is_uniform_and_streams_of_copies_differ() -> None:
    r = random_rollout(Line(64), 100, _g())
    assert abs(r.action.float().mean().item() - 0.5) < 0.02
    assert not torch.equal(r.action[:, 0], r.action[:, 1])
    torch.testing.assert_close(r.logp, torch.full_like(r.logp, -torch.tensor(2.0).log().item()))
    assert RandomPolicy(Line(1)).recurrent is False


def test_a_recurrent_policy_with_two_torsos_is_refused() -> None:
    torso = MLPTorso((1, 4))
    with pytest.raises(ValueError, match="shares its torso"):
        ActorCritic(torso, CategoricalHead(4, 2), ValueHead(4), LSTMCore(4, 4), MLPTorso((1, 4)))


@pytest.mark.parametrize("lstm", [None, 4])
def test_stacked_rollouts_are_their_parts_side_by_side(lstm: int | None) -> None:
    parts = []
    model = actor_critic(Line(1), hidden=(8,), lstm=lstm, generator=_g())
    for seed, copies in enumerate((3, 5)):
        env = Line(copies, length=3, max_steps=4 + seed)
        parts.append(_rollout(env, 12, model, seed)[1])
    whole = Rollout.stack(parts)
    assert whole.num_envs == 8
    for name in ("obs", "action", "logp", "reward", "value", "next_value", "first"):
        torch.testing.assert_close(getattr(whole, name), torch.cat([getattr(p, name) for p in parts], 1))
    torch.testing.assert_close(whole.next_obs(), torch.cat([p.next_obs() for p in parts], 1))
    torch.testing.assert_close(
        true_next_value(model, whole, whole.value), whole.next_value, rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ValueError, match="have one length"):
        Rollout.stack([parts[0], _rollout(Line(3), 5, model)[1]])


def test_a_rollout_survives_as_plain_tensors() -> None:
    _, r = _rollout(Line(4, length=3, max_steps=5), info=("where",))
    again = Rollout.of({name: t.clone() for name, t in r.tensors().items()})
    assert again.tensors().keys() == r.tensors().keys()
    assert all(torch.equal(t, again.tensors()[name]) for name, t in r.tensors().items())
    assert again.keys == ("where",)
