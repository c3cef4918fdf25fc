"""Train, prune, reset, retrain: the lottery-ticket loop, with rewinding to any step.

Frankle & Carbin 2019 (arXiv 1803.03635); rewinding: Frankle, Dziugaite, Roy, Carbin (arXiv 1903.01611); other criteria
and resets: Zhou et al. (arXiv 1905.01067).
"""

import copy
import random
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from assay.analysis.pruning.actions import PrunedValue, Reset, find_pruned_value, find_reset
from assay.analysis.pruning.criteria import (
    MaskCriterion,
    build_mask,
    check_fraction,
    density,
    find_criterion,
    global_masks,
    n_kept,
)
from assay.analysis.pruning.masked import (
    MaskedModel,
    effective_state,
    load_plain,
    plain_buffers,
    plain_parameters,
)

# -- the whole state of a training run ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Snapshot:
    """A training run at one step, independent of the objects it was taken from.

    Model and optimiser state go by the plain names of parameters, so that a snapshot of a dense model restores into a
    masked one and back.
    """

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Any] | None = None
    scheduler: Any = None
    data: Any = None
    generators: list[Tensor] = field(default_factory=list)
    global_rng: dict[str, Any] | None = None

    def with_weights(self, weights: Mapping[str, Tensor]) -> "Snapshot":
        """The same with some of the model's tensors replaced."""
        unknown = [name for name in weights if name not in self.model]
        if unknown:
            raise ValueError(f"the snapshot has no {', '.join(unknown)}")
        return replace(self, model=self.model | dict(weights))


@dataclass
class TrainState:
    """All that decides how a training run goes on; snapshot it, restore it, and it goes on the same way to the bit.

    Attributes:
        model: any module, masked or not.
        optimizer: any torch optimiser over (some of) its parameters.
        scheduler: learning-rate scheduler(s): anything with `state_dict` and `load_state_dict`.
        data: where the batches come from: with `state_dict` and `load_state_dict`, or any object whose attributes are
            tensors, numbers, text, lists, dicts and torch generators (as `assay.data.EpochBatches`).
        generators: further torch generators (dropout, augmentation).
        step: steps taken so far. Yours to count up.
        global_rng: whether the global generators of torch, numpy and `random` belong to the state.

    >>> net = nn.Linear(3, 2)
    >>> state = TrainState(net, torch.optim.Adam(net.parameters()))
    >>> before = state.snapshot()
    >>> net(torch.ones(1, 3)).sum().backward(); state.optimizer.step(); state.step += 1
    >>> state.restore(before); state.step
    0
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer | None = None
    scheduler: Any = None
    data: Any = None
    generators: Sequence[torch.Generator] = ()
    step: int = 0
    global_rng: bool = False

    def snapshot(self) -> Snapshot:
        """A copy of everything."""
        model = plain_parameters(self.model) | plain_buffers(self.model)
        return Snapshot(
            step=self.step,
            model={name: value.detach().clone() for name, value in model.items()},
            optimizer=None if self.optimizer is None else self._optimizer_state(self.optimizer),
            scheduler=None if self.scheduler is None else _freeze(self.scheduler),
            data=None if self.data is None else _freeze(self.data),
            generators=[g.get_state() for g in self.generators],
            global_rng=_global_rng() if self.global_rng else None,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Put everything back as it was; parts that this state lacks are left out.

        Raises:
            ValueError: the snapshot is of another model or another optimiser, or lacks a part that this state has.
        """
        load_plain(self.model, snapshot.model)
        for part in ("optimizer", "scheduler", "data"):
            if getattr(self, part) is not None and getattr(snapshot, part) is None:
                raise ValueError(f"the snapshot has no {part} state, but this run has a {part}")
        if len(self.generators) != len(snapshot.generators):
            raise ValueError(f"{len(self.generators)} generators, but {len(snapshot.generators)} were kept")
        if self.optimizer is not None and snapshot.optimizer is not None:
            self._load_optimizer(self.optimizer, snapshot.optimizer)
        if self.scheduler is not None:
            _thaw(self.scheduler, snapshot.scheduler)
        if self.data is not None:
            _thaw(self.data, snapshot.data)
        for generator, state in zip(self.generators, snapshot.generators, strict=True):
            generator.set_state(state)
        if self.global_rng and snapshot.global_rng is not None:
            _set_global_rng(snapshot.global_rng)
        self.step = snapshot.step

    def _optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        names = {id(p): name for name, p in plain_parameters(self.model).items()}
        stray = [p for group in optimizer.param_groups for p in group["params"] if id(p) not in names]
        if stray:
            raise ValueError("the optimiser has parameters that are not the model's: make it after masking")
        return {
            "groups": [
                {k: copy.deepcopy(v) for k, v in group.items() if k not in ("params", "param_names")}
                for group in optimizer.param_groups
            ],
            "state": {names[id(p)]: copy.deepcopy(values) for p, values in optimizer.state.items()},
        }

    def _load_optimizer(self, optimizer: torch.optim.Optimizer, kept: dict[str, Any]) -> None:
        if len(kept["groups"]) != len(optimizer.param_groups):
            raise ValueError(
                f"{len(optimizer.param_groups)} parameter groups, but {len(kept['groups'])} were kept"
            )
        params = plain_parameters(self.model)
        optimizer.state.clear()
        for name, values in kept["state"].items():
            target = params[name]
            optimizer.state[target] = {
                k: v.detach().clone() if isinstance(v, Tensor) else copy.deepcopy(v)
                for k, v in values.items()
            }
        for group, values in zip(optimizer.param_groups, kept["groups"], strict=True):
            group.update(copy.deepcopy(values))


def _freeze(value: Any) -> Any:
    """A copy that no later change of the object reaches; generators become their state."""
    if isinstance(value, torch.Generator):
        return {"__generator__": value.get_state()}
    if isinstance(value, Tensor):
        return value.detach().clone()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_freeze(one) for one in value]
    if isinstance(value, dict):
        return {key: _freeze(one) for key, one in value.items()}
    if hasattr(value, "state_dict"):
        return copy.deepcopy(value.state_dict())
    if hasattr(value, "__dict__"):
        return {key: _freeze(one) for key, one in vars(value).items()}
    raise TypeError(f"cannot snapshot a {type(value).__name__}: give it state_dict and load_state_dict")


def _thaw(target: Any, kept: Any) -> Any:
    """Bring `target` back to what `_freeze` kept, in place where it is an object; returns the value to assign."""
    if isinstance(target, torch.Generator):
        target.set_state(kept["__generator__"])
        return target
    if isinstance(kept, Tensor):
        return kept.clone()
    if isinstance(target, list | tuple) and isinstance(kept, list):
        if any(isinstance(one, torch.Generator) for one in target):
            return type(target)(_thaw(one, old) for one, old in zip(target, kept, strict=True))
        return type(target)(copy.deepcopy(kept))
    if kept is None or isinstance(kept, bool | int | float | str):
        return kept
    if hasattr(target, "load_state_dict"):
        target.load_state_dict(copy.deepcopy(kept))
        return target
    if isinstance(target, dict):
        return {key: _thaw(target.get(key), one) for key, one in kept.items()}
    if hasattr(target, "__dict__"):
        for key, one in kept.items():
            setattr(target, key, _thaw(getattr(target, key, None), one))
        return target
    return copy.deepcopy(kept)


def _global_rng() -> dict[str, Any]:
    state = np.random.get_state(legacy=False)  # noqa: NPY002 - the global one is what we keep
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": {
            "key": torch.from_numpy(np.asarray(state["state"]["key"]).astype(np.int64)),
            **_rest(state),
        },  # type: ignore[index, call-overload]
        "python": [random.getstate()[0], list(random.getstate()[1]), random.getstate()[2]],
    }


def _rest(state: Any) -> dict[str, Any]:
    return {
        "pos": int(state["state"]["pos"]),
        "has_gauss": int(state["has_gauss"]),
        "gauss": float(state["gauss"]),
    }


def _set_global_rng(kept: dict[str, Any]) -> None:
    torch.set_rng_state(kept["torch"])
    if kept["cuda"]:
        torch.cuda.set_rng_state_all(kept["cuda"])
    own = kept["numpy"]
    key = own["key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, own["pos"], own["has_gauss"], own["gauss"]))  # noqa: NPY002
    version, inner, gauss = kept["python"]
    random.setstate((version, tuple(inner), gauss))


class RewindStore:
    """Keeps snapshots of the steps that one may want to rewind to.

    Call `visit` before every step (and once after the last); it takes a snapshot where the step is wanted and not kept
    yet. Snapshots stay in memory, or go to `folder` as files that load without unpickling code.

    Args:
        steps: the wanted ones.
        folder: where files go; None keeps snapshots in memory.

    >>> net = nn.Linear(2, 1)
    >>> state, store = TrainState(net), RewindStore([0, 5])
    >>> store.visit(state); store.steps
    (0,)
    """

    def __init__(self, steps: Iterable[int], folder: str | Path | None = None) -> None:
        self.wanted = frozenset(steps)
        if any(step < 0 for step in self.wanted):
            raise ValueError(f"steps to rewind to are counted from 0: got {sorted(self.wanted)}")
        self.folder = None if folder is None else Path(folder)
        self._kept: dict[int, Snapshot | Path] = {}

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps that are kept."""
        return tuple(sorted(self._kept))

    def visit(self, state: TrainState) -> None:
        """Keep this step if it is a wanted one."""
        if state.step in self.wanted and state.step not in self._kept:
            self.add(state.snapshot())

    def add(self, snapshot: Snapshot) -> None:
        """Keep a snapshot under its step."""
        if self.folder is None:
            self._kept[snapshot.step] = snapshot
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{snapshot.step}.pt"
        torch.save(vars(snapshot), path)
        self._kept[snapshot.step] = path

    def get(self, step: int) -> Snapshot:
        """The snapshot of a step.

        Raises:
            ValueError: it was not kept; the message lists those that were.
        """
        if step not in self._kept:
            kept = ", ".join(map(str, self.steps)) or "none"
            raise ValueError(f"step {step} was not kept (kept: {kept}): ask for it before training passes it")
        kept_one = self._kept[step]
        if isinstance(kept_one, Snapshot):
            return kept_one
        return Snapshot(**torch.load(kept_one, weights_only=True))


def linear_warmup(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LinearLR:
    """A scheduler that raises the rate linearly from rate / steps at the first step to the full rate at step `steps`.

    Call its `step()` after every optimiser step. It is torch's `LinearLR`, so it chains with others
    (`torch.optim.lr_scheduler.ChainedScheduler`).
    """
    if steps < 1:
        raise ValueError(f"a warm-up takes at least one step: got {steps}")
    return torch.optim.lr_scheduler.LinearLR(
        optimizer, start_factor=1 / steps, end_factor=1.0, total_iters=max(1, steps - 1)
    )


# -- the loop ----------------------------------------------------------------------------------------------------

Metrics = Mapping[str, float]
TrainFn = Callable[[nn.Module, Snapshot | None, RewindStore], Metrics]


@dataclass(frozen=True)
class Round:
    """One round of pruning.

    Attributes:
        density: share of prunable weights that is left.
        masks: parameter name -> boolean mask.
        metrics: what `train_fn` returned.
        start: prunable weights as this round began (pruned entries at their frozen value).
        final: weights at the end of training; a pruned entry keeps the value that it had *when it was pruned*,
            which is what criteria and mask-0 actions look at.
        frozen: frozen values of the pruned entries (whole layers; only entries outside the mask mean anything).
        state: all parameters and buffers at the end, as the forward pass sees them.
    """

    density: float
    masks: dict[str, Tensor]
    metrics: dict[str, float]
    start: dict[str, Tensor]
    final: dict[str, Tensor]
    frozen: dict[str, Tensor]
    state: dict[str, Tensor]


class IterativePruner:
    """Train, score, mask, reset, retrain; every round removes a fraction of the weights that are left.

    Args:
        model_fn: makes a freshly initialised model. Called once for the run, and again for each reset by `reinit`.
        train_fn: (model, resume, store) -> metrics. It makes its optimiser, scheduler and data for `model`, puts them
            into a `TrainState`, calls `state.restore(resume)` unless resume is None, and trains from `state.step` to
            the last step, calling `store.visit(state)` before every step and once at the end.
        criterion: name in `CRITERIA`, or your own.
        per_layer_rate: fraction removed a round: one number for every weight of linear and convolution layers, or
            parameter name -> fraction.
        reset: what kept weights restart from: name in `RESETS` or your own. "rewind" with `rewind_step` k is late
            resetting; everything else (biases, norm buffers, optimiser, schedule, data position) goes back to k, too.
        pruned_value: what pruned weights become: name in `PRUNED_VALUES` or your own.
        rewind_step: k; 0 is the original procedure.
        scope: "layer" ranks weights within each layer, "global" over all layers (one number as the rate).
        generator: for random ties, reshuffles and the like.
        gradients: () -> {parameter name: gradient at the initial weights}, for criteria that need it.
        store: where snapshots are kept (default: in memory, step k only). Give one that keeps more steps to `branch`
            from them later.

    `run` and `branch` return `Round`s. Scores see the weights at step k as the initial ones.

    >>> def train(model, resume, store):
    ...     state = TrainState(model, torch.optim.SGD(model.parameters(), 0.1))
    ...     if resume is not None:
    ...         state.restore(resume)
    ...     while state.step < 3:
    ...         store.visit(state)
    ...         state.optimizer.zero_grad()
    ...         model(torch.ones(1, 4)).square().sum().backward()
    ...         state.optimizer.step()
    ...         state.step += 1
    ...     store.visit(state)
    ...     return {}
    >>> [round(r.density, 2) for r in IterativePruner(lambda: nn.Linear(4, 5), train, per_layer_rate=0.5).run(2)]
    [1.0, 0.5, 0.25]
    """

    def __init__(
        self,
        model_fn: Callable[[], nn.Module],
        train_fn: TrainFn,
        criterion: str | MaskCriterion = "large_final",
        per_layer_rate: float | Mapping[str, float] = 0.2,
        reset: str | Reset = "rewind",
        pruned_value: str | PrunedValue = "zero",
        rewind_step: int = 0,
        scope: Literal["global", "layer"] = "layer",
        generator: torch.Generator | None = None,
        gradients: Callable[[], Mapping[str, Tensor]] | None = None,
        store: RewindStore | None = None,
    ) -> None:
        if scope not in ("global", "layer"):
            raise ValueError(f"scope is 'global' or 'layer': got {scope!r}")
        if rewind_step < 0:
            raise ValueError(f"rewind_step is counted from 0: got {rewind_step}")
        for rate in per_layer_rate.values() if isinstance(per_layer_rate, Mapping) else [per_layer_rate]:
            check_fraction(rate)
        self.model_fn, self.train_fn = model_fn, train_fn
        self.criterion = find_criterion(criterion)
        if getattr(self.criterion, "needs_grad", False) and gradients is None:
            raise ValueError("this criterion needs gradients at the initial weights: pass gradients=")
        self.reset, self.pruned_value = find_reset(reset), find_pruned_value(pruned_value)
        self.rewind_step, self.scope, self.generator = rewind_step, scope, generator
        self.gradients = gradients
        self.store = store if store is not None else RewindStore({rewind_step})
        self.store.wanted = self.store.wanted | {rewind_step}
        model = model_fn()
        known = dict(model.named_parameters())
        if isinstance(per_layer_rate, Mapping):
            self.rates = dict(per_layer_rate)
        else:
            self.rates = dict.fromkeys(prunable(model), per_layer_rate)
        if scope == "global" and len(set(self.rates.values())) > 1:
            raise ValueError("global ranking takes one rate for all layers")
        unknown = [name for name in self.rates if name not in known]
        if unknown or not self.rates:
            raise ValueError(
                f"no parameter named {', '.join(unknown) or 'to prune'}: the model has {', '.join(known)}"
            )
        self._first: nn.Module | None = model
        self.dense: Round | None = None
        """Round 0, once it was trained."""

    def train_dense(self) -> Round:
        """Round 0: the dense model from step 0 to the end; it is trained once only."""
        if self.dense is None:
            assert self._first is not None
            model, self._first = self._first, None
            start = effective_state(model)
            metrics = self.train_fn(model, None, self.store)
            state = effective_state(model)
            if self.rewind_step not in self.store.steps:
                raise ValueError(
                    f"rewind_step {self.rewind_step} was never visited (kept: {self.store.steps}): it must not lie "
                    "beyond the last step, and train_fn must call store.visit(state) before every step and at the end"
                )
            self.dense = Round(
                1.0,
                {name: torch.ones_like(state[name], dtype=torch.bool) for name in self.rates},
                dict(metrics),
                {name: start[name] for name in self.rates},
                {name: state[name] for name in self.rates},
                {name: torch.zeros_like(state[name]) for name in self.rates},
                state,
            )
        return self.dense

    def run(self, rounds: int) -> list[Round]:
        """The dense round and `rounds` rounds of pruning, in order (the first has density 1)."""
        if rounds < 0:
            raise ValueError(f"rounds must not be negative: got {rounds}")
        done = [self.train_dense()]
        for _ in range(rounds):
            done.append(self.branch(done[-1], self.next_masks(done[-1])))
        return done

    def run_to(self, densities: Sequence[float]) -> list[Round]:
        """One-shot pruning: a retrained round for each density, all masks scored on the dense round (layer by
        layer)."""
        dense = self.train_dense()
        return [self.branch(dense, self.one_shot_masks(density)) for density in densities]

    def _scores(self, last: Round) -> dict[str, Tensor]:
        kept = self.store.get(self.rewind_step).model
        grads = self.gradients() if self.gradients is not None else {}
        scores = {}
        for name, alive in last.masks.items():
            # Only the living are scored: ranks must not count the pruned ones.
            gradient = grads[name][alive] if name in grads else None
            values = self.criterion.score(kept[name][alive], last.final[name][alive], gradient)
            scores[name] = torch.zeros_like(last.final[name])
            scores[name][alive] = values
        return scores

    def next_masks(self, last: Round) -> dict[str, Tensor]:
        """The masks of the round after `last`: round((1 - rate) * left) weights a layer are kept, or over all
        layers."""
        scores = self._scores(last)
        if self.scope == "global":
            left = sum(int(mask.sum()) for mask in last.masks.values())
            rate = next(iter(self.rates.values()))
            masks = global_masks(scores, last.masks, left - round(rate * left), self.generator)
        else:
            masks = {
                name: build_mask(
                    scores[name],
                    n_keep=max(1, round((1 - self.rates[name]) * int(alive.sum()))),
                    alive=alive,
                    generator=self.generator,
                )
                for name, alive in last.masks.items()
            }
        _warn_if_empty(masks)
        return masks

    def one_shot_masks(self, density: float | Mapping[str, float]) -> dict[str, Tensor]:
        """Masks from the dense round: one density for every layer or one each, or one overall (scope "global")."""
        dense = self.train_dense()
        scores = self._scores(dense)
        if self.scope == "global":
            total = sum(s.numel() for s in scores.values())
            if isinstance(density, Mapping):
                raise ValueError("global ranking takes one density for all layers together")
            masks = global_masks(scores, dense.masks, n_kept(density, total), self.generator)
        else:
            each = density if isinstance(density, Mapping) else dict.fromkeys(scores, density)
            masks = {name: build_mask(s, each[name], generator=self.generator) for name, s in scores.items()}
        _warn_if_empty(masks)
        return masks

    def branch(
        self,
        last: Round,
        masks: Mapping[str, Tensor],
        reset: str | Reset | None = None,
        pruned_value: str | PrunedValue | None = None,
        rewind_step: int | None = None,
    ) -> Round:
        """Reset and retrain with these masks, on from `last` (whose final weights decide the actions).

        `reset`, `pruned_value` and `rewind_step` differ from the pruner's own where given, so that many conditions
        branch from one set of masks. Weights that `last` had pruned already keep their frozen value under the
        pruner's own mask-0 action; under another they are decided anew, from their values when they were pruned.
        """
        how = self.reset if reset is None else find_reset(reset)
        value = self.pruned_value if pruned_value is None else find_pruned_value(pruned_value)
        snapshot = self.store.get(self.rewind_step if rewind_step is None else rewind_step)
        model = self.model_fn()
        fresh = effective_state(model)
        start, frozen = {}, {}
        for name, mask in masks.items():
            if name not in self.rates:
                raise ValueError(f"mask for {name!r}, which is not pruned: {', '.join(self.rates)}")
            wi, wf = snapshot.model[name], last.final[name]
            frozen[name] = value(wi, wf, mask, self.generator)
            if value == self.pruned_value:
                frozen[name] = torch.where(last.masks[name], frozen[name], last.frozen[name])
            begin = how(wi, wf, mask, self.generator, fresh[name].to(wi))
            start[name] = torch.where(mask, value.start(begin, wi, wf), frozen[name])
        missing = [name for name in self.rates if name not in masks]
        if missing:
            raise ValueError(f"no mask for {', '.join(missing)}")
        masked = MaskedModel(model, masks, frozen)
        metrics = self.train_fn(masked, snapshot.with_weights(start), RewindStore(()))
        state = effective_state(masked)
        return Round(
            density(masks),
            dict(masks),
            dict(metrics),
            start,
            {name: torch.where(mask, state[name], last.final[name]) for name, mask in masks.items()},
            frozen,
            state,
        )


def prunable(model: nn.Module) -> list[str]:
    """Names of the weights of all linear and convolution layers (never biases or norm parameters)."""
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    return [
        f"{name}.weight" if name else "weight" for name, m in model.named_modules() if isinstance(m, kinds)
    ]


def _warn_if_empty(masks: Mapping[str, Tensor]) -> None:
    empty = [name for name, mask in masks.items() if not bool(mask.any())]
    if empty:
        warnings.warn(f"no weight is left in {', '.join(empty)}: the layer has collapsed", stacklevel=3)
