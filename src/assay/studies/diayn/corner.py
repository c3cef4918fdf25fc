"""`corner/*`: a sparse task with skills, frozen or not, and without. `tune/*`: one skill, trained on."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.envs import CornerTask, Step
from assay.lab import Batch
from assay.rl.distributions import ActionDistribution
from assay.rl.evaluate import evaluate
from assay.rl.intrinsic import IntrinsicReward
from assay.rl.intrinsic.skills import DIAYNReward, MetaController, SkillPolicy, primitive_skills
from assay.rl.policies import ActorCritic, actor_critic
from assay.rl.ppo import PPO
from assay.rl.rollout import Rollout
from assay.rl.train import train
from assay.studies.diayn import study
from assay.studies.diayn.config import CornerConfig
from assay.studies.diayn.learn import Nothing, SkillConfig, Streams, box, frozen, learn

PLACE = slice(0, 2)  # what the skills know of the task's observation


def place(obs: Tensor) -> Tensor:
    """The point's own coordinates."""
    return obs[..., PLACE]


def corners(config: CornerConfig, generator: torch.Generator, copies: int | None = None) -> CornerTask:
    """The task, with the moves that the skills were learnt with."""
    return CornerTask(
        copies or config.copies,
        step=config.skills.move,
        max_steps=config.horizon,
        generator=generator,
        device=generator.device,
        validate=False,
    )


def learner(model: ActorCritic, config: CornerConfig, hold: int = 1) -> PPO:
    """PPO; a decision that stands for `hold` steps is discounted by as many."""
    return PPO(
        model,
        torch.optim.Adam(model.parameters(), config.rate, eps=1e-5),
        gamma=config.gamma**hold,
        ent_coef=config.entropy,
    )


class Recording(MetaController):
    """A meta-controller that keeps what the skills saw, did and earned, so that they can be trained too."""

    def __init__(self, *args: object, **options: object):
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.seen: list[dict[str, Tensor]] = []

    def _inner(self, action: Tensor, obs: Tensor) -> Tensor:  # type: ignore[override]
        dist: ActionDistribution = self.skills(place(obs), action)
        noise = self._draw((self.below,), lambda out, g: out.exponential_(generator=g))  # type: ignore[arg-type]
        below = (dist.params - noise.log()).argmax(-1)
        code = F.one_hot(action, self.num_actions).float()
        self.seen.append(
            {
                "obs": torch.cat([place(obs), code], -1),
                "action": below,
                "params": dist.params,
                "logp": dist.log_prob(below),
            }
        )
        return below

    def _repeated(self, action: Tensor) -> Step:
        first = len(self.seen)
        over = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        inner = self.env.step

        def watched(below: Tensor) -> Step:
            nonlocal over
            step = inner(below)
            assert isinstance(step.final_obs, Tensor)
            seen = self.seen[-1]
            seen["next"] = torch.cat([place(step.final_obs), seen["obs"][:, 2:]], -1)
            seen["reward"], seen["terminated"] = step.reward, step.terminated
            seen["truncated"], seen["valid"] = step.truncated.clone(), ~over
            over = over | step.ended
            return step

        self.env.step = watched  # type: ignore[method-assign]
        try:
            total = super()._repeated(action)
        finally:
            del self.env.step
        # The skill's own horizon is the macro step: its last step is cut off, not ended.
        last = self.seen[-1]
        last["truncated"] = ~last["terminated"]
        assert len(self.seen) > first
        return total

    @torch.no_grad()
    def take(self, skills: ActorCritic) -> Rollout:
        """The skills' own rollout [steps below, N] since the last call."""
        parts = {name: torch.stack([seen[name] for seen in self.seen]) for name in self.seen[0]}
        self.seen = []
        following = parts.pop("next")
        rollout = Rollout.of(
            {
                **{name: parts[name] for name in ("action", "params", "logp", "truncated", "valid")},
                "obs": torch.cat([parts["obs"], following[-1:]]),
                "reward": parts["reward"][..., None],
                "terminated": parts["terminated"],
                "first": torch.zeros(len(following) + 1, self.num_envs, dtype=torch.bool),
            }
        )
        rollout.value = skills.value(rollout.obs)
        rollout.next_value = skills.value(following).masked_fill(rollout.terminated[..., None], 0.0)
        return rollout


def points(rollout: Rollout) -> tuple[float, float]:
    """Corners reached and episodes ended in a rollout."""
    return float(rollout.reward.sum()), float(rollout.ended.sum())


def solve(
    run: Batch, arm: str, seed: int, config: CornerConfig, skills: SkillPolicy | None
) -> dict[str, float]:
    """Train one arm on the task; its mean return over the last fifth of the steps."""
    name, device = arm.partition("/")[2], str(run.device)
    world = run.generator("corners", seed, device=device)
    networks = run.generator("corner-networks", seed, device="cpu")
    actions = run.generator("corner-actions", seed, device=device)
    task = corners(config, world)
    hold, k = config.hold, config.skills.skills
    env: CornerTask | MetaController = task
    if name == "repeat":
        assert task.num_actions is not None
        env = MetaController(task, primitive_skills(task.num_actions), task.num_actions, hold)
    elif name != "flat":
        assert skills is not None
        kind = Recording if name == "joint" else MetaController
        env = kind(task, skills.policy, k, hold, skill_obs=place)
    macro = 1 if name == "flat" else hold
    model = actor_critic(env, config.skills.hidden, generator=networks).to(device)
    ppo = learner(model, config, macro)
    below = None
    if name == "joint":
        assert skills is not None
        below = learner(skills.model.requires_grad_(True), config)
    steps = max(1, config.horizon // (2 if name == "flat" else 1) // macro)
    updates = max(1, config.env_steps // (steps * macro * config.copies))
    history: list[tuple[float, float]] = []
    for update in train(env, model, ppo, updates, steps, generator=actions):
        if below is not None:
            assert isinstance(env, Recording)
            below.update(env.take(below.model), generator=actions)
        history.append(points(update.rollout))
        done = (update.index + 1) * steps * macro * config.copies
        recent = history[-3:]
        score = sum(p for p, _ in recent) / max(sum(e for _, e in recent), 1.0)
        run.log(done, arm=arm, seed=seed, score=score)
    last = history[-max(1, updates // 5) :]
    return {"return": sum(p for p, _ in last) / max(sum(e for _, e in last), 1.0)}


def tune(
    run: Batch, arm: str, seed: int, config: CornerConfig, skills: SkillPolicy | None
) -> dict[str, float]:
    """One corner, sparse: train on from a skill, or from scratch, with the same learner."""
    name, device = arm.partition("/")[2], str(run.device)

    def task(copies: int, stream: str) -> CornerTask:
        return CornerTask(
            copies,
            corners=((1.0, 1.0),),
            show_progress=False,
            step=config.skills.move,
            max_steps=config.tune_horizon,
            generator=run.generator(stream, seed, device=device),
            device=device,
            validate=False,
        )

    actions = run.generator("tune-actions", seed, device=device)
    before = 0.0
    env = task(config.copies, "tune")
    if name == "scratch":
        networks = run.generator("tune-networks", seed, device="cpu")
        model = actor_critic(env, config.skills.hidden, generator=networks).to(device)
    else:
        assert skills is not None
        trials = []
        for z in range(config.skills.skills):
            found = evaluate(skills.specialise(z), task(32, "try"), 32, generator=actions)
            trials.append(float(found.returns.mean()))
        chosen = max(range(len(trials)), key=trials.__getitem__)
        before, model = trials[chosen], skills.specialise(chosen, value=False)
    ppo = learner(model, config)
    steps = config.tune_horizon
    updates = max(1, config.tune_steps // (steps * config.copies))
    history = []
    for update in train(env, model, ppo, updates, steps, generator=actions):
        history.append(points(update.rollout))
        got, ended = history[-1]
        run.log((update.index + 1) * steps * config.copies, arm=arm, seed=seed, score=got / max(ended, 1.0))
    last = history[-max(1, updates // 5) :]
    share = [got / max(ended, 1.0) for got, ended in history]
    solved = next((i + 1 for i, s in enumerate(share) if s >= 0.8), updates)
    return {
        "success": sum(p for p, _ in last) / max(sum(e for _, e in last), 1.0),
        "success_before": before,
        "steps_to_80_percent": float(solved * steps * config.copies),
    }


def own_skills(run: Batch, seed: int, config: SkillConfig, trained: bool) -> SkillPolicy:
    """Skills of this seed, learnt without reward or as initialised."""
    device = str(run.device)
    streams = Streams(
        run.generator("world", seed, device=device),
        run.generator("skills", seed, device=device),
        run.generator("networks", seed, device="cpu"),
        run.generator("actions", seed, device=device),
    )
    reward: IntrinsicReward = Nothing()
    if trained:
        reward = DIAYNReward(2, config.skills, generator=run.generator("discriminator", seed, device="cpu"))
    else:
        config = replace(config, updates=1, rate=0.0)
    for _, model in learn(box(config), reward, config, streams, device):  # noqa: B007
        pass
    return frozen(model, config)


@study.batch("corner/*", "tune/*", config="corner", group="seed")
def corner(run: Batch, pairs: Sequence[tuple[str, int]], config: CornerConfig) -> Iterator[dict[str, float]]:
    """All arms of a seed share the skills that it learnt."""
    made: dict[bool, SkillPolicy] = {}
    for arm, seed in pairs:
        skills = None
        if arm not in ("corner/flat", "corner/repeat", "tune/scratch"):
            trained = arm != "corner/random-skills"
            if trained not in made:
                made[trained] = own_skills(run, seed, config.skills, trained)
            skills = deepcopy(made[trained])
        yield (tune if arm.startswith("tune/") else solve)(run, arm, seed, config, skills)
