"""Reinforcement learning in parts: estimators, losses, networks, roll-outs and learners for batched environments.

Every part is a plain function of tensors or an `nn.Module` that fits anybody's loop. Tensors are time-major,
[T, N, ...].

- `returns`, `vtrace`: advantages and targets, on-policy and off-policy
- `losses`, `schedules`: what to minimise, and coefficients that follow the experience
- `normalize`, `popart`: running statistics of observations, returns and value targets
- `tabular`: exact answers for finite processes, the oracles of the rest
"""

from assay.rl.losses import (
    approximate_kl,
    clip_share,
    entropy_loss,
    policy_gradient_loss,
    ppo_clip_loss,
    reinforce_loss,
    value_loss,
)
from assay.rl.normalize import ReturnNormalizer, RunningMeanStd
from assay.rl.popart import (
    PopArtHead,
    ReturnScale,
    SquashReward,
    gradient_share,
    merge_statistics,
    popart_update,
    soft_asymmetric_clip,
)
from assay.rl.returns import discounted_return, gae, lambda_returns, nstep_returns, reverse_scan
from assay.rl.schedules import Constant, Exponential, Linear, Piecewise, Schedule, as_schedule
from assay.rl.tabular import (
    Solution,
    action_values,
    occupancy,
    policy_evaluation,
    policy_return,
    soft_value_iteration,
    stationary_distribution,
    value_iteration,
)
from assay.rl.vtrace import (
    CORRECTIONS,
    Corrected,
    VTrace,
    corrected_targets,
    vtrace_fixed_point_policy,
    vtrace_operator,
)

__all__ = [
    "CORRECTIONS",
    "Constant",
    "Corrected",
    "Exponential",
    "Linear",
    "Piecewise",
    "PopArtHead",
    "ReturnNormalizer",
    "ReturnScale",
    "RunningMeanStd",
    "Schedule",
    "Solution",
    "SquashReward",
    "VTrace",
    "action_values",
    "approximate_kl",
    "as_schedule",
    "clip_share",
    "corrected_targets",
    "discounted_return",
    "entropy_loss",
    "gae",
    "gradient_share",
    "lambda_returns",
    "merge_statistics",
    "nstep_returns",
    "occupancy",
    "policy_evaluation",
    "policy_gradient_loss",
    "policy_return",
    "popart_update",
    "ppo_clip_loss",
    "reinforce_loss",
    "reverse_scan",
    "soft_asymmetric_clip",
    "soft_value_iteration",
    "stationary_distribution",
    "value_iteration",
    "value_loss",
    "vtrace_fixed_point_policy",
    "vtrace_operator",
]
