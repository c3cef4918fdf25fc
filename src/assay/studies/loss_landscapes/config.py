"""What the experiments are run with; each experiment gets its own part."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CellsConfig:
    """Batch size x weight decay: one network, trained with small and large batches."""

    source: str = (
        "mnist5k"  # mnist5k (14x14), digits (8x8), hub (CIFAR-10) or a folder with CIFAR-10's binary files
    )
    network: str = "mlp"  # mlp or vgg9
    hidden: tuple[int, ...] = (100, 100, 100)
    train: int = 1_500
    test: int = 3_490
    small: int = 32  # images a batch
    large: int = 750
    rate: float = 0.1
    momentum: float = 0.9
    epochs: int = 100
    decay: float = 2e-3  # in the arms with weight decay
    drops: tuple[float, ...] = (0.5, 0.75, 275 / 300)  # shares of training after which the rate falls tenfold
    augment: bool = False
    eval_batch: int = 5_000
    directions: int = 10
    line_points: int = 21
    interpolation_points: int = 33
    checkpoints: int = 41  # of the path
    path_points: int = 15  # a side of the contour under the path
    path_images: int = 500
    states: str = (
        ""  # folder with small-no-decay.pt, large-no-decay.pt, small-decay.pt, large-decay.pt: no training
    )


@dataclass(frozen=True)
class SkipsConfig:
    """Depth, width and skip connections."""

    source: str = "mnist5k"
    network: str = "mlp"  # mlp (DeepMLP) or resnet (CifarResNet)
    shallow: int = 4
    deep: int = 16
    deepest: int = 32
    width: int = 32
    wider: int = 2  # factor of the arms named wide
    train: int = 1_000
    test: int = 3_990
    batch: int = 50
    rate: float = 0.02
    momentum: float = 0.9
    decay: float = 0.0
    steps: int = 400
    drops: tuple[float, ...] = ()
    augment: bool = False
    eval_batch: int = 5_000
    plot_images: int = 300
    points: int = 15  # a side of the plane
    hessian_points: int = 1  # a side of the map of the full Hessian (1: at the solution only)
    hessian_images: int = 300
    states: str = ""  # folder with plain-deep.pt and so on: no training


@dataclass(frozen=True)
class PicturesConfig:
    """Convolutional networks, for the pictures only."""

    source: str = "mnist5k"
    depth: int = 8
    width: int = 8
    vgg: int = 9
    growth: int = 4
    dense: tuple[int, ...] = (2, 2, 2, 2)
    train: int = 1_000
    test: int = 3_990
    batch: int = 50
    rate: float = 0.05
    momentum: float = 0.9
    decay: float = 0.0
    steps: int = 300
    drops: tuple[float, ...] = ()
    augment: bool = False
    eval_batch: int = 500
    plot_images: int = 200
    points: int = 13
    states: str = ""  # folder with resnet.pt, plain.pt, ...: no training


@dataclass(frozen=True)
class RescaleConfig:
    """One function under several parameters."""

    source: str = "mnist5k"
    hidden: tuple[int, ...] = (100, 100, 100)
    train: int = 1_000
    test: int = 3_990
    batch: int = 50
    rate: float = 0.05
    momentum: float = 0.9
    steps: int = 400
    factors: tuple[float, ...] = (0.1, 10.0)
    points: int = 21


@dataclass(frozen=True)
class Config:
    """Laptop values."""

    cells: CellsConfig = field(default_factory=CellsConfig)
    skips: SkipsConfig = field(default_factory=SkipsConfig)
    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    rescale: RescaleConfig = field(default_factory=RescaleConfig)
