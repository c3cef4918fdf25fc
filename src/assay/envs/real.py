"""The simulators of the papers, with the field's usual preprocessing, as tensor environments.

Each function needs its own extra (`pip install assay[atari]`, `[vizdoom]`, `[minigrid]`, `[mujoco]`) and nothing of
it before it is called. Pictures are uint8 and channel-first. The preprocessing is Gymnasium's own.
"""

import struct
from collections.abc import Callable
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from assay._extras import MissingExtra, require
from assay.envs.adapters import GymnasiumTensorEnv, from_gymnasium

MONTEZUMA_ROOM = 3
"""Byte of the console's memory that holds the room in Montezuma's Revenge."""


def _montezuma_room(env: Any) -> int:
    return int(env.unwrapped.ale.getRAM()[MONTEZUMA_ROOM])


def _make_atari(
    game: str,
    sticky: float,
    frame_skip: int,
    stack: int,
    full_action_space: bool,
    max_frames: int,
    clip: bool,
    noop_max: int,
    life_loss_ends: bool,
    render_mode: str | None,
) -> Any:
    gymnasium = require("gymnasium", "atari")
    # Worker processes register the games for themselves.
    gymnasium.register_envs(require("ale_py", "atari"))
    from assay.envs._as_gymnasium import AddInfo

    env = gymnasium.make(
        game,
        frameskip=1,
        repeat_action_probability=sticky,
        full_action_space=full_action_space,
        max_num_frames_per_episode=max_frames,
        render_mode=render_mode,
    )
    env = gymnasium.wrappers.AtariPreprocessing(
        env,
        noop_max=noop_max,
        frame_skip=frame_skip,
        screen_size=84,
        terminal_on_life_loss=life_loss_ends,
        grayscale_obs=True,
    )
    if clip:
        env = gymnasium.wrappers.ClipReward(env, -1.0, 1.0)
    env = gymnasium.wrappers.FrameStackObservation(env, stack)
    return AddInfo(env, "room", _montezuma_room) if "MontezumaRevenge" in game else env


def atari(
    game: str = "ALE/MontezumaRevenge-v5",
    num_envs: int = 1,
    *,
    sticky: float = 0.25,
    frame_skip: int = 4,
    stack: int = 4,
    full_action_space: bool = False,
    max_frames: int = 18_000,
    clip: bool = False,
    noop_max: int = 0,
    life_loss_ends: bool = False,
    mode: Literal["sync", "async", "native"] = "sync",
    render_mode: str | None = None,
    **kwargs: Any,
) -> GymnasiumTensorEnv:
    """Atari games: grey 84 x 84, maximum over the last two of `frame_skip` frames, `stack` of them: [N, stack, 84, 84].

    Montezuma's Revenge also tells `info["room"]` [N]. Rewards are the game's own unless `clip`.

    Source: Machado et al. 2018 (sticky actions instead of random no-ops, all lives one episode).

    Args:
        game: id of ale-py, e.g. "ALE/Breakout-v5".
        num_envs: N.
        sticky: probability, at each emulated frame, that the previous action goes on.
        frame_skip: emulated frames an action.
        stack: pictures shown at once.
        full_action_space: all 18 actions, else those that the game knows.
        max_frames: truncate an episode after so many emulated frames (18,000: 4,500 actions).
        clip: clip rewards to -1..1.
        noop_max: begin with up to so many random no-ops.
        life_loss_ends: losing a life terminates.
        mode: "sync", "async" with a process a copy, or "native": ale-py's own threads, several times faster, but
            without `info["room"]`, pictures to draw, and `autoreset=False`.
        render_mode: "rgb_array" to draw.
        kwargs: for `from_gymnasium` (generator, device, autoreset, ...).

    Raises:
        MissingExtra: without gymnasium, ale-py and OpenCV.
    """
    for module in ("gymnasium", "ale_py", "cv2"):
        require(module, "atari")
    if mode == "native":
        gymnasium = require("gymnasium", "atari")
        gymnasium.register_envs(require("ale_py", "atari"))
        vec = gymnasium.make_vec(
            game,
            num_envs,
            vectorization_mode="vector_entry_point",
            autoreset_mode="SameStep",
            repeat_action_probability=sticky,
            frameskip=frame_skip,
            stack_num=stack,
            full_action_space=full_action_space,
            max_num_frames_per_episode=max_frames,
            reward_clipping=clip,
            noop_max=noop_max,
            episodic_life=life_loss_ends,
            use_fire_reset=False,
        )
        return from_gymnasium(vec, **kwargs)
    make = partial(
        _make_atari,
        game,
        sticky,
        frame_skip,
        stack,
        full_action_space,
        max_frames,
        clip,
        noop_max,
        life_loss_ends,
        render_mode,
    )
    return from_gymnasium(make, num_envs, mode, **kwargs)


# ViZDoom.

SPAWNS = {"dense": (10, 17), "sparse": (10, 1), "very_sparse": (15, 1)}
"""Name -> (first spot, number of spots) of MyWayHome's script; the spots are numbered 10 to 26."""


def _doom_map(wad: bytes, spawn: str) -> bytes:
    """MyWayHome with other spawn spots: two numbers among the compiled script's variables."""
    # The chunk MINI of the lump BEHAVIOR: first index, then start values: the armour's place and number, then the
    # first spot and how many there are.
    at = wad.find(b"MINI")
    old = SPAWNS["dense"]
    if at < 0 or struct.unpack_from("<2i", wad, at + 20) != old:
        raise RuntimeError("the packaged MyWayHome scenario is not the one whose spawn spots are known")
    return wad[: at + 20] + struct.pack("<2i", *SPAWNS[spawn]) + wad[at + 28 :]


def _make_vizdoom(
    id: str, spawn: str, size: int, gray: bool, stack: int, frame_skip: int, render_mode: str | None
) -> Any:
    gymnasium = require("gymnasium", "vizdoom")
    vizdoom = require("vizdoom", "vizdoom")
    require("vizdoom.gymnasium_wrapper", "vizdoom")
    import numpy as np

    class Screen(gymnasium.Wrapper):
        """The picture alone, channel-first, with ends as they should be.

        At a time-out ViZDoom says both terminated and truncated, and at any end it shows a black picture: a time-out
        here is a truncation only, and the last picture stays.
        """

        def __init__(self, env: Any):
            super().__init__(env)
            channels = env.observation_space["screen"].shape[-1]
            self.observation_space = gymnasium.spaces.Box(0, 255, (channels, size, size), np.uint8)
            self.last: Any = None

        def picture(self, obs: Any) -> Any:
            cv2 = require("cv2", "vizdoom")
            small = cv2.resize(obs["screen"], (size, size), interpolation=cv2.INTER_AREA)
            self.last = small[None] if small.ndim == 2 else np.moveaxis(small, -1, 0)
            return self.last.copy()

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            obs, info = self.env.reset(seed=seed, options=options)
            return self.picture(obs), info

        def step(self, action: Any) -> Any:
            obs, reward, terminated, truncated, info = self.env.step(action)
            picture = self.last.copy() if terminated or truncated else self.picture(obs)
            return picture, reward, terminated and not truncated, truncated, info

    formats = vizdoom.ScreenFormat
    options = {
        "frame_skip": frame_skip,
        "render_mode": render_mode,
        "screen_resolution": vizdoom.ScreenResolution.RES_160X120,
        "screen_format": formats.GRAY8 if gray else formats.RGB24,
    }
    if spawn == "dense":
        env = gymnasium.make(id, **options)
    else:
        with (
            TemporaryDirectory() as folder,
            as_file(files("vizdoom") / "scenarios" / "my_way_home.wad") as source,
        ):
            wad = Path(folder) / "my_way_home.wad"
            wad.write_bytes(_doom_map(source.read_bytes(), spawn))
            env = gymnasium.make(id, doom_scenario_path=str(wad), **options)
            env.reset()  # the game reads its map when it starts
    env = gymnasium.wrappers.FrameStackObservation(Screen(env), stack)
    joined = gymnasium.spaces.Box(0, 255, (stack * (1 if gray else 3), size, size), np.uint8)
    return gymnasium.wrappers.TransformObservation(env, lambda obs: obs.reshape(joined.shape), joined)


def vizdoom(
    id: str = "VizdoomMyWayHome-v1",
    num_envs: int = 1,
    *,
    spawn: Literal["dense", "sparse", "very_sparse"] = "dense",
    size: int = 84,
    gray: bool = True,
    stack: int = 4,
    frame_skip: int = 4,
    mode: Literal["sync", "async"] = "sync",
    render_mode: str | None = None,
    **kwargs: Any,
) -> GymnasiumTensorEnv:
    """ViZDoom scenarios: pictures [N, stack * channels, size, size], actions one button (or none) each.

    Time-outs are truncations with the last picture kept (ViZDoom itself also calls them terminations, and shows
    black).

    Args:
        id: an id of the vizdoom package with one button an action (not "MultiBinary").
        num_envs: N.
        spawn: where MyWayHome begins: at any of its 17 spots ("dense"), always in the first room, about 1,400 map
            units of way from the armour ("sparse"), or at the end of the longest side branch, about 1,800
            ("very_sparse").
        size: side of the picture.
        gray: one channel, else three.
        stack: pictures shown at once.
        frame_skip: game tics an action.
        mode: "sync", or "async" with a process a copy.
        render_mode: "rgb_array" to draw.
        kwargs: for `from_gymnasium`.

    Raises:
        MissingExtra: without gymnasium, vizdoom and OpenCV.
        ValueError: spawn spots of a scenario other than MyWayHome.
    """
    require("gymnasium", "vizdoom")
    require("vizdoom", "vizdoom")
    require("cv2", "vizdoom")
    if spawn not in SPAWNS:
        raise ValueError(f"spawn is one of {tuple(SPAWNS)}: got {spawn!r}")
    if spawn != "dense" and "MyWayHome" not in id:
        raise ValueError(f"only MyWayHome has spawn spots to choose: got {id!r}")
    make = partial(_make_vizdoom, id, spawn, size, gray, stack, frame_skip, render_mode)
    return from_gymnasium(make, num_envs, mode, **kwargs)


# MiniGrid and MuJoCo.


def _make_minigrid(id: str, view: str, max_steps: int | None, render_mode: str | None) -> Any:
    gymnasium = require("gymnasium", "minigrid")
    minigrid_wrappers = require("minigrid.wrappers", "minigrid")
    import numpy as np

    options: dict[str, Any] = {} if max_steps is None else {"max_steps": max_steps}
    env = gymnasium.make(id, render_mode=render_mode, **options)
    if view == "full":
        env = minigrid_wrappers.FullyObsWrapper(env)
    elif view == "rgb":
        env = minigrid_wrappers.RGBImgPartialObsWrapper(env)
    env = minigrid_wrappers.ImgObsWrapper(env)
    height, width, channels = env.observation_space.shape
    space = gymnasium.spaces.Box(0, 255, (channels, height, width), np.uint8)
    return gymnasium.wrappers.TransformObservation(env, lambda obs: np.moveaxis(obs, -1, 0).copy(), space)


def minigrid(
    id: str = "MiniGrid-MultiRoom-N6-v0",
    num_envs: int = 1,
    *,
    view: Literal["partial", "full", "rgb"] = "partial",
    max_steps: int | None = None,
    mode: Literal["sync", "async"] = "sync",
    render_mode: str | None = None,
    **kwargs: Any,
) -> GymnasiumTensorEnv:
    """MiniGrid: pictures [N, 3, H, W] uint8.

    Args:
        id: id of the minigrid package.
        num_envs: N.
        view: "partial": object, colour and state of the 7 x 7 cells ahead; "full": the same of the whole grid;
            "rgb": the cells ahead drawn in pixels.
        max_steps: length of an episode, else the package's.
        mode: "sync", or "async" with a process a copy.
        render_mode: "rgb_array" to draw.
        kwargs: for `from_gymnasium`.

    Raises:
        MissingExtra: without gymnasium and minigrid.
    """
    require("gymnasium", "minigrid")
    require("minigrid", "minigrid")
    if view not in ("partial", "full", "rgb"):
        raise ValueError(f"view is partial, full or rgb: got {view!r}")
    return from_gymnasium(partial(_make_minigrid, id, view, max_steps, render_mode), num_envs, mode, **kwargs)


def _make_mujoco(id: str, options: dict[str, Any]) -> Any:
    gymnasium = require("gymnasium", "mujoco")
    require("mujoco", "mujoco")
    env = gymnasium.make(id, **options)
    # Gymnasium's ClipAction would forget the bounds, which squashed policies need.
    bounds = env.action_space
    return gymnasium.wrappers.TransformAction(env, lambda a: a.clip(bounds.low, bounds.high), bounds)


def mujoco(
    id: str = "HalfCheetah-v5",
    num_envs: int = 1,
    *,
    options: dict[str, Any] | None = None,
    mode: Literal["sync", "async"] = "sync",
    **kwargs: Any,
) -> GymnasiumTensorEnv:
    """Gymnasium's MuJoCo robots: float32 observations [N, D], actions [N, d] clipped to the robot's range.

    Args:
        id: e.g. "HalfCheetah-v5", "Hopper-v5", "Ant-v5", "InvertedPendulum-v5".
        num_envs: N.
        options: for `gymnasium.make`, e.g. {"exclude_current_positions_from_observation": False}.
        mode: "sync", or "async" with a process a copy.
        kwargs: for `from_gymnasium`.

    Raises:
        MissingExtra: without gymnasium, mujoco and imageio.
    """
    for module in ("gymnasium", "mujoco", "imageio"):
        require(module, "mujoco")
    return from_gymnasium(partial(_make_mujoco, id, options or {}), num_envs, mode, **kwargs)


def deepmind_lab(
    level: str = "explore_goal_locations_large", num_envs: int = 1, **kwargs: Any
) -> GymnasiumTensorEnv:
    """DeepMind Lab is not on the package index: its user builds it and brings it in.

    Raises:
        MissingExtra: always, saying how.
    """
    raise MissingExtra(
        f"DeepMind Lab (level {level!r}) cannot be installed by pip: build it from its sources, wrap "
        "deepmind_lab.Lab as a gymnasium.Env that shows its picture, and pass a function that makes it to "
        "assay.envs.from_gymnasium. minigrid() and vizdoom() are stand-ins that pip installs"
    )


REAL: dict[str, Callable[..., GymnasiumTensorEnv]] = {
    "atari": atari,
    "vizdoom": vizdoom,
    "minigrid": minigrid,
    "mujoco": mujoco,
    "deepmind_lab": deepmind_lab,
}
"""Kind -> function, for configs that name one."""
