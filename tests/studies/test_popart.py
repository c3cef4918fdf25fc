"""The popart study: its arms differ as named, its scores are what they say, its simulators are real code."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from assay.envs.suite import MultiTask, TaskSuite
from assay.lab import Trial, registry
from assay.rl.multitask import PopArtLearner
from assay.rl.rollout import Rollout
from assay.studies.popart import BETAS, FACTORS, gain_of_preserving, learn, popart_change
from assay.studies.popart.learn import (
    VARIANTS,
    AgentConfig,
    RunConfig,
    Scoreboard,
    SweepConfig,
    aggregate,
    build_model,
    make_learner,
    scales_of,
)
from assay.studies.popart.worlds import MINIGRID, WORLDS, make_world, references

STUDY = registry.load("popart")
TINY = RunConfig(copies=2, updates=4, points=2, shares_every=2)


def a_trial(folder: Path, arm: str = "suite/popart", seed: int = 100) -> Trial:
    return Trial(
        arm, seed, study="popart", profile="laptop", device="cpu", folder=folder, time_limit=60.0, report=None
    )


def learner_of(name: str, config: RunConfig = TINY) -> PopArtLearner:
    n = len(config.tasks)
    model = build_model((4, 7, 7), 4, n, config.agent, 0)
    return make_learner(model, config, VARIANTS[name], torch.arange(n).repeat_interleave(2), 1000)


def test_arms_differ_as_named() -> None:
    plain = learner_of("popart")
    assert (plain.normalise, plain.statistics, plain.preserve, plain.start) == ("both", "task", True, "data")
    assert plain.freeze_after is plain.return_scale is plain.reward_transform is None
    assert learner_of("raw").normalise == "none"
    assert learner_of("raw").reward_transform is None
    big = torch.tensor([[-500.0, 0.5]])
    for name in ("clip", "popart-clip"):
        assert learner_of(name).reward_transform(big).tolist() == [[-1, 0.5]]
    assert learner_of("popart-clip").normalise == "both"
    assert not learner_of("art").preserve
    assert learner_of("single").statistics == "pooled"
    assert learner_of("return-std").return_scale.num_tasks == 4
    assert learner_of("return-std").normalise == "none"
    assert learner_of("fixed").freeze_after == 10
    assert (learner_of("critic").normalise, learner_of("actor").normalise) == ("critic", "actor")
    assert learner_of("rescale").rescale_optimizer


def test_every_arm_has_a_variant() -> None:
    for arm in STUDY.all_arms:
        kind, _, name = arm.partition("/")
        if kind in ("sweep", "beta"):
            name = name.rpartition("-")[0]
        assert name in VARIANTS or name == "expert", arm


def test_every_variant_starts_as_the_same_agent_and_sees_the_same_world(tmp_path: Path) -> None:
    states = [learner_of(name).model.state_dict() for name in ("raw", "popart", "art")]
    for state in states[1:]:
        for key, value in states[0].items():
            assert torch.equal(state[key], value), key
    # In the first unroll nothing has been learnt yet: the scores of one window agree.
    one = replace(TINY, updates=1, points=1, unroll=45)
    scores = [
        learn.compared(a_trial(tmp_path / n), f"suite/{n}", one)["score_catch"]
        for n in ("raw", "popart", "clip")
    ]
    assert scores[0] == scores[1] == scores[2]


def test_scales_move_on_with_the_seed() -> None:
    config = RunConfig(rotate=True)
    assert scales_of(config, 0) == (1, 10, 100, 1000)
    assert scales_of(config, 1) == (1000, 1, 10, 100)
    assert scales_of(config, 6) == (100, 1000, 1, 10)
    for k in range(4):
        assert {scales_of(config, seed)[k] for seed in range(4)} == {1, 10, 100, 1000}
    assert scales_of(replace(config, rotate=False), 3) == (1, 10, 100, 1000)
    assert scales_of(replace(config, scales=(5.0,)), 0) == (5, 5, 5, 5)
    with pytest.raises(ValueError, match="one scale"):
        scales_of(replace(config, scales=(1.0, 2.0)), 0)


def test_scores_undo_the_scales() -> None:
    env = make_world("suite", ("catch", "snack"), 2, (1.0, 1000.0), torch.Generator().manual_seed(0))
    known = references("suite", ("catch", "snack"), env)
    assert known["catch"] == (-1, 1)
    assert known["snack"] == pytest.approx((0, 0.5))
    rollout = Rollout(2, 4)
    rollout.task = env.task
    rollout.reward = torch.tensor([[0.0, 0, 100, 0], [1, -1, 150, 500]])[..., None]
    rollout.terminated = torch.tensor([[False] * 4, [True] * 4])
    rollout.truncated = torch.zeros(2, 4, dtype=torch.bool)
    rollout.valid = torch.ones(2, 4, dtype=torch.bool)
    board = Scoreboard(known)
    board.add(rollout, torch.tensor([1.0, 1000.0]))
    # catch: one win, one loss; snack: 0.25 and 0.5 of 0.5.
    assert board.close_window() == pytest.approx([0.5, 0.75])
    assert board.close_window() == pytest.approx([0.5, 0.75])  # nothing ended: the last score stands


def test_atari_is_reported_by_its_median() -> None:
    assert aggregate("atari", [0.0, 1.0, 20.0]) == 1
    assert aggregate("suite", [0.0, 1.0, 2.0]) == 1
    assert references("atari", ("pong",), None) == {"pong": (-20.7, 14.6)}  # type: ignore[arg-type]


def test_claims_read_the_sweep_by_hand() -> None:
    cell = {f"sweep/popart-{factor}": {"auc": 0.5 + 0.01 * k} for k, factor in enumerate(FACTORS)}
    assert popart_change(cell) == pytest.approx(0.04)  # factor 1 is the third of seven
    areas = {"popart": (0.5, 0.6, 0.7), "art": (0.2, 0.3, 0.4)}
    cell = {f"beta/{n}-{b}": {"auc": a} for n in areas for b, a in zip(BETAS, areas[n], strict=True)}
    assert gain_of_preserving(cell) == pytest.approx(0.3)


def test_the_sweep_multiplies_one_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def fake(run, config, variant):
        seen.update(scales=config.scales, variant=variant)
        return {}

    monkeypatch.setattr(learn, "learn", fake)
    learn.swept(a_trial(tmp_path), "sweep/raw-0.01", SweepConfig())
    assert seen == {"scales": (0.01, 1.0, 0.01), "variant": VARIANTS["raw"]}
    learn.swept(a_trial(tmp_path), "sweep/popart-10000", SweepConfig())
    assert seen["scales"] == (10000.0, 1.0, 0.01)
    with pytest.raises(ValueError, match=r"sweep\.task"):
        learn.swept(a_trial(tmp_path), "sweep/raw-1", SweepConfig(task="pong"))


def test_the_rate_of_the_statistics_is_the_arm_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(learn, "learn", lambda run, config, variant: seen.update(beta=config.agent.beta))
    learn.rated(a_trial(tmp_path), "beta/art-0.003", TINY)
    assert seen == {"beta": 0.003}


def test_small_rewards_and_large_ones_learn_alike(tmp_path: Path) -> None:
    """The study's own loop, end to end: powers of two change nothing."""
    config = replace(
        TINY, tasks=("catch", "snack"), scales=(1.0, 1.0), copies=4, updates=30, unroll=10, points=3
    )
    one = learn.compared(a_trial(tmp_path / "a"), "suite/popart", config)
    other = learn.compared(a_trial(tmp_path / "b"), "suite/popart", replace(config, scales=(0.125, 4096.0)))
    assert one["score"] == pytest.approx(other["score"], abs=1e-6)
    assert one["entropy"] == pytest.approx(other["entropy"], abs=1e-5)


def test_an_expert_for_each_task(tmp_path: Path) -> None:
    found = learn.compared(a_trial(tmp_path, "suite/expert"), "suite/expert", TINY)
    assert {"score_catch", "score_goal", "score_snack", "score_jackpot"} <= set(found)
    assert found["score"] == pytest.approx(sum(found[f"score_{t}"] for t in TINY.tasks) / 4)


def test_pixel_control_and_memory_run(tmp_path: Path) -> None:
    agent = AgentConfig(pixel_control=0.01, lstm=8)
    assert learn.compared(a_trial(tmp_path), "suite/popart", replace(TINY, agent=agent))["score"] >= 0


def test_bad_configs() -> None:
    with pytest.raises(ValueError, match="no world"):
        make_world("go", ("a",), 1, (1.0,), torch.Generator())
    with pytest.raises(ValueError, match="scale for each"):
        make_world("suite", ("catch",), 1, (1.0, 2.0), torch.Generator())
    with pytest.raises(ValueError, match="network"):
        build_model((4, 7, 7), 4, 2, AgentConfig(network="cnn"), 0)
    with pytest.raises(ValueError, match="optimizer"):
        learner_of("popart", replace(TINY, agent=AgentConfig(optimizer="sgd")))
    with pytest.raises(ValueError, match="one actor"):
        learner_of("return-std", replace(TINY, actors_per_task=1))
    with pytest.raises(ValueError, match="no world"):
        STUDY.checks[0](replace(STUDY.config, suite=replace(TINY, world="go")))


def test_an_actor_of_one_task_keeps_its_number() -> None:
    config = replace(TINY, actors_per_task=1)
    env = learn.actor_world(2, config, (1.0, 10.0, 100.0, 1000.0), 0)
    assert isinstance(env, TaskSuite)
    assert env.task.tolist() == [2, 2]
    assert env.reward_scales.tolist() == [100]
    assert isinstance(learn.actor_world(0, TINY, (1.0,) * 4, 0), MultiTask)


def test_the_paper_profile_plays_57_games() -> None:
    config = STUDY.configure("paper").suite
    assert len(config.tasks) == 57
    assert config.agent.network == "impala"
    assert len(WORLDS["atari"]) == 8
    assert len(MINIGRID) == 12


@pytest.mark.parametrize("backend", ["inline", "process"])
def test_atari_learns_an_update(tmp_path: Path, backend: str) -> None:
    pytest.importorskip("ale_py", reason="the Atari simulator is an extra")
    pytest.importorskip("cv2", reason="the Atari simulator is an extra")
    paper = STUDY.configure("paper").suite
    config = replace(
        paper,
        tasks=("pong", "breakout"),
        updates=2,
        unroll=3,
        points=1,
        backend=backend,
        actors_per_task=1,
        shares_every=1,
    )
    found = learn.compared(a_trial(tmp_path), "suite/popart", config)
    assert found["share_pong"] + found["share_breakout"] == pytest.approx(1)


def test_minigrid_learns_an_update(tmp_path: Path) -> None:
    pytest.importorskip("minigrid", reason="MiniGrid is an extra")
    config = replace(
        TINY, world="minigrid", tasks=MINIGRID[:2], scales=(1.0, 50.0), copies=1, updates=2, points=1
    )
    first, again = (learn.compared(a_trial(tmp_path / n), "suite/popart", config) for n in "ab")
    assert 0 <= first["score"] <= 1
    assert first == again  # the simulators are seeded
