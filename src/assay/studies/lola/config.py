"""Laptop values of every experiment; those of the paper stand in the study's `paper` profile."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ExactConfig:
    """Learning on closed-form values."""

    steps: int = 200
    rate: float = 1.0
    """Step size of both players."""
    look_ahead: float = 1.0
    """Step that each player believes the other to take (the paper's eta)."""
    log_every: int = 10
    payoff_noise: float = 0.3
    """Knowledge ladder: standard deviation of the error on each of the opponent's payoffs."""
    episode: int = 150
    """Knowledge ladder: steps of one observed episode."""
    plays: int = 50
    """Knowledge ladder, Q-learner as opponent: steps played between two updates."""


@dataclass(frozen=True)
class ToyConfig:
    """Two games of two numbers."""

    bilinear_steps: int = 150
    bilinear_rate: float = 0.1
    bilinear_look_ahead: float = 1.0
    tandem_steps: int = 150
    tandem_rate: float = 0.1
    tandem_look_ahead: float = 0.1


@dataclass(frozen=True)
class RolloutConfig:
    """Learning from sampled play."""

    updates: int = 150
    rollouts: int = 256
    """Per update and pair; below 128 the cross term drowns in noise."""
    horizon: int = 150
    rate: float = 1.0
    look_ahead: float = 1.0
    log_every: int = 5


@dataclass(frozen=True)
class DiceConfig:
    """LOLA with the DiCE estimator and one or two simulated opponent steps."""

    updates: int = 80
    rollouts: int = 128
    horizon: int = 100
    rate: float = 1.0
    look_ahead: float = 1.0
    log_every: int = 5


@dataclass(frozen=True)
class TournamentConfig:
    """Round robin of all learners."""

    rounds: int = 200
    """Gradient players take one step a round."""
    plays: int = 40
    """Steps that tabular learners play (and learn from) in each round."""
    rate: float = 1.0
    look_ahead: float = 1.0
    q_rate: float = 0.1
    explore: float = 0.05
    policy_step: float = 0.01
    losing_step: float = 0.04


@dataclass(frozen=True)
class CoinConfig:
    """The coin game."""

    policy: str = "mlp"
    """"mlp", "conv" or "conv-lstm" (the paper's)."""
    updates: int = 200
    copies: int = 512
    horizon: int = 32
    rate: float = 0.02
    look_ahead: float = 0.4
    gamma: float = 0.96
    adam: bool = True
    fit_first: int = 50
    """Opponent modelling: gradient steps on the first batch, and then on each."""
    fit_later: int = 1
    fit_rate: float = 0.1
    log_every: int = 5


@dataclass(frozen=True)
class RingConfig:
    """Eight Gaussians on a ring."""

    steps: int = 1_000
    batch: int = 128
    hidden: int = 64
    noise: int = 8
    rate: float = 1e-3
    look_ahead: float = 0.1
    unrolled: int = 3
    samples: int = 1_000


@dataclass(frozen=True)
class Config:
    """All experiments."""

    exact: ExactConfig = ExactConfig()
    toy: ToyConfig = ToyConfig()
    rollout: RolloutConfig = RolloutConfig()
    dice: DiceConfig = DiceConfig()
    tournament: TournamentConfig = TournamentConfig()
    coin: CoinConfig = CoinConfig()
    ring: RingConfig = RingConfig()
