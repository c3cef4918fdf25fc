"""What batching and independent blocks save in orderless models, as ratios within one run.

    python benchmarks/orderless.py [--device cuda] [--threads 1]

Bars: `note_nll` of one 4x16 piece (64 contexts) at least 5 times as fast as 64 separate calls; an independent Gibbs
step costs the same whatever the size of its block (0.9 against 0.1: at most 1.1 times), while filling the block cell
by cell grows with it.
"""

import argparse
import time
from collections.abc import Callable

import torch

from assay.generate import AnnealedErase, GibbsSampler, cell_order, note_nll
from assay.nn import Coconet


def seconds(function: Callable[[], object], device: torch.device, repeats: int = 7) -> float:
    """Median time of a call."""
    function()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return sorted(times)[repeats // 2]


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    generator = torch.Generator().manual_seed(0)
    pitches = torch.randint(46, (24, 4, 16), generator=generator)
    x = torch.nn.functional.one_hot(pitches, 46).float().to(device)
    order = cell_order("random", torch.ones(1, 4, 16, dtype=torch.bool), generator=generator).to(device)
    rank = order.argsort(1).view(1, 4, 16)

    for width in (8, 16, 24):
        torch.manual_seed(0)
        net = Coconet(4, 8, width).eval().to(device)

        @torch.no_grad()
        def separate(net: Coconet = net) -> None:
            for turn in range(64):
                logits = net(x[:1], rank < turn).flatten(1, 2)[0, order[0, turn]]
                logits.log_softmax(-1)

        def batched(net: Coconet = net) -> None:
            note_nll(net, x[:1], order=order)

        ratio = seconds(separate, device) / seconds(batched, device)
        print(f"{width:2d} filters: note_nll is {ratio:.1f} times as fast as 64 separate calls (bar: 5)")

    def gibbs(alpha: float, inner: str, net: Coconet = net) -> Callable[[], object]:
        sampler = GibbsSampler(net, AnnealedErase(alpha, alpha), inner=inner)  # type: ignore[arg-type]
        return lambda: sampler(x, steps=4 if inner == "independent" else 1)

    for inner, bar in (("independent", "bar: at most 1.1"), ("ancestral", "grows with the block")):
        ratio = seconds(gibbs(0.9, inner), device) / seconds(gibbs(0.1, inner), device)
        print(f"{inner} Gibbs step, erasing 0.9 against 0.1: {ratio:.2f} times ({bar})")


if __name__ == "__main__":
    main()
