import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from assay.lab import registry, runner
from assay.optim.decay import SGDW, AdamW, decay_groups
from assay.studies.decoupled_weight_decay import mechanism, paper, text
from assay.studies.decoupled_weight_decay.config import Data, GridConfig, PaperConfig, TextConfig
from assay.studies.decoupled_weight_decay.grids import OPTIMISERS, axes
from assay.studies.decoupled_weight_decay.training import Cell, cosine, load, train
from tests.fixtures import write_cifar


class Run:
    device = "cpu"

    def generator(self, stream, seed=0, device=None):
        return torch.Generator().manual_seed(sum(map(ord, stream)) + 1000 * seed)


@pytest.fixture(scope="module")
def task():
    return load(Run(), 3, Data("digits", train=200))


def cells(task, kind, decay, norm=False, **options):
    options = {"hidden": (8,), "batch": 20, "steps": 30, **options}
    return train(
        Run(), task, 3, [Cell(0.01, 0.0), Cell(0.03, 0.02)], kind=kind, decay=decay, norm=norm, **options
    )


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("l2-sgd", lambda groups: torch.optim.SGD(groups, 0.03, momentum=0.9)),
        ("sgdw", lambda groups: SGDW(groups, 0.03, momentum=0.9)),
        ("l2-adam", lambda groups: torch.optim.Adam(groups, 0.03)),
        ("adamw", lambda groups: AdamW(groups, 0.03)),
        ("adamw-scaled", lambda groups: torch.optim.AdamW(groups, 0.03)),
    ],
)
def test_a_cell_is_the_plain_training_with_its_optimiser(task, name, make):
    kind, decay = OPTIMISERS[name]
    # With a schedule L2-SGD of torch and the grid's differ in where it acts: compare that one at a constant rate.
    schedule = (lambda t: 1.0) if name == "l2-sgd" else None
    found = cells(task, kind, decay, schedule=schedule)
    start = cells(task, kind, decay, steps=0).net.member(1)
    optimizer = make(decay_groups(start, 0.02))
    turn = (lambda t: 1.0) if schedule else cosine(30)
    torch_schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, turn)
    order = Run().generator("order", 3)
    batches = [index for _ in range(3) for index in torch.randperm(200, generator=order).split(20)]
    for index in batches:
        optimizer.zero_grad()
        cross_entropy(start(task.x[index]), task.y[index]).backward()
        optimizer.step()
        torch_schedule.step()
    for got, expected in zip(found.net.member(1).parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-3, atol=2e-4)


def test_a_cell_does_not_depend_on_its_companions(task):
    both = cells(task, "adam", "independent", norm=True)
    alone = train(
        Run(),
        task,
        3,
        [Cell(0.03, 0.02)],
        kind="adam",
        decay="independent",
        hidden=(8,),
        batch=20,
        steps=30,
        norm=True,
    )
    assert both.report[1].item() == pytest.approx(alone.report[0].item(), abs=0.6)
    torch.testing.assert_close(both.train_loss[1], alone.train_loss[0], rtol=1e-3, atol=1e-4)


def test_diverged_cells_are_losses_and_spoil_nobody(task):
    bad = [Cell(0.01, 0.0), Cell(1e30, 0.0)]
    found = train(Run(), task, 3, bad, kind="momentum", decay="l2", hidden=(8,), batch=20, steps=60)
    assert found.report[1] == found.select[1] == 100
    good = train(Run(), task, 3, bad[:1], kind="momentum", decay="l2", hidden=(8,), batch=20, steps=60)
    assert found.report[0].item() == pytest.approx(good.report[0].item(), abs=0.6)


def test_a_fifth_of_the_training_labels_is_redrawn_and_no_other():
    clean, noisy = (load(Run(), 3, Data("digits", train=1000, noise=share)) for share in (0.0, 0.2))
    assert torch.equal(clean.x, noisy.x)
    assert (clean.y != noisy.y).float().mean().item() == pytest.approx(0.18, abs=0.03)
    assert torch.equal(clean.report_y, noisy.report_y)
    assert not torch.equal(clean.select_x[:50], clean.report_x[:50])


def test_all_grids_have_the_same_size():
    config = GridConfig()
    shapes = {tuple(map(len, axes(config, o, norm))) for o in OPTIMISERS for norm in (False, True)}
    assert shapes == {(5, 8)}
    rates, decays = axes(config, "sgdw", False)
    assert rates[2] == config.sgd_rates[2] == pytest.approx(0.024)
    assert np.allclose(np.diff(np.log(decays)), math.log(2.5))
    assert decays[4] == pytest.approx(config.sgdw)


def test_groups_recover_a_known_slope():
    g = torch.Generator().manual_seed(0)
    size = torch.rand(4000, generator=g) + 0.01
    without = torch.rand(4000, generator=g) + 0.5
    with_decay = without * size**0.3  # log shrink = -0.3 log size
    size[:100] = 0  # weights without any gradient
    sizes, shrinks = mechanism.groups(size, without, with_decay, 20)
    assert len(sizes) == 20
    assert np.polyfit(np.log(sizes), shrinks, 1)[0] == pytest.approx(-0.3, abs=1e-3)
    assert (np.diff(sizes) > 0).all()


def test_schedules():
    table = {name: mechanism.multiplier(name, 700, 100) for name in mechanism.SCHEDULES}
    assert all(len(values) == 700 for values in table.values())
    assert set(table["constant"]) == {1.0}
    assert [table["drops"][t] for t in (0, 349, 350, 560)] == [1, 1, 0.1, 0.01]
    assert [k for k in range(1, 700) if table["restarts"][k] == 1.0] == [100, 300]
    assert table["cosine"][350] == pytest.approx(0.5)


def test_character_models_learn_and_are_each_their_own():
    config = TextConfig(books="self", hidden=16, embedding=8)
    corpus, end = text.corpus(config)
    assert 0 < end < len(corpus)
    generators = [torch.Generator().manual_seed(k) for k in (1, 2)]
    models = text.CharModels(2, len(corpus.vocab), config, generators)
    inputs, targets = corpus.windows(torch.tensor([0, 100, 200]), 12)
    before = text.losses(models, inputs, targets, 2)
    assert before[0] != before[1]
    assert before.mean().item() == pytest.approx(math.log(len(corpus.vocab)), abs=0.3)
    for _ in range(60):
        models.zero_grad()
        text.losses(models, inputs, targets, 2).sum().backward()
        with torch.no_grad():
            for p in models.parameters():
                p -= 0.5 * p.grad
    assert (text.losses(models, inputs, targets, 2) < before - 0.5).all()


def test_the_papers_grid_runs_on_files_of_the_real_format(tmp_path):
    write_cifar(tmp_path, per_batch=12)
    results = runner.run(
        registry.load("decoupled-weight-decay"),
        "paper",
        arms=["paper/cifar10-adamw", "paper/cifar10-l2-sgd"],
        seeds=1,
        executor="inline",
        results=tmp_path / "results",
        changes={
            "paper.source": str(tmp_path),
            "paper.width": 4,
            "paper.epochs": 1,
            "paper.batch": 16,
            "paper.adam_rates": (1e-3,),
            "paper.sgd_rates": (0.05,),
            "paper.decays": (0.0, 0.05),
        },
    )
    for arm in ("paper/cifar10-adamw", "paper/cifar10-l2-sgd"):
        metrics = results.metrics(arm, 0)
        assert 0 <= metrics["error"] <= 100
        assert metrics["best_normalised_decay"] in (0.0, 0.05)
        assert results.artifact(arm, 0, "grid")["cells"].shape == (2, 4)


def test_imagenet32_is_read_from_its_npz_batches(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"paper\.imagenet32"):
        paper.load("imagenet32", PaperConfig(imagenet32=str(tmp_path)), 0)
    rng = np.random.default_rng(0)
    for name in [f"train_data_batch_{k}" for k in range(1, 11)] + ["val_data"]:
        data, labels = rng.integers(0, 256, (10, 3072)).astype(np.uint8), rng.integers(1, 1001, 10)
        np.savez(tmp_path / f"{name}.npz", data=data, labels=labels)
    train_set, select, report = paper.load("imagenet32", PaperConfig(imagenet32=str(tmp_path)), 0)
    assert [len(part[1]) for part in (train_set, select, report)] == [98, 2, 10]
    assert train_set[0].shape[1:] == (3, 32, 32)
    assert 0 <= int(train_set[1].min()) <= int(train_set[1].max()) <= 999
