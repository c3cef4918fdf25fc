"""Pieces, and networks that learn them."""

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from assay.data import ChoraleSet, PianorollCodec, load_chorales, synthetic_chorales
from assay.generate import (
    OrderlessMask,
    cell_nll,
    each_frame_nll,
    frame_nll,
    mix_orders,
    note_nll,
    orderless_nll,
)
from assay.lab import Batch
from assay.nn import Coconet


@dataclass(frozen=True)
class Config:
    """Laptop values; the paper's are in the `paper` profile."""

    source: str = "music21"  # or "synthetic", the path of a Jsb16thSeparated.json, or of a folder of scores
    step: float = 0.5  # grid, in quarter notes
    window: int = 16  # steps of a training crop, and of a test piece
    transpose: tuple[int, int] = (-5, 6)  # semitones

    layers: int = 8
    width: int = 16  # filters
    # (time, pitch) of each layer: pitch reaches over three octaves, so that the bass can hear the soprano
    dilation: tuple[tuple[int, int], ...] = ((1, 1), (1, 2), (1, 4), (1, 8), (1, 12), (1, 8), (1, 3), (1, 1))
    norm_scale: float = 1.0
    norm_momentum: float = 0.1
    small_tail: bool = False
    mask_marks: str = "known"

    training_steps: int = 700
    long_steps: int = 1_750  # of the arm train/long
    batch: int = 24
    learning_rate: float = 0.02
    schedule: str = "cosine"  # or "plateau": halve when validation stalls, stop early
    validate_every: int = 200
    patience: int = 5  # validations without progress before the rate is halved
    halvings: int = 6  # then stop
    count: str = "erased"  # cells in the loss; "all" as in the authors' code

    test_windows: int = 64
    orders: int = 5  # random orders that test pieces are scored in
    samples: int = 64
    passes: int = 64  # Gibbs steps: as many as the window has cells
    phrase: int = 4  # steps of the phrases whose novelty is counted
    rests: float = 0.2  # share of cells silenced in the arms rests/*

    def codec(self) -> PianorollCodec:
        """MIDI 36 to 81 in four voices."""
        return PianorollCodec(step=self.step)


@dataclass(frozen=True)
class Corpus:
    """Windows of pitches `[n, window, 4]`. The two halves of the training pieces have no piece in common."""

    half: Tensor
    other_half: Tensor
    untransposed: Tensor  # phrases of `half`, for counting what was copied
    valid: Tensor
    test: Tensor
    reference: Tensor  # all test windows, for histograms
    resting: Tensor  # held-out windows in which some voice rests
    scenes: Tensor  # test windows of twice the length, to listen to


@lru_cache(maxsize=2)
def corpus(config: Config) -> Corpus:
    """What the networks learn and are tested on: the same for every arm and seed."""
    if config.source == "synthetic":
        pieces = synthetic_chorales(12, 3 * config.window, generator=torch.Generator().manual_seed(0))
        sets = {
            "train": pieces.subset(range(6)),
            "valid": pieces.subset(range(6, 9)),
            "test": pieces.subset(range(9, 12)),
        }
    else:
        sets = {
            split: load_chorales(config.step, split=split, source=config.source)
            for split in ("train", "valid", "test")
        }
    beat = max(1, round(1 / config.step))
    halves = [sets["train"].subset(range(start, len(sets["train"]), 2)) for start in (0, 1)]
    shifts = range(config.transpose[0], config.transpose[1] + 1)
    train = [half.transposed(shifts).windows(config.window, beat) for half in halves]
    held_out = torch.cat(
        [sets[name].windows(config.window, config.window // 2) for name in ("valid", "test")]
    )
    resting = held_out[(held_out < 0).flatten(1).any(1)]
    reference = sets["test"].windows(config.window, config.window)
    return Corpus(
        half=train[0],
        other_half=train[1],
        untransposed=halves[0].windows(config.phrase),
        valid=spread(sets["valid"].windows(config.window, config.window), config.test_windows),
        test=spread(reference, config.test_windows),
        reference=reference,
        resting=spread(resting, config.test_windows // 2),
        scenes=_scenes(sets["test"], 2 * config.window),
    )


def _scenes(pieces: ChoraleSet, length: int) -> Tensor:
    """The beginnings of the pieces that sing throughout."""
    begun = [piece[:length] for piece in pieces.pieces if len(piece) >= length]
    sung = [piece for piece in begun if bool((piece >= 0).all())]
    return torch.stack(sung[:8])


def spread(windows: Tensor, count: int) -> Tensor:
    """At most `count` of the windows, evenly over all of them."""
    if len(windows) <= count:
        return windows
    return windows[torch.linspace(0, len(windows) - 1, count).round().long()]


def check(config: Config) -> None:
    """A source that is not there ends a run before it begins."""
    if config.source not in ("music21", "synthetic") and not Path(config.source).exists():
        raise ValueError(
            f"source={config.source!r} is not there: give --set source=PATH, the path of Jsb16thSeparated.json "
            "(github.com/czhuang/JSB-Chorales-dataset) or of a folder of scores, or --set source=music21"
        )


def silenced(windows: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """`windows` with a random share of their cells turned to rests."""
    return torch.where(torch.rand(windows.shape, generator=generator) < share, -1, windows)


def fit(
    run: Batch,
    arm: str,
    seed: int,
    config: Config,
    windows: Tensor,
    valid: Tensor,
    *,
    stream: str = "full",
    steps: int | None = None,
    mask_input: bool = True,
    reweight: bool = True,
    rests: float = 0.0,
) -> Coconet:
    """A network trained on `windows` and put in evaluation mode; its loss is logged as a curve of `arm`.

    `stream` names the random numbers for weights, batches and masks: arms with the same name differ in nothing else
    than what they are told to.
    """
    weights, batches, masks = (
        run.generator(f"{stream} {part}", seed, "cpu") for part in ("weights", "batches", "masks")
    )
    net = network(config, mask_input=mask_input, seed=weights.initial_seed()).to(run.device)
    optimiser = torch.optim.Adam(net.parameters(), lr=config.learning_rate)
    codec, draw_mask = config.codec(), OrderlessMask((4, config.window))
    steps = config.training_steps if steps is None else steps
    plateau = _Plateau(net, config) if config.schedule == "plateau" else None

    for step in run.steps(steps):
        pitches = windows[torch.randint(len(windows), (config.batch,), generator=batches)].long()
        if rests:
            pitches = silenced(pitches, rests, batches)
        x = codec.encode(pitches.to(run.device))
        erased = draw_mask(config.batch, generator=masks).to(run.device)
        loss = orderless_nll(net(x, ~erased), x, erased, reweight=reweight, count=config.count).mean()  # type: ignore[arg-type]
        rate = config.learning_rate * (_cosine(step, steps) if plateau is None else plateau.factor)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 5 == 0:
            run.log(step, arm=arm, seed=seed, loss=loss)
        if plateau is not None and step % config.validate_every == 0:
            run.log(step, arm=arm, seed=seed, validation=plateau.look(codec.encode(valid.to(run.device))))
            if plateau.done:
                break
    if plateau is not None:
        net.load_state_dict(plateau.best)
    return net.eval()


def network(config: Config, *, mask_input: bool, seed: int) -> Coconet:
    """The study's network, its weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Coconet(
            4,
            config.layers,
            config.width,
            mask_input=mask_input,
            mask_marks=config.mask_marks,  # type: ignore[arg-type]
            norm_scale=config.norm_scale,
            norm_momentum=config.norm_momentum,
            dilation=config.dilation or None,
            small_tail=config.small_tail,
        )


def _cosine(step: int, steps: int) -> float:
    """Twenty steps of warm-up, then half a cosine down to 2 %."""
    return min(1.0, (step + 1) / 20) * max(0.02, 0.5 * (1 + math.cos(math.pi * step / steps)))


class _Plateau:
    """Halves the rate when the validation loss stalls, keeps the best weights, and says when to stop."""

    def __init__(self, net: Coconet, config: Config) -> None:
        self.net, self.config = net, config
        self.factor, self.lowest, self.waited = 1.0, math.inf, 0
        self.best = {name: value.clone() for name, value in net.state_dict().items()}

    @property
    def done(self) -> bool:
        return self.factor < 0.5**self.config.halvings

    @torch.no_grad()
    def look(self, x: Tensor) -> float:
        """The loss on held-out windows under the same masks every time."""
        erased = OrderlessMask((4, x.shape[2]))(len(x), generator=torch.Generator().manual_seed(0)).to(
            x.device
        )
        self.net.eval()
        loss = float(
            torch.cat(
                [
                    orderless_nll(self.net(part, ~hidden), part, hidden)
                    for part, hidden in zip(x.split(64), erased.split(64), strict=True)
                ]
            ).mean()
        )
        self.net.train()
        if loss < self.lowest:
            self.lowest, self.waited = loss, 0
            self.best = {name: value.clone() for name, value in self.net.state_dict().items()}
        else:
            self.waited += 1
            if self.waited >= self.config.patience:
                self.factor, self.waited = self.factor / 2, 0
        return loss


# -- what a network knows ------------------------------------------------------------------------------------------


def likelihoods(run: Batch, seed: int, config: Config, net: Coconet, *, everything: bool) -> dict[str, float]:
    """NLL of the test pieces, in nats a note (frame_*: a frame), under orders that are the same in every arm."""
    pieces = corpus(config)
    codec = config.codec()
    x = codec.encode(pieces.test.to(run.device))

    def orders() -> torch.Generator:
        return run.generator("orders", seed)

    # The first of these orders is the one that every arm is scored in.
    generator = orders()
    random = torch.stack(
        [cell_nll(net, x, generator=generator).flatten(1) for _ in range(config.orders if everything else 1)]
    )
    found = {"note_nll": float(random[0].nanmean(1).mean())}
    if len(pieces.resting):
        resting = codec.encode(pieces.resting.to(run.device))
        found["note_nll_resting"] = float(note_nll(net, resting, generator=orders()).mean())
    if everything:
        found["note_nll_random"] = float(random.nanmean(2).mean())
        found["note_nll_chronological"] = float(note_nll(net, x, order="chronological").mean())
        found["note_nll_contiguous"] = float(note_nll(net, x, order="contiguous", generator=orders()).mean())
        found["note_nll_mixture"] = float(mix_orders(random).mean())
        found["note_nll_averaged"] = float(mix_orders(random, unit="cell").mean())
        few = x[::4]  # frames take several passes each
        for order in ("random", "chronological"):
            generator = orders()
            frames = torch.stack(
                [each_frame_nll(net, few, order=order, generator=generator) for _ in range(config.orders)]  # type: ignore[arg-type]
            )
            found[f"frame_nll_{order}"] = float(frames.mean())
            found[f"frame_nll_{order}_averaged"] = float(mix_orders(frames, unit="cell").mean())
            truth = frame_nll(net, few, order=order, within_frame="truth", generator=orders())  # type: ignore[arg-type]
            found[f"frame_nll_{order}_truth"] = float(truth.mean())
        found["batch_norm_gap"] = batch_norm_gap(net, x, orders())
    return found


@torch.no_grad()
def batch_norm_gap(net: Coconet, x: Tensor, generator: torch.Generator) -> float:
    """Loss with the running statistics minus loss with those of the batch, same pieces and masks."""
    erased = OrderlessMask((x.shape[1], x.shape[2]))(len(x), generator=generator)
    losses = [orderless_nll(mode(x, ~erased), x, erased).mean() for mode in (net, copy.deepcopy(net).train())]
    return float(losses[0] - losses[1])


CONTEXTS = ("nothing", "other voices", "own past", "both", "own past and future", "everything")
"""What a note is predicted from in `by_context`."""


@torch.no_grad()
def by_context(run: Batch, seed: int, config: Config, net: Coconet) -> dict[str, float]:
    """NLL of one note of each test piece (four times over), given only one kind of context."""
    x = config.codec().encode(corpus(config).test.to(run.device)).repeat(4, 1, 1, 1)
    batch, voices, steps, _ = x.shape
    generator = run.generator("contexts", seed, "cpu")
    voice = torch.randint(voices, (batch, 1, 1), generator=generator).to(x.device)
    time = torch.randint(1, steps, (batch, 1, 1), generator=generator).to(x.device)
    same_voice = torch.arange(voices, device=x.device)[:, None] == voice
    now, past = (torch.arange(steps, device=x.device) == time, torch.arange(steps, device=x.device) < time)
    others = (now & ~same_voice).expand(batch, voices, steps)
    shown = {
        "nothing": torch.zeros_like(others),
        "other voices": others,
        "own past": past & same_voice,
        "both": others | (past & same_voice),
        "own past and future": same_voice & ~now,
        "everything": ~(now & same_voice),
    }
    target = now & same_voice
    found = {}
    for name, known in shown.items():
        loss = -(net(x, known).log_softmax(-1) * x).sum(-1)[target]
        found[f"nll given {name}"] = float(loss[x.sum(-1)[target] > 0].mean())
    return found


def test_with_rests(run: Batch, seed: int, config: Config, net: Coconet) -> dict[str, float]:
    """NLL of the test pieces after a random share of their cells has fallen silent."""
    pitches = silenced(corpus(config).test, config.rests, torch.Generator().manual_seed(1))
    x = config.codec().encode(pitches.to(run.device))
    return {"note_nll": float(note_nll(net, x, generator=run.generator("orders", seed)).mean())}


def train(run: Batch, pairs: list[tuple[str, int]], config: Config) -> Iterable[dict[str, float]]:
    """The arms that need no other network: the ablations, the longer training, and the data with rests."""
    pieces = corpus(config)
    for arm, seed in pairs:
        rests = config.rests if arm.startswith("rests/") else 0.0
        net = fit(
            run,
            arm,
            seed,
            config,
            pieces.half,
            pieces.valid,
            steps=config.long_steps if arm == "train/long" else None,
            mask_input=not arm.endswith("no-mask"),
            reweight=arm != "train/flat-weight",
            rests=rests,
        )
        if rests:
            yield test_with_rests(run, seed, config, net)
        else:
            yield likelihoods(run, seed, config, net, everything=arm == "train/long")
