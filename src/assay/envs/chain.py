r"""A row of states that only persistence explores, with places where noise pretends to be news.

L states stand in a row, walls at both ends; an episode begins in state 1 and lasts L + 9 steps. Two actions move left
and right, but in about half of the states they are swapped, and which is which must be found out. A random walk gets
about sqrt(L) far. After the chain of Shyam, Jaskowski, Gomez (2019, arXiv 1810.12162, section 3.1), itself after
Osband et al. (2016).

Noise can be put in at two places: a `trap_state`, where a move only succeeds by chance, and `tv_actions`, which jump
to one of a few random states. Both are unpredictable however often they are tried.

    >>> world = Chain(1, length=6, swap_seed=3)
    >>> world.reset()[0].argmax(1)
    tensor([1])
    >>> explored_fraction(torch.tensor([[2, 0], [1, 1]]))
    tensor(0.7500)
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from assay.envs.base import Tabular
from assay.envs.random_mdp import TabularWorld


def chain_process(
    length: int,
    swapped: Bool[Tensor, "states"],
    *,
    trap_state: int | None = None,
    trap_stay: float = 0.5,
    tv_targets: Shaped[Tensor, "actions targets"] | None = None,
    tv_states: Sequence[int] | None = None,
    rewards: tuple[float, float] = (0.001, 1.0),
) -> Tabular:
    """The chain written out (float64); the arguments are those of `Chain`.

    Args:
        length: L.
        swapped: [L]: where action 0 moves right and action 1 left.
        trap_state, trap_stay, tv_states, rewards: see `Chain`.
        tv_targets: [K, C] int64: the states to which each of K further actions may jump.

    Returns:
        `Tabular` with A = 2 + K actions and no terminal state.
    """
    states = torch.arange(length)
    right = swapped[:, None] ^ torch.tensor([False, True])
    successor = torch.where(right, states[:, None] + 1, states[:, None] - 1).clamp(0, length - 1)
    extra = 0 if tv_targets is None else len(tv_targets)
    P = torch.zeros(length, 2 + extra, length, dtype=torch.float64)
    P[:, :2].scatter_(-1, successor[..., None], 1.0)
    if trap_state is not None:
        # From an end both actions fight the trap: stay, or one step towards the middle of the chain.
        away = trap_state + 1 if trap_state < length - 1 else trap_state - 1
        P[trap_state, :2] = 0.0
        P[trap_state, :2, trap_state] = trap_stay
        P[trap_state, :2, away] = 1.0 - trap_stay
    if tv_targets is not None:
        jump = torch.nn.functional.one_hot(tv_targets, length).double().mean(1)
        stay = torch.eye(length, dtype=torch.float64)[:, None].expand(-1, extra, -1)
        on = torch.ones(length, dtype=torch.bool)
        if tv_states is not None:
            on = torch.zeros(length, dtype=torch.bool)
            on[list(tv_states)] = True
        P[:, 2:] = torch.where(on[:, None, None], jump, stay)
    R = torch.zeros(length, 2 + extra, dtype=torch.float64)
    R[0], R[-1] = rewards
    rho0 = torch.zeros(length, dtype=torch.float64)
    rho0[1] = 1.0
    return Tabular(P, R, rho0, torch.zeros(length, dtype=torch.bool))


class Chain(TabularWorld):
    """The chain as an environment: observation one-hot [N, L] (or the index), reward of the state acted in.

    Args:
        num_envs: N.
        length: L, at least 3.
        swap_seed: seeds which states have their actions swapped, and where the televisions jump. A sequence of G
            seeds makes G chains, each for an equal block of rows.
        trap_state: where both moves are a gamble; None: nowhere. In the paper state 0.
        trap_stay: probability of staying in the trap; else one step on (from state 0 to state 1).
        tv_actions: K further actions, each of which jumps to one of `tv_choices` random states.
        tv_choices: different states that such an action may jump to.
        tv_near: those are the first states of the chain; else they are drawn once a chain from all states (which
            makes a television the fastest way to explore).
        tv_states: the states in which those actions work (elsewhere they do nothing); None: everywhere.
        rewards: in the first and in the last state.
        max_steps: length of an episode; -1: L + 9.
        **options: see `TensorEnv`; `one_hot`.

    Attributes:
        swapped: [G, L] bool.

    Raises:
        ValueError: L < 3, or a trap or television that lies outside of the chain.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        length: int = 50,
        swap_seed: int | Sequence[int] = 0,
        trap_state: int | None = None,
        trap_stay: float = 0.5,
        tv_actions: int = 0,
        tv_choices: int = 10,
        tv_near: bool = False,
        tv_states: Sequence[int] | None = None,
        rewards: tuple[float, float] = (0.001, 1.0),
        max_steps: int | None = -1,
        **options: Any,
    ):
        if length < 3:
            raise ValueError(f"a chain has at least 3 states: got length={length}")
        for state in (*([] if trap_state is None else [trap_state]), *(tv_states or ())):
            if not 0 <= state < length:
                raise ValueError(f"the states are 0..{length - 1}: got {state} for a trap or television")
        if not 0 <= trap_stay <= 1:
            raise ValueError(f"trap_stay is a probability: got {trap_stay}")
        if tv_actions < 0 or (tv_actions and not 1 <= tv_choices <= length):
            raise ValueError(f"a television jumps to 1..{length} states: got tv_choices={tv_choices}")
        seeds = [swap_seed] if isinstance(swap_seed, int) else list(swap_seed)
        processes, swaps = [], []
        for seed in seeds:
            g = torch.Generator().manual_seed(seed)
            swapped = torch.rand(length, generator=g) < 0.5
            places = [torch.randperm(length, generator=g)[:tv_choices] for _ in range(tv_actions)]
            targets = [torch.arange(tv_choices)] * tv_actions if tv_near else places
            swaps.append(swapped)
            processes.append(
                chain_process(
                    length,
                    swapped,
                    trap_state=trap_state,
                    trap_stay=trap_stay,
                    tv_targets=torch.stack(targets) if targets else None,
                    tv_states=tv_states,
                    rewards=rewards,
                )
            )
        whole = Tabular(*(torch.stack(parts) for parts in zip(*processes, strict=True)))
        super().__init__(
            num_envs,
            Tabular(*(part[0] for part in whole)) if isinstance(swap_seed, int) else whole,
            max_steps=length + 9 if max_steps == -1 else max_steps,
            **options,
        )
        self.length, self.swapped = length, torch.stack(swaps).to(self.device)


def explored_fraction(
    visits: Shaped[Tensor, "*batch states actions"], actions: int | None = None
) -> Float[Tensor, "*batch"]:
    """Share of the pairs (s, a) that were executed at least once.

    Count what happened, not what a planner wanted: `visits[s, a]` grows when `a` is sent to the environment in `s`.

    Args:
        visits: [..., S, A] counts.
        actions: only the first so many actions count (a television's do not); None: all.
    """
    return (visits[..., :actions] > 0).float().mean((-2, -1))
