"""The forward model: floors in closed form, what gets gradients, which rows count."""

import pytest
import torch

from assay.envs import PointBox
from assay.rl.intrinsic import (
    ICM,
    ActionCode,
    ForwardDynamics,
    IntrinsicMixer,
    RandomFeatures,
    ResidualDynamics,
    make_features,
)
from assay.rl.normalize import ReturnNormalizer
from assay.rl.policies import actor_critic
from assay.rl.ppo import PPO
from assay.rl.rollout import Batch, random_rollout
from assay.rl.train import train
from tests.rl.intrinsic.test_features import _batch, _g
from tests.rl.worlds import Line, NextStepReset


class _Linear(torch.nn.Module):
    def __init__(self, size: int, actions: int) -> None:
        super().__init__()
        self.map = torch.nn.Linear(size + actions, size, dtype=torch.float64)

    def forward(self, features: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return self.map(torch.cat((features, action.double()), -1))


def test_a_linear_world_is_learnt_down_to_the_floor_of_its_noise() -> None:
    # x' = A x + B a + e, phi(x) = W x with W square and regular: the error tends to tr(W S W') / d.
    g = _g()
    size, count = 3, 4096
    a, b, w, root = (torch.randn(size, k, dtype=torch.float64, generator=g) for k in (size, 2, size, size))
    x = torch.randn(count, size, dtype=torch.float64, generator=g)
    action = torch.randn(count, 2, generator=g)
    certain = x @ (0.3 * a).T + action.double() @ b.T
    for noise in (0.0, 0.5):
        net = torch.nn.Linear(size, size, bias=False, dtype=torch.float64)
        net.weight.data.copy_(w)
        features = RandomFeatures(net, size)
        bonus = ForwardDynamics(features, ActionCode(act_dim=2), _Linear(size, 2))
        eps = torch.randn(count, size, dtype=torch.float64, generator=g)
        after = certain + noise * eps @ root.T
        batch = _batch(x, action, after)
        optimizer = torch.optim.LBFGS(bonus.parameters(), max_iter=200, line_search_fn="strong_wolfe")

        def closure(bonus=bonus, batch=batch, optimizer=optimizer):
            optimizer.zero_grad()
            loss = bonus.loss(batch)["forward"]
            loss.backward()
            return loss

        optimizer.step(closure)
        reward = bonus.bonus(x, action, after)
        floor = (w @ (noise**2 * root @ root.T) @ w.T).trace() / size
        if noise:
            assert reward.mean().item() == pytest.approx(floor.item(), rel=0.05)
        else:
            assert reward.max() < 1e-6


@pytest.mark.parametrize("kind", ["pixels", "random", "inverse", "vae"])
def test_each_loss_trains_its_own_part(kind: str) -> None:
    code = ActionCode(num_actions=3)
    features = make_features(kind, (3,), 4, 16, code, normalize=False, generator=_g())
    bonus = ForwardDynamics(features, code, hidden=16, blocks=1, generator=_g())
    g = _g(1)
    batch = _batch(
        torch.randn(32, 3, generator=g),
        torch.randint(3, (32,), generator=g),
        torch.randn(32, 3, generator=g),
    )
    losses = bonus.loss(batch)
    losses["forward"].backward()
    assert all(p.grad is None for p in features.parameters())
    assert all(p.grad is not None for p in bonus.model.parameters())
    bonus.zero_grad()
    own = [value for name, value in losses.items() if name != "forward"]
    assert bool(own) == (kind in ("inverse", "vae"))
    for value in own:
        value.backward()
    assert all(p.grad is None for p in bonus.model.parameters())
    before = [b.clone() for b in features.buffers()]
    optimizer = torch.optim.Adam(bonus.parameters(), 1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        sum(bonus.loss(batch).values()).backward()
        optimizer.step()
    assert all(torch.equal(x, y) for x, y in zip(before, features.buffers(), strict=True))


def test_features_may_be_trained_by_the_forward_loss_on_request_but_never_as_the_target() -> None:
    code = ActionCode(num_actions=2)
    features = make_features("inverse", (3,), 4, 16, code, normalize=False, generator=_g())
    bonus = ForwardDynamics(features, code, hidden=16, blocks=0, detach_features=False)
    x, action = torch.randn(8, 3), torch.zeros(8, dtype=torch.int64)
    bonus.loss(_batch(x, action, torch.randn(8, 3)))["forward"].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in features.net.parameters())


def test_the_reward_is_of_the_true_successor_and_of_the_action() -> None:
    env = Line(8, length=3, max_steps=5)
    rollout = random_rollout(env, 30, _g())
    code = ActionCode.of(env)
    bonus = ForwardDynamics(
        make_features("pixels", (1,), normalize=False), code, hidden=8, blocks=1, generator=_g()
    )
    reward = bonus.reward(rollout)
    assert reward.shape == (30, 8)
    assert not reward.requires_grad
    expected = bonus.bonus(rollout.obs[:-1], rollout.action, rollout.next_obs())
    torch.testing.assert_close(reward, expected)
    wrong = bonus.bonus(rollout.obs[:-1], rollout.action, rollout.obs[1:])
    assert not torch.allclose(wrong[rollout.ended], reward[rollout.ended])
    torch.testing.assert_close(wrong[~rollout.ended], reward[~rollout.ended])
    other = bonus.bonus(rollout.obs[:-1], 1 - rollout.action, rollout.next_obs())
    assert (other != reward).all(), "every layer sees the action"
    by_hand = bonus.model(rollout.obs[0], code(rollout.action[0])) - rollout.next_obs()[0]
    torch.testing.assert_close(reward[0], by_hand.square().mean(-1))


def test_the_action_reaches_every_layer() -> None:
    net = ResidualDynamics(4, 3, 8, blocks=2, generator=_g())
    layers = [m for m in net.modules() if isinstance(m, torch.nn.Linear)]
    assert [m.in_features for m in layers] == [7, 11, 11, 11, 11, 11]
    assert sorted(m.out_features for m in layers) == [4, 8, 8, 8, 8, 8]
    with pytest.raises(ValueError, match="sizes are positive"):
        ResidualDynamics(0, 3)


def test_rows_that_are_no_transitions_do_not_train() -> None:
    env = NextStepReset(8, length=3, max_steps=6)
    rollout = random_rollout(env, 40, _g())
    code = ActionCode.of(env)
    bonus = ForwardDynamics(make_features("pixels", (1,), normalize=False), code, hidden=8, generator=_g())
    everything = bonus.loss(Batch(rollout, torch.arange(rollout.transitions)))["forward"]
    raw = bonus.reward(rollout)
    torch.testing.assert_close(everything.detach(), raw[rollout.valid].mean())
    dummies = (~rollout.valid).flatten().nonzero().flatten()
    assert bonus.loss(Batch(rollout, dummies))["forward"] == 0


def test_rewards_do_not_move_while_nothing_is_learnt_and_fall_when_it_is() -> None:
    # A stale predictor (parameters that never reach the optimizer) keeps paying for ever: the loop must train it.
    env = Line(8, length=6, max_steps=12, generator=_g())
    code = ActionCode.of(env)
    paid = {}
    for name in ("trained", "forgotten"):
        env = Line(8, length=6, max_steps=12, generator=_g())
        model = actor_critic(env, hidden=(16,), generator=_g(1))
        features = make_features("random", (1,), 8, 16, generator=_g(2))
        bonus = ForwardDynamics(features, code, hidden=16, blocks=1, generator=_g(3))
        bonus.init_stats(env, 50, _g(4))
        mixer = IntrinsicMixer([bonus], extrinsic=False, normalizers=[ReturnNormalizer(0.99, 8)])
        learnt = [*model.parameters(), *(mixer.parameters() if name == "trained" else ())]
        ppo = PPO(model, torch.optim.Adam(learnt, 3e-3), aux_losses=[mixer.loss], episodic=False)
        raw = [u.metrics["intrinsic_0"] for u in train(env, model, ppo, 15, 32, mixer, _g(5))]
        paid[name] = raw[-1] / raw[0]
    assert paid["trained"] < 0.3
    assert paid["forgotten"] > 0.6


def test_continuous_actions_and_icm() -> None:
    env = PointBox(4, continuous=True)
    rollout = random_rollout(env, 10, _g())
    bonus = ICM(env.obs_shape, ActionCode.of(env), size=8, hidden=16, generator=_g(), normalize=False)
    assert bonus.reward(rollout).shape == (10, 4)
    losses = bonus.loss(Batch(rollout, torch.arange(40)))
    assert set(losses) == {"forward", "inverse"}
    assert (bonus.forward_weight, bonus.feature_weight) == (0.2, 0.8)
    torch.testing.assert_close(losses["forward"].detach(), 0.2 * bonus.reward(rollout).mean())
    sum(losses.values()).backward()


def test_bad_input_is_refused() -> None:
    code = ActionCode(num_actions=2)
    features = make_features("random", (3,), 4, 8, normalize=False)
    bonus = ForwardDynamics(features, code, ResidualDynamics(5, 2, 8, 0))
    with pytest.raises((ValueError, RuntimeError)):
        bonus.bonus(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), torch.zeros(2, 3))
    bonus = ForwardDynamics(features, code, hidden=8)
    with pytest.raises(ValueError, match="begin with one shape"):
        bonus.bonus(torch.zeros(3, 3), torch.zeros(2, dtype=torch.int64), torch.zeros(2, 3))
