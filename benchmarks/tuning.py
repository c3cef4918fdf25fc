"""What a tuning sweep costs as ensembles, against one training after the other; a ratio measured in one run.

    python benchmarks/tuning.py

Bar: five methods x five rates x five seeds of a perceptron (196-100-100-10, batches of 64) at least 5 times as fast as
a loop over torch.optim. Both sides draw the same batches; the loop is timed on one seed and one rate of every method.
On one CPU core the bar is missed (about 2): products of this size are bound by arithmetic, and stacking saves
the launching of operations only.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy

from assay.data import EpochBatches
from assay.nn import EnsembleMLP, ensemble_cross_entropy
from assay.optim import EnsembleOptimizer

SIZES, BATCH, RATES, SEEDS, N = (196, 100, 100, 10), 64, 5, 5, 2000
METHODS: dict[str, Callable] = {
    "sgd": torch.optim.SGD,
    "momentum": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9),
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adam": torch.optim.Adam,
}


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(k) for k in range(count)]


def together(kind: str, x: torch.Tensor, y: torch.Tensor, steps: int) -> float:
    """Seconds of all rates and seeds of one method as one ensemble."""
    members = RATES * SEEDS
    net = EnsembleMLP(SIZES, members, generators=generators(members))
    optimizer = EnsembleOptimizer(net.parameters(), kind, lr=torch.logspace(-4, -2, members))
    batches = EpochBatches(N, BATCH, generators(members))
    begun = time.perf_counter()
    for _ in range(steps):
        index = next(batches)
        optimizer.zero_grad()
        ensemble_cross_entropy(net(x[index]), y[index]).sum().backward()
        optimizer.step()
    return time.perf_counter() - begun


def one_by_one(kind: str, x: torch.Tensor, y: torch.Tensor, steps: int) -> float:
    """Seconds of the same as a loop, from one training of it."""
    net = EnsembleMLP(SIZES, 1, generators=generators(1)).member(0)
    optimizer = METHODS[kind](net.parameters(), 1e-3)
    batches = EpochBatches(N, BATCH, generators(1))
    begun = time.perf_counter()
    for _ in range(steps):
        index = next(batches)[0]
        optimizer.zero_grad()
        cross_entropy(net(x[index]), y[index]).backward()
        optimizer.step()
    return (time.perf_counter() - begun) * RATES * SEEDS


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    x, y = torch.randn(N, SIZES[0]), torch.randint(SIZES[-1], (N,))
    whole = {"together": 0.0, "one by one": 0.0}
    for kind in METHODS:
        together(kind, x, y, 3), one_by_one(kind, x, y, 10)
        pairs = [(together(kind, x, y, 20), one_by_one(kind, x, y, 60) / 3) for _ in range(5)]  # taking turns
        a, b = (statistics.median(times) for times in zip(*pairs, strict=True))
        whole["together"] += a
        whole["one by one"] += b
        print(f"{kind}: {RATES * SEEDS} trainings as one ensemble are {b / a:.1f} times as fast as a loop")
    print(f"whole sweep: {whole['one by one'] / whole['together']:.1f} times as fast (bar: at least 5)")


if __name__ == "__main__":
    main()
