"""Worlds of rooms: how far does an agent get that is paid for novelty?"""

import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from assay.envs import NoisyTV, RoomsGrid, TensorEnv, grid_distance
from assay.lab import Trial
from assay.rl.intrinsic import RND
from assay.rl.rollout import Rollout
from assay.studies.random_network_distillation import study
from assay.studies.random_network_distillation.agents import explore
from assay.studies.random_network_distillation.config import RoomsConfig


class Tally:
    """Rooms and cells that any copy has met, and visits a quarter of the training."""

    def __init__(self, world: RoomsGrid, updates: int) -> None:
        self.side, self.updates = world.height, updates
        self.rooms = torch.zeros(world.rooms**2, dtype=torch.bool)
        self.rooms[0] = True
        self.visits = torch.zeros(4, self.side * self.side, dtype=torch.int64)
        self.pressed, self.transitions = 0, 0
        self.goals, self.late, self.episodes = 0.0, 0.0, 0

    def add(self, index: int, rollout: Rollout) -> None:
        """Count a rollout."""
        self.rooms[rollout.info["room"].unique().cpu()] = True
        place = rollout.info["state"][..., :2].cpu()
        cell = (place[..., 0] * self.side + place[..., 1]).flatten()
        quarter = min(4 * index // self.updates, 3)
        self.visits[quarter] += torch.bincount(cell, minlength=self.side**2)
        self.transitions += rollout.transitions
        if "tv" in rollout.info:
            self.pressed += int(rollout.info["tv"].sum())
        self.goals += float(rollout.info["success"].sum())
        if quarter == 3:
            self.late += float(rollout.info["success"].sum())
            self.episodes += int(rollout.ended.sum())

    def metrics(self) -> dict[str, float]:
        return {
            "rooms": float(self.rooms.sum()),
            "cells": float((self.visits.sum(0) > 0).sum()),
            "tv_share": self.pressed / self.transitions,
            "goals": self.goals,
            "late_success": self.late / max(self.episodes, 1),
        }


def make_world(run: Trial, config: RoomsConfig, **options) -> RoomsGrid:
    return RoomsGrid(
        config.agent.copies,
        config.rooms,
        max_steps=config.limit,
        traps=config.traps,
        generator=run.generator("world"),
        device=run.device,
        validate=False,
        **options,
    )


def run_rooms(
    run: Trial, kind: str, config: RoomsConfig, world: RoomsGrid, env: TensorEnv | None = None, **options
) -> dict[str, float]:
    """Explore a world and report what was found."""
    env = env or world
    tally = Tally(world, config.updates)
    info = ("room", "state", "success", *(("tv",) if isinstance(env, NoisyTV) else ()))
    keep = run.seed % 100 == 0
    path, shown = shortest_path(world), []
    moments = {0, config.updates // 8, config.updates // 3, config.updates - 1}
    halfway, bonus = 1.0, None
    for update, _, bonus in explore(
        run, env, kind, config.agent, config.updates, side=world.height, info=info, **options
    ):
        tally.add(update.index, update.rollout)
        found = float(tally.rooms.sum())
        if update.index <= config.updates // 2:
            halfway = found
        run.log(update.env_steps, rooms=found)
        if "intrinsic_0" in update.metrics:
            run.log(update.env_steps, bonus=update.metrics["intrinsic_0"])
        if "tv" in update.rollout.info:
            run.log(update.env_steps, tv=update.rollout.info["tv"].float().mean())
        if (
            keep
            and env is world
            and isinstance(bonus, RND)
            and update.index in moments
            and world.view == "onehot"
        ):
            shown.append(bonus.bonus(coordinates(world, path).to(run.device)).cpu())
    if keep:
        run.save("visits", tally.visits.view(4, tally.side, tally.side).int())
        if shown:
            rooms = world.layouts[0].room.cpu().flatten()[path]
            steps = torch.tensor(sorted(moments))[: len(shown)]
            run.save("bonus", {"bonus": torch.stack(shown), "room": rooms, "update": steps})
    metrics = {**tally.metrics(), "rooms_halfway": halfway}
    if env is world and isinstance(bonus, RND) and world.view == "onehot":
        # Does the bonus rank places as true counts would? (1 / sqrt(n) and -n have the same ranks.)
        free = (~world.layouts[0].walls).flatten().nonzero().flatten().cpu()
        found = bonus.bonus(coordinates(world, free).to(run.device)).cpu()
        visits = tally.visits.sum(0)[free]
        metrics["count_rank"] = float(stats.spearmanr(found, -visits).statistic)
    return metrics


def shortest_path(world: RoomsGrid) -> Tensor:
    """Cells (row * width + column) from the start corner through all rooms to the middle of the last one."""
    layout = world.layouts[0]
    last = layout.room == layout.room.max()
    free = last & ~layout.walls
    rows, columns = free.nonzero().float().mean(0).round().long().tolist()
    goal = torch.zeros_like(layout.walls)
    goal[rows, columns] = True
    far = grid_distance(layout.walls | layout.trap, goal).flatten()
    at, width = world.width + 1, world.width
    path = [at]
    while far[at] > 0:
        at = next(n for n in (at - width, at - 1, at + 1, at + width) if far[n] == far[at] - 1)
        path.append(at)
    return torch.tensor(path)


def coordinates(world: RoomsGrid, cells: Tensor) -> Tensor:
    """The one-hot observations [B, height + width] of cells without doors or items."""
    rows = F.one_hot(cells // world.width, world.height)
    return torch.cat((rows, F.one_hot(cells % world.width, world.width)), 1).float()


@study.trial("rooms/*", config="rooms")
def rooms(run: Trial, arm: str, config: RoomsConfig) -> dict[str, float]:
    """Sixteen rooms, a reward in the last."""
    return run_rooms(run, arm.partition("/")[2], config, make_world(run, config))


@study.trial("long/*", config="long")
def long(run: Trial, arm: str, config: RoomsConfig) -> dict[str, float]:
    """The same for a million steps: is the reward found, and kept?"""
    return run_rooms(run, arm.partition("/")[2], config, make_world(run, config))


@study.trial("pictures/*", config="pictures")
def pictures(run: Trial, arm: str, config: RoomsConfig) -> dict[str, float]:
    """Nine rooms seen as pictures."""
    return run_rooms(run, arm.partition("/")[2], config, make_world(run, config, view="image"))


@study.trial("tv/*", config="tv")
def television(run: Trial, arm: str, config: RoomsConfig) -> dict[str, float]:
    """Nine rooms, with a television and its button ("rnd-on") or without ("rnd-off")."""
    kind, _, power = arm.partition("/")[2].partition("-")
    world = make_world(run, config)
    env = None
    if power == "on":
        env = NoisyTV(world, "noise_action", bits=config.bits, generator=run.generator("screen"))
    return run_rooms(run, kind, config, world, env)


@study.trial("traps/*", config="traps")
def traps(run: Trial, arm: str, config: RoomsConfig) -> dict[str, float]:
    """Rooms with deadly cells: do returns of the bonus go on after death?"""
    name = arm.partition("/")[2]
    if name in ("two-heads", "one-head"):
        world = make_world(run, config, reward="sparse")
        one = name == "one-head"
        return run_rooms(run, "rnd", config, world, one_head=one, episodic=one)
    world = make_world(run, config, reward="none")
    return run_rooms(run, "rnd", config, world, extrinsic=False, episodic=name == "episodic")
