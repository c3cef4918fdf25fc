"""Reinforcement learning in parts: estimators, losses, networks, roll-outs and learners for batched environments.

Every part is a plain function of tensors or an `nn.Module` that fits anybody's loop. Tensors are time-major,
[T, N, ...].

- `returns`, `vtrace`: advantages and targets, on-policy and off-policy
- `losses`, `schedules`: what to minimise, and coefficients that follow the experience
- `normalize`, `popart`: running statistics of observations, returns and value targets
- `information`, `dynamics`, `planning`: ensembles of models, how much they disagree, plans made in them
- `dqn`: Q-learning, bootstrapped and with bonuses
- `tabular`: exact answers for finite processes, the oracles of the rest
- `nets`, `distributions`, `policies`: torsos, cores, heads, and actor-critics made of them
- `rollout`, `ppo`, `train`, `evaluate`: collect, learn, score
- `impala`, `replay`, `actorlearner`: learning from what an older policy collected, on threads, processes or machines
- `intrinsic`: rewards that an agent gives itself
"""

from assay.rl.actorlearner import ActorLearner
from assay.rl.dqn import DQN, BootstrappedDQN, ExplorationBonusDQN
from assay.rl.dynamics import DirichletEnsemble, DynamicsEnsemble, Imagination, ImaginationEnv, Transitions
from assay.rl.impala import RMSPropTF, VTraceLearner
from assay.rl.information import expected_information_gain, jensen_renyi_gaussian, jensen_shannon
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
from assay.rl.planning import CEM, MCTS, RandomShooting, value_iteration_finite
from assay.rl.policies import ActorCritic, PolicyOutput, actor_critic
from assay.rl.popart import (
    PopArtHead,
    ReturnScale,
    SquashReward,
    gradient_share,
    merge_statistics,
    popart_update,
    soft_asymmetric_clip,
)
from assay.rl.ppo import A2C, PPO
from assay.rl.replay import TrajectoryReplay
from assay.rl.returns import discounted_return, gae, lambda_returns, nstep_returns, reverse_scan
from assay.rl.rollout import Batch, Rollout, collect, random_rollout, start
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
    "A2C",
    "CEM",
    "CORRECTIONS",
    "DQN",
    "MCTS",
    "PPO",
    "ActorCritic",
    "ActorLearner",
    "Batch",
    "BootstrappedDQN",
    "Constant",
    "Corrected",
    "DirichletEnsemble",
    "DynamicsEnsemble",
    "ExplorationBonusDQN",
    "Exponential",
    "Imagination",
    "ImaginationEnv",
    "Linear",
    "Piecewise",
    "PolicyOutput",
    "PopArtHead",
    "RMSPropTF",
    "RandomShooting",
    "ReturnNormalizer",
    "ReturnScale",
    "Rollout",
    "RunningMeanStd",
    "Schedule",
    "Solution",
    "SquashReward",
    "TrajectoryReplay",
    "Transitions",
    "VTrace",
    "VTraceLearner",
    "action_values",
    "actor_critic",
    "approximate_kl",
    "as_schedule",
    "clip_share",
    "collect",
    "corrected_targets",
    "discounted_return",
    "entropy_loss",
    "expected_information_gain",
    "gae",
    "gradient_share",
    "jensen_renyi_gaussian",
    "jensen_shannon",
    "lambda_returns",
    "merge_statistics",
    "nstep_returns",
    "occupancy",
    "policy_evaluation",
    "policy_gradient_loss",
    "policy_return",
    "popart_update",
    "ppo_clip_loss",
    "random_rollout",
    "reinforce_loss",
    "reverse_scan",
    "soft_asymmetric_clip",
    "soft_value_iteration",
    "start",
    "stationary_distribution",
    "value_iteration",
    "value_iteration_finite",
    "value_loss",
    "vtrace_fixed_point_policy",
    "vtrace_operator",
]
