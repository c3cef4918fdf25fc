"""Generative models, losses and samplers."""
