"""Four sources of prediction error, one at a time: which of them remain when the target is a random network?"""

from collections.abc import Iterator

import torch
from torch import Tensor

from assay.lab import Batch
from assay.nn import EnsembleMLP
from assay.optim import EnsembleOptimizer
from assay.rl.nets import mlp
from assay.studies.random_network_distillation import study
from assay.studies.random_network_distillation.config import SourcesConfig

CONDITIONS = ("none", "few", "noise", "complex")


def follow(x: Tensor, action: Tensor, world: tuple[Tensor, Tensor], frequency: float) -> Tensor:
    """The next state without noise: smooth in x, or too wavy for the model (large `frequency`)."""
    a, b = world
    return torch.sin(frequency * (x @ a)) * 1.4 + action @ b


@study.batch("sources/*", config="sources", group="arm")
def sources(run: Batch, pairs: list[tuple[str, int]], config: SourcesConfig) -> Iterator[dict[str, float]]:
    """Unexplained share of the variance on fresh steps, for a forward model ("dynamics") and for RND."""
    dynamics = pairs[0][0].endswith("dynamics")
    d, n = config.state, config.data
    fields: dict[str, list[Tensor]] = {name: [] for name in ("inputs", "goals", "fresh", "fresh_goals")}
    nets, drawers = [], []
    for _, seed in pairs:
        g = run.generator("sources", seed, device="cpu")
        world = torch.randn(d, d, generator=g) / d**0.5, torch.randn(2, d, generator=g) * 0.5
        target = mlp((d, config.hidden, config.features), "relu", 2**0.5, g)
        first = mlp((d + 2, config.hidden, config.hidden, config.features), "relu", 2**0.5, g)
        x, action = torch.randn(2 * n, d, generator=g), torch.randn(2 * n, 2, generator=g)
        eps = torch.randn(2 * n, d, generator=g)
        for name in CONDITIONS:
            after = follow(x, action, world, config.frequency if name == "complex" else 0.5)
            after = after + (config.noise if name == "noise" else 0.0) * eps
            with torch.no_grad():
                goal = target(after)
            # RND's predictor gets the same width of input, its last two columns are zeros.
            told = torch.cat((x, action) if dynamics else (after, torch.zeros_like(action)), 1)
            fields["inputs"].append(told[:n])
            fields["goals"].append(goal[:n])
            fields["fresh"].append(told[n:])
            fields["fresh_goals"].append(goal[n:])
            nets.append(first)
        drawers.append(run.generator("batches", seed))
    data = {name: torch.stack(parts).to(run.device) for name, parts in fields.items()}
    net = EnsembleMLP.of(nets).to(run.device)
    optimizer = EnsembleOptimizer(net.parameters(), "adam", config.rate)
    seeds = len(pairs)
    sizes = torch.tensor([config.few if name == "few" else n for name in CONDITIONS], device=run.device)
    which = torch.arange(len(nets), device=run.device)[:, None]

    @torch.no_grad()
    def unexplained() -> Tensor:
        """[seeds, conditions]."""
        error = (net(data["fresh"]) - data["fresh_goals"]).square().mean((1, 2))
        return (error / data["fresh_goals"].var(1).mean(1)).view(seeds, -1)

    short = None
    for step in run.steps(config.steps):
        if step == config.short:
            short = unexplained()[:, 0]
        optimizer.scale = (
            1 - step / config.steps
        )  # the last steps are small: what remains is not the optimiser's
        drawn = torch.stack([torch.rand(config.batch, generator=g, device=run.device) for g in drawers])
        index = (drawn[:, None] * sizes[:, None]).long().flatten(0, 1)
        error = (net(data["inputs"][which, index]) - data["goals"][which, index]).square().mean((1, 2))
        optimizer.zero_grad()
        error.sum().backward()
        optimizer.step()
    assert short is not None, "short is less than steps"
    for row, early in zip(unexplained().tolist(), short.tolist(), strict=True):
        yield {**dict(zip(CONDITIONS, row, strict=True)), "short": early}
