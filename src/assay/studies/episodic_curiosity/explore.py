"""Trials: policies in nine rooms, paid by six kinds of curiosity; and the reachability network by itself."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from assay.envs import EpisodeStats, TensorEnv
from assay.lab import Trial
from assay.rl.intrinsic import ICM, ActionCode, IntrinsicMixer, IntrinsicReward
from assay.rl.intrinsic.episodic import (
    EpisodicCuriosity,
    GridOracle,
    OnlineEpisodicCuriosity,
    OnlineRTrainer,
    RNetwork,
)
from assay.rl.nets import CategoricalHead, MLPTorso, ValueHead
from assay.rl.normalize import ReturnNormalizer
from assay.rl.policies import ActorCritic
from assay.rl.ppo import PPO
from assay.rl.rollout import Rollout, collect, random_rollout, start
from assay.rl.train import train
from assay.studies.episodic_curiosity import real, study
from assay.studies.episodic_curiosity.config import LAPTOP, Config, LearnConfig, Small
from assay.studies.episodic_curiosity.real import RealConfig
from assay.studies.episodic_curiosity.worlds import BEST, held_out, make, reachability


def world_of(arm: str) -> str:
    """The world of `none/ec`, `tv-noise/icm`, `walls/ec-plain`."""
    family, _, name = arm.partition("/")
    if family == "ablate":
        return "none"
    if family.startswith("tv-"):
        return "tv:" + family.removeprefix("tv-")
    if family == "walls":
        return "walls:" + name.partition("-")[2]
    return family


def ablated(arm: str, config: Small) -> tuple[Small, dict[str, object]]:
    """One thing changed: `ablate/k-4`, `ablate/memory-10`, `ablate/fits-300`, `ablate/max`."""
    what, _, value = arm.partition("/")[2].partition("-")
    if what == "memory":
        return replace(config, learn=replace(config.learn, memory=int(value))), {}
    if what in ("k", "fits"):
        return replace(config, reach=replace(config.reach, **{what: int(value)})), {}
    return config, {"how": what}


def policy(env: TensorEnv, config: LearnConfig, streams: int, generator: torch.Generator) -> ActorCritic:
    """Two perceptrons, on flattened pictures where the world shows such."""
    flat, ndim = math.prod(env.obs_shape), len(env.obs_shape)
    torsos = [MLPTorso((flat, *config.hidden), "tanh", ndim, generator) for _ in range(2)]
    width = config.hidden[-1]
    assert env.num_actions is not None
    return ActorCritic(
        torsos[0],
        CategoricalHead(width, env.num_actions, generator=generator),
        ValueHead(width, streams, generator=generator),
        value_torso=torsos[1],
    )


def bonus(
    run: Trial, kind: str, world: str, env: TensorEnv, config: Small, options: dict[str, object]
) -> IntrinsicReward | None:
    """What a policy is paid besides the world's reward; `options` are of episodic curiosity."""
    learn, reach = config.learn, config.reach
    networks = run.generator("bonus", device="cpu")
    memory = {
        "num_envs": learn.copies,
        "capacity": learn.memory,
        "beta": learn.beta,
        "generator": run.generator("memory"),
    }
    if kind == "ec":
        net, accuracy = reachability(world, config.world, reach, str(run.device))
        run.log(0, accuracy=accuracy)
        return EpisodicCuriosity(net, **memory, **options)
    if kind == "eco":
        flat = env.observe()[0].numel()  # type: ignore[union-attr, index]
        net = RNetwork.mlp(flat, reach.features, reach.hidden, networks).to(run.device)
        trainer = OnlineRTrainer(
            net,
            learn.history,
            learn.interval,
            learn.lesson,
            reach.k,
            reach.gap,
            batch=reach.batch,
            generator=run.generator("pairs"),
        )
        return OnlineEpisodicCuriosity(trainer, **memory)
    if kind == "icm":
        ndim = len(env.obs_shape)
        flat = math.prod(env.obs_shape)  # a perceptron for pictures too, like the reachability network
        module = ICM(
            (flat,),
            ActionCode.of(env),
            learn.icm_size,
            reach.hidden,
            networks,
            preprocess=lambda obs: obs.flatten(-ndim),
        )
        # In a world of its own, so that the one to be learnt begins alike in all arms.
        warm = make(world, config.world, learn.copies, run.generator("warm-up"))
        module.init_stats(warm, learn.steps, run.generator("warm-up-actions"))
        return module.to(run.device)
    if kind == "oracle":
        return GridOracle(learn.copies, "state", cells=1024)
    return None


class Tally:
    """Whole episodes from rollouts: rooms and returns; and what a world's own metric is.

    `tv_pay` is by how much more the bonus pays a step of television than any other step, in units of the bonus's
    normaliser.
    """

    def __init__(self, updates: int):
        self.keep_from = updates - max(1, updates // 5)
        self.rooms_best = 0.0
        self.last: list[tuple[float, float, float]] = []
        self.tv: list[float] = []
        self.tv_pay: list[float] = []
        self.ahead: list[float] = []

    def take(self, index: int, rollout: Rollout) -> tuple[float, float] | None:
        """Count a rollout; returns mean rooms and mean return of the episodes that ended in it, None if none did."""
        ended, rooms = rollout.ended, rollout.info["rooms_visited"].float()
        self.rooms_best = max(self.rooms_best, float(rooms.max()))
        episodes = float(ended.sum())
        reached, earned = float(rooms[ended].sum()), float(rollout.info["episode_return"][ended].sum())
        if index >= self.keep_from:
            self.last.append((reached, earned, episodes))
        if "tv" in rollout.info:
            on = rollout.info["tv"].bool()
            self.tv.append(float(on.float().mean()))
            if rollout.reward.shape[-1] > 1 and on.any() and not on.all():
                paid = rollout.reward[..., 1]
                self.tv_pay.append(float(paid[on].mean() - paid[~on].mean()))
        if "wall_ahead" in rollout.info:
            self.ahead.append(float(rollout.info["wall_ahead"].float().mean()))
        return (reached / episodes, earned / episodes) if episodes else None

    def metrics(self, world: str, actions: int) -> dict[str, float]:
        """Of the last fifth of training; the share of television and the walls over all of it."""
        reached, earned, episodes = (sum(column) for column in zip(*self.last, strict=True))
        found = {
            "rooms": self.rooms_best,
            "rooms_mean": reached / max(episodes, 1.0),
            "return": earned / max(episodes, 1.0),
        }
        found["score"] = found["return"] / BEST.get(world, 1.0)
        if self.tv:
            found["tv_share"] = sum(self.tv) / len(self.tv)
            if self.tv_pay:
                found["tv_pay"] = sum(self.tv_pay) / len(self.tv_pay)
            found["tv_above_uniform"] = found["tv_share"] - 1 / actions
        if self.ahead:
            found["wall_share"] = sum(self.ahead) / len(self.ahead)
        return found


def keys(world: str, arm: str) -> tuple[str, ...]:
    """What to keep of the world's info."""
    more = {"tv:noise": (), "walls:plain": ("wall_ahead",), "walls:textured": ("wall_ahead",)}
    extra = more.get(world, ("tv",) if world.startswith("tv:") else ())
    return ("rooms_visited", "episode_return", *extra, *(("state",) if arm == "oracle" else ()))


@study.trial(*(pattern for pattern in LAPTOP if pattern != "rnet/*"), "ablate/*", config="rooms")
def explore(run: Trial, arm: str, config: Small) -> dict[str, float]:
    """One policy in one world."""
    kind, options = arm.partition("/")[2].partition("-")[0], {}
    if arm.startswith("ablate/"):
        kind, (config, options) = "ec", ablated(arm, config)
    learn, world = config.learn, world_of(arm)
    env = EpisodeStats(make(world, config.world, learn.copies, run.generator("world")))
    env.reset()
    info, actions = keys(world, kind), run.generator("actions")
    tally = Tally(learn.updates)
    assert env.num_actions is not None
    if kind == "random":
        for index in run.steps(learn.updates):
            tally.take(index, random_rollout(env, max(learn.steps, config.world.horizon), actions, info))
        return tally.metrics(world, env.num_actions)
    module = bonus(run, kind, world, env, config, options)
    mixer = None
    if module is not None:
        mixer = IntrinsicMixer([module], normalizers=[ReturnNormalizer(learn.gamma, learn.copies)])
    streams = 1 if mixer is None else 2
    model = policy(env, learn, streams, run.generator("networks", device="cpu")).to(run.device)
    trained = [*model.parameters(), *(mixer.parameters() if mixer else ())]
    ppo = PPO(
        model,
        torch.optim.Adam(trained, learn.rate, eps=1e-5),
        gamma=learn.gamma,
        lam=learn.lam,
        ent_coef=learn.entropy,
        epochs=learn.epochs,
        minibatches=learn.minibatches,
        stream_weights=[learn.extrinsic_weight, learn.intrinsic_weight][:streams],
        aux_losses=[mixer.loss] if mixer else (),
    )
    turns = train(env, model, ppo, learn.updates, learn.steps, mixer, actions, info)
    for _, update in zip(run.steps(learn.updates), turns, strict=False):
        episodes = tally.take(update.index, update.rollout)
        if episodes is not None:
            run.log(update.env_steps, rooms=episodes[0], score=episodes[1] / BEST.get(world, 1.0))
    if arm in ("none/ec", "none/icm"):
        run.save("episode", one_episode(run, model, module, config))
    return tally.metrics(world, env.num_actions)


@torch.no_grad()
def one_episode(
    run: Trial, model: ActorCritic, module: IntrinsicReward | None, config: Small
) -> dict[str, Tensor]:
    """Path and bonus of one episode, and where the memory's entries were made."""
    env = make("none", config.world, config.learn.copies, run.generator("episode"))
    rollout = Rollout(config.world.horizon - 1, config.learn.copies, model.streams, ("state",))
    collect(env, model, rollout, start(env, model), run.generator("episode-actions"))
    assert module is not None
    module.reset_where(torch.ones(config.learn.copies, dtype=torch.bool, device=run.device))
    paid = module.reward(rollout)
    return {"place": rollout.info["state"][:, 0, :2], "bonus": paid[:, 0]}


@study.trial("rnet/unseen", config="rooms")
def network(run: Trial, arm: str, config: Small) -> dict[str, float]:
    """Does the network tell near from far in layouts that it never saw?"""
    accuracy, correlation, steps, means = held_out(
        config.world, config.reach, run.generator("walks"), *((8, 4) if config.world.rooms > 2 else (2, 2))
    )
    for d, mean in zip(steps, means, strict=True):
        run.log(int(d), similarity=mean)
    return {"accuracy": accuracy, "rank_correlation": correlation}


@study.trial("real/*", config="real")
def in_a_real_world(run: Trial, arm: str, config: RealConfig) -> dict[str, float]:
    """Paper profile."""
    return real.explore(run, arm.partition("/")[2], config)


@study.check
def simulator_is_there(config: Config) -> None:
    """The simulator of the paper profile is installed."""
    if config.real.enabled:
        real.check(config.real)
