"""Tensor environments as torchrl's. Imports torchrl: `assay.envs.adapters` imports this when asked."""

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Categorical, Composite, MultiCategorical, Unbounded
from torchrl.envs import EnvBase

from assay._extras import require
from assay.envs._as_gymnasium import Episodes
from assay.envs.base import Obs, TensorEnv, TensorMultiEnv


def spec_of(space: Any, num_envs: int, device: torch.device) -> Any:
    """The torchrl spec [N, ...] of a Gymnasium space of one copy."""
    spaces = require("gymnasium.spaces", "rl")
    if isinstance(space, spaces.Discrete):
        return Categorical(int(space.n), shape=(num_envs,), device=device, dtype=torch.int64)
    if isinstance(space, spaces.MultiDiscrete):
        sizes = torch.as_tensor(space.nvec)
        return MultiCategorical(sizes, shape=(num_envs, len(sizes)), device=device, dtype=torch.int64)
    if isinstance(space, spaces.MultiBinary):
        return Binary(shape=(num_envs, *space.shape), device=device, dtype=torch.int8)
    if isinstance(space, spaces.Box):
        shape = (num_envs, *space.shape)
        low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
        if low.is_floating_point() and not bool((low.isfinite() & high.isfinite()).all()):
            return Unbounded(shape=shape, device=device, dtype=low.dtype)
        return Bounded(
            low.expand(shape).clone(), high.expand(shape).clone(), shape=shape, device=device, dtype=low.dtype
        )
    raise TypeError(f"no torchrl spec for the space {space}")


class TorchRLEnv(EnvBase):
    """N copies as one torchrl environment of batch size [N]; see `as_torchrl`."""

    def __init__(self, env: TensorEnv):
        if isinstance(env.unwrapped, TensorMultiEnv):
            raise TypeError(
                "as_torchrl takes single-agent environments; pass multi-agent ones by as_pettingzoo"
            )
        super().__init__(device=env.device, batch_size=torch.Size([env.num_envs]))
        self.tensor_env, self.episodes = env, Episodes(env)
        count, device = env.num_envs, env.device
        space = env.single_observation_space
        shared = getattr(space, "spaces", None)
        parts = dict(shared) if isinstance(shared, dict) else {"observation": space}
        self.observation_spec = Composite(
            {key: spec_of(part, count, device) for key, part in parts.items()}, shape=(count,), device=device
        )
        self.action_spec = spec_of(env.single_action_space, count, device)
        self.reward_spec = Unbounded(shape=(count, 1), device=device, dtype=torch.float32)
        flag = Categorical(2, shape=(count, 1), device=device, dtype=torch.bool)
        self.done_spec = Composite(
            {"done": flag.clone(), "terminated": flag.clone(), "truncated": flag.clone()},
            shape=(count,),
            device=device,
        )

    def _pack(self, obs: Obs, terminated: Tensor, truncated: Tensor, **more: Tensor) -> TensorDict:
        parts = obs if isinstance(obs, dict) else {"observation": obs}
        flags = {"terminated": terminated, "truncated": truncated, "done": terminated | truncated, **more}
        return TensorDict(
            {**parts, **{key: value.unsqueeze(-1) for key, value in flags.items()}},
            batch_size=self.batch_size,
            device=self.device,
        )

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        mask = None if tensordict is None else tensordict.get("_reset", None)
        if mask is None:
            obs, _info = self.episodes.reset()
        else:
            obs = self.episodes.reset_where(mask.reshape(self.tensor_env.num_envs))
        running = torch.zeros(self.tensor_env.num_envs, dtype=torch.bool, device=self.tensor_env.device)
        return self._pack(obs, running, running.clone())

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        step = self.episodes.step(tensordict.get("action"))
        return self._pack(step.final_obs, step.terminated, step.truncated, reward=step.reward)

    def _set_seed(self, seed: int | None) -> None:
        if seed is not None:
            self.tensor_env.seed(seed)
            # An episode begun before the seed was set is not the seed's.
            self.episodes.begun = torch.zeros_like(self.episodes.begun)

    def close(self, **kwargs: Any) -> None:
        self.tensor_env.close()
        super().close(**kwargs)
