"""Round robin: gradient players, tabular learners and two fixed policies, in every pairing at once.

Tables of five numbers in float64: they stay on the CPU whatever the run's device.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from assay.games import (
    JointActionLearner,
    MemoryOneGame,
    PolicyHillClimber,
    QLearner,
    TabularLearner,
    always_defect,
    imp,
    ipd,
    swap_view,
    tit_for_tat,
)
from assay.lab import Batch
from assay.optim.opponent import opponent_shaping_grad
from assay.studies.lola import study
from assay.studies.lola.config import TournamentConfig
from assay.studies.lola.exact import Pairs

GRADIENT: dict[str, Any] = {"nl": "naive", "lola": "lola", "lookahead": "lookahead", "sos": "sos"}
TABULAR = ("q", "jal", "phc", "wolf")
FIXED = {"tft": tit_for_tat(5.0), "always-d": always_defect(5.0)}
PLAYERS = (*GRADIENT, *TABULAR, *FIXED)


def tabular(kind: str, lives: int, gamma: float, config: TournamentConfig) -> TabularLearner:
    if kind == "q":
        return QLearner(lives, gamma, config.q_rate, config.explore)
    if kind == "jal":
        return JointActionLearner(lives, gamma, config.q_rate, config.explore)
    losing = config.losing_step if kind == "wolf" else None
    return PolicyHillClimber(lives, gamma, config.q_rate, config.explore, config.policy_step, losing)


class Seat:
    """All players in one of the two places, ``[matches]``, grouped by kind; policies in their own view."""

    def __init__(self, kinds: list[str], first: Tensor, gamma: float, config: TournamentConfig) -> None:
        self.theta = first.clone()
        self.groups: dict[str, Tensor] = {
            kind: torch.tensor([i for i, k in enumerate(kinds) if k == kind]) for kind in dict.fromkeys(kinds)
        }
        self.learners = {
            kind: tabular(kind, len(where), gamma, config)
            for kind, where in self.groups.items()
            if kind in TABULAR
        }
        for kind, where in self.groups.items():
            if kind in FIXED:
                self.theta[where] = FIXED[kind]
        self.read()

    def read(self) -> None:
        """Bring the policies of the tabular learners into `theta`."""
        for kind, learner in self.learners.items():
            self.theta[self.groups[kind]] = torch.logit(learner.cooperation().clamp(1e-4, 1 - 1e-4))

    def act(self, states: Tensor, noise: Tensor, chance: Tensor) -> Tensor:
        actions = (noise >= chance.gather(-1, states.unsqueeze(-1)).squeeze(-1)).long()
        for kind, learner in self.learners.items():
            where = self.groups[kind]
            actions[where] = learner.act(states[where], noise[where])
        return actions

    def learn(self, *transition: Tensor) -> None:
        for kind, learner in self.learners.items():
            where = self.groups[kind]
            learner.learn(*(part[where] for part in transition))


@study.batch("tournament/*", config="tournament", group="all")
def dilemma(run: Batch, pairs: Pairs, config: TournamentConfig) -> Iterator[dict[str, float]]:
    """The round robin of the prisoner's dilemma."""
    yield from round_robin(run, pairs, ipd(), config)


@study.batch("tournament-imp/*", config="tournament", group="all")
def pennies(run: Batch, pairs: Pairs, config: TournamentConfig) -> Iterator[dict[str, float]]:
    """The round robin of matching pennies."""
    yield from round_robin(run, pairs, imp(), config)


def round_robin(
    run: Batch, pairs: Pairs, game: MemoryOneGame, config: TournamentConfig
) -> list[dict[str, float]]:
    """An arm is a player in the first seat; it meets every player in the second. Metrics: its return against each.

    Tabular learners learn from what they play; gradient players take the other's present policy as known and believe it
    to be a gradient learner, whatever it is.
    """
    kinds1 = [arm.partition("/")[2] for arm, _ in pairs for _ in PLAYERS]
    kinds2 = [kind for _ in pairs for kind in PLAYERS]
    # One draw for each seed and opponent, the same for every arm.
    firsts = [
        torch.randn(
            2, len(PLAYERS), 5, generator=run.generator("tournament", seed, "cpu"), dtype=torch.float64
        )
        for _, seed in pairs
    ]
    first = torch.stack(firsts, 1).flatten(1, 2)
    seats = (Seat(kinds1, first[0], game.gamma, config), Seat(kinds2, first[1], game.gamma, config))
    generators = {seed: run.generator("tournament-play", seed, "cpu") for _, seed in pairs}
    tables = [k for k, (a, b) in enumerate(zip(kinds1, kinds2, strict=True)) if a in TABULAR or b in TABULAR]
    reward1, reward2 = game.rewards(first)
    swap = torch.tensor([0, 2, 1, 3])
    state1 = state2 = torch.full((len(kinds1),), 4)
    for _ in run.steps(config.rounds):
        if tables:
            draws = {s: torch.rand(config.plays, 2, len(PLAYERS), generator=g) for s, g in generators.items()}
            noise = torch.stack([draws[seed] for _, seed in pairs], 2).flatten(2, 3)
            chance1, chance2 = torch.sigmoid(seats[0].theta), torch.sigmoid(seats[1].theta)
            for draw in noise:
                action1 = seats[0].act(state1, draw[0], chance1)
                action2 = seats[1].act(state2, draw[1], chance2)
                joint = 2 * action1 + action2
                mirror = swap[joint]
                seats[0].learn(state1, action1, action2, reward1[joint], joint)
                seats[1].learn(state2, action2, action1, reward2[joint], mirror)
                state1, state2 = joint, mirror
            for seat in seats:
                seat.read()
        _gradient_steps(game, seats, config)
    value1, _ = game.average_return(seats[0].theta, swap_view(seats[1].theta))
    table = value1.reshape(len(pairs), len(PLAYERS)).tolist()
    return [
        {"mean": round(sum(row) / len(row), 5)}
        | {f"vs-{kind}": round(value, 5) for kind, value in zip(PLAYERS, row, strict=True)}
        for row in table
    ]


def _gradient_steps(game: MemoryOneGame, seats: tuple[Seat, Seat], config: TournamentConfig) -> None:
    """One simultaneous step of all gradient players, from the same old policies."""
    theta1, theta2 = seats[0].theta, swap_view(seats[1].theta)
    steps: list[tuple[Tensor, Tensor, Tensor]] = []
    for place, seat in enumerate(seats):
        for kind, where in seat.groups.items():
            if kind not in GRADIENT:
                continue
            mode = (GRADIENT[kind], "naive") if place == 0 else ("naive", GRADIENT[kind])
            grads = opponent_shaping_grad(game.losses, theta1[where], theta2[where], config.look_ahead, mode)
            step = grads[place] if place == 0 else swap_view(grads[place])
            steps.append((seat.theta, where, config.rate * step))
    for theta, where, step in steps:
        theta[where] = theta[where] - step
