"""What decoupling the decay from the rate costs: seconds of a step over those of torch's AdamW.

    python benchmarks/decay.py

Bar: `AdamW(decay="independent")` at most 1.3 times `torch.optim.AdamW(foreach=True)` on 1 million parameters in 20
tensors (CPU).
"""

from collections.abc import Callable

import torch
from _timing import interleaved
from torch import nn

from assay.optim import SGDW, AdamW


def stepper(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> Callable[[], None]:
    """A step on ten layers of 316 x 316 with biases."""
    torch.manual_seed(0)
    parameters = [p for _ in range(10) for p in nn.Linear(316, 316).parameters()]
    for p in parameters:
        p.grad = torch.randn_like(p)
    optimizer = make(parameters)
    return lambda: optimizer.step() and None


def main() -> None:
    """Print the ratios."""
    seconds = interleaved(
        {
            "torch AdamW": stepper(lambda p: torch.optim.AdamW(p, 1e-3, foreach=True)),
            "AdamW": stepper(lambda p: AdamW(p, 1e-3, weight_decay=1e-5, foreach=True)),
            "torch SGD": stepper(
                lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9, weight_decay=1e-3, foreach=True)
            ),
            "SGDW": stepper(lambda p: SGDW(p, 1e-2, momentum=0.9, weight_decay=1e-5)),
        },
        200,
    )
    print(
        f"AdamW, independent: {seconds['AdamW'] / seconds['torch AdamW']:.2f} torch steps (bar: at most 1.3)"
    )
    print(f"SGDW: {seconds['SGDW'] / seconds['torch SGD']:.2f} torch steps of L2-SGD (bar: none)")


if __name__ == "__main__":
    main()
