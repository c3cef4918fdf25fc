"""How much faster two worker processes are than one, on coordconv's laptop profile, in one run on one machine.

    python benchmarks/executors.py [--seeds 2] [--arms 'quadrant/*,regress/*'] [--check-ray]

The bar: at least 1.8 times as fast. Both executors run the same trials from nothing and must give the same numbers.
"""

import argparse
import tempfile
import time

from assay.lab import Results, registry, runner


def timed(executor: str, arms: list[str] | None, seeds: int, workers: int) -> tuple[float, Results]:
    """Wall seconds and results of one run in an empty folder."""
    study = registry.load("coordconv")
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        results = runner.run(
            study, arms=arms, seeds=seeds, executor=executor, workers=workers, results=folder
        )
        return time.monotonic() - begun, results


def same(one: Results, other: Results) -> bool:
    """Equal to the bit, but for what measures the machine."""
    return all(
        a.metrics[name] == b.metrics[name]
        for a, b in zip(one.trials, other.trials, strict=True)
        for name in a.metrics
        if "seconds" not in name
    )


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--arms", default="uniform/coordconv,quadrant/coordconv,mnist/*")
    parser.add_argument("--check-ray", action="store_true")
    options = parser.parse_args()
    arms = options.arms.split(",") if options.arms != "all" else None
    inline, first = timed("inline", arms, options.seeds, 1)
    processes, second = timed("processes", arms, options.seeds, 2)
    print(f"{len(first.trials)} trials: inline {inline:.1f} s, two processes {processes:.1f} s")
    print(f"two processes are {inline / processes:.2f} times as fast (bar: 1.8)")
    print(f"same numbers to the bit: {same(first, second)}")
    if options.check_ray:
        ray, third = timed("ray", arms, options.seeds, 2)
        print(
            f"Ray, two workers: {inline / ray:.2f} times as fast; same numbers to the bit: {same(first, third)}"
        )


if __name__ == "__main__":
    main()
