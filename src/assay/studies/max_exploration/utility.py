"""What a noisy pair is worth after n visits: it must fade, for noise is not ignorance."""

from collections.abc import Iterator

import torch

from assay.envs.chain import Chain
from assay.lab import Batch
from assay.rl.dynamics import DirichletEnsemble, DynamicsEnsemble
from assay.rl.information import entropy, jensen_shannon
from assay.studies.max_exploration.chain import Pairs, Tables
from assay.studies.max_exploration.config import UtilityConfig


def noisy_pairs(run: Batch, pairs: Pairs, config: UtilityConfig) -> Iterator[dict[str, float]]:
    """Every chain pair was met once, the noisy ones n times; their utility for each n, as a share of that at n = 0."""
    kind = pairs[0][0].partition("/")[2]
    seeds = [seed for _, seed in pairs]
    world = Chain(
        len(pairs),
        length=config.length,
        swap_seed=[int(run.numpy("swaps", seed).integers(2**31)) for seed in seeds],
        trap_state=0,
        tv_actions=1,
        tv_choices=min(10, config.length),
        tv_near=True,
    )
    P = world.tabular().P.float()
    middle = config.length // 2
    noisy = {"trap": (0, 0), "tv": (middle, 2)}
    most = max(config.visits)
    generators = [run.generator("explorer", seed, "cpu") for seed in seeds]
    drawn = {
        name: torch.stack(
            [torch.multinomial(P[k, s, a], most, True, generator=g) for k, g in enumerate(generators)]
        )
        for name, (s, a) in noisy.items()
    }
    ensemble = DynamicsEnsemble(
        config.length, 3, config.members, config.hidden, groups=len(pairs), generators=generators
    )
    base = torch.zeros_like(P)
    base[:, 1:, :2] = P[:, 1:, :2]  # deterministic pairs, each met once
    found: dict[str, list[torch.Tensor]] = {f"{what}_{name}": [] for name in noisy for what in ("u", "h")}
    for n in run.steps(len(config.visits)):
        tables = Tables(len(pairs), config.length, 3)
        tables.counts = base.clone()
        for name, (s, a) in noisy.items():
            seen = drawn[name][:, : config.visits[n]]
            tables.counts[:, s, a] = torch.nn.functional.one_hot(seen, config.length).sum(1).float()
        if kind == "dirichlet":
            posterior = DirichletEnsemble(config.length, 3, config.alpha / config.length, len(pairs))
            posterior.counts = tables.counts.double()
            u, h = posterior.information_gain(), entropy(posterior.mean())
        else:
            ensemble.fit(tables.data(), config.fit_steps, config.rate)
            with torch.no_grad():
                probs = ensemble(*tables.inputs()).probs
            shape = (len(pairs), config.length, 3)
            u = jensen_shannon(probs.movedim(1, 0)).view(shape)
            h = entropy(probs.mean(1)).view(shape)
        for name, (s, a) in noisy.items():
            found[f"u_{name}"].append(u[:, s, a])
            found[f"h_{name}"].append(h[:, s, a])
            for k, (arm, seed) in enumerate(pairs):
                run.log(
                    config.visits[n], arm=arm, seed=seed, **{f"u_{name}": u[k, s, a], f"h_{name}": h[k, s, a]}
                )
    for k in range(len(pairs)):
        ratios = {name: float(found[f"u_{name}"][-1][k] / found[f"u_{name}"][0][k]) for name in noisy}
        yield {
            "ratio": max(ratios.values()),
            **{f"ratio_{name}": value for name, value in ratios.items()},
            **{f"entropy_{name}": float(found[f"h_{name}"][-1][k]) for name in noisy},
        }
