r"""Environments as batched tensor programs: thousands of copies stepped by a few torch operations.

A `TensorEnv` holds N copies of one world. Its state is a handful of tensors whose first dimension is N; `step` takes
N actions and returns N rewards. Nothing loops over the copies, so a gridworld of 4,096 copies makes millions of steps
a second on one core, and the same program runs on a GPU.

Three conventions decide most bugs in reinforcement learning, so they are fixed here:

- **terminated or truncated, never both.** `terminated` means that the world ended and the value of what follows is
  zero; `truncated` that time ran out, and what follows still has a value.
- **Same-step autoreset.** When a copy ends, `obs` already is the first observation of its next episode and
  `final_obs` the last one of the episode that ended. Where nothing ended the two are equal. So every row is a true
  transition, and a truncated episode can always bootstrap from its true last observation.
- **One source of randomness.** Every draw comes from the environment's own generator; torch's global generator is
  never touched.
"""

import abc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from assay._extras import require

Obs = Tensor | dict[str, Tensor]
"""A tensor [N, ...], or a flat dictionary of them."""
Generators = torch.Generator | Sequence[torch.Generator]


class Step(NamedTuple):
    """What one step of N copies gives."""

    obs: Obs
    """[N, ...]: what the policy sees next; the first observation of the new episode where one ended."""
    reward: Tensor
    """[N] float32."""
    terminated: Tensor
    """[N] bool: the world ended."""
    truncated: Tensor
    """[N] bool: time ran out; never true together with `terminated`."""
    final_obs: Obs
    """[N, ...]: the true successor of every row: `obs`, except where an episode ended."""
    info: dict[str, Tensor]
    """Tensors [N, ...] about the transition itself (for metrics; before any autoreset)."""

    @property
    def ended(self) -> Tensor:
        """[N] bool: terminated or truncated."""
        return self.terminated | self.truncated


class Tabular(NamedTuple):
    """A finite decision process written out, for exact answers (float64)."""

    P: Tensor
    """[S, A, S]: probability of the successor. Terminal states lead to themselves."""
    R: Tensor
    """[S, A]: expected reward; zero in terminal states."""
    rho0: Tensor
    """[S]: distribution of the first state."""
    terminal: Tensor
    """[S] bool."""


def map_obs(function: Callable[..., Tensor], *obs: Obs) -> Obs:
    """Apply `function` to the observation tensor, or to each tensor of a dictionary of them."""
    first = obs[0]
    if isinstance(first, dict):
        return {key: function(*(o[key] for o in obs)) for key in first}  # type: ignore[index]
    return function(*obs)


def where_rows(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """`torch.where` with a mask over rows [N] and tensors [N, ...]."""
    return torch.where(mask.view(-1, *(1,) * (no.ndim - 1)), yes, no)


class TensorEnv(abc.ABC):
    """N copies of one world. Subclasses write `_step`, `_reset_rows`, `observe` and `_spaces`.

    A subclass keeps its state in tensors [N, ...] named in `state_names`, and replaces them by new tensors (never
    edits them in place: an observation handed out earlier must not change). It draws random numbers with `uniform`,
    `integers` and `normal` only.

    Args:
        num_envs: N.
        max_steps: truncate an episode after so many steps; None: never.
        generator: source of all randomness; a sequence of G generators gives each of G equal blocks of rows its own
            (so that several seeds can share one batch and no seed's draws depend on the others). Default: seed 0.
        device: where the tensors live; that of the generator.
        autoreset: begin the next episode in the step that ended the last; else stepping an ended copy raises.
        validate: check every action (a little time, and a synchronisation on CUDA).
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}
    has_action_mask: bool = False
    """True where `action_mask` tells which actions are legal now."""
    state_names: tuple[str, ...] = ()
    """The tensors that make up the state, for snapshots."""
    num_actions: int | None = None
    """Number of actions of a discrete world, else None."""
    obs_shape: tuple[int, ...] = ()
    """Shape of one copy's observation tensor; () for a dictionary."""

    def __init__(
        self,
        num_envs: int,
        *,
        max_steps: int | None = None,
        generator: Generators | None = None,
        device: str | torch.device = "cpu",
        autoreset: bool = True,
        validate: bool = True,
    ):
        if num_envs < 1:
            raise ValueError(f"an environment needs at least one copy: got num_envs={num_envs}")
        if max_steps is not None and max_steps < 1:
            raise ValueError(f"max_steps is at least 1, or None for no limit: got {max_steps}")
        self.num_envs, self.max_steps = num_envs, max_steps
        self.device = torch.device(device)
        self.autoreset, self.validate = autoreset, validate
        if generator is None:
            generator = torch.Generator(self.device).manual_seed(0)
        self.generators = [generator] if isinstance(generator, torch.Generator) else list(generator)
        if num_envs % len(self.generators):
            raise ValueError(
                f"{len(self.generators)} generators need a number of copies that they divide: got {num_envs}"
            )
        if any(g.device.type != self.device.type for g in self.generators):
            raise ValueError(f"the generators must be on the environment's device {self.device}")
        self.elapsed = torch.zeros(num_envs, dtype=torch.int64, device=self.device)
        """[N]: steps made in the running episode."""
        self._ended = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self._drawing: list[bool] = [True] * len(self.generators)
        self._made_spaces: tuple[Any, Any] | None = None

    # What a subclass writes.

    @abc.abstractmethod
    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Advance every copy: (reward [N], terminated [N], info)."""

    @abc.abstractmethod
    def _reset_rows(self, mask: Tensor) -> None:
        """Begin a new episode in the rows of `mask`, leaving the others untouched."""

    @abc.abstractmethod
    def observe(self) -> Obs:
        """The observation [N, ...] of the present state, in fresh memory; changes nothing."""

    @abc.abstractmethod
    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        """(observation, action) space of one copy; `spaces` is the module `gymnasium.spaces`."""

    def action_mask(self) -> Tensor:
        """[N, A] bool: legal actions now (where `has_action_mask`)."""
        raise NotImplementedError(f"{type(self).__name__} has no action mask")

    def render(self, i: int = 0) -> Tensor:
        """A picture [H, W, 3] uint8 of copy `i`."""
        raise NotImplementedError(f"{type(self).__name__} has no picture")

    # What everybody calls.

    @property
    def generator(self) -> torch.Generator:
        """The (first) source of randomness."""
        return self.generators[0]

    @property
    def single_observation_space(self) -> Any:
        """Gymnasium space of one copy's observation."""
        return self._both_spaces()[0]

    @property
    def single_action_space(self) -> Any:
        """Gymnasium space of one copy's action."""
        return self._both_spaces()[1]

    def _both_spaces(self) -> tuple[Any, Any]:
        if self._made_spaces is None:
            self._made_spaces = self._spaces(require("gymnasium.spaces", "rl"))
        return self._made_spaces

    def seed(self, seed: int) -> None:
        """Seed the generators: block b by `seed + b`."""
        for block, generator in enumerate(self.generators):
            generator.manual_seed(seed + block)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Tensor]]:
        """Begin a new episode in every copy: (obs, info).

        Args:
            seed: seeds the generators first; None: the stream goes on.
            options: none here; `ScenarioEnv` takes {"scenario": ...}.
        """
        if seed is not None:
            self.seed(seed)
        self._reset_all(options)
        return self.observe(), self._reset_info()

    def _reset_all(self, options: dict[str, Any] | None) -> None:
        if options:
            raise ValueError(f"{type(self).__name__} takes no reset options: got {sorted(options)}")
        self._reset_masked(torch.ones(self.num_envs, dtype=torch.bool, device=self.device))

    def _reset_info(self) -> dict[str, Tensor]:
        return {"action_mask": self.action_mask()} if self.has_action_mask else {}

    def reset_where(self, mask: Tensor) -> Obs:
        """Begin a new episode in the rows of `mask` [N]; returns the observation of all rows."""
        self._reset_masked(mask)
        return self.observe()

    def _reset_masked(self, mask: Tensor) -> None:
        # A block of rows draws only if one of its own rows begins anew: blocks stay independent of each other.
        if len(self.generators) > 1:
            self._drawing = mask.view(len(self.generators), -1).any(1).tolist()
        self._reset_rows(mask)
        self._drawing = [True] * len(self.generators)
        self.elapsed = self.elapsed.masked_fill(mask, 0)
        self._ended = self._ended & ~mask

    def step(self, action: Tensor) -> Step:
        """Advance every copy by one action ([N] int64, or [N, ...] as the action space says).

        Raises:
            ValueError: with `validate`, for an illegal action; without autoreset, for stepping an ended copy.
        """
        if self.validate:
            self._check(action)
        if not self.autoreset and bool(self._ended.any()):
            rows = self._ended.nonzero().flatten().tolist()[:5]
            raise ValueError(f"copies {rows} ended: call reset_where for them before stepping on")
        reward, terminated, info = self._step(action)
        self.elapsed = self.elapsed + 1
        if self.max_steps is None:
            truncated = torch.zeros_like(terminated)
            ended = terminated
        else:
            over = self.elapsed >= self.max_steps
            truncated = over & ~terminated
            ended = terminated | over
        final_obs = obs = self.observe()
        if not self.autoreset:
            self._ended = ended
        elif bool(ended.any()):
            self._reset_masked(ended)
            obs = self.observe()
        if self.has_action_mask:
            info = {**info, "action_mask": self.action_mask()}
        return Step(obs, reward, terminated, truncated, final_obs, info)

    def _check(self, action: Tensor) -> None:
        if action.shape[:1] != (self.num_envs,):
            raise ValueError(
                f"give one action a copy, [{self.num_envs}, ...]: got shape {tuple(action.shape)}"
            )
        if self.num_actions is None:
            return
        if action.dtype != torch.int64:
            raise ValueError(f"discrete actions are int64: got {action.dtype}")
        if bool(((action < 0) | (action >= self.num_actions)).any()):
            bad = action[(action < 0) | (action >= self.num_actions)][0].item()
            raise ValueError(f"actions are 0..{self.num_actions - 1}: got {bad}")

    # Randomness: one draw for every row, from the row's own block.

    def _draw(self, shape: tuple[int, ...], fill: Callable[[Tensor, torch.Generator], Any]) -> Tensor:
        out = torch.zeros((self.num_envs, *shape), device=self.device)
        if len(self.generators) == 1:
            fill(out, self.generators[0])
            return out
        blocks = out.view(len(self.generators), -1, *shape)
        for block, generator, drawing in zip(blocks, self.generators, self._drawing, strict=True):
            if drawing:
                fill(block, generator)
        return out

    def uniform(self, *shape: int) -> Tensor:
        """[N, *shape] uniform in [0, 1)."""
        return self._draw(shape, lambda out, g: out.uniform_(generator=g))

    def normal(self, *shape: int) -> Tensor:
        """[N, *shape] standard normal."""
        return self._draw(shape, lambda out, g: out.normal_(generator=g))

    def integers(self, high: int | Tensor, *shape: int) -> Tensor:
        """[N, *shape] int64 uniform in 0..high-1; `high` may be a tensor that broadcasts against it."""
        # Scaling a float32 draw is exact enough below 2**16 and serves a different bound in every row.
        scaled = (self.uniform(*shape) * high).long()
        if isinstance(high, Tensor):
            return torch.minimum(scaled, high - 1)
        return scaled.clamp_(max=high - 1)

    def choice(self, allowed: Tensor) -> Tensor:
        """[N] int64: a uniform choice among the True entries of each row of `allowed` [N, K]."""
        return (self.uniform(allowed.shape[1]) + 1.0).mul(allowed).argmax(1)

    # Snapshots.

    def state_dict(self) -> dict[str, Any]:
        """A full snapshot, generators included: restored, the same actions give the same transitions."""
        tensors = {name: getattr(self, name).clone() for name in ("elapsed", "_ended", *self.state_names)}
        return {**tensors, "generators": [g.get_state() for g in self.generators]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a snapshot of an environment built with the same arguments."""
        expected = {"elapsed", "_ended", "generators", *self.state_names}
        if set(state) != expected:
            raise ValueError(
                f"a snapshot of {type(self).__name__} holds {sorted(expected)}: got {sorted(state)}"
            )
        for name in expected - {"generators"}:
            setattr(self, name, state[name].clone().to(self.device))
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.set_state(saved)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor attribute by name (state and constants)."""
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Tensor))

    def to(self, device: str | torch.device) -> "TensorEnv":
        """Move to a device, in place; generators are made anew there from the old ones' seeds."""
        device = torch.device(device)
        for name, value in list(self.tensors()):
            setattr(self, name, value.to(device))
        if device.type != self.device.type:
            self.generators = [torch.Generator(device).manual_seed(g.initial_seed()) for g in self.generators]
        self.device = device
        return self

    def tabular(self) -> Tabular:
        """The world written out, where it is small enough."""
        raise NotImplementedError(f"{type(self).__name__} is not tabular")

    def state_index(self) -> Tensor:
        """[N] int64: the present state's row in `tabular()`."""
        raise NotImplementedError(f"{type(self).__name__} is not tabular")

    def close(self) -> None:  # noqa: B027  (tensor worlds hold nothing; adapters of real ones do)
        """Free what the environment holds."""

    @property
    def unwrapped(self) -> "TensorEnv":
        """The environment itself, below all wrappers."""
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_envs={self.num_envs}, max_steps={self.max_steps})"


class ScenarioEnv(TensorEnv):
    """A world whose every random choice is fixed by a scenario, so that an episode can be told again otherwise.

    Subclasses write `sample_scenario` and `_begin`; `reset(options={"scenario": u})` restores `u`. Needed where one
    asks what would have happened under other actions in the same circumstances.
    """

    @abc.abstractmethod
    def sample_scenario(self) -> dict[str, Tensor]:
        """A scenario for every copy: tensors [N, ...]."""

    @abc.abstractmethod
    def _begin(self, mask: Tensor, scenario: dict[str, Tensor]) -> None:
        """Begin an episode of `scenario` in the rows of `mask`."""

    def _reset_rows(self, mask: Tensor) -> None:
        self._begin(mask, self.sample_scenario())

    def _reset_all(self, options: dict[str, Any] | None) -> None:
        scenario = (options or {}).get("scenario")
        if scenario is None:
            super()._reset_all(options)
        else:
            self.reset_to(scenario)

    def reset_to(self, scenario: dict[str, Tensor]) -> Obs:
        """Begin the given scenario in every copy; returns the observation."""
        everywhere = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        self._begin(everywhere, scenario)
        self.elapsed = torch.zeros_like(self.elapsed)
        self._ended = torch.zeros_like(self._ended)
        return self.observe()


class TensorMultiEnv(TensorEnv):
    """N copies of a world with A agents who move at once.

    Tensors gain an agent dimension: obs [N, A, ...], action [N, A], reward [N, A]; the episode ends for all at once
    (`terminated`, `truncated` [N]). `metadata["message_delay"]` tells when a message arrives, where agents talk.
    """

    agents: tuple[str, ...] = ()
    """Names, in the order of the agent dimension."""

    def _check(self, action: Tensor) -> None:
        if action.shape[:2] != (self.num_envs, len(self.agents)):
            raise ValueError(
                f"give one action an agent, [{self.num_envs}, {len(self.agents)}]: got {tuple(action.shape)}"
            )
        super()._check(action)
