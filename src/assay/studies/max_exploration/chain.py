"""Explorers of the chain: all seeds of an arm are one tensor program, and each draws from its own generators only."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from assay.envs.chain import Chain, explored_fraction
from assay.lab import Batch
from assay.rl.dqn import DQN, BootstrappedDQN, ExplorationBonusDQN, Replayed
from assay.rl.dynamics import DirichletEnsemble, DynamicsEnsemble, StackedMLP, Transitions
from assay.rl.information import entropy, jensen_shannon
from assay.rl.planning import CEM, MCTS, RandomShooting, TableModel, value_iteration_finite
from assay.studies.max_exploration.config import ChainConfig

Pairs = list[tuple[str, int]]
KNOWN = 0.95
"""Television is counted until so much of the chain is explored; afterwards no utility is left to choose by."""


class Tables:
    """What was executed: counts [G, S, A, S]."""

    def __init__(self, groups: int, states: int, actions: int):
        self.groups, self.states, self.actions = groups, states, actions
        self.counts = torch.zeros(groups, states, actions, states)
        self._rows = torch.arange(groups)

    def add(self, state: Tensor, action: Tensor, following: Tensor) -> None:
        self.counts[self._rows, state, action, following] += 1

    @property
    def visits(self) -> Tensor:
        """[G, S, A]."""
        return self.counts.sum(-1)

    def data(self, by_visits: bool = False) -> Transitions:
        """All pairs as rows [G, S A]: the empirical successors; every pair met counts the same (or by its visits)."""
        visits = self.visits.flatten(1)
        target = self.counts.flatten(1, 2) / visits.clamp(min=1)[..., None]
        return Transitions(*self.inputs(), target, visits if by_visits else (visits > 0).float())

    def inputs(self) -> tuple[Tensor, Tensor]:
        """One-hot states and actions of all pairs, [S A, S] and [S A, A]: the same for all groups."""
        state = torch.eye(self.states).repeat_interleave(self.actions, 0)
        return state, torch.eye(self.actions).repeat(self.states, 1)


class Explorer:
    """Chooses actions [G] in states [G], and learns from what they did. This one is random."""

    def __init__(self, config: ChainConfig, tables: Tables, generators: list[torch.Generator]):
        self.config, self.tables, self.generators = config, tables, generators
        self.utility: Tensor | None = None
        """[G, S, A]: what it is drawn to now, for figures."""

    def draw(self, *shape: int) -> Tensor:
        """[G, *shape] uniform, each group from its own generator."""
        return torch.stack([torch.rand(shape, generator=g) for g in self.generators])

    def random(self) -> Tensor:
        return (self.draw() * self.tables.actions).long().clamp(max=self.tables.actions - 1)

    def act(self, state: Tensor, remaining: int) -> Tensor:
        return self.random()

    def observe(self, state: Tensor, action: Tensor, reward: Tensor, following: Tensor, end: bool) -> None:
        """After every step, when the tables have it already."""

    def refit(self) -> None:
        """Every `refit_every` steps."""


def network(
    config: ChainConfig, tables: Tables, generators: list[torch.Generator], members: int
) -> DynamicsEnsemble:
    return DynamicsEnsemble(
        tables.states,
        tables.actions,
        members,
        config.hidden,
        "categorical",
        bootstrap=config.bootstrap,
        groups=tables.groups,
        generators=generators,
    )


class Model:
    """A fitted belief about the chain: the mean table `P` [G, S, A, S] and the utility `u` [G, S, A] of each pair."""

    def __init__(self, kind: str, config: ChainConfig, tables: Tables, generators: list[torch.Generator]):
        self.kind, self.config, self.tables = kind, config, tables
        self.ensemble = None
        if kind not in ("count", "dirichlet"):
            self.ensemble = network(config, tables, generators, config.members)

    def fit(self) -> None:
        tables, shape = self.tables, (self.tables.groups, self.tables.states, self.tables.actions)
        visits = tables.visits
        if self.kind == "count":
            # Optimism as in R-max: a pair never tried is worth 1, and where it leads is unknown.
            flat = torch.full_like(tables.counts, 1 / tables.states)
            self.P = torch.where(visits[..., None] > 0, tables.counts / visits.clamp(min=1)[..., None], flat)
            self.u = (visits == 0).float()
            return
        if self.kind == "dirichlet":
            posterior = DirichletEnsemble(
                tables.states, tables.actions, self.config.alpha / tables.states, tables.groups
            )
            posterior.counts = tables.counts.double()
            self.P, self.u = posterior.mean(), posterior.information_gain()
            return
        assert self.ensemble is not None
        self.ensemble.fit(tables.data(), self.config.fit_steps, self.config.rate)
        with torch.no_grad():
            probs = self.ensemble(*tables.inputs()).probs  # [G, M, S A, S]
        mean = probs.mean(1)
        if self.kind == "jsd":
            u = jensen_shannon(probs.movedim(1, 0))
        elif self.kind == "entropy":
            u = entropy(mean)
        else:
            # Expected surprise at the outcome: under the data where there is some, else under the model itself.
            seen = tables.counts.flatten(1, 2)
            share = seen / seen.sum(-1, keepdim=True).clamp(min=1)
            belief = torch.where(seen.sum(-1, keepdim=True) > 0, share, mean)
            u = -(belief * mean.clamp(min=1e-12).log()).sum(-1)
        self.P, self.u = mean.view(*shape, -1), u.view(shape)


class Planner(Explorer):
    """Plans for utility in the model, from the present state to the end of the episode or `horizon`; anew after every
    fit."""

    def __init__(
        self,
        config: ChainConfig,
        tables: Tables,
        generators: list[torch.Generator],
        kind: str,
        horizon: int | None,
    ):
        super().__init__(config, tables, generators)
        self.model, self.full = Model(kind, config, tables, generators), config.length + 9
        self.horizon = min(horizon or self.full, self.full)
        self.queue: list[Tensor] = []

    def refit(self) -> None:
        self.model.fit()
        self.utility = self.model.u
        self.queue = []
        if self.config.planner == "exact":
            # Equal values (counts have many) are told apart by a hair, drawn by each group for itself.
            hair = 1e-7 * self.draw(self.tables.states, self.tables.actions)
            self.q = value_iteration_finite(self.model.P, self.model.u + hair, self.horizon).q

    def act(self, state: Tensor, remaining: int) -> Tensor:
        steps = min(self.horizon, remaining)
        if self.config.planner == "exact":
            return self.q[self.horizon - steps, torch.arange(len(state)), state].argmax(-1)
        if not self.queue:
            self.queue = list(self.sequences(state, steps).unbind(1))
        return self.queue.pop(0)

    def sequences(self, state: Tensor, steps: int) -> Tensor:
        """[G, steps]: open-loop plans by the sampling planners; they are thrown away with the next fit."""
        P, u, count = self.model.P, self.model.u, self.config.simulations
        if self.config.planner == "mcts":
            plans = [
                MCTS(P[g], u[g], simulations=count, generator=self.generators[g]).plan(int(state[g]), steps)
                for g in range(len(state))
            ]
            return torch.tensor(plans)
        table = TableModel(P, u, self.generators)
        options = {"num_actions": self.tables.actions, "generators": self.generators}
        if self.config.planner == "cem":
            return CEM(table, steps, count, 3, **options).plan(state)[0]
        return RandomShooting(table, steps, 3 * count, **options).plan(state)[0]


class Reactive(Explorer):
    """Q-learning on what was met: a bonus for it, or the environment's own reward."""

    def __init__(self, config: ChainConfig, tables: Tables, generators: list[torch.Generator], kind: str):
        super().__init__(config, tables, generators)
        self.kind = kind
        options = {
            "groups": tables.groups,
            "gamma": config.gamma,
            "lr": config.q_rate,
            "batch": config.q_batch,
            "sync": config.q_sync,
            "capacity": config.episodes * (config.length + 9),
            "generators": generators,
        }
        sizes = (tables.states, tables.actions, config.q_hidden)
        if kind == "boot-dqn":
            self.agent: DQN = BootstrappedDQN(*sizes, heads=config.heads, **options)
        elif kind == "eb-dqn":
            self.agent = ExplorationBonusDQN(*sizes, beta=config.beta, epsilon=config.epsilon, **options)
        else:
            self.agent = DQN(*sizes, epsilon=config.epsilon, bonus=self.bonus, extrinsic=0.0, **options)
        # The value of each possible step: [G, S, A, S].
        self.worth = torch.zeros_like(tables.counts)
        self.predictor: nn.Module | None = None
        if kind in ("jdr-reactive", "error-reactive"):
            self.model = Model("jsd" if kind == "jdr-reactive" else "entropy", config, tables, generators)
        elif kind == "icm":
            self.predictor = network(config, tables, generators, 1)
        elif kind == "rnd":
            self.target = StackedMLP((tables.states, 32, 16), tables.groups, "relu", generators)
            self.predictor = StackedMLP(
                (tables.states, *config.hidden, 16), tables.groups, "relu", generators
            )
        if self.predictor is not None:
            self.optimizer = torch.optim.Adam(self.predictor.parameters(), config.bonus_rate, fused=True)

    def bonus(self, batch: Replayed) -> Tensor:
        group = torch.arange(self.tables.groups)[:, None]
        step = (batch.obs.argmax(-1), batch.action, batch.next_obs.argmax(-1))
        return self.config.bonus_scale * self.worth[group, *step]

    def refit(self) -> None:
        if self.kind not in ("jdr-reactive", "error-reactive"):
            return
        self.model.fit()
        if self.kind == "jdr-reactive":
            self.utility = self.model.u
            self.worth = self.utility[..., None].expand_as(self.worth)
        else:
            self.worth = -self.model.P.clamp(min=1e-12).log()
            self.utility = self.mean_worth()

    def mean_worth(self) -> Tensor:
        """[G, S, A]: of the steps that were met."""
        counts = self.tables.counts
        return (self.worth * counts).sum(-1) / counts.sum(-1).clamp(min=1)

    def act(self, state: Tensor, remaining: int) -> Tensor:
        return self.agent.act(nn.functional.one_hot(state, self.tables.states).float())

    def observe(self, state: Tensor, action: Tensor, reward: Tensor, following: Tensor, end: bool) -> None:
        hot = [nn.functional.one_hot(x, self.tables.states).float() for x in (state, following)]
        ended = torch.full((len(state),), end)
        self.agent.remember(hot[0], action, reward, hot[1], torch.zeros_like(ended), ended)
        if self.predictor is not None:
            self.predict()
        self.agent.learn()

    def predict(self) -> None:
        """One step of the online predictor on everything met so far, and what it makes of every step."""
        assert self.predictor is not None
        tables = self.tables
        if self.kind == "icm":
            assert isinstance(self.predictor, DynamicsEnsemble)
            loss = self.predictor.losses(tables.data(by_visits=True)).sum()
        else:
            eye = torch.eye(tables.states)
            with torch.no_grad():
                goal = self.target(eye)
            error = (self.predictor(eye) - goal).square().mean(-1)  # [G, S]
            met = tables.counts.sum((1, 2))
            loss = (error * met).sum(-1).div(met.sum(-1)).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        if self.kind == "rnd":
            # In units of the mean error over what was met, as RND divides by a running deviation.
            now = error.detach()
            scale = (now * met).sum(-1, keepdim=True) / met.sum(-1, keepdim=True)
            self.worth = (now / scale.clamp(min=1e-8))[:, None, None].expand_as(tables.counts)
        elif self.agent.updates % self.config.refit_every == 0:
            with torch.no_grad():
                log_probs = self.predictor(*tables.inputs()).log_probs[:, 0]
            self.worth = -log_probs.view_as(tables.counts)
            self.utility = self.mean_worth()


def make(kind: str, config: ChainConfig, tables: Tables, generators: list[torch.Generator]) -> Explorer:
    """The explorer of an arm's name."""
    if kind == "random":
        return Explorer(config, tables, generators)
    if kind in ("boot-dqn", "eb-dqn", "icm", "rnd", "jdr-reactive", "error-reactive"):
        return Reactive(config, tables, generators, kind)
    horizon = int(kind) if kind.isdigit() else None
    utility = {"count-optimism": "count", "dirichlet": "dirichlet", "entropy": "entropy", "error": "error"}
    return Planner(config, tables, generators, utility.get(kind, "jsd"), horizon)


def explore(
    run: Batch,
    pairs: Pairs,
    config: ChainConfig,
    kind: str,
    trap: bool = False,
    television: str | None = None,
) -> Iterator[dict[str, float]]:
    """Run one explorer on every seed's chain; yields each pair's metrics.

    `television` is None, or says where the third action jumps to: "near" (the first ten states) or "anywhere" (ten
    random ones).
    """
    groups, limit = len(pairs), config.length + 9
    seeds = [seed for _, seed in pairs]
    env = Chain(
        groups,
        length=config.length,
        swap_seed=[int(run.numpy("swaps", seed).integers(2**31)) for seed in seeds],
        trap_state=0 if trap else None,
        tv_actions=int(television is not None),
        tv_choices=min(10, config.length),
        tv_near=television == "near",
        generator=[run.generator("world", seed, "cpu") for seed in seeds],
    )
    assert env.num_actions is not None
    tables = Tables(groups, config.length, env.num_actions)
    explorer = make(kind, config, tables, [run.generator("explorer", seed, "cpu") for seed in seeds])
    warm = Explorer(config, tables, [run.generator("warm-up", seed, "cpu") for seed in seeds])
    shares = [torch.zeros(groups)]
    watched, unknown = torch.zeros(groups), torch.zeros(groups)
    pictures = []
    state, clock = env.reset()[0].argmax(-1), 0
    for episode in run.steps(config.episodes):
        for t in range(limit):
            if episode < config.warmup:
                action = warm.random()
            else:
                if clock % config.refit_every == 0 or (t == 0 and episode == config.warmup):
                    explorer.refit()
                clock += 1
                action = explorer.act(state, limit - t)
                open_yet = explored_fraction(tables.visits, 2) < KNOWN
                watched += open_yet & (action >= 2)
                unknown += open_yet
            step = env.step(action)
            following = step.info["state"]
            # The step that ends an episode shows its true successor in final_obs.
            following = torch.where(step.ended, step.final_obs.argmax(-1), following)
            tables.add(state, action, following)
            explorer.observe(state, action, step.reward, following, t == limit - 1)
            state = step.obs.argmax(-1)
        share = explored_fraction(tables.visits, 2)
        shares.append(share)
        if explorer.utility is not None:
            pictures.append(explorer.utility[0].clone())
        for (arm, seed), value in zip(pairs, share.tolist(), strict=True):
            run.log(episode + 1, arm=arm, seed=seed, share=value)
        if bool((share == 1).all()):
            break  # nothing is left to explore in any seed
    if pictures and (trap or television):
        run.save("utility", torch.stack(pictures).float(), arm=pairs[0][0], seed=seeds[0])
    curve = torch.stack(shares, 1)
    for k in range(groups):
        own = curve[k]
        reached = (own >= 0.9).nonzero().flatten()
        yield {
            "share15": float(own[min(config.share_at, len(own) - 1)]),
            "share_end": float(own[-1]),
            "episodes90": float(reached[0]) if len(reached) else float(config.episodes),
            "censored": float(len(reached) == 0),
            "tv_share": float(watched[k] / unknown[k].clamp(min=1)),
        }
