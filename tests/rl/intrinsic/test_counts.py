"""Counts against a dictionary."""

from collections import Counter

import pytest
import torch

from assay.envs.random_mdp import RandomMDP
from assay.rl.intrinsic.counts import CountBonus, SimHash
from assay.rl.rollout import random_rollout


def g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rollout(steps: int = 12, seed: int = 0):
    env = RandomMDP(3, num_states=6, max_steps=5, one_hot=True, generator=g(seed))
    return random_rollout(env, steps, g(seed + 1), info=("state",))


def expected(indices: list[int], counter: Counter, beta: float = 1.0) -> list[float]:
    out = []
    for index in indices:
        counter[index] += 1
        out.append(beta / counter[index] ** 0.5)
    return out


@pytest.mark.parametrize("source", ["function", "info"])
def test_bonus_is_exact_within_and_over_rollouts(source: str) -> None:
    bonus = CountBonus((lambda obs: obs.argmax(-1)) if source == "function" else "state", 6, beta=0.5)
    counter: Counter = Counter()
    for seed in (0, 3):
        r = rollout(seed=seed)
        states = r.next_obs().argmax(-1).flatten().tolist()
        reward = bonus.reward(r)
        assert reward.flatten().tolist() == pytest.approx(expected(states, counter, 0.5))
        bonus.observe(r)
        assert bonus.counts.tolist() == [counter[i] for i in range(6)]


def test_pairs() -> None:
    r = rollout()
    bonus = CountBonus(lambda obs: obs.argmax(-1), 6, num_actions=4)
    states, actions = r.obs[:-1].argmax(-1).flatten(), r.action.flatten()
    assert bonus.reward(r).flatten().tolist() == pytest.approx(
        expected((states * 4 + actions).tolist(), Counter())
    )


def test_rows_that_are_no_transitions_do_not_count() -> None:
    r = rollout()
    r.valid[3] = False
    bonus = CountBonus("state", 6)
    assert bonus.reward(r)[3].tolist() == [0, 0, 0]
    bonus.observe(r)
    assert int(bonus.counts.sum()) == 33


def test_power_and_visits() -> None:
    bonus = CountBonus(lambda obs: obs.long()[:, 0], 3, power=1.0)
    assert bonus.visit(torch.tensor([2, 0, 2, 2])).tolist() == [1, 1, 2, 3]
    assert bonus.visit(torch.tensor([2])).tolist() == [4]


def test_similar_observations_share_a_bucket() -> None:
    hashing = SimHash((8,), 16, g())
    x = torch.randn(200, 8, generator=g(1))
    near, far = hashing(x + 1e-4), hashing(torch.randn(200, 8, generator=g(2)))
    assert float((hashing(x) == near).float().mean()) > 0.95
    assert float((hashing(x) == far).float().mean()) < 0.05
    assert torch.equal(hashing(x), hashing(3 * x)), "only directions count"
    assert int(hashing(x).max()) < hashing.size
    assert set(dict(CountBonus(hashing).named_parameters())) == set(), "nothing is trained"


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="how many"):
        CountBonus(lambda obs: obs)
    with pytest.raises(ValueError, match="successors"):
        CountBonus("state", 6, num_actions=2)
    with pytest.raises(ValueError, match="indices"):
        CountBonus("state", 3).visit(torch.tensor([3]))
    with pytest.raises(ValueError, match="collect the rollout"):
        CountBonus("cell", 3).reward(rollout())
    with pytest.raises(ValueError, match="bits"):
        SimHash((4,), 30)
