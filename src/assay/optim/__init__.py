"""Optimisers, inner loops and opponent-aware updates."""

from assay.optim.adaptive import (
    DevDecay,
    FixedFrequencyDecay,
    SolutionDiagnostics,
    general_update,
    min_norm_solution,
    sign_condition,
    sign_solution,
    solution_diagnostics,
)
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
    "DevDecay",
    "EnsembleOptimizer",
    "FixedFrequencyDecay",
    "LOLAOptimizer",
    "SolutionDiagnostics",
    "convert_decay",
    "decay_groups",
    "dice_objective",
    "general_update",
    "l2_equivalent",
    "lola_cross_term",
    "lola_policy_gradient",
    "magic_box",
    "min_norm_solution",
    "normalized_weight_decay",
    "opponent_shaping_grad",
    "select_members",
    "sign_condition",
    "sign_solution",
    "solution_diagnostics",
    "sos_fraction",
    "unrolled_grad",
]
