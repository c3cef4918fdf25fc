"""What stacking seeds gains: one optimizer step of eight seeds of a 64-unit network, together and one after the other.

    python benchmarks/stacked.py

Bars: eight seeds of a multilayer perceptron (16-64-64-4, batch 64, Adam) step at least 2 times faster stacked than one
after the other; eight LSTMs of 64 units (16 steps, batch 16) are reported beside them.
"""

from collections.abc import Callable

import torch
from _timing import interleaved
from torch import Tensor, nn

from assay.nn import EnsembleMLP, StackedLSTM, stack_seeds

SEEDS, ROUNDS, STEPS = 8, 15, 10


def stepper(model: nn.Module, loss: Callable[[nn.Module], Tensor], **options: bool) -> Callable[[], None]:
    """Makes steps of Adam."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, **options)

    def run() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss(model).backward()
            optimizer.step()

    return run


def mlp() -> nn.Module:
    """16-64-64-4."""
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))


def main() -> None:
    """Print both ratios."""
    x = torch.randn(SEEDS, 64, 16)

    def loss(model: nn.Module) -> Tensor:
        return model(x).square().mean((1, 2)).sum()

    each = [
        stepper(mlp(), lambda model, row=row: model(row).square().mean())  # type: ignore[misc]
        for row in x
    ]
    programs = {
        "one by one": lambda: [run() for run in each],
        "stacked": stepper(stack_seeds(mlp, SEEDS), loss),
        "EnsembleMLP": stepper(EnsembleMLP((16, 64, 64, 4), SEEDS), loss),
    }
    seconds = interleaved(programs, ROUNDS)
    for name in ("stacked", "EnsembleMLP"):
        ratio = seconds["one by one"] / seconds[name]
        print(f"{SEEDS} seeds of a 64-unit MLP, one by one / {name}: {ratio:.1f}x")

    sequence = torch.randn(SEEDS, 16, 16, 16)

    def last(model: nn.Module) -> Tensor:
        return model(sequence)[0].square().mean((1, 2, 3)).sum()

    each = [
        stepper(nn.LSTM(16, 64), lambda model, row=row: model(row)[0].square().mean())  # type: ignore[misc]
        for row in sequence
    ]
    programs = {
        "one by one": lambda: [run() for run in each],
        "stacked": stepper(stack_seeds(lambda: nn.LSTM(16, 64), SEEDS), last),
        "StackedLSTM": stepper(StackedLSTM(SEEDS, 16, 64), last),
    }
    seconds = interleaved(programs, ROUNDS)
    for name in ("stacked", "StackedLSTM"):
        ratio = seconds["one by one"] / seconds[name]
        print(f"{SEEDS} seeds of a 64-unit LSTM, one by one / {name}: {ratio:.1f}x")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
