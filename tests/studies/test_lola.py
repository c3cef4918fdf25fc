"""The LOLA study: pairs are independent of their companions, runs repeat, the page's numbers are true."""

from pathlib import Path

import pytest
import torch

from assay.envs import CoinGame
from assay.games import ipd
from assay.lab import registry
from assay.lab.trial import Batch, Trial
from assay.optim.opponent import lola_policy_gradient, opponent_shaping_grad

SMALL = {"exact.steps": 30, "rollout.updates": 4, "rollout.rollouts": 32, "rollout.horizon": 20}


@pytest.fixture(scope="module")
def study():
    return registry.load("lola")


def run_pairs(study, folder: Path, pairs, changes=None, profile="smoke"):
    experiment = study.experiment(pairs[0][0])
    config = study.part(pairs[0][0], study.configure(profile, changes or {}))
    settings = {
        "study": "lola", "profile": profile, "device": "cpu", "folder": folder, "time_limit": 600.0, "report": None,
    }  # fmt: skip
    if experiment.batch:
        return list(experiment.function(Batch(pairs, **settings), pairs, config))
    return [experiment.function(Trial(arm, seed, **settings), arm, config) for arm, seed in pairs]


@pytest.mark.parametrize(
    "arm",
    [
        "ipd/lola", "imp/sos", "mixed/lola-vs-nl", "reparam/mlp-10", "reparam/scaled-3", "pg/lola", "pg/lola-om",
        "dice/lookahead-2", "know/episodes-4", "know/noisy-rewards", "know/vs-q", "basin/lola-from-naive",
        "toy/lookahead", "tournament/wolf", "ring/lookahead", "ring/unrolled",
    ],
)  # fmt: skip
def test_a_pair_alone_and_in_company(study, tmp_path, arm):
    company = run_pairs(study, tmp_path, [(arm, seed) for seed in (3, 7, 11)], SMALL)
    (alone,) = run_pairs(study, tmp_path, [(arm, 7)], SMALL)
    assert alone == pytest.approx(company[1], abs=2e-4)
    assert company[1] != company[0]


def test_arms_of_a_tournament_do_not_depend_on_each_other(study, tmp_path):
    pairs = [("tournament/phc", 2), ("tournament/lola", 2), ("tournament/lola", 5)]
    together = run_pairs(study, tmp_path, pairs)
    for pair, metrics in zip(pairs, together, strict=True):
        assert run_pairs(study, tmp_path, [pair])[0] == pytest.approx(metrics, abs=1e-6)


@pytest.mark.parametrize("arm", ["ipd/lola", "pg/lola", "coin/lola-om", "tournament-imp/jal", "ring/lola"])
def test_the_same_trial_twice_is_the_same(study, tmp_path, arm):
    assert run_pairs(study, tmp_path, [(arm, 1)]) == run_pairs(study, tmp_path, [(arm, 1)])


def test_rollouts_climb_the_exact_return(study, tmp_path):
    """A few updates already show the direction: naive down to defection, LOLA up."""
    changes = {"rollout.updates": 12, "rollout.rollouts": 256, "rollout.horizon": 100}
    pairs = [("pg/nl", s) for s in range(100, 104)], [("pg/lola", s) for s in range(100, 104)]
    naive, lola = (sum(m["return"] for m in run_pairs(study, tmp_path, p, changes)) / 4 for p in pairs)
    assert naive < -1.95
    assert lola > -1.6


def test_the_gradient_table_of_the_page(study):
    """The page prints the closed form at even policies; here it is computed."""
    zero = torch.zeros(5, dtype=torch.float64)
    theta1, theta2 = (zero.clone().requires_grad_() for _ in range(2))
    value, _ = ipd().value(theta1, theta2)
    own, effect = torch.autograd.grad(value, (theta1, theta2))
    naive = opponent_shaping_grad(ipd().losses, zero, zero.clone(), 1.0, "naive")[0]
    term = naive - opponent_shaping_grad(ipd().losses, zero, zero.clone(), 1.0, "lola")[0]
    page = registry.page_text(study)
    for name, row in (("the naive gradient", own), ("worth", effect), ("LOLA's term", term)):
        (line,) = [text for text in page.splitlines() if text.startswith("|") and name in text]
        printed = [float(cell) for cell in line.split("|")[2:-1]]
        assert printed == pytest.approx(row.tolist(), abs=1e-9)


def test_figures_need_only_what_is_there(study):
    from assay.lab import Results

    empty = Results(study, "laptop", study.config, [])
    drawn = [spec.name for spec in study.figures if spec.function(empty) is not None]
    assert drawn == ["even-policies"]


@pytest.mark.parametrize("kind", ["mlp", "conv", "conv-lstm"])
def test_coin_policies_replay_what_they_sampled(study, kind):
    """Step by step and in one go give the same probabilities, and LOLA's gradient passes through."""
    from assay.studies.lola.coin import CoinPolicy, log_prob, trace

    torch.manual_seed(0)
    players = CoinPolicy(kind), CoinPolicy(kind)
    seen = trace(CoinGame(6, max_steps=9, generator=torch.Generator().manual_seed(0)), players, 5)
    logp = [log_prob(p, seen["obs"][:, :, i], seen["actions"][..., i]) for i, p in enumerate(players)]
    state, steps = None, []
    for obs in seen["obs"][:, :, 0]:
        logits, state = players[0](obs.unsqueeze(0), state)
        steps.append(logits.log_softmax(-1)[0])
    taken = torch.stack(steps).gather(-1, seen["actions"][..., :1]).squeeze(-1)
    torch.testing.assert_close(logp[0], taken)
    rewards = seen["rewards"]
    g1, g2 = lola_policy_gradient(*logp, rewards[..., 0], rewards[..., 1], *players, gamma=0.9, eta=0.5)
    assert set(g1) == {name for name, _ in players[0].named_parameters()}
    assert all(torch.isfinite(g).all() for g in (*g1.values(), *g2.values()))
    naive, _ = lola_policy_gradient(
        *logp, rewards[..., 0], rewards[..., 1], *players, gamma=0.9, eta=0.5, mode="naive"
    )
    assert any((naive[k] - g1[k]).abs().max() > 1e-9 for k in g1)
    if kind != "mlp":
        before = players[0](seen["obs"][:1, :, 0])[0]
        players[0].observe(seen["obs"][:, :, 0])
        assert not torch.allclose(before, players[0](seen["obs"][:1, :, 0])[0])
    with pytest.raises(ValueError, match="unknown policy"):
        CoinPolicy("transformer")


def test_usage_runs(study):
    torch.manual_seed(1)
    scope: dict = {}
    exec(study.usage, scope)
    with torch.no_grad():
        assert sum(map(float, scope["game"].average_return(scope["theta1"], scope["theta2"]))) > -2.6
