import math
from zlib import crc32

import numpy as np
import pytest
import torch
from pandas import DataFrame
from torch.nn.functional import cross_entropy

from assay.lab import registry
from assay.nn import EnsembleMLP
from assay.studies.batch_size_scaling import paper, sweep
from assay.studies.batch_size_scaling.sweep import (
    Member,
    Split,
    SweepConfig,
    beyond,
    rates_of,
    summary,
    train,
)
from tests.fixtures import write_idx


class Run:
    """What `train` needs of a batch."""

    device = "cpu"

    def generator(self, stream, seed, device=None):
        return torch.Generator().manual_seed(crc32(f"{stream} {seed}".encode()))

    def steps(self, n):
        return range(n)


@pytest.fixture(scope="module")
def split():
    g = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(3, 6, generator=g)
    y = torch.randint(3, (2, 60), generator=g)
    x = centres[y] + torch.randn(2, 60, 6, generator=g)
    return Split(x[:, :40], y[:, :40], x[:, 40:], y[:, 40:])


def rows(split, members, seeds=(5, 6), **options):
    options = {"goal": 0.05, "evaluations": 50, **options}
    return train(Run(), split, list(seeds), members, 10, "sgd", (8,), **options)


def test_a_members_history_does_not_depend_on_its_companions(split):
    everyone = [Member(k, t, rate, 60) for k in range(2) for t, rate in enumerate((0.03, 0.3, 1.0))]
    together = DataFrame(rows(split, everyone))
    for k in range(2):
        alone = DataFrame(rows(split, [m for m in everyone if m.seed == k]))
        mine = together[together["seed"] == k].reset_index(drop=True)
        assert len(mine) == len(alone)
        for column in ("trial", "step", "valid_error"):
            assert np.allclose(mine[column], alone[column], atol=1e-6)
        assert np.allclose(mine["valid_loss"], alone["valid_loss"], rtol=1e-4)


def test_a_member_is_a_plain_sgd_training(split):
    members = [Member(1, 0, 0.2, 12)]
    found = rows(split, members, goal=None)
    run, x, y = Run(), split.x[1], split.y[1]
    model = EnsembleMLP((6, 8, 3), 1, generators=[run.generator("init-0", 6)]).member(0)
    optimizer = torch.optim.SGD(model.parameters(), 0.2)
    order = run.generator("order-0", 6)
    for _ in range(3):
        for index in torch.randperm(40, generator=order).split(10):
            optimizer.zero_grad()
            cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()
    assert [row["step"] for row in found] == list(range(1, 13))
    expected = cross_entropy(model(split.valid_x[1]), split.valid_y[1]).item()
    assert found[-1]["valid_loss"] == pytest.approx(expected, rel=1e-4)


def test_diverged_trials_are_marked_and_do_not_spoil_the_others(split):
    found = DataFrame(rows(split, [Member(0, 0, 0.2, 30), Member(0, 1, 1e30, 30)], goal=None))
    bad, good = (found[found["trial"] == t] for t in (1, 0))
    assert bad["status"].iloc[-1] == "infeasible"
    assert math.isnan(bad["valid_error"].iloc[-1])
    assert len(bad) < len(good) == 30
    assert (good["status"] == "complete").all()
    assert np.isfinite(good["valid_loss"]).all()


def test_a_seed_stops_when_half_of_its_trials_are_there_or_at_its_limit(split):
    found = DataFrame(
        rows(split, [Member(0, t, rate, 200) for t, rate in enumerate((1e-6, 0.3, 0.3))], goal=0.2)
    )
    last = found["step"].max()
    assert last < 200
    at_end = found[found["step"] == last].set_index("trial")["valid_error"]
    before = found[found["step"] < last].groupby("trial")["valid_error"].min()
    assert sum(min(at_end[t], before.get(t, 1)) < 0.2 for t in range(3)) >= 2
    never = DataFrame(rows(split, [Member(0, 0, 1e-6, 7), Member(1, 0, 1e-6, 11)], goal=0.0))
    assert never.groupby("seed")["step"].max().tolist() == [7, 11]


def test_searches_go_on_beyond_an_edge_only():
    rates = rates_of((0.01, 1.0), 8, seed=3)
    assert len(rates) == 8
    assert all(0.01 <= rate <= 1 for rate in rates)
    assert rates == rates_of((0.01, 1.0), 8, seed=3)
    assert rates != rates_of((0.01, 1.0), 8, seed=4)
    low, high = min(rates), max(rates)
    assert all(low / 4 <= rate <= low for rate in beyond(rates, low, 3))
    assert all(high <= rate <= 4 * high for rate in beyond(rates, high, 3))
    assert beyond(rates, sorted(rates)[3], 3) == []


def test_the_summary_reads_slopes_turn_and_rules_from_the_table():
    sizes, rates = (4, 16, 64, 256, 1024), np.geomspace(0.01, 2.56, 9)
    table = []
    for size in sizes:
        best = 0.04 * size / 4  # the linear rule holds exactly
        for trial, rate in enumerate(rates):
            steps = round(50 * (1 + 64 / size) * math.exp(0.3 * math.log(rate / min(best, 1.28)) ** 2))
            for step, error in ((steps - 1, 0.3), (steps, 0.05)):
                table.append(
                    {"trial": trial, "batch_size": size, "rate": rate, "step": step, "valid_error": error}
                )
    metrics = summary(DataFrame(table).assign(status="complete"), 0.1, SweepConfig())
    assert metrics["early_slope"] == pytest.approx(math.log2(5 / 17) / 2, abs=0.02)
    assert metrics["late_slope"] == pytest.approx(math.log2(1.0625 / 1.25) / 2, abs=0.03)
    assert metrics["b_critical"] == pytest.approx(64, rel=0.05)
    assert metrics["rate_16"] == pytest.approx(0.16, rel=0.02)
    assert metrics["linear_error"] == pytest.approx(3, abs=0.1)  # the best rate is capped: 1.28, not 10.24
    assert metrics["sqrt_error"] == pytest.approx(1, abs=0.1)


def test_the_papers_search_runs_on_files_of_the_real_format(tmp_path):
    rng = np.random.default_rng(0)
    for part, n in (("train", 240), ("t10k", 40)):
        labels = np.arange(n, dtype=np.uint8) % 10
        images = rng.integers(0, 60, (n, 28, 28)).astype(np.uint8)
        images[np.arange(n), 2 * labels, 3:20] = 255  # a bar whose height tells the class
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", labels)
    study = registry.load("batch-size-scaling")
    from assay.lab import runner

    results = runner.run(
        study,
        "paper",
        arms=["paper/mnist-nesterov"],
        seeds=1,
        executor="inline",
        results=tmp_path / "results",
        changes={
            "paper.source": str(tmp_path),
            "paper.batch_sizes": (8, 32, 128),
            "paper.trials": 2,
            "paper.steps": 12,
            "paper.rates": (0.01, 0.02),
        },
    )
    metrics = results.metrics("paper/mnist-nesterov", 0)
    table = results.artifact("paper/mnist-nesterov", 0, "measurements")
    assert set(table["batch_size"].tolist()) == {8, 32, 128}
    assert {"steps_8", "steps_32", "steps_128", "infeasible"} <= set(metrics)
    assert table["valid_error"][table["batch_size"] == 128].min() < 0.9


def test_missing_places_are_named():
    with pytest.raises(FileNotFoundError, match=r"paper\.imagenet"):
        paper.load("imagenet", paper.PaperConfig(), 0)
    with pytest.raises(FileNotFoundError, match="IDX"):
        sweep.load("fashion-mnist", "/nowhere", 0)
