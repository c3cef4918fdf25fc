"""Learning every conditional at once: orderless masks, losses and likelihoods.

A grid of `voices x steps` categorical cells has D = voices * steps variables. An *orderless* model takes the cells that
are known and predicts each of the others: p(x_i | x_C) for any context C. Trained on contexts of every size, it can be
used as an autoregressive model in any order (Uria, Murray and Larochelle, 2014; Huang et al., 2017).

Nothing here is about music. A model is any callable `model(x, known) -> logits` with

    x      one-hot cells    [batch, voices, steps, pitches]   (a cell without a value is all zeros)
    known  what it may see  [batch, voices, steps]            bool
    logits                  [batch, voices, steps, pitches]

so "voices" may as well be the rows of an image and "pitches" its grey levels. Every number is in nats.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

ConditionalModel = Callable[[Tensor, Tensor], Tensor]
"""(x, known) -> logits, see the module's text."""

MaskKind = Literal["orderless", "bernoulli", "voice", "span", "harmonise", "chunks", "complete"]
Order = Literal["random", "chronological", "contiguous"]


@dataclass(frozen=True)
class OrderlessMask:
    """Draws which cells to erase, one mask for each example.

    Kinds:
        orderless: the number of erased cells is uniform in 1..D, the cells uniform given their number. So an example
            sometimes sees other voices without a past, sometimes a past without other voices, and sometimes nothing.
        bernoulli: each cell on its own, with `probability`. Nearly all masks then have nearly the same size, and
            the empty context, where sampling begins, is never trained.
        voice: one voice (`voice`, or a random one), from beginning to end.
        span: the middle half of the time, all voices.
        harmonise: all voices but one (`voice`, the first by default).
        chunks: every second stretch of `chunk` steps, all voices: what is between has to be interpolated.
        complete: the cells that `x` leaves empty.

    Args:
        shape: (voices, steps).
        kind: one of the above.
        probability: chance that "bernoulli" erases a cell.
        voice: the voice of "voice" and "harmonise".
        chunk: length of the stretches of "chunks".

    Source: Huang et al. (2017), section 3.1 (arXiv:1903.07227); the tasks are those of section 4.

    Example:
        >>> erased = OrderlessMask((4, 16))(2, generator=torch.Generator().manual_seed(0))
        >>> tuple(erased.shape), erased.dtype
        ((2, 4, 16), torch.bool)
    """

    shape: tuple[int, int]
    kind: MaskKind = "orderless"
    probability: float = 0.5
    voice: int | None = None
    chunk: int = 4

    def __post_init__(self) -> None:
        voices, steps = self.shape
        kinds = MaskKind.__args__  # type: ignore[attr-defined]
        if voices < 1 or steps < 1:
            raise ValueError(f"shape is (voices, steps), both at least 1, not {self.shape}")
        if self.kind not in kinds:
            raise ValueError(f"unknown kind of mask {self.kind!r}: choose from {', '.join(kinds)}")
        if not 0 < self.probability <= 1:
            raise ValueError(f"probability lies in (0, 1], not {self.probability}")
        if self.voice is not None and not 0 <= self.voice < voices:
            raise ValueError(f"voice is one of 0..{voices - 1}, not {self.voice}")
        if self.chunk < 1:
            raise ValueError(f"chunk is at least 1 step, not {self.chunk}")

    def __call__(
        self,
        batch: int,
        *,
        x: Float[Tensor, "batch voices steps pitches"] | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Bool[Tensor, "batch voices steps"]:
        """`batch` masks, true where a cell is erased. `x` is needed by "complete" only."""
        voices, steps = self.shape
        if self.kind == "complete":
            if x is None or tuple(x.shape[:3]) != (batch, voices, steps):
                raise ValueError(f"'complete' needs the rolls x [{batch}, {voices}, {steps}, pitches]")
            return x.sum(-1) == 0
        where = generator.device if generator is not None else device
        erased = torch.zeros(batch, voices, steps, dtype=torch.bool, device=where)
        if self.kind == "orderless":
            size = torch.randint(1, voices * steps + 1, (batch, 1), generator=generator, device=where)
            noise = torch.rand(batch, voices * steps, generator=generator, device=where)
            erased = (noise.argsort(1).argsort(1) < size).view(batch, voices, steps)
        elif self.kind == "bernoulli":
            erased = torch.rand(batch, voices, steps, generator=generator, device=where) < self.probability
        elif self.kind == "voice":
            voice = torch.randint(voices, (batch,), generator=generator, device=where)
            if self.voice is not None:
                voice = torch.full_like(voice, self.voice)
            erased[torch.arange(batch, device=where), voice] = True
        elif self.kind == "span":
            erased[:, :, steps // 4 : steps - steps // 4] = True
        elif self.kind == "harmonise":
            erased[:] = True
            erased[:, self.voice or 0] = False
        else:
            erased[:, :, torch.arange(steps, device=where) // self.chunk % 2 == 1] = True
        return erased.to(device)


def orderless_nll(
    logits: Float[Tensor, "batch voices steps pitches"],
    x: Float[Tensor, "batch voices steps pitches"],
    erased: Bool[Tensor, "batch voices steps"],
    *,
    reweight: bool = True,
    count: Literal["erased", "all"] = "erased",
) -> Float[Tensor, "batch"]:
    """Cross-entropy of the erased cells of each example, in nats a cell.

    Reweighted, it is the mean over the erased cells. Over masks whose size is uniform in 1..D, D times its
    expectation is the negative log-likelihood averaged over all D! orders. Not reweighted it is the *sum* over the
    erased cells on a flat scale, 2 / (D + 1), the inverse of the mean size: examples with few erased cells, the last
    steps of an order, then count for little.

    Cells without a value (rests) have no cross-entropy and are not counted.

    Args:
        logits: the model's output.
        x: the true cells, one-hot.
        erased: the cells that the model did not see.
        reweight: mean over the erased cells, or their sum on a flat scale.
        count: "erased", or "all": score the visible cells too, on the same scale (the default of the authors' code;
            it teaches the network to copy what it is shown).

    Source: Huang et al. (2017), equations 2-3 (arXiv:1903.07227).
    """
    if count not in ("erased", "all"):
        raise ValueError(f"count is 'erased' or 'all', not {count!r}")
    filled = x.sum(-1) > 0
    loss = -(logits.log_softmax(-1) * x).sum(-1)
    scored = filled if count == "all" else filled & erased
    total = (loss * scored).flatten(1).sum(1)
    if not reweight:
        return total * 2 / (erased[0].numel() + 1)
    return total / (filled & erased).flatten(1).sum(1).clamp(min=1)


def cell_order(
    kind: Order | str,
    erased: Bool[Tensor, "batch voices steps"],
    *,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "batch cells"]:
    """An order of all cells (indices into voices * steps) with the erased ones first.

    "random" is uniform over orders; "chronological" goes step by step and through the voices in turn;
    "contiguous" begins at a random step and grows from there to both sides, so what is known is always one block.
    """
    batch, voices, steps = erased.shape
    where = generator.device if generator is not None else erased.device
    noise = torch.rand(batch, voices, steps, generator=generator, device=where).to(erased.device)
    time = torch.arange(steps, device=erased.device, dtype=noise.dtype)
    if kind == "random":
        key = noise
    elif kind == "chronological":
        key = (time * voices + torch.arange(voices, device=erased.device)[:, None]).expand(batch, -1, -1)
    elif kind == "contiguous":
        start = torch.randint(steps, (batch, 1, 1), generator=generator, device=where).to(erased.device)
        key = (time - start).abs() + 0.5 * (time < start) + 0.4 * noise
    else:
        raise ValueError(f"order is 'random', 'chronological' or 'contiguous', not {kind!r}")
    return key.masked_fill(~erased, math.inf).flatten(1).argsort(dim=1, stable=True)


def _passes(batch_size: int | None, x: Tensor) -> int:
    if batch_size is None:
        return 64 if x.device.type == "cpu" else 1024
    if batch_size < 1:
        raise ValueError(f"batch_size is at least 1, not {batch_size}")
    return batch_size


def _ranks(order: Tensor) -> Tensor:
    """When each cell comes up: the inverse permutation of each row."""
    return order.argsort(1)


def _orders(order: Order | str | Tensor, x: Tensor, generator: torch.Generator | None) -> Tensor:
    if isinstance(order, str):
        return cell_order(
            order, torch.ones(x.shape[:3], dtype=torch.bool, device=x.device), generator=generator
        )
    cells = x.shape[1] * x.shape[2]
    if order.shape != (x.shape[0], cells) or not bool(
        (order.sort(1).values == torch.arange(cells, device=order.device)).all()
    ):
        raise ValueError(f"an order is a permutation of 0..{cells - 1} for each of {x.shape[0]} examples")
    return order.to(x.device)


@torch.no_grad()
def cell_nll(
    model: ConditionalModel,
    x: Float[Tensor, "batch voices steps pitches"],
    *,
    order: Order | Int[Tensor, "batch cells"] = "random",
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> Float[Tensor, "batch voices steps"]:
    """-log p of every cell given the cells before it in an order; NaN for cells without a value.

    All D contexts of all examples are independent, so they go through the model in batches of `batch_size`.
    Put the model in evaluation mode first.

    Args:
        model: see the module's text.
        x: one-hot cells.
        order: "random", "chronological", "contiguous" (see `cell_order`), or one permutation for each example.
        generator: draws the orders.
        batch_size: contexts to a forward pass; it changes speed and memory, not the result. None is 64 on a CPU,
            where more than its caches hold is slower, and 1 024 elsewhere.

    Source: Huang et al. (2017), section 5.1 (arXiv:1903.07227).
    """
    order = _orders(order, x, generator)
    batch, voices, steps, pitches = x.shape
    cells = voices * steps
    rank = _ranks(order).view(batch, voices, steps)
    nll = x.new_empty(batch * cells)
    for part in torch.arange(batch * cells, device=x.device).split(_passes(batch_size, x)):
        example, turn = part // cells, part % cells
        known = rank[example] < turn[:, None, None]
        logits = model(x[example], known).reshape(len(part), cells, pitches)
        target = order[example, turn]
        row = torch.arange(len(part), device=x.device)
        truth = x[example].reshape(len(part), cells, pitches)[row, target]
        score = -(logits[row, target].log_softmax(-1) * truth).sum(-1)
        nll[example * cells + target] = score.masked_fill(truth.sum(-1) == 0, math.nan)
    return nll.view(batch, voices, steps)


def note_nll(
    model: ConditionalModel,
    x: Float[Tensor, "batch voices steps pitches"],
    *,
    order: Order | Int[Tensor, "batch cells"] = "random",
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> Float[Tensor, "batch"]:
    """Note-wise negative log-likelihood of each example, in nats a note: the chain rule in one order.

    Arguments as in `cell_nll`. Cells without a value take their turn but are not scored.
    """
    return cell_nll(model, x, order=order, generator=generator, batch_size=batch_size).flatten(1).nanmean(1)


@torch.no_grad()
def each_frame_nll(
    model: ConditionalModel,
    x: Float[Tensor, "batch voices steps pitches"],
    *,
    order: Literal["random", "chronological"] = "random",
    within_frame: Literal["argmax", "sample", "truth"] = "argmax",
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> Float[Tensor, "batch steps"]:
    """-log p of every frame (all voices at one step) given the frames before it in an order, in nats.

    Frames come in random or chronological order; the voices of a frame in random order. While a frame is
    scored, its earlier voices are shown as `within_frame` says: the model's own best guess ("argmax", as the authors'
    code does), its own sample, or the truth. Only "truth" is the chain rule; the other two ignore how the voices of
    a frame hang together, as models that predict a whole frame at once must.

    Source: Huang et al. (2017), section 5.1 and table 1 (arXiv:1903.07227).
    """
    if within_frame not in ("argmax", "sample", "truth"):
        raise ValueError(f"within_frame is 'argmax', 'sample' or 'truth', not {within_frame!r}")
    if order not in ("random", "chronological"):
        raise ValueError(f"order is 'random' or 'chronological', not {order!r}")
    batch, voices, steps, _ = x.shape
    where = generator.device if generator is not None else x.device
    time = torch.arange(steps, device=x.device).expand(batch, steps)
    if order == "random":
        time = torch.rand(batch, steps, generator=generator, device=where).argsort(1).to(x.device)
    parts = torch.rand(batch, steps, voices, generator=generator, device=where).argsort(2).to(x.device)
    rank = _ranks(time)
    nll = x.new_zeros(batch, steps)
    for part in torch.arange(batch * steps, device=x.device).split(_passes(batch_size, x)):
        example, turn = part // steps, part % steps
        row = torch.arange(len(part), device=x.device)
        frame = time[example, turn]
        shown = x[example].clone()
        known = (rank[example] < turn[:, None])[:, None].expand(-1, voices, -1).clone()
        for k in range(voices):
            voice = parts[example, frame, k]
            logits = model(shown, known)[row, voice, frame]
            truth = x[example, voice, frame]
            nll[example, frame] -= (logits.log_softmax(-1) * truth).sum(-1)
            if within_frame != "truth":
                best = within_frame == "argmax"
                guess = logits.argmax(-1) if best else sample_categorical(logits, generator=generator)
                # A rest stays a rest: the model has no way to say that a voice is silent.
                sounds = truth.sum(-1, keepdim=True)
                shown[row, voice, frame] = one_hot(guess, x.shape[-1]).to(x) * sounds
            known[row, voice, frame] = True
    return nll


def frame_nll(
    model: ConditionalModel,
    x: Float[Tensor, "batch voices steps pitches"],
    *,
    order: Literal["random", "chronological"] = "random",
    within_frame: Literal["argmax", "sample", "truth"] = "argmax",
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> Float[Tensor, "batch"]:
    """Frame-wise negative log-likelihood of each example, in nats a frame. Arguments as in `each_frame_nll`."""
    return each_frame_nll(
        model, x, order=order, within_frame=within_frame, generator=generator, batch_size=batch_size
    ).mean(1)


def ensemble_nll(
    model: ConditionalModel,
    x: Float[Tensor, "batch voices steps pitches"],
    *,
    orders: int = 5,
    unit: Literal["piece", "cell"] = "piece",
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> Float[Tensor, "batch"]:
    """Note-wise negative log-likelihood under `orders` random orders together, in nats a note; see `mix_orders`."""
    if orders < 1:
        raise ValueError(f"an ensemble needs at least one order, not {orders}")
    scores = [
        cell_nll(model, x, generator=generator, batch_size=batch_size).flatten(1) for _ in range(orders)
    ]
    return mix_orders(torch.stack(scores), unit=unit)


def mix_orders(
    scores: Float[Tensor, "orders batch units"], *, unit: Literal["piece", "cell"] = "piece"
) -> Float[Tensor, "batch"]:
    """The likelihood of pieces from their scores under several orders, in nats a unit (a cell or a frame).

    "piece" takes the log-mean-exp of whole pieces: the likelihood of a proper mixture, at best log(orders) nats a piece
    better than the average order. "cell" takes it unit by unit, as the authors' code does. That is the likelihood of no
    joint distribution: each unit is in effect scored in whichever order reveals most of the others before it, and the
    units take turns at being last. It can lie far below the entropy of the data.

    Args:
        scores: -log p of every unit in every order, e.g. stacked `cell_nll` or `each_frame_nll`; NaN is not counted.
        unit: see above.
    """
    if unit not in ("piece", "cell"):
        raise ValueError(f"unit is 'piece' or 'cell', not {unit!r}")
    count = math.log(scores.shape[0])
    if unit == "cell":
        return (count - (-scores).logsumexp(0)).nanmean(1)
    units = (~scores[0].isnan()).sum(1)
    return (count - (-scores.nansum(2)).logsumexp(0)) / units


def sample_categorical(
    logits: Float[Tensor, "*cells pitches"],
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "*cells"]:
    """One draw from each row of logits, by an exponential race (several times faster than `torch.multinomial`)."""
    if not temperature > 0:
        raise ValueError(f"temperature is positive, not {temperature}: for the most likely pitch take argmax")
    where = generator.device if generator is not None else logits.device
    race = torch.empty(logits.shape, device=where, dtype=torch.float32).exponential_(generator=generator)
    return (logits / temperature - race.to(logits.device).log()).argmax(-1)
