"""Detectors of novelty, bonuses made of them, and the closed form behind RND."""

import numpy as np
import pytest
import torch

from assay.rl.intrinsic import (
    DensityBonus,
    IntrinsicMixer,
    KNNBonus,
    NoveltyDetector,
    bayesian_linear_variance,
    two_stream_advantage,
)
from assay.rl.intrinsic.novelty import METHODS, Reservoir, nearest_distances
from assay.rl.normalize import RunningMeanStd
from assay.rl.returns import gae
from assay.rl.rollout import random_rollout
from tests.rl.worlds import Line, NextStepReset


def _g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _data(n: int, seed: int = 0) -> np.ndarray:
    """Rows near a plane of 2 dimensions in 6."""
    rng = np.random.default_rng(seed)
    plane = np.random.default_rng(7).normal(size=(2, 6))
    return rng.normal(size=(n, 2)) @ plane + 0.05 * rng.normal(size=(n, 6))


@pytest.mark.parametrize("method", METHODS)
def test_what_was_never_seen_scores_lower(method: str) -> None:
    detector = NoveltyDetector(method, k=2, epochs=30).fit(_data(400))
    known, strange = _data(100, 1), np.random.default_rng(2).normal(size=(100, 6)) * 2
    known_score, strange_score = detector.score_samples(known), detector.score_samples(strange)
    assert known_score.shape == (100,)
    pairs = (known_score[:, None] > strange_score[None]).mean()
    assert pairs > 0.9, "area under the curve"
    np.testing.assert_array_equal(detector.novelty(known), -known_score)
    again = NoveltyDetector(method, k=2, epochs=30).fit(_data(400))
    np.testing.assert_array_equal(again.score_samples(known), known_score)
    # Tensors and shapes of any kind.
    torch.testing.assert_close(
        detector.novelty(torch.from_numpy(known).view(100, 2, 3)), detector.novelty(known)
    )


@pytest.mark.parametrize("method", METHODS)
def test_more_data_of_a_kind_makes_it_less_new(method: str) -> None:
    first, second = _data(300), _data(300, 3) + 3.0
    detector = NoveltyDetector(method, k=1, epochs=15).fit(first)
    new = detector.novelty(second).mean() - detector.novelty(first).mean()
    detector.partial_fit(second)
    assert detector.novelty(second).mean() - detector.novelty(first).mean() < 0.5 * new


def test_kde_is_scikit_learns_and_pca_too() -> None:
    from sklearn.decomposition import PCA
    from sklearn.neighbors import KernelDensity, NearestNeighbors

    x, query = _data(200), _data(50, 1)
    mean, std = x.mean(0), np.sqrt(x.var(0) + 1e-8)
    white, asked = (x - mean) / std, (query - mean) / std
    options = {"memory": 500, "clip": 50.0}
    mine = NoveltyDetector("kde", bandwidth=0.4, **options).fit(x).score_samples(query)
    theirs = KernelDensity(bandwidth=0.4).fit(white).score_samples(asked)
    np.testing.assert_allclose(mine, theirs, rtol=1e-3)
    mine = NoveltyDetector("knn", k=7, **options).fit(x).novelty(query)
    theirs = NearestNeighbors(n_neighbors=7).fit(white).kneighbors(asked)[0].mean(1)
    np.testing.assert_allclose(mine, theirs, rtol=1e-3)
    mine = NoveltyDetector("pca", k=2, **options).fit(x).novelty(query)
    pca = PCA(2).fit(white)
    rebuilt = pca.inverse_transform(pca.transform(asked))
    np.testing.assert_allclose(mine, ((asked - rebuilt) ** 2).sum(1), rtol=1e-3, atol=1e-5)


def test_scikit_learns_protocol() -> None:
    from sklearn.base import clone

    detector = NoveltyDetector("knn", k=3).fit(_data(20))
    copy = clone(detector)
    assert copy.get_params() == detector.get_params()
    with pytest.raises(ValueError, match="call fit"):
        copy.novelty(_data(2))
    assert detector.set_params(k=5).k == 5
    with pytest.raises(ValueError, match="unknown parameters: colour"):
        detector.set_params(colour=1)


def test_bad_data_are_refused() -> None:
    with pytest.raises(ValueError, match="the method is one of"):
        NoveltyDetector("gan")
    with pytest.raises(ValueError, match="are positive"):
        NoveltyDetector("knn", k=0)
    with pytest.raises(ValueError, match="finite"):
        NoveltyDetector("knn").fit(np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match="give rows"):
        NoveltyDetector("knn").fit(np.zeros(3))
    with pytest.raises(ValueError, match="must end in the shape"):
        NoveltyDetector("knn").fit(np.zeros((3, 2))).novelty(np.zeros((3, 4)))


def test_a_reservoir_is_a_uniform_sample() -> None:
    counts = torch.zeros(60)
    for seed in range(600):
        box = Reservoir(10, _g(seed))
        for part in torch.arange(60.0)[:, None].split([4, 17, 1, 30, 8]):
            box.put(part)
        assert len(box.rows) == 10
        assert box.seen == 60
        kept = box.rows.flatten().long()
        assert len(kept.unique()) == 10
        counts[kept] += 1
    # Each row is kept with probability 1/6: 100 +- 9 of 600.
    assert (counts - 100).abs().max() < 5 * 9.2


def test_nearest_distances_by_hand() -> None:
    memory = torch.tensor([[0.0], [1.0], [4.0]])
    torch.testing.assert_close(
        nearest_distances(torch.tensor([[1.5]]), memory, 2), torch.tensor([[0.5, 1.5]])
    )
    assert nearest_distances(torch.tensor([[1.5]]), memory, 9).shape == (1, 3)


@pytest.mark.parametrize("make", ["knn", "density", "pseudo-count"])
def test_bonuses_fall_where_the_agent_was_and_stay_where_it_was_not(make: str) -> None:
    env = Line(8, length=30, max_steps=40)
    near = random_rollout(env, 10, _g())
    if make == "knn":
        bonus = KNNBonus(k=3, memory=200, stats=RunningMeanStd((1,)), generator=_g())
    else:
        detector = NoveltyDetector("kde", memory=200, clip=50.0)
        bonus = DensityBonus(
            detector, exponent=0.5 if make == "pseudo-count" else None, rows=60, generator=_g()
        )
    assert (bonus.reward(near) == 0).all(), "nothing to compare with yet"
    bonus.observe(near)
    known = bonus.reward(near)
    assert known.shape == (10, 8)
    far = random_rollout(env, 10, _g(1))
    far.obs = far.obs + 25
    far._next_obs = None
    assert bonus.reward(far).mean() > 2 * known.mean().abs()
    bonus.observe(far)
    assert bonus.reward(far).mean() < 2 * bonus.reward(near).mean().abs() + 1
    IntrinsicMixer([bonus], extrinsic=False).fill(random_rollout(env, 5, _g()))


def test_dummy_rows_are_not_remembered() -> None:
    rollout = random_rollout(NextStepReset(8, length=3, max_steps=6), 40, _g())
    bonus = KNNBonus(k=1, memory=10_000, generator=_g())
    bonus.observe(rollout)
    assert bonus.reservoir.seen == int(rollout.valid.sum()) < rollout.valid.numel()
    with pytest.raises(ValueError, match="at least one neighbour"):
        KNNBonus(k=0)
    with pytest.raises(ValueError, match="at least one row"):
        DensityBonus(NoveltyDetector("knn"), rows=0)


def test_a_bonus_can_look_at_part_of_the_observation() -> None:
    rollout = random_rollout(Line(4), 10, _g())
    bonus = KNNBonus(k=2, preprocess=lambda obs: obs * 0, generator=_g())
    bonus.observe(rollout)
    assert (bonus.reward(rollout) == 0).all()


def test_the_posterior_variance_is_what_distilling_random_functions_leaves() -> None:
    # Fit g = f + prior to zeros plus noise, kept near the prior: the outputs' mean square is the posterior variance.
    g, size, count, tau, sigma = _g(), 4, 12, 0.8, 0.5
    x = torch.randn(count, size, dtype=torch.float64, generator=g)
    x[:, 3] = 0
    query = torch.randn(6, size, dtype=torch.float64, generator=g)
    exact = bayesian_linear_variance(x, query, sigma, tau)
    draws = 40_000
    prior = tau * torch.randn(draws, size, dtype=torch.float64, generator=g)
    targets = sigma * torch.randn(draws, count, dtype=torch.float64, generator=g)
    system = x.T @ x / sigma**2 + torch.eye(size, dtype=torch.float64) / tau**2
    weights = torch.linalg.solve(system, (targets @ x / sigma**2 + prior / tau**2).T)
    torch.testing.assert_close((query @ weights).square().mean(1), exact, rtol=0.05, atol=1e-3)
    # It is scikit-learn's Bayesian ridge with fixed precisions, less the noise.
    assert (exact <= tau**2 * query.square().sum(1) + 1e-9).all()


def test_without_noise_only_unseen_directions_stay_new() -> None:
    # Gradient descent of a linear predictor on a linear random target, to the end: what is left is outside the span.
    g, size = _g(), 5
    x = torch.randn(3, size, dtype=torch.float64, generator=g)
    query = torch.cat((x, torch.randn(4, size, dtype=torch.float64, generator=g)))
    exact = bayesian_linear_variance(x, query, 0.0, 1.0)
    torch.testing.assert_close(exact[:3], torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    start = torch.randn(20_000, size, dtype=torch.float64, generator=g)  # predictor minus target
    outside = start - start @ torch.linalg.pinv(x) @ x
    torch.testing.assert_close((outside @ query.T).square().mean(0), exact, rtol=0.06, atol=1e-9)
    torch.testing.assert_close(bayesian_linear_variance(x, query, 1e-5, 1.0), exact, rtol=1e-3, atol=1e-6)
    # n visits of one direction: the variance falls as sigma^2 / n.
    once = torch.eye(1, dtype=torch.float64)
    seen = [bayesian_linear_variance(once.repeat(n, 1), once, 1.0, 100.0).item() for n in (10, 100)]
    assert seen == pytest.approx([0.1, 0.01], rel=1e-3)
    with pytest.raises(ValueError, match="at least 0"):
        bayesian_linear_variance(once, once, -1.0)


def test_two_streams_are_two_calls() -> None:
    g = _g()
    reward, value = torch.randn(12, 3, 2, generator=g), torch.randn(13, 3, 2, generator=g)
    terminated = torch.rand(12, 3, generator=g) < 0.2
    truncated = (torch.rand(12, 3, generator=g) < 0.2) & ~terminated
    final = torch.randn(12, 3, 2, generator=g)
    mixed, each = two_stream_advantage(reward, value, terminated, truncated, final_value=final)
    following = torch.where(truncated[..., None], final, value[1:])
    extrinsic = gae(
        reward[..., 0], value[:-1, :, 0], following[..., 0], terminated, truncated, gamma=0.999, lam=0.95
    )
    never = torch.zeros_like(terminated)
    intrinsic = gae(reward[..., 1], value[:-1, :, 1], value[1:, :, 1], never, never, gamma=0.99, lam=0.95)
    torch.testing.assert_close(each, torch.stack((extrinsic, intrinsic), -1))
    torch.testing.assert_close(mixed, 2 * extrinsic + intrinsic)
    # The intrinsic stream does not see ends at all.
    other, _ = torch.rand(12, 3, generator=g) < 0.5, None
    _, moved = two_stream_advantage(reward, value, other, never, final_value=final)
    torch.testing.assert_close(moved[..., 1], intrinsic)
    assert not torch.allclose(moved[..., 0], extrinsic)
    # Without the true last values time running out is an end.
    _, cut = two_stream_advantage(reward, value, terminated, truncated)
    _, world = two_stream_advantage(reward, value, terminated | truncated, never)
    torch.testing.assert_close(cut, world)
    with pytest.raises(ValueError, match="gamma needs one entry"):
        two_stream_advantage(reward, value, terminated, truncated, gamma=(0.99,))
