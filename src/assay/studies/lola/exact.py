"""Experiments on closed-form values: all pairs of an arm are one tensor program.

Tables of five numbers in float64: they stay on the CPU whatever the run's device.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from assay.games import (
    MemoryOneGame,
    QLearner,
    TabularOpponentModel,
    always_defect,
    chicken,
    imp,
    ipd,
    play,
    reciprocity_stats,
    stag_hunt,
    swap_view,
    tit_for_tat,
)
from assay.lab import Batch
from assay.optim.opponent import opponent_shaping_grad
from assay.studies.lola import study
from assay.studies.lola.config import ExactConfig, ToyConfig

Pairs = list[tuple[str, int]]
Gradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

MODES: dict[str, str | tuple[str, str]] = {
    "nl": "naive",
    "lola": "lola",
    "lookahead": "lookahead",
    "full": "full",
    "sos": "sos",
    "lola2": "lola2",
    "lola2-vs-lola": ("lola2", "lola"),
    "lola-vs-nl": ("lola", "naive"),
}


def first_policies(run: Batch, pairs: Pairs, stream: str = "policies") -> tuple[Tensor, Tensor]:
    """N(0, 1) logits of both players, ``[pairs, 5]`` each, drawn from each pair's own generator."""
    draws = [
        torch.randn(2, 5, generator=run.generator(stream, seed, "cpu"), dtype=torch.float64)
        for _, seed in pairs
    ]
    theta = torch.stack(draws, 1)
    return theta[0], theta[1]


def learn(
    run: Batch,
    pairs: Pairs,
    game: MemoryOneGame,
    theta1: Tensor,
    theta2: Tensor,
    gradient: Gradient,
    config: ExactConfig,
    rates: tuple[float, float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Simultaneous descent of both players along `gradient`; logs the mean return of each pair."""
    rate1, rate2 = rates or (config.rate, config.rate)
    for step in run.steps(config.steps):
        if step % config.log_every == 0:
            log_returns(run, pairs, game, theta1, theta2, step)
        g1, g2 = gradient(theta1, theta2)
        theta1, theta2 = theta1 - rate1 * g1, theta2 - rate2 * g2
    log_returns(run, pairs, game, theta1, theta2, config.steps)
    return theta1, theta2


def log_returns(
    run: Batch, pairs: Pairs, game: MemoryOneGame, theta1: Tensor, theta2: Tensor, step: int
) -> None:
    r1, r2 = game.average_return(theta1, theta2)
    for (arm, seed), value in zip(pairs, (0.5 * (r1 + r2)).tolist(), strict=True):
        run.log(step, arm=arm, seed=seed, **{"return": value})


def outcome(game: MemoryOneGame, theta1: Tensor, theta2: Tensor) -> dict[str, Tensor]:
    """What a pair came to; reciprocity is the mean of both players, each in its own view."""
    r1, r2 = game.average_return(theta1, theta2)
    stats1, stats2 = reciprocity_stats(theta1), reciprocity_stats(swap_view(theta2))
    both = {name: 0.5 * (stats1[name] + stats2[name]) for name in stats1}
    return {
        "return": 0.5 * (r1 + r2),
        "return_1": r1,
        "return_2": r2,
        # An equilibrium is one of the pair: both policies must be even.
        "nash": stats1["mixed"] * stats2["mixed"],
        **{name: both[name] for name in ("tft_state", "tft_policy", "tft_prob", "saturated")},
    }


def rows(values: dict[str, Tensor], names: tuple[str, ...], pairs: Pairs) -> Iterator[dict[str, float]]:
    """One plain dict a pair; five decimals keep the evidence small."""
    lists = {name: values[name].tolist() for name in names}
    for k in range(len(pairs)):
        yield {name: round(lists[name][k], 5) for name in names}


def save_policies(run: Batch, pairs: Pairs, theta1: Tensor, theta2: Tensor) -> None:
    """The final policies of the whole batch, in each player's own view, kept with its first pair."""
    arm, seed = pairs[0]
    both = torch.stack([torch.sigmoid(theta1), torch.sigmoid(swap_view(theta2))], 1)
    run.save("policies", {"probability": both.float()}, arm=arm, seed=seed)


RECIPROCITY = ("return", "tft_state", "tft_policy", "tft_prob", "saturated")


@study.batch("ipd/*", "imp/*", "mixed/*", config="exact")
def tables(run: Batch, pairs: Pairs, config: ExactConfig) -> Iterator[dict[str, float]]:
    """The paper's main experiment: every mode on the dilemma and on pennies."""
    world, _, mode = pairs[0][0].partition("/")
    game = imp() if world == "imp" else ipd()
    theta1, theta2 = first_policies(run, pairs)
    theta1, theta2 = learn(
        run,
        pairs,
        game,
        theta1,
        theta2,
        lambda a, b: opponent_shaping_grad(game.losses, a, b, config.look_ahead, MODES[mode]),
        config,
    )
    save_policies(run, pairs, theta1, theta2)
    values = outcome(game, theta1, theta2)
    if world == "imp":
        return rows(values, ("nash", "return_1", "saturated"), pairs)
    if "-vs-" in mode:
        return rows(values, ("return_1", "return_2", "tft_state"), pairs)
    return rows(values, RECIPROCITY, pairs)


@study.batch("eta/*", config="exact")
def look_ahead(run: Batch, pairs: Pairs, config: ExactConfig) -> Iterator[dict[str, float]]:
    """How far must LOLA look?"""
    game, eta = ipd(), float(pairs[0][0].partition("/")[2])
    theta1, theta2 = first_policies(run, pairs)
    theta1, theta2 = learn(
        run,
        pairs,
        game,
        theta1,
        theta2,
        lambda a, b: opponent_shaping_grad(game.losses, a, b, eta, "lola"),
        config,
    )
    return rows(outcome(game, theta1, theta2), ("return", "tft_state"), pairs)


# -- other parametrisations of the same policies -----------------------------------------------------------------


@study.batch("reparam/*", config="exact")
def reparametrised(run: Batch, pairs: Pairs, config: ExactConfig) -> Iterator[dict[str, float]]:
    """LOLA on the same policies, written with other parameters."""
    game, kind = ipd(), pairs[0][0].partition("/")[2]
    if kind.startswith("scaled-"):
        # theta = scale * phi, from the same first policies as the tabular arm.
        scale = float(kind.removeprefix("scaled-"))
        theta1, theta2 = (theta / scale for theta in first_policies(run, pairs))
        policy: Callable[[object], Tensor] = lambda phi: scale * phi  # noqa: E731
        players: tuple[object, object] = (theta1, theta2)
    else:
        policy = hidden_policy
        players = hidden_players(run, pairs, width=int(kind.removeprefix("mlp-")))
    for step in run.steps(config.steps):
        if step % config.log_every == 0:
            log_returns(run, pairs, game, policy(players[0]), policy(players[1]), step)
        grads = opponent_shaping_grad(
            lambda a, b: game.losses(policy(a), policy(b)), *players, config.look_ahead, "lola"
        )
        players = tuple(descend(p, g, config.rate) for p, g in zip(players, grads, strict=True))  # type: ignore[assignment]
    theta1, theta2 = policy(players[0]), policy(players[1])
    log_returns(run, pairs, game, theta1, theta2, config.steps)
    return rows(outcome(game, theta1, theta2), ("return", "tft_state", "tft_policy"), pairs)


def descend(params: object, grads: object, rate: float) -> object:
    if isinstance(params, tuple):
        return tuple(p - rate * g for p, g in zip(params, grads, strict=True))  # type: ignore[call-overload]
    return params - rate * grads  # type: ignore[operator]


def hidden_players(run: Batch, pairs: Pairs, width: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Two networks a pair: state (one-hot) -> `width` tanh units -> logit; weights N(0, 1 / fan-in), biases zero."""
    first, last = [], []
    for _, seed in pairs:
        generator = run.generator("networks", seed, "cpu")
        first.append(torch.randn(2, 5, width, generator=generator, dtype=torch.float64))
        last.append(torch.randn(2, width, generator=generator, dtype=torch.float64) / math.sqrt(width))
    inner, outer = torch.stack(first, 1), torch.stack(last, 1)

    def player(i: int) -> tuple[Tensor, ...]:
        return (inner[i], torch.zeros_like(outer[i]), outer[i], torch.zeros_like(outer[i][:, :1]))

    return player(0), player(1)


def hidden_policy(params: object) -> Tensor:
    """Logits of all five states, ``[pairs, 5]``; a one-hot input picks a row of the first weight."""
    inner, inner_bias, outer, bias = params  # type: ignore[misc]
    hidden = torch.tanh(inner + inner_bias.unsqueeze(1))
    return (hidden @ outer.unsqueeze(-1)).squeeze(-1) + bias


# -- open questions ----------------------------------------------------------------------------------------------


@study.batch("games/*", config="exact")
def other_games(run: Batch, pairs: Pairs, config: ExactConfig) -> Iterator[dict[str, float]]:
    """Every mode on other payoffs and other discounts."""
    world, _, mode = pairs[0][0].partition("/")[2].partition(":")
    game = (
        {"chicken": chicken, "stag": stag_hunt}[world]()
        if world in ("chicken", "stag")
        else ipd(float(world[4:]))
    )
    theta1, theta2 = first_policies(run, pairs)
    theta1, theta2 = learn(
        run,
        pairs,
        game,
        theta1,
        theta2,
        lambda a, b: opponent_shaping_grad(game.losses, a, b, config.look_ahead, MODES[mode]),
        config,
    )
    values = outcome(game, theta1, theta2)
    values["worst"] = torch.minimum(values["return_1"], values["return_2"])
    return rows(values, ("return", "worst"), pairs)


@study.batch("basin/*", config="exact")
def basins(run: Batch, pairs: Pairs, config: ExactConfig) -> Iterator[dict[str, float]]:
    """Reciprocity, or a better basin? Start from the ends of other learners."""
    game, name = ipd(), pairs[0][0].partition("/")[2]
    learner, _, start = name.partition("-from-")
    theta1, theta2 = first_policies(run, pairs)
    if start == "naive":  # where this pair's naive learners end
        for _ in range(config.steps):
            g1, g2 = opponent_shaping_grad(game.losses, theta1, theta2, 0.0, "naive")
            theta1, theta2 = theta1 - config.rate * g1, theta2 - config.rate * g2
    elif start == "defection":
        theta1, theta2 = (always_defect(2.0) + 0.1 * theta for theta in (theta1, theta2))
    else:
        theta1 = tit_for_tat(2.0) + 0.1 * theta1
        theta2 = swap_view(tit_for_tat(2.0)) + 0.1 * theta2
    theta1, theta2 = learn(
        run,
        pairs,
        game,
        theta1,
        theta2,
        lambda a, b: opponent_shaping_grad(game.losses, a, b, config.look_ahead, MODES[learner]),
        config,
    )
    values = outcome(game, theta1, theta2)
    values["cooperates"] = (values["return"] >= -1.25).double()
    return rows(values, ("return", "cooperates", "tft_state"), pairs)


@study.batch("know/*", config="exact")
def knowledge(run: Batch, pairs: Pairs, config: ExactConfig) -> Iterator[dict[str, float]]:
    """LOLA that is wrong about its opponent. `return_1` is the LOLA player's."""
    what = pairs[0][0].partition("/")[2]
    game = ipd()
    theta1, theta2 = first_policies(run, pairs)
    rates = (config.rate, config.rate)
    eta = config.look_ahead

    def both_lola(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return opponent_shaping_grad(game.losses, a, b, eta, "lola")

    gradient: Gradient = both_lola
    if what.startswith("rate-"):  # a naive learner whose true rate is not the one believed
        rates = (config.rate, float(what.removeprefix("rate-")))
        gradient = lambda a, b: opponent_shaping_grad(game.losses, a, b, eta, ("lola", "naive"))  # noqa: E731
    elif what in ("own-rewards", "noisy-rewards"):
        belief1, belief2 = believed_games(run, pairs, game, what, config.payoff_noise)
        gradient = lambda a, b: (  # noqa: E731
            opponent_shaping_grad(belief1, a, b, eta, ("lola", "naive"))[0],
            opponent_shaping_grad(belief2, a, b, eta, ("naive", "lola"))[1],
        )
    elif what.startswith("episodes-"):
        gradient = Watching(run, pairs, game, int(what.removeprefix("episodes-")), config)
    elif what == "vs-q":
        return against_q_learner(run, pairs, game, theta1, config)
    else:
        rates = (config.rate, 0.0)
        other = {"vs-tft": tit_for_tat(4.0), "vs-always-d": always_defect(4.0)}[what]
        theta2 = swap_view(other).expand_as(theta2).clone()
        gradient = lambda a, b: opponent_shaping_grad(game.losses, a, b, eta, ("lola", "naive"))  # noqa: E731
    theta1, theta2 = learn(run, pairs, game, theta1, theta2, gradient, config, rates)
    return rows(outcome(game, theta1, theta2), ("return", "return_1", "return_2"), pairs)


def believed_games(
    run: Batch, pairs: Pairs, game: MemoryOneGame, what: str, noise: float
) -> tuple[
    Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
]:
    """The losses as player 1 and as player 2 believe them: each knows its own payoffs only."""
    reward1, reward2 = game.payoff1.flatten(), game.payoff2.flatten()
    if what == "own-rewards":
        guess2, guess1 = reward1.expand(len(pairs), 4), reward2.expand(len(pairs), 4)
    else:
        sources = [run.generator("payoffs", seed, "cpu") for _, seed in pairs]
        errors = torch.stack([torch.randn(2, 4, generator=g, dtype=torch.float64) for g in sources], 1)
        guess2, guess1 = reward2 + noise * errors[0], reward1 + noise * errors[1]

    def losses(a: Tensor, b: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        visits = game.occupancy(a, b)
        return -(visits * first).sum(-1), -(visits * second).sum(-1)

    return lambda a, b: losses(a, b, reward1, guess2), lambda a, b: losses(a, b, guess1, reward2)


class Watching:
    """Both players shape a model of the other, counted from a number of episodes a step."""

    def __init__(
        self, run: Batch, pairs: Pairs, game: MemoryOneGame, episodes: int, config: ExactConfig
    ) -> None:
        self.game, self.config, self.episodes = game, config, episodes
        self.generators = [run.generator("episodes", seed, "cpu") for _, seed in pairs]
        self.models = tuple(TabularOpponentModel((len(pairs),), dtype=torch.float64) for _ in range(2))

    def __call__(self, theta1: Tensor, theta2: Tensor) -> tuple[Tensor, Tensor]:
        shape = (self.config.episode, 2, self.episodes)
        noise = torch.stack([torch.rand(shape, generator=g) for g in self.generators], 2).double()
        seen = play(self.game, theta1, swap_view(theta2), noise)
        self.models[0].count(seen.states1, seen.actions1)
        self.models[1].count(seen.states2, seen.actions2)
        model1, model2 = self.models[0].logits.detach(), swap_view(self.models[1].logits.detach())
        eta = self.config.look_ahead
        return (
            opponent_shaping_grad(self.game.losses, theta1, model2, eta, ("lola", "naive"))[0],
            opponent_shaping_grad(self.game.losses, model1, theta2, eta, ("naive", "lola"))[1],
        )


def against_q_learner(
    run: Batch, pairs: Pairs, game: MemoryOneGame, theta1: Tensor, config: ExactConfig
) -> Iterator[dict[str, float]]:
    """The opponent learns its own way: epsilon-greedy Q-learning on what it plays."""
    learner = QLearner(len(pairs), game.gamma)
    generators = [run.generator("q-learner", seed, "cpu") for _, seed in pairs]
    start = torch.full((len(pairs),), 4)
    state1 = state2 = start
    rewards = game.payoff2.flatten()
    swap = torch.tensor([0, 2, 1, 3])
    for _ in run.steps(config.steps):
        noise = torch.stack([torch.rand(config.plays, 2, generator=g) for g in generators], -1)
        chance = torch.sigmoid(theta1)
        for draw in noise:
            action1 = (draw[0] >= chance.gather(-1, state1.unsqueeze(-1)).squeeze(-1)).long()
            action2 = learner.act(state2, draw[1])
            joint = 2 * action1 + action2
            learner.learn(state2, action2, action1, rewards[joint], swap[joint])
            state1, state2 = joint, swap[joint]
        theta2 = swap_view(torch.logit(learner.cooperation()))
        g1, _ = opponent_shaping_grad(game.losses, theta1, theta2, config.look_ahead, ("lola", "naive"))
        theta1 = theta1 - config.rate * g1
    theta2 = swap_view(torch.logit(learner.cooperation()))
    return rows(outcome(game, theta1, theta2), ("return", "return_1", "return_2"), pairs)


# -- two games of two numbers ------------------------------------------------------------------------------------


@study.batch("toy/*", config="toy")
def toys(run: Batch, pairs: Pairs, config: ToyConfig) -> Iterator[dict[str, float]]:
    """The bilinear zero-sum game (the simplest GAN) and the tandem game, from eight starts a mode."""
    mode = MODES[pairs[0][0].partition("/")[2]]
    draws = torch.stack(
        [
            torch.randn(2, generator=run.generator("start", seed, "cpu"), dtype=torch.float64)
            for _, seed in pairs
        ],
        1,
    )
    paths = {}
    for name, losses, steps, rate, eta in (
        ("bilinear", bilinear, config.bilinear_steps, config.bilinear_rate, config.bilinear_look_ahead),
        ("tandem", tandem, config.tandem_steps, config.tandem_rate, config.tandem_look_ahead),
    ):
        x, y = draws[0], draws[1]
        path = [torch.stack([x, y], -1)]
        for _ in run.steps(steps):
            gx, gy = opponent_shaping_grad(losses, x, y, eta, mode)
            x, y = x - rate * gx, y - rate * gy
            path.append(torch.stack([x, y], -1))
        paths[name] = torch.stack(path, 1)
    for k, (arm, seed) in enumerate(pairs):
        run.save("paths", {name: path[k].float() for name, path in paths.items()}, arm=arm, seed=seed)
    start = paths["bilinear"][:, 0].norm(dim=-1)
    yield from rows(
        {
            "bilinear_shrinks": paths["bilinear"][:, -1].norm(dim=-1) / start,
            "tandem_sum": paths["tandem"][:, -1].sum(-1),
        },
        ("bilinear_shrinks", "tandem_sum"),
        pairs,
    )


def bilinear(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return -x * y, x * y


def tandem(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return (x + y) ** 2 - 2 * x, (x + y) ** 2 - 2 * y
