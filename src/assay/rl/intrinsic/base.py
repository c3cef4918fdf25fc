r"""Rewards that an agent gives itself: the protocol, and how several of them are mixed.

An intrinsic reward sees a rollout, never the learner. It is computed from the TRUE successor of every step
(`Rollout.next_obs`), with its networks as they were before the rollout is learnt from, and trained inside the
learner's minibatches through `loss`. A value head of its own (a reward stream) lets it have its own discount and lets
its returns run on over the ends of episodes.
"""

import abc
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from assay.envs.base import Obs
from assay.rl.normalize import ReturnNormalizer, RunningMeanStd
from assay.rl.returns import gae
from assay.rl.rollout import Batch, Rollout


class IntrinsicReward(nn.Module, abc.ABC):
    """A reward computed from what the agent saw and did. Subclasses write `reward`, and what else they need."""

    episodic: bool = False
    """Whether its returns should stop where episodes end, by default."""

    @abc.abstractmethod
    def reward(self, rollout: Rollout) -> Tensor:
        """[T, N], without gradient."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Scalars to minimise on a minibatch of the rollout, by name; none by default."""
        return {}

    def observe(self, rollout: Rollout) -> None:
        """Update statistics from a rollout, after its reward was computed."""

    def reset_where(self, mask: Tensor) -> None:
        """Forget the running episode in the rows of `mask` [N] (episodic memories)."""


class IntrinsicMixer:
    """Writes intrinsic rewards into a rollout's streams and hands their losses to the learner.

    Args:
        modules: one reward a stream.
        extrinsic: stream 0 keeps the environment's reward and the intrinsic ones follow; False: the learner never
            sees the environment's reward, and the first module has stream 0.
        normalizers: for each module what its rewards go through; None: as they are.
        loss_weight: of the modules' losses in the learner's.

    >>> mixer = IntrinsicMixer([rnd], normalizers=[ReturnNormalizer(0.99, 64)])   # doctest: +SKIP
    >>> ppo = PPO(model, optimizer, aux_losses=[mixer.loss], stream_weights=(2, 1))   # doctest: +SKIP
    """

    def __init__(
        self,
        modules: Sequence[IntrinsicReward],
        extrinsic: bool = True,
        normalizers: Sequence[ReturnNormalizer | None] | None = None,
        loss_weight: float = 1.0,
    ):
        if normalizers is not None and len(normalizers) != len(modules):
            raise ValueError(f"give one normalizer (or None) for each of the {len(modules)} rewards")
        self.modules, self.offset, self.loss_weight = list(modules), int(extrinsic), loss_weight
        self.normalizers = list(normalizers) if normalizers else [None] * len(modules)

    @property
    def streams(self) -> int:
        """K: the values that the model needs."""
        return len(self.modules) + self.offset

    @torch.no_grad()
    def fill(self, rollout: Rollout) -> list[Tensor]:
        """Write every reward into its stream; returns the raw ones, [T, N] each.

        Rows that are no transitions (`valid` False) get 0 and enter no statistic.

        Raises:
            ValueError: the rollout has too few streams, or a reward is not finite.
        """
        if rollout.streams != self.streams:
            raise ValueError(
                f"{self.streams} reward streams need Rollout(streams={self.streams}): {rollout.streams}"
            )
        raws = []
        for k, (module, normalizer) in enumerate(zip(self.modules, self.normalizers, strict=True)):
            raw = module.reward(rollout)
            if not bool(torch.isfinite(raw).all()):
                raise ValueError(
                    f"{type(module).__name__} gave a reward that is not finite: look at its inputs"
                )
            raw = raw.masked_fill(~rollout.valid, 0.0)
            rollout.reward[..., self.offset + k] = (
                raw if normalizer is None else normalizer(raw, valid=rollout.valid)
            )
            raws.append(raw)
        for module in self.modules:
            module.observe(rollout)
        return raws

    def loss(self, batch: Batch) -> tuple[str, Tensor, float]:
        """The sum of all modules' losses, as PPO's `aux_losses` want it."""
        parts = [value for module in self.modules for value in module.loss(batch).values()]
        total = torch.stack(parts).sum() if parts else batch.rollout.reward.new_zeros(())
        return "intrinsic", total, self.loss_weight

    def parameters(self) -> list[nn.Parameter]:
        """Of all modules, for the optimizer."""
        return [p for module in self.modules for p in module.parameters()]


def freeze(module: nn.Module) -> nn.Module:
    """Turn every parameter into a buffer, in place: saved and moved with the module, never trained.

    A network that must not learn (RND's target, random features) then is not in `parameters()`, so no optimizer can
    be handed it by accident.
    """
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach().clone())
    return module.eval()


def flat_view(
    obs: Obs,
    ndim: int,
    norm: RunningMeanStd | None = None,
    clip: float | None = None,
    preprocess: Callable[[Obs], Tensor] | None = None,
    who: str = "an intrinsic reward",
) -> tuple[Tensor, tuple[int, ...]]:
    """What networks of intrinsic rewards see of observations [..., *obs]: preprocessed, whitened, in one batch.

    Args:
        obs: observations with any leading dimensions.
        ndim: dimensions of one observation; where `norm` is given its shape decides.
        norm: running statistics; None: as they are.
        clip: whitened observations are cut to [-clip, clip].
        preprocess: first of all.
        who: named in errors.

    Returns:
        ([B, *x], the leading dimensions).

    Raises:
        ValueError: a dictionary, uint8 pictures without statistics, or no statistics gathered yet.
    """
    x = obs if preprocess is None else preprocess(obs)
    if isinstance(x, dict):
        raise ValueError(f"{who} sees one tensor: give `preprocess` to choose it from a dictionary")
    if x.dtype == torch.uint8:
        if norm is None:
            raise ValueError("uint8 images need obs_norm (or a preprocess that scales them)")
        x = x.float()
    if norm is None:
        lead = x.shape[: x.ndim - ndim]
    else:
        lead = x.shape[: x.ndim - len(norm.shape)]
        x = norm.normalize(x, clip)
    return x.reshape(-1, *x.shape[len(lead) :]), tuple(lead)


def two_stream_advantage(
    reward: Float[Tensor, "time envs streams"],
    value: Float[Tensor, "time_and_one envs streams"],
    terminated: Bool[Tensor, "time envs"],
    truncated: Bool[Tensor, "time envs"],
    gamma: Sequence[float] = (0.999, 0.99),
    lam: float = 0.95,
    episodic: Sequence[bool] = (True, False),
    weights: Sequence[float] = (2.0, 1.0),
    final_value: Float[Tensor, "time envs streams"] | None = None,
) -> tuple[Float[Tensor, "time envs"], Float[Tensor, "time envs streams"]]:
    r"""RND's advantage $A = 2 A_E + A_I$, for a loop of one's own (`Rollout.advantages` does it here).

    Each stream has its own discount and its own idea of an end: extrinsic returns stop where episodes do, intrinsic
    ones run on (Burda et al., arXiv 1810.12894, section 2.3).

    Args:
        reward: [T, N, K], extrinsic first.
        value: [T + 1, N, K]: of the observations that the policy saw, and of the next one.
        terminated, truncated: [T, N]: the world ended; time ran out.
        gamma, episodic, weights: one entry a stream.
        lam: decay of the trace.
        final_value: [T, N, K]: values of the true last observations, read where `truncated`. Default: time running
            out counts as the world's end (as in the original, whose games were cut off at 4,500 steps).

    Returns:
        (the mixture [T, N], the advantages [T, N, K]; add the values to get the targets of the value heads).

    >>> mixed, each = two_stream_advantage(torch.ones(5, 2, 2), torch.zeros(6, 2, 2), *torch.zeros(2, 5, 2).bool())
    >>> each.shape
    torch.Size([5, 2, 2])
    """
    streams = reward.shape[-1]
    for name, option in (("gamma", gamma), ("episodic", episodic), ("weights", weights)):
        if len(option) != streams:
            raise ValueError(f"{name} needs one entry for each of {streams} streams: got {tuple(option)}")
    following = value[1:]
    if final_value is None:
        terminated, truncated = terminated | truncated, torch.zeros_like(truncated)
    else:
        following = torch.where(truncated[..., None], final_value, following)
    each = gae(
        reward,
        value[:-1],
        following,
        terminated,
        truncated,
        gamma=torch.tensor(gamma, device=reward.device),
        lam=lam,
        episodic=torch.tensor(episodic, device=reward.device),
        last_value=value[-1],
    )
    return each @ torch.tensor(weights, dtype=each.dtype, device=each.device), each
