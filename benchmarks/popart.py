"""What PopArt costs over a plain linear head, as ratios measured in one run on one machine.

    python benchmarks/popart.py

Bars, for 4,096 targets and 256 features: forward and update of a `PopArtHead` of 57 outputs take at most 1.3 times as
long as a linear layer's forward and squared loss; an update of 1,024 outputs at most 2 times one of 16.
"""

import torch
from _timing import interleaved
from torch import nn

from assay.rl.popart import PopArtHead

BATCH, FEATURES = 4_096, 256


def against_linear(outputs: int = 57, repeats: int = 100) -> tuple[float, float]:
    """(forward + update, forward + update + its own loss), over a linear layer's forward + loss."""
    g = torch.Generator().manual_seed(0)
    h = torch.randn(BATCH, FEATURES, generator=g)
    index = torch.randint(outputs, (BATCH,), generator=g)
    targets = torch.randn(BATCH, generator=g) * 10
    head, linear = PopArtHead(FEATURES, outputs), nn.Linear(FEATURES, outputs)

    def loss(predicted: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        return (predicted.gather(1, index[:, None])[:, 0] - goal).square().mean()

    def popart() -> torch.Tensor:
        head.update(targets, index)
        return head(h)

    programs = {
        "popart": popart,
        "popart and loss": lambda: loss(popart(), head.normalize(targets, index)),
        "linear": lambda: loss(linear(h), targets),
    }
    interleaved(programs, 5)
    seconds = interleaved(programs, repeats)
    return seconds["popart"] / seconds["linear"], seconds["popart and loss"] / seconds["linear"]


def many_over_few(many: int = 1_024, few: int = 16, repeats: int = 200) -> float:
    """Seconds of an update of many outputs over one of few, for the same number of targets."""
    g = torch.Generator().manual_seed(0)
    targets = torch.randn(BATCH, generator=g)
    programs = {}
    for outputs in (few, many):
        head, index = PopArtHead(FEATURES, outputs), torch.randint(outputs, (BATCH,), generator=g)
        programs[str(outputs)] = lambda head=head, index=index: head.update(targets, index)
    interleaved(programs, 5)
    seconds = interleaved(programs, repeats)
    return seconds[str(many)] / seconds[str(few)]


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    bare, whole = against_linear()
    print(f"forward and update of 57 outputs: {bare:.2f} times linear forward and loss (bar: at most 1.3)")
    print(f"the same with PopArt's own loss: {whole:.2f}")
    print(f"an update of 1,024 outputs: {many_over_few():.2f} times one of 16 (bar: at most 2)")


if __name__ == "__main__":
    main()
