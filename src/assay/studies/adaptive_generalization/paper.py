"""The paper's scale: VGG on CIFAR-10 and a two-layer LSTM on the characters of War and Peace."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from assay.analysis.search import tune_rate
from assay.data import CharCorpus, EpochBatches, cifar10, crop_and_flip
from assay.lab import Trial
from assay.nn import VGG
from assay.optim import DevDecay, FixedFrequencyDecay
from assay.studies.adaptive_generalization.tuning import Grid

OPTIMISERS: dict[str, Callable[[Any, float], torch.optim.Optimizer]] = {
    "sgd": lambda p, lr: torch.optim.SGD(p, lr),
    "hb": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9),
    "adagrad": lambda p, lr: torch.optim.Adagrad(p, lr),
    "rmsprop": lambda p, lr: torch.optim.RMSprop(p, lr),
    "adam": lambda p, lr: torch.optim.Adam(p, lr),
}

PARTS = (0.8, 0.1, 0.1)
"""Of the text: to train on, to choose by, to test on."""


@dataclass(frozen=True)
class PaperConfig:
    source: str = "hub"  # of CIFAR-10: "hub" or the folder of its binary version
    text: str = ""  # a text file: War and Peace from Project Gutenberg, say
    depth: int = 16  # of the VGG
    image_batch: int = 128
    image_epochs: int = 250
    hidden: int = 128  # units of each of the two LSTM layers
    text_batch: int = 50
    length: int = 50
    text_epochs: int = 200
    tuning_epochs: int = 0  # of the runs that tune; 0: as many as the final one
    dev_factors: tuple[float, ...] = (0.9,)
    fixed_factors: tuple[float, ...] = (0.5,)
    fixed_every: tuple[int, ...] = (25,)  # epochs
    limit: int = 0  # batches an epoch at most; 0: all
    images: Grid = field(
        default_factory=lambda: Grid(sgd=0.5, hb=0.05, adagrad=0.01, rmsprop=0.0003, adam=0.0003)
    )
    chars: Grid = field(
        default_factory=lambda: Grid(sgd=2.0, hb=0.5, adagrad=0.02, rmsprop=0.002, adam=0.002)
    )


class CharLSTM(nn.Module):
    """Characters [batch, time] -> logits of the next ones [batch, vocabulary, time] and the state, by two layers."""

    def __init__(self, vocabulary: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.lstm = nn.LSTM(hidden, hidden, num_layers=2, batch_first=True)
        self.out = nn.Linear(hidden, vocabulary)

    def forward(self, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Logits and the LSTM's state after the last character."""
        states, state = self.lstm(self.embedding(ids), state)
        return self.out(states).transpose(1, 2), state


class Task:
    """A data set with its network: what an epoch trains on, and the metrics of a split."""

    epochs: int
    grid: Grid

    def network(self) -> nn.Module:
        """Freshly initialised, from torch's global generator."""
        raise NotImplementedError

    def losses(self, net: nn.Module, order: torch.Generator) -> Iterator[Tensor]:
        """One epoch: the loss of every batch."""
        raise NotImplementedError

    def held(self, net: nn.Module, part: str) -> dict[str, float]:
        """Metrics of a split; "score" is what tuning minimises."""
        raise NotImplementedError


class Images(Task):
    """CIFAR-10 with crops and flips; scored by error in percent."""

    def __init__(self, run: Trial, config: PaperConfig) -> None:
        self.data, self.config, self.device = cifar10(config.source, run.seed), config, run.device
        self.epochs, self.grid = config.image_epochs, config.images

    def network(self) -> nn.Module:
        return VGG(self.config.depth, dropout=True).to(self.device)

    def losses(self, net: nn.Module, order: torch.Generator) -> Iterator[Tensor]:
        train = self.data.train
        batches = EpochBatches(len(train), min(self.config.image_batch, len(train)), [order])
        for _ in range(self.config.limit or batches.per_epoch):
            index = next(batches)[0]
            x = crop_and_flip(train.images[index], order).to(self.device)
            yield cross_entropy(net(x - 0.5), train.labels[index].to(self.device))

    @torch.no_grad()
    def held(self, net: nn.Module, part: str) -> dict[str, float]:
        data = {"valid": self.data.valid, "test": self.data.test}[part]
        loss = wrong = 0.0
        for x, y in zip(data.images.split(500), data.labels.split(500), strict=True):
            logits, truth = net(x.to(self.device) - 0.5), y.to(self.device)
            loss += float(cross_entropy(logits, truth, reduction="sum"))
            wrong += float((logits.argmax(1) != truth).sum())
        error = 100 * wrong / len(data) if math.isfinite(loss) else 100.0
        return {"score": error, "error": error, "loss": loss / len(data)}


class Characters(Task):
    """A text read in parallel strands, state carried on within an epoch; scored by nats a character."""

    def __init__(self, run: Trial, config: PaperConfig) -> None:
        corpus = CharCorpus.of(read_text(config))
        cuts = [round(share * len(corpus)) for share in PARTS[:2]]
        cuts.append(len(corpus) - sum(cuts))
        if cuts[1] <= config.text_batch * (config.length + 1):
            raise ValueError(
                f"paper.text: {len(corpus):,} characters are too few for batches of {config.text_batch}"
                f" strands of {config.length}"
            )
        self.parts = dict(zip(("train", "valid", "test"), corpus.ids.split(cuts), strict=True))
        self.vocabulary, self.config, self.device = len(corpus.vocab), config, run.device
        self.epochs, self.grid = config.text_epochs, config.chars

    def network(self) -> nn.Module:
        return CharLSTM(self.vocabulary, self.config.hidden).to(self.device)

    def _windows(self, net: nn.Module, ids: Tensor) -> Iterator[Tensor]:
        batch, length = self.config.text_batch, self.config.length
        strands = ids[: len(ids) // batch * batch].view(batch, -1).to(self.device)
        state = None
        for number, first in enumerate(range(0, strands.shape[1] - length, length)):
            if self.config.limit and number == self.config.limit:
                return
            logits, state = net(strands[:, first : first + length], state)
            state = tuple(part.detach() for part in state)
            yield cross_entropy(logits, strands[:, first + 1 : first + length + 1])

    def losses(self, net: nn.Module, order: torch.Generator) -> Iterator[Tensor]:
        return self._windows(net, self.parts["train"])

    @torch.no_grad()
    def held(self, net: nn.Module, part: str) -> dict[str, float]:
        losses = [float(loss) for loss in self._windows(net, self.parts[part])]
        loss = sum(losses) / len(losses)
        guess = math.log(self.vocabulary)
        return {"score": min(loss, guess) if math.isfinite(loss) else guess, "loss": loss}


def read_text(config: PaperConfig) -> str:
    """The user's text file; one clear error where there is none."""
    if not config.text or not Path(config.text).is_file():
        raise FileNotFoundError(
            f"paper.text={config.text!r}: give a text file (--set paper.text=/path/to/war-and-peace.txt), or "
            "leave these arms out (--arms 'paper/cifar-*')"
        )
    return Path(config.text).read_text(encoding="utf-8")


def fit(
    run: Trial, task: Task, kind: str, rate: float, scheme: tuple[str, float, int], epochs: int, log: bool
) -> tuple[float, dict[str, float]]:
    """One training: the best validation score of any epoch, and the test metrics at that epoch."""
    torch.manual_seed(int(run.numpy("init").integers(2**31)))
    net, order = task.network(), run.generator("order", device="cpu")
    optimizer = OPTIMISERS[kind](net.parameters(), rate)
    name, factor, every = scheme
    dev, fixed = DevDecay(optimizer, factor), FixedFrequencyDecay(optimizer, max(1, every), factor)
    best, test, first = math.inf, {}, math.nan
    for epoch in range(epochs):
        net.train()
        seen = []
        for loss in task.losses(net, order):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append(loss.detach())
        train_loss = float(torch.stack(seen).mean())
        first = train_loss if math.isnan(first) else first
        net.eval()
        found = task.held(net, "valid")
        if log:
            run.log(epoch + 1, train_loss=train_loss, **{f"valid_{k}": v for k, v in found.items()})
        if found["score"] < best:
            best = found["score"]
            test = {f"test_{k}": v for k, v in task.held(net, "test").items()} if log else {}
        if name == "dev":
            dev.step(found["score"])
        else:
            fixed.step()
        if not math.isfinite(train_loss):
            break
    return best, test | {"first_epoch_train_loss": first}


def trial(run: Trial, arm: str, config: PaperConfig) -> dict[str, float]:
    """One method on one task: rates by a grid with edge extension under every decay scheme, then the final run."""
    which, kind = arm.split("/")[1].split("-", 1)
    task: Task = Images(run, config) if which == "cifar" else Characters(run, config)
    default, kind = kind == "adam-default", kind.removesuffix("-default")
    schemes = [("dev", factor, 0) for factor in config.dev_factors]
    schemes += [("fixed", *pair) for pair in product(config.fixed_factors, config.fixed_every)]
    chosen: dict[float, tuple[str, float, int]] = {}
    epochs = config.tuning_epochs or task.epochs

    def evaluate(rate: float) -> float:
        scores = {scheme: fit(run, task, kind, rate, scheme, epochs, False)[0] for scheme in schemes}
        chosen[rate] = min(scores, key=lambda scheme: scores[scheme])
        return scores[chosen[rate]]

    grid = task.grid
    start = grid.default if default else getattr(grid, kind)
    tuned = tune_rate(
        evaluate, start, grid.factor, 1 if default else grid.rates, 0 if default else grid.extensions
    )
    score, metrics = fit(run, task, kind, tuned.best, chosen[tuned.best], task.epochs, True)
    return metrics | {
        "valid_score": score,
        "rate": tuned.best,
        "dev_decay": float(chosen[tuned.best][0] == "dev"),
        "extended": float(tuned.extended),
        "at_edge": float(tuned.at_edge),
    }
