"""Worlds that wait: how long, for whom, and that nothing else changes."""

import time

import pytest
import torch

from assay.envs import Catch
from assay.envs.slow import SlowEnv


def _g(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_waits_are_log_normal_with_the_mean_that_was_asked_for() -> None:
    times = SlowEnv(Catch(2000, generator=_g(1)), mean=0.005, sigma=1.0).waiting(100)
    assert times.shape == (2000, 100)
    # The mean of 200,000 draws of a log-normal with sigma 1 has a relative standard error of 0.3 %.
    assert float(times.mean()) == pytest.approx(0.005, rel=0.02)
    logs = times.log()
    assert float(logs.std()) == pytest.approx(1.0, rel=0.01)
    assert float(logs.mean()) == pytest.approx(torch.tensor(0.005).log().item() - 0.5, abs=0.01)


def test_without_spread_every_step_takes_the_mean() -> None:
    world = SlowEnv(Catch(3), mean=0.004, sigma=0.0)
    world.reset()
    begun = time.perf_counter()
    for _ in range(10):
        world.step(torch.ones(3, dtype=torch.int64))
    assert time.perf_counter() - begun >= 0.04
    assert world.waited == pytest.approx(0.04)


def test_copies_wait_for_the_slowest_of_them() -> None:
    """Side by side, 16 copies take as long as the largest of 16 draws, far longer than one on average."""

    def waited(copies: int, monkeypatch: pytest.MonkeyPatch) -> float:
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        world = SlowEnv(Catch(copies, generator=_g(2)), mean=0.005)
        world.reset()
        for _ in range(300):
            world.step(torch.ones(copies, dtype=torch.int64))
        return world.waited / 300

    with pytest.MonkeyPatch.context() as patch:
        assert waited(1, patch) == pytest.approx(0.005, rel=0.25)
        expected = float(SlowEnv(Catch(16), mean=0.005).waiting(5000).amax(0).mean())
        assert waited(16, patch) == pytest.approx(expected, rel=0.12)
        assert expected > 3 * 0.005


def test_it_is_the_same_world() -> None:
    plain, slow = (wrap(Catch(4, generator=_g(3))) for wrap in (lambda e: e, lambda e: SlowEnv(e, 1e-5)))
    first, second = plain.reset(seed=7)[0], slow.reset(seed=7)[0]
    assert torch.equal(first, second)
    for _ in range(25):
        action = torch.randint(3, (4,), generator=_g(4))
        one, other = plain.step(action), slow.step(action)
        for mine, its in zip(one[:5], other[:5], strict=True):
            assert torch.equal(mine, its)


def test_a_seed_repeats_the_waits() -> None:
    world = SlowEnv(Catch(2), mean=1e-5)

    def waited() -> float:
        world.reset(seed=5)
        before = world.waited
        for _ in range(5):
            world.step(torch.zeros(2, dtype=torch.int64))
        return world.waited - before

    assert waited() == pytest.approx(waited(), rel=1e-6)


@pytest.mark.parametrize("options", [{"mean": -1.0}, {"sigma": -0.1}, {"mean": float("nan")}])
def test_bad_options_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="not negative"):
        SlowEnv(Catch(1), **options)
