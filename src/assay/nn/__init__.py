"""Layers and networks."""

from assay.nn.cifar import VGG, CifarResNet, DenseNet
from assay.nn.coords import (
    AddCoords,
    CoordConv1d,
    CoordConv2d,
    CoordConv3d,
    CoordConvTranspose2d,
    add_coords,
    coordconvert,
    coordinates,
)
from assay.nn.ensemble import (
    EnsembleBatchNorm,
    EnsembleConv2d,
    EnsembleEmbedding,
    EnsembleGRU,
    EnsembleLinear,
    EnsembleMLP,
    ensemble_cross_entropy,
    ensemble_error,
)
from assay.nn.lottery import glorot_normal_, lottery_conv, lottery_mlp, lottery_rates
from assay.nn.painters import ConvRegressor, CoordPainter, CoordRegressor, DeconvPainter, scale_positions
from assay.nn.pianoroll import Coconet
from assay.nn.residual import DeepMLP
from assay.nn.shakeshake import ShakeShake26
from assay.nn.stacked import Stacked, StackedLSTM, clip_replica_grad_norm_, stack_seeds
from assay.nn.supermask import SupermaskConv2d, SupermaskLinear, sample_mask, supermaskify

__all__ = [
    "VGG",
    "AddCoords",
    "CifarResNet",
    "Coconet",
    "ConvRegressor",
    "CoordConv1d",
    "CoordConv2d",
    "CoordConv3d",
    "CoordConvTranspose2d",
    "CoordPainter",
    "CoordRegressor",
    "DeconvPainter",
    "DeepMLP",
    "DenseNet",
    "EnsembleBatchNorm",
    "EnsembleConv2d",
    "EnsembleEmbedding",
    "EnsembleGRU",
    "EnsembleLinear",
    "EnsembleMLP",
    "ShakeShake26",
    "Stacked",
    "StackedLSTM",
    "SupermaskConv2d",
    "SupermaskLinear",
    "add_coords",
    "clip_replica_grad_norm_",
    "coordconvert",
    "coordinates",
    "ensemble_cross_entropy",
    "ensemble_error",
    "glorot_normal_",
    "lottery_conv",
    "lottery_mlp",
    "lottery_rates",
    "sample_mask",
    "scale_positions",
    "stack_seeds",
    "supermaskify",
]
