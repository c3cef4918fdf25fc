"""The multilayer perceptrons: every rewinding point and every control, pruned round by round (`deep/*`, `lenet/*`)."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from assay.analysis.landscape import linear_barrier
from assay.analysis.pruning import stability, ticket_report
from assay.lab import Batch
from assay.studies.late_resetting import LATE, REWINDS, study
from assay.studies.late_resetting.config import StackConfig
from assay.studies.late_resetting.stack import Bench, Member, Pruning, Spec, State, Ticket

LEADER = f"k-{LATE}"

SPECS: dict[str, Spec] = {
    **{f"k-{k}": Spec(rewind=k) for k in REWINDS},
    # The state at step 0 of another initialisation's run is a fresh draw.
    "reinit": Spec(dense="other", follow=LEADER),
    "random": Spec(follow=LEADER, shuffled=True),
    f"random-k-{LATE}": Spec(rewind=LATE, follow=LEADER, shuffled=True),
    "warmup": Spec(dense="warmup"),
    "low-k-0": Spec(dense="low"),
    f"low-k-{LATE}": Spec(dense="low", rewind=LATE),
    "oneshot-k-0": Spec(one_shot=True),
    f"oneshot-k-{LATE}": Spec(rewind=LATE, one_shot=True),
    "lr-rewind": Spec(rewind=LATE, keeps_weights=True),
    "other-run": Spec(dense="other", rewind=LATE, follow=LEADER),
}
"""How every arm prunes and rewinds, by the part of its name after the slash."""


def mark(density: float) -> str:
    """The name of a density in metrics: per cent."""
    return f"{100 * density:g}"


def percent_wrong(logits: Tensor, labels: Tensor) -> Tensor:
    """Error, per cent; never differentiated."""
    return 100 * (logits.argmax(-1) != labels).to(logits.dtype).mean()


def barrier(bench: Bench, seed: int, one: State, other: State) -> float:
    """Largest excess of held-out error on the line between two networks, in points."""
    config, pair = bench.config, bench.load([one, other])
    first = seed * bench.n
    found = linear_barrier(
        pair.member(0),
        pair.member(1),
        percent_wrong,
        (bench.held_x[seed], bench.held_y[seed]),
        alphas=config.alphas,
        calibration=bench.train_x[first : first + config.calibration],
    )
    return float(found.height)


def distances(name: str, one: State, other: State, ref: State, masks: dict[str, Tensor]) -> dict[str, float]:
    """The three measures of stability as metrics."""
    found = stability(one, other, ref, masks)
    return {
        f"{name}_l2": found.l2,
        f"{name}_distance": found.l2_normalised,
        f"{name}_angle": found.angle_deg,
    }


def anatomy(ticket: Ticket, first: State) -> tuple[dict[str, Tensor], dict[str, float]]:
    """What a ticket looks like: arrays to keep, and the numbers that stand for them."""
    report = ticket_report(ticket.masks, ticket.final, first)
    numbers = report.select_dtypes("number")
    arrays = {name: torch.from_numpy(numbers[name].to_numpy(dtype="float32")) for name in numbers}
    names = list(ticket.masks)
    arrays["pixels"] = ticket.masks[names[0]].sum(0)
    for what, weights in (("final", ticket.final), ("init", first)):
        values = torch.cat([weights[name][ticket.masks[name]] for name in names])
        arrays[f"histogram_{what}"] = torch.histc(values.float(), 60, -1.5, 1.5)
    kept = float(report["kept"].sum())
    deciles = [sum(report["kept"] * report[f"decile_{k}"].fillna(0)) / max(1.0, kept) for k in range(1, 11)]
    return arrays, {
        "dead_units": float(report["dead_outputs"].sum()),
        "sign_agreement": float(sum(report["kept"] * report["sign_agreement"].fillna(0)) / max(1.0, kept)),
        "least_layer_density": float(report["density"].min()),
        "top_decile": float(deciles[-1]),
        "share_positive": float(sum(report["kept"] * report["kept_positive"].fillna(0)) / max(1.0, kept)),
    }


def experiment(run: Batch, pairs: list[tuple[str, int]], config: StackConfig) -> Iterator[dict[str, float]]:
    """All arms and seeds of one architecture; metrics carry the density in per cent in their names."""
    seeds = list(dict.fromkeys(seed for _, seed in pairs))
    bench = Bench(run, seeds, config)
    wanted = [(arm.partition("/")[2], seeds.index(seed)) for arm, seed in pairs]
    total = config.steps * (2 + len(config.densities) * config.rounds_between)
    bench.progress = iter(run.steps(total))
    pruning = Pruning(bench, SPECS, wanted, keep={0})
    metrics: dict[tuple[str, int], dict[str, float]] = {pair: {} for pair in wanted}
    tickets: dict[tuple[str, int], Ticket] = {}
    for left, tickets in pruning.rounds():
        accuracy = bench.accuracy(
            [tickets[pair].member for pair in wanted], [tickets[pair].final for pair in wanted]
        )
        for pair, value in zip(wanted, accuracy, strict=True):
            ticket, dense = tickets[pair], pruning.dense_of(pair)
            found = distances(
                "pruning", dense[config.steps], ticket.final, dense[ticket.member.start], ticket.masks
            )
            found["accuracy"] = value
            found["collapsed_layers"] = float(sum(not bool(m.any()) for m in ticket.masks.values()))
            metrics[pair] |= {f"{name}_{mark(left)}": v for name, v in found.items()}

    # The last tickets again with another order, and dense runs that leave the first one at step k.
    splits = [pair for pair in wanted if pair[0].startswith(("k-", "low-k-"))]
    copies = [
        Member(m.seed, m.start, m.rate, m.warmup, order=1) for m in (tickets[pair].member for pair in wanted)
    ]
    apart = [Member(k, SPECS[name].rewind, tickets[name, k].member.rate, order=1) for name, k in splits]
    begin = [tickets[pair].begin for pair in wanted]
    split_states = [pruning.dense_of(pair)[SPECS[pair[0]].rewind] for pair in splits]
    trained = bench.train(
        [*copies, *apart],
        [*begin, *split_states],
        [*(tickets[pair].masks for pair in wanted), *(None for _ in splits)],
    )
    ends = [states[config.steps] for states in trained]
    losses = bench.train_loss(apart, split_states) if apart else []
    for pair, end, loss in zip(splits, ends[len(wanted) :], losses, strict=True):
        dense, k = pruning.dense_of(pair), SPECS[pair[0]].rewind
        names = bench.prunable()
        moved = sum(float((dense[config.steps][n] - dense[k][n]).square().sum()) for n in names)
        metrics[pair] |= {
            "dense_barrier": barrier(bench, pair[1], dense[config.steps], end),
            "dense_moved": math.sqrt(moved),
            "loss_at_k": loss,
        }
    for (arm, seed), pair, end in zip(pairs, wanted, ends, strict=False):
        ticket, dense = tickets[pair], pruning.dense_of(pair)
        metrics[pair] |= distances("order", ticket.final, end, dense[ticket.member.start], ticket.masks)
        metrics[pair]["order_barrier"] = barrier(bench, pair[1], ticket.final, end)
        metrics[pair]["dense_accuracy"] = pruning.dense_accuracy[SPECS[pair[0]].dense, pair[1]]
        metrics[pair]["steps"] = float(config.steps - ticket.member.start)
        arrays, numbers = anatomy(ticket, dense[0])
        run.save("anatomy", arrays, arm=arm, seed=seed)
        yield metrics[pair] | numbers


@study.batch("deep/*", config="deep", group="seed")
def deep(run: Batch, pairs: list[tuple[str, int]], config: StackConfig) -> Iterator[dict[str, float]]:
    """The deep network: all arms of a seed as one ensemble."""
    return experiment(run, pairs, config)


@study.batch("lenet/*", config="lenet", group="seed")
def lenet(run: Batch, pairs: list[tuple[str, int]], config: StackConfig) -> Iterator[dict[str, float]]:
    """The negative control, LeNet-300-100."""
    return experiment(run, pairs, config)
