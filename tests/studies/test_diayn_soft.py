"""The skills of soft actor-critic: the extra arm, and the paper profile for a few steps of a real robot."""

from dataclasses import replace
from typing import Any

import pytest
import torch

import assay
from assay.envs import AppendSkill
from assay.lab.runner import run
from assay.rl.intrinsic.skills import DIAYNReward
from assay.studies.diayn.config import SoftConfig
from assay.studies.diayn.soft import worlds

pytest.importorskip("torchrl", reason="the extra torchrl")


def test_the_extra_arm_runs_and_only_when_asked_for(tmp_path: Any) -> None:
    study = assay.load("diayn")
    assert "sac/diayn" not in study.select_arms()
    assert "sac/diayn" in study.select_arms(profile="paper")
    results = run(study, "smoke", arms=["sac/*"], seeds=1, results=tmp_path, executor="inline")
    (trial,) = results.trials
    assert 0 <= trial.metrics["skill_accuracy"] <= 1
    assert trial.metrics["mi"] <= torch.tensor(4.0).log()
    assert trial.metrics["effective_share"] == pytest.approx(1)


def test_the_box_is_that_of_the_other_arms_with_continuous_moves() -> None:
    config = SoftConfig()
    env = worlds(config)(4, torch.Generator().manual_seed(0))
    assert env.num_actions is None
    assert env.max_steps == 30
    env.reset()
    step = env.step(torch.ones(4, 2))
    assert "state" in step.info


def test_the_paper_profile_learns_on_a_real_robot() -> None:
    pytest.importorskip("mujoco", reason="needs the extra assay[mujoco]")
    from assay.rl.sac import SAC, skill_relabel

    config = assay.load("diayn").configure("paper").soft
    assert (config.world, config.skills, config.hidden) == ("HalfCheetah-v5", 50, (300, 300))
    assert (config.rate, config.alpha, config.tau, config.batch) == (3e-4, 0.1, 0.01, 128)
    tiny = replace(config, skills=2, hidden=(8,))
    env = AppendSkill(worlds(tiny)(2, torch.Generator().manual_seed(0)), 2)
    relabel = skill_relabel(DIAYNReward(17, 2, (8,)))
    learner = SAC(env, hidden=tiny.hidden, batch=8, alpha=tiny.alpha, relabel=relabel, info=("skill",))
    (told,) = learner.run(12, warmup=8, every=12)
    assert learner.updates == 4
    assert torch.isfinite(torch.tensor(told["qvalue"]))
    env.close()
