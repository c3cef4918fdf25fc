"""Random finite decision processes (Garnets), exact as tables and steppable as environments."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from assay.envs.base import Tabular, TensorEnv

REWARDS = ("normal", "uniform", "dirichlet")


def dirichlet(
    shape: tuple[int, ...], generator: torch.Generator, concentration: float = 1.0
) -> Float[Tensor, "*shape"]:
    """Symmetric Dirichlet rows along the last dimension of `shape` (float64), drawn from `generator`.

    Concentration 1 (uniform on the simplex) normalises exponentials; other values take gamma draws by Marsaglia and
    Tsang's rejection (2000), since torch's own gamma sampler accepts a generator only in a private function.
    """
    if concentration <= 0:
        raise ValueError(f"a Dirichlet concentration is positive: got {concentration}")
    if concentration == 1.0:
        empty = torch.empty(shape, dtype=torch.float64, device=generator.device)
        weights = empty.exponential_(generator=generator)
    else:
        weights = _gamma(shape, concentration, generator)
    return weights / weights.sum(-1, keepdim=True)


def _gamma(shape: tuple[int, ...], concentration: float, generator: torch.Generator) -> Tensor:
    def fresh() -> Tensor:
        return torch.empty(shape, dtype=torch.float64, device=generator.device)

    # Below 1, draw with concentration + 1 and scale by a power of a uniform (their note on small shapes).
    small = concentration < 1.0
    d = (concentration + 1.0 if small else concentration) - 1.0 / 3.0
    c = (9.0 * d) ** -0.5
    out, missing = fresh().zero_(), fresh().bool().fill_(True)
    while bool(missing.any()):
        x, u = fresh().normal_(generator=generator), fresh().uniform_(generator=generator)
        v = (1.0 + c * x) ** 3
        accepted = (v > 0) & (u.log() < 0.5 * x**2 + d * (1.0 - v + v.clamp_min(1e-300).log()))
        out = torch.where(missing & accepted, d * v, out)
        missing = missing & ~accepted
    if small:
        out = out * fresh().uniform_(generator=generator) ** (1.0 / concentration)
    return out


def garnet(
    num_states: int,
    num_actions: int,
    branching: int,
    generator: torch.Generator,
    *,
    num_mdps: int | None = None,
    rewards: str = "normal",
    num_terminal: int = 0,
) -> Tabular:
    """A random decision process: every pair (s, a) leads to `branching` random states.

    The successors of a pair are a uniform subset, their probabilities uniform on the simplex (Dirichlet 1), the first
    state is uniform over the states that are not terminal. After Archibald, McKinnon, Thomas (1995).

    Args:
        num_states: S.
        num_actions: A.
        branching: successors of a pair, 1..S.
        generator: source of the process; P, R and rho0 lie on its device, in float64.
        num_mdps: None: one process, P [S, A, S]; M: a batch, with a leading dimension M everywhere.
        rewards: R[s, a] "normal" (standard), "uniform" in [0, 1), or "dirichlet" (each state's rewards sum to 1).
        num_terminal: the last so many states are terminal.

    Returns:
        `Tabular` (float64).

    Raises:
        ValueError: if a size is impossible or `rewards` unknown.

    Example:
        >>> garnet(20, 4, 5, torch.Generator().manual_seed(0)).P.shape
        torch.Size([20, 4, 20])
    """
    if num_states < 1 or num_actions < 1 or (num_mdps is not None and num_mdps < 1):
        raise ValueError(
            f"sizes are at least 1: got {num_states} states, {num_actions} actions, {num_mdps} MDPs"
        )
    if not 1 <= branching <= num_states:
        raise ValueError(f"branching is 1..{num_states} (the number of states): got {branching}")
    if not 0 <= num_terminal < num_states:
        raise ValueError(f"terminal states are 0..{num_states - 1}: got {num_terminal}")
    if rewards not in REWARDS:
        raise ValueError(f"rewards are one of {', '.join(REWARDS)}: got {rewards!r}")
    device = generator.device
    pairs = (num_mdps or 1, num_states, num_actions)

    keys = torch.rand((*pairs, num_states), generator=generator, dtype=torch.float64, device=device)
    successors = keys.topk(branching, -1).indices
    P = torch.zeros_like(keys).scatter_(-1, successors, dirichlet((*pairs, branching), generator))
    if rewards == "normal":
        R = torch.randn(pairs, generator=generator, dtype=torch.float64, device=device)
    elif rewards == "uniform":
        R = torch.rand(pairs, generator=generator, dtype=torch.float64, device=device)
    else:
        R = dirichlet(pairs, generator)
    terminal = torch.arange(num_states, device=device) >= num_states - num_terminal
    P = torch.where(terminal[:, None, None], torch.eye(num_states, device=device, dtype=P.dtype)[:, None], P)
    R = R.masked_fill(terminal[:, None], 0.0)
    rho0 = (~terminal).double() / (num_states - num_terminal)
    if num_mdps is None:
        return Tabular(P[0], R[0], rho0, terminal)
    return Tabular(P, R, rho0.expand(num_mdps, -1).clone(), terminal.expand(num_mdps, -1).clone())


def random_policy(
    num_states: int,
    num_actions: int,
    generator: torch.Generator,
    *,
    num_mdps: int | None = None,
    concentration: float = 1.0,
) -> Float[Tensor, "*mdps states actions"]:
    """A random stochastic policy, each state's probabilities symmetric Dirichlet (float64)."""
    leading = () if num_mdps is None else (num_mdps,)
    return dirichlet((*leading, num_states, num_actions), generator, concentration)


class TabularWorld(TensorEnv):
    """Steps any finite decision process written as a `Tabular`, or a batch of them.

    The observation is the state, one-hot [N, S] or an index [N, 1]; the reward is R[s, a]; entering a terminal state
    terminates. `info["state"]` is the successor [N].

    Args:
        num_envs: N.
        tabular: P [S, A, S] for one process; [M, S, A, S] and so on for M, of which each gets N / M rows in a block.
        one_hot: observe float32 one-hot vectors; else int64 indices.
        max_steps: time limit.
        **options: see `TensorEnv`.

    Raises:
        ValueError: if probabilities do not sum to one, or M does not divide N.
    """

    state_names = ("state",)

    def __init__(
        self,
        num_envs: int,
        tabular: Tabular,
        *,
        one_hot: bool = True,
        max_steps: int | None = 100,
        **options: Any,
    ):
        super().__init__(num_envs, max_steps=max_steps, **options)
        P, R, rho0, terminal = (part.to(self.device) for part in tabular)
        self._batched = P.ndim == 4
        if not self._batched:
            P, R, rho0, terminal = P[None], R[None], rho0[None], terminal[None]
        mdps, states, actions, _ = P.shape
        if P.shape[3] != states or R.shape != (mdps, states, actions) or rho0.shape != (mdps, states):
            raise ValueError(
                f"a process has P [S, A, S], R [S, A], rho0 [S]: got {P.shape}, {R.shape}, {rho0.shape}"
            )
        if bool((P < 0).any()) or not torch.allclose(P.sum(-1), torch.ones_like(R)):
            raise ValueError("every P[s, a] is a distribution over successors: it must sum to 1")
        if bool((rho0 < 0).any()) or not torch.allclose(rho0.sum(-1), torch.ones_like(rho0[:, 0])):
            raise ValueError("rho0 is a distribution over states: it must sum to 1")
        if num_envs % mdps:
            raise ValueError(f"{mdps} processes need a number of copies that they divide: got {num_envs}")
        self.num_states, self.num_actions, self.one_hot = states, actions, one_hot
        self.obs_shape = (states,) if one_hot else (1,)
        self.P, self.R, self.rho0, self.terminal = P, R, rho0, terminal
        self.mdp = torch.arange(mdps, device=self.device).repeat_interleave(num_envs // mdps)
        """[N]: which process each row plays."""
        # Only successors that can happen are stored: a step costs O(branching), not O(S).
        width = int((P > 0).sum(-1).max())
        top = P.flatten(0, 2).topk(width, -1)
        self._successors, self._cumulative = top.indices, _cumulative(top.values)
        self._rewards = R.flatten().float()
        self._first = _cumulative(rho0)
        self._ends = terminal.flatten()
        self.state = torch.zeros(num_envs, dtype=torch.int64, device=self.device)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        pair = (self.mdp * self.num_states + self.state) * self.num_actions + action
        slot = (self.uniform(1) >= self._cumulative[pair]).sum(1, keepdim=True)
        self.state = self._successors[pair].gather(1, slot).squeeze(1)
        terminated = self._ends[self.mdp * self.num_states + self.state]
        return self._rewards[pair], terminated, {"state": self.state}

    def _reset_rows(self, mask: Tensor) -> None:
        drawn = (self.uniform(1) >= self._first[self.mdp]).sum(1)
        self.state = torch.where(mask, drawn, self.state)

    def observe(self) -> Tensor:
        if self.one_hot:
            return torch.nn.functional.one_hot(self.state, self.num_states).float()
        return self.state[:, None].clone()

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        import numpy as np

        observation = (
            spaces.Box(0.0, 1.0, (self.num_states,), np.float32)
            if self.one_hot
            else spaces.Box(0, self.num_states - 1, (1,), np.int64)
        )
        return observation, spaces.Discrete(self.num_actions)

    def tabular(self) -> Tabular:
        """The process; with a leading dimension [M] where the world was given a batch."""
        parts = (self.P, self.R, self.rho0, self.terminal)
        return Tabular(*parts) if self._batched else Tabular(*(part[0] for part in parts))

    def state_index(self) -> Tensor:
        return self.state.clone()


def _cumulative(probabilities: Tensor) -> Tensor:
    """Upper edges of the slots, without the last (so that a draw below 1 always falls into a slot)."""
    kept = probabilities.cumsum(-1)
    # Slots of probability zero at the end must stay out of reach when rounding leaves the sum just below 1.
    last = (probabilities > 0).long().cumsum(-1).argmax(-1, keepdim=True)
    beyond = torch.arange(kept.shape[-1], device=kept.device) >= last
    return kept.masked_fill(beyond, 2.0)[..., :-1].float()


class RandomMDP(TabularWorld):
    """Garnet processes as an environment; the arguments are those of `garnet`.

    Args:
        num_envs: N.
        num_states: S.
        num_actions: A.
        branching: successors of a pair.
        num_mdps: None: one process; M: a batch of them, N / M rows each.
        mdp_seed: seeds the processes (the environment's generator draws only what happens in them).
        rewards: "normal", "uniform" or "dirichlet".
        num_terminal: number of terminal states.
        one_hot: observe float32 one-hot vectors; else int64 indices.
        max_steps: time limit.
        **options: see `TensorEnv`.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        num_states: int = 20,
        num_actions: int = 4,
        branching: int = 5,
        num_mdps: int | None = None,
        mdp_seed: int = 0,
        rewards: str = "normal",
        num_terminal: int = 0,
        one_hot: bool = True,
        max_steps: int | None = 100,
        **options: Any,
    ):
        process = garnet(
            num_states,
            num_actions,
            branching,
            torch.Generator().manual_seed(mdp_seed),
            num_mdps=num_mdps,
            rewards=rewards,
            num_terminal=num_terminal,
        )
        super().__init__(num_envs, process, one_hot=one_hot, max_steps=max_steps, **options)
