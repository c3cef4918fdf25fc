r"""Exact answers for finite decision processes: the oracles of everything that learns.

All functions take a process with the fields of `assay.envs.base.Tabular` (anything that has them will do): `P`
[..., S, A, S], `R` [..., S, A], `rho0` [..., S] and `terminal` [..., S] (bool), with any leading dimensions for a batch
of processes. Answers are float64. A terminal state is worth 0 and is never counted as visited, whatever its rows
hold.

    >>> from assay.envs.base import Tabular
    >>> P = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])   # wait, or go to the end
    >>> R = torch.tensor([[0.1, 1.0], [0.0, 0.0]])
    >>> world = Tabular(P, R, rho0=torch.tensor([1.0, 0.0]), terminal=torch.tensor([False, True]))
    >>> best = value_iteration(world, gamma=0.95)
    >>> policy_return(world, best.policy, gamma=0.95)
    tensor(2.0000, dtype=torch.float64)
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Process(Protocol):
    """A finite decision process; `assay.envs.base.Tabular` is one."""

    P: Any
    """[..., S, A, S]: probability of the successor."""
    R: Any
    """[..., S, A]: expected reward."""
    rho0: Any
    """[..., S]: distribution of the first state."""
    terminal: Any
    """[..., S] bool."""


class Solution(NamedTuple):
    """What the value iterations give. With a horizon H every tensor has a first dimension H: steps made so far."""

    value: Tensor
    """[..., S]."""
    q: Tensor
    """[..., S, A]; 0 in terminal states."""
    policy: Tensor
    """[..., S, A]: probabilities; one action a state where tau is 0 (the first of equals)."""


def _live(process: Process) -> tuple[Tensor, Tensor]:
    """(P, R) in float64 with the rows of terminal states at 0, so that their value is 0."""
    P, R, terminal = process.P.double(), process.R.double(), process.terminal
    if P.ndim < 3 or P.shape[-1] != P.shape[-3] or R.shape[-2:] != P.shape[-3:-1]:
        raise ValueError(
            f"give P [..., S, A, S] and R [..., S, A]: got {tuple(P.shape)} and {tuple(R.shape)}"
        )
    if terminal.shape[-1] != P.shape[-1]:
        raise ValueError(f"terminal needs {P.shape[-1]} states: got {tuple(terminal.shape)}")
    off = (P.sum(-1) - 1).abs()
    off = torch.where(terminal[..., None], 0, off)
    if not bool((P >= 0).all()) or not bool((off < 1e-4).all()):
        raise ValueError("the rows of P must be probabilities that sum to 1")
    alive = ~terminal[..., None]
    return P * alive[..., None], R * alive


def _policy(policy: Tensor, R: Tensor) -> Tensor:
    policy = policy.double()
    if policy.shape[-2:] != R.shape[-2:]:
        raise ValueError(
            f"the policy needs {tuple(R.shape[-2:])} states and actions: got {tuple(policy.shape)}"
        )
    if not bool((policy >= 0).all()) or not bool(((policy.sum(-1) - 1).abs() < 1e-4).all()):
        raise ValueError("the rows of a policy must be probabilities that sum to 1")
    return policy


def _gamma(gamma: float) -> None:
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma lies in [0, 1]: got {gamma}")


def _solve(matrix: Tensor, vector: Tensor) -> Tensor:
    """`torch.linalg.solve` for batches that broadcast, with an error that says why it fails."""
    batch = torch.broadcast_shapes(matrix.shape[:-2], vector.shape[:-1])
    matrix, vector = matrix.expand(*batch, *matrix.shape[-2:]), vector.expand(*batch, vector.shape[-1])
    solution, info = torch.linalg.solve_ex(matrix, vector)
    if bool(info.any()) or not bool(solution.isfinite().all()):
        raise ValueError(
            "no finite answer: with gamma = 1 every state must reach a terminal one under the policy"
        )
    return solution


def _evaluate(P: Tensor, R: Tensor, policy: Tensor, gamma: float) -> Tensor:
    chain = torch.einsum("...sa,...sat->...st", policy, P)
    eye = torch.eye(chain.shape[-1], dtype=chain.dtype, device=chain.device)
    return _solve(eye - gamma * chain, (policy * R).sum(-1))


def policy_evaluation(
    process: Process, policy: Float[Tensor, "*batch states actions"], gamma: float
) -> Float[Tensor, "*out states"]:
    r"""$V^\pi = (I - \gamma P_\pi)^{-1} R_\pi$.

    Args:
        process: P, R, rho0, terminal; see the module.
        policy: [..., S, A] probabilities; leading dimensions broadcast against the process's.
        gamma: discount; 1 is allowed where the policy reaches a terminal state from everywhere.

    Returns:
        V [..., S], float64.

    Raises:
        ValueError: shapes that do not fit, rows that are no probabilities, gamma outside [0, 1], no finite answer.
    """
    _gamma(gamma)
    P, R = _live(process)
    return _evaluate(P, R, _policy(policy, R), gamma)


def action_values(
    process: Process, value: Float[Tensor, "*batch states"], gamma: float
) -> Float[Tensor, "*out states actions"]:
    r"""$Q(s, a) = R(s, a) + \gamma \sum_{s'} P(s'|s, a) V(s')$, float64.

    Args:
        process: P, R, rho0, terminal.
        value: V [..., S].
        gamma: discount.
    """
    _gamma(gamma)
    P, R = _live(process)
    return _backup(P, R, torch.where(process.terminal, 0, value.double()), gamma)


def _backup(P: Tensor, R: Tensor, value: Tensor, gamma: float) -> Tensor:
    return R + gamma * torch.einsum("...sat,...t->...sa", P, value)


def _act(q: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """(policy, value) of the best response to q: greedy, or soft at temperature tau."""
    if tau == 0:
        best = torch.nn.functional.one_hot(q.argmax(-1), q.shape[-1])
        return best.to(q.dtype), q.amax(-1)
    return torch.softmax(q / tau, -1), tau * torch.logsumexp(q / tau, -1)


def _iterate(
    process: Process, gamma: float, tau: float, horizon: int | None, tol: float, max_iterations: int
) -> Solution:
    _gamma(gamma)
    P, R = _live(process)
    alive = ~process.terminal
    q = R
    if horizon is not None:
        if horizon < 1:
            raise ValueError(f"a horizon has at least one step: got {horizon}")
        steps = []
        for _ in range(horizon):
            policy, value = _act(q, tau)
            value = value * alive
            steps.append((value, q, policy))
            q = _backup(P, R, value, gamma)
        return Solution(*(torch.stack(part[::-1]) for part in zip(*steps, strict=True)))
    value = torch.zeros(R.shape[:-1], dtype=R.dtype, device=R.device)
    for _ in range(max_iterations):
        policy, new = _act(q, tau)
        if gamma < 1:
            # Policy iteration: evaluating each policy exactly needs a dozen rounds where sweeps need 1 / (1 - gamma).
            # Under the soft policy this is Newton's method; the entropy enters as a reward.
            bonus = tau * torch.special.entr(policy).sum(-1, keepdim=True)
            new = _evaluate(P, R + bonus * alive[..., None], policy, gamma)
        new = new * alive
        moved, value = (new - value).abs().amax(), new
        q = _backup(P, R, value, gamma)
        if not bool(value.isfinite().all()):
            break
        if bool(moved <= tol * value.abs().amax().clamp(min=1)):
            policy, value = _act(q, tau)
            return Solution(value * alive, q, policy)
    raise ValueError(
        f"no fixed point within {max_iterations} iterations: with gamma = 1 the optimal return must be finite"
    )


def value_iteration(
    process: Process,
    gamma: float,
    horizon: int | None = None,
    tol: float = 1e-12,
    max_iterations: int = 100_000,
) -> Solution:
    """The optimal value and policy.

    Args:
        process: P, R, rho0, terminal; see the module.
        gamma: discount; 1 is allowed where the optimal return is finite.
        horizon: None: endless, solved by policy iteration (by sweeps where gamma is 1); H: exactly H steps, and every
            tensor of the answer has a first dimension H (entry t: t steps made, H - t to go).
        tol: stop when no value moves by more than this share of the largest.
        max_iterations: at most so many rounds.

    Returns:
        `Solution(value, q, policy)`, float64.

    Raises:
        ValueError: shapes that do not fit, gamma outside [0, 1], horizon < 1, no fixed point found.
    """
    return _iterate(process, gamma, 0.0, horizon, tol, max_iterations)


def soft_value_iteration(
    process: Process,
    gamma: float,
    tau: float,
    horizon: int | None = None,
    tol: float = 1e-12,
    max_iterations: int = 100_000,
) -> Solution:
    r"""Maximum-entropy control: $V = \tau \log\sum_a e^{Q/\tau}$, $\pi = e^{(Q - V)/\tau}$ (Ziebart 2010).

    Maximises the return with $\tau$ times the entropy of the policy (nats) added to every reward outside terminal
    states.

    Args:
        process: P, R, rho0, terminal; see the module.
        gamma: discount.
        tau: temperature, positive; towards 0 the answer tends to that of `value_iteration`.
        horizon: see `value_iteration`.
        tol: see `value_iteration`.
        max_iterations: see `value_iteration`.

    Returns:
        `Solution(value, q, policy)`, float64.

    Raises:
        ValueError: tau <= 0, and as `value_iteration`.
    """
    if not tau > 0:
        raise ValueError(f"the temperature is positive (0 is value_iteration): got {tau}")
    return _iterate(process, gamma, tau, horizon, tol, max_iterations)


def occupancy(
    process: Process, policy: Float[Tensor, "*batch states actions"], gamma: float
) -> Float[Tensor, "*out states actions"]:
    r"""$d(s, a) = \sum_t \gamma^t \Pr(s_t = s, a_t = a)$ from `rho0`, not normalised.

    Sums to 1 / (1 - gamma) where no state is terminal; $\sum d R$ is the return. Terminal states are not counted.

    Args:
        process: P, R, rho0, terminal.
        policy: [..., S, A].
        gamma: discount; 1 gives expected visits where every state reaches a terminal one.

    Returns:
        [..., S, A], float64.

    Raises:
        ValueError: as `policy_evaluation`.
    """
    _gamma(gamma)
    P, R = _live(process)
    policy = _policy(policy, R)
    # Mass that reaches a terminal state leaves: its own row is 0 already, its visits are struck out below.
    chain = torch.einsum("...sa,...sat->...st", policy, P)
    eye = torch.eye(chain.shape[-1], dtype=chain.dtype, device=chain.device)
    visits = _solve((eye - gamma * chain).mT, process.rho0.double())
    return torch.where(process.terminal, 0, visits)[..., None] * policy


def policy_return(
    process: Process, policy: Float[Tensor, "*batch states actions"], gamma: float
) -> Float[Tensor, "*out"]:
    r"""$\sum_s \rho_0(s) V^\pi(s)$: the expected discounted return, [...] float64.

    Args:
        process: P, R, rho0, terminal.
        policy: [..., S, A].
        gamma: discount.

    Raises:
        ValueError: as `policy_evaluation`.
    """
    return (process.rho0.double() * policy_evaluation(process, policy, gamma)).sum(-1)


def stationary_distribution(
    process: Process, policy: Float[Tensor, "*batch states actions"]
) -> Float[Tensor, "*out states"]:
    """Long-run share of time in each state when every ended episode begins anew from `rho0`.

    A terminal state costs no time: its predecessors lead straight to `rho0`, and its own share is 0.

    Args:
        process: P, R, rho0, terminal.
        policy: [..., S, A].

    Returns:
        [..., S], float64, rows sum to 1.

    Raises:
        ValueError: shapes that do not fit, or more than one closed set of states (the long run depends on the start).
    """
    P, R = _live(process)
    policy = _policy(policy, R)
    rho0, terminal = process.rho0.double(), process.terminal
    if bool((rho0 * terminal > 0).any()):
        raise ValueError("an episode cannot begin in a terminal state: rho0 must be 0 there")
    chain = torch.einsum("...sa,...sat->...st", policy, P)
    ending = (chain * terminal[..., None, :]).sum(-1, keepdim=True)
    chain = torch.where(terminal[..., None, :], 0, chain) + ending * rho0[..., None, :]
    # Rows of terminal states lead to rho0 too; nothing leads to them, so that they get no share.
    chain = torch.where(terminal[..., None], rho0[..., None, :], chain)
    states = chain.shape[-1]
    balance = torch.eye(states, dtype=chain.dtype, device=chain.device) - chain
    if bool((torch.linalg.matrix_rank(balance, rtol=1e-11) < states - 1).any()):
        raise ValueError("more than one closed set of states: the long-run shares depend on the start")
    # The balance equations are dependent: replace the last by "the shares sum to 1".
    matrix = torch.cat((balance.mT[..., :-1, :], torch.ones_like(balance[..., :1, :])), -2)
    vector = torch.zeros(states, dtype=chain.dtype, device=chain.device)
    vector[-1] = 1
    return _solve(matrix, vector).clamp(min=0)
