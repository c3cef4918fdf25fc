r"""Repeated two-player, two-action games: closed-form values, sampled play, batched environment.

A memory-one policy is five logits, one for each state ``CC, CD, DC, DD, start``: $P(C\mid\text{state})$ is their
sigmoid. C is action 0 and D is action 1 (heads and tails in matching pennies).

**Whose view?** A state names the two last actions. In *joint order* the action of player 1 comes first; in a player's
*own view* the own action comes first. The two differ for player 2 alone, whose entries CD and DC change places:
`swap_view`. Everything exact here (`MemoryOneGame.value`) takes **both** players in joint order; whatever plays
(`play`, `IteratedMatrixGame`) shows and takes the own view.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from assay.envs.adapters import as_pettingzoo
from assay.envs.base import TensorMultiEnv

__all__ = [
    "STATES",
    "IteratedMatrixGame",
    "MemoryOneGame",
    "Play",
    "as_parallel_env",
    "chicken",
    "imp",
    "ipd",
    "play",
    "stag_hunt",
    "swap_view",
]

STATES: tuple[str, ...] = ("CC", "CD", "DC", "DD", "start")
"""Names of the five states of a memory-one policy, in the order of its logits."""

START = 4


def swap_view(theta: Float[Tensor, "*batch five"]) -> Float[Tensor, "*batch five"]:
    """Exchange the entries CD and DC: from joint order to player 2's own view, and back."""
    if theta.shape[-1] not in (4, 5):
        raise ValueError(f"a memory-one policy has 5 entries (or 4 without the start), got {theta.shape[-1]}")
    order = torch.tensor([0, 2, 1, 3, 4][: theta.shape[-1]], device=theta.device)
    return theta.index_select(-1, order)


@dataclass(frozen=True, eq=False)
class MemoryOneGame:
    r"""A repeated two-player, two-action game with memory-one players and its exact discounted value.

    Parameters
    ----------
    payoff1, payoff2
        ``[2, 2]``: reward of player 1 and of player 2 for (action of player 1, action of player 2).
    gamma
        Discount in [0, 1).

    The joint chain over CC, CD, DC, DD has $P_{s}=(p_1p_2,\;p_1\bar p_2,\;\bar p_1p_2,\;\bar p_1\bar p_2)$ and
    $V_i=s_0^\top(I-\gamma P)^{-1}R_i$ (Foerster et al. 2018, section 3.1).

    Raises ``ValueError`` for payoffs of another shape or a discount outside [0, 1).

    >>> import torch
    >>> game = ipd()
    >>> v1, v2 = game.average_return(torch.zeros(5), torch.zeros(5))
    >>> round(float(v1), 4)
    -1.5
    """

    payoff1: Float[Tensor, "2 2"]
    payoff2: Float[Tensor, "2 2"]
    gamma: float
    name: str = field(default="matrix")

    def __post_init__(self) -> None:
        for payoff in (self.payoff1, self.payoff2):
            if not isinstance(payoff, Tensor) or tuple(payoff.shape) != (2, 2):
                raise ValueError(
                    "a payoff is a [2, 2] tensor indexed by the actions of player 1 and player 2, got "
                    f"{tuple(payoff.shape) if isinstance(payoff, Tensor) else type(payoff).__name__}"
                )
        if not 0 <= self.gamma < 1:
            raise ValueError(f"the discount gamma must lie in [0, 1), got {self.gamma}")

    def occupancy(
        self, theta1: Float[Tensor, "*batch 5"], theta2: Float[Tensor, "*batch 5"]
    ) -> Float[Tensor, "*batch 4"]:
        r"""Discounted visits $\sum_t\gamma^tP(s_t=s)$ of the joint actions; both logits in joint order."""
        start, chain = self.chain(theta1, theta2)
        eye = torch.eye(4, dtype=chain.dtype, device=chain.device)
        system = (eye - self.gamma * chain).transpose(-1, -2)
        return torch.linalg.solve(system, start.unsqueeze(-1)).squeeze(-1)

    def chain(
        self, theta1: Float[Tensor, "*batch 5"], theta2: Float[Tensor, "*batch 5"]
    ) -> tuple[Float[Tensor, "*batch 4"], Float[Tensor, "*batch 4 4"]]:
        """First distribution ``s0`` over the joint actions and their transition matrix ``P`` (rows: from)."""
        p1, p2 = torch.sigmoid(theta1), torch.sigmoid(theta2)
        q1, q2 = torch.sigmoid(-theta1), torch.sigmoid(-theta2)
        joint = torch.stack([p1 * p2, p1 * q2, q1 * p2, q1 * q2], -1)
        return joint[..., START, :], joint[..., :START, :]

    def rewards(self, like: Tensor) -> tuple[Float[Tensor, "4"], Float[Tensor, "4"]]:
        """Rewards of player 1 and 2 by joint action, in the type and on the device of ``like``."""
        return self.payoff1.flatten().to(like), self.payoff2.flatten().to(like)

    def value(
        self, theta1: Float[Tensor, "*batch 5"], theta2: Float[Tensor, "*batch 5"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Discounted returns ``(V1, V2)``, differentiable; **both** players' logits in joint order."""
        visits = self.occupancy(theta1, theta2)
        reward1, reward2 = self.rewards(visits)
        return visits @ reward1, visits @ reward2

    def truncated_value(
        self, theta1: Float[Tensor, "*batch 5"], theta2: Float[Tensor, "*batch 5"], steps: int
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Discounted returns of the first ``steps`` steps alone: what rollouts of that length estimate without bias."""
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        now, chain = self.chain(theta1, theta2)
        visits = now
        for t in range(1, steps):
            now = (now.unsqueeze(-2) @ chain).squeeze(-2)
            visits = visits + self.gamma**t * now
        reward1, reward2 = self.rewards(visits)
        return visits @ reward1, visits @ reward2

    def average_return(
        self, theta1: Float[Tensor, "*batch 5"], theta2: Float[Tensor, "*batch 5"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """The values times ``1 - gamma``: returns in units of one step's reward."""
        v1, v2 = self.value(theta1, theta2)
        return (1 - self.gamma) * v1, (1 - self.gamma) * v2

    def losses(
        self, theta1: Float[Tensor, "*batch 5"], theta2: Float[Tensor, "*batch 5"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """The negative values, as `assay.optim.opponent` wants them."""
        v1, v2 = self.value(theta1, theta2)
        return -v1, -v2

    def believing(
        self, payoff1: Float[Tensor, "2 2"] | None = None, payoff2: Float[Tensor, "2 2"] | None = None
    ) -> "MemoryOneGame":
        """The same game with other payoffs: what a player believes who is wrong about them."""
        return MemoryOneGame(
            self.payoff1 if payoff1 is None else payoff1,
            self.payoff2 if payoff2 is None else payoff2,
            self.gamma,
            self.name,
        )


def _symmetric(own: Sequence[float], gamma: float, name: str) -> MemoryOneGame:
    """A game whose players' own rewards for CC, CD, DC, DD (own action first) are the same."""
    payoff = torch.tensor(own, dtype=torch.float64).reshape(2, 2)
    return MemoryOneGame(payoff, payoff.T.contiguous(), gamma, name)


def ipd(gamma: float = 0.96) -> MemoryOneGame:
    """Iterated prisoner's dilemma: own rewards CC -1, CD -3, DC 0, DD -2."""
    return _symmetric((-1.0, -3.0, 0.0, -2.0), gamma, "ipd")


def imp(gamma: float = 0.9) -> MemoryOneGame:
    """Iterated matching pennies: player 1 earns 1 on equal coins and -1 otherwise, player 2 the negative."""
    payoff = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    return MemoryOneGame(payoff, -payoff, gamma, "imp")


def stag_hunt(gamma: float = 0.96) -> MemoryOneGame:
    """Iterated stag hunt: own rewards CC 4 (stag), CD 0 (stag alone), DC 3, DD 2: hare is the safe choice."""
    return _symmetric((4.0, 0.0, 3.0, 2.0), gamma, "stag_hunt")


def chicken(gamma: float = 0.96) -> MemoryOneGame:
    """Iterated chicken: own rewards CC 0, CD -1, DC 1, DD -10."""
    return _symmetric((0.0, -1.0, 1.0, -10.0), gamma, "chicken")


# ---------------------------------------------------------------------------------------------------------------
# Sampled play
# ---------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Play:
    """Sampled play, time-major: what each player saw and did, and earned."""

    states1: Int[Tensor, "steps *batch"]
    """State in player 1's own view, 4 = start."""
    states2: Int[Tensor, "steps *batch"]
    """State in player 2's own view."""
    actions1: Int[Tensor, "steps *batch"]
    """0 = C, 1 = D."""
    actions2: Int[Tensor, "steps *batch"]
    rewards1: Float[Tensor, "steps *batch"]
    rewards2: Float[Tensor, "steps *batch"]


_OWN_VIEW_OF_SECOND = (0, 2, 1, 3, 4)


def play(
    game: MemoryOneGame,
    theta1: Float[Tensor, "*replicas 5"],
    theta2: Float[Tensor, "*replicas 5"],
    noise: Float[Tensor, "steps 2 *replicas rollouts"],
) -> Play:
    """Play rollouts of two memory-one policies, each given by its logits in its **own view**.

    ``noise`` holds uniform numbers in [0, 1), one for each step, player, replica and rollout: the caller draws them, so
    that what one replica does is independent of its companions. No gradient passes; recompute log-probabilities from
    the states and actions (`assay.games.forecast.policy_log_prob`).
    """
    with torch.no_grad():
        p1, p2 = torch.sigmoid(theta1), torch.sigmoid(theta2)
        swap = torch.tensor(_OWN_VIEW_OF_SECOND, device=noise.device)
        joint = p1.new_full(noise.shape[2:], START, dtype=torch.int64)
        states, actions1, actions2 = [], [], []
        # The chain is sequential; all replicas and rollouts step together.
        p2 = p2.index_select(-1, swap)
        for draw in noise:
            states.append(joint)
            first = (draw[0] >= p1.gather(-1, joint)).long()
            second = (draw[1] >= p2.gather(-1, joint)).long()
            actions1.append(first)
            actions2.append(second)
            joint = 2 * first + second
        seen, did1, did2 = torch.stack(states), torch.stack(actions1), torch.stack(actions2)
        outcome = 2 * did1 + did2
        reward1, reward2 = game.rewards(p1)
        return Play(seen, swap[seen], did1, did2, reward1[outcome], reward2[outcome])


class IteratedMatrixGame(TensorMultiEnv):
    """Batched environment of a repeated two-action game.

    Observations are the state in each player's own view, ``int64 [N, 2]``: 0 CC, 1 CD, 2 DC, 3 DD (own action first),
    4 at the start. Actions ``int64 [N, 2]`` are 0 (C) or 1 (D). The game is deterministic given the actions.

    Parameters
    ----------
    game
        The payoffs (its discount plays no part here).
    num_envs
        N independent games.
    max_steps
        Rounds after which a game is cut off and begun again; None: never.
    **options
        Of ``TensorEnv``.

    >>> import torch
    >>> world = IteratedMatrixGame(ipd(), num_envs=2, max_steps=10)
    >>> _ = world.reset()
    >>> step = world.step(torch.tensor([[0, 1], [1, 1]]))
    >>> step.reward.tolist(), step.obs.tolist()
    ([[-3.0, 0.0], [-2.0, -2.0]], [[1, 2], [3, 3]])
    """

    agents = ("player_1", "player_2")
    num_actions = 2
    state_names = ("joint",)

    def __init__(
        self, game: MemoryOneGame, num_envs: int = 1, *, max_steps: int | None = 150, **options: Any
    ) -> None:
        super().__init__(num_envs, max_steps=max_steps, **options)
        self.game = game
        payoffs = torch.stack([game.payoff1.flatten(), game.payoff2.flatten()], -1)
        self._payoffs = payoffs.to(self.device, torch.float32)
        self._own = torch.tensor([[0, 0], [1, 2], [2, 1], [3, 3], [START, START]], device=self.device)
        self.joint = torch.full((num_envs,), START, device=self.device)
        """[N]: the state as player 1 sees it."""

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return spaces.Discrete(5), spaces.Discrete(2)

    def _reset_rows(self, mask: Tensor) -> None:
        self.joint = self.joint.masked_fill(mask, START)

    def observe(self) -> Tensor:
        """[N, 2]: the state in each player's own view."""
        return self._own[self.joint]

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        self.joint = 2 * action[:, 0] + action[:, 1]
        never = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        return self._payoffs[self.joint], never, {}


def as_parallel_env(game: MemoryOneGame, horizon: int = 150) -> Any:
    """One copy of the repeated game as a PettingZoo ``ParallelEnv`` (needs the extra ``rl``).

    Agents are ``player_1`` and ``player_2``; observations ``Discrete(5)`` in the own view (4 at the start), actions
    ``Discrete(2)``. All agents are truncated at ``horizon``.
    """
    return as_pettingzoo(IteratedMatrixGame(game, 1, max_steps=horizon))
