"""What reading a meta-learner's function costs, as ratios measured in one run on one machine.

    python benchmarks/probing.py

Bars: probing 300 tasks at 7 moments with 24 inputs in batches is at least 20 times as fast as one after the other; the
cost grows linearly with the length of the episode, for no prefix is replayed.
"""

from functools import partial

import torch
from _timing import interleaved

from assay.analysis import probe_linear
from assay.meta import LinearTasks, SequenceMetaLearner
from assay.meta.tasks import LinearBatch

MOMENTS = (1, 2, 3, 5, 8, 12, 20)


def probe(model: SequenceMetaLearner, seen: LinearBatch, moments: tuple[int, ...]) -> torch.Tensor:
    """The learned maps of all tasks at all moments."""
    states = model.state_after(seen.x, seen.y, moments)
    return probe_linear(
        lambda x: model.predict_from(states, x), 3, 24, torch.Generator().manual_seed(0)
    ).weight


def one_by_one(model: SequenceMetaLearner, seen: LinearBatch) -> torch.Tensor:
    """The same, task after task."""
    alone = [LinearBatch(*(part[k : k + 1] for part in seen)) for k in range(len(seen.x))]
    return torch.cat([probe(model, task, MOMENTS) for task in alone])


def moment_by_moment(model: SequenceMetaLearner, seen: LinearBatch) -> torch.Tensor:
    """The same, task after task and moment after moment, each from the episode's start: what one writes first."""
    alone = [LinearBatch(*(part[k : k + 1] for part in seen)) for k in range(len(seen.x))]
    return torch.cat([torch.cat([probe(model, task, (t,)) for t in MOMENTS], 1) for task in alone])


def main() -> None:
    """Print the ratios."""
    torch.set_num_threads(1)
    source = torch.Generator().manual_seed(0)
    model = SequenceMetaLearner(3, 64, 3, generator=source)
    seen = LinearTasks(3, 3).sample(300, 20, source)
    together, apart = probe(model, seen, MOMENTS), one_by_one(model, seen)
    # float32 answers of a freshly drawn network; a lost task or moment would differ in the first digit
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-3)
    programs = {
        "batched": lambda: probe(model, seen, MOMENTS),
        "tasks": lambda: one_by_one(model, seen),
        "tasks and moments": lambda: moment_by_moment(model, seen),
    }
    seconds = interleaved(programs, 5)
    for name in ("tasks", "tasks and moments"):
        ratio = seconds[name] / seconds["batched"]
        print(f"300 tasks x 7 moments x 24 probes: {ratio:.0f} times a loop over {name} (bar: at least 20)")
    longer = {}
    for steps in (40, 80, 160):
        few = LinearTasks(3, 3).sample(30, steps, source)
        longer[str(steps)] = partial(probe, model, few, tuple(range(steps)))
    cost = interleaved(longer, 7)
    print(
        f"every moment of an episode of 80 costs {cost['80'] / cost['40']:.1f} times one of 40, of 160 "
        f"{cost['160'] / cost['80']:.1f} times one of 80 (linear: 2, quadratic: 4)"
    )


if __name__ == "__main__":
    main()
