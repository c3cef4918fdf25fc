r"""Planners for known or learned models: exact for few states, by sampling elsewhere.

All maximise a sum of rewards over a horizon. For exploration the reward is a utility such as the disagreement of an
ensemble, and the plan must be thrown away whenever the model was fitted anew.

- `value_iteration_finite`: exact dynamic programming on a table.
- `MCTS`: Monte-Carlo tree search over open-loop plans on a table.
- `CEM`, `RandomShooting`: sampled action sequences, refined (or not) towards the best, in any model that is a function
  of states and actions, such as `assay.rl.dynamics.Imagination`.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from assay.envs.base import Generators, Tabular
from assay.rl.tabular import Solution, value_iteration

Model = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(state [P, C, ...], action [P, C, ...]) to (successor, reward [P, C]): C candidates for each of P plans."""


def _horizon(horizon: int) -> None:
    if horizon < 1:
        raise ValueError(f"a horizon has at least one step: got {horizon}")


def value_iteration_finite(
    P: Float[Tensor, "*batch states actions following"],
    u: Float[Tensor, "*batch states actions"],
    horizon: int,
    gamma: float = 1.0,
) -> Solution:
    r"""$V_h(s) = \max_a [u(s, a) + \gamma \sum_{s'} P(s'|s, a) V_{h-1}(s')]$, solved exactly.

    Args:
        P: the (mean) model [..., S, A, S].
        u: reward of each pair [..., S, A].
        horizon: H steps.
        gamma: discount.

    Returns:
        `Solution(value, q, policy)`, float64, each with a first dimension H: entry t has H - t steps to go.

    Raises:
        ValueError: horizon < 1, shapes that do not fit, rows of P that are no probabilities.
    """
    _horizon(horizon)
    rho0 = torch.zeros(P.shape[:-2], device=P.device)
    terminal = torch.zeros(P.shape[:-2], dtype=torch.bool, device=P.device)
    return value_iteration(Tabular(P, u, rho0, terminal), gamma, horizon)


class TableModel:
    """A table as a `Model` for `CEM`: states and actions are indices [P, C].

    Args:
        P: [P, S, A, S], one table a plan.
        u: [P, S, A] rewards.
        generators: one for each plan: of the successors. None: the likeliest successor.
    """

    def __init__(self, P: Tensor, u: Tensor, generators: Sequence[torch.Generator] | None = None):
        self.edges, self.u, self.generators = P.cumsum(-1), u, generators
        self.likeliest = P.argmax(-1)

    def __call__(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """(successor [P, C], reward [P, C])."""
        plan = torch.arange(len(state), device=state.device)[:, None]
        reward = self.u[plan, state, action]
        if self.generators is None:
            return self.likeliest[plan, state, action], reward
        drawn = torch.stack([torch.rand(state.shape[1], generator=g) for g in self.generators]).to(self.u)
        edges = self.edges[plan, state, action]
        following = (drawn[..., None] >= edges).sum(-1).clamp(max=edges.shape[-1] - 1)
        return following, reward


class CEM:
    """The cross-entropy method over action sequences: sample, keep the best share, sample around them.

    Args:
        model: see `Model`.
        horizon: H.
        candidates: sequences sampled a round, for each plan.
        iterations: rounds.
        num_actions: discrete actions 0..num_actions-1; None: continuous.
        action_dim: size of a continuous action, in [-bound, bound].
        bound: see above.
        elite: share of the candidates that the next round is fitted to.
        floor: least probability of a discrete action, least standard deviation of a continuous one (in bounds).
        gamma: discount.
        generators: one for all plans together, or one for each.

    The best sequence of all rounds is returned, not the mean of the last.

    Raises:
        ValueError: a horizon below 1, too few candidates, no kind of action.

    >>> def model(x, a):                     # move along a line; be near 1
    ...     x = x + 0.1 * a
    ...     return x, -(x[..., 0] - 1).abs()
    >>> planner = CEM(model, 10, 64, 4, action_dim=1, generators=torch.Generator().manual_seed(0))
    >>> actions, value = planner.plan(torch.zeros(1, 1))
    >>> bool((actions[0, :5] > 0.5).all())
    True
    """

    def __init__(
        self,
        model: Model,
        horizon: int,
        candidates: int = 128,
        iterations: int = 3,
        *,
        num_actions: int | None = None,
        action_dim: int | None = None,
        bound: float = 1.0,
        elite: float = 0.1,
        floor: float = 0.02,
        gamma: float = 1.0,
        generators: Generators | None = None,
    ):
        _horizon(horizon)
        if candidates < 2 or iterations < 1:
            raise ValueError(f"give at least 2 candidates and 1 round: got {candidates} and {iterations}")
        if (num_actions is None) == (action_dim is None):
            raise ValueError("say num_actions (discrete) or action_dim (continuous), one of them")
        self.model, self.horizon, self.candidates, self.iterations = model, horizon, candidates, iterations
        self.num_actions, self.action_dim, self.bound = num_actions, action_dim, bound
        self.keep = max(1, round(elite * candidates))
        self.floor, self.gamma, self.generators = floor, gamma, generators

    def _noise(self, plans: int, shape: tuple[int, ...], fill: str) -> Tensor:
        if self.generators is None or isinstance(self.generators, torch.Generator):
            return getattr(torch.empty(plans, *shape), fill)(generator=self.generators)
        each = list(self.generators)
        if len(each) != plans:
            raise ValueError(f"give one generator, or one for each of {plans} plans: got {len(each)}")
        return torch.stack([getattr(torch.empty(shape), fill)(generator=g) for g in each])

    @torch.no_grad()
    def evaluate(self, state: Tensor, actions: Tensor) -> Tensor:
        """[P, C]: (discounted) rewards along sequences [P, C, H, ...] from states [P, ...]."""
        at = state[:, None].expand(-1, actions.shape[1], *state.shape[1:])
        total = torch.zeros(actions.shape[:2], device=state.device)
        for t in range(actions.shape[2]):
            at, reward = self.model(at, actions[:, :, t])
            total = total + self.gamma**t * reward.to(total.dtype)
        return total

    def plan(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """(best sequences [P, H] or [P, H, A], their values [P]) from states [P, ...]."""
        plans, device = len(state), state.device
        best: Tensor | None = None
        worth = torch.full((plans,), -math.inf, device=device)
        spot = torch.zeros(())
        if self.num_actions is not None:
            guess = torch.full((plans, self.horizon, self.num_actions), 1 / self.num_actions, device=device)
        else:
            assert self.action_dim is not None
            guess = torch.zeros(plans, self.horizon, self.action_dim, device=device)
            spot = torch.full_like(guess, self.bound)
        for _ in range(self.iterations):
            if self.num_actions is not None:
                drawn = self._noise(plans, (self.candidates, self.horizon), "uniform_").to(device)
                edges = guess.cumsum(-1)[:, None, :, :-1]
                actions = (drawn[..., None] >= edges).sum(-1)
            else:
                drawn = self._noise(plans, (self.candidates, *guess.shape[1:]), "normal_").to(device)
                actions = (guess[:, None] + spot[:, None] * drawn).clamp(-self.bound, self.bound)
            value = self.evaluate(state, actions)
            top, order = value.topk(self.keep, 1)
            index = order.view(plans, self.keep, *(1,) * (actions.ndim - 2)).expand(
                -1, -1, *actions.shape[2:]
            )
            elite = actions.gather(1, index)
            better = top[:, 0] > worth
            worth = torch.where(better, top[:, 0], worth)
            first = elite[:, 0]
            best = (
                first if best is None else torch.where(better.view(-1, *(1,) * (first.ndim - 1)), first, best)
            )
            if self.num_actions is not None:
                share = torch.nn.functional.one_hot(elite, self.num_actions).float().mean(1)
                guess = share * (1 - self.num_actions * self.floor) + self.floor
            else:
                guess = elite.mean(1)
                spot = elite.std(1, correction=0).clamp(min=self.floor * self.bound)
        assert best is not None
        return best, worth


class RandomShooting(CEM):
    """The best of uniformly random sequences: `CEM` with a single round (continuous actions are uniform too).

    Args:
        model, horizon: see `CEM`.
        candidates: sequences.
        **options: of `CEM`, `iterations` excepted.
    """

    def __init__(self, model: Model, horizon: int, candidates: int = 128, **options: object):
        super().__init__(model, horizon, candidates, 1, **options)  # type: ignore[arg-type]

    def _noise(self, plans: int, shape: tuple[int, ...], fill: str) -> Tensor:
        drawn = super()._noise(plans, shape, "uniform_")
        return drawn if fill == "uniform_" else 2.0 * drawn - 1.0


class MCTS:
    r"""Monte-Carlo tree search for open-loop plans: nodes are action sequences, states are sampled on the way.

    In a node the action with the largest $\bar R_a / R_{max} + c \sqrt{\log n / n_a}$ is followed (UCT, Kocsis and
    Szepesvari 2006; open-loop: the same node stands for whatever states the sequence may lead to); beyond the tree
    actions are random. Plain Python: a planner for small tables, or an independent check of exact ones.

    Args:
        model: P [S, A, S].
        utility: u [S, A].
        c: weight of exploration in the tree.
        simulations: a plan.
        generator: of everything drawn.

    Raises:
        ValueError: shapes that do not fit.
    """

    def __init__(
        self,
        model: Float[Tensor, "states actions following"],
        utility: Float[Tensor, "states actions"],
        c: float = 1.0,
        simulations: int = 200,
        generator: torch.Generator | None = None,
    ):
        if model.shape[:2] != utility.shape or model.shape[0] != model.shape[2]:
            raise ValueError(
                f"give a model [S, A, S] and utilities [S, A]: got {tuple(model.shape)}, {tuple(utility.shape)}"
            )
        if simulations < 1:
            raise ValueError(f"search needs at least one simulation: got {simulations}")
        self._edges: list[list[list[float]]] = model.double().cumsum(-1).tolist()
        self._utility: list[list[float]] = utility.double().tolist()
        self.states, self.actions = utility.shape
        self.c, self.simulations, self.generator = c, simulations, generator

    def plan(self, state: int, horizon: int) -> list[int]:
        """The best sequence found, `horizon` actions long (beyond the tree as the best simulation went on).

        Args:
            state: where it begins.
            horizon: H.
        """
        _horizon(horizon)
        count: dict[tuple[int, ...], list[int]] = {}
        total: dict[tuple[int, ...], list[float]] = {}
        seen: list[tuple[float, list[int]]] = []
        largest = 1e-12
        for _ in range(self.simulations):
            draws: list[list[float]] = torch.rand(2, horizon, generator=self.generator).tolist()
            at, node, inside = state, (), True
            path: list[tuple[tuple[int, ...], int]] = []
            gained: list[float] = []
            sequence: list[int] = []
            for t in range(horizon):
                action = min(int(draws[0][t] * self.actions), self.actions - 1)
                if inside:
                    known = count.setdefault(node, [0] * self.actions)
                    totals = total.setdefault(node, [0.0] * self.actions)
                    visits = sum(known)
                    new = [a for a in range(self.actions) if known[a] == 0]
                    if new:
                        # A leaf: go on at random below it.
                        action, inside = new[min(int(draws[0][t] * len(new)), len(new) - 1)], False
                    else:
                        action = max(
                            range(self.actions),
                            key=lambda a: (
                                totals[a] / known[a] / largest
                                + self.c * math.sqrt(math.log(visits) / known[a])
                            ),
                        )
                    path.append((node, action))
                    node = (*node, action)
                sequence.append(action)
                gained.append(self._utility[at][action])
                at = min(bisect_right(self._edges[at][action], draws[1][t]), self.states - 1)
            outcome = sum(gained)
            largest = max(largest, abs(outcome))
            seen.append((outcome, sequence))
            to_go = outcome
            for (place, action), reward in zip(path, gained, strict=False):
                count[place][action] += 1
                total[place][action] += to_go
                to_go -= reward
        # The most visited actions, then the tail of the best simulation that began with them.
        plan: list[int] = []
        while len(plan) < horizon and tuple(plan) in count and max(count[tuple(plan)]) > 1:
            known, totals = count[tuple(plan)], total[tuple(plan)]
            plan.append(max(range(self.actions), key=lambda a: (known[a], totals[a])))
        return max((one for one in seen if one[1][: len(plan)] == plan), key=lambda one: one[0])[1]
