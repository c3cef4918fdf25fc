"""Image recognition: every rate and decay scheme of every seed as one ensemble."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from assay.data import EpochBatches, mnist5k
from assay.lab import Batch
from assay.nn import EnsembleMLP, ensemble_cross_entropy, ensemble_error
from assay.optim import EnsembleOptimizer
from assay.studies.adaptive_generalization.tuning import KINDS, Grid, Member, Schedules, tune_together


@dataclass(frozen=True)
class ImageConfig:
    train: int = 2000
    valid: int = 1000
    test: int = 2000
    hidden: tuple[int, ...] = (100, 100)
    batch_size: int = 64
    steps: int = 800
    epochs: int = 20  # evaluations, at which decay may act: an "epoch" is steps / epochs
    watched: int = 500  # training images of an evaluation
    grid: Grid = field(default_factory=Grid)


@dataclass(frozen=True)
class Pictures:
    """One seed's split: inputs standardised by one mean and one deviation."""

    x: Tensor
    y: Tensor
    valid_x: Tensor
    valid_y: Tensor
    test_x: Tensor
    test_y: Tensor


def load(run: Batch, seed: int, config: ImageConfig) -> Pictures:
    """That seed's images."""
    splits = mnist5k(pool=2, split_seed=seed, sizes=(config.train, config.valid, config.test))
    mean, std = splits.train.images.mean(), splits.train.images.std()
    parts: list[Tensor] = []
    for part in (splits.train, splits.valid, splits.test):
        parts += [((part.images - mean) / std).flatten(1).to(run.device), part.labels.to(run.device)]
    return Pictures(*parts)


def train(
    run: Batch,
    data: list[Pictures],
    seeds: list[int],
    members: list[Member],
    kind: str,
    config: ImageConfig,
) -> list[dict[str, list[float]]]:
    """Train all members; for each, its history and what it ends with.

    A seed's members share initialisation and order of examples, whatever the method.
    """

    def stream(name: str) -> list[torch.Generator]:
        return [run.generator(name, seeds[m.search], device="cpu") for m in members]

    sizes = (data[0].x.shape[1], *config.hidden, 10)
    net = EnsembleMLP(sizes, len(members), generators=stream("init")).to(run.device)
    rates = torch.tensor([m.rate for m in members], device=run.device)
    optimizer = EnsembleOptimizer(net.parameters(), kind, lr=rates)
    schedules = Schedules(optimizer, members, config.epochs, config.grid)
    batches = EpochBatches(config.train, config.batch_size, stream("order"))
    where = torch.tensor([m.search for m in members], device=run.device)
    x, y = torch.cat([d.x for d in data]), torch.cat([d.y for d in data])
    held = {
        "train": ([d.x[: config.watched] for d in data], [d.y[: config.watched] for d in data]),
        "valid": ([d.valid_x for d in data], [d.valid_y for d in data]),
        "test": ([d.test_x for d in data], [d.test_y for d in data]),
    }
    sets = {name: (torch.stack(inputs), torch.stack(labels)) for name, (inputs, labels) in held.items()}
    history: list[dict[str, list[float]]] = [{} for _ in members]

    @torch.no_grad()
    def record(name: str) -> Tensor:
        inputs, labels = sets[name]
        logits, truth = net(inputs[where]), labels[where]
        errors, losses = ensemble_error(logits, truth), ensemble_cross_entropy(logits, truth)
        for seen, error, loss in zip(history, errors.tolist(), losses.tolist(), strict=True):
            seen.setdefault(f"{name}_error", []).append(100 * error)
            seen.setdefault(f"{name}_loss", []).append(loss)
        return torch.where(losses.isfinite(), errors, torch.ones_like(errors))

    due = {round((k + 1) * config.steps / config.epochs) for k in range(config.epochs)}
    for step in run.steps(config.steps):
        index = next(batches).to(run.device) + where[:, None] * config.train
        optimizer.zero_grad()
        ensemble_cross_entropy(net(x[index]), y[index]).sum().backward()
        optimizer.step()
        if step + 1 in due:
            record("train")
            schedules.step(record("valid"))
    record("test")
    return history


def search(run: Batch, pairs: list[tuple[str, int]], config: ImageConfig) -> Iterable[dict[str, float]]:
    """One method, tuned for each seed on its validation images."""
    method = pairs[0][0].split("/")[1]
    seeds = [seed for _, seed in pairs]
    data = [load(run, seed, config) for seed in seeds]
    kind = KINDS[method.removesuffix("-default")]
    found: dict[Member, dict[str, list[float]]] = {}

    def evaluate(members: list[Member]) -> list[float]:
        histories = train(run, data, seeds, members, kind, config)
        found.update(zip(members, histories, strict=True))
        return [score(history) for history in histories]

    for k, tuned in enumerate(tune_together(evaluate, len(seeds), method, config.grid)):
        arm, seed = pairs[k]
        history = found[Member(k, tuned.rate, tuned.scheme)]
        mine = [h for m, h in found.items() if m.search == k]
        for epoch in range(config.epochs):
            run.log(
                round((epoch + 1) * config.steps / config.epochs),
                arm=arm,
                seed=seed,
                **{name: history[name][epoch] for name in ("train_loss", "train_error", "valid_error")},
            )
        metrics = {name: values[-1] for name, values in history.items()}
        # The metrics at 5 % of the steps, and the worst that the search met.
        metrics |= {"early_train_loss": history["train_loss"][0]}
        metrics |= {"early_valid_error": history["valid_error"][0]}
        metrics |= {"diverged": float(sum(not math.isfinite(h["valid_loss"][-1]) for h in mine))}
        metrics |= {"trained": float(len(mine))}
        yield metrics | tuned.metrics()


def score(history: dict[str, list[float]]) -> float:
    """Final validation error in points; ties, which are frequent among 1,000 images, go to the lower loss."""
    error, loss = history["valid_error"][-1], history["valid_loss"][-1]
    return error + 1e-3 * min(loss, 10.0) if math.isfinite(loss) else 100.0 + 0.01
