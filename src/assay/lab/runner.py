"""Running a study: what is finished is reused, the rest is ordered, and the results come back whole."""

import importlib.util
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from assay._extras import MissingExtra, missing, pip_command
from assay.lab import executor as executors
from assay.lab.errors import InputError
from assay.lab.fingerprint import fingerprint
from assay.lab.results import Results, TrialResult
from assay.lab.store import Pair, Store, StoreError
from assay.lab.study import Study
from assay.lab.work import Order, Outcome


class Display(Protocol):
    """Shows a run to somebody."""

    def begin(self, study: Study, profile: str, total: int, reused: int) -> None: ...
    def progress(self, label: str, fraction: float) -> None: ...
    def end(self, label: str, status: str, error: str, trials: int) -> None: ...
    def note(self, text: str) -> None: ...
    def finish(self) -> None: ...


class Silent:
    """Shows nothing."""

    def begin(self, study: Study, profile: str, total: int, reused: int) -> None: ...
    def progress(self, label: str, fraction: float) -> None: ...
    def end(self, label: str, status: str, error: str, trials: int) -> None: ...
    def note(self, text: str) -> None: ...
    def finish(self) -> None: ...


def run(
    study: Study,
    profile: str = "laptop",
    *,
    arms: Iterable[str] | None = None,
    extras: bool = False,
    seeds: int | None = None,
    first_seed: int = 0,
    changes: Mapping[str, Any] | None = None,
    executor: str | executors.Executor = "processes",
    workers: int | None = None,
    address: str | None = None,
    device: str = "cpu",
    results: str | Path | None = None,
    time_limit: float | None = None,
    board: str = "",
    display: Display | None = None,
) -> Results:
    """Run what is not finished yet and return all trials of the selection.

    Args:
        study: the study.
        profile: smoke, demo, laptop or paper.
        arms: names or globs (default: the profile's arms; `extras` adds the extra ones).
        seeds, first_seed: run these seeds in every arm instead of the study's own.
        changes: config values by dotted key.
        executor: "processes" (default), "inline", "ray", or an object.
        workers: processes (default: as many as cores).
        address: Ray cluster.
        device: torch device of the trials.
        results: folder (default: ASSAY_RESULTS, else ./results).
        time_limit: seconds for one unit of work instead of the study's own.
        board: folder for TensorBoard logs ("" for none).
        display: shows progress.

    Raises:
        InputError: the request makes no sense, or a package or data set is missing.
        StoreError: results cannot be written (disk full).
    """
    display = display or Silent()
    config = study.configure(profile, changes)
    names = study.select_arms(arms, extras, profile)
    wanted = [(arm, seed) for arm in names for seed in study.seeds_of(arm, profile, seeds, first_seed)]
    device = check_device(device)
    limit = study.time_limit if time_limit is None else time_limit
    if not limit > 0:
        raise InputError(f"the time limit must be positive, not {limit:g}")
    if board and importlib.util.find_spec("tensorboard") is None:
        raise InputError(f"--log tensorboard needs a package: {pip_command('tensorboard')}")
    check(study, profile, config)
    if isinstance(executor, str):
        try:
            executor = executors.make(executor, workers, address)
        except MissingExtra as error:
            raise InputError(str(error)) from None
    store = Store(results, warn=display.note)
    store.prepare(study.id)

    keys = {arm: key(study, arm, config, device) for arm in names}
    have = finished(store, study, keys, wanted)
    orders = [
        Order(
            study.id,
            profile,
            dict(changes or {}),
            pairs,
            keys[pairs[0][0]],
            device,
            limit,
            str(store.root),
            board,
        )
        for pairs in units(study, [pair for pair in wanted if pair not in have], keys)
    ]
    display.begin(study, profile, len(wanted), len(have))
    trouble: dict[Pair, Outcome] = {}

    def still_open(order: Order) -> Order | None:
        done = store.read(order.study, order.fingerprint)
        left = tuple(pair for pair in order.pairs if pair not in done)
        return None if not left else order if left == order.pairs else replace(order, pairs=left)

    try:
        for event in executor.run(executors.Queue(orders, store, still_open)):
            if isinstance(event, Outcome):
                if event.trace:
                    store.note_failure(study.id, event.pairs, event.trace)
                if event.fatal:
                    raise StoreError(f"{event.error} (results folder {store.root})")
                trouble.update(dict.fromkeys(event.pairs, event))
                display.end(event.order.label, event.status, event.error, len(event.order.pairs))
            else:
                display.progress(event.order.label, event.fraction)
    finally:
        display.finish()
    found = finished(store, study, keys, wanted)
    fresh = set(wanted) - set(have)
    return Results(
        study,
        profile,
        config,
        [_result(pair, found.get(pair), trouble.get(pair), reused=pair not in fresh) for pair in wanted],
    )


def _result(pair: Pair, found: TrialResult | None, trouble: Outcome | None, reused: bool) -> TrialResult:
    if found is not None:
        return replace(found, reused=reused)
    if trouble is not None:
        return TrialResult(*pair, trouble.status, error=trouble.error)
    return TrialResult(*pair, "failed", error="its result vanished from the results folder")


def key(study: Study, arm: str, config: Any, device: str = "cpu") -> str:
    """Under what the results of an arm are stored: its fingerprint, and the kind of device unless it is the cpu."""
    kind = device.partition(":")[0]
    return fingerprint(study, arm, config) + ("" if kind == "cpu" else f"-{kind}")


def finished(
    store: Store, study: Study, keys: Mapping[str, str], wanted: Iterable[Pair]
) -> dict[Pair, TrialResult]:
    """The wanted trials that the store has."""
    read = {k: store.read(study.id, k) for k in sorted(set(keys.values()))}
    return {pair: read[keys[pair[0]]][pair] for pair in wanted if pair in read[keys[pair[0]]]}


def collect(
    study: Study, profile: str = "laptop", *, results: str | Path | None = None, **selection: Any
) -> Results:
    """The finished trials of a selection as Results, without running anything; missing ones count as failed."""
    config = study.configure(profile, selection.pop("changes", None))
    names = study.select_arms(selection.pop("arms", None), selection.pop("extras", False), profile)
    seeds, first = selection.pop("seeds", None), selection.pop("first_seed", 0)
    wanted = [(arm, seed) for arm in names for seed in study.seeds_of(arm, profile, seeds, first)]
    found = finished(Store(results), study, {arm: key(study, arm, config) for arm in names}, wanted)
    missing_trial = TrialResult("", 0, "failed", error="has not been run")
    return Results(
        study, profile, config, [found.get(p) or replace(missing_trial, arm=p[0], seed=p[1]) for p in wanted]
    )


def units(study: Study, pairs: list[Pair], keys: Mapping[str, str]) -> list[tuple[Pair, ...]]:
    """Split trials into calls: one each, or as the study's batch function wants them grouped.

    Depends on the trials alone, never on the number of workers.
    """
    groups: dict[Any, list[Pair]] = {}
    for arm, seed in pairs:
        experiment = study.experiment(arm)
        if not experiment.batch:
            name: Any = (arm, seed)
        else:
            name = (id(experiment), {"arm": arm, "seed": seed, "all": ""}[experiment.group])
        groups.setdefault(name, []).append((arm, seed))
    made = []
    for group in groups.values():
        size = study.experiment(group[0][0]).size or len(group)
        made += [tuple(group[i : i + size]) for i in range(0, len(group), size)]
    return made


def check(study: Study, profile: str, config: Any) -> None:
    """Raise InputError where a package or data set that the run needs is missing."""
    if profile != "smoke":
        for extra in study.needs:
            if absent := missing(extra):
                raise InputError(f"study {study.id} needs {', '.join(absent)}: {pip_command(extra)}")
    for function in study.checks:
        try:
            function(config)
        except (ValueError, OSError, MissingExtra) as error:
            raise InputError(f"study {study.id}: {error}") from None


def check_device(device: str) -> str:
    """A torch device that exists here, or InputError."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?|mps", device):
        raise InputError(f"unknown device {device!r}: choose cpu, cuda, cuda:N or mps")
    if device == "cpu":
        return device
    import torch

    if device.startswith("cuda"):
        count = torch.cuda.device_count()
        index = int(device.partition(":")[2] or 0)
        if index >= count:
            raise InputError(
                f"device {device!r} is not there: this machine has {count} CUDA devices; use --device cpu"
            )
    elif not torch.backends.mps.is_available():
        raise InputError("device 'mps' is not there; use --device cpu")
    return device
