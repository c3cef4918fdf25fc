"""Layers and networks."""

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
from assay.nn.painters import ConvRegressor, CoordPainter, CoordRegressor, DeconvPainter, scale_positions
from assay.nn.pianoroll import Coconet

__all__ = [
    "AddCoords",
    "Coconet",
    "ConvRegressor",
    "CoordConv1d",
    "CoordConv2d",
    "CoordConv3d",
    "CoordConvTranspose2d",
    "CoordPainter",
    "CoordRegressor",
    "DeconvPainter",
    "EnsembleBatchNorm",
    "EnsembleConv2d",
    "EnsembleEmbedding",
    "EnsembleGRU",
    "EnsembleLinear",
    "EnsembleMLP",
    "add_coords",
    "coordconvert",
    "coordinates",
    "ensemble_cross_entropy",
    "ensemble_error",
    "scale_positions",
]
