"""Exact solvers against closed forms, brute force and each other."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from assay.envs.base import Tabular
from assay.rl.tabular import (
    action_values,
    occupancy,
    policy_evaluation,
    policy_return,
    soft_value_iteration,
    stationary_distribution,
    value_iteration,
)

F64 = torch.float64


def garnet(seed: int, *batch: int, states: int = 6, actions: int = 3, terminal: bool = False) -> Tabular:
    g = torch.Generator().manual_seed(seed)
    P = torch.rand(*batch, states, actions, states, generator=g, dtype=F64) ** 3
    ends = torch.zeros(*batch, states, dtype=torch.bool)
    ends[..., -1] = terminal
    rho0 = torch.rand(*batch, states, generator=g, dtype=F64) * ~ends
    return Tabular(
        P / P.sum(-1, keepdim=True),
        torch.randn(*batch, states, actions, generator=g, dtype=F64),
        rho0 / rho0.sum(-1, keepdim=True),
        ends,
    )


def random_policy(seed: int, *shape: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.softmax(torch.randn(*shape, generator=g, dtype=F64), -1)


def corridor(states: int = 5) -> Tabular:
    """Left or right; reward 1 on entering the last state, which ends the episode."""
    P, R = torch.zeros(states, 2, states, dtype=F64), torch.zeros(states, 2, dtype=F64)
    for s in range(states - 1):
        P[s, 0, max(s - 1, 0)] = P[s, 1, s + 1] = 1
    P[-1, :, -1] = 1
    R[states - 2, 1] = 1
    rho0, terminal = torch.zeros(states, dtype=F64), torch.zeros(states, dtype=torch.bool)
    rho0[0], terminal[-1] = 1, True
    return Tabular(P, R, rho0, terminal)


class TestEvaluation:
    def test_closed_form_of_the_contract(self) -> None:
        P = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.1, 0.9]]], dtype=F64)
        R, off = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, dtype=torch.bool)
        mdp = SimpleNamespace(P=P, R=R, rho0=torch.tensor([1.0, 0.0]), terminal=off)
        pi = torch.tensor([[0.8, 0.2], [0.3, 0.7]], dtype=F64)
        v = policy_evaluation(mdp, pi, 0.9)
        torch.testing.assert_close(v, torch.tensor([10.521401, 11.688716], dtype=F64), rtol=0, atol=1e-6)
        assert policy_return(mdp, pi, 0.9).item() == pytest.approx(10.521401, abs=1e-6)

    @pytest.mark.parametrize("terminal", [False, True])
    def test_is_the_discounted_sum_of_rewards(self, terminal: bool) -> None:
        mdp, pi = garnet(0, terminal=terminal), random_policy(1, 6, 3)
        state, total = mdp.rho0.clone(), 0.0
        for t in range(400):
            state = state * ~mdp.terminal
            total += 0.9**t * float((state[:, None] * pi * mdp.R).sum())
            state = torch.einsum("s,sa,sat->t", state, pi, mdp.P)
        assert policy_return(mdp, pi, 0.9).item() == pytest.approx(total, abs=1e-10)

    def test_what_a_terminal_state_holds_does_not_matter(self) -> None:
        mdp, pi = garnet(0, terminal=True), random_policy(1, 6, 3)
        R, P = mdp.R.clone(), mdp.P.clone()
        R[-1], P[-1] = 1e6, 0
        other = mdp._replace(R=R, P=P)
        for solve in (
            lambda m: policy_evaluation(m, pi, 0.9),
            lambda m: value_iteration(m, 0.9).value,
            lambda m: soft_value_iteration(m, 0.9, 0.5).value,
            lambda m: occupancy(m, pi, 0.9),
            lambda m: stationary_distribution(m, pi),
        ):
            torch.testing.assert_close(solve(other), solve(mdp))
            assert (solve(mdp)[5] == 0).all()

    def test_undiscounted_episodes(self) -> None:
        # A symmetric walk on 5 cells that reflects on the left takes 16 steps to the end on average.
        walk, pi = corridor(), torch.full((5, 2), 0.5, dtype=F64)
        assert policy_return(walk, pi, 1.0).item() == pytest.approx(1.0)
        assert occupancy(walk, pi, 1.0).sum().item() == pytest.approx(20)
        with pytest.raises(ValueError, match="gamma = 1"):
            policy_evaluation(walk._replace(terminal=torch.zeros(5, dtype=torch.bool)), pi, 1.0)

    def test_batches(self) -> None:
        many, pi = garnet(2, 4), random_policy(3, 4, 6, 3)
        for name, solve in {
            "evaluation": lambda m, p: policy_evaluation(m, p, 0.9),
            "best": lambda m, p: value_iteration(m, 0.9).q,
            "finite": lambda m, p: value_iteration(m, 0.9, horizon=3).q.movedim(0, -1),
            "soft": lambda m, p: soft_value_iteration(m, 0.9, 0.3).policy,
            "occupancy": lambda m, p: occupancy(m, p, 0.9),
            "return": lambda m, p: policy_return(m, p, 0.9),
            "stationary": stationary_distribution,
        }.items():
            together = solve(many, pi)
            for k in range(4):
                one = solve(Tabular(*(x[k] for x in many)), pi[k])
                torch.testing.assert_close(
                    together[k], one, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
                )
        # One process, many policies.
        single = Tabular(*(x[0] for x in many))
        torch.testing.assert_close(
            policy_return(single, pi, 0.9)[2], policy_return(single, pi[2], 0.9), rtol=1e-9, atol=1e-9
        )


class TestControl:
    def test_optimal_among_all_policies(self) -> None:
        mdp = garnet(4, states=4, actions=2)
        best = value_iteration(mdp, 0.9)
        every = torch.tensor(list(itertools.product(range(2), repeat=4)))
        values = policy_evaluation(mdp, torch.nn.functional.one_hot(every, 2).double(), 0.9)
        torch.testing.assert_close(best.value, values.amax(0), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(policy_evaluation(mdp, best.policy, 0.9), best.value)
        torch.testing.assert_close(best.q.amax(-1), best.value)
        torch.testing.assert_close(action_values(mdp, best.value, 0.9), best.q)

    def test_corridor(self) -> None:
        value = value_iteration(corridor(), 0.9).value
        torch.testing.assert_close(value, torch.tensor([0.729, 0.81, 0.9, 1.0, 0.0], dtype=F64))
        torch.testing.assert_close(
            value_iteration(corridor(), 1.0).value, torch.tensor([1.0, 1, 1, 1, 0], dtype=F64)
        )

    def test_horizon(self) -> None:
        out = value_iteration(corridor(), 0.9, horizon=3)
        assert out.value.shape == (3, 5)
        torch.testing.assert_close(out.value[0], torch.tensor([0.0, 0.81, 0.9, 1.0, 0.0], dtype=F64))
        torch.testing.assert_close(out.value[2], torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0], dtype=F64))
        far = value_iteration(garnet(5), 0.8, horizon=200).value[0]
        torch.testing.assert_close(far, value_iteration(garnet(5), 0.8).value)

    @pytest.mark.parametrize("terminal", [False, True])
    def test_soft_optimality(self, terminal: bool) -> None:
        mdp, tau = garnet(6, terminal=terminal), 0.4
        out = soft_value_iteration(mdp, 0.9, tau)
        live = ~mdp.terminal
        torch.testing.assert_close(out.value[live], tau * torch.logsumexp(out.q / tau, -1)[live])
        torch.testing.assert_close(action_values(mdp, out.value, 0.9), out.q)
        torch.testing.assert_close(out.policy, torch.softmax(out.q / tau, -1))
        # No other policy has a larger return plus entropy.

        def objective(policy: Tensor) -> Tensor:
            bonus = tau * torch.special.entr(policy).sum(-1, keepdim=True)
            return policy_evaluation(mdp._replace(R=mdp.R + bonus), policy, 0.9)

        torch.testing.assert_close(objective(out.policy), out.value)
        for seed in range(20):
            other = torch.softmax(out.q / tau + 0.3 * torch.randn(6, 3, dtype=F64), -1)
            other = other if seed else random_policy(seed, 6, 3)
            assert (objective(other) <= out.value + 1e-10).all()

    def test_soft_tends_to_hard(self) -> None:
        mdp = garnet(7)
        soft = soft_value_iteration(mdp, 0.9, 1e-4).value
        torch.testing.assert_close(soft, value_iteration(mdp, 0.9).value, rtol=0, atol=2e-3)

    def test_soft_horizon_of_one_is_the_logarithm_of_the_sum(self) -> None:
        mdp = garnet(8)
        out = soft_value_iteration(mdp, 0.9, 0.7, horizon=1)
        torch.testing.assert_close(out.value[0], 0.7 * torch.logsumexp(mdp.R / 0.7, -1))

    def test_soft_horizon_with_an_end_tends_to_the_endless_answer(self) -> None:
        mdp = garnet(8, terminal=True)  # the end is worth 0: no entropy is earned there
        long = soft_value_iteration(mdp, 0.8, 0.7, horizon=200)
        torch.testing.assert_close(long.value[0], soft_value_iteration(mdp, 0.8, 0.7).value)
        assert (long.value[:, 5] == 0).all()

    def test_soft_undiscounted(self) -> None:
        mdp = corridor()
        out = soft_value_iteration(
            mdp._replace(R=mdp.R - 1.0), 1.0, 0.3
        )  # each step costs more than its entropy
        torch.testing.assert_close(out.value[:4], (0.3 * torch.logsumexp(out.q / 0.3, -1))[:4])


class TestDistributions:
    def test_occupancy(self) -> None:
        mdp, pi = garnet(9), random_policy(10, 6, 3)
        d = occupancy(mdp, pi, 0.9)
        assert d.sum().item() == pytest.approx(10)
        assert (d * mdp.R).sum().item() == pytest.approx(policy_return(mdp, pi, 0.9).item())
        flow = mdp.rho0 + 0.9 * torch.einsum("sa,sat->t", d, mdp.P)
        torch.testing.assert_close(d.sum(-1), flow)

    def test_occupancy_with_an_end(self) -> None:
        mdp, pi = garnet(11, terminal=True), random_policy(12, 6, 3)
        d = occupancy(mdp, pi, 0.95)
        assert (d[-1] == 0).all()
        assert (d * mdp.R).sum().item() == pytest.approx(policy_return(mdp, pi, 0.95).item())

    @pytest.mark.parametrize("terminal", [False, True])
    def test_stationary(self, terminal: bool) -> None:
        mdp, pi = garnet(13, terminal=terminal), random_policy(14, 6, 3)
        d = stationary_distribution(mdp, pi)
        assert d.sum().item() == pytest.approx(1)
        following = torch.einsum("s,sa,sat->t", d, pi, mdp.P)
        if terminal:
            following = following + following[-1] * mdp.rho0
            following[-1] = 0
        torch.testing.assert_close(d, following)

    def test_stationary_of_a_periodic_chain(self) -> None:
        P = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
        mdp = Tabular(P, torch.zeros(2, 1), torch.tensor([1.0, 0.0]), torch.zeros(2, dtype=torch.bool))
        torch.testing.assert_close(
            stationary_distribution(mdp, torch.ones(2, 1)), torch.tensor([0.5, 0.5], dtype=F64)
        )

    def test_two_closed_sets_raise(self) -> None:
        mdp = Tabular(
            torch.eye(2)[:, None],
            torch.zeros(2, 1),
            torch.tensor([0.5, 0.5]),
            torch.zeros(2, dtype=torch.bool),
        )
        with pytest.raises(ValueError, match="closed set"):
            stationary_distribution(mdp, torch.ones(2, 1))


def test_bad_input() -> None:
    mdp, pi = garnet(15), random_policy(16, 6, 3)
    with pytest.raises(ValueError, match="sum to 1"):
        policy_evaluation(mdp._replace(P=mdp.P * 2), pi, 0.9)
    with pytest.raises(ValueError, match="sum to 1"):
        policy_evaluation(mdp, pi * 2, 0.9)
    with pytest.raises(ValueError, match="gamma"):
        value_iteration(mdp, 1.1)
    with pytest.raises(ValueError, match="horizon"):
        value_iteration(mdp, 0.9, horizon=0)
    with pytest.raises(ValueError, match="temperature"):
        soft_value_iteration(mdp, 0.9, 0.0)
    with pytest.raises(ValueError, match="no fixed point"):
        value_iteration(mdp._replace(R=mdp.R.abs()), 1.0, max_iterations=50)
    with pytest.raises(ValueError, match="states and actions"):
        policy_evaluation(mdp, random_policy(0, 5, 3), 0.9)
