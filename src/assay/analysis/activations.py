"""What the layers of a network say about a set of inputs: matrices of observations by neurons."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Conv = Literal["channels", "flatten", "pool", "fourier"]


class Recording(dict[str, Tensor]):
    """Activations ``[observations, neurons]`` by layer name, and a fingerprint of the inputs that they belong to.

    Two layers can be compared only if they saw the same inputs in the same order; a shuffled loader breaks that in
    silence. `check_same_inputs` does not let it.
    """

    inputs: str = ""
    """SHA-256 of all inputs in order."""
    count: int = 0
    """How many inputs there were."""


def check_same_inputs(*recordings: Recording) -> None:
    """Raise ValueError unless all recordings saw the same inputs in the same order."""
    first = recordings[0]
    for k, other in enumerate(recordings[1:], start=1):
        if other.count != first.count:
            raise ValueError(f"recording {k} saw {other.count} inputs, the first one {first.count}")
        if other.inputs != first.inputs:
            raise ValueError(
                f"recording {k} saw other inputs than the first one, or the same in another order: use one loader "
                "with shuffle=False and no random augmentation"
            )


def as_observations(
    activations: Float[Tensor, "batch *shape"], conv: Conv = "channels", size: int | None = None
) -> Float[Tensor, "observations neurons"]:
    """Activations of one layer as observations by neurons.

    Args:
        activations: ``[batch, features]``, ``[batch, time, features]`` (every time step is an observation), or
            ``[batch, channels, height, width]``.
        conv: for four axes. "channels": every position is an observation and every channel a neuron (for the same
            layer of two networks). "flatten": every channel at every position is a neuron (for different layers;
            needs many inputs). "pool": the mean over positions, a neuron a channel. "fourier": maps of any size are
            first brought to `size` x `size` by their lowest frequencies, then as "channels" (for layers of different
            resolution).
        size: of "fourier".
    """
    if conv not in ("channels", "flatten", "pool", "fourier"):
        raise ValueError(f"conv is 'channels', 'flatten', 'pool' or 'fourier': got {conv!r}")
    if activations.ndim == 2:
        return activations
    if activations.ndim == 3:
        return activations.flatten(0, 1)
    if activations.ndim != 4:
        raise ValueError(f"activations have 2, 3 or 4 axes: got {tuple(activations.shape)}")
    if conv == "flatten":
        return activations.flatten(1)
    if conv == "pool":
        return activations.mean((2, 3))
    if conv == "fourier":
        if size is None:
            raise ValueError("conv='fourier' brings all maps to one size: give `size`")
        activations = fourier_resize(activations, size)
    return activations.permute(0, 2, 3, 1).flatten(0, 2)


def fourier_resize(
    maps: Float[Tensor, "batch channels height width"], size: int
) -> Float[Tensor, "batch channels size size"]:
    """Maps of `size` x `size` pixels that hold the lowest spatial frequencies of `maps`.

    Band-limited resampling: crop the discrete Fourier transform, or fill it up with zeros. Constant maps keep their
    value; a map that has no frequencies beyond the new grid is sampled exactly. At an even new size the lone Nyquist
    frequency is left out, since its phase is not determined.

    >>> fourier_resize(torch.full((1, 1, 7, 7), 3.0), 4).round(decimals=5).unique().tolist()
    [3.0]
    """
    height, width = maps.shape[-2:]
    if size < 1:
        raise ValueError(f"size must be at least 1: got {size}")
    spectrum = torch.fft.fft2(maps)
    out = spectrum.new_zeros(*maps.shape[:-2], size, size)
    rows, columns = (
        torch.arange(-half, half + 1, device=maps.device)
        for half in ((min(height, size) - 1) // 2, (min(width, size) - 1) // 2)
    )
    source = spectrum[..., (rows % height).unsqueeze(1), columns % width]
    out[..., (rows % size).unsqueeze(1), columns % size] = source
    return torch.fft.ifft2(out).real * (size * size / (height * width))


@torch.no_grad()
def record_activations(
    model: nn.Module,
    layer_names: Sequence[str],
    loader: Iterable[Any],
    conv: Conv = "channels",
    size: int | None = None,
) -> Recording:
    """Outputs of named layers over all inputs of a loader.

    What a module returns is what is recorded: name the ReLU (not the convolution before it) for activations after
    the non-linearity. Recurrent modules that return a tuple give its first part, the states. The model runs in
    evaluation mode and is put back afterwards.

    Args:
        model: any module.
        layer_names: as in `model.named_modules()`.
        loader: batches of inputs, or tuples that start with them; the same order for all networks that are to be
            compared (see `check_same_inputs`).
        conv, size: how maps become rows, see `as_observations`.

    Returns:
        activations on the CPU by name; a layer of maps has a row a position under "channels".

    Raises:
        ValueError: an unknown layer, one that does not run exactly once a batch, that does not return a tensor, that
            returns NaN or infinite values; or an empty loader.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> acts = record_activations(net, ["1", "3"], [torch.randn(5, 1, 8, 8)], conv="pool")
    >>> {name: tuple(a.shape) for name, a in acts.items()}
    {'1': (5, 4), '3': (5, 2)}
    """
    modules = dict(model.named_modules())
    unknown = [name for name in layer_names if name not in modules]
    if unknown:
        known = ", ".join(name for name in modules if name)
        raise ValueError(f"the model has no layer {', '.join(map(repr, unknown))}: choose from {known}")
    if not layer_names:
        raise ValueError("name at least one layer")
    device = next((p.device for p in model.parameters()), None)
    caught: dict[str, list[Tensor]] = {name: [] for name in layer_names}
    kept: dict[str, list[Tensor]] = {name: [] for name in layer_names}
    digest, count = hashlib.sha256(), 0

    def hook(name: str) -> Any:
        def catch(module: nn.Module, inputs: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            if not isinstance(output, Tensor):
                raise ValueError(f"layer {name!r} returns {type(output).__name__}, not a tensor")
            # A copy, as an in-place ReLU after this layer would overwrite what it returned.
            caught[name].append(as_observations(output.detach(), conv, size).to("cpu", copy=True))

        return catch

    handles = [modules[name].register_forward_hook(hook(name)) for name in layer_names]
    try:
        with _evaluating(model):
            for batch in loader:
                inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
                digest.update(inputs.detach().cpu().contiguous().numpy().tobytes())
                count += len(inputs)
                model(inputs if device is None else inputs.to(device))
                for name in layer_names:
                    if len(caught[name]) != 1:
                        raise ValueError(
                            f"layer {name!r} ran {len(caught[name])} times for one batch: give every use of a "
                            "shared layer its own module"
                        )
                    if not bool(torch.isfinite(caught[name][0]).all()):
                        raise ValueError(f"layer {name!r} returns NaN or infinite values")
                    kept[name].append(caught[name].pop())
    finally:
        for handle in handles:
            handle.remove()
    if count == 0:
        raise ValueError("the loader gave no batch")
    recording = Recording({name: torch.cat(parts) for name, parts in kept.items()})
    recording.inputs, recording.count = digest.hexdigest(), count
    return recording


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode inside; its own mode again after."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
