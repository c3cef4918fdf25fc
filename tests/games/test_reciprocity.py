"""Measures of reciprocity on known policies."""

import pytest
import torch

from assay.games.matrix import swap_view
from assay.games.reciprocity import always_cooperate, always_defect, reciprocity_stats, tit_for_tat


@pytest.mark.parametrize(
    ("theta", "state", "policy"),
    [
        (tit_for_tat(), 1.0, 1.0),
        (always_defect(), 0.5, 0.0),
        (always_cooperate(), 0.5, 0.0),
        (-tit_for_tat(), 0.0, 0.0),
        (torch.tensor([3.0, -3.0, -3.0, 3.0, 3.0]), 0.5, 0.0),  # win-stay, lose-shift
    ],
)
def test_shares_of_tit_for_tat(theta, state, policy):
    stats = reciprocity_stats(theta)
    assert float(stats["tft_state"]) == state
    assert float(stats["tft_policy"]) == policy


def test_the_view_matters():
    """Tit-for-tat read in the wrong order is half right: the commonest bug with player 2."""
    assert float(reciprocity_stats(swap_view(tit_for_tat()))["tft_state"]) == 0.5


def test_probability_even_mixing_and_saturation():
    rows = [[0.0] * 5, [0.39] * 5, [0.0, 0, 0, 0, 0.5], [11.0] * 5]
    theta = torch.tensor(rows)
    stats = reciprocity_stats(theta)
    assert stats["mixed"].tolist() == [1, 1, 0, 0]  # sigmoid(0.39) = 0.596, sigmoid(0.5) = 0.622
    assert stats["saturated"].tolist() == [0, 0, 0, 1]
    assert stats["tft_prob"][0] == 0.5
    p = torch.tensor([0.9, 0.2, 0.6, 0.3, 0.5])
    assert float(reciprocity_stats(torch.logit(p))["tft_prob"]) == pytest.approx((0.9 + 0.8 + 0.6 + 0.7) / 4)
