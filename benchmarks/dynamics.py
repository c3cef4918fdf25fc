"""What an ensemble of dynamics costs, as ratios measured in one run on one machine.

    python benchmarks/dynamics.py

Bar: the forward pass of 32 members is at least 5 times faster than a Python list of 32 `torch.nn.Sequential`. One
thread; the gain is in the launches, so it is measured at the sizes of the laptop's studies, and at the paper's (4
layers of 512), where arithmetic is all there is on a CPU.
"""

from itertools import pairwise

import torch
from _timing import interleaved
from torch import nn

from assay.rl.dynamics import DynamicsEnsemble


def ratio(hidden: tuple[int, ...], rows: int, repeats: int, members: int = 32, dims: int = 18) -> float:
    """Seconds of a list of networks over seconds of the ensemble."""
    torch.manual_seed(0)
    model = DynamicsEnsemble(dims, 6, members, hidden, "gaussian", act="swish")
    sizes = (dims + 6, *hidden, 2 * dims)

    def plain() -> nn.Sequential:
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.SiLU()]
        return nn.Sequential(*layers[:-1])

    networks = [plain() for _ in range(members)]
    state, action = torch.randn(rows, dims), torch.randn(rows, 6)

    @torch.no_grad()
    def ours() -> object:
        return model(state, action)

    @torch.no_grad()
    def theirs() -> object:
        x = torch.cat((state, action), 1)
        outs = []
        for net in networks:
            mean, raw = net((x - model.in_mean[0]) / model.in_std[0]).chunk(2, -1)
            outs.append((mean, (-5 + 4 * torch.sigmoid(raw)).exp()))
        return outs

    programs = {"ours": ours, "list": theirs}
    interleaved(programs, 3)
    seconds = interleaved(programs, repeats)
    return seconds["list"] / seconds["ours"]


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    for hidden, rows, repeats in (
        ((32, 32), 1, 200),
        ((64, 64), 16, 100),
        ((64, 64), 128, 50),
        ((512,) * 4, 128, 5),
    ):
        print(
            f"32 members, hidden {hidden}, {rows} rows: {ratio(hidden, rows, repeats):.1f} times as fast as a list"
            " (bar: at least 5)"
        )


if __name__ == "__main__":
    main()
