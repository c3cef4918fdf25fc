"""Explore a continuous world without a task; then be given one, and solve it in the learned model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from assay.envs.base import TensorEnv
from assay.envs.classic import MountainCar
from assay.envs.point import PointMaze
from assay.lab import Batch
from assay.rl.dqn import DQN, Replayed
from assay.rl.dynamics import DynamicsEnsemble, GaussianPrediction, Imagination, Prediction, Transitions
from assay.rl.information import mean_variance
from assay.rl.planning import CEM
from assay.studies.max_exploration.config import ControlConfig

Pairs = list[tuple[str, int]]


@dataclass(frozen=True)
class World:
    """A world with two state variables, discrete actions and a place to reach."""

    make: Callable[..., TensorEnv]
    low: Tensor
    high: Tensor
    goal: Callable[[Tensor], Tensor]
    """States [..., 2] to bool [...]: the task that is given afterwards."""
    actions: int

    def unit(self, state: Tensor) -> Tensor:
        """States in [-1, 1]."""
        return 2 * (state - self.low) / (self.high - self.low) - 1


def worlds(name: str, config: ControlConfig) -> World:
    """The mountain car or the maze."""
    if name == "car":
        return World(
            lambda n, **o: MountainCar(n, action_repeat=config.car_repeat, max_steps=config.car_limit, **o),
            torch.tensor([-1.2, -0.07]),
            torch.tensor([0.6, 0.07]),
            lambda s: s[..., 0] >= MountainCar.goal,
            3,
        )
    maze = PointMaze(1, layout=config.maze, step=config.maze_step)

    def goal(state: Tensor) -> Tensor:
        return maze.goals.flatten()[maze.cell_of(state.reshape(-1, 2))].view(state.shape[:-1])

    return World(
        lambda n, **o: PointMaze(
            n, layout=config.maze, step=config.maze_step, max_steps=config.maze_limit, **o
        ),
        torch.tensor([-1.0, -1.0]),
        torch.tensor([1.0, 1.0]),
        goal,
        9,
    )


def trajectory_variance(prediction: Prediction) -> Tensor:
    """[*G, B]: how far the members' next states lie apart, whatever their own spread (TVAX)."""
    assert isinstance(prediction, GaussianPrediction)
    return mean_variance(prediction.mean.movedim(-3, -2))


class Task:
    """A place to reach, solved by value iteration on a grid over the state, in the learned models.

    Values lie on `grid` x `grid` points and are interpolated in between; reaching the goal is worth 1, later ones
    less by the discount. A move is worth the mean over the members of what each of them foresees, so that a passage
    which one member imagines counts for little.
    """

    gamma = 0.97

    def __init__(self, world: World, model: DynamicsEnsemble, config: ControlConfig):
        self.world, self.model, self.grid = world, model, config.grid
        axes = [
            torch.linspace(float(a), float(b), self.grid) for a, b in zip(world.low, world.high, strict=True)
        ]
        points = torch.cartesian_prod(*axes)
        groups = model.groups or 1
        following = self._following(points.expand(groups, -1, -1))
        reached = world.goal(following).double()
        where, weight = self._corners(following)
        self.value = torch.zeros(groups, len(points), dtype=torch.float64)
        for _ in range(config.sweeps):
            self.value = self._backup(where, weight, reached).amax(-1)

    @torch.no_grad()
    def _following(self, state: Tensor) -> Tensor:
        """[G, B, A, M, 2]: where each member goes from states [G, B, 2] by each action."""
        rows, actions = state.shape[1], self.world.actions
        wide = state[:, :, None].expand(-1, -1, actions, -1).flatten(1, 2)
        hot = torch.eye(actions).repeat(rows, 1).expand(len(state), -1, -1)
        prediction = self.model(wide, hot)
        each = [
            self.model.next_state(prediction, wide, torch.full(wide.shape[:2], m))
            for m in range(self.model.members)
        ]
        following = torch.stack(each, 2).clamp(self.world.low, self.world.high)
        return following.unflatten(1, (rows, actions))

    def _corners(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Indices and weights [..., 4] of the grid points around states [..., 2]."""
        at = (self.world.unit(state).double() + 1) / 2 * (self.grid - 1)
        base = at.floor().clamp(0, self.grid - 2)
        share = at - base
        i, j = base.long().unbind(-1)
        x, y = share.unbind(-1)
        where = torch.stack([(i + a) * self.grid + j + b for a in (0, 1) for b in (0, 1)], -1)
        weight = torch.stack([(1 - x) * (1 - y), (1 - x) * y, x * (1 - y), x * y], -1)
        return where, weight

    def _backup(self, where: Tensor, weight: Tensor, reached: Tensor) -> Tensor:
        flat = where.flatten(1)
        later = self.value.gather(1, flat).view_as(weight).mul(weight).sum(-1)
        return torch.where(reached > 0, 1.0, self.gamma * later).mean(-1)

    def act(self, state: Tensor) -> Tensor:
        """Actions [G, B] in states [G, B, 2]."""
        following = self._following(state)
        where, weight = self._corners(following)
        return self._backup(where, weight, self.world.goal(following).double()).argmax(-1)

    def success(self, env: TensorEnv, epsilon: float, generators: list[torch.Generator]) -> Tensor:
        """[G]: share of the copies (G equal blocks) that reach the goal in one episode.

        A share `epsilon` of the actions is random: a model that is wrong about one spot of a wall would otherwise
        push against it for ever.
        """
        groups = self.model.groups or 1
        obs, _ = env.reset()
        reached = torch.zeros(env.num_envs, dtype=torch.bool)
        running = torch.ones_like(reached)
        while bool(running.any()):
            assert isinstance(obs, Tensor)
            action = self.act(obs.view(groups, -1, 2))
            drawn = torch.stack([torch.rand(2, action.shape[1], generator=g) for g in generators], 1)
            wild = (drawn[1] * self.world.actions).long().clamp(max=self.world.actions - 1)
            step = env.step(torch.where(drawn[0] < epsilon, wild, action).flatten())
            reached |= running & step.info["success"]
            running &= ~step.ended
            obs = step.obs
        return reached.view(groups, -1).float().mean(1)


class Memory:
    """Transitions of all seeds, [G, T, ...]."""

    def __init__(self, groups: int, steps: int, actions: int):
        self.state = torch.zeros(groups, steps, 2)
        self.action = torch.zeros(groups, steps, actions)
        self.following = torch.zeros(groups, steps, 2)
        self.size = 0

    def add(self, state: Tensor, action: Tensor, following: Tensor) -> None:
        self.state[:, self.size], self.following[:, self.size] = state, following
        self.action[:, self.size] = nn.functional.one_hot(action, self.action.shape[-1]).float()
        self.size += 1

    def data(self) -> Transitions:
        n = self.size
        return Transitions(self.state[:, :n], self.action[:, :n], self.following[:, :n])


def coverage(world: World, states: Tensor, bins: int = 16) -> Tensor:
    """[G]: share of `bins` x `bins` cells of the state space in which one of the states [G, T, 2] lies."""
    cell = ((world.unit(states) + 1) / 2 * bins).long().clamp(0, bins - 1)
    index = cell[..., 0] * bins + cell[..., 1]
    seen = torch.zeros(len(states), bins * bins).scatter_(1, index, 1.0)
    return seen.mean(1)


def explore_then_plan(run: Batch, pairs: Pairs, config: ControlConfig) -> Iterator[dict[str, float]]:
    """Explore with the arm's rule, all seeds at once; metrics of the task at half time and at the end."""
    place, _, kind = pairs[0][0].partition("/")[2].partition("-")
    world, groups = worlds(place, config), len(pairs)
    seeds = [seed for _, seed in pairs]

    def sources(stream: str) -> list[torch.Generator]:
        return [run.generator(stream, seed, "cpu") for seed in seeds]

    env = world.make(groups, generator=sources(f"{place}-world"))
    model = DynamicsEnsemble(
        2,
        world.actions,
        config.members,
        config.hidden,
        "gaussian",
        min_logvar=config.min_logvar,
        max_logvar=config.max_logvar,
        act="swish",
        groups=groups,
        generators=sources("model"),
    )
    memory = Memory(groups, config.steps, world.actions)
    draws = sources("explorer")
    utility = trajectory_variance if kind == "tvax" else model.disagreement
    planner = CEM(
        Imagination(model, utility, num_actions=world.actions),
        config.horizon,
        config.candidates,
        config.iterations,
        num_actions=world.actions,
        generators=draws,
    )

    def error(batch: Replayed) -> Tensor:
        hot = nn.functional.one_hot(batch.action, world.actions).float()
        low, high = world.low, world.high
        state, following = (low + (x + 1) / 2 * (high - low) for x in (batch.obs, batch.next_obs))
        with torch.no_grad():
            guess = model.next_state(model(state, hot), state)
        return ((following - guess) / model.delta_std).square().mean(-1).clamp(max=10.0)

    agent = DQN(
        2, world.actions, (64, 64), groups=groups, bonus=error, extrinsic=0.0, gamma=0.97, lr=1e-3,
        batch=32, epsilon=0.1, generators=draws,
    )  # fmt: skip
    warm = sources("warm-up")
    plan: list[Tensor] = []
    results: dict[str, list[Tensor]] = {}
    obs, _ = env.reset()
    assert isinstance(obs, Tensor)

    def fit(steps: int) -> None:
        model.fit(memory.data(), steps, config.rate, config.batch)

    for t in run.steps(config.steps):
        if kind == "random" or t < config.warmup:
            chosen = [torch.rand((), generator=g) for g in warm]
            action = (torch.stack(chosen) * world.actions).long().clamp(max=world.actions - 1)
        else:
            if (t - config.warmup) % config.refit_every == 0:
                fit(config.fit_steps)
                plan = []
            if kind == "perx":
                action = agent.act(world.unit(obs))
            else:
                if not plan:
                    plan = list(planner.plan(obs)[0].unbind(1)[: config.replan_every])
                action = plan.pop(0)
        step = env.step(action)
        assert isinstance(step.final_obs, Tensor)
        assert isinstance(step.obs, Tensor)
        memory.add(obs, action, step.final_obs)
        if kind == "perx":
            before, after = world.unit(obs), world.unit(step.final_obs)
            agent.remember(before, action, step.reward, after, step.terminated, step.ended)
            if t >= config.warmup:
                agent.learn()
        obs = step.obs
        if (t + 1) in (config.steps // 2, config.steps):
            fit(config.final_steps)
            task = Task(world, model, config)
            trial = world.make(groups * config.tasks, generator=sources(f"{place}-task"))
            for name, value in (
                ("success", task.success(trial, config.task_epsilon, sources("task"))),
                ("coverage", coverage(world, memory.state[:, : memory.size])),
            ):
                results.setdefault(name, []).append(value)
                for (arm, seed), number in zip(pairs, value.tolist(), strict=True):
                    run.log(t + 1, arm=arm, seed=seed, **{name: number})
            plan = []
    half, end = results["success"]
    run.save("states", memory.state[0].clone(), arm=pairs[0][0], seed=seeds[0])
    for k in range(groups):
        yield {
            "success": float(end[k]),
            "success_half": float(half[k]),
            "coverage": float(results["coverage"][-1][k]),
        }
