r"""Extreme eigenvalues of the full Hessian, and maps of them over a plane.

No Hessian is built: Lanczos iterations (`scipy.sparse.linalg.eigsh`) on Hessian-vector products, each one more backward
pass through the gradient's graph. $|\lambda_{\min}/\lambda_{\max}|$ near 0 says that a place is nearly convex.

Source: Li et al. 2018 (arXiv 1712.09913), section 6; Pearlmutter 1994 for the products.
"""

import copy
from collections.abc import Collection, Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from assay.analysis.landscape import (
    Data,
    Direction,
    LossFn,
    Positions,
    _batches,
    _fit,
    _grid,
    _inputs,
    _parameters,
)

_DENSE = 24  # parameters up to which the Hessian is built: Lanczos needs some room


class _Products:
    """Hessian-vector products of a loss at one place, by flat numpy vectors."""

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        data: Data,
        names: Collection[str] | None,
        params: Direction,
        buffers: Direction,
    ):
        chosen = list(params) if names is None else list(names)
        if not chosen or (unknown := [name for name in chosen if name not in params]):
            listed = ", ".join(unknown) if chosen else "none"
            raise ValueError(f"no such parameters: {listed} (the model has {', '.join(params)})")
        leaves = {name: p.clone().requires_grad_(name in chosen) for name, p in params.items()}
        self.leaves = [leaves[name] for name in chosen]
        batches = _batches(data)
        everything = sum(len(y) for _, y in batches)
        loss = torch.zeros((), dtype=self.leaves[0].dtype, device=self.leaves[0].device)
        for x, y in batches:
            outputs = functional_call(model, (leaves, buffers), _inputs(x))
            loss = loss + loss_fn(outputs, y) * (len(y) / everything)
        grads = torch.autograd.grad(loss, self.leaves, create_graph=True, materialize_grads=True)
        self.gradient = torch.cat([g.reshape(-1) for g in grads])
        self.size = self.gradient.numel()

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        along = torch.as_tensor(np.asarray(vector, dtype=np.float64).reshape(-1)).to(self.gradient)
        if not self.gradient.requires_grad:
            return np.zeros(self.size)
        parts = torch.autograd.grad(
            self.gradient, self.leaves, along, retain_graph=True, materialize_grads=True
        )
        return torch.cat([p.reshape(-1) for p in parts]).double().cpu().numpy()


def _extremes(products: _Products, tolerance: float) -> tuple[float, float]:
    n = products.size
    if n <= _DENSE:
        dense = np.stack([products(row) for row in np.eye(n)])
        values = np.linalg.eigvalsh((dense + dense.T) / 2)
        return float(values[0]), float(values[-1])
    from scipy.sparse.linalg import LinearOperator, eigsh

    operator = LinearOperator((n, n), matvec=products, dtype=np.float64)
    # A fixed start: the same place gives the same numbers.
    start = np.random.default_rng(0).standard_normal(n)
    if not np.any(products(start)):
        return 0.0, 0.0
    low, high = (
        float(eigsh(operator, k=1, which=which, v0=start, tol=tolerance, return_eigenvectors=False)[0])
        for which in ("SA", "LA")
    )
    return low, high


def _frozen(model: nn.Module) -> tuple[nn.Module, Direction, Direction]:
    skeleton = copy.deepcopy(model).eval().requires_grad_(False)
    return skeleton, _parameters(model), {name: b.detach().clone() for name, b in model.named_buffers()}


def hessian_extremes(
    model: nn.Module,
    loss_fn: LossFn,
    batch: Data,
    names: Collection[str] | None = None,
    tolerance: float = 1e-8,
) -> tuple[float, float]:
    """The smallest and the largest eigenvalue of the loss's Hessian at the model's parameters.

    The model is evaluated in evaluation mode (running statistics stay) and left as it is.

    Args:
        model, loss_fn, batch: as in `assay.analysis.landscape.loss_line`; the loss must be 0-d.
        names: parameters to which the Hessian is restricted; all by default.
        tolerance: relative accuracy of the eigenvalues (what float32 products allow is about 1e-4).

    Raises:
        ValueError: unknown names.
        scipy.sparse.linalg.ArpackNoConvergence: no convergence; raise `tolerance`.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> low, high = hessian_extremes(model, nn.functional.mse_loss, (torch.ones(4, 1), torch.zeros(4, 1)))
    >>> round(high, 6)
    2.0
    """
    return _extremes(_Products(*_at(model, loss_fn, batch, names)), tolerance)


def _at(
    model: nn.Module, loss_fn: LossFn, batch: Data, names: Collection[str] | None
) -> tuple[nn.Module, LossFn, Data, Collection[str] | None, Direction, Direction]:
    skeleton, params, buffers = _frozen(model)
    return skeleton, loss_fn, batch, names, params, buffers


def convexity_map(
    model: nn.Module,
    loss_fn: LossFn,
    batch: Data,
    d1: Mapping[str, Tensor],
    d2: Mapping[str, Tensor],
    alphas: Positions = 51,
    betas: Positions = 51,
    names: Collection[str] | None = None,
    tolerance: float = 1e-3,
) -> Float[Tensor, "n m 2"]:
    r"""Extremes of the *full* Hessian at every point of the plane $\theta^*+\alpha d_1+\beta d_2$.

    The paper's picture is $|\lambda_{\min}/\lambda_{\max}|$ of the result: a plane may look convex where the
    space around it is not. Costs some 50 to 200 Hessian-vector products a point.

    Args:
        d1, d2, alphas, betas: as in `assay.analysis.landscape.loss_plane`.
        model, loss_fn, batch, names, tolerance: as in `hessian_extremes`.

    Returns:
        The smallest and the largest eigenvalue at each point.
    """
    skeleton, params, buffers = _frozen(model)
    first, second = _fit(model, d1, "the first direction"), _fit(model, d2, "the second direction")
    a, b = _grid(alphas, -1.0, 1.0, params, "alphas"), _grid(betas, -1.0, 1.0, params, "betas")
    found = torch.empty(len(a), len(b), 2, dtype=torch.float64)
    for i in range(len(a)):
        for j in range(len(b)):
            moved = {k: p + a[i] * first[k] + b[j] * second[k] for k, p in params.items()}
            products = _Products(skeleton, loss_fn, batch, names, moved, buffers)
            found[i, j] = torch.tensor(_extremes(products, tolerance), dtype=torch.float64)
    return found
