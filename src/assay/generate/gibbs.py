"""Samplers for orderless models: blocked Gibbs with annealing, ancestral in any order, one shot, temporal up-sampling.

All take a score and the cells that may change, and work from an empty score, a given voice or a damaged piece alike.
A model is any callable `(x, known) -> logits`, see `assay.generate.orderless`; put it in evaluation mode first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import one_hot

from assay.generate.orderless import ConditionalModel, Order, cell_order, sample_categorical

Trace = Callable[[int, Tensor, Tensor], None]
"""Called as trace(step, x, erased) after each step, with what was erased in it."""


@runtime_checkable
class Sampler(Protocol):
    """What every sampler here does."""

    def __call__(
        self,
        x: Float[Tensor, "batch voices steps pitches"],
        editable: Bool[Tensor, "batch voices steps"] | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch voices steps pitches"]: ...


@dataclass(frozen=True)
class AnnealedErase:
    """The chance that a Gibbs step erases a cell: falls in a line from `high` to `low`, then stays there.

    alpha_n = max(low, high - n (high - low) / (fraction N)) for step n of N. Large blocks mix fast but are filled
    in independently, so badly; small blocks do little but do it well.

    Source: Yao et al. (2014), arXiv:1409.0585; Huang et al. (2017), section 3.3.

    Example:
        >>> schedule = AnnealedErase()
        >>> [round(schedule(n, 100), 2) for n in (0, 35, 70, 99)]
        [0.9, 0.5, 0.1, 0.1]
    """

    high: float = 0.9
    low: float = 0.1
    fraction: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"chances satisfy 0 <= low <= high <= 1, not {self.low} and {self.high}")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction of the steps that anneal lies in (0, 1], not {self.fraction}")

    def __call__(self, step: int, steps: int) -> float:
        """The chance at `step` (from 0) of `steps`."""
        return max(self.low, self.high - step * (self.high - self.low) / (self.fraction * steps))


@dataclass(frozen=True)
class AncestralSampler:
    """Fills one cell after another, each from its conditional given all that is there (orderless NADE).

    Takes as many forward passes as there are cells to fill.

    Args:
        model: (x, known) -> logits.
        order: "random", "chronological" or "contiguous", see `assay.generate.cell_order`.
    """

    model: ConditionalModel
    order: Order = "random"

    @torch.no_grad()
    def __call__(
        self,
        x: Float[Tensor, "batch voices steps pitches"],
        editable: Bool[Tensor, "batch voices steps"] | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        trace: Trace | None = None,
    ) -> Float[Tensor, "batch voices steps pitches"]:
        """`x` with every editable cell (all, if None) drawn anew. Other cells stay as they are, rests included."""
        x, editable = _start(x, editable, temperature)
        return _ancestral(
            self.model, x, editable, self.order, temperature=temperature, generator=generator, trace=trace
        )


@dataclass(frozen=True)
class IndependentSampler:
    """Fills all editable cells at once, each from its own conditional: one forward pass.

    What it puts in one cell knows nothing of what it puts in the others.
    """

    model: ConditionalModel

    @torch.no_grad()
    def __call__(
        self,
        x: Float[Tensor, "batch voices steps pitches"],
        editable: Bool[Tensor, "batch voices steps"] | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch voices steps pitches"]:
        """`x` with every editable cell (all, if None) drawn anew."""
        x, editable = _start(x, editable, temperature)
        return _independent(self.model, x, editable, temperature=temperature, generator=generator)


@dataclass(frozen=True)
class GibbsSampler:
    """Erases random blocks of cells and fills them in again, the blocks shrinking as it goes.

    A cell that holds nothing is always erased, so from an empty score the first step fills in everything at once.
    With the independent inner sampler a step is one forward pass, whatever the size of its block; with
    an ancestral one it is exact block Gibbs, at one pass for every erased cell.

    Args:
        model: (x, known) -> logits.
        schedule: (step, steps) -> the chance that a cell is erased, e.g. `AnnealedErase()`.
        inner: how a block is filled: "independent", or "ancestral" in random order.
        block: "bernoulli" erases each cell on its own; "contiguous" all voices of one stretch of time,
            of that share of the steps.

    Source: Huang et al. (2017), section 3.3 and table 2 (arXiv:1903.07227).

    Example:
        >>> uniform = lambda x, known: torch.zeros_like(x)
        >>> song = GibbsSampler(uniform)(torch.zeros(1, 4, 16, 46), generator=torch.Generator().manual_seed(0))
        >>> bool((song.sum(-1) == 1).all())
        True
    """

    model: ConditionalModel
    schedule: Callable[[int, int], float] = AnnealedErase()
    inner: Literal["independent", "ancestral"] = "independent"
    block: Literal["bernoulli", "contiguous"] = "bernoulli"

    def __post_init__(self) -> None:
        if self.inner not in ("independent", "ancestral"):
            raise ValueError(f"inner is 'independent' or 'ancestral', not {self.inner!r}")
        if self.block not in ("bernoulli", "contiguous"):
            raise ValueError(f"block is 'bernoulli' or 'contiguous', not {self.block!r}")

    @torch.no_grad()
    def __call__(
        self,
        x: Float[Tensor, "batch voices steps pitches"],
        editable: Bool[Tensor, "batch voices steps"] | None = None,
        *,
        steps: int | None = None,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        trace: Trace | None = None,
    ) -> Float[Tensor, "batch voices steps pitches"]:
        """`x` after `steps` Gibbs steps (as many as there are editable cells, if None) on the editable cells.

        Args:
            x: the score to begin with; cells may be empty.
            editable: the cells that may change (all, if None).
            steps: how many blocks to re-sample.
            temperature: of the softmax; below 1 is bolder, above 1 more varied.
            generator: draws blocks and pitches.
            trace: called as trace(step, x, erased) after each step.
        """
        x, editable = _start(x, editable, temperature)
        if steps is None:
            steps = int(editable.flatten(1).sum(1).max())
        if steps < 1:
            raise ValueError(f"Gibbs sampling needs at least one step, not {steps}")
        for step in range(steps):
            chance = self.schedule(step, steps)
            erased = editable & (self._block(x, chance, generator) | (x.sum(-1) == 0))
            if self.inner == "independent":
                x = _independent(self.model, x, erased, temperature=temperature, generator=generator)
            else:
                x = _ancestral(self.model, x, erased, "random", temperature=temperature, generator=generator)
            if trace is not None:
                trace(step, x, erased)
        return x

    def _block(self, x: Tensor, chance: float, generator: torch.Generator | None) -> Tensor:
        batch, voices, steps, _ = x.shape
        where = generator.device if generator is not None else x.device
        if self.block == "bernoulli":
            return (torch.rand(batch, voices, steps, generator=generator, device=where) < chance).to(x.device)
        length = max(1, round(chance * steps))
        start = torch.randint(steps - length + 1, (batch, 1, 1), generator=generator, device=where)
        time = torch.arange(steps, device=where)
        return ((time >= start) & (time < start + length)).expand(batch, voices, steps).to(x.device)


@dataclass(frozen=True)
class TemporalUpsampler:
    """Doubles the length of a score: every step is held for two, then every second step is drawn anew.

    Args:
        sampler: fills in the new steps, e.g. a `GibbsSampler`.

    Source: the up-sampling strategy of the authors' published code.
    """

    sampler: Sampler

    def __call__(
        self,
        x: Float[Tensor, "batch voices steps pitches"],
        *,
        times: int = 1,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch voices longer pitches"]:
        """`x` at 2**times of its length; step t of `x` is step 2**times * t of the result."""
        if times < 1:
            raise ValueError(f"times is at least 1, not {times}")
        for _ in range(times):
            x = x.repeat_interleave(2, 2)
            editable = torch.zeros(x.shape[:3], dtype=torch.bool, device=x.device)
            editable[:, :, 1::2] = True
            x = self.sampler(x, editable, temperature=temperature, generator=generator)
        return x


def _start(x: Tensor, editable: Tensor | None, temperature: float) -> tuple[Tensor, Tensor]:
    """Checked copies of what a sampler is called with."""
    if not temperature > 0:
        raise ValueError(f"temperature is positive, not {temperature}")
    if x.shape[2] < 1 or x.shape[1] < 1:
        raise ValueError(f"a score needs at least one voice and one step, got {tuple(x.shape)}")
    if editable is None:
        editable = torch.ones(x.shape[:3], dtype=torch.bool, device=x.device)
    if editable.shape != x.shape[:3]:
        raise ValueError(f"editable has shape {tuple(editable.shape)}, the score {tuple(x.shape[:3])}")
    if not bool(editable.any()):
        raise ValueError("no cell is editable: there is nothing to sample")
    return x.clone(), editable


def _independent(
    model: ConditionalModel,
    x: Tensor,
    erased: Tensor,
    *,
    temperature: float,
    generator: torch.Generator | None,
) -> Tensor:
    drawn = sample_categorical(model(x, ~erased), temperature=temperature, generator=generator)
    return torch.where(erased[..., None], one_hot(drawn, x.shape[-1]).to(x), x)


def _ancestral(
    model: ConditionalModel,
    x: Tensor,
    erased: Tensor,
    kind: Order,
    *,
    temperature: float,
    generator: torch.Generator | None,
    trace: Trace | None = None,
) -> Tensor:
    batch, voices, steps, pitches = x.shape
    order = cell_order(kind, erased, generator=generator)
    left = erased.flatten(1).sum(1)
    known = ~erased.flatten(1)
    flat = x.reshape(batch, voices * steps, pitches).clone()
    row = torch.arange(batch, device=x.device)
    for turn in range(int(left.max())):
        cell = order[:, turn]
        logits = model(flat.view_as(x), known.view_as(erased)).reshape(flat.shape)[row, cell]
        drawn = one_hot(sample_categorical(logits, temperature=temperature, generator=generator), pitches).to(
            x
        )
        # Examples with fewer erased cells are done already.
        busy = turn < left
        flat[row, cell] = torch.where(busy[:, None], drawn, flat[row, cell])
        known[row, cell] = True
        if trace is not None:
            step = torch.zeros_like(known)
            step[row[busy], cell[busy]] = True
            trace(turn, flat.view_as(x), step.view_as(erased))
    return flat.view_as(x)
