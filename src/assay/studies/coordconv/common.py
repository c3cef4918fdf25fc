"""What the experiments share: seeded networks, shuffled batches, a clock that counts training only."""

import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class Run(Protocol):
    """The part of a trial that the helpers use."""

    device: torch.device

    def generator(self, stream: str, device: str | torch.device | None = None) -> torch.Generator: ...


def build(run: Run, make: Callable[[], Network], stream: str = "network") -> Network:
    """A network on the run's device whose initial weights depend on the seed and the stream only."""
    torch.manual_seed(run.generator(stream, device="cpu").initial_seed())
    return make().to(run.device)


def batches(index: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless minibatches of `index`: every epoch in a new order; a remainder opens the next epoch."""
    rest = index[:0]
    while True:
        rest = torch.cat([rest, index[torch.randperm(len(index), generator=generator)]])
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]


def one_cycle(
    optimizer: torch.optim.Optimizer, rate: float, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Learning rate up from a 25th over the first 30 % of the steps, then down to nearly zero."""
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=max(steps, 2), cycle_momentum=False
    )


def checkpoints(steps: int, count: int) -> set[int]:
    """About `count` step numbers at which to look, the last one among them."""
    return {round((k + 1) * steps / count) - 1 for k in range(count)} | {steps - 1}


def parameters(net: nn.Module) -> float:
    """Number of trainable numbers."""
    return float(sum(p.numel() for p in net.parameters() if p.requires_grad))


class Stopwatch:
    """Seconds of training: runs inside `with`, stands while accuracy is measured."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> "Stopwatch":
        self._begun = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._begun
