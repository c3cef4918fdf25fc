"""How any claim is tested. Knows no topic: studies hand it functions, it hands back verdicts."""

from assay.lab.claim import (
    All,
    AnyOf,
    Claim,
    Difference,
    Effect,
    Equivalence,
    Level,
    Ratio,
    Statistic,
    Trend,
)
from assay.lab.errors import InputError
from assay.lab.results import Results, TrialResult
from assay.lab.study import Arm, Paper, Question, Study
from assay.lab.trial import Batch, Trial
from assay.lab.verdict import Decision, Verdict

__all__ = [
    "All",
    "AnyOf",
    "Arm",
    "Batch",
    "Claim",
    "Decision",
    "Difference",
    "Effect",
    "Equivalence",
    "InputError",
    "Level",
    "Paper",
    "Question",
    "Ratio",
    "Results",
    "Statistic",
    "Study",
    "Trend",
    "Trial",
    "TrialResult",
    "Verdict",
]
