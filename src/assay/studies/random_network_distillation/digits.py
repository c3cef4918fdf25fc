"""Novelty of digits: error on a class against the number of its examples, all trainings in one stack of networks."""

from collections.abc import Iterator

import torch
from scipy import stats

from assay.data.images import mnist
from assay.lab import Batch
from assay.nn import EnsembleMLP
from assay.optim import EnsembleOptimizer
from assay.rl.nets import mlp
from assay.studies.random_network_distillation import study
from assay.studies.random_network_distillation.config import DigitsConfig


@study.batch("digits/*", config="digits", group="arm")
def digits(run: Batch, pairs: list[tuple[str, int]], config: DigitsConfig) -> Iterator[dict[str, float]]:
    """Train on zeros and n examples of another class; test on unseen ones of it."""
    label = int(pairs[0][0].partition("/")[2])
    counts = config.examples
    most = max(counts)
    rows, tests, targets, predictors, drawers = [], [], [], [], []
    for _, seed in pairs:
        g = run.generator("digits", seed, device="cpu")
        data = mnist(config.source, split_seed=seed)
        train, unseen = data.train, [part.images[part.labels == label] for part in (data.valid, data.test)]

        def some(images: torch.Tensor, count: int, g: torch.Generator = g) -> torch.Tensor:
            if len(images) < count:
                raise ValueError(
                    f"{count} images of a class are asked for, {len(images)} are there: use a larger source"
                )
            return images[torch.randperm(len(images), generator=g)[:count]].flatten(1)

        zeros = some(train.images[train.labels == 0], config.zeros)
        rows.append(torch.cat((zeros, some(train.images[train.labels == label], most))))
        tests.append(some(torch.cat(unseen), config.test))
        # The same two networks for every n of a seed.
        inputs = zeros.shape[1]
        targets.append(mlp((inputs, *config.target), "relu", 2**0.5, g))
        first = mlp((inputs, *config.predictor), "relu", 2**0.5, g)
        predictors += [first] * len(counts)
        drawers.append(run.generator("batches", seed))
    x, test = torch.stack(rows).to(run.device), torch.stack(tests).to(run.device)
    with torch.no_grad():
        target = EnsembleMLP.of(targets).to(run.device)
        y, y_test = target(x), target(test)
    net = EnsembleMLP.of(predictors).to(run.device)
    optimizer = EnsembleOptimizer(net.parameters(), "adam", config.rate)
    seeds = len(pairs)
    sizes = config.zeros + torch.tensor(counts, device=run.device)
    which = torch.arange(seeds, device=run.device)[:, None, None]
    for step in run.steps(config.steps):
        drawn = torch.stack([torch.rand(config.batch, generator=g, device=run.device) for g in drawers])
        index = (drawn[:, None] * sizes[:, None]).long()  # [seeds, counts, batch]
        error = (net(x[which, index].flatten(0, 1)) - y[which, index].flatten(0, 1)).square().mean((1, 2))
        optimizer.zero_grad()
        error.sum().backward()
        optimizer.step()
        if step % 50 == 0:
            for (arm, seed), value in zip(pairs, error.detach().view(seeds, -1), strict=True):
                run.log(step, arm=arm, seed=seed, training=value.mean())
    with torch.no_grad():

        def errors(inputs: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
            """[seeds, counts]: mean squared error of each network on its seed's rows."""
            n = len(counts)
            found = net(inputs.repeat_interleave(n, 0)) - goal.repeat_interleave(n, 0)
            return found.square().mean((1, 2)).view(seeds, n)

        novel = errors(test, y_test)
        known = errors(x[:, : config.zeros], y[:, : config.zeros])
    for row, zero in zip(novel.tolist(), known.tolist(), strict=True):
        rho = float(stats.spearmanr(counts, row).statistic)
        yield {
            "rho": rho,
            "ratio": row[0] / row[-1],
            **{f"novelty_{n}": value for n, value in zip(counts, row, strict=True)},
            **{f"zeros_{n}": value for n, value in zip(counts, zero, strict=True)},
        }
