"""What opponent shaping costs, as ratios measured in one run on one machine.

    python benchmarks/opponent.py

Bars: one LOLA step of two networks costs at most 5 naive steps, whatever their size (no Hessian is built); 256 pairs as
one tensor program learn at least 50 times as many pairs a second as one pair after the other.
"""

from functools import partial

import torch
from _timing import interleaved
from torch import nn

from assay.games import ipd
from assay.optim.opponent import LOLAOptimizer, opponent_shaping_grad


def network(parameters: int) -> nn.Sequential:
    """A network of about so many parameters: 32 -> width -> width -> 1."""
    width = max(2, round((-34 + (34**2 + 4 * parameters) ** 0.5) / 2))
    return nn.Sequential(
        nn.Linear(32, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
    )


def step_cost(parameters: int, repeats: int) -> float:
    """Seconds of a LOLA step over seconds of a naive step, two networks that act on a shared batch."""
    torch.manual_seed(0)
    first, second = network(parameters), network(parameters)
    x = torch.randn(64, 32)

    def losses() -> tuple[torch.Tensor, torch.Tensor]:
        u, v = first(x), second(x)
        return (u * v + 0.1 * u**2).mean(), (-u * v + 0.1 * v**2).mean()

    players = {
        mode: LOLAOptimizer(first.parameters(), second.parameters(), 1e-4, 1e-4, mode)
        for mode in ("naive", "lola")
    }
    programs = {mode: partial(optimizer.step, losses) for mode, optimizer in players.items()}
    interleaved(programs, 3)
    seconds = interleaved(programs, repeats)
    return seconds["lola"] / seconds["naive"]


def learn(theta1: torch.Tensor, theta2: torch.Tensor, steps: int) -> None:
    game = ipd()
    for _ in range(steps):
        g1, g2 = opponent_shaping_grad(game.losses, theta1, theta2, 1.0, "lola")
        theta1, theta2 = theta1 - g1, theta2 - g2


def batching(pairs: int = 256, steps: int = 20) -> float:
    """Pairs a second of one tensor program over pairs a second one after the other (timed on 16 of them)."""
    theta = torch.randn(2, pairs, 5, dtype=torch.float64)
    few = 16

    def sequential() -> None:
        for k in range(few):
            learn(theta[0, k].clone(), theta[1, k].clone(), steps)

    seconds = interleaved({"batched": lambda: learn(theta[0], theta[1], steps), "sequential": sequential}, 5)
    return (pairs / seconds["batched"]) / (few / seconds["sequential"])


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    for parameters, repeats in ((1_000, 60), (10_000, 60), (100_000, 30), (1_000_000, 10)):
        ratio = step_cost(parameters, repeats)
        print(
            f"a LOLA step costs {ratio:.2f} naive steps at {parameters:,} parameters a player (bar: at most 5)"
        )
    print(f"256 pairs in one program: {batching():.0f} times the pairs a second (bar: at least 50)")


if __name__ == "__main__":
    main()
