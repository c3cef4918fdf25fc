"""Linear maps: gradient descent from scratch, and a recurrent network that learns in its state."""

import math

import torch
from torch import Tensor, nn

from assay.analysis import (
    explained_share,
    half_time,
    mode_strength,
    probe_linear,
    stagger_index,
    subspace_overlap,
)
from assay.lab import Trial
from assay.meta import BayesLinear, LinearTasks, MetaState, SequenceMetaLearner, meta_train
from assay.meta.tasks import LinearBatch
from assay.optim import EnsembleOptimizer
from assay.studies.meta_learner_dynamics import study
from assay.studies.meta_learner_dynamics.config import LinearLearnerConfig, LinearMetaConfig

KINDS = {"learner": "sgd", "shallow": "sgd", "momentum": "momentum", "adam": "adam", "rmsprop": "rmsprop"}


# -- the meta-learner ---------------------------------------------------------------------------------------------


@study.trial("linear/meta", "linear/meta-2x2", config="linear")
def meta(run: Trial, arm: str, config: LinearMetaConfig) -> dict[str, float]:
    """Train over tasks, freeze, and read the learned map from the state after every pair."""
    small = arm.endswith("2x2")
    spectrum = config.small_spectrum if small else config.spectrum
    size = len(spectrum) if small else config.size
    model = SequenceMetaLearner(size, config.hidden, size, generator=run.generator("network", "cpu"))
    model = model.to(run.device)
    training = meta_train(
        model,
        LinearTasks(size, size, config.sigma),
        config.small_steps if small else config.steps,
        horizon=config.horizon,
        batch=config.batch,
        rate=config.rate,
        snapshots=config.stages,
        generator=run.generator("outer"),
        over=run.steps,
    )
    for step in range(0, len(training.losses), 25):
        run.log(step, loss=training.losses[step : step + 25].mean())

    tasks = LinearTasks(size, size, config.sigma, spectrum=spectrum)
    seen = tasks.sample(config.tasks, config.horizon, run.generator("evaluation"))
    learned = learned_maps(run, model, seen, config.probes)
    bayes = bayes_path(seen, config.sigma)
    truth = seen.weight.unsqueeze(1)
    curve = mode_strength(learned, truth).strength.mean(0).mT
    ideal = mode_strength(bayes, truth).strength.mean(0).mT
    run.save("curves", {"meta": curve, "bayes": ideal})

    stages = []
    few = LinearBatch(*(part[: config.stage_tasks] for part in seen))
    for weights in training.snapshots.values():
        model.load_state_dict(weights)
        maps = learned_maps(run, model, few, config.probes)
        stages.append(mode_strength(maps, few.weight.unsqueeze(1)).strength.mean(0).mT)
    model.load_state_dict(training.snapshots[1.0])
    shares = torch.tensor(list(training.snapshots), dtype=torch.float32)
    run.save("stages", {"share": shares, "strength": torch.stack(stages)})

    own, ideal_own = final_errors(run, model, config, size, 1.0)
    scaled, ideal_scaled = final_errors(run, model, config, size, config.scale)
    error = relative_error(learned, truth).mean(0)
    return {
        "index": float(stagger_index(curve)),
        "bayes_index": float(stagger_index(ideal)),
        "gap": float((curve - ideal)[:, 1:].abs().mean()),
        "weakest": float(curve[:, -1].min()),
        "off_diagonal": float(mode_strength(learned, truth).off_diagonal[:, -1].mean()),
        "pairs_to_tenth": first_below(error, 0.1, config.horizon),
        "bayes_pairs_to_tenth": first_below(relative_error(bayes, truth).mean(0), 0.1, config.horizon),
        "own_error": own,
        "own_ratio": own / ideal_own,
        "scaled_error": scaled,
        "scaled_ratio": scaled / ideal_scaled,
        **other_measures(learned, seen.weight),
    }


@torch.no_grad()
def learned_maps(run: Trial, model: SequenceMetaLearner, seen: LinearBatch, probes: int) -> Tensor:
    """The map in the state after 0, 1, ..., T pairs, read by probes: ``[tasks, T + 1, ny, nx]``.

    The episode is run once; every moment is asked the same inputs.
    """
    states = model.states(seen.x, seen.y)
    found = []
    for t in range(seen.x.shape[1] + 1):
        moment = MetaState(*(part[:, t] for part in states))
        fit = probe_linear(
            lambda x, state=moment: model.predict_from(state, x),
            seen.x.shape[-1],
            probes,
            run.generator("probes"),
        )
        found.append(fit.weight)
    return torch.stack(found, 1)


def bayes_path(seen: LinearBatch, sigma: float) -> Tensor:
    """The posterior mean after 0, 1, ..., T pairs under the prior of the training tasks."""
    prior = torch.eye(seen.x.shape[-1], dtype=torch.float64, device=seen.x.device)
    return BayesLinear(sigma, prior).path(seen.x, seen.y).float()


def relative_error(learned: Tensor, truth: Tensor) -> Tensor:
    """Squared error of the map over its squared norm: the expected squared error of noise-free predictions."""
    return (learned - truth).square().sum((-2, -1)) / truth.square().sum((-2, -1))


def first_below(error: Tensor, level: float, limit: int) -> float:
    """Examples until the mean error has fallen to `level`; `limit` if it never does."""
    found = float(half_time(1 - error, 1 - level))
    return found if math.isfinite(found) else float(limit)


def final_errors(
    run: Trial, model: SequenceMetaLearner, config: LinearMetaConfig, size: int, scale: float
) -> tuple[float, float]:
    """Relative squared error after a whole episode on maps `scale` times the prior's: model, and Bayes who knows it."""
    tasks = LinearTasks(size, size, config.sigma, prior_scale=scale)
    seen = tasks.sample(config.tasks, config.horizon, run.generator("scaled"))
    state = model.state_after(seen.x, seen.y, config.horizon)
    found = probe_linear(
        lambda x: model.predict_from(state, x), size, config.probes, run.generator("probes")
    ).weight
    prior = scale**2 * torch.eye(size, dtype=torch.float64, device=seen.x.device)
    ideal = BayesLinear(config.sigma, prior).update(seen.x, seen.y).mean
    return (
        float(relative_error(found, seen.weight).mean()),
        float(relative_error(ideal, seen.weight.double()).mean()),
    )


def other_measures(learned: Tensor, weight: Tensor) -> dict[str, float]:
    """The same curves under other measures of progress ``[tasks, times, ny, nx]``.

    `share_index`: stagger of the times at which a mode has removed half of what the *last* mode can remove, so that
    all modes run to the same amount. `overlap_half`: when the leading mode's direction is found.
    """
    truth = weight.unsqueeze(1)
    share = explained_share(learned, truth).mean(0).mT
    singular = torch.linalg.svdvals(weight).square()
    amount = float((singular / singular.sum(-1, keepdim=True)).mean(0)[-1])
    overlap = subspace_overlap(learned, truth.expand_as(learned), 1).mean(0)
    return {
        "share_index": float(stagger_index(share, 0.5 * amount)),
        "overlap_half": first_below(1 - overlap, 0.5, learned.shape[1]),
    }


# -- the learners -------------------------------------------------------------------------------------------------


@study.trial(
    "linear/learner",
    "linear/shallow",
    "linear/momentum",
    "linear/adam",
    "linear/rmsprop",
    config="learner",
)
def learner(run: Trial, arm: str, config: LinearLearnerConfig) -> dict[str, float]:
    """Fresh networks, one a task, all tasks of a seed as one tensor program."""
    name = arm.partition("/")[2]
    deep = name != "shallow"
    tasks = LinearTasks(config.size, config.size, config.sigma, spectrum=config.spectrum)
    weight = tasks.weights(config.tasks, run.generator("tasks"))
    source = run.generator("examples")

    def examples(_: int) -> tuple[Tensor, Tensor]:
        shape = (config.tasks, config.batch, config.size)
        x = torch.randn(shape, generator=source, device=run.device)
        noise = torch.randn(shape, generator=source, device=run.device)
        return x, x @ weight.mT + config.sigma * noise

    rate = {"momentum": config.momentum_rate, "learner": config.rate, "shallow": config.rate}
    layers = first_layers(run, config, config.tasks, deep)
    kept = descend(
        run, layers, KINDS[name], rate.get(name, config.adaptive_rate), examples, config.steps, every=4
    )
    times = torch.arange(len(kept), dtype=torch.float32) * 4
    found = mode_strength(kept, weight)
    curve = found.strength.mean(1).mT.cpu()
    run.save("curves", {"strength": curve, "steps": times})
    halves = half_time(curve, times=times)
    metrics = {
        "index": float(stagger_index(curve, times=times)),
        "weakest": float(curve[:, -1].min()),
        "off_diagonal": float(found.off_diagonal[-1].mean()),
        "first_half_step": float(halves[0]),
        "last_half_step": float(halves[-1]),
    }
    if name in ("learner", "shallow"):
        metrics |= aligned(run, config, deep)
    learned = kept.transpose(0, 1)
    share = explained_share(learned, weight.unsqueeze(1)).mean(0).mT.cpu()
    singular = torch.tensor(config.spectrum).square()
    amount = 0.5 * float(singular[-1] / singular.sum())
    return metrics | {"share_index": float(stagger_index(share, amount, times))}


def first_layers(run: Trial, config: LinearLearnerConfig, members: int, deep: bool) -> list[Tensor]:
    """Weights of the stacked networks: two layers of small Gaussian weights, or one layer of zeros."""
    size, width = config.size, config.hidden
    if not deep:
        return [torch.zeros(members, size, size, device=run.device)]
    source, spread = run.generator("layers"), math.sqrt(config.start / width)
    return [
        spread * torch.randn(members, *shape, generator=source, device=run.device)
        for shape in ((width, size), (size, width))
    ]


def product(layers: list[Tensor]) -> Tensor:
    return layers[0] if len(layers) == 1 else layers[1] @ layers[0]


def descend(
    run: Trial,
    layers: list[Tensor],
    kind: str,
    rate: float | Tensor,
    examples: object,
    steps: int,
    every: int,
) -> Tensor:
    """Minimise half the mean squared error on fresh examples; the learned maps ``[times, members, ny, nx]``."""
    parameters = [nn.Parameter(layer) for layer in layers]
    optimizer = EnsembleOptimizer(parameters, kind, lr=rate)
    kept = []
    for step in run.steps(steps):
        if step % every == 0:
            kept.append(product([p.detach() for p in parameters]).clone())
        x, y = examples(step)  # type: ignore[operator]
        for parameter in parameters:
            x = x @ parameter.mT
        loss = 0.5 * (x - y).square().sum(-1).mean(-1).sum()
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
    kept.append(product([p.detach() for p in parameters]).clone())
    return torch.stack(kept)


def aligned(run: Trial, config: LinearLearnerConfig, deep: bool) -> dict[str, float]:
    """One example a step, as the meta-learner sees them: gap to Bayes, and examples until the error is a tenth.

    Every rate of a list is tried, all at once; each number is that of the rate which suits it best, in hindsight.
    """
    rates = torch.tensor(config.aligned_rates, device=run.device)
    count = config.aligned_tasks
    tasks = LinearTasks(config.size, config.size, config.sigma, spectrum=config.spectrum)
    seen = tasks.sample(count, config.aligned_steps, run.generator("evaluation"))
    everywhere = LinearBatch(*(part.repeat(len(rates), 1, 1) for part in seen))
    layers = first_layers(run, config, count * len(rates), deep)
    kept = descend(
        run,
        layers,
        "sgd",
        rates.repeat_interleave(count),
        lambda t: (everywhere.x[:, t : t + 1], everywhere.y[:, t : t + 1]),
        config.aligned_steps,
        every=1,
    ).unflatten(1, (len(rates), count))
    first = LinearBatch(seen.weight, seen.x[:, : config.horizon], seen.y[:, : config.horizon])
    ideal = mode_strength(bayes_path(first, config.sigma), seen.weight.unsqueeze(1)).strength.mean(0)
    strength = mode_strength(kept[: config.horizon + 1], seen.weight).strength.mean(2)
    # A rate at which some task diverges is no candidate.
    gaps = (strength - ideal.unsqueeze(1))[1:].abs().mean((0, 2)).nan_to_num(math.inf)
    best = int(gaps.argmin())
    run.save("aligned", {"strength": strength[:, best].mT, "bayes": ideal.mT})
    errors = relative_error(kept, seen.weight).mean(2).nan_to_num(math.inf)
    needed = [first_below(error.clamp(max=1e6), 0.1, config.aligned_steps) for error in errors.mT]
    return {"gap": float(gaps[best]), "gap_rate": float(rates[best]), "pairs_to_tenth": min(needed)}
