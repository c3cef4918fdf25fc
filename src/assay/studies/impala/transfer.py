"""One agent for all tasks against one for each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from assay.envs import RoomsSuite, TensorEnv
from assay.lab import Trial
from assay.rl.actorlearner import ActorLearner
from assay.rl.evaluate import evaluate, human_normalised, mean_capped_normalised
from assay.rl.rollout import RandomPolicy
from assay.rl.scores import human_normalised_scores
from assay.studies.impala.learn import AgentConfig, make_learner, make_policy
from assay.studies.impala.worlds import actor_world, make_world

MINIGRID = tuple(
    f"MiniGrid-{task}-v0"
    for task in ("Empty-8x8", "Empty-Random-6x6", "DoorKey-5x5", "FourRooms", "MultiRoom-N2-S4", "LavaGapS5")
)
"""A suite on a simulator that pip installs: six tasks with one view and one set of actions."""


@dataclass(frozen=True)
class TransferConfig:
    """The suite and the budget of each task."""

    tasks: tuple[str, ...] = tuple(f"suite-{k}" for k in range(6))
    frames: int = 100_000
    """Environment steps a task."""
    copies: int = 16
    """Of each task."""
    unroll: int = 20
    lag: int = 1
    rate: float = 1e-3
    references: str = "goal"
    """Scores of 0 and 1: "goal" (a random player's, measured, and reaching the goal always) or a table's name."""
    cap: float = 1.0
    episodes: int = 128
    points: int = 10
    backend: str = "inline"
    actors: int = 1
    agent: AgentConfig = field(default_factory=lambda: AgentConfig(hidden=(128, 64), gamma=0.98))


def references(config: TransferConfig) -> dict[str, tuple[float, float]]:
    """(random, human) score of every task."""
    if config.references != "goal":
        table = human_normalised_scores(config.references)
        return {task: table[table_name(task)] for task in config.tasks}
    found = {}
    for task in config.tasks:
        env = make_world(task, config.episodes, 0)
        chance = evaluate(
            RandomPolicy(env),
            env,
            config.episodes,
            generator=torch.Generator().manual_seed(0),
        )
        found[task] = (float(chance.returns.mean()), 1.0)
        env.close()
    return found


def table_name(task: str) -> str:
    """A game's name in the tables: "ALE/MsPacman-v5" is ms_pacman."""
    name = task.removeprefix("ALE/").removesuffix("-v5").removeprefix("dmlab:")
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).removeprefix("_")


def suite_world(index: int, tasks: Sequence[str], copies: int, seed: int) -> TensorEnv:
    """An actor's world: all tasks of the rooms in one batch, or else the actor's own task of them."""
    if all(task.startswith("suite-") for task in tasks):
        numbers = [int(task.removeprefix("suite-")) for task in tasks]
        generator = torch.Generator().manual_seed(seed + 7919 * index)
        return RoomsSuite(copies, numbers, generator=generator)
    return actor_world(index, tuple(tasks), copies, seed)


def train(run: Trial, config: TransferConfig, tasks: Sequence[str], seed: int) -> dict[str, float]:
    """One agent on these tasks; the mean return of each at the end. Logs the tasks' mean return on the way."""
    shape = make_world(tasks[0], 1, seed)
    total = config.frames * len(tasks)
    learner = make_learner(shape, config.agent, "vtrace", config.rate, seed, total)
    shape.close()
    batched = all(task.startswith("suite-") for task in tasks)
    actors = config.actors * (1 if batched else len(tasks))
    per_unroll = config.copies * config.unroll * (len(tasks) if batched else 1)
    updates = max(1, total // (per_unroll * actors))
    with ActorLearner(
        partial(suite_world, tasks=tuple(tasks), copies=config.copies, seed=seed),
        partial(make_policy, tasks[0], config.agent),
        learner,
        actors,
        config.unroll,
        backend=config.backend,
        batch_unrolls=actors,
        lag=config.lag if config.backend == "inline" else 0,
        seed=seed % 1_000_003,
    ) as system:
        paid = ended = 0.0
        every = max(1, updates // config.points)
        for turn, _ in zip(system.run(updates), run.steps(updates), strict=False):
            paid += float(turn.rollout.reward.sum())
            ended += float(turn.rollout.ended.sum())
            if turn.update % every == 0 and len(tasks) > 1:
                frames = turn.update * per_unroll * actors // len(tasks)
                run.log(frames, episode_return=paid / max(ended, 1.0))
                paid = ended = 0.0
    scores = {}
    for task in tasks:
        env = make_world(task, min(config.episodes, 128), seed + 1)
        played = evaluate(
            learner.model, env, config.episodes, generator=torch.Generator().manual_seed(seed + 2)
        )
        scores[task] = float(played.returns.mean())
        env.close()
    return scores


def transfer(run: Trial, arm: str, config: TransferConfig) -> dict[str, float]:
    """`transfer/multi`: one agent on all tasks. `transfer/experts`: one after the other an agent for each."""
    seed = run.generator("transfer", device="cpu").initial_seed() % 2**31
    if arm.endswith("multi"):
        scores = train(run, config, config.tasks, seed)
    else:
        scores = {}
        for k, task in enumerate(config.tasks):
            scores |= train(run, config, (task,), seed + 100 * (k + 1))
    known = references(config)
    normalised = {task: human_normalised(score, *known[task]) for task, score in scores.items()}
    ordered = sorted(normalised.values())
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return {
        "mean_capped": mean_capped_normalised(scores, known, config.cap),
        "median": middle,
        **{f"score_{task}": value for task, value in normalised.items()},
    }
