"""The simulators truly reset and step here; without them one line says what to install."""

import importlib
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from assay import _extras
from assay._extras import MissingExtra
from assay.envs.adapters import GymnasiumTensorEnv
from assay.envs.real import REAL, SPAWNS, _doom_map, atari, deepmind_lab, minigrid, mujoco, vizdoom


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ViZDoom and MuJoCo leave files where they run."""
    monkeypatch.chdir(tmp_path)


def play(env: GymnasiumTensorEnv, steps: int, seed: int = 0) -> list[Any]:
    """Random steps after `reset(seed)`; closes the environment."""
    draws = torch.Generator().manual_seed(seed)
    found: list[Any] = [env.reset(seed=seed)]
    for _ in range(steps):
        if env.num_actions is None:
            action = torch.rand((env.num_envs, *env.single_action_space.shape), generator=draws) * 4 - 2
        else:
            action = torch.randint(env.num_actions, (env.num_envs,), generator=draws)
        found.append(env.step(action))
    env.close()
    return found


def same_story(make: Callable[[], GymnasiumTensorEnv], steps: int = 12) -> None:
    for a, b in zip(play(make(), steps), play(make(), steps), strict=True):
        assert torch.equal(a[0], b[0])


def test_atari() -> None:
    pytest.importorskip("ale_py", reason="extra atari")
    (obs, info), *steps = play(atari(num_envs=2, max_frames=80), 45)
    assert obs.shape == (2, 4, 84, 84)
    assert obs.dtype == torch.uint8
    assert info["room"].tolist() == [1, 1]
    assert torch.equal(obs[:, 0], obs[:, 3]), "the first stack repeats the first frame"
    ends = [t for t, step in enumerate(steps, 1) if step.truncated.all()]
    assert ends == [20, 40], "80 emulated frames are 20 actions"
    end = steps[19]
    assert torch.equal(end.final_obs[:, :3], steps[18].obs[:, 1:]), "the old episode's frames go on"
    assert torch.equal(end.obs[:, 0], end.obs[:, 3])
    assert not torch.equal(end.obs, end.final_obs)
    same_story(lambda: atari("ALE/Breakout-v5", 1))


def test_atari_options() -> None:
    pytest.importorskip("ale_py", reason="extra atari")
    assert atari("ALE/Breakout-v5", 1).num_actions == 4
    env = atari("ALE/Breakout-v5", 1, full_action_space=True, stack=2, render_mode="rgb_array")
    assert env.num_actions == 18
    env.reset(seed=0)
    assert env.render().shape == (210, 160, 3)
    assert env.observe().shape == (1, 2, 84, 84)


def test_atari_native_has_true_final_observations() -> None:
    pytest.importorskip("ale_py", reason="extra atari")
    (obs, _), *steps = play(atari("ALE/Breakout-v5", 2, mode="native", max_frames=80), 45)
    assert obs.shape == (2, 4, 84, 84)
    ends = [t for t, step in enumerate(steps, 1) if step.ended.all()]
    assert len(ends) == 2
    assert ends[1] == 2 * ends[0]
    end, before = steps[ends[0] - 1], steps[ends[0] - 2]
    assert torch.equal(end.final_obs[:, :3], before.obs[:, 1:])
    assert not torch.equal(end.obs, end.final_obs)


def test_vizdoom() -> None:
    pytest.importorskip("vizdoom", reason="extra vizdoom")
    (obs, _), *steps = play(vizdoom(num_envs=1, frame_skip=50, stack=2), 50)
    assert obs.shape == (1, 2, 84, 84)
    assert obs.dtype == torch.uint8
    ends = [step for step in steps if bool(step.ended)]
    assert ends, "an episode lasts 2,100 tics"
    for step in ends:
        assert bool(step.truncated) or float(step.reward) > 0.5, "a time-out is no termination"
        assert step.final_obs.float().mean() > 5, "ViZDoom shows black at the end; the last picture stays"
    same_story(lambda: vizdoom(num_envs=1, gray=False))


@pytest.mark.parametrize("spawn", ["sparse", "very_sparse"])
def test_vizdoom_spawns(spawn: str) -> None:
    game = pytest.importorskip("vizdoom", reason="extra vizdoom")
    env = vizdoom(num_envs=1, spawn=spawn)  # type: ignore[arg-type]
    places = set()
    for seed in range(5):
        env.reset(seed=seed)
        env.step(torch.zeros(1, dtype=torch.int64))
        doom = env.vec.envs[0].unwrapped.game
        axes = (game.GameVariable.POSITION_X, game.GameVariable.POSITION_Y)
        places.add(tuple(round(doom.get_game_variable(axis)) for axis in axes))
    env.close()
    assert places == {(240, -176)} if spawn == "sparse" else places == {(544, -672)}
    with pytest.raises(ValueError, match="only MyWayHome"):
        vizdoom("VizdoomBasic-v1", 1, spawn="sparse")
    with pytest.raises(RuntimeError, match="not the one"):
        _doom_map(b"PWAD", spawn)
    assert set(SPAWNS) == {"dense", "sparse", "very_sparse"}


@pytest.mark.parametrize(
    ("view", "shape"), [("partial", (3, 7, 7)), ("full", (3, 25, 25)), ("rgb", (3, 56, 56))]
)
def test_minigrid(view: str, shape: tuple[int, ...]) -> None:
    pytest.importorskip("minigrid", reason="extra minigrid")
    (obs, _), *steps = play(minigrid(num_envs=2, view=view, max_steps=10), 25)  # type: ignore[arg-type]
    assert obs.shape == (2, *shape)
    assert obs.dtype == torch.uint8
    assert [t for t, step in enumerate(steps, 1) if step.truncated.all()] == [10, 20]
    same_story(lambda: minigrid(num_envs=1))


@pytest.mark.parametrize("robot", ["HalfCheetah-v5", "Hopper-v5", "Ant-v5", "InvertedPendulum-v5"])
def test_mujoco(robot: str) -> None:
    pytest.importorskip("mujoco", reason="extra mujoco")
    (obs, _), *steps = play(mujoco(robot, 2), 40)
    assert obs.dtype == torch.float32
    assert all(torch.isfinite(step.obs).all() for step in steps)
    same_story(lambda: mujoco(robot, 1))


def test_mujoco_clips_to_the_robots_range_and_tells_it() -> None:
    pytest.importorskip("mujoco", reason="extra mujoco")
    far, near = mujoco("HalfCheetah-v5", 1), mujoco("HalfCheetah-v5", 1)
    far.reset(seed=0)
    near.reset(seed=0)
    assert far.single_action_space.high.tolist() == [1.0] * 6
    assert torch.equal(far.step(torch.full((1, 6), 9.0)).obs, near.step(torch.ones(1, 6)).obs)  # type: ignore[arg-type]


def test_eight_processes_end_with_close() -> None:
    pytest.importorskip("minigrid", reason="extra minigrid")
    before = set(multiprocessing.active_children())
    env = minigrid("MiniGrid-Empty-5x5-v0", 8, mode="async", context="fork")
    assert len(set(multiprocessing.active_children()) - before) == 8
    steps = play(env, 5)
    assert steps[-1].obs.shape == (8, 3, 7, 7)
    assert set(multiprocessing.active_children()) == before


@pytest.mark.parametrize(
    ("kind", "module"),
    [
        ("atari", "ale_py"),
        ("atari", "cv2"),
        ("vizdoom", "vizdoom"),
        ("minigrid", "minigrid"),
        ("mujoco", "mujoco"),
    ],
)
def test_what_is_missing_is_one_line(kind: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> Any:
        if name.partition(".")[0] == module:
            raise ImportError(name)
        return importlib.import_module(name)

    monkeypatch.setattr(_extras, "import_module", without)
    with pytest.raises(MissingExtra, match=rf"needs the package '{module}'.*pip install .*assay\[{kind}\]"):
        REAL[kind](num_envs=1)


def test_deepmind_lab_says_how() -> None:
    with pytest.raises(MissingExtra, match="build it from its sources"):
        deepmind_lab()
