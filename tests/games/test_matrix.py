"""Memory-one games against closed forms, power iteration, rollouts and PettingZoo's own test."""

import inspect

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from assay.games.forecast import policy_log_prob
from assay.games.matrix import (
    IteratedMatrixGame,
    MemoryOneGame,
    as_parallel_env,
    chicken,
    imp,
    ipd,
    play,
    stag_hunt,
    swap_view,
)
from assay.games.reciprocity import always_cooperate, always_defect, tit_for_tat

HARD = 40.0  # logits so large that policies are deterministic


def policies(seed: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    theta = torch.randn(2, *shape, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return theta[0].clone(), theta[1].clone()


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (tit_for_tat(HARD), tit_for_tat(HARD), (-1.0, -1.0)),
        (always_defect(HARD), always_defect(HARD), (-2.0, -2.0)),
        (tit_for_tat(HARD), always_defect(HARD), (-2.04, -1.92)),
        (always_cooperate(HARD), always_defect(HARD), (-3.0, 0.0)),
        (torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64), (-1.5, -1.5)),
    ],
)
def test_known_returns(first, second, expected):
    got = ipd().average_return(first, swap_view(second))
    assert [float(v) for v in got] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("game", [ipd(), imp(), chicken(), stag_hunt(), ipd(0.0)])
def test_value_equals_power_iteration(game):
    theta1, theta2 = policies(2, 3)
    summed = game.truncated_value(theta1, theta2, 2_000)
    for value, long in zip(game.value(theta1, theta2), summed, strict=True):
        torch.testing.assert_close(value, long, atol=1e-10, rtol=1e-12)


def test_value_is_differentiable_twice():
    game = ipd()
    theta1, theta2 = (t.requires_grad_() for t in policies(3))
    assert torch.autograd.gradcheck(lambda a, b: game.value(a, b), (theta1, theta2))
    assert torch.autograd.gradgradcheck(lambda a, b: game.value(a, b), (theta1, theta2))


@given(seed=st.integers(0, 10_000), gamma=st.floats(0.0, 0.98))
@settings(max_examples=30, deadline=None)
def test_symmetric_players_swap_places(seed, gamma):
    """Exchanging the players exchanges the values, with each put into the other's order of states."""
    theta1, theta2 = policies(seed)
    for game in (ipd(gamma), chicken(gamma), stag_hunt(gamma)):
        v1, v2 = game.value(theta1, theta2)
        w1, w2 = game.value(swap_view(theta2), swap_view(theta1))
        torch.testing.assert_close((v1, v2), (w2, w1))
    v1, v2 = imp(gamma).value(theta1, theta2)
    assert float(v1 + v2) == pytest.approx(0, abs=1e-9)


def test_occupancy_sums_to_the_horizon():
    theta1, theta2 = policies(4, 7)
    torch.testing.assert_close(
        ipd(0.9).occupancy(theta1, theta2).sum(-1), torch.full((7,), 10.0, dtype=torch.float64)
    )


def test_swap_view_twice_is_nothing():
    theta, _ = policies(5, 2)
    torch.testing.assert_close(swap_view(swap_view(theta)), theta)
    assert swap_view(torch.arange(5.0)).tolist() == [0, 2, 1, 3, 4]
    assert swap_view(torch.arange(4.0)).tolist() == [0, 2, 1, 3]
    with pytest.raises(ValueError, match="5 entries"):
        swap_view(torch.zeros(3))


def test_play_has_the_exact_mean_return():
    """A million steps of play, against the closed form of the truncated return."""
    game, steps, rollouts = ipd(), 20, 50_000
    theta1, theta2 = policies(6)
    noise = torch.rand(steps, 2, rollouts, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = play(game, theta1, theta2, noise)
    weight = game.gamma ** torch.arange(steps, dtype=torch.float64).unsqueeze(-1)
    exact = game.truncated_value(theta1, swap_view(theta2), steps)
    for rewards, value in zip((seen.rewards1, seen.rewards2), exact, strict=True):
        returns = (weight * rewards).sum(0)
        assert abs(float(returns.mean() - value)) < 4 * float(returns.std()) / rollouts**0.5


def test_play_follows_the_policies_and_the_views():
    """Unlike deterministic policies: player 1 copies the other, player 2 repeats itself and starts with D."""
    copy, stubborn = tit_for_tat(HARD), HARD * torch.tensor([1.0, 1, -1, -1, -1], dtype=torch.float64)
    seen = play(ipd(), copy, stubborn, torch.full((3, 2, 1), 0.5, dtype=torch.float64))
    assert seen.actions1.flatten().tolist() == [0, 1, 1]
    assert seen.actions2.flatten().tolist() == [1, 1, 1]
    assert seen.states1.flatten().tolist() == [4, 1, 3]
    assert seen.states2.flatten().tolist() == [4, 2, 3]
    assert seen.rewards1.flatten().tolist() == [-3, -2, -2]
    assert seen.rewards2.flatten().tolist() == [0, -2, -2]


def test_a_replica_plays_alike_alone_and_in_company():
    theta1, theta2 = policies(8, 4)
    noise = torch.rand(6, 2, 4, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    company = play(ipd(), theta1, theta2, noise)
    alone = play(ipd(), theta1[2], theta2[2], noise[:, :, 2])
    assert torch.equal(company.actions1[:, 2], alone.actions1)
    assert torch.equal(company.states2[:, 2], alone.states2)


def test_environment_agrees_with_play():
    game, steps, copies = chicken(), 12, 5
    theta1, theta2 = policies(9)
    noise = torch.rand(steps, 2, copies, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    seen = play(game, theta1, theta2, noise)
    world = IteratedMatrixGame(game, copies, max_steps=steps)
    obs, _ = world.reset()
    for t in range(steps):
        assert torch.equal(obs, torch.stack([seen.states1[t], seen.states2[t]], -1))
        step = world.step(torch.stack([seen.actions1[t], seen.actions2[t]], -1))
        torch.testing.assert_close(
            step.reward.double(), torch.stack([seen.rewards1[t], seen.rewards2[t]], -1)
        )
        assert bool(step.truncated.all()) == (t == steps - 1)
        obs = step.obs
    assert (obs == 4).all()  # started again
    assert (step.final_obs < 4).all()
    assert not step.terminated.any()


def test_log_probabilities_are_those_of_the_policy():
    theta, _ = policies(10, 3)
    states = torch.tensor([[[0], [4], [2]], [[3], [1], [0]]])
    actions = torch.tensor([[[0], [1], [0]], [[1], [1], [0]]])
    got = policy_log_prob(theta, states, actions)
    p = torch.sigmoid(theta)
    for t in range(2):
        for k in range(3):
            prob = p[k, states[t, k, 0]]
            expected = prob if actions[t, k, 0] == 0 else 1 - prob
            assert float(got[t, k, 0].exp()) == pytest.approx(float(expected))


def test_pettingzoo_adapter():
    pytest.importorskip("pettingzoo")
    from pettingzoo.test import parallel_api_test

    env = as_parallel_env(ipd(), horizon=7)
    parallel_api_test(env, num_cycles=50)
    obs, _ = env.reset(seed=1)
    assert obs == {"player_1": 4, "player_2": 4}
    obs, rewards, ended, cut, _ = env.step({"player_1": 0, "player_2": 1})
    assert obs == {"player_1": 1, "player_2": 2}
    assert rewards == {"player_1": -3.0, "player_2": 0.0}
    assert not any(ended.values())
    assert not any(cut.values())
    for _ in range(6):
        *_, cut, _ = env.step({"player_1": 1, "player_2": 1})
    assert all(cut.values())
    assert env.agents == []
    with pytest.raises(RuntimeError, match="reset"):
        env.step({"player_1": 1, "player_2": 1})


def test_bad_input_is_told():
    payoff = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="gamma"):
        MemoryOneGame(payoff, payoff, 1.0)
    with pytest.raises(ValueError, match="gamma"):
        ipd(-0.1)
    with pytest.raises(ValueError, match=r"\[2, 2\]"):
        inspect.unwrap(MemoryOneGame.__post_init__)(_with_payoff(torch.zeros(4)))
    with pytest.raises(ValueError, match="at least one copy"):
        IteratedMatrixGame(ipd(), 0)
    with pytest.raises(ValueError, match="steps"):
        ipd().truncated_value(*policies(0), 0)
    world = IteratedMatrixGame(ipd(), 1)
    with pytest.raises(ValueError, match="actions"):
        world.step(torch.tensor([[0, 2]]))


def _with_payoff(payoff: torch.Tensor) -> MemoryOneGame:
    """A game around the constructor, whose signature the tests' shape check would refuse first."""
    game = object.__new__(MemoryOneGame)
    for name, value in {"payoff1": payoff, "payoff2": payoff, "gamma": 0.9, "name": "x"}.items():
        object.__setattr__(game, name, value)
    return game
