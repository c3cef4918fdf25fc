r"""How alike are two layers? Canonical correlations and their relatives, on matrices of activations.

A layer is what its neurons say about a fixed set of inputs: a matrix with observations in rows and neurons in
columns. Two layers may differ in their number of neurons but must have seen the same inputs in the same order. With
orthonormal bases $Q_x, Q_y$ of the centred columns,

$$Q_x^\top Q_y=U\,\mathrm{diag}(\rho)\,V^\top,\qquad H=Q_xU,$$

the $\rho_i$ are the canonical correlations and the columns of $H$ the canonical vectors. They do not change under any
invertible linear map or offset of either layer. What differs between the measures is how the $\rho_i$ are averaged:

- `mean_cca`: all alike, so that unused directions (noise) count as much as used ones;
- `svcca`: all alike, after dropping the directions that hold little variance (Raghu et al. 2017, arXiv 1706.05806);
- `pwcca`: by how much of the neurons' activity $h_i$ accounts for, $\alpha_i\propto\sum_j|\langle h_i,x_j\rangle|$
  (Morcos et al. 2018, arXiv 1806.05759, Section 3).

`linear_cka` (Kornblith et al. 2019, arXiv 1905.00414) and `procrustes` (Ding et al. 2021, arXiv 2108.01661) are
invariant to rotations and one scale only. Everything is computed in float64 from singular vectors of the activations,
never from an inverted covariance, is differentiable, and takes leading batch axes.
"""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

Side = Literal["x", "y", "smaller", "mean"]
Weight = Literal["l1", "variance"]
Array = Float[Tensor, "..."] | Float[np.ndarray, "..."]


@dataclass(frozen=True)
class Basis:
    """The column space of one layer's centred activations, padded with zeros where ranks differ in a batch."""

    loadings: Float[Tensor, "*batch r d"]
    """Inner products of basis vectors with centred neurons, $Q^\\top X$."""
    coefficients: Float[Tensor, "*batch d r"]
    """$Q = X\\,$`coefficients`, for centred $X$."""
    rank: Int64[Tensor, "*batch"]
    """Directions kept."""
    q: Float[Tensor, "*batch n r"] | None = None
    """The orthonormal basis; None if only co-moments are known."""


def centred(x: Array, name: str = "x") -> Float[Tensor, "*batch n d"]:
    """`x` in float64 with its column means taken off.

    Raises:
        TypeError: not a floating tensor or array.
        ValueError: fewer than two axes or observations, NaN or infinite values, or every neuron constant.
    """
    x = torch.as_tensor(x)
    if not x.is_floating_point():
        raise TypeError(f"activations {name} must be floating point: got {x.dtype}")
    if x.ndim < 2 or x.shape[-2] < 2 or x.shape[-1] < 1:
        raise ValueError(
            f"activations {name} are observations by neurons, at least 2 by 1: got {tuple(x.shape)}"
        )
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"activations {name} hold NaN or infinite values: drop that network or observation")
    x = x.double()
    size = x.detach().abs().amax((-2, -1))
    x = x - x.mean(-2, keepdim=True)
    if not bool((x.detach().abs().amax((-2, -1)) > 1e-12 * size).all()):
        raise ValueError(f"all neurons of {name} are constant: such a layer cannot be compared")
    return x


def basis(x: Array, tol: float = 1e-6, keep: float = 1.0, name: str = "x") -> Basis:
    """An orthonormal basis of the centred columns of `x`, by a thin singular value decomposition.

    Args:
        x: activations ``[..., n, d]``.
        tol: directions with $s_i\\le$ `tol` $\\cdot s_1$ are dropped (dead and duplicate neurons).
        keep: the leading directions that hold this share of the variance $\\sum s^2$ are kept (1: all).
        name: what errors call it.

    Raises:
        ValueError: see `centred`; or no more observations than neurons (for `keep` < 1: than directions kept), where
            every canonical correlation is 1 whatever the data. Fewer than five observations a neuron bring a warning.
    """
    if not (0 < keep <= 1 and 0 <= tol < 1):
        raise ValueError(f"keep lies in (0, 1] and tol in [0, 1): got {keep} and {tol}")
    x = centred(x, name)
    n, d = x.shape[-2:]
    if keep == 1:
        _enough(n, d, f"{name} has {d} neurons", "more data, pooling of positions, or svcca")
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    held = s.detach()
    kept = held > tol * held[..., :1]
    if keep < 1:
        energy = held.square().cumsum(-1) / held.square().sum(-1, keepdim=True)
        # A direction stays while those before it do not yet hold the share.
        before = torch.cat([torch.zeros_like(energy[..., :1]), energy[..., :-1]], -1)
        kept &= before < keep
        most = int(kept.sum(-1).max())
        _enough(n, most, f"{name} keeps {most} directions", "more data or a smaller `keep`")
    rank = kept.sum(-1)
    width = int(rank.max())
    u, s, vh, kept = u[..., :width], s[..., :width], vh[..., :width, :], kept[..., :width]
    inverse = torch.where(kept, 1 / torch.where(kept, s, torch.ones_like(s)), torch.zeros_like(s))
    return Basis(
        loadings=(s * kept).unsqueeze(-1) * vh,
        coefficients=vh.mT * inverse.unsqueeze(-2),
        rank=rank,
        q=u * kept.unsqueeze(-2),
    )


def _enough(n: int, d: int, what: str, advice: str) -> None:
    if n <= d + 1:  # centring takes one dimension
        raise ValueError(
            f"{n} observations are too few: {what}, and with n <= d + 1 canonical correlations are 1 for any data; "
            f"use {advice}"
        )
    if n < 5 * d:
        warnings.warn(
            f"{n} observations for {d} directions: correlations are biased upwards, aim at 10 a direction",
            stacklevel=4,
        )


@dataclass(frozen=True)
class CCA:
    """Canonical correlations of two layers, and what the means over them need.

    In a batch whose ranks differ, `rho` and the directions are padded with zeros beyond the smaller rank.
    """

    rho: Float[Tensor, "*batch k"]
    """Correlations in falling order, k = the smaller rank."""
    x: Basis
    y: Basis
    u: Float[Tensor, "*batch rx k"]
    """Canonical vectors in the basis of x."""
    v: Float[Tensor, "*batch ry k"]

    @property
    def rank_x(self) -> Int64[Tensor, "*batch"]:
        """Directions that x uses."""
        return self.x.rank

    @property
    def rank_y(self) -> Int64[Tensor, "*batch"]:
        """Directions that y uses."""
        return self.y.rank

    @property
    def x_dirs(self) -> Float[Tensor, "*batch n k"]:
        """Canonical vectors of x, orthonormal columns."""
        return _directions(self.x, self.u)

    @property
    def y_dirs(self) -> Float[Tensor, "*batch n k"]:
        """Canonical vectors of y; `x_dirs.mT @ y_dirs` is diagonal with `rho` on it."""
        return _directions(self.y, self.v)

    @property
    def x_coefficients(self) -> Float[Tensor, "*batch dx k"]:
        """Centred x times these are `x_dirs`; they apply to new observations too."""
        return self.x.coefficients @ self.u

    @property
    def y_coefficients(self) -> Float[Tensor, "*batch dy k"]:
        """The same for y."""
        return self.y.coefficients @ self.v

    def mean(self, distance: bool = False) -> Float[Tensor, "*batch"]:
        """The plain mean of `rho` over the smaller rank."""
        value = self.rho.sum(-1) / torch.minimum(self.rank_x, self.rank_y)
        return 1 - value if distance else value

    def weights(self, side: Literal["x", "y"] = "x", weight: Weight = "l1") -> Float[Tensor, "*batch k"]:
        """How much of the neurons' activity of `side` each canonical vector accounts for; they sum to 1.

        "l1" is the paper's $\\sum_j|\\langle h_i,x_j\\rangle|$, "variance" takes squares in place of magnitudes: the
        share of the variance that $h_i$ explains.
        """
        if weight not in ("l1", "variance"):
            raise ValueError(f"weight is 'l1' or 'variance': got {weight!r}")
        loadings = self.u.mT @ self.x.loadings if side == "x" else self.v.mT @ self.y.loadings
        size = (loadings.abs() if weight == "l1" else loadings.square()).sum(-1)
        k = torch.minimum(self.rank_x, self.rank_y)
        size = size * (torch.arange(size.shape[-1], device=size.device) < k.unsqueeze(-1))
        return size / size.sum(-1, keepdim=True)

    def projection_weighted(
        self, side: Side = "smaller", weight: Weight = "l1", distance: bool = False
    ) -> Float[Tensor, "*batch"]:
        """The mean of `rho` under `weights`; see `pwcca`."""
        if side not in ("x", "y", "smaller", "mean"):
            raise ValueError(f"side is 'x', 'y', 'smaller' or 'mean': got {side!r}")
        by_x = by_y = self.rho.new_zeros(())
        if side != "y":
            by_x = (self.rho * self.weights("x", weight)).sum(-1)
        if side != "x":
            by_y = (self.rho * self.weights("y", weight)).sum(-1)
        if side == "smaller":
            value = torch.where(self.rank_x <= self.rank_y, by_x, by_y)
        else:
            value = by_x if side == "x" else by_y if side == "y" else (by_x + by_y) / 2
        return 1 - value if distance else value


def _directions(side: Basis, rotation: Tensor) -> Tensor:
    if side.q is None:
        raise ValueError(
            "co-moments do not hold the observations: apply x_coefficients to centred activations"
        )
    return side.q @ rotation


def canonical(x: Basis, y: Basis, cross: Float[Tensor, "*batch rx ry"] | None = None) -> CCA:
    """Canonical correlations from two bases (`cross`: their inner products, if they are known already)."""
    if cross is None:
        if x.q is None or y.q is None:
            raise ValueError("bases without observations need their inner products: give `cross`")
        if x.q.shape[-2] != y.q.shape[-2]:
            raise ValueError(
                f"the layers saw {x.q.shape[-2]} and {y.q.shape[-2]} observations: record both on the same inputs"
            )
        cross = x.q.mT @ y.q
    u, rho, vh = torch.linalg.svd(cross, full_matrices=False)
    return CCA(rho.clamp(0, 1), x, y, u, vh.mT)


def cca(x: Array, y: Array, tol: float = 1e-6) -> CCA:
    """Canonical correlation analysis of two layers.

    Args:
        x, y: activations ``[..., n, dx]`` and ``[..., n, dy]`` of the same observations in the same order; n well
            above dx and dy (ten times is a good rule).
        tol: directions whose singular value is below `tol` times the largest are dropped.

    Returns:
        a `CCA` with `rho`, `x_dirs`, `y_dirs`, `rank_x`, `rank_y`.

    Raises:
        ValueError: n <= d + 1, NaN, all neurons constant, or unequal numbers of observations.

    >>> x = torch.randn(200, 5)
    >>> cca(x, x @ torch.randn(5, 5) + 3).rho.round(decimals=6).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    return canonical(basis(x, tol, name="x"), basis(y, tol, name="y"))


def mean_cca(x: Array, y: Array, tol: float = 1e-6, distance: bool = False) -> Float[Tensor, "*batch"]:
    """The plain mean of the canonical correlations: similarity in 0..1 (`distance`: 1 minus it).

    Arguments and errors as of `cca`. Directions that carry only noise count as much as any other.
    """
    return cca(x, y, tol).mean(distance)


def svcca(
    x: Array, y: Array, keep: float = 0.99, tol: float = 1e-6, distance: bool = False
) -> Float[Tensor, "*batch"]:
    """Mean canonical correlation of the leading singular directions of both layers.

    Args:
        x, y: activations ``[..., n, dx]`` and ``[..., n, dy]``; n may be below d as long as fewer directions than n are
            kept.
        keep: share of the variance ($\\sum s^2$, not $\\sum s$) that the kept directions hold.
        tol, distance: as of `mean_cca`.

    Raghu et al. 2017, arXiv 1706.05806, Section 2.
    """
    return canonical(basis(x, tol, keep, "x"), basis(y, tol, keep, "y")).mean(distance)


def pwcca(
    x: Array,
    y: Array,
    side: Side = "smaller",
    weight: Weight = "l1",
    tol: float = 1e-6,
    distance: bool = False,
) -> Float[Tensor, "*batch"]:
    """Projection-weighted CCA: canonical correlations averaged by how much of the activity they account for.

    $\\rho_{PW}=\\sum_i\\alpha_i\\rho_i$ with $\\alpha_i\\propto\\sum_j|\\langle h_i,x_j\\rangle|$, $x_j$ the centred
    neurons of one side. It is therefore not symmetric, and although every $\\rho_i$ is blind to the neurons' scales,
    the weights are not: a louder neuron counts more. Where several $\\rho_i$ are equal their vectors are any basis of
    one subspace, and the L1 weights depend on which; those of "variance" do not.

    Args:
        x, y: activations as of `cca`.
        side: whose neurons weigh: "x", "y", "smaller" (the side of smaller rank, x if equal; what the authors'
            release does), or "mean" of both (symmetric).
        weight: "l1" as in the paper, or "variance" (squares in place of magnitudes).
        tol: as of `cca`.
        distance: return 1 minus the similarity.

    Errors as of `cca`. Morcos, Raghu & Bengio 2018, arXiv 1806.05759, Section 3.

    >>> signal = torch.randn(1000, 3)
    >>> x, y = (torch.cat([signal, 0.01 * torch.randn(1000, 9)], 1) for _ in range(2))
    >>> bool(pwcca(x, y) > 0.9), bool(mean_cca(x, y) < 0.5)
    (True, True)
    """
    return canonical(basis(x, tol, name="x"), basis(y, tol, name="y")).projection_weighted(
        side, weight, distance
    )


def linear_cka(x: Array, y: Array, debiased: bool = False, distance: bool = False) -> Float[Tensor, "*batch"]:
    """Linear centred kernel alignment, $\\|Y^\\top X\\|_F^2/(\\|X^\\top X\\|_F\\|Y^\\top Y\\|_F)$.

    Invariant to rotations and a common scale, not to every linear map, and meaningful for n < d. Its plain form is
    biased upwards for few observations; `debiased` puts the unbiased estimator of each inner product of centred Gram
    matrices in its place (Song et al. 2012; it may fall slightly below 0; n >= 4).

    Kornblith et al. 2019, arXiv 1905.00414, Section 3.
    """
    x, y = _both(x, y)
    if not debiased:
        cross, own_x, own_y = ((a.mT @ b).square().sum((-2, -1)) for a, b in ((x, y), (x, x), (y, y)))
        value = cross / (own_x * own_y).sqrt()
    else:
        if x.shape[-2] < 4:
            raise ValueError(f"the unbiased estimator needs at least 4 observations: got {x.shape[-2]}")
        value = _unbiased_hsic(x, y) / (_unbiased_hsic(x, x) * _unbiased_hsic(y, y)).sqrt()
    return 1 - value if distance else value


def _unbiased_hsic(x: Tensor, y: Tensor) -> Tensor:
    """The estimator of Song et al. without forming n x n matrices (K and L have their diagonals removed)."""
    n = x.shape[-2]
    kk, ll = x.square().sum(-1), y.square().sum(-1)  # the removed diagonals
    k1 = (x @ x.sum(-2).unsqueeze(-1)).squeeze(-1) - kk
    l1 = (y @ y.sum(-2).unsqueeze(-1)).squeeze(-1) - ll
    trace = (x.mT @ y).square().sum((-2, -1)) - (kk * ll).sum(-1)
    means = k1.sum(-1) * l1.sum(-1) / ((n - 1) * (n - 2))
    return (trace + means - 2 * (k1 * l1).sum(-1) / (n - 2)) / (n * (n - 3))


def procrustes(x: Array, y: Array, distance: bool = False) -> Float[Tensor, "*batch"]:
    """How well one layer can be rotated onto the other: $\\|X^\\top Y\\|_*$ of centred activations of unit norm.

    Similarity in 0..1; the distance, 1 minus it, is half of the orthogonal Procrustes distance of Ding et al. 2021
    (arXiv 2108.01661, Section 2).
    """
    x, y = _both(x, y)
    x, y = (a / torch.linalg.matrix_norm(a, keepdim=True) for a in (x, y))
    value = torch.linalg.svdvals(x.mT @ y).sum(-1)
    return 1 - value if distance else value


def _both(x: Array, y: Array) -> tuple[Tensor, Tensor]:
    x, y = centred(x, "x"), centred(y, "y")
    if x.shape[-2] != y.shape[-2]:
        raise ValueError(
            f"the layers saw {x.shape[-2]} and {y.shape[-2]} observations: record both on the same inputs"
        )
    return x, y


class StreamingCCA:
    """CCA of activations that do not fit into memory: co-moments are gathered in float64, chunk by chunk.

    Means and co-moments are merged by the parallel formula of Chan et al., so offsets do no harm. Squared singular
    values are all it sees, so directions below about `1e-7` of the largest cannot be told from none.

    Args:
        d1, d2: neurons of the two layers.
        device: where the co-moments lie.

    >>> x, y = torch.randn(500, 4), torch.randn(500, 3)
    >>> stream = StreamingCCA(4, 3)
    >>> for rows in torch.arange(500).split(100): stream.update(x[rows], y[rows])
    >>> bool((stream.result().rho - cca(x, y).rho).abs().max() < 1e-8)
    True
    """

    def __init__(self, d1: int, d2: int, device: torch.device | str = "cpu"):
        if min(d1, d2) < 1:
            raise ValueError(f"both layers need at least one neuron: got {d1} and {d2}")
        self.d1, self.d2, self.n = d1, d2, 0
        self._mean = torch.zeros(d1 + d2, dtype=torch.float64, device=device)
        self._moment = torch.zeros(d1 + d2, d1 + d2, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, x: Array, y: Array) -> None:
        """Add observations: ``[m, d1]`` and ``[m, d2]``, row by row the same."""
        x, y = (torch.as_tensor(a, device=self._mean.device).double() for a in (x, y))
        if x.shape != (len(y), self.d1) or y.shape != (len(x), self.d2):
            raise ValueError(
                f"give [m, {self.d1}] and [m, {self.d2}] of the same m: got {tuple(x.shape)} and {tuple(y.shape)}"
            )
        both = torch.cat([x, y], 1)
        if not bool(torch.isfinite(both).all()):
            raise ValueError("the activations hold NaN or infinite values: drop that network or observation")
        m = len(both)
        if m == 0:
            return
        mean = both.mean(0)
        both = both - mean
        step = mean - self._mean
        self._moment += both.mT @ both + torch.outer(step, step) * (self.n * m / (self.n + m))
        self._mean += step * (m / (self.n + m))
        self.n += m

    def result(self, tol: float = 1e-6, keep: float = 1.0) -> CCA:
        """Correlations and coefficients of all that was seen; `keep` < 1 as in `svcca`.

        `result().projection_weighted()` is `pwcca`, `result().mean()` is `mean_cca`. Canonical vectors are not held:
        apply `x_coefficients` to centred activations.
        """
        d1 = self.d1
        x = self._side(self._moment[:d1, :d1], tol, keep, "x")
        y = self._side(self._moment[d1:, d1:], tol, keep, "y")
        return canonical(x, y, x.coefficients.mT @ self._moment[:d1, d1:] @ y.coefficients)

    def _side(self, moment: Tensor, tol: float, keep: float, name: str) -> Basis:
        values, vectors = torch.linalg.eigh(moment)
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        if not bool(values[0] > 0):
            raise ValueError(f"all neurons of {name} are constant: such a layer cannot be compared")
        kept = values > tol**2 * values[0]
        if keep < 1:
            share = values.cumsum(0) / values.sum()
            kept &= torch.cat([share.new_zeros(1), share[:-1]]) < keep
        rank = int(kept.sum())
        width = rank if keep < 1 else len(values)
        _enough(self.n, width, f"{name} has {width} neurons", "more data, pooling of positions, or svcca")
        size, vectors = values[:rank].sqrt(), vectors[:, :rank]
        return Basis(size.unsqueeze(1) * vectors.mT, vectors / size, kept.sum())
