"""CIFAR-10 and Fashion-MNIST from files of their real formats, and the augmentation."""

import pytest
import torch

from assay._extras import MissingExtra
from assay.data import cifar10, crop_and_flip, fashion_mnist
from tests.fixtures import write_cifar


def test_binary_batches_are_read_plane_by_plane(tmp_path):
    tables = write_cifar(tmp_path)
    splits = cifar10(tmp_path)
    assert [len(part) for part in (splits.train, splits.valid, splits.test)] == [90, 10, 20]
    assert splits.test.images.shape == (20, 3, 32, 32)
    assert splits.test.classes[3] == "cat"
    record = tables["test_batch.bin"][7]
    assert splits.test.labels[7] == record[0]
    # Byte 1 + 1024 c + 32 y + x is colour c at row y, column x.
    assert splits.test.images[7, 2, 5, 11].item() == pytest.approx(record[1 + 2048 + 160 + 11] / 255)
    assert splits.valid.labels.bincount(minlength=10).tolist() == [1] * 10
    again, other = cifar10(tmp_path), cifar10(tmp_path, split_seed=1)
    assert torch.equal(again.valid.images, splits.valid.images)
    assert not torch.equal(other.valid.images, splits.valid.images)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data_batch_1\.bin"):
        cifar10(tmp_path)
    write_cifar(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(b"\x00" * 3000)
    with pytest.raises(ValueError, match=r"test_batch\.bin is cut short"):
        cifar10(tmp_path)
    with pytest.raises(FileNotFoundError, match="IDX"):
        fashion_mnist(tmp_path)


def test_the_hub_without_its_package_names_the_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtra, match="pip install datasets"):
        cifar10("hub")


def test_crops_are_windows_of_the_padded_image_some_mirrored():
    torch.manual_seed(0)
    images = torch.rand(40, 2, 6, 5)
    out = crop_and_flip(images, torch.Generator().manual_seed(1), pad=2)
    assert out.shape == images.shape
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    mirrored = 0
    for image, got in zip(padded, out, strict=True):
        windows = [image[:, i : i + 6, j : j + 5] for i in range(5) for j in range(5)]
        plain = any(torch.equal(got, window) for window in windows)
        flipped = any(torch.equal(got, window.flip(-1)) for window in windows)
        assert plain != flipped
        mirrored += flipped
    assert 10 < mirrored < 30
    same = crop_and_flip(images, torch.Generator().manual_seed(1), pad=2)
    assert torch.equal(out, same)
    kept = crop_and_flip(images, torch.Generator().manual_seed(1), pad=0)
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(-1)) for a, b in zip(kept, images, strict=True))
    with pytest.raises(ValueError, match="pad"):
        crop_and_flip(images, torch.Generator(), pad=-1)
