"""IMPALA learns: with lag, with actors in other processes, and through the death of one of them."""

import os
import signal

import pytest
import torch

from assay.envs import CartPole, Catch, DoorKeyGrid, TensorEnv
from assay.rl.actorlearner import ActorLearner
from assay.rl.evaluate import evaluate
from assay.rl.impala import VTraceLearner
from assay.rl.nets import CategoricalHead, MLPTorso, ValueHead
from assay.rl.policies import ActorCritic, actor_critic
from assay.rl.schedules import Linear

pytestmark = pytest.mark.slow


def _g(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def catch(index: int) -> Catch:
    """An actor's world, seeded by the actor (a function of a module: other processes import it)."""
    return Catch(32, view="flat", generator=_g(index))


def catch_policy() -> ActorCritic:
    """Always the same first weights."""
    return actor_critic(Catch(1, view="flat"), generator=_g(0))


def key_policy(env: TensorEnv, generator: torch.Generator | None = None) -> ActorCritic:
    """A perceptron on the flattened picture."""
    torso = MLPTorso((4 * 7 * 7, 64, 64), "relu", obs_ndim=3, generator=generator)
    return ActorCritic(
        torso, CategoricalHead(64, env.num_actions, generator=generator), ValueHead(64, generator=generator)
    )


def _learner(model: ActorCritic, lr: float, **options: object) -> VTraceLearner:
    return VTraceLearner(model, torch.optim.Adam(model.parameters(), lr), **options)  # type: ignore[arg-type]


def _score(model: ActorCritic, env: TensorEnv, episodes: int) -> float:
    return float(evaluate(model, env, episodes, generator=_g(9)).returns.mean())


def _catch_score(model: ActorCritic) -> float:
    return _score(model, catch(1000), 256)


def test_it_learns_catch_one_update_behind() -> None:
    learner = _learner(catch_policy(), 5e-3)
    system = ActorLearner(catch, catch_policy, learner, unroll=10, batch_unrolls=2, num_actors=2, lag=1)
    before = _catch_score(learner.model)
    for _ in system.run(150):
        pass
    assert before < 0
    assert _catch_score(learner.model) >= 0.95
    assert set(system.meter.lag) == {0, 1}


CARTPOLE_STEPS = 400 * 64 * 32
"""819,200 environment steps are allowed; about half of them are needed."""


@pytest.mark.parametrize("seed", range(5))
def test_it_balances_the_pole(seed: int) -> None:
    env = CartPole(64, generator=_g(seed + 1000))
    model = actor_critic(env, generator=_g(seed))
    learner = _learner(
        model,
        4e-3,
        gamma=0.98,
        lam=0.95,
        ent_coef=0.01,
        max_grad_norm=5.0,
        learning_rate=Linear(4e-3, 0.0, CARTPOLE_STEPS),
    )
    system = ActorLearner(lambda _: env, lambda: actor_critic(env), learner, unroll=32, lag=1, seed=seed)
    best = 0.0
    for turn in system.run(400):
        if turn.update >= 100 and turn.update % 25 == 0:
            best = _score(model, CartPole(64, generator=_g(seed + 2000)), 64)
            if best >= 475:
                break
    assert best >= 475, f"{best:.0f} after {system.meter.env_steps} steps"
    assert system.meter.env_steps <= CARTPOLE_STEPS


def test_it_fetches_the_key_and_opens_the_door() -> None:
    env = DoorKeyGrid(64, generator=_g(1))
    model = key_policy(env, _g(0))
    learner = _learner(model, 2e-3, gamma=0.98, lam=0.95, max_grad_norm=5.0)
    chance = _score(model, DoorKeyGrid(64, generator=_g(2)), 64)
    system = ActorLearner(lambda _: env, lambda: key_policy(env), learner, unroll=20, lag=1)
    for _ in system.run(300):
        pass
    # A straight way takes some 10 of 250 steps: 0.96.
    assert chance < 0.7
    assert _score(model, DoorKeyGrid(64, generator=_g(2)), 64) >= 0.9


@pytest.mark.parametrize("backend", ["process", "ray"])
def test_it_learns_through_the_death_of_an_actor(backend: str) -> None:
    if backend == "ray":
        ray = pytest.importorskip("ray", reason="needs the extra assay[ray]")
    learner = _learner(catch_policy(), 3e-3)
    with ActorLearner(
        catch, catch_policy, learner, 2, 10, backend=backend, batch_unrolls=2, max_lag=20
    ) as system:
        actors: set[int] = set()
        for turn in system.run(2000):
            if turn.update == 20:
                assert _catch_score(learner.model) < 0.9, "there is still something to learn"
                actor = system._running
                if backend == "ray":
                    ray.kill(actor.actors[0])
                else:
                    os.kill(actor.processes[0].pid, signal.SIGKILL)
            if system.meter.restarts:
                actors |= set(turn.rollout.origin[:, 0].tolist())
            done = actors == {0, 1} and turn.update >= 150
            if done and turn.update % 25 == 0 and _catch_score(learner.model) >= 0.95:
                break
        assert system.meter.restarts == 1
        assert actors == {0, 1}, "both actors work again"
        assert max(system.meter.lag) >= 1, "nobody waited for anybody"
    assert _catch_score(learner.model) >= 0.95
