"""Hessian extremes: against dense eigenvalues, in closed form, and along a plane."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from assay.analysis.hessian import convexity_map, hessian_extremes
from assay.analysis.landscape import random_direction


class Quadratic(nn.Module):
    def __init__(self, hessian: Tensor):
        super().__init__()
        self.theta = nn.Parameter(torch.ones(len(hessian), dtype=hessian.dtype))
        self.register_buffer("hessian", hessian)

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * self.theta @ self.hessian @ self.theta


NOTHING = (torch.zeros(1), torch.zeros(1))


def value(outputs: Tensor, _: Tensor) -> Tensor:
    return outputs


@pytest.mark.parametrize("dim", [2, 20, 80])
def test_extremes_of_a_quadratic_are_those_of_numpy(dim: int) -> None:
    root = torch.randn(dim, dim, generator=torch.Generator().manual_seed(dim), dtype=torch.float64)
    hessian = root + root.T
    wanted = np.linalg.eigvalsh(hessian.numpy())
    low, high = hessian_extremes(Quadratic(hessian), value, NOTHING)
    assert low == pytest.approx(wanted[0], abs=1e-6)
    assert high == pytest.approx(wanted[-1], abs=1e-6)


def network() -> tuple[nn.Sequential, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()
    return model, (torch.randn(30, 5).double(), torch.randint(3, (30,)))


def test_extremes_of_a_network_are_those_of_the_dense_hessian() -> None:
    model, (x, y) = network()
    model.eval()
    params = {k: p.detach() for k, p in model.named_parameters()}
    flat = torch.cat([p.reshape(-1) for p in params.values()])

    def loss(vector: Tensor) -> Tensor:
        parts = vector.split([p.numel() for p in params.values()])
        named = {k: v.view_as(p) for (k, p), v in zip(params.items(), parts, strict=True)}
        return cross_entropy(torch.func.functional_call(model, named, (x,)), y)

    wanted = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))
    low, high = hessian_extremes(model, cross_entropy, (x, y))
    assert low == pytest.approx(wanted[0].item(), abs=1e-6)
    assert high == pytest.approx(wanted[-1].item(), abs=1e-6)
    halves = [(x[:10], y[:10]), (x[10:], y[10:])]
    assert hessian_extremes(model, cross_entropy, halves) == pytest.approx((low, high), abs=1e-6)


def test_names_restrict_it() -> None:
    """The last layer of a linear regression: X'X 2/n, in closed form."""
    x = torch.randn(50, 30, dtype=torch.float64)
    model = nn.Linear(30, 1).double()
    wanted = torch.linalg.eigvalsh(2 * x.T @ x / 50)
    low, high = hessian_extremes(model, mse_loss, (x, torch.zeros(50, 1).double()), names=["weight"])
    assert low == pytest.approx(wanted[0].item(), abs=1e-6)
    assert high == pytest.approx(wanted[-1].item(), abs=1e-6)
    with pytest.raises(ValueError, match="no such parameters: gain"):
        hessian_extremes(model, mse_loss, (x, torch.zeros(50, 1).double()), names=["gain"])
    with pytest.raises(ValueError, match="none"):
        hessian_extremes(model, mse_loss, (x, torch.zeros(50, 1).double()), names=[])


def test_a_flat_loss_has_none() -> None:
    model = nn.Linear(40, 1)
    linear = hessian_extremes(model, lambda o, _: o.mean(), (torch.rand(9, 40), torch.zeros(9)))
    assert linear == (0, 0)


def test_a_map_follows_the_curvature_along_the_plane() -> None:
    class Cubic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Parameter(torch.zeros(30, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return (self.theta**3).sum() / 6  # Hessian: diag(theta)

    d1 = {"theta": torch.linspace(-1, 2, 30, dtype=torch.float64)}
    d2 = {"theta": torch.zeros(30, dtype=torch.float64)}
    found = convexity_map(Cubic(), value, NOTHING, d1, d2, [0.0, 1.0, 2.0], [0.0, 1.0], tolerance=1e-8)
    assert found.shape == (3, 2, 2)
    for i, a in enumerate((0.0, 1.0, 2.0)):
        assert found[i, 0].tolist() == pytest.approx([-a, 2 * a], abs=1e-6)


def test_the_middle_of_a_map_is_the_model() -> None:
    model, data = network()
    d1, d2 = (random_direction(model, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    found = convexity_map(model, cross_entropy, data, d1, d2, 3, 3, tolerance=1e-8)
    assert found[1, 1].tolist() == pytest.approx(hessian_extremes(model, cross_entropy, data), abs=1e-6)
    assert found[0, 0].tolist() != pytest.approx(found[1, 1].tolist(), abs=1e-3)
