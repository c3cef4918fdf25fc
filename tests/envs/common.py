"""What every batched environment must satisfy, as one function: `check_env(make_env)`."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from assay.envs.base import Obs, Step, TensorEnv, TensorMultiEnv, map_obs

MakeEnv = Callable[..., TensorEnv]
"""`make_env(num_envs=n, generator=g)`, where g is one generator or a list of them."""
Invariants = Callable[[TensorEnv, Step], None]
"""Asserts what holds after every step."""
Actions = Callable[[TensorEnv, torch.Generator], Tensor]


def generator(seed: int) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)


def random_actions(env: TensorEnv, g: torch.Generator) -> Tensor:
    """Uniform legal actions for every copy (and agent)."""
    agents = (len(env.agents),) if isinstance(env, TensorMultiEnv) else ()
    shape = (env.num_envs, *agents)
    if env.has_action_mask:
        mask = env.action_mask()
        return (torch.rand(mask.shape, generator=g) + 1.0).mul(mask).argmax(-1)
    if env.num_actions is not None:
        return torch.randint(env.num_actions, shape, generator=g)
    space = env.single_action_space
    if hasattr(space, "nvec"):
        sizes = torch.as_tensor(space.nvec)
        scaled = torch.rand((env.num_envs, *space.shape), generator=g) * sizes
        return scaled.long().clamp(max=sizes - 1)
    low, high = (torch.as_tensor(bound).clamp(-10, 10) for bound in (space.low, space.high))
    return (low + (high - low) * torch.rand((env.num_envs, *space.shape), generator=g)).float()


def leaves(obs: Obs) -> list[Tensor]:
    """The tensors of an observation."""
    return list(obs.values()) if isinstance(obs, dict) else [obs]


def same(a: Obs, b: Obs) -> bool:
    """Bit-equal observations."""
    return all(torch.equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def assert_same_step(a: Step, b: Step) -> None:
    """Two steps are equal to the bit, infos included."""
    assert same(a.obs, b.obs)
    assert same(a.final_obs, b.final_obs)
    for field in ("reward", "terminated", "truncated"):
        assert torch.equal(getattr(a, field), getattr(b, field)), field
    assert set(a.info) == set(b.info)
    for key in a.info:
        assert torch.equal(a.info[key], b.info[key]), key


def rows(step: Step, part: slice) -> Step:
    """Some rows of a step."""

    def cut(obs: Obs) -> Obs:
        return {k: v[part] for k, v in obs.items()} if isinstance(obs, dict) else obs[part]

    return Step(
        cut(step.obs),
        step.reward[part],
        step.terminated[part],
        step.truncated[part],
        cut(step.final_obs),
        {key: value[part] for key, value in step.info.items()},
    )


def sliced(state: dict[str, Any], part: slice, generators: slice) -> dict[str, Any]:
    """Some rows of a snapshot, with the generators of their blocks."""
    return {k: v[generators] if k == "generators" else v[part].clone() for k, v in state.items()}


def agent_rows(env: TensorEnv, obs: Obs) -> Obs:
    """One row an agent: spaces are those of one agent."""
    return map_obs(lambda o: o.flatten(0, 1), obs) if isinstance(env, TensorMultiEnv) else obs


def assert_in_space(space: Any, obs: Obs) -> None:
    """Every row lies in the Gymnasium space: shape, kind of number, bounds."""
    if isinstance(obs, dict):
        assert set(space.spaces) == set(obs)
        for key, value in obs.items():
            assert_in_space(space[key], value)
        return
    assert obs.shape[1:] == tuple(space.shape), f"observation {tuple(obs.shape)}, space {space}"
    kind = torch.empty(0, dtype=obs.dtype).numpy().dtype
    assert kind == space.dtype, f"observation {obs.dtype}, space {space}"
    if hasattr(space, "low"):
        low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
        assert bool((obs >= low).all()), f"below its bound: {obs[obs < low.expand_as(obs)][:3]}"
        assert bool((obs <= high).all()), f"above its bound: {obs[obs > high.expand_as(obs)][:3]}"
    elif hasattr(space, "nvec"):
        assert bool(((obs >= 0) & (obs < torch.as_tensor(space.nvec))).all())
    elif hasattr(space, "n"):
        assert bool(((obs >= 0) & (obs < int(space.n))).all())


def check_env(
    make_env: MakeEnv,
    *,
    num_envs: int = 8,
    steps: int = 200,
    invariants: Invariants | None = None,
    actions: Actions = random_actions,
    reward_range: tuple[float, float] | None = None,
    split: bool = True,
    must_end: bool = True,
    deterministic: bool = False,
) -> None:
    """Run every common check.

    Args:
        make_env: builds the environment from `num_envs` and `generator` (one, or a list of them).
        num_envs: copies (even).
        steps: random steps of the long run.
        invariants: asserts after every step of the long run.
        actions: how to act; default uniform and legal.
        reward_range: least and greatest reward of a step.
        split: also compare two blocks with the same rows run alone (snapshots must hold tensors [N, ...] only).
        must_end: the long run has to see an episode end.
        deterministic: nothing but beginning an episode is random: where there is a GPU, it gives the same transitions.
    """
    pytest.importorskip("gymnasium", reason="observation spaces are Gymnasium's")
    before = torch.get_rng_state()
    _random_run(make_env, num_envs, steps, invariants, actions, reward_range, must_end)
    _determinism(make_env, num_envs, actions)
    _snapshots(make_env, num_envs, actions)
    if split:
        _blocks(make_env, num_envs, actions)
    if deterministic:
        assert_same_on("cuda" if torch.cuda.is_available() else "cpu", make_env, num_envs, actions)
    _bad_actions(make_env, num_envs)
    assert torch.equal(before, torch.get_rng_state()), "the global generator was used"


def _random_run(
    make_env: MakeEnv,
    num_envs: int,
    steps: int,
    invariants: Invariants | None,
    actions: Actions,
    reward_range: tuple[float, float] | None,
    must_end: bool,
) -> None:
    env = make_env(num_envs=num_envs, generator=generator(1))
    act = generator(2)
    obs, info = env.reset()
    assert_in_space(env.single_observation_space, agent_rows(env, obs))
    assert env.has_action_mask == ("action_mask" in info)
    if env.obs_shape:
        assert leaves(obs)[0].shape[1:] == env.obs_shape
    kinds = [o.dtype for o in leaves(obs)]
    kept: list[tuple[Obs, list[Tensor]]] = []
    ends = 0
    for t in range(steps):
        if t < 20:
            kept.append((obs, [o.clone() for o in leaves(obs)]))
            state = env.state_dict()
            assert same(env.observe(), env.observe()), "observe() changes something"
            assert same(env.observe(), obs), "step() hands out another observation than observe()"
            _assert_same_state(state, env.state_dict())
        step = env.step(actions(env, act))
        obs = step.obs
        for o, kind in zip(leaves(step.obs) + leaves(step.final_obs), kinds * 2, strict=True):
            assert o.dtype == kind
            assert len(o) == num_envs
        assert step.reward.dtype == torch.float32
        assert step.reward.shape[0] == num_envs
        assert bool(step.reward.isfinite().all())
        if reward_range is not None:
            assert float(step.reward.min()) >= reward_range[0] - 1e-6
            assert float(step.reward.max()) <= reward_range[1] + 1e-6
        for flag in (step.terminated, step.truncated):
            assert flag.dtype == torch.bool
            assert flag.shape == (num_envs,)
        assert not bool((step.terminated & step.truncated).any()), "terminated and truncated at once"
        running = ~step.ended
        for new, final in zip(leaves(step.obs), leaves(step.final_obs), strict=True):
            assert torch.equal(new[running], final[running]), "final_obs differs where nothing ended"
        assert torch.equal(env.elapsed == 0, step.ended), "an ended copy begins anew in the same step"
        assert all(value.shape[0] == num_envs for value in step.info.values())
        assert_in_space(env.single_observation_space, agent_rows(env, step.obs))
        assert_in_space(env.single_observation_space, agent_rows(env, step.final_obs))
        if invariants is not None:
            invariants(env, step)
        ends += int(step.ended.sum())
    assert ends > 0 or not must_end, "no episode ended: give more steps"
    for handed_out, copy in kept:
        assert all(torch.equal(a, b) for a, b in zip(leaves(handed_out), copy, strict=True)), (
            "an observation handed out earlier changed"
        )


def _assert_same_state(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert set(a) == set(b)
    for key in a:
        if isinstance(a[key], Tensor):
            assert torch.equal(a[key], b[key]), key
        elif isinstance(a[key], dict):
            _assert_same_state(a[key], b[key])
        elif isinstance(a[key], Sequence):
            assert all(torch.equal(x, y) for x, y in zip(a[key], b[key], strict=True)), key


def _play(env: TensorEnv, actions: Actions, seed: int, steps: int) -> list[Step]:
    act = generator(seed)
    return [env.step(actions(env, act)) for _ in range(steps)]


def _determinism(make_env: MakeEnv, num_envs: int, actions: Actions, steps: int = 40) -> None:
    first = make_env(num_envs=num_envs, generator=generator(3))
    second = make_env(num_envs=num_envs, generator=generator(4))
    a, _ = first.reset(seed=7)
    b, _ = second.reset(seed=7)
    assert same(a, b)
    for x, y in zip(_play(first, actions, 5, steps), _play(second, actions, 5, steps), strict=True):
        assert_same_step(x, y)


def _snapshots(make_env: MakeEnv, num_envs: int, actions: Actions, steps: int = 40) -> None:
    env = make_env(num_envs=num_envs, generator=generator(6))
    env.reset()
    _play(env, actions, 7, 13)
    snapshot = env.state_dict()
    first = _play(env, actions, 8, steps)
    other = make_env(num_envs=num_envs, generator=generator(99))
    other.reset()
    for again in (env, other):
        again.load_state_dict(snapshot)
        for x, y in zip(first, _play(again, actions, 8, steps), strict=True):
            assert_same_step(x, y)


def assert_same_on(
    device: str, make_env: MakeEnv, num_envs: int, actions: Actions = random_actions, steps: int = 40
) -> None:
    """The same state and actions give the same transition on another device, step by step."""
    env = make_env(num_envs=num_envs, generator=generator(21))
    twin = make_env(num_envs=num_envs, generator=generator(21)).to(device)
    env.reset()
    act = generator(22)
    for _ in range(steps):
        for name in ("elapsed", "_ended", *env.state_names):
            setattr(twin, name, getattr(env, name).clone().to(device))
        action = actions(env, act)
        here, there = env.step(action), twin.step(action.to(device))
        for x, y in zip(leaves(here.final_obs), leaves(there.final_obs), strict=True):
            torch.testing.assert_close(x, y.cpu())
        for field in ("reward", "terminated", "truncated"):
            torch.testing.assert_close(getattr(here, field), getattr(there, field).cpu())


def _blocks(make_env: MakeEnv, num_envs: int, actions: Actions, steps: int = 60) -> None:
    """Two blocks of rows with a generator each give what each gives alone: from a reset, and from a snapshot."""
    half = num_envs // 2
    parts = (slice(0, half), slice(half, num_envs))
    both = make_env(num_envs=num_envs, generator=[generator(11), generator(12)])
    alone = [make_env(num_envs=half, generator=generator(11 + b)) for b in range(2)]
    for env in (both, *alone):
        env.reset()
    act = generator(13)
    for t in range(steps):
        if t == steps // 2:
            snapshot = both.state_dict()
            alone = [make_env(num_envs=half, generator=generator(50)) for _ in range(2)]
            for b, env in enumerate(alone):
                env.load_state_dict(sliced(snapshot, parts[b], slice(b, b + 1)))
        action = actions(both, act)
        whole = both.step(action)
        for b, env in enumerate(alone):
            assert_same_step(rows(whole, parts[b]), env.step(action[parts[b]]))


def _bad_actions(make_env: MakeEnv, num_envs: int) -> None:
    env = make_env(num_envs=num_envs, generator=generator(1))
    env.reset()
    if env.num_actions is None:
        return
    agents = (len(env.agents),) if isinstance(env, TensorMultiEnv) else ()
    for bad in (-1, env.num_actions):
        with pytest.raises(ValueError, match="actions are"):
            env.step(torch.full((num_envs, *agents), bad))


def check_tabular(env: TensorEnv, steps: int, seed: int = 0) -> None:
    """Random play has the frequencies of `tabular()`: first states, successors, expected rewards.

    Chi-square over every (state, action) with an expected count of 5 in each successor; p > 1e-4. The environment
    may not truncate (its table knows no time limit).
    """
    stats = pytest.importorskip("scipy.stats", reason="the chi-square distribution is scipy's")
    table = env.tabular()
    states, actions = table.R.shape
    assert torch.allclose(table.P.sum(2), torch.ones(states, actions, dtype=torch.float64))
    assert abs(float(table.rho0.sum()) - 1) < 1e-12
    ends = table.terminal
    assert torch.equal(table.P[ends].argmax(2), ends.nonzero().expand(-1, actions))
    assert not bool(table.R[ends].any())
    act = generator(seed)
    env.reset(seed=seed)
    counts = torch.zeros(states, actions, states, dtype=torch.float64)
    gained = torch.zeros(states, actions, dtype=torch.float64)
    starts = torch.bincount(env.state_index(), minlength=states).double()
    began = env.num_envs
    # Run without autoreset, so that the state in which an episode ends can be read.
    env.autoreset = False
    for _ in range(steps):
        before = env.state_index()
        action = random_actions(env, act)
        step = env.step(action)
        after = env.state_index()
        counts.view(-1).index_put_(
            (((before * actions) + action) * states + after,),
            torch.ones(env.num_envs, dtype=torch.float64),
            accumulate=True,
        )
        gained.view(-1).index_put_((before * actions + action,), step.reward.double(), accumulate=True)
        assert torch.equal(step.terminated, table.terminal[after]), "terminated is not what the table says"
        assert not bool(step.truncated.any()), "give a world without a time limit"
        if bool(step.ended.any()):
            env.reset_where(step.ended)
            starts += torch.bincount(env.state_index()[step.ended], minlength=states)
            began += int(step.ended.sum())
    visits = counts.sum(2)
    assert not bool(counts[table.P == 0].any()), "a transition that the table calls impossible"
    _chi_square(stats, starts, table.rho0 * began)
    _chi_square(stats, counts, table.P * visits.unsqueeze(2))
    seen = visits > 0
    if bool(((table.P == 0) | (table.P == 1)).all()):
        assert torch.allclose(gained[seen] / visits[seen], table.R[seen], atol=1e-6)
    else:
        total, expected = float(gained.sum()), float((table.R * visits).sum())
        spread = float(visits.sum()) ** 0.5 * max(1.0, float(table.R.abs().max()))
        assert abs(total - expected) < 4 * spread


def _chi_square(stats: Any, observed: Tensor, expected: Tensor) -> None:
    observed, expected = observed.reshape(-1, observed.shape[-1]), expected.reshape(-1, expected.shape[-1])
    enough = ((expected >= 5) | (expected == 0)).all(1) & ((expected > 0).sum(1) > 1)
    observed, expected = observed[enough], expected[enough]
    possible = expected > 0
    if not bool(possible.any()):
        return
    statistic = float(((observed - expected)[possible] ** 2 / expected[possible]).sum())
    freedom = int(possible.sum()) - len(observed)
    assert stats.chi2.sf(statistic, freedom) > 1e-4, (
        f"chi-square {statistic:.1f}, {freedom} degrees of freedom"
    )
