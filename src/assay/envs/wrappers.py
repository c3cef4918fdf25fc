"""Wrappers: what changes a tensor environment from outside, at the same interface.

A wrapper's `final_obs` is what the wrapped agent would have seen at the true last step (the old frames, the old
skill), its `obs` what it sees at the first step of the next episode.

Each wrapper has its own stream of random numbers, derived from the environment's seeds and the wrapper's kind: an arm
with a noisy television and one without meet the same layouts. Several generators (blocks of rows) stay independent.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from assay.envs.base import Generators, Obs, Step, Tabular, TensorEnv, map_obs, where_rows


def _mixed(seed: int, salt: int) -> int:
    """A seed whose stream has nothing to do with that of `seed` (the finaliser of splitmix64)."""
    mask = 2**64 - 1
    x = (seed + (salt + 1) * 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return (x ^ (x >> 31)) >> 1


class Wrapper(TensorEnv):
    """A tensor environment around another one; subclasses override some of the four hooks.

    A step goes: `_act` (the action that the inner environment gets), `_advance` (what the transition changes: reward,
    info, the wrapper's state), `_see` (the observation, given the wrapper's state), and for rows that begin an
    episode `_begin` (the wrapper's state of the new episode).

    Args:
        env: what to wrap.
        generator: source of the wrapper's own draws; None: derived from the seeds of `env`.

    Attributes:
        env: the wrapped environment.
    """

    changes_world: bool = False
    """True where dynamics or rewards differ from those of `env.tabular()`."""
    hides_ends: bool = False
    """True where ends are only in `info["episode_end"]`."""

    def __init__(self, env: TensorEnv, generator: Generators | None = None):
        # TensorEnv.__init__ is left out: counters and limits are the inner environment's.
        self.env = env
        self.num_envs, self.device = env.num_envs, env.device
        self.num_actions, self.obs_shape = env.num_actions, env.obs_shape
        self.max_steps, self.metadata = env.max_steps, env.metadata
        self.autoreset, self.validate = env.autoreset, env.validate
        self.has_action_mask = env.has_action_mask
        self.hides_ends = getattr(env, "hides_ends", False)
        self._salt = zlib.crc32(type(self).__name__.encode()) + sum(
            type(e) is type(self) for e in layers(env)
        )
        if generator is None:
            self.generators = [
                torch.Generator(env.device).manual_seed(_mixed(g.initial_seed(), self._salt))
                for g in env.generators
            ]
        else:
            self.generators = [generator] if isinstance(generator, torch.Generator) else list(generator)
            if env.num_envs % len(self.generators):
                raise ValueError(f"{len(self.generators)} generators do not divide {env.num_envs} copies")
        self._drawing = [True] * len(self.generators)
        self._made_spaces = None
        kind = type(self)
        self._same_obs = kind._see is Wrapper._see and kind._begin is Wrapper._begin

    # Hooks.

    def _act(self, action: Tensor) -> Tensor:
        return action

    def _advance(self, step: Step) -> Step:
        return step

    def _see(self, obs: Obs) -> Obs:
        return obs

    def _begin(self, mask: Tensor, obs: Obs) -> None:
        """The rows of `mask` begin an episode in which the inner environment shows `obs`."""

    def _own_info(self) -> dict[str, Tensor]:
        """What a reset's info gains."""
        return {}

    # The interface.

    @property
    def elapsed(self) -> Tensor:  # type: ignore[override]
        """[N]: steps made in the running episode."""
        return self.env.elapsed

    @property
    def _ended(self) -> Tensor:  # type: ignore[override]
        return self.env._ended

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return self.env.single_observation_space, self.env.single_action_space

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        raise NotImplementedError("a wrapper steps as a whole: call step")

    def _reset_rows(self, mask: Tensor) -> None:
        raise NotImplementedError("call reset_where")

    def seed(self, seed: int) -> None:
        """Seed the environment, and from the same number the wrapper's own stream."""
        self.env.seed(seed)
        self._seed_own(seed)

    def _seed_own(self, seed: int) -> None:
        for block, generator in enumerate(self.generators):
            generator.manual_seed(_mixed(seed + block, self._salt))

    def _begin_rows(self, mask: Tensor, obs: Obs) -> None:
        if len(self.generators) > 1:
            self._drawing = mask.view(len(self.generators), -1).any(1).tolist()
        self._begin(mask, obs)
        self._drawing = [True] * len(self.generators)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Tensor]]:
        """Begin a new episode in every copy; see `TensorEnv.reset`."""
        if seed is not None:
            self._seed_own(seed)
        obs, info = self.env.reset(seed, options)
        self._begin_rows(torch.ones(self.num_envs, dtype=torch.bool, device=self.device), obs)
        return self._see(obs), {**info, **self._own_info()}

    def _reset_info(self) -> dict[str, Tensor]:
        return {**self.env._reset_info(), **self._own_info()}

    def reset_where(self, mask: Tensor) -> Obs:
        """Begin a new episode in the rows of `mask` [N]; returns the observation of all rows."""
        obs = self.env.reset_where(mask)
        if bool(mask.any()):
            self._begin_rows(mask, obs)
        return self._see(obs)

    def ends(self, step: Step) -> Tensor:
        """[N] bool: an episode of the inner environment ended, hidden or not."""
        return step.info["episode_end"] if getattr(self.env, "hides_ends", False) else step.ended

    def begins(self, step: Step) -> Tensor:
        """[N] bool: `obs` is the first observation of an episode."""
        if not self.env.autoreset:
            return torch.zeros_like(step.terminated)
        if "valid" in step.info:  # next-step autoreset: the dummy row is the first
            return ~step.info["valid"]
        return self.ends(step)

    def step(self, action: Tensor) -> Step:
        """Advance every copy; see `TensorEnv.step`."""
        inner = self.env.step(self._act(action))
        return self._after(inner)

    def _after(self, inner: Step) -> Step:
        step = self._advance(inner)
        if self._same_obs:
            return step
        final_obs = obs = self._see(step.final_obs)
        begins = self.begins(inner)
        if bool(begins.any()):
            self._begin_rows(begins, step.obs)
            obs = self._see(step.obs)
            # Where ends are hidden the first observation is the successor; a dummy row has no other.
            if getattr(self.env, "hides_ends", False) or "valid" in step.info:
                final_obs = map_obs(lambda new, old: where_rows(begins, new, old), obs, final_obs)
        return step._replace(obs=obs, final_obs=final_obs)

    def observe(self) -> Obs:
        """The observation of the present state; changes nothing."""
        return self._see(self.env.observe())

    def action_mask(self) -> Tensor:
        """[N, A] bool: legal actions now."""
        return self.env.action_mask()

    def render(self, i: int = 0) -> Tensor:
        """A picture [H, W, 3] uint8 of copy `i`, as the inner environment draws it."""
        return self.env.render(i)

    def state_dict(self) -> dict[str, Any]:
        """A full snapshot: the inner environment's under "env", and the wrapper's own."""
        own = {name: getattr(self, name) for name in self.state_names}
        return {
            "env": self.env.state_dict(),
            "generators": [g.get_state() for g in self.generators],
            **{name: None if value is None else map_obs(torch.clone, value) for name, value in own.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a snapshot of an environment wrapped in the same way."""
        expected = {"env", "generators", *self.state_names}
        if set(state) != expected:
            raise ValueError(
                f"a snapshot of {type(self).__name__} holds {sorted(expected)}: got {sorted(state)}"
            )
        self.env.load_state_dict(state["env"])
        for name in self.state_names:
            value = state[name]
            setattr(
                self, name, None if value is None else map_obs(lambda v: v.clone().to(self.device), value)
            )
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.set_state(saved)

    def to(self, device: str | torch.device) -> "Wrapper":
        """Move everything to a device, in place; see `TensorEnv.to`."""
        self.env.to(device)
        super().to(device)
        for name in self.state_names:
            value = getattr(self, name)
            if isinstance(value, dict):
                setattr(self, name, {key: part.to(device) for key, part in value.items()})
        return self

    def tabular(self) -> Tabular:
        """The inner world written out, where the wrapper leaves dynamics and rewards alone."""
        if self.changes_world:
            raise NotImplementedError(f"{type(self).__name__} changes the process that tabular() tells of")
        return self.env.tabular()

    def state_index(self) -> Tensor:
        """[N] int64: the present state's row in the inner world's `tabular()`."""
        return self.env.state_index()

    def close(self) -> None:
        """Free what the environment holds."""
        self.env.close()

    @property
    def unwrapped(self) -> TensorEnv:
        """The environment below all wrappers."""
        return self.env.unwrapped

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.env!r})"


def layers(env: TensorEnv) -> list[TensorEnv]:
    """The environment and everything inside it, outermost first."""
    found = [env]
    while isinstance(found[-1], Wrapper):
        found.append(found[-1].env)
    return found


# Parts of observations.


def _part(env: TensorEnv, key: str | None) -> tuple[int, ...]:
    """Shape of one copy's tensor that a wrapper edits: the observation, or the entry `key` of a dictionary."""
    if key is None:
        if not env.obs_shape:
            raise ValueError(
                f"{env!r} does not show one array: name the entry to change (key=...), or use OneHot"
            )
        return env.obs_shape
    obs = env.observe()
    if not isinstance(obs, dict) or key not in obs:
        raise ValueError(f"{env!r} shows no entry {key!r}")
    return tuple(obs[key].shape[1:])


def _edit(obs: Obs, key: str | None, function: Callable[[Tensor], Tensor]) -> Obs:
    if isinstance(obs, dict):
        assert key is not None
        return {**obs, key: function(obs[key])}
    return function(obs)


def _edit_space(space: Any, key: str | None, function: Callable[[Any], Any], spaces: Any) -> Any:
    if key is None:
        return function(space)
    return spaces.Dict({**space.spaces, key: function(space.spaces[key])})


def _grown(box: Any, count: int, top: float, spaces: Any) -> Any:
    """A Box with `count` more entries (or planes) in 0..top."""
    import numpy as np

    more = np.zeros((count, *box.shape[1:]), dtype=box.dtype)
    low, high = np.concatenate((box.low, more)), np.concatenate((box.high, more + np.asarray(top, box.dtype)))
    return spaces.Box(low, high, dtype=box.dtype.type)


def _brightest(dtype: Any) -> int:
    """What stands for one: 255 in bytes, else 1."""
    return 255 if str(dtype).removeprefix("torch.") == "uint8" else 1


def _append(obs: Tensor, rows: Tensor) -> Tensor:
    """Append [N, K] to [N, D]; to pictures [N, C, H, W] as K constant planes."""
    rows = rows.to(obs.dtype) * _brightest(obs.dtype)
    if obs.ndim == 4:
        rows = rows[:, :, None, None].expand(-1, -1, *obs.shape[2:])
    return torch.cat((obs, rows), 1)


# Time.


class TimeLimit(Wrapper):
    """Truncates an episode after `max_steps` steps, counted here.

    Args:
        env: what to wrap.
        max_steps: at least 1.
    """

    state_names = ("count",)

    def __init__(self, env: TensorEnv, max_steps: int):
        super().__init__(env)
        if max_steps < 1:
            raise ValueError(f"max_steps is at least 1: got {max_steps}")
        self.limit = max_steps
        self.max_steps = max_steps if env.max_steps is None else min(max_steps, env.max_steps)
        self.count = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)

    @property
    def elapsed(self) -> Tensor:  # type: ignore[override]
        """[N]: steps made in the running episode."""
        return self.count

    def _begin(self, mask: Tensor, obs: Obs) -> None:
        self.count = self.count.masked_fill(mask, 0)

    def step(self, action: Tensor) -> Step:
        """Advance every copy; rows whose time is over begin anew."""
        inner = self.env.step(action)
        self.count = (self.count + 1).masked_fill(self.begins(inner), 0)
        over = (self.count >= self.limit) & ~inner.ended
        if not bool(over.any()):
            return inner
        obs, info = inner.obs, inner.info
        if self.env.autoreset:
            obs = self.env.reset_where(over)
            self.count = self.count.masked_fill(over, 0)
            if self.has_action_mask:
                info = {**info, "action_mask": self.env.action_mask()}
        else:
            self.unwrapped._ended = self.unwrapped._ended | over
        return inner._replace(obs=obs, truncated=inner.truncated | over, info=info)


class NoDone(Wrapper):
    """One endless stream: dying is a transition to the first observation of the next episode.

    `terminated` and `truncated` are always False and `final_obs` is `obs`; the truth stands in `info` as
    `episode_end`, `terminated` and `truncated`. Wrappers that look at episodes (frames, skills, statistics) work on
    either side of this one.

    Source: Burda et al. 2018, "Large-scale study of curiosity-driven learning", section 2.2 ("death is not the end").
    """

    def __init__(self, env: TensorEnv):
        super().__init__(env)
        if not env.autoreset:
            raise ValueError("an endless stream needs an environment that resets by itself (autoreset=True)")
        self.hides_ends = True
        self.max_steps = None

    def _after(self, inner: Step) -> Step:
        never = torch.zeros_like(inner.terminated)
        truth = {
            "episode_end": self.ends(inner),
            "terminated": inner.terminated,
            "truncated": inner.truncated,
        }
        return inner._replace(
            terminated=never, truncated=never.clone(), final_obs=inner.obs, info={**truth, **inner.info}
        )


# Actions.


class StickyActions(Wrapper):
    """With probability `p` the previous action is repeated instead of the one given (not across episodes).

    `info["executed_action"]` tells what was done.

    Source: Machado et al. 2018, "Revisiting the Arcade Learning Environment", section 5.2.

    Args:
        env: what to wrap.
        p: probability, 0 to 1.
        generator: see `Wrapper`.
    """

    changes_world = True
    state_names = ("last", "running")

    def __init__(self, env: TensorEnv, p: float = 0.25, generator: Generators | None = None):
        super().__init__(env, generator)
        if not 0 <= p <= 1:
            raise ValueError(f"p is a probability: got {p}")
        self.p = p
        self.last: Tensor | None = None
        self.running = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
        """[N]: an action was done in this episode."""

    def _begin(self, mask: Tensor, obs: Obs) -> None:
        self.running = self.running & ~mask

    def _act(self, action: Tensor) -> Tensor:
        if self.validate:
            self._check(action)
        sticks = (self.uniform() < self.p) & self.running
        self.last = action.clone() if self.last is None else where_rows(sticks, self.last, action)
        return self.last

    def _advance(self, step: Step) -> Step:
        assert self.last is not None
        self.running = torch.ones_like(self.running)
        return step._replace(info={**step.info, "executed_action": self.last})


def _world(env: TensorEnv, who: str) -> tuple[str, ...]:
    """Names of the state tensors of a plain world, whose single rows can be kept from moving."""
    if type(env).step is not TensorEnv.step or not env.state_names:
        raise ValueError(f"{who} goes directly around a tensor world, below other wrappers: got {env!r}")
    return ("elapsed", "_ended", *env.state_names)


def _put_back(env: TensorEnv, saved: dict[str, Tensor], rows: Tensor) -> None:
    """Undo what happened since `saved` in `rows`. (Worlds replace their state tensors and never edit them.)"""
    for name, value in saved.items():
        setattr(env, name, where_rows(rows, value, getattr(env, name)))


def _reset_ended(env: TensorEnv, step: Step) -> Step:
    """What a step made without autoreset becomes in an environment that resets by itself."""
    obs, info = step.final_obs, step.info
    if env.autoreset and bool(step.ended.any()):
        obs = env.reset_where(step.ended)
    if env.has_action_mask:
        info = {**info, "action_mask": env.action_mask()}
    return step._replace(obs=obs, info=info)


class RepeatAction(Wrapper):
    """Each action is done `k` times, or until the episode ends; rewards add up.

    `info` is that of the last repetition, and `info["macro_len"]` [N] says how many there were; `elapsed` and
    `max_steps` count the world's own steps.

    Args:
        env: a tensor world, not wrapped.
        k: repetitions, at least 1.
        gamma: the reward of repetition i (from 0) counts gamma^i.
        generator: see `Wrapper`.
    """

    changes_world = True

    def __init__(self, env: TensorEnv, k: int, gamma: float = 1.0, generator: Generators | None = None):
        super().__init__(env, generator)
        if k < 1:
            raise ValueError(f"k is at least 1: got {k}")
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma is in (0, 1]: got {gamma}")
        self.k, self.gamma = k, gamma
        self._names = _world(env, "RepeatAction")

    def _inner(self, action: Tensor, obs: Obs) -> Tensor:
        """The world's action in a repetition, given what the world shows."""
        return action

    def _idle_blocks(self, over: Tensor) -> dict[int, Tensor]:
        """States of the generators whose rows have all ended: what others still do must not use them up."""
        generators = self.env.generators
        if len(generators) == 1:
            return {}
        done = over.view(len(generators), -1).all(1).tolist()
        return {block: g.get_state() for block, g in enumerate(generators) if done[block]}

    def step(self, action: Tensor) -> Step:
        """Advance every copy by up to `k` steps of its world."""
        world, resets = self.env, self.env.autoreset
        world.autoreset = False
        try:
            total = self._repeated(action)
        finally:
            world.autoreset = resets
        return _reset_ended(world, total)

    def _repeated(self, action: Tensor) -> Step:
        total = self.env.step(self._inner(action, self.env.observe()))
        length = torch.ones_like(self.env.elapsed)
        for repetition in range(1, self.k):
            over = total.ended
            if bool(over.all()):
                break
            saved = {name: getattr(self.env, name) for name in self._names}
            # Rows that wait for a reset would refuse to step; they are put back.
            self.env._ended = torch.zeros_like(over)
            idle = self._idle_blocks(over)
            more = self.env.step(self._inner(action, total.final_obs))
            length = length + ~over
            for block, state in idle.items():
                self.env.generators[block].set_state(state)
            _put_back(self.env, saved, over)

            def merged(old: Tensor, new: Tensor, over: Tensor = over) -> Tensor:
                return where_rows(over, old, new)

            final_obs = map_obs(merged, total.final_obs, more.final_obs)
            total = Step(
                final_obs,
                total.reward + self.gamma**repetition * more.reward.masked_fill(over, 0.0),
                merged(total.terminated, more.terminated),
                merged(total.truncated, more.truncated),
                final_obs,
                {key: merged(total.info[key], value) for key, value in more.info.items()},
            )
        return total._replace(info={**total.info, "macro_len": length})


class NoisyTV(Wrapper):
    """A television in the world: a picture that has nothing to do with it, and often a button that changes it.

    A curious agent that is rewarded for what it cannot predict presses the button for ever.

    Kinds:

    - `"image_action"`: the added action draws one of `pictures` fixed pictures;
    - `"noise_action"`: the added action draws new random bits;
    - `"noise"`: new random bits at every step, no action added.

    The picture is appended to flat observations as `bits` numbers 0 or 1, and painted as noise over the lower right
    corner, `patch` x `patch`, of pictures [C, H, W]. `info["tv"]` [N] bool tells where the button was pressed.

    Pressing the button is a step in which the world does its action `noop`. Without one, the world stands still
    and time goes on; `info` then repeats what the last step told (at the first step of an episode: what a move 0
    would have told).

    Source: Burda et al. 2018, "Large-scale study of curiosity-driven learning", section 5; Savinov et al. 2019,
    "Episodic curiosity through reachability", supplement ("image action", "noise", "noise action").

    Args:
        env: what to wrap; where the world must stand still, directly a tensor world.
        kind: see above.
        bits: width of the picture in flat observations.
        pictures: how many there are ("image_action").
        patch: side of the painted square.
        noop: action of the world that does nothing; None: its `noop_action` if it has one, else it stands still.
        key: the entry to change, where observations are dictionaries.
        generator: see `Wrapper`.

    Example:
        >>> from assay.envs import NoisyTV, make
        >>> world = make("RoomsGrid", 2)
        >>> env = NoisyTV(world, "noise_action", bits=16)
        >>> world.num_actions, env.num_actions, env.obs_shape[0] - world.obs_shape[0]
        (4, 5, 16)
    """

    changes_world = True
    state_names = ("screen", "pictures", "_last_info")

    def __init__(
        self,
        env: TensorEnv,
        kind: Literal["image_action", "noise", "noise_action"] = "image_action",
        *,
        bits: int = 16,
        pictures: int = 10,
        patch: int = 3,
        noop: int | None = None,
        key: str | None = None,
        generator: Generators | None = None,
    ):
        super().__init__(env, generator)
        if kind not in ("image_action", "noise", "noise_action"):
            raise ValueError(f"kind is image_action, noise or noise_action: got {kind!r}")
        if min(bits, pictures, patch) < 1:
            raise ValueError(f"bits, pictures and patch are at least 1: got {bits}, {pictures}, {patch}")
        self.kind, self.bits, self.patch, self.key = kind, bits, patch, key
        shape = _part(env, key)
        if len(shape) == 1:
            self._picture_shape: tuple[int, ...] = (bits,)
            if key is None:
                self.obs_shape = (shape[0] + bits,)
        elif len(shape) == 3 and patch <= min(shape[1:]):
            self._picture_shape = (shape[0], patch, patch)
        else:
            raise ValueError(
                f"observations are flat, or pictures [C, H, W] larger than the patch: got {shape}"
            )
        self.has_button = kind != "noise"
        self.noop = noop if noop is not None else getattr(env.unwrapped, "noop_action", None)
        self._names: tuple[str, ...] = ()
        if self.has_button:
            if env.num_actions is None:
                raise TypeError("a button needs discrete actions")
            self.num_actions = env.num_actions + 1
            if self.noop is None:
                self._names = _world(env, "NoisyTV without a noop action")
        self._count = pictures
        self.pictures: Tensor | None = None
        """[blocks, pictures, ...]: each block of rows has its own."""
        self._draw_pictures()
        self.screen = torch.zeros(env.num_envs, *self._picture_shape, device=env.device)
        self._pressed = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
        self._last_info: dict[str, Tensor] | None = None

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        observed, acted = self.env.single_observation_space, self.env.single_action_space
        if len(self._picture_shape) == 1:
            observed = _edit_space(
                observed, self.key, lambda box: _grown(box, self.bits, _brightest(box.dtype), spaces), spaces
            )
        return observed, spaces.Discrete(self.num_actions) if self.has_button else acted

    def _draw_pictures(self) -> None:
        if self.kind == "image_action":
            drawn = [
                torch.rand((self._count, *self._picture_shape), generator=g, device=self.device)
                for g in self.generators
            ]
            self.pictures = self._as_picture(torch.stack(drawn))

    def _as_picture(self, noise: Tensor) -> Tensor:
        return (noise < 0.5).float() if len(self._picture_shape) == 1 else noise

    def _seed_own(self, seed: int) -> None:
        super()._seed_own(seed)
        self._draw_pictures()

    def _fresh(self) -> Tensor:
        """[N, ...]: another picture for every copy."""
        if self.pictures is None:
            return self._as_picture(self.uniform(*self._picture_shape))
        block = torch.arange(self.num_envs, device=self.device) // (self.num_envs // len(self.generators))
        return self.pictures[block, self.integers(self._count)]

    def _begin(self, mask: Tensor, obs: Obs) -> None:
        self.screen = where_rows(mask, self._fresh(), self.screen)

    def _show(self, obs: Tensor) -> Tensor:
        if obs.ndim == 2:
            return _append(obs, self.screen)
        painted = obs.clone()
        painted[:, :, -self.patch :, -self.patch :] = (self.screen * _brightest(obs.dtype)).to(obs.dtype)
        return painted

    def _see(self, obs: Obs) -> Obs:
        return _edit(obs, self.key, self._show)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Tensor]]:
        """Begin a new episode in every copy; see `TensorEnv.reset`."""
        self._last_info = None
        return super().reset(seed, options)

    def step(self, action: Tensor) -> Step:
        """Advance every copy, by its world's action or by the button."""
        if not self.has_button:
            return self._after(self.env.step(action))
        if self.validate:
            self._check(action)
        self._pressed = pressed = action == self.num_actions - 1  # type: ignore[operator]
        inner_action = action.masked_fill(pressed, self.noop or 0)
        if self.noop is None and bool(pressed.any()):
            return self._after(self._stand_still(inner_action, pressed))
        inner = self.env.step(inner_action)
        self._last_info = inner.info
        return self._after(inner)

    def _stand_still(self, action: Tensor, rows: Tensor) -> Step:
        """Step the world, but not in `rows`: there only time passes."""
        env, resets = self.env, self.env.autoreset
        saved = {name: getattr(env, name) for name in self._names}
        before = env.observe()
        env.autoreset = False
        try:
            step = env.step(action)
        finally:
            env.autoreset = resets
        elapsed = saved["elapsed"] + 1
        timed_out = torch.zeros_like(rows) if env.max_steps is None else rows & (elapsed >= env.max_steps)
        _put_back(env, {**saved, "elapsed": elapsed, "_ended": timed_out}, rows)
        info = step.info
        if self._last_info is not None:
            still, last = rows & (elapsed > 1), self._last_info
            info = {key: where_rows(still, last[key], v) if key in last else v for key, v in info.items()}
        self._last_info = info
        final_obs = map_obs(lambda old, new: where_rows(rows, old, new), before, step.final_obs)
        return _reset_ended(
            env,
            Step(
                final_obs,
                step.reward.masked_fill(rows, 0.0),
                step.terminated & ~rows,
                (step.truncated & ~rows) | timed_out,
                final_obs,
                info,
            ),
        )

    def _advance(self, step: Step) -> Step:
        fresh = self._fresh()
        self.screen = where_rows(self._pressed, fresh, self.screen) if self.has_button else fresh
        info = {**step.info, "tv": self._pressed}
        if self.has_action_mask:
            info["action_mask"] = self._with_button(step.info["action_mask"])
        return step._replace(info=info)

    def _with_button(self, mask: Tensor) -> Tensor:
        return F.pad(mask, (0, 1), value=True) if self.has_button else mask

    def action_mask(self) -> Tensor:
        """[N, A] bool: legal actions now; the button always is."""
        return self._with_button(self.env.action_mask())

    def _own_info(self) -> dict[str, Tensor]:
        return {"action_mask": self.action_mask()} if self.has_action_mask else {}


# Rewards. The undiscounted return of the world stays readable in info["raw_reward"].


class _Reward(Wrapper):
    """Changes rewards; `info["raw_reward"]` keeps the world's own."""

    changes_world = True

    def _pay(self, step: Step) -> Tensor:
        raise NotImplementedError

    def _advance(self, step: Step) -> Step:
        return step._replace(reward=self._pay(step), info={"raw_reward": step.reward, **step.info})


class RewardScale(_Reward):
    """Multiplies rewards by `scale`."""

    def __init__(self, env: TensorEnv, scale: float):
        super().__init__(env)
        self.scale = scale

    def _pay(self, step: Step) -> Tensor:
        return step.reward * self.scale


class RewardClip(_Reward):
    """Clips rewards to `low`..`high`."""

    def __init__(self, env: TensorEnv, low: float = -1.0, high: float = 1.0):
        super().__init__(env)
        if low > high:
            raise ValueError(f"low is at most high: got {low}, {high}")
        self.low, self.high = low, high

    def _pay(self, step: Step) -> Tensor:
        return step.reward.clamp(self.low, self.high)


class RewardDelay(_Reward):
    """Pays each reward `delay` steps late; what is due at the end of an episode is paid then."""

    state_names = ("due",)

    def __init__(self, env: TensorEnv, delay: int):
        super().__init__(env)
        if delay < 1:
            raise ValueError(f"delay is at least 1 step: got {delay}")
        self.due = torch.zeros(env.num_envs, delay, device=env.device)
        """[N, delay]: rewards earned, the next to be paid first."""

    def _begin(self, mask: Tensor, obs: Obs) -> None:
        self.due = self.due.masked_fill(mask[:, None], 0.0)

    def _pay(self, step: Step) -> Tensor:
        queue = torch.cat((self.due, step.reward[:, None]), 1)
        self.due = queue[:, 1:]
        return torch.where(self.ends(step), queue.sum(1), queue[:, 0])


class SparseReward(_Reward):
    """Pays the sum of the rewards every `every` steps, and what remains at the end of an episode."""

    state_names = ("owed", "since")

    def __init__(self, env: TensorEnv, every: int):
        super().__init__(env)
        if every < 1:
            raise ValueError(f"every is at least 1 step: got {every}")
        self.every = every
        self.owed = torch.zeros(env.num_envs, device=env.device)
        self.since = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)

    def _begin(self, mask: Tensor, obs: Obs) -> None:
        self.owed = self.owed.masked_fill(mask, 0.0)
        self.since = self.since.masked_fill(mask, 0)

    def _pay(self, step: Step) -> Tensor:
        owed, since = self.owed + step.reward, self.since + 1
        pays = (since >= self.every) | self.ends(step)
        self.owed, self.since = owed.masked_fill(pays, 0.0), since.masked_fill(pays, 0)
        return owed.masked_fill(~pays, 0.0)


# Observations.


class FrameStack(Wrapper):
    """Shows the last `k` observations, oldest first; an episode begins with `k` times its first one.

    They are joined along the first axis of an observation: [D] becomes [k D], a picture [C, H, W] becomes [k C, H, W].
    A picture without channels [H, W] becomes [k, H, W].

    Args:
        env: what to wrap; of dictionaries every entry is stacked.
        k: frames, at least 1.
    """

    state_names = ("frames",)

    def __init__(self, env: TensorEnv, k: int):
        super().__init__(env)
        if k < 1:
            raise ValueError(f"k is at least 1: got {k}")
        self.k = k
        self.frames: Obs | None = None
        """[N, k, ...]: the last observations."""
        if len(env.obs_shape) == 2:
            self.obs_shape = (k, *env.obs_shape)
        elif env.obs_shape:
            self.obs_shape = (k * env.obs_shape[0], *env.obs_shape[1:])

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        import numpy as np

        def stacked(box: Any) -> Any:
            if not isinstance(box, spaces.Box):
                raise TypeError(f"only boxes are stacked: got {box}")
            join = np.stack if len(box.shape) == 2 else np.concatenate
            return spaces.Box(join([box.low] * self.k), join([box.high] * self.k), dtype=box.dtype.type)

        space = self.env.single_observation_space
        if isinstance(space, spaces.Dict):
            space = spaces.Dict({key: stacked(part) for key, part in space.spaces.items()})
        else:
            space = stacked(space)
        return space, self.env.single_action_space

    def _begin(self, mask: Tensor, obs: Obs) -> None:
        filled = map_obs(lambda o: o.unsqueeze(1).expand(-1, self.k, *o.shape[1:]).clone(), obs)
        if self.frames is None:
            self.frames = filled
        else:
            self.frames = map_obs(lambda new, old: where_rows(mask, new, old), filled, self.frames)

    def _advance(self, step: Step) -> Step:
        if self.frames is None:
            raise RuntimeError("call reset first")
        self.frames = map_obs(
            lambda old, new: torch.cat((old[:, 1:], new.unsqueeze(1)), 1), self.frames, step.final_obs
        )
        return step

    def _see(self, obs: Obs) -> Obs:
        if self.frames is None:
            raise RuntimeError("call reset first")
        return map_obs(lambda f: f.clone() if f.ndim in (2, 4) else f.flatten(1, 2).clone(), self.frames)


class AppendSkill(Wrapper):
    """Tells the policy which of `num_skills` skills to follow: a one-hot code appended to the observation.

    The skill is drawn uniformly when an episode begins and stays until it ends. `info["skill"]` [N] int64 is the
    skill of the transition; `final_obs` still shows it where an episode ended. Dictionaries gain an entry "skill",
    pictures one plane a skill.

    Source: Eysenbach et al. 2019, "Diversity is all you need", algorithm 1.

    Args:
        env: what to wrap.
        num_skills: K, at least 1.
        generator: see `Wrapper`.
    """

    state_names = ("skill",)

    def __init__(self, env: TensorEnv, num_skills: int, generator: Generators | None = None):
        super().__init__(env, generator)
        if num_skills < 1:
            raise ValueError(f"num_skills is at least 1: got {num_skills}")
        self.num_skills = num_skills
        self.skill = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
        self._fixed: Tensor | None = None
        self._prior: Tensor | None = None
        if env.obs_shape:
            self.obs_shape = (env.obs_shape[0] + num_skills, *env.obs_shape[1:])

    def fix(self, skill: Tensor | None) -> None:
        """Follow `skill` [N] int64 from each copy's next episode on, instead of drawing; None: draw again."""
        if skill is not None:
            if skill.shape != (self.num_envs,) or bool(((skill < 0) | (skill >= self.num_skills)).any()):
                raise ValueError(f"give each of {self.num_envs} copies a skill 0..{self.num_skills - 1}")
            skill = skill.to(self.device, torch.int64)
        self._fixed = skill

    def set_prior(self, probs: Tensor | None) -> None:
        """Draw skills with these probabilities [K] from the next episodes on; None: uniformly."""
        if probs is not None and (probs.shape != (self.num_skills,) or bool((probs < 0).any())):
            raise ValueError(f"give {self.num_skills} probabilities: got {probs}")
        self._prior = probs

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return _appended_space(self.env, "skill", self.num_skills, spaces), self.env.single_action_space

    def _begin(self, mask: Tensor, obs: Obs) -> None:
        if self._fixed is not None:
            new = self._fixed
        elif self._prior is None:
            new = self.integers(self.num_skills)
        else:
            edges = self._prior.cumsum(0) / self._prior.sum()
            new = torch.searchsorted(edges, self.uniform()).clamp(max=self.num_skills - 1)
        self.skill = torch.where(mask, new, self.skill)

    def _see(self, obs: Obs) -> Obs:
        return _appended(obs, "skill", self.skill, self.num_skills)

    def _advance(self, step: Step) -> Step:
        return step._replace(info={**step.info, "skill": self.skill})

    def _own_info(self) -> dict[str, Tensor]:
        return {"skill": self.skill}


def _appended(obs: Obs, name: str, index: Tensor, count: int) -> Obs:
    code = F.one_hot(index, count).float()
    return {**obs, name: code} if isinstance(obs, dict) else _append(obs, code)


def _appended_space(env: TensorEnv, name: str, count: int, spaces: Any) -> Any:
    space = env.single_observation_space
    if isinstance(space, spaces.Dict):
        return spaces.Dict({**space.spaces, name: spaces.Box(0.0, 1.0, (count,))})
    return _grown(space, count, _brightest(space.dtype), spaces)


class AppendTaskId(Wrapper):
    """Appends the one-hot number of each copy's task to the observation (dictionaries gain an entry "task").

    Args:
        env: what to wrap.
        num_tasks: number of tasks.
        task: [N] int64; None: the world's own `task` (as of `MultiTask`).
    """

    def __init__(self, env: TensorEnv, num_tasks: int, task: Tensor | None = None):
        super().__init__(env)
        self.num_tasks = num_tasks
        given = getattr(env.unwrapped, "task", None) if task is None else task
        if not isinstance(given, Tensor) or given.shape != (env.num_envs,):
            raise ValueError(f"{env.unwrapped!r} does not tell its tasks: give task, [{env.num_envs}] int64")
        if bool(((given < 0) | (given >= num_tasks)).any()):
            raise ValueError(f"tasks are 0..{num_tasks - 1}: got {given.unique().tolist()}")
        self.task = given.to(env.device, torch.int64)
        if env.obs_shape:
            self.obs_shape = (env.obs_shape[0] + num_tasks, *env.obs_shape[1:])

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return _appended_space(self.env, "task", self.num_tasks, spaces), self.env.single_action_space

    def _see(self, obs: Obs) -> Obs:
        return _appended(obs, "task", self.task, self.num_tasks)


class OneHot(Wrapper):
    """Whole-number observations [N] or [N, k] as joined one-hot codes [N, sum of sizes], float32.

    Args:
        env: what to wrap.
        sizes: number of values of each entry; None: as the observation space says.
    """

    def __init__(self, env: TensorEnv, sizes: int | Sequence[int] | None = None):
        super().__init__(env)
        if sizes is None:
            space = env.single_observation_space
            counts = getattr(space, "nvec", getattr(space, "n", None))
            if counts is None:
                raise ValueError(f"the space {space} does not tell how many values there are: give sizes")
            sizes = counts.tolist() if hasattr(counts, "tolist") else int(counts)
        self.sizes = (sizes,) if isinstance(sizes, int) else tuple(int(size) for size in sizes)  # type: ignore[arg-type]
        self.obs_shape = (sum(self.sizes),)
        self._offset = torch.tensor([sum(self.sizes[:i]) for i in range(len(self.sizes))], device=env.device)

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return spaces.Box(0.0, 1.0, self.obs_shape), self.env.single_action_space

    def _see(self, obs: Obs) -> Obs:
        if isinstance(obs, dict) or obs.is_floating_point():
            raise TypeError("OneHot takes one tensor of whole numbers")
        columns = obs.long().view(self.num_envs, len(self.sizes)) + self._offset
        code = torch.zeros(self.num_envs, sum(self.sizes), device=self.device)
        return code.scatter_(1, columns, 1.0)


class TileMask(Wrapper):
    """Hides cells of the observation at random: they show 0.

    Of pictures [C, H, W] a cell is hidden in all channels at once; of flat observations single entries are.

    Args:
        env: what to wrap.
        p: probability that a cell is hidden.
        every: draw a new mask every "episode" or every "step".
        key: the entry to hide, where observations are dictionaries.
        generator: see `Wrapper`.
    """

    state_names = ("visible",)

    def __init__(
        self,
        env: TensorEnv,
        p: float,
        every: Literal["episode", "step"] = "episode",
        *,
        key: str | None = None,
        generator: Generators | None = None,
    ):
        super().__init__(env, generator)
        if not 0 <= p <= 1:
            raise ValueError(f"p is a probability: got {p}")
        if every not in ("episode", "step"):
            raise ValueError(f"every is episode or step: got {every!r}")
        self.p, self.every, self.key = p, every, key
        shape = _part(env, key)
        self._cells = (1, *shape[1:]) if len(shape) == 3 else shape
        self.visible = torch.ones(env.num_envs, *self._cells, dtype=torch.bool, device=env.device)

    def _draw_mask(self) -> Tensor:
        return self.uniform(*self._cells) >= self.p

    def _begin(self, mask: Tensor, obs: Obs) -> None:
        self.visible = where_rows(mask, self._draw_mask(), self.visible)

    def _advance(self, step: Step) -> Step:
        if self.every == "step":
            self.visible = self._draw_mask()
        return step

    def _see(self, obs: Obs) -> Obs:
        return _edit(obs, self.key, lambda part: part * self.visible)


# Measuring.


class RecordVisits(Wrapper):
    """Counts how often each state was met.

    States come from the world's `state_index()`; the last state of an episode and the first of the next count both.
    With `key`, they are the whole numbers `info[key]` of each step (first states do not count, unless a reset's info
    has the key too).

    `info["distinct"]` [N] int64 is the number of different states that the running episode has met.

    Args:
        env: what to wrap.
        num_states: S; None: as many as `tabular()` has.
        key: see above.

    Attributes:
        visits: [blocks, S] int64, a row for each generator.
    """

    state_names = ("visits", "met")

    def __init__(self, env: TensorEnv, num_states: int | None = None, key: str | None = None):
        super().__init__(env)
        if num_states is None:
            num_states = len(env.unwrapped.tabular().rho0)
        self.num_states, self.key = num_states, key
        self.visits = torch.zeros(len(self.generators), num_states, dtype=torch.int64, device=env.device)
        self.met = torch.zeros(env.num_envs, num_states, dtype=torch.bool, device=env.device)
        """[N, S]: met in the running episode."""
        blocks = torch.arange(env.num_envs, device=env.device) // (env.num_envs // len(self.generators))
        self._shift = blocks * num_states
        if key is None and self.hides_ends:
            raise ValueError("put NoDone outside RecordVisits: it must see where episodes end")
        self._resets = env.autoreset and key is None
        if self._resets:
            # An environment that resets by itself never shows its last state: the resets are made here instead.
            for layer in layers(env):
                layer.autoreset = False

    @property
    def coverage(self) -> Tensor:
        """[blocks]: share of the states that were met."""
        return (self.visits > 0).float().mean(1)

    def clear(self) -> None:
        """Forget all counts."""
        self.visits = torch.zeros_like(self.visits)

    def _count(self, index: Tensor, rows: Tensor) -> None:
        counts = self.visits.flatten().index_add(0, index + self._shift, rows.long())
        self.visits = counts.view_as(self.visits)
        column = index[:, None]
        self.met = self.met.scatter(1, column, self.met.gather(1, column) | rows[:, None])

    def _first(self, mask: Tensor, info: dict[str, Tensor]) -> None:
        self.met = self.met & ~mask[:, None]
        if self.key is None:
            self._count(self.env.state_index(), mask)
        elif self.key in info:
            self._count(info[self.key].long(), mask)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Tensor]]:
        """Begin a new episode in every copy; see `TensorEnv.reset`."""
        obs, info = self.env.reset(seed, options)
        self._first(torch.ones(self.num_envs, dtype=torch.bool, device=self.device), info)
        return obs, info

    def reset_where(self, mask: Tensor) -> Obs:
        """Begin a new episode in the rows of `mask` [N]; returns the observation of all rows."""
        obs = self.env.reset_where(mask)
        self._first(mask, {})
        return obs

    def step(self, action: Tensor) -> Step:
        """Advance every copy and count."""
        step = self.env.step(action)
        index = self.env.state_index() if self.key is None else step.info[self.key].long()
        real = step.info.get("valid", torch.ones_like(step.terminated))
        self._count(index, real)
        info = {**step.info, "distinct": self.met.sum(1)}
        begins = step.ended if self._resets else self.begins(step)
        if not bool(begins.any()):
            return step._replace(info=info)
        obs = step.obs
        if self._resets:
            obs = self.env.reset_where(begins)
            if self.has_action_mask:
                info["action_mask"] = self.env.action_mask()
        self._first(begins, {})
        return step._replace(obs=obs, info=info)


class EpisodeStats(Wrapper):
    """Return, length and success of the running episode in every step's info, and sums over finished episodes.

    `info` gains `episode_return` [N] float32, `episode_length` [N] int64 and `episode_success` [N] bool (any
    `info[success]` so far) as of this step, and `episode_end` [N] bool: where it is True they are final.

    Args:
        env: what to wrap.
        success: name of the bool in `info`; without such an entry nothing succeeds.

    Attributes:
        finished, return_sum, length_sum, success_sum: [N] over finished episodes, since `clear`.
    """

    state_names = ("episode_return", "episode_length", "episode_success", "finished", "return_sum", "length_sum",
                   "success_sum")  # fmt: skip

    def __init__(self, env: TensorEnv, success: str = "success"):
        super().__init__(env)
        self.success = success
        zeros = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
        self.episode_return, self.episode_length = zeros.float(), zeros
        self.episode_success = zeros.bool()
        self.finished = self.length_sum = self.success_sum = zeros
        self.return_sum = zeros.double()

    def clear(self) -> None:
        """Forget the finished episodes."""
        zeros = torch.zeros_like(self.finished)
        self.finished = self.length_sum = self.success_sum = zeros
        self.return_sum = zeros.double()

    def means(self) -> dict[str, Tensor]:
        """Mean return, length and success [N] of the finished episodes (NaN where there is none)."""
        sums = {"return": self.return_sum, "length": self.length_sum, "success": self.success_sum}
        return {name: total / self.finished for name, total in sums.items()}

    def _begin(self, mask: Tensor, obs: Obs) -> None:
        self.episode_return = self.episode_return.masked_fill(mask, 0.0)
        self.episode_length = self.episode_length.masked_fill(mask, 0)
        self.episode_success = self.episode_success & ~mask

    def _advance(self, step: Step) -> Step:
        real = step.info.get("valid")
        one = torch.ones_like(self.episode_length) if real is None else real.long()
        self.episode_return = self.episode_return + step.reward
        self.episode_length = self.episode_length + one
        if self.success in step.info:
            self.episode_success = self.episode_success | step.info[self.success].bool()
        ends = self.ends(step)
        self.finished = self.finished + ends
        self.return_sum = self.return_sum + self.episode_return.double() * ends
        self.length_sum = self.length_sum + self.episode_length * ends
        self.success_sum = self.success_sum + (self.episode_success & ends)
        names = ("episode_return", "episode_length", "episode_success")
        return step._replace(
            info={**step.info, "episode_end": ends, **{name: getattr(self, name) for name in names}}
        )
