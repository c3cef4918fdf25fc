"""Canonical correlations against closed forms, other libraries, and the maps that they must not see."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from assay.analysis.comparison import METRICS, cluster_networks, noise_floor, similarity_matrix
from assay.analysis.similarity import (
    StreamingCCA,
    basis,
    canonical,
    cca,
    linear_cka,
    mean_cca,
    procrustes,
    pwcca,
    svcca,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def waves() -> tuple[torch.Tensor, torch.Tensor]:
    t = torch.arange(200, dtype=torch.float64)
    x = [(0.1 * t).sin(), (0.23 * t).cos(), 0.2 * (0.37 * t + 1).sin()]
    y = [
        (0.1 * t).sin() + 0.5 * (0.05 * t).cos(),
        0.1 * (0.23 * t).cos() + (0.61 * t).sin(),
        (0.77 * t).cos(),
        (0.9 * t).sin(),
    ]
    return torch.stack(x, 1), torch.stack(y, 1)


def test_hand_computed_values(waves):
    x, y = waves
    found = cca(x, y)
    assert found.rho.tolist() == pytest.approx([0.91099441, 0.11006975, 0.01108546], abs=1e-7)
    assert (int(found.rank_x), int(found.rank_y)) == (3, 4)
    assert float(pwcca(x, y, side="x")) == pytest.approx(0.42003599, abs=1e-7)
    assert float(pwcca(x, y, side="y")) == pytest.approx(0.36802851, abs=1e-7)
    assert float(pwcca(x, y)) == float(pwcca(x, y, side="x"))  # the side of smaller rank
    assert float(pwcca(y, x)) == pytest.approx(0.42003599, abs=1e-7)
    assert float(pwcca(x, y, side="mean")) == pytest.approx((0.42003599 + 0.36802851) / 2, abs=1e-7)
    assert float(pwcca(x + 5, y - 3)) == pytest.approx(0.42003599, abs=1e-7)
    assert float(mean_cca(x, y)) == pytest.approx((0.91099441 + 0.11006975 + 0.01108546) / 3, abs=1e-7)


def test_weights_but_not_correlations_see_the_scale_of_neurons(waves):
    x, y = waves
    louder = x * torch.tensor([10.0, 1, 1])
    assert torch.allclose(cca(louder, y).rho, cca(x, y).rho, atol=1e-10)
    assert float(pwcca(louder, y, side="x")) == pytest.approx(0.78492082, abs=1e-7)


def test_arrays_are_taken_too(waves):
    x, y = waves
    assert float(pwcca(x.numpy(), y.numpy())) == float(pwcca(x, y))


def test_canonical_vectors(waves):
    x, y = waves
    found = cca(x, y)
    eye = torch.eye(3, dtype=torch.float64)
    assert torch.allclose(found.x_dirs.mT @ found.x_dirs, eye, atol=1e-10)
    assert torch.allclose(found.x_dirs.mT @ found.y_dirs, found.rho.diag(), atol=1e-10)
    assert torch.allclose((x - x.mean(0)) @ found.x_coefficients, found.x_dirs, atol=1e-9)
    assert torch.allclose((y - y.mean(0)) @ found.y_coefficients, found.y_dirs, atol=1e-9)
    for side in ("x", "y"):
        for weight in ("l1", "variance"):
            assert float(found.weights(side, weight).sum()) == pytest.approx(1)
    # By hand: inner products of unit canonical vectors with centred neurons.
    inner = found.x_dirs.mT @ (x - x.mean(0))
    assert torch.allclose(found.weights("x"), inner.abs().sum(1) / inner.abs().sum())
    assert torch.allclose(found.weights("x", "variance"), inner.square().sum(1) / inner.square().sum())


@settings(max_examples=15, deadline=None)
@given(d=st.integers(1, 6), seed=st.integers(0, 10_000))
def test_invertible_maps_and_offsets_are_not_seen(d, seed):
    x = normal(120, d, seed=seed)
    a = normal(d, d, seed=seed + 1) + 3 * torch.eye(d)
    b = normal(d, seed=seed + 2)
    assert float(pwcca(x, x @ a + b)) == pytest.approx(1, abs=1e-6)
    other = normal(120, 4, seed=seed + 3)
    assert torch.allclose(cca(x @ a + b, other).rho, cca(x, other).rho, atol=1e-8)
    assert torch.allclose(cca(x, other).rho, cca(other, x).rho, atol=1e-10)


def test_orthogonal_spaces_have_nothing_in_common():
    q = torch.linalg.qr(torch.cat([torch.ones(60, 1, dtype=torch.float64), normal(60, 5)], 1)).Q
    x, y = q[:, 1:3], q[:, 3:6]
    for value in (pwcca(x, y), pwcca(x, y, side="y"), mean_cca(x, y), linear_cka(x, y), procrustes(x, y)):
        assert float(value) == pytest.approx(0, abs=1e-8)


def test_agrees_with_scikit_learn():
    from sklearn.cross_decomposition import CCA

    shared = normal(300, 4)
    x = torch.cat([shared[:, :2], normal(300, 2, seed=1)], 1) @ normal(4, 4, seed=2)
    y = (shared + 0.7 * normal(300, 4, seed=3)) @ normal(4, 4, seed=4)
    u, v = CCA(n_components=4, scale=False, max_iter=20_000, tol=1e-12).fit_transform(x.numpy(), y.numpy())
    theirs = [abs(np.corrcoef(u[:, k], v[:, k])[0, 1]) for k in range(4)]
    assert cca(x, y).rho.tolist() == pytest.approx(sorted(theirs, reverse=True), abs=1e-3)


def test_agrees_with_covariances_in_closed_form():
    """The squared correlations are the eigenvalues of Sxx^-1 Sxy Syy^-1 Syx."""
    x, y = normal(500, 5), normal(500, 3, seed=1)
    y[:, 0] += x[:, 2]
    s = torch.cov(torch.cat([x, y], 1).T)
    product = torch.linalg.solve(s[:5, :5], s[:5, 5:]) @ torch.linalg.solve(s[5:, 5:], s[5:, :5])
    expected = torch.linalg.eigvals(product).real.clamp(min=0).sqrt().sort(descending=True).values[:3]
    assert torch.allclose(cca(x, y).rho, expected, atol=1e-8)


def test_independent_layers_correlate_by_chance():
    n, d = 2000, 40
    rho = cca(normal(8, n, d), normal(8, n, d, seed=1)).rho
    assert float(rho.square().mean()) == pytest.approx(d / n, rel=0.1)


def test_duplicate_and_dead_neurons_change_nothing(waves):
    x, y = waves
    more = torch.cat([x, x[:, :2], torch.zeros(200, 3), torch.full((200, 1), 4.0)], 1)
    found = cca(more, y)
    assert int(found.rank_x) == 3
    assert torch.allclose(found.rho, cca(x, y).rho, atol=1e-9)


def test_single_precision_near_a_singular_covariance():
    """Neurons that differ by a thousandth part: an inverted float32 covariance would be noise."""
    x = normal(400, 3)
    near = torch.cat([x, x[:, :1] + 1e-3 * normal(400, 1, seed=1)], 1)
    exact = cca(near, normal(400, 3, seed=2)).rho
    assert torch.allclose(cca(near.float() + 100, normal(400, 3, seed=2)).rho, exact, atol=5e-3)


def test_batches_are_their_parts_even_where_ranks_differ(waves):
    x, y = waves
    poor = torch.cat([x[:, :2], x[:, :1] - x[:, 1:2]], 1)  # three columns that span two dimensions
    both = torch.stack([x, poor]), torch.stack([y, y.flip(1)])
    assert cca(*both).rank_x.tolist() == [3, 2]
    for function in (pwcca, mean_cca, svcca, linear_cka, procrustes):
        alone = [float(function(a, b)) for a, b in zip(*both, strict=True)]
        assert function(*both).tolist() == pytest.approx(alone, abs=1e-9)
    for side in ("x", "y", "mean"):
        alone = [float(pwcca(a, b, side=side)) for a, b in zip(*both, strict=True)]
        assert pwcca(*both, side=side).tolist() == pytest.approx(alone, abs=1e-9)


def test_noise_directions_lower_the_mean_but_hardly_the_weighted_mean():
    """10 shared and 30 private quiet directions, mixed and with an offset, as the authors' release gets wrong."""
    shared = normal(2000, 10)
    layers = [
        torch.cat([shared, 0.1 * normal(2000, 30, seed=s)], 1) @ torch.linalg.qr(normal(40, 40, seed=s + 5)).Q
        for s in (1, 2)
    ]
    assert float(pwcca(*layers)) > 0.75
    assert float(mean_cca(*layers)) < 0.4
    # Ten correlations are exactly 1: the paper's weights then hang on the choice of vectors, squares do not.
    moved = [a + 2 for a in layers]
    assert float(pwcca(*moved)) == pytest.approx(float(pwcca(*layers)), abs=0.01)
    squares = float(pwcca(*layers, weight="variance"))
    assert float(pwcca(*moved, weight="variance")) == pytest.approx(squares, abs=1e-9)
    untied = [a + 0.01 * normal(2000, 40, seed=k) for k, a in enumerate(layers, start=7)]
    assert float(pwcca(untied[0] + 2, untied[1] + 2)) == pytest.approx(float(pwcca(*untied)), abs=1e-9)
    # The 10 loud directions hold 97 % of the variance.
    assert int(basis(layers[0], keep=0.95).rank) == 10
    assert float(svcca(*layers, keep=0.95)) == pytest.approx(1, abs=0.02)


def test_svcca_keeps_a_share_of_the_variance():
    x = normal(1000, 4) * torch.tensor([10.0, 3, 1, 0.1])  # shares 0.908, 0.082, 0.009, 0.0001
    assert [int(basis(x, keep=share).rank) for share in (0.5, 0.95, 0.995, 0.9999999)] == [1, 2, 3, 4]
    wide = normal(50, 80) @ torch.diag(torch.logspace(0, -6, 80, dtype=torch.float64))
    assert 0 < float(svcca(wide, wide.flip(0), keep=0.9)) < 1  # n < d, but few directions are kept
    with pytest.raises(ValueError, match="keeps 48 directions"):  # all that 49 centred observations span
        svcca(normal(49, 80), wide[:49], keep=0.9999999)


def test_alignment_against_gram_matrices():
    x, y = normal(40, 6), normal(40, 50, seed=1)
    y[:, :6] += 2 * x
    h = torch.eye(40, dtype=torch.float64) - 1 / 40
    k, l = h @ x @ x.T @ h, h @ y @ y.T @ h  # noqa: E741
    assert float(linear_cka(x, y)) == pytest.approx(float((k * l).sum() / (k.norm() * l.norm())), abs=1e-10)
    assert float(linear_cka(x, x)) == pytest.approx(1)
    assert float(linear_cka(3 * x @ torch.linalg.qr(normal(6, 6)).Q + 1, y)) == pytest.approx(
        float(linear_cka(x, y))
    )

    def hsic(a: torch.Tensor, b: torch.Tensor) -> float:  # Song et al. 2012, equation 5
        a, b, n = (a @ a.T).fill_diagonal_(0), (b @ b.T).fill_diagonal_(0), len(a)
        one = torch.ones(n, dtype=torch.float64)
        middle = (one @ a @ one) * (one @ b @ one) / ((n - 1) * (n - 2))
        return float((torch.trace(a @ b) + middle - 2 / (n - 2) * (one @ a @ b @ one)) / (n * (n - 3)))

    by_hand = hsic(x, y) / (hsic(x, x) * hsic(y, y)) ** 0.5
    assert float(linear_cka(x, y, debiased=True)) == pytest.approx(by_hand, abs=1e-10)
    unrelated = linear_cka(normal(40, 200), normal(40, 200, seed=3), debiased=True)
    assert abs(float(unrelated)) < 0.1 < float(linear_cka(normal(40, 200), normal(40, 200, seed=3)))


def test_procrustes_sees_rotations_as_nothing_and_stretching_as_something():
    x = normal(100, 5)
    turned = 7 * x @ torch.linalg.qr(normal(5, 5, seed=1)).Q + 2
    assert float(procrustes(x, turned, distance=True)) == pytest.approx(0, abs=1e-9)
    assert float(procrustes(x, x * torch.tensor([5.0, 1, 1, 1, 1]), distance=True)) > 0.05
    # Half of min over rotations of ||X - YR||^2, with a random rotation never better.
    y = normal(100, 5, seed=2)
    u, v = (a - a.mean(0) for a in (x, y))
    u, v = u / u.norm(), v / v.norm()
    left, _, right = torch.linalg.svd(v.T @ u)
    best = float((u - v @ left @ right).square().sum()) / 2
    assert float(procrustes(x, y, distance=True)) == pytest.approx(best, abs=1e-10)


@pytest.mark.parametrize("weight", ["l1", "variance"])
@pytest.mark.parametrize("side", ["x", "y", "mean"])
def test_gradients(side, weight):
    x, y = normal(30, 3), normal(30, 2, seed=1)
    y[:, 0] += x[:, 0]
    assert torch.autograd.gradcheck(
        lambda a, b: pwcca(a, b, side=side, weight=weight), (x.requires_grad_(), y.requires_grad_())
    )


def test_gradients_of_the_other_measures():
    x, y = normal(30, 3).requires_grad_(), normal(30, 2, seed=1).requires_grad_()
    for function in (mean_cca, linear_cka, procrustes, lambda a, b: linear_cka(a, b, debiased=True)):
        assert torch.autograd.gradcheck(function, (x, y))


def test_streaming_equals_all_at_once(waves):
    x, y = waves[0] * torch.tensor([1.0, 50, 0.01]) + 1000, waves[1] - 7
    stream = StreamingCCA(3, 4)
    for rows in torch.arange(200).split([1, 90, 9, 100]):
        stream.update(x[rows], y[rows])
    found, whole = stream.result(), cca(x, y)
    assert torch.allclose(found.rho, whole.rho, atol=1e-8)
    for side in ("x", "y", "mean", "smaller"):
        assert float(found.projection_weighted(side)) == pytest.approx(
            float(pwcca(x, y, side=side)), abs=1e-8
        )
    assert float(found.mean()) == pytest.approx(float(mean_cca(x, y)), abs=1e-8)
    assert float(stream.result(keep=0.99).mean()) == pytest.approx(float(svcca(x, y, keep=0.99)), abs=1e-8)
    dirs = (x - x.mean(0)) @ found.x_coefficients
    assert torch.allclose((dirs.T @ whole.x_dirs).abs(), torch.eye(3, dtype=torch.float64), atol=1e-7)
    with pytest.raises(ValueError, match="co-moments"):
        _ = found.x_dirs


def test_streaming_drops_dead_neurons_and_refuses_nonsense(waves):
    x, y = waves
    stream = StreamingCCA(5, 4)
    stream.update(torch.cat([x, torch.full((200, 1), 3.0), x[:, :1]], 1), y)
    assert int(stream.result().rank_x) == 3
    assert torch.allclose(stream.result().rho, cca(x, y).rho, atol=1e-8)
    with pytest.raises(ValueError, match=r"give \[m, 5\]"):
        stream.update(x, y)
    with pytest.raises(ValueError, match="NaN"):
        StreamingCCA(3, 4).update(x / 0, y)
    few = StreamingCCA(3, 4)
    few.update(x[:4], y[:4])
    with pytest.raises(ValueError, match="4 observations are too few: x has 3"):
        few.result()


def test_bad_input_is_one_clear_error(waves):
    x, y = waves
    with pytest.raises(ValueError, match=r"4 observations are too few: x has 4 neurons.*svcca"):
        cca(y[:4], x[:4])
    with pytest.warns(UserWarning, match="19 observations for 4"):
        cca(x[:19], y[:19])
    with pytest.raises(ValueError, match="all neurons of y are constant"):
        pwcca(x, torch.full_like(x, 0.1))
    with pytest.raises(ValueError, match="x hold NaN"):
        pwcca(x.log(), y)
    with pytest.raises((ValueError, TypeCheckError)):
        pwcca(x, y[:100])
    with pytest.raises(ValueError, match="100 observations"):
        canonical(basis(x), basis(y[:100]))
    with pytest.raises((TypeError, TypeCheckError)):
        pwcca(x.long(), y)
    with pytest.raises((ValueError, TypeCheckError)):
        pwcca(x, y, side="left")
    with pytest.raises(ValueError, match="keep lies"):
        svcca(x, y, keep=0.0)
    with pytest.raises(ValueError, match="at least 4"):
        linear_cka(x[:3], y[:3], debiased=True)
    with pytest.raises(ValueError, match="at least one neuron"):
        StreamingCCA(0, 3)


# -- many networks ---------------------------------------------------------------------------------------------


@pytest.fixture
def layers() -> list[torch.Tensor]:
    shared = normal(300, 3)
    found = [shared @ normal(3, d, seed=d) + normal(300, d, seed=d + 20) for d in (4, 7, 5)]
    return [*found, torch.cat([found[0], torch.zeros(300, 2)], 1).float()]


@pytest.mark.parametrize("metric", list(METRICS))
def test_a_matrix_is_its_pairs(layers, metric):
    matrix = similarity_matrix(layers, metric)
    options = {"side": "mean"} if metric == "pwcca" else {}
    for i, a in enumerate(layers):
        for j, b in enumerate(layers):
            assert float(matrix[i, j]) == pytest.approx(float(METRICS[metric](a, b, **options)), abs=1e-7)
    distance = similarity_matrix(layers, metric, distance=True)
    assert torch.equal(distance.diagonal(), torch.zeros(4, dtype=torch.float64))
    assert torch.allclose(distance, 1 - matrix, atol=1e-7)
    assert torch.allclose(similarity_matrix(layers, lambda a, b: METRICS[metric](a, b, **options)), matrix)


@pytest.mark.parametrize("side", ["x", "y", "smaller"])
def test_a_matrix_of_one_side_is_its_pairs_too(layers, side):
    matrix = similarity_matrix(layers, side=side, weight="variance")
    expected = [[float(pwcca(a, b, side=side, weight="variance")) for b in layers] for a in layers]
    assert torch.allclose(matrix, torch.tensor(expected, dtype=torch.float64), atol=1e-7)


def test_the_floor_of_chance(layers):
    x, y = normal(500, 40), normal(500, 40, seed=1)
    for metric in METRICS:
        floor = noise_floor(x, y, metric, 4, torch.Generator().manual_seed(0))
        assert floor.shape == (4,)
        assert float(floor.mean()) == pytest.approx(
            float(METRICS[metric](x, y)), abs=0.03
        )  # unrelated as they are
        assert float(METRICS[metric](x, x + 0.5 * y)) > float(floor.max()) + 0.1
    # Shuffling the basis is shuffling the layer.
    order = torch.Generator().manual_seed(3)
    fast = noise_floor(layers[0], layers[1], "pwcca", 3, order, side="y", weight="variance")
    order.manual_seed(3)
    slow = noise_floor(layers[0], layers[1], lambda a, b: pwcca(a, b, side="y", weight="variance"), 3, order)
    assert torch.allclose(fast, slow, atol=1e-10)
    with pytest.raises(ValueError, match="at least one"):
        noise_floor(x, y, "pwcca", 0)


def test_clusters():
    places = torch.tensor([0.0, 0.1, 5, 5.2, 9, 9.3, 0.2])
    distance = (places[:, None] - places).abs()
    found = cluster_networks(distance, 3)
    assert found.tolist() == [0, 0, 1, 1, 2, 2, 0]
    assert cluster_networks(distance, 1).tolist() == [0] * 7
    assert sorted(cluster_networks(torch.ones(4, 4).fill_diagonal_(0), 3).unique().tolist()) == [
        0,
        1,
        2,
    ]  # ties
    assert cluster_networks(torch.zeros(1, 1), 1).tolist() == [0]
    for bad, message in (
        (distance + torch.rand(7, 7), "symmetric"),
        (distance + 1, "diagonal"),
        (distance / 0, "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            cluster_networks(bad, 2)
    with pytest.raises(ValueError, match=r"1\.\.7"):
        cluster_networks(distance, 8)


def test_matrix_errors_name_the_layer(layers):
    with pytest.raises(ValueError, match="layer 1 hold NaN"):
        similarity_matrix([layers[0], layers[1] / 0])
    with pytest.raises(ValueError, match="layer 2 are constant"):
        similarity_matrix([layers[0], layers[1], torch.ones(300, 4)])
    with pytest.raises(ValueError, match="at least one layer"):
        similarity_matrix([])
    with pytest.raises(ValueError, match=r"\[200, 300\]"):
        similarity_matrix([layers[0], layers[1][:200]])
