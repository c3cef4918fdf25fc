"""What batching gridworlds brings, as ratios measured in one run on one machine.

    python benchmarks/gridworlds.py

Bars: RoomsGrid at 4,096 copies makes at least a million steps a second on two cores; at 1,024 copies it makes at least
100 times the steps a second of MiniGrid in a synchronous vector environment of 8 copies. Each in one process, with
random actions and autoreset; MiniGrid as Gymnasium makes it.
"""

import multiprocessing
import time
from collections.abc import Callable
from functools import partial

import torch
from _timing import interleaved

from assay.envs import DoorKeyGrid, RoomsGrid, TensorEnv


def player(make: Callable[[], TensorEnv], steps: int) -> Callable[[], None]:
    """A program that makes so many steps of every copy with random actions."""
    env = make()
    env.validate = False
    env.reset(seed=0)
    assert env.num_actions is not None
    actions = torch.randint(env.num_actions, (steps, env.num_envs))

    def play() -> None:
        for action in actions:
            env.step(action)

    return play


def minigrid(task: str, copies: int, steps: int) -> Callable[[], None]:
    """The same for MiniGrid, copies one after the other in one process."""
    import gymnasium
    import minigrid  # noqa: F401  (registers its tasks)
    import numpy as np

    env = gymnasium.make_vec(task, num_envs=copies, vectorization_mode="sync")
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(env.single_action_space.n, size=(steps, copies))

    def play() -> None:
        for action in actions:
            env.step(action)

    return play


def rate(make: Callable[[], TensorEnv], steps: int, repeats: int, queue: object = None) -> float:
    """Steps a second on one thread."""
    torch.set_num_threads(1)
    play = player(make, steps)
    seconds = interleaved({"play": play}, repeats)["play"]
    result = steps * make().num_envs / seconds
    if queue is not None:
        queue.put(result)  # type: ignore[attr-defined]
    return result


def two_processes(make: Callable[[], TensorEnv], steps: int, repeats: int) -> float:
    """Steps a second of two processes that run at once."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=rate, args=(make, steps, repeats, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    total = sum(queue.get() for _ in workers)
    for worker in workers:
        worker.join()
    return total


def torch_calls(make: Callable[[], TensorEnv]) -> int:
    """Operators that one step without a reset calls."""
    env = make()
    env.validate = False
    env.reset(seed=0)
    action = torch.zeros(env.num_envs, dtype=torch.int64)
    env.step(action)
    with torch.profiler.profile() as profile:
        env.step(action)
    return sum(event.cpu_parent is None for event in profile.events())


def main() -> None:
    """Print rates and ratios."""
    torch.set_num_threads(1)
    nine = partial(RoomsGrid, rooms=3)
    one = rate(partial(nine, 4096), 200, 5)
    both = two_processes(partial(nine, 4096), 200, 15)
    print(
        f"RoomsGrid, 4,096 copies: {one / 1e6:.1f} M steps/s on one core, {both / 1e6:.1f} M on two (bar: 1 M)"
    )
    torch.set_num_threads(2)
    begun = time.perf_counter()
    player(partial(nine, 4096), 200)()
    threads = 200 * 4096 / (time.perf_counter() - begun)
    torch.set_num_threads(1)
    print(f"    one process with two threads: {threads / 1e6:.1f} M steps/s")
    programs = {
        "rooms": player(partial(nine, 1024), 100),
        "doors": player(partial(nine, 1024, doors=True, keys=1, close_after=5), 100),
        "window": player(partial(nine, 1024, view="egocentric", textures=True), 100),
        "picture": player(partial(nine, 1024, view="image"), 100),
        "doorkey": player(partial(DoorKeyGrid, 1024, 6), 100),
        "minigrid rooms": minigrid("MiniGrid-MultiRoom-N6-v0", 8, 100),
        "minigrid doorkey": minigrid("MiniGrid-DoorKey-6x6-v0", 8, 100),
    }
    interleaved(programs, 1)
    seconds = interleaved(programs, 7)
    for name, peer in (
        ("rooms", "minigrid rooms"),
        ("doors", "minigrid rooms"),
        ("window", "minigrid rooms"),
        ("picture", "minigrid rooms"),
        ("doorkey", "minigrid doorkey"),
    ):
        ratio = (1024 / seconds[name]) / (8 / seconds[peer])
        print(
            f"{name}: {10 * seconds[name]:.2f} ms a step of 1,024 copies, {ratio:.0f} times the steps/s of "
            f"{peer} ({800 / seconds[peer]:,.0f}; bar for rooms: 100)"
        )
    for name, options in (("rooms", {}), ("doors", {"doors": True, "keys": 1, "close_after": 5})):
        print(f"{name}: {torch_calls(partial(nine, 1024, **options))} operators a step (bar: 40)")


if __name__ == "__main__":
    main()
