r"""Actor-critics with one interface, recurrent or not: what rollouts act with and learners train."""

from math import prod
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from assay.envs.base import Obs, TensorEnv
from assay.rl.distributions import ActionDistribution
from assay.rl.nets import (
    CategoricalHead,
    GaussianHead,
    LSTMCore,
    LSTMState,
    MLPTorso,
    PolicyHead,
    SmallGridConv,
    Torso,
    ValueHead,
)


class PolicyOutput(NamedTuple):
    """What an actor-critic says about observations [..., *obs]."""

    dist: ActionDistribution
    """Over actions, leading dimensions [...]."""
    value: Tensor
    """[..., K]: one value a reward stream."""
    state: LSTMState | None
    """After the last step; None without a core."""
    aux: dict[str, Tensor]
    """Outputs of the auxiliary heads."""


@runtime_checkable
class Policy(Protocol):
    """What a rollout needs in order to act; values it needs only if asked for them."""

    recurrent: Any
    """Whether it carries a state (bool)."""
    policy_head: Any
    """Its `distribution(params, mask)` builds a distribution again from stored parameters."""

    def initial_state(self, num_envs: int) -> LSTMState | None:
        """The state before the first step."""
        ...

    def policy(
        self,
        obs: Obs,
        state: LSTMState | None = None,
        first: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[ActionDistribution, LSTMState | None]:
        """The action distribution."""
        ...


class ActorCritic(nn.Module):
    """A policy and its values, on one torso or on two.

    Args:
        torso: observations to features, with an attribute `features`.
        policy_head: features to an action distribution.
        value_head: features to K values, with an attribute `streams` (`ValueHead`; or `PopArtHead`).
        core: memory between torso and heads.
        value_torso: the values' own torso; None: they share the policy's. Not together with a core.
        aux_heads: modules on the policy's features, for auxiliary losses.

    One step is obs [N, *obs], a sequence [T, N, *obs]; with a core, `first` ([N] or [T, N]: this step begins an
    episode) and the state must be given.
    """

    def __init__(
        self,
        torso: nn.Module,
        policy_head: PolicyHead,
        value_head: nn.Module,
        core: LSTMCore | None = None,
        value_torso: nn.Module | None = None,
        aux_heads: dict[str, nn.Module] | None = None,
    ):
        super().__init__()
        if core is not None and value_torso is not None:
            raise ValueError("a recurrent actor-critic shares its torso: leave value_torso out")
        self.torso, self.core, self.value_torso = torso, core, value_torso
        self.policy_head, self.value_head = policy_head, value_head
        self.aux_heads = nn.ModuleDict(aux_heads or {})

    @property
    def streams(self) -> int:
        """K: values an observation has."""
        return int(self.value_head.streams)  # type: ignore[arg-type]

    @property
    def recurrent(self) -> bool:
        """Whether it carries a state."""
        return self.core is not None

    def initial_state(self, num_envs: int) -> LSTMState | None:
        """The state before the first step."""
        return None if self.core is None else self.core.initial(num_envs)

    def features(
        self, obs: Obs, state: LSTMState | None = None, first: Tensor | None = None
    ) -> tuple[Tensor, LSTMState | None]:
        """What the policy head reads, and the state after the last step."""
        x = self.torso(obs)
        if self.core is None:
            return x, None
        if first is None:
            raise ValueError("a recurrent policy needs `first`: which steps begin an episode")
        one_step = first.ndim == 1
        if state is None:
            state = self.core.initial(first.shape[-1])
        if one_step:
            x, first = x[None], first[None]
        x, state = self.core(x, state, first)
        return (x[0] if one_step else x), state

    def policy(
        self,
        obs: Obs,
        state: LSTMState | None = None,
        first: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[ActionDistribution, LSTMState | None]:
        """The action distribution alone: all that acting needs."""
        x, state = self.features(obs, state, first)
        return self.policy_head(x, mask), state

    def value(self, obs: Obs, state: LSTMState | None = None, first: Tensor | None = None) -> Tensor:
        """[..., K] alone."""
        if self.value_torso is not None:
            return self.value_head(self.value_torso(obs))
        return self.value_head(self.features(obs, state, first)[0])

    def forward(
        self,
        obs: Obs,
        state: LSTMState | None = None,
        first: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> PolicyOutput:
        """Distribution, values, state and auxiliary outputs."""
        x, state = self.features(obs, state, first)
        read = x if self.value_torso is None else self.value_torso(obs)
        aux = {name: head(x) for name, head in self.aux_heads.items()}
        return PolicyOutput(self.policy_head(x, mask), self.value_head(read), state, aux)

    def log_prob(
        self, obs: Obs, action: Tensor, state: LSTMState | None = None, first: Tensor | None = None
    ) -> Tensor:
        """[...]: log-probability of given actions (imitation, inverse reinforcement learning)."""
        return self.policy(obs, state, first)[0].log_prob(action)


def make_torso(
    shape: tuple[int, ...],
    hidden: tuple[int, ...] = (64, 64),
    act: str = "tanh",
    generator: torch.Generator | None = None,
) -> Torso:
    """A torso for observations of this shape: `SmallGridConv` for small images, else a perceptron."""
    if len(shape) == 3:
        return SmallGridConv(shape, hidden[-1], generator=generator)
    if len(shape) in (1, 2):
        return MLPTorso((prod(shape), *hidden), act, len(shape), generator)
    raise ValueError(f"give observations of 1 to 3 dimensions, or a torso of your own: got shape {shape}")


def actor_critic(
    env: TensorEnv,
    hidden: tuple[int, ...] = (64, 64),
    act: str = "tanh",
    streams: int = 1,
    shared: bool = False,
    lstm: int | None = None,
    value_gain: float = 1.0,
    generator: torch.Generator | None = None,
    **head: Any,
) -> ActorCritic:
    """A small actor-critic for an environment with vectors or small images, discrete or continuous actions.

    Args:
        env: tells the shapes.
        hidden: widths; of an image's torso only the last counts.
        act: activation of perceptrons.
        streams: K values.
        shared: one torso for policy and values (always so with `lstm`).
        lstm: hidden units of a core.
        value_gain: of the value head's first weights.
        generator: of the initialisation.
        **head: for the policy head (`GaussianHead`: squash, log_std, ...).

    >>> from assay.envs import CartPole
    >>> actor_critic(CartPole(4)).streams
    1
    """
    torso = make_torso(env.obs_shape, hidden, act, generator)
    value_torso = None if shared or lstm else make_torso(env.obs_shape, hidden, act, generator)
    core = LSTMCore(torso.features, lstm) if lstm else None
    width = core.features if core else torso.features
    policy: PolicyHead
    if env.num_actions is not None:
        policy = CategoricalHead(width, env.num_actions, generator=generator, **head)
    else:
        policy = GaussianHead(width, env.single_action_space.shape[0], generator=generator, **head)
    return ActorCritic(
        torso, policy, ValueHead(width, streams, value_gain, generator=generator), core, value_torso
    )
