"""Disagreement as a reward: it falls where the ensemble has learnt."""

import pytest
import torch

from assay.envs.classic import CartPole
from assay.envs.random_mdp import RandomMDP
from assay.rl.dynamics import DynamicsEnsemble
from assay.rl.intrinsic.base import IntrinsicMixer
from assay.rl.intrinsic.disagreement import EnsembleDisagreement
from assay.rl.rollout import minibatches, random_rollout


def g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_gaussian_reward_falls_with_training() -> None:
    env = CartPole(16, generator=g())
    model = DynamicsEnsemble(4, 2, 4, (32,), "gaussian", act="swish", generators=g(1))
    bonus = EnsembleDisagreement(model, num_actions=2)
    rollout = random_rollout(env, 32, g(2))
    bonus.observe(rollout)
    inputs = torch.cat(
        (rollout.obs[:-1].flatten(0, 1), torch.nn.functional.one_hot(rollout.action.flatten(), 2)), 1
    )
    assert torch.allclose(model.in_mean[0, 0], inputs.mean(0), atol=1e-5), "units of what was seen"
    first = bonus.reward(rollout)
    assert first.shape == (32, 16)
    optimizer = torch.optim.Adam(bonus.parameters(), 1e-2)
    for _ in range(60):
        (batch,) = minibatches(rollout, 1, generator=g(3))
        loss = bonus.loss(batch)["ensemble"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(bonus.reward(rollout).mean()) < 0.5 * float(first.mean())
    far = torch.full((1, 4), 30.0)
    assert float(bonus.bonus(far, torch.zeros(1, dtype=torch.int64))) > float(bonus.reward(rollout).max())


def test_categorical_in_a_mixer() -> None:
    env = RandomMDP(3, num_states=5, num_actions=2, generator=g())
    bonus = EnsembleDisagreement(DynamicsEnsemble(5, 2, 3, generators=g(1)), num_actions=2)
    rollout = random_rollout(env, 6, g(2))
    mixer = IntrinsicMixer([bonus], extrinsic=False)
    (raw,) = mixer.fill(rollout)
    assert torch.allclose(rollout.reward[..., 0], raw)
    assert bool((raw > 0).all())


def test_variance_of_means() -> None:
    model = DynamicsEnsemble(2, 1, 3, likelihood="gaussian", generators=g())
    bonus = EnsembleDisagreement(model, "variance")
    obs, action = torch.randn(5, 2, generator=g(1)), torch.zeros(5, 1)
    expected = model(obs, action).mean.var(0, correction=0).mean(-1)
    assert torch.allclose(bonus.bonus(obs, action), expected)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="utility"):
        EnsembleDisagreement(DynamicsEnsemble(2, 1), "mean")
    with pytest.raises(ValueError, match="Gaussian"):
        EnsembleDisagreement(DynamicsEnsemble(2, 1), "variance")
    with pytest.raises(ValueError, match="two members"):
        EnsembleDisagreement(DynamicsEnsemble(2, 1, 1))
    with pytest.raises(ValueError, match="vectors of 2"):
        EnsembleDisagreement(DynamicsEnsemble(2, 1)).bonus(torch.zeros(1, 3), torch.zeros(1, 1))
