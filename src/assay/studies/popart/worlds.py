"""The worlds that the profiles name, as one agent's tasks: small ones on a laptop, simulators in the paper's."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from assay.envs import DensityGrid, real
from assay.envs.suite import MultiTask, TaskSuite
from assay.rl.scores import atari_id, human_normalised_scores

QUICK_ATARI = ("pong", "breakout", "ms_pacman", "qbert", "boxing", "bowling", "video_pinball", "freeway")
"""Eight games whose scores span four orders of magnitude."""

MINIGRID = (
    "MiniGrid-Empty-8x8-v0",
    "MiniGrid-Empty-Random-6x6-v0",
    "MiniGrid-FourRooms-v0",
    "MiniGrid-DoorKey-5x5-v0",
    "MiniGrid-DoorKey-8x8-v0",
    "MiniGrid-MultiRoom-N2-S4-v0",
    "MiniGrid-MultiRoom-N4-S5-v0",
    "MiniGrid-Unlock-v0",
    "MiniGrid-UnlockPickup-v0",
    "MiniGrid-SimpleCrossingS9N1-v0",
    "MiniGrid-LavaGapS5-v0",
    "MiniGrid-Dynamic-Obstacles-5x5-v0",
)
"""Twelve levels with one view and one set of actions: what pip installs in place of DMLab-30."""

WORLDS: dict[str, tuple[str, ...]] = {
    "suite": ("catch", "goal", "snack", "jackpot"),
    "density": ("dense", "sparse"),
    "atari": QUICK_ATARI,
    "minigrid": MINIGRID,
}
"""World -> its tasks where a config names none."""


def make_world(
    world: str,
    tasks: Sequence[str],
    copies: int,
    scales: Sequence[float],
    generator: torch.Generator,
    only: int | None = None,
    jackpot: float = 100.0,
) -> MultiTask:
    """The tasks of one agent in one batch; with `only` that task alone, which keeps its number.

    Args:
        world: one of `WORLDS`.
        tasks: names in that world: of `TaskSuite`; "dense" and "sparse"; Atari games as in `assay.rl.scores`; ids.
        copies: of each task.
        scales: rewards are multiplied by this, task by task.
        generator: of everything random in it.
        only: position of the one task wanted.
        jackpot: of the suite's corridor.

    Raises:
        MissingExtra: the simulator's package is not installed.
        ValueError: no such world, or not as many scales as tasks.
    """
    if len(scales) != len(tasks):
        raise ValueError(f"give a scale for each task: got {len(scales)} for {len(tasks)}")
    labels = range(len(tasks)) if only is None else (only,)
    chosen = [tasks[k] for k in labels]
    options: dict[str, Any] = {
        "reward_scales": [scales[k] for k in labels],
        "labels": tuple(labels),
        "generator": generator,
    }
    if world == "suite":
        return TaskSuite(copies, chosen, jackpot=jackpot, validate=False, **options)
    if world == "density":
        makers = [partial(DensityGrid, dense=task == "dense", size=4) for task in chosen]
        return MultiTask(makers, copies, validate=False, **options)
    if world == "atari":
        # Every action in every game: the policy is shared. Native copies step in ale-py's own threads.
        game = partial(real.atari, full_action_space=True, mode="native", sticky=0.0, noop_max=30)
        return MultiTask([partial(game, atari_id(task)) for task in chosen], copies, **options)
    if world == "minigrid":
        return MultiTask([partial(real.minigrid, task) for task in chosen], copies, **options)
    raise ValueError(f"no world {world!r}: choose from {', '.join(WORLDS)}")


def references(world: str, tasks: Sequence[str], env: MultiTask) -> dict[str, tuple[float, float]]:
    """Return of failure (or of a random player) and of success (or of a human) of each task, before scaling."""
    if world == "atari":
        known = human_normalised_scores("atari57")
        return {task: known[task] for task in tasks}
    if isinstance(env, TaskSuite):
        bounds = zip(env.lowest.tolist(), env.highest.tolist(), strict=True)
        return dict(zip(tasks, bounds, strict=True))
    return dict.fromkeys(tasks, (0.0, 1.0))
