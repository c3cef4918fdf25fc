"""Several agents: games, opponents, reciprocity."""

from assay.games.forecast import ActionForecaster, TabularOpponentModel, fit_opponent, policy_log_prob
from assay.games.matrix import (
    STATES,
    IteratedMatrixGame,
    MemoryOneGame,
    Play,
    as_parallel_env,
    chicken,
    imp,
    ipd,
    play,
    stag_hunt,
    swap_view,
)
from assay.games.reciprocity import always_cooperate, always_defect, reciprocity_stats, tit_for_tat
from assay.games.tabular_learners import JointActionLearner, PolicyHillClimber, QLearner, TabularLearner

__all__ = [
    "STATES",
    "ActionForecaster",
    "IteratedMatrixGame",
    "JointActionLearner",
    "MemoryOneGame",
    "Play",
    "PolicyHillClimber",
    "QLearner",
    "TabularLearner",
    "TabularOpponentModel",
    "always_cooperate",
    "always_defect",
    "as_parallel_env",
    "chicken",
    "fit_opponent",
    "imp",
    "ipd",
    "play",
    "policy_log_prob",
    "reciprocity_stats",
    "stag_hunt",
    "swap_view",
    "tit_for_tat",
]
