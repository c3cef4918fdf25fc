"""Episodic curiosity around Gymnasium environments: what is paid, what is remembered, what trains."""

import numpy as np
import pytest
import torch
from torch import nn

gymnasium = pytest.importorskip("gymnasium", reason="the extra rl")

from assay.rl.intrinsic.episodic import EpisodicCuriosity, RNetwork  # noqa: E402
from assay.rl.intrinsic.episodic_wrapper import (  # noqa: E402
    EpisodicCuriosityVectorWrapper,
    EpisodicCuriosityWrapper,
)


class Corridor(gymnasium.Env):
    """A line of 41 cells walked left or right; an episode has `length` steps. Observation: (place, episode)."""

    observation_space = gymnasium.spaces.Box(-100, 100, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length: int = 40) -> None:
        self.length, self.clock, self.place, self.episode = length, 0, 0, 0

    def _obs(self):
        return np.array([self.place, self.episode % 50], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.clock, self.place = 0, 0
        self.episode += 1
        return self._obs(), {}

    def step(self, action):
        self.clock += 1
        self.place = int(np.clip(self.place + 2 * int(action) - 1, -20, 20))
        return self._obs(), 2.5, self.clock == self.length, False, {}


class Near(RNetwork):
    """An oracle of the corridor: certain, near means at most 2 cells apart."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), 2, comparator="metric")

    def embed(self, obs):
        return obs.float()

    def logits(self, embedding, remembered):
        apart = (embedding[..., 0] - remembered[..., 0]).abs()
        return torch.where(apart <= 2, 100.0, -100.0) + 0 * self.shift


def _oracle(envs, **options):
    wrapped = EpisodicCuriosityVectorWrapper(
        envs, Near(), warmup=50, lessons=1, k=1, gap_multiplier=2, online=False, **options
    )
    wrapped.reset(seed=0)
    assert wrapped.reachability.ready
    return wrapped


def test_ten_lines_around_cartpole() -> None:
    env = EpisodicCuriosityWrapper(
        gymnasium.make("CartPole-v1"), scale=0.5, offset=1.0, warmup=300, lessons=20, interval=60
    )
    env.action_space.seed(1)
    obs, info = env.reset(seed=0)
    total = []
    for _ in range(200):
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert reward == pytest.approx(info["extrinsic_reward"] + 0.5 * info["intrinsic_reward"])
        assert info["extrinsic_reward"] == 1
        assert -1e-6 <= info["intrinsic_reward"] <= 1
        total.append(info["intrinsic_reward"])
        if terminated or truncated:
            assert info["intrinsic_reward"] == 0  # an end is never paid for
            obs, info = env.reset()
    assert obs.shape == (4,)
    assert env.reachability.updates == 4  # random steps, and three times 60 of the learner's
    assert total[0] == 1, "nothing is remembered yet: the whole offset"


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_memories_are_those_of_one_episode(mode: str) -> None:
    autoreset = gymnasium.vector.AutoresetMode(mode)
    lengths = (7, 10)
    envs = gymnasium.vector.SyncVectorEnv(
        [lambda n=n: Corridor(n) for n in lengths], autoreset_mode=autoreset
    )
    wrapped = _oracle(envs, scale=0.1)
    memory = wrapped.reachability.curiosity.memory
    clock = np.zeros(2, int)  # of each copy's episode
    for _ in range(40):
        _, reward, terminated, _, info = wrapped.step(np.array([1, 1]))
        for row, length in enumerate(lengths):
            only_reset = mode == "NextStep" and clock[row] == length
            clock[row] = 0 if only_reset or (mode == "SameStep" and clock[row] == length) else clock[row]
            bonus = info["intrinsic_reward"][row]
            if only_reset:
                assert bonus == 0
                assert info["extrinsic_reward"][row] == 0
                assert memory.count[row] == 0  # the first observation is not the old memory's
                continue
            clock[row] += 1
            assert terminated[row] == (clock[row] == length)
            # Places 1, 4 and 7 are more than 2 from all before: novel, kept, and paid the offset in full.
            if terminated[row]:
                assert bonus == 0
                assert memory.count[row] == 0
            elif clock[row] % 3 == 1:
                assert bonus == pytest.approx(0.5)
            assert reward[row] == pytest.approx(info["extrinsic_reward"][row] + 0.1 * bonus)
            if not terminated[row]:
                kept = memory.entries[row, : int(memory.count[row]), 0].tolist()
                assert kept == list(range(1, clock[row] + 1, 3))


def test_the_wrapper_pays_what_the_component_pays() -> None:
    envs = gymnasium.vector.SyncVectorEnv([lambda: Corridor(1000)] * 3)
    wrapped = _oracle(envs, mode="replace", scale=2.0)
    component = EpisodicCuriosity(Near(), 3)
    rng = np.random.default_rng(0)
    for _ in range(60):
        obs, reward, *_ = wrapped.step(rng.integers(2, size=3))
        expected = component.step(torch.as_tensor(obs), torch.zeros(3, dtype=torch.bool))
        np.testing.assert_allclose(reward, 2 * expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_lessons_never_cross_an_end(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spy(self, observations, first, *args, **kwargs):
        seen.append((observations, first))
        return True

    monkeypatch.setattr(RNetwork, "fit_episodes", spy)
    autoreset = gymnasium.vector.AutoresetMode(mode)
    envs = gymnasium.vector.SyncVectorEnv([lambda n=n: Corridor(n) for n in (5, 8)], autoreset_mode=autoreset)
    wrapped = EpisodicCuriosityVectorWrapper(envs, warmup=30, interval=60, history=60)
    wrapped.reset(seed=0)
    for _ in range(60):
        wrapped.step(wrapped.action_space.sample())
    assert len(seen) == 3
    for observations, first in seen:
        assert observations.shape == (30, 2, 2)
        episode = observations[..., 1]
        begins = first.clone()
        begins[0] = False  # a history may begin anywhere
        np.testing.assert_array_equal(begins[1:], episode[1:] != episode[:-1])


def test_the_network_learns_what_is_near_and_forgets_old_embeddings() -> None:
    envs = gymnasium.vector.SyncVectorEnv([lambda: Corridor(60)] * 8)
    wrapped = EpisodicCuriosityVectorWrapper(envs, warmup=240, lessons=200, interval=960, seed=1)
    wrapped.reset(seed=0)
    rnet = wrapped.reachability.trainer.rnet
    probe = torch.tensor([[0.0, 1.0], [1.0, 1.0], [12.0, 1.0]])
    embedded = rnet.embed(probe)
    near, far = (float(rnet.compare(embedded[0], embedded[i]).detach()) for i in (1, 2))
    assert near > 0.6
    assert far < 0.3
    before = [p.clone() for p in rnet.parameters()]
    assert not rnet.training
    for t in range(120):
        wrapped.step(np.ones(8, int))
        if t == 118:
            assert all(torch.equal(p, q) for p, q in zip(rnet.parameters(), before, strict=True))
            assert (wrapped.reachability.curiosity.memory.count[:1] > 0).all()
    assert wrapped.reachability.updates == 2
    assert any(not torch.equal(p, q) for p, q in zip(rnet.parameters(), before, strict=True))
    assert (wrapped.reachability.curiosity.memory.count == 0).all()
    assert not rnet.training


def test_nothing_is_paid_before_the_first_lesson() -> None:
    env = EpisodicCuriosityWrapper(Corridor(6), warmup=60, k=2, gap_multiplier=5, lessons=3)
    env.reset(seed=0)
    assert not env.reachability.ready  # episodes of 6 steps hold no far pair
    for _ in range(5):
        *_, info = env.step(1)
        assert info["intrinsic_reward"] == 0


def test_the_world_is_left_alone() -> None:
    plain = gymnasium.make("CartPole-v1")
    wrapped = EpisodicCuriosityWrapper(gymnasium.make("CartPole-v1"), warmup=30, lessons=2)
    a, _ = plain.reset(seed=3)
    state = torch.get_rng_state()
    b, _ = wrapped.reset(seed=3)
    for action in (0, 1, 1, 0, 1):
        np.testing.assert_array_equal(a, b)
        a, b = plain.step(action)[0], wrapped.step(action)[0]
    assert torch.equal(torch.get_rng_state(), state)


def test_everything_is_saved() -> None:
    env = EpisodicCuriosityWrapper(Corridor(), warmup=100, lessons=5)
    env.reset(seed=0)
    other = EpisodicCuriosityWrapper(Corridor(), warmup=100, lessons=5, seed=5)
    other.reset(seed=1)
    other.reachability.load_state_dict(env.reachability.state_dict())
    a, b = torch.randn(2, 6, 2)
    torch.testing.assert_close(other.reachability.trainer.rnet(a, b), env.reachability.trainer.rnet(a, b))
    assert other.reachability.ready
    assert env.step(1)[1] == pytest.approx(other.step(1)[1])


def test_pictures_and_bad_input() -> None:
    class Picture(Corridor):
        observation_space = gymnasium.spaces.Box(0, 255, (4, 5, 3), np.uint8)

        def _obs(self):
            return np.full((4, 5, 3), self.place + 100, np.uint8)

    env = EpisodicCuriosityWrapper(Picture(), warmup=100, lessons=2)
    env.reset(seed=0)
    assert env.step(1)[4]["intrinsic_reward"] == pytest.approx(0.5)
    for options, message in (
        ({"mode": "mix"}, "'replace' or 'add'"),
        ({"warmup": 0}, "at least 2 random steps"),
        ({"k": 0}, "k is at least 1"),
        ({"gap_multiplier": 1}, "gap_multiplier at least 2"),
        ({"lessons": 0}, "at least 1"),
        ({"capacity": 0}, "at least one entry"),
    ):
        with pytest.raises(ValueError, match=message):
            EpisodicCuriosityWrapper(Corridor(), **options)
    with pytest.raises(ValueError, match="Box observations"):
        EpisodicCuriosityWrapper(gymnasium.make("FrozenLake-v1"))
    disabled = gymnasium.vector.AutoresetMode.DISABLED
    with pytest.raises(ValueError, match="follow autoreset"):
        EpisodicCuriosityVectorWrapper(gymnasium.vector.SyncVectorEnv([Corridor], autoreset_mode=disabled))
