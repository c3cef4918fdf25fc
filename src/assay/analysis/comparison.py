"""Many networks side by side: all pairs of layers, the floor that chance sets, clusters of networks."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from assay.analysis.similarity import (
    CCA,
    Array,
    Basis,
    Side,
    Weight,
    basis,
    canonical,
    centred,
    linear_cka,
    mean_cca,
    procrustes,
    pwcca,
    svcca,
)

Metric = Literal["pwcca", "mean_cca", "svcca", "linear_cka", "procrustes"]
METRICS: dict[str, Callable[..., Tensor]] = {
    "pwcca": pwcca,
    "mean_cca": mean_cca,
    "svcca": svcca,
    "linear_cka": linear_cka,
    "procrustes": procrustes,
}
"""Measures by name, for `similarity_matrix` and `noise_floor`."""

CHUNK = 2**24
"""Numbers that the inner products of one layer with a chunk of others may take (128 MiB)."""


def similarity_matrix(
    layers: Sequence[Array],
    metric: Metric | Callable[[Array, Array], Tensor] = "pwcca",
    *,
    side: Side = "mean",
    weight: Weight = "l1",
    keep: float = 0.99,
    tol: float = 1e-6,
    distance: bool = False,
) -> Float[Tensor, "m m"]:
    """Similarity of every layer with every other, each layer decomposed once.

    Args:
        layers: m activation matrices ``[n, d_i]`` of the same observations; widths may differ.
        metric: a name, or a function of two matrices that returns one number (then it is called for every pair, and
            the options below do not apply).
        side, weight: of "pwcca". "mean" makes the matrix symmetric; with "x" entry (i, j) is weighted by layer i.
        keep: of "svcca".
        tol: directions below `tol` times the largest singular value are dropped.
        distance: 1 minus the similarity, with a diagonal of exactly 0.

    Raises:
        ValueError: no layers, an unknown metric, unequal numbers of observations, and what the metric raises; it
            names the layer.

    >>> x = torch.randn(100, 4)
    >>> similarity_matrix([x, x @ torch.randn(4, 4)], distance=True).abs().max().item() < 1e-6
    True
    """
    if not layers:
        raise ValueError("give at least one layer")
    rows = {len(layer) for layer in layers}
    if len(rows) > 1:
        raise ValueError(f"the layers saw {sorted(rows)} observations: record all on the same inputs")
    if callable(metric):
        value = torch.stack(
            [torch.stack([torch.as_tensor(metric(a, b)).double() for b in layers]) for a in layers]
        )
    elif metric in ("pwcca", "mean_cca", "svcca"):
        share = keep if metric == "svcca" else 1.0
        bases = _padded([basis(layer, tol, share, f"layer {i}") for i, layer in enumerate(layers)])
        value = _cca_matrix(bases, metric, side, weight)
    elif metric in ("linear_cka", "procrustes"):
        value = _norm_matrix([centred(layer, f"layer {i}") for i, layer in enumerate(layers)], metric)
    else:
        raise ValueError(f"metric is a function or one of {', '.join(METRICS)}: got {metric!r}")
    return (1 - value).fill_diagonal_(0) if distance else value


def _padded(bases: list[Basis]) -> Basis:
    """Layers of different ranks and widths as one batch: zeros beyond each one's own."""
    rank = max(b.loadings.shape[0] for b in bases)
    width = max(b.loadings.shape[1] for b in bases)

    def pad(a: Tensor, rows: int, columns: int) -> Tensor:
        return torch.nn.functional.pad(a, (0, columns - a.shape[1], 0, rows - a.shape[0]))

    return Basis(
        loadings=torch.stack([pad(b.loadings, rank, width) for b in bases]),
        coefficients=torch.stack([pad(b.coefficients, width, rank) for b in bases]),
        rank=torch.stack([b.rank for b in bases]),
        q=torch.stack([pad(b.q, len(b.q), rank) for b in bases if b.q is not None]),
    )


def _cca_matrix(bases: Basis, metric: str, side: Side, weight: Weight) -> Tensor:
    q = bases.q
    assert q is not None
    m, n, rank = q.shape
    value = torch.eye(m, dtype=q.dtype, device=q.device)
    beside = q.transpose(0, 1).reshape(n, m * rank)  # all bases side by side
    chunk = max(1, CHUNK // rank**2)
    # One layer against the ones after it: the inner products are a single matrix product, the small
    # decompositions one batch.
    for i in range(m - 1):
        for first in range(i + 1, m, chunk):
            others = slice(first, min(first + chunk, m))
            cross = q[i].mT @ beside[:, others.start * rank : others.stop * rank]
            cross = cross.view(rank, -1, rank).transpose(0, 1)
            one, rest = (
                Basis(bases.loadings[k], bases.coefficients[k], bases.rank[k])
                for k in (slice(i, i + 1), others)
            )
            pair = _canonical_by_squares(one, rest, cross)
            if metric != "pwcca":
                value[i, others] = value[others, i] = pair.mean()
            elif side == "mean":
                value[i, others] = value[others, i] = pair.projection_weighted("mean", weight)
            else:
                by_one, by_rest = (pair.projection_weighted(s, weight) for s in ("x", "y"))
                if side == "smaller":
                    smaller, larger = one.rank < rest.rank, one.rank > rest.rank
                    value[i, others] = torch.where(larger, by_rest, by_one)
                    value[others, i] = torch.where(smaller, by_one, by_rest)
                else:
                    ahead, behind = (by_one, by_rest) if side == "x" else (by_rest, by_one)
                    value[i, others], value[others, i] = ahead, behind
    return value


def _canonical_by_squares(x: Basis, y: Basis, cross: Tensor) -> CCA:
    """`canonical` from the eigenvectors of $CC^\\top$, nearly twice as fast.

    Squaring costs nothing here: bases are orthonormal, so C is a contraction, and an absolute error of 1e-16 in
    rho^2 is one of 1e-11 in the smallest rho that is let through. Pairs with smaller ones are decomposed.
    """
    least = 1e-5
    squares, u = torch.linalg.eigh(cross @ cross.mT)
    rho, u = squares.flip(-1).clamp(0, 1).sqrt(), u.flip(-1)
    shared = torch.minimum(x.rank, y.rank).unsqueeze(-1)
    inside = torch.arange(rho.shape[-1], device=rho.device) < shared
    if bool((inside & (rho < least)).any()):
        return canonical(x, y, cross)
    rho = rho * inside
    return CCA(rho, x, y, u, cross.mT @ (u / rho.clamp(min=least).unsqueeze(-2)))


def _norm_matrix(layers: list[Tensor], metric: str) -> Tensor:
    """CKA (Frobenius norm of the cross products) or Procrustes (nuclear norm) of all pairs."""
    width = max(a.shape[1] for a in layers)
    if metric == "procrustes":
        layers = [a / torch.linalg.matrix_norm(a) for a in layers]
    else:
        layers = [a / torch.linalg.matrix_norm(a.mT @ a).sqrt() for a in layers]
    stacked = torch.stack([torch.nn.functional.pad(a, (0, width - a.shape[1])) for a in layers])
    m = len(layers)
    value = torch.eye(m, dtype=stacked.dtype, device=stacked.device)
    for i in range(m - 1):
        cross = stacked[i].mT @ stacked[i + 1 :]
        row = cross.square().sum((1, 2)) if metric == "linear_cka" else torch.linalg.svdvals(cross).sum(1)
        value[i, i + 1 :] = value[i + 1 :, i] = row
    return value


def noise_floor(
    x: Array,
    y: Array,
    metric: Metric | Callable[[Array, Array], Tensor] = "pwcca",
    n_perm: int = 10,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Float[Tensor, " n_perm"]:
    """What chance alone gives: the similarity of `x` and `y` after shuffling the observations of `y`.

    The mean is the floor that layers of these ranks and this number of observations cannot fall below; the share of
    values at or above the observed similarity is a permutation p-value.

    Args:
        x, y: activations ``[n, dx]`` and ``[n, dy]``.
        metric: a name, or a function of two matrices.
        n_perm: permutations.
        generator: of the permutations (on the CPU).
        options: for the metric (`side`, `weight`, `keep`, `tol`).

    >>> floor = noise_floor(torch.randn(400, 20), torch.randn(400, 20), "mean_cca", 5)
    >>> bool((0.05 < floor).all() and (floor < 0.3).all())
    True
    """
    if n_perm < 1:
        raise ValueError(f"give at least one permutation: got {n_perm}")
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    if x.shape[-2] != y.shape[-2]:
        raise ValueError(f"the layers saw {x.shape[-2]} and {y.shape[-2]} observations: give the same ones")
    orders = torch.stack([torch.randperm(len(y), generator=generator) for _ in range(n_perm)]).to(y.device)
    if callable(metric):
        return torch.stack([torch.as_tensor(metric(x, y[order], **options)).double() for order in orders])
    if metric not in METRICS:
        raise ValueError(f"metric is a function or one of {', '.join(METRICS)}: got {metric!r}")
    if metric in ("linear_cka", "procrustes"):
        return METRICS[metric](x.expand(n_perm, *x.shape), y[orders], **options)
    tol = options.pop("tol", 1e-6)
    keep = options.pop("keep", 0.99) if metric == "svcca" else 1.0
    one, other = basis(x, tol, keep, "x"), basis(y, tol, keep, "y")
    # A shuffled basis is the basis of the shuffled layer: no further decomposition of activations.
    assert one.q is not None
    assert other.q is not None
    pair = canonical(one, other, one.q.mT @ other.q[orders])
    return pair.projection_weighted(**options) if metric == "pwcca" else pair.mean()


def cluster_networks(
    distances: Float[Tensor, "m m"] | Float[np.ndarray, "m m"], n_clusters: int, method: str = "average"
) -> Int64[Tensor, " m"]:
    """Groups of networks by hierarchical clustering of their distances.

    Args:
        distances: symmetric, zero on the diagonal, not negative.
        n_clusters: where the tree is cut, 1..m.
        method: linkage, as `scipy.cluster.hierarchy.linkage` names it.

    Returns:
        the cluster of every network, 0..n_clusters - 1.

    >>> d = torch.tensor([[0.0, 1, 5], [1, 0, 5], [5, 5, 0]])
    >>> cluster_networks(d, 2).tolist()
    [0, 0, 1]
    """
    from scipy.cluster.hierarchy import cut_tree, linkage
    from scipy.spatial.distance import squareform

    d = torch.as_tensor(distances).detach().cpu().double()
    m = len(d)
    if not bool(torch.isfinite(d).all()):
        raise ValueError("distances hold NaN or infinite values: leave out the networks that diverged")
    if (
        bool((d < -1e-9).any())
        or bool((d - d.mT).abs().max() > 1e-9)
        or bool(d.diagonal().abs().max() > 1e-9)
    ):
        raise ValueError("distances must be symmetric and not negative with a diagonal of zeros")
    if not 1 <= n_clusters <= m:
        raise ValueError(f"n_clusters lies in 1..{m}: got {n_clusters}")
    if m == 1:
        return torch.zeros(1, dtype=torch.int64)
    d = ((d + d.mT) / 2).clamp(min=0).fill_diagonal_(0)
    tree = linkage(squareform(d.numpy(), checks=False), method)
    return torch.from_numpy(cut_tree(tree, n_clusters)[:, 0].astype(np.int64))
