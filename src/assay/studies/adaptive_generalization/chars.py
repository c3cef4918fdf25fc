"""A character model of the King James Bible: rates tuned on a seed of their own, then every seed at the best one."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from assay.data import CharCorpus, bible_text
from assay.lab import Batch
from assay.nn import EnsembleEmbedding, EnsembleGRU, EnsembleLinear, ensemble_cross_entropy
from assay.optim import EnsembleOptimizer
from assay.studies.adaptive_generalization.tuning import KINDS, Grid, Member, Schedules, tune_together


@dataclass(frozen=True)
class CharConfig:
    train: int = 1_200_000  # characters
    held_out: int = 100_000  # for development, and as many to test
    embedding: int = 16
    hidden: int = 64
    batch_size: int = 32
    length: int = 32  # characters of a window; the state starts at 0
    steps: int = 300
    epochs: int = 20  # evaluations, at which decay may act
    watched: int = 6_000  # characters of an evaluation
    tested: int = 40_000  # of the last one
    tuning_seed: int = 1000  # never published
    grid: Grid = field(
        default_factory=lambda: Grid(sgd=2.0, hb=0.5, adagrad=0.08, rmsprop=0.008, adam=0.016, rates=4)
    )


@dataclass(frozen=True)
class Text:
    """Characters to train on, to choose by and to test on."""

    train: CharCorpus
    dev: CharCorpus
    test: CharCorpus


def load(config: CharConfig, device: torch.device | str) -> Text:
    """The first characters of the Bible."""
    whole = CharCorpus.of(bible_text("all")[: config.train + 2 * config.held_out])
    cuts = whole.ids.to(device).split([config.train, config.held_out, config.held_out])
    return Text(*(CharCorpus(part, whole.vocab) for part in cuts))


class CharModel(nn.Module):
    """K character models: embedding, one GRU layer, softmax."""

    def __init__(
        self, members: int, vocabulary: int, embedding: int, hidden: int, generators: list[torch.Generator]
    ) -> None:
        super().__init__()
        self.embedding = EnsembleEmbedding(members, vocabulary, embedding, generators)
        self.gru = EnsembleGRU(members, embedding, hidden, generators)
        self.out = EnsembleLinear(members, hidden, vocabulary, generators=generators)

    def forward(self, ids: Tensor) -> Tensor:
        """Characters [K, batch, time] -> logits of the next ones [K, batch * time, vocabulary]."""
        states, _ = self.gru(self.embedding(ids))
        return self.out(states.flatten(1, 2))


@torch.no_grad()
def held_loss(net: CharModel, corpus: CharCorpus, members: int, characters: int, length: int) -> Tensor:
    """Nats a character over the first `characters` [K], in windows of `length`."""
    windows = max(1, min(characters, len(corpus) - 1) // length)
    starts = torch.arange(windows, device=corpus.ids.device) * length
    total = torch.zeros(members, device=corpus.ids.device)
    for part in starts.split(256):
        inputs, targets = corpus.windows(part, length)
        logits = net(inputs.expand(members, -1, -1))
        total = total + ensemble_cross_entropy(logits, targets.flatten()) * len(part)
    return total / windows


def train(
    run: Batch, text: Text, seeds: list[int], members: list[Member], kind: str, config: CharConfig
) -> list[dict[str, list[float]]]:
    """Train all members; for each, its losses at every evaluation and the test loss at the end."""

    def stream(name: str) -> list[torch.Generator]:
        return [run.generator(name, seeds[m.search], device="cpu") for m in members]

    count = len(members)
    net = CharModel(count, len(text.train.vocab), config.embedding, config.hidden, stream("chars-init"))
    net = net.to(run.device)
    rates = torch.tensor([m.rate for m in members], device=run.device)
    optimizer = EnsembleOptimizer(net.parameters(), kind, lr=rates)
    schedules = Schedules(optimizer, members, config.epochs, config.grid)
    order = [run.generator("chars-order", seed, device="cpu") for seed in seeds]
    where = torch.tensor([m.search for m in members])
    last = len(text.train) - config.length - 1
    history: list[dict[str, list[float]]] = [{} for _ in members]

    def record(name: str, corpus: CharCorpus, characters: int) -> Tensor:
        losses = held_loss(net, corpus, count, characters, config.length)
        for seen, loss in zip(history, losses.tolist(), strict=True):
            seen.setdefault(name, []).append(loss)
        return losses

    due = {round((k + 1) * config.steps / config.epochs) for k in range(config.epochs)}
    for step in run.steps(config.steps):
        starts = torch.stack([torch.randint(last, (config.batch_size,), generator=g) for g in order])
        inputs, targets = text.train.windows(starts[where].to(run.device), config.length)
        optimizer.zero_grad()
        ensemble_cross_entropy(net(inputs), targets.flatten(1)).sum().backward()
        optimizer.step()
        if step + 1 in due:
            record("train_loss", text.train, config.watched)
            schedules.step(record("valid_loss", text.dev, config.watched))
    record("test_loss", text.test, config.tested)
    return history


def search(run: Batch, pairs: list[tuple[str, int]], config: CharConfig) -> Iterable[dict[str, float]]:
    """One method: tuned on the tuning seed, then trained on every seed."""
    method = pairs[0][0].split("/")[1]
    kind = KINDS[method.removesuffix("-default")]
    text = load(config, run.device)
    guess = math.log(len(text.train.vocab))
    diverged = trained = 0

    def evaluate(members: list[Member]) -> list[float]:
        nonlocal diverged, trained
        losses = [h["valid_loss"][-1] for h in train(run, text, [config.tuning_seed], members, kind, config)]
        diverged += sum(not math.isfinite(loss) for loss in losses)
        trained += len(members)
        # What diverged counts as guessing uniformly.
        return [min(loss, guess) if math.isfinite(loss) else guess for loss in losses]

    (tuned,) = tune_together(evaluate, 1, method, config.grid)
    members = [Member(k, tuned.rate, tuned.scheme) for k in range(len(pairs))]
    histories = train(run, text, [seed for _, seed in pairs], members, kind, config)
    for (arm, seed), history in zip(pairs, histories, strict=True):
        for epoch in range(config.epochs):
            run.log(
                round((epoch + 1) * config.steps / config.epochs),
                arm=arm,
                seed=seed,
                **{name: history[name][epoch] for name in ("train_loss", "valid_loss")},
            )
        metrics = {
            name: values[-1] if math.isfinite(values[-1]) else guess for name, values in history.items()
        }
        metrics["early_train_loss"] = history["train_loss"][0]
        metrics["early_valid_loss"] = history["valid_loss"][0]
        yield metrics | {"diverged": float(diverged), "trained": float(trained)} | tuned.metrics()
