"""Garnets: the tables are what was asked for, and stepping follows them."""

import pytest
import torch
from scipy.stats import chisquare, kstest

from assay.envs import RandomMDP, Tabular, TabularWorld, garnet, random_policy
from assay.envs.random_mdp import dirichlet

from .common import check_env, check_tabular, generator


def test_common() -> None:
    check_env(lambda **k: RandomMDP(num_states=6, branching=2, max_steps=20, **k), num_envs=6)
    check_env(
        lambda **k: RandomMDP(num_states=6, num_terminal=1, one_hot=False, **k),
        num_envs=6,
        reward_range=(-5, 5),
    )
    # Blocks need equal processes in both halves for the comparison, so one process a batch there; a batch of two here.
    check_env(lambda **k: RandomMDP(num_mdps=2, max_steps=20, **k), num_envs=6, split=False)


@pytest.mark.parametrize("rewards", ["normal", "uniform", "dirichlet"])
def test_tables(rewards: str) -> None:
    P, R, rho0, terminal = garnet(20, 4, 5, generator(0), num_mdps=30, rewards=rewards, num_terminal=2)
    assert P.shape == (30, 20, 4, 20)
    assert P.dtype == R.dtype == torch.float64
    assert torch.allclose(P.sum(-1), torch.ones(30, 20, 4, dtype=torch.float64))
    assert bool(((P > 0).sum(-1)[:, :18] == 5).all())
    assert torch.equal(P[:, 18:, 0, 18:], torch.eye(2, dtype=torch.float64).expand(30, 2, 2))
    assert bool((R[:, 18:] == 0).all())
    assert terminal.sum(1).tolist() == [2] * 30
    assert torch.allclose(rho0.sum(1), torch.ones(30, dtype=torch.float64))
    assert bool((rho0[terminal] == 0).all())
    if rewards == "dirichlet":
        assert torch.allclose(R[:, :18].sum(-1), torch.ones(30, 18, dtype=torch.float64))
    # Every state is a successor equally often.
    counts = (P[:, :18] > 0).sum((0, 1, 2))
    assert chisquare(counts.numpy()).pvalue > 1e-4


def test_same_seed_same_process() -> None:
    one, two = garnet(7, 3, 2, generator(5)), garnet(7, 3, 2, generator(5))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert one.P.shape == (7, 3, 7)
    assert not torch.equal(one.P, garnet(7, 3, 2, generator(6)).P)


@pytest.mark.parametrize("concentration", [0.3, 1.0, 4.0])
def test_dirichlet_marginals_are_beta(concentration: float) -> None:
    drawn = dirichlet((4000, 4), generator(1), concentration)
    assert torch.allclose(drawn.sum(-1), torch.ones(4000, dtype=torch.float64))
    for k in (0, 3):
        assert kstest(drawn[:, k].numpy(), "beta", args=(concentration, 3 * concentration)).pvalue > 1e-4


def test_random_policy() -> None:
    policy = random_policy(20, 4, generator(0), num_mdps=3)
    assert policy.shape == (3, 20, 4)
    assert torch.allclose(policy.sum(-1), torch.ones(3, 20, dtype=torch.float64))


def test_steps_follow_the_table() -> None:
    env = RandomMDP(4096, num_states=8, num_actions=3, branching=4, num_mdps=2, num_terminal=1, mdp_seed=3)
    P, R, rho0, terminal = env.tabular()
    obs, _ = env.reset()
    assert torch.equal(obs.argmax(1), env.state_index())
    first = torch.stack([torch.bincount(env.state[env.mdp == m], minlength=8) for m in range(2)])
    for m in range(2):
        alive = rho0[m] > 0
        assert first[m][~alive].sum() == 0
        assert chisquare(first[m][alive].numpy(), (rho0[m][alive] * 2048).numpy()).pvalue > 1e-4
    counts = torch.zeros(2, 8, 3, 8)
    g = generator(4)
    for _ in range(60):
        before = env.state_index()
        action = torch.randint(3, (4096,), generator=g)
        step = env.step(action)
        after = step.info["state"]
        counts.index_put_((env.mdp, before, action, after), torch.ones(4096), accumulate=True)
        assert torch.equal(step.reward, R[env.mdp, before, action].float())
        assert torch.equal(step.terminated, terminal[env.mdp, after])
        assert torch.equal(step.final_obs.argmax(1), after)
    assert bool((counts[P == 0] == 0).all())
    lowest = 1.0
    for m in range(2):
        for s in range(7):
            for a in range(3):
                likely = P[m, s, a] > 0
                expected = P[m, s, a][likely] * counts[m, s, a].sum()
                seen = counts[m, s, a][likely].double()
                lowest = min(lowest, chisquare(seen.numpy(), expected.numpy()).pvalue)
    assert lowest > 1e-4 / 42


def test_one_process_has_the_frequencies_of_its_table() -> None:
    env = RandomMDP(512, num_states=6, num_actions=2, branching=3, num_terminal=1, max_steps=None, mdp_seed=1)
    check_tabular(env, 60)


def test_any_table_can_be_stepped() -> None:
    P = torch.zeros(3, 2, 3, dtype=torch.float64)
    P[0, 0, 1] = P[0, 1, 2] = P[1, :, 2] = P[2, :, 2] = 1.0
    table = Tabular(
        P,
        torch.tensor([[1.0, 5.0], [2.0, 2.0], [0.0, 0.0]]).double(),
        torch.eye(3)[0].double(),
        torch.arange(3) == 2,
    )
    env = TabularWorld(2, table)
    env.reset()
    step = env.step(torch.tensor([0, 1]))
    assert step.reward.tolist() == [1.0, 5.0]
    assert step.terminated.tolist() == [False, True]
    assert step.final_obs.tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert step.obs.tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    assert torch.equal(env.tabular().P, P)


def test_bad_input() -> None:
    for bad in ({"branching": 0}, {"branching": 9}, {"num_terminal": 8}, {"rewards": "gold"}):
        with pytest.raises(ValueError, match=r"branching|terminal|rewards"):
            RandomMDP(4, **{"num_states": 8, **bad})
    with pytest.raises(ValueError, match="divide"):
        RandomMDP(4, num_mdps=3)
    P, R, rho0, terminal = garnet(4, 2, 2, generator(0))
    with pytest.raises(ValueError, match="sum to 1"):
        TabularWorld(2, Tabular(P * 0.5, R, rho0, terminal))
    with pytest.raises(ValueError, match="sum to 1"):
        TabularWorld(2, Tabular(P, R, rho0 * 2, terminal))
    with pytest.raises(ValueError, match="positive"):
        dirichlet((3,), generator(0), 0.0)
