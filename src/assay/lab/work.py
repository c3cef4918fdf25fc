"""Performing one order: run the study's function on its pairs and store what it gives."""

import numbers
import os
import platform
import random
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from assay._version import __version__
from assay.lab import registry
from assay.lab.results import Status
from assay.lab.store import Pair, Store, StoreError
from assay.lab.study import Study
from assay.lab.trial import Batch, Reporter, TimeLimitReached, Trial, stream_seed

FLUSH = 2.0
"""After a pause of so many seconds, what a batch had yielded before it is written."""


@dataclass(frozen=True)
class Order:
    """One unit of work, in plain values so that it can travel to a process or another machine."""

    study: str
    profile: str
    changes: Mapping[str, Any] = field(hash=False)
    pairs: tuple[Pair, ...]
    fingerprint: str
    device: str = "cpu"
    time_limit: float = 1800.0
    results: str = ""
    board: str = ""

    @property
    def label(self) -> str:
        arms = list(dict.fromkeys(arm for arm, _ in self.pairs))
        what = arms[0] if len(arms) == 1 else f"{len(arms)} arms"
        return f"{what} #{self.pairs[0][1]}" if len(self.pairs) == 1 else f"{what} x {len(self.pairs)}"

    def record(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> "Order":
        return cls(**{**record, "pairs": tuple((arm, seed) for arm, seed in record["pairs"])})


@dataclass(frozen=True)
class Outcome:
    """How an order ended. `pairs` are those that have no result when it did not end well."""

    order: Order
    status: Status = "ok"
    error: str = ""
    trace: str = ""
    pairs: tuple[Pair, ...] = field(default_factory=tuple)
    fatal: bool = False


def perform(order: Order, report: Reporter | None = None) -> Outcome:
    """Run an order here and now, one torch thread. Whatever the study raises ends up in the outcome."""
    store = Store(order.results)
    done: list[Pair] = []
    try:
        study = registry.load(order.study)
        with _one_thread():
            _perform(study, order, store, report, done)
    except StoreError as error:
        return Outcome(order, "failed", str(error), pairs=_rest(order, done), fatal=True)
    except TimeLimitReached as error:
        return Outcome(order, "timeout", str(error), pairs=_rest(order, done))
    except Exception as error:
        text = f"{type(error).__name__}: {error}".strip().splitlines()
        trace = traceback.format_exc()
        if isinstance(error, OSError) and error.filename is None and error.errno in (27, 28, 122):
            # No space, quota or file-size limit met while an artifact was written.
            return Outcome(
                order, "failed", f"cannot write results: {error.strerror}", trace, _rest(order, done), True
            )
        return Outcome(order, "failed", text[0] if text else type(error).__name__, trace, _rest(order, done))
    return Outcome(order)


def _rest(order: Order, done: list[Pair]) -> tuple[Pair, ...]:
    return tuple(pair for pair in order.pairs if pair not in done)


def _perform(study: Study, order: Order, store: Store, report: Reporter | None, done: list[Pair]) -> None:
    experiment = study.experiment(order.pairs[0][0])
    config = study.part(order.pairs[0][0], study.configure(order.profile, order.changes))
    scratch = store.scratch(order.study)
    settings: dict[str, Any] = {
        "study": order.study,
        "profile": order.profile,
        "device": order.device,
        "folder": scratch,
        "time_limit": order.time_limit,
        "report": report,
        "board": _board(order.board) if order.board else None,
    }
    clock = _Clock()  # before the call: a batch that returns its answers has computed them by then
    try:
        if experiment.batch:
            run: Any = Batch(list(order.pairs), **settings)
            _seed_everything(order.study, -1)
            answers = iter(experiment.function(run, list(order.pairs), config))
        else:
            ((arm, seed),) = order.pairs
            run = Trial(arm, seed, **settings)
            _seed_everything(order.study, seed)
            answers = iter([lambda: experiment.function(run, arm, config)])
        waiting: list[dict[str, Any]] = []

        def flush() -> None:
            nonlocal scratch, waiting
            if not waiting:
                return
            share = clock.share(len(waiting))
            trials = [trial | share for trial in waiting]
            files = run.finish([(t["arm"], t["seed"]) for t in trials])
            following = store.scratch(order.study)
            run.move(following)
            store.commit(scratch, order.study, order.fingerprint, trials, files, environment(order.device))
            done.extend((t["arm"], t["seed"]) for t in trials)
            scratch, waiting = following, []

        pairs = iter(order.pairs)
        for answer in answers:
            metrics = answer() if callable(answer) else answer
            if clock.since_mark() > FLUSH:
                flush()
            clock.mark()
            try:
                arm, seed = next(pairs)
            except StopIteration:
                raise ValueError(f"the batch gave more than {len(order.pairs)} results") from None
            waiting.append({"arm": arm, "seed": seed, "status": "ok", "metrics": checked(metrics)})
        if len(done) + len(waiting) != len(order.pairs):
            raise ValueError(
                f"the batch gave {len(done) + len(waiting)} results for {len(order.pairs)} pairs"
            )
        flush()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def checked(metrics: Any) -> dict[str, float]:
    """Metrics as plain floats, or a TypeError that names the one that is no number."""
    if not isinstance(metrics, Mapping) or not metrics:
        raise TypeError(f"a trial returns a non-empty dict of metrics, not {type(metrics).__name__}")
    plain: dict[str, float] = {}
    for name, value in metrics.items():
        if not isinstance(name, str):
            raise TypeError(f"metric names are text, not {name!r}")
        if hasattr(value, "item"):  # a tensor, an array or a numpy scalar
            count = value.numel() if hasattr(value, "numel") else value.size
            value = value.item() if count == 1 else value
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"metric {name!r} must be a number, not {type(value).__name__}")
        plain[name] = float(value)
    return plain


class _Clock:
    """Wall time, processor time and peak memory of the answers since the last share was taken.

    Answers that come close together were computed together and share the time; after a pause they are on their own.
    """

    def __init__(self) -> None:
        self._start = self._last = self._now()

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), time.time()

    def mark(self) -> None:
        """An answer came."""
        self._last = self._now()

    def since_mark(self) -> float:
        return time.perf_counter() - self._last[0]

    def share(self, n: int) -> dict[str, Any]:
        (wall, cpu, since), (wall_end, cpu_end, until) = self._start, self._last
        self._start = self._last
        return {
            "seconds": (wall_end - wall) / n,
            "cpu_seconds": (cpu_end - cpu) / n,
            "peak_memory": peak_memory(),
            "started": since,
            "ended": until,
        }


def peak_memory() -> float:
    """Largest resident size of this process so far, in MiB (0 where the system does not tell)."""
    try:
        import resource
    except ImportError:
        return 0.0
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(size / (2**20 if sys.platform == "darwin" else 2**10), 1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread, so that a trial's numbers do not depend on where it runs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seed_everything(study: str, seed: int) -> None:
    import torch

    value = stream_seed(study, "global", seed)
    random.seed(value)
    np.random.seed(value % 2**32)  # noqa: NPY002 - third-party code reads the global state
    torch.manual_seed(value)


def _board(folder: str) -> Callable[[str, int], Any]:
    def make(arm: str, seed: int) -> Any:
        from assay._extras import require

        require("tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(Path(folder) / arm / f"seed-{seed}"))

    return make


@lru_cache(maxsize=4)
def environment(device: str = "cpu") -> Mapping[str, Any]:
    """Versions and machine, as every record keeps them."""
    import scipy
    import torch

    cuda = device.startswith("cuda")
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "assay": __version__,
        "commit": git_commit(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(device) if cuda else "",
        "device": device,
        "threads": 1,
    }


def git_commit() -> str:
    """The commit of the checkout that assay is imported from, "+" behind it if its source differs ("" if none)."""
    here = Path(__file__).resolve().parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=10", "HEAD"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", str(here.parent)],
            cwd=here, capture_output=True, text=True, timeout=5, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + ("+" if changed else "")


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()
