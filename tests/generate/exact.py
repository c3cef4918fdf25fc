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
        # Every context (a value or "unknown" in each cell) beforehand: [contexts, voices, steps, pitches].
        cells = voices * steps
        contexts = torch.tensor(list(itertools.product(range(pitches + 1), repeat=cells)))
        fits = ((contexts[:, None] == torch.tensor(states)) | (contexts[:, None] == pitches)).all(-1).float()
        weight = (fits * self.log_joint.exp()) @ self.states.flatten(1)
        self.table = weight.view(-1, voices, steps, pitches).clamp(min=1e-30).log()

    def __call__(self, x: Tensor, known: Tensor) -> Tensor:
        self.calls += 1
        pitches = self.shape[2]
        cells = torch.where(known, x.argmax(-1), pitches).flatten(1)
        return self.table[(cells * (pitches + 1) ** torch.arange(cells.shape[1] - 1, -1, -1)).sum(1)]

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
