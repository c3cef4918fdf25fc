"""The sequence task: a character model of Bible verses, L2-Adam against AdamW."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from assay.data import CharCorpus, bible_text
from assay.lab import Batch
from assay.nn import EnsembleEmbedding, EnsembleGRU, EnsembleLinear
from assay.optim import EnsembleOptimizer
from assay.studies.decoupled_weight_decay.config import TextConfig
from assay.studies.decoupled_weight_decay.grids import OPTIMISERS
from assay.studies.decoupled_weight_decay.training import cosine

ALPHABET = "".join(chr(k) for k in range(32, 127)) + "\n"
"""Printable characters and the line end: for a text other than the Bible's (the smoke profile)."""


class CharModels(nn.Module):
    """K character models: embedding, one GRU layer, linear read-out."""

    def __init__(self, members: int, characters: int, config: TextConfig, generators: list[torch.Generator]):
        super().__init__()
        self.embedding = EnsembleEmbedding(members, characters, config.embedding, generators)
        self.gru = EnsembleGRU(members, config.embedding, config.hidden, generators)
        self.head = EnsembleLinear(members, config.hidden, characters, generators=generators)

    def forward(self, ids: Tensor) -> Tensor:
        """[K, batch, time] character numbers -> logits of the next [K, batch * time, characters]."""
        states, _ = self.gru(self.embedding(ids))
        return self.head(states.flatten(1, 2))


def corpus(config: TextConfig) -> tuple[CharCorpus, int]:
    """Characters, and where the last tenth, for testing, begins."""
    if config.books == "self":  # this module's own source: needs no package
        with open(__file__, encoding="utf-8") as file:
            text = "".join(c for c in file.read() if c in ALPHABET)
        whole = CharCorpus.of(text, ALPHABET)
    else:
        whole = CharCorpus.of(bible_text(config.books))
    ids = whole.ids[: config.characters or len(whole)]
    return CharCorpus(ids, whole.vocab), int(0.9 * len(ids))


def losses(model: CharModels, inputs: Tensor, targets: Tensor, members: int) -> Tensor:
    """Nats a character of every member."""
    logits = model(inputs.expand(members, *inputs.shape))
    flat = targets.flatten().expand(members, -1)
    return cross_entropy(logits.flatten(0, 1), flat.flatten(), reduction="none").view(members, -1).mean(1)


def characters(run: Batch, pairs: list[tuple[str, int]], config: TextConfig) -> Iterable[dict[str, float]]:
    """Three rates times three decays a seed, one ensemble; chosen on one half of the held-out windows."""
    text, end = corpus(config)
    for number in run.steps(len(pairs)):
        arm, seed = pairs[number]
        optimiser = arm.split("/")[1]
        kind, decay = OPTIMISERS[optimiser]
        cells = [(rate, d) for rate in config.rates for d in (config.l2 if decay == "l2" else config.decays)]
        init = [run.generator("init", seed, device="cpu") for _ in cells]
        model = CharModels(len(cells), len(text.vocab), config, init).to(run.device)
        optimizer = EnsembleOptimizer(
            model.parameters(),
            kind,
            lr=torch.tensor([rate for rate, _ in cells]),
            weight_decay=torch.tensor([d for _, d in cells]),
            decay=decay,
        )
        order = run.generator("windows", seed, device="cpu")
        schedule = cosine(config.steps)
        for step in range(config.steps):
            starts = torch.randint(end - config.window - 1, (config.batch,), generator=order)
            inputs, targets = (t.to(run.device) for t in text.windows(starts, config.window))
            optimizer.scale = schedule(step)
            optimizer.zero_grad()
            loss = losses(model, inputs, targets, len(cells))
            loss.sum().backward()
            nn.utils.clip_grad_value_(model.parameters(), 1.0)
            optimizer.step()
            if step % 20 == 19:
                run.log(step + 1, arm=arm, seed=seed, train_nats=loss.min().item())
        held = run.generator("held-out", seed, device="cpu")
        starts = end + torch.randint(
            len(text) - end - config.window - 1, (config.eval_windows,), generator=held
        )
        inputs, targets = (t.to(run.device) for t in text.windows(starts, config.window))
        half = config.eval_windows // 2
        with torch.no_grad():
            select = losses(model, inputs[:half], targets[:half], len(cells))
            report = losses(model, inputs[half:], targets[half:], len(cells))
        chosen = int(torch.where(select.isfinite(), select, torch.full_like(select, math.inf)).argmin())
        yield {
            "bits": float(report[chosen]) / math.log(2),
            "best_rate": cells[chosen][0],
            "best_decay": cells[chosen][1],
        }
