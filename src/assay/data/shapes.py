"""Generated scenes of simple shapes whose positions are known exactly."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.utils.data import Dataset

Split = Literal["uniform", "quadrant"]


class NotSoClevr(Dataset[dict[str, Tensor]]):
    """A square at every position where it is fully visible (Liu et al. 2018, arXiv 1807.03247, section 3 and
    fig. 2).

    One item a position: the centre (x, y) in pixels, the canvas with only the centre pixel lit, and the
    canvas with the square. A 9x9 square on a 64x64 canvas has 56 x 56 = 3,136 positions. Generated, so free
    of any licence.

    Args:
        canvas: side of the canvas, pixels.
        radius: the square is `2 * radius + 1` wide.
        split: "uniform" (a random quarter of the positions is the test set) or "quadrant" (the test set is
            the quadrant at the bottom right: all its columns and all its rows are seen in training, but never
            together).
        seed: of the uniform split.
        strict: how the quadrant begins. False: at the middle, `x >= canvas / 2` and `y >= canvas / 2`: a
            quarter of the positions (784 of 3,136). True: the rule of the released code, `>`: 729.
        test_items: test positions of the uniform split; default a quarter (784), the release takes 768.

    Attributes:
        xy: `[n, 2]` float32 centres in pixels, column then row.
        onehot: `[n, 1, canvas, canvas]` float32, one pixel lit.
        image: `[n, 1, canvas, canvas]` float32, the square lit.
        target: `[n]` int64, the lit pixel as `row * canvas + column`.
        train, test: int64 indices of the two parts.

    >>> data = NotSoClevr(canvas=32, split="quadrant")
    >>> len(data), len(data.train), len(data.test)
    (576, 432, 144)
    """

    def __init__(
        self,
        canvas: int = 64,
        radius: int = 4,
        split: Split = "uniform",
        seed: int = 0,
        strict: bool = False,
        test_items: int | None = None,
    ):
        if radius < 0 or canvas < 2 * radius + 2:
            raise ValueError(
                f"a square of {2 * radius + 1} pixels needs a canvas of at least {2 * radius + 2}: got "
                f"{canvas}"
            )
        if split not in ("uniform", "quadrant"):
            raise ValueError(f'split must be "uniform" or "quadrant": got {split!r}')
        self.canvas, self.radius, self.split = canvas, radius, split
        centres = torch.arange(radius, canvas - radius)
        self.xy: Tensor = torch.cartesian_prod(centres, centres).flip(1).float()  # x runs fastest
        n = len(self.xy)
        if split == "uniform":
            tests = n // 4 if test_items is None else test_items
            if not 0 < tests < n:
                raise ValueError(f"test_items must leave both parts something of {n}: got {tests}")
            order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
            self.test, self.train = order[:tests].sort().values, order[tests:].sort().values
        else:
            middle = canvas / 2
            held_out = (self.xy > middle if strict else self.xy >= middle).all(1)
            if not held_out.any():
                raise ValueError(
                    f"no centre lies in the quadrant: canvas {canvas} is too small for radius {radius}"
                )
            self.test, self.train = held_out.nonzero()[:, 0], (~held_out).nonzero()[:, 0]

    @cached_property
    def target(self) -> Int64[Tensor, " n"]:
        """Index of the centre pixel, `row * canvas + column`."""
        return (self.xy[:, 1] * self.canvas + self.xy[:, 0]).long()

    @cached_property
    def onehot(self) -> Float[Tensor, "n 1 canvas canvas"]:
        """Canvases with only the centre pixel lit."""
        flat = torch.zeros(len(self), self.canvas**2)
        return flat.scatter_(1, self.target[:, None], 1.0).unflatten(1, (1, self.canvas, self.canvas))

    @cached_property
    def image(self) -> Float[Tensor, "n 1 canvas canvas"]:
        """Canvases with the whole square lit."""
        pixels = torch.arange(self.canvas)
        columns, rows = ((pixels - self.xy[:, axis, None]).abs() <= self.radius for axis in (0, 1))
        return (rows[:, None, :, None] & columns[:, None, None, :]).float()

    def __len__(self) -> int:
        return len(self.xy)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"xy": self.xy[index], "onehot": self.onehot[index], "image": self.image[index]}


@dataclass(frozen=True)
class Scenes:
    """Images of several objects, with what they show."""

    images: Float[Tensor, "n 3 canvas canvas"]
    """RGB in 0..1, black ground."""
    xy: Float[Tensor, "n objects 2"]
    """Centres (column, row) in pixels; object k always has colour k."""
    square: Bool[Tensor, "n objects"]
    """Square, else disc."""
    colours: Float[Tensor, "objects 3"]
    """RGB of each object."""


_COLOURS = torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [0, 1.0, 0], [1.0, 1.0, 0], [1.0, 0, 1.0], [0, 1.0, 1.0]])


def sort_of_clevr(
    n: int,
    objects: int = 2,
    canvas: int = 64,
    radius: int = 5,
    generator: torch.Generator | None = None,
) -> Scenes:
    """Scenes of coloured squares and discs, all fully visible, none touching another (Sort-of-Clevr).

    The training data of the generative experiments of Liu et al. 2018 (section 5.2: 50,000 scenes of two
    objects, one red and one blue). Places are uniform among the layouts in which no two objects overlap.

    Args:
        n: scenes.
        objects: objects a scene, 1 to 6; object k has colour k of red, blue, green, yellow, magenta, cyan.
        canvas: side of the canvas, pixels.
        radius: of the discs; squares are `2 * radius + 1` wide.
        generator: the source of randomness.

    Raises:
        ValueError: more objects than colours, or so many or so large that they hardly fit.
    """
    if not 1 <= objects <= len(_COLOURS):
        raise ValueError(f"objects must be 1 to {len(_COLOURS)} (one a colour): got {objects}")
    low, high = radius, canvas - radius - 1
    # Centres this far apart fill at most a third of the canvas, so that rejection ends soon.
    if high < low or (objects > 1 and objects * (2 * radius + 2) ** 2 > canvas**2 / 3):
        raise ValueError(
            f"{objects} objects of radius {radius} do not fit a canvas of {canvas} without touching"
        )
    xy = torch.empty(n, objects, 2, dtype=torch.int64)
    todo = torch.arange(n)
    while len(todo):
        drawn = torch.randint(low, high + 1, (len(todo), objects, 2), generator=generator)
        apart = (drawn[:, :, None] - drawn[:, None]).abs().amax(-1)  # [scenes, objects, objects]
        apart.diagonal(dim1=1, dim2=2).fill_(canvas)
        good = (apart > 2 * radius + 1).flatten(1).all(1)
        xy[todo[good]] = drawn[good]
        todo = todo[~good]
    square = torch.rand(n, objects, generator=generator) < 0.5
    pixels = torch.arange(canvas)
    dx = pixels - xy[..., 0, None]  # [n, objects, canvas]
    dy = pixels - xy[..., 1, None]
    box = (dy.abs() <= radius)[..., :, None] & (dx.abs() <= radius)[..., None, :]
    disc = dy.square()[..., :, None] + dx.square()[..., None, :] <= radius**2
    shape = torch.where(square[..., None, None], box, disc).float()  # [n, objects, canvas, canvas]
    colours = _COLOURS[:objects]
    return Scenes(torch.einsum("nohw,oc->nchw", shape, colours), xy.float(), square, colours)
