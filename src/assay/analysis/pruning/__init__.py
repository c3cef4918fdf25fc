"""Pruning: which weights to keep, what becomes of the others, and what the surviving subnetwork is worth."""

from assay.analysis.pruning.actions import (
    PRUNED_VALUES,
    RESETS,
    PrunedValue,
    Reset,
    layer_scale,
    masking_is_training,
    moved_toward_zero,
)
from assay.analysis.pruning.criteria import (
    CRITERIA,
    Criterion,
    MaskCriterion,
    build_mask,
    density,
    global_magnitude_masks,
    quadrant_mask,
    same_sign,
    shuffle_masks,
)
from assay.analysis.pruning.masked import Mask, MaskedModel, SwapIn, effective_state, load_plain
from assay.analysis.pruning.pruner import (
    IterativePruner,
    RewindStore,
    Round,
    Snapshot,
    TrainState,
    linear_warmup,
    prunable,
)
from assay.analysis.pruning.tickets import Stability, stability, ticket_report

__all__ = [
    "CRITERIA",
    "PRUNED_VALUES",
    "RESETS",
    "Criterion",
    "IterativePruner",
    "Mask",
    "MaskCriterion",
    "MaskedModel",
    "PrunedValue",
    "Reset",
    "RewindStore",
    "Round",
    "Snapshot",
    "Stability",
    "SwapIn",
    "TrainState",
    "build_mask",
    "density",
    "effective_state",
    "global_magnitude_masks",
    "layer_scale",
    "linear_warmup",
    "load_plain",
    "masking_is_training",
    "moved_toward_zero",
    "prunable",
    "quadrant_mask",
    "same_sign",
    "shuffle_masks",
    "stability",
    "ticket_report",
]
