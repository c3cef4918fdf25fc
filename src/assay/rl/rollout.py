r"""Rollouts: T steps of N copies, time first, with the true successor of every step.

The two facts that most implementations lose are kept: `next_value` is the value of the TRUE next observation (that of
`final_obs` where an episode was cut off by time), and `next_obs` gives those observations, so that rewards computed
from a successor (curiosity, discriminators) never see the first frame of the next episode by mistake.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from assay.envs.base import Obs, TensorEnv, map_obs
from assay.rl.distributions import ActionDistribution, Categorical, UniformBox
from assay.rl.nets import LSTMState, PolicyHead
from assay.rl.policies import ActorCritic, Policy
from assay.rl.returns import gae


class Carry(NamedTuple):
    """What goes on from one rollout to the next."""

    obs: Obs
    """[N, *obs]: the present observation."""
    first: Tensor
    """[N] bool: it begins an episode."""
    state: LSTMState | None
    """The policy's memory."""
    mask: Tensor | None = None
    """[N, A]: legal actions now."""


class Rollout:
    """Storage of T steps of N copies; every field is a tensor [T, ...] (time first), allocated at its first use.

    Args:
        steps: T.
        num_envs: N.
        streams: K reward streams. Stream 0 is the environment's reward; the others begin as zeros and are filled
            by whoever computes them.
        info: keys of `Step.info` to keep in `self.info`.
    """

    obs: Obs
    """[T + 1, N, *obs]; the last is where the next rollout begins."""
    action: Tensor
    """[T, N, ...]."""
    params: Tensor
    """[T, N, P]: of the behaviour distribution."""
    logp: Tensor
    """[T, N]: log-probability of the action under the behaviour policy."""
    reward: Tensor
    """[T, N, K]."""
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    """[T, N] bool: False where the row is no transition (next-step autoreset): no loss, no statistic may use it."""
    first: Tensor
    """[T + 1, N] bool: the observation begins an episode."""
    value: Tensor
    """[T + 1, N, K]: of `obs`."""
    next_value: Tensor
    """[T, N, K]: of the true successor; 0 where the world ended."""

    def __init__(self, steps: int, num_envs: int, streams: int = 1, info: Sequence[str] = ()):
        if steps < 1:
            raise ValueError(f"a rollout has at least one step: got {steps}")
        self.steps, self.num_envs, self.streams = steps, num_envs, streams
        self.keys = tuple(info)
        self.info: dict[str, Tensor] = {}
        self.mask: Tensor | None = None
        """[T, N, A]: legal actions, where the environment tells them."""
        self.core_state: LSTMState | None = None
        """[N, H] twice: the policy's memory before the first step."""
        self.task: Tensor | None = None
        """[N] int64, where the environment runs several tasks."""
        self.policy_version = torch.zeros(num_envs, dtype=torch.int64)
        """[N]: updates that had made the parameters which acted."""
        self.origin = torch.zeros(num_envs, 2, dtype=torch.int64)
        """[N, 2]: which actor collected it, and as its how-manyeth unroll."""
        self.final_at = torch.zeros(0, dtype=torch.int64)
        """[F]: positions t * N + n of steps that ended an episode and began another."""
        self.final_obs: Obs | None = None
        """[F, *obs]: their true successors."""
        self.final_state: LSTMState | None = None
        """[F, H] twice: the memory after them."""
        self._next_obs: Obs | None = None

    def _put(self, name: str, t: int, value: Tensor, length: int | None = None) -> None:
        if name not in vars(self):
            setattr(self, name, value.new_empty((length or self.steps, *value.shape)))
        getattr(self, name)[t].copy_(value)

    def _put_obs(self, t: int, obs: Obs) -> None:
        if "obs" not in vars(self):
            self.obs = map_obs(lambda o: o.new_empty((self.steps + 1, *o.shape)), obs)
        map_obs(lambda store, o: store[t].copy_(o), self.obs, obs)

    @property
    def ended(self) -> Tensor:
        """[T, N] bool."""
        return self.terminated | self.truncated

    @property
    def transitions(self) -> int:
        """T x N."""
        return self.steps * self.num_envs

    def next_obs(self) -> Obs:
        """[T, N, *obs]: the true successor of every step (`final_obs` where an episode ended)."""
        if self._next_obs is None:
            following = map_obs(lambda o: o[1:].clone(), self.obs)
            if self.final_obs is not None:
                map_obs(
                    lambda o, f: o.flatten(0, 1).index_copy_(0, self.final_at, f), following, self.final_obs
                )
            self._next_obs = following
        return self._next_obs

    def tensors(self) -> dict[str, Tensor]:
        """Everything that was collected, by name (parts of structures as "obs/key", "core_state/0")."""
        flat: dict[str, Tensor] = {}
        for name, value in vars(self).items():
            if name.startswith("_"):
                continue
            if isinstance(value, Tensor):
                flat[name] = value
            elif isinstance(value, dict):
                flat.update({f"{name}/{key}": part for key, part in value.items()})
            elif isinstance(value, tuple) and value and isinstance(value[0], Tensor):
                flat.update({f"{name}/{i}": part for i, part in enumerate(value)})
        return flat

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> "Rollout":
        """The inverse of `tensors`."""
        steps, num_envs, streams = tensors["reward"].shape
        rollout = cls(steps, num_envs, streams)
        for name, value in tensors.items():
            name, _, part = name.partition("/")
            if not part:
                setattr(rollout, name, value)
            elif part.isdigit():
                setattr(rollout, name, (*(getattr(rollout, name) or ()), value))
            else:
                setattr(rollout, name, {**(vars(rollout).get(name) or {}), part: value})
        rollout.keys = tuple(rollout.info)
        return rollout

    @classmethod
    def stack(cls, rollouts: Sequence["Rollout"]) -> "Rollout":
        """Several rollouts of the same length side by side, as one with all of their copies."""
        if not rollouts:
            raise ValueError("stack at least one rollout")
        if len(rollouts) == 1:
            return rollouts[0]
        steps = {r.steps for r in rollouts}
        if len(steps) > 1:
            raise ValueError(f"rollouts stacked side by side have one length: got {sorted(steps)}")
        total = sum(r.num_envs for r in rollouts)
        parts, before, at = [], 0, []
        for rollout in rollouts:
            # Positions t * N + n count the copies of their own rollout: count all.
            t, n = rollout.final_at // rollout.num_envs, rollout.final_at % rollout.num_envs
            at.append(t * total + n + before)
            before += rollout.num_envs
            parts.append(rollout.tensors())
        joined = {}
        for name in dict.fromkeys(name for part in parts for name in part):
            # What only rollouts with an ended episode have is missing in the others.
            present = [part[name] for part in parts if name in part]
            by_row = name.partition("/")[0] in ("policy_version", "origin", "task", "core_state")
            by_row = by_row or name.startswith("final_")
            joined[name] = torch.cat(present, 0 if by_row else 1)
        joined["final_at"] = torch.cat(at)
        return cls.of(joined)

    def advantages(
        self,
        gamma: float | Sequence[float],
        lam: float | Sequence[float],
        episodic: bool | Sequence[bool] = True,
    ) -> Tensor:
        """[T, N, K]: generalised advantages of every stream, each with its own discount and episode rule.

        A stream that is not episodic (RND, section 2.3) ignores ends: its successor of a last step is the first
        observation of the next episode.
        """

        def stream(option: float | Sequence[float]) -> float | Tensor:
            return torch.tensor(option, device=self.value.device) if isinstance(option, Sequence) else option

        return gae(
            self.reward,
            self.value[:-1],
            self.next_value,
            self.terminated,
            self.truncated,
            gamma=stream(gamma),
            lam=stream(lam),
            episodic=stream(episodic),
            valid=self.valid,
            last_value=self.value[-1],
        )


def start(env: TensorEnv, model: Policy, seed: int | None = None) -> Carry:
    """Reset the environment: what the first rollout begins with."""
    obs, info = env.reset(seed)
    first = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    return Carry(obs, first, model.initial_state(env.num_envs), info.get("action_mask"))


@torch.no_grad()
def collect(
    env: TensorEnv,
    model: Policy,
    rollout: Rollout,
    carry: Carry,
    generator: torch.Generator | None = None,
    values: bool = True,
) -> Carry:
    """Fill `rollout` with T steps of the model's policy; returns what the next one begins with.

    Args:
        env: stepped T times.
        model: acts as it stands.
        rollout: overwritten.
        carry: from `start` or the last `collect`.
        generator: of the actions.
        values: also evaluate the critic (one batch over all steps); actors that only ship data leave it out.
    """
    rollout._next_obs, rollout.core_state, rollout.mask = None, carry.state, None
    ends: list[Tensor] = []
    finals: list[Obs] = []
    memories: list[LSTMState] = []
    rollout.reward = torch.zeros((rollout.steps, rollout.num_envs, rollout.streams), device=env.device)
    obs, first, state, mask = carry
    rollout._put_obs(0, obs)
    for t in range(rollout.steps):
        dist, after = model.policy(obs, state, first, mask)
        action = dist.sample(generator)
        step = env.step(action)
        if mask is not None:
            if rollout.mask is None:
                rollout.mask = mask.new_empty((rollout.steps, *mask.shape))
            rollout.mask[t] = mask
        ended = step.ended
        rollout._put("first", t, first, rollout.steps + 1)
        rollout._put("action", t, action)
        rollout._put("params", t, dist.params)
        rollout.reward[t, :, 0] = step.reward
        rollout._put("terminated", t, step.terminated)
        rollout._put("truncated", t, step.truncated)
        valid = step.info.get("valid")
        rollout._put("valid", t, torch.ones_like(ended) if valid is None else valid)
        for key in rollout.keys:
            kept = step.info[key]
            if key not in rollout.info:
                rollout.info[key] = kept.new_empty((rollout.steps, *kept.shape))
            rollout.info[key][t] = kept
        if step.final_obs is not step.obs:
            rows = ended.nonzero().flatten()
            ends.append(rows + t * rollout.num_envs)
            finals.append(map_obs(lambda o, at=rows: o[at], step.final_obs))
            if after is not None:
                memories.append((after[0][rows], after[1][rows]))
        # After a dummy row of next-step autoreset the new episode begins.
        first = ended if valid is None else ended | ~valid
        obs, state, mask = step.obs, after, step.info.get("action_mask")
        rollout._put_obs(t + 1, obs)
    rollout.first[-1] = first
    if ends:
        rollout.final_at, rollout.final_obs = torch.cat(ends), map_obs(lambda *o: torch.cat(o), *finals)
    else:
        rollout.final_at, rollout.final_obs = rollout.first.new_zeros(0, dtype=torch.int64), None
    rollout.final_state = None
    if memories:
        hidden, cell = zip(*memories, strict=True)
        rollout.final_state = torch.cat(hidden), torch.cat(cell)
    if "task" in step.info:
        rollout.task = step.info["task"]
    # The whole behaviour in one batch: log-probabilities are not needed while acting.
    rollout.logp = behaviour(model, rollout).log_prob(rollout.action)
    if values:
        if not isinstance(model, ActorCritic):
            raise ValueError(f"{type(model).__name__} has no values: call collect(..., values=False)")
        evaluate_values(model, rollout)
    return Carry(obs, first, state, mask)


def behaviour(model: Policy, rollout: Rollout) -> ActionDistribution:
    """The distributions [T, N] that acted, rebuilt from the stored parameters."""
    return model.policy_head.distribution(rollout.params, rollout.mask)


@torch.no_grad()
def evaluate_values(model: ActorCritic, rollout: Rollout) -> None:
    """Fill `value` and `next_value` with the model's present critic."""
    rollout.value = model.value(rollout.obs, rollout.core_state, rollout.first)
    rollout.next_value = true_next_value(model, rollout, rollout.value)


@torch.no_grad()
def true_next_value(model: ActorCritic, rollout: Rollout, value: Tensor) -> Tensor:
    """[T, N, K]: values of the true successors, given those of `obs` [T + 1, N, K]; 0 where the world ended.

    One more batch is evaluated, over the observations at which time ran out.
    """
    next_value = value[1:].masked_fill(rollout.terminated[..., None], 0.0)
    cut = rollout.truncated.flatten()[rollout.final_at]
    if rollout.final_obs is None or not bool(cut.any()):
        return next_value
    obs = map_obs(lambda o: o[cut], rollout.final_obs)
    memory = rollout.final_state
    state = None if memory is None else (memory[0][cut], memory[1][cut])
    at = rollout.final_at[cut]
    next_value.flatten(0, 1)[at] = model.value(obs, state, torch.zeros_like(at, dtype=torch.bool))
    return next_value


class Batch:
    """Some transitions of a rollout (or whole sequences of it), gathered when asked for.

    `index` holds flat positions t * N + n, or for sequences the copies n (then every field keeps its time dimension).
    """

    def __init__(self, rollout: Rollout, index: Tensor, sequences: bool = False):
        self.rollout, self.index, self.sequences = rollout, index, sequences

    def __len__(self) -> int:
        """Number of transitions."""
        return len(self.index) * (self.rollout.steps if self.sequences else 1)

    def take(self, x: Tensor) -> Tensor:
        """The batch's rows of any tensor [T, N, ...]."""
        x = x[: self.rollout.steps]
        return x[:, self.index] if self.sequences else x.flatten(0, 1)[self.index]

    @property
    def obs(self) -> Obs:
        """[B, *obs], or [T, B, *obs] for sequences."""
        return map_obs(self.take, self.rollout.obs)

    @property
    def next_obs(self) -> Obs:
        """The true successors."""
        return map_obs(self.take, self.rollout.next_obs())

    @property
    def action(self) -> Tensor:
        """What was done."""
        return self.take(self.rollout.action)

    @property
    def mask(self) -> Tensor | None:
        """Legal actions."""
        return None if self.rollout.mask is None else self.take(self.rollout.mask)

    @property
    def valid(self) -> Tensor:
        """Rows that are transitions."""
        return self.take(self.rollout.valid)

    @property
    def first(self) -> Tensor:
        """Steps that begin an episode."""
        return self.take(self.rollout.first)

    @property
    def state(self) -> LSTMState | None:
        """The memory at the first step (sequences only)."""
        state = self.rollout.core_state
        return None if state is None or not self.sequences else (state[0][self.index], state[1][self.index])


def minibatches(
    rollout: Rollout, n: int, recurrent: bool = False, generator: torch.Generator | None = None
) -> Iterator[Batch]:
    """Shuffle the rollout into n nearly equal batches: valid transitions, or whole sequences by copy.

    Sizes differ by at most one, so none is a remainder of a row or two (whose standard deviation is NaN).

    Raises:
        ValueError: there are fewer rows than batches.
    """
    device = rollout.reward.device
    if recurrent:
        pool = torch.arange(rollout.num_envs, device=device)
    elif bool(rollout.valid.all()):
        pool = torch.arange(rollout.transitions, device=device)
    else:
        pool = rollout.valid.flatten().nonzero().flatten()
    if n < 1 or len(pool) < n:
        raise ValueError(f"{len(pool)} rows cannot make {n} batches: collect more or ask for fewer")
    order = torch.randperm(len(pool), generator=generator, device=device)
    for part in pool[order].tensor_split(n):
        yield Batch(rollout, part, recurrent)


class RandomPolicy(nn.Module):
    """Acts uniformly at random with an actor-critic's interface: for statistics, data and baselines.

    Continuous actions are uniform within the bounds of the action space (which must be finite).
    """

    recurrent = False
    streams = 1

    def __init__(self, env: TensorEnv):
        super().__init__()
        self.policy_head = _UniformHead(env)

    def initial_state(self, num_envs: int) -> None:
        """No memory."""

    def policy(
        self,
        obs: Obs,
        state: object = None,
        first: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[ActionDistribution, None]:
        """The uniform distribution in every row."""
        tensor = next(iter(obs.values())) if isinstance(obs, dict) else obs
        return self.policy_head(tensor, mask), None


class _UniformHead(PolicyHead):
    def __init__(self, env: TensorEnv):
        super().__init__()
        self.actions = env.num_actions
        if self.actions is None:
            low, high = (
                torch.as_tensor(b) for b in (env.single_action_space.low, env.single_action_space.high)
            )
            if not bool(torch.isfinite(low).all() and torch.isfinite(high).all()):
                raise ValueError("uniform actions need a bounded action space")
            self.register_buffer("low", low)
            self.register_buffer("high", high)

    def params(self, features: Tensor) -> Tensor:
        rows = len(features)
        if self.actions is not None:
            return torch.zeros((rows, self.actions), device=features.device)
        return torch.cat([self.low, self.high]).expand(rows, -1)

    def distribution(self, params: Tensor, mask: Tensor | None = None) -> ActionDistribution:
        return Categorical(params, mask) if self.actions is not None else UniformBox(params)


def random_rollout(
    env: TensorEnv,
    steps: int,
    generator: torch.Generator | None = None,
    info: Sequence[str] = (),
) -> Rollout:
    """Reset `env` and make `steps` uniformly random steps in every copy (no values are evaluated)."""
    policy = RandomPolicy(env)
    rollout = Rollout(steps, env.num_envs, info=info)
    collect(env, policy, rollout, start(env, policy), generator, values=False)
    return rollout
