import pytest
import torch

from assay.data import EpochBatches, corrupt_labels


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_every_epoch_is_a_permutation_without_its_ragged_tail():
    batches = EpochBatches(11, 4, generators(0, 1))
    epochs = [torch.cat([next(batches), next(batches)], 1) for _ in range(3)]
    for epoch in epochs:
        assert epoch.shape == (2, 8)
        for run in epoch:
            assert len(run.unique()) == 8
            assert run.min() >= 0
            assert run.max() < 11
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0][0], epochs[0][1])


def test_a_runs_order_is_its_own():
    company, alone = EpochBatches(20, 5, generators(3, 7)), EpochBatches(20, 5, generators(7))
    for _ in range(9):
        assert torch.equal(next(company)[1], next(alone)[0])


def test_selected_runs_keep_their_order():
    some, whole = EpochBatches(20, 5, generators(3, 7, 9)), EpochBatches(20, 5, generators(3, 7, 9))
    for step in range(9):
        if step == 2:
            some.select(torch.tensor([False, True, True]))
        batch, expected = next(some), next(whole)
        assert torch.equal(batch, expected if step < 2 else expected[1:])


@pytest.mark.parametrize("size", [0, 21])
def test_refuses_batches_larger_than_the_data(size):
    with pytest.raises(ValueError, match=r"batch_size must lie in 1\.\.20"):
        EpochBatches(20, size, generators(0))


def test_refuses_no_runs():
    with pytest.raises(ValueError, match="one generator"):
        EpochBatches(20, 5, [])


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0.0), (0.5, 0.45), (1.0, 0.9)])
def test_the_share_of_wrong_labels_is_that_of_uniform_noise(fraction, expected):
    labels = torch.arange(10).repeat(1000)
    noisy = corrupt_labels(labels, fraction, 10, torch.Generator().manual_seed(0))
    assert (noisy != labels).float().mean().item() == pytest.approx(expected, abs=0.01)
    assert torch.equal(labels, torch.arange(10).repeat(1000))
    assert noisy.bincount(minlength=10).float().std() < 50


def test_refuses_impossible_shares():
    with pytest.raises(ValueError, match="fraction lies in"):
        corrupt_labels(torch.zeros(3).long(), 1.2, 10, torch.Generator())
