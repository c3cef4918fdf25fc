r"""Tabular learners for repeated two-action games, many independent lives at once.

The classical company of opponent-aware learners: Q-learning, joint-action learning with a model of the opponent, and
policy hill climbing with its "win or learn fast" variant. Every learner is a table over the five memory-one states (own
view, 4 = start) for each of ``lives`` independent copies, and offers the same three methods.
"""

from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["JointActionLearner", "PolicyHillClimber", "QLearner", "TabularLearner"]

_STATES = 5


class TabularLearner(Protocol):
    """What the learners here share."""

    def cooperation(self) -> Float[Tensor, "lives 5"]:
        """Probability of action 0 in every state, exploration included."""
        ...

    def act(self, states: Int[Tensor, " lives"], noise: Float[Tensor, " lives"]) -> Int[Tensor, " lives"]:
        """Actions for the states seen; ``noise`` is uniform in [0, 1)."""
        ...

    def learn(
        self,
        states: Int[Tensor, " lives"],
        actions: Int[Tensor, " lives"],
        other_actions: Int[Tensor, " lives"],
        rewards: Float[Tensor, " lives"],
        next_states: Int[Tensor, " lives"],
    ) -> None:
        """One transition for every life."""
        ...


class QLearner:
    r"""Epsilon-greedy Q-learning that takes its opponent for a part of the world (naive Q).

    $Q(s,a)\mathrel{+}=\alpha\,[r+\gamma\max_{a'}Q(s',a')-Q(s,a)]$; a tie between the two actions is an even choice.

    Parameters
    ----------
    lives
        Independent copies.
    gamma, lr, explore
        Discount, step size $\alpha$, and the share of actions drawn at random.
    """

    def __init__(
        self,
        lives: int,
        gamma: float = 0.96,
        lr: float = 0.1,
        explore: float = 0.05,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        _check(lives, gamma, lr, explore)
        self.gamma, self.lr, self.explore = gamma, lr, explore
        self.q = torch.zeros(lives, _STATES, 2, dtype=dtype, device=device)
        self._life = torch.arange(lives, device=device)

    def preference(self) -> Float[Tensor, "lives 5 2"]:
        """The values by which actions are chosen."""
        return self.q

    def cooperation(self) -> Float[Tensor, "lives 5"]:
        """Probability of action 0, exploration included."""
        values = self.preference()
        greedy = (values[..., 0] > values[..., 1]).to(values) + 0.5 * (values[..., 0] == values[..., 1]).to(
            values
        )
        return (1 - self.explore) * greedy + 0.5 * self.explore

    def act(self, states: Int[Tensor, " lives"], noise: Float[Tensor, " lives"]) -> Int[Tensor, " lives"]:
        """Sample an action for each life."""
        return (noise >= self.cooperation()[self._life, states]).long()

    def learn(
        self,
        states: Int[Tensor, " lives"],
        actions: Int[Tensor, " lives"],
        other_actions: Int[Tensor, " lives"],
        rewards: Float[Tensor, " lives"],
        next_states: Int[Tensor, " lives"],
    ) -> None:
        """One Q-learning step."""
        target = rewards + self.gamma * self.q[self._life, next_states].amax(-1)
        error = target - self.q[self._life, states, actions]
        self.q[self._life, states, actions] += self.lr * error


class JointActionLearner(QLearner):
    r"""Joint-action learner with an opponent model, JAL-AM (Claus & Boutilier 1998; Uther & Veloso 1997).

    Learns $Q(s,a,b)$ of both players' actions and counts what the opponent does in each state; acts epsilon-greedily on
    the expectation $\sum_b\hat\pi(b\mid s)Q(s,a,b)$. Counts start at one each. Parameters as in `QLearner`.
    """

    def __init__(
        self,
        lives: int,
        gamma: float = 0.96,
        lr: float = 0.1,
        explore: float = 0.05,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(lives, gamma, lr, explore, dtype, device)
        self.counts = torch.ones_like(self.q)
        self.q = self.q.new_zeros(lives, _STATES, 2, 2)

    def preference(self) -> Float[Tensor, "lives 5 2"]:
        """Expected values under the opponent model."""
        model = self.counts / self.counts.sum(-1, keepdim=True)
        return (self.q * model.unsqueeze(-2)).sum(-1)

    def learn(
        self,
        states: Int[Tensor, " lives"],
        actions: Int[Tensor, " lives"],
        other_actions: Int[Tensor, " lives"],
        rewards: Float[Tensor, " lives"],
        next_states: Int[Tensor, " lives"],
    ) -> None:
        """One step on the joint action taken; the opponent's action is counted."""
        life = self._life
        target = rewards + self.gamma * self.preference()[life, next_states].amax(-1)
        error = target - self.q[life, states, actions, other_actions]
        self.q[life, states, actions, other_actions] += self.lr * error
        self.counts[life, states, other_actions] += 1


class PolicyHillClimber(QLearner):
    r"""Policy hill climbing, and WoLF-PHC (Bowling & Veloso 2002, table 2).

    Q-learning beside a mixed policy that moves by ``step`` towards the greedy action. With ``losing_step`` given, the
    policy moves by ``step`` while it wins (its expected value beats that of its own average policy) and by
    ``losing_step`` while it loses: win or learn fast. Other parameters as in `QLearner`.
    """

    def __init__(
        self,
        lives: int,
        gamma: float = 0.96,
        lr: float = 0.1,
        explore: float = 0.05,
        step: float = 0.01,
        losing_step: float | None = None,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(lives, gamma, lr, explore, dtype, device)
        if step <= 0 or (losing_step is not None and losing_step < step):
            raise ValueError(f"need 0 < step <= losing_step, got {step} and {losing_step}")
        self.step, self.losing_step = step, losing_step
        self.policy = self.q.new_full((lives, _STATES), 0.5)
        self.average = self.policy.clone()
        self.visits = torch.zeros_like(self.policy)

    def cooperation(self) -> Float[Tensor, "lives 5"]:
        """Probability of action 0, exploration included."""
        return (1 - self.explore) * self.policy + 0.5 * self.explore

    def learn(
        self,
        states: Int[Tensor, " lives"],
        actions: Int[Tensor, " lives"],
        other_actions: Int[Tensor, " lives"],
        rewards: Float[Tensor, " lives"],
        next_states: Int[Tensor, " lives"],
    ) -> None:
        """One Q-learning step, then one step of the policy in the state left."""
        super().learn(states, actions, other_actions, rewards, next_states)
        life = self._life
        q, p = self.q[life, states], self.policy[life, states]
        gain = q[:, 0] - q[:, 1]
        size: Tensor | float = self.step
        if self.losing_step is not None:
            self.visits[life, states] += 1
            mean = self.average[life, states]
            mean = mean + (p - mean) / self.visits[life, states]
            self.average[life, states] = mean
            # With two actions the values of the policies differ by (p - mean) * gain.
            size = torch.where((p - mean) * gain > 0, self.step, self.losing_step)
        self.policy[life, states] = (p + size * gain.sign()).clamp(0, 1)


def _check(lives: int, gamma: float, lr: float, explore: float) -> None:
    if lives < 1:
        raise ValueError(f"lives must be at least 1, got {lives}")
    if not 0 <= gamma < 1:
        raise ValueError(f"the discount gamma must lie in [0, 1), got {gamma}")
    if not (0 < lr <= 1 and 0 <= explore <= 1):
        raise ValueError(f"need 0 < lr <= 1 and 0 <= explore <= 1, got {lr} and {explore}")
