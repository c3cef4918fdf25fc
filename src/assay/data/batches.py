"""Which examples a step sees: permutation epochs for one run or for many at once."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor


class EpochBatches(Iterator[Int64[Tensor, "members batch"]]):
    """Endless mini-batches without replacement for K runs at once, each in its own order.

    Every epoch of a run is a fresh permutation from its own generator, cut into batches; a ragged tail is
    dropped (so with n = 1,000 and batches of 300 an epoch has three).

    Args:
        n: examples.
        batch_size: examples a batch, at most n.
        generators: one a run (member). Equal seeds give equal orders.

    Raises:
        ValueError: batch_size is not in 1..n, or there is no generator.

    >>> batches = EpochBatches(6, 2, [torch.Generator().manual_seed(k) for k in range(3)])
    >>> next(batches).shape
    torch.Size([3, 2])
    """

    def __init__(self, n: int, batch_size: int, generators: Sequence[torch.Generator]):
        if not 1 <= batch_size <= n:
            raise ValueError(f"batch_size must lie in 1..{n}, the number of examples: got {batch_size}")
        if not generators:
            raise ValueError("give one generator for each run: got none")
        self.n, self.batch_size, self.generators = n, batch_size, list(generators)
        self.per_epoch = n // batch_size
        self._position = self.per_epoch
        self._order = torch.empty(0, dtype=torch.int64)

    def __iter__(self) -> "EpochBatches":
        return self

    def __next__(self) -> Int64[Tensor, "members batch"]:
        if self._position == self.per_epoch:
            self._order = torch.stack([torch.randperm(self.n, generator=g) for g in self.generators])
            self._position = 0
        first = self._position * self.batch_size
        self._position += 1
        return self._order[:, first : first + self.batch_size]

    def select(self, index: Tensor) -> None:
        """Go on with these runs only (see `assay.optim.select_members`)."""
        chosen = torch.arange(len(self.generators))[index]
        self.generators = [self.generators[int(k)] for k in chosen]
        if len(self._order):
            self._order = self._order[chosen]


def corrupt_labels(
    labels: Int64[Tensor, " n"], fraction: float, classes: int, generator: torch.Generator
) -> Int64[Tensor, " n"]:
    """Labels with exactly `round(fraction * n)` of them redrawn uniformly from all classes.

    A redrawn label may hit the true one, so a share `fraction * (1 - 1/classes)` is wrong on average; 1 gives
    random labels (Zhang et al. 2016, arXiv 1611.03530).
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction lies in 0..1: got {fraction}")
    chosen = torch.randperm(len(labels), generator=generator)[: round(fraction * len(labels))]
    drawn = torch.randint(classes, (len(chosen),), generator=generator)
    corrupted = labels.clone()
    corrupted[chosen.to(labels.device)] = drawn.to(labels.device)
    return corrupted
