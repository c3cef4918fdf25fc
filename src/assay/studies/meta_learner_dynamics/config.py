"""Laptop values of every experiment; larger ones stand in the study's `paper` profile."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LinearMetaConfig:
    """The meta-learner of linear maps."""

    size: int = 3
    """Inputs and outputs."""
    spectrum: tuple[float, ...] = (3.0, 1.5, 0.75)
    """Singular values of the evaluation tasks, within the central 95 % of the prior's."""
    steps: int = 5_000
    """Outer steps."""
    small_spectrum: tuple[float, ...] = (2.0, 0.4)
    """The 2x2 variant."""
    small_steps: int = 1_800
    sigma: float = 0.1
    horizon: int = 20
    hidden: int = 64
    batch: int = 64
    """Tasks per outer step."""
    rate: float = 1e-2
    tasks: int = 300
    """Evaluation tasks."""
    stage_tasks: int = 100
    """Evaluation tasks at each stage of outer training."""
    probes: int = 24
    stages: tuple[float, ...] = (0.02, 0.05, 0.1, 0.3, 1.0)
    """Shares of the outer training at which the inner curves are looked at."""
    scale: float = 4.0
    """Out of the prior: targets are so many times larger."""


@dataclass(frozen=True)
class LinearLearnerConfig:
    """Gradient descent on one linear map, from scratch."""

    size: int = 3
    spectrum: tuple[float, ...] = (3.0, 1.5, 0.75)
    sigma: float = 0.1
    tasks: int = 32
    """Tasks a seed, each learned by its own network."""
    hidden: int = 16
    start: float = 1e-3
    """Strength s0 of the first map: entries of both layers have variance s0 / hidden."""
    batch: int = 32
    """Fresh examples a step."""
    steps: int = 1_600
    rate: float = 0.01
    """SGD, of the two-layer and of the shallow map."""
    momentum_rate: float = 0.001
    adaptive_rate: float = 0.002
    """Adam and RMSProp."""
    horizon: int = 20
    """Aligned in samples with the meta-learner's episode."""
    aligned_tasks: int = 128
    aligned_steps: int = 400
    aligned_rates: tuple[float, ...] = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
    """Tried for one example a step; the best one in hindsight counts."""


@dataclass(frozen=True)
class FourierMetaConfig:
    """The meta-learner of Fourier series."""

    k: int = 3
    sigma: float = 0.1
    horizon: int = 24
    hidden: int = 64
    readout: int = 32
    steps: int = 4_500
    batch: int = 64
    rate: float = 1e-2
    tasks: int = 300
    stage_tasks: int = 100
    grid: int = 64
    stages: tuple[float, ...] = (0.02, 0.05, 0.1, 0.3, 1.0)


@dataclass(frozen=True)
class FourierLearnerConfig:
    """A ReLU network trained on one function."""

    k: int = 3
    sigma: float = 0.1
    functions: int = 16
    """Functions a seed, each learned by its own network."""
    hidden: tuple[int, ...] = (64, 64)
    batch: int = 64
    steps: int = 2_000
    rate: float = 0.02
    """SGD."""
    adam_rate: float = 5e-4
    grid: int = 64
    every: int = 10
    """Steps between two probes."""


@dataclass(frozen=True)
class BanditMetaConfig:
    """The meta-learner of contextual bandits."""

    contexts: int = 3
    actions: int = 3
    horizon: int = 30
    hidden: int = 48
    updates: int = 1_200
    copies: int = 128
    rate: float = 2e-2
    gamma: float = 0.0
    """In this bandit to try what is likeliest now is optimal, so nothing is gained by looking ahead."""
    entropy: float = 0.2
    tasks: int = 2_000
    stage_tasks: int = 500
    stages: tuple[float, ...] = (0.02, 0.05, 0.1, 0.3, 1.0)
    visits: int = 8


@dataclass(frozen=True)
class BanditLearnerConfig:
    """Policy gradients on one bandit, from scratch."""

    contexts: int = 3
    actions: int = 3
    large: int = 5
    """The paper's number of contexts and actions, reported beside."""
    tasks: int = 256
    start: float = 0.01
    """Standard deviation of the first logits."""
    rate: float = 0.2
    steps: int = 200
    sampled: int = 32
    """Steps of play per update of the sampled learner."""


@dataclass(frozen=True)
class Config:
    """All experiments."""

    linear: LinearMetaConfig = LinearMetaConfig()
    learner: LinearLearnerConfig = LinearLearnerConfig()
    fourier: FourierMetaConfig = FourierMetaConfig()
    network: FourierLearnerConfig = FourierLearnerConfig()
    bandit: BanditMetaConfig = BanditMetaConfig()
    policy: BanditLearnerConfig = BanditLearnerConfig()
