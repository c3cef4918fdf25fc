"""Trainings that begin at different steps, from different states, as one ensemble.

A member that is rewound to step k takes T - k steps and meets the batches and rates of steps k .. T - 1. All members
begin together, each at its own step; those that have arrived at T leave the ensemble. So nothing is computed that is
not needed, and what a member becomes depends on itself alone.
"""

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.analysis.pruning import density, global_magnitude_masks, shuffle_masks
from assay.data import EpochBatches, mnist5k
from assay.lab import Batch
from assay.nn import EnsembleMLP, ensemble_cross_entropy, ensemble_error
from assay.optim import EnsembleOptimizer, select_members
from assay.studies.late_resetting.config import StackConfig

State = dict[str, Tensor]
"""One network in training: weights, norm statistics and, as `velocity/NAME`, momentum buffers."""

Masks = dict[str, Tensor]


@dataclass(frozen=True)
class Member:
    """One training: whose images and batches, from which step, on which schedule."""

    seed: int  # position among the seeds
    start: int = 0
    rate: float = 0.3
    warmup: int = 0
    order: int = 0
    """0: the batches of the dense run; 1: another order."""


class Bench:
    """Images, orders and schedules of some seeds."""

    def __init__(self, run: Batch, seeds: Sequence[int], config: StackConfig) -> None:
        self.run, self.seeds, self.config = run, list(seeds), config
        train_x, train_y, held_x, held_y, orders = [], [], [], [], []
        for k, seed in enumerate(self.seeds):
            splits = mnist5k(pool=2, split_seed=seed, sizes=config.sizes)
            mean, std = splits.train.images.mean(), splits.train.images.std()
            parts = [(part.images - mean).div(std).flatten(1) for part in (splits.valid, splits.test)]
            train_x.append((splits.train.images - mean).div(std).flatten(1))
            train_y.append(splits.train.labels)
            held_x.append(torch.cat(parts))
            held_y.append(torch.cat([splits.valid.labels, splits.test.labels]))
            n = len(splits.train)
            both = EpochBatches(n, config.batch, [run.generator(f"order-{o}", seed, "cpu") for o in (0, 1)])
            orders.append(torch.stack([next(both) for _ in range(config.steps)], 1) + k * n)
        device = run.device
        self.train_x, self.train_y = torch.cat(train_x).to(device), torch.cat(train_y).to(device)
        self.held_x, self.held_y = torch.stack(held_x).to(device), torch.stack(held_y).to(device)
        self.orders = torch.cat(orders).to(device)
        """[2 * seeds, steps, batch]: places in `train_x`."""
        self.n = len(self.train_x) // len(self.seeds)
        self.sizes = (self.train_x.shape[1], *config.hidden, 10)
        self.progress: Iterator[int] = iter(())

    def network(self, members: int, generators: Sequence[torch.Generator] | None = None) -> EnsembleMLP:
        """An ensemble of the config's networks."""
        norm = "batch" if self.config.norm else None
        return EnsembleMLP(self.sizes, members, norm, generators or torch.Generator()).to(self.run.device)

    def fresh(self, stream: str, seed: int) -> State:
        """A newly drawn network of one seed."""
        net = self.network(1, [self.run.generator(stream, self.seeds[seed], "cpu")])
        return {name: value[0].clone() for name, value in net.state_dict().items()}

    def schedule(self, member: Member) -> Tensor:
        """Multipliers of the rate, [steps]."""
        t = torch.arange(self.config.steps, dtype=torch.float64)
        scale = torch.ones_like(t)
        for share in self.config.drops:
            scale[t >= share * self.config.steps] *= 0.1
        return scale * ((t + 1) / member.warmup).clamp(max=1) if member.warmup else scale

    def load(self, states: Sequence[State]) -> EnsembleMLP:
        """The ensemble of these networks."""
        net = self.network(len(states))
        net.load_state_dict({name: torch.stack([s[name] for s in states]) for name in net.state_dict()})
        return net

    def train(
        self,
        members: Sequence[Member],
        begin: Sequence[State],
        masks: Sequence[Masks | None] | None = None,
        keep: Collection[int] = (),
    ) -> list[dict[int, State]]:
        """Train every member from its state at its step to the end.

        Args:
            members: what to train.
            begin: the state that each begins from. Entries outside its mask are set to zero and never move.
            masks: parameter name -> boolean mask; None for a dense member.
            keep: steps whose states are kept (at a member's own first step: the state it begins from).

        Returns:
            For each member: step -> state, for the steps of `keep` that it passes and for the last.
        """
        config, device = self.config, self.run.device
        wrong = [m.start for m in members if not 0 <= m.start <= config.steps]
        if wrong:
            raise ValueError(f"cannot rewind to step {wrong[0]}: training has steps 0 to {config.steps}")
        net = self.load(begin)
        rates = torch.tensor([m.rate for m in members], device=device)
        optimizer = EnsembleOptimizer(net.parameters(), "momentum", lr=rates, momentum=config.momentum)
        for name, p in net.named_parameters():
            zero = torch.zeros_like(p[0])
            velocities = [s.get(f"velocity/{name}", zero) for s in begin]
            optimizer.state[p]["velocity"] = torch.stack(velocities)
            if masks is not None and any(m is not None and name in m for m in masks):
                whole = torch.ones_like(zero, dtype=torch.bool)
                mask = torch.stack([whole if m is None else m[name] for m in masks])
                with torch.no_grad():
                    p.mul_(mask)
                optimizer.mask(p, mask)
        row = torch.tensor([2 * m.seed + m.order for m in members], device=device)
        at = torch.tensor([m.start for m in members], device=device)
        scales = torch.stack([self.schedule(m) for m in members]).to(device)
        kept: list[dict[int, State]] = [{} for _ in members]
        alive = list(range(len(members)))
        local = 0
        while alive:
            for place, k in enumerate(alive):
                step = members[k].start + local
                if step in keep or step == config.steps:
                    kept[k][step] = _state(net, optimizer, place)
            going = [place for place, k in enumerate(alive) if members[k].start + local < config.steps]
            if len(going) < len(alive):
                alive = [alive[place] for place in going]
                if not alive:
                    break
                chosen = torch.tensor(going, device=device)
                select_members(net, optimizer, chosen)
                row, at, scales = row[chosen], at[chosen], scales[chosen]
            index = self.orders[row, at]
            optimizer.scale = scales.gather(1, at[:, None]).squeeze(1)
            optimizer.zero_grad()
            ensemble_cross_entropy(net(self.train_x[index]), self.train_y[index]).sum().backward()
            optimizer.step()
            at = at + 1
            local += 1
            next(self.progress, None)
        return kept

    @torch.no_grad()
    def accuracy(self, members: Sequence[Member], states: Sequence[State]) -> list[float]:
        """Per cent of the held-out images whose class each member finds."""
        where = [m.seed for m in members]
        logits = self.load(states).eval()(self.held_x[where])
        return (100 * (1 - ensemble_error(logits, self.held_y[where]))).tolist()

    @torch.no_grad()
    def train_loss(self, members: Sequence[Member], states: Sequence[State]) -> list[float]:
        """Mean loss over the first training images, normalised by their own statistics."""
        start = torch.tensor([m.seed * self.n for m in members], device=self.run.device)
        index = start[:, None] + torch.arange(self.config.calibration, device=self.run.device)
        return ensemble_cross_entropy(
            self.load(states).train()(self.train_x[index]), self.train_y[index]
        ).tolist()

    def prunable(self) -> list[str]:
        """Names of the weight matrices, the output layer's included."""
        return [f"linears.{i}.weight" for i in range(len(self.sizes) - 1)]


def _state(net: EnsembleMLP, optimizer: EnsembleOptimizer, place: int) -> State:
    state = {name: value[place].detach().clone() for name, value in net.state_dict().items()}
    for name, p in net.named_parameters():
        state[f"velocity/{name}"] = optimizer.state[p]["velocity"][place].clone()
    return state


def without_velocity(state: State) -> State:
    """The same weights with momentum at rest."""
    return {name: value for name, value in state.items() if not name.startswith("velocity/")}


# -- pruning in rounds -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spec:
    """How an arm prunes and rewinds."""

    dense: str = "base"
    """The dense run that it branches from: "base", "warmup", "low", or "other": another initialisation."""
    rewind: int = 0
    follow: str = ""
    """Take the masks of this arm, not one's own."""
    shuffled: bool = False
    """... permuted within each layer."""
    one_shot: bool = False
    keeps_weights: bool = False
    """Only schedule and data go back to the rewinding point; weights stay as trained."""


@dataclass(frozen=True)
class Ticket:
    """What an arm of a seed has come to at one density."""

    member: Member
    masks: Masks
    begin: State
    final: State


class Pruning:
    """Iterative magnitude pruning of many arms and seeds at once.

    Args:
        bench: images and training.
        specs: arm -> how it prunes, for all arms wanted; those that they follow are added.
        wanted: (arm, position of seed).
    """

    def __init__(
        self,
        bench: Bench,
        specs: Mapping[str, Spec],
        wanted: Sequence[tuple[str, int]],
        keep: Collection[int],
    ) -> None:
        self.bench, self.specs = bench, specs
        leaders = [(specs[arm].follow, k) for arm, k in wanted if specs[arm].follow]
        self.pairs = list(dict.fromkeys([*leaders, *wanted]))
        self.keep = {*keep, *(specs[arm].rewind for arm, _ in self.pairs)}
        config = bench.config
        late = [arm for arm, _ in self.pairs if specs[arm].rewind > config.steps]
        if late:
            raise ValueError(
                f"arm {late[0]!r} rewinds beyond the last step, {config.steps}: leave it out (--arms) or train longer"
            )
        keys = list(dict.fromkeys((specs[arm].dense, k) for arm, k in self.pairs))
        members = [
            Member(
                k,
                rate=config.low_rate if name == "low" else config.rate,
                warmup=config.warmup if name == "warmup" else 0,
            )
            for name, k in keys
        ]
        begin = [bench.fresh("init-other" if name == "other" else "init", k) for name, k in keys]
        trained = bench.train(members, begin, keep=self.keep)
        for (name, k), states in zip(keys, trained, strict=True):
            final = states[config.steps]
            if not all(bool(value.isfinite().all()) for value in final.values()):
                raise ValueError(f"the dense run {name!r} of seed {bench.seeds[k]} has diverged")
        self.dense = dict(zip(keys, trained, strict=True))
        self.dense_members = dict(zip(keys, members, strict=True))
        self.dense_accuracy = dict(
            zip(keys, bench.accuracy(members, [states[config.steps] for states in trained]), strict=True)
        )
        self._last: dict[tuple[str, int], tuple[Masks | None, State]] = {
            pair: (None, self.dense_of(pair)[config.steps]) for pair in self.pairs
        }
        self._left = 1.0
        self._round = 0

    def dense_of(self, pair: tuple[str, int]) -> dict[int, State]:
        """The states of the dense run that a pair branches from."""
        return self.dense[self.specs[pair[0]].dense, pair[1]]

    def round(self, left: float) -> dict[tuple[str, int], Ticket]:
        """Prune everything to the density `left`, rewind, retrain."""
        self._round += 1
        fraction = 1 - left / self._left
        names, steps = self.bench.prunable(), self.bench.config.steps
        masks: dict[tuple[str, int], Masks] = {}
        for pair in self.pairs:  # leaders come first
            spec, (old, weights) = self.specs[pair[0]], self._last[pair]
            if spec.follow:
                masks[pair] = masks[spec.follow, pair[1]]
                if spec.shuffled:
                    stream = f"shuffle-{self._round}"
                    generator = self.bench.run.generator(stream, self.bench.seeds[pair[1]], "cpu")
                    masks[pair] = shuffle_masks(masks[pair], generator)
            elif spec.one_shot:
                masks[pair] = global_magnitude_masks(self.dense_of(pair)[steps], None, 1 - left, names)
            else:
                masks[pair] = global_magnitude_masks(weights, old, fraction, names)
            empty = [name for name, mask in masks[pair].items() if not bool(mask.any())]
            if empty:
                warnings.warn(
                    f"{pair[0]}, seed {self.bench.seeds[pair[1]]}: no weight is left in {', '.join(empty)}",
                    stacklevel=2,
                )
        members, begin = [], []
        for pair in self.pairs:
            spec = self.specs[pair[0]]
            like = self.dense_members[spec.dense, pair[1]]
            members.append(Member(pair[1], spec.rewind, like.rate, like.warmup))
            kept = without_velocity(self._last[pair][1]) if spec.keeps_weights else None
            begin.append(self.dense_of(pair)[spec.rewind] if kept is None else kept)
        trained = self.bench.train(members, begin, [masks[pair] for pair in self.pairs])
        self._left = left
        found = {}
        for pair, member, first, states in zip(self.pairs, members, begin, trained, strict=True):
            final = states[steps]
            self._last[pair] = (masks[pair], final)
            found[pair] = Ticket(member, masks[pair], first, final)
            assert abs(density(masks[pair]) - left) < 0.01
        return found

    def rounds(self) -> Iterator[tuple[float, dict[tuple[str, int], Ticket]]]:
        """The config's densities and the tickets at each, with the rounds between them."""
        for left in self.bench.config.densities:
            before, between = self._left, self.bench.config.rounds_between
            found: dict[tuple[str, int], Ticket] = {}
            for step in range(1, between + 1):
                found = self.round(before * (left / before) ** (step / between))
            yield left, found
