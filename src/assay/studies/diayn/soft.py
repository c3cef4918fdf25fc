"""`sac/*`: the same skills learnt by soft actor-critic, as the paper did; rewards computed when they are sampled."""

import torch

from assay._extras import MissingExtra, missing, pip_command
from assay.envs import AppendSkill, PointBox, TensorEnv
from assay.lab import Trial
from assay.rl.intrinsic.skills import DIAYNReward
from assay.studies.diayn import study
from assay.studies.diayn.config import SoftConfig
from assay.studies.diayn.learn import MakeWorld, WithState, measured, summary


def worlds(config: SoftConfig) -> MakeWorld:
    """The box with continuous moves, or a robot."""
    if config.world != "box":
        from assay.envs.real import mujoco

        def robots(copies: int, generator: torch.Generator) -> TensorEnv:
            env = mujoco(config.world, copies)
            env.seed(generator.initial_seed() % 2**31)
            return WithState(env)

        return robots

    def boxes(copies: int, generator: torch.Generator) -> TensorEnv:
        return PointBox(
            copies,
            step=config.move,
            continuous=True,
            max_steps=config.steps,
            generator=generator,
            device=generator.device,
            validate=False,
        )

    return boxes


@study.trial("sac/*", config="soft")
def soft(run: Trial, arm: str, config: SoftConfig) -> dict[str, float]:
    """Train, look in between, measure at the end as every other arm is measured."""
    if missing("torchrl"):
        raise MissingExtra(f"{arm} learns by torchrl's SAC: {pip_command('torchrl')}")
    from assay.rl.sac import SAC, skill_relabel

    device = str(run.device)
    make = worlds(config)
    env = AppendSkill(
        make(config.copies, run.generator("world", device=device)),
        config.skills,
        generator=run.generator("skills", device=device),
    )
    width = env.obs_shape[0] - config.skills
    reward = DIAYNReward(
        width, config.skills, config.hidden, generator=run.generator("discriminator", device="cpu")
    ).to(run.device)
    learner = SAC(
        env,
        hidden=config.hidden,
        gamma=config.gamma,
        tau=config.tau,
        lr=config.rate,
        batch=config.batch,
        capacity=config.capacity,
        alpha=config.alpha,
        relabel=skill_relabel(reward, config.rate),
        info=("skill",),
        generator=run.generator("actions", device=device),
    )
    shared = config.measuring()
    every = max(1, config.env_steps // config.evaluations)
    turns = learner.run(config.env_steps, config.warmup, config.updates_per_step, every)
    for _, told in zip(run.steps(config.evaluations), turns, strict=False):
        measure, _ = measured(make, learner.actor, shared, run.generator("looks", device=device))  # type: ignore[arg-type]
        run.log(
            int(told["env_steps"]), mi=measure.mi, alive=float(measure.alive()), pseudo_reward=told["reward"]
        )
    fresh = run.generator("evaluation", device=device)
    metrics, rollout = summary(make, learner.actor, reward, shared, fresh)  # type: ignore[arg-type]
    keep = min(config.skills * 4, rollout.num_envs)
    run.save(
        "paths", {"states": rollout.info["state"][:, :keep, :2], "skill": rollout.info["skill"][0, :keep]}
    )
    return metrics
