"""Evolution strategies: update rules, independence of runs, and that they climb."""

import numpy as np
import pytest
import torch

from assay.rl.evolution import CMAES, PEPG, centred_ranks


def _g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_centred_ranks_do_not_see_the_scale() -> None:
    scores = torch.tensor([[3.0, 100.0, -5.0, 3.0, 0.0]])
    ranks = centred_ranks(scores)
    torch.testing.assert_close(ranks, torch.tensor([[0.125, 0.5, -0.5, 0.125, -0.25]]))
    torch.testing.assert_close(centred_ranks((scores / 7).exp()), ranks)
    with pytest.raises(ValueError, match="two candidates"):
        centred_ranks(torch.zeros(1, 1))


def test_one_generation_of_pepg_by_hand() -> None:
    search = PEPG(torch.zeros(1, 2), sigma=0.5, population=4, lr=0.3, sigma_lr=0.2, ranks=False)
    noise = torch.tensor([[[0.4, -0.2], [0.1, 0.6]]])
    candidates = torch.cat([noise, -noise], 1)
    scores = torch.tensor([[1.0, 4.0, 3.0, 0.0]])
    search.tell(candidates, scores)
    # pairs: (1, 3), (4, 0); half differences -1, 2; means 2, 2; baseline 2: sigma stays.
    expected = 0.3 * (noise[0, 0] * -1 + noise[0, 1] * 2) / 2
    torch.testing.assert_close(search.mean[0], expected)
    torch.testing.assert_close(search.sigma, torch.full((1, 2), 0.5))


def test_pepg_narrows_where_far_candidates_are_worse() -> None:
    search = PEPG(torch.zeros(1, 1), sigma=0.5, population=4, lr=0.0, sigma_lr=1.0, ranks=False)
    noise = torch.tensor([[[0.1], [1.0]]])
    search.tell(torch.cat([noise, -noise], 1), torch.tensor([[1.0, 0.0, 1.0, 0.0]]))
    assert search.sigma < 0.5
    assert search.sigma >= 0.5 * 0.8 - 1e-6, "no faster than the bound"


@pytest.mark.parametrize("kind", [PEPG, CMAES])
def test_runs_do_not_depend_on_their_companions(kind) -> None:
    def run(starts: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        search = kind(starts, sigma=0.4, population=8, generators=[_g(s) for s in seeds])
        for _ in range(5):
            candidates = search.ask()
            search.tell(candidates, -(candidates - 1).square().sum(-1))
        return search.mean

    starts = torch.randn(3, 4, dtype=torch.float64, generator=_g())
    together = run(starts, [1, 2, 3])
    torch.testing.assert_close(together[1:2], run(starts[1:2], [2]))


def _rosenbrock(x: torch.Tensor) -> torch.Tensor:
    return -(100 * (x[..., 1:] - x[..., :-1] ** 2) ** 2 + (1 - x[..., :-1]) ** 2).sum(-1)


def test_cmaes_solves_what_bends_and_pepg_what_does_not() -> None:
    search = CMAES(torch.zeros(5, 6, dtype=torch.float64), 0.5, generators=_g())
    for _ in range(500):
        candidates = search.ask()
        search.tell(candidates, _rosenbrock(candidates))
    assert (search.mean - 1).abs().max(1).values.median() < 1e-3
    climb = PEPG(torch.full((5, 6), 2.0), sigma=0.3, population=32, lr=1.0, generators=_g())
    for _ in range(150):
        candidates = climb.ask()
        climb.tell(candidates, -candidates.square().sum(-1))
    assert climb.mean.norm(dim=1).max() < 0.5


def test_cmaes_follows_the_cmaes_package() -> None:
    """The same candidates and scores give the same mean, step size and covariance (positive weights only)."""
    cmaes = pytest.importorskip("cmaes", reason="the peer is not installed")
    theirs = cmaes.CMA(mean=np.full(5, 0.3), sigma=0.7, seed=1, population_size=10)
    mine = CMAES(torch.full((1, 5), 0.3, dtype=torch.float64), 0.7, 10)
    # Theirs also uses negative weights (active CMA); without them both are the same method.
    theirs._weights = np.where(theirs._weights > 0, theirs._weights, 0.0)
    theirs._c1, theirs._cmu = mine.c_1, mine.c_mu
    generator = np.random.default_rng(0)
    for _ in range(12):
        candidates = [theirs.ask() for _ in range(10)]
        values = [float(((x - 1) ** 2).sum() + 0.1 * generator.normal()) for x in candidates]
        theirs.tell(list(zip(candidates, values, strict=True)))
        mine.tell(torch.tensor(np.array(candidates))[None], -torch.tensor(values)[None])
        np.testing.assert_allclose(mine.mean[0].numpy(), theirs._mean, rtol=1e-6)
        np.testing.assert_allclose(float(mine.sigma), theirs._sigma, rtol=1e-6)
        np.testing.assert_allclose(mine.covariance[0].numpy(), theirs._C, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [PEPG, CMAES])
def test_bad_input_is_refused(kind) -> None:
    search = kind(torch.zeros(2, 3), sigma=0.4, population=8)
    candidates = search.ask()
    with pytest.raises(ValueError, match="tell takes candidates"):
        search.tell(candidates[:, :4], torch.zeros(2, 4))
    with pytest.raises(ValueError, match="must be finite"):
        search.tell(candidates, torch.full((2, 8), float("nan")))
    with pytest.raises(ValueError, match="positive"):
        kind(torch.zeros(2, 3), sigma=0.0)
    with pytest.raises(ValueError, match="population"):
        kind(torch.zeros(2, 3), sigma=0.4, population=3)
    with pytest.raises(ValueError, match="one generator for each"):
        kind(torch.zeros(2, 3), sigma=0.4, population=8, generators=[_g()]).ask()
