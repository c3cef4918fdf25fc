r"""Networks between Cartesian coordinates and pixels: painters (numbers to canvas) and regressors (canvas to
numbers).

These are the networks of Liu et al. 2018 (arXiv 1807.03247, sections 4 and 5): the small ones that see
coordinate channels, and the convolutional baselines that do not. As painters they also serve as generators:
`inputs` is then the size of the latent vector.

Positions are pairs (x, y) = (column, row). Painters take them in any scale (the study compares pixel indices
with `scale_positions`, which maps them to [-1, 1]); regressors give them as fractions of the canvas, 0 to 1.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from assay.nn.coords import CoordConv2d, CoordConvTranspose2d, coordinates


def scale_positions(positions: Float[Tensor, "*batch 2"], canvas: int) -> Float[Tensor, "*batch 2"]:
    """Pixel indices 0..canvas-1 to the scale of the coordinate channels, -1..1.

    >>> scale_positions(torch.tensor([0.0, 31.0]), 32)
    tensor([-1.,  1.])
    """
    return positions * (2 / (canvas - 1)) - 1


class CoordPainter(nn.Module):
    """Paints a canvas pixel by pixel: every pixel sees the input vector and its own coordinates, nothing
    else.

    The input is tiled over the canvas, coordinate channels are appended, and 1x1 convolutions with ReLU
    follow (Liu et al. 2018, section 4.1). With the default widths it has 7,553 parameters. A 1x1 convolution
    is a matrix product over pixels and is computed as one; the tiled part of the first layer is the same at
    all pixels and is computed once an image.

    Args:
        canvas: side of the square canvas, pixels.
        inputs: length of the input vector (2 for a position, more for a latent).
        widths: channels of the hidden 1x1 convolutions.
        out_channels: channels of the canvas.
        refine: channels of 3x3 convolutions between the last hidden layer and the output: the "renderer" that
            turns a found position into an object.
        with_r: also show each pixel its distance from the centre.
        batch_norm: normalise the channels before every ReLU (over images and pixels), as generators like it.

    >>> CoordPainter(canvas=64)(torch.zeros(5, 2)).shape
    torch.Size([5, 1, 64, 64])
    """

    coords: Tensor

    def __init__(
        self,
        canvas: int = 64,
        inputs: int = 2,
        widths: Sequence[int] = (32, 32, 64, 64),
        out_channels: int = 1,
        refine: Sequence[int] = (),
        with_r: bool = False,
        batch_norm: bool = False,
    ):
        super().__init__()
        if canvas < 1 or inputs < 1 or not widths:
            raise ValueError(
                f"need canvas >= 1, inputs >= 1 and hidden widths: got {canvas}, {inputs}, {widths}"
            )
        self.canvas, self.inputs = canvas, inputs
        grid = coordinates((canvas, canvas), with_r=with_r)
        # Not persistent: a checkpoint must fit another canvas.
        self.register_buffer("coords", grid.flatten(2)[0].T.contiguous(), persistent=False)
        self.first = nn.Linear(inputs + grid.shape[1], widths[0])
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        channels = (widths[-1], *refine)
        self.refine = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(channels))
        self.last = nn.Linear(channels[-1], out_channels)
        hidden = (*widths, *refine)
        self.norms = nn.ModuleList(nn.BatchNorm1d(c) if batch_norm else nn.Identity() for c in hidden)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, z: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch out canvas canvas"]:
        """Input vectors to unnormalised canvases (logits)."""
        if z.shape[-1] != self.inputs:
            raise ValueError(f"this painter takes vectors of {self.inputs} numbers: got {tuple(z.shape)}")
        tiled = nn.functional.linear(z, self.first.weight[:, : self.inputs], self.first.bias)
        own = nn.functional.linear(self.coords, self.first.weight[:, self.inputs :])
        norms = iter(self.norms)
        h = self._activate(tiled[:, None] + own, next(norms))  # [batch, pixels, channels]
        for layer in self.hidden:
            h = self._activate(layer(h), next(norms))
        if self.refine:
            h = h.transpose(1, 2).unflatten(2, (self.canvas, self.canvas))
            for layer, norm in zip(self.refine, norms, strict=True):
                h = torch.relu(norm(layer(h).flatten(2))).unflatten(2, (self.canvas, self.canvas))
            h = h.flatten(2).transpose(1, 2)
        return self.last(h).transpose(1, 2).unflatten(2, (self.canvas, self.canvas))

    @staticmethod
    def _activate(h: Tensor, norm: nn.Module) -> Tensor:
        return torch.relu(norm(h.flatten(0, 1)).view_as(h))

    @torch.no_grad()
    def solve_(self, sharpness: float = 200.0) -> "CoordPainter":
        """Write down the weights that paint exactly the pixel at a scaled position, without any training.

        Four hidden units hold the positive and negative parts of x - X and y - Y, so the logits are
        `-sharpness * (|x - X| + |y - Y|)`, greatest at the pixel in question. That such a solution exists is
        what critics of the task point to (Piekniewski 2018).
        """
        if any(isinstance(norm, nn.BatchNorm1d) for norm in self.norms):
            raise ValueError("the solution by hand needs batch_norm=False")
        if self.inputs != 2 or self.refine or min(self.first.out_features, self.last.in_features) < 4:
            raise ValueError(
                "the solution needs inputs=2, no refine layers and at least 4 channels everywhere"
            )
        for module in (self.first, *self.hidden, self.last):
            module.weight.zero_()
            module.bias.zero_()
        for unit, (axis, sign) in enumerate([(0, 1.0), (0, -1.0), (1, 1.0), (1, -1.0)]):
            self.first.weight[unit, axis] = sign
            self.first.weight[unit, self.inputs + axis] = -sign
            for layer in self.hidden:
                layer.weight[unit, unit] = 1.0
            self.last.weight[:, unit] = -sharpness
        return self


class DeconvPainter(nn.Module):
    """Paints a canvas by stride-2 transposed convolutions from 1x1, as the baseline of Liu et al. 2018,
    section 4.1.

    Hidden channels are 64m, ..., 64m, 32m, 32m with batch norm and ReLU; every stage doubles the canvas
    exactly. On a canvas of 64 it has 46,465 parameters (m = 1, filter 2) to 1,632,001 (m = 3, filter 4).

    Args:
        canvas: side of the square canvas, a power of two from 8 on.
        filter_size: side of the filters: 2, 3 or 4.
        multiplier: m above.
        inputs: length of the input vector.
        out_channels: channels of the canvas.
        coords: give every stage coordinate channels (`CoordConvTranspose2d`).

    >>> DeconvPainter(canvas=32, filter_size=3)(torch.zeros(5, 2)).shape
    torch.Size([5, 1, 32, 32])
    """

    def __init__(
        self,
        canvas: int = 64,
        filter_size: int = 2,
        multiplier: int = 1,
        inputs: int = 2,
        out_channels: int = 1,
        coords: bool = False,
    ):
        super().__init__()
        stages = canvas.bit_length() - 1
        if canvas != 2**stages or stages < 3:
            raise ValueError(
                f"canvas must be a power of two from 8 on (every stage doubles it): got {canvas}"
            )
        if filter_size not in (2, 3, 4):
            raise ValueError(f"filter_size must be 2, 3 or 4: got {filter_size}")
        hidden = [64 * multiplier] * (stages - 3) + [32 * multiplier] * 2
        make = CoordConvTranspose2d if coords else nn.ConvTranspose2d
        layers: list[nn.Module] = []
        for a, b in pairwise([inputs, *hidden, out_channels]):
            # Padding and output padding such that 2x2 becomes 4x4, whatever the filter.
            layers.append(
                make(
                    a,
                    b,
                    filter_size,
                    stride=2,
                    padding=(filter_size - 1) // 2,
                    output_padding=filter_size % 2,
                )
            )
            layers += [nn.BatchNorm2d(b), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-2])

    def forward(self, z: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch out canvas canvas"]:
        """Input vectors to unnormalised canvases (logits)."""
        return self.layers(z[:, :, None, None])


Pool = Literal["max", "mean", "attention"]


class CoordRegressor(nn.Module):
    """Finds the active pixel of a one-hot canvas: coordinates, a few convolutions, a global pool.

    The network of Liu et al. 2018, section 4.2, in its released form: coordinate channels, 1x1 convolutions
    of 8, 8 and 8, 3x3 convolutions of 8 and 2, global max pool, no nonlinearity; 906 parameters.

    Args:
        pool: "max" as released; "mean"; or "attention", a softmax over pixels of one more output channel.
        amplitude: the canvas is multiplied by it. The lit pixel must win the maximum from the start, or training
            stalls: on a canvas of 32 in one of eight trials with 10, in none of twelve with 30.
        with_r: also the distance from the centre.

    >>> CoordRegressor()(torch.zeros(5, 1, 64, 64)).shape
    torch.Size([5, 2])
    """

    def __init__(self, pool: Pool = "max", amplitude: float = 30.0, with_r: bool = False):
        super().__init__()
        if pool not in ("max", "mean", "attention"):
            raise ValueError(f'pool must be "max", "mean" or "attention": got {pool!r}')
        self.pool, self.amplitude = pool, amplitude
        self.layers = nn.Sequential(
            CoordConv2d(1, 8, 1, with_r=with_r),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Conv2d(8, 3 if pool == "attention" else 2, 3, padding=1),
        )
        for layer in self.layers:
            # A bias is not seen beyond the zero padding: with one, the border would begin as the maximum.
            nn.init.zeros_(layer.bias)

    def forward(self, onehot: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 2"]:
        """One-hot canvases to positions (x, y) as fractions of the canvas."""
        out = self.layers(self.amplitude * onehot)
        if self.pool == "max":
            return out.amax((2, 3))
        if self.pool == "mean":
            return out.mean((2, 3))
        weight = out[:, 2:].flatten(2).softmax(2)
        return (weight * out[:, :2].flatten(2)).sum(2)

    @torch.no_grad()
    def solve_(self, width: int) -> "CoordRegressor":
        """Write down the weights that solve a square canvas of `width` exactly, without any training.

        Each output is `a * active + position - a` with a large enough that the active pixel wins the maximum:
        there it equals the position.
        """
        if self.pool != "max":
            raise ValueError('the solution by hand needs pool="max"')
        for layer in self.layers:
            layer.weight.zero_()
            layer.bias.zero_()
        first, *middle, last = self.layers
        first.weight[0, 0] = first.weight[1, 1] = first.weight[2, 2] = 1.0  # active, x, y
        for layer in middle:
            centre = layer.kernel_size[0] // 2
            for channel in range(3):
                layer.weight[channel, channel, centre, centre] = 1.0
        slope = (width - 1) / (2 * width)  # pixel index / width = slope * (coordinate + 1)
        for axis in range(2):
            last.weight[axis, 0, 1, 1] = 2.0 / self.amplitude
            last.weight[axis, 1 + axis, 1, 1] = slope
            last.bias[axis] = slope - 2.0
        return self


class ConvRegressor(nn.Module):
    """Finds the active pixel without coordinate channels: the two baselines of Liu et al. 2018, section 4.2.

    Args:
        canvas: side of the square canvas, a power of two from 16 on.
        kind: "dense" (three times 3x3 convolution of 16, ReLU and max pool; a convolution; dense 64; dense 2:
            the baseline of the uniform split) or "strided" (stride-2 convolutions of 16 with batch norm down
            to 2x2, a 2-channel convolution, global average: the baseline of the quadrant split, fully
            convolutional).
        amplitude: the canvas is multiplied by it, as in `CoordRegressor`.
        padding_mode: "zeros", "circular", "reflect" or "replicate". Zero padding tells a convolution where
            the border is (Islam et al. 2020, arXiv 2001.08248); circular padding tells it nothing.
    """

    def __init__(
        self,
        canvas: int = 64,
        kind: Literal["dense", "strided"] = "dense",
        amplitude: float = 10.0,
        padding_mode: str = "zeros",
    ):
        super().__init__()
        stages = canvas.bit_length() - 1
        if canvas != 2**stages or stages < 4:
            raise ValueError(f"canvas must be a power of two from 16 on: got {canvas}")
        self.amplitude = amplitude
        layers: list[nn.Module] = []
        channels = 1
        if kind == "dense":
            for _ in range(3):
                layers += [nn.Conv2d(channels, 16, 3, padding=1, padding_mode=padding_mode), nn.ReLU()]
                layers.append(nn.MaxPool2d(2))
                channels = 16
            layers += [nn.Conv2d(16, 16, 3, padding=1, padding_mode=padding_mode), nn.ReLU(), nn.Flatten()]
            layers += [nn.Linear(16 * (canvas // 8) ** 2, 64), nn.ReLU(), nn.Linear(64, 2)]
        elif kind == "strided":
            for _ in range(stages - 1):
                layers.append(nn.Conv2d(channels, 16, 3, stride=2, padding=1, padding_mode=padding_mode))
                layers += [nn.BatchNorm2d(16), nn.ReLU()]
                channels = 16
            layers += [nn.Conv2d(16, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        else:
            raise ValueError(f'kind must be "dense" or "strided": got {kind!r}')
        self.layers = nn.Sequential(*layers)

    def forward(self, onehot: Float[Tensor, "batch 1 canvas canvas"]) -> Float[Tensor, "batch 2"]:
        """One-hot canvases to positions (x, y) as fractions of the canvas."""
        return self.layers(self.amplitude * onehot)
