"""`skills/*`, `open/*`, `subset/*`: skills of a point in the plane, learnt without reward."""

import torch
from torch import Tensor

from assay.envs import AppendSkill, PointBox, TensorEnv
from assay.lab import Trial
from assay.rl.intrinsic import IntrinsicReward
from assay.rl.intrinsic.skills import DIAYNReward, SkillPrior
from assay.rl.policies import ActorCritic, actor_critic
from assay.studies.diayn import study
from assay.studies.diayn.config import SubsetConfig
from assay.studies.diayn.learn import (
    MakeWorld,
    Nothing,
    SkillConfig,
    Streams,
    WithState,
    box,
    learn,
    measured,
    roll_out,
    states_of,
    summary,
)


def streams(run: Trial) -> Streams:
    """The random streams of a trial."""
    device = str(run.device)
    return Streams(
        run.generator("world", device=device),
        run.generator("skills", device=device),
        run.generator("networks", device="cpu"),
        run.generator("actions", device=device),
    )


def reward_of(run: Trial, arm: str, config: SkillConfig, width: int) -> IntrinsicReward:
    """What an arm pays its policy."""
    if arm == "entropy":
        return Nothing()
    kind = arm if arm in ("vic", "official") else "uniform"
    prior = SkillPrior(config.skills, kind)
    generator = run.generator("discriminator", device="cpu")
    return DIAYNReward(width, config.skills, (64, 64), prior=prior, generator=generator)


def run_skills(run: Trial, arm: str, config: SkillConfig, make: MakeWorld) -> dict[str, float]:
    """Train, look in between, measure at the end."""
    device = str(run.device)
    width = make(1, torch.Generator(run.device)).obs_shape[0]
    reward = reward_of(run, arm, config, width)
    look = max(1, config.updates // config.evaluations)
    model: ActorCritic | None = None
    turns = learn(make, reward, config, streams(run), run.device)
    for _, (update, model) in zip(run.steps(config.updates), turns, strict=False):
        if update.index % look == 0 or update.index == config.updates - 1:
            fresh = run.generator("looks", device=device)
            measure, _ = measured(make, model, config, fresh)
            curves = {"alive": float(measure.alive()), "mi": measure.mi}
            if isinstance(reward, DIAYNReward):
                curves["effective"] = reward.prior.effective_number()
            run.log(update.env_steps, **curves)
    assert model is not None
    metrics, rollout = summary(make, model, reward, config, run.generator("evaluation", device=device))
    keep = min(config.skills * 4, rollout.num_envs)
    run.save(
        "paths", {"states": rollout.info["state"][:, :keep, :2], "skill": rollout.info["skill"][0, :keep]}
    )
    if isinstance(reward, DIAYNReward) and width == 2:
        run.save("map", decision_map(reward))
    return metrics


@torch.no_grad()
def decision_map(reward: DIAYNReward, side: int = 60) -> Tensor:
    """[side, side]: which skill the discriminator names at each place of [-1.5, 1.5]^2; rows from the top."""
    line = torch.linspace(-1.5, 1.5, side)
    y, x = torch.meshgrid(line.flip(0), line, indexing="ij")
    device = next(reward.parameters()).device
    return reward.predict(torch.stack([x, y], -1).to(device)).argmax(-1).to(torch.uint8).cpu()


@study.trial("skills/*", config="skills")
def skills(run: Trial, arm: str, config: SkillConfig) -> dict[str, float]:
    """In the closed box (or, in the paper profile, in a MuJoCo world)."""
    name = arm.partition("/")[2]
    if config.world != "box":
        return mujoco_skills(run, name, config)
    if name == "random":
        return untrained(run, config)
    return run_skills(run, name, config, box(config))


def untrained(run: Trial, config: SkillConfig) -> dict[str, float]:
    """A policy as initialised."""
    make, device = box(config), str(run.device)
    env = AppendSkill(make(4, torch.Generator(run.device)), config.skills)
    networks = run.generator("networks", device="cpu")
    model = actor_critic(env, config.hidden, config.act, generator=networks).to(run.device)
    metrics, rollout = summary(make, model, Nothing(), config, run.generator("evaluation", device=device))
    run.save("paths", {"states": rollout.info["state"][:, :64, :2], "skill": rollout.info["skill"][0, :64]})
    return metrics


@study.trial("open/*", config="skills")
def open_plane(run: Trial, arm: str, config: SkillConfig) -> dict[str, float]:
    """The same where nothing stops the point: do skills explore?"""
    return run_skills(run, arm.partition("/")[2], config, box(config, closed=False))


@study.trial("subset/*", config="subset")
def subset(run: Trial, arm: str, config: SubsetConfig) -> dict[str, float]:
    """The discriminator sees x alone, y alone, or both; a point with momentum."""
    seen = {"x": [0], "y": [1], "xy": [0, 1]}[arm.partition("/")[2]]
    base = config.skills

    def make(copies: int, generator: torch.Generator) -> TensorEnv:
        return PointBox(
            copies,
            momentum=True,
            max_steps=base.steps,
            generator=generator,
            device=generator.device,
            validate=False,
        )

    reward = DIAYNReward(
        4,
        base.skills,
        discriminator_obs=lambda s: s[..., seen],
        generator=run.generator("discriminator", device="cpu"),
    )
    model: ActorCritic | None = None
    turns = learn(make, reward, base, streams(run), run.device)
    for _, (_update, model) in zip(run.steps(base.updates), turns, strict=False):  # noqa: B007
        pass
    assert model is not None
    rollout = roll_out(make, model, base, run.generator("evaluation", device=str(run.device)), base.steps)
    place = states_of(rollout, base.skills)[..., :2]
    z = rollout.info["skill"][0]
    means = torch.stack([place[:, z == k].mean((0, 1)) for k in range(base.skills)])
    x, y = means.var(0).tolist()
    run.save("paths", {"states": place[:, :64], "skill": z[:64]})
    return {"x_share": x / (x + y), "spread_x": x**0.5, "spread_y": y**0.5}


def mujoco_skills(run: Trial, name: str, config: SkillConfig) -> dict[str, float]:
    """Paper profile: K skills of a MuJoCo robot, by the same learner."""
    from assay.envs.real import mujoco

    def make(copies: int, generator: torch.Generator) -> TensorEnv:
        env = mujoco(config.world, copies)
        env.seed(generator.initial_seed() % 2**31)
        return WithState(env)

    return run_skills(run, name, config, make)
