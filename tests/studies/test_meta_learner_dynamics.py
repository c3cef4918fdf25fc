"""The meta-learner study: each experiment measures what it says, repeats, and stands alone."""

import math
from pathlib import Path

import pytest
import torch

from assay.analysis import saxe_curve, stagger_index
from assay.lab import Results, registry
from assay.lab.trial import Trial
from assay.meta import BayesBandit, ContextBandit, LinearTasks, SequenceMetaLearner


@pytest.fixture(scope="module")
def study():
    return registry.load("meta-learner-dynamics")


def trial(arm: str, seed: int, folder: Path, profile: str = "smoke") -> Trial:
    return Trial(
        arm, seed, study="meta-learner-dynamics", profile=profile, device="cpu", folder=folder,
        time_limit=600.0, report=None,
    )  # fmt: skip


def run(study, arm: str, seed: int, folder: Path, changes=None, profile="smoke"):
    config = study.part(arm, study.configure(profile, changes or {}))
    one = trial(arm, seed, folder, profile)
    return study.experiment(arm).function(one, arm, config)


LEARNER = {"learner.aligned_tasks": 4, "learner.aligned_steps": 20}


def test_the_two_layer_learner_staggers_as_the_closed_form_says(study, tmp_path):
    """Laptop values: SGD is near the closed form's index, one layer learns all modes at once."""
    deep = run(study, "linear/learner", 100, tmp_path, LEARNER, "laptop")
    shallow = run(study, "linear/shallow", 100, tmp_path, LEARNER, "laptop")
    t = torch.linspace(0, 10, 100_001, dtype=torch.float64)
    theory = float(
        stagger_index(torch.stack([saxe_curve(s, t, 1e-3, 1.0) / s for s in (3.0, 0.75)]), times=t)
    )
    assert theory == pytest.approx(1.725, abs=0.002)
    assert deep["index"] == pytest.approx(theory, abs=0.2)
    assert abs(shallow["index"]) < 0.05
    assert deep["weakest"] > 0.98
    assert shallow["weakest"] > 0.98


def test_a_rate_that_diverges_is_no_candidate(study, tmp_path):
    changes = {"learner.aligned_rates": (0.02, 5.0), "learner.aligned_tasks": 8, "learner.steps": 4}
    metrics = run(study, "linear/learner", 3, tmp_path, changes, "laptop")
    assert metrics["gap_rate"] == pytest.approx(0.02)
    assert math.isfinite(metrics["gap"])
    assert metrics["pairs_to_tenth"] <= 400


def test_bayes_read_through_the_same_code_has_no_gap_and_no_stagger():
    """The probe pipeline applied to Bayes itself returns Bayes: what is measured on the LSTM is not the method's."""
    from assay.analysis import mode_strength, probe_linear
    from assay.studies.meta_learner_dynamics.linear import bayes_path, first_below, relative_error

    seen = LinearTasks(3, 3, 0.1, spectrum=(3.0, 1.5, 0.75)).sample(300, 12, torch.Generator().manual_seed(0))
    path = bayes_path(seen, 0.1)
    probed = probe_linear(lambda x: x @ path.mT, 3, 24, torch.Generator().manual_seed(1)).weight
    torch.testing.assert_close(probed, path, atol=1e-4, rtol=1e-4)
    curve = mode_strength(path, seen.weight.unsqueeze(1)).strength.mean(0).mT
    assert abs(float(stagger_index(curve))) < 0.15
    error = relative_error(path, seen.weight.unsqueeze(1)).mean(0)
    assert float(error[0]) == pytest.approx(1.0)
    assert 2 < first_below(error, 0.1, 12) < 4
    assert first_below(torch.ones(5), 0.1, 4) == 4.0


def test_learned_maps_are_the_network_s_own_answers(study, tmp_path):
    """The map read at time t predicts what the network answers there, as far as it is linear."""
    from assay.studies.meta_learner_dynamics.linear import learned_maps

    model = SequenceMetaLearner(2, 8, 2, generator=torch.Generator().manual_seed(0))
    seen = LinearTasks(2, 2).sample(6, 5, torch.Generator().manual_seed(1))
    one = trial("linear/meta", 0, tmp_path)
    maps = learned_maps(one, model, seen, 24)
    assert maps.shape == (6, 6, 2, 2)
    x = 1e-3 * torch.eye(2)
    for t in (0, 3, 5):
        state = model.state_after(seen.x, seen.y, t)
        slope = (model.predict_from(state, x) - model.predict_from(state, -x)).mT / 2e-3
        assert float((maps[:, t] - slope).abs().max()) < 0.1 * float(slope.abs().max()) + 0.05


def test_bandit_gradients_are_those_of_autograd():
    """The closed-form policy gradient, the one off policy, and the mean of sampled ones."""
    from assay.studies.meta_learner_dynamics.bandit import sampled_gradient

    source = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 4, generator=source, dtype=torch.float64, requires_grad=True)
    right = torch.nn.functional.one_hot(torch.tensor([[1, 1, 3]]), 4).double()
    chance = logits.softmax(-1)
    won = (chance * right).sum(-1, keepdim=True)
    (expected,) = torch.autograd.grad(won.mean(), logits, retain_graph=True)
    exact = (right - chance) * won / 3
    torch.testing.assert_close(exact.detach(), expected)
    (supervised,) = torch.autograd.grad(won.log().mean() / 4, logits)
    torch.testing.assert_close(((right - chance) / 4 / 3).detach(), supervised)
    many = 4_000
    sampled = sampled_gradient(
        *(value.detach().float().expand(many, -1, -1) for value in (chance, right, won)), 32, source
    ).mean(0)
    torch.testing.assert_close(sampled, expected[0].float(), atol=0.003, rtol=0)


def test_coupling_staggers_and_its_cause_is_shared_actions(study, tmp_path):
    coupled = run(study, "bandit/coupled", 100, tmp_path, profile="laptop")
    free = run(study, "bandit/decoupled", 100, tmp_path, profile="laptop")
    assert coupled["index"] > 0.8
    assert free["index"] < 0.2
    assert coupled["unlearned"] == free["unlearned"] == 0.0
    assert coupled["index_different_actions"] < 0.5 * coupled["index"]


def test_success_by_visit_of_the_bayesian_player(study, tmp_path):
    from assay.studies.meta_learner_dynamics.bandit import bayes_plays, mean_by_visit

    config = study.configure("laptop", {}).bandit
    found = float(bayes_plays(trial("bandit/meta", 5, tmp_path), ContextBandit(3, 3), config))
    assert found == pytest.approx(float(BayesBandit.success(torch.arange(1, 9), 3).mean()), abs=0.01)
    reward, visit = torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([[1, 1, 2]])
    assert mean_by_visit(reward, visit, 2).tolist() == [0.5, 1.0]


@pytest.mark.parametrize("arm", ["linear/meta", "fourier/learner", "bandit/meta"])
def test_a_seed_is_its_own(study, tmp_path, arm):
    """The same seed repeats, another differs."""
    changes = {"linear.steps": 8, "network.steps": 60, "bandit.updates": 3}
    one = run(study, arm, 2, tmp_path, changes)
    again = run(study, arm, 2, tmp_path, changes)
    other = run(study, arm, 3, tmp_path, changes)
    assert one == pytest.approx(again, nan_ok=True)
    assert any(one[key] != other[key] for key in one)


def test_frequencies_outside_of_the_band_are_not_those_inside(study, tmp_path):
    """The stop-band measure looks at K + 1 .. 2 K: a learner that tracks any frequency would score high there."""
    from assay.analysis import fourier_strength, probe_fourier
    from assay.meta import FourierTasks

    outside = FourierTasks(3, 0.0, band=(4, 6), amplitude=1.0)
    f = outside.coefficients(20, torch.Generator().manual_seed(0))
    spectrum = probe_fourier(lambda theta: outside.function(f, theta.expand(20, -1)))
    torch.testing.assert_close(fourier_strength(spectrum[:, 4:7], f), torch.ones(20, 3), atol=1e-4, rtol=0)
    assert float(spectrum[:, :4].abs().max()) < 1e-4


def test_figures_need_only_what_is_there(study):
    empty = Results(study, "laptop", study.config, [])
    assert [spec.name for spec in study.figures if spec.function(empty) is not None] == []
