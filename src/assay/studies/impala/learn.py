"""Learning from stale data: one agent, four corrections, any amount of lag and replay."""

from dataclasses import dataclass, field, replace
from functools import partial

import torch

from assay.envs import TensorEnv
from assay.lab import Trial
from assay.rl.actorlearner import ActorLearner
from assay.rl.evaluate import auc, evaluate
from assay.rl.impala import Correction, RMSPropTF, VTraceLearner
from assay.rl.policies import ActorCritic
from assay.rl.popart import SquashReward
from assay.rl.replay import TrajectoryReplay
from assay.rl.schedules import Linear
from assay.studies.impala.worlds import actor_world, make_model, make_world

CORRECTIONS: tuple[Correction, ...] = ("vtrace", "onestep", "epsilon", "none")


@dataclass(frozen=True)
class AgentConfig:
    """Network and learner; the values are the laptop's."""

    network: str = "mlp"
    hidden: tuple[int, ...] = (64, 64)
    lstm: int = 0
    optimizer: str = "adam"
    """Or "rmsprop-tf"."""
    epsilon: float = 1e-8
    """Of the optimizer."""
    anneal: bool = False
    """The learning rate falls linearly to 0."""
    reduction: str = "mean"
    gamma: float = 0.99
    ent_coef: float = 0.01
    vf_coef: float = 0.5
    max_grad_norm: float = 40.0
    reward: str = "identity"
    """What is learnt from: "identity", "clip" or "soft_asymmetric"."""


@dataclass(frozen=True)
class LearnConfig:
    """One agent on one world; the values are those of `replay/*`."""

    world: str = "catch"
    copies: int = 64
    unroll: int = 10
    updates: int = 250
    lag: int = 8
    replay: int = 400
    """Unrolls kept; 0: no replay."""
    share: float = 0.5
    rates: tuple[float, ...] = (5e-3,)
    backend: str = "inline"
    actors: int = 1
    fresh: int = 1
    """New unrolls an update."""
    evaluations: int = 10
    episodes: int = 256
    agent: AgentConfig = field(default_factory=AgentConfig)


def make_learner(
    env: TensorEnv, config: AgentConfig, correction: Correction, rate: float, seed: int, transitions: int
) -> VTraceLearner:
    """A fresh agent and its learner; `transitions` is how long the learning rate takes to fall to 0."""
    model = make_model(env, config.network, config.hidden, config.lstm, seed)
    optimizer: torch.optim.Optimizer
    if config.optimizer == "rmsprop-tf":
        optimizer = RMSPropTF(model.parameters(), rate, eps=config.epsilon)
    elif config.optimizer == "adam":
        optimizer = torch.optim.Adam(model.parameters(), rate, eps=config.epsilon)
    else:
        raise ValueError(f"optimizer is adam or rmsprop-tf: got {config.optimizer!r}")
    return VTraceLearner(
        model,
        optimizer,
        gamma=config.gamma,
        correction=correction,
        ent_coef=config.ent_coef,
        vf_coef=config.vf_coef,
        reduction=config.reduction,  # type: ignore[arg-type]
        max_grad_norm=config.max_grad_norm,
        reward_transform=None if config.reward == "identity" else SquashReward(config.reward),
        learning_rate=Linear(rate, 0.0, transitions) if config.anneal else None,
    )


def make_policy(world: str, config: AgentConfig) -> ActorCritic:
    """An actor's copy of the policy, whose parameters are yet to come."""
    env = make_world(world, 1, 0)
    model = make_model(env, config.network, config.hidden, config.lstm)
    env.close()
    return model


def batch_size(config: LearnConfig) -> int:
    """Unrolls an update, replayed ones included."""
    return round(config.fresh / (1 - config.share)) if config.replay else config.fresh


def system_of(learner: VTraceLearner, config: LearnConfig, seed: int) -> ActorLearner:
    """The actors and the learner of a config."""
    replay = None
    if config.replay:
        replay = TrajectoryReplay(config.replay, generator=torch.Generator().manual_seed(seed))
    return ActorLearner(
        partial(actor_world, names=(config.world,), copies=config.copies, seed=seed),
        partial(make_policy, config.world, config.agent),
        learner,
        config.actors,
        config.unroll,
        backend=config.backend,
        batch_unrolls=batch_size(config),
        lag=config.lag if config.backend == "inline" else 0,
        replay=replay,
        replay_share=config.share,
        seed=seed % 1_000_003,
    )


def learn(
    run: Trial, correction: Correction, config: LearnConfig, rate: float, name: str = "return"
) -> dict[str, float]:
    """Train once; logs the curve of mean returns under `name`, gives its end and how off-policy the data were."""
    seed = run.generator("learn", device="cpu").initial_seed() % 2**31
    shape = make_world(config.world, 1, seed)
    transitions = config.updates * batch_size(config) * config.copies * config.unroll
    learner = make_learner(shape, config.agent, correction, rate, seed, transitions)
    shape.close()
    judge = make_world(config.world, min(config.episodes, 256), seed + 1)
    acting = torch.Generator().manual_seed(seed + 2)
    shown = {round((k + 1) * config.updates / config.evaluations) for k in range(config.evaluations)}
    scores, shares, entropy = [], [], 0.0
    with system_of(learner, config, seed) as system:
        for turn, _ in zip(system.run(config.updates), run.steps(config.updates), strict=False):
            shares.append(turn.metrics["effective_sample_share"])
            if turn.update in shown:
                score = float(
                    evaluate(learner.model, judge, config.episodes, generator=acting).returns.mean()
                )
                entropy = turn.metrics["entropy"]
                run.log(turn.update, **{name: score, f"{name}_entropy": entropy})
                scores.append(score)
    judge.close()
    return {
        "final_return": scores[-1],
        "area": float(auc(torch.tensor(scores))),
        "entropy": entropy,
        "effective_sample_share": sum(shares) / len(shares),
    }


def replayed(run: Trial, arm: str, config: LearnConfig) -> dict[str, float]:
    """`replay/*`, `replay-low/*` and `rooms/*`: half of each batch from the replay, behaviour `lag` updates old."""
    correction = arm.rpartition("/")[2]
    metrics = learn(run, correction, config, config.rates[0])  # type: ignore[arg-type]
    return {**metrics, "failed": float(metrics["final_return"] < 0.9)}


def lagged(run: Trial, arm: str, config: LearnConfig) -> dict[str, float]:
    """`lag<k>/*`: no replay, behaviour k updates old, every learning rate in turn; the means over rates."""
    lag, correction = arm.removeprefix("lag").split("/")
    config = replace(config, lag=int(lag))
    found = {rate: learn(run, correction, config, rate, f"return_at_{rate:g}") for rate in config.rates}  # type: ignore[arg-type]
    every = list(found.values())
    means = {name: sum(one[name] for one in every) / len(every) for name in every[0]}
    return {**means, **{f"final_return_at_{rate:g}": one["final_return"] for rate, one in found.items()}}


@dataclass(frozen=True)
class DrawsConfig:
    """Random hyper-parameters, log-uniform between bounds, one draw a seed."""

    rates: tuple[float, float] = (3e-4, 2e-2)
    entropies: tuple[float, float] = (1e-3, 5e-2)
    lag: int = 2
    learn: LearnConfig = field(default_factory=lambda: LearnConfig(updates=200, replay=0, lag=0))


def drawn(run: Trial, arm: str, config: DrawsConfig) -> dict[str, float]:
    """`draws/*`: IMPALA a few updates behind, or a synchronous actor-critic, with drawn hyper-parameters."""
    u = torch.rand(2, generator=run.generator("draws", device="cpu"), dtype=torch.float64).tolist()
    rate, entropy = (
        low * (high / low) ** x for (low, high), x in zip((config.rates, config.entropies), u, strict=True)
    )
    impala = arm.endswith("impala")
    part = replace(
        config.learn, lag=config.lag if impala else 0, agent=replace(config.learn.agent, ent_coef=entropy)
    )
    metrics = learn(run, "vtrace" if impala else "none", part, rate)
    return {**metrics, "rate": rate, "ent_coef": entropy}
