"""Who waits for whom: four ways to arrange acting and learning, on worlds that take their time."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from assay.envs import Catch, TensorEnv
from assay.envs.slow import SlowEnv
from assay.lab import Trial
from assay.rl.actorlearner import ActorLearner
from assay.rl.impala import VTraceLearner
from assay.rl.policies import ActorCritic, actor_critic
from assay.rl.rollout import Rollout, collect, start


@dataclass(frozen=True)
class ThroughputConfig:
    """The waiting, and who does how much of it."""

    mean: float = 0.005
    """Seconds a step, on average."""
    sigma: float = 1.0
    """Of its logarithm; the arms `steady/*` set it to 0."""
    actors: int = 16
    unroll: int = 20
    seconds: float = 3.0
    """Measured, once all actors have begun to deliver."""
    warm_updates: int = 3
    hidden: tuple[int, ...] = (64, 64)
    rate: float = 1e-3


def slow_catch(index: int, copies: int, mean: float, sigma: float, seed: int) -> TensorEnv:
    """Catch that waits; the copies of one world wait for the slowest among them."""
    generator = torch.Generator().manual_seed(seed + 7919 * index)
    return SlowEnv(Catch(copies, view="flat", generator=generator, validate=False), mean, sigma)


def catch_policy(hidden: tuple[int, ...], seed: int = 0) -> ActorCritic:
    """For flat Catch."""
    return actor_critic(Catch(1, view="flat"), hidden, generator=torch.Generator().manual_seed(seed))


class SharedStep(torch.optim.Optimizer):
    """Stands in for an actor's optimizer in A3C: applies its gradient to shared parameters, then copies them back.

    The lock keeps two updates from mixing (A3C itself lets them).

    Args:
        mine: parameters of the actor's model, which hold gradients.
        shared: the same parameters in common.
        optimizer: of the shared ones.
        lock: held for an update.
    """

    def __init__(
        self, mine: list[Tensor], shared: list[Tensor], optimizer: torch.optim.Optimizer, lock: threading.Lock
    ):
        super().__init__(mine, {})
        self.mine, self.shared, self.optimizer, self.lock = mine, shared, optimizer, lock

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Send the gradient, fetch the parameters; takes no closure."""
        with self.lock:
            for mine, shared in zip(self.mine, self.shared, strict=True):
                shared.grad = None if mine.grad is None else mine.grad.clone()
            self.optimizer.step()
            for mine, shared in zip(self.mine, self.shared, strict=True):
                mine.copy_(shared)


def sync_step(config: ThroughputConfig, seed: int) -> tuple[float, float]:
    """All worlds in lockstep through one batched policy: every step waits for the slowest world."""
    env = slow_catch(0, config.actors, config.mean, config.sigma, seed)
    model = catch_policy(config.hidden, seed)
    learner = VTraceLearner(model, torch.optim.Adam(model.parameters(), config.rate), correction="none")
    generator = torch.Generator().manual_seed(seed)
    carry, updates, begun = start(env, model), 0, time.perf_counter()
    while time.perf_counter() - begun < config.seconds:
        rollout = Rollout(config.unroll, config.actors)
        carry = collect(env, model, rollout, carry, generator, values=False)
        learner.update(rollout)
        updates += 1
    seconds = time.perf_counter() - begun
    return updates * config.unroll * config.actors / seconds, updates / seconds


def a3c(config: ThroughputConfig, seed: int) -> tuple[float, float]:
    """Every actor computes gradients on its own unrolls and applies them to shared parameters."""
    shared = catch_policy(config.hidden, seed)
    optimizer = torch.optim.Adam(shared.parameters(), config.rate)
    lock, stop = threading.Lock(), threading.Event()
    made, failures = [0] * config.actors, []

    def act(index: int) -> None:
        try:
            env = slow_catch(index, 1, config.mean, config.sigma, seed)
            model = catch_policy(config.hidden, seed)
            step = SharedStep(list(model.parameters()), list(shared.parameters()), optimizer, lock)
            learner = VTraceLearner(model, step, correction="none")
            generator = torch.Generator().manual_seed(seed + index)
            carry = start(env, model)
            while not stop.is_set():
                rollout = Rollout(config.unroll, 1)
                carry = collect(env, model, rollout, carry, generator, values=False)
                learner.update(rollout)
                made[index] += 1
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=act, args=(i,), daemon=True) for i in range(config.actors)]
    for thread in threads:
        thread.start()
    while not all(made) and not failures:
        time.sleep(config.mean)
    before, begun = sum(made), time.perf_counter()
    stop.wait(config.seconds)
    updates, seconds = sum(made) - before, time.perf_counter() - begun
    stop.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return updates * config.unroll / seconds, updates / seconds


def decoupled(
    config: ThroughputConfig, seed: int, backend: str, synchronous: bool = False
) -> tuple[float, float, dict[int, int]]:
    """Actors that hand unrolls to a learner: (env steps/s, updates/s, unrolls by lag)."""
    model = catch_policy(config.hidden, seed)
    correction = "none" if synchronous else "vtrace"
    learner = VTraceLearner(model, torch.optim.Adam(model.parameters(), config.rate), correction=correction)  # type: ignore[arg-type]
    worlds: Callable[[int], TensorEnv] = partial(
        slow_catch, copies=1, mean=config.mean, sigma=config.sigma, seed=seed
    )
    with ActorLearner(
        worlds,
        partial(catch_policy, config.hidden),
        learner,
        config.actors,
        config.unroll,
        backend=backend,
        batch_unrolls=config.actors,
        synchronous=synchronous,
        seed=seed % 1_000_003,
    ) as system:
        # Actors start one by one, and the first ones' unrolls pile up meanwhile: measure when both is over.
        seen: set[int] = set()
        while len(seen) < config.actors:
            for turn in system.run(1):
                seen |= set(turn.rollout.origin[:, 0].tolist())
        for _ in system.run(config.warm_updates):
            pass
        meter = system.meter
        steps, updates, lags, begun = meter.env_steps, meter.updates, meter.lag.copy(), time.perf_counter()
        while time.perf_counter() - begun < config.seconds:
            for _ in system.run(1):
                pass
        seconds = time.perf_counter() - begun
        found = dict(sorted((meter.lag - lags).items()))
        return (meter.env_steps - steps) / seconds, (meter.updates - updates) / seconds, found


def measured(run: Trial, arm: str, config: ThroughputConfig) -> dict[str, float]:
    """`throughput/*` (log-normal waits) and `steady/*` (equal waits): environment steps and updates a second."""
    kind, name = arm.split("/")
    if kind == "steady":
        config = replace(config, sigma=0.0)
    seed = run.generator("throughput", device="cpu").initial_seed() % 2**31
    if name == "sync-step":
        steps, updates = sync_step(config, seed)
    elif name == "a3c":
        steps, updates = a3c(config, seed)
    else:
        backend = "thread" if name == "sync-trajectory" else name.removeprefix("impala-")
        steps, updates, lags = decoupled(config, seed, backend, name == "sync-trajectory")
        run.save("lags", {"lag": list(lags), "unrolls": list(lags.values())})
    return {"env_steps_per_s": steps, "updates_per_s": updates}
