"""Networks trained on true, partly random and random labels: claims 1 to 4, and layers over training."""

import math
from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from assay.analysis import cca, noise_floor, pwcca, similarity_matrix
from assay.analysis.comparison import METRICS
from assay.analysis.similarity import basis
from assay.data import corrupt_labels
from assay.lab import Batch
from assay.optim import EnsembleOptimizer
from assay.studies.pwcca import study
from assay.studies.pwcca.config import NoiseConfig
from assay.studies.pwcca.networks import build, checkpoints, errors, fit, inputs, layer_rows, load

Layers = list[list[Tensor]]  # [layer][network] -> [observations, neurons]


class Trained:
    """One group of networks of one share of random labels."""

    def __init__(self, run: Batch, seed: int, level: str, config: NoiseConfig) -> None:
        images = config.images
        train, test = load(images, seed)
        x, x_test = (inputs(part.images, images.layers).to(run.device) for part in (train, test))
        # One draw of noise for a group: its networks all learn the same task, as in the paper.
        labels = corrupt_labels(
            train.labels, float(level), len(train.classes), run.generator("labels", seed, "cpu")
        ).to(run.device)
        self.steps = config.true_steps if float(level) == 0 else config.noisy_steps
        self.history: dict[int, Layers] = {}
        wanted = set(checkpoints(self.steps, config.checkpoints)) if level in ("0", "1") else set()
        gathered: list[Layers] = []
        wrong, test_wrong = [], []
        nets = config.nets if level in ("0", "1") else config.partial_nets
        for first in range(0, nets, images.at_once):
            generators = [
                run.generator(f"network {level} {k}", seed, "cpu")
                for k in range(first, min(first + images.at_once, nets))
            ]
            net = build(train.images.shape[1:], images.layers, len(train.classes), generators, run.device)

            def watch(step: int, net=net, first=first) -> None:  # type: ignore[no-untyped-def]
                if first == 0 and step in wanted:
                    rows = layer_rows(net, x, images)
                    self.history[step] = [layer[: config.watched] for layer in rows[:-1]]

            fit(
                net,
                x,
                labels,
                EnsembleOptimizer(net.parameters(), "adam", config.rate),
                generators,
                images.batch,
                run.steps(self.steps),
                watch,
            )
            gathered.append(layer_rows(net, x, images))
            wrong.append(errors(net, x, labels))
            test_wrong.append(errors(net, x_test, test.labels.to(run.device)))
        self.layers: Layers = [
            [net for part in parts for net in part] for parts in zip(*gathered, strict=True)
        ]
        self.train_error, self.test_error = torch.cat(wrong), torch.cat(test_wrong)


def names(layers: Layers) -> list[str]:
    """Hidden layers from 1 on, then `output`."""
    return [*map(str, range(1, len(layers))), "output"]


def floor_of(a: list[Tensor], b: list[Tensor], n_perm: int, generator: torch.Generator) -> float:
    """Mean PWCCA similarity after shuffling the observations, over the first networks of both groups."""
    pairs = list(product(a[:2], b[:2])) if a is not b else [(a[0], a[1]), (a[1], a[0])]
    return float(
        torch.stack([noise_floor(x, y, "pwcca", n_perm, generator, side="mean") for x, y in pairs]).mean()
    )


def described(values: dict[str, Tensor], name: str) -> dict[str, float]:
    """Mean distance over pairs of networks, and its spread, of every measure."""
    return {f"{measure}_{name}": float(v.mean()) for measure, v in values.items()} | {
        f"spread_{measure}_{name}": float(v.std()) if len(v) > 1 else math.nan
        for measure, v in values.items()
    }


def within(layer: list[Tensor]) -> dict[str, Tensor]:
    """Distances of all pairs of networks by every measure."""
    upper = torch.triu_indices(len(layer), len(layer), 1)
    return {m: similarity_matrix(layer, m, distance=True)[upper[0], upper[1]] for m in METRICS}


def across(one: list[Tensor], other: list[Tensor]) -> dict[str, Tensor]:
    """The same for pairs with one network of each group."""
    k = len(one)
    return {m: similarity_matrix([*one, *other], m, distance=True)[:k, k:].flatten() for m in METRICS}


@study.batch("noise/*", config="noise", group="seed")
def noise(run: Batch, pairs: list[tuple[str, int]], config: NoiseConfig) -> Iterator[dict[str, float]]:
    """All levels of one seed; `between` compares the networks of the first level with those of the last."""
    groups: dict[tuple[str, int], Trained] = {}

    def group(level: str, seed: int) -> Trained:
        if (level, seed) not in groups:
            groups[level, seed] = Trained(run, seed, level, config)
        return groups[level, seed]

    for arm, seed in pairs:
        level = arm.partition("/")[2]
        shuffles = run.generator("shuffles", seed, "cpu")
        metrics: dict[str, float] = {}
        if level == "between":
            true, random = group("0", seed), group("1", seed)
            layers = list(zip(true.layers, random.layers, strict=True))
            for name, (one, other) in zip(names(true.layers), layers, strict=True):
                found = described(across(one, other), name)
                found[f"floor_{name}"] = floor_of(one, other, config.permutations, shuffles)
                metrics |= found
        else:
            trained = group(level, seed)
            for name, layer in zip(names(trained.layers), trained.layers, strict=True):
                metrics |= described(within(layer), name)
                metrics[f"floor_{name}"] = floor_of(layer, layer, config.permutations, shuffles)
                metrics[f"rank_{name}"] = float(cca(layer[0], layer[1]).rank_x)
            metrics |= {
                "train_accuracy": 1 - float(trained.train_error.mean()),
                "fitted": float((trained.train_error == 0).double().mean()),
                "test_error": float(trained.test_error.mean()),
            }
            if trained.history:
                metrics |= over_training(run, arm, seed, trained)
                save_coefficients(run, arm, seed, trained)
        last = names(group("0", seed).layers if level == "between" else trained.layers)[-2]
        metrics |= {
            key.replace(f"_{last}", "_last"): v for key, v in metrics.items() if key.endswith(f"_{last}")
        }
        for name in [key.partition("_")[2] for key in list(metrics) if key.startswith("floor_")]:
            metrics[f"excess_{name}"] = 1 - metrics[f"pwcca_{name}"] - metrics[f"floor_{name}"]
        yield metrics


def over_training(run: Batch, arm: str, seed: int, trained: Trained) -> dict[str, float]:
    """Distance of every layer to its own final state, and the fate of stable and unstable directions.

    Signal against noise: the canonical vectors of the final last hidden layer that correlate best (worst) with the
    layer halfway through training; followed is how well the layer at other times holds them.
    """
    steps = sorted(trained.history)
    final = [torch.stack(layer) for layer in trained.history[steps[-1]]]
    distance = torch.zeros(len(steps), len(final))
    kept: dict[int, tuple[float, float]] = {}
    halfway = min(steps, key=lambda step: abs(step - steps[-1] / 2))
    end, middle = trained.history[steps[-1]][-1][0], trained.history[halfway][-1][0]
    directions = cca(end, middle).x_dirs
    quarter = max(directions.shape[1] // 4, 1)
    for i, step in enumerate(steps):
        layers = [torch.stack(layer) for layer in trained.history[step]]
        for j, (now, then) in enumerate(zip(layers, final, strict=True)):
            distance[i, j] = pwcca(then, now, side="mean", distance=True).mean()
        held = held_share(directions, layers[-1][0])
        kept[step] = float(held[:quarter].mean()), float(held[-quarter:].mean())
        stable, unstable = kept[step]
        run.log(
            step,
            arm=arm,
            seed=seed,
            **{f"distance_{j + 1}": float(d) for j, d in enumerate(distance[i])},
            stable=stable,
            unstable=unstable,
        )
    # Checkpoints are spaced by factors, so plain means weigh early training.
    area = distance[:-1].mean(0)
    others = [step for step in steps[1:-1] if step != halfway] or steps[:1]
    return {f"area_{j + 1}": float(a) for j, a in enumerate(area)} | {
        "stable": sum(kept[s][0] for s in others) / len(others),
        "unstable": sum(kept[s][1] for s in others) / len(others),
    }


def held_share(directions: Tensor, layer: Tensor) -> Tensor:
    """Correlation of each unit direction [n, k] with its best linear read-out from `layer` [n, d]."""
    q = basis(layer).q
    assert q is not None
    return (q.mT @ directions).norm(dim=0)


def save_coefficients(run: Batch, arm: str, seed: int, trained: Trained) -> None:
    """Sorted correlations and their weights at the last hidden layer, first pair of networks."""
    pair = cca(*trained.layers[-2][:2])
    run.save(
        "coefficients",
        {
            "rho": pair.rho.float(),
            "l1": pair.weights("x").float(),
            "variance": pair.weights("x", "variance").float(),
        },
        arm=arm,
        seed=seed,
    )
