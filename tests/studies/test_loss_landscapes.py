"""The loss-landscapes study: its measures are what they say, its arms differ as named, user checkpoints are taken."""

import math
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from assay.lab import Trial, registry, runner
from assay.lab.errors import InputError
from assay.nn.cifar import VGG, CifarResNet, DenseNet
from assay.nn.residual import DeepMLP
from assay.studies import loss_landscapes
from assay.studies.loss_landscapes import cells, skips
from assay.studies.loss_landscapes.common import build, fit, load, parts, score, weights
from assay.studies.loss_landscapes.config import CellsConfig, PicturesConfig, SkipsConfig

STUDY = registry.load("loss-landscapes")
SMOKE = STUDY.configure("smoke")


def a_trial(folder: Path, arm: str = "a", seed: int = 100) -> Trial:
    return Trial(
        arm, seed, study="loss-landscapes", profile="smoke", device="cpu", folder=folder, time_limit=60.0, report=None
    )  # fmt: skip


def test_digits_are_standardised_by_the_training_part(tmp_path: Path) -> None:
    task = load(a_trial(tmp_path), "digits", 300, 100)
    assert task.shape == (1, 8, 8)
    assert len(task.train[1]) == 300
    assert len(task.test[1]) == 100
    assert task.train[0].mean().item() == pytest.approx(0, abs=1e-5)
    assert task.train[0].std().item() == pytest.approx(1, abs=1e-3)
    other = load(a_trial(tmp_path, seed=101), "digits", 300, 100)
    assert not torch.equal(task.train[1], other.train[1])
    assert torch.equal(load(a_trial(tmp_path, arm="b"), "digits", 300, 100).train[1], task.train[1])


def test_training_keeps_the_path_from_first_to_last(tmp_path: Path) -> None:
    run = a_trial(tmp_path)
    task = load(run, "digits", 300, 100)
    net = build(run, partial(cells.network, task, SMOKE.cells))
    begin = {k: p.detach().clone() for k, p in net.named_parameters()}
    path = fit(run, net, task.train, steps=20, batch=50, rate=0.1, momentum=0.9, looks=5)
    assert len(path) == 5
    assert all(torch.equal(path[0][k], begin[k]) for k in begin)
    assert all(torch.equal(path[-1][k], p) for k, p in net.named_parameters())
    assert not net.training


def test_the_rate_falls_where_it_should(tmp_path: Path) -> None:
    """With the rate cut to nothing after the first step, hardly anything moves any more."""
    run = a_trial(tmp_path)
    task = load(run, "digits", 300, 100)
    net = build(run, partial(cells.network, task, SMOKE.cells))
    path = fit(
        run, net, task.train, steps=10, batch=50, rate=0.1, momentum=0.0, drops=(0.2, 0.2, 0.4, 0.4, 0.4), looks=11
    )  # fmt: skip
    moves = [sum((b[k] - a[k]).norm() for k in a).item() for a, b in pairwise(path)]
    assert max(moves[4:]) < 1e-2 * moves[0]
    assert moves[2] < 0.6 * moves[1]


def test_scores_do_not_depend_on_how_the_data_are_cut(tmp_path: Path) -> None:
    task = load(a_trial(tmp_path), "digits", 300, 100)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    assert score(net, parts(task.train, 70)) == pytest.approx(score(net, [task.train]))
    loss, wrong = score(net, [task.train])
    assert loss == pytest.approx(
        nn.functional.cross_entropy(net(task.train[0]), task.train[1]).item(), abs=1e-6
    )
    assert wrong == pytest.approx((net(task.train[0]).argmax(1) != task.train[1]).float().mean().item())
    assert weights(net).numel() == 640


def test_arms_build_the_networks_that_they_name(tmp_path: Path) -> None:
    task = load(a_trial(tmp_path), "digits", 100, 50)
    config = SkipsConfig()
    for name, depth, width, skip in (
        ("plain-shallow", 4, 32, False),
        ("residual-deep", 16, 32, True),
        ("plain-deepest", 32, 32, False),
        ("residual-deep-wide", 16, 64, True),
    ):
        net = skips.network(name, task, config)
        assert isinstance(net, DeepMLP)
        assert (len(net.layers), net.head.in_features, net.skip) == (depth, width, skip)
    conv = skips.network("plain-deep", task, SkipsConfig(network="resnet", deep=8, width=4))
    assert isinstance(conv, CifarResNet)
    assert all(block.shortcut is None for stage in conv.stages for block in stage)
    for name, kind in (("resnet", CifarResNet), ("plain", CifarResNet), ("vgg", VGG), ("densenet", DenseNet)):
        net = skips.convnet(name, task, PicturesConfig(width=2))
        assert isinstance(net, kind)
        assert net(task.train[0][:2]).shape == (2, 10)
    assert isinstance(cells.network(task, CellsConfig(network="vgg9")), VGG)
    # Every arm of the experiment is a network that can be built.
    for arm in STUDY.all_arms:
        if arm.startswith("skip/"):
            skips.network(arm.partition("/")[2], task, config)


def test_rises_are_measured_half_the_distance_beyond_each_solution(tmp_path: Path) -> None:
    """A linear model on a quadratic loss would do; here: two solutions, the rises read off the saved curve."""
    run = a_trial(tmp_path)
    task = load(run, "digits", 300, 100)
    nets = {}
    for side, rate in (("small", 0.1), ("large", 0.01)):
        nets[side] = build(run, partial(cells.network, task, SMOKE.cells))
        fit(run, nets[side], task.train, steps=20, batch=50, rate=rate, momentum=0.9)
    found = cells.between(run, nets, [task.train], [task.test], SMOKE.cells)
    (saved,) = tmp_path.rglob("interpolation.npz")
    with np.load(saved) as table:
        place, loss = table["alpha"].tolist(), table["train_loss"]
    assert place == [-0.5, 0.0, 0.5, 1.0, 1.5]
    assert found["rise_small"] == pytest.approx(loss[0] - loss[1], abs=1e-6)
    assert found["rise_large"] == pytest.approx(loss[4] - loss[3], abs=1e-6)
    floor = cells.RISE_FLOOR
    assert found["log_ratio"] == pytest.approx(
        math.log(max(loss[0] - loss[1], floor) / max(loss[4] - loss[3], floor)), abs=1e-5
    )


def table(errors: list[float], sharpness: list[float], rise: list[float]) -> dict[str, dict[str, np.ndarray]]:
    """Four cells with two seeds each."""
    out: dict[str, dict[str, np.ndarray]] = {}
    k = 0
    for arm in loss_landscapes.CELLS:
        out[arm] = {}
        for side in cells.SIDES:
            for name, values in (("test_error", errors), ("sharpness", sharpness), ("rise", rise)):
                out[arm][f"{name}_{side}"] = np.array(values[k : k + 2])
            k += 2
    return out


def test_rank_correlations_by_hand() -> None:
    order = [float(k) for k in range(8)]
    assert loss_landscapes.sharpness_ranks(
        table(order, [2 * k**3 for k in order], order[::-1])
    ) == pytest.approx(1)
    assert loss_landscapes.better_than_interpolation(table(order, order, order[::-1])) == pytest.approx(2)
    assert loss_landscapes.sharpness_ranks(table(order, [1.0] * 8, order)) == 0


def test_effects_by_hand() -> None:
    shares = {"plain-shallow": 0.1, "residual-shallow": 0.0, "plain-deep": 0.5, "residual-deep": 0.1}
    assert loss_landscapes.deeper_gap(
        {f"skip/{k}": {"nonconvex": v} for k, v in shares.items()}
    ) == pytest.approx(0.3)
    cell = {arm: {"path_share_small": 0.6, "path_share_large": 1.0} for arm in loss_landscapes.CELLS}
    assert loss_landscapes.mean_path_share(cell) == pytest.approx(0.8)
    assert loss_landscapes.beyond_the_walk(cell) == pytest.approx(0.8 - 7.5 / math.pi**2)


def test_the_users_checkpoints_replace_training(tmp_path: Path) -> None:
    run = a_trial(tmp_path / "run")
    config = SkipsConfig(**{**SMOKE.skips.__dict__, "states": str(tmp_path), "steps": 10**9})
    task = load(run, config.source, config.train, config.test)
    net = skips.network("plain-shallow", task, config)
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.zero_()
    torch.save(net.state_dict(), tmp_path / "plain-shallow.pt")
    metrics = skips.trial(run, "skip/plain-shallow", config)
    assert metrics["train_loss"] == pytest.approx(math.log(10), abs=1e-5)  # the zeroed head answers 1/10


def test_bad_values_end_before_a_run(tmp_path: Path) -> None:
    for key, value in (
        ("cells.source", str(tmp_path / "nowhere")),
        ("cells.interpolation_points", "12"),
        ("cells.line_points", "10"),
        ("skips.states", str(tmp_path / "nowhere")),
        ("skips.network", "lstm"),
    ):
        with pytest.raises((ValueError, InputError)):
            runner.run(STUDY, "smoke", executor="inline", results=tmp_path, changes={key: value})


def test_paper_profile_is_the_papers() -> None:
    config = STUDY.configure("paper")
    assert (config.cells.network, config.cells.small, config.cells.large) == ("vgg9", 128, 8192)
    assert (config.skips.shallow, config.skips.deep, config.skips.deepest) == (20, 56, 110)
    assert config.skips.points == config.skips.hessian_points == 51
    assert config.cells.interpolation_points == 401
