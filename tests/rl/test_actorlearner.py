"""Actors and learners: what is handed over, how old it is, who dies and what is left behind."""

import multiprocessing
import os
import signal
import threading
from collections import defaultdict

import pytest
import torch

from assay.rl.actorlearner import ActorError, ActorLearner
from assay.rl.impala import VTraceLearner
from assay.rl.replay import TrajectoryReplay
from assay.rl.rollout import Rollout, collect, start
from tests.rl import systems

BACKENDS = ["inline", "thread", "process", pytest.param("ray", marks=pytest.mark.slow)]


def _learner(make_policy=systems.policy, lr: float = 0.1) -> VTraceLearner:
    model = make_policy()
    return VTraceLearner(model, torch.optim.SGD(model.parameters(), lr))


def _weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def _sequences(turns: list[Rollout]) -> dict[int, list[int]]:
    found = defaultdict(list)
    for rollout in turns:
        for actor, made in rollout.origin[::2].tolist():  # two copies an unroll
            found[actor].append(made)
    return found


def test_inline_without_lag_is_the_synchronous_learner_bit_for_bit() -> None:
    learner, by_hand = _learner(), _learner()
    for _ in ActorLearner(systems.line, systems.policy, learner, unroll=5).run(6):
        pass
    env, carry = systems.line(0), None
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        carry = carry or start(env, by_hand.model)
        rollout = Rollout(5, 2)
        carry = collect(env, by_hand.model, rollout, carry, generator, values=False)
        by_hand.update(rollout)
    assert torch.equal(_weights(learner.model), _weights(by_hand.model))


def test_a_chosen_lag_is_the_lag() -> None:
    system = ActorLearner(systems.line, systems.policy, _learner(), unroll=5, lag=3)
    turns = list(system.run(8))
    versions = [int(turn.rollout.policy_version[0]) for turn in turns]
    assert versions == [0, 0, 0, 0, 1, 2, 3, 4]
    assert system.meter.lag == {0: 1, 1: 1, 2: 1, 3: 5}
    # The behaviour is really older: its ratios are not 1. (Recomputed with new weights they would be.)
    assert turns[-1].metrics["rho_max"] - 1 > 1e-5
    assert turns[0].metrics["rho_max"] == pytest.approx(1, abs=1e-6)


def test_replay_mixes_old_unrolls_in() -> None:
    replay = TrajectoryReplay(50, generator=torch.Generator().manual_seed(0))
    system = ActorLearner(
        systems.line, systems.policy, _learner(), unroll=5, batch_unrolls=2, replay=replay, replay_share=0.5
    )
    turns = list(system.run(30))
    assert turns[-1].rollout.num_envs == 4
    lags = torch.stack([29 - t.rollout.policy_version for t in turns[-1:]]).flatten()
    assert len(replay) == 31  # the first batch had nothing to replay: two new unrolls
    assert lags[:2].tolist() == [0, 0]
    ages = [turn.update - 1 - int(turn.rollout.policy_version[2]) for turn in turns[10:]]
    assert max(ages) > 5


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_unroll_is_lost_or_doubled_and_versions_only_grow(backend: str) -> None:
    with ActorLearner(
        systems.line, systems.policy, _learner(), num_actors=2, unroll=5, backend=backend, batch_unrolls=2
    ) as system:
        turns = list(system.run(10))
        summary = system.meter.summary()
    sequences = _sequences([turn.rollout for turn in turns])
    assert all(made == list(range(len(made))) for made in sequences.values())
    assert sum(map(len, sequences.values())) == 20 == sum(system.meter.lag.values())
    assert system.meter.env_steps == 20 * 10
    versions = defaultdict(list)
    for turn in turns:
        for row in range(0, 4, 2):
            versions[int(turn.rollout.origin[row, 0])].append(int(turn.rollout.policy_version[row]))
        assert (turn.rollout.policy_version < turn.update).all()
    assert all(v == sorted(v) for v in versions.values())
    assert summary["env_steps_per_s"] > 0
    assert 0 <= summary["idle_share"] <= 1


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_one_actor_of_any_kind_gives_the_transitions_of_the_inline_one(backend: str) -> None:
    def transitions(kind: str) -> list[torch.Tensor]:
        with ActorLearner(
            systems.line, systems.policy, _learner(lr=0.0), unroll=6, backend=kind, synchronous=True
        ) as system:
            return [turn.rollout.tensors() for turn in system.run(4)]

    for here, there in zip(transitions("inline"), transitions(backend), strict=True):
        assert here.keys() == there.keys()
        for name in here.keys() - {"policy_version"}:
            assert torch.equal(here[name], there[name]), name


@pytest.mark.parametrize("backend", ["thread", "process"])
def test_synchronous_actors_wait_for_the_update(backend: str) -> None:
    with ActorLearner(
        systems.line,
        systems.policy,
        _learner(),
        num_actors=2,
        unroll=4,
        backend=backend,
        batch_unrolls=2,
        synchronous=True,
    ) as system:
        for turn in system.run(5):
            assert (turn.rollout.policy_version == turn.update - 1).all()
    assert set(system.meter.lag) == {0}


def test_back_pressure_bounds_the_lag() -> None:
    with ActorLearner(
        systems.line, systems.policy, _learner(), num_actors=2, unroll=2, backend="thread", queue_size=2
    ) as system:
        for _ in system.run(40):
            pass
    # queue_size unrolls an actor wait in the queue, one before it, and one may just have been begun.
    assert max(system.meter.lag) <= 2 * (2 + 2)


def test_too_old_unrolls_are_dropped() -> None:
    with ActorLearner(
        systems.line,
        systems.policy,
        _learner(),
        num_actors=2,
        unroll=2,
        backend="thread",
        queue_size=4,
        max_lag=0,
    ) as system:
        for turn in system.run(10):
            assert (turn.rollout.policy_version == turn.update - 1).all()
    assert system.meter.dropped > 0


def _actor_processes() -> list[multiprocessing.process.BaseProcess]:
    return [child for child in multiprocessing.active_children() if child.name.startswith("actor-")]


def _actor_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("actor-")]


@pytest.mark.parametrize("backend", ["inline", "thread", "process"])
def test_a_world_that_breaks_ends_the_run_and_leaves_nobody_behind(backend: str) -> None:
    system = ActorLearner(
        systems.faulty, systems.policy, _learner(), num_actors=4, unroll=3, backend=backend, batch_unrolls=4
    )
    expected = ArithmeticError if backend == "inline" else ActorError
    with pytest.raises(expected, match="the world broke"):
        for _ in system.run(20_000):  # until it does: the actor of the broken world may be the last to start
            pass
    assert not _actor_processes()
    assert not _actor_threads()


def test_a_killed_actor_is_replaced_and_the_run_goes_on() -> None:
    with ActorLearner(
        systems.slow, systems.policy, _learner(), num_actors=2, unroll=4, backend="process", batch_unrolls=2
    ) as system:
        for turn in system.run(30):
            if turn.update == 5:
                os.kill(_actor_processes()[0].pid, signal.SIGKILL)
        assert system.meter.restarts == 1
        assert len(_actor_processes()) == 2
        assert {int(i) for i in turn.rollout.origin[:, 0]} <= {0, 1}
    assert not _actor_processes()


@pytest.mark.slow
def test_a_killed_ray_actor_is_replaced_and_the_run_goes_on() -> None:
    ray = pytest.importorskip("ray", reason="needs the extra assay[ray]")
    with ActorLearner(
        systems.slow, systems.policy, _learner(), num_actors=2, unroll=4, backend="ray", batch_unrolls=2
    ) as system:
        actors = set()
        for turn in system.run(5000):
            if turn.update == 4:
                ray.kill(system._running.actors[0])
            if system.meter.restarts:  # a new actor takes a moment to start
                actors |= {int(i) for i in turn.rollout.origin[:, 0]}
                if actors == {0, 1}:
                    break
        assert system.meter.restarts == 1
        assert actors == {0, 1}, "both actors work again"
    assert not ray.is_initialized(), "what it started, it shuts down"


def test_a_system_that_keeps_dying_gives_up() -> None:
    system = ActorLearner(
        systems.slow, systems.policy, _learner(), num_actors=1, unroll=4, backend="process", max_restarts=0
    )

    def kill_whoever_lives() -> None:
        for _ in system.run(50):
            for child in _actor_processes():
                os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(ActorError, match="giving up"):
        kill_whoever_lives()
    assert not _actor_processes()


def test_memory_is_handed_over_by_every_backend() -> None:
    for backend in ("thread", "process"):
        with ActorLearner(
            systems.line,
            systems.memory_policy,
            _learner(systems.memory_policy, 0.0),
            unroll=6,
            backend=backend,
        ) as system:
            for turn in system.run(4):
                rollout, model = turn.rollout, system.learner.model
                out = model(rollout.obs[:-1], rollout.core_state, rollout.first[:-1])
                torch.testing.assert_close(
                    out.dist.log_prob(rollout.action), rollout.logp, rtol=1e-5, atol=1e-5
                )
            assert float(rollout.core_state[0].abs().max()) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "cloud"}, "unknown backend"),
        ({"num_actors": 0}, "num_actors is at least 1"),
        ({"unroll": 0}, "unroll is at least 1"),
        ({"lag": 2, "backend": "thread"}, "needs backend='inline'"),
        ({"lag": 2, "max_lag": 1}, "lag <= max_lag"),
        ({"replay_share": 1.0}, "below 1"),
        ({"synchronous": True, "num_actors": 2}, "fixed number of unrolls"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ActorLearner(systems.line, systems.policy, _learner(), **options)
