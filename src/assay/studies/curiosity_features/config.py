"""What can be set; the values are the laptop's."""

from dataclasses import dataclass, field, replace

from assay.studies.curiosity_features.real import RealConfig


@dataclass(frozen=True)
class Agent:
    """Policy, feature space, forward model and learner; the same in all worlds of the laptop."""

    copies: int = 64
    steps: int = 64
    hidden: int = 64
    features: int = 64
    latent: int = 16
    """Of the autoencoder."""
    blocks: int = 1
    """Residual blocks of the forward model."""
    warmup: int = 160
    """Random steps of every copy for the statistics of observations: 10,000 in all."""
    rate: float = 1e-3
    clip: float | None = 0.1
    """None: the plain policy gradient in one pass (no PPO)."""
    epochs: int = 3
    minibatches: int = 4
    entropy: float = 0.005
    gamma: float = 0.99
    lam: float = 0.95
    reward_norm: bool = True
    advantage_norm: bool = True
    obs_norm: bool = True
    feature_norm: bool = False
    """Features are standardised by running statistics, as batch normalisation at the embedding's end does."""


@dataclass(frozen=True)
class GameConfig:
    """A world, and how long it is explored."""

    updates: int = 20
    limit: int = 200
    """Steps after which an episode is cut off."""
    level: int = 14
    """Of the side-scroller: the one on which random actions get as far as in the protocol's trial run."""
    width: int = 120
    """Columns of a level."""
    rooms: int = 3
    bits: int = 16
    """Of a television's picture."""
    pictures: int = 10
    """Of a television with fixed pictures."""
    moments: int = 6
    """How often the features are examined."""
    agent: Agent = field(default_factory=Agent)


@dataclass(frozen=True)
class TransferConfig:
    """Some levels first, then another."""

    updates: int = 24
    more: int = 12
    """Updates on the new level: a fifth of what a level gets elsewhere."""
    first: tuple[int, ...] = (14, 7)
    then: tuple[int, ...] = (9,)
    game: GameConfig = field(default_factory=GameConfig)


@dataclass(frozen=True)
class LeakConfig:
    """A constant reward for being alive."""

    reward: float = 0.1
    game: GameConfig = field(default_factory=lambda: GameConfig(updates=40, limit=300))


@dataclass(frozen=True)
class Config:
    """One part an experiment."""

    scroller: GameConfig = field(default_factory=lambda: GameConfig(updates=60))
    rooms: GameConfig = field(default_factory=lambda: GameConfig(updates=28, limit=150))
    tv: GameConfig = field(default_factory=lambda: GameConfig(updates=60, limit=150))
    breakout: GameConfig = field(default_factory=lambda: GameConfig(limit=500))
    pong: GameConfig = field(default_factory=lambda: GameConfig(limit=500))
    maze: GameConfig = field(default_factory=GameConfig)
    car: GameConfig = field(default_factory=lambda: GameConfig(updates=20, limit=100))
    transfer: TransferConfig = field(default_factory=TransferConfig)
    leak: LeakConfig = field(default_factory=LeakConfig)
    real: RealConfig = field(default_factory=RealConfig)


def variant(config: GameConfig, name: str) -> tuple[GameConfig, dict[str, object]]:
    """The config with one thing changed, and what changes in the world.

    Names: "" (nothing); "done"; textures of the side-scroller; "image"; "d8" and other widths; and the measures of
    stability that are left out or put in.
    """
    agent = config.agent
    if name in ("constant", "fading", "scrambled"):
        return config, {"texture": name}
    if name in ("done", "image", "novel-start"):
        return config, {name.replace("-", "_"): True}
    if name.startswith("d") and name[1:].isdigit():
        return replace(config, agent=replace(agent, features=int(name[1:]))), {}
    if name == "few-actors":
        # As many steps in all.
        few = max(agent.copies // 8, 1)
        updates = config.updates * agent.copies // few
        return replace(config, updates=updates, agent=replace(agent, copies=few)), {}
    changes: dict[str, dict[str, object]] = {
        "": {},
        "no-reward-norm": {"reward_norm": False},
        "no-advantage-norm": {"advantage_norm": False},
        "no-obs-norm": {"obs_norm": False},
        "no-ppo": {"clip": None},
        "feature-norm": {"feature_norm": True},
    }
    if name not in changes:
        raise ValueError(f"unknown variant {name!r}: choose from {', '.join(changes)}")
    return replace(config, agent=replace(agent, **changes[name])), {}  # type: ignore[arg-type]
