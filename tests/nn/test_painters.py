"""Painters and regressors: the paper's parameter counts, and solutions that can be written down."""

import pytest
import torch
from torch import nn

from assay.data.shapes import NotSoClevr
from assay.nn.coords import add_coords
from assay.nn.painters import ConvRegressor, CoordPainter, CoordRegressor, DeconvPainter, scale_positions


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_parameter_counts_of_the_paper() -> None:
    assert parameters(CoordPainter()) == 7_553
    assert parameters(CoordRegressor()) == 906
    assert parameters(DeconvPainter(multiplier=1, filter_size=2)) == 46_465
    assert parameters(DeconvPainter(multiplier=2, filter_size=2)) == 183_041
    assert parameters(DeconvPainter(multiplier=3, filter_size=4)) == 1_632_001


def test_scale_positions_matches_the_coordinate_channels() -> None:
    x = add_coords(torch.zeros(1, 1, 32, 32))[0, 1, 0]
    pixels = torch.arange(32.0)
    assert torch.allclose(scale_positions(torch.stack([pixels, pixels], 1), 32)[:, 0], x, atol=1e-6)


def test_painter_by_hand_is_right_everywhere() -> None:
    data = NotSoClevr(canvas=64)
    xy = scale_positions(data.xy, 64)
    with torch.no_grad():
        narrow = CoordPainter(canvas=64, widths=(4,)).solve_()
        found = torch.cat([narrow(part).flatten(1).argmax(1) for part in xy.split(196)])
        assert torch.equal(found, data.target)
        logits = CoordPainter(canvas=64).solve_()(xy[::80]).flatten(1)
    assert torch.equal(logits.argmax(1), data.target[::80])
    # and it is what the docstring says
    x, y = xy[::80][:3, :, None, None].unbind(1)
    grid = add_coords(torch.zeros(1, 0, 64, 64))[0]
    distance = (x - grid[0]).abs() + (y - grid[1]).abs()
    assert torch.allclose(logits[:3], -200 * distance.flatten(1), atol=1e-3)


def test_closed_form_logits_have_the_same_maximum() -> None:
    # -s((x - X)^2 + (y - Y)^2), the solution in the contract, has its maximum at the right pixel too
    data = NotSoClevr(canvas=64)
    grid = add_coords(torch.zeros(1, 0, 64, 64))[0].flatten(1)
    logits = -50 * (scale_positions(data.xy, 64)[:, :, None] - grid).square().sum(1)
    assert torch.equal(logits.argmax(1), data.target)


def test_regressor_by_hand_has_no_error() -> None:
    data = NotSoClevr(canvas=64)
    net = CoordRegressor().solve_(64).to(memory_format=torch.channels_last)
    with torch.no_grad():
        out = torch.cat([net(part) for part in data.onehot.split(98)])
    assert torch.allclose(out * 64, data.xy, atol=1e-4)


@pytest.mark.parametrize("refine", [(), (5,)])
def test_painter_equals_tiling_concatenating_and_convolving(refine: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net = CoordPainter(canvas=9, inputs=3, widths=(6, 7), out_channels=2, refine=refine, with_r=True)
    z = torch.randn(4, 3)
    h = add_coords(z[:, :, None, None].expand(-1, -1, 9, 9), with_r=True)
    for layer in (net.first, *net.hidden):
        h = nn.functional.conv2d(h, layer.weight[:, :, None, None], layer.bias).relu()
    for layer in net.refine:
        h = layer(h).relu()
    h = nn.functional.conv2d(h, net.last.weight[:, :, None, None], net.last.bias)
    assert torch.allclose(net(z), h, atol=1e-5)


@pytest.mark.parametrize("canvas", [8, 16, 64])
@pytest.mark.parametrize("filter_size", [2, 3, 4])
@pytest.mark.parametrize("coords", [False, True])
def test_deconvolution_doubles_exactly(canvas: int, filter_size: int, coords: bool) -> None:
    net = DeconvPainter(canvas, filter_size, inputs=5, out_channels=3, coords=coords)
    sizes = [1]
    for layer in net.layers:
        if isinstance(layer, nn.ConvTranspose2d):
            layer.register_forward_hook(lambda m, i, out: sizes.append(out.shape[-1]))
    assert net(torch.randn(2, 5)).shape == (2, 3, canvas, canvas)
    assert sizes == [2**k for k in range(canvas.bit_length())]


@pytest.mark.parametrize("pool", ["max", "mean", "attention"])
def test_regressor_pools_and_sizes(pool: str) -> None:
    torch.manual_seed(0)
    net = CoordRegressor(pool=pool)
    onehot = torch.zeros(2, 1, 12, 20)
    onehot[0, 0, 3, 4] = onehot[1, 0, 7, 15] = 1
    out = net(onehot)
    assert out.shape == (2, 2)
    maps = net.layers(30 * onehot)
    if pool == "max":
        assert torch.equal(out, maps.flatten(2).max(2).values)
    elif pool == "mean":
        assert torch.allclose(out, maps.flatten(2).mean(2))
    else:
        weight = torch.softmax(maps[:, 2].flatten(1), 1)
        assert torch.allclose(out[:, 1], (weight * maps[:, 1].flatten(1)).sum(1))
    out.sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("kind", ["dense", "strided"])
@pytest.mark.parametrize("padding_mode", ["zeros", "circular", "reflect"])
def test_conv_regressors_take_every_padding(kind: str, padding_mode: str) -> None:
    net = ConvRegressor(16, kind, padding_mode=padding_mode)
    assert net(torch.rand(3, 1, 16, 16)).shape == (3, 2)


def test_strided_regressor_with_circular_padding_cannot_see_where() -> None:
    # A whole stride to the side (16 = 2^4 on a canvas of 32) gives the same answer; zero padding leaks the border.
    torch.manual_seed(1)
    x = torch.rand(2, 1, 32, 32)
    blind, leaky = (ConvRegressor(32, "strided", padding_mode=mode).eval() for mode in ("circular", "zeros"))
    moved = x.roll((16, 16), (2, 3))
    assert torch.allclose(blind(x), blind(moved), atol=1e-6)
    assert (leaky(x) - leaky(moved)).abs().max() > 1e-4


def test_painters_and_regressors_refuse_what_they_cannot_do() -> None:
    with pytest.raises(ValueError, match="power of two"):
        DeconvPainter(canvas=48)
    with pytest.raises(ValueError, match="filter_size"):
        DeconvPainter(filter_size=5)
    with pytest.raises(ValueError, match="power of two"):
        ConvRegressor(canvas=20)
    with pytest.raises(ValueError, match="hidden widths"):
        CoordPainter(widths=())
    with pytest.raises(ValueError, match="3 numbers"):
        CoordPainter(canvas=4, inputs=3)(torch.zeros(1, 2))
    with pytest.raises(ValueError, match="at least 4"):
        CoordPainter(widths=(3, 3)).solve_()
    with pytest.raises(ValueError, match="max"):
        CoordRegressor(pool="mean").solve_(32)


def test_checkpoints_fit_another_canvas() -> None:
    small, large = CoordPainter(canvas=8), CoordPainter(canvas=16)
    large.load_state_dict(small.state_dict())
    assert torch.equal(small.first.weight, large.first.weight)
