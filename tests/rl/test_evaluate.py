"""Scores."""

import pytest
import torch

from assay.rl.evaluate import (
    auc,
    coverage,
    evaluate,
    human_normalised,
    iqm,
    mean_capped_normalised,
    visitation_entropy,
)
from assay.rl.policies import actor_critic
from tests.rl.worlds import Line


def test_every_copy_gives_its_first_episodes() -> None:
    env = Line(8, length=2, max_steps=10)
    model = actor_critic(env)
    model.train()
    result = evaluate(model, env, 20, generator=torch.Generator().manual_seed(0))
    assert len(result.returns) == 24  # three a copy
    assert model.training
    # A random walk from 0 (reflecting) to 2 takes at least 2 steps, and more than that on average.
    assert result.lengths.min() >= 2
    assert result.lengths.float().mean() > 3
    assert torch.equal(result.returns > 0, result.terminated)


def test_an_episode_that_never_ends_is_an_error() -> None:
    env = Line(2, length=10**6)
    with pytest.raises(RuntimeError, match="set max_steps"):
        evaluate(actor_critic(env), env, 2, limit=50)


def test_coverage_and_entropy() -> None:
    visits = torch.tensor([[4.0, 0.0, 4.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    torch.testing.assert_close(coverage(visits), torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(coverage(visits[0], torch.tensor([1.0, 1.0, 1.0, 0.0])), torch.tensor(2 / 3))
    torch.testing.assert_close(visitation_entropy(visits), torch.tensor([2.0, 4.0]).log())


def test_normalised_scores() -> None:
    assert human_normalised(6.0, 1.0, 11.0) == 0.5
    scores, references = {"a": 30.0, "b": 5.0}, {"a": (0.0, 10.0), "b": (0.0, 10.0)}
    assert mean_capped_normalised(scores, references) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="no reference scores for c"):
        mean_capped_normalised({"c": 1.0}, references)
    with pytest.raises(ValueError, match="cannot be normalised"):
        human_normalised(1.0, 2.0, 2.0)


def test_auc_and_iqm() -> None:
    assert auc(torch.tensor([0.0, 1.0, 2.0])).item() == 1.0
    assert iqm(torch.tensor([0.0, 1.0, 2.0, 100.0])).item() == 1.5
    scipy_stats = pytest.importorskip("scipy.stats")
    scores = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert iqm(scores).item() == pytest.approx(scipy_stats.trim_mean(scores.numpy(), 0.25))
