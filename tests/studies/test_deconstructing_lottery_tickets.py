"""The study of lottery tickets: all branches from one run, nothing depends on companions, claims say what is meant."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from assay.analysis.pruning import CRITERIA, RESETS, moved_toward_zero
from assay.lab import registry, runner
from assay.lab.results import Results
from assay.studies.deconstructing_lottery_tickets import KEPT, PRUNED, masking_at, signs_at
from assay.studies.deconstructing_lottery_tickets.common import Bench, area, as_step, layer_densities
from assay.studies.deconstructing_lottery_tickets.config import TicketConfig
from assay.studies.deconstructing_lottery_tickets.ticket import Tickets

STUDY = registry.load("deconstructing-lottery-tickets")
SMALL = {
    "ticket.retrain": 6,
    "ticket.steps": 12,
    "oneshot.steps": 12,
    "oneshot.retrain": 6,
    "supermask.steps": 12,
}


def smoke(folder: Path, *arms: str, seeds: int = 1) -> Results:
    results = runner.run(
        STUDY,
        "smoke",
        arms=arms,
        seeds=seeds,
        first_seed=100,
        executor="inline",
        results=folder,
        changes=SMALL,
    )
    assert [t.error for t in results.failed] == []
    return results


def bench(network: str = "mlp") -> Bench:
    config = TicketConfig(source="digits", hidden=(20, 10), steps=8, retrain=8, batch=20, network=network)
    return Bench(lambda name: torch.Generator().manual_seed(hash_of(name)), torch.device("cpu"), config)


def hash_of(name: str) -> int:
    return sum(ord(c) * 31**k for k, c in enumerate(name)) % 2**31


@pytest.mark.parametrize("arm", ["kept/constant", "kept/reinit", "pruned/zero_random"])
def test_what_an_arm_gives_does_not_depend_on_its_companions(arm: str, tmp_path: Path) -> None:
    alone = smoke(tmp_path / "alone", arm)
    company = smoke(
        tmp_path / "company", "iterative/*", "kept/re*", "kept/constant", "pruned/zero_*", seeds=2
    )
    assert alone.metrics(arm, 100) == company.metrics(arm, 100)


@pytest.mark.parametrize("arm", ["oneshot/random", "supermask/random"])
def test_criteria_do_not_depend_on_their_companions_either(arm: str, tmp_path: Path) -> None:
    kind = arm.partition("/")[0]
    alone = smoke(tmp_path / "alone", arm)
    company = smoke(tmp_path / "company", f"{kind}/large_final", f"{kind}/movement", arm)
    assert alone.metrics(arm, 100) == company.metrics(arm, 100)


def test_rewinding_is_the_iterative_run_itself(tmp_path: Path) -> None:
    results = smoke(tmp_path, "iterative/large_final", "kept/rewind")
    for mark in ("5pc", "2pc"):
        name = f"accuracy_{mark}"
        assert (
            results.metrics("kept/rewind", 100)[name] == results.metrics("iterative/large_final", 100)[name]
        )


def a_run() -> SimpleNamespace:
    return SimpleNamespace(
        generator=lambda name, seed, device: torch.Generator().manual_seed(hash_of(f"{name}{seed}")),
        device=torch.device("cpu"),
        steps=range,
    )


def test_all_actions_start_from_the_masks_and_weights_of_one_run() -> None:
    config = TicketConfig(source="digits", hidden=(20, 10), steps=30, retrain=8, batch=20, rounds=(1, 2))
    done = Tickets(a_run(), 0, config, 99)
    rounds = done.rounds("large_final")
    init = done.pruners["large_final"].store.get(0).model
    for name in KEPT:
        one = done.branch(f"kept/{name}", 2, reset=name)
        for layer, mask in rounds[2].masks.items():
            assert torch.equal(one.masks[layer], mask)
            assert not one.start[layer][~mask].any()
            same = bool((one.start[layer][mask].sign() == init[layer][mask].sign()).all())
            assert same == (name == "rewind" or name.startswith("signed")), (name, layer)
    for name in PRUNED:
        one = done.branch(f"pruned/{name}", 2, pruned_value=name)
        for layer, mask in rounds[2].masks.items():
            toward = moved_toward_zero(init[layer], rounds[1].final[layer])
            frozen = one.state[layer][~mask]
            expected = {
                "freeze_init": torch.zeros_like(toward),
                "zero_toward": toward,
                "zero_toward_all": toward,
                "zero_away": ~toward,
            }.get(name)
            if expected is None:
                assert int((frozen == 0).sum()) == int(toward[~mask].sum())
            else:
                assert torch.equal(frozen == 0, expected[~mask])
            kept_zero = (one.start[layer] == 0) & mask
            assert torch.equal(
                kept_zero, toward & mask if name == "zero_toward_all" else torch.zeros_like(mask)
            )


def test_full_density_retrains_to_the_dense_network_to_the_bit() -> None:
    """Adam, batches, evaluation in between: everything is as in the dense run."""
    b = bench()
    pruner = b.pruner("large_final", 0.5)
    dense = pruner.train_dense()
    again = pruner.branch(dense, dense.masks)
    assert again.metrics == dense.metrics
    assert all(torch.equal(again.state[name], value) for name, value in dense.state.items())


def test_pruners_of_one_seed_share_the_dense_run() -> None:
    b = bench()
    one = b.pruner("large_final", 0.5)
    one.train_dense()
    two = b.pruner("movement", 0.5, like=one)
    assert two.train_dense() is one.dense
    assert not torch.equal(one.next_masks(one.dense)["1.weight"], two.next_masks(one.dense)["1.weight"])


def test_convolutional_networks_run_and_unknown_ones_are_told() -> None:
    b = bench("conv2")
    pruner = b.pruner("large_final", b.rates(0.1, 0.2, 0.1))
    assert pruner.run(1)[1].metrics["accuracy"] >= 0
    assert list(pruner.rates.values()) == [0.1, 0.1, 0.2, 0.2, 0.1]
    with pytest.raises(ValueError, match="conv4"):
        bench("resnet").network()


def test_the_output_layer_is_pruned_at_half_the_rate() -> None:
    rounds = 9
    densities = layer_densities(["a", "b", "out"], 0.8**rounds)
    assert densities["a"] == densities["b"] == pytest.approx(0.8**rounds)
    assert densities["out"] == pytest.approx(0.9**rounds)
    config = TicketConfig()
    assert (1 - config.dense_removed) == pytest.approx(0.8**2)
    assert (1 - config.output_removed) == pytest.approx(0.9**2)


def test_area_is_the_mean_over_log_density() -> None:
    assert area([0.2, 0.1, 0.01], [7.0, 7.0, 7.0]) == pytest.approx(7)
    line = [3 + 2 * math.log(d) for d in (0.2, 0.05, 0.01)]
    assert area([0.2, 0.05, 0.01], line) == pytest.approx((line[0] + line[2]) / 2)
    assert area([0.01, 0.2, 0.05], [line[2], line[0], line[1]]) == pytest.approx((line[0] + line[2]) / 2)
    assert area([0.1], [4.0]) == 4.0
    assert as_step(0.018) == 1800


def fake(values: dict[str, list[float]], metric: str) -> SimpleNamespace:
    return SimpleNamespace(
        seeds=lambda arm: tuple(range(len(values[arm]))),
        failure=lambda arm, seed: "",
        metrics=lambda arm, seed: {metric: values[arm][seed]},
    )


@pytest.mark.parametrize(
    ("signed", "constant", "reinit", "outcome"),
    [(91.5, 90.0, 89.0, "supported"), (90.0, 91.5, 89.0, "refuted"), (91.5, 91.4, 89.0, "inconclusive")],
)
def test_outcomes_of_the_sign_claim(signed: float, constant: float, reinit: float, outcome: str) -> None:
    noise = [0.1, -0.1, 0.0, 0.05, -0.05]
    values = {
        "kept/rewind": [92.0 + e for e in noise],
        "kept/signed_constant": [signed + 2 * e for e in noise],
        "kept/constant": [constant - e for e in noise],
        "kept/reinit": [reinit + 3 * e for e in noise],
    }
    assert signs_at("5pc").decide(fake(values, "accuracy_5pc")).outcome == outcome


@pytest.mark.parametrize(
    ("toward", "subset", "outcome"),
    [
        (93.5, 92.0, "supported"),
        (93.5, 93.5, "refuted"),
        (91.0, 90.0, "refuted"),
        (92.2, 91.0, "inconclusive"),
    ],
)
def test_outcomes_of_the_masking_claim(toward: float, subset: float, outcome: str) -> None:
    """A control that zeroes as many weights at random and does as well refutes it."""
    noise = [0.05, -0.05, 0.0, 0.05, -0.05]
    values = {
        "kept/rewind": [92.0 + e for e in noise],
        "pruned/freeze_init": [91.0 - e for e in noise],
        "pruned/zero_toward": [toward + 2 * e for e in noise],
        "pruned/zero_random": [subset - e for e in noise],
    }
    assert masking_at("2pc").decide(fake(values, "accuracy_2pc")).outcome == outcome


def test_untrained_supermasks_know_the_signs(tmp_path: Path) -> None:
    """On a dense run long enough to learn, masks beat chance without training, and the wrong signs do not."""
    results = runner.run(
        STUDY,
        "smoke",
        arms=("supermask/large_final*", "supermask/random"),
        seeds=1,
        first_seed=100,
        executor="inline",
        results=tmp_path,
        changes={"supermask.steps": 400, "supermask.hidden": "100,50", "supermask.densities": "0.2,0.35,0.5"},
    )
    assert [t.error for t in results.failed] == []
    found = {arm: results.metrics(arm, 100)["constant_accuracy"] for arm in results.arms}
    assert found["supermask/large_final_same_sign"] > 45
    assert found["supermask/large_final_same_sign"] > found["supermask/large_final_diff_sign"] + 25
    assert found["supermask/random"] < 35


def test_arms_cover_every_criterion_and_action_of_the_paper() -> None:
    arms = set(STUDY.all_arms)
    assert {f"supermask/{name}" for name, c in CRITERIA.items() if not c.needs_grad} <= arms
    assert set(KEPT) | {"reinit_permutation", "final"} == set(RESETS)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    for source in ("/no/such/folder", "cifar10:/no/such/folder"):
        with pytest.raises(Exception, match="no folder"):
            runner.run(
                STUDY,
                "smoke",
                seeds=1,
                executor="inline",
                results=tmp_path,
                changes={"ticket.source": source},
            )


def test_the_papers_settings_stand_in_the_profiles() -> None:
    for profile, network, rate in (
        ("paper", "mlp", 1.2e-3),
        ("paper-conv2", "conv2", 2e-4),
        ("paper-conv4", "conv4", 3e-4),
        ("paper-conv6", "conv6", 3e-4),
    ):
        config = STUDY.configure(profile)
        for part in (config.ticket, config.oneshot, config.supermask, config.learned):
            assert (part.network, part.rate) == (network, rate)
        assert config.ticket.dense_removed == 0.2
        assert max(config.ticket.rounds) == 24
    assert STUDY.configure("paper-conv6").ticket.conv_removed == 0.15
