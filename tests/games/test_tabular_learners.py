"""Tabular learners against hand-worked steps and games with known answers."""

import pytest
import torch

from assay.games.matrix import IteratedMatrixGame, MemoryOneGame, ipd
from assay.games.tabular_learners import JointActionLearner, PolicyHillClimber, QLearner

ONE = torch.tensor([0])


def transition(learner: QLearner, state: int, action: int, other: int, reward: float, after: int) -> None:
    learner.learn(
        torch.tensor([state]), torch.tensor([action]), torch.tensor([other]),
        torch.tensor([reward], dtype=torch.float64), torch.tensor([after]),
    )  # fmt: skip


def test_q_step_by_hand():
    learner = QLearner(1, gamma=0.5, lr=0.2)
    learner.q[0, 3] = torch.tensor([1.0, 4.0])
    learner.q[0, 2, 1] = 10.0
    transition(learner, 2, 1, 0, -1.0, 3)
    assert float(learner.q[0, 2, 1]) == pytest.approx(10 + 0.2 * (-1 + 0.5 * 4 - 10))


def test_joint_action_step_by_hand():
    learner = JointActionLearner(1, gamma=0.5, lr=0.5)
    learner.q[0, 1] = torch.tensor([[2.0, 0.0], [0.0, 8.0]])
    learner.counts[0, 1] = torch.tensor([3.0, 1.0])
    torch.testing.assert_close(learner.preference()[0, 1], torch.tensor([1.5, 2.0], dtype=torch.float64))
    transition(learner, 0, 1, 1, 1.0, 1)
    assert float(learner.q[0, 0, 1, 1]) == pytest.approx(0.5 * (1 + 0.5 * 2.0))
    assert learner.counts[0, 0].tolist() == [1.0, 2.0]


def test_hill_climbing_moves_towards_the_greedy_action():
    learner = PolicyHillClimber(1, step=0.1, explore=0.0)
    transition(learner, 0, 1, 0, 1.0, 0)  # action 1 is now the better one
    assert float(learner.policy[0, 0]) == pytest.approx(0.4)
    for _ in range(10):
        transition(learner, 0, 1, 0, 1.0, 0)
    assert float(learner.policy[0, 0]) == 0.0


def test_win_or_learn_fast_is_slow_when_it_wins():
    winning = PolicyHillClimber(1, step=0.01, losing_step=0.04, explore=0.0)
    winning.q[0, 0] = torch.tensor([1.0, 0.0])
    winning.policy[0, 0], winning.average[0, 0], winning.visits[0, 0] = 0.8, 0.5, 100
    transition(winning, 0, 0, 0, 1.0, 0)
    assert float(winning.policy[0, 0]) == pytest.approx(0.81)
    losing = PolicyHillClimber(1, step=0.01, losing_step=0.04, explore=0.0)
    losing.q[0, 0] = torch.tensor([1.0, 0.0])
    losing.policy[0, 0], losing.average[0, 0], losing.visits[0, 0] = 0.3, 0.5, 100
    transition(losing, 0, 0, 0, 1.0, 0)
    assert float(losing.policy[0, 0]) == pytest.approx(0.34)


def selfplay(make, game: MemoryOneGame, lives: int, steps: int, seed: int = 0):
    world = IteratedMatrixGame(game, lives, max_steps=None, validate=False)
    players = (make(lives), make(lives))
    generator = torch.Generator().manual_seed(seed)
    obs, _ = world.reset()
    for _ in range(steps):
        noise = torch.rand(2, lives, generator=generator)
        actions = torch.stack([p.act(obs[:, i], noise[i]) for i, p in enumerate(players)], -1)
        step = world.step(actions)
        for i, p in enumerate(players):
            p.learn(obs[:, i], actions[:, i], actions[:, 1 - i], step.reward[:, i].double(), step.obs[:, i])
        obs = step.obs
    return players


@pytest.mark.parametrize("make", [QLearner, JointActionLearner, PolicyHillClimber])
def test_short_sighted_learners_defect(make):
    """Without a future, defection is dominant in the dilemma."""
    players = selfplay(lambda n: make(n, gamma=0.0, explore=0.3), ipd(), lives=8, steps=1_000)
    for p in players:
        assert (p.cooperation()[:, 3] < 0.2).all()


def test_an_action_follows_the_noise():
    learner = PolicyHillClimber(2, explore=0.2)
    learner.policy[:, 4] = torch.tensor([0.25, 0.25])
    states = torch.tensor([4, 4])
    assert learner.act(states, torch.tensor([0.29, 0.31])).tolist() == [0, 1]  # cooperation 0.8 * 0.25 + 0.1


def test_bad_input_is_told():
    with pytest.raises(ValueError, match="lives"):
        QLearner(0)
    with pytest.raises(ValueError, match="gamma"):
        QLearner(1, gamma=1.0)
    with pytest.raises(ValueError, match="explore"):
        QLearner(1, explore=2.0)
    with pytest.raises(ValueError, match="losing_step"):
        PolicyHillClimber(1, step=0.1, losing_step=0.05)
