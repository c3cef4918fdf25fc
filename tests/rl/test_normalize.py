"""Running statistics against numpy, and the return filter against the worked case of random network distillation."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.rl.normalize import ReturnNormalizer, RunningMeanStd, merge_moments


class TestRunningMeanStd:
    @settings(max_examples=25, deadline=None)
    @given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), seed=st.integers(0, 99))
    def test_equals_numpy_whatever_the_split(self, sizes: list[int], seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        batches = [torch.randn(n, 2, 3, generator=g) * 3 + 100 for n in sizes]
        stats = RunningMeanStd((2, 3))
        for batch in batches:
            stats.update(batch)
        everything = torch.cat(batches).double().numpy()
        assert stats.count.item() == len(everything)
        if len(everything):
            np.testing.assert_allclose(stats.mean.numpy(), everything.mean(0), rtol=1e-10)
            np.testing.assert_allclose(stats.var.numpy(), everything.var(0), rtol=1e-8, atol=1e-10)

    def test_leading_dimensions_and_mask(self) -> None:
        x = torch.randn(4, 5, 3)
        mask = torch.rand(4, 5) < 0.5
        mask[0, 0] = True
        stats, flat = RunningMeanStd((3,)), RunningMeanStd((3,))
        stats.update(torch.where(mask[..., None], x, torch.nan), mask)
        flat.update(x[mask])
        torch.testing.assert_close(stats.mean, flat.mean)
        torch.testing.assert_close(stats.var, flat.var)

    def test_variance_after_a_hundred_million_samples(self) -> None:
        # With a float32 count the mean and variance of a long run no longer move.
        stats = RunningMeanStd(())
        stats._take(torch.tensor(1e8).double(), torch.tensor(1000.0).double(), torch.tensor(1.0).double())
        for _ in range(1000):
            stats.update(torch.tensor([998.0, 1004.0]))
        expected_mean = (1e8 * 1000 + 2000 * 1001) / (1e8 + 2000)
        assert stats.count.item() == 1e8 + 2000
        assert stats.mean.item() == pytest.approx(expected_mean, abs=1e-10)
        assert stats.var.item() > 1.0001

    def test_merge_of_workers(self) -> None:
        x = torch.randn(30, 2) * 4 + 7
        whole, workers = RunningMeanStd((2,)), [RunningMeanStd((2,)) for _ in range(3)]
        whole.update(x)
        for worker, part in zip(workers, x.split([5, 24, 1]), strict=True):
            worker.update(part)
        workers[0].merge([*workers[1:], RunningMeanStd((2,))])
        torch.testing.assert_close(workers[0].mean, whole.mean)
        torch.testing.assert_close(workers[0].var, whole.var)
        with pytest.raises(ValueError, match="shape"):
            whole.merge([RunningMeanStd((3,))])

    def test_merge_with_nothing(self) -> None:
        zero, one = torch.zeros(()).double(), torch.ones(()).double()
        assert [x.item() for x in merge_moments(zero, zero, zero, one, one, zero)] == [1, 1, 0]
        assert [x.item() for x in merge_moments(zero, zero, zero, zero, zero, zero)] == [0, 0, 0]

    def test_normalize_and_clip(self) -> None:
        stats = RunningMeanStd((2,))
        stats.update(torch.tensor([[0.0, 10.0], [2.0, 30.0]]))
        x = torch.tensor([[1.0, 40.0], [-100.0, 20.0]])
        torch.testing.assert_close(stats.normalize(x), torch.tensor([[0.0, 2.0], [-101.0, 0.0]]))
        torch.testing.assert_close(stats.normalize(x, 5.0), torch.tensor([[0.0, 2.0], [-5.0, 0.0]]))
        assert stats.normalize(x).dtype == torch.float32

    def test_refuses_use_before_the_first_update(self) -> None:
        with pytest.raises(ValueError, match="no statistics yet"):
            RunningMeanStd(()).normalize(torch.ones(3))

    def test_freeze(self) -> None:
        stats = RunningMeanStd(())
        stats.update(torch.tensor([1.0, 2.0]))
        stats.freeze()
        stats.update(torch.tensor([100.0]))
        assert stats.count.item() == 2
        stats.freeze(False)
        stats.update(torch.tensor([100.0]))
        assert stats.count.item() == 3

    def test_is_saved_and_survives_casts(self) -> None:
        stats = RunningMeanStd((2,))
        stats.update(torch.randn(9, 2))
        other = RunningMeanStd((2,))
        other.load_state_dict(stats.state_dict())
        assert torch.equal(other.var, stats.var)
        assert other.half().var.dtype == torch.float64
        assert torch.equal(other.var, stats.var)

    def test_bad_input_leaves_the_statistics(self) -> None:
        stats = RunningMeanStd((2,))
        stats.update(torch.randn(9, 2))
        saved = copy.deepcopy(stats.state_dict())
        for bad in (torch.nan, torch.inf):
            with pytest.raises(ValueError, match="finite"):
                stats.update(torch.tensor([[1.0, bad]]))
        with pytest.raises(ValueError, match="end in the shape"):
            stats.update(torch.randn(9, 3))
        with pytest.raises(ValueError, match="clip"):
            stats.normalize(torch.randn(9, 2), 0.0)
        assert all(torch.equal(v, saved[k]) for k, v in stats.state_dict().items())


class TestReturnNormalizer:
    REWARD = torch.tensor([[1.0, 0, 2, 1], [0, 3, 0, 0]]).T.contiguous()
    FILTERED = torch.tensor([[1, 0], [0.9, 3], [2.81, 2.7], [3.529, 2.43]], dtype=torch.float64)

    def test_worked_case(self) -> None:
        torch.testing.assert_close(ReturnNormalizer(0.9, 2).filter(self.REWARD), self.FILTERED)
        out = ReturnNormalizer(0.9, 2)(self.REWARD)
        torch.testing.assert_close(out, (self.REWARD / self.FILTERED.var(correction=0).sqrt()).float())

    def test_filters_along_time_and_not_across_copies(self) -> None:
        # What the popular copy computes: a recursion over the rows of the transposed array.
        wrong, f = [], torch.zeros(4, dtype=torch.float64)
        for row in self.REWARD.T.double():
            f = 0.9 * f + row
            wrong.append(f)
        wrong = torch.stack(wrong).T
        right = ReturnNormalizer(0.9, 2).filter(self.REWARD)
        assert not torch.allclose(right, wrong)
        # Copies do not know of each other: a copy alone gives its own column.
        alone = ReturnNormalizer(0.9, 1).filter(self.REWARD[:, 1:])
        torch.testing.assert_close(right[:, 1:], alone)

    def test_state_goes_on_over_rollouts(self) -> None:
        normalizer = ReturnNormalizer(0.9, 2)
        parts = [normalizer.filter(self.REWARD[s]) for s in (slice(1), slice(1, 4))]
        torch.testing.assert_close(torch.cat(parts), self.FILTERED)

    def test_constant_reward(self) -> None:
        f = ReturnNormalizer(0.9, 1).filter(torch.full((400, 1), 2.0))
        assert f[-1].item() == pytest.approx(20)

    def test_an_end_begins_anew_where_asked(self) -> None:
        ended = torch.tensor([[False, True], [True, False], [False, False], [False, True]])
        normalizer = ReturnNormalizer(0.5, 2)
        f = normalizer.filter(torch.ones(4, 2), ended)
        torch.testing.assert_close(f, torch.tensor([[1, 1], [1.5, 1], [1, 1.5], [1.5, 1.75]]).double())
        torch.testing.assert_close(normalizer.state, torch.tensor([1.5, 0]).double())

    def test_invalid_rows_stay_out(self) -> None:
        valid = torch.tensor([[True], [False], [True]])
        normalizer = ReturnNormalizer(0.9, 1)
        normalizer(torch.tensor([[1.0], [torch.nan], [2.0]]), valid=valid)
        assert normalizer.stats.count.item() == 2
        assert normalizer.std.isfinite()

    def test_zero_rewards_stay_zero(self) -> None:
        assert (ReturnNormalizer(0.9, 2)(torch.zeros(5, 2)) == 0).all()

    def test_bad_input(self) -> None:
        with pytest.raises(ValueError, match="time first"):
            ReturnNormalizer(0.9, 2)(torch.ones(4, 3))
        with pytest.raises(ValueError, match="finite"):
            ReturnNormalizer(0.9, 2)(torch.full((4, 2), torch.nan))
        with pytest.raises(ValueError, match="gamma"):
            ReturnNormalizer(1.5, 2)
