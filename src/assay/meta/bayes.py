"""Bayes-optimal learners of the three families in `assay.meta.tasks`, with the prior equal to the task distribution.

Linear maps and Fourier series are Gaussian regression with a known prior and known noise: the posterior mean after t
pairs is $\\hat W_t = Y^\\top X (X^\\top X + \\sigma^2 P^{-1})^{-1}$ with prior covariance $P$ of a row of $W$ (Bishop
2006, section 3.3). The bandit's posterior is uniform over the actions of a context that have not failed.
"""

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from assay.meta.tasks import fourier_features

__all__ = ["BayesBandit", "BayesFourier", "BayesLinear"]


class BayesLinear:
    """Gaussian linear regression, exact, updated pair by pair or in bulk; any number of tasks at once.

    The rows of $W$ are independent $N(0, P)$; targets carry noise $N(0, \\sigma^2)$. Everything is float64.

    Parameters
    ----------
    sigma
        Standard deviation of the noise. With 0 the posterior mean is the limit $\\sigma \\to 0$: the least-squares
        map of least norm in the prior's metric (by pseudo-inverse, tolerance 1e-10), and variances are those that no
        pair has removed.
    prior_cov
        $P$ ``[nx, nx]``, symmetric and positive definite.

    >>> x, y = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    >>> learner = BayesLinear(0.1, torch.eye(2)).update(x, y)
    >>> [[round(v, 4) for v in row] for row in learner.mean.tolist()]
    [[1.9707, -0.9611], [0.0097, 0.9805]]
    """

    def __init__(self, sigma: float, prior_cov: Float[Tensor, "nx nx"]) -> None:
        if not 0 <= sigma < float("inf"):
            raise ValueError(f"sigma must be zero or positive and finite, got {sigma}")
        prior_cov = prior_cov.double()
        if not torch.allclose(prior_cov, prior_cov.mT):
            raise ValueError("prior_cov must be symmetric")
        spectrum = torch.linalg.eigvalsh(prior_cov)
        if float(spectrum[0]) <= 1e-12 * max(float(spectrum[-1]), 1e-300):
            raise ValueError(
                f"prior_cov is singular: its smallest eigenvalue is {float(spectrum[0]):.3g}, it must be positive"
            )
        self.sigma, self.prior_cov = float(sigma), prior_cov
        # In whitened inputs z = L^T x the prior is N(0, I).
        self._root = torch.linalg.cholesky(prior_cov)
        self.gram: Tensor = torch.zeros_like(prior_cov)
        """Sum of z z^T, ``[*tasks, nx, nx]``."""
        self.cross: Tensor | None = None
        """Sum of y z^T, ``[*tasks, ny, nx]``."""

    def update(
        self, x: Float[Tensor, "*tasks pairs nx"], y: Float[Tensor, "*tasks pairs ny"]
    ) -> "BayesLinear":
        """Learn from further pairs; their order does not matter."""
        z = x.double() @ self._root.to(x.device)
        gram, cross = z.mT @ z, y.double().mT @ z
        self.gram = self.gram.to(x.device) + gram
        self.cross = cross if self.cross is None else self.cross + cross
        return self

    @property
    def mean(self) -> Float[Tensor, "*tasks ny nx"]:
        """The posterior mean of $W$."""
        if self.cross is None:
            raise ValueError("the size of y is not known before the first update")
        return self._solve(self.gram, self.cross)

    def path(
        self, x: Float[Tensor, "*tasks pairs nx"], y: Float[Tensor, "*tasks pairs ny"]
    ) -> Float[Tensor, "*tasks times ny nx"]:
        """Posterior means after 0, 1, ..., all of these pairs, from the prior; ``times`` is ``pairs + 1``."""
        z = x.double() @ self._root.to(x.device)
        gram = (z.unsqueeze(-1) * z.unsqueeze(-2)).cumsum(-3)
        cross = (y.double().unsqueeze(-1) * z.unsqueeze(-2)).cumsum(-3)
        prior = torch.zeros_like(cross[..., :1, :, :])
        return torch.cat([prior, self._solve(gram, cross)], -3)

    def predict(
        self, x: Float[Tensor, "*tasks points nx"]
    ) -> tuple[Float[Tensor, "*tasks points ny"], Float[Tensor, "*tasks points"]]:
        """Mean and variance (noise included, the same for every output) of the targets at `x`."""
        mean = x.double() @ self.mean.mT
        z = x.double() @ self._root.to(x.device)
        if self.sigma > 0:
            spread = self.sigma**2 * (z.mT.mul(torch.linalg.solve(self._ridge(self.gram), z.mT))).sum(-2)
        else:
            seen = torch.linalg.pinv(self.gram, hermitian=True, rtol=1e-10) @ self.gram
            spread = (z * (z - z @ seen.mT)).sum(-1).clamp(min=0)
        return mean, spread + self.sigma**2

    def _ridge(self, gram: Tensor) -> Tensor:
        return gram + self.sigma**2 * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)

    def _solve(self, gram: Tensor, cross: Tensor) -> Tensor:
        if self.sigma > 0:
            white = torch.linalg.solve(self._ridge(gram), cross.mT).mT
        else:
            white = cross @ torch.linalg.pinv(gram, hermitian=True, rtol=1e-10)
        return white @ self._root.mT.to(cross.device)


class BayesFourier:
    """Gaussian regression on the Fourier features of a band, coefficients $N(0, \\text{prior\\_scale}^2)$ a priori.

    >>> from assay.meta.tasks import FourierTasks
    >>> batch = FourierTasks(3, sigma=0.1).sample(2, 40, torch.Generator().manual_seed(0))
    >>> learner = BayesFourier(3, 0.1).update(batch.theta, batch.y.squeeze(-1))
    >>> bool((learner.coefficients - batch.coefficients).abs().max() < 0.2)
    True
    """

    def __init__(
        self, k: int, sigma: float, band: tuple[int, int] | None = None, prior_scale: float = 1.0
    ) -> None:
        self.low, self.high = (1, k) if band is None else band
        if not 1 <= self.low <= self.high:
            raise ValueError(
                f"frequencies go from at least 1 up to k, or over a band (low, high): got k = {k}, band = {band}"
            )
        features = 2 * (self.high - self.low + 1)
        self.linear = BayesLinear(sigma, prior_scale**2 * torch.eye(features, dtype=torch.float64))

    def update(
        self, theta: Float[Tensor, "*tasks points"], y: Float[Tensor, "*tasks points"]
    ) -> "BayesFourier":
        """Learn from further points; their order does not matter."""
        self.linear.update(self._features(theta), y.unsqueeze(-1))
        return self

    @property
    def coefficients(self) -> Complex[Tensor, "*tasks frequencies"]:
        """Posterior means of $a_k - i b_k$."""
        return self._complex(self.linear.mean)

    def path(
        self, theta: Float[Tensor, "*tasks points"], y: Float[Tensor, "*tasks points"]
    ) -> Complex[Tensor, "*tasks times frequencies"]:
        """Posterior means after 0, 1, ..., all of these points, from the prior."""
        return self._complex(self.linear.path(self._features(theta), y.unsqueeze(-1)))

    def predict(
        self, theta: Float[Tensor, "*tasks points"]
    ) -> tuple[Float[Tensor, "*tasks points"], Float[Tensor, "*tasks points"]]:
        """Mean and variance (noise included) of the values at `theta`."""
        mean, variance = self.linear.predict(self._features(theta))
        return mean.squeeze(-1), variance

    def _features(self, theta: Tensor) -> Tensor:
        return fourier_features(theta.double(), self.low, self.high)

    @staticmethod
    def _complex(weights: Tensor) -> Tensor:
        a, b = weights.squeeze(-2).chunk(2, -1)
        return torch.complex(a, -b)


class BayesBandit:
    """The exact posterior of `assay.meta.tasks.ContextBandit`, for many copies at once, and the player who uses it.

    A context's rewarded action is uniform over those that have not failed there, and certain once it has paid. To try
    what is likeliest is optimal, for every untried action tells as much as another.

    >>> learner = BayesBandit(copies=1, contexts=2, actions=4)
    >>> learner.update(torch.tensor([0]), torch.tensor([1]), torch.tensor([0.0])).posterior[0, 0].tolist()
    [0.3333333432674408, 0.0, 0.3333333432674408, 0.3333333432674408]
    """

    def __init__(
        self, copies: int, contexts: int, actions: int, device: torch.device | str | None = None
    ) -> None:
        if copies < 1 or contexts < 1 or actions < 2:
            raise ValueError(
                f"needs at least one copy, one context and two actions, got {copies}, {contexts} and {actions}"
            )
        self.possible = torch.ones(copies, contexts, actions, dtype=torch.bool, device=device)

    def update(
        self,
        context: Int[Tensor, " copies"],
        action: Int[Tensor, " copies"],
        reward: Float[Tensor, " copies"],
    ) -> "BayesBandit":
        """What each copy saw in one step."""
        copies = torch.arange(len(context), device=context.device)
        tried = torch.nn.functional.one_hot(action, self.possible.shape[-1]).bool()
        paid = (reward > 0.5).unsqueeze(-1)
        # A paid action is the only one left; a failed one is out.
        row = self.possible[copies, context] & torch.where(paid, tried, ~tried)
        if not bool(row.any(-1).all()):
            raise ValueError("no action is left: the rewards contradict a single rewarded action per context")
        self.possible[copies, context] = row
        return self

    @property
    def posterior(self) -> Float[Tensor, "copies contexts actions"]:
        """The probability that an action is the rewarded one."""
        return self.possible.float() / self.possible.sum(-1, keepdim=True)

    def act(
        self, context: Int[Tensor, " copies"], generator: torch.Generator | None = None
    ) -> Int[Tensor, " copies"]:
        """An action of greatest probability, ties broken at random."""
        copies = torch.arange(len(context), device=context.device)
        return torch.multinomial(self.posterior[copies, context], 1, generator=generator).squeeze(1)

    @staticmethod
    def success(visits: Int[Tensor, "*batch"], actions: int) -> Float[Tensor, "*batch"]:
        """The chance of reward at the n-th visit of a context: n / actions, at most 1."""
        return (visits / actions).clamp(max=1.0)
