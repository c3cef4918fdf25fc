r"""Actors that collect and a learner that learns, decoupled (IMPALA, section 3).

An actor copies the newest parameters at the START of every unroll, acts for T steps and hands the unroll over: states,
actions, rewards, the behaviour's log-probabilities, the policy's first memory. It never computes a gradient. The
learner takes B unrolls, stacks them side by side, makes one update and publishes its parameters. How many updates the
behaviour trails the learner, its **lag**, travels with every unroll (`Rollout.policy_version`).

| backend | actors are | for |
| --- | --- | --- |
| `inline` | called in turn | tests and studies: deterministic, with a lag that you choose |
| `thread` | threads | environments that wait (simulators, networks): they release the interpreter |
| `process` | processes, unrolls in shared memory | environments that compute |
| `ray` | Ray actors | many machines |
"""

import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from queue import Empty, Full, Queue
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from assay._extras import require
from assay.envs.base import TensorEnv
from assay.rl.policies import ActorCritic
from assay.rl.replay import TrajectoryReplay
from assay.rl.rollout import Rollout, collect, start

MakeEnv = Callable[[int], TensorEnv]
MakePolicy = Callable[[], ActorCritic]
_PATIENCE = 0.2  # seconds between looks at whether everybody still lives


@runtime_checkable
class Learner(Protocol):
    """What trains: `VTraceLearner`, or anything with a model and this update."""

    model: ActorCritic

    def update(self, rollout: Rollout, generator: torch.Generator | None = None) -> dict[str, float]:
        """Train on stacked unrolls."""
        ...


class Turn(NamedTuple):
    """What one update of the learner saw."""

    update: int
    """Updates made so far, this one included."""
    rollout: Rollout
    """What was learnt from (replayed unrolls included)."""
    metrics: dict[str, float]
    """The learner's."""


class Meter:
    """Throughput of a running actor-learner: steps, updates, lag, waiting."""

    def __init__(self) -> None:
        self.env_steps = 0
        """Transitions that reached the learner."""
        self.updates = 0
        self.lag: Counter[int] = Counter()
        """How many unrolls were how many updates old when they were learnt from."""
        self.dropped = 0
        """Unrolls thrown away for being older than `max_lag`."""
        self.restarts = 0
        """Actors that died and were replaced."""
        self.idle_seconds = 0.0
        """Time the learner waited for unrolls."""
        self.occupancy: list[int] = []
        """Unrolls ready when the learner came to fetch some."""
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._began

    def summary(self) -> dict[str, float]:
        """Rates and means so far."""
        unrolls = sum(self.lag.values())
        return {
            "env_steps_per_s": self.env_steps / self.seconds,
            "updates_per_s": self.updates / self.seconds,
            "idle_share": self.idle_seconds / self.seconds,
            "mean_lag": sum(lag * n for lag, n in self.lag.items()) / max(unrolls, 1),
            "mean_occupancy": sum(self.occupancy) / max(len(self.occupancy), 1),
            "dropped": float(self.dropped),
            "restarts": float(self.restarts),
        }


class ActorError(RuntimeError):
    """An actor raised: the message carries its traceback."""


class _Actor:
    """One environment with its own copy of the policy."""

    def __init__(self, index: int, make_env: MakeEnv, make_policy: MakePolicy, unroll: int, seed: int):
        self.index, self.unroll = index, unroll
        self.env, self.policy = make_env(index), make_policy().eval()
        self.generator = torch.Generator(self.env.device).manual_seed(seed)
        self.carry = start(self.env, self.policy)
        self.made = 0

    def collect(self, version: int) -> Rollout:
        """The next unroll under the policy as it was last loaded."""
        rollout = Rollout(self.unroll, self.env.num_envs)
        self.carry = collect(self.env, self.policy, rollout, self.carry, self.generator, values=False)
        rollout.policy_version.fill_(version)
        rollout.origin[:, 0], rollout.origin[:, 1] = self.index, self.made
        self.made += 1
        return rollout


def _actor_seed(seed: int, index: int, life: int) -> int:
    return (seed * 1_000_003 + index) * 1_009 + life


@runtime_checkable
class _Backend(Protocol):
    def publish(self, version: int) -> None: ...

    def get(self) -> Rollout: ...

    def ready(self) -> int: ...

    def close(self) -> None: ...


class ActorLearner:
    """Runs actors and a learner together; iterate over `run` and read `meter`.

    Args:
        make_env: from an actor's index to its (seeded) environment; for processes and Ray it is called over there,
            so it must be picklable (a function of a module, not a lambda).
        make_policy: an actor's copy of the policy, on the CPU; likewise.
        learner: trains its `model`, of the same shape.
        num_actors: how many.
        unroll: T steps.
        backend: "inline", "thread", "process" or "ray" (see the module).
        batch_unrolls: B unrolls a learner step, replayed ones included.
        queue_size: unrolls an actor may have waiting (back-pressure: without it the lag grows without bound).
        lag: inline only: updates by which the behaviour trails the learner.
        synchronous: every actor waits for the parameters of the update that its last unroll went into.
        max_lag: older unrolls are dropped and counted; None: none is.
        replay: keeps unrolls to learn from again.
        replay_share: share of the batch taken from it, once it holds something.
        seed: of the actors' action sampling.
        max_restarts: actors that may die before the run is given up.

    Raises:
        ValueError: options that do not fit together.
        ActorError: from `run`, when an actor raised.

    >>> with ActorLearner(make_env, make_policy, learner, num_actors=4) as system:   # doctest: +SKIP
    ...     for turn in system.run(updates=1000):
    ...         print(turn.metrics["loss"], system.meter.summary()["mean_lag"])
    """

    def __init__(
        self,
        make_env: MakeEnv,
        make_policy: MakePolicy,
        learner: Learner,
        num_actors: int = 1,
        unroll: int = 20,
        *,
        backend: str = "inline",
        batch_unrolls: int = 1,
        queue_size: int = 2,
        lag: int = 0,
        synchronous: bool = False,
        max_lag: int | None = None,
        replay: TrajectoryReplay | None = None,
        replay_share: float = 0.5,
        seed: int = 0,
        max_restarts: int = 10,
    ):
        for name, number in (
            ("num_actors", num_actors),
            ("unroll", unroll),
            ("batch_unrolls", batch_unrolls),
            ("queue_size", queue_size),
        ):
            if number < 1:
                raise ValueError(f"{name} is at least 1: got {number}")
        if backend not in _BACKENDS:
            raise ValueError(f"unknown backend {backend!r}: choose from {', '.join(_BACKENDS)}")
        if lag and backend != "inline":
            raise ValueError("a fixed lag needs backend='inline'; elsewhere it is what it turns out to be")
        if lag < 0 or (max_lag is not None and max_lag < lag):
            raise ValueError(f"need 0 <= lag <= max_lag: got lag={lag}, max_lag={max_lag}")
        if not 0 <= replay_share < 1:
            raise ValueError(f"replay_share is below 1, some unrolls are always new: got {replay_share}")
        if synchronous and (batch_unrolls % num_actors or replay is not None):
            raise ValueError(
                "synchronous learning takes a fixed number of unrolls of every actor, and no replay"
            )
        self.make_env, self.make_policy, self.learner = make_env, make_policy, learner
        self.num_actors, self.unroll, self.batch_unrolls = num_actors, unroll, batch_unrolls
        self.backend, self.queue_size, self.lag, self.synchronous = backend, queue_size, lag, synchronous
        self.max_lag, self.replay, self.replay_share = max_lag, replay, replay_share
        self.seed, self.max_restarts = seed, max_restarts
        self.version = 0
        """Updates made."""
        self.meter = Meter()
        self._running: _Backend | None = None

    def __enter__(self) -> "ActorLearner":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the actors and wait until they are gone."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def run(self, updates: int, generator: torch.Generator | None = None) -> Iterator[Turn]:
        """Make `updates` learner steps; the actors stay for a next call, until `close`."""
        if self._running is None:
            self._running = _BACKENDS[self.backend](self)
            self._running.publish(self.version)
            self.meter = Meter()
        try:
            for _ in range(updates):
                rollout = self._batch()
                metrics = self.learner.update(rollout, generator)
                self.version += 1
                self.meter.updates += 1
                self._running.publish(self.version)
                yield Turn(self.version, rollout, metrics)
        except (
            BaseException
        ):  # a learner or an actor that raised, or a caller that stopped: leave nobody behind
            self.close()
            raise

    def _batch(self) -> Rollout:
        replayed: list[Rollout] = []
        if self.replay is not None and len(self.replay):
            replayed = self.replay.sample(round(self.batch_unrolls * self.replay_share))
        fresh = [self._fresh() for _ in range(self.batch_unrolls - len(replayed))]
        if self.replay is not None:
            for unroll in fresh:
                self.replay.add(unroll)
        return Rollout.stack([*fresh, *replayed])

    def _fresh(self) -> Rollout:
        assert self._running is not None
        self.meter.occupancy.append(self._running.ready())
        while True:
            waited = time.perf_counter()
            unroll = self._running.get()
            self.meter.idle_seconds += time.perf_counter() - waited
            lag = self.version - int(unroll.policy_version[0])
            if self.max_lag is not None and lag > self.max_lag:
                self.meter.dropped += 1
                continue
            self.meter.lag[lag] += 1
            self.meter.env_steps += int(unroll.valid.sum())
            return unroll

    def died(self, index: int) -> None:
        """Count a dead actor; give up after too many."""
        self.meter.restarts += 1
        if self.meter.restarts > self.max_restarts:
            raise ActorError(f"actor {index} died, and {self.max_restarts} had before: giving up")

    def weights(self) -> list[Tensor]:
        """The learner's parameters and buffers, on the CPU, as they are now."""
        return [value.detach().to("cpu", copy=True) for value in self.learner.model.state_dict().values()]


@torch.no_grad()
def _load(model: nn.Module, weights: list[Tensor]) -> None:
    for mine, new in zip(model.state_dict().values(), weights, strict=True):
        mine.copy_(new)


class _Inline:
    """Actors called in turn. Behaviour parameters trail the learner's by `lag` updates."""

    def __init__(self, system: ActorLearner):
        self.system = system
        self.past: deque[tuple[int, list[Tensor]]] = deque(maxlen=system.lag + 1)
        self.actors = [
            _Actor(i, system.make_env, system.make_policy, system.unroll, _actor_seed(system.seed, i, 0))
            for i in range(system.num_actors)
        ]
        self.turn = 0

    def publish(self, version: int) -> None:
        self.past.append((version, self.system.weights()))

    def get(self) -> Rollout:
        actor = self.actors[self.turn]
        self.turn = (self.turn + 1) % len(self.actors)
        version, weights = self.past[0]
        _load(actor.policy, weights)
        return actor.collect(version)

    def ready(self) -> int:
        return 0

    def close(self) -> None:
        for actor in self.actors:
            actor.env.close()


class _Gate:
    """Tells actors when they may begin an unroll, where learning is synchronous."""

    def __init__(self, system: ActorLearner):
        self.synchronous = system.synchronous
        self.share = system.batch_unrolls // system.num_actors  # unrolls of each actor that an update takes

    def open(self, version: int, made: int, born: int) -> bool:
        """Whether an actor who made so many unrolls since version `born` may begin another."""
        return not self.synchronous or made < (version - born + 1) * self.share


class _Thread:
    """Actors as threads of this process, handing over through a bounded queue."""

    def __init__(self, system: ActorLearner):
        self.system = system
        self.queue: Queue[Rollout | tuple[int, str]] = Queue(system.queue_size * system.num_actors)
        self.stop, self.change = threading.Event(), threading.Condition()
        self.published: tuple[int, list[Tensor]] = (system.version, system.weights())
        self.born, self.gate = system.version, _Gate(system)
        self.threads = [
            threading.Thread(target=self._act, args=(i,), name=f"actor-{i}", daemon=True)
            for i in range(system.num_actors)
        ]
        for thread in self.threads:
            thread.start()

    def _act(self, index: int) -> None:
        system = self.system
        try:
            seed = _actor_seed(system.seed, index, 0)
            actor = _Actor(index, system.make_env, system.make_policy, system.unroll, seed)
            while not self.stop.is_set():
                with self.change:
                    if not self.gate.open(self.published[0], actor.made, self.born):
                        self.change.wait(_PATIENCE)
                        continue
                    version, weights = self.published
                _load(actor.policy, weights)
                self._put(actor.collect(version))
            actor.env.close()
        except Exception:
            self._put((index, traceback.format_exc()))

    def _put(self, item: Rollout | tuple[int, str]) -> None:
        while not self.stop.is_set():
            try:
                self.queue.put(item, timeout=_PATIENCE)
                return
            except Full:
                continue

    def publish(self, version: int) -> None:
        # New tensors each time: no actor can read half of an update.
        with self.change:
            self.published = (version, self.system.weights())
            self.change.notify_all()

    def get(self) -> Rollout:
        item = self.queue.get()
        if isinstance(item, tuple):
            raise ActorError(f"actor {item[0]} raised:\n{item[1]}")
        return item

    def ready(self) -> int:
        return self.queue.qsize()

    def close(self) -> None:
        self.stop.set()
        while True:
            try:
                self.queue.get_nowait()
            except Empty:
                break
        for thread in self.threads:
            thread.join()


class _Shared:
    """Parameters in shared memory. `begun` and `done` bracket every write, so that a reader notices a torn copy."""

    def __init__(self, weights: list[Tensor], version: int):
        self.weights = [w.clone().share_memory_() for w in weights]
        self.begun = torch.full((1,), version, dtype=torch.int64).share_memory_()
        self.done = torch.full((1,), version, dtype=torch.int64).share_memory_()

    def write(self, weights: list[Tensor], version: int) -> None:
        self.begun.fill_(version)
        for mine, new in zip(self.weights, weights, strict=True):
            mine.copy_(new)
        self.done.fill_(version)

    def read(self, model: nn.Module) -> int:
        while True:
            version = int(self.done)
            _load(model, self.weights)
            if int(self.begun) == version:
                return version
            time.sleep(0)


class _Slot:
    """One unroll in shared memory. What has no fixed length (ends of episodes) gets room for every step."""

    def __init__(self, template: Rollout):
        self.tensors: dict[str, Tensor] = {}
        rows = template.transitions
        for name, value in template.tensors().items():
            final = name.startswith("final_")
            shape = (rows, *value.shape[1:]) if final else value.shape
            self.tensors[name] = torch.zeros(shape, dtype=value.dtype).share_memory_()
        if template.final_obs is None:  # no episode ended in the template: the shape is an observation's
            for name in [n for n in self.tensors if n.partition("/")[0] == "obs"]:
                like = self.tensors[name]
                room = torch.zeros((rows, *like.shape[2:]), dtype=like.dtype).share_memory_()
                self.tensors[name.replace("obs", "final_obs", 1)] = room
            if template.core_state is not None:
                for i, part in enumerate(template.core_state):
                    self.tensors[f"final_state/{i}"] = torch.zeros((rows, *part.shape[1:])).share_memory_()

    def write(self, rollout: Rollout) -> int:
        """Copy an unroll in; returns how many episodes ended in it."""
        ends = len(rollout.final_at)
        for name, value in rollout.tensors().items():
            room = self.tensors[name]
            (room[:ends] if name.startswith("final_") else room).copy_(value)
        return ends

    def read(self, ends: int) -> Rollout:
        """A copy of the unroll in it."""
        kept = {}
        for name, room in self.tensors.items():
            final = name.startswith("final_")
            if not final or ends or name == "final_at":
                kept[name] = (room[:ends] if final else room).clone()
        return Rollout.of(kept)


def _process_actor(
    pipe: Any,
    index: int,
    life: int,
    make_env: MakeEnv,
    make_policy: MakePolicy,
    unroll: int,
    seed: int,
    shared: _Shared,
    slots: list[_Slot],
    gate: _Gate,
    born: int,
) -> None:
    """Body of an actor's process: wait for a free slot, act, tell the learner."""
    torch.set_num_threads(1)
    try:
        actor = _Actor(index, make_env, make_policy, unroll, _actor_seed(seed, index, life))
        while True:
            slot = pipe.recv()
            if slot is None:
                break
            while not gate.open(int(shared.done), actor.made, born):
                time.sleep(0.0005)
                if pipe.poll() and pipe.recv() is None:
                    return
            version = shared.read(actor.policy)
            rollout = actor.collect(version)
            pipe.send((slot, slots[slot].write(rollout)))
        actor.env.close()
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return  # the learner is gone
    except Exception:
        pipe.send((None, traceback.format_exc()))


class _Process:
    """Actors as processes, each with its own pipe and slots: one that is killed can hold no lock of the others'."""

    def __init__(self, system: ActorLearner):
        self.system = system
        self.context = torch.multiprocessing.get_context("spawn")
        template_actor = _Actor(0, system.make_env, system.make_policy, system.unroll, 0)
        template = template_actor.collect(0)
        template_actor.env.close()
        self.shared = _Shared(system.weights(), system.version)
        self.slots = [[_Slot(template) for _ in range(system.queue_size)] for _ in range(system.num_actors)]
        self.lives = [0] * system.num_actors
        self.gate = _Gate(system)
        self.pipes: list[Any] = [None] * system.num_actors
        self.processes: list[Any] = [None] * system.num_actors
        self.full: deque[Rollout] = deque()
        for index in range(system.num_actors):
            self._spawn(index)

    def _spawn(self, index: int) -> None:
        system = self.system
        mine, theirs = self.context.Pipe()
        process = self.context.Process(
            target=_process_actor,
            name=f"actor-{index}",
            daemon=True,
            args=(
                theirs,
                index,
                self.lives[index],
                system.make_env,
                system.make_policy,
                system.unroll,
                system.seed,
                self.shared,
                self.slots[index],
                self.gate,
                system.version,
            ),
        )
        process.start()
        theirs.close()
        for slot in range(len(self.slots[index])):
            mine.send(slot)
        self.pipes[index], self.processes[index] = mine, process

    def publish(self, version: int) -> None:
        self.shared.write(self.system.weights(), version)

    def _drain(self, timeout: float) -> None:
        """Fetch what is ready; wait up to `timeout` for something to be."""
        from multiprocessing.connection import wait

        sentinels = {process.sentinel: i for i, process in enumerate(self.processes)}
        of_pipe = {id(pipe): i for i, pipe in enumerate(self.pipes)}
        dead = []
        for event in wait([*self.pipes, *sentinels], timeout):
            if id(event) in of_pipe:
                self._receive(of_pipe[id(event)])
            else:
                dead.append(sentinels[event])
        for index in dead:
            while self.pipes[index].poll():  # what it sent before it died
                if not self._receive(index):
                    break
            self.pipes[index].close()
            self.system.died(index)
            self.lives[index] += 1
            self._spawn(index)

    def _receive(self, index: int) -> bool:
        try:
            slot, what = self.pipes[index].recv()
        except (EOFError, ConnectionResetError):
            return False
        if slot is None:
            raise ActorError(f"actor {index} raised:\n{what}")
        self.full.append(self.slots[index][slot].read(what))
        try:
            self.pipes[index].send(slot)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def get(self) -> Rollout:
        while not self.full:
            self._drain(_PATIENCE)
        return self.full.popleft()

    def ready(self) -> int:
        self._drain(0)
        return len(self.full)

    def close(self) -> None:
        for pipe in self.pipes:
            try:
                pipe.send(None)
            except OSError:
                continue  # its actor is gone already
        for process, pipe in zip(self.processes, self.pipes, strict=True):
            process.join(2)
            if process.is_alive():  # in the middle of a long unroll
                process.kill()
                process.join()
            pipe.close()


class _Ray:
    """Actors as Ray actors: parameters put once a version, unrolls as object references."""

    def __init__(self, system: ActorLearner):
        self.ray = require("ray", "ray")
        self.system, self.started = system, False
        if not self.ray.is_initialized():
            self.ray.init(
                log_to_driver=False, include_dashboard=False, num_cpus=max(2, system.num_actors + 1)
            )
            self.started = True
        self.remote = self.ray.remote(num_cpus=1, max_restarts=0)(_RayActor)
        self.lives = [0] * system.num_actors
        self.actors = [self._spawn(i) for i in range(system.num_actors)]
        self.version, self.weights = system.version, self.ray.put(system.weights())
        self.flying: list[deque[Any]] = [deque() for _ in self.actors]
        """Of every actor the unrolls asked for, in order."""
        self.gate, self.made = _Gate(system), [0] * system.num_actors
        self.born = [system.version] * system.num_actors

    def _spawn(self, index: int) -> Any:
        system = self.system
        seed = _actor_seed(system.seed, index, self.lives[index])
        return self.remote.remote(index, system.make_env, system.make_policy, system.unroll, seed)

    def _launch(self) -> None:
        for index, (actor, flying) in enumerate(zip(self.actors, self.flying, strict=True)):
            # An actor works one call at a time, with the parameters of the moment the call was made: so no more
            # than two may wait.
            while len(flying) < min(self.system.queue_size, 2) and self.gate.open(
                self.version, self.made[index], self.born[index]
            ):
                flying.append(actor.unroll.remote(self.weights, self.version))
                self.made[index] += 1

    def publish(self, version: int) -> None:
        self.version, self.weights = version, self.ray.put(self.system.weights())
        self._launch()

    def get(self) -> Rollout:
        while True:
            self._launch()
            heads = {flying[0]: index for index, flying in enumerate(self.flying) if flying}
            done, _ = self.ray.wait(list(heads), num_returns=1)
            index = heads[done[0]]
            try:
                tensors = self.ray.get(self.flying[index].popleft())
            except self.ray.exceptions.RayActorError:
                self._replace(index)
                continue
            except self.ray.exceptions.RayTaskError as error:
                raise ActorError(f"actor {index} raised:\n{error}") from error
            return Rollout.of(tensors)

    def _replace(self, index: int) -> None:
        self.system.died(index)
        self.flying[index].clear()
        self.lives[index] += 1
        self.made[index], self.born[index] = 0, self.version
        self.actors[index] = self._spawn(index)

    def ready(self) -> int:
        waiting = [ref for flying in self.flying for ref in flying]
        if not waiting:
            return 0
        done, _ = self.ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return len(done)

    def close(self) -> None:
        for actor in self.actors:
            self.ray.kill(actor)
        if self.started:
            self.ray.shutdown()


class _RayActor:
    def __init__(self, index: int, make_env: MakeEnv, make_policy: MakePolicy, unroll: int, seed: int):
        torch.set_num_threads(1)
        self.actor = _Actor(index, make_env, make_policy, unroll, seed)

    def unroll(self, weights: list[Tensor], version: int) -> dict[str, Tensor]:
        _load(self.actor.policy, weights)
        return self.actor.collect(version).tensors()


_BACKENDS: dict[str, Callable[[ActorLearner], Any]] = {
    "inline": _Inline,
    "thread": _Thread,
    "process": _Process,
    "ray": _Ray,
}
