"""Least squares: the adversarial data of the paper, and real digits with unique features."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from assay.data import mnist5k, wilson_dataset, wilson_test_set
from assay.lab import Batch
from assay.optim import EnsembleOptimizer, solution_diagnostics
from assay.studies.adaptive_generalization.tuning import ADAPTIVE, KINDS

MOMENT = {"adagrad": "sum", "rmsprop": "square", "adam": "square"}
"""Where the optimiser keeps its accumulated squared gradients."""


@dataclass(frozen=True)
class LinearConfig:
    sizes: tuple[int, ...] = (20, 100, 400)  # training points, a share `positive` of them positive
    positive: float = 0.6
    test_points: int = 500
    steps: int = 3000
    sgd: float = 0.3  # rates at the start; they fall linearly to 0
    hb: float = 0.05
    adagrad: float = 0.05
    rmsprop: float = 0.002
    adam: float = 0.005
    log_every: int = 100


@dataclass(frozen=True)
class SpuriousConfig:
    train: int = 300
    valid: int = 1000
    test: int = 3700
    steps: int = 400
    strengths: tuple[float, ...] = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)
    counts: tuple[int, ...] = (1, 2, 10, 20)  # other numbers of unique features of a negative, at strength 1
    rates: int = 8  # tried by every method, a factor `factor` apart; the first ones are:
    factor: float = 4.0
    sgd: float = 6.25e-5
    hb: float = 1.5625e-5
    adagrad: float = 6.25e-5
    rmsprop: float = 1.5625e-5
    adam: float = 1.5625e-5


class Blocks:
    """Several sparse least-squares problems as one: the entries of all matrices in one list."""

    def __init__(self, matrices: list[Tensor]) -> None:
        self.columns = max(x.shape[1] for x in matrices)
        self.count = torch.tensor([len(x) for x in matrices]).to(matrices[0])
        first = torch.tensor([0, *(len(x) for x in matrices)]).cumsum(0).tolist()
        where = [x.nonzero(as_tuple=True) for x in matrices]
        self.row = torch.cat([rows + first[k] for k, (rows, _) in enumerate(where)])
        self.column = torch.cat([columns + k * self.columns for k, (_, columns) in enumerate(where)])
        self.value = torch.cat([x[w] for x, w in zip(matrices, where, strict=True)])
        self.owner = torch.cat([torch.full((len(x),), k) for k, x in enumerate(matrices)]).to(self.row)

    def gradient(self, w: Tensor, y: Tensor) -> Tensor:
        """Gradient of every block's mean of half squared residuals [K, columns] at weights `w`."""
        residuals = (-y).index_add(0, self.row, self.value * w.flatten()[self.column])
        residuals = residuals / self.count[self.owner]
        return w.new_zeros(w.numel()).index_add(0, self.column, self.value * residuals[self.row]).view_as(w)


def adversarial(run: Batch, pairs: list[tuple[str, int]], config: LinearConfig) -> Iterable[dict[str, float]]:
    """One method on the adversarial data of every size: all sizes and seeds as one program."""
    method = pairs[0][0].split("/")[1]
    keys = [(seed, n) for _, seed in pairs for n in config.sizes]
    data = []
    for seed, n in keys:
        n_pos = round(config.positive * n)
        order = run.generator(f"order-{n}", seed, device="cpu")
        data.append([part.to(run.device) for part in wilson_dataset(n_pos, n - n_pos, order)])
    blocks, y = Blocks([x for x, _ in data]), torch.cat([labels for _, labels in data])
    w = nn.Parameter(torch.zeros(len(keys), blocks.columns, dtype=torch.float64, device=run.device))
    xty = torch.stack([pad(x.T @ labels, (0, blocks.columns - x.shape[1])) for x, labels in data]).abs()
    seen = xty > 0
    optimizer = EnsembleOptimizer([w], KINDS[method], lr=getattr(config, method))
    spread = torch.zeros(len(keys), dtype=torch.float64, device=run.device)
    first = spread
    for step in run.steps(config.steps):
        optimizer.scale = 1 - step / config.steps
        w.grad = blocks.gradient(w.detach(), y)
        optimizer.step()
        if method in ADAPTIVE and (step % config.log_every == 0 or step == config.steps - 1):
            ratio = torch.where(seen, optimizer.state[w][MOMENT[method]].sqrt() / xty, 0.0)
            mean = ratio.sum(1) / seen.sum(1)
            deviation = torch.where(seen, ratio - mean[:, None], 0.0).square().sum(1) / seen.sum(1)
            first = mean if step == 0 else first
            # RMSProp forgets: around the limit its steps flip signs and blow up rounding errors, so the ratio is
            # asked for only while the root is still of the first one's order.
            spread = torch.where(mean > 0.1 * first, torch.maximum(spread, deviation.sqrt() / mean), spread)
    for k, (arm, seed) in enumerate(pairs):
        metrics: dict[str, float] = {}
        gaps, ratios, errors, cosines = [], [], [], []
        for j, n in enumerate(config.sizes):
            row = k * len(config.sizes) + j
            x, labels = data[row]
            weights = w.detach()[row, : x.shape[1]]
            found = solution_diagnostics(weights, x, labels)
            draws = run.generator("test", seed, device="cpu")
            positives = int((torch.rand(config.test_points, generator=draws) < config.positive).sum())
            positives = min(max(positives, 1), config.test_points - 1)
            fresh, truth = wilson_test_set(positives, config.test_points - positives, len(x))
            fresh, truth = fresh.to(weights), truth.to(weights)
            scores = fresh @ pad(weights, (0, fresh.shape[1] - len(weights)))
            error = float((scores * truth <= 0).double().mean())
            negatives = 1 - positives / config.test_points
            metrics |= {f"test_error_{n}": error, f"cos_sign_{n}": found.cos_sign}
            metrics |= {f"cos_minnorm_{n}": found.cos_minnorm, f"span_residual_{n}": found.span_residual}
            gaps.append(abs(error - (negatives if method in ADAPTIVE else 0.0)))
            ratios.append(error / negatives)
            errors.append(error)
            cosines.append(found.cos_sign if method in ADAPTIVE else found.cos_minnorm)
            if j == 0:
                run.save("weights", {"w": weights, "xty": found.xty}, arm=arm, seed=seed)
        metrics |= {
            "cosine": min(cosines),  # to the method's own limit, the worst size
            "test_error": max(errors),
            "error_gap": max(gaps),  # to the error that the lemma predicts
            "error_over_negatives": min(ratios),
        }
        if method in ADAPTIVE:
            rows = slice(k * len(config.sizes), (k + 1) * len(config.sizes))
            metrics["root_over_xty_spread"] = float(spread[rows].max())
        yield metrics


def fit(
    x: Tensor, y: Tensor, strength: Tensor, own: Tensor, kind: str, rates: Tensor, run: Batch, steps: int
) -> tuple[Tensor, Tensor]:
    """Full-batch least squares from 0 with unique features: weights [K, features] and unique weights [K, n].

    All unique features of an example see the same gradients, so a method that treats coordinates alone keeps
    their weights equal: one number stands for the `own` of them (what `add_unique_features` gives, without its
    thousands of columns).

    Args:
        x, y: [n, features], [n].
        strength: [K].
        own: unique features of every example [K, n].
    """
    n, features = x.shape
    w = nn.Parameter(x.new_zeros(len(strength), features))
    u = nn.Parameter(x.new_zeros(len(strength), n))
    optimizer = EnsembleOptimizer([w, u], kind, lr=rates)
    unique = strength[:, None] * own
    for _ in run.steps(steps):
        with torch.no_grad():
            residuals = (w @ x.T + unique * u - y) / n
            w.grad = residuals @ x
            u.grad = strength[:, None] * residuals
        optimizer.step()
    return w.detach(), u.detach()


def spurious(run: Batch, pairs: list[tuple[str, int]], config: SpuriousConfig) -> Iterable[dict[str, float]]:
    """One method on real digits, 0-4 against 5-9, for every strength and number of unique features."""
    method = pairs[0][0].split("/")[1]
    settings = [(strength, 5) for strength in config.strengths] + [(1.0, count) for count in config.counts]
    rates = [getattr(config, method) * config.factor**k for k in range(config.rates)]
    grid = [(strength, count, rate) for strength, count in settings for rate in rates]
    strength, count, rate = (
        torch.tensor(column, dtype=torch.float32, device=run.device) for column in zip(*grid, strict=True)
    )
    for _arm, seed in pairs:
        splits = mnist5k(pool=2, split_seed=seed, sizes=(config.train, config.valid, config.test))
        (x, y), (valid_x, valid_y), (test_x, test_y) = (
            (
                part.images.flatten(1).to(run.device),
                torch.where(part.labels < 5, 1.0, -1.0).to(run.device),
            )
            for part in (splits.train, splits.valid, splits.test)
        )
        own = torch.where(y > 0, 1.0, count[:, None])
        w, u = fit(x, y, strength, own, KINDS[method], rate, run, config.steps)
        valid, test = (
            # Fresh examples have fresh unique features, whose weights are 0. NaN of a diverged fit is an error.
            1 - ((features @ w.T) * labels[:, None] > 0).float().mean(0)
            for features, labels in ((valid_x, valid_y), (test_x, test_y))
        )
        shared = x @ w.T
        from_unique = (strength[:, None] * own * u).T
        metrics: dict[str, float] = {}
        for k, (s, c) in enumerate(settings):
            rows = slice(k * len(rates), (k + 1) * len(rates))
            best = k * len(rates) + int(valid[rows].argmin())
            name = f"s{s:g}" if k < len(config.strengths) else f"k{c}"
            metrics[f"error_{name}"] = 100 * float(test[best])
            metrics[f"rate_{name}"] = float(rate[best])
            margin = y @ (shared[:, best] + from_unique[:, best])
            metrics[f"unique_share_{name}"] = float(y @ from_unique[:, best] / margin)
        yield metrics
