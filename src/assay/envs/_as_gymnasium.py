"""Tensor environments as Gymnasium environments. Imports gymnasium: `assay.envs.adapters` imports this when asked."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from assay.envs.base import Obs, Step, TensorEnv


def to_numpy(value: Tensor) -> np.ndarray:
    """A copy that no tensor shares."""
    return value.detach().cpu().numpy().copy()


def obs_rows(obs: Obs, rows: Any) -> Any:
    """The given rows of an observation, as fresh NumPy arrays (a row alone becomes a scalar where it is one)."""
    if isinstance(obs, dict):
        return {key: to_numpy(value[rows])[()] for key, value in obs.items()}
    return to_numpy(obs[rows])[()]


def has_picture(env: TensorEnv) -> bool:
    """Whether the world can draw itself."""
    return type(env.unwrapped).render is not TensorEnv.render


def metadata_of(env: TensorEnv) -> dict[str, Any]:
    """The world's metadata, without a render mode that it cannot serve."""
    return {**env.metadata, "render_modes": ["rgb_array"] if has_picture(env) else []}


class Episodes:
    """Steps a tensor environment for interfaces where the caller resets ended copies.

    A same-step autoreset has begun the next episode already when the caller asks for it: that one is handed out, so
    that the stream of random numbers, and with it every later episode, is the tensor environment's own.
    """

    def __init__(self, env: TensorEnv):
        self.env = env
        self.begun = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Tensor]]:
        """Begin an episode in every copy."""
        if seed is None and not options and bool(self.begun.all()):
            self.begun = torch.zeros_like(self.begun)
            return self.env.observe(), self.env._reset_info()
        self.begun = torch.zeros_like(self.begun)
        return self.env.reset(seed, options or None)

    def reset_where(self, mask: Tensor) -> Obs:
        """Begin an episode in the rows of `mask` that have not begun one by themselves."""
        due = mask & ~self.begun
        self.begun = self.begun & ~mask
        return self.env.reset_where(due) if bool(due.any()) else self.env.observe()

    def step(self, action: Tensor) -> Step:
        """Step; what ended has begun anew if the environment resets by itself."""
        step = self.env.step(action)
        self.begun = step.ended if self.env.autoreset else torch.zeros_like(step.ended)
        return step


class GymnasiumEnv(gymnasium.Env):
    """One copy of a tensor environment as a `gymnasium.Env`; see `as_gymnasium`."""

    def __init__(self, env: TensorEnv, render_mode: str | None = None):
        if env.num_envs != 1:
            raise ValueError(
                f"gymnasium.Env is one world: build the environment with num_envs=1 (got {env.num_envs}), "
                "or use as_gymnasium_vector"
            )
        self.metadata = metadata_of(env)
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(
                f"{env!r} has the render modes {self.metadata['render_modes']}: got {render_mode!r}"
            )
        self.tensor_env, self.episodes, self.render_mode = env, Episodes(env), render_mode
        self.observation_space = env.single_observation_space
        self.action_space = env.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        obs, info = self.episodes.reset(seed, options)
        return obs_rows(obs, 0), obs_rows(info, 0)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        step = self.episodes.step(torch.as_tensor(np.asarray(action)[None], device=self.tensor_env.device))
        return (
            obs_rows(step.final_obs, 0),
            float(step.reward[0]),
            bool(step.terminated[0]),
            bool(step.truncated[0]),
            obs_rows(step.info, 0),
        )

    def render(self) -> np.ndarray | None:
        return to_numpy(self.tensor_env.render(0)) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self.tensor_env.close()


class GymnasiumVectorEnv(VectorEnv):
    """A tensor environment as a `gymnasium.vector.VectorEnv`; see `as_gymnasium_vector`."""

    def __init__(self, env: TensorEnv, render_mode: str | None = None):
        if not env.autoreset:
            raise ValueError(
                "as_gymnasium_vector needs an environment that resets by itself (autoreset=True)"
            )
        self.metadata = {**metadata_of(env), "autoreset_mode": AutoresetMode.SAME_STEP}
        self.tensor_env, self.num_envs, self.render_mode = env, env.num_envs, render_mode
        self.single_observation_space = env.single_observation_space
        self.single_action_space = env.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if seed is not None and not isinstance(seed, int):
            raise ValueError("a tensor environment has one stream of random numbers: give one int as seed")
        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        if mask is None:
            obs, info = self.tensor_env.reset(seed, options or None)
            return obs_rows(obs, slice(None)), self._infos(info, np.ones(self.num_envs, dtype=bool))
        if seed is not None or options:
            raise ValueError("a partial reset takes no seed and no other options")
        obs = self.tensor_env.reset_where(torch.as_tensor(mask, device=self.tensor_env.device))
        return obs_rows(obs, slice(None)), self._infos(self.tensor_env._reset_info(), np.asarray(mask))

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        step = self.tensor_env.step(torch.as_tensor(np.asarray(actions), device=self.tensor_env.device))
        ended = to_numpy(step.ended)
        # `info` tells of the transition itself: for an ended row that is its final info. The action mask alone tells
        # of what comes next.
        infos = self._infos({k: v for k, v in step.info.items() if k != "action_mask"}, ~ended)
        if "action_mask" in step.info:
            infos |= self._infos({"action_mask": step.info["action_mask"]}, np.ones_like(ended))
        if ended.any():
            final = np.full(self.num_envs, None, dtype=object)
            for row in np.flatnonzero(ended):
                final[row] = obs_rows(step.final_obs, int(row))
            infos |= {"final_obs": final, "_final_obs": ended}
            infos |= {"final_info": self._infos(step.info, ended), "_final_info": ended}
        return (
            obs_rows(step.obs, slice(None)),
            to_numpy(step.reward).astype(np.float64),
            to_numpy(step.terminated),
            to_numpy(step.truncated),
            infos,
        )

    def _infos(self, info: dict[str, Tensor], rows: np.ndarray) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for key, value in info.items():
            infos[key], infos[f"_{key}"] = to_numpy(value), rows.copy()
        return infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        if self.render_mode != "rgb_array":
            return None
        return tuple(to_numpy(self.tensor_env.render(i)) for i in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        self.tensor_env.close()


class AddInfo(gymnasium.Wrapper):
    """Adds `{key: read(env)}` to the info of every reset and step."""

    def __init__(self, env: gymnasium.Env, key: str, read: Callable[[gymnasium.Env], Any]):
        super().__init__(env)
        self.key, self.read = key, read

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(seed=seed, options=options)
        return obs, {**info, self.key: self.read(self.env)}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated, truncated, {**info, self.key: self.read(self.env)}
