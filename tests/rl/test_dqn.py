"""Q-learning against exact values; heads, bonuses and groups."""

import pytest
import torch

from assay.envs.base import Tabular
from assay.envs.random_mdp import TabularWorld
from assay.rl.dqn import DQN, BootstrappedDQN, ExplorationBonusDQN, TransitionReplay
from assay.rl.tabular import value_iteration


def g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def world() -> Tabular:
    """Three states in a row, the last ends; a short way that pays little, a long one that pays."""
    P = torch.zeros(3, 2, 3, dtype=torch.float64)
    P[0, 0, 2] = P[0, 1, 1] = P[1, 0, 0] = P[1, 1, 2] = P[2, :, 2] = 1
    R = torch.tensor([[0.3, 0.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    return Tabular(P, R, torch.tensor([1.0, 0, 0]).double(), torch.tensor([False, False, True]))


@pytest.mark.parametrize("kind", [DQN, BootstrappedDQN])
def test_values_are_the_exact_ones(kind: type) -> None:
    options = {"heads": 3} if kind is BootstrappedDQN else {"epsilon": 0.3}
    agent = kind(3, 2, (16,), gamma=0.9, lr=1e-2, batch=32, sync=20, generators=g(), **options)
    env = TabularWorld(4, world(), max_steps=10, generator=g(1))
    obs, _ = env.reset()
    act = g(2)
    for _ in range(600):
        action = torch.randint(2, (4,), generator=act)
        step = env.step(action)
        agent.observe(obs, action, step)
        agent.learn()
        obs = step.obs
    q = agent.q(agent.net, torch.eye(3)[None])[0]
    exact = value_iteration(world(), 0.9).q
    for head in q:
        assert torch.allclose(head[:2].double(), exact[:2], atol=0.05)
    assert agent.act(torch.eye(3)[:2], greedy=True).tolist() == [1, 1]


def test_truncation_bootstraps_and_termination_does_not() -> None:
    for terminated, expected in ((False, 1 / (1 - 0.5)), (True, 1.0)):
        agent = DQN(1, 1, (), gamma=0.5, lr=0.05, sync=5, generators=g())
        one = torch.ones(1, 1)
        end = torch.tensor([True])
        agent.remember(one, torch.tensor([0]), torch.ones(1), one, torch.tensor([terminated]), end)
        for _ in range(400):
            agent.learn()
        assert float(agent.q(agent.net, one[None])) == pytest.approx(expected, abs=0.05)


def test_groups_do_not_depend_on_each_other() -> None:
    def run(seeds: list[int]) -> torch.Tensor:
        n = len(seeds)
        agent = BootstrappedDQN(
            3, 2, (8,), heads=2, groups=n, batch=8, epsilon=0.1, generators=[g(s) for s in seeds]
        )
        env = TabularWorld(2 * n, world(), max_steps=4, generator=[g(s + 50) for s in seeds])
        obs, _ = env.reset()
        for _ in range(30):
            action = agent.act(obs)
            step = env.step(action)
            agent.observe(obs, action, step)
            agent.learn()
            obs = step.obs
        return agent.q(agent.net, torch.eye(3).expand(n, -1, -1))[seeds.index(7)].detach()

    before = torch.get_rng_state()
    assert torch.allclose(run([7]), run([3, 7, 9]), atol=1e-5)
    assert torch.equal(before, torch.get_rng_state()), "the global generator was used"
    assert not torch.allclose(run([7]), run([7])[[1, 0]]), "heads differ"


def test_a_head_acts_for_a_whole_episode() -> None:
    agent = BootstrappedDQN(3, 2, (4,), heads=5, generators=g())
    agent.act(torch.eye(3))
    first = agent.head.clone()
    nothing, no = torch.zeros(3), torch.zeros(3, dtype=torch.bool)
    action = torch.zeros(3, dtype=torch.int64)
    for _ in range(5):
        agent.remember(torch.eye(3), action, nothing, torch.eye(3), no, no)
    assert torch.equal(agent.head, first)
    seen = set()
    for _ in range(20):
        agent.remember(torch.eye(3), action, nothing, torch.eye(3), no, torch.tensor([True, False, False]))
        seen.add(int(agent.head[0]))
        assert torch.equal(agent.head[1:], first[1:])
    assert len(seen) > 1
    masks = agent.replay.sample(2_000, [g(1)]).mask.float().mean()
    assert 0.35 < float(masks) < 0.65, "each head learns from half of the transitions"


def test_count_bonus() -> None:
    agent = ExplorationBonusDQN(3, 2, (4,), beta=0.1, generators=g())
    no = torch.zeros(1, dtype=torch.bool)
    for _ in range(4):
        agent.remember(torch.eye(3)[1:2], torch.tensor([1]), torch.zeros(1), torch.eye(3)[2:], no, no)
    assert agent.counts[0, 1].tolist() == [0, 4]
    batch = agent.replay.sample(5, [g()])
    assert agent.count_bonus(batch).tolist()[0] == pytest.approx([0.05] * 5)
    agent.learn()


def test_the_bonus_hook_is_what_is_learnt() -> None:
    agent = DQN(
        1, 1, (), gamma=0.0, lr=0.05, bonus=lambda b: 2 + b.obs[..., 0], extrinsic=0.0, generators=g()
    )
    no = torch.zeros(1, dtype=torch.bool)
    agent.remember(torch.ones(1, 1), torch.tensor([0]), torch.full((1,), 99.0), torch.ones(1, 1), no, no)
    for _ in range(400):
        agent.learn()
    assert float(agent.q(agent.net, torch.ones(1, 1, 1))) == pytest.approx(3.0, abs=0.05)


def test_replay_forgets_the_oldest_and_keeps_groups_apart() -> None:
    replay = TransitionReplay(3, groups=2)
    for k in range(5):
        values = torch.tensor([k, 100 + k]).float()
        replay.add(values[:, None], values.long(), values, values[:, None], values > 0, values[:, None] > 0)
    assert len(replay) == 3
    batch = replay.sample(50, [g(0), g(1)])
    assert set(batch.reward[0].tolist()) == {2, 3, 4}
    assert set(batch.reward[1].tolist()) == {102, 103, 104}
    with pytest.raises(ValueError, match="empty"):
        TransitionReplay(3).sample(1, [g()])


def test_bad_arguments() -> None:
    for wrong in ({"heads": 0}, {"epsilon": 2.0}, {"groups": 2, "generators": [g()]}):
        with pytest.raises(ValueError, match=r"at least one|are shares|one for each"):
            DQN(2, 2, **wrong)
    with pytest.raises(ValueError, match="beta"):
        ExplorationBonusDQN(2, 2, beta=-1)
    with pytest.raises(ValueError, match="at least one step"):
        TransitionReplay(0)
