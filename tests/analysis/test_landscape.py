"""Landscapes: closed forms, norms of directions, invariances, and that no function touches the model."""

import csv
import hashlib
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from assay.analysis.hessian import convexity_map, hessian_extremes
from assay.analysis.landscape import (
    interpolate,
    linear_barrier,
    loss_line,
    loss_plane,
    nonconvex_fraction,
    normalize_direction,
    plane_curvature,
    random_direction,
    recalibrate_batchnorm,
    rescale_layers,
    save_surface,
    sharpness,
    with_state,
)
from assay.nn.cifar import CifarResNet


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Quadratic(nn.Module):
    """Loss 1/2 (theta - theta*)' H (theta - theta*), plus nothing from the data."""

    def __init__(self, hessian: Tensor, centre: Tensor):
        super().__init__()
        self.theta = nn.Parameter(centre.clone())
        self.register_buffer("hessian", hessian)
        self.register_buffer("centre", centre)

    def forward(self, x: Tensor) -> Tensor:
        gap = self.theta - self.centre
        return 0.5 * gap @ self.hessian @ gap + 0 * x.sum()


def quadratic(dim: int = 6, seed: int = 0) -> Quadratic:
    root = torch.randn(dim, dim, generator=generator(seed), dtype=torch.float64)
    return Quadratic(root @ root.T - 1.5 * torch.eye(dim), torch.randn(dim, generator=generator(1)).double())


NOTHING = (torch.zeros(1, dtype=torch.float64), torch.zeros(1))


def value(outputs: Tensor, _: Tensor) -> Tensor:
    return outputs


def mlp(norm: bool = True, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Linear(6, 9), *([nn.BatchNorm1d(9)] if norm else []), nn.ReLU(), nn.Linear(9, 4)]
    return nn.Sequential(*layers)


def conv(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(5 * 16, 4)
    )


def examples(shape: tuple[int, ...] = (6,), n: int = 40, seed: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn(n, *shape, generator=generator(seed)), torch.randint(4, (n,), generator=generator(4))


def fingerprint(model: nn.Module) -> str:
    """Parameters, buffers, modes and requires_grad, hashed."""
    digest = hashlib.sha256()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        digest.update(f"{name}{tensor.requires_grad}".encode() + tensor.detach().numpy().tobytes())
    for name, module in model.named_modules():
        digest.update(f"{name}{module.training}{getattr(module, 'momentum', None)}".encode())
    return digest.hexdigest()


# -- directions


@pytest.mark.parametrize("model", [mlp(), conv(), CifarResNet(8, 4, width=4, in_channels=1)])
def test_every_filter_of_the_direction_is_as_long_as_the_models(model: nn.Module) -> None:
    direction = random_direction(model, generator=generator())
    params = dict(model.named_parameters())
    assert list(direction) == list(params)
    for name, d in direction.items():
        if d.dim() > 1:
            assert torch.allclose(d.flatten(1).norm(dim=1), params[name].flatten(1).norm(dim=1), rtol=1e-6)
            # One scale a filter, one entry a weight: directions inside a filter differ from the filter's own.
            assert not torch.allclose(d, params[name])
        else:
            assert not d.any()  # biases, gains and offsets stay


def test_modes() -> None:
    params = {
        "w": torch.randn(5, 3, 2, 2, generator=generator(1)),
        "b": torch.randn(5, generator=generator(2)),
    }
    drawn = {k: torch.randn(v.shape, generator=generator(3)) for k, v in params.items()}
    layer = normalize_direction(drawn, params, "layer")
    assert torch.allclose(layer["w"], drawn["w"] * params["w"].norm() / drawn["w"].norm())
    assert torch.allclose(
        normalize_direction(drawn, params, "weight")["w"], drawn["w"] * params["w"], atol=1e-7
    )
    assert torch.equal(normalize_direction(drawn, params, "none")["w"], drawn["w"])
    unit = normalize_direction(drawn, params, "dfilter")["w"]
    assert torch.allclose(unit.flatten(1).norm(dim=1), torch.ones(5))
    assert normalize_direction(drawn, params, "dlayer")["w"].norm().item() == pytest.approx(1)
    # A bias vector is scaled as a whole, not entry by entry.
    whole = normalize_direction(drawn, params, "filter")["b"]
    assert torch.allclose(whole, drawn["b"] * params["b"].norm() / drawn["b"].norm())
    turned = normalize_direction(drawn, params, "filter", transposed=["w"])["w"]
    assert torch.allclose(turned.transpose(0, 1).flatten(1).norm(dim=1),
                          params["w"].transpose(0, 1).flatten(1).norm(dim=1))  # fmt: skip


def test_transposed_convolutions_have_their_filters_along_the_second_axis() -> None:
    model = nn.ConvTranspose2d(3, 5, 2)
    d = random_direction(model, generator=generator())["weight"].transpose(0, 1).flatten(1).norm(dim=1)
    assert torch.allclose(d, model.weight.transpose(0, 1).flatten(1).norm(dim=1))


def test_a_zero_filter_gets_a_zero_direction() -> None:
    model = mlp()
    with torch.no_grad():
        model[0].weight[2] = 0
    d = random_direction(model, generator=generator())["0.weight"]
    assert not d[2].any()
    assert torch.isfinite(d).all()


def test_entries_are_centred_and_draws_nearly_orthogonal() -> None:
    """A peer draws uniform in [0, 1]: all entries positive, all directions alike."""
    model = nn.Linear(200, 100)
    a, b = (random_direction(model, "none", generator=generator(k))["weight"].flatten() for k in (1, 2))
    assert abs(a.mean().item()) < 0.03
    assert a.std().item() == pytest.approx(1, abs=0.03)
    assert abs((a @ b / a.norm() / b.norm()).item()) < 0.03


def test_skip_says_what_stays() -> None:
    model = mlp()
    everything = random_direction(model, "none", skip=(), generator=generator())
    assert all(d.any() for d in everything.values())
    gains = random_direction(model, "none", skip=("bias",), generator=generator())
    assert gains["1.weight"].any()
    assert gains["1.bias"].any()  # the offset of a norm is no bias
    assert not gains["0.bias"].any()
    # The same seed gives the same entries, whatever is skipped.
    assert torch.equal(gains["3.weight"], everything["3.weight"])
    with pytest.raises(ValueError, match="every parameter"):
        random_direction(nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match="skip may name"):
        random_direction(model, skip=("biases",))


def test_directions_that_do_not_fit_are_refused() -> None:
    model = mlp()
    d = random_direction(model)
    data = examples()
    lacking = {k: v for k, v in d.items() if k != "0.bias"}
    with pytest.raises(ValueError, match=r"lacks 0\.bias"):
        loss_line(model, cross_entropy, data, lacking)
    with pytest.raises(ValueError, match="shape"):
        loss_line(model, cross_entropy, data, {**d, "0.bias": torch.zeros(3)})
    whole = nn.Linear(2, 2)
    whole.weight = nn.Parameter(torch.zeros(2, 2, dtype=torch.int64), requires_grad=False)
    with pytest.raises(TypeError, match="floating"):
        random_direction(whole)


# -- lines and planes


def test_a_quadratic_plane_is_its_closed_form() -> None:
    model = quadratic()
    d1, d2 = (random_direction(model, "none", generator=generator(k)) for k in (5, 6))
    plane = loss_plane(model, value, NOTHING, d1, d2, 7, 5)
    a, b = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in (7, 5))
    for i in range(7):
        for j in range(5):
            step = a[i] * d1["theta"] + b[j] * d2["theta"]
            assert plane[i, j].item() == pytest.approx((0.5 * step @ model.hessian @ step).item(), abs=1e-10)
    line = loss_line(model, value, NOTHING, d1, 9)
    assert torch.allclose(line, line.flip(0), atol=1e-12)  # symmetric about the centre
    assert line[4].item() == 0


@pytest.mark.parametrize("bn", ["frozen", "recalibrate"])
def test_chunks_give_what_a_loop_over_copies_gives(bn: str) -> None:
    model, data = conv().train(), examples((1, 6, 6))
    model(data[0])  # running statistics that are not the initial ones
    d1, d2 = (random_direction(model, generator=generator(k)) for k in (5, 6))
    alphas, betas = torch.linspace(-1, 1, 4), torch.linspace(-0.5, 1, 3)
    chunked = loss_plane(model, cross_entropy, data, d1, d2, alphas, betas, bn=bn, chunk=5)
    single = loss_plane(model, cross_entropy, data, d1, d2, alphas, betas, bn=bn, chunk=1)
    naive = torch.zeros(4, 3)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    for i, a in enumerate(alphas):
        for j, b in enumerate(betas):
            moved = {k: v + a * d1[k] + b * d2[k] if k in d1 else v for k, v in state.items()}
            copied = conv()
            copied.load_state_dict(moved)
            if bn == "recalibrate":
                recalibrate_batchnorm(copied, data[0])
            naive[i, j] = cross_entropy(copied.eval()(data[0]), data[1]).item()
    assert torch.allclose(chunked, naive, atol=1e-6)
    assert torch.allclose(single, naive, atol=1e-6)


def test_batches_are_weighted_by_size_and_the_centre_is_the_plain_loss() -> None:
    model, (x, y) = mlp().train(), examples()
    model(x)
    d = random_direction(model, generator=generator())
    whole = loss_line(model, cross_entropy, (x, y), d, 5, bn="frozen")
    parts = loss_line(model, cross_entropy, [(x[:25], y[:25]), (x[25:], y[25:])], d, 5, bn="frozen")
    assert torch.allclose(whole, parts, atol=1e-6)
    assert whole[2].item() == pytest.approx(cross_entropy(model.eval()(x), y).item(), abs=1e-6)
    with pytest.raises(ValueError, match="no data"):
        loss_line(model, cross_entropy, [], d)


def test_any_metric_several_at_once() -> None:
    model, (x, y) = mlp(), examples()
    d = random_direction(model, generator=generator())

    def both(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.stack([cross_entropy(outputs, targets), (outputs.argmax(-1) == targets).float().mean()])

    curves = loss_line(model, both, (x, y), d, [-1.0, 0.0, 1.0])
    assert curves.shape == (3, 2)
    assert torch.allclose(curves[:, 0], loss_line(model, cross_entropy, (x, y), d, [-1.0, 0.0, 1.0]))


def test_a_model_that_vmap_cannot_take_runs_point_by_point() -> None:
    class Awkward(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            return out if out.sum().item() > -1e9 else -out

    model, data = Awkward(6, 4), examples()
    d = random_direction(model, generator=generator())
    with pytest.raises(RuntimeError) as caught:
        loss_line(model, cross_entropy, data, d, 3)
    assert any("chunk=1" in note for note in caught.value.__notes__)
    assert loss_line(model, cross_entropy, data, d, 3, chunk=1).shape == (3,)


# -- between two models


def test_interpolation_ends_are_the_models_and_it_reaches_beyond() -> None:
    a, b = mlp(seed=1).eval(), mlp(seed=2).eval()
    (x, y), other = examples(), examples(seed=9)
    for model in (a, b):
        recalibrate_batchnorm(model, x)
    table = interpolate(
        a, b, [-0.5, 0.0, 0.5, 1.0, 1.5],
        {"loss": cross_entropy, "accuracy": lambda o, t: (o.argmax(-1) == t).float().mean()},
        {"train": (x, y), "test": other},
    )  # fmt: skip
    assert set(table) == {"alpha", "train_loss", "train_accuracy", "test_loss", "test_accuracy"}
    # Statistics come from the training inputs, for the test data, too.
    for model, place in ((a, 1), (b, 3)):
        assert table["train_loss"][place].item() == pytest.approx(cross_entropy(model(x), y).item(), abs=1e-5)
        assert table["test_loss"][place].item() == pytest.approx(
            cross_entropy(model(other[0]), other[1]).item(), abs=1e-5
        )
    middle = mlp(seed=1)
    with torch.no_grad():
        for p, q in zip(middle.parameters(), b.parameters(), strict=True):
            p.lerp_(q, 0.5)
    recalibrate_batchnorm(middle, x)
    assert table["train_loss"][2].item() == pytest.approx(cross_entropy(middle.eval()(x), y).item(), abs=1e-5)
    # A state_dict does as well as a module.
    same = interpolate(a, b.state_dict(), [0.5], cross_entropy, (x, y))
    assert same["loss"][0].item() == pytest.approx(table["train_loss"][2].item(), abs=1e-6)


def test_extrapolated_variances_are_clamped_with_a_warning_and_recalibration_needs_none() -> None:
    a, b = mlp(seed=1), mlp(seed=2)
    a[1].running_var.fill_(0.1)
    b[1].running_var.fill_(9.0)
    data = examples()
    with pytest.warns(UserWarning, match="clamped"):
        curve = interpolate(a, b, [-0.5, 0.0], cross_entropy, data, bn="interpolate")["loss"]
    assert torch.isfinite(curve).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.isfinite(interpolate(a, b, [-0.5, 1.5], cross_entropy, data)["loss"]).all()


def test_barriers() -> None:
    data = examples()
    a, b = mlp(seed=1), mlp(seed=2)
    same = linear_barrier(a, a, cross_entropy, data)
    assert same.height == 0
    assert torch.allclose(same.curve, same.curve[:1].expand(11), atol=1e-6)
    # Softmax regression is convex: no barrier, however far apart.
    one, other = nn.Linear(6, 4), nn.Linear(6, 4)
    with torch.no_grad():
        other.weight.mul_(5)
    assert linear_barrier(one, other, cross_entropy, data).height <= 1e-6
    barrier = linear_barrier(a, b, cross_entropy, data, alphas=5)
    curve = barrier.curve
    chord = [(1 - t) * curve[0] + t * curve[4] for t in (0, 0.25, 0.5, 0.75, 1)]
    assert barrier.height == pytest.approx(max((c - d).item() for c, d in zip(curve, chord, strict=True)))
    # Two networks that differ by a permutation of their hidden units: one function, and a wall between.
    swapped = mlp(norm=False, seed=5)
    with torch.no_grad():
        for p in swapped.parameters():
            p.mul_(3)
    x, _ = data
    labels = swapped(x).argmax(1)
    order = torch.randperm(9, generator=generator())
    permuted = mlp(norm=False)
    with torch.no_grad():
        permuted[0].weight.copy_(swapped[0].weight[order])
        permuted[0].bias.copy_(swapped[0].bias[order])
        permuted[2].weight.copy_(swapped[2].weight[:, order])
        permuted[2].bias.copy_(swapped[2].bias)
    wall = linear_barrier(swapped, permuted, cross_entropy, (x, labels))
    assert wall.curve[0].item() == pytest.approx(wall.curve[-1].item(), abs=1e-5)
    assert wall.height > 0.05
    with pytest.raises(ValueError, match="begin at 0"):
        linear_barrier(a, b, cross_entropy, data, alphas=[0.0, 0.5])


def test_models_of_another_structure_are_refused() -> None:
    with pytest.raises(ValueError, match="second model"):
        linear_barrier(mlp(), mlp(norm=False), cross_entropy, examples())
    with pytest.raises(ValueError, match="does not fit the model"):
        linear_barrier(mlp(), mlp(norm=False).state_dict(), cross_entropy, examples())


def test_recalibration_is_that_of_torch() -> None:
    model, (x, _) = conv(), examples((1, 6, 6), n=48)
    other = conv()
    batches = list(x.split(16))
    before = [p.clone() for p in model.parameters()]
    model.train()
    assert recalibrate_batchnorm(model, batches) is model
    torch.optim.swa_utils.update_bn(batches, other)
    assert torch.allclose(model[1].running_mean, other[1].running_mean, atol=1e-6)
    assert torch.allclose(model[1].running_var, other[1].running_var, atol=1e-6)
    assert model.training
    assert model[3].training
    assert model[1].momentum == 0.1
    assert all(torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))
    assert recalibrate_batchnorm(mlp(norm=False), torch.rand(3, 6)) is not None
    with pytest.raises(ValueError, match="no batches"):
        recalibrate_batchnorm(model, [])


def test_recalibration_over_batches_inside_a_line_is_the_same() -> None:
    model, (x, y) = mlp(), examples()
    batches = [(part, target) for part, target in zip(x.split(10), y.split(10), strict=True)]
    d = random_direction(model, generator=generator())
    line = loss_line(model, cross_entropy, batches, d, [0.7])
    moved = mlp()
    moved.load_state_dict({k: v + 0.7 * d[k] if k in d else v for k, v in model.state_dict().items()})
    recalibrate_batchnorm(moved, batches)
    assert line.item() == pytest.approx(cross_entropy(moved.eval()(x), y).item(), abs=1e-6)


def test_checkpoints_of_users(tmp_path) -> None:
    model = mlp(seed=4)
    state = {f"module.{k}": v for k, v in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "point.pt")
    for source in (tmp_path / "point.pt", {"state_dict": state}, model.state_dict()):
        loaded = with_state(mlp(seed=5), source)
        assert all(torch.equal(p, q) for p, q in zip(loaded.parameters(), model.parameters(), strict=True))
    with pytest.raises(ValueError, match="state_dict"):
        with_state(model, {"epoch": 3})


# -- scale


def test_rescaled_layers_are_one_function_with_another_landscape() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 12),
        nn.ReLU(),
        nn.Linear(12, 4),
    )
    x, y = examples((1, 6, 6))
    # A net that has learnt: at initialisation the landscape around it is a random one.
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scaled = rescale_layers(model, (10, 0.1, 1))
    assert torch.allclose(scaled(x), model(x), atol=1e-4)
    assert torch.allclose(scaled[4].bias, model[4].bias)
    curves = {
        (mode, which): loss_line(net, cross_entropy, (x, y), random_direction(net, mode, generator=generator(1)), 11)
        for mode in ("filter", "layer", "none")
        for which, net in (("model", model), ("scaled", scaled))
    }  # fmt: skip
    for mode in ("filter", "layer"):
        one, other = curves[mode, "model"], curves[mode, "scaled"]
        assert ((one - other) / one).abs().max() < 1e-4
    raw, moved = curves["none", "model"], curves["none", "scaled"]
    assert abs(moved[-1] / raw[-1] - 1) > 0.5


def test_what_cannot_be_rescaled_is_refused() -> None:
    with pytest.raises(ValueError, match="BatchNorm1d"):
        rescale_layers(mlp(), (1, 1))
    with pytest.raises(ValueError, match="2 layers"):
        rescale_layers(mlp(norm=False), (1, 1, 1))
    with pytest.raises(ValueError, match="multiply to 1"):
        rescale_layers(mlp(norm=False), (2, 1))
    with pytest.raises(ValueError, match="Tanh"):
        rescale_layers(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), (1,))


# -- numbers


def test_sharpness_of_a_quadratic_and_its_agreement_with_lines() -> None:
    model = quadratic()
    rises = sharpness(model, value, NOTHING, 0.5, 4, "none", generator(3))
    source = generator(3)
    for k in range(4):
        d = random_direction(model, "none", generator=source)["theta"]
        assert rises[k].item() == pytest.approx((0.125 * d @ model.hessian @ d).item(), abs=1e-10)
    net, data = mlp(), examples()
    line = loss_line(net, cross_entropy, data, random_direction(net, generator=generator(1)), [0.0, 1.0])
    assert sharpness(
        net, cross_entropy, data, generator=generator(1), n_directions=1
    ).item() == pytest.approx((line[1] - line[0]).item(), abs=1e-6)
    with pytest.raises(ValueError, match="positive"):
        sharpness(net, cross_entropy, data, n_directions=0)


def test_nonconvex_fraction_of_known_planes() -> None:
    a = torch.linspace(-1, 1, 9, dtype=torch.float64)
    x, y = torch.meshgrid(a, a, indexing="ij")
    step = 0.25
    assert nonconvex_fraction(x**2 + 3 * y**2 + x * y, step) == 0
    assert nonconvex_fraction(x**2 - y**2, step) == 1
    assert nonconvex_fraction(x**2 - 0.09 * y**2, step) == 0  # within the tolerance of a tenth
    assert nonconvex_fraction(x**2 - 0.11 * y**2, step) == 1
    assert nonconvex_fraction(torch.zeros(5, 5), step) == 0
    half = torch.where(x < 0, x**2, -(x**2)) + y**2
    assert nonconvex_fraction(half, step) == pytest.approx(3 / 7)
    eigen = plane_curvature(x**2 + 3 * y**2 + x * y, step)
    wanted = torch.linalg.eigvalsh(torch.tensor([[2.0, 1.0], [1.0, 6.0]], dtype=torch.float64))
    assert torch.allclose(eigen, wanted.expand_as(eigen), atol=1e-10)
    uneven = plane_curvature((x**2 + 3 * y**2 + x * y)[::2], (0.5, 0.25))
    assert torch.allclose(uneven, wanted.expand_as(uneven), atol=1e-10)


def test_bad_planes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        nonconvex_fraction(torch.zeros(2, 5), 0.1)
    with pytest.raises(ValueError, match="not finite"):
        nonconvex_fraction(torch.full((4, 4), torch.nan), 0.1)
    with pytest.raises(ValueError, match="spacing"):
        nonconvex_fraction(torch.zeros(4, 4), 0.0)


def test_surfaces_are_written_and_read_back(tmp_path) -> None:
    a, b = torch.linspace(-1, 1, 3), torch.linspace(0, 1, 2)
    f = torch.arange(6.0).view(3, 2)
    with np.load(save_surface(tmp_path / "s.npz", a, b, f)) as saved:
        assert np.array_equal(saved["values"], f.numpy())
    with save_surface(tmp_path / "s.csv", a, b, f).open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 7
    assert [float(v) for v in rows[2]] == [-1, 1, 1]
    ply = save_surface(tmp_path / "s.ply", a, b, f).read_text().splitlines()
    assert "element vertex 6" in ply
    assert "element face 2" in ply
    assert ply[-1] == "4 2 4 5 3"
    with pytest.raises(ValueError, match="suffix"):
        save_surface(tmp_path / "s.obj", a, b, f)


# -- hands off


CALLS: dict[str, Callable[[nn.Module, tuple[Tensor, Tensor]], object]] = {
    "direction": lambda m, d: random_direction(m),
    "line": lambda m, d: loss_line(m, cross_entropy, d, random_direction(m), 3),
    "plane": lambda m, d: loss_plane(m, cross_entropy, d, random_direction(m), random_direction(m), 3, 3),
    "point by point": lambda m, d: loss_line(m, cross_entropy, d, random_direction(m), 3, chunk=1),
    "interpolate": lambda m, d: interpolate(m, conv(7), 3, cross_entropy, d, bn="interpolate"),
    "barrier": lambda m, d: linear_barrier(m, conv(7), cross_entropy, d),
    "sharpness": lambda m, d: sharpness(m, cross_entropy, d, n_directions=2),
    "state": lambda m, d: with_state(m, conv(7).state_dict()),
    "hessian": lambda m, d: hessian_extremes(m, cross_entropy, d),
    "convexity": lambda m, d: convexity_map(
        m, cross_entropy, d, random_direction(m), random_direction(m), 2, 2
    ),
}


@pytest.mark.filterwarnings("ignore:extrapolated variances")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(call: str, training: bool) -> None:
    model, data = conv(), examples((1, 6, 6), n=8)
    model.train(training)
    model[0].weight.requires_grad_(False)
    before = fingerprint(model)
    CALLS[call](model, data)
    assert fingerprint(model) == before
    assert all(p.grad is None for p in model.parameters())
    assert functional_call(model.eval(), {}, (data[0],)).shape == (8, 4)
