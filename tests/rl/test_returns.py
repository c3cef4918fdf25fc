"""Returns and advantages against their definitions, a peer, and the faults they are known for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from assay.rl.returns import (
    discounted_return,
    gae,
    lambda_returns,
    nstep_returns,
    reverse_scan,
)


def rollout(seed: int, steps: int = 12, envs: int = 5, streams: int | None = None) -> dict[str, Tensor]:
    """A random rollout in float64 whose next values agree with the values inside episodes."""
    g = torch.Generator().manual_seed(seed)
    shape = (steps, envs) if streams is None else (steps, envs, streams)
    value = torch.randn(steps + 1, *shape[1:], generator=g, dtype=torch.float64)
    kind = torch.rand(steps, envs, generator=g)
    terminated, truncated = kind < 0.15, (kind >= 0.15) & (kind < 0.3)
    ended = (terminated | truncated).view(steps, envs, *(1,) * (len(shape) - 2))
    final = torch.randn(shape, generator=g, dtype=torch.float64)
    return {
        "reward": torch.randn(shape, generator=g, dtype=torch.float64),
        "value": value[:-1],
        "next_value": torch.where(ended, final, value[1:]),
        "terminated": terminated,
        "truncated": truncated,
    }


def gae_by_sums(r: dict[str, Tensor], gamma: float, lam: float) -> Tensor:
    """The definition: for every t the sum over k of (gamma lam)^k delta_{t+k}, up to the end of the episode."""
    steps, envs = r["reward"].shape
    out = torch.zeros_like(r["reward"])
    for n in range(envs):
        for t in range(steps):
            for k in range(t, steps):
                alive = 0.0 if r["terminated"][k, n] else 1.0
                delta = r["reward"][k, n] + gamma * alive * r["next_value"][k, n] - r["value"][k, n]
                out[t, n] += (gamma * lam) ** (k - t) * delta
                if r["terminated"][k, n] or r["truncated"][k, n]:
                    break
    return out


def nstep_by_sums(r: dict[str, Tensor], gamma: float, n: int) -> Tensor:
    steps, envs = r["reward"].shape
    out = torch.zeros_like(r["reward"])
    for e in range(envs):
        for t in range(steps):
            for k in range(n):
                out[t, e] += gamma**k * r["reward"][t + k, e]
                last = k == n - 1 or t + k == steps - 1 or r["truncated"][t + k, e]
                if r["terminated"][t + k, e]:
                    break
                if last:
                    out[t, e] += gamma ** (k + 1) * r["next_value"][t + k, e]
                    break
    return out


class TestReverseScan:
    @settings(max_examples=40, deadline=None)
    @given(steps=st.integers(1, 70), width=st.integers(1, 4), seed=st.integers(0, 1000))
    def test_both_methods_agree_with_the_recursion(self, steps: int, width: int, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        delta = torch.randn(steps, width, generator=g, dtype=torch.float64)
        coef = torch.rand(steps, width, generator=g, dtype=torch.float64) * 1.2 - 0.2
        x, expected = torch.zeros(width, dtype=torch.float64), []
        for t in reversed(range(steps)):
            x = delta[t] + coef[t] * x
            expected.append(x)
        expected = torch.stack(expected[::-1])
        for method in ("loop", "doubling", "auto"):
            torch.testing.assert_close(reverse_scan(delta, coef, method), expected, rtol=1e-10, atol=1e-10)

    def test_gradients_agree_with_finite_differences(self) -> None:
        delta = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
        coef = torch.rand(5, 2, dtype=torch.float64, requires_grad=True)
        for method in ("loop", "doubling"):
            assert torch.autograd.gradcheck(lambda d, c, m=method: reverse_scan(d, c, m), (delta, coef))

    def test_coefficients_broadcast(self) -> None:
        torch.testing.assert_close(
            reverse_scan(torch.ones(3, 2), torch.tensor(0.5).expand(3, 1)),
            torch.tensor([[1.75, 1.75], [1.5, 1.5], [1.0, 1.0]]),
        )

    def test_large_coefficients_do_not_become_nan(self) -> None:
        coef = torch.full((64, 2), 1e3)
        coef[::4] = 0
        assert reverse_scan(torch.ones(64, 2), coef).isfinite().all()
        assert reverse_scan(torch.ones(64, 2), coef, "doubling").isfinite().all()

    def test_bad_input(self) -> None:
        with pytest.raises(ValueError, match="at least one step"):
            reverse_scan(torch.ones(0, 2), torch.ones(0, 2))
        with pytest.raises(ValueError, match="broadcast"):
            reverse_scan(torch.ones(3, 2), torch.ones(3, 4))


class TestGAE:
    @pytest.mark.parametrize(("gamma", "lam"), [(0.99, 0.95), (0.9, 1.0), (0.5, 0.0), (1.0, 1.0)])
    def test_definition_as_double_sums(self, gamma: float, lam: float) -> None:
        r = rollout(0)
        torch.testing.assert_close(
            gae(**r, gamma=gamma, lam=lam), gae_by_sums(r, gamma, lam), rtol=1e-10, atol=1e-10
        )

    def test_streams_equal_separate_calls(self) -> None:
        r = rollout(1, steps=40, streams=2)
        gamma, lam = torch.tensor([0.9, 0.99]).double(), torch.tensor([0.95, 0.8]).double()
        both = gae(**r, gamma=gamma, lam=lam, episodic=torch.tensor([True, False]))
        for k, episodic in enumerate((True, False)):
            one = {key: x[..., k] if x.ndim == 3 else x for key, x in r.items()}
            alone = gae(**one, gamma=float(gamma[k]), lam=float(lam[k]), episodic=episodic)
            torch.testing.assert_close(both[..., k], alone, rtol=1e-10, atol=1e-10)

    def test_an_end_in_the_batch_equals_two_batches(self) -> None:
        r = rollout(2, steps=40)
        r["terminated"], r["truncated"] = r["terminated"].clone(), r["truncated"].clone()
        r["terminated"][17], r["truncated"][17] = False, True
        whole = gae(**r, gamma=0.95, lam=0.9)
        parts = [
            gae(**{k: x[s] for k, x in r.items()}, gamma=0.95, lam=0.9) for s in (slice(18), slice(18, 40))
        ]
        torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-10, atol=1e-10)

    def test_truncation_bootstraps_from_the_final_observation(self) -> None:
        # The value of the reset observation (row 1) is huge: it must not leak into row 0.
        reward, value = torch.zeros(2, 1), torch.tensor([[0.0], [100.0]])
        next_value = torch.tensor([[3.0], [0.0]])
        off, on = torch.zeros(2, 1, dtype=torch.bool), torch.tensor([[True], [False]])
        assert gae(reward, value, next_value, off, on, 0.5, 1.0)[0, 0] == 1.5
        assert gae(reward, value, next_value, on, off, 0.5, 1.0)[0, 0] == 0.0

    def test_non_episodic_ignores_ends(self) -> None:
        r = rollout(3)
        last = torch.randn(5, dtype=torch.float64)
        ended = (r["terminated"] | r["truncated"])[-1]
        r["next_value"][-1] = torch.where(ended, r["next_value"][-1], last)
        free = {**r, "next_value": torch.cat((r["value"][1:], last[None]))}
        none = torch.zeros_like(r["terminated"])
        expected = gae(**{**free, "terminated": none, "truncated": none}, gamma=0.9, lam=0.8)
        torch.testing.assert_close(gae(**free, gamma=0.9, lam=0.8, episodic=False), expected)
        # Values of final observations are not those of the reset observations: they must not enter.
        torch.testing.assert_close(gae(**r, gamma=0.9, lam=0.8, episodic=False, last_value=last), expected)

    def test_invalid_rows_get_nothing_and_pass_nothing(self) -> None:
        r = rollout(4, steps=6, envs=1)
        r["terminated"], r["truncated"] = (
            torch.zeros(6, 1, dtype=torch.bool),
            torch.zeros(6, 1, dtype=torch.bool),
        )
        r["truncated"][2] = True
        valid = torch.tensor([1, 1, 1, 0, 1, 1], dtype=torch.bool)[:, None]
        clean = gae(**r, gamma=0.9, lam=0.9, valid=valid)
        for key in ("reward", "value", "next_value"):
            r[key] = torch.where(valid, r[key], torch.nan)
        dirty = gae(**r, gamma=0.9, lam=0.9, valid=valid)
        torch.testing.assert_close(clean, dirty)
        assert dirty[3, 0] == 0
        first = gae(**{k: x[:3] for k, x in r.items()}, gamma=0.9, lam=0.9)
        torch.testing.assert_close(dirty[:3], first)

    def test_no_gradient_comes_out(self) -> None:
        r = rollout(5)
        r["value"] = r["value"].clone().requires_grad_()
        assert not gae(**r, gamma=0.9, lam=0.9).requires_grad
        assert not lambda_returns(
            r["reward"], r["value"], r["terminated"], r["truncated"], 0.9, 0.9
        ).requires_grad

    @pytest.mark.parametrize("steps", [7, 64])
    def test_parity_with_torchrl(self, steps: int) -> None:
        functional = pytest.importorskip(
            "torchrl.objectives.value.functional", reason="the peer torchrl is not installed"
        )
        r = {k: x.float() if x.is_floating_point() else x for k, x in rollout(6, steps, 9).items()}
        peer = {k: x.T[..., None] for k, x in r.items()}
        value = r["value"].clone().requires_grad_()
        advantage, target = functional.generalized_advantage_estimate(
            0.99,
            0.95,
            peer["value"],
            peer["next_value"],
            peer["reward"],
            done=peer["terminated"] | peer["truncated"],
            terminated=peer["terminated"],
        )
        ours = gae(**r, gamma=0.99, lam=0.95)
        torch.testing.assert_close(ours, advantage[..., 0].T, rtol=1e-5, atol=1e-5)
        # The same gradient reaches the value through its regression on the target.
        (mine,) = torch.autograd.grad((value - (ours + r["value"])).square().mean(), value)
        (theirs,) = torch.autograd.grad((value - target[..., 0].T).square().mean(), value)
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)

    def test_bad_input(self) -> None:
        r = rollout(7)
        with pytest.raises(ValueError, match="shape of the reward"):
            gae(**{**r, "value": r["value"][:, :3]}, gamma=0.9, lam=0.9)
        with pytest.raises(ValueError, match="terminated"):
            gae(**{**r, "terminated": r["terminated"][:, :3]}, gamma=0.9, lam=0.9)
        with pytest.raises(ValueError, match="gamma"):
            gae(**r, gamma=1.5, lam=0.9)
        with pytest.raises(ValueError, match="at least one step"):
            gae(**{k: x[:0] for k, x in r.items()}, gamma=0.9, lam=0.9)


class TestReturns:
    @pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
    def test_lambda_returns_are_gae_plus_value(self, lam: float) -> None:
        r = rollout(8, steps=50)
        returns = lambda_returns(r["reward"], r["next_value"], r["terminated"], r["truncated"], 0.95, lam)
        torch.testing.assert_close(
            returns, gae(**r, gamma=0.95, lam=lam) + r["value"], rtol=1e-10, atol=1e-10
        )

    @pytest.mark.parametrize("n", [1, 2, 3, 12, 40])
    def test_nstep_definition(self, n: int) -> None:
        r = rollout(9)
        ours = nstep_returns(r["reward"], r["next_value"], r["terminated"], r["truncated"], 0.9, n)
        torch.testing.assert_close(ours, nstep_by_sums(r, 0.9, n), rtol=1e-10, atol=1e-10)

    def test_discounted_return_by_hand(self) -> None:
        reward = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
        terminated = torch.tensor([[False], [True], [False], [False]])
        none = torch.zeros_like(terminated)
        torch.testing.assert_close(
            discounted_return(reward, terminated, none, 0.5), torch.tensor([[2.0], [2.0], [8.0], [8.0]])
        )
        torch.testing.assert_close(
            discounted_return(reward, terminated, none, 0.5, next_value=torch.full((4, 1), 100.0)),
            torch.tensor([[2.0], [2.0], [33.0], [58.0]]),
        )
        torch.testing.assert_close(  # truncated instead: the bootstrap enters
            discounted_return(reward, none, terminated, 0.5, next_value=torch.full((4, 1), 100.0))[:2],
            torch.tensor([[27.0], [52.0]]),
        )

    def test_invalid_rows(self) -> None:
        r = rollout(10, steps=5, envs=1)
        none = torch.zeros(5, 1, dtype=torch.bool)
        valid = torch.tensor([1, 1, 0, 1, 1], dtype=torch.bool)[:, None]
        dirty = {k: torch.where(valid, r[k], torch.nan) for k in ("reward", "next_value")}
        for n in (2, 9):
            got = nstep_returns(**dirty, terminated=none, truncated=none, gamma=0.9, n=n, valid=valid)
            clean = nstep_returns(r["reward"][:2], r["next_value"][:2], none[:2], none[:2], gamma=0.9, n=n)
            torch.testing.assert_close(got[:2], clean)
            assert got[2, 0] == 0

    def test_bad_input(self) -> None:
        r = rollout(11)
        with pytest.raises(ValueError, match="n of at least 1"):
            nstep_returns(r["reward"], r["next_value"], r["terminated"], r["truncated"], 0.9, 0)
