"""Tensor multi-agent environments as PettingZoo's. Imports pettingzoo: `assay.envs.adapters` imports it when asked."""

from typing import Any

import numpy as np
import torch
from pettingzoo import ParallelEnv

from assay.envs._as_gymnasium import Episodes, metadata_of, to_numpy
from assay.envs.base import Obs, TensorMultiEnv

OPTIONS = ("scenario", "task")
"""The reset options that tensor environments know."""


class PettingZooEnv(ParallelEnv):
    """One copy of a tensor multi-agent environment as a `pettingzoo.ParallelEnv`; see `as_pettingzoo`."""

    def __init__(self, env: TensorMultiEnv, render_mode: str | None = None):
        if env.num_envs != 1:
            raise ValueError(f"a PettingZoo environment is one world: num_envs=1, not {env.num_envs}")
        self.metadata = {"name": type(env.unwrapped).__name__, "is_parallelizable": True, **metadata_of(env)}
        self.tensor_env, self.episodes, self.render_mode = env, Episodes(env), render_mode
        self.possible_agents = list(env.agents)
        self.agents: list[str] = []
        obs_space, action_space = env.single_observation_space, env.single_action_space
        shared = getattr(obs_space, "spaces", None)
        by_name = isinstance(shared, dict) and set(shared) == set(env.agents)
        # PettingZoo wants the same space object at every call.
        self.observation_spaces = {
            agent: shared[agent] if by_name and shared is not None else obs_space for agent in env.agents
        }
        self.action_spaces = dict.fromkeys(env.agents, action_space)
        self._by_name = by_name

    def observation_space(self, agent: str) -> Any:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Any:
        return self.action_spaces[agent]

    def _observations(self, obs: Obs) -> dict[str, Any]:
        if self._by_name and isinstance(obs, dict):
            return {agent: to_numpy(obs[agent][0])[()] for agent in self.possible_agents}
        if isinstance(obs, dict):
            return {
                agent: {key: to_numpy(value[0, i])[()] for key, value in obs.items()}
                for i, agent in enumerate(self.possible_agents)
            }
        return {agent: to_numpy(obs[0, i])[()] for i, agent in enumerate(self.possible_agents)}

    def _infos(self, info: dict[str, torch.Tensor]) -> dict[str, dict[str, Any]]:
        count = len(self.possible_agents)
        return {
            agent: {
                key: to_numpy(value[0, i] if value.ndim > 1 and value.shape[1] == count else value[0])[()]
                for key, value in info.items()
            }
            for i, agent in enumerate(self.possible_agents)
        }

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        # PettingZoo's environments pass over options that they do not know.
        known = {key: value for key, value in (options or {}).items() if key in OPTIONS}
        obs, info = self.episodes.reset(seed, known)
        self.agents = list(self.possible_agents)
        return self._observations(obs), self._infos(info)

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        if not self.agents:
            raise RuntimeError("the episode is over: call reset() first")
        missing = [agent for agent in self.agents if agent not in actions]
        if missing:
            raise ValueError(f"all agents move at once: no action for {missing}")
        stacked = np.stack([np.asarray(actions[agent]) for agent in self.possible_agents])[None]
        step = self.episodes.step(torch.as_tensor(stacked, device=self.tensor_env.device))
        agents = self.agents
        if bool(step.ended[0]):
            self.agents = []
        return (
            self._observations(step.final_obs),
            {agent: float(step.reward[0, i]) for i, agent in enumerate(agents)},
            dict.fromkeys(agents, bool(step.terminated[0])),
            dict.fromkeys(agents, bool(step.truncated[0])),
            self._infos(step.info),
        )

    def render(self) -> np.ndarray | None:
        return to_numpy(self.tensor_env.render(0)) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self.tensor_env.close()
