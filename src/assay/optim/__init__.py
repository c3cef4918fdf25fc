"""Optimisers, inner loops and opponent-aware updates."""

from assay.optim.decay import (
    SGDW,
    AdamW,
    CosineRestarts,
    convert_decay,
    decay_groups,
    l2_equivalent,
    normalized_weight_decay,
)
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
    "SGDW",
    "AdamW",
    "CosineRestarts",
    "EnsembleOptimizer",
    "LOLAOptimizer",
    "convert_decay",
    "decay_groups",
    "dice_objective",
    "l2_equivalent",
    "lola_cross_term",
    "lola_policy_gradient",
    "magic_box",
    "normalized_weight_decay",
    "opponent_shaping_grad",
    "select_members",
    "sos_fraction",
    "unrolled_grad",
]
