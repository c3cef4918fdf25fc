"""Fourier series: a network trained on one function, and a recurrent network that learns any in its state."""

import torch
from torch import Tensor

from assay.analysis import fourier_strength, probe_fourier, stagger_index
from assay.lab import Trial
from assay.meta import (
    BayesFourier,
    FourierTasks,
    MetaState,
    SequenceMetaLearner,
    fourier_features,
    meta_train,
)
from assay.meta.tasks import FourierBatch
from assay.nn.ensemble import EnsembleMLP
from assay.optim import EnsembleOptimizer
from assay.studies.meta_learner_dynamics import study
from assay.studies.meta_learner_dynamics.config import FourierLearnerConfig, FourierMetaConfig

AMPLITUDE = 2**0.5
"""Of every frequency in evaluation tasks: the prior's root mean square, so that no strength is divided by almost 0."""


@study.trial("fourier/meta", config="fourier")
def meta(run: Trial, arm: str, config: FourierMetaConfig) -> dict[str, float]:
    """Train over functions, freeze, and read the learned function's spectrum from the state after every point."""
    model = SequenceMetaLearner(2, config.hidden, 1, config.readout, run.generator("network", "cpu"))
    model = model.to(run.device)
    training = meta_train(
        model,
        FourierTasks(config.k, config.sigma),
        config.steps,
        horizon=config.horizon,
        batch=config.batch,
        rate=config.rate,
        snapshots=config.stages,
        generator=run.generator("outer"),
        over=run.steps,
    )
    for step in range(0, len(training.losses), 25):
        run.log(step, loss=training.losses[step : step + 25].mean())

    tasks = FourierTasks(config.k, config.sigma, amplitude=AMPLITUDE)
    seen = tasks.sample(config.tasks, config.horizon, run.generator("evaluation"))
    curve = strengths(model, seen, (1, config.k), config.grid)
    posterior = BayesFourier(config.k, config.sigma).path(seen.theta, seen.y.squeeze(-1))
    truth = seen.coefficients.to(posterior.dtype).unsqueeze(1)
    ideal = fourier_strength(posterior, truth).mean(0).mT.float()
    outside = (config.k + 1, 2 * config.k)
    stop = FourierTasks(config.k, config.sigma, outside, AMPLITUDE)
    beyond = strengths(
        model, stop.sample(config.tasks, config.horizon, run.generator("outside")), outside, config.grid
    )
    run.save("curves", {"meta": curve, "bayes": ideal, "outside": beyond})

    stages = []
    few = FourierBatch(*(part[: config.stage_tasks] for part in seen))
    for weights in training.snapshots.values():
        model.load_state_dict(weights)
        stages.append(strengths(model, few, (1, config.k), config.grid))
    shares = torch.tensor(list(training.snapshots), dtype=torch.float32)
    run.save("stages", {"share": shares, "strength": torch.stack(stages)})
    return {
        "index": float(stagger_index(curve)),
        "bayes_index": float(stagger_index(ideal)),
        "gap": float((curve - ideal)[:, 1:].abs().mean()),
        "weakest": float(curve[:, -1].min()),
        "out_of_band": float(beyond[:, -1].abs().max()),
    }


@torch.no_grad()
def strengths(model: SequenceMetaLearner, seen: FourierBatch, band: tuple[int, int], grid: int) -> Tensor:
    """Mean strength of each frequency after 0, 1, ..., T points: ``[frequencies, T + 1]``."""
    states = model.states(seen.x, seen.y)
    found = []
    for t in range(seen.x.shape[1] + 1):
        moment = MetaState(*(part[:, t] for part in states))
        spectrum = probe_fourier(
            lambda theta, state=moment: model.predict_from(state, fourier_features(theta, 1, 1)).squeeze(-1),
            grid,
            device=seen.x.device,
        )
        found.append(fourier_strength(spectrum[:, band[0] : band[1] + 1], seen.coefficients).mean(0))
    return torch.stack(found, -1)


@study.trial("fourier/learner", "fourier/adam", config="network")
def learner(run: Trial, arm: str, config: FourierLearnerConfig) -> dict[str, float]:
    """A ReLU network a function, on fresh noisy points, all functions of a seed as one tensor program."""
    adam = arm.endswith("adam")
    tasks = FourierTasks(config.k, config.sigma, amplitude=AMPLITUDE)
    f = tasks.coefficients(config.functions, run.generator("tasks"))
    source = run.generator("examples")
    net = EnsembleMLP(
        (2, *config.hidden, 1), members=config.functions, generators=run.generator("network", "cpu")
    ).to(run.device)
    optimizer = EnsembleOptimizer(
        net.parameters(), "adam" if adam else "sgd", lr=config.adam_rate if adam else config.rate
    )

    def spectrum() -> Tensor:
        with torch.no_grad():
            return probe_fourier(
                lambda theta: net(fourier_features(theta, 1, 1)).squeeze(-1), config.grid, device=run.device
            )

    kept, times = [], []
    for step in run.steps(config.steps + 1):
        if step % config.every == 0:
            kept.append(fourier_strength(spectrum()[:, 1 : config.k + 1], f).mean(0))
            times.append(step)
        shape = (config.functions, config.batch)
        theta = 2 * torch.pi * torch.rand(shape, generator=source, device=run.device)
        noise = torch.randn(shape, generator=source, device=run.device)
        y = tasks.function(f, theta) + config.sigma * noise
        loss = 0.5 * (net(fourier_features(theta, 1, 1)).squeeze(-1) - y).square().mean(-1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    curve, steps = torch.stack(kept, -1).cpu(), torch.tensor(times, dtype=torch.float32)
    run.save("curves", {"strength": curve, "steps": steps})
    return {"index": float(stagger_index(curve, times=steps)), "weakest": float(curve[:, -1].min())}
