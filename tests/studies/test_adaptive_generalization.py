import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from assay.data import add_unique_features, wilson_dataset
from assay.lab import registry, runner
from assay.nn import EnsembleMLP
from assay.studies.adaptive_generalization import (
    chars,
    dose_response,
    early_log_ratio,
    early_share,
    image_gap,
    images,
    rmsprop_test,
    sign_solution_test,
)
from assay.studies.adaptive_generalization.linear import Blocks, fit
from assay.studies.adaptive_generalization.paper import PaperConfig, read_text
from assay.studies.adaptive_generalization.tuning import Grid, Member, crossing, tune_together
from tests.fixtures import write_cifar


class Run:
    """What an experiment needs of a batch."""

    device = "cpu"

    def generator(self, stream, seed, device=None):
        return torch.Generator().manual_seed(sum(map(ord, stream)) * 1000 + seed)

    def steps(self, n):
        return range(n)


STUDY = registry.load("adaptive-generalization")


# ------------------------------------------------------------------------------------------------------------
# tuning


def bowl(optimum, visits):
    def evaluate(members):
        visits.append(list(members))
        return [
            abs(math.log2(m.rate / optimum[m.search])) + (0.1 if m.scheme == "fixed" else 0.0)
            for m in members
        ]

    return evaluate


def test_searches_tuned_together_are_each_tuned_as_if_alone():
    grid, optima, visits = Grid(sgd=1.0, rates=5, extensions=3), [1.0, 8.0, 2.0**-9], []
    together = tune_together(bowl(optima, visits), 3, "sgd", grid)
    assert [t.rate for t in together] == [1.0, 8.0, 2.0**-5]
    assert [t.scheme for t in together] == ["dev"] * 3
    assert [t.result.extended for t in together] == [0, 2, 3]
    assert [t.result.at_edge for t in together] == [False, False, True]
    assert len(visits[0]) == 3 * 5 * 2, "the first grids are one ensemble"
    assert {m.search for m in visits[1]} == {1, 2}, "only those at their edge go on"
    for k, optimum in enumerate(optima):
        (alone,) = tune_together(bowl([optimum], []), 1, "sgd", grid)
        assert (alone.rate, alone.result) == (together[k].rate, together[k].result)


def test_all_methods_get_the_same_effort_and_the_default_only_its_decay():
    for method in ("sgd", "hb", "adagrad", "rmsprop", "adam"):
        visits = []
        start = getattr(Grid(), method)
        tune_together(bowl([start], visits), 1, method, Grid())
        rates = sorted({m.rate for members in visits for m in members})
        assert np.allclose(np.array(rates) / start, [0.25, 0.5, 1, 2, 4])
        assert sum(map(len, visits)) == 10
    visits = []
    (tuned,) = tune_together(bowl([1.0], visits), 1, "adam-default", Grid())
    assert [(m.rate, m.scheme) for m in visits[0]] == [(0.001, "fixed"), (0.001, "dev")]
    assert len(visits) == 1
    assert tuned.rate == 0.001


def test_what_random_rates_lose():
    (tuned,) = tune_together(lambda members: [m.rate for m in members], 1, "sgd", Grid(sgd=4.0, extensions=0))
    metrics = tuned.metrics()  # scores 1, 2, 4, 8, 16
    assert metrics["regret_of_1"] == pytest.approx(31 / 5 - 1)
    assert metrics["regret_of_2"] == pytest.approx((1 * 4 + 2 * 3 + 4 * 2 + 8 * 1) / 10 - 1)
    assert metrics["regret_of_5"] == 0
    assert metrics["at_edge"] == 1


def test_crossing_is_for_good():
    assert crossing([1, 1, 1, 1], [2, 0.5, 2, 1]) == 0.75
    assert crossing([1, 1, 1, 1], [1, 1, 1, 1]) == 0.0
    assert crossing([1, 1], [0, 2]) == 1.0


# ------------------------------------------------------------------------------------------------------------
# least squares


def test_the_blocks_give_every_problem_its_own_gradient():
    problems = [wilson_dataset(p, n) for p, n in ((3, 2), (6, 4), (5, 5))]
    blocks = Blocks([x for x, _ in problems])
    w = torch.randn(3, blocks.columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = blocks.gradient(w, torch.cat([y for _, y in problems]))
    for k, (x, y) in enumerate(problems):
        d = x.shape[1]
        assert torch.allclose(found[k, :d], x.T @ (x @ w[k, :d] - y) / len(y), atol=1e-12)
        assert not found[k, d:].any()


@pytest.mark.parametrize(("kind", "rate"), [("momentum", 0.02), ("adam", 0.01), ("adagrad", 0.05)])
def test_one_weight_stands_for_all_unique_features_of_an_example(kind, rate):
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(12, 5, generator=g), torch.where(torch.rand(12, generator=g) < 0.5, 1.0, -1.0)
    own = torch.where(y > 0, 1.0, 5.0)
    w, u = fit(
        x, y, torch.tensor([0.7, 0.0]), own.expand(2, -1), kind, torch.full((2,), rate), Run(), steps=50
    )
    for k, strength in enumerate((0.7, 0.0)):
        full = add_unique_features(x, y, strength)
        p = torch.nn.Parameter(torch.zeros(full.shape[1]))
        optimizer = {
            "momentum": lambda p: torch.optim.SGD([p], rate, momentum=0.9),
            "adam": lambda p: torch.optim.Adam([p], rate),
            "adagrad": lambda p: torch.optim.Adagrad([p], rate),
        }[kind](p)
        for _ in range(50):
            p.grad = full.T @ (full @ p.detach() - y) / 12
            optimizer.step()
        assert torch.allclose(w[k], p.detach()[:5], atol=1e-4)
        assert torch.allclose(u[k], p.detach()[5:].view(12, 5)[:, 0], atol=1e-4)


# ------------------------------------------------------------------------------------------------------------
# the ensembles


@pytest.fixture(scope="module")
def pictures():
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(10, 6, generator=g)

    def part(n):
        y = torch.arange(n) % 10
        return centres[y] + 0.5 * torch.randn(n, 6, generator=g), y

    return [images.Pictures(*part(60), *part(40), *part(40)) for _ in range(2)]


CONFIG = images.ImageConfig(
    train=60, valid=40, test=40, hidden=(8,), batch_size=10, steps=24, epochs=4, watched=60
)


@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_a_member_is_a_plain_training_with_its_decay(pictures, kind):
    members = [Member(1, 0.05, "fixed"), Member(0, 1e9, "dev"), Member(1, 0.05, "dev")]
    histories = images.train(Run(), pictures, [7, 8], members, kind, CONFIG)
    data, run = pictures[1], Run()
    for k in (0, 2):
        net = EnsembleMLP((6, 8, 10), 1, generators=[run.generator("init", 8)]).member(0)
        make = {
            "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
            "adam": lambda p: torch.optim.Adam(p, 0.05),
        }
        optimizer, order = make[kind](net.parameters()), run.generator("order", 8)
        if k == 0:
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.1)
        else:
            schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=0.5, patience=0, threshold=0, eps=0
            )
        for epoch in range(4):
            for index in torch.randperm(60, generator=order).split(10):
                optimizer.zero_grad()
                cross_entropy(net(data.x[index]), data.y[index]).backward()
                optimizer.step()
            error = float((net(data.valid_x).argmax(1) != data.valid_y).float().mean())
            assert histories[k]["valid_error"][epoch] == pytest.approx(100 * error, abs=1e-3)
            schedule.step(*(() if k == 0 else (error,)))
        assert histories[k]["test_loss"] == [
            pytest.approx(cross_entropy(net(data.test_x), data.test_y).item(), rel=1e-3)
        ]
    assert images.score(histories[1]) >= images.score(histories[0])


def test_a_diverged_member_is_the_worst_point_of_the_grid(pictures):
    history, good = images.train(
        Run(), pictures, [7, 8], [Member(0, 1e30, "dev"), Member(0, 0.05, "dev")], "sgd", CONFIG
    )
    assert history["valid_error"][-1] == 100.0
    assert images.score(history) > 100
    assert images.score(good) < 100
    assert math.isfinite(good["valid_loss"][-1])


TEXT = {
    "chars.train": 20_000,
    "chars.held_out": 3_000,
    "chars.hidden": 8,
    "chars.batch_size": 4,
    "chars.length": 8,
    "chars.steps": 6,
    "chars.epochs": 3,
    "chars.watched": 300,
    "chars.tested": 300,
    "chars.grid.rates": 2,
    "chars.grid.extensions": 1,
}


def test_a_seeds_results_do_not_depend_on_its_companions(tmp_path):
    changes = TEXT | {
        "image.steps": 20,
        "image.epochs": 2,
        "image.train": 200,
        "image.valid": 100,
        "image.test": 100,
        "image.watched": 50,
        "image.hidden": (10,),
        "linear.sizes": (20,),
        "linear.steps": 200,
        "digits.steps": 10,
    }
    arms = ["linear/adam", "digits/hb", "image/adam", "chars/rmsprop"]
    both, alone = (
        runner.run(
            STUDY,
            "laptop",
            arms=arms,
            seeds=seeds,
            first_seed=first,
            executor="inline",
            results=tmp_path / name,
            changes=changes,
        )
        for name, seeds, first in (("both", 2, 100), ("alone", 1, 101))
    )
    for arm in arms:
        assert both.failure(arm, 101) == alone.failure(arm, 101) == ""
        for name, value in alone.metrics(arm, 101).items():
            assert both.metrics(arm, 101)[name] == pytest.approx(value, rel=1e-3, abs=1e-4), f"{arm}: {name}"
        if arm != "linear/adam":
            assert both.metrics(arm, 100) != both.metrics(arm, 101)


def test_held_out_loss_is_a_mean_over_windows():
    config = replace(chars.CharConfig(), train=5000, held_out=3000)
    text = chars.load(config, "cpu")
    assert len(text.train) == 5000
    assert text.train.decode(text.train.ids[:16]) == "In the beginning"
    net = chars.CharModel(2, len(text.train.vocab), 4, 6, [torch.Generator().manual_seed(k) for k in (0, 1)])
    found = chars.held_loss(net, text.dev, 2, characters=2100, length=8)
    inputs, targets = text.dev.windows(torch.arange(262) * 8, 8)
    logits = net(inputs.expand(2, -1, -1)).detach()
    for k in range(2):
        assert float(found[k]) == pytest.approx(float(cross_entropy(logits[k], targets.flatten())), rel=1e-5)


# ------------------------------------------------------------------------------------------------------------
# claims


def test_the_effects_compare_what_they_say():
    cell = {
        f"image/{m}": {"score": s, "test_error": t}
        for m, s, t in (("sgd", 7, 5), ("hb", 6, 6), ("adagrad", 9, 1), ("rmsprop", 5, 8), ("adam", 8, 2))
    }
    assert image_gap(cell) == 2, "methods are chosen by validation, compared on test"
    losses = {"sgd": 2.0, "hb": 1.0, "adagrad": 0.5, "rmsprop": 3.0, "adam": 3.0}
    assert early_log_ratio({f"chars/{m}": {"early_train_loss": v} for m, v in losses.items()}) == math.log(
        0.5
    )
    columns = {f"chars/{m}": {"early_train_loss": np.array([v, 1.5])} for m, v in losses.items()}
    assert early_share(columns) == 0.5
    gaps = {"s0": 0, "s0.3": 1, "s1": 5, "s3": 4}
    cell = {
        f"digits/{m}": {f"error_{s}": 20 + k * g for s, g in gaps.items()}
        for m, k in (("adam", 1), ("hb", 0))
    }
    assert dose_response(cell) == pytest.approx(0.8)


class Fake:
    def __init__(self, cells):
        self.cells = cells

    def seeds(self, arm):
        return tuple(range(5))

    def failure(self, arm, seed):
        return ""

    def metrics(self, arm, seed):
        return {
            name: value + 0.01 * seed * (name.startswith("test_")) for name, value in self.cells[arm].items()
        }


def ranking(image, text):
    methods = ("adagrad", "rmsprop", "adam")
    cells = {f"image/{m}": {"test_error": v} for m, v in zip(methods, image, strict=True)}
    cells |= {f"chars/{m}": {"test_loss": v} for m, v in zip(methods, text, strict=True)}
    return rmsprop_test().decide(Fake(cells)).outcome


def test_rmsprop_is_refuted_only_by_one_method_that_beats_it_on_both_tasks():
    assert ranking((9, 8, 9), (2, 1, 2)) == "supported"
    assert ranking((9, 8, 7), (2, 1, 2)) == "inconclusive"
    assert ranking((7, 8, 9), (2, 1, 0)) == "inconclusive", "two methods, one task each"
    assert ranking((9, 8, 7), (2, 1, 0)) == "refuted"


def linear_outcome(**changes):
    cells = {
        f"linear/{m}": {"cosine": 1.0, "test_error": 0.0, "error_gap": 0.0, "error_over_negatives": 1.0}
        for m in ("sgd", "hb", "adagrad", "rmsprop", "adam")
    }
    for key, value in changes.items():
        method, name = key.split("__")
        cells[f"linear/{method}"][name] = value
    results = Fake(cells)
    results.metrics = lambda arm, seed: results.cells[arm]
    return sign_solution_test().decide(results).outcome


def test_the_lemma_is_refuted_by_errors_only():
    assert linear_outcome() == "supported"
    assert linear_outcome(adam__cosine=0.9) == "inconclusive"
    assert linear_outcome(adam__error_gap=0.1) == "inconclusive"
    assert linear_outcome(sgd__test_error=0.02) == "refuted"
    assert linear_outcome(rmsprop__error_over_negatives=0.4) == "refuted"


# ------------------------------------------------------------------------------------------------------------
# the paper's scale


def test_the_papers_tasks_run_on_files_of_the_real_formats(tmp_path):
    (tmp_path / "cifar").mkdir()
    write_cifar(tmp_path / "cifar", 20)
    (tmp_path / "book.txt").write_text("Well, Prince, so Genoa and Lucca are now just family estates. " * 80)
    results = runner.run(
        STUDY,
        "paper",
        arms=["paper/cifar-hb", "paper/chars-adam-default", "paper/chars-rmsprop"],
        seeds=1,
        executor="inline",
        results=tmp_path / "results",
        changes={
            "paper.source": str(tmp_path / "cifar"),
            "paper.text": str(tmp_path / "book.txt"),
            "paper.depth": 9,
            "paper.image_batch": 8,
            "paper.image_epochs": 1,
            "paper.text_batch": 4,
            "paper.length": 10,
            "paper.hidden": 8,
            "paper.text_epochs": 2,
            "paper.limit": 2,
            "paper.dev_factors": (0.5,),
            "paper.fixed_factors": (0.5,),
            "paper.fixed_every": (1,),
            "paper.images.rates": 1,
            "paper.images.extensions": 0,
            "paper.chars.rates": 2,
            "paper.chars.extensions": 0,
        },
    )
    assert [trial.error for trial in results.failed] == []
    assert 0 <= results.metrics("paper/cifar-hb", 0)["test_error"] <= 100
    for arm in ("paper/chars-adam-default", "paper/chars-rmsprop"):
        assert 0 < results.metrics(arm, 0)["test_loss"] < 5
    assert results.metrics("paper/chars-adam-default", 0)["rate"] == 0.001


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"paper\.text"):
        read_text(PaperConfig())
    for key, place in (("source", "/nowhere"), ("text", "/nowhere.txt")):
        with pytest.raises(FileNotFoundError, match=rf"paper\.{key}"):
            STUDY.checks[0](STUDY.configure("paper", {f"paper.{key}": place}))
    (tmp_path / "short.txt").write_text("too short")
    results = runner.run(
        STUDY,
        "paper",
        arms=["paper/chars-sgd"],
        seeds=1,
        executor="inline",
        results=tmp_path,
        changes={"paper.text": str(tmp_path / "short.txt")},
    )
    assert "too few" in results.failed[0].error
