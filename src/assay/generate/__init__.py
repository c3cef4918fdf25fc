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
    each_frame_nll,
    ensemble_nll,
    frame_nll,
    mix_orders,
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
    "each_frame_nll",
    "ensemble_nll",
    "frame_nll",
    "frozen",
    "generator_loss",
    "generator_step",
    "mix_orders",
    "note_nll",
    "orderless_nll",
    "sample_categorical",
]
