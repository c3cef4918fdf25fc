"""A joint small enough to list, with exact conditionals for every context."""

import itertools

import torch
from torch import Tensor
from torch.nn.functional import one_hot


class Exact:
    """p(x) over `voices x steps` cells of `pitches` values, and the model (x, known) -> logits of its conditionals."""

    def __init__(self, voices: int = 2, steps: int = 2, pitches: int = 3, sharpness: float = 1.5) -> None:
        self.shape = (voices, steps, pitches)
        states = list(itertools.product(range(pitches), repeat=voices * steps))
        self.states = one_hot(torch.tensor(states), pitches).float().view(-1, voices, steps, pitches)
        self.log_joint = (
            torch.randn(len(states), generator=torch.Generator().manual_seed(11)) * sharpness
        ).log_softmax(0)
        self.calls = 0

    def __call__(self, x: Tensor, known: Tensor) -> Tensor:
        self.calls += 1
        cells = known.shape[1] * known.shape[2]
        matches = (x[:, None] * self.states).sum(-1).flatten(2)  # [batch, states, cells]: 1 where they agree
        fits = (matches + (~known).flatten(1)[:, None].float()).clamp(max=1).sum(2) == cells
        weight = (fits * self.log_joint.exp()) @ self.states.flatten(1)
        return weight.view_as(x).clamp(min=1e-30).log()

    def index(self, x: Tensor) -> Tensor:
        """Which state each example is."""
        values = x.argmax(-1).flatten(1)
        base = self.shape[2] ** torch.arange(values.shape[1] - 1, -1, -1)
        return (values * base).sum(1)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x)."""
        return self.log_joint[self.index(x)]

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Exact samples."""
        return self.states[torch.multinomial(self.log_joint.exp(), count, True, generator=generator)]

    def distance(self, x: Tensor) -> float:
        """Total variation between the samples and the joint."""
        counts = torch.bincount(self.index(x), minlength=len(self.states)) / len(x)
        return 0.5 * float((counts - self.log_joint.exp()).abs().sum())
