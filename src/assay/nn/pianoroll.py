"""A convolutional network over time and pitch that predicts erased notes from any others."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

Norm = Literal["batch", "group", "none"]


class Coconet(nn.Module):
    """Convolutions over the (time, pitch) plane with the voices as channels, and a softmax over pitch for each cell.

    The input is the roll with unknown cells zeroed and, as more channels, which cells are known. The same filters
    slide over time and pitch, so up to the edges the network does to a transposed or shifted piece what it did to
    the piece. Layers 1-2, 3-4, ... are residual blocks (the sum is taken before the activation); first and
    last layer stand alone. Sizes of time and pitch are free: a net trained on 16 steps runs on 64.

    Args:
        voices: channels of the roll.
        layers: convolutions in all, at least 2.
        width: filters of a hidden layer.
        mask_input: give the net the mask. Without it a hole and a rest look alike.
        mask_marks: what a 1 in the mask says. "known" makes the zero padding read as "unknown";
            "erased" is the default of the authors' code.
        norm: "batch" (as in the paper, on the output layer too), "group" (independent of the other examples'
            masks) or "none".
        norm_scale: initial gain of the normalisation (the authors' code: 0.1).
        norm_eps: added to the variance.
        norm_momentum: weight of the newest batch in the running statistics (the authors' code: 0.01).
        residual: use the residual connections.
        separable: depthwise-separable convolutions after the first two layers.
        dilation: one dilation (or (time, pitch) pair) for each layer; None is 1 everywhere.
        small_tail: 2x2 filters in the last two layers, as in the authors' code.

    Source: Huang et al. (2017), section 3.2 (arXiv:1903.07227).

    Example:
        >>> net = Coconet(voices=4, layers=4, width=8)
        >>> x, known = torch.zeros(2, 4, 16, 46), torch.zeros(2, 4, 16, dtype=torch.bool)
        >>> tuple(net(x, known).shape)
        (2, 4, 16, 46)
    """

    def __init__(
        self,
        voices: int = 4,
        layers: int = 8,
        width: int = 24,
        *,
        mask_input: bool = True,
        mask_marks: Literal["known", "erased"] = "known",
        norm: Norm = "batch",
        norm_scale: float = 0.1,
        norm_eps: float = 1e-7,
        norm_momentum: float = 0.01,
        residual: bool = True,
        separable: bool = False,
        dilation: Sequence[int | tuple[int, int]] | None = None,
        small_tail: bool = False,
    ) -> None:
        super().__init__()
        if voices < 1 or width < 1 or layers < 2:
            raise ValueError(
                f"needs voices >= 1, width >= 1 and layers >= 2, not {voices}, {width} and {layers}"
            )
        if mask_marks not in ("known", "erased"):
            raise ValueError(f"mask_marks is 'known' or 'erased', not {mask_marks!r}")
        if norm not in ("batch", "group", "none"):
            raise ValueError(f"norm is 'batch', 'group' or 'none', not {norm!r}")
        if dilation is not None and len(dilation) != layers:
            raise ValueError(f"{len(dilation)} dilations for {layers} layers: give one for each layer")
        self.voices = voices
        self.mask_input = mask_input
        self.mask_marks = mask_marks
        self.residual = residual
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        for layer in range(layers):
            inputs = (2 * voices if mask_input else voices) if layer == 0 else width
            outputs = voices if layer == layers - 1 else width
            self.convolutions.append(
                _convolution(
                    inputs,
                    outputs,
                    kernel=2 if small_tail and layer >= layers - 2 else 3,
                    dilation=1 if dilation is None else dilation[layer],
                    separable=separable and layer >= 2,
                    bias=norm == "none",
                )
            )
            if norm == "batch":
                unit: nn.Module = nn.BatchNorm2d(outputs, eps=norm_eps, momentum=norm_momentum)
            elif norm == "group":
                unit = nn.GroupNorm(1 if layer == layers - 1 else _groups(outputs), outputs, eps=norm_eps)
            else:
                unit = nn.Identity()
            if norm != "none":
                nn.init.constant_(unit.weight, norm_scale)
            self.norms.append(unit)
        # Channels last in memory: about a third faster on a CPU at these sizes.
        self.to(memory_format=torch.channels_last)

    def forward(
        self,
        x: Float[Tensor, "batch voices steps pitches"],
        known: Bool[Tensor, "batch voices steps"],
    ) -> Float[Tensor, "batch voices steps pitches"]:
        """Logits over pitch for every cell. What `x` holds in unknown cells has no influence."""
        if x.shape[1] != self.voices:
            raise ValueError(f"this network has {self.voices} voices, the roll {x.shape[1]}")
        seen = known.to(x.dtype)[..., None]
        hidden = x * seen
        if self.mask_input:
            marks = seen if self.mask_marks == "known" else 1 - seen
            hidden = torch.cat([hidden, marks.expand_as(x)], 1)
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        last = len(self.convolutions) - 1
        skip = hidden
        for layer, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            if layer % 2 == 1:
                skip = hidden
            hidden = norm(convolution(hidden))
            if self.residual and 0 < layer < last and layer % 2 == 0:
                hidden = hidden + skip
            if layer < last:
                hidden = hidden.relu()
        return hidden


def _convolution(
    inputs: int, outputs: int, *, kernel: int, dilation: int | tuple[int, int], separable: bool, bias: bool
) -> nn.Module:
    """A convolution that keeps the plane's size, with normal weights of variance 2 / fan-in."""
    time, pitch = (dilation, dilation) if isinstance(dilation, int) else dilation
    even = kernel % 2 == 0
    pad = (0, 0) if even else (time * (kernel // 2), pitch * (kernel // 2))
    groups = inputs if separable else 1
    units: list[nn.Module] = [
        nn.Conv2d(
            inputs,
            inputs if separable else outputs,
            kernel,
            padding=pad,
            dilation=(time, pitch),
            groups=groups,
            bias=bias and not separable,
        )
    ]
    if separable:
        units.append(nn.Conv2d(inputs, outputs, 1, bias=bias))
    for unit in units:
        nn.init.kaiming_normal_(unit.weight, nonlinearity="relu")
        if unit.bias is not None:
            nn.init.zeros_(unit.bias)
    if even:  # nothing on the left and at the bottom, all of it on the right and at the top
        units.insert(0, nn.ZeroPad2d((0, pitch * (kernel - 1), 0, time * (kernel - 1))))
    return units[0] if len(units) == 1 else nn.Sequential(*units)


def _groups(channels: int) -> int:
    """Up to eight groups that divide the channels."""
    return next(groups for groups in (8, 6, 4, 3, 2, 1) if channels % groups == 0)
