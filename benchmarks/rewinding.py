"""What it saves to prune many rewinding points as one ensemble, as a ratio measured in one run on one machine.

    python benchmarks/rewinding.py

Bar: iterative pruning from 6 rewinding points (ten layers of 64 with batch norm, 3 rounds) takes at most 1/2.5 of the
time of `IterativePruner` on one point after the other. Both train the dense network once, on the same batches.
"""

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from _timing import interleaved
from torch import nn
from torch.nn.functional import cross_entropy

from assay.analysis.pruning import IterativePruner, RewindStore, Snapshot, TrainState
from assay.studies.late_resetting.config import StackConfig
from assay.studies.late_resetting.stack import Bench, Pruning, Spec

STEPS = 60
POINTS = (0, 1, 3, 8, 15, 30)


class Streams:
    """The part of a batch of trials that the ensemble needs."""

    device = torch.device("cpu")

    def generator(self, stream: str, seed: int, device: str | None = None) -> torch.Generator:
        """A generator for each name and seed."""
        return torch.Generator().manual_seed(sum(map(ord, stream)) + seed)

    def steps(self, n: int) -> Iterable[int]:
        """0 .. n - 1."""
        return range(n)


def together(bench: Bench) -> None:
    """All points as members of one ensemble."""
    specs = {str(k): Spec(rewind=k) for k in POINTS}
    list(Pruning(bench, specs, [(name, 0) for name in specs], keep=()).rounds())


def one_by_one(bench: Bench) -> None:
    """One network at a time, from a shared dense run."""
    config = bench.config

    def network() -> nn.Module:
        return bench.load([bench.fresh("init", 0)]).member(0)

    def train(model: nn.Module, resume: Snapshot | None, store: RewindStore) -> dict[str, float]:
        optimizer = torch.optim.SGD(model.parameters(), config.rate, momentum=config.momentum)
        drops = [math.ceil(share * config.steps) for share in config.drops]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, drops)
        state = TrainState(model, optimizer, schedule)
        if resume is not None:
            state.restore(resume)
        while state.step < config.steps:
            store.visit(state)
            index = bench.orders[0, state.step]
            optimizer.zero_grad()
            cross_entropy(model(bench.train_x[index]), bench.train_y[index]).backward()
            optimizer.step()
            schedule.step()
            state.step += 1
        store.visit(state)
        return {}

    store = RewindStore(POINTS)
    pruner = IterativePruner(network, train, per_layer_rate=0.6, scope="global", store=store)
    dense = pruner.train_dense()
    for k in POINTS:
        last = dense
        for _ in config.densities:
            last = pruner.branch(last, pruner.next_masks(last), rewind_step=k)


def ratio(repeats: int = 3) -> float:
    """Seconds one by one over seconds together; they take turns, so that a busy machine slows both alike."""
    bench = Bench(Streams(), [0], replace(StackConfig(), steps=STEPS))  # type: ignore[arg-type]
    times = interleaved(
        {"together": lambda: together(bench), "one by one": lambda: one_by_one(bench)}, repeats
    )
    return times["one by one"] / times["together"]


def main() -> None:
    """Print the ratio."""
    torch.set_num_threads(1)
    print(f"one by one takes {ratio():.1f} times as long as one ensemble (bar: at least 2.5)")


if __name__ == "__main__":
    main()
