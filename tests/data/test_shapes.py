"""Generated scenes: counts known in advance, and every picture shows what it says."""

import pytest
import torch

from assay.data.shapes import NotSoClevr, sort_of_clevr


def test_sizes_of_the_paper() -> None:
    data = NotSoClevr()
    assert len(data) == 3_136
    assert (len(data.train), len(data.test)) == (2_352, 784)
    assert len(NotSoClevr(test_items=768).train) == 2_368
    release = NotSoClevr(split="quadrant", strict=True)
    assert (len(release.train), len(release.test)) == (2_407, 729)
    assert len(NotSoClevr(split="quadrant").test) == 784
    small = NotSoClevr(canvas=32, split="quadrant")
    assert (len(small.train), len(small.test)) == (432, 144)


def test_every_picture_shows_its_square() -> None:
    data = NotSoClevr(canvas=20, radius=3)
    assert torch.equal(data.image.sum((1, 2, 3)), torch.full((len(data),), 49.0))
    assert torch.equal(data.onehot.sum((1, 2, 3)), torch.ones(len(data)))
    for name in ("image", "onehot"):
        picture = getattr(data, name)[:, 0]
        weight = picture / picture.sum((1, 2), keepdim=True)
        pixels = torch.arange(20.0)
        assert torch.allclose((weight.sum(1) * pixels).sum(1), data.xy[:, 0], atol=1e-4)  # columns are x
        assert torch.allclose((weight.sum(2) * pixels).sum(1), data.xy[:, 1], atol=1e-4)
    assert torch.equal(data.onehot.flatten(1).argmax(1), data.target)
    assert torch.equal(NotSoClevr().image[0].sum(), torch.tensor(81.0))


@pytest.mark.parametrize("split", ["uniform", "quadrant"])
def test_the_parts_are_disjoint_and_complete(split: str) -> None:
    data = NotSoClevr(canvas=32, split=split, seed=3)
    assert torch.equal(torch.cat([data.train, data.test]).sort().values, torch.arange(len(data)))


def test_the_quadrant_holds_new_pairs_of_known_rows_and_columns() -> None:
    data = NotSoClevr(canvas=32, split="quadrant")
    seen, unseen = data.xy[data.train], data.xy[data.test]
    assert (unseen >= 16).all()
    for axis in (0, 1):
        assert set(unseen[:, axis].tolist()) <= set(seen[:, axis].tolist())


def test_the_uniform_split_follows_its_seed() -> None:
    first, again, other = (NotSoClevr(canvas=16, seed=seed).test for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_items_and_loader() -> None:
    data = NotSoClevr(canvas=16)
    item = data[5]
    assert torch.equal(item["image"], data.image[5])
    batch = next(iter(torch.utils.data.DataLoader(data, batch_size=4)))
    assert batch["onehot"].shape == (4, 1, 16, 16)
    assert torch.equal(batch["xy"], data.xy[:4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"canvas": 8}, "canvas of at least 10"),
        ({"test_items": 3_136}, "leave both parts"),
    ],
)
def test_impossible_canvases_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NotSoClevr(**arguments)


def test_scenes_show_their_objects_apart() -> None:
    scenes = sort_of_clevr(200, objects=3, canvas=48, radius=4, generator=torch.Generator().manual_seed(0))
    assert scenes.images.shape == (200, 3, 48, 48)
    assert scenes.images.max() == 1
    gap = (scenes.xy[:, :, None] - scenes.xy[:, None]).abs().amax(-1)
    gap.diagonal(dim1=1, dim2=2).fill_(99)
    assert gap.min() > 9  # squares of 9 pixels with at least one pixel between them
    pixels = torch.arange(48.0)
    for k, channel in enumerate((0, 2, 1)):  # red, blue, green
        picture = scenes.images[:, channel]
        area = picture.sum((1, 2))
        disc = int((pixels[:9].sub(4).square()[:, None] + pixels[:9].sub(4).square() <= 16).sum())
        assert torch.equal(area, torch.where(scenes.square[:, k], 81.0, float(disc)))
        assert torch.allclose((picture.sum(1) * pixels).sum(1) / area, scenes.xy[:, k, 0], atol=1e-4)
        assert torch.allclose((picture.sum(2) * pixels).sum(1) / area, scenes.xy[:, k, 1], atol=1e-4)
    assert 0.3 < scenes.square.float().mean() < 0.7


def test_one_object_is_uniform_over_all_places() -> None:
    scenes = sort_of_clevr(4_000, objects=1, canvas=8, radius=2, generator=torch.Generator().manual_seed(1))
    counts = torch.bincount(
        (scenes.xy[:, 0, 1] - 2).long() * 4 + (scenes.xy[:, 0, 0] - 2).long(), minlength=16
    )
    expected = 4_000 / 16
    assert ((counts - expected) ** 2 / expected).sum() < 37.7  # chi-squared, 15 degrees of freedom, p = 0.001


def test_scenes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="1 to 6"):
        sort_of_clevr(1, objects=7)
    with pytest.raises(ValueError, match="do not fit"):
        sort_of_clevr(1, objects=4, canvas=24, radius=5)
