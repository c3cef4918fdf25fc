"""Learning to learn: task families, recurrent meta-learners, and the Bayes-optimal learners they imitate."""

from assay.meta.bayes import BayesBandit, BayesFourier, BayesLinear
from assay.meta.sequence import (
    MetaState,
    MetaTraining,
    RecurrentPolicy,
    SequenceMetaLearner,
    SequenceTasks,
    meta_train,
    train_policy,
)
from assay.meta.tasks import (
    BanditTasks,
    ContextBandit,
    FourierBatch,
    FourierTasks,
    LinearBatch,
    LinearTasks,
    as_gymnasium,
    fourier_features,
    random_orthogonal,
    visit_numbers,
)

__all__ = [
    "BanditTasks",
    "BayesBandit",
    "BayesFourier",
    "BayesLinear",
    "ContextBandit",
    "FourierBatch",
    "FourierTasks",
    "LinearBatch",
    "LinearTasks",
    "MetaState",
    "MetaTraining",
    "RecurrentPolicy",
    "SequenceMetaLearner",
    "SequenceTasks",
    "as_gymnasium",
    "fourier_features",
    "meta_train",
    "random_orthogonal",
    "train_policy",
    "visit_numbers",
]
