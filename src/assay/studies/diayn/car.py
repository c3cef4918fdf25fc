"""`car/*`: does some skill climb the mountain although no reward is given? And is that discovery?"""

import torch
from torch import Tensor

from assay.envs import AppendSkill, MountainCarContinuous, TensorEnv
from assay.lab import Trial
from assay.rl.evaluate import evaluate
from assay.rl.intrinsic import IntrinsicReward
from assay.rl.intrinsic.skills import DIAYNReward
from assay.rl.policies import ActorCritic, actor_critic
from assay.studies.diayn import study
from assay.studies.diayn.config import CarConfig
from assay.studies.diayn.learn import MakeWorld, Nothing, SkillConfig, WithState, learn, measured
from assay.studies.diayn.skills import streams


def car(config: CarConfig) -> MakeWorld:
    """The world: success is what terminates it."""

    def make(copies: int, generator: torch.Generator) -> TensorEnv:
        return WithState(
            MountainCarContinuous(
                copies,
                num_forces=3,
                action_repeat=config.skip,
                max_steps=config.skills.steps,
                generator=generator,
                device=generator.device,
                validate=False,
            )
        )

    return make


def same_scale(state: Tensor) -> Tensor:
    """Position and velocity in comparable units."""
    return state * state.new_tensor([1.0, 15.0])


def reward_of(run: Trial, arm: str, config: SkillConfig) -> IntrinsicReward:
    """What an arm pays."""
    if arm == "constant":
        return Nothing(-1.0)
    return DIAYNReward(
        2,
        config.skills,
        discriminator_obs=same_scale,
        add_log_prior=arm == "with-logp",
        generator=run.generator("discriminator", device="cpu"),
    )


def successes(
    model: ActorCritic, config: CarConfig, generator: torch.Generator, episodes: int = 16
) -> Tensor:
    """[K]: how often each skill reaches the flag."""
    k = config.skills.skills
    env = AppendSkill(car(config)(k * episodes, generator), k, generator=generator)
    env.fix(torch.arange(k).repeat_interleave(episodes))
    found = evaluate(model, env, k * episodes, generator=generator)
    reached = torch.zeros(k * episodes).index_copy_(0, found.copy, found.terminated.float())
    return reached.view(k, episodes).mean(1)


@study.trial("car/*", config="car")
def mountain_car(run: Trial, arm: str, config: CarConfig) -> dict[str, float]:
    """Train on one of four rewards (or not at all), then ask each skill for the flag."""
    name, base, make = arm.partition("/")[2], config.skills, car(config)
    model: ActorCritic | None = None
    paid = 0.0
    if name == "init":
        env = AppendSkill(make(4, torch.Generator(run.device)), base.skills)
        networks = run.generator("networks", device="cpu")
        model = actor_critic(env, base.hidden, base.act, generator=networks).to(run.device)
    else:
        turns = learn(make, reward_of(run, name, base), base, streams(run), run.device)
        for _, (update, model) in zip(run.steps(base.updates), turns, strict=False):  # noqa: B007
            paid = float(update.rollout.reward.mean())
            run.log(update.env_steps, reward=paid, ended=float(update.rollout.terminated.float().mean()))
    assert model is not None
    generator = run.generator("evaluation", device=str(run.device))
    success = successes(model, config, generator)
    measure, _ = measured(make, model, base, generator)
    run.save("success", success)
    return {
        "best_success": float(success.max()),
        "mean_success": float(success.mean()),
        "mi": measure.mi,
        "skill_accuracy": measure.accuracy,
        "reward": paid,
    }
