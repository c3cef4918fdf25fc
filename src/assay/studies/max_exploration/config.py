"""What can be set; the values are the laptop's."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ChainConfig:
    """One chain experiment: the world, the models that plan, and the learners that do not."""

    length: int = 30
    episodes: int = 60
    share_at: int = 15
    """The explored share is read after so many episodes."""
    warmup: int = 3
    """Episodes of random actions at the beginning, the same in all arms."""
    members: int = 10
    hidden: tuple[int, ...] = (64, 64)
    rate: float = 1e-2
    fit_steps: int = 40
    refit_every: int = 10
    bootstrap: str = "none"
    alpha: float = 0.1
    """Total prior count of a pair's successors, of the Dirichlet posterior."""
    planner: str = "exact"
    """Of arms that plan: "exact" dynamic programming, "mcts", "cem" or "shooting"."""
    simulations: int = 100
    """Of a plan by tree search; the samplers try as many sequences."""
    q_hidden: tuple[int, ...] = (32, 32)
    q_rate: float = 5e-3
    q_batch: int = 64
    q_sync: int = 100
    gamma: float = 0.99
    epsilon: float = 0.2
    heads: int = 10
    beta: float = 0.1
    """Count bonus of EB-DQN."""
    bonus_scale: float = 0.3
    """Weight of learned bonuses (disagreement, prediction error, RND), which are the only reward there."""
    bonus_rate: float = 1e-2
    """Adam's rate of the predictors of ICM and RND."""


@dataclass(frozen=True)
class UtilityConfig:
    """Utility of noisy pairs against the number of visits."""

    length: int = 25
    visits: tuple[int, ...] = (0, 1, 3, 10, 30)
    members: int = 10
    hidden: tuple[int, ...] = (64, 64)
    rate: float = 1e-2
    fit_steps: int = 150
    """After 40, as in the chain, members that saw all pairs at once are not yet done with learning the noise."""
    alpha: float = 0.1


@dataclass(frozen=True)
class ControlConfig:
    """Explore without a task, then be given one: mountain car and maze."""

    steps: int = 800
    warmup: int = 60
    refit_every: int = 100
    fit_steps: int = 200
    batch: int = 128
    rate: float = 2e-3
    members: int = 5
    hidden: tuple[int, ...] = (64, 64)
    candidates: int = 64
    horizon: int = 20
    iterations: int = 3
    replan_every: int = 5
    min_logvar: float = -10.0
    max_logvar: float = -2.0
    final_steps: int = 800
    grid: int = 48
    """Cells along each axis of the state on which the task is solved in the model."""
    sweeps: int = 200
    tasks: int = 20
    """Starts from which the solved task is tried."""
    task_epsilon: float = 0.1
    """Share of random actions while the task is tried, in all arms."""
    car_repeat: int = 4
    car_limit: int = 60
    """Decisions an episode (of `car_repeat` physical steps)."""
    maze: str = "u"
    maze_step: float = 0.15
    maze_limit: int = 100


@dataclass(frozen=True)
class RobotConfig:
    """The paper's robots, with the values of its released code."""

    enabled: bool = False
    """Whether a run is refused at once where a package is missing (the paper profile's arms need them)."""
    env: str = "HalfCheetah-v5"
    steps: int = 20_000
    warmup: int = 256
    refit_every: int = 25
    members: int = 32
    hidden: tuple[int, ...] = (512, 512, 512, 512)
    rate: float = 1e-3
    batch: int = 256
    epochs: int = 50
    final_epochs: int = 200
    clip: float = 5.0
    min_logvar: float = -5.0
    max_logvar: float = -1.0
    decay: float = 0.1
    planner: str = "sac"
    """"sac": a policy by torchrl's SACLoss in imagination; "cem": sampled plans, which needs no torchrl."""
    actors: int = 128
    horizon: int = 50
    plan_iterations: int = 50
    task_horizon: int = 100
    task_iterations: int = 250
    policy_hidden: tuple[int, ...] = (256, 256)
    policy_batch: int = 4096
    policy_rate: float = 1e-3
    gamma: float = 0.99
    tau: float = 0.005
    alpha: float = 0.02
    alpha_variance: float = 0.2
    alpha_task: float = 0.4
    replan_every: int = 25
    candidates: int = 512
    cem_horizon: int = 20
    cem_iterations: int = 3
    eval_every: int = 2_000
    task_episodes: int = 3
    task_steps: int = 100


@dataclass(frozen=True)
class Config:
    """One part an experiment."""

    chain: ChainConfig = field(default_factory=ChainConfig)
    long: ChainConfig = field(default_factory=lambda: ChainConfig(length=50, episodes=20))
    horizon: ChainConfig = field(default_factory=lambda: ChainConfig(episodes=15))
    noise: ChainConfig = field(default_factory=lambda: ChainConfig(length=25, episodes=15))
    length: ChainConfig = field(default_factory=lambda: ChainConfig(episodes=200))
    planners: ChainConfig = field(default_factory=lambda: ChainConfig(length=10, episodes=15, refit_every=10))
    utility: UtilityConfig = field(default_factory=UtilityConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    robot: RobotConfig = field(default_factory=RobotConfig)
    ant: RobotConfig = field(
        default_factory=lambda: RobotConfig(env="AntMaze_UMaze-v5", steps=12_000, eval_every=1_500)
    )
