"""Curiosity around Gymnasium environments: what is paid, for which transition, and what trains."""

import numpy as np
import pytest
import torch

gymnasium = pytest.importorskip("gymnasium", reason="the extra rl")

from assay.rl.intrinsic import ICM, ActionCode, ForwardDynamics, make_features  # noqa: E402
from assay.rl.intrinsic.curiosity_wrapper import (  # noqa: E402
    CuriosityVectorWrapper,
    CuriosityWrapper,
    action_code,
    one_step,
)
from tests.rl.intrinsic.test_wrapper import Spy  # noqa: E402


@pytest.mark.parametrize("features", ["pixels", "random", "inverse", "vae"])
def test_every_space_around_cartpole(features: str) -> None:
    env = CuriosityWrapper(
        gymnasium.make("CartPole-v1"), features=features, weight=0.5, warmup=60, update_every=32
    )
    env.reset(seed=0)
    env.action_space.seed(0)
    paid = []
    for _ in range(100):
        _, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert reward == pytest.approx(info["extrinsic_reward"] + 0.5 * info["intrinsic_reward"])
        paid.append(info["intrinsic_reward"])
        if terminated or truncated:
            env.reset()
    assert np.isfinite(paid).all()
    assert min(paid) > 0
    assert env.forecaster.updates == 3
    assert int(env.forecaster.curiosity.features.obs_norm.count) == 60, (
        "statistics stay those of random steps"
    )


def test_the_first_bonus_is_the_error_of_the_first_step() -> None:
    env = CuriosityWrapper(gymnasium.make("CartPole-v1"), warmup=50, mode="replace", update_every=10_000)
    before, _ = env.reset(seed=3)
    after, reward, *_ = env.step(1)
    x, y = (torch.as_tensor(o)[None] for o in (before, after))
    raw = env.forecaster.curiosity.bonus(x, torch.tensor([1]), y)
    assert reward == pytest.approx(float(raw / env.forecaster.normalizer.std), rel=1e-5)
    other = env.forecaster.curiosity.bonus(x, torch.tensor([0]), y)
    assert raw != other


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize("endless", [False, True])
def test_vectors_know_true_successors_and_endless_streams(mode: str, endless: bool) -> None:
    autoreset = gymnasium.vector.AutoresetMode(mode)
    envs = gymnasium.vector.SyncVectorEnv([Spy] * 3, autoreset_mode=autoreset)
    wrapped = CuriosityVectorWrapper(envs, endless=endless, warmup=20, update_every=10_000)
    wrapped.reset(seed=0)
    ended = []
    for _ in range(11):
        _, _, terminated, truncated, info = wrapped.step(wrapped.action_space.sample())
        assert (info["intrinsic_reward"] >= 0).all()
        ended.append(info["episode_end"] if endless else terminated | truncated)
        if endless:
            assert not terminated.any()
            assert not truncated.any()
    assert np.array(ended).any()
    obs, _, after = (torch.cat(parts)[:, ...] for parts in zip(*wrapped.forecaster.kept, strict=True))
    pairs = {(float(a[0]), float(b[0])) for a, b in zip(obs, after, strict=True)}
    assert {(-7.0, 1.0), (1.0, 2.0), (2.0, 3.0)} <= pairs
    last = {(3.0, 100.0)}
    over = {(100.0, -7.0)} if mode == "NextStep" else {(3.0, -7.0)}
    if endless:
        # The successor of a last observation is the next life's first one (same step: of the step that ended).
        assert over <= pairs
    else:
        assert last <= pairs
        assert not over & pairs
        assert (after[:, 0] != -7).all()


def test_one_environment_without_ends() -> None:
    env = CuriosityWrapper(Spy(), endless=True, mode="replace", warmup=10)
    env.reset(seed=0)
    seen = []
    for _ in range(9):
        obs, reward, terminated, truncated, info = env.step(0)
        assert not terminated
        assert not truncated
        assert reward == pytest.approx(info["intrinsic_reward"])
        assert info["extrinsic_reward"] == 2.5
        seen.append((obs[0], info["episode_end"]))
    assert seen[3] == (-7, True)
    assert seen[4] == (1, False)
    assert (torch.cat([k[2] for k in env.forecaster.kept])[:, 0] == -7).sum() == 2


def test_it_learns_what_it_sees_and_is_saved() -> None:
    envs = gymnasium.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync")
    wrapped = CuriosityVectorWrapper(envs, mode="replace", update_every=32, lr=1e-3)
    wrapped.reset(seed=0)
    wrapped.action_space.seed(0)
    paid = []
    for _ in range(320):
        _, reward, *_ = wrapped.step(wrapped.action_space.sample())
        paid.append(reward.mean())
    assert np.mean(paid[-64:]) < 0.5 * np.mean(paid[:64])
    other = CuriosityVectorWrapper(
        gymnasium.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync"), seed=9
    )
    other.forecaster.load_state_dict(wrapped.forecaster.state_dict())
    x, a = torch.randn(5, 4), torch.zeros(5, dtype=torch.int64)
    torch.testing.assert_close(
        other.forecaster.curiosity.bonus(x, a, x), wrapped.forecaster.curiosity.bonus(x, a, x)
    )


def test_continuous_actions_own_networks_and_bad_input() -> None:
    env = CuriosityWrapper(gymnasium.make("Pendulum-v1"), features="inverse", warmup=30, update_every=8)
    env.reset(seed=0)
    for _ in range(9):
        env.step(env.action_space.sample())
    assert env.forecaster.updates == 1
    icm = ICM((4,), ActionCode(2), 8, 16)
    own = CuriosityWrapper(gymnasium.make("CartPole-v1"), icm, warmup=30)
    own.reset(seed=0)
    assert own.step(0)[4]["intrinsic_reward"] > 0
    wrong = ForwardDynamics(make_features("random", (4,), 4, 8), ActionCode(5), hidden=8)
    with pytest.raises(ValueError, match="other actions"):
        CuriosityWrapper(gymnasium.make("CartPole-v1"), wrong)
    with pytest.raises(ValueError, match="Box observations"):
        CuriosityWrapper(gymnasium.make("FrozenLake-v1"))
    with pytest.raises(ValueError, match="Discrete actions or a Box"):
        action_code(gymnasium.spaces.MultiDiscrete([2, 2]))
    with pytest.raises(ValueError, match="'replace' or 'add'"):
        CuriosityWrapper(gymnasium.make("CartPole-v1"), mode="mix")
    shifted = action_code(gymnasium.spaces.Discrete(3, start=2))
    assert shifted.size == 3


def test_one_step_rollouts_carry_what_rewards_read() -> None:
    x, a = torch.randn(5, 4), torch.tensor([0, 1, 0, 1, 1])
    rollout = one_step(x, a, x + 1, torch.tensor([True, True, True, False, True]))
    bonus = ForwardDynamics(make_features("pixels", (4,), normalize=False), ActionCode(2), hidden=8, blocks=0)
    torch.testing.assert_close(bonus.reward(rollout)[0], bonus.bonus(x, a, x + 1))
    assert rollout.valid.sum() == 4
    assert not rollout.ended.any()


def test_distillation_does_not_care_what_actions_look_like() -> None:
    from assay.rl.intrinsic.wrapper import RNDWrapper

    class Odd(Spy):
        action_space = gymnasium.spaces.Tuple(
            (gymnasium.spaces.Discrete(2), gymnasium.spaces.Box(-1, 1, (3,)))
        )

    env = RNDWrapper(Odd(), warmup=10)
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[4]["intrinsic_reward"] > 0
    with pytest.raises(ValueError, match="Discrete actions or a Box"):
        CuriosityWrapper(Odd())
