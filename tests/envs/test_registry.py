"""Every world by name, and as a Gymnasium id."""

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import assay.envs
from assay.envs.base import TensorEnv, TensorMultiEnv
from assay.envs.registry import WORLDS, make, register_gymnasium


def sampled(env: TensorEnv, seed: int) -> torch.Tensor:
    """Actions drawn by the action space."""
    space = gymnasium.vector.utils.batch_space(env.single_action_space, env.num_envs)
    space.seed(seed)
    return torch.as_tensor(space.sample())


@pytest.mark.parametrize("name", WORLDS)
def test_names_lead_to_worlds_that_step(name: str) -> None:
    env = make(name, 3)
    assert type(env).__name__ == name
    assert env.num_envs == 3
    env.reset(seed=0)
    assert env.step(sampled(env, 0)).reward.shape == (3,)


@pytest.mark.parametrize("name", WORLDS)
def test_gymnasium_checks_every_world(name: str) -> None:
    register_gymnasium()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(gymnasium.make(f"assay/{name}-v0").unwrapped, skip_render_check=True)


@pytest.mark.parametrize("name", WORLDS)
def test_ids_tell_the_same_story_as_the_world(name: str) -> None:
    register_gymnasium()
    tensors, vector = make(name, 4), gymnasium.make_vec(f"assay/{name}-v0", num_envs=4)
    obs, _ = tensors.reset(seed=3)
    seen, _ = vector.reset(seed=3)
    assert np.array_equal(obs, seen)
    for t in range(20):
        action = sampled(tensors, t)
        step = tensors.step(action)
        seen, reward, terminated, truncated, _ = vector.step(action.numpy())
        assert np.array_equal(step.obs, seen)
        assert np.array_equal(step.reward, reward)
        assert np.array_equal(step.terminated, terminated)
        assert np.array_equal(step.truncated, truncated)


def test_registering_twice_changes_nothing_and_unknown_names_are_said_so() -> None:
    assert register_gymnasium() == register_gymnasium()
    assert "assay/Catch-v0" in gymnasium.registry
    assert make("assay/Catch-v0").num_envs == 1
    with pytest.raises(ValueError, match="unknown world 'Chess'"):
        make("Chess")


def test_no_public_single_agent_world_is_forgotten() -> None:
    # Worlds that need to be told what they are made of have no id.
    composed = {
        "DensityGrid",
        "GridWorld",
        "RandomMDP",
        "TabularWorld",
        "MultiTask",
        "SelfPlay",
        "TaskSuite",
        "RoomsSuite",
        "Board",
    }
    public = {name: getattr(assay.envs, name) for name in assay.envs.__all__}
    worlds = {
        name
        for name, value in public.items()
        if isinstance(value, type)
        and issubclass(value, TensorEnv)
        and not issubclass(value, TensorMultiEnv | assay.envs.Wrapper)
        and value not in (TensorEnv, assay.envs.ScenarioEnv)
    }
    assert worlds - composed == set(WORLDS)


def test_async_copies_of_a_registered_id() -> None:
    register_gymnasium()
    env = assay.envs.from_gymnasium("assay/Catch-v0", 2)
    env.reset(seed=0)
    assert env.step(torch.zeros(2, dtype=torch.int64)).obs.shape[0] == 2  # type: ignore[union-attr]
