"""Where orders are performed: in this process, in a pool of processes, or on a Ray cluster.

An executor takes orders from a `Queue` until it is empty and yields events: progress, and an `Outcome` for each order.
Metrics do not travel through it: they are in the store before the outcome is reported.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol

from assay.lab.errors import InputError
from assay.lab.store import Store
from assay.lab.work import Order, Outcome, perform

EXECUTORS = ("processes", "inline", "ray")
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
GRACE = 5.0
"""Seconds that a trial past its limit gets to stop by itself before its process is killed."""


@dataclass(frozen=True)
class Progress:
    """An order has started (fraction 0) or got on."""

    order: Order
    fraction: float


Event = Progress | Outcome


class Queue:
    """Orders waiting for a worker. An order that another `assay run` is performing is waited for, not run twice."""

    def __init__(
        self, orders: Iterable[Order], store: Store, finished: Callable[[Order], Order | None]
    ) -> None:
        self._waiting = deque(orders)
        self._store = store
        self._finished = finished
        self._locks: dict[Order, Any] = {}
        self._source: dict[Order, Order] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self) -> Order | None:
        """The next order that is free, locked for us; None if there is none now (more may come free)."""
        for _ in range(len(self._waiting)):
            order = self._waiting.popleft()
            lock = self._store.lock(order.study, order.fingerprint, list(order.pairs))
            if lock is None:
                self._waiting.append(order)
                continue
            left = self._finished(order)  # another run may have finished some of it since we looked
            if left is None:
                lock.release()
                continue
            self._locks[left] = lock
            return left
        return None

    def give_back(self, order: Order) -> None:
        """Try an order again later."""
        self.done(order)
        self._waiting.append(order)

    def done(self, order: Order) -> None:
        """Free the lock of an order."""
        lock = self._locks.pop(order, None)
        if lock is not None:
            lock.release()


class Executor(Protocol):
    """Performs the orders of a queue."""

    def run(self, orders: Queue) -> Iterator[Event]:
        """Yield events until the queue is empty and every order taken has its outcome."""
        ...


class Inline:
    """One order after the other, in this process: for debugging, and as the yardstick for the others."""

    def run(self, orders: Queue) -> Iterator[Event]:
        while orders:
            order = orders.take()
            if order is None:
                time.sleep(0.3)
                continue
            yield Progress(order, 0.0)
            outcome = perform(order)
            orders.done(order)
            yield outcome


class _Worker:
    """A process that performs orders read as JSON lines from its standard input."""

    def __init__(self, number: int, inbox: "queue.Queue[tuple[_Worker, dict[str, Any] | None]]") -> None:
        self.number = number
        self.order: Order | None = None
        self.started = 0.0
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        flags: dict[str, Any] = (
            {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
            if os.name == "nt"
            else {"start_new_session": True}  # Ctrl-C reaches the parent alone, which stops the workers
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "assay.lab.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=os.environ | ONE_THREAD,
            **flags,
        )
        threading.Thread(target=self._listen, args=(inbox,), daemon=True).start()

    def _listen(self, inbox: "queue.Queue[tuple[_Worker, dict[str, Any] | None]]") -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                inbox.put((self, json.loads(line)))
            except ValueError:
                continue  # cut short by a crash; the end of the stream tells the rest
        self.process.wait()
        inbox.put((self, None))

    def send(self, order: Order) -> None:
        assert self.process.stdin is not None
        self.order, self.started = order, time.monotonic()
        try:
            self.process.stdin.write(json.dumps(order.record()).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            self.process.kill()  # its end is reported by the listener

    def late(self) -> bool:
        return self.order is not None and time.monotonic() - self.started > self.order.time_limit + GRACE

    def close(self, kill: bool = False) -> None:
        if kill:
            self.process.kill()
        elif self.process.stdin is not None:
            try:
                self.process.stdin.close()
            except OSError:
                self.process.kill()

    def last_words(self) -> str:
        """Why the process ended: its signal or exit code, and the last line it wrote."""
        code = self.process.returncode
        try:
            what = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        except ValueError:
            what = f"exit code {code}"
        self.log.seek(0)
        lines = self.log.read()[-2000:].decode(errors="replace").strip().splitlines()
        return f"{what}{f': {lines[-1]}' if lines else ''}"


class Processes:
    """A pool of processes, one torch thread each. A worker that dies costs its order only, which is retried once."""

    def __init__(self, workers: int | None = None) -> None:
        self.workers = check_workers(workers)

    def run(self, orders: Queue) -> Iterator[Event]:
        inbox: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        pool: list[_Worker] = []
        idle: list[_Worker] = []
        retried: set[Order] = set()
        made = 0
        try:
            while orders or any(w.order for w in pool):
                while orders and (idle or len(pool) < self.workers):
                    order = orders.take()
                    if order is None:
                        break
                    if not idle:
                        made += 1
                        pool.append(_Worker(made, inbox))
                        idle.append(pool[-1])
                    worker = idle.pop()
                    worker.send(order)
                    yield Progress(order, 0.0)
                try:
                    worker, message = inbox.get(timeout=0.3)
                except queue.Empty:
                    for worker in pool:
                        if worker.late():
                            worker.process.kill()
                    continue
                order = worker.order
                if message is None:  # the process has ended
                    if worker in pool:
                        pool.remove(worker)
                    if worker in idle:
                        idle.remove(worker)
                    if order is None:
                        continue
                    if worker.late():
                        orders.done(order)
                        limit = f"longer than its time limit of {order.time_limit:g} s"
                        yield Outcome(order, "timeout", limit, pairs=order.pairs)
                    elif order in retried:
                        orders.done(order)
                        yield Outcome(
                            order,
                            "died",
                            f"its process ended twice ({worker.last_words()})",
                            pairs=order.pairs,
                        )
                    else:
                        retried.add(order)
                        orders.give_back(order)
                elif "fraction" in message and order is not None:
                    yield Progress(order, message["fraction"])
                elif order is not None:
                    worker.order = None
                    idle.append(worker)
                    orders.done(order)
                    pairs = tuple((arm, seed) for arm, seed in message["pairs"])
                    yield Outcome(
                        order, message["status"], message["error"], message["trace"], pairs, message["fatal"]
                    )
        finally:
            busy = any(w.order for w in pool)
            for worker in pool:
                worker.close(kill=busy)
            for worker in pool:
                try:
                    worker.process.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    worker.process.kill()


class Ray:
    """Orders as tasks of a Ray cluster; what they write comes back as bytes, so nodes need no shared disk."""

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        self.workers = workers if workers is None else check_workers(workers)
        self.address = address

    def run(self, orders: Queue) -> Iterator[Event]:
        from assay._extras import require

        ray = require("ray", "ray")
        ours = not ray.is_initialized()
        if ours:
            variables = ONE_THREAD | {k: v for k, v in os.environ.items() if k.startswith("ASSAY_")}
            local = (
                {} if self.address else {"num_cpus": check_workers(self.workers), "include_dashboard": False}
            )
            try:
                ray.init(
                    address=self.address,
                    log_to_driver=False,
                    logging_level="ERROR",
                    runtime_env={"env_vars": variables},
                    **local,
                )
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise InputError(f"no Ray cluster at {self.address or 'this machine'}: {error}") from None
        limit = self.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        task = ray.remote(max_retries=1, num_cpus=1)(perform_elsewhere)
        running: dict[Any, tuple[Order, float]] = {}
        try:
            while orders or running:
                while orders and len(running) < limit:
                    order = orders.take()
                    if order is None:
                        break
                    running[task.remote(order.record())] = (order, time.monotonic())
                    yield Progress(order, 0.0)
                ready, _ = ray.wait(list(running), timeout=0.3) if running else ([], [])
                if not running:
                    time.sleep(0.3)
                for reference in ready:
                    order, _ = running.pop(reference)
                    try:
                        outcome = _unpack(order, ray.get(reference))
                    except ray.exceptions.RayError as error:
                        outcome = Outcome(
                            order, "died", f"its Ray worker ended ({type(error).__name__})", pairs=order.pairs
                        )
                    orders.done(order)
                    yield outcome
                for reference, (order, started) in list(running.items()):
                    if time.monotonic() - started > order.time_limit + GRACE and reference not in ready:
                        ray.cancel(reference, force=True)
                        del running[reference]
                        orders.done(order)
                        text = f"longer than its time limit of {order.time_limit:g} s"
                        yield Outcome(order, "timeout", text, pairs=order.pairs)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
            if ours:
                ray.shutdown()


def perform_elsewhere(record: dict[str, Any]) -> dict[str, Any]:
    """Perform an order in a temporary folder; the outcome and every file written, as plain values."""
    with tempfile.TemporaryDirectory(prefix="assay-") as folder:
        outcome = perform(replace(Order.parse(record), results=folder, board=""))
        files = {}
        for path in Path(folder).rglob("*"):
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
                files[path.relative_to(folder).as_posix()] = path.read_bytes()
    return {
        "status": outcome.status,
        "error": outcome.error,
        "trace": outcome.trace,
        "pairs": outcome.pairs,
        "files": files,
    }


def _unpack(order: Order, answer: dict[str, Any]) -> Outcome:
    """Put the files of a distant worker into the store, unit by unit."""
    store = Store(order.results)
    base = Path(order.study) / order.fingerprint
    units: dict[str, dict[str, bytes]] = {}
    for name, content in answer["files"].items():
        unit, _, inner = Path(name).relative_to(base).as_posix().partition("/")
        units.setdefault(unit, {})[inner] = content
    for unit, files in units.items():
        store.adopt(order.study, order.fingerprint, unit, files)
    pairs = tuple((arm, seed) for arm, seed in answer["pairs"])
    return Outcome(order, answer["status"], answer["error"], answer["trace"], pairs)


def check_workers(workers: int | None) -> int:
    """The number of workers: as many as usable cores unless given."""
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers < 1:
        raise InputError(f"workers must be at least 1, not {workers}")
    return workers


def make(name: str, workers: int | None = None, address: str | None = None) -> Executor:
    """An executor by name."""
    from assay.lab.errors import unknown

    if address and name != "ray":
        raise InputError("--address goes with --executor ray")
    if name == "inline":
        check_workers(workers)
        return Inline()
    if name == "processes":
        return Processes(workers)
    if name == "ray":
        from assay._extras import require

        require("ray", "ray")
        return Ray(workers, address)
    raise unknown("executor", name, EXECUTORS)
