r"""Models of what other agents will do next.

`ActionForecaster` is what every such model offers, from the table of a memory-one opponent here to recurrent relational
models; `fit_opponent` fits any differentiable policy to observed actions by maximum likelihood.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ActionForecaster", "TabularOpponentModel", "fit_opponent", "policy_log_prob"]


@runtime_checkable
class ActionForecaster(Protocol):
    """Predicts the next actions of the other agents.

    ``forward(obs, prev_actions, state)`` takes the present observation, the last actions of all agents (or ``None``)
    and a recurrent state (``None`` at the start of an episode and for models without memory), and returns logits
    ``[..., n_other, n_actions]`` with the next state.
    """

    def __call__(
        self, obs: Tensor, prev_actions: Tensor | None = None, state: Any = None
    ) -> tuple[Tensor, Any]: ...


def policy_log_prob(
    theta: Float[Tensor, "*replicas 5"],
    states: Int[Tensor, "steps *replicas rollouts"],
    actions: Int[Tensor, "steps *replicas rollouts"],
) -> Float[Tensor, "steps *replicas rollouts"]:
    """Log-probability of observed actions under memory-one logits of cooperation; states in the policy's own view.

    One differentiable read-out for all steps at once: play without gradient, then recompute.
    """
    table = torch.stack([functional.logsigmoid(theta), functional.logsigmoid(-theta)], -1).flatten(-2)
    return table.expand(states.shape[0], *table.shape).gather(-1, 2 * states + actions)


class TabularOpponentModel(nn.Module):
    r"""A memory-one opponent, known only by its actions.

    Parameters
    ----------
    replicas
        Shape of independent models that are fitted side by side (empty for one).
    states
        Number of observable states.

    ``logits [*replicas, states]`` are log-odds of action 0 (cooperation) in the **opponent's own view**. `count` sets
    them to the smoothed estimate $\mathrm{logit}\,\frac{n_C+1}{n+2}$ of each state (Laplace's rule), so a state never
    seen is even; `fit_opponent` climbs the likelihood instead. As an `ActionForecaster` the model needs the opponent's
    state and nothing else.
    """

    logits: Tensor

    def __init__(
        self, replicas: tuple[int, ...] = (), states: int = 5, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        if states < 1:
            raise ValueError(f"states must be at least 1, got {states}")
        self.logits = nn.Parameter(torch.zeros(*replicas, states, dtype=dtype))

    @torch.no_grad()
    def count(
        self,
        states: Int[Tensor, "steps *replicas rollouts"],
        actions: Int[Tensor, "steps *replicas rollouts"],
    ) -> Float[Tensor, "*replicas states"]:
        """Set the logits by counting one batch of play; returns how often each state was seen."""
        if states.shape[1:-1] != self.logits.shape[:-1]:
            raise ValueError(
                f"play of shape {tuple(states.shape)} does not fit models of shape {tuple(self.logits.shape[:-1])}"
            )
        width = self.logits.shape[-1]
        cells = 2 * states + actions
        counts = functional.one_hot(cells, 2 * width).sum((0, -2)).to(self.logits.dtype)
        counts = counts.unflatten(-1, (width, 2))
        self.logits.copy_((counts[..., 0] + 1).log() - (counts[..., 1] + 1).log())
        return counts.sum(-1)

    def forward(
        self, obs: Int[Tensor, "*batch"], prev_actions: Tensor | None = None, state: Any = None
    ) -> tuple[Float[Tensor, "*batch 1 2"], Any]:
        """Logits of the opponent's next action (C, D) in each observed state; only for a single model."""
        if self.logits.ndim != 1:
            raise ValueError("forecasts are for a single model: index its logits by replica")
        log_odds = self.logits[obs]
        return torch.stack([log_odds, torch.zeros_like(log_odds)], -1).unsqueeze(-2), state


def fit_opponent(
    policy: nn.Module | Callable[[Any], Tensor],
    observations: Any,
    actions: Int[Tensor, "*batch"],
    steps: int = 50,
    lr: float = 0.1,
    *,
    params: Iterator[Tensor] | list[Tensor] | None = None,
) -> Float[Tensor, " steps"]:
    """Fit a policy to the actions somebody was seen to take, by gradient steps on the mean negative log-likelihood.

    ``policy(observations)`` returns logits ``[*batch, n_actions]`` (an `ActionForecaster`'s pair is understood too; one
    with ``n_other = 1`` is squeezed). It is changed in place. The defaults are those released with Foerster et al. 2018
    for the first batch (50 steps of SGD with rate 0.1; one step for each later batch).

    Parameters
    ----------
    params
        What to train, if not ``policy.parameters()``.

    Returns the loss before each step. Raises ``ValueError`` for fewer than one step or logits that do not match.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if params is None:
        if not isinstance(policy, nn.Module):
            raise ValueError("give params=... for a policy that is not a module")
        params = policy.parameters()
    optimizer = torch.optim.SGD(list(params), lr=lr)
    losses = []
    for _ in range(steps):
        out = policy(observations)
        logits = out[0] if isinstance(out, tuple) else out
        if logits.ndim == actions.ndim + 2 and logits.shape[-2] == 1:
            logits = logits.squeeze(-2)
        if logits.shape[:-1] != actions.shape:
            raise ValueError(f"logits {tuple(logits.shape)} do not match actions {tuple(actions.shape)}")
        loss = functional.cross_entropy(logits.flatten(0, -2), actions.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)
