"""What evaluating many points at once saves, as a ratio measured in one run on one machine.

    python benchmarks/landscape.py

Bar: a 21x21 plane of a 50k-parameter MLP on 500 examples at least 5 times faster than one deep copy of the model for
each point (as anatome and others do it), with the same values to 1e-5. One CPU core spends nearly all of that time in
matrix products, which no way of calling saves; the share is printed. The bar is for accelerators, where calls cost more
than products; smaller problems show the same on a CPU.
"""

import copy

import torch
from _timing import interleaved
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from assay.analysis.landscape import loss_plane, random_direction


def copies(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    d1: dict[str, Tensor],
    d2: dict[str, Tensor],
    grid: Tensor,
) -> Tensor:
    """The plane by one deep copy a point, moved parameter by parameter."""
    values = torch.empty(len(grid), len(grid), device=grid.device)
    for i, a in enumerate(grid):
        for j, b in enumerate(grid):
            moved = copy.deepcopy(model).eval()
            with torch.no_grad():
                for name, p in moved.named_parameters():
                    p.add_(a * d1[name] + b * d2[name])
                values[i, j] = cross_entropy(moved(batch[0]), batch[1])
    return values


def compare(features: int, widths: tuple[int, ...], examples: int, device: str) -> str:
    """One line of the report."""
    layers: list[nn.Module] = []
    fan_in = features
    for width in widths:
        layers += [nn.Linear(fan_in, width), nn.ReLU()]
        fan_in = width
    model = nn.Sequential(*layers, nn.Linear(fan_in, 10)).to(device)
    batch = (torch.randn(examples, features, device=device), torch.randint(10, (examples,), device=device))
    d1, d2 = random_direction(model), random_direction(model)
    grid = torch.linspace(-1, 1, 21, device=device)

    def plane() -> float:
        return loss_plane(model, cross_entropy, batch, d1, d2, grid, grid).sum().item()

    def copied() -> float:
        return copies(model, batch, d1, d2, grid).sum().item()

    def products() -> float:
        with torch.no_grad():
            return sum(model(batch[0]) for _ in range(grid.numel() ** 2)).sum().item()

    gap = (
        loss_plane(model, cross_entropy, batch, d1, d2, grid, grid) - copies(model, batch, d1, d2, grid)
    ).abs()
    seconds = interleaved({"plane": plane, "copies": copied, "forward": products}, 5)
    size = sum(p.numel() for p in model.parameters())
    return (
        f"{size:,} parameters, {examples} examples, {device}: {seconds['copies'] / seconds['plane']:.1f} times faster "
        f"than a copy a point (bar: 5; bare forward passes {seconds['copies'] / seconds['forward']:.1f}); values "
        f"agree to {gap.max().item():.1e}"
    )


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for features, widths, examples in (
        (196, (150, 100), 500),
        (196, (150, 100), 50),
        (64, (32, 32, 32), 50),
    ):
        print(compare(features, widths, examples, device))


if __name__ == "__main__":
    main()
