"""The impala study: its measures are what they say, its arms differ as named, its paper profile is real code."""

import threading
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
import torch

from assay.envs import Tabular
from assay.lab import Trial, registry, runner
from assay.rl.vtrace import vtrace_operator
from assay.studies.impala import learn, theory, throughput, transfer, worlds
from assay.studies.impala.learn import AgentConfig, LearnConfig

STUDY = registry.load("impala")
TINY = LearnConfig(copies=8, unroll=5, updates=6, lag=2, replay=0, evaluations=2, episodes=8)


def a_trial(folder: Path, arm: str = "a", seed: int = 100) -> Trial:
    return Trial(
        arm,
        seed,
        study="impala",
        profile="laptop",
        device="cpu",
        folder=folder,
        time_limit=120.0,
        report=None,
    )


# Theory.


def by_hand() -> tuple[torch.Tensor, ...]:
    P = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.1, 0.9]]], dtype=torch.float64)
    R = torch.tensor([[1.0, 0], [0, 2]], dtype=torch.float64)
    pi = torch.tensor([[0.8, 0.2], [0.3, 0.7]], dtype=torch.float64)
    mu = torch.tensor([[0.5, 0.5], [0.6, 0.4]], dtype=torch.float64)
    return P, R, pi, mu


def test_iterations_of_a_process_worked_out_by_hand() -> None:
    P, R, pi, mu = by_hand()
    fixed = torch.tensor([10.521401, 11.688716], dtype=torch.float64)
    # Without truncation one application of infinitely long traces is enough ...
    matrix, vector = vtrace_operator(P, R, 0.9, pi, mu, 2.0, 2.0)
    assert theory.iterations(matrix, vector, fixed, 1e-5, 100) == 1
    # ... with the trace cut at 1, ten leave an error of 0.476.
    matrix, vector = vtrace_operator(P, R, 0.9, pi, mu, 2.0, 1.0)
    assert theory.iterations(matrix, vector, fixed, 0.48, 100) == 10
    assert theory.iterations(matrix, vector, fixed, 0.47, 100) == 11
    assert theory.iterations(matrix, vector, fixed, 1e-9, 7) == 7  # the limit


def test_trajectories_follow_policy_and_process() -> None:
    P, R, _, mu = by_hand()
    process = Tabular(P, R, torch.tensor([0.5, 0.5]), torch.zeros(2, dtype=torch.bool))
    states, actions = theory.sample(process, mu, 3, 20_000, torch.Generator().manual_seed(0))
    assert states.shape == (4, 40_000)
    assert states[0].bincount().tolist() == [20_000, 20_000]
    for s in (0, 1):
        here = states[:-1] == s
        assert float(actions[here].double().mean()) == pytest.approx(float(mu[s, 1]), abs=0.01)
        for a in (0, 1):
            reached = states[1:][here & (actions == a)]
            assert float(reached.double().mean()) == pytest.approx(float(P[s, a, 1]), abs=0.015)


def test_rank_correlations() -> None:
    bars = (0.5, 1.0, inf)
    assert theory.rank_correlation(bars, torch.tensor([3.0, 2.0, 1.0])) == pytest.approx(-1)
    assert theory.rank_correlation(bars, torch.tensor([1.0, 3.0, 2.0])) == pytest.approx(0.5)
    assert theory.rank_correlation(bars, torch.ones(3)) == 0.0


def test_garnets_confirm_the_theorem_on_other_seeds(tmp_path: Path) -> None:
    config = theory.TheoryConfig(states=8, trajectories=10)
    for seed in (100, 101):
        metrics = theory.garnets(a_trial(tmp_path, seed=seed), "theory/garnets", config)
        assert metrics["fixed_point_error"] < 1e-8
        assert metrics["iterations_with_c"] < 0


# Learning.


def test_the_behaviour_is_as_old_as_the_arm_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    plain = learn.VTraceLearner.update

    def update(self, rollout, generator=None):
        seen.append((self.correction, self.version - int(rollout.policy_version[0])))
        return plain(self, rollout, generator)

    monkeypatch.setattr(learn.VTraceLearner, "update", update)
    config = replace(TINY, updates=14, rates=(1e-3, 1e-2))
    metrics = learn.lagged(a_trial(tmp_path), "lag10/epsilon", config)
    assert {correction for correction, _ in seen} == {"epsilon"}
    assert [lag for _, lag in seen] == [*range(11), 10, 10, 10] * 2
    rates = [metrics["final_return_at_0.001"], metrics["final_return_at_0.01"]]
    assert metrics["final_return"] == pytest.approx(sum(rates) / 2)


def test_fresh_data_need_no_correction_and_stale_data_are_off_policy(tmp_path: Path) -> None:
    def share(lag: int) -> float:
        config = replace(TINY, lag=lag, updates=20)
        return learn.learn(a_trial(tmp_path), "vtrace", config, 1e-2)["effective_sample_share"]

    assert share(0) == pytest.approx(1, abs=1e-4)
    assert share(5) < 0.999


def test_half_of_a_batch_is_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    widths = []
    plain = learn.VTraceLearner.update

    def update(self, rollout, generator=None):
        widths.append((rollout.num_envs, len(rollout.origin.unique(dim=0))))
        return plain(self, rollout, generator)

    monkeypatch.setattr(learn.VTraceLearner, "update", update)
    config = replace(TINY, replay=50, updates=8)
    metrics = learn.replayed(a_trial(tmp_path), "replay/none", config)
    assert learn.batch_size(config) == 2
    assert {w for w, _ in widths} == {16}
    assert all(unrolls == 2 for _, unrolls in widths), "one new, one from before"
    assert metrics["failed"] == float(metrics["final_return"] < 0.9)


def test_an_agent_learns_catch_under_replay(tmp_path: Path) -> None:
    config = replace(STUDY.config.replay, updates=120, evaluations=1)
    assert learn.replayed(a_trial(tmp_path), "replay/vtrace", config)["final_return"] > 0.6


def test_draws_are_paired_and_within_their_bounds(tmp_path: Path) -> None:
    config = replace(STUDY.config.draws, learn=TINY)
    drawn = [
        learn.drawn(a_trial(tmp_path, seed=seed), arm, config)
        for seed in (100, 101)
        for arm in ("draws/impala", "draws/a2c")
    ]
    assert drawn[0]["rate"] == drawn[1]["rate"] != drawn[2]["rate"]
    assert drawn[0]["ent_coef"] == drawn[1]["ent_coef"]
    assert all(config.rates[0] <= d["rate"] <= config.rates[1] for d in drawn)
    assert all(config.entropies[0] <= d["ent_coef"] <= config.entropies[1] for d in drawn)


def test_the_papers_optimizer_is_what_the_config_says() -> None:
    config = AgentConfig(optimizer="rmsprop-tf", epsilon=0.1, anneal=True, reduction="sum", reward="clip")
    learner = learn.make_learner(worlds.make_world("catch", 1, 0), config, "vtrace", 6e-4, 0, 1000)
    assert type(learner.optimizer).__name__ == "RMSPropTF"
    assert learner.optimizer.param_groups[0]["eps"] == 0.1
    assert learner.reduction == "sum"
    assert learner.learning_rate(500) == pytest.approx(3e-4)
    assert learner.reward_transform(torch.tensor([7.0, -3.0])).tolist() == [1, -1]
    with pytest.raises(ValueError, match="adam or rmsprop-tf"):
        learn.make_learner(
            worlds.make_world("catch", 1, 0), replace(config, optimizer="sgd"), "none", 1.0, 0, 1
        )


# Networks and worlds.


def test_networks_repeat_and_leave_the_global_generator_alone() -> None:
    env = worlds.make_world("suite-0", 2, 0)
    obs, _ = env.reset()
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    for network, lstm in (("mlp", 0), ("deep", 8)):
        one, other = (worlds.make_model(env, network, (16,), lstm, seed=3) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
        first = torch.ones(2, dtype=torch.bool)
        assert one(obs, one.initial_state(2), first).value.shape == (2, 1)
    assert torch.equal(before, torch.random.get_rng_state())
    with pytest.raises(ValueError, match="mlp, shallow or deep"):
        worlds.make_model(env, "wide")


def test_the_shallow_network_is_a3cs() -> None:
    net = worlds.ShallowConv(4, (84, 84))
    assert net.net[5].weight.shape == (256, 32 * 9 * 9)
    picture = torch.randint(256, (3, 2, 4, 84, 84), dtype=torch.uint8)
    assert net(picture).shape == (3, 2, 256)
    torch.testing.assert_close(net(picture), net(picture.float() / 255))
    with pytest.raises(ValueError, match="20 x 20"):
        worlds.ShallowConv(1, (12, 84))


def test_actors_have_worlds_of_their_own() -> None:
    names = ("suite-0", "suite-1")
    assert worlds.actor_world(3, names, 2, 5).generator.initial_seed() == 5 + 3 * 7919
    assert repr(worlds.actor_world(2, names, 2, 5)) == repr(worlds.make_world("suite-0", 2, 0))
    with pytest.raises(ValueError, match="no world 'chess'"):
        worlds.make_world("chess", 1, 0)


# Throughput.


def test_a_shared_step_sends_the_gradient_and_fetches_the_parameters() -> None:
    mine = [torch.zeros(2, requires_grad=True)]
    shared = [torch.tensor([5.0, 5.0], requires_grad=True)]
    step = throughput.SharedStep(mine, shared, torch.optim.SGD(shared, 0.5), threading.Lock())
    step.zero_grad()
    (mine[0] * torch.tensor([2.0, 4.0])).sum().backward()
    step.step()
    assert shared[0].tolist() == [4.0, 3.0]
    assert mine[0].tolist() == [4.0, 3.0]
    step.zero_grad()
    assert mine[0].grad is None


QUICK = throughput.ThroughputConfig(mean=0.001, actors=4, unroll=4, seconds=0.2, warm_updates=1, hidden=(8,))


def test_every_arrangement_is_measured(tmp_path: Path) -> None:
    for name in ("sync-step", "a3c", "sync-trajectory", "impala-thread"):
        metrics = throughput.measured(a_trial(tmp_path, name), f"throughput/{name}", QUICK)
        # Four worlds of a millisecond make at most 4,000 steps a second.
        assert 40 < metrics["env_steps_per_s"] < 12_000
        per_update = 4 if name == "a3c" else 16
        assert metrics["env_steps_per_s"] / metrics["updates_per_s"] == pytest.approx(per_update)


def test_synchronous_trajectories_have_no_lag_and_decoupled_ones_do() -> None:
    *_, lags = throughput.decoupled(QUICK, 0, "thread", synchronous=True)
    assert set(lags) == {0}
    *_, lags = throughput.decoupled(QUICK, 0, "thread")
    assert max(lags) >= 1


def test_uneven_waits_hurt_a_lockstep() -> None:
    config = replace(QUICK, actors=8, mean=0.004, seconds=0.5)
    even = throughput.sync_step(replace(config, sigma=0.0), 0)[0]
    uneven = throughput.sync_step(replace(config, sigma=1.5), 0)[0]
    assert even > 1.5 * uneven


def test_an_actor_of_a3c_that_breaks_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args):
        raise ArithmeticError("the world broke")

    monkeypatch.setattr(throughput, "slow_catch", broken)
    with pytest.raises(ArithmeticError, match="the world broke"):
        throughput.a3c(QUICK, 0)


# Transfer.


def test_every_task_gets_the_same_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    plain = learn.VTraceLearner.update

    def update(self, rollout, generator=None):
        seen.append(rollout.transitions)
        return plain(self, rollout, generator)

    monkeypatch.setattr(learn.VTraceLearner, "update", update)
    config = transfer.TransferConfig(
        tasks=("suite-1", "suite-2"), frames=200, copies=4, unroll=5, episodes=4, points=2
    )
    both = transfer.transfer(a_trial(tmp_path), "transfer/multi", config)
    assert (sum(seen), len(seen)) == (400, 10)
    seen.clear()
    experts = transfer.transfer(a_trial(tmp_path), "transfer/experts", config)
    assert (sum(seen), len(seen)) == (400, 20)
    assert set(both) == set(experts) == {"mean_capped", "median", "score_suite-1", "score_suite-2"}


def test_scores_are_normalised_by_chance_and_by_the_goal() -> None:
    config = transfer.TransferConfig(episodes=64)
    known = transfer.references(config)
    assert set(known) == {f"suite-{k}" for k in range(6)}
    assert all(0 <= chance < 0.6 and goal == 1 for chance, goal in known.values())
    assert known["suite-2"][0] > known["suite-4"][0], (
        "a goal in the next room is nearer than one behind a lock"
    )


def test_games_are_found_in_the_tables() -> None:
    config = STUDY.configure("paper").transfer
    assert len(config.tasks) == 57
    known = transfer.references(config)
    assert known["ALE/MsPacman-v5"] == (307.3, 6951.6)
    assert transfer.table_name("dmlab:rooms_watermaze") == "rooms_watermaze"


# The paper's profile.


def test_the_paper_profile_names_its_worlds() -> None:
    config = STUDY.configure("paper")
    assert config.replay.world.startswith("ALE/")
    assert config.replay.agent == AgentConfig(
        network="deep",
        optimizer="rmsprop-tf",
        epsilon=0.01,
        anneal=True,
        reduction="sum",
        reward="clip",
    )
    assert config.replay.updates * config.replay.fresh * config.replay.unroll == pytest.approx(50e6, rel=1e-3)
    assert config.lag.backend == "inline"
    assert config.draws.learn.world == config.lag.world


def test_the_papers_agent_plays_a_real_game(tmp_path: Path) -> None:
    pytest.importorskip("ale_py", reason="needs the extra assay[atari]")
    pytest.importorskip("cv2", reason="needs the extra assay[atari]")
    config = replace(
        STUDY.configure("paper").lag,
        copies=2,
        unroll=3,
        updates=1,
        evaluations=1,
        episodes=1,
    )
    learner = learn.make_learner(worlds.make_world(config.world, 1, 0), config.agent, "vtrace", 6e-4, 0, 100)
    before = [p.detach().clone() for p in learner.model.parameters()]
    with learn.system_of(learner, config, 7) as system:
        (turn,) = system.run(1)
    assert turn.rollout.obs.shape == (4, 2, 4, 84, 84)
    assert any(not torch.equal(a, b) for a, b in zip(before, learner.model.parameters(), strict=True))


def test_a_suite_of_minigrid_trains_one_agent(tmp_path: Path) -> None:
    pytest.importorskip("minigrid", reason="needs the extra assay[minigrid]")
    config = transfer.TransferConfig(
        tasks=transfer.MINIGRID[:2], frames=20, copies=2, unroll=5, episodes=2, points=1
    )
    metrics = transfer.transfer(a_trial(tmp_path), "transfer/multi", config)
    assert "score_MiniGrid-Empty-8x8-v0" in metrics


def test_missing_simulators_are_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Exception, match="DeepMind Lab"):
        runner.run(
            STUDY,
            "smoke",
            changes={"rooms.world": "dmlab:rooms_watermaze"},
            results=tmp_path,
            executor="inline",
        )
    from assay.studies import impala

    monkeypatch.setattr(impala, "missing", lambda extra: ("ale_py",))
    with pytest.raises(Exception, match=r"assay\[atari\]"):
        impala.worlds_are_there(STUDY.configure("paper"))
