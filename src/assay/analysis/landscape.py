r"""The loss around and between solutions: directions, lines, planes, interpolation, sharpness.

A random direction $d$ has one N(0, 1) entry for *every weight*. Filter normalisation changes only its *scale*, once for
each filter $j$ of layer $i$: $d_{ij} \leftarrow d_{ij}\,\|\theta_{ij}\|\,/\,(\|d_{ij}\|+10^{-10})$. A filter is what
produces one output: a slice ``weight[j]`` of shape ``[in, k, k]`` of a convolution, one row ``weight[j]`` of a dense
layer. So a layer `Linear(100, 10)` has 1,000 entries in its direction and 10 scales::

    d = torch.randn(10, 100)                                     # one entry a weight
    d *= (weight.norm(dim=1) / (d.norm(dim=1) + 1e-10))[:, None]   # one scale a filter

Nothing here changes the model that it is given: all points are evaluated functionally, many at a time (`vmap`), in
evaluation mode. The exception is `recalibrate_batchnorm`, whose purpose it is.

Data are one pair (inputs, targets) or a sequence of such batches; a loss is a function (outputs, targets) -> mean over
the batch, 0-d or with several entries (several metrics in one pass).

Source: Li, Xu, Taylor, Studer, Goldstein: Visualizing the Loss Landscape of Neural Nets, NeurIPS 2018 (arXiv
1712.09913), sections 3 to 5.
"""

import copy
import csv
import math
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

Direction = dict[str, Tensor]
"""A step in parameter space: one tensor for each named parameter."""
LossFn = Callable[[Any, Any], Tensor]
"""(outputs, targets) -> mean loss of the batch."""
Data = tuple[Any, Any] | Iterable[tuple[Any, Any]]
"""One (inputs, targets), or batches of them."""
Positions = Tensor | Sequence[float | int] | int
"""Positions along an axis, or how many evenly spaced."""
NormMode = Literal["filter", "layer", "weight", "none", "dfilter", "dlayer"]
BatchNormMode = Literal["recalibrate", "frozen", "interpolate"]

TINY = 1e-10
VARIANCE_FLOOR = 1e-5
_WORK = 2**22  # floats that a chunk of points may hold in parameters and inputs, on a CPU


# -- directions ----------------------------------------------------------------------------------------------------


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__


def _norm_parameters(model: nn.Module) -> set[str]:
    """Names of the gains and offsets of normalisation layers."""
    return {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if _is_norm(module)
        for name, _ in module.named_parameters(recurse=False)
    }


def _transposed(model: nn.Module) -> set[str]:
    """Names of the weights whose outputs lie along dimension 1."""
    kinds = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return {
        f"{path}.weight" if path else "weight" for path, m in model.named_modules() if isinstance(m, kinds)
    }


def _parameters(model: nn.Module) -> Direction:
    params = {name: p.detach() for name, p in model.named_parameters()}
    if not params:
        raise ValueError("the model has no parameters")
    for name, p in params.items():
        if not p.is_floating_point():
            raise TypeError(
                f"parameter {name!r} is {p.dtype}: only floating-point parameters have a landscape"
            )
    return params


def random_direction(
    model: nn.Module,
    norm: NormMode = "filter",
    skip: Collection[str] = ("bias", "norm"),
    generator: torch.Generator | None = None,
) -> Direction:
    """A random direction around the model's parameters, normalised.

    Args:
        model: any module; its parameters are the reference of the scale.
        norm: see `normalize_direction`.
        skip: what the direction leaves where it is (entries 0): "bias" (every parameter whose name ends in "bias",
            outside normalisation layers), "norm" (gains and offsets of normalisation layers). Without both, plots
            are explosive or NaN: these parameters are no filters and their scale says little.
        generator: draws the N(0, 1) entries, on its own device.

    Returns:
        Parameter name -> tensor of the parameter's shape. Two draws are nearly orthogonal in high dimension; they are
        not orthogonalised (as in the paper).

    Raises:
        ValueError: an unknown mode, or nothing is left after `skip`.

    >>> model = nn.Linear(100, 10)
    >>> d = random_direction(model)
    >>> torch.allclose(d["weight"].norm(dim=1), model.weight.norm(dim=1))
    True
    """
    if unknown := set(skip) - {"bias", "norm"}:
        raise ValueError(f"skip may name 'bias' and 'norm', not {', '.join(map(repr, sorted(unknown)))}")
    params = _parameters(model)
    norms = _norm_parameters(model)
    left_out = {
        name
        for name in params
        if (name in norms and "norm" in skip)
        or (name not in norms and name.rpartition(".")[2].endswith("bias") and "bias" in skip)
    }
    if len(left_out) == len(params):
        raise ValueError("every parameter is skipped: no direction is left")
    source = generator.device if generator is not None else torch.device("cpu")
    # Everything is drawn, skipped or not: the same seed gives the same entries whatever is skipped.
    drawn = {
        name: torch.randn(p.shape, generator=generator, dtype=p.dtype, device=source).to(p.device)
        for name, p in params.items()
    }
    direction = normalize_direction(drawn, params, norm, transposed=_transposed(model))
    return {name: torch.zeros_like(d) if name in left_out else d for name, d in direction.items()}


def normalize_direction(
    direction: Mapping[str, Tensor],
    params: Mapping[str, Tensor],
    mode: NormMode = "filter",
    transposed: Collection[str] = (),
) -> Direction:
    r"""Scale a direction to the parameters that it starts from.

    Args:
        direction: parameter name -> step, one entry a weight.
        params: parameter name -> value, with the same names and shapes.
        mode: "filter": every filter of the direction gets the norm of the model's filter,
            $d_{ij}\|\theta_{ij}\|/(\|d_{ij}\|+10^{-10})$; "layer": the same with whole tensors; "weight":
            $d\circ\theta$, entry by entry; "none": as drawn; "dfilter", "dlayer": unit norm for each filter or
            tensor, whatever the model's. Tensors of one axis (biases, gains) have no filters and are scaled as a whole.
        transposed: names of weights whose outputs lie along axis 1 (transposed convolutions).

    Raises:
        ValueError: names or shapes differ, or an unknown mode.
    """
    if mode not in ("filter", "layer", "weight", "none", "dfilter", "dlayer"):
        raise ValueError(f"unknown mode {mode!r}: filter, layer, weight, none, dfilter or dlayer")
    _same_names(direction, params, "the direction")
    out: Direction = {}
    for name, d in direction.items():
        value = params[name].detach()
        if mode == "none":
            out[name] = d.clone()
        elif mode == "weight":
            out[name] = d * value
        else:
            keep = (1 if name in transposed else 0) if mode.endswith("filter") and d.dim() > 1 else None
            over = tuple(axis for axis in range(d.dim()) if axis != keep)
            own = torch.linalg.vector_norm(d, dim=over or None, keepdim=True)
            wanted = (
                torch.ones_like(own)
                if mode.startswith("d")
                else torch.linalg.vector_norm(value, dim=over or None, keepdim=True)
            )
            out[name] = (d * (wanted / (own + TINY))).reshape(d.shape)
    return out


def _same_names(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in wanted]
    if missing or extra:
        lacks = f"lacks {', '.join(missing[:4])}" if missing else ""
        more = f"has unknown {', '.join(extra[:4])}" if extra else ""
        raise ValueError(
            f"{what} does not fit the model's parameters: it {' and '.join(filter(None, (lacks, more)))}"
        )
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            raise ValueError(
                f"{what} does not fit: {name} has shape {tuple(found[name].shape)}, not {tuple(tensor.shape)}"
            )


# -- evaluating many points ------------------------------------------------------------------------------------------


def _batches(data: Data) -> list[tuple[Any, Any]]:
    # A pair of pairs is two batches; a pair of anything else is one.
    one = isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], tuple | list)
    found = [data] if one else list(data)
    if not found:
        raise ValueError("no data: give (inputs, targets), or batches of them")
    return found  # type: ignore[return-value]


def _inputs(batch: Any) -> tuple[Any, ...]:
    return tuple(batch) if isinstance(batch, tuple) else (batch,)


def _count(targets: Any) -> int:
    return len(targets)


def _running(model: nn.Module) -> dict[str, Any]:
    """The normalisation layers that keep running statistics, by path."""
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
        and isinstance(getattr(module, "running_var", None), Tensor)
    }


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


class _Evaluator:
    """Losses at stacked parameters, computed on a private copy of the module's structure."""

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        data: Data,
        bn: str,
        calibration: Any,
        chunk: int | None,
    ):
        if bn not in ("recalibrate", "frozen", "interpolate"):
            raise ValueError(f"unknown bn {bn!r}: recalibrate, frozen or interpolate")
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1 point: got {chunk}")
        self.params = _parameters(model)
        self.loss_fn = loss_fn
        self.data = _batches(data)
        self.skeleton = copy.deepcopy(model).eval().requires_grad_(False)
        self.buffers = {name: b.detach() for name, b in model.named_buffers()}
        self.norms = _running(self.skeleton)
        self.recalibrate = bn == "recalibrate" and bool(self.norms)
        self.calibration = [x for x, _ in self.data] if calibration is None else _listed(calibration)
        self.chunk = self._chunk() if chunk is None else chunk

    def _chunk(self) -> int:
        """Points at once: enough to hide the cost of a call, few enough to stay in the cache (or the GPU's memory)."""
        cpu = next(iter(self.params.values())).device.type == "cpu"
        if cpu and any("Conv" in type(module).__name__ for module in self.skeleton.modules()):
            return 1  # many convolutions at once become grouped ones, which are slow here
        largest = max((x.numel() for x, _ in self.data if isinstance(x, Tensor)), default=1)
        own = sum(p.numel() for p in self.params.values())
        return max(1, min(1024, (_WORK if cpu else 64 * _WORK) // max(1, own + 4 * largest)))

    def __call__(
        self,
        points: Callable[[slice], Direction],
        n: int,
        states: Callable[[slice], Direction] | None = None,
    ) -> Tensor:
        """The losses at points 0 .. n-1; `points` and `states` stack parameters and buffers of a slice of them."""
        found = []
        with torch.no_grad():
            for start in range(0, n, self.chunk):
                part = slice(start, min(start + self.chunk, n))
                size = part.stop - part.start
                buffers = {name: b.expand(size, *b.shape).clone() for name, b in self.buffers.items()}
                if states is not None:
                    buffers |= states(part)
                found.append(self._losses(points(part), buffers, size))
        return torch.cat(found)

    def _losses(self, params: Direction, buffers: Direction, size: int) -> Tensor:
        if self.recalibrate:
            self._estimate(params, buffers, size)
        total: Tensor | None = None
        everything = sum(_count(y) for _, y in self.data)
        for x, y in self.data:

            def loss(state: tuple[Direction, Direction], x: Any = x, y: Any = y) -> Tensor:
                return self.loss_fn(functional_call(self.skeleton, state, _inputs(x)), y)

            value = self._each(loss, params, buffers, size) * (_count(y) / everything)
            total = value if total is None else total + value
        assert total is not None
        return total

    def _estimate(self, params: Direction, buffers: Direction, size: int) -> None:
        """Statistics of the calibration inputs at every point, written into the stacked buffers."""
        for path in self.norms:
            buffers[_join(path, "running_mean")].zero_()
            buffers[_join(path, "running_var")].fill_(1)
        for module in self.norms.values():
            module.train()
        for k, x in enumerate(self.calibration):
            for module in self.norms.values():
                module.momentum = 1 / (k + 1)  # the mean over batches so far

            def forward(state: tuple[Direction, Direction], x: Any = x) -> Tensor:
                functional_call(self.skeleton, state, _inputs(x))
                return torch.zeros(())

            self._each(forward, params, buffers, size)
        for module in self.norms.values():
            module.eval()

    def _each(
        self,
        function: Callable[[tuple[Direction, Direction]], Tensor],
        params: Direction,
        buffers: Direction,
        size: int,
    ) -> Tensor:
        if size > 1:
            try:
                return vmap(lambda p, b: function((p, b)))(params, buffers)
            except RuntimeError as error:
                if "vmap" in str(error):
                    error.add_note(
                        "this model or loss cannot be evaluated at many points at once: pass chunk=1"
                    )
                raise
        # Views of the stacked buffers: statistics estimated in place stay.
        one = function(({k: v[0] for k, v in params.items()}, {k: v[0] for k, v in buffers.items()}))
        return one.unsqueeze(0)


def _listed(inputs: Any) -> list[Any]:
    return list(inputs) if isinstance(inputs, list) else [inputs]


def _grid(values: Positions, low: float, high: float, like: Direction, name: str) -> Tensor:
    reference = next(iter(like.values()))
    if isinstance(values, int):
        if values < 2:
            raise ValueError(f"{name} needs at least 2 points: got {values}")
        # Computed from the middle: the centre of an odd grid is exactly the solution.
        steps = torch.arange(values, dtype=torch.float64) - (values - 1) / 2
        grid = (low + high) / 2 + steps * ((high - low) / (values - 1))
    else:
        grid = torch.as_tensor(values)
    if grid.dim() != 1 or len(grid) == 0:
        raise ValueError(f"{name} must be a vector of numbers: got shape {tuple(grid.shape)}")
    return grid.to(reference)


def _along(alphas: Tensor, tensor: Tensor) -> Tensor:
    return alphas.view(-1, *[1] * tensor.dim()) * tensor


def _fit(model: nn.Module, direction: Mapping[str, Tensor], what: str) -> Direction:
    params = _parameters(model)
    _same_names(direction, params, what)
    return {name: direction[name].to(p) for name, p in params.items()}


def loss_line(
    model: nn.Module,
    loss_fn: LossFn,
    batch: Data,
    direction: Mapping[str, Tensor],
    alphas: Positions = 51,
    bn: BatchNormMode = "recalibrate",
    calibration: Any = None,
    chunk: int | None = None,
) -> Float[Tensor, "n *metrics"]:
    r"""The loss along a direction, $f(\alpha)=L(\theta^*+\alpha\,d)$.

    Args:
        model: any module, at the solution $\theta^*$; it is left as it is.
        loss_fn: (outputs, targets) -> mean loss, or several metrics in one tensor.
        batch: (inputs, targets), or batches of them (weighted by their sizes).
        direction: parameter name -> step (`random_direction`).
        alphas: positions, or how many evenly in [-1, 1].
        bn: running statistics of batch norm at each point: "recalibrate" estimates them anew from the same inputs
            everywhere (at $\alpha=0$ too, which may differ slightly from the plain loss), "frozen" keeps those of the
            model. ("interpolate" means "frozen" here.) Models without running statistics are not concerned.
        calibration: inputs (or a list of batches of inputs) for "recalibrate"; those of `batch` by default.
        chunk: points evaluated together; chosen by size if None; 1 for models that `vmap` cannot take.

    Raises:
        ValueError: the direction does not fit the model.
    """
    step = _fit(model, direction, "the direction")
    run = _Evaluator(model, loss_fn, batch, bn, calibration, chunk)
    grid = _grid(alphas, -1.0, 1.0, run.params, "alphas")
    return run(lambda part: {k: p + _along(grid[part], step[k]) for k, p in run.params.items()}, len(grid))


def loss_plane(
    model: nn.Module,
    loss_fn: LossFn,
    batch: Data,
    d1: Mapping[str, Tensor],
    d2: Mapping[str, Tensor],
    alphas: Positions = 51,
    betas: Positions = 51,
    bn: BatchNormMode = "recalibrate",
    calibration: Any = None,
    chunk: int | None = None,
) -> Float[Tensor, "n m *metrics"]:
    r"""The loss on a plane, $f(\alpha,\beta)=L(\theta^*+\alpha\,d_1+\beta\,d_2)$; arguments as `loss_line`.

    >>> model, x, y = nn.Linear(3, 2), torch.rand(8, 3), torch.zeros(8, dtype=torch.int64)
    >>> d1, d2 = random_direction(model), random_direction(model)
    >>> loss_plane(model, nn.functional.cross_entropy, (x, y), d1, d2, 5, 7).shape
    torch.Size([5, 7])
    """
    first, second = _fit(model, d1, "the first direction"), _fit(model, d2, "the second direction")
    run = _Evaluator(model, loss_fn, batch, bn, calibration, chunk)
    a = _grid(alphas, -1.0, 1.0, run.params, "alphas")
    b = _grid(betas, -1.0, 1.0, run.params, "betas")
    pairs = torch.cartesian_prod(a, b).view(-1, 2)

    def points(part: slice) -> Direction:
        x, y = pairs[part].unbind(1)
        return {k: p + _along(x, first[k]) + _along(y, second[k]) for k, p in run.params.items()}

    values = run(points, len(pairs))
    return values.view(len(a), len(b), *values.shape[1:])


# -- between two solutions -------------------------------------------------------------------------------------------


def with_state(model: nn.Module, state: Mapping[str, Any] | str | Path) -> nn.Module:
    """A copy of `model` with a checkpoint's state: a state_dict, a file of one, or a dict that holds one.

    Files are read with ``weights_only=True``. Keys "state_dict" and "model_state_dict" are opened, prefixes "module."
    (data-parallel training) are dropped.

    Raises:
        ValueError: names or shapes do not fit the model.
    """
    found: Any = state
    if isinstance(state, str | Path):
        found = torch.load(state, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model_state_dict"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ValueError("a state must be a state_dict (names to tensors), or a file or dict that holds one")
    clean = {name.removeprefix("module."): tensor for name, tensor in found.items()}
    copied = copy.deepcopy(model)
    try:
        copied.load_state_dict(clean)
    except RuntimeError as error:
        raise ValueError(f"the checkpoint does not fit the model: {error}") from None
    return copied


def _interpolation(
    model_a: nn.Module,
    model_b: nn.Module | Mapping[str, Tensor],
    loss_fn: LossFn,
    data: Data,
    alphas: Positions,
    low: float,
    high: float,
    bn: str,
    calibration: Any,
    chunk: int | None,
) -> tuple[Tensor, Tensor]:
    other = model_b if isinstance(model_b, nn.Module) else with_state(model_a, model_b)
    run = _Evaluator(model_a, loss_fn, data, bn, calibration, chunk)
    ends = _parameters(other)
    _same_names(ends, run.params, "the second model")
    ends = {name: p.to(run.params[name]) for name, p in ends.items()}
    grid = _grid(alphas, low, high, run.params, "alphas")

    def between(start: Tensor, end: Tensor, part: slice) -> Tensor:
        where = grid[part].view(-1, *[1] * start.dim()).to(start)
        return torch.lerp(start.unsqueeze(0), end.unsqueeze(0), where)  # exact at both ends

    states = None
    if bn == "interpolate" and run.norms:
        theirs = dict(other.named_buffers())
        names = [_join(p, kind) for p in run.norms for kind in ("running_mean", "running_var")]

        def states(part: slice) -> Direction:
            stacked = {k: between(run.buffers[k], theirs[k].to(run.buffers[k]), part) for k in names}
            for name, value in stacked.items():
                if name.endswith("running_var") and (value < VARIANCE_FLOOR).any():
                    warnings.warn(
                        f"extrapolated variances of {name} fell below {VARIANCE_FLOOR:g} and were clamped: prefer "
                        'bn="recalibrate"',
                        stacklevel=5,
                    )
                    value.clamp_(min=VARIANCE_FLOOR)
            return stacked

    values = run(
        lambda part: {k: between(p, ends[k], part) for k, p in run.params.items()}, len(grid), states
    )
    return grid, values


def interpolate(
    model_a: nn.Module,
    model_b: nn.Module | Mapping[str, Tensor],
    alphas: Positions,
    metric_fns: Mapping[str, LossFn] | LossFn,
    data: Mapping[str, Data] | Data,
    bn: BatchNormMode = "recalibrate",
    calibration: Any = None,
    chunk: int | None = None,
) -> dict[str, Float[Tensor, " n"]]:
    r"""Metrics on the line through two parameter vectors, $\theta(a)=(1-a)\,\theta_1+a\,\theta_2$.

    Both models may be anything of one structure: initialisation and solution, or two solutions.

    Args:
        model_a: at a = 0.
        model_b: at a = 1: a module of the same structure or its state_dict.
        alphas: positions (beyond [0, 1] they extrapolate), or how many evenly in [-0.5, 1.5].
        metric_fns: name -> (outputs, targets) -> mean over the batch, 0-d; or one function, called "loss".
        data: (inputs, targets) or batches; or name -> such data ("train", "test"), whose names prefix the columns.
        bn: "recalibrate" (running statistics estimated anew at each point, from the same inputs), "frozen" (those of
            `model_a`), or "interpolate" (as the parameters, variances clamped at 1e-5: beyond the ends they would
            become negative and losses NaN).
        calibration: inputs (or a list of batches of inputs) to estimate statistics from; those of the first `data`
            by default.
        chunk: as in `loss_line`.

    Returns:
        A table by columns: "alpha" and one column for each metric ("loss") or data and metric ("test_loss");
        `pandas.DataFrame` takes it as it is.

    Raises:
        ValueError: the models differ in structure.
    """
    metrics = {"loss": metric_fns} if callable(metric_fns) else dict(metric_fns)
    parts: dict[str, Data] = dict(data) if isinstance(data, Mapping) else {"": data}
    if not metrics or not parts:
        raise ValueError("give at least one metric and one data set")
    if calibration is None:
        calibration = [x for x, _ in _batches(next(iter(parts.values())))]

    def all_metrics(outputs: Any, targets: Any) -> Tensor:
        return torch.stack([function(outputs, targets) for function in metrics.values()])

    table: dict[str, Tensor] = {}
    for part, examples in parts.items():
        grid, values = _interpolation(
            model_a, model_b, all_metrics, examples, alphas, -0.5, 1.5, bn, calibration, chunk
        )
        table.setdefault("alpha", grid)
        for name, column in zip(metrics, values.unbind(1), strict=True):
            table[f"{part}_{name}" if part else name] = column
    return table


@dataclass(frozen=True)
class Barrier:
    """What lies between two models on the straight line."""

    height: float | Tensor
    """Largest excess of the loss over the line between the losses of both ends (a tensor where the loss has several
    entries). 0 where the path never rises above it."""
    curve: Float[Tensor, "n *metrics"]
    """Loss at each position."""
    alphas: Float[Tensor, " n"]
    """Positions in [0, 1]."""


def linear_barrier(
    model_a: nn.Module,
    model_b: nn.Module | Mapping[str, Tensor],
    loss_fn: LossFn,
    data: Data,
    alphas: Positions = 11,
    recalibrate_bn: bool = True,
    calibration: Any = None,
    chunk: int | None = None,
) -> Barrier:
    r"""The loss barrier on the straight line between two models.

    $\max_a\,[L((1-a)\theta_1+a\theta_2)-(1-a)L(\theta_1)-aL(\theta_2)]$: 0 for a model with itself and for
    convex losses; two models without a barrier are linearly connected.

    Args:
        model_a, model_b: two modules of one structure; the second may be a state_dict.
        loss_fn: (outputs, targets) -> mean; pass an error function for a barrier in error.
        data: (inputs, targets) or batches.
        alphas: positions in [0, 1], or how many (ends included).
        recalibrate_bn: estimate running statistics of batch norm anew at each point, the ends included; otherwise
            they are interpolated as the parameters.
        calibration: inputs to estimate them from; those of `data` by default.
        chunk: as in `loss_line`.

    Source: Frankle et al. 2020 (arXiv 1912.05671), section 2, with the straight line in place of the ends' mean (equal
    where both ends have the same loss); Entezari et al. 2022 (arXiv 2110.06296), definition 2.2.

    >>> model, x, y = nn.Linear(3, 2), torch.rand(8, 3), torch.zeros(8, dtype=torch.int64)
    >>> linear_barrier(model, model, nn.functional.cross_entropy, (x, y)).height
    0.0
    """
    bn = "recalibrate" if recalibrate_bn else "interpolate"
    grid, curve = _interpolation(model_a, model_b, loss_fn, data, alphas, 0.0, 1.0, bn, calibration, chunk)
    if grid.min() < 0 or grid.max() > 1:
        raise ValueError("a barrier lies between the models: alphas must be in [0, 1]")
    if grid[0] != 0 or grid[-1] != 1:
        raise ValueError("alphas must begin at 0 and end at 1: the barrier is measured against both ends")
    excess = (curve - torch.lerp(curve[:1], curve[-1:], grid.view(-1, *[1] * (curve.dim() - 1)))).amax(0)
    return Barrier(excess.item() if excess.dim() == 0 else excess, curve, grid)


def recalibrate_batchnorm(model: nn.Module, batches: Tensor | Iterable[Any]) -> nn.Module:
    """Estimate the running statistics of every batch-norm layer anew, **in place**, from given inputs.

    The mean over batches of each batch's mean and (unbiased) variance, as `torch.optim.swa_utils.update_bn`; all else
    (dropout, too) stays in evaluation mode meanwhile. Parameters, modes and momenta are left as they were. Needed
    after averaging, interpolating or pruning weights.

    Args:
        model: any module; without running statistics nothing happens.
        batches: inputs (one tensor), or an iterable of inputs or of (inputs, targets).

    Returns:
        The model itself.

    Raises:
        ValueError: no batches.
    """
    norms = _running(model)
    listed = [batches] if isinstance(batches, Tensor) else batches
    modes = {module: module.training for module in model.modules()}
    momenta = {module: module.momentum for module in norms.values()}
    seen = 0
    try:
        model.eval()
        for module in norms.values():
            module.train()
            module.running_mean.zero_()
            module.running_var.fill_(1)
        with torch.no_grad():
            for batch in listed:
                for module in norms.values():
                    module.momentum = 1 / (seen + 1)
                model(batch[0] if isinstance(batch, tuple | list) else batch)
                seen += 1
                if not norms:
                    break
    finally:
        for module, momentum in momenta.items():
            module.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
    if not seen:
        raise ValueError("no batches to estimate statistics from")
    return model


# -- scale -----------------------------------------------------------------------------------------------------------

_HOMOGENEOUS = (
    nn.Sequential,
    nn.ReLU,
    nn.LeakyReLU,
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.Dropout,
    nn.Dropout2d,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d,
)
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def rescale_layers(model: nn.Module, factors: Sequence[float | int]) -> nn.Module:
    """The same function under other parameters: layer i of a ReLU chain times factor i.

    As relu(c z) = c relu(z) for c > 0, factors whose product is 1 leave the function alone; biases take the product of
    all factors up to their layer.

    Args:
        model: linear and convolutional layers in a chain with ReLU, pooling, flattening and dropout only.
        factors: one positive number for each linear or convolutional layer, in order.

    Returns:
        A new model.

    Raises:
        ValueError: not such a chain, or factors that do not fit or do not multiply to 1.

    Source: Li et al. 2018, section 3 ("scale invariance"); Dinh et al. 2017 (arXiv 1703.04933).
    """
    scaled = copy.deepcopy(model)
    layers: list[Any] = []
    for module in scaled.modules():
        if isinstance(module, _LAYERS):
            layers.append(module)
        elif not isinstance(module, _HOMOGENEOUS):
            raise ValueError(
                f"{type(module).__name__} does not belong in a ReLU chain (a Sequential): rescaling would change the "
                "function"
            )
    if len(factors) != len(layers):
        raise ValueError(f"the model has {len(layers)} layers: give one factor for each, not {len(factors)}")
    if min(factors) <= 0 or not math.isclose(math.prod(factors), 1.0, rel_tol=1e-9):
        raise ValueError("factors must be positive and multiply to 1")
    reached = 1.0
    with torch.no_grad():
        for layer, factor in zip(layers, factors, strict=True):
            reached *= factor
            layer.weight.mul_(factor)
            if layer.bias is not None:
                layer.bias.mul_(reached)
    return scaled


# -- numbers from landscapes -----------------------------------------------------------------------------------------


def sharpness(
    model: nn.Module,
    loss_fn: LossFn,
    batch: Data,
    radius: float = 1.0,
    n_directions: int = 10,
    norm: NormMode = "filter",
    generator: torch.Generator | None = None,
    skip: Collection[str] = ("bias", "norm"),
    bn: BatchNormMode = "recalibrate",
    calibration: Any = None,
    chunk: int | None = None,
) -> Float[Tensor, " n_directions"]:
    r"""The rise of the loss at a distance, $L(\theta^*+r\,d_k)-L(\theta^*)$ for random directions $d_k$.

    Its mean is the sharpness of the solution; its spread says how much one direction tells. Not invariant to every
    reparametrisation (Dinh et al. 2017): with ``norm="filter"`` to the scale of layers and filters only.

    Args:
        radius: r; 1 steps as far in each filter as the filter is long.
        n_directions: how many are drawn from `generator`.
        norm, skip: as in `random_direction`.
        model, loss_fn, batch, bn, calibration, chunk: as in `loss_line`.
    """
    if n_directions < 1 or not radius > 0:
        raise ValueError("radius and n_directions must be positive")
    run = _Evaluator(model, loss_fn, batch, bn, calibration, chunk)
    steps = [random_direction(model, norm, skip, generator) for _ in range(n_directions)]

    def points(part: slice) -> Direction:
        # Point 0 is the solution itself.
        chosen = range(part.start, part.stop)
        return {
            name: torch.stack([p if k == 0 else p + radius * steps[k - 1][name] for k in chosen])
            for name, p in run.params.items()
        }

    values = run(points, n_directions + 1)
    if values.dim() != 1:
        raise ValueError("sharpness needs a loss function that returns one number")
    return values[1:] - values[0]


def plane_curvature(
    grid: Float[Tensor, "n m"], step: float | tuple[float, float]
) -> Float[Tensor, "inner_n inner_m 2"]:
    r"""Both eigenvalues (lower, upper) of the 2x2 Hessian at every inner point of a plane, by central differences.

    Args:
        grid: losses.
        step: spacing of the grid, or of its rows and columns.

    Raises:
        ValueError: fewer than 3 points along an axis, a spacing that is not positive, or losses that are not finite.
    """
    if min(grid.shape) < 3:
        raise ValueError(f"curvature needs at least 3 points along each axis: got {tuple(grid.shape)}")
    a, b = step if isinstance(step, tuple) else (step, step)
    if not (a > 0 and b > 0):
        raise ValueError(f"the spacing must be positive: got {step}")
    if not torch.isfinite(grid).all():
        raise ValueError("the grid holds losses that are not finite: shrink the plane")
    f = grid.double()
    centre = 2 * f[1:-1, 1:-1]
    faa = (f[2:, 1:-1] - centre + f[:-2, 1:-1]) / a**2
    fbb = (f[1:-1, 2:] - centre + f[1:-1, :-2]) / b**2
    fab = (f[2:, 2:] - f[2:, :-2] - f[:-2, 2:] + f[:-2, :-2]) / (4 * a * b)
    middle, spread = (faa + fbb) / 2, torch.hypot((faa - fbb) / 2, fab)
    return torch.stack([middle - spread, middle + spread], -1).to(grid.dtype)


def nonconvex_fraction(
    grid: Float[Tensor, "n m"], step: float | tuple[float, float], tolerance: float = 0.1
) -> float:
    r"""The share of inner points of a plane that are not convex: $-\lambda_{\min}>\text{tolerance}\cdot\max|\lambda|$.

    The eigenvalues are those of `plane_curvature` at the point itself, as in the paper's maps of
    $|\lambda_{\min}/\lambda_{\max}|$ (section 6).
    """
    values = plane_curvature(grid, step)
    return (-values[..., 0] > tolerance * values.abs().amax(-1)).double().mean().item()


def save_surface(
    path: str | Path,
    alphas: Float[Tensor, " n"],
    betas: Float[Tensor, " m"],
    values: Float[Tensor, "n m"],
) -> Path:
    """Write a plane of losses: `.npz` (arrays alphas, betas, values), `.csv` (alpha, beta, value) or `.ply` (a mesh).

    Raises:
        ValueError: another suffix, or shapes that do not fit.
    """
    path = Path(path)
    if tuple(values.shape) != (len(alphas), len(betas)):
        raise ValueError(f"values {tuple(values.shape)} do not fit {len(alphas)} x {len(betas)} positions")
    a, b, f = (t.detach().cpu().double().numpy() for t in (alphas, betas, values))
    rows = np.stack([*np.meshgrid(a, b, indexing="ij"), f], -1).reshape(-1, 3)
    if path.suffix == ".npz":
        np.savez_compressed(path, alphas=a, betas=b, values=f)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("alpha", "beta", "value"))
            writer.writerows(rows.tolist())
    elif path.suffix == ".ply":
        corner = np.arange(len(a) * len(b)).reshape(len(a), len(b))[:-1, :-1].reshape(-1)
        faces = np.stack([corner, corner + len(b), corner + len(b) + 1, corner + 1], 1)
        header = (
            f"ply\nformat ascii 1.0\nelement vertex {len(rows)}\nproperty float x\nproperty float y\n"
            f"property float z\nelement face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
        )
        lines = [" ".join(f"{v:.7g}" for v in row) for row in rows]
        lines += ["4 " + " ".join(map(str, face)) for face in faces]
        path.write_text(header + "\n".join(lines) + "\n", encoding="utf-8")
    else:
        raise ValueError(f"unknown suffix {path.suffix!r}: .npz, .csv or .ply")
    return path
