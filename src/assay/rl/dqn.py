r"""Deep Q-learning in its plain, bootstrapped and bonus forms, for many seeds as one tensor program.

One class does the work. `heads` networks learn each from its own share of the transitions (bootstrapped DQN: one head
acts for a whole episode, Osband et al. 2016, arXiv 1602.04621); `bonus` adds a reward to every replayed transition,
computed when it is replayed, so that it is never stale (count bonuses: Bellemare et al. 2016, arXiv 1606.01868, or any
novelty). `groups` independent learners, one a seed, share nothing but the launch of the operations: a group's draws
come from its own generator.

Values follow Mnih et al. (2015): target network, Huber loss, Adam; a transition that was truncated still bootstraps.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from assay.envs.base import Step
from assay.rl.dynamics import StackedMLP


class Replayed(NamedTuple):
    """A minibatch: b transitions for each of G groups."""

    obs: Tensor
    """[G, b, D]."""
    action: Tensor
    """[G, b] int64."""
    reward: Tensor
    """[G, b]."""
    next_obs: Tensor
    """[G, b, D]: the true successors."""
    terminated: Tensor
    """[G, b] bool."""
    mask: Tensor
    """[G, b, heads] bool: which heads learn from it."""


Bonus = Callable[[Replayed], Tensor]


class TransitionReplay:
    """The last `capacity` steps of N environments; sampled for each of G equal blocks of rows apart.

    Args:
        capacity: steps kept.
        groups: G.
    """

    def __init__(self, capacity: int, groups: int = 1):
        if capacity < 1:
            raise ValueError(f"a replay holds at least one step: got capacity={capacity}")
        self.capacity, self.groups = capacity, groups
        self._store: list[Tensor] = []
        self._at = self._size = 0

    def __len__(self) -> int:
        """Steps held."""
        return self._size

    def add(self, *columns: Tensor) -> None:
        """Keep one step: tensors [N, ...] in the order of `Replayed`."""
        if not self._store:
            self._store = [c.new_empty((self.capacity, *c.shape)) for c in columns]
        for store, column in zip(self._store, columns, strict=True):
            store[self._at] = column
        self._at = (self._at + 1) % self.capacity
        self._size = min(self._size + 1, self.capacity)

    def sample(self, batch: int, generators: Sequence[torch.Generator | None]) -> Replayed:
        """`batch` transitions a group, uniformly with replacement."""
        if not self._size:
            raise ValueError("the replay is empty: add steps before sampling")
        rows = self._store[0].shape[1] // self.groups
        drawn = torch.stack([torch.randint(self._size * rows, (batch,), generator=g) for g in generators]).to(
            self._store[0].device
        )
        group = torch.arange(self.groups, device=drawn.device)[:, None]
        step, row = drawn // rows, group * rows + drawn % rows
        return Replayed(*(store[step, row] for store in self._store))


class DQN:
    """Q-learning with a network; see the module.

    Args:
        obs_dim: D.
        num_actions: A.
        hidden: widths.
        heads: value functions, each a network of its own.
        groups: G independent learners; environments come in G equal blocks of rows.
        gamma: discount.
        lr: of Adam.
        batch: transitions a group and update.
        sync: updates between copies to the target network.
        epsilon: share of random actions.
        share: probability that a head learns from a transition (1 where there is one head).
        bonus: reward added to replayed transitions, from `Replayed` to [G, b].
        extrinsic: weight of the environment's reward.
        capacity: steps kept for replay.
        generators: one, or one for each group, on the CPU whatever the device: draws are the same everywhere.
        device: of the networks and of what is remembered.

    >>> agent = DQN(4, 2, generators=torch.Generator().manual_seed(0))
    >>> agent.act(torch.zeros(3, 4)).shape
    torch.Size([3])
    """

    def __init__(
        self,
        obs_dim: int,
        num_actions: int,
        hidden: Sequence[int] = (32, 32),
        *,
        heads: int = 1,
        groups: int = 1,
        gamma: float = 0.99,
        lr: float = 1e-3,
        batch: int = 64,
        sync: int = 100,
        epsilon: float = 0.05,
        share: float = 1.0,
        bonus: Bonus | None = None,
        extrinsic: float = 1.0,
        capacity: int = 100_000,
        generators: torch.Generator | Sequence[torch.Generator] | None = None,
        device: str | torch.device = "cpu",
    ):
        if heads < 1 or groups < 1:
            raise ValueError(f"give at least one head and one group: got {heads} and {groups}")
        if not 0 <= epsilon <= 1 or not 0 < share <= 1 or not 0 <= gamma <= 1:
            raise ValueError(f"epsilon, share and gamma are shares: got {epsilon}, {share}, {gamma}")
        if generators is None or isinstance(generators, torch.Generator):
            self.generators: list[torch.Generator | None] = [generators] * groups
        else:
            self.generators = list(generators)
        if len(self.generators) != groups:
            raise ValueError(f"give one generator, or one for each of {groups} groups")
        each = [g for g in self.generators for _ in range(heads)]
        sizes = (obs_dim, *hidden, num_actions)
        self.device = torch.device(device)
        self.net = StackedMLP(sizes, groups * heads, "relu", each).to(self.device)
        self.target = deepcopy(self.net)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=lr, fused=True)
        self.heads, self.groups, self.actions = heads, groups, num_actions
        self.gamma, self.batch, self.sync, self.epsilon = gamma, batch, sync, epsilon
        self.share, self.bonus, self.extrinsic = share, bonus, extrinsic
        self.replay = TransitionReplay(capacity, groups)
        self.head: Tensor | None = None
        """[N]: the head that acts in each row's running episode."""
        self.updates = 0

    def _draw(self, fill: str, *shape: int) -> Tensor:
        """[G, *shape] drawn group by group."""
        drawn = [getattr(torch.empty(shape), fill)(generator=g) for g in self.generators]
        return torch.stack(drawn).to(self.device)

    def q(self, net: StackedMLP, obs: Float[Tensor, "groups batch dims"]) -> Tensor:
        """[G, heads, b, A]."""
        x = obs if self.heads == 1 else obs.repeat_interleave(self.heads, 0)
        return net(x).unflatten(0, (self.groups, self.heads))

    def _heads(self, rows: int) -> Tensor:
        drawn = (self._draw("uniform_", rows // self.groups) * self.heads).long()
        return drawn.clamp(max=self.heads - 1).flatten()

    @torch.no_grad()
    def act(self, obs: Float[Tensor, "rows dims"], greedy: bool = False) -> Int64[Tensor, "rows"]:
        """Actions [N]: of the episode's head, with epsilon at random; `greedy`: the best by the mean of all heads."""
        rows = len(obs) // self.groups
        q = self.q(self.net, obs.view(self.groups, rows, -1))
        if greedy:
            return q.mean(1).argmax(-1).flatten()
        if self.heads == 1:
            best = q[:, 0].argmax(-1)
        else:
            if self.head is None:
                self.head = self._heads(len(obs))
            index = self.head.view(self.groups, 1, rows, 1).expand(-1, -1, -1, self.actions)
            best = q.gather(1, index)[:, 0].argmax(-1)
        if self.epsilon > 0:
            drawn = self._draw("uniform_", 2, rows)
            wild = (drawn[:, 1] * self.actions).long().clamp(max=self.actions - 1)
            best = torch.where(drawn[:, 0] < self.epsilon, wild, best)
        return best.flatten()

    def observe(self, obs: Tensor, action: Tensor, step: Step) -> None:
        """Remember what `step` (the environment's answer to `action` in `obs`) tells, rows [N]."""
        following = step.final_obs
        assert isinstance(following, Tensor), "observations are tensors here"
        self.remember(obs, action, step.reward, following, step.terminated, step.ended)

    def remember(
        self,
        obs: Tensor,
        action: Tensor,
        reward: Tensor,
        next_obs: Tensor,
        terminated: Bool[Tensor, "rows"],
        ended: Bool[Tensor, "rows"],
    ) -> None:
        """Keep one step of N rows; where an episode ended, another head takes over."""
        rows = len(obs)
        if self.share < 1:
            mask = self._draw("uniform_", rows // self.groups, self.heads).flatten(0, 1) < self.share
        else:
            mask = torch.ones(rows, self.heads, dtype=torch.bool, device=obs.device)
        self.replay.add(obs, action, reward, next_obs, terminated, mask)
        if self.heads > 1 and self.head is not None and bool(ended.any()):
            # Drawn for all rows of groups in which an episode ended, so that no group moves another's stream.
            here = ended.view(self.groups, -1)
            for g in here.any(1).nonzero().flatten().tolist():
                new = torch.rand(here.shape[1], generator=self.generators[g]) * self.heads
                new = new.long().clamp(max=self.heads - 1).to(self.head)
                part = slice(g * here.shape[1], (g + 1) * here.shape[1])
                self.head[part] = torch.where(here[g], new, self.head[part])

    def learn(self) -> Float[Tensor, "groups"]:
        """One update on a fresh minibatch; the mean Huber loss of every group."""
        batch = self.replay.sample(self.batch, self.generators)
        reward = self.extrinsic * batch.reward
        if self.bonus is not None:
            reward = reward + self.bonus(batch)
        with torch.no_grad():
            following = self.q(self.target, batch.next_obs).amax(-1)
            goal = reward[:, None] + self.gamma * following * ~batch.terminated[:, None]
        index = batch.action[:, None, :, None].expand(-1, self.heads, -1, 1)
        guess = self.q(self.net, batch.obs).gather(-1, index).squeeze(-1)
        loss = torch.nn.functional.smooth_l1_loss(guess, goal, reduction="none")
        kept = batch.mask.transpose(1, 2)
        loss = (loss * kept).sum(-1) / kept.sum(-1).clamp(min=1)
        self.optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()  # networks share nothing: the gradient of the sum is each one's own
        self.optimizer.step()
        self.updates += 1
        if self.updates % self.sync == 0:
            self.target.load_state_dict(self.net.state_dict())
        return loss.detach().mean(1)


class BootstrappedDQN(DQN):
    """Bootstrapped DQN: a random one of `heads` value functions acts greedily through each episode.

    Args:
        obs_dim, num_actions, hidden: see `DQN`.
        heads: 10 in the paper.
        share: probability that a head learns from a transition.
        epsilon: none: the heads' differences explore.
        **options: of `DQN`.
    """

    def __init__(
        self,
        obs_dim: int,
        num_actions: int,
        hidden: Sequence[int] = (32, 32),
        *,
        heads: int = 10,
        share: float = 0.5,
        epsilon: float = 0.0,
        **options: object,
    ):
        super().__init__(
            obs_dim,
            num_actions,
            hidden,
            heads=heads,
            share=share,
            epsilon=epsilon,
            **options,  # type: ignore[arg-type]
        )


class ExplorationBonusDQN(DQN):
    r"""DQN with the bonus $\beta / \sqrt{N(s, a)}$ on top of the environment's reward, for states that are one-hot.

    Args:
        obs_dim: the number of states, S.
        num_actions, hidden: see `DQN`.
        beta: size of the bonus.
        **options: of `DQN`.

    Attributes:
        counts: [G, S, A]: executed pairs.
    """

    def __init__(
        self,
        obs_dim: int,
        num_actions: int,
        hidden: Sequence[int] = (32, 32),
        *,
        beta: float = 0.01,
        **options: object,
    ):
        super().__init__(obs_dim, num_actions, hidden, bonus=self.count_bonus, **options)  # type: ignore[arg-type]
        if beta < 0:
            raise ValueError(f"a bonus is not negative: got beta={beta}")
        self.beta = beta
        self.counts = torch.zeros(self.groups, obs_dim, num_actions, device=self.device)

    def remember(
        self,
        obs: Tensor,
        action: Tensor,
        reward: Tensor,
        next_obs: Tensor,
        terminated: Tensor,
        ended: Tensor,
    ) -> None:
        """Count, then keep."""
        pair = (obs.argmax(-1) * self.actions + action).view(self.groups, -1)
        flat = self.counts.flatten(1)
        self.counts = flat.scatter_add(1, pair, torch.ones_like(pair, dtype=flat.dtype)).view_as(self.counts)
        super().remember(obs, action, reward, next_obs, terminated, ended)

    def count_bonus(self, batch: Replayed) -> Tensor:
        """[G, b]: by the counts as they are now."""
        group = torch.arange(self.groups, device=self.device)[:, None]
        seen = self.counts[group, batch.obs.argmax(-1), batch.action]
        return self.beta * seen.clamp(min=1).rsqrt()
