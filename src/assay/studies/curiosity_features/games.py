"""Trials: agents without reward in games, in tasks that are no games, before a television, and after death."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from assay.envs import TensorEnv
from assay.lab import Trial
from assay.rl.intrinsic import ForwardDynamics, InverseDynamicsFeatures
from assay.rl.intrinsic.diagnostics import FeatureDiagnostics
from assay.rl.rollout import Rollout
from assay.rl.train import Update
from assay.studies.curiosity_features import real, study
from assay.studies.curiosity_features.agents import Constant, Learner, make_curiosity, wander
from assay.studies.curiosity_features.config import GameConfig, LeakConfig, TransferConfig, variant
from assay.studies.curiosity_features.real import RealConfig
from assay.studies.curiosity_features.worlds import EXTRA, SCORES, make_world, probe_batch

PARTS = 10
"""The best and the worst stretch of a run are tenths of it."""


class Tally:
    """Scores of the episodes that ended, over a run.

    Args:
        game: whose score.
        updates: in the run.
        width: columns of the side-scroller, for the histogram of visits.
    """

    def __init__(self, game: str, updates: int, width: int = 0) -> None:
        self.game, self.updates = game, updates
        self.sums = torch.zeros(updates, 3, dtype=torch.float64)
        """[updates, 3]: episodes that ended, their scores, their lengths."""
        self.rooms: set[int] = {0}
        self.pressed = self.deaths = self.transitions = 0.0
        self.visits = torch.zeros(6, width, dtype=torch.int64)

    def keys(self, env_info: Iterable[str] = ()) -> tuple[str, ...]:
        """What must be kept of `info`."""
        own = ("episode_end", "episode_length", SCORES[self.game], *EXTRA.get(self.game, ()))
        return tuple(dict.fromkeys((*own, *env_info)))

    def add(self, update: Update) -> float:
        """Count a rollout; returns the mean score of the episodes that ended in it (NaN if none did)."""
        rollout = update.rollout
        info, ended = rollout.info, rollout.info["episode_end"]
        score, length = info[SCORES[self.game]][ended], info["episode_length"][ended]
        row = torch.stack((ended.sum().double(), score.double().sum(), length.double().sum()))
        self.sums[update.index] = row.cpu()
        self.transitions += rollout.transitions
        if "room" in info:
            self.rooms |= set(info["room"].unique().tolist())
        if "tv" in info:
            self.pressed += float(info["tv"].sum())
        if "column" in info:
            self.deaths += float(info["death"].sum())
            part = min(6 * update.index // self.updates, 5)
            found = torch.bincount(info["column"].flatten(), minlength=self.visits.shape[1])
            self.visits[part] += found.cpu()
        return float(row[1] / row[0])

    def mean(self, column: int, first: int = 0, last: int | None = None) -> float:
        """Mean score (1) or length (2) of the episodes that ended in updates first..last; NaN without any."""
        part = self.sums[first:last].sum(0)
        return float(part[column] / part[0])

    def metrics(self) -> dict[str, float]:
        """Over the whole run, over its last third, and the best tenth."""
        late = 2 * self.updates // 3
        edges = [k * self.updates // PARTS for k in range(PARTS + 1)]
        tenths = [self.mean(1, a, b) for a, b in pairwise(edges) if b > a]
        known = [x for x in tenths if x == x]
        found = {
            "score": self.mean(1),
            "late_score": self.mean(1, late),
            "peak_score": max(known) if known else float("nan"),
            "length": self.mean(2),
            "late_length": self.mean(2, late),
            "episodes": float(self.sums[:, 0].sum()),
        }
        if self.game == "rooms":
            found["rooms"] = float(len(self.rooms))
            found["tv_share"] = self.pressed / max(self.transitions, 1.0)
        if self.game == "scroller":
            found["deaths"] = self.deaths / max(float(self.sums[:, 0].sum()), 1.0)
        return found


class Examination:
    """Feature diagnostics at some moments of a run, and what they come to."""

    def __init__(self, run: Trial, env: TensorEnv, curiosity: ForwardDynamics, config: GameConfig) -> None:
        batch = probe_batch(env, run.generator("probe"))
        self.diagnostics = FeatureDiagnostics(curiosity.features, batch)
        self.diagnostics()
        self.every = max(config.updates // config.moments, 1)
        self.found: list[dict[str, float]] = []

    def look(self, run: Trial, update: Update) -> None:
        """Examine, if it is time."""
        if (update.index + 1) % self.every == 0:
            measured = self.diagnostics()
            self.found.append(measured)
            run.log(update.env_steps, **measured)

    def metrics(self) -> dict[str, float]:
        """Means of the drift, last values of the probes."""
        if not self.found:
            return {}
        last, count = self.found[-1], len(self.found)
        drift = {k: sum(f[k] for f in self.found) / count for k in ("drift_cka", "drift_mse")}
        return {**drift, **{k: last[k] for k in ("probe_r2", "inverse_accuracy", "dimension")}}


def told_actions(curiosity: ForwardDynamics, rollout: Rollout) -> float | None:
    """Share of the rollout's first actions that the inverse model tells right, where there is one."""
    space = curiosity.features
    if not isinstance(space, InverseDynamicsFeatures):
        return None
    obs, after = rollout.obs, rollout.next_obs()
    assert isinstance(obs, Tensor)
    assert isinstance(after, Tensor)
    return float(
        space.accuracy(obs[:16].flatten(0, 1), rollout.action[:16].flatten(), after[:16].flatten(0, 1))
    )


def explore(
    run: Trial, game: str, kind: str, config: GameConfig, name: str = "", television: str | None = None
) -> dict[str, float]:
    """One agent in one world; `kind` is "random" or a feature space."""
    config, changes = variant(config, name)
    env = make_world(game, config, run.generator("world"), television=television, **changes)  # type: ignore[arg-type]
    tally = Tally(game, config.updates, config.width if game == "scroller" else 0)
    keys = tally.keys(("tv",) if television in ("button", "image") else ())
    examination = curiosity = None
    if kind == "random":
        loop = wander(env, config.updates, config.agent.steps, run.generator("actions"), keys)
    else:
        # Statistics and probes come from a world of their own, so that the one to be learnt begins alike in all arms.
        spare = make_world(game, config, run.generator("spare"), television=television, **changes)  # type: ignore[arg-type]
        curiosity = make_curiosity(kind, spare, config.agent, run)
        if game == "scroller":
            examination = Examination(run, spare, curiosity, config)
        learner = Learner(run, env, curiosity, config.agent, done=bool(changes.get("done")))
        loop = learner.train(env, config.updates, keys)
    for _, update in zip(run.steps(config.updates), loop, strict=True):
        score = tally.add(update)
        run.log(update.env_steps, score=score)
        if curiosity is not None:
            run.log(update.env_steps, bonus=update.metrics["intrinsic_0"], entropy=update.metrics["entropy"])
            if examination is not None:
                examination.look(run, update)
                told = told_actions(curiosity, update.rollout) if update.index % 5 == 0 else None
                if told is not None:
                    run.log(update.env_steps, told=told)
        if game == "rooms":
            run.log(update.env_steps, rooms=float(len(tally.rooms)))
            if "tv" in update.rollout.info:
                run.log(update.env_steps, tv=update.rollout.info["tv"].float().mean())
    if game == "scroller" and run.seed % 100 == 0:
        run.save("visits", tally.visits.int())
    return {**tally.metrics(), **(examination.metrics() if examination else {})}


@study.trial("scroller/*", config="scroller")
def scroller(run: Trial, arm: str, config: GameConfig) -> dict[str, float]:
    """The platform game, and its variants."""
    kind, _, name = arm.partition("/")[2].partition("-")
    return explore(run, "scroller", kind, config, name)


@study.trial("rooms/*", config="rooms")
def rooms(run: Trial, arm: str, config: GameConfig) -> dict[str, float]:
    """Nine rooms."""
    return explore(run, "rooms", arm.partition("/")[2], config)


@study.trial("tv/*", config="tv")
def television(run: Trial, arm: str, config: GameConfig) -> dict[str, float]:
    """The same for longer, with a television ("rf-button") or without ("rf-off")."""
    kind, _, screen = arm.partition("/")[2].partition("-")
    return explore(run, "rooms", kind, config, television=None if screen == "off" else screen)


@study.trial("breakout/*", config="breakout")
def breakout(run: Trial, arm: str, config: GameConfig) -> dict[str, float]:
    """Bricks."""
    return explore(run, "breakout", arm.partition("/")[2], config)


@study.trial("pong/*", config="pong")
def pong(run: Trial, arm: str, config: GameConfig) -> dict[str, float]:
    """Both players are the same curious agent: how long are rallies?"""
    return explore(run, "pong", arm.partition("/")[2], config)


@study.trial("maze/*", config="maze")
def maze(run: Trial, arm: str, config: GameConfig) -> dict[str, float]:
    """Control: a goal three rooms away, in a plane without anything to see."""
    return explore(run, "maze", arm.partition("/")[2], config)


@study.trial("car/*", config="car")
def car(run: Trial, arm: str, config: GameConfig) -> dict[str, float]:
    """Control: how high does the weak car get?"""
    return explore(run, "car", arm.partition("/")[2], config)


@study.trial("transfer/*", config="transfer")
def transfer(run: Trial, arm: str, config: TransferConfig) -> dict[str, float]:
    """Some levels, then another; and the other from the beginning."""
    kind = arm.partition("/")[2]
    game = config.game

    def world(levels: tuple[int, ...], name: str) -> TensorEnv:
        return make_world("scroller", game, run.generator(name), levels=levels)

    def fresh(levels: tuple[int, ...]) -> Learner:
        curiosity = make_curiosity(kind, world(levels, "spare"), game.agent, run)
        return Learner(run, world(levels, "shapes"), curiosity, game.agent)

    def play(learner: Learner, levels: tuple[int, ...], updates: int, name: str, begun: int = 0) -> Tally:
        tally = Tally("scroller", updates, game.width)
        for update in learner.train(world(levels, name), updates, tally.keys()):
            run.log(begun + update.env_steps, **{name: tally.add(update)})
        return tally

    veteran = fresh(config.first)
    seen = play(veteran, config.first, config.updates, "first")
    steps = config.updates * game.agent.steps * game.agent.copies
    carried = play(veteran, config.then, config.more, "then", steps)
    scratch = play(fresh(config.then), config.then, config.more, "scratch", steps)
    half = config.more // 2
    found = {"first": seen.mean(1), "then": carried.mean(1, half), "scratch": scratch.mean(1, half)}
    return {**found, "gain": found["then"] - found["scratch"]}


@study.trial("leak/*", config="leak")
def leak(run: Trial, arm: str, config: LeakConfig) -> dict[str, float]:
    """The side-scroller with a constant reward: who learns to stay alive?"""
    name = arm.partition("/")[2]
    ends, _, how = name.partition("-")
    done = ends == "done"
    normalised = how == "normalised"
    agent = replace(config.game.agent, reward_norm=normalised, advantage_norm=normalised)
    game = replace(config.game, agent=agent)
    env = make_world("scroller", game, run.generator("world"), done=done)
    tally = Tally("scroller", game.updates, game.width)
    if name == "random":
        for update in wander(env, game.updates, agent.steps, run.generator("actions"), tally.keys()):
            tally.add(update)
        return tally.metrics()
    value = config.reward / (1 - agent.gamma) if how == "bias" else None
    learner = Learner(run, env, Constant(config.reward), agent, done=done, value=value)
    loop = learner.train(env, game.updates, tally.keys())
    for _, update in zip(run.steps(game.updates), loop, strict=True):
        run.log(update.env_steps, score=tally.add(update))
        length = tally.mean(2, update.index, update.index + 1)
        value_now = update.rollout.value[:-1].mean()
        run.log(update.env_steps, length=length, value=value_now)
    return tally.metrics()


@study.trial("real/*", config="real")
def in_a_real_world(run: Trial, arm: str, config: RealConfig) -> dict[str, float]:
    """Paper profile."""
    return real.explore(run, arm.partition("/")[2], config)
