"""V-trace and its scan, as ratios measured in one run on one machine.

    python benchmarks/vtrace.py

Bar: V-trace at T = 100, N = 64 takes no longer than torchrl's function (ratio at most 1.0). Also printed: where the
doubling scan beats the loop, which `assay.rl.returns` uses to choose.
"""

from functools import partial

import torch
from _timing import interleaved
from torchrl.objectives.value.functional import vtrace_advantage_estimate

from assay.rl.returns import reverse_scan
from assay.rl.vtrace import vtrace


def against_torchrl(steps: int, envs: int, repeats: int = 200) -> float:
    """Seconds of ours over seconds of torchrl's, each in its own layout."""
    g = torch.Generator().manual_seed(0)
    logp, logq, reward, value, following = torch.randn(5, steps, envs, generator=g)
    ends = torch.rand(steps, envs, generator=g)
    terminated, truncated = ends < 0.01, ends > 0.99
    theirs = [x.T[..., None].contiguous() for x in (logp, logq, value, following, reward)]
    done, end = ((terminated | truncated).T[..., None], terminated.T[..., None])
    programs = {
        "ours": lambda: vtrace(logp, logq, reward, value, following, terminated, truncated, 0.99),
        "torchrl": lambda: vtrace_advantage_estimate(0.99, *theirs, done.contiguous(), end.contiguous()),
    }
    interleaved(programs, 5)
    seconds = interleaved(programs, repeats)
    return seconds["ours"] / seconds["torchrl"]


def scans(steps: int, width: int) -> float:
    """Seconds of the doubling scan over seconds of the loop."""
    delta, coef = torch.rand(2, steps, width)
    programs = {method: partial(reverse_scan, delta, coef, method) for method in ("loop", "doubling")}
    interleaved(programs, 5)
    seconds = interleaved(programs, 50)
    return seconds["doubling"] / seconds["loop"]


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    for steps, envs in ((20, 64), (100, 64), (100, 1024)):
        bar = " (bar: at most 1.0)" if (steps, envs) == (100, 64) else ""
        print(f"V-trace, T={steps}, N={envs}: {against_torchrl(steps, envs):.2f} times torchrl's time{bar}")
    for steps in (16, 32, 128, 512):
        ratios = ", ".join(f"{scans(steps, width):.2f} at N={width}" for width in (8, 64, 512, 1024))
        print(f"doubling over loop, T={steps}: {ratios}")


if __name__ == "__main__":
    main()
