"""What coordinate channels cost: ratios measured in one process, against torch's own layer and the released code's way.

    python benchmarks/coords.py

Bars: `CoordConv2d` at most 1.25 times `Conv2d` forward and backward on 64x32x64x64; `add_coords` at least 3 times as
fast as building the channels anew on every call, by tiling and matrix products, as the first release of CoordConv does.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from assay.nn.coords import CoordConv2d, add_coords

ROUNDS = 15


def ratios(one: Callable[[], object], other: Callable[[], object]) -> float:
    """Median of the time of `one` over that of `other`, measured alternately."""
    seconds: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(ROUNDS + 2):
        for k, function in enumerate((one, other)):
            begun = time.perf_counter()
            function()
            seconds[k].append(time.perf_counter() - begun)
    pairs = zip(seconds[0][2:], seconds[1][2:], strict=True)
    return statistics.median(a / b for a, b in pairs)


def tiled_coords(x: Tensor) -> Tensor:
    """Coordinate channels by products of ones and ranges for the whole batch, then concatenation (square images)."""
    n, _, height, width = x.shape
    ones = torch.ones(n, height, 1)
    columns = torch.arange(width).float().expand(n, 1, width)
    across = torch.matmul(ones, columns)[:, None] / (width - 1) * 2 - 1
    down = torch.matmul(
        torch.arange(height).float().expand(n, 1, height).transpose(1, 2), torch.ones(n, 1, width)
    )
    return torch.cat([x, across, down[:, None] / (height - 1) * 2 - 1], dim=1)


def coordinate_part(n: int, channels: int, size: int) -> tuple[float, float]:
    """Time of the tiled way over `add_coords`, with the concatenation that both need and without."""
    x, nothing = torch.randn(n, channels, size, size), torch.empty(n, 0, size, size)
    return ratios(lambda: tiled_coords(x), lambda: add_coords(x)), ratios(
        lambda: tiled_coords(nothing), lambda: add_coords(nothing)
    )


def trained(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    """One forward and backward pass, gradients to input and weights."""

    def step() -> None:
        layer.zero_grad(set_to_none=True)
        x.grad = None
        layer(x).square().mean().backward()

    return step


def main() -> None:
    """Print every ratio beside its bar."""
    torch.manual_seed(0)
    x = torch.randn(64, 32, 64, 64, requires_grad=True)
    plain = nn.Conv2d(32, 32, 3, padding=1)
    print("CoordConv2d / Conv2d, 64x32x64x64, 3x3, forward and backward (bar for the default: <= 1.25)")
    for fused in (True, False):
        layer = CoordConv2d(32, 32, 3, padding=1, fused=fused)
        print(f"  fused={fused!s:5}  {ratios(trained(layer, x), trained(plain, x)):.2f}")
    print("tiled coordinates / add_coords (bar: >= 3 for the coordinate part)")
    for shape in ((64, 32, 64), (32, 2, 32)):
        whole, part = coordinate_part(*shape)
        print(
            f"  {shape[0]}x{shape[1]}x{shape[2]}x{shape[2]}: coordinate part {part:.1f}, with x "
            f"concatenated {whole:.1f}"
        )


if __name__ == "__main__":
    main()
