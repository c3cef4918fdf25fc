"""What stacking small networks gains: ratios measured in one process against a loop over torch modules.

    python benchmarks/ensemble.py

Bars: 32 members of 196-64-10, batch 16, plain SGD, step at least 6 times faster than a loop over 32 torch models with
`torch.optim.SGD`; 40 whole trainings of 196-64-64-10 at least 6 times faster than one after the other.
"""

import torch
from _timing import interleaved
from torch.nn import functional as F

from assay.data import EpochBatches
from assay.nn import EnsembleMLP, ensemble_cross_entropy
from assay.optim import EnsembleOptimizer

ROUNDS = 9


def step_times(
    sizes: tuple[int, ...], members: int, batch: int, kind: str, norm: str | None
) -> tuple[float, float]:
    """Seconds of one step of all members: stacked, and one after the other; medians over alternate rounds."""
    net = EnsembleMLP(sizes, members, norm=norm)
    decay = {"weight_decay": 1e-2, "decay": "lr_scaled"} if kind == "adam" else {}
    stacked = EnsembleOptimizer(net.parameters(), kind, lr=1e-3, **decay)
    models = [net.member(k) for k in range(members)]
    solo = [
        torch.optim.AdamW(m.parameters(), lr=1e-3)
        if kind == "adam"
        else torch.optim.SGD(m.parameters(), lr=1e-3)
        for m in models
    ]
    x, y = torch.randn(members, batch, sizes[0]), torch.randint(sizes[-1], (members, batch))

    def together() -> None:
        for _ in range(10):
            stacked.zero_grad()
            ensemble_cross_entropy(net(x), y).sum().backward()
            stacked.step()

    def one_by_one() -> None:
        for k, (model, optimizer) in enumerate(zip(models, solo, strict=True)):
            optimizer.zero_grad()
            F.cross_entropy(model(x[k]), y[k]).backward()
            optimizer.step()

    seconds = interleaved({"together": together, "one by one": one_by_one}, ROUNDS)
    return seconds["together"] / 10, seconds["one by one"]


def training_times(members: int, batch: int, steps: int = 60) -> tuple[float, float]:
    """Seconds of whole trainings of 196-64-64-10 with AdamW, own data order each: together, and one after the other."""
    x, y = torch.randn(1000, 196), torch.randint(10, (1000,))

    def orders() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(k) for k in range(members)]

    def together() -> None:
        net = EnsembleMLP((196, 64, 64, 10), members, generators=orders())
        optimizer = EnsembleOptimizer(net.parameters(), "adam", lr=1e-3, weight_decay=1e-2, decay="lr_scaled")
        batches = EpochBatches(len(x), batch, orders())
        for _ in range(steps):
            index = next(batches)
            optimizer.zero_grad()
            ensemble_cross_entropy(net(x[index]), y[index]).sum().backward()
            optimizer.step()

    def one_by_one() -> None:
        for order in orders():
            model = EnsembleMLP((196, 64, 64, 10), 1, generators=[order]).member(0)
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
            batches = EpochBatches(len(x), batch, [order])
            for _ in range(steps):
                index = next(batches)[0]
                optimizer.zero_grad()
                F.cross_entropy(model(x[index]), y[index]).backward()
                optimizer.step()

    seconds = interleaved({"together": together, "one by one": one_by_one}, 3)
    return seconds["together"], seconds["one by one"]


if __name__ == "__main__":
    torch.set_num_threads(2)
    for sizes, members, batch, kind, norm, bar in (
        ((196, 64, 10), 32, 16, "sgd", None, "at least 6"),
        ((196, 64, 64, 10), 40, 50, "adam", None, "none"),
        ((196, 64, 64, 10), 40, 50, "adam", "batch", "none"),
        ((196, 100, 100, 10), 20, 64, "sgd", "batch", "none"),
    ):
        stacked, loop = step_times(sizes, members, batch, kind, norm)
        print(
            f"{members} x {'-'.join(map(str, sizes))}, batch {batch}, {kind}{', batch norm' if norm else ''}: "
            f"{loop / stacked:.1f} times faster than a loop (bar: {bar}); {1e3 * stacked:.2f} ms a step of all"
        )
    for threads in (1, 2):
        torch.set_num_threads(threads)
        stacked, loop = training_times(40, 50)
        print(
            f"40 whole trainings of 196-64-64-10, batch 50, AdamW, {threads} thread{'s' if threads > 1 else ''}: "
            f"{loop / stacked:.1f} times faster than one after the other (bar with 2 threads: at least 6)"
        )
