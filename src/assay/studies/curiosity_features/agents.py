"""An agent that is paid for the error of its own forward model, and for nothing else."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.envs import TensorEnv
from assay.lab import Trial
from assay.rl.intrinsic import (
    ActionCode,
    FeatureSpace,
    ForwardDynamics,
    IntrinsicMixer,
    IntrinsicReward,
    InverseDynamicsFeatures,
    VAEFeatures,
    make_features,
)
from assay.rl.normalize import ReturnNormalizer, RunningMeanStd
from assay.rl.policies import ActorCritic, actor_critic
from assay.rl.ppo import PPO
from assay.rl.rollout import Batch, RandomPolicy, Rollout, collect, start
from assay.rl.train import Update, train
from assay.studies.curiosity_features.config import Agent

SPACES = {"pixels": "pixels", "rf": "random", "idf": "inverse", "vae": "vae"}
"""Arm -> feature space."""


class Standardised(FeatureSpace):
    """A feature space whose numbers are brought to mean 0 and deviation 1 by running statistics.

    What batch normalisation at the end of an embedding does, in a form that also works where the embedding does not
    train.
    """

    def __init__(self, inner: FeatureSpace):
        super().__init__(inner.size, inner.obs_ndim, inner.obs_norm, inner.scalar_std, inner.clip)
        self.inner, self.scale = inner, RunningMeanStd((inner.size,))

    def embed(self, x: Tensor) -> Tensor:
        """[B, *obs] to [B, d]."""
        return self.scale.normalize(self.inner.embed(x))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The inner space's."""
        return self.inner.loss(batch)

    def observe(self, rollout: Rollout) -> None:
        """Statistics of observations and of features."""
        super().observe(rollout)
        with torch.no_grad():
            flat, lead = self.see(rollout.next_obs())
            self.scale.update(self.inner.embed(flat).view(*lead, self.size), rollout.valid)


class Constant(IntrinsicReward):
    """The same reward at every step: for being alive."""

    def __init__(self, reward: float):
        super().__init__()
        self.paid = reward

    def reward(self, rollout: Rollout) -> Tensor:
        """[T, N]."""
        return torch.full_like(rollout.reward[..., 0], self.paid)


class Thrifty(ForwardDynamics):
    """The same rewards and losses for less work.

    Observations are whitened once a rollout, and embedded once where the features do not move. Inverse and forward
    model share their embeddings. (`detach_features` and discrete actions are taken for granted.)
    """

    _of: Rollout | None = None

    def reward(self, rollout: Rollout) -> Tensor:
        """[T, N]; keeps what the losses to come will need."""
        assert isinstance(rollout.obs, Tensor)
        seen, embedded = [], []
        with torch.no_grad():
            for obs in (rollout.obs[: rollout.steps], rollout.next_obs()):
                x, lead = self.features.see(obs)
                seen.append(x.unflatten(0, lead))
                embedded.append(self.features.embed(x))
            error = self._forward(embedded[0], rollout.action.flatten(), embedded[1])
        self._of = rollout
        self._kept = [phi.unflatten(0, lead) for phi in embedded] if self.features.stationary else seen
        return error.view(rollout.steps, -1)

    def _forward(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        return (self.model(before, self.actions(action)) - after).square().mean(-1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """From what was kept, if it is the batch's rollout."""
        space = self.features
        if batch.rollout is not self._of or not bool(batch.valid.all()):
            return super().loss(batch)
        before, after = (batch.take(part) for part in self._kept)
        learnt: dict[str, Tensor] = {}
        if isinstance(space, InverseDynamicsFeatures):
            before, after = space.embed(before), space.embed(after)
            learnt["inverse"] = F.cross_entropy(space.inverse(torch.cat((before, after), -1)), batch.action)
        elif not space.stationary:
            with torch.no_grad():
                before, after = space.embed(before), space.embed(after)
            learnt = space.loss(batch)
        error = self._forward(before.detach(), batch.action, after.detach()).mean()
        return {
            "forward": self.forward_weight * error,
            **{name: self.feature_weight * value for name, value in learnt.items()},
        }


def make_curiosity(kind: str, env: TensorEnv, config: Agent, run: Trial) -> ForwardDynamics:
    """A forward model in the feature space `kind`, with statistics of 10,000 random steps that stay as they are."""
    g, code = run.generator("curiosity", device="cpu"), ActionCode.of(env)
    space: FeatureSpace = make_features(
        SPACES[kind],
        env.obs_shape,
        config.latent if kind == "vae" else config.features,
        config.hidden,
        code,
        normalize=config.obs_norm,
        generator=g,
        scalar_std=True,
    )
    if config.feature_norm:
        space = Standardised(space)
    curiosity = Thrifty(space, code, hidden=config.hidden, blocks=config.blocks, generator=g)
    curiosity = curiosity.to(run.device)
    if isinstance(space, VAEFeatures):
        space.generator = run.generator("code")
    curiosity.init_stats(env, config.warmup, run.generator("warm-up"))
    if space.obs_norm is not None:
        space.obs_norm.freeze()
    return curiosity


def wander(
    env: TensorEnv, updates: int, steps: int, generator: torch.Generator, info: tuple[str, ...]
) -> Iterator[Update]:
    """A random policy in the form of a training."""
    policy = RandomPolicy(env)
    carry = start(env, policy)
    for index in range(updates):
        rollout = Rollout(steps, env.num_envs, info=info)
        carry = collect(env, policy, rollout, carry, generator, values=False)
        yield Update(index, (index + 1) * rollout.transitions, rollout, {})


class Learner:
    """Policy, curiosity and PPO, which may go on in another world.

    Args:
        run: gives the generators.
        env: tells the shapes; the statistics of observations are gathered here.
        reward: what pays; its networks train with the policy.
        config: sizes and settings.
        done: returns stop where episodes end.
        value: every state is worth so much at the beginning (and nothing else is known); None: as initialised.
    """

    def __init__(
        self,
        run: Trial,
        env: TensorEnv,
        reward: IntrinsicReward,
        config: Agent,
        done: bool = False,
        value: float | None = None,
    ):
        self.reward, self.config = reward, config
        normalizer = ReturnNormalizer(config.gamma, env.num_envs).to(run.device)
        self.mixer = IntrinsicMixer(
            [reward], extrinsic=False, normalizers=[normalizer if config.reward_norm else None]
        )
        g = run.generator("policy", device="cpu")
        self.model: ActorCritic = actor_critic(env, (config.hidden, config.hidden), generator=g)
        if value is not None:
            linear: Any = self.model.value_head.linear
            torch.nn.init.zeros_(linear.weight)
            torch.nn.init.constant_(linear.bias, value)
        self.model = self.model.to(run.device)
        learnt = [*self.model.parameters(), *self.mixer.parameters()]
        self.ppo = PPO(
            self.model,
            torch.optim.Adam(learnt, config.rate, fused=True),
            clip=config.clip,
            epochs=config.epochs if config.clip is not None else 1,
            minibatches=config.minibatches,
            gamma=config.gamma,
            lam=config.lam,
            episodic=done,
            ent_coef=config.entropy,
            adv_norm="batch" if config.advantage_norm else None,
            max_grad_norm=None,
            aux_losses=[self.mixer.loss],
        )
        self.generator = run.generator("actions")

    def train(self, env: TensorEnv, updates: int, info: tuple[str, ...]) -> Iterator[Update]:
        """So many updates."""
        return train(env, self.model, self.ppo, updates, self.config.steps, self.mixer, self.generator, info)
