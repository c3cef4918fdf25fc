r"""The loop that on-policy studies share: collect, pay intrinsic rewards, learn."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from assay.envs.base import TensorEnv
from assay.rl.intrinsic.base import IntrinsicMixer
from assay.rl.policies import ActorCritic
from assay.rl.ppo import PPO
from assay.rl.rollout import Rollout, collect, start


class Update(NamedTuple):
    """What one turn of the loop did."""

    index: int
    env_steps: int
    """Transitions so far."""
    rollout: Rollout
    """What was just learnt from."""
    metrics: dict[str, float]
    """The learner's, and the mean intrinsic rewards before normalisation ("intrinsic_0", ...)."""


def train(
    env: TensorEnv,
    model: ActorCritic,
    learner: PPO,
    updates: int,
    steps: int = 64,
    intrinsic: IntrinsicMixer | None = None,
    generator: torch.Generator | None = None,
    info: Sequence[str] = (),
) -> Iterator[Update]:
    """Train by PPO (or anything with its `update`), one rollout a turn; yields after every update.

    Args:
        env: is reset first; seed it before.
        model: acts; its `streams` must be those of `intrinsic`.
        learner: trains the model.
        updates: turns.
        steps: T of each rollout.
        intrinsic: rewards to add, their losses already among the learner's `aux_losses`.
        generator: of actions and shuffling.
        info: keys of the environment's info to keep in each rollout.

    >>> for update in train(env, model, ppo, updates=100):   # doctest: +SKIP
    ...     print(update.env_steps, update.rollout.reward.mean())
    """
    carry = start(env, model)
    for index in range(updates):
        rollout = Rollout(steps, env.num_envs, model.streams, info)
        carry = collect(env, model, rollout, carry, generator)
        extra = {}
        if intrinsic is not None:
            raws = intrinsic.fill(rollout)
            extra = {f"intrinsic_{k}": float(raw.mean()) for k, raw in enumerate(raws)}
        metrics = learner.update(rollout, generator=generator)
        yield Update(index, (index + 1) * rollout.transitions, rollout, {**metrics, **extra})
