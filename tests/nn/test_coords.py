"""Coordinate channels: exact values, parity with torch's own layers, and what a conversion must keep."""

import copy
import subprocess
import sys

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from assay.nn import coords
from assay.nn.coords import (
    AddCoords,
    CoordConv1d,
    CoordConv2d,
    CoordConv3d,
    CoordConvTranspose2d,
    add_coords,
    coordconvert,
    coordinates,
)

SIZES = {1: (7,), 2: (5, 9), 3: (3, 4, 6)}
LAYERS = {1: CoordConv1d, 2: CoordConv2d, 3: CoordConv3d}
CONV = {1: nn.functional.conv1d, 2: nn.functional.conv2d, 3: nn.functional.conv3d}


@pytest.fixture
def no_shape_checks():
    """Turns off the checks of the tests, so that the library's own messages show."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_three_by_five_has_the_values_of_the_formula() -> None:
    x, y, r = add_coords(torch.zeros(2, 1, 3, 5), with_r=True)[1, 1:]
    assert torch.equal(x, torch.tensor([-1, -0.5, 0, 0.5, 1]).expand(3, 5))
    assert torch.equal(y, torch.tensor([-1.0, 0, 1])[:, None].expand(3, 5))
    assert r[0, 0].item() == pytest.approx(1.414214, abs=1e-6)
    assert r[1, 2].item() == 0
    assert torch.allclose(r, (x**2 + y**2).sqrt())


def test_one_pixel_is_at_the_origin() -> None:
    assert torch.equal(add_coords(torch.ones(1, 1, 1, 1), with_r=True)[:, 1:], torch.zeros(1, 3, 1, 1))


def test_volumes_order_x_y_z_and_sequences_have_the_absolute_value() -> None:
    x, y, z = add_coords(torch.zeros(1, 1, 2, 3, 5))[0, 1:]
    assert x[0, 0].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert y[0, :, 0].tolist() == [-1, 0, 1]
    assert z[:, 0, 0].tolist() == [-1, 1]
    assert add_coords(torch.zeros(1, 0, 5), with_r=True)[0].tolist() == [
        [-1, -0.5, 0, 0.5, 1],
        [1, 0.5, 0, 0.5, 1],
    ]


def test_dims_choose_and_order_the_channels() -> None:
    image = torch.zeros(1, 1, 3, 5)
    both = add_coords(image)
    assert torch.equal(add_coords(image, dims=(-2,)), both[:, [0, 2]])
    assert torch.equal(add_coords(image, dims=(-2, -1)), both[:, [0, 2, 1]])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_coordinates_are_bounded_antisymmetric_and_evenly_spaced(size: list[int], with_r: bool) -> None:
    grid = coordinates(size, with_r=with_r, dtype=torch.float64)[0]
    axes = grid[: len(size)]
    assert axes.abs().max() <= 1
    for k, channel in enumerate(axes):
        dim = -1 - k
        assert torch.equal(channel.flip(dim), -channel)
        assert torch.allclose(channel.diff(n=2, dim=dim), torch.zeros((), dtype=torch.float64), atol=1e-12)
        if size[dim] > 1:
            assert channel.amax() == 1
    if with_r:
        assert torch.allclose(grid[-1], axes.square().sum(0).sqrt())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_dtype_holds_the_nearest_value(dtype: torch.dtype) -> None:
    image = torch.zeros(1, 1, 6, 11, dtype=dtype)
    exact = coordinates((6, 11), with_r=True, dtype=torch.float64)
    out = add_coords(image, with_r=True)
    assert out.dtype == dtype
    assert torch.equal(out[:, 1:], exact.to(dtype))


def test_channels_last_is_kept_with_the_same_bits() -> None:
    image = noise(4, 3, 6, 7)
    out = add_coords(image.contiguous(memory_format=torch.channels_last), with_r=True)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(out, add_coords(image, with_r=True))
    volume = noise(2, 3, 4, 5, 6)
    out = add_coords(volume.contiguous(memory_format=torch.channels_last_3d))
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(out, add_coords(volume))


def test_the_cache_is_not_spoilt_by_writing_or_by_inference_mode() -> None:
    coords._cached_grid.cache_clear()
    with torch.inference_mode():
        add_coords(torch.zeros(1, 1, 4, 13)).fill_(9)
    layer = CoordConv2d(1, 2, 1)
    layer(torch.ones(1, 1, 4, 13)).sum().backward()
    assert layer.weight.grad is not None
    assert torch.equal(add_coords(torch.zeros(1, 1, 4, 13))[:, 1:], coordinates((4, 13)))
    assert coords._cached_grid.cache_info().hits >= 2


@pytest.mark.usefixtures("no_shape_checks")
def test_bad_input_is_told_what_to_do() -> None:
    with pytest.raises(ValueError, match="1 to 3 spatial axes"):
        add_coords(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="1 to 3 spatial axes"):
        add_coords(torch.zeros(1, 1, 1, 1, 1, 1))
    with pytest.raises(TypeError, match=r"x\.float\(\)"):
        add_coords(torch.zeros(1, 1, 2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="dims"):
        add_coords(torch.zeros(1, 1, 2, 2), dims=(0,))
    with pytest.raises(ValueError, match="dims"):
        add_coords(torch.zeros(1, 1, 2, 2), dims=(-1, -1))
    with pytest.raises(ValueError, match="size"):
        coordinates((2, 0))
    with pytest.raises(ValueError, match="last group"):
        CoordConv2d(4, 4, 1, groups=2)
    with pytest.raises(ValueError, match="coord_init"):
        CoordConv2d(4, 4, 1, coord_init="ones")
    with pytest.raises(ValueError, match="4 channels"):
        CoordConv2d(4, 4, 1)(torch.zeros(1, 6, 3, 3))


# -------------------------------------------------------------------------------------------------------- the layers


@pytest.mark.parametrize("with_r", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_layers_equal_a_convolution_of_the_concatenation(spatial: int, fused: bool, with_r: bool) -> None:
    torch.manual_seed(spatial)
    layer = LAYERS[spatial](2, 5, 3, stride=2, padding=1, dilation=1, with_r=with_r, fused=fused)
    x = noise(4, 2, *SIZES[spatial])
    grid = coordinates(SIZES[spatial], with_r=with_r).expand(4, *[-1] * (spatial + 1))
    expected = CONV[spatial](torch.cat([x, grid], 1), layer.weight, layer.bias, stride=2, padding=1)
    assert torch.allclose(layer(x), expected, atol=1e-6)
    assert layer.weight.shape == (5, 2 + spatial + with_r, *[3] * spatial)


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
@pytest.mark.parametrize("padding", ["same", 2])
def test_padding_modes_and_gradients_agree_with_the_concatenation(mode: str, padding: str | int) -> None:
    torch.manual_seed(1)
    fused = CoordConv2d(3, 4, (3, 5), padding=padding, padding_mode=mode).double()
    plain = copy.deepcopy(fused)
    plain.fused = False
    x = noise(3, 3, 6, 8).double()
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [layer(value) for layer, value in zip((fused, plain), inputs, strict=True)]
    weight = noise(*outputs[0].shape, seed=3)
    for out in outputs:
        (out * weight).sum().backward()
    assert torch.allclose(outputs[0], outputs[1], atol=1e-12)
    assert torch.allclose(inputs[0].grad, inputs[1].grad, atol=1e-12)
    assert torch.allclose(fused.weight.grad, plain.weight.grad, atol=1e-10)
    assert torch.allclose(fused.bias.grad, plain.bias.grad, atol=1e-10)


@pytest.mark.parametrize("fused", [False, True])
def test_transposed_layer_equals_the_concatenation(fused: bool) -> None:
    torch.manual_seed(2)
    layer = CoordConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1, with_r=True, fused=fused)
    x = noise(2, 3, 5, 6)
    expected = nn.functional.conv_transpose2d(add_coords(x, True), layer.weight, layer.bias, 2, 1, 1)
    assert expected.shape == (2, 4, 10, 12)
    assert torch.allclose(layer(x), expected, atol=1e-6)
    assert layer(x, output_size=[9, 11]).shape == (2, 4, 9, 11)


@pytest.mark.parametrize("fused", [False, True])
def test_gradcheck(fused: bool) -> None:
    torch.manual_seed(3)
    layer = CoordConv2d(2, 3, 3, padding=1, with_r=True, fused=fused).double()
    x = noise(2, 2, 3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda value, weight: torch.func.functional_call(layer, {"weight": weight}, (value,)),
        (x, layer.weight),
    )


def test_layers_take_unbatched_input_and_any_size() -> None:
    layer = CoordConv2d(2, 3, 3, padding=1)
    x = noise(2, 5, 7)
    assert torch.allclose(layer(x), layer(x[None])[0], atol=1e-6)
    assert layer(noise(1, 2, 11, 4)).shape == (1, 3, 11, 4)
    assert CoordConv2d(1, 1, 3).load_state_dict(CoordConv2d(1, 1, 3).state_dict())
    assert set(layer.state_dict()) == {"weight", "bias"}


def test_rows_and_columns_are_not_swapped_by_the_layer() -> None:
    layer = CoordConv2d(1, 2, 1, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 1] = 1  # first output = x
        layer.weight[1, 2] = 1  # second output = y
    out = layer(torch.zeros(1, 1, 3, 5))[0]
    assert out[0, 0].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert out[1, :, 0].tolist() == [-1, 0, 1]


@given(st.integers(-5, 5), st.integers(-5, 5))
@settings(max_examples=20, deadline=None)
def test_only_coordinate_weights_break_translation(dy: int, dx: int) -> None:
    torch.manual_seed(4)
    x = noise(2, 3, 6, 8)

    def gap(layer: nn.Module) -> float:
        moved = layer(x.roll((dy, dx), (-2, -1)))
        return (moved - layer(x).roll((dy, dx), (-2, -1))).abs().max().item()

    seeing = CoordConv2d(3, 4, 3, padding=1, padding_mode="circular")
    blind = CoordConv2d(3, 4, 3, padding=1, padding_mode="circular", coord_init="zero")
    assert gap(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")) < 1e-6
    assert gap(blind) < 1e-6
    if dy % 6 or dx % 8:
        assert gap(seeing) > 1e-2


def test_zero_coordinate_weights_learn() -> None:
    layer = CoordConv2d(1, 2, 3, padding=1, coord_init="zero")
    assert not layer.coord_weight.any()
    (layer(noise(2, 1, 5, 5)) ** 2).sum().backward()
    assert layer.weight.grad[:, 1:].abs().max() > 0
    layer.reset_parameters()
    assert not layer.coord_weight.any()
    assert layer.weight[:, :1].any()


def test_autocast_keeps_the_layer_working() -> None:
    layer = CoordConv2d(3, 4, 3, padding=1)
    x = noise(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    assert torch.allclose(out.float(), layer(x), atol=0.05)


SCRIPT = """
import torch
from torch import nn
from assay.nn.coords import AddCoords, CoordConv1d, CoordConv2d, CoordConv3d, CoordConvTranspose2d
torch.manual_seed(0)
for shape, layer in (((2, 3, 7), CoordConv1d(3, 2, 3)), ((2, 3, 3, 5), CoordConv2d(3, 2, 3, with_r=True)),
                     ((1, 3, 4, 5, 6), CoordConv3d(3, 2, 3)), ((2, 3, 4, 5), CoordConvTranspose2d(3, 2, 3))):
    for dtype in (torch.float32, torch.float16, torch.float64):
        x = torch.randn(shape).to(dtype)
        add = AddCoords(with_r=True)
        assert torch.equal(torch.jit.script(add)(x), add(x)), (shape, dtype)
    x = torch.randn(shape)
    scripted = torch.jit.script(nn.Sequential(layer, nn.ReLU()))
    assert torch.allclose(scripted(x), nn.Sequential(layer, nn.ReLU())(x), atol=1e-6), shape
    assert {value.data_ptr() for value in scripted.parameters()} == {p.data_ptr() for p in layer.parameters()}
try:
    torch.jit.script(AddCoords())(torch.zeros(2, 2))
except torch.jit.Error as error:
    assert "1 to 3 spatial axes" in str(error)
else:
    raise AssertionError("rank 2 went through")
print("done")
"""

EXPORT = """
import torch
from torch import nn
from assay.nn import coords
net = nn.Sequential(coords.AddCoords(with_r=True), coords.CoordConv2d(5, 3, 3, padding=1)).eval()
dynamic = {2: torch.export.Dim("height", min=2, max=64), 3: torch.export.Dim("width", min=2, max=64)}
program = torch.export.export(net, (torch.randn(1, 2, 6, 5),), dynamic_shapes=(dynamic,))
other = torch.randn(1, 2, 9, 13)
assert torch.allclose(program.module()(other), net(other), atol=1e-6)
grid = torch.export.export(net[0], (torch.randn(1, 2, 6, 5),), dynamic_shapes=(dynamic,)).module()(other)
assert torch.equal(grid, coords.add_coords(other, with_r=True))
print("done")
"""


@pytest.mark.parametrize("program", [SCRIPT, EXPORT], ids=["script", "export"])
def test_compiled_forms_give_the_same_bits(program: str) -> None:
    # In its own process: the shape checks that the tests install wrap what the compilers must read.
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "done", done.stderr


# ---------------------------------------------------------------------------------------------------- the conversion


def random_model(seed: int) -> nn.Module:
    """A small network with random layout: kernels, strides, padding modes, branches, norms, transposed layers."""
    pick = torch.Generator().manual_seed(seed)

    def draw(*options):
        return options[torch.randint(len(options), (), generator=pick).item()]

    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    channels = 3
    for _ in range(draw(2, 3, 4)):
        width = draw(4, 6, 8)
        kernel = draw(1, 3, 5)
        layers.append(
            nn.Conv2d(
                channels,
                width,
                kernel,
                stride=draw(1, 2),
                padding=kernel // 2,
                bias=draw(True, False),
                padding_mode=draw("zeros", "circular"),
            )
        )
        layers.append(draw(nn.ReLU(), nn.Tanh(), nn.BatchNorm2d(width)))
        channels = width
    layers.append(nn.ConvTranspose2d(channels, 4, 3, stride=2, padding=1, output_padding=draw(0, 1)))
    return nn.Sequential(nn.Sequential(*layers), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5))


@pytest.mark.parametrize("seed", range(10))
def test_conversion_keeps_the_function(seed: int) -> None:
    model = random_model(seed).eval()
    x = noise(3, 3, 17, 14)
    before = model(x)
    for layers in ("first", "all"):
        twin = coordconvert(copy.deepcopy(model), layers, with_r=bool(seed % 2))
        assert torch.allclose(twin(x), before, atol=1e-6)
        converted = [module for module in twin.modules() if isinstance(module, coords._CoordConv)]
        plain = sum(isinstance(module, nn.Conv2d | nn.ConvTranspose2d) for module in model.modules())
        assert len(converted) == (1 if layers == "first" else plain)
        twin(x).square().sum().backward()
        for module in converted:
            grad = module.weight.grad.narrow(module._input_axis, module.in_channels, module.coord_channels)
            assert grad.abs().max() > 0
            assert not module.training


def test_conversion_by_predicate_default_init_and_of_a_bare_layer() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3))
    twin = coordconvert(model, lambda name, module: name == "1", coord_init="default")
    assert twin is model
    assert type(twin[0]) is nn.Conv2d
    assert twin[1].coord_weight.abs().min() > 0
    bare = nn.Conv1d(1, 2, 3)
    assert isinstance(coordconvert(bare), CoordConv1d)
    assert torch.equal(coordconvert(bare).weight[:, :1], bare.weight)


def test_conversion_keeps_sharing_freezing_dtype_and_skips_what_is_converted() -> None:
    conv = nn.Conv2d(2, 2, 3, padding=1).double()
    conv.weight.requires_grad_(False)
    model = nn.ModuleDict({"a": conv, "b": nn.Sequential(conv, conv)})
    coordconvert(model, "all")
    assert model["a"] is model["b"][0] is model["b"][1]
    assert model["a"].weight.dtype == torch.float64
    assert not model["a"].weight.requires_grad
    assert model["a"].bias.requires_grad
    with pytest.raises(ValueError, match="no convolution"):
        coordconvert(model, "all")


@pytest.mark.usefixtures("no_shape_checks")
def test_conversion_explains_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="no convolution"):
        coordconvert(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="'0' has groups=2"):
        coordconvert(nn.Sequential(nn.Conv2d(2, 2, 3, groups=2)))
    with pytest.raises(ValueError, match="parametrisation"):
        coordconvert(nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 3)), lambda name, module: True)
    hooked = nn.Conv2d(1, 1, 1)
    hooked.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="hooks"):
        coordconvert(hooked)
    with pytest.raises(ValueError, match="layers"):
        coordconvert(nn.Conv2d(1, 1, 1), "last")


def test_module_prints_and_moves_like_any_other() -> None:
    assert repr(AddCoords(with_r=True)) == "AddCoords(with_r=True)"
    assert "with_r=False" in repr(CoordConv2d(1, 2, 3))
    meta = CoordConv2d(1, 2, 3, device="meta")
    assert meta(torch.zeros(1, 1, 5, 5, device="meta")).shape == (1, 2, 3, 3)
