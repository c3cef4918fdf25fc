"""Generative models, losses and samplers."""

from assay.generate.adversarial import (
    AdversarialLosses,
    AdversarialTrainer,
    discriminator_loss,
    discriminator_step,
    frozen,
    generator_loss,
    generator_step,
)
from assay.generate.gibbs import (
    AncestralSampler,
    AnnealedErase,
    GibbsSampler,
    IndependentSampler,
    TemporalUpsampler,
)
from assay.generate.orderless import (
    ConditionalModel,
    OrderlessMask,
    cell_nll,
    cell_order,
    ensemble_nll,
    frame_nll,
    note_nll,
    orderless_nll,
    sample_categorical,
)

__all__ = [
    "AdversarialLosses",
    "AdversarialTrainer",
    "AncestralSampler",
    "AnnealedErase",
    "ConditionalModel",
    "GibbsSampler",
    "IndependentSampler",
    "OrderlessMask",
    "TemporalUpsampler",
    "cell_nll",
    "cell_order",
    "discriminator_loss",
    "discriminator_step",
    "ensemble_nll",
    "frame_nll",
    "frozen",
    "generator_loss",
    "generator_step",
    "note_nll",
    "orderless_nll",
    "sample_categorical",
]
