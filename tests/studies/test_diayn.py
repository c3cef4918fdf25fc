"""The study of skills: its own machinery, and its paper profile for one step."""

from dataclasses import replace

import pytest
import torch

import assay
from assay.envs import CornerTask
from assay.rl.policies import actor_critic
from assay.rl.rollout import Rollout, collect, start
from assay.studies.diayn.config import CornerConfig
from assay.studies.diayn.corner import Recording, place
from assay.studies.diayn.learn import (
    Nothing,
    SkillConfig,
    Streams,
    bins_visited,
    box,
    frozen,
    learn,
    measured,
    states_of,
)

TINY = SkillConfig(skills=3, copies=12, steps=8, updates=2, hidden=(8,), fresh_copies=24, fresh_steps=5)


def _g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _streams() -> Streams:
    return Streams(_g(1), _g(2), _g(3), _g(4))


def test_every_skill_is_measured_alike() -> None:
    *_, (_, model) = learn(box(TINY), Nothing(), TINY, _streams())
    measure, rollout = measured(box(TINY), model, TINY, _g(5))
    z = rollout.info["skill"]
    assert (z == z[0]).all(), "one episode each"
    assert torch.bincount(z[0]).tolist() == [8, 8, 8]
    assert states_of(rollout, 3).shape == (8, 24, 2)
    assert 0 <= measure.mi <= torch.tensor(3.0).log() + 1e-6


def test_coverage_counts_squares_of_the_box() -> None:
    assert bins_visited(torch.tensor([[-1.0, -1.0], [-0.96, -0.99], [1.0, 1.0]])) == pytest.approx(2 / 400)
    assert bins_visited(torch.rand(200_000, 2, generator=_g()) * 2 - 1) == 1


def test_what_is_recorded_of_the_skills_is_what_they_did() -> None:
    *_, (_, model) = learn(box(TINY), Nothing(), TINY, _streams())
    skills = frozen(model, TINY)
    options = {"corners": ((0.3, 0.0),), "radius": 0.15, "max_steps": 13, "step": 0.1}
    meta = Recording(CornerTask(8, generator=_g(6), **options), skills.policy, 3, 5, skill_obs=place)
    controller = actor_critic(meta, hidden=(8,), generator=_g(7))
    rollout = Rollout(6, 8, info=("macro_len",))
    collect(meta, controller, rollout, start(meta, controller, 0), _g(8))
    below = meta.take(model)
    assert below.steps == 30
    # The same rewards, the same number of true steps, the same ends.
    torch.testing.assert_close(below.reward[below.valid].sum(), rollout.reward.sum())
    assert int(below.valid.sum()) == int(rollout.info["macro_len"].sum())
    assert int((below.terminated & below.valid).sum()) == int(rollout.terminated.sum()) > 0
    # Actions under the stored probabilities, codes of the chosen skills.
    again = model.policy(below.obs[:-1])[0].log_prob(below.action)
    torch.testing.assert_close(again, below.logp)
    chosen = rollout.action.repeat_interleave(5, 0)
    assert torch.equal(below.obs[:-1, :, 2:].argmax(-1), chosen)
    assert meta.seen == []


def test_joint_training_runs_beside_frozen_skills(tmp_path) -> None:
    results = assay.run(
        "diayn",
        profile="smoke",
        arms=["corner/meta", "corner/joint"],
        seeds=1,
        executor="inline",
        results=tmp_path,
    )
    assert not results.failed


def test_budgets_of_flat_and_meta_control_are_the_same() -> None:
    config = CornerConfig()
    assert config.horizon % config.hold == 0
    assert (config.horizon // 2) * config.copies <= config.env_steps


def test_the_paper_profile_steps_a_real_robot() -> None:
    pytest.importorskip("mujoco", reason="needs the extra assay[mujoco]")
    study = assay.load("diayn")
    config = study.configure("paper").skills
    assert (config.world, config.skills, config.hidden) == ("HalfCheetah-v5", 50, (300, 300))
    tiny = replace(
        config,
        copies=2,
        steps=4,
        updates=1,
        hidden=(8,),
        skills=2,
        fresh_copies=2,
        fresh_steps=2,
        minibatches=1,
    )
    from assay.envs.real import mujoco
    from assay.rl.intrinsic.skills import DIAYNReward
    from assay.studies.diayn.learn import WithState

    def make(copies: int, generator: torch.Generator) -> WithState:
        return WithState(mujoco(tiny.world, copies))

    ((update, model),) = learn(make, DIAYNReward(17, 2), tiny, _streams())
    assert torch.isfinite(torch.tensor(update.metrics["loss"]))
    assert model(update.rollout.obs).dist.mode().shape == (5, 2, 6)
