"""Do networks cluster by the learning rate that trained them? Claim 5."""

import math

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from assay.analysis import cluster_networks, similarity_matrix
from assay.lab import Trial
from assay.optim import EnsembleOptimizer
from assay.studies.pwcca import study
from assay.studies.pwcca.config import RatesConfig
from assay.studies.pwcca.networks import build, errors, fit, inputs, layer_rows, load


@study.trial("rates/mlp", config="rates")
def mlp(run: Trial, arm: str, config: RatesConfig) -> dict[str, float]:
    """Multilayer perceptrons."""
    return trained_by_rate(run, config)


@study.trial("rates/conv", config="rates_conv")
def conv(run: Trial, arm: str, config: RatesConfig) -> dict[str, float]:
    """Convolutional networks."""
    return trained_by_rate(run, config)


def trained_by_rate(run: Trial, config: RatesConfig) -> dict[str, float]:
    """Momentum SGD at several rates from several initialisations; converged networks are clustered layer by layer."""
    images = config.images
    train, test = load(images, run.seed)
    x, x_test = (inputs(part.images, images.layers).to(run.device) for part in (train, test))
    labels, test_labels = train.labels.to(run.device), test.labels.to(run.device)
    group = torch.arange(len(config.rates)).repeat_interleave(config.inits)
    rates = torch.tensor(config.rates)[group]
    layers: list[list[Tensor]] = []
    wrong, test_wrong = [], []
    for members in torch.arange(len(group)).split(images.at_once):
        generators = [run.generator(f"network {int(k)}", device="cpu") for k in members]
        net = build(train.images.shape[1:], images.layers, len(train.classes), generators, run.device)
        optimizer = EnsembleOptimizer(net.parameters(), "momentum", rates[members], momentum=config.momentum)
        fit(net, x, labels, optimizer, generators, images.batch, run.steps(config.steps))
        rows = layer_rows(net, x, images)
        layers = [a + b for a, b in zip(layers, rows, strict=True)] if layers else rows
        wrong.append(errors(net, x, labels))
        test_wrong.append(errors(net, x_test, test_labels))
    train_error, test_error = torch.cat(wrong).cpu(), torch.cat(test_wrong).cpu()
    kept = (train_error == 0).nonzero().squeeze(1)
    names = [*map(str, range(1, len(layers))), "output"]
    middle = str(len(layers) // 2)
    metrics = {
        "fitted": float((train_error == 0).double().mean()),
        "test_error": float(test_error[kept].mean()) if len(kept) else math.nan,
        "rates_left": float(len(group[kept].unique())),
    }
    for k, rate in enumerate(config.rates):
        metrics[f"fitted_{rate:g}"] = float((train_error[group == k] == 0).double().mean())
        metrics[f"test_error_{rate:g}"] = float(test_error[group == k].mean())
    saved = {"group": group[kept], "rates": torch.tensor(config.rates)}
    for name, layer in zip(names, layers, strict=True):
        found, distances = clustered(
            [layer[int(k)] for k in kept], group[kept], config.shuffles, run.numpy(name)
        )
        metrics |= {f"{key}_{name}": value for key, value in found.items()}
        if name == middle:
            metrics |= {f"{key}_middle": value for key, value in found.items()}
        if name in (middle, "output") and distances is not None:
            saved["middle" if name == middle else "output"] = distances.float()
    run.save("distances", saved)
    return metrics


def clustered(
    layers: list[Tensor], group: Tensor, shuffles: int, numbers: np.random.Generator
) -> tuple[dict[str, float], Tensor | None]:
    """Agreement of clusters with `group` (adjusted Rand index), mean distance within and between groups, and the
    permutation p-value of their difference; NaN where fewer than two groups or no pair of one group is left."""
    groups, counts = group.unique(return_counts=True)
    keys = ("ari", "within", "between", "gap", "p")
    if len(groups) < 2 or int(counts.max()) < 2:
        return dict.fromkeys(keys, math.nan), None
    distances = similarity_matrix(layers, "pwcca", distance=True).cpu()
    found = cluster_networks(distances, len(groups))
    upper = torch.triu_indices(len(group), len(group), 1)
    values = distances[upper[0], upper[1]]

    def halves(labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean distance within and between groups, for many labellings [..., m] at once."""
        same = (labels[..., upper[0]] == labels[..., upper[1]]).double()
        return (same * values).sum(-1) / same.sum(-1), ((1 - same) * values).sum(-1) / (1 - same).sum(-1)

    within, between = halves(group)
    orders = torch.from_numpy(np.argsort(numbers.random((shuffles, len(group))), 1))
    chance_within, chance_between = halves(group[orders])
    chance, gap = chance_between - chance_within, between - within
    p = (1 + (chance >= gap - 1e-12).sum()) / (1 + shuffles)
    ari = adjusted_rand_score(group.numpy(), found.numpy())
    return dict(zip(keys, map(float, (ari, within, between, gap, p)), strict=True)), distances
