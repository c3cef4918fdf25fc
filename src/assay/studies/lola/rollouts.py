"""Learning from sampled play alone: policy gradients, opponent models, DiCE. All pairs play in one tensor program."""

from collections.abc import Iterator

import torch
from torch import Tensor

from assay.games import MemoryOneGame, Play, TabularOpponentModel, imp, ipd, play, policy_log_prob, swap_view
from assay.lab import Batch
from assay.optim.opponent import dice_objective, discounts, lola_policy_gradient
from assay.studies.lola import study
from assay.studies.lola.config import DiceConfig, RolloutConfig
from assay.studies.lola.exact import RECIPROCITY, Pairs, log_returns, outcome, rows, save_policies

Generators = list[torch.Generator]


def start(run: Batch, pairs: Pairs) -> tuple[Tensor, Tensor, Generators]:
    """First logits ``[pairs, 5]`` of both players in their own view, and each pair's own source of noise."""
    draws = [
        torch.randn(2, 5, generator=run.generator("policies", seed), device=run.device) for _, seed in pairs
    ]
    theta = torch.stack(draws, 1)
    return theta[0], theta[1], [run.generator("play", seed) for _, seed in pairs]


def sample(
    game: MemoryOneGame, theta1: Tensor, theta2: Tensor, generators: Generators, horizon: int, rollouts: int
) -> Play:
    """Fresh play of all pairs, the noise of each drawn from its own generator."""
    draws = [torch.rand(horizon, 2, rollouts, generator=g, device=theta1.device) for g in generators]
    return play(game, theta1.detach(), theta2.detach(), torch.stack(draws, 2))


@study.batch("pg/*", "pg-imp/*", config="rollout")
def policy_gradients(run: Batch, pairs: Pairs, config: RolloutConfig) -> Iterator[dict[str, float]]:
    """NL, LOLA and LOLA with a fitted opponent, from rollouts."""
    world, _, learner = pairs[0][0].partition("/")
    game = imp() if world == "pg-imp" else ipd()
    theta1, theta2, generators = start(run, pairs)
    models = [TabularOpponentModel((len(pairs),)).to(run.device) for _ in range(2)]
    for update in run.steps(config.updates):
        if update % config.log_every == 0:
            log_returns(run, pairs, game, theta1, swap_view(theta2), update)
        seen = sample(game, theta1, theta2, generators, config.horizon, config.rollouts)
        theta1, theta2 = theta1.detach().requires_grad_(), theta2.detach().requires_grad_()
        logp1 = policy_log_prob(theta1, seen.states1, seen.actions1)
        logp2 = policy_log_prob(theta2, seen.states2, seen.actions2)
        rates = {"gamma": game.gamma, "eta": config.look_ahead}
        rewards = (seen.rewards1, seen.rewards2)
        if learner == "lola-om":
            # Each shapes its model of the other, counted from the same batch, and never sees the other's parameters.
            models[0].count(seen.states1, seen.actions1)
            models[1].count(seen.states2, seen.actions2)
            guess1, guess2 = (m.logits.detach().clone().requires_grad_() for m in models)
            guessed1 = policy_log_prob(guess1, seen.states1, seen.actions1)
            guessed2 = policy_log_prob(guess2, seen.states2, seen.actions2)
            g1, _ = lola_policy_gradient(
                logp1, guessed2, *rewards, theta1, guess2, mode=("lola", "naive"), **rates
            )
            _, g2 = lola_policy_gradient(
                guessed1, logp2, *rewards, guess1, theta2, mode=("naive", "lola"), **rates
            )
        else:
            mode = "lola" if learner == "lola" else "naive"
            g1, g2 = lola_policy_gradient(logp1, logp2, *rewards, theta1, theta2, mode=mode, **rates)
        theta1, theta2 = theta1.detach() - config.rate * g1, theta2.detach() - config.rate * g2
    log_returns(run, pairs, game, theta1, swap_view(theta2), config.updates)
    save_policies(run, pairs, theta1, swap_view(theta2))
    values = outcome(game, theta1, swap_view(theta2))
    return rows(values, ("nash", "return_1", "saturated") if world == "pg-imp" else RECIPROCITY, pairs)


@study.batch("dice/*", config="dice")
def dice(run: Batch, pairs: Pairs, config: DiceConfig) -> Iterator[dict[str, float]]:
    """Both players differentiate through K sampled steps of the other, with DiCE objectives throughout."""
    game, kind = ipd(), pairs[0][0].partition("/")[2]
    steps, centred = int(kind.rpartition("-")[2]), not kind.startswith("own-baseline")
    theta1, theta2, generators = start(run, pairs)
    for update in run.steps(config.updates):
        if update % config.log_every == 0:
            log_returns(run, pairs, game, theta1, swap_view(theta2), update)
        g1 = look_through(game, theta1, theta2, generators, steps, centred, config)
        # The dilemma is symmetric: seen from player 2 it is the same game with the players' places exchanged.
        g2 = look_through(game, theta2, theta1, generators, steps, centred, config)
        theta1, theta2 = theta1 + config.rate * g1, theta2 + config.rate * g2
    log_returns(run, pairs, game, theta1, swap_view(theta2), config.updates)
    return rows(outcome(game, theta1, swap_view(theta2)), RECIPROCITY, pairs)


def look_through(
    game: MemoryOneGame,
    own: Tensor,
    other: Tensor,
    generators: Generators,
    steps: int,
    centred: bool,
    config: DiceConfig,
) -> Tensor:
    """Gradient of the own return after `steps` simulated gradient steps of the other player."""
    own = own.detach().requires_grad_()
    other = other.detach().requires_grad_()
    for _ in range(steps):
        objective = sampled_objective(game, own, other, generators, config, centred, second=True)
        (step,) = torch.autograd.grad(objective.sum(), other, create_graph=True)
        other = other + config.look_ahead * step
    objective = sampled_objective(game, own, other, generators, config, centred, second=False)
    return torch.autograd.grad(objective.sum(), own)[0]


def sampled_objective(
    game: MemoryOneGame,
    own: Tensor,
    other: Tensor,
    generators: Generators,
    config: DiceConfig,
    centred: bool,
    second: bool,
) -> Tensor:
    """DiCE objective ``[pairs]`` of the own return (of the other's, if `second`) on fresh play.

    `centred` takes the mean over rollouts off the rewards of each step. Nobody's action moves that mean, so no
    derivative moves in expectation, and the variance falls in every order; DiCE's own baseline term helps the first
    order alone.
    """
    seen = sample(game, own, other, generators, config.horizon, config.rollouts)
    logp = policy_log_prob(own, seen.states1, seen.actions1) + policy_log_prob(
        other, seen.states2, seen.actions2
    )
    rewards = seen.rewards2 if second else seen.rewards1
    if centred:
        return dice_objective(logp, rewards - rewards.mean(-1, keepdim=True), gamma=game.gamma)
    weight = discounts(config.horizon, game.gamma, rewards)
    to_go = (weight * rewards).flip(0).cumsum(0).flip(0) / weight
    return dice_objective(logp, rewards, to_go.mean(-1, keepdim=True), game.gamma)
