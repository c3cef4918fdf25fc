"""What masks cost, as ratios measured in one run on one machine.

    python benchmarks/pruning.py

Bars: a training step of a `MaskedModel` (784-300-100-10, batch 60) costs at most 1.35 dense steps; evaluating
260 masks at initialisation takes at most a fifth of the time of doing so by copying the model for each.
"""

import copy
from collections.abc import Callable

import torch
from _timing import interleaved
from torch import nn

from assay.analysis.pruning import CRITERIA, MaskedModel, build_mask
from assay.analysis.pruning.masked import SwapIn
from assay.nn.lottery import lottery_mlp


def step_cost(repeats: int = 150) -> float:
    """Seconds of a masked training step over those of a dense one (Adam, fused)."""
    x, y = torch.rand(60, 784), torch.randint(10, (60,))

    def trainer(model: nn.Module) -> Callable[[], object]:
        optimizer = torch.optim.Adam(model.parameters(), 1.2e-3, fused=True)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

        return step

    net = lottery_mlp()
    masks = {n: torch.rand(p.shape) < 0.05 for n, p in net.named_parameters() if p.ndim == 2}
    programs = {"dense": trainer(lottery_mlp()), "masked": trainer(MaskedModel(net, masks))}
    interleaved(programs, 10)
    seconds = interleaved(programs, repeats)
    return seconds["masked"] / seconds["dense"]


def evaluation_cost(masks_each: int = 26, repeats: int = 5) -> float:
    """Seconds of evaluating masks in one model over those of a deep copy with masks for each of them."""
    net, other = lottery_mlp(), lottery_mlp()
    x = torch.rand(100, 784)
    state = {n: p.detach() for n, p in net.named_parameters() if p.ndim == 2}
    final = dict(other.named_parameters())
    sets = [
        {
            n: build_mask(CRITERIA["large_final"].score(w, final[n].detach()), 0.04 + 0.03 * k)
            for n, w in state.items()
        }
        for k in range(masks_each)
    ]

    def swapping() -> None:
        with torch.no_grad(), SwapIn(net) as swap:
            for masks in sets:
                swap({n: state[n] * masks[n].to(state[n].dtype) for n in masks})
                net(x)

    def copying() -> None:
        with torch.no_grad():
            for masks in sets:
                MaskedModel(copy.deepcopy(net), masks)(x)

    seconds = interleaved({"swap": swapping, "copy": copying}, repeats)
    return seconds["swap"] / seconds["copy"]


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    print(f"a masked training step costs {step_cost():.2f} dense steps (bar: at most 1.35)")
    print(f"evaluating masks costs {evaluation_cost():.2f} of the time with copies (bar: at most 0.2)")


if __name__ == "__main__":
    main()
