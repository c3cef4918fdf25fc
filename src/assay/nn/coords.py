r"""Coordinate channels: convolutions that are told where they are.

A convolution does the same thing everywhere, so it cannot easily say *where* something is. CoordConv (Liu et
al. 2018, arXiv 1807.03247, section 3) appends constant channels that hold each pixel's own position before it
convolves:

$$X_{ij} = \frac{2j}{W-1} - 1, \qquad Y_{ij} = \frac{2i}{H-1} - 1, \qquad
r_{ij} = \sqrt{X_{ij}^2 + Y_{ij}^2}.$$

The order of the appended channels is column (x), row (y), depth (z, for volumes), then r. Every axis is
scaled by its own length, so the corners are at -1 and +1 whatever the aspect ratio; an axis of length one
gives 0.

`add_coords` is the plain function, `AddCoords` the module, `CoordConv1d/2d/3d` and `CoordConvTranspose2d` are
drop-in convolutions, and `coordconvert` swaps the convolutions of a model that you already have, keeping its
weights.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

CoordInit = Literal["default", "zero"]


def _grid(size: list[int], dims: list[int], with_r: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Coordinate channels `[1, len(dims) (+1), *size]`; plain tensor code that also scripts and exports.

    Computed in float64 and rounded once, so that every dtype holds the nearest value that it can represent.
    """
    exact = torch.device("cpu") if device.type == "mps" else device  # Metal has no float64
    channels: list[Tensor] = []
    for dim in dims:
        length = size[dim]
        # (2j - last) / last: exactly antisymmetric, and 0 where the axis has one element.
        last = length - 1
        axis = (2.0 * torch.arange(length, dtype=torch.float64, device=exact) - last) / max(last, 1)
        shape = [1] * len(size)
        shape[dim] = length
        channels.append(axis.reshape(shape).expand(size))
    grid = torch.stack(channels)
    if with_r:
        grid = torch.cat([grid, grid.square().sum(0, keepdim=True).sqrt()])
    return grid.unsqueeze(0).to(dtype=dtype).to(device=device)


@lru_cache(maxsize=128)
def _cached_grid(
    size: tuple[int, ...], dims: tuple[int, ...], with_r: bool, dtype: torch.dtype, device: torch.device
) -> Tensor:
    # A grid made inside inference mode could never take part in training later.
    with torch.inference_mode(False), torch.no_grad():
        return _grid(list(size), list(dims), with_r, dtype, device)


def _grid_like(x: Tensor, size: Sequence[int], dims: Sequence[int], with_r: bool) -> Tensor:
    """The grid for `x`; cached, except while a compiler or an exporter is tracing (its sizes are symbols)."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) not in (Tensor, nn.Parameter):
        return _grid(list(size), list(dims), with_r, x.dtype, x.device)
    return _cached_grid(tuple(size), tuple(dims), with_r, x.dtype, x.device)


def _check_dims(dims: Sequence[int] | None, spatial: int) -> tuple[int, ...]:
    if dims is None:
        return tuple(range(-1, -spatial - 1, -1))
    chosen = tuple(dims)
    if not chosen or len(set(chosen)) != len(chosen) or not all(-spatial <= dim <= -1 for dim in chosen):
        raise ValueError(
            f"dims must name different spatial axes by negative numbers, -1 (columns) down to {-spatial}: "
            f"got {chosen}"
        )
    return chosen


def coordinates(
    size: Sequence[int],
    with_r: bool = False,
    dims: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "1 coords *size"]:
    """The coordinate channels alone, for a canvas of `size` (height, width for images).

    Args:
        size: lengths of the 1 to 3 spatial axes.
        with_r: also append the distance from the centre (`|x|` in one dimension).
        dims: which axes, as negative numbers, in the order wanted; default `(-1, -2, ...)`: x, y, z.
        dtype: a floating type.
        device: where to put them.

    Returns:
        `[1, len(dims) (+ 1), *size]`, from -1 to +1 (r: 0 to the square root of the number of axes).

    >>> coordinates((3, 5))[0, 0, 0]
    tensor([-1.0000, -0.5000,  0.0000,  0.5000,  1.0000])
    """
    if not 1 <= len(size) <= 3 or min(size) < 1:
        raise ValueError(
            f"size must be 1 to 3 lengths of at least 1, such as (height, width): got {tuple(size)}"
        )
    return _grid(list(size), list(_check_dims(dims, len(size))), with_r, dtype, torch.device(device))


def add_coords(
    x: Float[Tensor, "batch channels *size"], with_r: bool = False, dims: Sequence[int] | None = None
) -> Float[Tensor, "batch more_channels *size"]:
    """Append coordinate channels to a batch (Liu et al. 2018, section 3).

    Args:
        x: sequences `[B, C, W]`, images `[B, C, H, W]` or volumes `[B, C, D, H, W]`, of any floating type.
        with_r: also append the distance from the centre.
        dims: which spatial axes, as negative numbers, in the order wanted; default all of them: x, y, z.

    Returns:
        `x` followed by its coordinate channels, in the dtype, on the device and in the memory format of `x`.

    Raises:
        ValueError: `x` has no 3 to 5 axes, or `dims` names no spatial axis.
        TypeError: `x` holds integers (they cannot hold coordinates between -1 and 1).

    >>> add_coords(torch.zeros(8, 3, 32, 48)).shape
    torch.Size([8, 5, 32, 48])
    """
    if not 3 <= x.dim() <= 5:
        raise ValueError(
            f"add_coords wants [batch, channels, *size] with 1 to 3 spatial axes: got {x.dim()} axes "
            f"{tuple(x.shape)}"
        )
    if not x.dtype.is_floating_point:
        raise TypeError(f"add_coords wants a floating type, got {x.dtype}: call x.float() first")
    grid = _grid_like(x, x.shape[2:], _check_dims(dims, x.dim() - 2), with_r)
    grid = grid.expand(x.shape[0], *grid.shape[1:])
    # torch.cat keeps channels_last only when all parts have it, and an expanded batch counts as none.
    if x.dim() == 4 and _is_channels_last(x, torch.channels_last):
        grid = grid.contiguous(memory_format=torch.channels_last)
    elif x.dim() == 5 and _is_channels_last(x, torch.channels_last_3d):
        grid = grid.contiguous(memory_format=torch.channels_last_3d)
    return torch.cat([x, grid], dim=1)


def _is_channels_last(x: Tensor, memory_format: torch.memory_format) -> bool:
    return x.is_contiguous(memory_format=memory_format) and not x.is_contiguous()


class _ScriptableAddCoords(nn.Module):
    """What `torch.jit.script` compiles: its compiler cannot read shape annotations and cannot cache."""

    def __init__(self, with_r: bool):
        super().__init__()
        self.with_r = with_r

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 3 or x.dim() > 5 or not x.is_floating_point():
            raise ValueError(
                "AddCoords wants a floating tensor [batch, channels, *size] with 1 to 3 spatial axes"
            )
        size = x.size()[2:]
        dims: list[int] = []
        for axis in range(len(size)):
            dims.append(-1 - axis)  # noqa: PERF401 (the scripting compiler reads this)
        grid = _grid(size, dims, self.with_r, x.dtype, x.device)
        return torch.cat([x, grid.expand([x.size(0)] + grid.size()[1:])], dim=1)  # noqa: RUF005


class AddCoords(nn.Module):
    """`add_coords` as a module: put it in front of any layer. No parameters, no buffers, any input size.

    Args:
        with_r: also append the distance from the centre.
    """

    def __init__(self, with_r: bool = False):
        super().__init__()
        self.with_r = with_r

    def forward(self, x: Float[Tensor, "batch channels *size"]) -> Float[Tensor, "batch more_channels *size"]:
        """Append x, y (, z) (, r): see `add_coords`."""
        return add_coords(x, self.with_r)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return f"with_r={self.with_r}"

    def __prepare_scriptable__(self) -> nn.Module:
        return _ScriptableAddCoords(self.with_r)


class _CoordConv(nn.modules.conv._ConvNd):
    """What the four layers share. The last input channels of `weight` are those of the coordinates."""

    with_r: bool
    coord_init: CoordInit
    fused: bool
    coord_channels: int

    def _take(self, in_channels: int, with_r: bool, coord_init: CoordInit, fused: bool) -> None:
        """Second half of the constructor, once torch has made the parameters."""
        self.coord_channels = self.weight.shape[self._input_axis] - in_channels
        self.in_channels = in_channels
        self.with_r, self.coord_init, self.fused = with_r, coord_init, fused
        if coord_init == "zero":
            nn.init.zeros_(self.coord_weight.detach())

    @property
    def _input_axis(self) -> int:
        return 0 if self.transposed else 1

    @property
    def coord_weight(self) -> Float[Tensor, "..."]:
        """The part of `weight` that reads the coordinate channels (a view, channels in the order x, y, z,
        r)."""
        return self.weight.narrow(self._input_axis, self.in_channels, self.coord_channels)

    def reset_parameters(self) -> None:
        """As torch's own layer; then zero for the coordinates where `coord_init="zero"`."""
        super().reset_parameters()
        if getattr(self, "coord_init", "default") == "zero":
            nn.init.zeros_(self.coord_weight.detach())

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return f"{super().extra_repr()}, with_r={self.with_r}, fused={self.fused}"

    def _batched(self, x: Tensor) -> Tensor:
        spatial = len(self.kernel_size)
        if x.dim() not in (spatial + 1, spatial + 2):
            raise ValueError(
                f"{type(self).__name__} wants [batch, {self.in_channels}, *size] with {spatial} spatial "
                "axes: "
                f"got {tuple(x.shape)}"
            )
        if not x.dtype.is_floating_point:
            raise TypeError(
                f"{type(self).__name__} wants a floating type, got {x.dtype}: call x.float() first"
            )
        if x.shape[-spatial - 1] != self.in_channels:
            raise ValueError(
                f"{type(self).__name__} was built for {self.in_channels} channels (coordinates not counted): "
                f"got {x.shape[-spatial - 1]} in {tuple(x.shape)}"
            )
        return x if x.dim() == spatial + 2 else x.unsqueeze(0)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the data channels, and the coordinate channels for `x`, batch of one."""
        grid = _grid_like(x, x.shape[2:], _check_dims(None, x.dim() - 2), self.with_r)
        return self.weight.narrow(self._input_axis, 0, self.in_channels), grid

    def _convolve(self, x: Tensor) -> Tensor:
        batch = self._batched(x)
        if self.fused:
            weight, grid = self._parts(batch)
            # Linear in the channels: the coordinates' share is the same for every image, so it is computed
            # once.
            out = self._conv_forward(batch, weight, None)
            out = out + self._conv_forward(grid, self.coord_weight, self.bias)
        else:
            out = self._conv_forward(add_coords(batch, self.with_r), self.weight, self.bias)
        return out if batch is x else out.squeeze(0)

    def __prepare_scriptable__(self) -> nn.Module:
        return nn.Sequential(_ScriptableAddCoords(self.with_r), self.plain())

    def plain(self) -> nn.Module:
        """torch's own layer with the same parameters; feed it what `add_coords(x, with_r)` returns."""
        twin = _PLAIN[type(self)].__new__(_PLAIN[type(self)])
        twin.__dict__.update({name: value for name, value in self.__dict__.items() if name not in _OWN})
        twin._parameters = dict(self._parameters)
        twin.in_channels = self.in_channels + self.coord_channels
        return twin


_OWN = ("with_r", "coord_init", "fused", "coord_channels")


def _checked(in_channels: int, groups: int, with_r: bool, coord_init: str, spatial: int) -> int:
    """Channels including the coordinates, or why not."""
    if groups != 1:
        raise ValueError(
            f"groups={groups}: coordinate channels would reach the last group only. Use groups=1, or put "
            "AddCoords "
            "and a 1x1 convolution in front of the grouped one"
        )
    if coord_init not in ("default", "zero"):
        raise ValueError(f'coord_init must be "default" or "zero": got {coord_init!r}')
    return in_channels + spatial + int(with_r)


class CoordConv1d(_CoordConv, nn.Conv1d):
    """`torch.nn.Conv1d` that also sees where it is; parameters as `CoordConv2d` (r is `|x|`)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int],
        stride: int | tuple[int] = 1,
        padding: str | int | tuple[int] = 0,
        dilation: int | tuple[int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        with_r: bool = False,
        coord_init: CoordInit = "default",
        fused: bool = True,
    ):
        channels = _checked(in_channels, groups, with_r, coord_init, 1)
        nn.Conv1d.__init__(
            self,
            channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self._take(in_channels, with_r, coord_init, fused)

    def forward(self, x: Float[Tensor, "*batch channels width"]) -> Float[Tensor, "*batch out new_width"]:
        """Convolve the sequence and its coordinate."""
        return self._convolve(x)


class CoordConv2d(_CoordConv, nn.Conv2d):
    """`torch.nn.Conv2d` that also sees where it is (Liu et al. 2018, section 3).

    The arguments are those of `torch.nn.Conv2d`, and `weight` is `[out, in + 2 (+ 1), *kernel]` with the
    coordinates last (`coord_weight` is that part). Further:

    Args:
        with_r: a third coordinate channel, the distance from the centre.
        coord_init: "default" draws the coordinate weights like the others; "zero" starts as the plain
            convolution.
        fused: convolve the coordinates once for the whole batch and add the result, instead of concatenating
            them to every image. Equal up to rounding, and nearly as fast as the plain layer.

    Raises:
        ValueError: `groups` other than 1 (the coordinates would reach the last group only).

    >>> CoordConv2d(16, 32, 3, padding=1)(torch.zeros(8, 16, 40, 24)).shape
    torch.Size([8, 32, 40, 24])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        with_r: bool = False,
        coord_init: CoordInit = "default",
        fused: bool = True,
    ):
        channels = _checked(in_channels, groups, with_r, coord_init, 2)
        nn.Conv2d.__init__(
            self,
            channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self._take(in_channels, with_r, coord_init, fused)

    def forward(
        self, x: Float[Tensor, "*batch channels height width"]
    ) -> Float[Tensor, "*batch out new_height new_width"]:
        """Convolve the image and its coordinates."""
        return self._convolve(x)


class CoordConv3d(_CoordConv, nn.Conv3d):
    """`torch.nn.Conv3d` that also sees where it is; parameters as `CoordConv2d` (coordinates x, y, z)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int, int],
        stride: int | tuple[int, int, int] = 1,
        padding: str | int | tuple[int, int, int] = 0,
        dilation: int | tuple[int, int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        with_r: bool = False,
        coord_init: CoordInit = "default",
        fused: bool = True,
    ):
        channels = _checked(in_channels, groups, with_r, coord_init, 3)
        nn.Conv3d.__init__(
            self,
            channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self._take(in_channels, with_r, coord_init, fused)

    def forward(
        self, x: Float[Tensor, "*batch channels depth height width"]
    ) -> Float[Tensor, "*batch out new_depth new_height new_width"]:
        """Convolve the volume and its coordinates."""
        return self._convolve(x)


class CoordConvTranspose2d(_CoordConv, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` that also sees where it is; parameters as `CoordConv2d`.

    `weight` is `[in + 2 (+ 1), out, *kernel]`, coordinates last.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        output_padding: int | tuple[int, int] = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: int | tuple[int, int] = 1,
        padding_mode: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        with_r: bool = False,
        coord_init: CoordInit = "default",
        fused: bool = True,
    ):
        channels = _checked(in_channels, groups, with_r, coord_init, 2)
        nn.ConvTranspose2d.__init__(
            self,
            channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            groups,
            bias,
            dilation,
            padding_mode,
            device,
            dtype,
        )
        self._take(in_channels, with_r, coord_init, fused)

    def forward(
        self, x: Float[Tensor, "*batch channels height width"], output_size: list[int] | None = None
    ) -> Float[Tensor, "*batch out new_height new_width"]:
        """Transposed convolution of the image and its coordinates; `output_size` as in torch."""
        batch = self._batched(x)
        extra = self._output_padding(
            batch, output_size, self.stride, self.padding, self.kernel_size, 2, self.dilation
        )

        def convolve(value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return nn.functional.conv_transpose2d(
                value, weight, bias, self.stride, self.padding, extra, self.groups, self.dilation
            )

        if self.fused:
            weight, grid = self._parts(batch)
            out = convolve(batch, weight, None) + convolve(grid, self.coord_weight, self.bias)
        else:
            out = convolve(add_coords(batch, self.with_r), self.weight, self.bias)
        return out if batch is x else out.squeeze(0)


_TWINS: dict[type[nn.Module], type[_CoordConv]] = {
    nn.Conv1d: CoordConv1d,
    nn.Conv2d: CoordConv2d,
    nn.Conv3d: CoordConv3d,
    nn.ConvTranspose2d: CoordConvTranspose2d,
}
_PLAIN: dict[type[_CoordConv], type[nn.Module]] = {twin: plain for plain, twin in _TWINS.items()}


def coordconvert(
    model: nn.Module,
    layers: Literal["first", "all"] | Callable[[str, nn.Module], bool] = "first",
    coord_init: CoordInit = "zero",
    with_r: bool = False,
) -> nn.Module:
    """Swap convolutions of a model for CoordConv layers that keep the weights, in place.

    With `coord_init="zero"` the new model computes exactly what the old one did, until it is trained: the
    gradient with respect to the coordinate weights is not zero.

    Args:
        model: any module that contains `Conv1d`, `Conv2d`, `Conv3d` or `ConvTranspose2d`, or is one.
        layers: "first" (in the order of registration), "all", or a function of (dotted name, module) that
            says which.
        coord_init: "zero", or "default" for the usual random values.
        with_r: append the distance from the centre as well.

    Returns:
        `model` itself (a new module only where `model` is a convolution). A layer that is used in several
        places stays shared. Device, dtype, training mode and frozen weights are kept; make the optimiser
        afterwards.

    Raises:
        ValueError: nothing to convert; a chosen layer has groups, hooks or parametrisations (weight norm and
            the
            like: remove them first); `layers` is no known word.

    >>> net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    >>> type(coordconvert(net)[0]).__name__
    'CoordConv2d'
    """
    if isinstance(layers, str) and layers not in ("first", "all"):
        raise ValueError(f'layers must be "first", "all" or a function of (name, module): got {layers!r}')
    found = [(name, module) for name, module in model.named_modules() if type(module) in _TWINS]
    if callable(layers):
        chosen = [
            (name, module)
            for name, module in model.named_modules()
            if isinstance(module, tuple(_TWINS))
            and not isinstance(module, _CoordConv)
            and layers(name, module)
        ]
    else:
        chosen = found[:1] if layers == "first" else found
    if not chosen:
        raise ValueError(
            "no convolution was chosen: the model has "
            + (
                ", ".join(repr(name) for name, _ in found)
                if found
                else "no plain Conv1d/2d/3d/ConvTranspose2d"
            )
        )
    twins = {id(module): _converted(name, module, coord_init, with_r) for name, module in chosen}
    if id(model) in twins:
        return twins[id(model)]
    for parent in list(model.modules()):
        # Not named_children: it reports a module once even where it stands under two names.
        for name, child in parent._modules.items():
            if id(child) in twins:
                parent._modules[name] = twins[id(child)]
    return model


def _converted(name: str, module: nn.Module, coord_init: CoordInit, with_r: bool) -> _CoordConv:
    label = f"layer {name!r}" if name else "the model"
    if type(module) not in _TWINS:
        raise ValueError(
            f"{label} is a {type(module).__name__}: coordconvert cannot keep its weights. Remove the "
            "parametrisation "
            "first, or replace the layer by hand"
        )
    if module.groups != 1:
        raise ValueError(
            f"{label} has groups={module.groups}: coordinate channels would reach the last group only. "
            "Leave it out "
            "by a predicate, or put AddCoords and a 1x1 convolution in front of it"
        )
    if module._forward_pre_hooks or module._forward_hooks or module._backward_hooks:
        raise ValueError(
            f"{label} has hooks, which would be lost: remove them first, and add them again afterwards"
        )
    options: dict[str, Any] = {
        "stride": module.stride,
        "padding": module.padding,
        "dilation": module.dilation,
        "bias": module.bias is not None,
        "padding_mode": module.padding_mode,
        "device": module.weight.device,
        "dtype": module.weight.dtype,
        "with_r": with_r,
        "coord_init": coord_init,
    }
    if isinstance(module, nn.ConvTranspose2d):
        options["output_padding"] = module.output_padding
    twin = _TWINS[type(module)](module.in_channels, module.out_channels, module.kernel_size, **options)
    with torch.no_grad():
        twin.weight.narrow(twin._input_axis, 0, module.in_channels).copy_(module.weight)
        if module.bias is not None:
            twin.bias.copy_(module.bias)
            twin.bias.requires_grad_(module.bias.requires_grad)
    twin.weight.requires_grad_(module.weight.requires_grad)
    return twin.train(module.training)
