"""Paths in their principal axes: parity with scikit-learn, known paths, the random walk's own shares."""

import math

import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from assay.analysis.landscape import loss_plane
from assay.analysis.trajectory import TrajectoryPCA, random_walk_null


def walk(n: int = 12, dim: int = 40, seed: int = 0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)).double().cumsum(0)


def test_parity_with_scikit_learn() -> None:
    points = walk()
    ours = TrajectoryPCA(3).fit(points)
    theirs = PCA(3).fit((points[:-1] - points[-1]).numpy())
    assert torch.allclose(
        ours.explained_variance_ratio_, torch.from_numpy(theirs.explained_variance_ratio_), atol=1e-12
    )
    assert torch.allclose(ours.mean_, torch.from_numpy(theirs.mean_))
    agreement = (ours.components_ * torch.from_numpy(theirs.components_)).sum(1).abs()
    assert torch.allclose(agreement, torch.ones(3).double(), atol=1e-10)


def test_a_straight_path_is_one_component() -> None:
    start, end = torch.randn(2, 30, generator=torch.Generator().manual_seed(1)).double()
    points = torch.stack([torch.lerp(start, end, t) for t in torch.linspace(0, 1, 9).double()])
    pca = TrajectoryPCA().fit(points)
    assert pca.explained_variance_ratio_[0].item() == pytest.approx(1)
    assert pca.explained_variance_ratio_[1].item() == pytest.approx(0, abs=1e-12)
    # Unit direction: the first coordinate of the start is its distance from the end.
    assert abs(pca.project(start)[0].item()) == pytest.approx((start - end).norm().item())
    assert pca.distance(start) == pytest.approx(0, abs=1e-7)


def test_random_walks_have_the_shares_of_theory() -> None:
    shares = random_walk_null(torch.ones(1_000), 10_000)
    assert shares[0].item() == pytest.approx(6 / math.pi**2, abs=0.02)
    assert shares[1].item() == pytest.approx(1.5 / math.pi**2, abs=0.02)
    assert torch.equal(random_walk_null([1.0] * 9, 50, 3), random_walk_null([1.0] * 9, 50, 3))
    # Unequal steps count: one huge step leaves a single direction.
    assert random_walk_null([1e-3] * 5 + [1.0] + [1e-3] * 5, 500)[0] > 0.99


def models(n: int = 6) -> list[nn.Module]:
    torch.manual_seed(0)
    made = []
    for k in range(n):
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
        net[1].running_mean.fill_(100.0 * k)  # statistics are no part of the path
        made.append(net)
    return made


def test_modules_and_state_dicts_give_one_plane() -> None:
    path = models()
    a = TrajectoryPCA().fit(path)
    b = TrajectoryPCA().fit([m.state_dict() for m in path])
    assert torch.equal(a.components_, b.components_)
    plane = a.plane()
    assert set(plane.d1) == {name for name, _ in path[0].named_parameters()}
    norm = sum(d.square().sum() for d in plane.d1.values())
    assert norm.item() == pytest.approx(1)
    assert plane.path[-1].tolist() == [0, 0]
    assert plane.distance[-1].item() == 0
    for k, model in enumerate(path):
        assert torch.allclose(a.project(model), plane.path[k], atol=1e-9)
        assert a.distance(model) == pytest.approx(plane.distance[k].item(), abs=1e-6)
        # On the plane and off it: Pythagoras.
        gap = sum(
            (p - q).double().square().sum()
            for p, q in zip(model.parameters(), path[-1].parameters(), strict=True)
        )
        assert (plane.path[k].square().sum() + plane.distance[k] ** 2).item() == pytest.approx(
            gap.item(), abs=1e-5
        )
    assert plane.alphas[0] < plane.path[:, 0].min() < plane.path[:, 0].max() < plane.alphas[1]


def test_the_plane_fits_the_landscape() -> None:
    """A path that lies in a plane: the loss on it at a checkpoint's place is the checkpoint's own."""
    torch.manual_seed(0)
    x, y = torch.randn(20, 3).double(), torch.randn(20, 1).double()
    end = nn.Linear(3, 1).double()
    u, v = torch.randn(2, 1, 3).double()
    path = [
        {"weight": end.weight.detach() + a * u + b * v, "bias": end.bias.detach()}
        for a, b in ((2.0, 0.5), (1.5, -1.0), (0.5, 1.0), (0.2, 0.3), (0.0, 0.0))
    ]
    plane = TrajectoryPCA().fit(path).plane()
    assert plane.distance.max().item() < 1e-7
    for state, place in zip(path, plane.path, strict=True):
        on_it = loss_plane(end, mse_loss, (x, y), plane.d1, plane.d2, place[:1], place[1:])
        own = mse_loss(x @ state["weight"].T + state["bias"], y)
        assert on_it.item() == pytest.approx(own.item(), abs=1e-10)


def test_names_choose_and_bad_paths_are_refused() -> None:
    path = models()
    only = TrajectoryPCA(names=["0.weight"]).fit(path)
    assert only.components_.shape == (2, 12)
    with pytest.raises(ValueError, match="lacks gain"):
        TrajectoryPCA(names=["gain"]).fit(path)
    with pytest.raises(ValueError, match="at least 4"):
        TrajectoryPCA().fit(path[:3])
    with pytest.raises(ValueError, match="does not move"):
        TrajectoryPCA().fit([path[0]] * 5)
    with pytest.raises(ValueError, match="fit"):
        TrajectoryPCA().project(path[0])
    with pytest.raises(ValueError, match="flat vectors"):
        TrajectoryPCA().fit(walk()).plane()
    with pytest.raises(ValueError, match="entries"):
        TrajectoryPCA().fit([*walk(6, 5), torch.zeros(4)])
