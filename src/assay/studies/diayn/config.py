"""Sizes of the experiments; the values are the laptop's."""

from dataclasses import dataclass, field

from assay.studies.diayn.learn import SkillConfig


@dataclass(frozen=True)
class SubsetConfig:
    """Momentum: pushes instead of moves, so that an episode is longer."""

    skills: SkillConfig = field(
        default_factory=lambda: SkillConfig(steps=60, updates=40, skills=16, evaluations=1)
    )


@dataclass(frozen=True)
class CornerConfig:
    """Three corners in order; skills are learnt first, once a seed."""

    skills: SkillConfig = field(default_factory=SkillConfig)
    hold: int = 10  # steps for which the meta-controller's choice stands
    horizon: int = 120
    copies: int = 128
    env_steps: int = 400_000
    rate: float = 2e-3
    entropy: float = 0.01
    gamma: float = 0.99
    tune_steps: int = 80_000
    tune_horizon: int = 60


@dataclass(frozen=True)
class CarConfig:
    """Mountain car with three forces; each decision lasts four steps of the world."""

    skills: SkillConfig = field(
        default_factory=lambda: SkillConfig(
            skills=8, steps=200, updates=25, entropy=0.02, fresh_copies=256, evaluations=1
        )
    )
    skip: int = 4


@dataclass(frozen=True)
class SoftConfig:
    """Soft actor-critic on a point with continuous moves; the world may be a MuJoCo id instead (paper profile)."""

    world: str = "box"
    skills: int = 8
    copies: int = 16
    steps: int = 30  # of an episode
    env_steps: int = 40_000
    warmup: int = 1_000  # of uniform actions
    updates_per_step: float = 0.0625
    hidden: tuple[int, ...] = (64, 64)
    rate: float = 2e-3
    alpha: float = 0.1  # weight of the policy's entropy
    gamma: float = 0.99
    tau: float = 0.01
    batch: int = 128
    capacity: int = 1_000_000
    move: float = 0.1
    fresh_copies: int = 256  # trajectories of the evaluation
    fresh_steps: int = 400  # training steps of its fresh discriminator
    evaluations: int = 3

    def measuring(self) -> SkillConfig:
        """What the shared evaluation reads."""
        return SkillConfig(
            skills=self.skills, steps=self.steps, fresh_copies=self.fresh_copies, fresh_steps=self.fresh_steps
        )


@dataclass(frozen=True)
class Config:
    """One part an experiment."""

    skills: SkillConfig = field(default_factory=SkillConfig)
    corner: CornerConfig = field(default_factory=CornerConfig)
    car: CarConfig = field(default_factory=CarConfig)
    subset: SubsetConfig = field(default_factory=SubsetConfig)
    soft: SoftConfig = field(default_factory=SoftConfig)
