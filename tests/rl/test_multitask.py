"""PopArt in the learner: the order of its steps, scale invariance end to end, ablations, and the helpers around it."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from assay.envs import Catch
from assay.envs.suite import MultiTask, TaskSuite
from assay.rl.actorlearner import ActorLearner
from assay.rl.distributions import Categorical
from assay.rl.impala import VTraceLearner
from assay.rl.multitask import (
    MultiTaskActorCritic,
    PixelControl,
    PixelControlHead,
    PopArtLearner,
    TaskBalancedSampler,
    TaskReturns,
    active,
    multitask_actor_critic,
    pixel_changes,
    summarise_shares,
    tasks_of_actors,
)
from assay.rl.nets import CategoricalHead, MLPTorso, ValueHead
from assay.rl.policies import ActorCritic, PolicyOutput
from assay.rl.popart import PopArtHead, ReturnScale, SquashReward
from assay.rl.rollout import Rollout, collect, start
from assay.rl.vtrace import vtrace

TASKS = ("catch", "snack")
Trained = tuple[list[Tensor], list[dict[str, float]], PopArtLearner]


def suite(scales: tuple[float, ...] = (1.0, 1.0), copies: int = 4, seed: int = 0) -> TaskSuite:
    return TaskSuite(copies, TASKS, reward_scales=scales, generator=torch.Generator().manual_seed(seed))


def agent(
    env: MultiTask, seed: int = 0, num_tasks: int | None = None, **options: Any
) -> MultiTaskActorCritic:
    settings = {"beta": 0.1, "per": "batch", "debias": True, **options}
    g = torch.Generator().manual_seed(seed)
    return multitask_actor_critic(env, num_tasks or env.num_tasks, (16, 16), generator=g, **settings)


def learner_of(model: MultiTaskActorCritic, lr: float = 1e-2, **options: Any) -> PopArtLearner:
    return PopArtLearner(model, torch.optim.Adam(model.parameters(), lr), **options)


def unroll(env: MultiTask, model: ActorCritic, steps: int = 10, seed: int = 0) -> Rollout:
    rollout = Rollout(steps, env.num_envs)
    collect(env, model, rollout, start(env, model), torch.Generator().manual_seed(seed), values=False)
    return rollout


def trained(updates: int, scales: tuple[float, ...], **options: Any) -> Trained:
    """Actions and metrics of a run that is the same but for the scales and options."""
    env = suite(scales)
    model = agent(env)
    learner = learner_of(model, **options)
    g = torch.Generator().manual_seed(1)
    rollout, carry = Rollout(10, env.num_envs), start(env, model)
    actions, metrics = [], []
    for _ in range(updates):
        carry = collect(env, model, rollout, carry, g, values=False)
        actions.append(rollout.action.clone())
        metrics.append(learner.update(rollout))
    return actions, metrics, learner


class TestScaleInvariance:
    def test_powers_of_two_change_no_action_and_no_loss(self) -> None:
        one, first, base = trained(100, (1.0, 1.0), start="data")
        other, second, scaled = trained(100, (2.0**9, 2.0**-3), start="data")
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a, b)
        for a, b in zip(first, second, strict=True):
            for name in ("loss", "policy", "value", "entropy"):
                assert a[name] == pytest.approx(b[name], rel=1e-6, abs=1e-6)
        ratio = scaled.model.value_head.sigma / base.model.value_head.sigma
        torch.testing.assert_close(ratio, torch.tensor([2.0**9, 2.0**-3]).double(), rtol=1e-5, atol=0)
        assert float(base.model.value_head.sigma.min()) > 1e-3  # the bounds were not hit

    def test_any_factor_does_to_rounding_at_first(self) -> None:
        _, first, _ = trained(5, (1.0, 1.0), start="data")
        _, second, _ = trained(5, (1000.0, 0.1), start="data")
        for a, b in zip(first, second, strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-3, abs=1e-4)

    def test_raw_learning_is_not(self) -> None:
        one, _, _ = trained(20, (1.0, 1.0), normalise="none")
        other, _, _ = trained(20, (2.0**9, 2.0**-3), normalise="none")
        assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class TestOrder:
    """Each step by hand, on one rollout."""

    def test_old_statistics_then_art_then_pop_then_new(self) -> None:
        env = suite((100.0, 7.0))
        model = agent(env, beta=0.3, debias=False)
        head = model.value_head
        head.start_from(head.sums(torch.randn(50, 2, generator=torch.Generator().manual_seed(3)) * 20 + 5))
        rollout = unroll(env, model)
        rollout.logp = rollout.logp - 0.1  # off policy, a little
        task = env.task
        with torch.no_grad():
            values = active(head.denormalize(head(model.features(rollout.obs)[0])), task)
            following = values[1:].masked_fill(rollout.terminated, 0.0)
            assert not bool(rollout.truncated.any())
            logp = model.policy(rollout.obs)[0]
            logp = model.policy_head.distribution(logp.params[:-1]).log_prob(rollout.action)
            fixed = vtrace(
                logp,
                rollout.logp,
                rollout.reward[..., 0],
                values[:-1],
                following,
                rollout.terminated,
                rollout.truncated,
                0.99,
            )
        mu, nu = head.mu.clone(), head.nu.clone()
        for k in range(2):
            g = fixed.vs[:, task == k].double()
            mu[k], nu[k] = 0.7 * mu[k] + 0.3 * g.mean(), 0.7 * nu[k] + 0.3 * g.square().mean()
        sigma = (nu - mu.square()).sqrt()
        # The paper's two losses, with the value in the new units.
        f = (values[:-1].double() - mu[task]) / sigma[task]
        wanted = (fixed.vs.double() - mu[task]) / sigma[task]
        critic = 0.5 * (wanted - f).square().mean()
        rho = (logp - rollout.logp).exp().clamp(max=1)
        target = fixed.pg_advantage / rho + values[:-1]  # G^pg
        advantage = rho * ((target.double() - mu[task]) / sigma[task] - f)
        actor = -(logp * advantage).mean()
        metrics = learner_of(model, lr=0.0).update(rollout)
        torch.testing.assert_close(head.mu, mu)
        torch.testing.assert_close(head.sigma, sigma)
        assert metrics["value"] == pytest.approx(float(critic), rel=1e-4)
        assert metrics["policy"] == pytest.approx(float(actor), rel=1e-4, abs=1e-5)

    def test_pop_keeps_the_values_and_art_alone_does_not(self) -> None:
        for preserve in (True, False):
            env = suite((100.0, 7.0))
            model = agent(env, beta=0.3)
            rollout = unroll(env, model)
            before = model.value(rollout.obs).detach()
            learner_of(model, lr=0.0, preserve=preserve).update(rollout)
            after = model.value(rollout.obs).detach()
            assert torch.allclose(before, after, atol=1e-4 * float(model.value_head.sigma.max())) == preserve
            assert float(model.value_head.sigma.max()) > 3

    def test_inactive_tasks_keep_every_bit(self) -> None:
        env = TaskSuite(3, ("catch",), generator=torch.Generator().manual_seed(0))
        model = agent(env, num_tasks=3)
        before = {key: value.clone() for key, value in model.value_head.state_dict().items()}
        learner = PopArtLearner(model, torch.optim.SGD(model.parameters(), 0.1))
        learner.update(unroll(env, model))
        after = model.value_head.state_dict()
        for key, value in before.items():
            assert torch.equal(after[key][1:], value[1:]), key
            assert not torch.equal(after[key][0], value[0]), key

    def test_truncated_episodes_bootstrap_with_their_own_task(self) -> None:
        env = suite()
        model = agent(env)
        with torch.no_grad():
            model.value_head.weight.zero_()
            model.value_head.bias.copy_(torch.tensor([3.0, 50.0]))
        rollout = unroll(env, model, steps=41)
        assert bool(rollout.truncated[:, env.task == 1].any())
        learner = learner_of(model, lr=0.0, normalise="none")
        learner.update(rollout)
        sums = learner.target_sums
        assert sums is not None
        assert (
            float(sums.total[1] / sums.count[1]) > 30
        )  # 50, discounted: never the 3 of the other task, nor 0


class TestPlainLearner:
    def test_one_task_without_normalisation_is_impala(self) -> None:
        env = TaskSuite(6, ("catch",), generator=torch.Generator().manual_seed(0))
        model = agent(env)
        plain_head = ValueHead(16)
        plain_head.linear.load_state_dict({"weight": model.value_head.weight, "bias": model.value_head.bias})
        torso, head = MLPTorso((196, 16, 16), "relu", 3), CategoricalHead(16, 4)
        torso.load_state_dict(model.torso.state_dict())
        head.load_state_dict(model.policy_head.state_dict())
        plain = ActorCritic(torso, head, plain_head)
        rollout = unroll(env, model)
        mine = learner_of(model, normalise="none").update(rollout)
        theirs = VTraceLearner(plain, torch.optim.Adam(plain.parameters(), 1e-2)).update(rollout)
        assert {key: mine[key] for key in theirs} == pytest.approx(theirs, rel=1e-5)
        torch.testing.assert_close(dict(model.torso.named_parameters()), dict(torso.named_parameters()))

    def test_clipped_rewards(self) -> None:
        _, raw, _ = trained(2, (1.0, 1000.0), normalise="none")
        _, clipped, _ = trained(2, (1.0, 1000.0), normalise="none", reward_transform=SquashReward("clip"))
        assert raw[0]["value"] > 10 * clipped[0]["value"]


class TestAblations:
    def test_pooled_statistics_are_one_for_all(self) -> None:
        _, _, learner = trained(5, (1.0, 1000.0), statistics="pooled", start="data")
        sigma = learner.model.value_head.sigma
        assert sigma[0] == sigma[1]
        _, _, apart = trained(5, (1.0, 1000.0), start="data")
        assert apart.model.value_head.sigma[1] > 30 * apart.model.value_head.sigma[0]

    def test_frozen_statistics_stay(self) -> None:
        _, _, two = trained(2, (1.0, 10.0), freeze_after=2, start="data")
        _, _, ten = trained(10, (1.0, 10.0), freeze_after=2, start="data")
        assert torch.equal(two.model.value_head.mu, ten.model.value_head.mu)
        assert torch.equal(two.model.value_head.nu, ten.model.value_head.nu)

    def test_only_critic_and_only_actor(self) -> None:
        scale = 512.0
        losses = {}
        for kind in ("both", "critic", "actor"):
            _, metrics, learner = trained(1, (scale, scale), normalise=kind, start="data")
            losses[kind] = metrics[0]
        sigma = learner.model.value_head.sigma
        assert losses["critic"]["value"] == pytest.approx(losses["both"]["value"], rel=1e-4)
        assert losses["actor"]["policy"] == pytest.approx(losses["both"]["policy"], rel=1e-4)
        assert (
            float(sigma.min()) ** 2
            <= losses["actor"]["value"] / losses["both"]["value"]
            <= float(sigma.max()) ** 2
        )
        assert abs(losses["critic"]["policy"]) > 3 * abs(losses["both"]["policy"])

    def test_return_std_divides_by_each_task_s_own(self) -> None:
        env = suite((1.0, 1000.0))
        model = agent(env)
        scale = ReturnScale(0.99, env.task)
        learner = learner_of(model, normalise="none", return_scale=scale)
        assert learner.update(unroll(env, model))["value"] < 50
        assert scale.std[1] > 10 * scale.std[0]

    def test_moments_follow_the_head(self) -> None:
        one, _, _ = trained(6, (1.0, 1000.0))
        other, _, learner = trained(6, (1.0, 1000.0), rescale_optimizer=True)
        state = learner.optimizer.state[learner.model.value_head.weight]
        assert bool(state["exp_avg"].isfinite().all())
        assert len(one) == len(other)

    def test_lag_runs_through_the_actor_learner(self) -> None:
        env = suite()
        learner = learner_of(agent(env, scale_bounds=(1e-2, 1e6)), start="data")
        learner.model.value_head._warned = True  # few copies: some first targets are all zero
        with ActorLearner(
            lambda index: suite((1.0, 100.0), seed=index),
            lambda: agent(env),
            learner,
            2,
            5,
            batch_unrolls=2,
            lag=3,
        ) as system:
            lags = [turn.metrics["lag"] for turn in system.run(6)]
        assert lags == [0, 1, 2, 3, 3, 3]
        assert float(learner.model.value_head.count.min()) > 0


class TestShares:
    def test_the_large_task_pulls_and_popart_evens_it(self) -> None:
        _, raw, _ = trained(3, (1.0, 1000.0), normalise="none", shares_every=2)
        _, popart, _ = trained(3, (1.0, 1000.0), start="data", shares_every=2)
        assert raw[0]["share_1"] > 0.9
        assert popart[0]["share_0"] + popart[0]["share_1"] == pytest.approx(1)
        assert 0.1 < popart[0]["share_1"] < 0.9
        assert "share_0" not in popart[1]
        assert "share_0" in popart[2]

    def test_measuring_changes_nothing(self) -> None:
        _, _, one = trained(3, (1.0, 10.0), start="data")
        _, _, other = trained(3, (1.0, 10.0), start="data", shares_every=1)
        torch.testing.assert_close(one.model.state_dict(), other.model.state_dict())

    def test_parts_add_up_to_the_gradient(self) -> None:
        # One task alone holds all of it.
        env = TaskSuite(3, ("catch",), generator=torch.Generator().manual_seed(0))
        model = agent(env, num_tasks=2)
        metrics = learner_of(model, shares_every=1).update(unroll(env, model))
        assert (metrics["share_0"], metrics["share_1"]) == (1, 0)

    def test_evenness(self) -> None:
        rows = torch.tensor([[0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25]])
        found = summarise_shares(rows)
        assert found.evenness == pytest.approx((0.5 + 1) / 2)
        torch.testing.assert_close(found.shares, rows.mean(0))
        with pytest.raises(ValueError, match="two"):
            summarise_shares(rows[:, :1])


class TestTaskReturns:
    def test_against_a_loop(self) -> None:
        env = TaskSuite(3, ("catch", "snack", "goal"), generator=torch.Generator().manual_seed(0))
        model = agent(env)
        returns, rollout, carry = TaskReturns(3), Rollout(7, env.num_envs), start(env, model)
        open_sum = [0.0] * env.num_envs
        g = torch.Generator().manual_seed(0)
        for _ in range(14):
            carry = collect(env, model, rollout, carry, g, values=False)
            sums, counts = [0.0] * 3, [0] * 3
            for t in range(7):
                for i in range(env.num_envs):
                    open_sum[i] += float(rollout.reward[t, i, 0])
                    if rollout.ended[t, i]:
                        sums[env.task[i]] += open_sum[i]
                        counts[env.task[i]] += 1
                        open_sum[i] = 0.0
            got = returns.add(rollout)
            torch.testing.assert_close(got[0], torch.tensor(sums).double(), atol=1e-5, rtol=1e-5)
            assert got[1].tolist() == counts

    def test_actors_are_kept_apart_whatever_their_order(self) -> None:
        def piece(actor: int, made: int, reward: list[float], end: int | None) -> Rollout:
            part = Rollout(2, 1)
            part.reward = torch.tensor(reward)[:, None, None]
            part.terminated = torch.tensor([[t == end] for t in range(2)])
            part.truncated = torch.zeros(2, 1, dtype=torch.bool)
            part.valid = torch.ones(2, 1, dtype=torch.bool)
            part.task = torch.tensor([actor])
            part.origin = torch.tensor([[actor, made]])
            return part

        returns = TaskReturns(2)
        sums, counts = returns.add(Rollout.stack([piece(0, 0, [1, 2], None), piece(1, 0, [10, 20], 0)]))
        assert (sums.tolist(), counts.tolist()) == ([0, 10], [0, 1])
        both = [piece(1, 2, [0, 7], 1), piece(0, 1, [4, 8], 0), piece(1, 1, [40, 50], None)]
        sums, counts = returns.add(Rollout.stack(both))
        assert (sums.tolist(), counts.tolist()) == ([7, 20 + 40 + 50 + 7], [1, 1])


class TestSampler:
    def a_roll(self, task: int) -> Rollout:
        rollout = Rollout(1, 2)
        rollout.task = torch.full((2,), task)
        return rollout

    def test_tasks_come_equally_often(self) -> None:
        sampler = TaskBalancedSampler(3, torch.Generator().manual_seed(0))
        for task in [0] * 9 + [1] * 2 + [2]:
            sampler.add(self.a_roll(task))
        assert len(sampler) == 3 + 2 + 1
        for _ in range(5):
            kinds = [int(r.task[0]) for r in sampler.sample(4)]
            counts = [kinds.count(k) for k in range(3)]
            assert sorted(counts) == [1, 1, 2]
        assert max(sampler.served.values()) - min(sampler.served.values()) <= 1
        assert sampler.tasks == [0, 1, 2]

    def test_is_a_replay_for_actors(self) -> None:
        env = suite()
        sampler = TaskBalancedSampler(4)
        learner = learner_of(agent(env))

        def world(index: int) -> MultiTask:
            return TaskSuite(2, TASKS[index : index + 1], labels=(index,))

        with ActorLearner(
            world, lambda: agent(env), learner, 2, 5, batch_unrolls=4, replay=sampler
        ) as system:
            turns = list(system.run(3))
        assert turns[-1].rollout.task.tolist() == [0, 0, 1, 1] * 2

    def test_actors_are_shared_out(self) -> None:
        assert tasks_of_actors(5, 2) == [0, 1, 0, 1, 0]
        with pytest.raises(ValueError, match="as many actors"):
            tasks_of_actors(2, 3)


class TestPixelControl:
    def test_changes_by_hand(self) -> None:
        obs = torch.zeros(2, 1, 1, 4, 6)
        obs[1, 0, 0, 0, 0] = 1.0
        obs[1, 0, 0, 3, 5] = 9.0  # the columns left over do not count
        change = pixel_changes(obs, 4)
        assert change.shape == (1, 1, 1, 1)
        assert change.item() == pytest.approx(1 / 16)
        assert pixel_changes((obs * 20).byte(), 2)[0, 0, 0, 0].item() == pytest.approx(20 / 255 / 4)

    def test_loss_by_hand(self) -> None:
        rollout = Rollout(2, 1)
        rollout.obs = torch.tensor([0.0, 1.0, 3.0]).view(3, 1, 1, 1, 1)
        rollout.action = torch.tensor([[0], [1]])
        rollout.terminated = rollout.truncated = torch.zeros(2, 1, dtype=torch.bool)
        rollout.valid = torch.ones(2, 1, dtype=torch.bool)
        q = torch.tensor([[0.5, 9], [9, 0.25], [4, 2]]).view(3, 1, 2, 1, 1)
        out = PolicyOutput(
            Categorical(torch.zeros(3, 1, 2)), torch.zeros(3, 1, 1), None, {"pixel_control": q}
        )
        loss = PixelControl(weight=2.0, gamma=0.5, cell=1)(rollout, out)["pixel_control"]
        second = 2 + 0.5 * 4
        first = 1 + 0.5 * second
        assert loss.item() == pytest.approx(2 * 0.5 * ((first - 0.5) ** 2 + (second - 0.25) ** 2) / 2)
        rollout.terminated = torch.tensor([[True], [False]])
        loss = PixelControl(weight=2.0, gamma=0.5, cell=1)(rollout, out)["pixel_control"]
        assert loss.item() == pytest.approx(2 * 0.5 * ((0 - 0.5) ** 2 + (second - 0.25) ** 2) / 2)

    def test_trains_with_the_learner(self) -> None:
        env = suite()
        model = agent(env)
        model.aux_heads["pixel_control"] = PixelControlHead(16, 4, (3, 3))
        hook = PixelControl(weight=0.1, cell=2)
        learner = learner_of(model, aux_losses=[hook])
        rollout = unroll(env, model)
        losses = [learner.update(rollout)["pixel_control"] for _ in range(30)]
        assert losses[-1] < 0.7 * losses[0]

    def test_bad_input(self) -> None:
        env = suite()
        model = agent(env)
        with pytest.raises(ValueError, match="aux_heads"):
            learner_of(model, aux_losses=[PixelControl()]).update(unroll(env, model))
        with pytest.raises(ValueError, match="gamma"):
            PixelControl(gamma=1.0)
        with pytest.raises(ValueError, match="cell that fits"):
            pixel_changes(torch.zeros(2, 1, 1, 4, 4), 5)


class TestModel:
    def test_values_are_in_units_of_return_and_rows_pick_their_own(self) -> None:
        env = suite()
        model = agent(env)
        model.value_head.start_from(model.value_head.sums(torch.tensor([[10.0, 0.0], [30.0, 2.0]])))
        obs, _ = env.reset()
        out = model(obs)
        torch.testing.assert_close(out.value, model.value(obs))
        f = model.value_head(out.aux["features"])
        torch.testing.assert_close(out.value[:, 0], f[:, 0] * 10 + 20)
        torch.testing.assert_close(out.value[:, 1], f[:, 1] + 1)
        picked = active(out.value, env.task)
        torch.testing.assert_close(picked, torch.stack([out.value[i, k] for i, k in enumerate(env.task)]))

    def test_memory(self) -> None:
        env = suite()
        model = multitask_actor_critic(env, 2, (16,), lstm=8)
        learner = learner_of(model, start="data", shares_every=1)
        assert math.isfinite(learner.update(unroll(env, model, steps=45))["loss"])
        assert len(model.shared_parameters()) == 2 + 4

    def test_value_gain_zero_begins_at_zero(self) -> None:
        env = suite()
        model = multitask_actor_critic(env, 2, value_gain=0.0)
        assert not bool(model.value(env.reset()[0]).any())

    def test_bad_input(self) -> None:
        env = suite()
        model = agent(env)
        plain = ActorCritic(model.torso, model.policy_head, ValueHead(16))
        with pytest.raises(TypeError, match="MultiTaskActorCritic"):
            PopArtLearner(plain, torch.optim.SGD(plain.parameters(), 0.1))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="PopArtHead"):
            MultiTaskActorCritic(model.torso, model.policy_head, ValueHead(16))  # type: ignore[arg-type]
        for bad in (
            {"normalise": "all"},
            {"statistics": "none"},
            {"start": "zero"},
            {"freeze_after": 0},
            {"shares_every": 0},
            {"rescale_optimizer": True, "preserve": False},
        ):
            with pytest.raises(ValueError, match=r"is one of|at least 1|rescale_optimizer"):
                learner_of(model, **bad)
        rollout = unroll(env, model)
        rollout.task = None
        with pytest.raises(ValueError, match="tasks"):
            learner_of(model).update(rollout)
        clash = [lambda rollout, out: {"loss": out.value.sum()}]
        with pytest.raises(ValueError, match="names of their own"):
            learner_of(model, aux_losses=clash).update(unroll(env, model))


class TestHeadAdditions:
    def test_start_takes_the_statistics_and_leaves_the_layer(self) -> None:
        head = PopArtHead(3, 2, debias=True, per="batch", beta=0.1)
        weight = head.weight.detach().clone()
        head.start_from(head.sums(torch.tensor([2.0, 6.0]), torch.tensor([1, 1])))
        assert (head.mu.tolist(), head.sigma.tolist()) == ([0, 4], [1, 2])
        assert torch.equal(head.weight, weight)
        assert head.count.tolist() == [0, 2]
        with pytest.raises(ValueError, match="no update yet"):
            head.last_transform()
        # As after a first debiased update: the second batch weighs about a half.
        head.update(torch.tensor([104.0]), torch.tensor([1]))
        assert head.mu[1].item() == pytest.approx(4 + 100 * 0.1 / 0.19)

    def test_art_alone_leaves_the_layer(self) -> None:
        head = PopArtHead(3, 1, beta=0.5, per="batch")
        weight = head.weight.detach().clone()
        head.update(torch.tensor([[50.0], [70.0]]), preserve=False)
        assert torch.equal(head.weight, weight)
        assert head.mu.item() == 30
        with pytest.raises(ValueError, match="rewrote"):
            head.last_transform()


class TestMultiTaskLabels:
    def test_labels_name_the_tasks(self) -> None:
        makers = [partial(Catch, view="planes"), partial(Catch, view="planes")]
        env = MultiTask(makers, 2, labels=(5, 3), reward_scales=(1, 100))
        assert env.task.tolist() == [5, 5, 3, 3]
        assert env._row_scale.tolist() == [1, 1, 100, 100]
        with pytest.raises(ValueError, match="labels"):
            MultiTask(makers, 2, labels=(1,))

    def test_a_seed_at_reset_repeats(self) -> None:
        env = suite()
        first, _ = env.reset(seed=4)
        for _ in range(3):
            env.step(torch.zeros(env.num_envs, dtype=torch.int64))
        again, _ = env.reset(seed=4)
        assert torch.equal(first, again)
        with pytest.raises(ValueError, match="no reset options"):
            env.reset(options={"a": 1})
