"""Iterative pruning, and what becomes of its weights: mask-1 actions (`kept/*`) and mask-0 actions (`pruned/*`)."""

from collections.abc import Iterator

import torch

from assay.analysis.pruning import IterativePruner, Round, moved_toward_zero, ticket_report
from assay.lab import Batch
from assay.studies.deconstructing_lottery_tickets import study
from assay.studies.deconstructing_lottery_tickets.common import Bench, area, as_step
from assay.studies.deconstructing_lottery_tickets.config import TicketConfig

MARKS = ("5pc", "2pc")
"""Names of the two densities in metrics; at the laptop's rounds they are 4.4 % and 1.8 % of the dense layers."""


class Tickets:
    """The iterative runs of one seed, each made when it is first asked for."""

    def __init__(self, run: Batch, seed: int, config: TicketConfig, trainings: int) -> None:
        self.config = config
        self.bench = Bench(lambda name: run.generator(name, seed, "cpu"), run.device, config)
        self.rates = self.bench.rates(config.conv_removed, config.dense_removed, config.output_removed)
        self.pruners: dict[str, IterativePruner] = {}
        self._rounds: dict[str, list[Round]] = {}
        self._progress = iter(run.steps(trainings))

    def rounds(self, criterion: str) -> list[Round]:
        """The dense round and all rounds of pruning by a criterion, with rewinding and zeros."""
        if criterion not in self._rounds:
            first = next(iter(self.pruners.values()), None)
            pruner = self.pruners[criterion] = self.bench.pruner(criterion, self.rates, like=first)
            done = self._rounds[criterion] = [pruner.train_dense()]
            pruner.train_fn = self.bench.trainer(self.config.retrain)
            for _ in range(max(self.config.rounds)):
                next(self._progress, None)
                done.append(pruner.branch(done[-1], pruner.next_masks(done[-1])))
        return self._rounds[criterion]

    def branch(self, arm: str, which: int, **action: str) -> Round:
        """Round number `which` of `large_final`, retrained under another action. Draws depend on the arm alone."""
        rounds = self.rounds("large_final")
        pruner = self.pruners["large_final"]
        pruner.generator, self.bench.draw = self.bench.stream(arm), self.bench.stream(f"{arm} init")
        next(self._progress, None)
        return pruner.branch(rounds[which - 1], rounds[which].masks, **action)


@study.batch("iterative/*", "kept/*", "pruned/*", config="ticket", group="seed")
def tickets(run: Batch, pairs: list[tuple[str, int]], config: TicketConfig) -> Iterator[dict[str, float]]:
    """All conditions of one seed; those of `kept` and `pruned` branch from the same masks, cut by `large_final`."""
    seed = pairs[0][1]
    trainings = 2 * max(config.rounds) + len(config.rounds) * len(pairs)
    done = Tickets(run, seed, config, trainings)
    # The dense network trains first, whatever was asked for, so that every condition stands on the same one.
    done.rounds("large_final")
    for arm, _ in pairs:
        kind, _, name = arm.partition("/")
        if kind == "iterative":
            yield iterative(run, arm, seed, done.rounds(name), config)
            continue
        metrics = {}
        for mark, which in zip(MARKS, config.rounds, strict=True):
            if name == "rewind":
                last = done.rounds("large_final")[which]
            else:
                action = {"reset" if kind == "kept" else "pruned_value": name}
                last = done.branch(arm, which, **action)
            metrics |= {
                f"accuracy_{mark}": last.metrics["accuracy"],
                f"early_accuracy_{mark}": last.metrics["early_accuracy"],
            }
        yield metrics


def iterative(run: Batch, arm: str, seed: int, rounds: list[Round], config: TicketConfig) -> dict[str, float]:
    """Curves over density, their area, and what the smallest ticket looks like."""
    densities = [(1 - config.dense_removed) ** k for k in range(len(rounds))]
    for density, one in zip(densities, rounds, strict=True):
        run.log(
            as_step(density),
            arm=arm,
            seed=seed,
            accuracy=one.metrics["accuracy"],
            early_accuracy=one.metrics["early_accuracy"],
        )
    sparse = [k for k, density in enumerate(densities) if density <= 0.21] or [len(rounds) - 1]
    report = ticket_report(rounds[-1].masks, rounds[-1].final, rounds[0].start)
    toward = [
        moved_toward_zero(rounds[0].start[name], rounds[-2].final[name])[mask]
        for name, mask in rounds[-1].masks.items()
    ]
    metrics = {
        "dense_accuracy": rounds[0].metrics["accuracy"],
        "area": area([densities[k] for k in sparse], [rounds[k].metrics["accuracy"] for k in sparse]),
        "dead_units_2pc": float(report["dead_outputs"].sum()),
        "kept_toward_zero_2pc": 100 * float(torch.cat(toward).float().mean()),
        "sign_agreement_2pc": 100
        * float((report["sign_agreement"] * report["kept"]).sum() / report["kept"].sum()),
    }
    for mark, which in zip(MARKS, config.rounds, strict=True):
        metrics |= {
            f"accuracy_{mark}": rounds[which].metrics["accuracy"],
            f"density_{mark}": rounds[which].density,
        }
    return metrics
