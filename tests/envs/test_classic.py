"""Classic control: Gymnasium step for step, the swing-up against its equations and its energy."""

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from assay.envs import (
    Acrobot,
    CartPole,
    CartPoleSwingUp,
    CornerTask,
    MiniBreakout,
    MountainCar,
    MountainCarContinuous,
    Pendulum,
    PointBox,
    PointMaze,
    RandomMDP,
    SideScroller,
    TwoPlayerPong,
)
from assay.envs.base import TensorEnv

from .common import check_env, generator, random_actions

WORLDS = [CartPole, Pendulum, MountainCar, MountainCarContinuous, Acrobot, CartPoleSwingUp]


@pytest.mark.parametrize("world", WORLDS)
def test_common(world: Callable[..., TensorEnv]) -> None:
    check_env(lambda **k: world(max_steps=30, **k), num_envs=6, steps=120)


@pytest.mark.parametrize("repeat", [1, 4])
@pytest.mark.parametrize("forces", [3, None])
def test_common_mountain_car_variants(repeat: int, forces: int | None) -> None:
    def make(**k: object) -> TensorEnv:
        return MountainCarContinuous(num_forces=forces, action_repeat=repeat, max_steps=20, **k)  # type: ignore[arg-type]

    check_env(make, num_envs=4, steps=60)


@pytest.mark.parametrize("start", ["hard", "medium"])
def test_common_swing_up_starts(start: str) -> None:
    check_env(lambda **k: CartPoleSwingUp(start=start, dt=0.03, max_steps=25, **k), num_envs=4, steps=60)


PARITY = [
    (CartPole, "CartPole-v1"),
    (Pendulum, "Pendulum-v1"),
    (MountainCar, "MountainCar-v0"),
    (MountainCarContinuous, "MountainCarContinuous-v0"),
    (Acrobot, "Acrobot-v1"),
]


@pytest.mark.parametrize(("world", "name"), PARITY)
def test_follows_gymnasium_for_1000_random_steps(world: Callable[..., TensorEnv], name: str) -> None:
    """The same state in both at the start of each episode, then the same actions, and no synchronisation on the way.

    Only the acrobot is set anew every 100 steps: it is chaotic, and a difference of one rounding (the sines come from
    other libraries) grows to 1e-6 within some 300 steps.
    """
    gymnasium = pytest.importorskip("gymnasium", reason="the parity peer")
    import numpy as np

    torch.manual_seed(0)
    real = gymnasium.make(name)
    env = world(num_envs=1, generator=generator(0))
    env.reset()
    rng = np.random.default_rng(0)

    def begin(seed: int) -> None:
        real.reset(seed=seed)
        set_state()
        env.elapsed = torch.zeros_like(env.elapsed)

    def set_state() -> None:
        state = np.array(real.unwrapped.state, dtype=np.float64)
        if world is MountainCarContinuous:
            real.unwrapped.state = state = state.astype(np.float32)  # as after every step of that world
        env.state = torch.tensor(state)[None].to(env.dtype)

    begin(0)
    ended = 0
    last: Tensor | None = None
    for t in range(1000):
        if env.num_actions is not None:
            # Runs of equal actions, so that the car and the acrobot leave the bottom of their valley.
            if last is None or rng.random() < 0.2:
                last = torch.tensor([int(rng.integers(env.num_actions))])
            given: object = int(last)
        else:
            last = torch.tensor(rng.uniform(-1.0, 1.0, (1, 1)), dtype=torch.float32)
            if world is Pendulum:
                last = 2.5 * last  # beyond the bounds, too
            given = last[0].numpy()
        obs, reward, terminated, truncated, _ = real.step(given)
        step = env.step(last)
        assert np.abs(step.final_obs[0].numpy() - obs).max() <= 1e-6, t
        assert abs(float(step.reward) - float(reward)) <= 1e-6
        assert bool(step.terminated) == terminated
        assert bool(step.truncated) == (truncated and not terminated)
        if world is Acrobot and t % 100 == 0:
            set_state()
        if terminated or truncated:
            ended += 1
            begin(ended)
    assert ended >= 1


def test_mountain_car_reaches_the_flag_as_gymnasium_does() -> None:
    """Pushing along the velocity solves it: the same step, the same rewards, with and without a repeated action."""
    gymnasium = pytest.importorskip("gymnasium", reason="the parity peer")
    real = gymnasium.make("MountainCarContinuous-v0")
    real.reset(seed=3)
    start = torch.tensor(real.unwrapped.state).float()[None]
    env = MountainCarContinuous(1, num_forces=3, action_repeat=4)
    env.reset()
    env.state = start
    total = 0.0
    for _ in range(300):
        action = 2 if float(env.state[0, 1]) >= 0 else 0
        total = 0.0
        for _ in range(4):
            _, reward, done, *_ = real.step([float(action - 1)])
            total += reward
            if done:
                break
        step = env.step(torch.tensor([action]))
        assert float(step.reward) == pytest.approx(total, abs=1e-5)
        assert bool(step.terminated) == done
        if done:
            break
    assert done
    assert bool(step.info["success"])
    position = float(step.final_obs[0, 0])
    assert float(step.info["height"]) == pytest.approx(math.sin(3 * position) * 0.45 + 0.55, abs=1e-6)


def test_the_time_limit_is_not_a_termination() -> None:
    env = CartPole(2, max_steps=3)
    env.reset()
    steps = [env.step(torch.tensor([0, 1])) for _ in range(3)]
    assert not bool(steps[-1].terminated.any())
    assert bool(steps[-1].truncated.all())
    assert not torch.equal(steps[-1].obs, steps[-1].final_obs)


def test_swing_up_obeys_the_published_equations() -> None:
    env = CartPoleSwingUp(256, start="hard", generator=generator(1))
    env.reset()
    x, v, th, w = env.state.unbind(1)
    action = torch.linspace(-1.5, 1.5, 256)[:, None]
    g, mp, length, b, total = 9.82, 0.5, 0.6, 0.1, 1.0
    ml, force = mp * length, 10 * action[:, 0].clamp(-1, 1).double()
    sin, cos = th.sin(), th.cos()
    x_dd = (-2 * ml * w**2 * sin + 3 * mp * g * sin * cos + 4 * force - 4 * b * v) / (
        4 * total - 3 * mp * cos**2
    )
    th_dd = (-3 * ml * w**2 * sin * cos + 6 * total * g * sin + 6 * (force - b * v) * cos) / (
        4 * length * total - 3 * ml * cos**2
    )
    expected = torch.stack((x + 0.01 * v, v + 0.01 * x_dd, th + 0.01 * w, w + 0.01 * th_dd), 1)
    env.autoreset = False
    step = env.step(action)
    assert torch.allclose(env.state, expected, atol=1e-12)
    reward = (expected[:, 2].cos() + 1) / 2 * torch.cos(math.pi * expected[:, 0] / 4.8)
    assert torch.allclose(step.reward, reward.float(), atol=1e-6)
    assert torch.equal(step.terminated, expected[:, 0].abs() > 2.4)


def test_swing_up_keeps_its_energy_without_friction_and_force() -> None:
    env = CartPoleSwingUp(16, dt=1e-4, friction=0.0, max_steps=None, generator=generator(2))
    env.reset()
    state = env.state.clone()
    state[:, 1] = 0.3 * torch.randn(16, generator=generator(0), dtype=torch.float64)
    state[:, 2] = torch.linspace(0.3, 6.0, 16, dtype=torch.float64)
    env.state = state

    def energy() -> Tensor:
        _, v, th, w = env.state.unbind(1)
        total, mp, length, g = 1.0, 0.5, 0.6, 9.82
        ml = mp * length
        kinetic = total * v**2 / 2 - ml * v * w * th.cos() / 2 + mp * length**2 * w**2 / 6
        return kinetic + mp * g * length * th.cos() / 2

    before, quiet = energy(), torch.zeros(16, 1)
    env.validate = False
    for _ in range(10_000):
        env._step(quiet)
    scale = 0.5 * 9.82 * 0.6 / 2
    assert float(((energy() - before) / scale).abs().max()) < 0.01
    assert float((env.state - state).abs().max()) > 1.0  # it did move


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_state_type(dtype: torch.dtype) -> None:
    for world in WORLDS:
        env = world(2, dtype=dtype)
        env.reset()
        action = torch.zeros(2, dtype=torch.int64) if env.num_actions else torch.zeros(2, 1)
        step = env.step(action)
        assert env.state.dtype == dtype
        assert step.reward.dtype == step.obs.dtype == torch.float32


def test_gymnasium_accepts_every_world() -> None:
    pytest.importorskip("gymnasium", reason="the peer's own check")
    from gymnasium.utils.env_checker import check_env as gymnasium_check

    from assay.envs.adapters import as_gymnasium

    for world in (*WORLDS, PointBox, CornerTask, PointMaze, SideScroller, RandomMDP):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unbounded and unnormalised spaces
            gymnasium_check(as_gymnasium(world(1)), skip_render_check=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "world",
    [*WORLDS, PointBox, CornerTask, PointMaze, SideScroller, MiniBreakout, TwoPlayerPong],
)
def test_cuda_follows_cpu(world: Callable[..., TensorEnv]) -> None:
    """From the same states, with the same actions, the same transitions."""
    here = world(64, generator=generator(0))
    there = world(64, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    here.reset()
    there.reset()
    act = generator(1)
    for _ in range(50):
        for name in ("elapsed", *here.state_names):
            setattr(there, name, getattr(here, name).to("cuda"))
        action = random_actions(here, act)
        a, b = here.step(action), there.step(action.cuda())
        assert isinstance(a.final_obs, Tensor)
        assert isinstance(b.final_obs, Tensor)
        assert torch.allclose(a.final_obs, b.final_obs.cpu(), atol=1e-5)
        assert torch.allclose(a.reward, b.reward.cpu(), atol=1e-5)
        assert torch.equal(a.ended, b.ended.cpu())


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="action_repeat"):
        MountainCar(2, action_repeat=0)
    with pytest.raises(ValueError, match="num_forces"):
        MountainCarContinuous(2, num_forces=1)
    with pytest.raises(ValueError, match="start is one of"):
        CartPoleSwingUp(2, start="soft")
    with pytest.raises(ValueError, match="dt"):
        CartPoleSwingUp(2, dt=0)
    with pytest.raises(ValueError, match="floating"):
        CartPole(2, dtype=torch.int64)
    env = Pendulum(2)
    env.reset()
    with pytest.raises(ValueError, match=r"\[2, 1\]"):
        env.step(torch.zeros(2))
    with pytest.raises(ValueError, match="finite"):
        env.step(torch.full((2, 1), math.nan))
    with pytest.raises(ValueError, match="floats"):
        env.step(torch.zeros(2, 1, dtype=torch.int64))
