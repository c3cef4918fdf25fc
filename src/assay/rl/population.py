r"""Several learners in one world: their rollouts, and what every pairing of policies earns.

`run_population` plays a `TensorMultiEnv` and gives each agent a `Rollout` of its own, which any learner here takes as
it stands. Agents that share one policy object act in one forward pass. `payoff_matrix` plays every joint choice from
pools of policies: the empirical game in which a population's policies are strategies (Lanctot et al., 2017, arXiv
1711.00832), whose off-diagonal cells show policies that only work with the partner they grew up with.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from assay.envs.base import Obs, TensorEnv, TensorMultiEnv, map_obs
from assay.rl.nets import LSTMState
from assay.rl.policies import ActorCritic, Policy, actor_critic
from assay.rl.rollout import Carry, Rollout, behaviour, evaluate_values


class PopulationRun(NamedTuple):
    """What `run_population` collected."""

    rollouts: dict[str, Rollout]
    """By agent."""
    carries: tuple[Carry, ...]
    """One an agent, in the order of `env.agents`: what the next run begins with."""


class _Acts(NamedTuple):
    """What one agent did."""

    action: Tensor
    params: Tensor
    after: LSTMState | None


def _each(env: TensorMultiEnv, policies: Policy | Sequence[Policy]) -> list[Policy]:
    """One policy an agent."""
    each = [policies] * len(env.agents) if isinstance(policies, Policy) else list(policies)
    if len(each) != len(env.agents):
        raise ValueError(
            f"give one policy for each of {env.agents}, or a single one for all: got {len(each)} policies"
        )
    return each


def _own(env: TensorMultiEnv, obs: Obs, agent: int) -> Obs:
    """What one agent sees of observations [N, A, ...], or of a dictionary by agent name."""
    if isinstance(obs, dict) and set(obs) == set(env.agents):
        return obs[env.agents[agent]]
    return map_obs(lambda o: o[:, agent], obs)


class _Seat(TensorEnv):
    """The shapes of one agent's part of a world; it does not play."""

    def __init__(self, env: TensorMultiEnv):
        super().__init__(1, device=env.device)
        self.world, self.num_actions, self.obs_shape = env, env.num_actions, env.obs_shape[1:]

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        return self.world._both_spaces()

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        raise NotImplementedError("one agent's seat does not play: step the world")

    def _reset_rows(self, mask: Tensor) -> None:
        raise NotImplementedError("one agent's seat does not play: reset the world")

    def observe(self) -> Obs:
        raise NotImplementedError("one agent's seat sees nothing: observe the world")


def agent_critics(env: TensorMultiEnv, **options: Any) -> list[ActorCritic]:
    """One separate small actor-critic an agent, for a world whose observations [N, A, ...] are a tensor.

    Args:
        env: tells the shapes.
        **options: of `assay.rl.policies.actor_critic`; its `generator` draws one after the other.
    """
    if len(env.obs_shape) < 2:
        raise ValueError(
            "agents need observations [N, A, ...] of at least one dimension: build their policies by hand"
        )
    seat = _Seat(env)
    return [actor_critic(seat, **options) for _ in env.agents]


def start_population(
    env: TensorMultiEnv, policies: Policy | Sequence[Policy], seed: int | None = None
) -> tuple[Carry, ...]:
    """Reset the world: what the first `run_population` begins with."""
    each = _each(env, policies)
    obs, info = env.reset(seed)
    first = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    mask = info.get("action_mask")
    return tuple(
        Carry(
            _own(env, obs, a), first, policy.initial_state(env.num_envs), None if mask is None else mask[:, a]
        )
        for a, policy in enumerate(each)
    )


def _act(
    policies: Sequence[Policy],
    carries: Sequence[Carry],
    generator: torch.Generator | None,
    deterministic: bool = False,
) -> list[_Acts]:
    """Every agent's action; agents with the same policy object in one pass."""
    groups: dict[int, list[int]] = {}
    for agent, policy in enumerate(policies):
        groups.setdefault(id(policy), []).append(agent)
    acts: dict[int, _Acts] = {}
    for who in groups.values():
        mine = [carries[a] for a in who]
        obs = map_obs(lambda *o: torch.cat(o), *(c.obs for c in mine))
        states = [c.state for c in mine if c.state is not None]
        state = (torch.cat([s[0] for s in states]), torch.cat([s[1] for s in states])) if states else None
        masks = [c.mask for c in mine if c.mask is not None]
        first = torch.cat([c.first for c in mine])
        dist, after = policies[who[0]].policy(obs, state, first, torch.cat(masks) if masks else None)
        action = dist.mode() if deterministic else dist.sample(generator)
        parts = zip(
            who,
            action.chunk(len(who)),
            dist.params.chunk(len(who)),
            [None] * len(who)
            if after is None
            else zip(*(memory.chunk(len(who)) for memory in after), strict=True),
            strict=True,
        )
        acts.update({agent: _Acts(done, params, memory) for agent, done, params, memory in parts})
    return [acts[agent] for agent in range(len(policies))]


@torch.no_grad()
def run_population(
    env: TensorMultiEnv,
    policies: Policy | Sequence[Policy],
    steps: int,
    carries: Sequence[Carry] | None = None,
    *,
    streams: int = 1,
    info: Sequence[str] = (),
    generator: torch.Generator | None = None,
    values: bool = True,
) -> PopulationRun:
    """Play T steps; every agent gets a rollout [T, N, ...] of what it saw, did and earned.

    Where the world tells of agents that are gone (`info["alive"]` [N, A]), an agent's episode terminates when it goes,
    and its rows are not `valid` until the next one begins.

    Args:
        env: N copies with A agents; observations [N, A, ...], or a dictionary by agent name.
        policies: one an agent; or a single one that all share. Agents that share an object act in one pass.
        steps: T.
        carries: of the last run; None: the world is reset.
        streams: K reward streams of every rollout; stream 0 is the agent's own reward.
        info: keys of `Step.info` to keep: [N, A, ...] is split by agent, others everybody gets. "message" is kept
            wherever the world tells it.
        generator: of the actions.
        values: evaluate the critics of policies that are actor-critics.

    Returns:
        rollouts by agent name, and what the next run begins with.

    Raises:
        ValueError: another number of policies than agents.

    Example:
        >>> from assay.envs import CoinGame
        >>> game = CoinGame(16)
        >>> run = run_population(game, agent_critics(game, hidden=(32,)), steps=8)
        >>> run.rollouts["red"].reward.shape
        torch.Size([8, 16, 1])
    """
    each = _each(env, policies)
    carry = list(start_population(env, each) if carries is None else carries)
    if len(carry) != len(each):
        raise ValueError(f"give one carry an agent: got {len(carry)} for {len(each)} agents")
    agents, count = range(len(each)), env.num_envs
    rollouts = [Rollout(steps, count, streams, info) for _ in agents]
    alive = torch.ones(count, len(each), dtype=torch.bool, device=env.device)
    ends: list[Tensor] = []
    finals: list[Obs] = []
    memories: list[list[LSTMState]] = [[] for _ in agents]
    for rollout, begun in zip(rollouts, carry, strict=True):
        rollout.reward = torch.zeros((steps, count, streams), device=env.device)
        rollout.core_state = begun.state
        rollout._put_obs(0, begun.obs)
    for t in range(steps):
        acts = _act(each, carry, generator)
        step = env.step(torch.stack([done.action for done in acts], 1))
        ended, was = step.ended, alive
        after = step.info.get("alive", ended.logical_not()[:, None].expand_as(alive))
        alive = after | ended[:, None]  # the next episode has everybody again
        gone = was & ~after & ~ended[:, None]
        if step.final_obs is not step.obs:
            rows = ended.nonzero().flatten()
            ends.append(rows + t * count)
            finals.append(map_obs(lambda o, at=rows: o[at], step.final_obs))
            for memory, done in zip(memories, acts, strict=True):
                if done.after is not None:
                    memory.append((done.after[0][rows], done.after[1][rows]))
        keys = [key for key in dict.fromkeys(("message", *info)) if key in info or key in step.info]
        mask = step.info.get("action_mask")
        for a, (rollout, done) in enumerate(zip(rollouts, acts, strict=True)):
            legal = carry[a].mask
            if legal is not None:
                if rollout.mask is None:
                    rollout.mask = legal.new_empty((steps, *legal.shape))
                rollout.mask[t] = legal
            rollout._put("first", t, carry[a].first, steps + 1)
            rollout._put("action", t, done.action)
            rollout._put("params", t, done.params)
            rollout.reward[t, :, 0] = step.reward[:, a]
            rollout._put("terminated", t, step.terminated | gone[:, a])
            rollout._put("truncated", t, step.truncated)
            rollout._put("valid", t, was[:, a])
            for key in keys:
                told = step.info[key]
                own = told[:, a] if told.ndim > 1 and told.shape[1] == len(each) else told
                if key not in rollout.info:
                    rollout.info[key] = own.new_empty((steps, *own.shape))
                rollout.info[key][t] = own
            seen = _own(env, step.obs, a)
            carry[a] = Carry(seen, ended, done.after, None if mask is None else mask[:, a])
            rollout._put_obs(t + 1, seen)
    for a, (rollout, policy) in enumerate(zip(rollouts, each, strict=True)):
        rollout.keys = tuple(rollout.info)
        rollout.first[-1] = carry[a].first
        rollout.final_at = rollout.first.new_zeros(0, dtype=torch.int64)
        if ends:
            rollout.final_at = torch.cat(ends)
            rollout.final_obs = _own(env, map_obs(lambda *o: torch.cat(o), *finals), a)
        if memories[a]:
            hidden, cell = zip(*memories[a], strict=True)
            rollout.final_state = torch.cat(hidden), torch.cat(cell)
        rollout.logp = behaviour(policy, rollout).log_prob(rollout.action)
        if values and isinstance(policy, ActorCritic):
            evaluate_values(policy, rollout)
    return PopulationRun(dict(zip(env.agents, rollouts, strict=True)), tuple(carry))


@torch.no_grad()
def population_returns(
    env: TensorMultiEnv,
    policies: Policy | Sequence[Policy],
    episodes: int,
    *,
    gamma: float = 1.0,
    deterministic: bool = False,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    limit: int = 100_000,
) -> Tensor:
    """[E, A]: every agent's return in whole episodes; E is `episodes`, rounded up to a multiple of the copies.

    Every copy gives its first `E / N` episodes: taking whichever end first would favour short ones.

    Args:
        env: is reset.
        policies: see `run_population`.
        episodes: at least so many.
        gamma: discount.
        deterministic: the likeliest actions instead of samples.
        seed: of the world; None: its stream goes on.
        generator: of the actions.
        limit: steps after which an episode that never ends is an error.

    Raises:
        ValueError: no episodes, or another number of policies than agents.
        RuntimeError: some copy did not finish within `limit` steps.
    """
    if episodes < 1:
        raise ValueError(f"play at least one episode: got {episodes}")
    each = _each(env, policies)
    quota = -(-episodes // env.num_envs)
    carry = list(start_population(env, each, seed))
    total = torch.zeros(env.num_envs, len(each), device=env.device)
    weight = torch.ones(env.num_envs, device=env.device)
    played = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
    found: list[Tensor] = []
    for _ in range(limit):
        acts = _act(each, carry, generator, deterministic)
        step = env.step(torch.stack([done.action for done in acts], 1))
        total = total + weight[:, None] * step.reward
        ended, mask = step.ended, step.info.get("action_mask")
        weight = torch.where(ended, 1.0, weight * gamma)
        if bool(ended.any()):
            found.append(total[ended & (played < quota)])
            played = played + ended
            total = total.masked_fill(ended[:, None], 0.0)
            if bool((played >= quota).all()):
                return torch.cat(found)
        carry = [
            Carry(_own(env, step.obs, a), ended, done.after, None if mask is None else mask[:, a])
            for a, done in enumerate(acts)
        ]
    raise RuntimeError(f"after {limit} steps some copy had not finished {quota} episodes: set max_steps")


def payoff_matrix(
    env: TensorMultiEnv,
    policies: Sequence[Policy] | Sequence[Sequence[Policy]],
    episodes: int,
    *,
    gamma: float = 1.0,
    deterministic: bool = False,
    seed: int | None = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The empirical game: mean returns of all agents for every joint choice of policies.

    Every cell begins from the same `seed` of the world, so that cells differ by the policies, not by luck.

    Args:
        env: is reset for every cell.
        policies: one pool that every agent chooses from, or a pool an agent.
        episodes: of a cell, at least.
        gamma, deterministic, generator: see `population_returns`.
        seed: of the world in every cell; None: its stream goes on.

    Returns:
        [P_1, ..., P_A, A]: entry [i, j, a] is agent a's mean return where the first agent plays its policy i and the
        second its policy j.

    Raises:
        ValueError: no policies, or another number of pools than agents.

    Example:
        >>> from assay.envs import CoinGame
        >>> from assay.rl.rollout import RandomPolicy
        >>> game = CoinGame(8, max_steps=10)
        >>> payoff_matrix(game, [RandomPolicy(game), RandomPolicy(game)], episodes=8).shape
        torch.Size([2, 2, 2])
    """
    pools: list[list[Policy]]
    if all(isinstance(policy, Policy) for policy in policies):
        pools = [list(policies)] * len(env.agents)  # type: ignore[arg-type]
    else:
        pools = [list(pool) for pool in policies]  # type: ignore[arg-type]
    if len(pools) != len(env.agents) or not all(pools):
        raise ValueError(
            f"give one pool of policies, or one for each of {env.agents}, none empty: "
            f"got sizes {[len(pool) for pool in pools]}"
        )
    cells = [
        population_returns(
            env,
            joint,
            episodes,
            gamma=gamma,
            deterministic=deterministic,
            seed=seed,
            generator=generator,
        ).mean(0)
        for joint in product(*pools)
    ]
    return torch.stack(cells).view(*(len(pool) for pool in pools), len(env.agents))
