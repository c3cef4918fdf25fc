"""Sizes of the study; the values are the laptop's."""

from dataclasses import dataclass, field

from assay.studies.episodic_curiosity.real import RealConfig
from assay.studies.episodic_curiosity.worlds import ReachConfig, WorldConfig


@dataclass(frozen=True)
class LearnConfig:
    """PPO, its two value heads, and the bonuses."""

    copies: int = 64
    steps: int = 64
    updates: int = 36
    hidden: tuple[int, ...] = (64, 64)
    rate: float = 1e-3
    entropy: float = 0.005
    epochs: int = 4
    minibatches: int = 4
    gamma: float = 0.99
    lam: float = 0.95
    extrinsic_weight: float = 2.0
    intrinsic_weight: float = 1.0
    memory: int = 100
    beta: float = 0.5
    icm_size: int = 32
    history: int = 32_768  # ECO: steps kept, steps between lessons, gradient steps of one
    interval: int = 16_384
    lesson: int = 500


@dataclass(frozen=True)
class Small:
    """The laptop's worlds: one part for all, so that arms differ in nothing else."""

    world: WorldConfig = field(default_factory=WorldConfig)
    reach: ReachConfig = field(default_factory=ReachConfig)
    learn: LearnConfig = field(default_factory=LearnConfig)


@dataclass(frozen=True)
class Config:
    """The nine rooms, and the real world of the paper profile."""

    rooms: Small = field(default_factory=Small)
    real: RealConfig = field(default_factory=RealConfig)


LAPTOP = (
    "rnet/*",
    "dense/*",
    "collect/*",
    "sparse/*",
    "doors/*",
    "very_sparse/*",
    "none/*",
    "tv-*",
    "walls/*",
)

PROFILES = {
    "laptop": {"arms": (*LAPTOP, "ablate/*")},
    "smoke": {
        "seeds": 1,
        "arms": LAPTOP,
        "rooms.world.rooms": 2,
        "rooms.world.room_size": 3,
        "rooms.world.horizon": 40,
        "rooms.reach.copies": 8,
        "rooms.reach.steps": 40,
        "rooms.reach.fits": 20,
        "rooms.learn.copies": 8,
        "rooms.learn.steps": 20,
        "rooms.learn.updates": 2,
        "rooms.learn.hidden": (16,),
        "rooms.learn.memory": 20,
        "rooms.learn.history": 320,
        "rooms.learn.interval": 160,
        "rooms.learn.lesson": 3,
    },
    "demo": {
        "seeds": 2,
        "arms": ("none/ppo", "none/ec", "none/icm", "rnet/*"),
        "rooms.learn.updates": 30,
        "rooms.reach.fits": 1_500,
    },
    "paper": {
        "arms": ("real/*",),
        "real.enabled": True,
    },
}
