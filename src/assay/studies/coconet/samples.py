"""Music from a trained network, and what an independent judge says of it."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from assay.analysis import counterpoint_report, interval_histogram, jensen_shannon, phrase_novelty
from assay.data import render_wav
from assay.generate import (
    AncestralSampler,
    AnnealedErase,
    GibbsSampler,
    IndependentSampler,
    OrderlessMask,
    TemporalUpsampler,
    note_nll,
)
from assay.lab import Batch
from assay.nn import Coconet
from assay.studies.coconet.learn import Config, by_context, corpus, fit, likelihoods

SNAPSHOTS = (0, 1, 4, 16, 63)
"""Gibbs steps that the first figure shows."""


class Counted:
    """A model that counts its forward passes."""

    def __init__(self, model: Coconet) -> None:
        self.model = model
        self.passes = 0

    def __call__(self, x: Tensor, known: Tensor) -> Tensor:
        self.passes += 1
        return self.model(x, known)


def _gibbs(passes: int | None = None, **options: Any) -> Callable[..., Tensor]:
    def sample(model: Counted, x: Tensor, config: Config, generator: torch.Generator) -> Tensor:
        return GibbsSampler(model, **options)(x, steps=passes or config.passes, generator=generator)

    return sample


def _ancestral(order: str) -> Callable[..., Tensor]:
    def sample(model: Counted, x: Tensor, config: Config, generator: torch.Generator) -> Tensor:
        return AncestralSampler(model, order)(x, generator=generator)  # type: ignore[arg-type]

    return sample


def _one_shot(model: Counted, x: Tensor, config: Config, generator: torch.Generator) -> Tensor:
    return IndependentSampler(model)(x, generator=generator)


def _upsampled(model: Counted, x: Tensor, config: Config, generator: torch.Generator) -> Tensor:
    sampler = GibbsSampler(model)
    half = sampler(x[:, :, ::2], generator=generator)
    return TemporalUpsampler(sampler)(half, generator=generator)


SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "sample/gibbs": _gibbs(),
    "sample/ancestral": _ancestral("random"),
    "sample/chronological": _ancestral("chronological"),
    "sample/contiguous": _ancestral("contiguous"),
    "sample/one-shot": _one_shot,
    "sample/gibbs-4": _gibbs(4),
    "sample/gibbs-16": _gibbs(16),
    "sample/gibbs-256": _gibbs(256),
    "sample/erase-02": _gibbs(schedule=AnnealedErase(0.9, 0.02)),
    "sample/erase-30": _gibbs(schedule=AnnealedErase(0.9, 0.3)),
    "sample/constant-50": _gibbs(schedule=AnnealedErase(0.5, 0.5)),
    "sample/spans-50": _gibbs(schedule=AnnealedErase(0.5, 0.5), block="contiguous"),
    "sample/exact-blocks": _gibbs(8, schedule=AnnealedErase(0.1, 0.1), inner="ancestral"),
    "sample/upsampled": _upsampled,
}
"""Arm -> how its pieces are made: (model, empty score, config, generator) -> score."""


def heard(run: Batch, arm: str, seed: int, config: Config, x: Tensor) -> dict[str, float]:
    """What interval statistics and the rules of counterpoint say of pieces, and how much of them was copied."""
    pieces = corpus(config)
    pitches = config.codec().decode(x).cpu()
    intervals = interval_histogram(pitches)
    run.save("intervals", intervals, arm=arm, seed=seed)
    return {
        "interval_js": float(jensen_shannon(intervals, interval_histogram(pieces.reference.long()))),
        "novelty": phrase_novelty(pitches, pieces.untransposed.long()),
        **counterpoint_report(pitches, beat=max(1, round(1 / config.step))).metrics(),
    }


def listen(run: Batch, pairs: list[tuple[str, int]], config: Config) -> Iterable[dict[str, float]]:
    """The main network, its judge, and everything that is sampled from the one and judged by the other."""
    pieces = corpus(config)
    codec = config.codec()

    @cache
    def full(seed: int) -> Coconet:
        return fit(run, "train/full", seed, config, pieces.half, pieces.valid)

    @cache
    def judge(seed: int) -> Coconet:
        return fit(run, "train/judge", seed, config, pieces.other_half, pieces.valid, stream="judge")

    def judged(seed: int, x: Tensor) -> float:
        return float(note_nll(judge(seed), x, generator=run.generator("judge orders", seed)).mean())

    @cache
    def bach(seed: int) -> float:
        return judged(seed, codec.encode(pieces.test.to(run.device)))

    for arm, seed in pairs:
        if arm == "train/full":
            found = likelihoods(run, seed, config, full(seed), everything=True)
            yield found | by_context(run, seed, config, full(seed))
        elif arm == "train/judge":
            # Bach himself: before the judge, and one split of the held-out pieces beside the other.
            found = heard(run, arm, seed, config, codec.encode(pieces.valid.to(run.device)))
            found |= likelihoods(run, seed, config, judge(seed), everything=False)
            yield found | {"judge_nll": bach(seed)}
        else:
            model = Counted(full(seed))
            empty = torch.zeros(config.samples, 4, config.window, codec.pitches, device=run.device)
            x = SAMPLERS[arm](model, empty, config, run.generator("samples", seed))
            passes = float(model.passes)
            nll = judged(seed, x)
            if arm == "sample/gibbs":
                keep_pictures(run, arm, seed, config, full(seed))
                keep_music(run, arm, seed, config, full(seed))
            found = heard(run, arm, seed, config, x)
            yield found | {"judge_nll": nll, "distance_to_bach": abs(nll - bach(seed)), "passes": passes}


def keep_pictures(run: Batch, arm: str, seed: int, config: Config, net: Coconet) -> None:
    """One score on its way through the Gibbs steps, and one chorale re-composed in five ways."""
    codec = config.codec()
    frames: list[tuple[Tensor, Tensor]] = []

    def look(step: int, x: Tensor, erased: Tensor) -> None:
        if step in SNAPSHOTS or step == config.passes - 1:
            frames.append((codec.decode(x)[0].cpu(), erased[0].cpu()))

    empty = torch.zeros(1, 4, config.window, codec.pitches, device=run.device)
    sampler = GibbsSampler(net)
    sampler(empty, steps=config.passes, generator=run.generator("picture", seed), trace=look)
    run.save(
        "steps",
        {"pitches": torch.stack([f[0] for f in frames]), "erased": torch.stack([f[1] for f in frames])},
        arm=arm,
        seed=seed,
    )
    scene = corpus(config).scenes[:1]
    x = codec.encode(scene.to(run.device))
    shape = (4, scene.shape[1])
    tasks = {
        "harmonise": OrderlessMask(shape, "harmonise"),
        "one voice": OrderlessMask(shape, "voice", voice=2),
        "middle": OrderlessMask(shape, "span"),
        "chunks": OrderlessMask(shape, "chunks", chunk=4),
    }
    saved = {"original": scene[0]}
    for name, mask in tasks.items():
        erased = mask(1, device=run.device)
        holes = x * ~erased[..., None]
        editable = OrderlessMask(shape, "complete")(1, x=holes)  # the holes that a user leaves in a score
        made = sampler(holes, editable, generator=run.generator(f"task {name}", seed))
        saved[name] = codec.decode(made)[0].cpu()
        saved[f"{name} erased"] = erased[0].cpu()
    run.save("tasks", saved, arm=arm, seed=seed)


def keep_music(run: Batch, arm: str, seed: int, config: Config, net: Coconet) -> None:
    """Three short pieces to listen to, as MIDI and WAV: the first that came, not the best of many."""
    codec = config.codec()
    scenes = corpus(config).scenes
    length = scenes.shape[1]
    sampler = GibbsSampler(net)
    soprano, hybrid = (scenes[k % len(scenes)][None] for k in (1, 2))
    drafts = {
        "unconditional": (torch.zeros(1, 4, length, codec.pitches), "complete"),
        "harmonised-soprano": (codec.encode(soprano), "harmonise"),
        "hybrid": (codec.encode(hybrid), "chunks"),
    }
    for name, (draft, kind) in drafts.items():
        x = draft.to(run.device)
        erased = OrderlessMask((4, length), kind)(1, x=x, device=run.device)  # type: ignore[arg-type]
        made = sampler(x * ~erased[..., None], erased, generator=run.generator(f"music {name}", seed))
        pitches = codec.decode(made)[0].cpu()
        run.save(f"{name}.mid", codec.to_midi(pitches, tempo=92.0), arm=arm, seed=seed)
        run.save(f"{name}.wav", render_wav(pitches, step=config.step, tempo=92.0), arm=arm, seed=seed)
