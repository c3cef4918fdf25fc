"""Optimisers, inner loops and opponent-aware updates."""

from assay.optim.ensemble import EnsembleOptimizer, select_members
from assay.optim.opponent import (
    LOLAOptimizer,
    dice_objective,
    lola_cross_term,
    lola_policy_gradient,
    magic_box,
    opponent_shaping_grad,
    sos_fraction,
    unrolled_grad,
)

__all__ = [
    "EnsembleOptimizer",
    "LOLAOptimizer",
    "dice_objective",
    "lola_cross_term",
    "lola_policy_gradient",
    "magic_box",
    "opponent_shaping_grad",
    "select_members",
    "sos_fraction",
    "unrolled_grad",
]
