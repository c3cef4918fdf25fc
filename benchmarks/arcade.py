"""Batched games against the same games in Python or numpy, as ratios measured in one run on one machine.

    python benchmarks/arcade.py

Bar: MiniBreakout with 1,024 copies makes at least 50 times the steps a second of MinAtar's own program. Both sides
give an observation a step and begin anew when a game is lost; MinAtar is timed as itself (one game) and through its
Gymnasium environment, the way in which learners call it. CartPole is compared with Gymnasium's vectorised numpy
program.
"""

from collections.abc import Callable

import gymnasium
import minatar
import numpy as np
import torch
from _timing import interleaved

from assay.envs import CartPole, MiniBreakout, TensorEnv

COPIES = 1024


def batched(env: TensorEnv, steps: int) -> Callable[[], None]:
    """A program of so many steps of every copy."""
    env.reset()
    actions = torch.randint(env.num_actions or 0, (steps, env.num_envs))

    def play() -> None:
        for action in actions:
            env.step(action)

    return play


def minatar_game(steps: int) -> Callable[[], None]:
    """A program of so many steps of MinAtar's breakout."""
    env = minatar.Environment("breakout", sticky_action_prob=0.0)
    env.seed(0)
    actions = np.random.default_rng(0).choice([0, 1, 3], steps).tolist()

    def play() -> None:
        for action in actions:
            _, over = env.act(action)
            env.state()
            if over:
                env.reset()

    return play


def minatar_gymnasium(steps: int) -> Callable[[], None]:
    """A program of so many steps of MinAtar's Gymnasium environment."""
    from minatar.gym import register_envs

    register_envs()
    env = gymnasium.make("MinAtar/Breakout-v1", disable_env_checker=True)
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 3, steps).tolist()

    def play() -> None:
        for action in actions:
            _, _, over, cut, _ = env.step(action)
            if over or cut:
                env.reset()

    return play


def gymnasium_cartpole(steps: int) -> Callable[[], None]:
    """A program of so many steps of Gymnasium's vectorised cart-pole."""
    env = gymnasium.make_vec("CartPole-v1", num_envs=COPIES, vectorization_mode="vector_entry_point")
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(0, 2, (steps, COPIES))

    def play() -> None:
        for action in actions:
            env.step(action)

    return play


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    long, short = 2000, 50
    programs = {
        "minatar": minatar_game(long),
        "minatar-gymnasium": minatar_gymnasium(long),
        "float32": batched(MiniBreakout(COPIES, validate=False), short),
        "uint8": batched(MiniBreakout(COPIES, pixels=torch.uint8, validate=False), short),
        "cartpole": batched(CartPole(COPIES, validate=False), short),
        "cartpole32": batched(CartPole(COPIES, validate=False, dtype=torch.float32), short),
        "gymnasium-cartpole": gymnasium_cartpole(short),
    }
    interleaved(programs, 3)
    seconds = interleaved(programs, 21)
    speed = {
        name: (long if name.startswith("minatar") else short * COPIES) / t for name, t in seconds.items()
    }
    for name, steps in speed.items():
        print(f"{name}: {steps / 1e6:.3f} million steps a second")
    for pixels in ("float32", "uint8"):
        print(
            f"MiniBreakout ({pixels}), {COPIES} copies: {speed[pixels] / speed['minatar']:.0f} times MinAtar's steps "
            f"a second (bar: at least 50), {speed[pixels] / speed['minatar-gymnasium']:.0f} times those of its "
            "Gymnasium environment"
        )
    for name, kind in (("cartpole", "float64"), ("cartpole32", "float32")):
        ratio = speed[name] / speed["gymnasium-cartpole"]
        print(f"CartPole ({kind}), {COPIES} copies: {ratio:.2f} times Gymnasium's vectorised numpy program")


if __name__ == "__main__":
    main()
