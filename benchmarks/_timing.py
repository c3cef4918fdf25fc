"""Timing for the benchmarks: programs take turns, so that a busy machine slows all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(programs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each program over `repeats` rounds of all of them."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            begun = time.perf_counter()
            program()
            times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(seconds) for name, seconds in times.items()}
