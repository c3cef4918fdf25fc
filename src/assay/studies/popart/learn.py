"""One agent on several tasks, with PopArt, one of its ablations, or a rival."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from assay.envs.suite import MultiTask
from assay.lab import Trial
from assay.rl.actorlearner import ActorLearner
from assay.rl.evaluate import auc, human_normalised, mean_capped_normalised
from assay.rl.impala import RMSPropTF
from assay.rl.multitask import (
    MultiTaskActorCritic,
    PixelControl,
    PixelControlHead,
    PopArtLearner,
    TaskReturns,
    multitask_actor_critic,
    summarise_shares,
    tasks_of_actors,
)
from assay.rl.nets import CategoricalHead, ImpalaResNet, LSTMCore
from assay.rl.popart import PopArtHead, ReturnScale, SquashReward
from assay.rl.rollout import Rollout
from assay.rl.schedules import Linear
from assay.studies.popart.worlds import WORLDS, make_world, references


@dataclass(frozen=True)
class AgentConfig:
    """Network and learner; the values are the laptop's."""

    network: str = "mlp"
    """Or "impala": the deep residual network."""
    hidden: tuple[int, ...] = (64, 64)
    lstm: int = 0
    optimizer: str = "adam"
    """Or "rmsprop-tf"."""
    rate: float = 4e-3
    epsilon: float = 1e-8
    anneal: bool = False
    """The learning rate falls linearly to 0."""
    reduction: str = "mean"
    gamma: float = 0.99
    ent_coef: float = 0.01
    vf_coef: float = 0.5
    max_grad_norm: float = 40.0
    beta: float = 0.1
    per: str = "batch"
    """What beta belongs to: a "batch" or, as in the paper, a "sample"."""
    debias: bool = True
    start: str = "data"
    """What the statistics start from; the paper's are the "prior", shift 0 and scale 1."""
    scale_bounds: tuple[float, float] = (1e-4, 1e6)
    pixel_control: float = 0.0
    """Weight of the auxiliary loss."""


@dataclass(frozen=True)
class RunConfig:
    """One agent, many tasks; the values are those of `suite/*`."""

    world: str = "suite"
    tasks: tuple[str, ...] = ("catch", "goal", "snack", "jackpot")
    """None named: the world's own list (`WORLDS`)."""
    scales: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)
    """Rewards are multiplied by these; one number serves all tasks."""
    rotate: bool = False
    """Seed k moves the scales k tasks on."""
    copies: int = 32
    """Of each task, in each actor."""
    unroll: int = 10
    updates: int = 450
    points: int = 25
    """Of the learning curve."""
    shares_every: int = 20
    """Updates between measurements of the gradient's shares; 0: none."""
    backend: str = "inline"
    actors_per_task: int = 0
    """0: one actor with every task; else actors of one task each."""
    agent: AgentConfig = AgentConfig()


VARIANTS: dict[str, dict[str, Any]] = {
    "raw": {"normalise": "none"},
    "clip": {"normalise": "none", "reward": "clip"},
    "return-std": {"normalise": "none", "return_std": True},
    "popart": {},
    "popart-clip": {"reward": "clip"},
    "popart-lag4": {"lag": 4},
    "art": {"preserve": False},
    "fixed": {"freeze_after": 10},
    "single": {"statistics": "pooled"},
    "critic": {"normalise": "critic"},
    "actor": {"normalise": "actor"},
    "rescale": {"rescale_optimizer": True},
}
"""Arm -> how its learner differs from PopArt's."""


def build_model(
    shape: tuple[int, ...], actions: int, num_tasks: int, config: AgentConfig, seed: int
) -> MultiTaskActorCritic:
    """A fresh agent for observations of this shape."""
    g = torch.Generator().manual_seed(seed)
    popart: dict[str, Any] = {
        "beta": config.beta,
        "per": config.per,
        "debias": config.debias,
        "scale_bounds": config.scale_bounds,
    }
    if config.network == "mlp":
        like = _Like(shape, actions)
        model = multitask_actor_critic(
            like,
            num_tasks,
            config.hidden,
            lstm=config.lstm or None,
            generator=g,
            **popart,
        )
        width = model.value_head.in_features
    elif config.network == "impala":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # torch's own layers draw from the global generator
            torso = ImpalaResNet(shape[0], shape[1:], features=256)  # type: ignore[arg-type]
            core = LSTMCore(torso.features, config.lstm) if config.lstm else None
        width = core.features if core else torso.features
        head = PopArtHead(width, num_tasks, init=partial(torch.nn.init.orthogonal_, generator=g), **popart)
        model = MultiTaskActorCritic(torso, CategoricalHead(width, actions, generator=g), head, core)
    else:
        raise ValueError(f"network is mlp or impala: got {config.network!r}")
    if config.pixel_control:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            cells = (shape[1] // 4, shape[2] // 4)
            model.aux_heads["pixel_control"] = PixelControlHead(width, actions, cells)
    return model


@dataclass
class _Like:
    """What a network has to know of a world."""

    obs_shape: tuple[int, ...]
    num_actions: int


def make_learner(
    model: MultiTaskActorCritic, config: RunConfig, variant: dict[str, Any], rows: Tensor, transitions: int
) -> PopArtLearner:
    """The learner of a variant; `rows` [N] are the tasks of the copies, `transitions` how long rates take to anneal."""
    agent = config.agent
    optimizer: torch.optim.Optimizer
    if agent.optimizer == "adam":
        optimizer = torch.optim.Adam(model.parameters(), agent.rate, eps=agent.epsilon)
    elif agent.optimizer == "rmsprop-tf":
        optimizer = RMSPropTF(model.parameters(), agent.rate, eps=agent.epsilon)
    else:
        raise ValueError(f"optimizer is adam or rmsprop-tf: got {agent.optimizer!r}")
    options = {key: value for key, value in variant.items() if key not in ("reward", "return_std", "lag")}
    if variant.get("return_std"):
        if config.actors_per_task:
            raise ValueError("return-std keeps sums copy by copy: use one actor (actors_per_task=0)")
        options["return_scale"] = ReturnScale(agent.gamma, rows, model.streams)
    return PopArtLearner(
        model,
        optimizer,
        start=agent.start,
        shares_every=config.shares_every or None,
        aux_losses=[PixelControl(agent.pixel_control)] if agent.pixel_control else [],
        gamma=agent.gamma,
        ent_coef=agent.ent_coef,
        vf_coef=agent.vf_coef,
        reduction=agent.reduction,
        max_grad_norm=agent.max_grad_norm,
        reward_transform=SquashReward(variant["reward"]) if "reward" in variant else None,
        learning_rate=Linear(agent.rate, 0.0, transitions) if agent.anneal else None,
        **options,
    )


def actor_world(index: int, config: RunConfig, scales: tuple[float, ...], seed: int) -> MultiTask:
    """The world of an actor: every task, or its own."""
    only = None
    if config.actors_per_task:
        actors = config.actors_per_task * len(config.tasks)
        only = tasks_of_actors(actors, len(config.tasks))[index]
    g = torch.Generator().manual_seed((seed + 7919 * index) % 2**31)
    return make_world(config.world, config.tasks, config.copies, scales, g, only)


@contextmanager
def system_of(
    config: RunConfig, variant: dict[str, Any], scales: tuple[float, ...], seed: int
) -> Iterator[tuple[ActorLearner, dict[str, tuple[float, float]]]]:
    """Actors and learner of a run, closed at the end, and the references of its tasks' returns."""
    n = len(config.tasks)
    g = torch.Generator().manual_seed(0)
    shape = make_world(config.world, config.tasks, 1, scales, g, None if config.world == "suite" else 0)
    known = references(config.world, config.tasks, shape)
    assert shape.num_actions is not None
    build = partial(build_model, shape.obs_shape, shape.num_actions, n, config.agent, seed)
    shape.close()
    actors = max(1, config.actors_per_task * n)
    rows = torch.arange(n).repeat_interleave(config.copies)
    transitions = config.updates * config.unroll * config.copies * (actors if config.actors_per_task else n)
    learner = make_learner(build(), config, variant, rows, transitions)
    # An update takes one unroll of every actor: tasks weigh the same in each.
    with ActorLearner(
        partial(actor_world, config=config, scales=scales, seed=seed),
        build,
        learner,  # type: ignore[arg-type]  # its model is a kind of actor-critic
        actors,
        config.unroll,
        backend=config.backend,
        batch_unrolls=actors,
        synchronous=config.backend != "inline",
        lag=variant.get("lag", 0),
        seed=seed % 1_000_003,
    ) as system:
        yield system, known


def scales_of(config: RunConfig, seed: int) -> tuple[float, ...]:
    """The reward scale of each task in this seed."""
    n = len(config.tasks)
    scales = config.scales * n if len(config.scales) == 1 else config.scales
    if len(scales) != n:
        raise ValueError(f"give one scale, or one for each of {n} tasks: got {len(scales)}")
    if not config.rotate:
        return scales
    k = seed % n
    return scales[-k:] + scales[:-k] if k else scales


class Scoreboard:
    """Normalised scores of each task in consecutive windows of training."""

    def __init__(self, known: dict[str, tuple[float, float]]):
        self.known, self.windows = known, list[list[float]]()
        self.returns = TaskReturns(len(known))
        self.sums = self.counts = torch.zeros(len(known), dtype=torch.float64)

    def add(self, rollout: Rollout, scales: Tensor) -> None:
        """Take in the episodes that end in a rollout; rewards are divided by the scale of their task."""
        assert rollout.task is not None
        sums, counts = self.returns.add(rollout, rollout.reward[..., 0] / scales[rollout.task])
        self.sums, self.counts = self.sums + sums, self.counts + counts

    def close_window(self) -> list[float]:
        """Scores of the episodes since the last window; a task without any keeps its last score (at first 0)."""
        last = self.windows[-1] if self.windows else [0.0] * len(self.known)
        means = (self.sums / self.counts).tolist()
        scores = [
            human_normalised(mean, *bounds) if count else before
            for mean, count, before, bounds in zip(
                means, self.counts.tolist(), last, self.known.values(), strict=True
            )
        ]
        self.windows.append(scores)
        self.sums = self.counts = torch.zeros_like(self.sums)
        return scores


def learn(run: Trial, config: RunConfig, variant: dict[str, Any], curves: bool = True) -> dict[str, float]:
    """Train once; logs scores, statistics and gradient shares, gives what became of them in the last fifth."""
    seed = run.generator("learn", device="cpu").initial_seed() % 2**31
    scales = scales_of(config, run.seed)
    sizes, n = torch.tensor(scales), len(config.tasks)
    windows = {round((k + 1) * config.updates / config.points) for k in range(config.points)}
    shares: list[list[float]] = []
    entropy = 0.0
    with system_of(config, variant, scales, seed) as (system, known), warnings.catch_warnings():
        # A sparse task's first targets are all zero: that its scale waits at the floor is expected.
        warnings.filterwarnings("ignore", message=r"sigma of task \d+ sits at its floor")
        board, learner = Scoreboard(known), system.learner
        assert isinstance(learner, PopArtLearner)
        head = learner.model.value_head
        for turn, _ in zip(system.run(config.updates), run.steps(config.updates), strict=False):
            board.add(turn.rollout, sizes)
            if "share_0" in turn.metrics:
                shares.append([turn.metrics[f"share_{k}"] for k in range(n)])
                run.log(turn.update, **{f"share_{config.tasks[k]}": shares[-1][k] for k in range(n)})
            if turn.update in windows:
                scores = board.close_window()
                entropy = turn.metrics["entropy"]
                if not curves:
                    continue
                spread = learner.target_sums
                assert spread is not None
                mean = spread.total / spread.count.clamp(min=1)
                std = (spread.squares / spread.count.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
                run.log(turn.update, score=aggregate(config.world, scores), entropy=entropy)
                if n <= 8:
                    for k, task in enumerate(config.tasks):
                        values = {"score": scores[k], "mu": head.mu[k], "sigma": head.sigma[k]}
                        values |= {"target_mean": mean[k], "target_std": std[k]}
                        run.log(turn.update, **{f"{name}_{task}": value for name, value in values.items()})
    curve = [aggregate(config.world, scores) for scores in board.windows]
    end = board.windows[-max(1, len(curve) // 5) :]
    last = dict(zip(config.tasks, torch.tensor(end, dtype=torch.float64).mean(0).tolist(), strict=True))
    found = {
        "score": aggregate(config.world, list(last.values())),
        "capped": mean_capped_normalised(last, dict.fromkeys(last, (0.0, 1.0))),
        "auc": float(auc(torch.tensor(curve))),
        "entropy": entropy,
        **{f"score_{task}": score for task, score in last.items()},
    }
    if shares and n > 1:
        summary = summarise_shares(torch.tensor(shares, dtype=torch.float64))
        found["evenness"] = summary.evenness
        found |= {f"share_{task}": float(x) for task, x in zip(config.tasks, summary.shares, strict=True)}
    return found


def aggregate(world: str, scores: list[float]) -> float:
    """Median over games for Atari, as the paper reports them, else the mean over tasks."""
    values = torch.tensor(scores, dtype=torch.float64)
    return float(values.quantile(0.5) if world == "atari" else values.mean())


def named(config: RunConfig) -> RunConfig:
    """With the world's own tasks where none are named."""
    return config if config.tasks else replace(config, tasks=WORLDS[config.world])


def compared(run: Trial, arm: str, config: RunConfig) -> dict[str, float]:
    """`suite/*`, `jackpot/*` and `density/*`: the arm's name is the variant."""
    name, config = arm.partition("/")[2], named(config)
    return experts(run, config) if name == "expert" else learn(run, config, VARIANTS[name])


def experts(run: Trial, config: RunConfig) -> dict[str, float]:
    """`suite/expert`: an agent of its own for each task, with as many frames of it as the multi-task agent has."""
    found = {}
    for task, scale in zip(config.tasks, scales_of(config, run.seed), strict=True):
        alone = replace(config, tasks=(task,), scales=(scale,), rotate=False, shares_every=0)
        found[task] = learn(run, alone, VARIANTS["popart"], curves=False)
    scores = {task: one["score"] for task, one in found.items()}
    return {
        "score": aggregate(config.world, list(scores.values())),
        "capped": mean_capped_normalised(scores, dict.fromkeys(scores, (0.0, 1.0))),
        **{f"score_{task}": score for task, score in scores.items()},
    }


@dataclass(frozen=True)
class SweepConfig:
    """`sweep/*`: one task's rewards are multiplied by the number in the arm's name."""

    task: str = "catch"
    learn: RunConfig = RunConfig(
        # Scales that make a perfect episode worth 1 in every task: a balance made by hand, which the sweep upsets.
        tasks=("catch", "goal", "jackpot"),
        scales=(1.0, 1.0, 0.01),
        updates=250,
        shares_every=0,
    )


def swept(run: Trial, arm: str, config: SweepConfig) -> dict[str, float]:
    """`sweep/<variant>-<factor>`."""
    name, _, factor = arm.partition("/")[2].rpartition("-")
    part = named(config.learn)
    if config.task not in part.tasks:
        raise ValueError(f"sweep.task is one of {', '.join(part.tasks)}: got {config.task!r}")
    scales = dict(zip(part.tasks, scales_of(part, run.seed), strict=True))
    scales[config.task] *= float(factor)
    return learn(run, replace(part, scales=tuple(scales.values()), rotate=False), VARIANTS[name])


def rated(run: Trial, arm: str, config: RunConfig) -> dict[str, float]:
    """`beta/<variant>-<beta>`: statistics that follow the targets slowly or fast."""
    name, _, beta = arm.partition("/")[2].rpartition("-")
    return learn(run, replace(named(config), agent=replace(config.agent, beta=float(beta))), VARIANTS[name])
