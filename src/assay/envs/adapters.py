"""Tensor environments for other libraries, and other libraries' environments as tensor environments.

Outwards `as_gymnasium`, `as_gymnasium_vector`, `as_pettingzoo` and `as_torchrl`; inwards `from_gymnasium`,
`from_envpool` and `from_pettingzoo`, with its cases `from_mpe2` and `from_meltingpot`. The same seed and actions give
the same trajectory on both sides.

What comes in keeps the conventions of `assay.envs.base`: termination wins over truncation, `final_obs` is the true
last observation, `obs` the first one of the next episode. A vector environment of the **next-step** kind (EnvPool,
and Gymnasium's default) cannot keep the last one: its step after an end ignores the action and returns the reset
observation with reward zero. Such rows carry `info["valid"] = False` and belong in no loss and no statistic.

No library is imported before one of its functions is called.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import torch
from torch import Tensor

from assay._extras import MissingExtra, require
from assay.envs.base import Generators, Obs, Step, TensorEnv, TensorMultiEnv, map_obs, where_rows


def as_gymnasium(env: TensorEnv, render_mode: str | None = None) -> Any:
    """One copy (`num_envs=1`) as a `gymnasium.Env`.

    Episodes follow one another as in the tensor environment: `reset()` without a seed after an end hands out the
    episode that the autoreset has begun, without drawing again.

    Raises:
        ValueError: for more than one copy, or a render mode that the world does not have.
    """
    require("gymnasium", "rl")
    from assay.envs._as_gymnasium import GymnasiumEnv

    return GymnasiumEnv(env, render_mode)


def as_gymnasium_vector(env: TensorEnv, render_mode: str | None = None) -> Any:
    """All copies as a `gymnasium.vector.VectorEnv` with same-step autoreset.

    Where an episode ended, `info["final_obs"]` and `info["final_info"]` hold its last observation and info.
    """
    require("gymnasium", "rl")
    from assay.envs._as_gymnasium import GymnasiumVectorEnv

    return GymnasiumVectorEnv(env, render_mode)


def as_pettingzoo(env: TensorMultiEnv, render_mode: str | None = None) -> Any:
    """One copy of a multi-agent world as a `pettingzoo.ParallelEnv`.

    The world's single spaces are those of one agent, or a Dict by agent name where agents see different things.
    """
    require("pettingzoo", "rl")
    from assay.envs._as_pettingzoo import PettingZooEnv

    return PettingZooEnv(env, render_mode)


def as_torchrl(env: TensorEnv) -> Any:
    """All copies as a `torchrl.envs.EnvBase` of batch size [N], for torchrl's collectors, losses and replay."""
    require("torchrl", "torchrl")
    from assay.envs._as_torchrl import TorchRLEnv

    return TorchRLEnv(env)


# Gymnasium -> tensors.


def _tensor(array: Any, device: torch.device) -> Tensor:
    """float64 becomes float32, whole numbers other than uint8 int64."""
    value = torch.as_tensor(array, device=device)
    if value.dtype.is_floating_point:
        return value.float()
    return value if value.dtype in (torch.uint8, torch.bool) else value.long()


def _served_space(space: Any, spaces: Any) -> Any:
    """The space as our tensors show it: float32 where Gymnasium's is float64, int64 for other whole numbers."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _served_space(part, spaces) for key, part in space.spaces.items()})
    if isinstance(space, spaces.Box):
        kind, size = space.dtype.kind, space.dtype.itemsize
        dtype = "float32" if kind == "f" else "uint8" if kind == "u" and size == 1 else "int64"
        return spaces.Box(space.low.astype(dtype), space.high.astype(dtype), dtype=dtype)
    return space


class GymnasiumTensorEnv(TensorEnv):
    """A `gymnasium.vector.VectorEnv` (or a look-alike) as a tensor environment; see `from_gymnasium`.

    Attributes:
        vec: the vector environment.
    """

    def __init__(
        self,
        vec: Any,
        *,
        info_keys: Sequence[str] | None = None,
        generator: Generators | None = None,
        device: str | torch.device = "cpu",
        autoreset: bool = True,
        validate: bool = True,
    ):
        super().__init__(
            vec.num_envs, generator=generator, device=device, autoreset=autoreset, validate=validate
        )
        spaces = require("gymnasium.spaces", "rl")
        self.vec = vec
        self.info_keys = None if info_keys is None else tuple(info_keys)
        mode = vec.metadata.get("autoreset_mode", "NextStep")
        self.autoreset_mode = str(getattr(mode, "value", mode))
        if not autoreset and self.autoreset_mode != "Disabled":
            raise ValueError(
                "autoreset=False needs a vector environment built with autoreset_mode='Disabled'"
            )
        observed, acted = vec.single_observation_space, vec.single_action_space
        parts = observed.spaces.values() if isinstance(observed, spaces.Dict) else (observed,)
        numeric = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
        if not all(isinstance(part, numeric) for part in parts):
            raise TypeError(
                f"observations must be arrays or a flat Dict of them, not {observed}: "
                "wrap the environment first (e.g. gymnasium.wrappers.FilterObservation)"
            )
        if not isinstance(acted, numeric):
            raise TypeError(f"actions must be discrete or a box, not {acted}")
        self.num_actions = int(acted.n) if isinstance(acted, spaces.Discrete) else None
        self.obs_shape = () if isinstance(observed, spaces.Dict) else tuple(observed.shape)
        self._start = getattr(acted, "start", 0)
        self._seeded = False
        self._closed = False
        self._obs: Obs | None = None

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return _served_space(self.vec.single_observation_space, spaces), self.vec.single_action_space

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        raise NotImplementedError("the vector environment steps as a whole: call step")

    def _reset_rows(self, mask: Tensor) -> None:
        obs, _ = self.vec.reset(options={"reset_mask": mask.cpu().numpy()})
        self._obs = self._convert(obs)

    def observe(self) -> Obs:
        """The latest observation."""
        if self._obs is None:
            raise RuntimeError("call reset first")
        return self._obs

    def _convert(self, obs: Any) -> Obs:
        if isinstance(obs, dict):
            return {key: _tensor(value, self.device) for key, value in obs.items()}
        return _tensor(obs, self.device)

    def _row_seeds(self) -> Any:
        """A seed below 2**31 for every row, each from its own block's generator."""
        high, low = self.integers(2**15), self.integers(2**16)
        return (high * 2**16 + low).cpu().numpy()

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Tensor]]:
        """Begin a new episode in every copy.

        Args:
            seed: copy i is seeded by `seed + i`, as in Gymnasium (with several generators: by its block's generator).
                None: at the first reset the generators seed the copies; later each copy's stream goes on.
            options: handed to every copy.
        """
        seeds: Any = None
        if seed is not None:
            self.seed(seed)
        if seed is not None and len(self.generators) == 1:
            seeds = seed
        elif seed is not None or not self._seeded:
            seeds = self._row_seeds()
            if type(self.vec).__module__.startswith("gymnasium."):
                seeds = seeds.tolist()
        self._seeded = True
        obs, info = self.vec.reset(seed=seeds, options=options)
        self._obs = self._convert(obs)
        self.elapsed = torch.zeros_like(self.elapsed)
        self._ended = torch.zeros_like(self._ended)
        return self._obs, self._infos(info)

    def reset_where(self, mask: Tensor) -> Obs:
        """Begin a new episode in the rows of `mask`."""
        if bool(mask.any()):
            self._reset_masked(mask)
        return self.observe()

    def step(self, action: Tensor) -> Step:
        """Advance every copy; see `TensorEnv.step`."""
        if self.validate:
            self._check(action)
        if not self.autoreset and bool(self._ended.any()):
            raise ValueError("some copies ended: call reset_where for them before stepping on")
        try:
            obs, reward, terminated, truncated, info = self.vec.step(self._numpy_action(action))
        except Exception:
            # A worker that raised must not leave the others behind.
            self.close()
            raise
        given = self._convert(obs)
        ended_flag = _tensor(terminated, self.device)
        timed_out = _tensor(truncated, self.device) & ~ended_flag
        ended = ended_flag | timed_out
        any_ended = bool(ended.any())
        infos = self._infos(info)
        final_obs = given
        self.elapsed = self.elapsed + 1
        if self.autoreset_mode == "NextStep":
            # Rows that ended a step ago were reset by this one, whatever their action.
            infos["valid"] = ~self._ended
            self.elapsed = self.elapsed.masked_fill(self._ended, 0)
            self._ended = ended
        elif self.autoreset_mode == "SameStep":
            self.elapsed = self.elapsed.masked_fill(ended, 0)
            if any_ended:
                final_obs = self._final_obs(given, ended, info["final_obs"])
                infos = self._final_infos(infos, ended, info.get("final_info", {}))
        elif not self.autoreset:
            self._ended = ended
        self._obs = given
        if self.autoreset_mode == "Disabled" and self.autoreset and any_ended:
            self._reset_masked(ended)
        return Step(self._obs, _tensor(reward, self.device).float(), ended_flag, timed_out, final_obs, infos)

    def _numpy_action(self, action: Tensor) -> Any:
        space = self.vec.single_action_space
        return action.detach().cpu().numpy().astype(space.dtype, copy=False) + self._start

    def _final_obs(self, obs: Obs, ended: Tensor, final: Any) -> Obs:
        """`obs` with the rows of `ended` from `final`: an object array (Gymnasium) or a full array."""
        if getattr(getattr(final, "dtype", None), "kind", None) == "O":
            rows = ended.nonzero().flatten()
            picked = [final[row] for row in rows.tolist()]

            def patched(whole: Tensor, *parts: Any) -> Tensor:
                stacked = torch.stack([_tensor(part, self.device) for part in parts])
                return whole.index_copy(0, rows, stacked.to(whole.dtype))

            if isinstance(obs, dict):
                return {key: patched(value, *(part[key] for part in picked)) for key, value in obs.items()}
            return patched(obs, *picked)
        return map_obs(partial(where_rows, ended), self._convert(final), obs)

    def _final_infos(self, infos: dict[str, Tensor], ended: Tensor, final: Any) -> dict[str, Tensor]:
        """Rows of `ended` tell of the transition, not of the reset."""
        merged = dict(infos)
        for key, value in self._infos(final).items():
            merged[key] = where_rows(ended, value, merged.get(key, torch.zeros_like(value)))
        return merged

    def _infos(self, info: dict[str, Any]) -> dict[str, Tensor]:
        """The numeric entries, a row each; rows without one hold zero."""
        found = {}
        for key, value in info.items():
            wanted = not key.startswith("_") if self.info_keys is None else key in self.info_keys
            if not wanted or key in ("final_obs", "final_info"):
                continue
            numeric = getattr(getattr(value, "dtype", None), "kind", "O") in "biuf"
            if numeric and value.shape[:1] == (self.num_envs,):
                found[key] = _tensor(value, self.device)
        return found

    def render(self, i: int = 0) -> Tensor:
        """A picture of copy `i`, where the environments were made with `render_mode="rgb_array"`."""
        frames = self.vec.render()
        if frames is None:
            raise ValueError('no picture: make the environments with render_mode="rgb_array"')
        return torch.as_tensor(frames[i].copy())

    def state_dict(self) -> dict[str, Any]:
        """Not possible: a simulator's state stays in the simulator."""
        raise NotImplementedError("an environment of another library has no snapshot")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Not possible, see `state_dict`."""
        raise NotImplementedError("an environment of another library has no snapshot")

    def to(self, device: str | torch.device) -> "GymnasiumTensorEnv":
        """Serve tensors on another device (the copies stay where they run)."""
        super().to(device)
        if self._obs is not None:
            self._obs = map_obs(lambda value: value.to(device), self._obs)
        return self

    def close(self) -> None:
        """End the copies, and their processes."""
        if not self._closed:
            self._closed = True
            self.vec.close()


MODES = ("sync", "async")
AUTORESETS = {"same_step": "Disabled", "next_step": "NextStep"}


def from_gymnasium(
    fn_or_id: str | Callable[[], Any] | Any,
    num_envs: int | None = None,
    mode: str = "sync",
    *,
    autoreset: bool = True,
    autoreset_mode: str = "same_step",
    info_keys: Sequence[str] | None = None,
    context: str | None = None,
    generator: Generators | None = None,
    device: str | torch.device = "cpu",
    validate: bool = True,
    **kwargs: Any,
) -> GymnasiumTensorEnv:
    """N copies of a Gymnasium environment as a tensor environment.

    float64 observations become float32 and time limits become `truncated`, with termination winning. In same-step
    mode the copies do not reset themselves: this adapter resets those that ended, so `final_obs` is safe even where
    an environment writes into its own observation buffer.

    Args:
        fn_or_id: an id for `gymnasium.make`, a function that makes one environment, or a vector environment (whose
            own autoreset mode then counts).
        num_envs: N.
        mode: "sync" (one after another) or "async" (a process each; call `close`).
        autoreset: False: ended copies wait for `reset_where`.
        autoreset_mode: "same_step", or "next_step" for Gymnasium's default with its dummy rows marked in
            `info["valid"]`.
        info_keys: the numeric entries of `info` to pass on; None: all.
        context: how processes start ("fork", "forkserver", "spawn"); None: Python's default.
        generator: seeds the copies at a first `reset()` without a seed.
        device: where the tensors are served.
        validate: check actions.
        kwargs: for `gymnasium.make`, or for the function.

    Example:
        >>> import torch
        >>> from assay.envs import from_gymnasium
        >>> env = from_gymnasium("CartPole-v1", 4)
        >>> obs, _ = env.reset(seed=0)
        >>> step = env.step(torch.ones(4, dtype=torch.int64))
        >>> tuple(obs.shape), step.reward.tolist()
        ((4, 4), [1.0, 1.0, 1.0, 1.0])
    """
    gymnasium = require("gymnasium", "rl")
    common: dict[str, Any] = {
        "info_keys": info_keys,
        "generator": generator,
        "device": device,
        "autoreset": autoreset,
        "validate": validate,
    }
    if isinstance(fn_or_id, gymnasium.vector.VectorEnv):
        if kwargs:
            raise ValueError(f"the vector environment is made already; cannot give it {sorted(kwargs)}")
        if num_envs not in (None, fn_or_id.num_envs):
            raise ValueError(f"the vector environment has {fn_or_id.num_envs} copies, not {num_envs}")
        return GymnasiumTensorEnv(fn_or_id, **common)
    if num_envs is None or num_envs < 1:
        raise ValueError(f"say how many copies, at least one: got num_envs={num_envs}")
    if mode not in MODES:
        raise ValueError(f"mode is one of {MODES}: got {mode!r}")
    if autoreset_mode not in AUTORESETS:
        raise ValueError(f"autoreset_mode is one of {tuple(AUTORESETS)}: got {autoreset_mode!r}")
    if not autoreset and autoreset_mode == "next_step":
        raise ValueError("autoreset=False contradicts autoreset_mode='next_step'")
    make = (
        partial(gymnasium.make, fn_or_id, **kwargs)
        if isinstance(fn_or_id, str)
        else partial(fn_or_id, **kwargs)
    )
    resets = gymnasium.vector.AutoresetMode(AUTORESETS[autoreset_mode])
    copies = [make] * num_envs
    if mode == "sync":
        vec = gymnasium.vector.SyncVectorEnv(copies, autoreset_mode=resets)
    else:
        vec = gymnasium.vector.AsyncVectorEnv(copies, autoreset_mode=resets, context=context)
    return GymnasiumTensorEnv(vec, **common)


class _EnvPool:
    """What `GymnasiumTensorEnv` needs of a vector environment, over an EnvPool of the gymnasium kind."""

    metadata = {"autoreset_mode": "NextStep"}

    def __init__(self, pool: Any, num_envs: int):
        self.pool, self.num_envs = pool, num_envs
        self.single_observation_space, self.single_action_space = pool.observation_space, pool.action_space

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        mask = (options or {}).get("reset_mask")
        if mask is not None and not mask.all():
            raise NotImplementedError("EnvPool resets single copies by itself only")
        return self.pool.reset()

    def step(self, action: Any) -> Any:
        return self.pool.step(action)

    def render(self) -> None:
        return None

    def close(self) -> None:
        self.pool.close()


def from_envpool(
    task_id: str,
    num_envs: int,
    *,
    seed: int = 0,
    info_keys: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
    **kwargs: Any,
) -> GymnasiumTensorEnv:
    """N copies of an EnvPool task. EnvPool resets at the next step: mind `info["valid"]`.

    Args:
        task_id: EnvPool's name, e.g. "MontezumaRevenge-v5".
        num_envs: N.
        seed: EnvPool takes its seed when it is made; a seed given to `reset` later changes nothing.
        info_keys: the numeric entries of `info` to pass on; None: all.
        device: where the tensors are served.
        kwargs: for `envpool.make`.

    Raises:
        MissingExtra: EnvPool is not installed.
    """
    try:
        envpool = import_module("envpool")
    except ImportError as error:
        raise MissingExtra(
            "this needs the package 'envpool', which is not installed: pip install envpool "
            '(or take from_gymnasium(..., mode="async"), which needs no more than Gymnasium)'
        ) from error
    pool = envpool.make(task_id, env_type="gymnasium", num_envs=num_envs, seed=seed, **kwargs)
    return GymnasiumTensorEnv(_EnvPool(pool, num_envs), info_keys=info_keys, device=device)


# PettingZoo -> tensors.


class PettingZooTensorEnv(TensorMultiEnv):
    """Copies of a PettingZoo parallel environment, stepped one after another; see `from_pettingzoo`."""

    def __init__(
        self,
        make: Callable[[], Any],
        num_envs: int,
        *,
        generator: Generators | None = None,
        device: str | torch.device = "cpu",
        autoreset: bool = True,
        validate: bool = True,
    ):
        super().__init__(num_envs, generator=generator, device=device, autoreset=autoreset, validate=validate)
        spaces = require("gymnasium.spaces", "rl")
        self.copies = [make() for _ in range(num_envs)]
        first = self.copies[0]
        self.agents = tuple(first.possible_agents)
        self._observed = [first.observation_space(agent) for agent in self.agents]
        self._acted = [first.action_space(agent) for agent in self.agents]
        if any(space != self._observed[0] for space in self._observed) or any(
            space != self._acted[0] for space in self._acted
        ):
            raise ValueError(
                "agents with different spaces do not stack: pad them first "
                "(supersuit.pad_observations_v0 and pad_action_space_v0)"
            )
        if not isinstance(self._observed[0], (spaces.Box, spaces.Discrete)):
            raise TypeError(f"observations must be arrays: got {self._observed[0]}")
        self.num_actions = int(self._acted[0].n) if isinstance(self._acted[0], spaces.Discrete) else None
        self.obs_shape = (len(self.agents), *self._observed[0].shape)
        self._seeded = False
        self._obs: Tensor | None = None

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return _served_space(self._observed[0], spaces), self._acted[0]

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        raise NotImplementedError("the copies step as a whole: call step")

    def _row_seeds(self) -> list[int]:
        return (self.integers(2**15) * 2**16 + self.integers(2**16)).tolist()

    def _begin(
        self, rows: Sequence[int], seeds: Sequence[int | None], options: dict[str, Any] | None
    ) -> None:
        fresh = torch.stack(
            [
                self._stack(self.copies[i].reset(seed=s, options=options)[0])
                for i, s in zip(rows, seeds, strict=True)
            ]
        )
        if self._obs is None:
            self._obs = fresh
        else:
            self._obs = self._obs.index_copy(0, torch.as_tensor(list(rows), device=self.device), fresh)

    def _reset_rows(self, mask: Tensor) -> None:
        rows = mask.nonzero().flatten().tolist()
        self._begin(rows, [None] * len(rows), None)

    def _stack(self, obs: dict[str, Any]) -> Tensor:
        """[A, ...]; an agent that is gone sees zeros."""
        gone = torch.zeros(self._observed[0].shape)
        rows = [torch.as_tensor(obs[agent]) if agent in obs else gone for agent in self.agents]
        kind = next((row.dtype for row in rows if row is not gone), gone.dtype)
        return _tensor(torch.stack([row.to(kind) for row in rows]), self.device)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Tensor]]:
        """Begin a new episode in every copy; copy i is seeded by `seed + i`."""
        seeds: list[Any] = [None] * self.num_envs
        if seed is not None:
            self.seed(seed)
        if seed is not None and len(self.generators) == 1:
            seeds = [seed + i for i in range(self.num_envs)]
        elif seed is not None or not self._seeded:
            seeds = self._row_seeds()
        self._seeded = True
        self._obs = None
        self._begin(range(self.num_envs), seeds, options)
        self.elapsed = torch.zeros_like(self.elapsed)
        self._ended = torch.zeros_like(self._ended)
        return self.observe(), {}

    def observe(self) -> Obs:
        """The latest observation [N, A, ...]."""
        if self._obs is None:
            raise RuntimeError("call reset first")
        return self._obs

    def step(self, action: Tensor) -> Step:
        """Advance every copy: reward [N, A]; `info["alive"]` [N, A] tells which agents still act."""
        if self.validate:
            self._check(action)
        if not self.autoreset and bool(self._ended.any()):
            raise ValueError("some copies ended: call reset_where for them before stepping on")
        moves = action.detach().cpu().numpy()
        obs, rewards, alive, terminated, truncated = [], [], [], [], []
        for world, move in zip(self.copies, moves, strict=True):
            acting = [i for i, agent in enumerate(self.agents) if agent in world.agents]
            seen, reward, ends, stops, _ = world.step({self.agents[i]: move[i] for i in acting})
            obs.append(self._stack(seen))
            rewards.append([float(reward.get(agent, 0.0)) for agent in self.agents])
            alive.append([agent in world.agents for agent in self.agents])
            over = not world.agents or all(ends.get(a, False) or stops.get(a, False) for a in self.agents)
            terminated.append(over and any(ends.values()))
            truncated.append(over and not any(ends.values()))
        device = self.device
        final_obs = self._obs = torch.stack(obs)
        ended_flag = torch.tensor(terminated, dtype=torch.bool, device=device)
        timed_out = torch.tensor(truncated, dtype=torch.bool, device=device)
        ended = ended_flag | timed_out
        self.elapsed = self.elapsed + 1
        if not self.autoreset:
            self._ended = ended
        elif bool(ended.any()):
            self._reset_masked(ended)
        info = {"alive": torch.tensor(alive, dtype=torch.bool, device=device)}
        reward_tensor = torch.tensor(rewards, dtype=torch.float32, device=device)
        return Step(self.observe(), reward_tensor, ended_flag, timed_out, final_obs, info)

    def state_dict(self) -> dict[str, Any]:
        """Not possible: a simulator's state stays in the simulator."""
        raise NotImplementedError("an environment of another library has no snapshot")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Not possible, see `state_dict`."""
        raise NotImplementedError("an environment of another library has no snapshot")

    def close(self) -> None:
        """End every copy."""
        for world in self.copies:
            world.close()


def from_pettingzoo(
    parallel_env_fn: Callable[[], Any], num_envs: int, *, device: str | torch.device = "cpu", **kwargs: Any
) -> PettingZooTensorEnv:
    """N copies of a PettingZoo parallel environment whose agents share their spaces.

    An episode ends when the last agent is done; before that an agent that is gone sees zeros, earns nothing, and is
    False in `info["alive"]`.

    Args:
        parallel_env_fn: makes one environment.
        num_envs: N (stepped one after another).
        device: where the tensors are served.
        kwargs: `generator`, `autoreset`, `validate` of `TensorEnv`.

    Raises:
        ValueError: the agents' spaces differ.
    """
    require("pettingzoo", "rl")
    return PettingZooTensorEnv(parallel_env_fn, num_envs, device=device, **kwargs)


def from_mpe2(
    scenario: str,
    num_envs: int,
    *,
    generator: Generators | None = None,
    device: str | torch.device = "cpu",
    autoreset: bool = True,
    validate: bool = True,
    **options: Any,
) -> PettingZooTensorEnv:
    """N copies of a multi-agent particle world of the package `mpe2`, whose agents share their spaces.

    Args:
        scenario: a module of `mpe2`, e.g. "simple_spread_v3".
        num_envs: N (stepped one after another).
        generator, device, autoreset, validate: see `from_pettingzoo`.
        **options: of the scenario, e.g. `N=3, max_cycles=25, continuous_actions=True`.

    Raises:
        MissingExtra: mpe2 is not installed.
        ValueError: there is no such scenario, or its agents' spaces differ (speaker and listener).

    Example:
        >>> from_mpe2("simple_spread_v3", 2, N=3).agents
        ('agent_0', 'agent_1', 'agent_2')
    """
    package = require("mpe2", "mpe2")
    known = sorted(m.name for m in iter_modules(package.__path__) if re.fullmatch(r"\w+_v\d+", m.name))
    if scenario not in known:
        raise ValueError(f"unknown scenario {scenario!r}: choose from {', '.join(known)}")
    make = partial(import_module(f"mpe2.{scenario}").parallel_env, **options)
    return from_pettingzoo(
        make, num_envs, device=device, generator=generator, autoreset=autoreset, validate=validate
    )


class _MeltingPotCopy:
    """A Melting Pot substrate, a `dm_env` with a list of players, in the form of PettingZoo's parallel environments."""

    def __init__(self, substrate: Any, observation: str, max_cycles: int | None):
        spaces = require("gymnasium.spaces", "meltingpot")
        self.substrate, self.key, self.max_cycles = substrate, observation, max_cycles
        acted, observed = substrate.action_spec(), substrate.observation_spec()
        if observation not in observed[0]:
            raise ValueError(
                f"the players do not see {observation!r}: choose from {', '.join(sorted(observed[0]))}"
            )
        self.possible_agents = [f"player_{i}" for i in range(len(acted))]
        self.agents: list[str] = []
        self.cycles = 0
        self._acted = {
            agent: spaces.Discrete(int(spec.num_values))
            for agent, spec in zip(self.possible_agents, acted, strict=True)
        }
        self._observed = {
            agent: self._box(spaces, spec[observation])
            for agent, spec in zip(self.possible_agents, observed, strict=True)
        }

    @staticmethod
    def _box(spaces: Any, spec: Any) -> Any:
        if hasattr(spec, "minimum"):
            return spaces.Box(spec.minimum, spec.maximum, spec.shape, spec.dtype)
        if spec.dtype.kind == "u":
            return spaces.Box(0, 2 ** (8 * spec.dtype.itemsize) - 1, spec.shape, spec.dtype)
        return spaces.Box(-float("inf"), float("inf"), spec.shape, spec.dtype)

    def observation_space(self, agent: str) -> Any:
        return self._observed[agent]

    def action_space(self, agent: str) -> Any:
        return self._acted[agent]

    def _by_agent(self, values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self.possible_agents, values, strict=True))

    def _seen(self, timestep: Any) -> dict[str, Any]:
        return self._by_agent([seen[self.key] for seen in timestep.observation])

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        self.agents, self.cycles = list(self.possible_agents), 0
        return self._seen(self.substrate.reset()), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        told = self.substrate.step([int(actions[agent]) for agent in self.possible_agents])
        self.cycles += 1
        # dm_env: an episode whose last discount is not zero was cut off.
        terminated = bool(told.last() and not told.discount)
        over = told.last() or (self.max_cycles is not None and self.cycles >= self.max_cycles)
        if over:
            self.agents = []
        everybody = len(self.possible_agents)
        return (
            self._seen(told),
            self._by_agent([float(reward) for reward in told.reward]),
            self._by_agent([terminated] * everybody),
            self._by_agent([over and not terminated] * everybody),
            self._by_agent([{}] * everybody),
        )

    def close(self) -> None:
        self.substrate.close()


def from_meltingpot(
    substrate: str,
    num_envs: int,
    *,
    roles: Sequence[str] | None = None,
    observation: str = "RGB",
    max_cycles: int | None = None,
    generator: Generators | None = None,
    device: str | torch.device = "cpu",
    autoreset: bool = True,
    validate: bool = True,
) -> PettingZooTensorEnv:
    """N copies of a Melting Pot substrate: pictures [N, A, H, W, 3], one discrete action a player.

    Substrates draw from a source of their own that no seed reaches: runs do not repeat.

    Args:
        substrate: its name, e.g. "commons_harvest__open" or "clean_up".
        num_envs: N (stepped one after another).
        roles: of the players; None: the substrate's default ones.
        observation: which of a player's observations to serve.
        max_cycles: truncate episodes after so many steps; None: where the substrate ends them.
        generator, device, autoreset, validate: see `from_pettingzoo`.

    Raises:
        MissingExtra: Melting Pot is not installed.
        ValueError: the players do not have this observation.
    """
    built = require("meltingpot.substrate", "meltingpot")

    def make() -> _MeltingPotCopy:
        players = roles if roles is not None else built.get_config(substrate).default_player_roles
        return _MeltingPotCopy(built.build(substrate, roles=players), observation, max_cycles)

    return PettingZooTensorEnv(
        make, num_envs, device=device, generator=generator, autoreset=autoreset, validate=validate
    )
