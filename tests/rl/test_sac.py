"""Soft actor-critic: torchrl's loss sees what it should, and learns."""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from assay._extras import MissingExtra
from assay.envs import AppendSkill, CartPole, PointBox, RewardScale
from assay.envs.base import TensorEnv
from assay.rl.evaluate import evaluate
from assay.rl.intrinsic.skills import DIAYNReward, measure_skills
from assay.rl.rollout import Rollout, collect, start
from assay.rl.sac import SAC, BoundedGaussian, SoftActor, Transitions, skill_relabel

pytest.importorskip("torchrl", reason="the extra torchrl")


def _g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Homing(TensorEnv):
    """Walk to the middle of a square: actions of unequal ranges, cost the distance, cut off after 10 steps."""

    state_names = ("place",)
    obs_shape = (2,)

    def __init__(self, num_envs: int, **options: Any):
        super().__init__(num_envs, max_steps=10, **options)
        self.place = torch.zeros(num_envs, 2)

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        import numpy as np

        return spaces.Box(-3, 3, (2,)), spaces.Box(np.float32([-0.5, -1]), np.float32([0.5, 2]))

    def _reset_rows(self, mask: Tensor) -> None:
        self.place = torch.where(mask[:, None], 2 * self.uniform(2) - 1, self.place)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        self.place = (self.place + 0.5 * action).clamp(-3, 3)
        return -self.place.norm(dim=1), torch.zeros(self.num_envs).bool(), {"place": self.place}

    def observe(self) -> Tensor:
        return self.place.clone()


def test_our_distribution_is_torchrls() -> None:
    from torchrl.modules import TanhNormal

    low, high = torch.tensor([-0.5, -1.0]), torch.tensor([0.5, 2.0])
    mean, log_std = torch.randn(50, 2, generator=_g()), 0.3 * torch.randn(50, 2, generator=_g(1)) - 1
    ours = BoundedGaussian(mean, log_std, low, high)
    theirs = TanhNormal(mean, log_std.exp(), low=low, high=high, tanh_loc=False)
    action = ours.sample(_g(2))
    assert ((action >= low) & (action <= high)).all()
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.mode(), theirs.deterministic_sample)


def test_density_integrates_to_one() -> None:
    low, high = torch.tensor([-1.0]), torch.tensor([3.0])
    dist = BoundedGaussian(torch.tensor([0.2]), torch.tensor([-0.7]), low, high)
    x = torch.linspace(-1, 3, 20_001)[1:-1, None]
    assert abs(float(dist.log_prob(x).exp().sum()) * 4 / 20_000 - 1) < 1e-3


def test_it_walks_home() -> None:
    env = Homing(8, generator=_g(3))
    learner = SAC(env, hidden=(32, 32), lr=3e-3, batch=128, tau=0.02, gamma=0.9, generator=_g(4))
    before = evaluate(learner.actor, Homing(64, generator=_g(9)), 64, deterministic=True).returns.mean()
    told = list(learner.run(3_200, warmup=400, updates_per_step=0.125, every=800))
    after = evaluate(learner.actor, Homing(64, generator=_g(9)), 64, deterministic=True).returns.mean()
    assert learner.updates == 350
    assert [m["env_steps"] for m in told] == [800, 1600, 2400, 3200]
    assert told[-1]["step_reward"] > told[0]["step_reward"] + 0.2
    # From a uniform place the walk costs 1.6 to 2.2 at best, staying costs about 7.6.
    assert before < -5
    assert after > -3
    assert told[-1]["alpha"] < told[0]["alpha"], "the entropy weight is learned"


def test_transitions_are_true_ones_and_time_limits_are_no_ends() -> None:
    env = Homing(3, generator=_g(1))
    learner = SAC(env, hidden=(8,), info=("place",), generator=_g(2))
    learner.collect(25)
    assert learner.env_steps == 75
    kept = learner.replay[:]
    # Every successor is where the action led, also where an episode was cut off and the next one began.
    led = (kept["observation"] + 0.5 * kept["action"]).clamp(-3, 3)
    torch.testing.assert_close(kept["next", "observation"], led)
    torch.testing.assert_close(kept["info", "place"], led)
    assert int(kept["next", "done"].sum()) == 6
    assert not kept["next", "terminated"].any()
    # A cut-off transition's target bootstraps like any other; a terminated one's does not.

    def loss(done: bool, terminated: bool) -> float:
        made = learner.replay[:].clone()
        made["next", "done"] = torch.full((75, 1), done)
        made["next", "terminated"] = torch.full((75, 1), terminated)
        with learner._own_randomness():
            torch.manual_seed(0)
            return float(learner.loss(made)["loss_qvalue"].detach())

    assert loss(done=False, terminated=False) == loss(done=True, terminated=False)
    assert loss(done=True, terminated=True) != loss(done=True, terminated=False)


def test_rewards_are_relabelled_when_sampled() -> None:
    paid: list[Transitions] = []

    def relabel(made: Transitions) -> Tensor:
        paid.append(made)
        return made.obs[:, 0] * 0 + 7

    env = Homing(4, generator=_g(1))
    learner = SAC(env, hidden=(8,), batch=32, relabel=relabel, generator=_g(2))
    learner.collect(20)
    assert learner.update()["reward"] == pytest.approx(7)
    assert paid[0].obs.shape == (32, 2)
    torch.testing.assert_close(paid[0].reward, -paid[0].next_obs.norm(dim=1))
    assert (learner.replay[:]["next", "reward"] <= 0).all(), "the buffer keeps the world's rewards"
    learner.relabel = lambda made: made.obs
    with pytest.raises(ValueError, match=r"rewards \[32\]"):
        learner.update()


def _skilled(scale: float) -> tuple[SAC, DIAYNReward]:
    world = RewardScale(PointBox(16, continuous=True, generator=_g(1)), scale)
    reward = DIAYNReward(2, 4, hidden=(32,), generator=_g(2))
    env = AppendSkill(world, 4, generator=_g(3))
    learner = SAC(
        env,
        hidden=(32, 32),
        lr=2e-3,
        alpha=0.1,
        batch=128,
        relabel=skill_relabel(reward, 2e-3),
        info=("skill",),
        generator=_g(4),
    )
    return learner, reward


def test_skills_come_apart_without_the_worlds_reward() -> None:
    learner, reward = _skilled(1.0)
    told = list(learner.run(7_000, warmup=960, updates_per_step=0.0625, every=3_000))
    assert told[-1]["reward"] > told[0]["reward"]
    env = AppendSkill(PointBox(128, continuous=True, generator=_g(7)), 4, generator=_g(8))
    rollout = Rollout(30, 128, info=("skill",))
    collect(env, learner.actor, rollout, start(env, learner.actor), _g(9), values=False)
    obs = rollout.next_obs()
    assert isinstance(obs, Tensor)
    measured = measure_skills(obs[..., :2], rollout.info["skill"][0], 4, _g(10), steps=150)
    assert measured.mi > 0.4  # nats of at most 1.39; an untrained policy gives about 0
    assert reward.discriminator[0].weight.grad is not None


def test_the_worlds_reward_is_never_read() -> None:
    vectors = []
    for scale in (1.0, 1e6):
        learner, reward = _skilled(scale)
        learner.collect(20)
        for _ in range(5):
            learner.update()
        vectors.append(torch.cat([p.flatten() for p in (*learner.actor.parameters(), *reward.parameters())]))
    assert torch.equal(*vectors)


def test_it_repeats_and_leaves_the_global_generator_alone() -> None:
    runs = []
    state = torch.get_rng_state()
    for extra in (0, 3):
        learner = SAC(Homing(4, generator=_g(1)), hidden=(8,), batch=16, generator=_g(2))
        learner.collect(10)
        for _ in range(3):
            learner.update()
        runs.append(torch.cat([p.flatten() for p in learner.loss.parameters()]))
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(extra)
        state = torch.get_rng_state()
    assert torch.equal(*runs)


def test_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="continuous actions"):
        SAC(CartPole(2))
    with pytest.raises(ValueError, match="continuous actions"):
        SoftActor(CartPole(2))
    with pytest.raises(ValueError, match="collect first"):
        SAC(Homing(2), hidden=(8,)).update()
    with pytest.raises(ValueError, match="batch and capacity"):
        SAC(Homing(2), hidden=(8,), batch=0)
    with pytest.raises(ValueError, match="are positive"):
        list(SAC(Homing(2), hidden=(8,)).run(10, updates_per_step=0))
    monkeypatch.setitem(sys.modules, "torchrl.objectives", None)
    with pytest.raises(MissingExtra, match=r"assay\[torchrl\]"):
        SAC(Homing(2))
