"""Action distributions against torch.distributions."""

import pytest
import torch
from torch import distributions as D

from assay.rl.distributions import Categorical, DiagGaussian, MultiCategorical, UniformBox


def _g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_categorical_is_torchs() -> None:
    logits = torch.randn(6, 5, generator=_g())
    mine, theirs = Categorical(logits), D.Categorical(logits=logits)
    action = torch.randint(5, (6,), generator=_g())
    torch.testing.assert_close(mine.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(mine.entropy(), theirs.entropy())
    assert torch.equal(mine.mode(), logits.argmax(-1))


def test_the_exponential_race_samples_the_softmax() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0])
    drawn = Categorical(logits.expand(200_000, 4)).sample(_g(1))
    share = torch.bincount(drawn, minlength=4) / len(drawn)
    p = logits.softmax(-1)
    assert ((share - p).abs() < 4 * (p * (1 - p) / len(drawn)).sqrt()).all()


def test_sampling_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    Categorical(torch.zeros(3, 4)).sample(_g())
    DiagGaussian(torch.zeros(3, 2), torch.zeros(2)).sample(_g())
    UniformBox(torch.tensor([[0.0, 1.0]])).sample(_g())
    assert torch.equal(before, torch.get_rng_state())


def test_masked_actions_are_never_taken_and_give_no_nan() -> None:
    mask = torch.tensor([[True, False, True], [False, True, False]])
    logits = torch.zeros(2, 3, requires_grad=True)
    dist = Categorical(logits, mask)
    for seed in range(50):
        assert mask.gather(1, dist.sample(_g(seed))[:, None]).all()
    torch.testing.assert_close(dist.entropy(), torch.tensor([2.0, 1.0]).log())
    dist.entropy().sum().backward()
    assert torch.isfinite(logits.grad).all()
    with pytest.raises(ValueError, match="at least one legal action"):
        Categorical(torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.bool))


def test_entropy_gradient_is_torchs() -> None:
    logits = torch.randn(4, 6, dtype=torch.float64, generator=_g(), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: Categorical(x).entropy(), logits)
    (mine,) = torch.autograd.grad(Categorical(logits).entropy().sum(), logits)
    (theirs,) = torch.autograd.grad(D.Categorical(logits=logits).entropy().sum(), logits)
    torch.testing.assert_close(mine, theirs)


def test_multicategorical_sums_its_parts() -> None:
    logits = torch.randn(7, 5, generator=_g())
    dist = MultiCategorical(logits, (2, 3))
    action = dist.sample(_g(3))
    assert action.shape == (7, 2)
    expected = D.Categorical(logits=logits[:, :2]).log_prob(action[:, 0])
    expected = expected + D.Categorical(logits=logits[:, 2:]).log_prob(action[:, 1])
    torch.testing.assert_close(dist.log_prob(action), expected)
    with pytest.raises(ValueError, match="need 5 logits"):
        MultiCategorical(torch.zeros(1, 4), (2, 3))


@pytest.mark.parametrize("squash", [False, True])
def test_gaussian_is_torchs(squash: bool) -> None:
    mean, log_std = torch.randn(8, 3, generator=_g()), torch.tensor([-0.5, 0.0, 0.3])
    dist = DiagGaussian(mean, log_std, squash)
    theirs: D.Distribution = D.Normal(mean, log_std.exp())
    if squash:
        theirs = D.TransformedDistribution(theirs, D.TanhTransform())
    action = dist.sample(_g(5))
    torch.testing.assert_close(dist.log_prob(action), theirs.log_prob(action).sum(-1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(dist.entropy(), D.Normal(mean, log_std.exp()).entropy().sum(-1))


def test_a_saturated_squashed_action_has_a_finite_density() -> None:
    dist = DiagGaussian(torch.full((1, 1), 30.0), torch.zeros(1), squash=True)
    assert torch.isfinite(dist.log_prob(dist.sample(_g()))).all()


def test_uniform_box() -> None:
    dist = UniformBox(torch.tensor([-1.0, 0.0, 1.0, 4.0]).expand(1000, 4))
    action = dist.sample(_g())
    assert (action[:, 0].abs() <= 1).all()
    assert (action[:, 1] >= 0).all()
    assert action[:, 1].max() > 3.9
    torch.testing.assert_close(dist.log_prob(action), torch.full((1000,), -torch.tensor(8.0).log().item()))
    assert dist.log_prob(torch.full((1000, 2), 5.0)).isinf().all()
