"""Laptop values; every experiment takes its own part."""

from dataclasses import dataclass, field


def geometric(middle: float, factor: float, below: int, above: int) -> tuple[float, ...]:
    """Values `factor` apart around `middle`."""
    return tuple(middle * factor**k for k in range(-below, above + 1))


@dataclass(frozen=True)
class Data:
    source: str = "mnist5k"  # mnist5k or digits
    train: int = 1000
    noise: float = 0.2  # share of the training labels redrawn uniformly


@dataclass(frozen=True)
class GridConfig:
    """Error over (learning rate x decay), one grid an optimiser and network."""

    data: Data = field(default_factory=Data)
    hidden: tuple[int, ...] = (64, 64)
    batch: int = 50
    steps: int = 600
    norm_steps: int = 600  # with batch normalisation
    sgd_rates: tuple[float, ...] = geometric(0.024, 4, 2, 2)
    adam_rates: tuple[float, ...] = geometric(2.4e-3, 4, 2, 2)
    norm_sgd_rates: tuple[float, ...] = geometric(0.096, 4, 2, 2)
    norm_adam_rates: tuple[float, ...] = geometric(4.8e-3, 4, 2, 2)
    decays: int = 8
    factor: float = 2.5  # between decays
    widenings: int = 3  # rows or columns added, at most, where the best cell lies at the edge
    # The fifth of the eight decays: for plain networks by optimiser, then with batch normalisation.
    l2_sgd: float = 8e-3
    sgdw: float = 5e-3
    l2_adam: float = 8e-3
    adamw: float = 5e-3
    adamw_scaled: float = 0.6
    norm_l2_sgd: float = 0.8
    norm_sgdw: float = 0.05
    norm_l2_adam: float = 0.2
    norm_adamw: float = 0.02
    norm_adamw_scaled: float = 6.0


@dataclass(frozen=True)
class ShrinkConfig:
    """How much decay shrinks each weight, by the size of its gradients."""

    data: Data = field(default_factory=Data)
    hidden: tuple[int, ...] = (64, 64)
    batch: int = 50
    steps: int = 600
    rate: float = 1.2e-3
    l2: float = 0.01
    decay: float = 1e-3
    groups: int = 20


@dataclass(frozen=True)
class BudgetConfig:
    """The best decay, raw and normalised, of short and long runs."""

    data: Data = field(default_factory=Data)
    hidden: tuple[int, ...] = (64, 64)
    batch: int = 50
    budgets: tuple[int, ...] = (100, 400, 1600)
    rate: float = 4.8e-3
    decays: tuple[float, ...] = geometric(0.03, 2, 6, 4)


@dataclass(frozen=True)
class ScheduleConfig:
    """Constant, step-drop, cosine, and cosine with warm restarts."""

    data: Data = field(default_factory=Data)
    hidden: tuple[int, ...] = (64, 64)
    batch: int = 50
    steps: int = 700  # three periods of 100, 200 and 400
    first_period: int = 100
    adam_rate: float = 4.8e-3
    sgd_rate: float = 0.048
    adam_decays: tuple[float, ...] = (1e-3, 2.5e-3, 6e-3)
    sgd_decays: tuple[float, ...] = (1e-3, 2.5e-3, 6e-3)


@dataclass(frozen=True)
class TextConfig:
    """Character model: one GRU layer on Bible verses."""

    books: str = "new"
    characters: int = 0  # only so many; 0: all
    hidden: int = 64
    embedding: int = 32
    batch: int = 32
    window: int = 64
    steps: int = 300
    rates: tuple[float, ...] = (2.5e-3, 1e-2, 4e-2)
    l2: tuple[float, ...] = (1e-6, 1e-5, 1e-4)
    decays: tuple[float, ...] = (1e-5, 1e-4, 1e-3)
    eval_windows: int = 200


@dataclass(frozen=True)
class PaperConfig:
    """Shake-shake networks on CIFAR-10 or 32x32 ImageNet."""

    source: str = "hub"  # CIFAR-10: "hub" or a folder of the binary version
    imagenet32: str = ""  # a folder with the npz batches of the 32x32 ImageNet
    width: int = 16
    epochs: int = 2
    batch: int = 128
    sgd_rates: tuple[float, ...] = (0.05,)
    adam_rates: tuple[float, ...] = (1e-3,)
    decays: tuple[float, ...] = (0.025,)  # normalised (Appendix B)
    limit: int = 0  # train on so many images only; 0: all


@dataclass(frozen=True)
class Config:
    grid: GridConfig = field(default_factory=GridConfig)
    shrink: ShrinkConfig = field(default_factory=ShrinkConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    text: TextConfig = field(default_factory=TextConfig)
    paper: PaperConfig = field(default_factory=PaperConfig)
