"""Planners against brute force and each other."""

from itertools import product

import pytest
import torch

from assay.envs.chain import Chain
from assay.rl.planning import CEM, MCTS, RandomShooting, TableModel, value_iteration_finite


def g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chain() -> tuple[torch.Tensor, torch.Tensor]:
    P = Chain(1, length=5, swap_seed=4).tabular().P
    return P, torch.rand(5, 2, generator=g(1), dtype=torch.float64)


def worth(P: torch.Tensor, u: torch.Tensor, state: int, plan: tuple[int, ...]) -> float:
    total = 0.0
    for action in plan:
        total += float(u[state, action])
        state = int(P[state, action].argmax())
    return total


def test_value_iteration_is_the_best_of_all_plans() -> None:
    P, u = chain()
    solution = value_iteration_finite(P, u, 6)
    for state in range(5):
        best = max(worth(P, u, state, plan) for plan in product((0, 1), repeat=6))
        assert float(solution.value[0, state]) == pytest.approx(best)
    assert solution.q.shape == (6, 5, 2)
    assert torch.allclose(solution.q[5], u), "one step to go: the utility itself"


def test_value_iteration_by_groups() -> None:
    P, u = chain()
    both = value_iteration_finite(torch.stack((P, P)), torch.stack((u, 2 * u)), 4)
    assert torch.allclose(both.value[:, 1], 2 * both.value[:, 0])


def test_tree_search_finds_the_best_plan() -> None:
    P, u = chain()
    best = value_iteration_finite(P, u, 6).value[0, 1]
    plan = MCTS(P, u, c=1.0, simulations=400, generator=g()).plan(1, 6)
    assert len(plan) == 6
    assert worth(P, u, 1, tuple(plan)) == pytest.approx(float(best))
    assert plan == MCTS(P, u, c=1.0, simulations=400, generator=g()).plan(1, 6)


def test_tree_search_is_open_loop() -> None:
    """After a gamble no plan can react: a sure reward beats the average of two blind guesses."""
    P = torch.zeros(4, 3, 4)
    P[0, 0, 1] = P[0, 0, 2] = 0.5  # gamble: action 1 pays in state 1, action 2 in state 2
    P[0, 1, 3] = P[0, 2, 3] = 1.0
    P[1:, :] = torch.eye(4)[1:, None]
    u = torch.zeros(4, 3)
    u[1, 1] = u[2, 2] = 1.0
    u[3] = 0.7
    plan = MCTS(P, u, simulations=2_000, generator=g()).plan(0, 2)
    assert plan[0] != 0
    assert float(value_iteration_finite(P, u, 2).value[0, 0]) == 1.0, "the closed-loop optimum is to gamble"


@pytest.mark.parametrize("planner", [CEM, RandomShooting])
def test_sampled_plans_on_a_table(planner: type) -> None:
    P, u = chain()
    best = float(value_iteration_finite(P, u, 6).value[0, 1])
    table = TableModel(P[None], u[None])
    plan, value = planner(table, 6, 256, num_actions=2, generators=g()).plan(torch.tensor([1]))
    assert worth(P, u, 1, tuple(plan[0].tolist())) == pytest.approx(float(value[0]), abs=1e-5)
    assert float(value[0]) == pytest.approx(best, abs=1e-5)


def test_plans_do_not_depend_on_companions() -> None:
    P, u = chain()
    state = torch.tensor([1, 3])
    both = CEM(
        TableModel(torch.stack((P, P)), torch.stack((u, u))), 5, 16, 2, num_actions=2, generators=[g(1), g(2)]
    )
    alone = CEM(TableModel(P[None], u[None]), 5, 16, 2, num_actions=2, generators=[g(2)])
    assert torch.equal(both.plan(state)[0][1:], alone.plan(state[1:])[0])


def test_table_model_draws_successors() -> None:
    P = torch.zeros(1, 2, 1, 2)
    P[..., 0], P[..., 1] = 0.3, 0.7
    model = TableModel(P, torch.ones(1, 2, 1), [g()])
    following, reward = model(
        torch.zeros(1, 20_000, dtype=torch.int64), torch.zeros(1, 20_000, dtype=torch.int64)
    )
    assert float(following.float().mean()) == pytest.approx(0.7, abs=0.01)
    assert bool((reward == 1).all())


def test_cem_refines_and_keeps_the_best() -> None:
    target = torch.linspace(-0.8, 0.8, 5)

    def model(state: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        step = state[..., 0].long()
        return state + 1, -(action[..., 0] - target[step]).square()

    start = torch.zeros(1, 1)
    values = [float(CEM(model, 5, 64, n, action_dim=1, generators=g(5)).plan(start)[1]) for n in (1, 4, 10)]
    assert values[0] < values[1] < values[2]
    assert values[2] > -0.05
    actions, _ = RandomShooting(model, 5, 500, action_dim=1, bound=0.5, generators=g()).plan(start)
    assert float(actions.abs().max()) <= 0.5


def test_bad_arguments() -> None:
    P, u = chain()
    with pytest.raises(ValueError, match="horizon"):
        value_iteration_finite(P, u, 0)
    with pytest.raises(ValueError, match="horizon"):
        CEM(TableModel(P[None], u[None]), 0, num_actions=2)
    with pytest.raises(ValueError, match="one of them"):
        CEM(TableModel(P[None], u[None]), 3)
    with pytest.raises(ValueError, match="candidates"):
        CEM(TableModel(P[None], u[None]), 3, 1, num_actions=2)
    with pytest.raises(ValueError, match="for each of 1 plans"):
        CEM(TableModel(P[None], u[None]), 3, num_actions=2, generators=[g(), g()]).plan(torch.tensor([0]))
    with pytest.raises(ValueError, match="utilities"):
        MCTS(P[..., :4], u)
    with pytest.raises(ValueError, match="horizon"):
        MCTS(P, u).plan(0, 0)
