"""PopArt against its oracles: preservation, the worked case, SGD equivalence, and what it must leave alone."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from assay.rl.normalize import ReturnNormalizer
from assay.rl.popart import (
    PopArtHead,
    ReturnScale,
    SquashReward,
    gradient_share,
    merge_statistics,
    popart_update,
    soft_asymmetric_clip,
)


def worked() -> PopArtHead:
    head = PopArtHead(2, 1, beta=0.1, per="batch")
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.3, -0.2]]))
        head.bias.fill_(0.1)
    return head


class TestWorkedCase:
    def test_module(self) -> None:
        head, h = worked(), torch.tensor([1.0, 2.0])
        before = head.denormalize(head(h))
        head.update(torch.tensor([50.0, 70.0]), torch.tensor([0, 0]))
        assert head.mu.item() == pytest.approx(6)
        assert head.nu.item() == pytest.approx(370.9)
        assert head.sigma.item() == pytest.approx(18.300273, abs=1e-6)
        torch.testing.assert_close(
            head.weight.data, torch.tensor([[0.0163932, -0.0109288]]), rtol=1e-5, atol=0
        )
        assert head.bias.item() == pytest.approx(-0.3223996, abs=1e-6)
        torch.testing.assert_close(before, torch.zeros(1), rtol=0, atol=1e-6)
        torch.testing.assert_close(head.denormalize(head(h)), before, rtol=0, atol=2e-6)
        torch.testing.assert_close(
            head.normalize(torch.tensor([50.0, 70.0]), torch.tensor([0, 0])),
            torch.tensor([2.4043357, 3.4972156]),
        )
        assert head.count.item() == 2

    def test_pure_function_agrees_and_changes_nothing(self) -> None:
        w, b = torch.tensor([[0.3, -0.2]]), torch.tensor([0.1])
        mu, nu = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        args = (torch.tensor([50.0, 70.0]), torch.tensor([0, 0]), 0.1)
        out = popart_update(w, b, mu, nu, *args, per="batch")
        head = worked()
        head.update(*args[:2])
        for got, kept in zip(out, (head.weight, head.bias, head.mu, head.nu), strict=True):
            torch.testing.assert_close(got, kept.detach())
        assert (mu.item(), nu.item(), w[0, 0].item()) == (0, 1, pytest.approx(0.3))

    def test_pure_function_maps_over_runs(self) -> None:
        g = torch.Generator().manual_seed(0)
        w, b = torch.randn(4, 3, 5, generator=g), torch.randn(4, 3, generator=g)
        mu, nu = torch.zeros(4, 3), torch.ones(4, 3)
        targets, index = torch.randn(4, 9, generator=g) * 10, torch.randint(3, (4, 9), generator=g)
        many = torch.vmap(lambda *x: popart_update(*x, 0.1))(w, b, mu, nu, targets, index)
        for k in range(4):
            one = popart_update(w[k], b[k], mu[k], nu[k], targets[k], index[k], 0.1)
            for got, alone in zip(many, one, strict=True):
                torch.testing.assert_close(got[k], alone)


class TestPreservation:
    @pytest.mark.parametrize(("dtype", "bar"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
    @pytest.mark.parametrize("debias", [False, True])
    @torch.no_grad()
    def test_a_thousand_updates(self, dtype: torch.dtype, bar: float, debias: bool) -> None:
        g = torch.Generator().manual_seed(0)
        head = PopArtHead(8, 3, beta=0.05, debias=debias, dtype=dtype)
        h = torch.randn(16, 8, generator=g, dtype=dtype)
        worst = 0.0
        for _ in range(1000):
            scale = 10 ** (9 * torch.rand(1, generator=g).item() - 3)
            targets = scale * (torch.randn(24, generator=g, dtype=torch.float64) + 1)
            index = torch.randint(3, (24,), generator=g)
            before, old = head.denormalize(head(h).double()), (head.mu.clone(), head.sigma)
            head.update(targets, index)
            after = head.denormalize(head(h).double())
            # A float of the layer cannot resolve less than its rounding times the shift and scale it represents.
            size = torch.maximum(old[0].abs() + old[1], head.mu.abs() + head.sigma) + before.abs()
            worst = max(worst, float(((after - before).abs() / size).max()))
        assert worst < bar
        assert worst > 0  # the statistics did move

    @torch.no_grad()
    def test_drift_over_the_whole_sequence_in_float64(self) -> None:
        g = torch.Generator().manual_seed(1)
        head = PopArtHead(8, 1, beta=0.3, dtype=torch.float64)
        h = torch.randn(16, 8, generator=g, dtype=torch.float64)
        first, largest = head.denormalize(head(h)), 1.0
        for _ in range(1000):
            scale = 10 ** (9 * torch.rand(1, generator=g).item() - 3)
            head.update(scale * torch.randn(4, 1, generator=g, dtype=torch.float64))
            largest = max(largest, float(head.sigma + head.mu.abs()))
        assert float((head.denormalize(head(h)) - first).abs().max()) < 1e-12 * largest

    def test_cached_outputs_convert(self) -> None:
        head, h = PopArtHead(4, 2, beta=0.5, per="batch", dtype=torch.float64), torch.randn(7, 4).double()
        old = head(h).detach()
        index = torch.tensor([0, 1, 1])
        head.update(torch.tensor([5.0, 100.0, 300.0]).double(), index)
        new = head(h).detach()
        torch.testing.assert_close(head.last_transform().convert(old), new)
        torch.testing.assert_close(
            head.last_transform().convert(old[:3].gather(1, index[:, None])[:, 0], index),
            new[:3].gather(1, index[:, None])[:, 0],
        )

    def test_backward_through_an_old_output_raises(self) -> None:
        head, h = worked(), torch.randn(3, 2, requires_grad=True)
        y = head(h)
        head.update(torch.tensor([[50.0]]))
        with pytest.raises(RuntimeError, match="inplace"):
            y.sum().backward()


class TestStatistics:
    @settings(max_examples=30, deadline=None)
    @given(n=st.integers(1, 40), beta=st.floats(0.01, 1.0), seed=st.integers(0, 100))
    def test_a_constant_batch_weighs_as_its_samples_in_turn(self, n: int, beta: float, seed: int) -> None:
        value = float(torch.randn(1, generator=torch.Generator().manual_seed(seed))) * 10
        head, mu = PopArtHead(1, 1, beta=beta, scale_bounds=(1e-12, 1e6)), 0.0
        head._warned = True
        head.update(torch.full((n, 1), value, dtype=torch.float64))
        for _ in range(n):
            mu += beta * (value - mu)
        assert head.mu.item() == pytest.approx(mu, rel=1e-9, abs=1e-9)

    def test_one_sample_a_task_is_the_rule_of_the_paper(self) -> None:
        # Also rlax's rule, which sums beta (G - mu) over the batch: equal where a task occurs once.
        head, mu, nu = PopArtHead(2, 3, beta=0.2), torch.zeros(3).double(), torch.ones(3).double()
        g = torch.Generator().manual_seed(0)
        for _ in range(20):
            targets = torch.randn(3, generator=g).double() * 7
            head.update(targets, torch.arange(3))
            mu, nu = mu + 0.2 * (targets - mu), nu + 0.2 * (targets**2 - nu)
        torch.testing.assert_close(head.mu, mu)
        torch.testing.assert_close(head.nu, nu)
        torch.testing.assert_close(head.sigma, (nu - mu**2).sqrt())

    def test_a_large_batch_of_one_task_does_not_diverge(self) -> None:
        head = PopArtHead(2, 1, beta=3e-2)
        for _ in range(20):
            head.update(torch.randn(3200, 1, generator=torch.Generator().manual_seed(0)) * 100 + 50)
        assert head.mu.item() == pytest.approx(50, abs=10)
        assert head.sigma.item() == pytest.approx(100, rel=0.1)

    def test_debiasing_sets_the_moments_from_the_first_batch(self) -> None:
        head = PopArtHead(2, 1, beta=1e-3, debias=True)
        first = torch.tensor([[1000.0], [3000.0]], dtype=torch.float64)
        head.update(first)
        assert head.mu.item() == pytest.approx(2000)
        assert head.sigma.item() == pytest.approx(1000)

    def test_debiased_parity_with_torchrl(self) -> None:
        peer = pytest.importorskip("torchrl.modules.value_norm", reason="the peer torchrl is not installed")
        theirs = peer.PopArtValueNorm(shape=1, beta=0.9)
        head = PopArtHead(3, 1, beta=0.1, debias=True, per="batch")
        g = torch.Generator().manual_seed(0)
        for k in range(30):
            targets = torch.randn(16, 1, generator=g) * (k + 1) + 4
            theirs.update(targets)
            head.update(targets)
            torch.testing.assert_close(
                head.normalize(targets), theirs.normalize(targets), rtol=1e-4, atol=1e-4
            )

    def test_only_touched_tasks_change(self) -> None:
        head = PopArtHead(4, 3, beta=0.1)
        head.update(torch.randn(30) * 5 + 2, torch.arange(30) % 3)
        before = {k: v.clone() for k, v in head.state_dict().items()}
        head.update(torch.tensor([9.0, -400.0]), torch.tensor([1, 2]), mask=torch.tensor([True, False]))
        for name, value in head.state_dict().items():
            assert torch.equal(value[[0, 2]], before[name][[0, 2]]), name
            assert not torch.equal(value[1], before[name][1]), name
        again = {k: v.clone() for k, v in head.state_dict().items()}
        head.update(torch.zeros(0), torch.zeros(0, dtype=torch.int64))
        assert all(torch.equal(v, again[k]) for k, v in head.state_dict().items())

    def test_untouched_rows_keep_every_bit_in_float64(self) -> None:
        # sigma b + mu - mu, divided by sigma, is not b in the last bits.
        g = torch.Generator().manual_seed(0)
        head = PopArtHead(3, 200, beta=0.1, dtype=torch.float64)
        head.update(torch.randn(400, generator=g) * 50 + 20, torch.arange(400) % 200)
        torch.nn.init.normal_(head.bias, generator=g)  # as learning would move it
        before = head.bias.detach().clone(), head.weight.detach().clone()
        head.update(torch.tensor([1.0]), torch.tensor([0]))
        assert torch.equal(head.bias[1:], before[0][1:])
        assert torch.equal(head.weight[1:], before[1][1:])

    def test_masked_targets_may_hold_anything(self) -> None:
        head = PopArtHead(2, 1)
        head.update(torch.tensor([[1.0], [math.nan]]), mask=torch.tensor([[True], [False]]))
        assert head.mu.isfinite().all()
        assert head.count.item() == 1

    def test_constant_targets_reach_the_floor_with_a_warning(self) -> None:
        head = PopArtHead(2, 1, beta=0.5, scale_bounds=(1e-2, 1e6))

        def learn() -> None:
            for _ in range(60):
                head.update(
                    torch.full((8, 1), 1e5)
                )  # nu - mu^2 is rounding noise in the end, perhaps below 0

        with pytest.warns(UserWarning, match="floor") as warned:
            learn()
        assert len(warned) == 1
        assert head.sigma.item() == pytest.approx(1e-2)
        assert all(v.isfinite().all() for v in head.state_dict().values())

    def test_large_returns_in_half_precision_do_not_overflow(self) -> None:
        head = PopArtHead(2, 1, beta=0.5).to(torch.bfloat16)
        assert head.weight.dtype == torch.bfloat16
        assert head.mu.dtype == head.nu.dtype == torch.float64
        for _ in range(40):
            head.update(torch.tensor([[1e6], [-1e6]]))
        assert head.nu.item() == pytest.approx(1e12, rel=1e-6)
        assert head.sigma.item() == pytest.approx(1e6, rel=1e-6)
        assert PopArtHead(2, 1).half().mu.dtype == torch.float64

    def test_workers_merge_to_one_batch(self) -> None:
        targets, index = (
            torch.randn(40) * 3,
            torch.randint(4, (40,), generator=torch.Generator().manual_seed(0)),
        )
        one = PopArtHead(2, 4, beta=0.05)
        two = PopArtHead(2, 4, beta=0.05)
        two.load_state_dict(one.state_dict())
        one.update(targets, index)
        parts = [two.sums(targets[s], index[s]) for s in (slice(13), slice(13, 40))]
        two.update_from(merge_statistics(parts))
        for name, value in one.state_dict().items():
            torch.testing.assert_close(two.state_dict()[name], value)

    def test_is_saved_with_the_head(self) -> None:
        head = PopArtHead(2, 2)
        head.update(torch.randn(5, 2) * 9)
        other = PopArtHead(2, 2)
        other.load_state_dict(head.state_dict())
        h = torch.randn(3, 2)
        assert torch.equal(other.denormalize(other(h)), head.denormalize(head(h)))

    def test_bad_input(self) -> None:
        head = PopArtHead(2, 2)
        saved = {k: v.clone() for k, v in head.state_dict().items()}
        for index in (torch.tensor([2]), torch.tensor([-1])):
            with pytest.raises(ValueError, match=r"tasks are 0\.\.1"):
                head.update(torch.ones(1), index)
        for bad in (math.nan, math.inf):
            with pytest.raises(ValueError, match="finite"):
                head.update(torch.tensor([1.0, bad]), torch.tensor([0, 1]))
        with pytest.raises(ValueError, match="2 columns"):
            head.update(torch.ones(3))
        assert all(torch.equal(v, saved[k]) for k, v in head.state_dict().items())
        for beta in (0.0, 1.5, -0.1):
            with pytest.raises(ValueError, match="beta"):
                PopArtHead(2, 2, beta=beta)
        with pytest.raises(ValueError, match="scale_bounds"):
            PopArtHead(2, 2, scale_bounds=(1.0, 0.5))
        with pytest.raises(ValueError, match="no update yet"):
            PopArtHead(2, 2).last_transform()


class TestWhatItDoes:
    def test_sgd_moves_the_head_as_if_unnormalised_and_the_rest_by_sigma_squared_less(self) -> None:
        g = torch.Generator().manual_seed(0)
        rate = 1e-3

        def net() -> tuple[nn.Linear, PopArtHead]:
            lower, head = nn.Linear(3, 5).double(), PopArtHead(5, 1, beta=0.1, dtype=torch.float64)
            with torch.no_grad():
                for p in (lower.weight, lower.bias, head.weight, head.bias):
                    p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())).double())
            return lower, head

        lower, head = net()
        plain, last = net()
        w, b = last.weight, last.bias
        for _ in range(20):
            x = torch.randn(8, 3, generator=g, dtype=torch.float64)
            target = 30 * torch.randn(8, 1, generator=g, dtype=torch.float64) + 10
            head.update(target)
            sigma, mu = head.sigma, head.mu
            loss = 0.5 * (head.normalize(target) - head(torch.tanh(lower(x)))).square().sum()
            grads = torch.autograd.grad(loss, (lower.weight, lower.bias, head.weight, head.bias))
            reference = 0.5 * (target - nn.functional.linear(torch.tanh(plain(x)), w, b)).square().sum()
            theirs = torch.autograd.grad(reference, (plain.weight, plain.bias, w, b))
            with torch.no_grad():
                for p, grad in zip((lower.weight, lower.bias, head.weight, head.bias), grads, strict=True):
                    p -= rate * grad
                for p, grad in zip((plain.weight, plain.bias), theirs[:2], strict=True):
                    p -= rate * grad / sigma**2
                for p, grad in zip((w, b), theirs[2:], strict=True):
                    p -= rate * grad
            torch.testing.assert_close(sigma[:, None] * head.weight, w, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(sigma * head.bias + mu, b, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(lower.weight, plain.weight, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("power", [-6, 10])
    def test_the_scale_of_rewards_does_not_matter(self, power: int) -> None:
        # A contextual bandit with a shared torso, played twice; rewards differ by a power of two.
        def play(scale: float) -> tuple[list[Tensor], list[float]]:
            g = torch.Generator().manual_seed(0)
            torso = nn.Linear(4, 16)
            head, policy = (
                PopArtHead(16, 1, beta=0.1, debias=True, scale_bounds=(1e-12, 1e12)),
                nn.Linear(16, 3),
            )
            parameters = [*torso.parameters(), *policy.parameters(), *head.parameters()]
            with torch.no_grad():
                for p in parameters:
                    p.copy_(torch.randn(p.shape, generator=g) * 0.1)
                head.bias.zero_()
                head.weight.zero_()  # values begin at the mean of the first targets, whatever their scale
            optimizer = torch.optim.Adam(parameters, 1e-2)
            actions, losses = [], []
            for _ in range(100):
                x = torch.randn(32, 4, generator=g)
                noise = torch.rand(32, 3, generator=g)
                h = torch.relu(torso(x))
                logits = policy(h)
                action = (logits.detach() - (-noise.log()).log()).argmax(-1)
                reward = scale * (x[:, 0] * (action - 1)).unsqueeze(-1)
                head.update(reward)
                y, goal = head(h), head.normalize(reward)
                logp = torch.log_softmax(logits, -1).gather(1, action[:, None])
                loss = (0.5 * (goal - y).square() - logp * (goal - y).detach()).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                actions.append(action)
                losses.append(loss.item())
            return actions, losses

        base, other = play(1.0), play(2.0**power)
        assert all(torch.equal(a, b) for a, b in zip(base[0], other[0], strict=True))
        assert other[1] == pytest.approx(base[1], abs=1e-6)

    @pytest.mark.parametrize("kind", ["adam", "rmsprop", "sgd"])
    def test_rescaled_moments_are_those_of_the_new_units(self, kind: str) -> None:
        # After the update the same error gives gradients of another size; the moments must have that size already.
        make = {
            "adam": lambda p: torch.optim.Adam(p, lr=0.0, amsgrad=True),
            "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.0, centered=True),
            "sgd": lambda p: torch.optim.SGD(p, lr=0.0, momentum=0.9),
        }[kind]
        h, target = torch.randn(6, 3).double(), 50 * torch.randn(6, 2).double()

        def gradient_step(head: PopArtHead, optimizer: torch.optim.Optimizer) -> None:
            optimizer.zero_grad()
            (0.5 * (head.normalize(target) - head(h)).square().sum()).backward()
            optimizer.step()

        head = PopArtHead(3, 2, beta=0.3, dtype=torch.float64)
        optimizer = make(head.parameters())
        gradient_step(head, optimizer)
        head.update(target)
        head.rescale_optimizer(optimizer)
        fresh = make(head.parameters())
        gradient_step(head, fresh)
        for p in (head.weight, head.bias):
            for key, value in fresh.state[p].items():
                torch.testing.assert_close(optimizer.state[p][key], value, msg=lambda m, k=key: f"{k}: {m}")

    def test_rescaled_moments_of_a_loss_of_values(self) -> None:
        h, target = torch.randn(6, 3).double(), 50 * torch.randn(6, 2).double()
        head = PopArtHead(3, 2, beta=0.3, dtype=torch.float64)

        def step(optimizer: torch.optim.Optimizer) -> None:
            optimizer.zero_grad()
            (head.denormalize(head(h)) - target).square().sum().backward()
            optimizer.step()

        optimizer = torch.optim.Adam(head.parameters(), lr=0.0)
        step(optimizer)
        head.update(target)
        head.rescale_optimizer(optimizer, loss="values")
        fresh = torch.optim.Adam(head.parameters(), lr=0.0)
        step(fresh)
        torch.testing.assert_close(
            optimizer.state[head.weight]["exp_avg_sq"], fresh.state[head.weight]["exp_avg_sq"]
        )

    def test_regression_with_drifting_scale(self) -> None:
        g = torch.Generator().manual_seed(0)
        head = PopArtHead(8, 1, beta=0.1, debias=True, per="batch")
        optimizer = torch.optim.SGD(head.parameters(), 0.05)
        for scale in (1.0, 1e3, 1e-2):
            for _ in range(200):
                x = torch.randn(64, 8, generator=g)
                y = scale * x.sum(1, keepdim=True)
                head.update(y)
                loss = (head(x) - head.normalize(y)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            assert (head.denormalize(head(x)) - y).std().item() < 0.1 * y.std().item()

    def test_gradient_share(self) -> None:
        w = torch.nn.Parameter(torch.ones(2))
        losses = torch.stack((3 * w[0], 4 * w[1] - w[1] * 3, torch.zeros(()) * w[0]))
        torch.testing.assert_close(gradient_share(losses, [w]), torch.tensor([0.75, 0.25, 0.0]))
        torch.testing.assert_close(gradient_share(0 * losses, [w]), torch.full((3,), 1 / 3))


class TestRivals:
    def test_return_scale_is_one_normalizer_a_task(self) -> None:
        g = torch.Generator().manual_seed(0)
        index = torch.tensor([0, 1, 0, 1, 1])
        scale = ReturnScale(0.9, index)
        alone = [ReturnNormalizer(0.9, int((index == k).sum())) for k in range(2)]
        for _ in range(3):
            reward = torch.rand(10, 5, generator=g, dtype=torch.float64) * torch.tensor([1.0, 100.0])[index]
            out = scale(reward)
            for k in range(2):
                torch.testing.assert_close(out[:, index == k], alone[k](reward[:, index == k]))

    def test_return_scale_refuses_bad_input(self) -> None:
        with pytest.raises(ValueError, match="tasks are"):
            ReturnScale(0.9, torch.tensor([0, 3]), num_tasks=2)
        with pytest.raises(ValueError, match="time first"):
            ReturnScale(0.9, torch.tensor([0, 1]))(torch.ones(2, 4))

    def test_squashes(self) -> None:
        r = torch.tensor([-100.0, -0.5, 0.0, 0.5, 100.0])
        torch.testing.assert_close(
            soft_asymmetric_clip(r),
            torch.tensor([-1.5, -1.5 * math.tanh(0.1), 0.0, 5 * math.tanh(0.1), 5.0]),
        )
        torch.testing.assert_close(SquashReward("sign")(r), torch.tensor([-1.0, -1, 0, 1, 1]))
        torch.testing.assert_close(SquashReward("clip")(r), torch.tensor([-1.0, -0.5, 0, 0.5, 1]))
        torch.testing.assert_close(SquashReward("identity")(r), r)
        with pytest.raises(ValueError, match="unknown kind"):
            SquashReward("tanh")
