r"""How new is an observation? Detectors of novelty behind one interface, and bonuses made of them.

`NoveltyDetector` works on anybody's data (`fit`, `partial_fit`, `score_samples`); `DensityBonus` and `KNNBonus` pay an
agent for what they find. They are what random network distillation should be held against: simpler, and easier to
understand.

`bayesian_linear_variance` is the closed form behind RND (Burda et al., arXiv 1810.12894, section 2.2.2): the error of a
linear predictor against random linear targets is, on average, the predictive variance of Bayesian regression.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from assay.envs.base import Obs
from assay.rl.intrinsic.base import IntrinsicReward
from assay.rl.intrinsic.rnd import RND
from assay.rl.nets import mlp
from assay.rl.normalize import RunningMeanStd
from assay.rl.rollout import Rollout

METHODS = ("rnd", "knn", "kde", "pca")


class Reservoir:
    """A uniform sample of at most `size` rows of everything that was ever put in (Vitter 1985, algorithm R).

    >>> box = Reservoir(3)
    >>> box.put(torch.arange(10.0)[:, None]); len(box.rows)
    3
    """

    rows: Tensor
    """[n <= size, D]."""

    def __init__(self, size: int, generator: torch.Generator | None = None):
        if size < 1:
            raise ValueError(f"a memory holds at least one row: got {size}")
        self.size, self.generator = size, generator
        self.rows, self.seen = torch.zeros(0, 0), 0

    def put(self, x: Float[Tensor, "rows width"]) -> None:
        """Offer rows, one after the other."""
        if not len(x):
            return
        if not self.seen:
            self.rows = x[:0]
        room = max(0, self.size - len(self.rows))
        self.rows = torch.cat((self.rows, x[:room]))
        self.seen += min(room, len(x))
        late = x[room:]
        if not len(late):
            return
        # The row that arrives as number n replaces the one at a uniform place below n, if that is in the memory.
        number = torch.arange(self.seen + 1, self.seen + len(late) + 1, dtype=torch.float64, device=x.device)
        drawn = torch.rand(len(late), dtype=torch.float64, device=x.device, generator=self.generator)
        at = (drawn * number).long()
        kept = (at < self.size).nonzero().flatten()
        if len(kept):
            # Of several rows for one place the last stays.
            last = torch.full((self.size,), -1, device=x.device).scatter_reduce(0, at[kept], kept, "amax")
            rows = self.rows.clone()
            rows[last >= 0] = late[last[last >= 0]]
            self.rows = rows
        self.seen += len(late)


def nearest_distances(
    x: Float[Tensor, "queries width"], memory: Float[Tensor, "rows width"], k: int
) -> Float[Tensor, "queries k"]:
    """Euclidean distances to the k nearest rows (all of them, where there are fewer), ascending."""
    return torch.cdist(x, memory).topk(min(k, len(memory)), largest=False, sorted=True).values


class NoveltyDetector:
    r"""One interface to four ways of telling what is new.

    - `"rnd"`: error of a trained network against a random one;
    - `"knn"`: mean distance to the k nearest remembered rows;
    - `"kde"`: minus the log-density of a Gaussian kernel estimate over the remembered rows;
    - `"pca"`: squared distance to the span of the first principal components.

    As in scikit-learn, `score_samples` is LOW for what is new (so that it ranks as `KernelDensity`'s and
    `IsolationForest`'s do); `novelty` is its negative. Rows may have any shape; they are flattened and whitened by the
    statistics of the data seen.

    Args:
        method: see above.
        k: neighbours ("knn"), components ("pca"), or features of the target ("rnd").
        memory: rows remembered ("knn", "kde").
        bandwidth: of the kernel, in standard deviations of the data ("kde"); None: Scott's rule.
        hidden: units of the networks ("rnd").
        epochs: passes over the data of `fit`, and of each `partial_fit` ("rnd").
        batch: rows of a step ("rnd").
        lr: Adam's ("rnd").
        clip: whitened values are cut to [-clip, clip].
        seed: of everything drawn.

    >>> detector = NoveltyDetector("knn", k=3).fit(np.random.default_rng(0).normal(size=(200, 5)))
    >>> bool(detector.novelty(np.full((1, 5), 9.0)) > detector.novelty(np.zeros((1, 5))))
    True
    """

    def __init__(
        self,
        method: str = "rnd",
        k: int = 10,
        memory: int = 2_000,
        bandwidth: float | None = None,
        hidden: int = 128,
        epochs: int = 20,
        batch: int = 64,
        lr: float = 1e-3,
        clip: float = 5.0,
        seed: int = 0,
    ):
        if method not in METHODS:
            raise ValueError(f"the method is one of {', '.join(METHODS)}: got {method!r}")
        if min(k, memory, hidden, epochs, batch) < 1 or lr <= 0 or (bandwidth is not None and bandwidth <= 0):
            raise ValueError("k, memory, bandwidth, hidden, epochs, batch and lr are positive")
        self.method, self.k, self.memory, self.bandwidth = method, k, memory, bandwidth
        self.hidden, self.epochs, self.batch, self.lr, self.clip, self.seed = (
            hidden,
            epochs,
            batch,
            lr,
            clip,
            seed,
        )
        self.stats_: RunningMeanStd | None = None

    _options = (
        "method", "k", "memory", "bandwidth", "hidden", "epochs", "batch", "lr", "clip", "seed",
    )  # fmt: skip

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments (scikit-learn's protocol)."""
        return {name: getattr(self, name) for name in self._options}

    def set_params(self, **params: Any) -> "NoveltyDetector":
        """Change arguments; takes effect with the next `fit`."""
        if unknown := params.keys() - set(self._options):
            raise ValueError(f"unknown parameters: {', '.join(sorted(unknown))}")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def fit(self, X: Any, y: object = None) -> "NoveltyDetector":
        """Forget everything and learn from rows [n, ...] (array or tensor)."""
        x = _table(X)
        self._begin(x.shape[1])
        return self._take(x)

    def partial_fit(self, X: Any, y: object = None) -> "NoveltyDetector":
        """Learn from more rows."""
        x = _table(X)
        if self.stats_ is None:
            self._begin(x.shape[1])
        return self._take(x)

    def _begin(self, width: int) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)
        self.stats_ = RunningMeanStd((width,))
        self._reservoir = Reservoir(self.memory, self._generator)
        self._outer = torch.zeros(width, width, dtype=torch.float64) if self.method == "pca" else None
        if self.method == "rnd":
            sizes = (width, self.hidden, self.k)
            # The predictor has a layer more than what it imitates, so that it can.
            target = mlp(sizes, "relu", 2**0.5, self._generator)
            predictor = mlp((width, self.hidden, *sizes[1:]), "relu", 2**0.5, self._generator)
            self._rnd = RND(target, predictor, None, update_fraction=1.0, generator=self._generator)
            self._adam = torch.optim.Adam(self._rnd.parameters(), self.lr)

    def _take(self, x: Tensor) -> "NoveltyDetector":
        assert self.stats_ is not None
        self.stats_.update(x)  # raises where something is not finite, or of another width
        if self.method in ("knn", "kde"):
            self._reservoir.put(x)
        elif self._outer is not None:
            self._outer += x.double().T @ x.double()
        else:
            white = self.stats_.normalize(x, self.clip)
            for _ in range(self.epochs):
                for rows in torch.randperm(len(x), generator=self._generator).split(self.batch):
                    self._adam.zero_grad()
                    self._rnd.prediction_loss(white[rows]).backward()
                    self._adam.step()
        return self

    @torch.no_grad()
    def novelty(self, X: Any) -> np.ndarray:
        """[n]: higher is newer."""
        if self.stats_ is None:
            raise ValueError("nothing to compare with yet: call fit or partial_fit first")
        x = self.stats_.normalize(_table(X), self.clip)
        if self.method == "rnd":
            return self._rnd.bonus(x).numpy()
        if self.method == "pca":
            return self._outside(x).numpy()
        rows = self.stats_.normalize(self._reservoir.rows, self.clip)
        if self.method == "knn":
            return nearest_distances(x, rows, self.k).mean(1).numpy()
        n, width = rows.shape
        h = self.bandwidth or n ** (-1 / (width + 4))
        log = -0.5 * (torch.cdist(x.double(), rows.double()) / h).square()
        norm = 0.5 * width * np.log(2 * np.pi * h**2) + np.log(n)
        return (norm - log.logsumexp(1)).numpy()

    def _outside(self, x: Tensor) -> Tensor:
        """Squared distance of whitened rows to the principal subspace."""
        assert self.stats_ is not None
        assert self._outer is not None
        count, mean, std = self.stats_.count, self.stats_.mean, self.stats_.std
        covariance = (self._outer / count - torch.outer(mean, mean)) / torch.outer(std, std)
        axes = torch.linalg.eigh(covariance).eigenvectors[:, -min(self.k, x.shape[1]) :]
        x = x.double()
        return (x - x @ axes @ axes.T).square().sum(1)

    def score_samples(self, X: Any) -> np.ndarray:
        """[n]: lower is newer, as scikit-learn's detectors have it."""
        return -self.novelty(X)


def _table(X: Any) -> Tensor:
    """[n, D] float32 of rows of any shape."""
    x = torch.as_tensor(np.asarray(X) if not isinstance(X, Tensor) else X)
    if x.ndim < 2 or not len(x):
        raise ValueError(f"give rows, [n >= 1, ...]: got shape {tuple(x.shape)}")
    x = x.detach().float().flatten(1)
    if not bool(torch.isfinite(x).all()):
        raise ValueError("rows must be finite: got NaN or infinity")
    return x


def _seen(obs: Obs, preprocess: Callable[[Obs], Tensor] | None, ndim: int) -> Tensor:
    x = obs if preprocess is None else preprocess(obs)
    if isinstance(x, dict):
        raise ValueError("novelty is of one tensor: give `preprocess` to choose it from a dictionary")
    return x.float().flatten(x.ndim - ndim)


class DensityBonus(IntrinsicReward):
    """The novelty that a detector finds in the next observation, learnt rollout by rollout.

    With `exponent` 0.5 and the method "kde" it is a pseudo-count bonus, 1 / sqrt(density), up to a factor (Bellemare
    et al. 2016, arXiv 1606.01868).

    Args:
        estimator: fitted further (`partial_fit`) with a part of every rollout, after its rewards were computed.
        obs_ndim: dimensions of one observation.
        rows: of each rollout that it is fitted with, at most.
        exponent: None: the novelty itself; else exp(exponent * novelty).
        preprocess: from the policy's observation to what is rated (the coordinates in it, say).
        generator: draws the rows.

    Rewards before the first rollout was seen are 0.
    """

    def __init__(
        self,
        estimator: NoveltyDetector,
        obs_ndim: int = 1,
        rows: int = 512,
        exponent: float | None = None,
        preprocess: Callable[[Obs], Tensor] | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if rows < 1:
            raise ValueError(f"fit with at least one row of a rollout: got rows={rows}")
        self.estimator, self.obs_ndim, self.rows, self.exponent = estimator, obs_ndim, rows, exponent
        self.preprocess, self.generator = preprocess, generator

    def reward(self, rollout: Rollout) -> Tensor:
        """[T, N]: of the true next observations."""
        x = _seen(rollout.next_obs(), self.preprocess, self.obs_ndim)
        if self.estimator.stats_ is None:
            return x.new_zeros(x.shape[:2])
        # Equal observations are rated once: copies of a small world meet the same few over and over.
        unique, back = x.cpu().flatten(0, 1).unique(dim=0, return_inverse=True)
        found = torch.from_numpy(self.estimator.novelty(unique)).to(x)
        if self.exponent is not None:
            found = (self.exponent * found).exp()
        return found[back.to(x.device)].view(x.shape[:2])

    def observe(self, rollout: Rollout) -> None:
        """Fit with some of the rollout's valid next observations."""
        x = _seen(rollout.next_obs(), self.preprocess, self.obs_ndim)[rollout.valid]
        chosen = torch.randperm(len(x), generator=self.generator)[: self.rows]
        if len(chosen):
            self.estimator.partial_fit(x[chosen.to(x.device)].cpu())


class KNNBonus(IntrinsicReward):
    """Mean distance of the next observation to its k nearest among a uniform sample of everything seen.

    Args:
        k: neighbours.
        memory: rows remembered.
        obs_ndim: dimensions of one observation.
        stats: whitens observations; None: distances are taken as they are.
        embed: from flat observations [B, D] to what distances are measured in (a `FeatureSpace`'s `embed`, say).
        preprocess: from the policy's observation to what is rated.
        generator: of the memory.

    Rewards before the first rollout was seen are 0.
    """

    def __init__(
        self,
        k: int = 10,
        memory: int = 2_000,
        obs_ndim: int = 1,
        stats: RunningMeanStd | None = None,
        embed: nn.Module | Callable[[Tensor], Tensor] | None = None,
        preprocess: Callable[[Obs], Tensor] | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if k < 1:
            raise ValueError(f"a distance needs at least one neighbour: got k={k}")
        self.k, self.obs_ndim, self.stats, self.embed = k, obs_ndim, stats, embed
        self.preprocess = preprocess
        self.reservoir = Reservoir(memory, generator)

    def _place(self, x: Tensor) -> Tensor:
        x = x if self.stats is None else self.stats.normalize(x, 5.0)
        return x if self.embed is None else self.embed(x)

    @torch.no_grad()
    def reward(self, rollout: Rollout) -> Tensor:
        """[T, N]: of the true next observations."""
        x = _seen(rollout.next_obs(), self.preprocess, self.obs_ndim)
        if not self.reservoir.seen:
            return x.new_zeros(x.shape[:2])
        unique, back = x.flatten(0, 1).unique(dim=0, return_inverse=True)
        found = nearest_distances(self._place(unique), self._place(self.reservoir.rows), self.k)
        return found.mean(1)[back].view(x.shape[:2])

    @torch.no_grad()
    def observe(self, rollout: Rollout) -> None:
        """Remember the rollout's valid next observations."""
        x = _seen(rollout.next_obs(), self.preprocess, self.obs_ndim)[rollout.valid]
        if self.stats is not None:
            self.stats.update(x)
        self.reservoir.put(x)


def bayesian_linear_variance(
    x: Float[Tensor, "rows width"],
    query: Float[Tensor, "queries width"],
    noise: float = 0.0,
    prior: float = 1.0,
) -> Float[Tensor, " queries"]:
    r"""Predictive variance of Bayesian linear regression, without the noise of the observation itself:

    $v(q) = q^\top (X^\top X / \sigma^2 + I / \tau^2)^{-1} q$, and in the limit of no noise $\tau^2$ times the squared
    length of q outside the span of the data.

    It is what RND's error estimates: regress on zeros plus noise, with a random target added as prior function; the
    mean squared output over such pairs is v (Osband et al. 2018; Burda et al., arXiv 1810.12894, section 2.2.2). It
    falls as 1/n along directions that were seen n times.

    Args:
        x: [n, D] inputs that were seen.
        query: [q, D].
        noise: sigma, standard deviation of the observations.
        prior: tau, standard deviation of the weights.

    >>> seen = torch.tensor([[1.0, 0.0]])
    >>> bayesian_linear_variance(seen, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), noise=1.0)
    tensor([0.5000, 1.0000])
    """
    if noise < 0 or prior <= 0:
        raise ValueError(f"noise is at least 0 and the prior's spread positive: got {noise} and {prior}")
    if noise == 0:
        _, values, axes = torch.linalg.svd(x, full_matrices=False)
        small = values.amax().clamp(min=1e-30) * max(x.shape) * torch.finfo(x.dtype).eps
        axes = axes[values > small]
        return prior**2 * (query - query @ axes.T @ axes).square().sum(1)
    precision = x.T @ x / noise**2 + torch.eye(x.shape[1], dtype=x.dtype, device=x.device) / prior**2
    return (query * torch.linalg.solve(precision, query.T).T).sum(1)
