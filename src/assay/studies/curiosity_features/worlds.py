"""The worlds of the study: four games with something new behind each corner, two tasks without."""

from typing import Any

import torch
from torch import Tensor

from assay.envs import (
    EpisodeStats,
    MiniBreakout,
    MountainCar,
    NoDone,
    NoisyTV,
    PointMaze,
    RoomsGrid,
    SelfPlay,
    SideScroller,
    TensorEnv,
    TwoPlayerPong,
    Wrapper,
)
from assay.envs.base import Obs, Step
from assay.rl.intrinsic.diagnostics import ProbeBatch
from assay.rl.rollout import random_rollout
from assay.studies.curiosity_features.config import GameConfig

SCORES = {
    "scroller": "furthest",
    "rooms": "rooms_visited",
    "breakout": "episode_return",
    "pong": "rally",
    "maze": "episode_success",
    "car": "peak",
}
"""Game -> the entry of `info` that is its score where an episode ends."""
EXTRA = {"scroller": ("column", "death"), "rooms": ("room",)}
"""What else is kept of `info`."""


class Flat(Wrapper):
    """Pictures as vectors."""

    def __init__(self, env: TensorEnv):
        super().__init__(env)
        self._shape = env.obs_shape
        self.obs_shape = (torch.Size(env.obs_shape).numel(),)

    def _see(self, obs: Obs) -> Obs:
        return obs.flatten(1)  # type: ignore[union-attr]

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        import numpy as np

        return spaces.Box(0.0, 1.0, self.obs_shape, np.float32), self.env.single_action_space


class Hill(Wrapper):
    """The mountain car with both numbers on one scale, -1 to 1, and `info["peak"]`: the height reached so far."""

    state_names = ("peak",)

    def __init__(self, num_envs: int, **options: Any):
        super().__init__(MountainCar(num_envs, action_repeat=4, **options))
        self.peak = torch.zeros(num_envs, device=self.device)

    def _begin(self, mask: Tensor, obs: Obs) -> None:
        self.peak = self.peak.masked_fill(mask, 0.0)

    def _advance(self, step: Step) -> Step:
        self.peak = torch.maximum(self.peak, step.info["height"])
        return step._replace(info={**step.info, "peak": self.peak})

    def _see(self, obs: Obs) -> Obs:
        assert isinstance(obs, Tensor)
        return (obs - obs.new_tensor([-0.3, 0.0])) / obs.new_tensor([0.9, 0.07])


def make_world(
    game: str,
    config: GameConfig,
    generator: torch.Generator,
    *,
    done: bool = False,
    levels: tuple[int, ...] | None = None,
    texture: str = "random",
    image: bool = False,
    novel_start: bool = False,
    television: str | None = None,
) -> TensorEnv:
    """A world whose ends are hidden from the learner (unless `done`), with scores in `info`.

    Args:
        game: of `SCORES`.
        config: sizes.
        generator: of the world.
        done: the learner is told when episodes end.
        levels: of the side-scroller; None: the config's.
        texture: of its levels.
        image: the side-scroller as a picture.
        novel_start: its first columns look different in each episode.
        television: "button" (an action draws new random bits), "image" (it draws one of some pictures) or "noise"
            (bits that change by themselves).
    """
    n = config.agent.copies
    options: dict[str, Any] = {
        "max_steps": config.limit, "generator": generator, "device": generator.device, "validate": False,
    }  # fmt: skip
    env: TensorEnv
    if game == "scroller":
        env = SideScroller(
            n,
            levels=levels or (config.level,),
            width=config.width,
            texture=texture,
            view="image" if image else "flat",
            scrambled_columns=12 if novel_start else 0,
            **options,
        )
    elif game == "rooms":
        env = RoomsGrid(n, config.rooms, reward="none", **options)
        if television is not None:
            kind = {"button": "noise_action", "image": "image_action", "noise": "noise"}[television]
            env = NoisyTV(env, kind, bits=config.bits, pictures=config.pictures)  # type: ignore[arg-type]
    elif game == "breakout":
        env = Flat(MiniBreakout(n, **options))
    elif game == "pong":
        # One policy plays both sides.
        env = Flat(SelfPlay(TwoPlayerPong(max(n // 2, 1), **options)))
    elif game == "maze":
        env = PointMaze(n, layout="four-rooms", step=0.15, **options)
    elif game == "car":
        env = Hill(n, **options)
    else:
        raise ValueError(f"unknown game {game!r}: choose from {', '.join(SCORES)}")
    env = EpisodeStats(env)
    return env if done else NoDone(env)


def probe_batch(env: TensorEnv, generator: torch.Generator, steps: int = 60) -> ProbeBatch:
    """Random transitions with the true state, on which feature spaces are compared; resets `env`."""
    rollout = random_rollout(env, steps, generator, info=("state", "episode_end"))
    state, ended = rollout.info["state"], rollout.info["episode_end"]
    # `state` is that of the successor: the observation before shows it only within an episode.
    known = torch.cat((torch.zeros_like(ended[:1]), ~ended[:-1]))
    rollout.valid = rollout.valid & known & ~ended
    return ProbeBatch.of(rollout, torch.cat((state[:1], state[:-1])).float(), 1_024, generator)
