"""What the two truncations do, on random processes small enough to know everything."""

import warnings
from dataclasses import dataclass
from math import inf

import torch
from scipy.stats import spearmanr
from torch import Tensor

from assay.envs import Tabular, garnet, random_policy
from assay.lab import Trial
from assay.rl.tabular import policy_evaluation
from assay.rl.vtrace import vtrace, vtrace_fixed_point_policy, vtrace_operator


@dataclass(frozen=True)
class TheoryConfig:
    """Size of the processes and of the sample."""

    states: int = 20
    actions: int = 4
    branching: int = 5
    gamma: float = 0.95
    bars: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, inf)
    speed_rho: float = 2.0
    """rho_bar at which c_bar is varied."""
    variance_c: float = 1.0
    """c_bar at which rho_bar is varied."""
    tolerance: float = 1e-3
    limit: int = 5000
    steps: int = 20
    trajectories: int = 20
    """From each state."""


def iterations(matrix: Tensor, vector: Tensor, fixed: Tensor, tolerance: float, limit: int) -> int:
    """Applications of V -> M V + b from zero until no state is further than `tolerance` from the fixed point."""
    value = torch.zeros_like(vector)
    for k in range(limit):
        if float((value - fixed).abs().max()) <= tolerance:
            return k
        value = matrix @ value + vector
    return limit


def sample(
    process: Tabular, mu: Tensor, steps: int, trajectories: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """States [T + 1, S * n] and actions [T, S * n] of the behaviour policy, n trajectories from every state."""
    state = torch.arange(len(mu)).repeat_interleave(trajectories)
    states, actions = [state], []
    for _ in range(steps):
        action = torch.multinomial(mu[state], 1, generator=generator)[:, 0]
        state = torch.multinomial(process.P[state, action], 1, generator=generator)[:, 0]
        states.append(state)
        actions.append(action)
    return torch.stack(states), torch.stack(actions)


def rank_correlation(bars: tuple[float, ...], values: Tensor) -> float:
    """Spearman's, bars by their order (the last may be infinite); 0 where all values are equal."""
    if bool((values == values[0]).all()):
        return 0.0
    return float(spearmanr(range(len(bars)), values.numpy()).statistic)


def garnets(run: Trial, arm: str, config: TheoryConfig) -> dict[str, float]:
    """`theory/garnets`: one random process, with random target and behaviour policies."""
    generator = run.generator("process", device="cpu")
    process = garnet(config.states, config.actions, config.branching, generator)
    pi = random_policy(config.states, config.actions, generator)
    mu = random_policy(config.states, config.actions, generator)
    v_pi = policy_evaluation(process, pi, config.gamma)
    v_mu = policy_evaluation(process, mu, config.gamma)
    states, actions = sample(process, mu, config.steps, config.trajectories, generator)
    here, reward = states[:-1], process.R[states[:-1], actions]
    never = torch.zeros_like(here, dtype=torch.bool)
    data = (pi[here, actions].log(), mu[here, actions].log(), reward, v_mu[here], v_mu[states[1:]])

    n = len(config.bars)
    bias, error = torch.zeros(n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
    speed, variance = torch.zeros(n, n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
    for i, rho_bar in enumerate(config.bars):
        wanted = policy_evaluation(process, vtrace_fixed_point_policy(pi, mu, rho_bar), config.gamma)
        bias[i] = (wanted - v_pi).abs().max()
        for j, c_bar in enumerate(config.bars):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "rho_bar=")  # the map shows c_bar above rho_bar too
                matrix, vector = vtrace_operator(process.P, process.R, config.gamma, pi, mu, rho_bar, c_bar)
                targets = vtrace(*data, never, never, config.gamma, rho_bar, c_bar).vs[0]
            eye = torch.eye(len(matrix), dtype=matrix.dtype)
            error[i, j] = (torch.linalg.solve(eye - matrix, vector) - wanted).abs().max()
            speed[i, j] = iterations(matrix, vector, wanted, config.tolerance, config.limit)
            variance[i, j] = targets.view(config.states, -1).var(1).mean()
    run.save("maps", {"bias": bias.numpy(), "iterations": speed.numpy(), "variance": variance.numpy()})
    at_rho, at_c = config.bars.index(config.speed_rho), config.bars.index(config.variance_c)
    return {
        "fixed_point_error": float(error.max()),
        "bias_with_rho": rank_correlation(config.bars, bias),
        "iterations_with_c": rank_correlation(config.bars, speed[at_rho]),
        "iterations_with_rho": rank_correlation(config.bars, speed[:, at_c]),
        "variance_with_c": rank_correlation(config.bars, variance[at_rho]),
        "variance_with_rho": rank_correlation(config.bars, variance[:, at_c]),
        "bias_monotone": float((bias.diff() <= 1e-12).all()),
    }
