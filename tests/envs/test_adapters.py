"""Adapters: the same seeds and actions give the same trajectories on both sides, and every row is a true one."""

import multiprocessing
import sys
import types
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from assay._extras import MissingExtra
from assay.envs.adapters import (
    as_gymnasium,
    as_gymnasium_vector,
    as_pettingzoo,
    as_torchrl,
    from_envpool,
    from_gymnasium,
    from_meltingpot,
    from_mpe2,
    from_pettingzoo,
)

from .counters import Counter, Painting, Pair, Two


def actions(steps: int, copies: int, kinds: int = 2) -> torch.Tensor:
    return torch.randint(kinds, (steps, copies), generator=torch.Generator().manual_seed(1))


class Count(gymnasium.Env):
    """Observes (episode, step); writes into one buffer for ever, as careless environments do."""

    observation_space = gymnasium.spaces.Box(0, 1e6, (2,), np.float64)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, length: int = 4, both: bool = False):
        self.length, self.both = length, both
        self.buffer = np.zeros(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.buffer[:] = (self.buffer[0] + 1, 0)
        return self.buffer, {"draw": float(self.np_random.random())}

    def step(self, action: int) -> Any:
        if action == 2:
            raise RuntimeError("broken on purpose")
        self.buffer[1] += 1
        over = bool(self.buffer[1] >= self.length)
        info = {"step": int(self.buffer[1]), "name": "x"}
        return self.buffer, self.buffer[1], over and (self.both or action == 1), over, info


# Outwards.


@pytest.mark.parametrize("world", [Counter, Painting, Pair])
def test_check_env_is_content(world: type[Counter]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(as_gymnasium(world(1)), skip_render_check=True)
    assert as_gymnasium(Painting(1), render_mode="rgb_array").metadata["render_modes"] == ["rgb_array"]


@pytest.mark.parametrize("autoreset", [True, False])
def test_one_copy_tells_the_same_story_through_gymnasium(autoreset: bool) -> None:
    tensors, env = Counter(1, max_steps=4), as_gymnasium(Counter(1, max_steps=4, autoreset=autoreset))
    first, _ = tensors.reset(seed=5)
    seen, _ = env.reset(seed=5)
    assert np.array_equal(first[0].numpy(), seen)
    ends = 0
    for action in actions(40, 1, 3):
        step = tensors.step(action)
        seen, reward, terminated, truncated, info = env.step(int(action))
        assert np.array_equal(step.final_obs[0].numpy(), seen)
        assert (reward, terminated, truncated) == (
            float(step.reward),
            bool(step.terminated),
            bool(step.truncated),
        )
        assert info["count"] == step.info["count"]
        if terminated or truncated:
            # The random tag of the next episode is the same: nothing was drawn twice.
            seen, _ = env.reset()
            assert np.array_equal(step.obs[0].numpy(), seen)
            ends += 1
    assert ends >= 8


def test_two_resets_begin_two_episodes() -> None:
    env = as_gymnasium(Counter(1))
    first, _ = env.reset(seed=0)
    second, _ = env.reset()
    assert first[0] + 1 == second[0]
    assert first[2] != second[2]


def test_gymnasium_takes_one_copy_and_known_render_modes() -> None:
    with pytest.raises(ValueError, match="num_envs=1"):
        as_gymnasium(Counter(2))
    with pytest.raises(ValueError, match="render modes"):
        as_gymnasium(Counter(1), render_mode="rgb_array")
    with pytest.raises(ValueError, match="resets by itself"):
        as_gymnasium_vector(Counter(2, autoreset=False))


def test_vector_tells_the_same_story_and_hands_out_final_observations() -> None:
    tensors, env = Counter(3, max_steps=4), as_gymnasium_vector(Counter(3, max_steps=4))
    assert env.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.SAME_STEP
    obs, _ = tensors.reset(seed=2)
    seen, _ = env.reset(seed=2)
    assert np.array_equal(obs.numpy(), seen)
    for action in actions(30, 3, 3):
        step = tensors.step(action)
        seen, reward, terminated, truncated, info = env.step(action.numpy())
        assert np.array_equal(step.obs.numpy(), seen)
        assert seen in env.observation_space
        assert np.array_equal(step.reward.numpy(), reward)
        assert np.array_equal(step.terminated.numpy(), terminated)
        assert np.array_equal(step.truncated.numpy(), truncated)
        for row in range(3):
            if step.ended[row]:
                assert np.array_equal(info["final_obs"][row], step.final_obs[row].numpy())
                assert info["final_info"]["count"][row] == step.info["count"][row]
                assert info["_final_obs"][row]
                assert not info["_count"][row]
            elif "final_obs" in info:
                assert info["final_obs"][row] is None


def test_vector_partial_reset() -> None:
    env = as_gymnasium_vector(Counter(2))
    env.reset(seed=0)
    env.step(np.zeros(2, dtype=np.int64))
    seen, _ = env.reset(options={"reset_mask": np.array([True, False])})
    assert seen[:, 0].tolist() == [2, 1]
    assert seen[:, 1].tolist() == [0, 1]
    with pytest.raises(ValueError, match="one int"):
        env.reset(seed=[1, 2])


def test_gymnasium_wrappers_work_on_the_vector() -> None:
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(as_gymnasium_vector(Counter(2)))
    env.reset(seed=0)
    for _ in range(5):
        *_, info = env.step(np.zeros(2, dtype=np.int64))
    assert info["episode"]["r"].tolist() == [15.0, 15.0]
    assert info["episode"]["l"].tolist() == [5, 5]


@pytest.mark.parametrize("length", [4, 10_000])
def test_parallel_api_test_is_content(length: int, capsys: pytest.CaptureFixture[str]) -> None:
    from pettingzoo.test import parallel_api_test

    parallel_api_test(as_pettingzoo(Two(1, length)), num_cycles=30)
    assert "Passed" in capsys.readouterr().out


def test_pettingzoo_there_and_back() -> None:
    moves = torch.randint(3, (12, 2, 2), generator=torch.Generator().manual_seed(0))
    tensors, back = Two(2), from_pettingzoo(lambda: as_pettingzoo(Two(1)), 2)
    assert back.agents == tensors.agents
    assert back.num_actions == 3
    assert back.obs_shape == (2, 2)
    assert torch.equal(tensors.reset(seed=0)[0], back.reset(seed=0)[0])
    for move in moves:
        mine, theirs = tensors.step(move), back.step(move)
        for name in ("obs", "final_obs", "reward", "terminated", "truncated"):
            assert torch.equal(getattr(mine, name), getattr(theirs, name)), name
        assert theirs.info["alive"].all(1).equal(~mine.ended)
    with pytest.raises(ValueError, match="one action an agent"):
        back.step(torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("world", [Counter, Painting, Pair])
def test_torchrl_specs_hold(world: type[Counter]) -> None:
    pytest.importorskip("torchrl", reason="peer library")
    from torchrl.envs.utils import check_env_specs

    check_env_specs(as_torchrl(world(3)), seed=0, break_when_any_done="both")


def test_torchrl_tells_the_same_story() -> None:
    pytest.importorskip("torchrl", reason="peer library")
    tensors, env = Counter(3, max_steps=4), as_torchrl(Counter(3, max_steps=4))
    env.set_seed(7)
    tensors.seed(7)
    obs, _ = tensors.reset()
    td = env.reset()
    assert torch.equal(td["observation"], obs)
    for action in actions(30, 3, 3):
        step = tensors.step(action)
        td["action"] = action
        whole, td = env.step_and_maybe_reset(td)
        assert torch.equal(whole["next", "observation"], step.final_obs)
        assert torch.equal(whole["next", "reward"][:, 0], step.reward)
        assert torch.equal(whole["next", "terminated"][:, 0], step.terminated)
        assert torch.equal(whole["next", "truncated"][:, 0], step.truncated)
        assert torch.equal(td["observation"], step.obs)


# Inwards.


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_every_row_is_a_true_transition(mode: str) -> None:
    env = from_gymnasium(Count, 2, mode, context="fork", length=4)
    try:
        obs, _ = env.reset(seed=0)
        for t in range(1, 13):
            step = env.step(torch.tensor([0, 1]))
            assert step.reward.tolist() == [(t - 1) % 4 + 1.0] * 2
            assert torch.equal(step.final_obs[:, 1], step.reward), "the buffer was overwritten by the reset"
            assert torch.equal(step.final_obs[:, 0], obs[:, 0])
            assert step.ended.tolist() == [t % 4 == 0] * 2
            assert step.truncated.tolist() == [t % 4 == 0, False]
            assert step.terminated.tolist() == [False, t % 4 == 0], "termination wins"
            assert step.info["step"].tolist() == [(t - 1) % 4 + 1] * 2
            assert "name" not in step.info
            assert step.obs[:, 1].tolist() == [t % 4] * 2
            assert "valid" not in step.info
            assert step.obs.dtype == torch.float32
            assert env.elapsed.tolist() == [t % 4] * 2
            obs = step.obs
    finally:
        env.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_next_step_marks_its_dummy_rows(mode: str) -> None:
    env = from_gymnasium(Count, 2, mode, autoreset_mode="next_step", context="fork", length=4)
    try:
        env.reset(seed=0)
        valid = []
        for _ in range(12):
            step = env.step(torch.tensor([0, 1]))
            valid.append(bool(step.info["valid"][0]))
            if not valid[-1]:
                assert step.reward.tolist() == [0, 0]
                assert not step.ended.any()
                assert step.obs[:, 1].tolist() == [0, 0]
                assert env.elapsed.tolist() == [0, 0]
            assert torch.equal(step.obs, step.final_obs)
    finally:
        env.close()
    assert valid == [True] * 4 + [False] + [True] * 4 + [False] + [True] * 2


def test_same_step_vector_environments_are_taken_as_they_are() -> None:
    mine, theirs = Counter(3, max_steps=4), from_gymnasium(as_gymnasium_vector(Counter(3, max_steps=4)))
    assert torch.equal(mine.reset(seed=4)[0], theirs.reset(seed=4)[0])
    for action in actions(30, 3, 3):
        a, b = mine.step(action), theirs.step(action)
        for name in ("obs", "final_obs", "reward", "terminated", "truncated"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert torch.equal(a.info["count"], b.info["count"])


def test_seeds_as_in_gymnasium_and_from_the_generator() -> None:
    env = from_gymnasium(Count, 3)
    _, info = env.reset(seed=11)
    plain = [float(np.random.Generator(np.random.PCG64(11 + i)).random()) for i in range(3)]
    assert info["draw"].tolist() == pytest.approx(plain)
    _, later = env.reset()
    assert not torch.equal(info["draw"], later["draw"])

    def first(seed: int) -> torch.Tensor:
        return from_gymnasium(Count, 3, generator=torch.Generator().manual_seed(seed)).reset()[1]["draw"]

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
    both = [torch.Generator().manual_seed(s) for s in (1, 2)]
    assert torch.equal(
        from_gymnasium(Count, 6, generator=both).reset()[1]["draw"], torch.cat((first(1), first(2)))
    )


def test_without_autoreset_ended_copies_wait() -> None:
    env = from_gymnasium(Count, 2, autoreset=False, length=1)
    env.reset(seed=0)
    step = env.step(torch.tensor([0, 1]))
    assert step.ended.all()
    assert torch.equal(step.obs, step.final_obs)
    with pytest.raises(ValueError, match="reset_where"):
        env.step(torch.tensor([0, 1]))
    obs = env.reset_where(torch.tensor([True, True]))
    assert obs[:, 1].tolist() == [0, 0]
    env.step(torch.tensor([0, 1]))


def test_a_broken_copy_leaves_no_process_behind() -> None:
    env = from_gymnasium(Count, 4, "async", context="fork")
    env.reset(seed=0)
    with pytest.raises(RuntimeError, match="on purpose"):
        env.step(torch.tensor([0, 0, 2, 0]))
    assert not multiprocessing.active_children()
    env.close()


def test_actions_and_spaces_that_do_not_fit_are_said_so() -> None:
    env = from_gymnasium(Count, 2)
    env.reset()
    with pytest.raises(ValueError, match=r"0\.\.2"):
        env.step(torch.tensor([0, 3]))
    with pytest.raises(NotImplementedError, match="snapshot"):
        env.state_dict()
    with pytest.raises(ValueError, match="mode is one of"):
        from_gymnasium(Count, 2, "fast")
    with pytest.raises(ValueError, match="how many copies"):
        from_gymnasium(Count)
    assert env.single_observation_space.dtype == np.float32


def test_cartpole_is_gymnasiums_own() -> None:
    env = from_gymnasium("CartPole-v1", 2)
    plain = [gymnasium.make("CartPole-v1") for _ in range(2)]
    obs, _ = env.reset(seed=3)
    for i, world in enumerate(plain):
        assert np.allclose(world.reset(seed=3 + i)[0], obs[i].numpy())
    for action in actions(60, 2):
        step = env.step(action)
        for i, world in enumerate(plain):
            seen, reward, terminated, truncated, _ = world.step(int(action[i]))
            assert np.allclose(seen, step.final_obs[i].numpy())
            assert reward == step.reward[i]
            assert (terminated, truncated) == (bool(step.terminated[i]), bool(step.truncated[i]))
            if terminated or truncated:
                assert np.allclose(world.reset()[0], step.obs[i].numpy())


def test_envpool_missing_and_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(MissingExtra, match="pip install envpool"):
        from_envpool("Pong-v5", 2)

    def make(task_id: str, env_type: str, num_envs: int, seed: int) -> Any:
        # Gymnasium's default vector environment resets at the next step, as EnvPool does.
        pool = gymnasium.vector.SyncVectorEnv([Count] * num_envs)
        return types.SimpleNamespace(
            observation_space=pool.single_observation_space,
            action_space=pool.single_action_space,
            reset=pool.reset,
            step=pool.step,
            close=pool.close,
        )

    monkeypatch.setitem(sys.modules, "envpool", types.SimpleNamespace(make=make))
    env = from_envpool("Count-v0", 2)
    env.reset()
    valid = [bool(env.step(torch.zeros(2, dtype=torch.int64)).info["valid"][1]) for _ in range(7)]
    assert valid == [True] * 4 + [False, True, True]


def test_particle_worlds_are_their_own() -> None:
    spread = pytest.importorskip("mpe2.simple_spread_v3", reason="the extra mpe2")
    env = from_mpe2("simple_spread_v3", 3, N=2, max_cycles=6)
    assert env.agents == ("agent_0", "agent_1")
    obs, _ = env.reset(seed=4)
    assert obs.shape == (3, 2, 12)  # type: ignore[union-attr]
    copies = [spread.parallel_env(N=2, max_cycles=6) for _ in range(3)]
    for i, copy in enumerate(copies):
        seen, _ = copy.reset(seed=4 + i)
        assert np.allclose(np.stack(list(seen.values())), obs[i])  # type: ignore[index]
    generator = torch.Generator().manual_seed(0)
    for t in range(6):
        move = torch.randint(5, (3, 2), generator=generator)
        step = env.step(move)
        for i, copy in enumerate(copies):
            seen, reward, *_ = copy.step(dict(zip(env.agents, move[i].tolist(), strict=True)))
            assert np.allclose(np.stack(list(seen.values())), step.final_obs[i])  # type: ignore[index]
            assert np.allclose(list(reward.values()), step.reward[i])
        assert step.truncated.tolist() == [t == 5] * 3
        assert not step.terminated.any()
    pushed = from_mpe2("simple_spread_v3", 1, continuous_actions=True, generator=generator)
    assert pushed.num_actions is None
    with pytest.raises(ValueError, match=r"unknown scenario 'simple_v99': choose from .*simple_spread_v3"):
        from_mpe2("simple_v99", 1)
    with pytest.raises(ValueError, match="different spaces"):
        from_mpe2("simple_speaker_listener_v4", 1)


class Substrate:
    """Speaks as Melting Pot does; player i earns i times the step, the last step's discount is given."""

    def __init__(self, players: int, length: int, discount: float):
        self.players, self.length, self.discount = players, length, discount
        self.clock, self.acted, self.closed = 0, [], False

    def action_spec(self) -> list[Any]:
        return [types.SimpleNamespace(num_values=8)] * self.players

    def observation_spec(self) -> list[Any]:
        picture = types.SimpleNamespace(shape=(4, 5, 3), dtype=np.dtype("uint8"))
        ready = types.SimpleNamespace(shape=(), dtype=np.dtype("float64"), minimum=0.0, maximum=1.0)
        return [{"RGB": picture, "READY_TO_SHOOT": ready}] * self.players

    def _timestep(self) -> Any:
        last = self.clock == self.length
        seen = [
            {"RGB": np.full((4, 5, 3), 10 * i + self.clock, np.uint8), "READY_TO_SHOOT": np.float64(1)}
            for i in range(self.players)
        ]
        return types.SimpleNamespace(
            observation=seen,
            reward=[np.float64(i * self.clock) for i in range(self.players)],
            discount=self.discount if last else 1.0,
            last=lambda: last,
        )

    def reset(self) -> Any:
        self.clock = 0
        return self._timestep()

    def step(self, actions: list[int]) -> Any:
        self.clock += 1
        self.acted.append(actions)
        return self._timestep()

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(("discount", "max_cycles"), [(0.0, None), (1.0, None), (0.0, 2)])
def test_melting_pot(discount: float, max_cycles: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Substrate] = []

    def build(name: str, roles: list[str]) -> Substrate:
        assert name == "clean_up"
        built.append(Substrate(len(roles), 3, discount))
        return built[-1]

    module = types.SimpleNamespace(
        build=build, get_config=lambda name: types.SimpleNamespace(default_player_roles=["default"] * 3)
    )
    monkeypatch.setitem(sys.modules, "meltingpot", types.SimpleNamespace(substrate=module))
    monkeypatch.setitem(sys.modules, "meltingpot.substrate", module)
    env = from_meltingpot("clean_up", 2, max_cycles=max_cycles)
    assert env.agents == ("player_0", "player_1", "player_2")
    assert (env.num_actions, env.obs_shape) == (8, (3, 4, 5, 3))
    obs, _ = env.reset(seed=0)
    assert obs.dtype == torch.uint8  # type: ignore[union-attr]
    length = max_cycles or 3
    for t in range(1, length + 1):
        step = env.step(torch.tensor([[1, 2, 3], [4, 5, 6]]))
        assert step.reward.tolist() == [[0, t, 2 * t]] * 2
        assert step.final_obs[1, 2, 0, 0].tolist() == [20 + t] * 3  # type: ignore[index]
    assert step.obs[1, 2, 0, 0].tolist() == [20] * 3  # type: ignore[index]
    cut = discount == 1 or max_cycles is not None
    assert step.truncated.tolist() == [cut] * 2
    assert step.terminated.tolist() == [not cut] * 2
    assert built[1].acted[0] == [4, 5, 6]
    env.close()
    assert all(copy.closed for copy in built)
    assert len(from_meltingpot("clean_up", 1, roles=["default"], observation="READY_TO_SHOOT").agents) == 1
    with pytest.raises(ValueError, match="choose from READY_TO_SHOOT, RGB"):
        from_meltingpot("clean_up", 1, observation="DEPTH")


def test_missing_multi_agent_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mpe2", "meltingpot", "meltingpot.substrate"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"pip install pettingzoo mpe2 .*assay\[mpe2\]"):
        from_mpe2("simple_spread_v3", 1)
    with pytest.raises(MissingExtra, match=r"pip install dm-meltingpot .*assay\[meltingpot\]"):
        from_meltingpot("clean_up", 1)


def test_importing_assay_envs_imports_no_library() -> None:
    import subprocess

    code = (
        "import sys, assay.envs, assay.envs.adapters, assay.envs.wrappers, assay.envs.registry, assay.envs.real;"
        "names = ('gymnasium', 'pettingzoo', 'torchrl', 'ale_py', 'vizdoom', 'mujoco', 'minigrid', 'cv2', 'mpe2');"
        "assert not [n for n in names if n in sys.modules], [n for n in names if n in sys.modules]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
