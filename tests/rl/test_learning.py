"""That PPO really learns: a control task, a key and a door, and a real MiniGrid level."""

from math import prod

import pytest
import torch

from assay.envs import CartPole, Catch, DoorKeyGrid, TensorEnv
from assay.rl.evaluate import evaluate
from assay.rl.nets import CategoricalHead, MLPTorso, ValueHead
from assay.rl.policies import ActorCritic, actor_critic
from assay.rl.ppo import PPO
from assay.rl.schedules import Linear
from assay.rl.train import train

pytestmark = pytest.mark.slow


def _g(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(5))
def test_cartpole_to_475_within_125k_steps(seed: int) -> None:
    env = CartPole(64, generator=_g(seed), validate=False)
    model = actor_critic(env, generator=_g(1000 + seed))
    # A small weight on the value loss: values near 50 would otherwise take the whole clipped gradient.
    ppo = PPO(
        model,
        torch.optim.Adam(model.parameters(), 2e-3, eps=1e-5),
        gamma=0.98,
        lam=0.9,
        epochs=8,
        vf_coef=0.05,
        ent_coef=0.0,
        learning_rate=Linear(2e-3, 0.0, steps=61 * 64 * 32),
    )
    for update in train(env, model, ppo, 60, 32, generator=_g(2000 + seed)):
        assert update.env_steps <= 125_000
    held_out = CartPole(64, generator=_g(3000 + seed))
    assert evaluate(model, held_out, 64, deterministic=True).returns.mean() >= 475


def _learn(env: TensorEnv, test_env: TensorEnv, updates: int, steps: int = 64) -> float:
    # A perceptron on the flattened picture: at these sizes faster than a convolution, and as good.
    flat = prod(env.obs_shape)
    torsos = [MLPTorso((flat, 64, 64), obs_ndim=len(env.obs_shape), generator=_g(i)) for i in (1, 2)]
    policy, value = CategoricalHead(64, env.num_actions, generator=_g(3)), ValueHead(64, generator=_g(4))
    model = ActorCritic(torsos[0], policy, value, value_torso=torsos[1])
    ppo = PPO(model, torch.optim.Adam(model.parameters(), 2e-3, eps=1e-5), ent_coef=0.01)
    for _ in train(env, model, ppo, updates, steps, generator=_g(5)):
        pass
    return evaluate(model, test_env, 64, generator=_g(6)).returns.mean().item()


def test_catch() -> None:
    assert _learn(Catch(64, generator=_g(0), validate=False), Catch(64, generator=_g(9)), 40) >= 0.95


def test_a_key_opens_the_door_to_the_goal() -> None:
    env = DoorKeyGrid(64, generator=_g(0), validate=False)
    assert _learn(env, DoorKeyGrid(64, generator=_g(9)), 60) >= 0.9


def test_a_real_minigrid_level() -> None:
    pytest.importorskip("minigrid", reason="needs the extra assay[minigrid]")
    from assay.envs.real import minigrid

    def level(seed: int) -> TensorEnv:
        env = minigrid("MiniGrid-Empty-5x5-v0", 16)
        env.seed(seed)
        return env

    assert _learn(level(0), level(1), 25, steps=128) >= 0.9
