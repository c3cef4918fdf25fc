"""Intrinsic rewards: what an agent pays itself for seeing something new."""

from assay.rl.intrinsic.base import IntrinsicMixer, IntrinsicReward, freeze, two_stream_advantage
from assay.rl.intrinsic.counts import CountBonus, SimHash
from assay.rl.intrinsic.diagnostics import FeatureDiagnostics, ProbeBatch
from assay.rl.intrinsic.disagreement import EnsembleDisagreement
from assay.rl.intrinsic.dynamics import ICM, ForwardDynamics, ResidualDynamics
from assay.rl.intrinsic.features import (
    ActionCode,
    FeatureSpace,
    InverseDynamicsFeatures,
    PixelFeatures,
    RandomFeatures,
    VAEFeatures,
    make_features,
)
from assay.rl.intrinsic.novelty import DensityBonus, KNNBonus, NoveltyDetector, bayesian_linear_variance
from assay.rl.intrinsic.rnd import RND, last_frame, make_rnd
from assay.rl.intrinsic.unet import ActionUNet

__all__ = [
    "ICM",
    "RND",
    "ActionCode",
    "ActionUNet",
    "CountBonus",
    "DensityBonus",
    "EnsembleDisagreement",
    "FeatureDiagnostics",
    "FeatureSpace",
    "ForwardDynamics",
    "IntrinsicMixer",
    "IntrinsicReward",
    "InverseDynamicsFeatures",
    "KNNBonus",
    "NoveltyDetector",
    "PixelFeatures",
    "ProbeBatch",
    "RandomFeatures",
    "ResidualDynamics",
    "SimHash",
    "VAEFeatures",
    "bayesian_linear_variance",
    "freeze",
    "last_frame",
    "make_features",
    "make_rnd",
    "two_stream_advantage",
]
