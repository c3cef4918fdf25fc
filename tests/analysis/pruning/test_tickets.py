"""Stability in closed form, and what a report says about a mask drawn by hand."""

import pytest
import torch

from assay.analysis.pruning import CRITERIA, build_mask, stability, ticket_report

A = {"w": torch.tensor([3.0, 0.0]), "v": torch.tensor([[4.0]])}


def test_identical_copies_are_at_distance_zero() -> None:
    s = stability(A, {n: v.clone() for n, v in A.items()})
    assert (s.l2, s.l2_normalised, s.angle_deg) == (0.0, 0.0, 0.0)


def test_twice_the_weights() -> None:
    s = stability(A, {n: 2 * v for n, v in A.items()})
    assert s.l2 == pytest.approx(5.0)
    assert s.l2_normalised == pytest.approx(1.0)
    assert s.angle_deg == pytest.approx(0.0, abs=1e-9)


def test_orthogonal_displacements_seen_from_a_reference() -> None:
    ref = {"w": torch.tensor([1.0, 1.0])}
    s = stability({"w": torch.tensor([3.0, 1.0])}, {"w": torch.tensor([1.0, 4.0])}, ref)
    assert s.angle_deg == pytest.approx(90)
    assert s.l2 == pytest.approx(13**0.5)
    assert s.l2_normalised == pytest.approx(13**0.5 / 2)


def test_only_kept_entries_count() -> None:
    b = {"w": torch.tensor([3.0, 99.0]), "v": torch.tensor([[-7.0]])}
    assert stability(A, b, mask={"w": torch.tensor([True, False])}).l2 == 0


def test_bad_input_is_told() -> None:
    with pytest.raises(ValueError, match="w_b has no 'v'"):
        stability(A, {"w": A["w"]})
    with pytest.raises(ValueError, match="keep no weight"):
        stability(A, A, mask={"w": torch.zeros(2, dtype=torch.bool)})
    with pytest.raises(ValueError, match="no 'w' of shape"):
        ticket_report({"w": torch.ones(3, dtype=torch.bool)}, A)


def test_report_of_a_mask_drawn_by_hand() -> None:
    mask = torch.tensor(
        [[True, True, False, False], [False, False, False, False], [True, False, False, False]]
    )
    wi = torch.arange(1.0, 13.0).view(3, 4)
    wf = torch.where(torch.arange(12).view(3, 4) == 0, -wi, wi)
    row = ticket_report({"0.weight": mask}, {"0.weight": wf}, {"0.weight": wi}).iloc[0]
    assert (row.kept, row.outputs, row.dead_outputs, row.inputs, row.dead_inputs) == (3, 3, 1, 4, 2)
    assert row.density == pytest.approx(0.25)
    assert (row.in_degree_max, row.out_degree_max) == (2, 2)
    assert row.sign_agreement == pytest.approx(2 / 3)
    assert row.kept_positive == pytest.approx(2 / 3)


def test_deciles_are_even_for_a_random_mask_and_not_for_large_init() -> None:
    g = torch.Generator().manual_seed(0)
    wi = torch.randn(100, 100, generator=g)
    reports = {}
    for name in ("random", "large_init"):
        mask = build_mask(CRITERIA[name].score(wi, wi), 0.1, generator=g)
        reports[name] = ticket_report({"w": mask}, {"w": wi}, {"w": wi}).iloc[0]
    assert reports["large_init"].decile_10 == pytest.approx(1.0)
    shares = [reports["random"][f"decile_{k}"] for k in range(1, 11)]
    assert sum(shares) == pytest.approx(1.0)
    assert max(shares) < 0.14


def test_report_counts_convolution_channels() -> None:
    mask = torch.zeros(4, 3, 3, 3, dtype=torch.bool)
    mask[0, 1] = True
    row = ticket_report({"c": mask}, {"c": torch.randn(4, 3, 3, 3)}).iloc[0]
    assert (row.dead_outputs, row.dead_inputs, row.in_degree_max) == (3, 2, 9)
