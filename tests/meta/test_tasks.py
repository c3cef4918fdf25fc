"""Task families: priors, noise, and that nobody sees the answer."""

import numpy as np
import pytest
import torch

from assay.meta import (
    ContextBandit,
    FourierTasks,
    LinearTasks,
    as_gymnasium,
    random_orthogonal,
    visit_numbers,
)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_linear_tasks_have_their_prior_and_noise():
    batch = LinearTasks(3, 2, sigma=0.5, prior_scale=2.0).sample(4000, 10, source())
    assert float(batch.weight.std()) == pytest.approx(2.0, rel=0.03)
    residual = batch.y - batch.x @ batch.weight.mT
    assert float(residual.std()) == pytest.approx(0.5, rel=0.02)
    assert float((residual.unsqueeze(-1) * batch.x.unsqueeze(-2)).mean().abs()) < 0.01
    assert not torch.equal(batch.weight[0], batch.weight[1])


def test_a_spectrum_is_kept_and_its_directions_are_uniform():
    w = LinearTasks(3, 3, spectrum=(3.0, 1.5, 0.75), prior_scale=2.0).weights(5000, source())
    torch.testing.assert_close(
        torch.linalg.svdvals(w), torch.tensor([6.0, 3.0, 1.5]).expand(5000, 3), atol=1e-4, rtol=0
    )
    # rotation invariance: E[W W^T] is a multiple of the identity, E[W] is zero
    assert float(w.mean(0).abs().max()) < 0.15
    gram = (w @ w.mT).mean(0) / (36 + 9 + 2.25) * 3
    torch.testing.assert_close(gram, torch.eye(3), atol=0.06, rtol=0)


def test_orthogonal_matrices_are_haar():
    """Without the sign fix the diagonal of Q would be biased."""
    q = random_orthogonal(8000, 3, source())
    assert float(q.diagonal(dim1=1, dim2=2).mean(0).abs().max()) < 0.03
    assert float(torch.linalg.det(q).mean().abs()) < 0.05


def test_fourier_tasks():
    tasks = FourierTasks(4, sigma=0.3)
    batch = tasks.sample(3000, 12, source())
    parts = torch.view_as_real(batch.coefficients)
    assert parts.std((0, 1)).tolist() == pytest.approx([1.0, 1.0], rel=0.05)
    k = torch.arange(1, 5)
    angle = batch.theta.unsqueeze(-1) * k
    clean = (batch.coefficients.real.unsqueeze(1) * angle.cos()).sum(-1)
    clean = clean - (batch.coefficients.imag.unsqueeze(1) * angle.sin()).sum(-1)
    assert float((batch.y.squeeze(-1) - clean).std()) == pytest.approx(0.3, rel=0.03)
    torch.testing.assert_close(batch.x, torch.stack([batch.theta.cos(), batch.theta.sin()], -1))
    outside = FourierTasks(4, band=(5, 8), amplitude=2.0)
    found = outside.coefficients(5, source())
    torch.testing.assert_close(found.abs(), torch.full((5, 4), 2.0))
    spectrum = torch.fft.rfft(outside.function(found, 2 * torch.pi * torch.arange(64).expand(5, -1) / 64))
    assert float(spectrum[:, :5].abs().max()) < 1e-3


def test_the_same_seed_gives_the_same_tasks():
    for tasks in (LinearTasks(2, 2), FourierTasks(2), ContextBandit(3, 3)):
        one, other = (tasks.sample(3, 5, source(4)) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_bandit_pays_the_one_right_action_of_each_context():
    world = ContextBandit(3, 4)
    tasks = world.sample(50, 20, source())
    obs = world.reset(tasks)
    assert obs.shape == (50, world.obs_dim)
    assert float(obs[:, 3:].abs().max()) == 0.0
    for t in range(20):
        shown = tasks.contexts[:, t]
        assert obs[:, :3].argmax(1).tolist() == shown.tolist()
        right = tasks.correct[torch.arange(50), shown]
        action = right if t % 2 else (right + 1) % 4
        obs, reward, done = world.step(action)
        assert reward.tolist() == [float(t % 2)] * 50
        assert obs[:, 3:7].argmax(1).tolist() == action.tolist()
        assert obs[:, 7].tolist() == reward.tolist()
        assert done == (t == 19)
    with pytest.raises(ValueError, match="call reset"):
        world.step(action)


def test_the_right_action_is_not_in_what_is_seen_first():
    """Nothing shown at the first step depends on the rewarded actions."""
    world = ContextBandit(2, 3)
    tasks = world.sample(6, 4, source())
    first = world.reset(tasks)
    other = world.reset(tasks._replace(correct=(tasks.correct + 1) % 3))
    assert torch.equal(first, other)


def test_visit_numbers():
    contexts = torch.tensor([[0, 1, 0, 2, 0, 1], [2, 2, 2, 2, 2, 2]])
    assert visit_numbers(contexts, 3).tolist() == [[1, 1, 2, 1, 3, 2], [1, 2, 3, 4, 5, 6]]


def test_gymnasium_face():
    gymnasium = pytest.importorskip("gymnasium")
    from gymnasium.utils.env_checker import check_env

    world = as_gymnasium(ContextBandit(3, 3), steps=6)
    assert isinstance(world, gymnasium.Env)
    check_env(world, skip_render_check=True)
    first, _ = world.reset(seed=3)
    again, _ = world.reset(seed=3)
    assert np.array_equal(first, again)
    earned, truncated = 0.0, False
    while not truncated:
        _, reward, terminated, truncated, info = world.step(0)
        assert reward == float(info["correct"] == 0)
        assert not terminated
        earned += reward
    assert earned >= 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearTasks(0, 2), "nx"),
        (lambda: LinearTasks(2, 2, sigma=-0.1), "sigma"),
        (lambda: LinearTasks(2, 2, prior_scale=0.0), "prior_scale"),
        (lambda: LinearTasks(2, 2, spectrum=(1.0,)), "spectrum needs"),
        (lambda: LinearTasks(2, 2, spectrum=(1.0, 2.0)), "largest"),
        (lambda: FourierTasks(3, band=(0, 3)), "band"),
        (lambda: ContextBandit(3, 1), "2 actions"),
        (lambda: LinearTasks(2, 2).sample(0, 3), "n must be"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
