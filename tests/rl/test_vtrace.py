"""V-trace against its definition, the exact operator, the worked cases of the contract, and a peer."""

import math
import warnings

import pytest
import torch
from torch import Tensor

from assay.rl.losses import policy_gradient_loss, value_loss
from assay.rl.returns import gae
from assay.rl.vtrace import (
    CORRECTIONS,
    corrected_targets,
    vtrace,
    vtrace_fixed_point_policy,
    vtrace_operator,
)
from tests.rl.test_returns import rollout

F64 = torch.float64
P = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.1, 0.9]]], dtype=F64)
R = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=F64)
PI = torch.tensor([[0.8, 0.2], [0.3, 0.7]], dtype=F64)
MU = torch.tensor([[0.5, 0.5], [0.6, 0.4]], dtype=F64)
V_PI, V_MU = torch.tensor([10.521401, 11.688716], dtype=F64), torch.tensor([6.498150, 6.868064], dtype=F64)


def off_policy(seed: int, **sizes: int) -> dict[str, Tensor]:
    r = rollout(seed, **sizes)
    g = torch.Generator().manual_seed(seed + 1000)
    shape = r["reward"].shape[:2]
    return {
        "logp_target": torch.randn(shape, generator=g, dtype=F64) * 0.7,
        "logp_behaviour": torch.randn(shape, generator=g, dtype=F64) * 0.7,
        **r,
    }


def vtrace_by_sums(
    r: dict[str, Tensor], gamma: float, rho_bar: float, c_bar: float, lam: float
) -> tuple[Tensor, Tensor]:
    """The definition of section 4.1, equation 1, episode by episode."""
    ratio = (r["logp_target"] - r["logp_behaviour"]).exp()
    steps, envs = ratio.shape
    vs, pg = torch.zeros_like(ratio), torch.zeros_like(ratio)
    for n in range(envs):
        for s in range(steps):
            vs[s, n] = r["value"][s, n]
            trace = 1.0
            for t in range(s, steps):
                alive = 0.0 if r["terminated"][t, n] else 1.0
                error = r["reward"][t, n] + gamma * alive * r["next_value"][t, n] - r["value"][t, n]
                vs[s, n] += gamma ** (t - s) * trace * min(rho_bar, float(ratio[t, n])) * error
                trace *= lam * min(c_bar, float(ratio[t, n]))
                if r["terminated"][t, n] or r["truncated"][t, n]:
                    break
    for n in range(envs):
        for s in range(steps):
            ended = bool(r["terminated"][s, n] or r["truncated"][s, n])
            follows = r["next_value"][s, n] if ended or s == steps - 1 else vs[s + 1, n]
            alive = 0.0 if r["terminated"][s, n] else 1.0
            q = r["reward"][s, n] + gamma * alive * follows
            pg[s, n] = min(rho_bar, float(ratio[s, n])) * (q - r["value"][s, n])
    return vs, pg


class TestTrajectories:
    def test_worked_case(self) -> None:
        def column(*x: float) -> Tensor:
            return torch.tensor(x, dtype=F64)[:, None]

        out = vtrace(
            column(0.5, 2, 1.5, 0.8).log(),
            torch.zeros(4, 1, dtype=F64),
            column(1, 0, 0, 2),
            column(0.5, 0.4, 0.3, 0.2),
            column(0.4, 0.9, 0.2, 0.6),
            column(0, 0, 0, 1).bool(),
            column(0, 1, 0, 0).bool(),
            0.9,
        )
        torch.testing.assert_close(out.vs, column(1.1145, 0.81, 1.476, 1.64))
        torch.testing.assert_close(out.pg_advantage, column(0.6145, 0.41, 1.176, 1.44))
        torch.testing.assert_close(out.rho, column(0.5, 2, 1.5, 0.8))

    @pytest.mark.parametrize(
        ("rho_bar", "c_bar", "lam"),
        [(1.0, 1.0, 1.0), (2.0, 0.5, 0.9), (math.inf, 1.0, 1.0), (math.inf, math.inf, 1.0)],
    )
    @pytest.mark.parametrize("steps", [10, 40])
    def test_definition(self, rho_bar: float, c_bar: float, lam: float, steps: int) -> None:
        r = off_policy(0, steps=steps)
        vs, pg = vtrace_by_sums(r, 0.95, rho_bar, c_bar, lam)
        out = vtrace(**r, gamma=0.95, rho_bar=rho_bar, c_bar=c_bar, lam=lam)
        torch.testing.assert_close(out.vs, vs, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(out.pg_advantage, pg, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("bar", [1.0, 3.0])
    def test_on_policy_is_gae_with_lambda_one(self, bar: float) -> None:
        r = off_policy(1, steps=40)
        r["logp_target"] = r["logp_behaviour"]
        plain = {k: r[k] for k in ("reward", "value", "next_value", "terminated", "truncated")}
        advantage = gae(**plain, gamma=0.97, lam=1.0)
        out = vtrace(**r, gamma=0.97, rho_bar=bar, c_bar=bar)
        torch.testing.assert_close(out.vs, advantage + r["value"], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(out.pg_advantage, advantage, rtol=1e-10, atol=1e-10)

    def test_an_end_in_the_batch_equals_two_batches(self) -> None:
        r = off_policy(2, steps=40)
        r["truncated"][11], r["terminated"][11] = True, False
        whole = vtrace(**r, gamma=0.95)
        parts = [vtrace(**{k: x[s] for k, x in r.items()}, gamma=0.95) for s in (slice(12), slice(12, 40))]
        for i in range(3):
            torch.testing.assert_close(whole[i], torch.cat([p[i] for p in parts]), rtol=1e-10, atol=1e-10)

    def test_the_policy_gradient_has_its_own_bar(self) -> None:
        r = off_policy(3)
        default, own = vtrace(**r, gamma=0.9), vtrace(**r, gamma=0.9, pg_rho_bar=math.inf)
        torch.testing.assert_close(default.vs, own.vs)
        expected = default.pg_advantage * own.rho / own.rho.clamp(max=1)
        torch.testing.assert_close(own.pg_advantage, expected)
        assert not torch.allclose(default.pg_advantage, own.pg_advantage)

    def test_extreme_ratios_stay_finite(self) -> None:
        r = {k: x.float() if x.is_floating_point() else x for k, x in off_policy(4).items()}
        r["logp_target"] = torch.where(torch.arange(12)[:, None] % 2 == 0, 50.0, -50.0).expand(12, 5)
        r["logp_behaviour"] = torch.zeros(12, 5)
        for out in (vtrace(**r, gamma=0.99), vtrace(**r, gamma=0.99, rho_bar=math.inf)):
            assert all(x.isfinite().all() for x in out)

    def test_streams_share_the_ratios(self) -> None:
        r = off_policy(5, streams=2)
        both = vtrace(**r, gamma=torch.tensor([0.9, 0.99], dtype=F64))
        for k, gamma in enumerate((0.9, 0.99)):
            one = vtrace(**{key: x[..., k] if x.ndim == 3 else x for key, x in r.items()}, gamma=gamma)
            torch.testing.assert_close(both.vs[..., k], one.vs)
            torch.testing.assert_close(both.pg_advantage[..., k], one.pg_advantage)

    def test_invalid_rows_enter_nothing(self) -> None:
        r = off_policy(6, steps=6, envs=1)
        r["terminated"] = torch.zeros(6, 1, dtype=torch.bool)
        r["truncated"] = torch.arange(6)[:, None] == 2
        valid = torch.arange(6)[:, None] != 3
        out = vtrace(**r, gamma=0.9, valid=valid)
        r["reward"] = torch.where(valid, r["reward"], torch.nan)
        dirty = vtrace(**r, gamma=0.9, valid=valid)
        torch.testing.assert_close(out.vs, dirty.vs)
        torch.testing.assert_close(out.pg_advantage, dirty.pg_advantage)
        assert dirty.pg_advantage[3, 0] == 0
        assert dirty.vs[3, 0] == r["value"][3, 0]

    def test_gradients_flow_through_log_pi_and_value_only(self) -> None:
        r = off_policy(7)
        for key in ("logp_target", "logp_behaviour", "reward", "value", "next_value"):
            r[key] = r[key].clone().requires_grad_()
        out = vtrace(**r, gamma=0.9)
        assert not any(x.requires_grad for x in out)
        loss = policy_gradient_loss(r["logp_target"], out.pg_advantage) + value_loss(r["value"], out.vs)
        loss.backward()
        torch.testing.assert_close(r["logp_target"].grad, -out.pg_advantage / 60)
        torch.testing.assert_close(r["value"].grad, (r["value"] - out.vs).detach() / 60)
        assert r["next_value"].grad is None
        assert r["logp_behaviour"].grad is None

    def test_parity_with_torchrl(self) -> None:
        functional = pytest.importorskip(
            "torchrl.objectives.value.functional", reason="the peer torchrl is not installed"
        )
        r = {k: x.float() if x.is_floating_point() else x for k, x in off_policy(8, steps=50).items()}
        t = {k: x.T[..., None] for k, x in r.items()}
        advantage, target = functional.vtrace_advantage_estimate(
            0.99,
            t["logp_target"],
            t["logp_behaviour"],
            t["value"],
            t["next_value"],
            t["reward"],
            done=t["terminated"] | t["truncated"],
            terminated=t["terminated"],
            rho_thresh=2.0,
            c_thresh=1.0,
        )
        out = vtrace(**r, gamma=0.99, rho_bar=2.0)
        torch.testing.assert_close(out.vs, target[..., 0].T, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(out.pg_advantage, advantage[..., 0].T, rtol=1e-5, atol=1e-5)
        logp, value = r["logp_target"].clone().requires_grad_(), r["value"].clone().requires_grad_()
        ours = policy_gradient_loss(logp, out.pg_advantage) + value_loss(value, out.vs)
        peer = (-logp * advantage[..., 0].T).mean() + 0.5 * (value - target[..., 0].T).square().mean()
        for mine, theirs in zip(
            torch.autograd.grad(ours, (logp, value)), torch.autograd.grad(peer, (logp, value)), strict=True
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)

    def test_bad_input(self) -> None:
        r = off_policy(9)
        for bars in ({"rho_bar": -1.0}, {"c_bar": -0.1}, {"pg_rho_bar": -2.0}, {"rho_bar": math.nan}):
            with pytest.raises(ValueError, match="not negative"):
                vtrace(**r, gamma=0.9, **bars)
        with pytest.warns(UserWarning, match="below c_bar"):
            vtrace(**r, gamma=0.9, rho_bar=0.5)
        with pytest.raises(ValueError, match="at least one step"):
            vtrace(**{k: x[:0] for k, x in r.items()}, gamma=0.9)
        with pytest.raises(ValueError, match="log-probabilities"):
            vtrace(**{**r, "logp_behaviour": r["logp_behaviour"][:, :2]}, gamma=0.9)
        with pytest.raises(ValueError, match="next_value"):
            vtrace(**{**r, "next_value": r["next_value"][:, :2]}, gamma=0.9)


class TestCorrections:
    def test_every_kind_is_itself_when_on_policy(self) -> None:
        r = off_policy(10)
        r["logp_target"] = r["logp_behaviour"]
        base = vtrace(**r, gamma=0.9)
        for kind in CORRECTIONS:
            out = corrected_targets(kind, **r, gamma=0.9, q=r["value"])
            torch.testing.assert_close(out.targets, base.vs, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(out.pg_advantage, base.pg_advantage, rtol=1e-10, atol=1e-10)
            assert out.epsilon == (1e-6 if kind == "epsilon" else 0.0)

    def test_what_each_kind_changes(self) -> None:
        r = off_policy(11)
        out = {kind: corrected_targets(kind, **r, gamma=0.9, q=r["value"]) for kind in CORRECTIONS}
        plain = vtrace(**{**r, "logp_target": r["logp_behaviour"]}, gamma=0.9)
        for kind in ("none", "epsilon", "onestep"):
            torch.testing.assert_close(out[kind].targets, plain.vs)
        for kind in ("none", "epsilon"):
            torch.testing.assert_close(out[kind].pg_advantage, plain.pg_advantage)
        rho = (r["logp_target"] - r["logp_behaviour"]).exp()
        torch.testing.assert_close(out["onestep"].pg_advantage, rho * plain.pg_advantage)
        torch.testing.assert_close(out["vtrace"].targets, vtrace(**r, gamma=0.9).vs)
        torch.testing.assert_close(
            out["is"].targets, vtrace(**r, gamma=0.9, rho_bar=math.inf, c_bar=math.inf).vs
        )
        capped = corrected_targets("onestep", **r, gamma=0.9, pg_rho_bar=1.0)
        torch.testing.assert_close(capped.pg_advantage, rho.clamp(max=1) * plain.pg_advantage)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            corrected_targets("is", **r, gamma=0.9, rho_bar=0.5)  # its bars are not used

    def test_full_importance_sampling_is_the_product_of_ratios(self) -> None:
        # One step of reward at the end of three, V = 0: the target is the product of all ratios.
        ratio = torch.tensor([[2.0], [3.0], [0.5]], dtype=F64)
        zero, off = torch.zeros(3, 1, dtype=F64), torch.zeros(3, 1, dtype=torch.bool)
        reward, end = torch.tensor([[0.0], [0.0], [1.0]], dtype=F64), torch.tensor([[False], [False], [True]])
        out = corrected_targets("is", ratio.log(), zero, reward, zero, zero, end, off, 1.0)
        torch.testing.assert_close(out.targets, torch.tensor([[3.0], [1.5], [0.5]], dtype=F64))

    def test_retrace_definition(self) -> None:
        r = off_policy(12, steps=8)
        q = torch.randn(8, 5, dtype=F64, generator=torch.Generator().manual_seed(0))
        out = corrected_targets("retrace", **r, gamma=0.9, q=q, lam=0.9)
        c = 0.9 * (r["logp_target"] - r["logp_behaviour"]).exp().clamp(max=1)
        expected = q.clone()
        for n in range(5):
            for s in range(8):
                trace = 1.0
                for t in range(s, 8):
                    trace = trace * (float(c[t, n]) if t > s else 1.0)
                    alive = 0.0 if r["terminated"][t, n] else 1.0
                    delta = r["reward"][t, n] + 0.9 * alive * r["next_value"][t, n] - q[t, n]
                    expected[s, n] += 0.9 ** (t - s) * trace * delta
                    if r["terminated"][t, n] or r["truncated"][t, n]:
                        break
        torch.testing.assert_close(out.targets, expected, rtol=1e-10, atol=1e-10)

    def test_epsilon_enters_the_gradient(self) -> None:
        logp = torch.tensor([-20.0, -1.0], dtype=F64, requires_grad=True)
        policy_gradient_loss(logp, torch.ones(2, dtype=F64), reduction="sum", epsilon=1e-6).backward()
        p = logp.detach().exp()
        torch.testing.assert_close(logp.grad, -p / (p + 1e-6))

    def test_bad_input(self) -> None:
        r = off_policy(13)
        with pytest.raises(ValueError, match="give q"):
            corrected_targets("retrace", **r, gamma=0.9)
        with pytest.raises(ValueError, match="epsilon"):
            corrected_targets("epsilon", **r, gamma=0.9, epsilon=-1.0)
        with pytest.raises(ValueError, match="unknown correction 'vtrac'"):
            corrected_targets("vtrac", **r, gamma=0.9)


class TestOperator:
    @pytest.mark.parametrize(
        ("rho_bar", "expected"),
        [
            (0.5, (6.721077, 7.036082)),
            (1.0, (9.026578, 9.724252)),
            (1.5, (10.167984, 11.189065)),
            (1.75, tuple(V_PI.tolist())),
            (4.0, tuple(V_PI.tolist())),
            (math.inf, tuple(V_PI.tolist())),
        ],
    )
    @pytest.mark.parametrize("c_bar", [0.25, 1.0, 2.0, math.inf])
    @pytest.mark.filterwarnings("ignore:rho_bar")
    def test_fixed_points_of_the_contract(
        self, rho_bar: float, expected: tuple[float, float], c_bar: float
    ) -> None:
        matrix, vector = vtrace_operator(P, R, 0.9, PI, MU, rho_bar, c_bar)
        fixed = torch.linalg.solve(torch.eye(2, dtype=F64) - matrix, vector)
        torch.testing.assert_close(fixed, torch.tensor(expected, dtype=F64), rtol=0, atol=1e-6)
        policy = vtrace_fixed_point_policy(PI, MU, rho_bar)
        chain, reward = torch.einsum("sa,sat->st", policy, P), (policy * R).sum(1)
        value = torch.linalg.solve(torch.eye(2, dtype=F64) - 0.9 * chain, reward)
        torch.testing.assert_close(fixed, value, rtol=0, atol=1e-10)

    def test_speed_depends_on_the_trace(self) -> None:
        matrix, vector = vtrace_operator(P, R, 0.9, PI, MU, 2.0, 2.0)
        torch.testing.assert_close(vector, V_PI, rtol=0, atol=1e-6)  # one application from zero
        matrix, vector = vtrace_operator(P, R, 0.9, PI, MU, 2.0, 1.0)
        v = torch.zeros(2, dtype=F64)
        for _ in range(10):
            v = matrix @ v + vector
        assert float((v - V_PI).abs().max()) == pytest.approx(0.476, abs=5e-4)

    def test_small_bars_tend_to_the_behaviour_policy(self) -> None:
        torch.testing.assert_close(vtrace_fixed_point_policy(PI, MU, 1e-6), MU)
        torch.testing.assert_close(vtrace_fixed_point_policy(PI, MU, math.inf), PI)

    def test_is_batched(self) -> None:
        g = torch.Generator().manual_seed(0)
        p = torch.rand(3, 4, 2, 4, generator=g, dtype=F64)
        p = p / p.sum(-1, keepdim=True)
        r = torch.randn(3, 4, 2, generator=g, dtype=F64)
        pi, mu = (torch.softmax(torch.randn(3, 4, 2, generator=g, dtype=F64), -1) for _ in range(2))
        matrix, vector = vtrace_operator(p, r, 0.95, pi, mu)
        for k in range(3):
            m, b = vtrace_operator(p[k], r[k], 0.95, pi[k], mu[k])
            torch.testing.assert_close(matrix[k], m)
            torch.testing.assert_close(vector[k], b)

    def test_sampled_targets_agree_with_the_operator(self) -> None:
        # 20,000 trajectories of the MDP under mu: the mean target at each start state is (M V + b) of the operator.
        g = torch.Generator().manual_seed(0)
        copies, steps, gamma = 20_000, 60, 0.8
        value = torch.tensor([1.0, -2.0], dtype=F64)
        state = torch.arange(copies) % 2
        start, rows = state, []
        for _ in range(steps):
            action = torch.multinomial(MU[state], 1, generator=g)[:, 0]
            following = torch.multinomial(P[state, action], 1, generator=g)[:, 0]
            rows.append(
                (
                    PI[state, action].log(),
                    MU[state, action].log(),
                    R[state, action],
                    value[state],
                    value[following],
                )
            )
            state = following
        off = torch.zeros(steps, copies, dtype=torch.bool)
        out = vtrace(*(torch.stack(x) for x in zip(*rows, strict=True)), off, off, gamma, rho_bar=1.5)
        matrix, vector = vtrace_operator(P, R, gamma, PI, MU, 1.5, 1.0)
        for s in range(2):
            sample = out.vs[0][start == s]
            error = float(sample.std()) / math.sqrt(len(sample))
            assert float(sample.mean()) == pytest.approx(float((matrix @ value + vector)[s]), abs=4 * error)

    def test_bad_input(self) -> None:
        with pytest.raises(ValueError, match="not negative"):
            vtrace_operator(P, R, 0.9, PI, MU, -1.0)
        with pytest.raises(ValueError, match="gamma"):
            vtrace_operator(P, R, 1.0, PI, MU)
        with pytest.raises(ValueError, match="positive"):
            vtrace_fixed_point_policy(PI, MU, 0.0)
