r"""Evolution strategies on flat parameter vectors, many independent runs at once, by ask and tell.

>>> search = CMAES(torch.zeros(3, 10), sigma=0.5)          # three runs in ten dimensions
>>> candidates = search.ask()                              # [3, population, 10]
>>> search.tell(candidates, -candidates.square().sum(-1))  # scores: higher is better
>>> search.mean.shape
torch.Size([3, 10])
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def centred_ranks(scores: Float[Tensor, "*runs population"]) -> Float[Tensor, "*runs population"]:
    """Scores replaced by their ranks, spread evenly over [-1/2, 1/2]; ties share their mean rank.

    Makes a search invariant to monotone changes of the score (Wierstra et al., 2014; Salimans et al., 2017).
    """
    n = scores.shape[-1]
    if n < 2:
        raise ValueError(f"ranks need two candidates at least: got {n}")
    below = (scores[..., None] > scores[..., None, :]).to(scores.dtype).sum(-1)
    equal = (scores[..., None] == scores[..., None, :]).to(scores.dtype).sum(-1)
    return (below + (equal - 1) / 2) / (n - 1) - 0.5


def _check_scores(candidates: Tensor, scores: Tensor, population: int) -> None:
    if candidates.ndim != 3 or candidates.shape[1] != population or scores.shape != candidates.shape[:2]:
        raise ValueError(
            f"tell takes candidates [runs, {population}, dim] as `ask` gave them and scores [runs, {population}]: "
            f"got {tuple(candidates.shape)} and {tuple(scores.shape)}"
        )
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("scores must be finite: give a failed candidate a low score")


class PEPG:
    r"""Parameter-exploring policy gradients with symmetric samples (Sehnke et al., 2010).

    Candidates come in pairs $\mu \pm \epsilon$, $\epsilon \sim N(0, \mathrm{diag}\,\sigma^2)$; with rewards $r^\pm$ and
    baseline $b$,

    $$\Delta\mu = \alpha\,\overline{\epsilon\,\tfrac{r^+ - r^-}{2}}, \qquad
      \Delta\sigma = \beta\,\overline{\Big(\tfrac{r^+ + r^-}{2} - b\Big)\tfrac{\epsilon^2 - \sigma^2}{\sigma}}.$$

    Args:
        mean: [S, d]: starting points of S independent runs.
        sigma: initial standard deviation.
        population: candidates a generation and run, even.
        lr: alpha; divided by nothing: choose it for scores of order one (`ranks` makes them so).
        sigma_lr: beta.
        ranks: use centred ranks in place of scores.
        sigma_bounds: least and greatest sigma.
        max_sigma_change: largest relative change of a sigma in a generation.
        generators: one for all runs, or one a run.
    """

    def __init__(
        self,
        mean: Float[Tensor, "runs dim"],
        sigma: float = 0.1,
        population: int = 32,
        lr: float = 0.1,
        sigma_lr: float = 0.05,
        ranks: bool = True,
        sigma_bounds: tuple[float, float] = (1e-3, 10.0),
        max_sigma_change: float = 0.2,
        generators: torch.Generator | list[torch.Generator] | None = None,
    ):
        if population < 2 or population % 2:
            raise ValueError(f"symmetric samples need an even population of two at least: got {population}")
        if sigma <= 0 or lr < 0 or sigma_lr < 0:
            raise ValueError(f"sigma is positive, rates are not negative: got {sigma}, {lr}, {sigma_lr}")
        self.mean = mean.clone()
        """[S, d]."""
        self.sigma = torch.full_like(mean, sigma)
        """[S, d]."""
        self.population, self.lr, self.sigma_lr, self.ranks = population, lr, sigma_lr, ranks
        self.sigma_bounds, self.max_sigma_change = sigma_bounds, max_sigma_change
        self.generators = generators

    def ask(self) -> Float[Tensor, "runs population dim"]:
        """The candidates of a generation: the first half plus, the second half minus the same noise."""
        noise = self.sigma[:, None] * _normal(
            (self.population // 2, *self.mean.shape[1:]), self.mean, self.generators
        )
        return torch.cat([self.mean[:, None] + noise, self.mean[:, None] - noise], 1)

    def tell(
        self, candidates: Float[Tensor, "runs population dim"], scores: Float[Tensor, "runs population"]
    ) -> None:
        """Move by the scores (higher is better) of what `ask` gave."""
        _check_scores(candidates, scores, self.population)
        shaped = centred_ranks(scores) if self.ranks else scores
        plus, minus = shaped.chunk(2, 1)
        noise = candidates[:, : self.population // 2] - self.mean[:, None]
        step = (noise * ((plus - minus) / 2)[..., None]).mean(1)
        both = (plus + minus) / 2
        spread = (noise.square() - self.sigma[:, None].square()) / self.sigma[:, None]
        widen = ((both - shaped.mean(1, keepdim=True))[..., None] * spread).mean(1)
        self.mean = self.mean + self.lr * step
        most = self.max_sigma_change * self.sigma
        change = torch.maximum(torch.minimum(self.sigma_lr * widen, most), -most)
        self.sigma = (self.sigma + change).clamp(*self.sigma_bounds)


class CMAES:
    """Covariance matrix adaptation (Hansen, 2016, arXiv 1604.00772), S runs as batched linear algebra.

    Weighted recombination of the better half with positive weights, step-size control by the evolution path, rank-one
    and rank-mu updates. The eigendecomposition of every generation makes it a method for some hundred dimensions.

    Args:
        mean: [S, d]: starting points.
        sigma: initial step size.
        population: candidates a generation and run; default 4 + 3 ln d.
        generators: one for all runs, or one a run.
    """

    def __init__(
        self,
        mean: Float[Tensor, "runs dim"],
        sigma: float,
        population: int | None = None,
        generators: torch.Generator | list[torch.Generator] | None = None,
    ):
        runs, d = mean.shape
        if sigma <= 0:
            raise ValueError(f"the step size is positive: got sigma={sigma}")
        self.population = population or 4 + int(3 * math.log(d))
        if self.population < 4:
            raise ValueError(f"a population has four candidates at least: got {population}")
        self.mean = mean.clone()
        """[S, d]."""
        self.generators, self.dim = generators, d
        parents = self.population // 2
        weights = math.log((self.population + 1) / 2) - torch.arange(1, parents + 1, dtype=mean.dtype).log()
        self.weights = (weights / weights.sum()).to(mean.device)
        self.mu_eff = float(1 / self.weights.square().sum())
        self.c_sigma = (self.mu_eff + 2) / (d + self.mu_eff + 5)
        self.damping = 1 + 2 * max(0.0, math.sqrt((self.mu_eff - 1) / (d + 1)) - 1) + self.c_sigma
        self.c_c = (4 + self.mu_eff / d) / (d + 4 + 2 * self.mu_eff / d)
        self.c_1 = 2 / ((d + 1.3) ** 2 + self.mu_eff)
        self.c_mu = min(1 - self.c_1, 2 * (self.mu_eff - 2 + 1 / self.mu_eff) / ((d + 2) ** 2 + self.mu_eff))
        self.expected_norm = math.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d**2))
        self.sigma = torch.full((runs,), float(sigma), dtype=mean.dtype, device=mean.device)
        """[S]: step sizes."""
        self.covariance = torch.eye(d, dtype=mean.dtype, device=mean.device).expand(runs, d, d).clone()
        """[S, d, d]."""
        self.path_sigma, self.path_c = torch.zeros_like(mean), torch.zeros_like(mean)
        self.generation = 0
        self._decomposed: tuple[Tensor, Tensor] | None = None

    def _axes(self) -> tuple[Tensor, Tensor]:
        """Eigenvectors [S, d, d] and standard deviations [S, d] of the covariance."""
        if self._decomposed is None:
            values, vectors = torch.linalg.eigh(self.covariance)
            self._decomposed = vectors, values.clamp(min=1e-14).sqrt()
        return self._decomposed

    def ask(self) -> Float[Tensor, "runs population dim"]:
        """The candidates of a generation."""
        vectors, deviations = self._axes()
        z = _normal((self.population, self.dim), self.mean, self.generators)
        y = (z * deviations[:, None]) @ vectors.mT
        return self.mean[:, None] + self.sigma[:, None, None] * y

    def tell(
        self, candidates: Float[Tensor, "runs population dim"], scores: Float[Tensor, "runs population"]
    ) -> None:
        """Move by the scores (higher is better) of what `ask` gave."""
        _check_scores(candidates, scores, self.population)
        order = scores.argsort(1, descending=True)[:, : len(self.weights)]
        best = candidates.gather(1, order[..., None].expand(-1, -1, self.dim))
        y = (best - self.mean[:, None]) / self.sigma[:, None, None]
        step = (self.weights[:, None] * y).sum(1)
        self.mean = self.mean + self.sigma[:, None] * step
        vectors, deviations = self._axes()
        whitened = ((step[:, None] @ vectors) / deviations[:, None] @ vectors.mT)[:, 0]
        keep = math.sqrt(self.c_sigma * (2 - self.c_sigma) * self.mu_eff)
        self.path_sigma = (1 - self.c_sigma) * self.path_sigma + keep * whitened
        norm = self.path_sigma.norm(dim=1)
        self.sigma = self.sigma * torch.exp(
            ((self.c_sigma / self.damping) * (norm / self.expected_norm - 1)).clamp(max=1.0)
        )
        fade = math.sqrt(1 - (1 - self.c_sigma) ** (2 * (self.generation + 1)))
        # Where the step size grows fast the path for the covariance is stalled.
        going = (norm / fade < (1.4 + 2 / (self.dim + 1)) * self.expected_norm).to(norm)
        widen = math.sqrt(self.c_c * (2 - self.c_c) * self.mu_eff)
        self.path_c = (1 - self.c_c) * self.path_c + (going * widen)[:, None] * step
        lost = (1 - going) * self.c_c * (2 - self.c_c)
        rank_one = self.path_c[:, :, None] * self.path_c[:, None]
        rank_mu = torch.einsum("k,ski,skj->sij", self.weights, y, y)
        decay = 1 + self.c_1 * lost - self.c_1 - self.c_mu
        self.covariance = decay[:, None, None] * self.covariance + self.c_1 * rank_one + self.c_mu * rank_mu
        self.generation += 1
        self._decomposed = None


def _normal(
    shape: tuple[int, ...], like: Tensor, generators: torch.Generator | list[torch.Generator] | None
) -> Tensor:
    """[S, *shape] standard normal: from one generator, or one a run (then a run does not depend on the others)."""
    if isinstance(generators, list):
        if len(generators) != len(like):
            raise ValueError(f"give one generator for each of the {len(like)} runs: got {len(generators)}")
        return torch.stack(
            [
                torch.empty(shape, dtype=like.dtype, device=like.device).normal_(generator=g)
                for g in generators
            ]
        )
    return torch.empty((len(like), *shape), dtype=like.dtype, device=like.device).normal_(
        generator=generators
    )
