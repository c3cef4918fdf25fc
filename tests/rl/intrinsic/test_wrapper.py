"""RND around Gymnasium environments: what is paid, from which observation, and what trains."""

import numpy as np
import pytest
import torch

gymnasium = pytest.importorskip("gymnasium", reason="the extra rl")

from assay.rl.intrinsic import make_rnd  # noqa: E402
from assay.rl.intrinsic.wrapper import RNDVectorWrapper, RNDWrapper  # noqa: E402


class Spy(gymnasium.Env):
    """Counts its steps in the observation; an episode has 4 steps, the last one shows 100."""

    observation_space = gymnasium.spaces.Box(-1000, 1000, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self.clock = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.clock = 0
        return np.array([-7.0, 0.0], np.float32), {}

    def step(self, action):
        self.clock += 1
        done = self.clock == 4
        obs = np.array([100.0 if done else self.clock, 0.0], np.float32)
        return obs, 2.5, done, False, {}


def test_ten_lines_around_cartpole() -> None:
    env = RNDWrapper(gymnasium.make("CartPole-v1"), mode="add", weight=0.5, warmup=100, update_every=32)
    obs, info = env.reset(seed=0)
    total = []
    for _ in range(200):
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert reward == pytest.approx(info["extrinsic_reward"] + 0.5 * info["intrinsic_reward"])
        assert info["extrinsic_reward"] == 1
        total.append(info["intrinsic_reward"])
        if terminated or truncated:
            obs, info = env.reset()
    assert obs.shape == (4,)
    assert np.isfinite(total).all()
    assert min(total) >= 0
    assert env.distiller.updates == 6
    # The first bonus is already on the scale of the others: statistics came first.
    assert total[0] < 20 * np.median(total)


def test_the_reward_can_be_replaced() -> None:
    env = RNDWrapper(gymnasium.make("CartPole-v1"), mode="replace", weight=2.0, warmup=50)
    env.reset(seed=0)
    _, reward, _, _, info = env.step(0)
    assert reward == pytest.approx(2 * info["intrinsic_reward"])
    assert info["extrinsic_reward"] == 1


def test_the_world_is_left_alone() -> None:
    plain = gymnasium.make("CartPole-v1")
    wrapped = RNDWrapper(gymnasium.make("CartPole-v1"), warmup=30)
    a, _ = plain.reset(seed=3)
    b, _ = wrapped.reset(seed=3)
    for action in (0, 1, 1, 0, 1):
        np.testing.assert_array_equal(a, b)
        a, b = plain.step(action)[0], wrapped.step(action)[0]


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_vector_environments_pay_the_true_successor(mode: str) -> None:
    autoreset = gymnasium.vector.AutoresetMode(mode)
    envs = gymnasium.vector.SyncVectorEnv([Spy] * 3, autoreset_mode=autoreset)
    wrapped = RNDVectorWrapper(envs, warmup=20, update_every=10_000)
    wrapped.reset(seed=0)
    paid, seen = [], []
    for _ in range(10):
        obs, _, _, _, info = wrapped.step(wrapped.action_space.sample())
        np.testing.assert_array_equal(
            info["extrinsic_reward"], 0 if obs[0, 0] == -7 and mode == "NextStep" else 2.5
        )
        paid.append(info["intrinsic_reward"])
        seen.append(obs[:, 0])
    memory = torch.cat(wrapped.distiller.waiting)
    assert -7 not in memory[:, 0], "first observations are nobody's successor"
    assert (memory[:, 0] == 100).any(), "last observations are"
    paid, seen = np.array(paid), np.array(seen)
    if mode == "NextStep":
        assert (paid[seen == -7] == 0).all()
        assert (paid[seen == 100] > 0).all()
    else:
        # Same step: the policy sees -7 and is paid for 100.
        raw = wrapped.distiller.rnd.bonus(torch.tensor([[100.0, 0.0], [1.0, 0.0]]))
        ratio = paid[seen == -7].mean() / paid[seen == 1].mean()
        assert ratio == pytest.approx(float(raw[0] / raw[1]), rel=0.3)


def test_vector_reset_forgets_half_finished_episodes() -> None:
    envs = gymnasium.vector.SyncVectorEnv([Spy] * 2)
    wrapped = RNDVectorWrapper(envs, warmup=4)  # ends in the middle: the fourth step ends the episode
    wrapped.reset(seed=0)
    _, _, _, _, info = wrapped.step(np.array([0, 1]))
    assert (info["intrinsic_reward"] > 0).all()


def test_cartpole_vectors_learn_what_they_see() -> None:
    envs = gymnasium.make_vec("CartPole-v1", num_envs=8)
    wrapped = RNDVectorWrapper(envs, mode="replace", update_every=32, lr=1e-3, seed=1)
    wrapped.reset(seed=0)
    wrapped.action_space.seed(0)
    target = {k: v.clone() for k, v in wrapped.distiller.rnd.target.state_dict().items()}
    paid = []
    for _ in range(320):
        _, reward, *_ = wrapped.step(wrapped.action_space.sample())
        assert reward.shape == (8,)
        paid.append(reward.mean())
    assert np.mean(paid[-64:]) < 0.5 * np.mean(paid[:64])
    for name, value in wrapped.distiller.rnd.target.state_dict().items():
        assert torch.equal(value, target[name])


def test_everything_is_saved() -> None:
    env = RNDWrapper(gymnasium.make("CartPole-v1"), warmup=50, update_every=16)
    env.reset(seed=0)
    for _ in range(20):
        env.step(env.action_space.sample())
        env.reset()
    other = RNDWrapper(gymnasium.make("CartPole-v1"), warmup=50, seed=5)
    other.reset(seed=1)
    other.distiller.load_state_dict(env.distiller.state_dict())
    x = torch.randn(5, 4)
    torch.testing.assert_close(other.distiller.rnd.bonus(x), env.distiller.rnd.bonus(x))
    assert torch.equal(other.distiller.normalizer.std, env.distiller.normalizer.std)
    assert other.distiller.optimizer.state_dict()["state"]


def test_own_networks_and_bad_input() -> None:
    rnd = make_rnd((2,), k=4, hidden=8, preprocess=lambda obs: obs[..., :2])
    env = RNDWrapper(gymnasium.make("CartPole-v1"), rnd, warmup=50, update_every=8)
    env.reset(seed=0)
    for _ in range(9):
        env.step(0)
        env.reset()
    assert env.distiller.updates == 1
    with pytest.raises(ValueError, match="'replace' or 'add'"):
        RNDWrapper(gymnasium.make("CartPole-v1"), mode="mix")
    with pytest.raises(ValueError, match="at least 2 random steps"):
        RNDWrapper(gymnasium.make("CartPole-v1"), warmup=0)
    with pytest.raises(ValueError, match="Box observations"):
        RNDWrapper(gymnasium.make("FrozenLake-v1"))
    with pytest.raises(ValueError, match="at least 1"):
        RNDWrapper(gymnasium.make("CartPole-v1"), batch=0)
