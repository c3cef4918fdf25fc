r"""Curiosity around anybody's Gymnasium environment: the error of a forward model, in a feature space of choice.

    import gymnasium
    from assay.rl.intrinsic.curiosity_wrapper import CuriosityVectorWrapper, CuriosityWrapper

    env = CuriosityWrapper(gymnasium.make("MountainCar-v0"), features="inverse", mode="add", weight=0.1)
    obs, info = env.reset(seed=0)
    obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
    info["extrinsic_reward"], info["intrinsic_reward"]

    envs = CuriosityVectorWrapper(gymnasium.make_vec("CartPole-v1", num_envs=8), mode="replace", endless=True)

With `mode="replace"` the learner never sees the environment's reward, which stays in `info`: the pure curiosity of
Burda et al. 2018 (arXiv 1808.04355). With `endless=True` it never sees an end either; `info["episode_end"]` tells.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.rl.intrinsic.dynamics import ForwardDynamics
from assay.rl.intrinsic.features import ActionCode, make_features
from assay.rl.intrinsic.wrapper import (
    BonusVectorWrapper,
    BonusWrapper,
    Payer,
    Transition,
    check_box,
    gymnasium,
)
from assay.rl.rollout import Batch, Rollout


def one_step(obs: Tensor, action: Tensor, next_obs: Tensor, valid: Tensor | None = None) -> Rollout:
    """A rollout of one step of B copies, for intrinsic rewards outside a loop of rollouts.

    Args:
        obs: [B, *obs].
        action: [B] or [B, d].
        next_obs: [B, *obs].
        valid: [B] bool; None: all.
    """
    rows = len(action)
    rollout = Rollout(1, rows)
    rollout.obs, rollout.action = torch.stack((obs, next_obs)), action[None]
    rollout.reward = torch.zeros((1, rows, 1), device=action.device)
    no = torch.zeros((1, rows), dtype=torch.bool, device=action.device)
    rollout.terminated, rollout.truncated = no, no.clone()
    rollout.valid = ~no if valid is None else valid[None]
    return rollout


def action_code(space: Any) -> ActionCode:
    """The code of a Gymnasium action space.

    Raises:
        ValueError: neither `Discrete` nor a flat `Box`.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return ActionCode(num_actions=int(space.n))
    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
        return ActionCode(act_dim=int(space.shape[0]))
    raise ValueError(f"curiosity takes Discrete actions or a Box of vectors: got {space}")


class Forecaster(Payer):
    """A forward model and its features, step by step.

    Args:
        space: of one observation, a `Box`.
        actions: space of one action.
        num_envs: N.
        curiosity: networks of your own; None: made for the spaces.
        features: "pixels", "random", "inverse" or "vae", where they are made.
        gamma: of the bonus's normaliser.
        lr: Adam's.
        update_every: steps between two trainings.
        epochs: passes over these steps.
        batch: transitions of a training step.
        seed: of networks and shuffling.
    """

    def __init__(
        self,
        space: Any,
        actions: Any,
        num_envs: int,
        curiosity: ForwardDynamics | None,
        features: str,
        gamma: float,
        lr: float,
        update_every: int,
        epochs: int,
        batch: int,
        seed: int,
    ):
        check_box(space, "Curiosity")
        code = action_code(actions)
        generator = torch.Generator().manual_seed(seed)
        if curiosity is None:
            phi = make_features(
                features, tuple(space.shape), 64, 128, code, generator=generator, scalar_std=True
            )
            curiosity = ForwardDynamics(phi, code, hidden=128, blocks=1, generator=generator)
        elif (curiosity.actions.discrete, curiosity.actions.size) != (code.discrete, code.size):
            raise ValueError(
                f"the forward model knows other actions than the environment's {actions}: make its ActionCode fit"
            )
        self.curiosity = curiosity
        super().__init__(curiosity, num_envs, gamma, lr, update_every, epochs, batch, generator)

    def warm_up(self, steps: list[Transition]) -> None:
        """Statistics of observations, which then stay as they are, and of bonuses."""
        parts = [torch.cat([step[k] for step in steps]) for k in range(4)]
        norm = self.curiosity.features.obs_norm
        if norm is not None:
            self.curiosity.observe(one_step(*parts))
            norm.freeze()
        raw = torch.stack([self.bonus(step) for step in steps])
        self.normalizer(raw, valid=torch.stack([step.valid for step in steps]))

    def bonus(self, step: Transition) -> Tensor:
        """[N]: error of the forward model."""
        return self.curiosity.bonus(step.obs, step.action, step.next_obs)

    def keep(self, step: Transition) -> tuple[Tensor, ...]:
        """Observation, action and successor."""
        return step.obs, step.action, step.next_obs

    def loss(self, *rows: Tensor) -> Tensor:
        """Of the forward model and of the features."""
        batch = Batch(one_step(*rows), torch.arange(len(rows[0])))
        return torch.stack([*self.curiosity.loss(batch).values()]).sum()

    def _parts(self) -> dict[str, Any]:
        parts = super()._parts()
        return {"curiosity": parts.pop("module"), **parts}


class CuriosityWrapper(BonusWrapper):
    """One environment whose reward is (or includes) the surprise of a forward model.

    `info` gains `extrinsic_reward` and `intrinsic_reward` (normalised, before `weight`). The first `reset` makes
    `warmup` random steps to gather statistics.

    Args:
        env: what to wrap; observations `Box`, actions `Discrete` or a `Box` of vectors.
        curiosity: networks of your own (with a `preprocess` for channel-last pictures); None: made for `env`.
        features: the feature space that is made: "pixels", "random", "inverse" or "vae".
        mode: "replace" the reward, or "add" to it.
        weight: of the bonus.
        endless: the learner is never told that an episode ended: the wrapper begins anew by itself and returns the
            first observation of the next episode (`info["episode_end"]` tells, `info["final_obs"]` is the last one).
        warmup: random steps before the first episode.
        gamma: of the bonus's normaliser.
        lr, update_every, epochs, batch: of the training of model and features.
        seed: of networks, shuffling and random steps.
    """

    def __init__(
        self,
        env: Any,
        curiosity: ForwardDynamics | None = None,
        *,
        features: str = "random",
        mode: str = "add",
        weight: float = 1.0,
        endless: bool = False,
        warmup: int = 500,
        gamma: float = 0.99,
        lr: float = 1e-4,
        update_every: int = 128,
        epochs: int = 3,
        batch: int = 64,
        seed: int = 0,
    ):
        self.forecaster = Forecaster(
            env.observation_space, env.action_space, 1, curiosity, features, gamma, lr, update_every, epochs, batch,
            seed,
        )  # fmt: skip
        super().__init__(env, self.forecaster, mode=mode, weight=weight, warmup=warmup, seed=seed)
        self.endless = endless

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and pay for surprise."""
        if not self.endless:
            return super().step(action)
        # The successor of a last step is the next episode's first observation: dying leads to a familiar place.
        obs, reward, terminated, truncated, info = self.env.step(action)
        ended = bool(terminated or truncated)
        if ended:
            info = {**info, "final_obs": obs}
            obs, _ = self.env.reset()
        bonus = float(self.payer.pay(self._transition(action, obs, False))[0])
        told = {"extrinsic_reward": float(reward), "intrinsic_reward": bonus, "episode_end": ended}
        paid = self.weight * bonus if self.mode == "replace" else float(reward) + self.weight * bonus
        return obs, paid, False, False, {**info, **told}


class CuriosityVectorWrapper(BonusVectorWrapper):
    """`CuriosityWrapper` for a vector environment, whatever its autoreset mode.

    Args:
        env: what to wrap.
        **options: see `CuriosityWrapper`; `warmup` counts steps of all copies together. With `endless` the successor
            of a last step is the first observation of the next episode; under next-step autoreset the step that
            resets is then a transition like any other.
    """

    def __init__(
        self,
        env: Any,
        curiosity: ForwardDynamics | None = None,
        *,
        features: str = "random",
        mode: str = "add",
        weight: float = 1.0,
        endless: bool = False,
        warmup: int = 64,
        gamma: float = 0.99,
        lr: float = 1e-4,
        update_every: int = 128,
        epochs: int = 3,
        batch: int = 64,
        seed: int = 0,
    ):
        self.forecaster = Forecaster(
            env.single_observation_space, env.single_action_space, env.num_envs, curiosity, features, gamma, lr,
            update_every, epochs, batch, seed,
        )  # fmt: skip
        super().__init__(env, self.forecaster, mode=mode, weight=weight, warmup=warmup, seed=seed)
        self.endless = endless

    def _true_next(self, obs: Any, info: dict[str, Any], ended: Tensor) -> tuple[Tensor, Tensor]:
        if not self.endless:
            return super()._true_next(obs, info, ended)
        self._ended = ended
        return torch.as_tensor(np.array(obs)), torch.ones_like(ended)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every copy, and pay for surprise."""
        obs, paid, terminated, truncated, info = super().step(actions)
        if self.endless:
            info["episode_end"] = np.logical_or(terminated, truncated)
            terminated, truncated = np.zeros_like(terminated), np.zeros_like(truncated)
        return obs, paid, terminated, truncated, info
