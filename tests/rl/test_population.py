"""Populations: each agent's rollout, and the empirical game against closed forms."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from assay.envs import CoinGame
from assay.envs.base import Obs, TensorMultiEnv
from assay.games import IteratedMatrixGame, ipd, swap_view
from assay.rl.distributions import Categorical
from assay.rl.nets import CategoricalHead
from assay.rl.population import (
    agent_critics,
    payoff_matrix,
    population_returns,
    run_population,
    start_population,
)
from assay.rl.ppo import PPO
from assay.rl.rollout import RandomPolicy


def _g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class MemoryOne(nn.Module):
    """Cooperates (action 0) with the probabilities sigmoid(theta) of the states in its own view."""

    recurrent = False

    def __init__(self, *theta: float):
        super().__init__()
        self.theta = torch.tensor(theta)
        self.policy_head = CategoricalHead(1, 2)
        self.passes = 0

    def initial_state(self, num_envs: int) -> None:
        """None."""

    def policy(self, obs: Obs, state: Any = None, first: Any = None, mask: Any = None) -> Any:
        assert isinstance(obs, Tensor)
        self.passes += 1
        logit = self.theta[obs]
        return Categorical(torch.stack((logit, torch.zeros_like(logit)), -1)), None


SURE = 40.0
COOPERATOR = (SURE,) * 5
DEFECTOR = (-SURE,) * 5
TIT_FOR_TAT = (SURE, -SURE, SURE, -SURE, SURE)


def test_the_iterated_dilemma_is_its_closed_form() -> None:
    game = ipd(0.9)
    thetas = [COOPERATOR, DEFECTOR, TIT_FOR_TAT]
    world = IteratedMatrixGame(game, 4, max_steps=12)
    pool = [MemoryOne(*theta) for theta in thetas]
    payoffs = payoff_matrix(world, pool, episodes=4, gamma=0.9)
    assert payoffs.shape == (3, 3, 2)
    for i, first in enumerate(thetas):
        for j, second in enumerate(thetas):
            expected = game.truncated_value(
                torch.tensor(first).double(), swap_view(torch.tensor(second).double()), 12
            )
            torch.testing.assert_close(payoffs[i, j].double(), torch.stack(expected), rtol=1e-5, atol=1e-5)
    # The game is symmetric: changing seats changes payoffs.
    torch.testing.assert_close(payoffs[..., 0], payoffs[..., 1].T)


def test_random_policies_earn_what_the_chain_says() -> None:
    game = ipd(0.9)
    first, second = (0.3, -1.0, 0.5, 0.0, 1.0), (-0.5, 0.7, 0.2, -1.0, 0.0)
    world = IteratedMatrixGame(game, 2000, max_steps=10)
    returns = population_returns(
        world, [MemoryOne(*first), MemoryOne(*second)], 6000, gamma=0.9, generator=_g()
    )
    assert returns.shape == (6000, 2)
    expected = torch.stack(
        game.truncated_value(torch.tensor(first).double(), swap_view(torch.tensor(second).double()), 10)
    )
    error = returns.std(0) / 6000**0.5
    assert ((returns.mean(0) - expected).abs() < 4 * error).all()


def test_pools_may_differ_by_agent() -> None:
    world = IteratedMatrixGame(ipd(), 2, max_steps=5)
    one, two = MemoryOne(*COOPERATOR), MemoryOne(*DEFECTOR)
    payoffs = payoff_matrix(world, [[one, two], [two]], episodes=2)
    assert payoffs.shape == (2, 1, 2)
    torch.testing.assert_close(payoffs[:, 0], torch.tensor([[-15.0, 0.0], [-10.0, -10.0]]))
    sampled = MemoryOne(0.1, 0.1, 0.1, 0.1, 0.1)
    likeliest = population_returns(world, [sampled, two], 2, deterministic=True)
    torch.testing.assert_close(likeliest, torch.tensor([[-15.0, 0.0]] * 2))


def test_every_agent_gets_its_own_rollout() -> None:
    game = CoinGame(6, max_steps=5, generator=_g(3))
    policies = agent_critics(game, hidden=(16,), generator=_g(1))
    run = run_population(game, policies, 12, info=("own",), generator=_g(2))
    assert list(run.rollouts) == ["red", "blue"]
    # The same moves in a twin world tell the same story.
    twin = CoinGame(6, max_steps=5, generator=_g(3))
    obs, _ = twin.reset()
    for t in range(12):
        moves = torch.stack([r.action[t] for r in run.rollouts.values()], 1)
        step = twin.step(moves)
        for a, rollout in enumerate(run.rollouts.values()):
            assert torch.equal(rollout.obs[t], obs[:, a])  # type: ignore[index]
            assert torch.equal(rollout.reward[t, :, 0], step.reward[:, a])
            assert torch.equal(rollout.truncated[t], step.truncated)
            assert torch.equal(rollout.info["own"][t], step.info["own"][:, a])
            assert torch.equal(rollout.next_obs()[t], step.final_obs[:, a])  # type: ignore[index]
            assert torch.equal(rollout.first[t], torch.full((6,), t % 5 == 0))
        obs = step.obs
    for rollout, policy in zip(run.rollouts.values(), policies, strict=True):
        out = policy(rollout.obs)
        torch.testing.assert_close(rollout.value, out.value)
        # Time ran out: the value of the true last observation, not of the next episode's first.
        true_next = policy(rollout.next_obs()).value
        torch.testing.assert_close(rollout.next_value, true_next)
        logp = policy(rollout.obs[:-1]).dist.log_prob(rollout.action)  # type: ignore[index]
        torch.testing.assert_close(rollout.logp, logp)


def test_runs_go_on_where_the_last_one_stopped() -> None:
    def world() -> CoinGame:
        return CoinGame(4, max_steps=7, generator=_g(3))

    game = world()
    policies = agent_critics(game, lstm=8, generator=_g(1))
    whole = run_population(world(), policies, 10, generator=_g(2)).rollouts["blue"]
    acts = _g(2)
    first = run_population(game, policies, 4, generator=acts)
    second = run_population(game, policies, 6, first.carries, generator=acts).rollouts["blue"]
    assert torch.equal(whole.action[4:], second.action)
    torch.testing.assert_close(whole.value[4:], second.value)
    assert second.core_state is not None
    assert (second.core_state[0] != 0).any()
    assert torch.equal(second.first[0], first.rollouts["blue"].first[-1])


def test_agents_that_share_a_policy_act_in_one_pass() -> None:
    world = IteratedMatrixGame(ipd(), 5, max_steps=4)
    shared = MemoryOne(*TIT_FOR_TAT)
    run = run_population(world, shared, 8, generator=_g())
    assert shared.passes == 8
    assert all((r.action == 0).all() for r in run.rollouts.values())
    apart = MemoryOne(*TIT_FOR_TAT), MemoryOne(*DEFECTOR)
    rollouts = run_population(world, apart, 8, generator=_g()).rollouts
    assert (rollouts["player_1"].action.sum(0) == 6).all()  # cooperates when an episode begins, twice
    assert (rollouts["player_2"].action == 1).all()
    recurrent = agent_critics(CoinGame(3), lstm=8, generator=_g())[0]
    both = run_population(CoinGame(3, generator=_g(1)), recurrent, 6, generator=_g(2)).rollouts
    assert both["red"].core_state[0].shape == (3, 8)  # type: ignore[index]
    out = recurrent(both["blue"].obs, both["blue"].core_state, both["blue"].first)
    torch.testing.assert_close(out.value, both["blue"].value)


class Mortal(TensorMultiEnv):
    """The second agent is gone after its second step; messages are what was done."""

    agents = ("a", "b")
    num_actions = 2
    obs_shape = (2, 1)
    state_names = ("clock",)

    def __init__(self, num_envs: int, by_name: bool = False, masks: bool = False):
        super().__init__(num_envs, max_steps=5)
        self.by_name, self.has_action_mask = by_name, masks
        self.clock = torch.zeros(num_envs, dtype=torch.int64)

    def _reset_rows(self, mask: Tensor) -> None:
        self.clock = self.clock.masked_fill(mask, 0)

    def _step(self, action: Tensor) -> Any:
        self.clock = self.clock + 1
        alive = torch.stack((torch.ones_like(self.clock), self.clock < 2), 1).bool()
        return action.float(), self.clock > 99, {"alive": alive, "message": 10 * action}

    def observe(self) -> Obs:
        clock = self.clock[:, None].float()
        if self.by_name:
            return {"a": clock, "b": torch.cat((clock, clock), 1)}
        return torch.stack((clock, -clock), 1)

    def action_mask(self) -> Tensor:
        first = torch.tensor([[True, False], [False, True]])
        return first.expand(self.num_envs, 2, 2)

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return spaces.Box(-10, 10, (1,)), spaces.Discrete(2)


def test_agents_that_are_gone_and_messages() -> None:
    world = Mortal(3)
    run = run_population(world, agent_critics(world, hidden=(8,), generator=_g()), 11, generator=_g())
    a, b = run.rollouts["a"], run.rollouts["b"]
    expected = torch.tensor([1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1], dtype=torch.bool)
    assert a.valid.all()
    assert torch.equal(b.valid, expected[:, None].expand(11, 3))
    assert b.terminated.any(1).nonzero().flatten().tolist() == [1, 6]
    assert not a.terminated.any()
    assert (b.next_value[1] == 0).all()
    assert torch.equal(a.info["message"], 10 * a.action)
    assert torch.equal(b.info["message"], 10 * b.action)


def test_observations_by_name_and_action_masks() -> None:
    world = Mortal(3, by_name=True, masks=True)
    policies = [RandomPolicy(world), RandomPolicy(world)]
    rollouts = run_population(world, policies, 7, generator=_g()).rollouts
    assert rollouts["a"].obs.shape == (8, 3, 1)  # type: ignore[union-attr]
    assert rollouts["b"].obs.shape == (8, 3, 2)  # type: ignore[union-attr]
    assert (rollouts["a"].action == 0).all()
    assert (rollouts["b"].action == 1).all()
    assert rollouts["b"].mask is not None
    assert rollouts["b"].mask.shape == (7, 3, 2)
    assert (population_returns(world, policies, 3) == torch.tensor([0.0, 5.0])).all()


def test_two_learners_find_the_dilemmas_equilibrium() -> None:
    class Shown(IteratedMatrixGame):
        """One-hot observations."""

        obs_shape = (2, 5)

        def observe(self) -> Tensor:
            return torch.nn.functional.one_hot(super().observe(), 5).float()

    world = Shown(ipd(), 32, max_steps=16)
    policies = agent_critics(world, hidden=(16,), generator=_g(4))
    learners = [PPO(policy, torch.optim.Adam(policy.parameters(), 1e-2), gamma=0.5) for policy in policies]
    carries, acts = start_population(world, policies), _g(5)
    for _ in range(25):
        run = run_population(world, policies, 16, carries, generator=acts)
        carries = run.carries
        for learner, rollout in zip(learners, run.rollouts.values(), strict=True):
            learner.update(rollout, generator=acts)
    defects = [float((r.action == 1).float().mean()) for r in run.rollouts.values()]
    assert min(defects) > 0.9


def test_bad_input() -> None:
    world = IteratedMatrixGame(ipd(), 2, max_steps=5)
    one = MemoryOne(*COOPERATOR)
    with pytest.raises(ValueError, match="one policy for each of"):
        run_population(world, [one], 3)
    with pytest.raises(ValueError, match="one carry an agent"):
        run_population(world, one, 3, carries=())
    with pytest.raises(ValueError, match="one pool of policies"):
        payoff_matrix(world, [[one]], 1)
    with pytest.raises(ValueError, match="none empty"):
        payoff_matrix(world, [[one], []], 1)
    with pytest.raises(ValueError, match="at least one episode"):
        population_returns(world, one, 0)
    with pytest.raises(ValueError, match="build their policies by hand"):
        agent_critics(world)
    with pytest.raises(RuntimeError, match="set max_steps"):
        population_returns(IteratedMatrixGame(ipd(), 2, max_steps=None), one, 1, limit=10)
