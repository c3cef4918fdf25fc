r"""Replay of whole unrolls: what an off-policy actor-critic mixes into its batches (IMPALA, section 5.2.2)."""

import torch

from assay.rl.rollout import Rollout


class TrajectoryReplay:
    """The last `capacity` unrolls with the log-probabilities under which they were collected.

    Args:
        capacity: unrolls kept.
        eviction: "fifo": the oldest goes; "elite": the one of least priority goes (population methods).
        generator: of the draws.

    >>> replay = TrajectoryReplay(400)
    >>> len(replay)
    0
    """

    def __init__(self, capacity: int, eviction: str = "fifo", generator: torch.Generator | None = None):
        if capacity < 1:
            raise ValueError(f"a replay holds at least one unroll: got capacity={capacity}")
        if eviction not in ("fifo", "elite"):
            raise ValueError(f"eviction is 'fifo' or 'elite': got {eviction!r}")
        self.capacity, self.eviction, self.generator = capacity, eviction, generator
        self._unrolls: list[Rollout] = []
        self._priorities: list[float] = []
        self._next = 0

    def __len__(self) -> int:
        """Unrolls held."""
        return len(self._unrolls)

    def add(self, rollout: Rollout, priority: float = 0.0) -> None:
        """Keep an unroll; a full replay lets one go first (with "elite" perhaps the new one)."""
        if len(self) < self.capacity:
            self._unrolls.append(rollout)
            self._priorities.append(priority)
            return
        if self.eviction == "fifo":
            at, self._next = self._next, (self._next + 1) % self.capacity
        else:
            at = min(range(self.capacity), key=self._priorities.__getitem__)
            if self._priorities[at] > priority:
                return
        self._unrolls[at], self._priorities[at] = rollout, priority

    def sample(self, n: int) -> list[Rollout]:
        """`n` unrolls, uniformly with replacement.

        Raises:
            ValueError: the replay is empty.
        """
        if not self._unrolls:
            raise ValueError("the replay is empty: add unrolls before sampling")
        chosen = torch.randint(len(self), (n,), generator=self.generator)
        return [self._unrolls[i] for i in chosen.tolist()]
