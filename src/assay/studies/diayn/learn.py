"""Learning skills without reward, and measuring them: what all experiments share."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.envs import AppendSkill, PointBox, Step, TensorEnv
from assay.envs.wrappers import Wrapper
from assay.rl.evaluate import coverage
from assay.rl.intrinsic import IntrinsicMixer, IntrinsicReward
from assay.rl.intrinsic.skills import DIAYNReward, SkillMeasure, SkillPolicy, SkillPrior, measure_skills
from assay.rl.policies import ActorCritic, actor_critic
from assay.rl.ppo import PPO
from assay.rl.rollout import Rollout, collect, random_rollout, start
from assay.rl.train import Update, train


@dataclass(frozen=True)
class SkillConfig:
    """A point in a box; the world may be a MuJoCo id instead (paper profile)."""

    world: str = "box"
    skills: int = 16
    copies: int = 128
    steps: int = 30  # of an episode, and of a rollout
    updates: int = 60
    move: float = 0.1  # length of a step; walls at -1 and 1
    open_move: float = 0.05  # in the plane without walls
    hidden: tuple[int, ...] = (64, 64)
    act: str = "tanh"
    rate: float = 2e-3
    entropy: float = 0.02
    gamma: float = 0.99
    lam: float = 0.95
    epochs: int = 4
    minibatches: int = 4
    fresh_copies: int = 512  # trajectories of the evaluation
    fresh_steps: int = 400  # training steps of its fresh discriminator
    evaluations: int = 3  # over training, for the curves


class Nothing(IntrinsicReward):
    """The same reward at every step: 0 leaves only the entropy bonus to learn from, -1 pays for ending."""

    episodic = True

    def __init__(self, value: float = 0.0):
        super().__init__()
        self.value = value

    def reward(self, rollout: Rollout) -> Tensor:
        """[T, N]."""
        return torch.full_like(rollout.reward[..., 0], self.value)


class WithState(Wrapper):
    """Tells the first two numbers of the observation as the state, where a world tells none."""

    def _advance(self, step: Step) -> Step:
        assert isinstance(step.final_obs, Tensor)
        return step._replace(info={**step.info, "state": step.final_obs[:, :2]})


@dataclass
class Streams:
    """The random streams of a run, the same in every arm."""

    world: torch.Generator
    skills: torch.Generator
    networks: torch.Generator
    actions: torch.Generator


MakeWorld = Callable[[int, torch.Generator], TensorEnv]


def learn(
    make: MakeWorld,
    reward: IntrinsicReward,
    config: SkillConfig,
    streams: Streams,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Update, ActorCritic]]:
    """Train a skill-conditioned policy on an intrinsic reward alone; yields after every update."""
    env = AppendSkill(make(config.copies, streams.world), config.skills, generator=streams.skills)
    model = actor_critic(env, config.hidden, config.act, generator=streams.networks).to(device)
    mixer = IntrinsicMixer([reward.to(device)], extrinsic=False)
    optimizer = torch.optim.Adam([*model.parameters(), *mixer.parameters()], config.rate, eps=1e-5)
    learner = PPO(
        model,
        optimizer,
        gamma=config.gamma,
        lam=config.lam,
        ent_coef=config.entropy,
        epochs=config.epochs,
        minibatches=config.minibatches,
        # Where nothing is paid there is no advantage, and standardising would blow the critic's errors up to one.
        adv_norm=None if isinstance(reward, Nothing) and reward.value == 0 else "batch",
        aux_losses=[mixer.loss],
    )
    turns = train(
        env, model, learner, config.updates, config.steps, mixer, streams.actions, info=("skill", "state")
    )
    for update in turns:
        prior = getattr(reward, "prior", None)
        if isinstance(prior, SkillPrior) and prior.kind != "uniform":
            env.set_prior(prior.probs)
        yield update, model


@torch.no_grad()
def roll_out(
    make: MakeWorld, model: ActorCritic, config: SkillConfig, generator: torch.Generator, steps: int
) -> Rollout:
    """Every skill equally often, each for whole episodes from its start: states are `info["state"]`."""
    copies = max(config.fresh_copies // config.skills, 4) * config.skills
    env = AppendSkill(make(copies, generator), config.skills, generator=generator)
    env.fix(torch.arange(config.skills).repeat(copies // config.skills))
    rollout = Rollout(steps, copies, info=("skill", "state"))
    collect(env, model, rollout, start(env, model), generator, values=False)
    return rollout


def states_of(rollout: Rollout, skills: int) -> Tensor:
    """[T, N, D]: states reached, without the skill's code."""
    obs = rollout.next_obs()
    assert isinstance(obs, Tensor)
    return obs[..., :-skills]


def measured(
    make: MakeWorld, model: ActorCritic, config: SkillConfig, generator: torch.Generator
) -> tuple[SkillMeasure, Rollout]:
    """A fresh discriminator's opinion of the skills, and the trajectories it was formed on."""
    rollout = roll_out(make, model, config, generator, config.steps)
    states = states_of(rollout, config.skills)
    return measure_skills(
        states, rollout.info["skill"][0], config.skills, generator, config.fresh_steps
    ), rollout


def bins_visited(states: Tensor, bins: int = 20) -> float:
    """Share of the box's bins x bins squares that were entered."""
    cell = ((states[..., :2].clamp(-1, 1) + 1) / 2 * bins).long().clamp(max=bins - 1)
    visits = torch.bincount((cell[..., 0] * bins + cell[..., 1]).flatten(), minlength=bins**2).float()
    return float(coverage(visits))


def summary(
    make: MakeWorld,
    model: ActorCritic,
    reward: IntrinsicReward,
    config: SkillConfig,
    generator: torch.Generator,
) -> tuple[dict[str, float], Rollout]:
    """What is told of a set of skills."""
    measure, rollout = measured(make, model, config, generator)
    states = states_of(rollout, config.skills)
    metrics = {
        "mi": measure.mi,
        "skill_accuracy": measure.accuracy,
        "alive": float(measure.alive()),
        "coverage": bins_visited(states),
        "distance": float(states[-1, :, :2].norm(dim=-1).mean()),
        "policy_entropy": float(model.policy_head.distribution(rollout.params).entropy().mean()),
    }
    blind = random_rollout(make(rollout.num_envs, generator), config.steps, generator)
    seen = blind.next_obs()
    assert isinstance(seen, Tensor)
    metrics["coverage_of_random_actions"] = bins_visited(seen)
    metrics["distance_of_random_actions"] = float(seen[-1, :, :2].norm(dim=-1).mean())
    if isinstance(reward, DIAYNReward):
        z = reward.infer_skill(states)
        metrics["imitated"] = float((z == rollout.info["skill"][0]).float().mean())
        metrics["effective_share"] = reward.prior.effective_number() / config.skills
    return metrics, rollout


def box(config: SkillConfig, closed: bool = True) -> MakeWorld:
    """The point's world; open: smaller steps and no walls."""

    def make(copies: int, generator: torch.Generator) -> TensorEnv:
        return PointBox(
            copies,
            step=config.move if closed else config.open_move,
            closed=closed,
            max_steps=config.steps,
            generator=generator,
            device=generator.device,
            validate=False,
        )

    return make


def frozen(model: ActorCritic, config: SkillConfig) -> SkillPolicy:
    """The policy, as skills to be used."""
    return SkillPolicy(model, config.skills).freeze()
