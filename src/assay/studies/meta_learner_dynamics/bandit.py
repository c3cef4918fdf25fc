"""Contextual bandits: policy gradients from scratch with and without shared parameters, and a recurrent player."""

from typing import NamedTuple

import torch
from torch import Tensor

from assay.analysis import half_time
from assay.lab import Trial
from assay.meta import BayesBandit, ContextBandit, RecurrentPolicy, train_policy, visit_numbers
from assay.studies.meta_learner_dynamics import study
from assay.studies.meta_learner_dynamics.config import BanditLearnerConfig, BanditMetaConfig

# -- the meta-learner ---------------------------------------------------------------------------------------------


@study.trial("bandit/meta", config="bandit")
def meta(run: Trial, arm: str, config: BanditMetaConfig) -> dict[str, float]:
    """Train over bandits, freeze, and count success by visit."""
    world = ContextBandit(config.contexts, config.actions)
    policy = RecurrentPolicy(world.obs_dim, config.hidden, config.actions, run.generator("network", "cpu"))
    policy = policy.to(run.device)
    training = train_policy(
        policy,
        world,
        config.updates,
        horizon=config.horizon,
        copies=config.copies,
        rate=config.rate,
        gamma=config.gamma,
        entropy_weight=config.entropy,
        snapshots=config.stages,
        generator=run.generator("outer"),
        over=run.steps,
    )
    for update in range(0, len(training.losses), 10):
        run.log(update, reward=-training.losses[update : update + 10].mean())
    stages = []
    for weights in training.snapshots.values():
        policy.load_state_dict(weights)
        stages.append(by_visit(run, policy, world, config, config.stage_tasks))
    found = by_visit(run, policy, world, config, config.tasks)
    ideal = BayesBandit.success(torch.arange(1, config.visits + 1), config.actions)
    shares = torch.tensor(list(training.snapshots), dtype=torch.float32)
    run.save("curves", {"meta": found, "bayes": ideal, "share": shares, "stages": torch.stack(stages)})
    return {
        "gap": float((found - ideal).abs().mean()),
        "below": float((ideal - found).mean()),
        "last": float(found[-1]),
        "bayes_played": float(bayes_plays(run, world, config)),
    }


def by_visit(
    run: Trial, policy: RecurrentPolicy, world: ContextBandit, config: BanditMetaConfig, tasks: int
) -> Tensor:
    """Mean reward at the n-th visit of a context, n = 1 .. visits."""
    source = run.generator("evaluation")
    drawn = world.sample(tasks, config.horizon, source)
    _, _, reward = policy.play(world, drawn, source)
    return mean_by_visit(reward, visit_numbers(drawn.contexts, config.contexts), config.visits)


def mean_by_visit(reward: Tensor, visit: Tensor, visits: int) -> Tensor:
    """Means of `reward` where `visit` is 1, 2, ..., visits."""
    of = torch.nn.functional.one_hot(visit.clamp(max=visits + 1), visits + 2)[..., 1 : visits + 1].float()
    return (((of * reward.unsqueeze(-1)).sum((0, 1))) / of.sum((0, 1)).clamp(min=1)).cpu()


def bayes_plays(run: Trial, world: ContextBandit, config: BanditMetaConfig) -> Tensor:
    """Mean reward by visit of the Bayesian player in the same evaluation tasks, averaged over visits."""
    source = run.generator("evaluation")
    drawn = world.sample(config.tasks, config.horizon, source)
    world.reset(drawn)
    player = BayesBandit(config.tasks, config.contexts, config.actions, device=run.device)
    earned = []
    for context in drawn.contexts.unbind(1):
        action = player.act(context, source)
        _, reward, _ = world.step(action)
        player.update(context, action, reward)
        earned.append(reward)
    visit = visit_numbers(drawn.contexts, config.contexts)
    return mean_by_visit(torch.stack(earned, 1), visit, config.visits).mean()


# -- the learners -------------------------------------------------------------------------------------------------


class Learned(NamedTuple):
    """How the chance of the right action grew in every task."""

    chance: Tensor
    """``[tasks, contexts, steps + 1]``."""
    halves: Tensor
    """When each context passes one half, sorted ``[tasks, contexts]``."""


@study.trial("bandit/coupled", "bandit/decoupled", "bandit/offpolicy", "bandit/reinforce", config="policy")
def learner(run: Trial, arm: str, config: BanditLearnerConfig) -> dict[str, float]:
    """Softmax policies with a logit table and (unless decoupled) a bias that all contexts share."""
    kind = arm.partition("/")[2]
    small = (config.contexts, config.actions, config.rate, config.steps)
    found = climb(run, kind, config, *small)
    # Curves of contexts in the order in which they are learned.
    order = half_time(found.chance).argsort(-1).unsqueeze(-1).expand_as(found.chance)
    curve = {"chance": found.chance.gather(1, order).mean(0).float()}
    metrics = {
        "index": index(found),
        "unlearned": float(found.halves.isinf().float().mean()),
        "first_half_step": float(found.halves[:, 0].mean()),
        "last_half_step": float(found.halves[:, -1].mean()),
    }
    if kind != "reinforce":  # exact gradients cost next to nothing
        different = distinct(run, config.tasks, config.contexts, config.actions)
        metrics["index_different_actions"] = index(climb(run, kind, config, *small, correct=different))
        # The gradient of a context shrinks with contexts and actions; so does the speed.
        slower = config.large**2 / (config.contexts * config.actions)
        large = climb(
            run, kind, config, config.large, config.large, config.rate, round(2 * slower * config.steps)
        )
        curve |= example(large)
        metrics |= {
            "index_large": index(large),
            "first_half_step_large": float(large.halves[:, 0].mean()),
            "last_half_step_large": float(large.halves[:, -1].mean()),
        }
    run.save("curves", curve)
    return metrics


def index(found: Learned) -> float:
    """Mean over tasks of log2(half time of the last context / of the first)."""
    return float((found.halves[:, -1] / found.halves[:, 0]).log2().mean())


def example(found: Learned) -> dict[str, Tensor]:
    """The task whose contexts are learned farthest apart, thinned: a curve of plateaus to look at."""
    worst = int((found.halves[:, -1] / found.halves[:, 0]).nan_to_num(0.0, posinf=0.0).argmax())
    keep = torch.linspace(0, found.chance.shape[-1] - 1, 200).round().long()
    return {"example": found.chance[worst][:, keep].float().cpu(), "example_steps": keep.float()}


def distinct(run: Trial, tasks: int, contexts: int, actions: int) -> Tensor:
    """Rewarded actions that differ between contexts (if there are enough), so that nobody helps another."""
    source = run.generator("different")
    order = torch.rand(tasks, actions, generator=source, device=run.device).argsort(-1)
    return order[:, torch.arange(contexts, device=run.device) % actions]


def climb(
    run: Trial,
    kind: str,
    config: BanditLearnerConfig,
    contexts: int,
    actions: int,
    rate: float,
    steps: int,
    correct: Tensor | None = None,
) -> Learned:
    """Gradient ascent of the mean chance of reward, all tasks at once.

    Exact: $\\partial J/\\partial z_{ca} = \\pi(a^*_c)(1[a = a^*_c] - \\pi(a))/C$ for the logits z of context c. Off
    policy (actions drawn uniformly, no weighting) the factor $\\pi(a^*_c)$ is 1/A. Sampled: REINFORCE with the chance
    of reward in the context as baseline. The shared bias gets the sum over contexts.
    """
    source = run.generator("layers")
    shape = (config.tasks, contexts, actions)
    table = config.start * torch.randn(shape, generator=source, device=run.device)
    bias = config.start * torch.randn(config.tasks, 1, actions, generator=source, device=run.device)
    if kind == "decoupled":
        bias = torch.zeros_like(bias)
    if correct is None:
        correct = ContextBandit(contexts, actions).sample(config.tasks, 1, run.generator("tasks")).correct
    right = torch.nn.functional.one_hot(correct, actions).float()
    play = run.generator("play")
    kept = []
    for _ in run.steps(steps + 1):
        chance = (table + bias).softmax(-1)
        won = (chance * right).sum(-1, keepdim=True)
        kept.append(won.squeeze(-1))
        if kind == "reinforce":
            step = sampled_gradient(chance, right, won, config.sampled, play)
        else:
            step = (right - chance) * (1 / actions if kind == "offpolicy" else won) / contexts
        table = table + rate * step
        if kind != "decoupled":
            bias = bias + rate * step.sum(1, keepdim=True)
    curve = torch.stack(kept, -1).double()
    return Learned(curve, half_time(curve).sort(-1).values)


def sampled_gradient(
    chance: Tensor, right: Tensor, won: Tensor, plays: int, generator: torch.Generator
) -> Tensor:
    """REINFORCE from `plays` steps a task: contexts uniform, actions from the policy."""
    tasks, contexts, actions = chance.shape
    shown = torch.randint(contexts, (tasks, plays), generator=generator, device=chance.device)
    of = torch.nn.functional.one_hot(shown, contexts).float()
    policy = of @ chance
    action = torch.multinomial(policy.flatten(0, 1), 1, generator=generator).view(tasks, plays)
    taken = torch.nn.functional.one_hot(action, actions).float()
    advantage = (taken * (of @ right)).sum(-1, keepdim=True) - of @ won
    return of.mT @ (advantage * (taken - policy)) / plays
