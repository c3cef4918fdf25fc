r"""The path of an optimiser, seen in the two directions in which it varies most.

Two random directions are nearly orthogonal to any path, so a path projected on them is a blob. Principal components of
the path's own points show it. But a random walk in many dimensions, too, puts most of its variance on two components:
$6/\pi^2=60.8\,\%$ and a quarter of it, $15.2\,\%$, together 76 % (`random_walk_null`). A path is remarkable only beyond
that.

Source: Li et al. 2018 (arXiv 1712.09913), section 7; the null: Antognini & Sohl-Dickstein 2018 (arXiv 1806.08805).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from assay.analysis.landscape import Direction

Checkpoint = nn.Module | Mapping[str, Tensor] | Tensor
"""A module, a dict of named tensors (a state_dict), or a flat vector."""


@dataclass(frozen=True)
class Plane:
    """A plane through the last checkpoint that holds as much of the path as two directions can."""

    d1: Direction
    d2: Direction
    """Unit directions, by parameter name: for `assay.analysis.landscape.loss_plane`."""
    path: Float[Tensor, "n 2"]
    """Where each checkpoint falls on the plane; the last one at (0, 0)."""
    distance: Float[Tensor, " n"]
    """How far each checkpoint is from the plane: its loss is not the contour's under it."""
    alphas: tuple[float, float]
    betas: tuple[float, float]
    """Lowest and highest position that cover the path, with a margin."""


class TrajectoryPCA:
    r"""Principal components of the matrix $[\theta_0-\theta_n;\ldots;\theta_{n-1}-\theta_n]$ of an optimisation path.

    Centred and scaled as `sklearn.decomposition.PCA`, in float64.

    Args:
        n_components: how many directions are kept.
        names: parameters to look at; by default all floating-point parameters (of a module), or all floating-point
            entries of a dict except running statistics of batch norm.

    Attributes:
        components_: unit directions, ``[n_components, dim]``.
        explained_variance_ratio_: share of the path's variance, ``[n_components]``.
        mean_: of the rows, relative to the last checkpoint, ``[dim]``.

    >>> steps = torch.randn(20, 300, generator=torch.Generator().manual_seed(0))
    >>> pca = TrajectoryPCA().fit(list(steps.cumsum(0)))
    >>> pca.project(steps.cumsum(0)[-1]).abs().max().item() < 1e-5
    True
    """

    components_: Float[Tensor, "components dim"]
    explained_variance_ratio_: Float[Tensor, " components"]
    mean_: Float[Tensor, " dim"]

    def __init__(self, n_components: int = 2, names: Collection[str] | None = None):
        if n_components < 1:
            raise ValueError(f"n_components must be at least 1: got {n_components}")
        self.n_components = n_components
        self.names = None if names is None else tuple(names)

    def fit(self, checkpoints: Sequence[Checkpoint] | Float[Tensor, "n dim"]) -> "TrajectoryPCA":
        """Find the components of a path.

        Args:
            checkpoints: from first to last: modules, state_dicts or flat vectors, at least n_components + 2 of them.

        Raises:
            ValueError: too few checkpoints, checkpoints of different structure, or a path that does not move.
        """
        if len(checkpoints) < self.n_components + 2:
            raise ValueError(
                f"{self.n_components} components need at least {self.n_components + 2} checkpoints: "
                f"got {len(checkpoints)}"
            )
        self.__dict__.pop("_end", None)
        self._shapes: dict[str, torch.Size] | None = None
        self._shapes = self._layout(checkpoints[-1])
        self._end = self._flat(checkpoints[-1])
        rows = torch.stack([self._flat(c) for c in checkpoints[:-1]]) - self._end
        self._path = torch.cat([rows, torch.zeros_like(rows[:1])])
        self.mean_ = rows.mean(0)
        centred = rows - self.mean_
        # Few points in many dimensions: the eigenvectors of the small matrix of products give the directions.
        variance, weights = torch.linalg.eigh(centred @ centred.T)
        variance = variance.flip(0).clamp(min=0)
        if not variance.sum() > 0:
            raise ValueError("the path does not move: all checkpoints but the last are equal")
        along = centred.T @ weights.flip(1)[:, : self.n_components]
        # Columns are orthogonal already, but for components without variance, which QR completes.
        basis, upper = torch.linalg.qr(along)
        self.components_ = (basis * torch.where(upper.diagonal() < 0, -1.0, 1.0)).T.contiguous()
        self.explained_variance_ratio_ = variance[: self.n_components] / variance.sum()
        return self

    def project(self, checkpoint: Checkpoint) -> Float[Tensor, " components"]:
        """Coordinates of a checkpoint: its step from the last one, dotted with each unit direction."""
        end = self._fitted()
        return self.components_ @ (self._flat(checkpoint) - end)

    def distance(self, checkpoint: Checkpoint) -> float:
        """Distance of a checkpoint from the plane of the components through the last one."""
        end = self._fitted()
        gap = self._flat(checkpoint) - end
        return (gap - self.components_.T @ (self.components_ @ gap)).norm().item()

    def plane(self, margin: float = 0.2) -> Plane:
        """The plane of the first two components, with the path on it.

        Args:
            margin: how far the ranges reach beyond the path, as a share of its extent.

        Raises:
            ValueError: fitted with fewer than two components, or to flat vectors (which name no parameters).
        """
        self._fitted()
        if len(self.components_) < 2:
            raise ValueError("a plane needs two components: TrajectoryPCA(n_components=2)")
        if self._shapes is None:
            raise ValueError(
                "checkpoints were flat vectors: fit modules or state_dicts to get named directions"
            )
        two = self.components_[:2]
        path = self._path @ two.T
        off = (self._path - path @ two).norm(dim=1)
        low, high = path.amin(0), path.amax(0)
        extra = margin * (high - low).clamp(min=1e-12)
        ranges = [((a).item(), (b).item()) for a, b in zip(low - extra, high + extra, strict=True)]
        return Plane(self._named(two[0]), self._named(two[1]), path, off, ranges[0], ranges[1])

    def _fitted(self) -> Tensor:
        if not hasattr(self, "_end"):
            raise ValueError("not fitted yet: call fit(checkpoints) first")
        return self._end

    def _entries(self, checkpoint: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
        if isinstance(checkpoint, nn.Module):
            found = dict(checkpoint.named_parameters())
        else:
            found = {
                name: t
                for name, t in checkpoint.items()
                if t.is_floating_point() and not name.endswith(("running_mean", "running_var"))
            }
        wanted = self.names if self.names is not None else tuple(self._shapes or found)
        if missing := [name for name in wanted if name not in found]:
            raise ValueError(f"a checkpoint lacks {', '.join(missing[:4])}")
        return {name: found[name].detach() for name in wanted}

    def _layout(self, checkpoint: Checkpoint) -> dict[str, torch.Size] | None:
        if isinstance(checkpoint, Tensor):
            return None
        return {name: t.shape for name, t in self._entries(checkpoint).items()}

    def _flat(self, checkpoint: Checkpoint) -> Tensor:
        if isinstance(checkpoint, Tensor):
            if checkpoint.dim() != 1:
                raise ValueError(
                    f"a checkpoint given as a tensor is a flat vector, not {tuple(checkpoint.shape)}"
                )
            flat = checkpoint.detach().double()
        else:
            flat = torch.cat([t.reshape(-1).double() for t in self._entries(checkpoint).values()])
        flat = flat.cpu()
        if hasattr(self, "_end") and flat.shape != self._end.shape:
            raise ValueError(f"a checkpoint has {len(flat)} entries, the last one {len(self._end)}")
        return flat

    def _named(self, vector: Tensor) -> Direction:
        assert self._shapes is not None
        parts = vector.split([shape.numel() for shape in self._shapes.values()])
        return {
            name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }


def random_walk_null(
    step_norms: Float[Tensor, " steps"] | Sequence[float],
    dim: int,
    seed: int | torch.Generator = 0,
    n_components: int = 2,
) -> Float[Tensor, " n_components"]:
    r"""What `TrajectoryPCA` finds in a random walk: the share of variance on each leading component.

    Many equal steps in many dimensions tend to $6/(\pi^2k^2)$ for component k: 60.8 %, 15.2 %, 6.8 %, ...

    Args:
        step_norms: lengths of the steps, as those of the path that is compared; directions are uniform.
        dim: of the space.
        seed: or a generator.
        n_components: how many shares.

    Raises:
        ValueError: too few steps.
    """
    norms = torch.as_tensor(step_norms, dtype=torch.float64).cpu()
    generator = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    steps = torch.randn(len(norms), dim, generator=generator, dtype=torch.float64)
    steps *= (norms / steps.norm(dim=1).clamp(min=1e-300))[:, None]
    walk = torch.cat([torch.zeros(1, dim, dtype=torch.float64), steps.cumsum(0)])
    return TrajectoryPCA(n_components).fit(walk).explained_variance_ratio_
