"""The RND study: what is counted, what each arm really changes, and that the paper's profile is real code."""

from pathlib import Path

import numpy as np
import pytest
import torch

from assay._extras import MissingExtra
from assay.envs import NoisyTV, RoomsGrid
from assay.lab import registry
from assay.lab.trial import Batch, Trial
from assay.rl.intrinsic import RND, IntrinsicReward, make_rnd
from assay.rl.nets import mlp
from assay.rl.normalize import ReturnNormalizer
from assay.rl.rollout import random_rollout
from tests.rl.worlds import Line


def _g(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def study():
    return registry.load("random-network-distillation")


def run_pairs(study, folder: Path, pairs, changes=None, profile="smoke"):
    experiment = study.experiment(pairs[0][0])
    config = study.part(pairs[0][0], study.configure(profile, changes or {}))
    settings = {
        "study": study.id, "profile": profile, "device": "cpu", "folder": folder, "time_limit": 600.0, "report": None,
    }  # fmt: skip
    if experiment.batch:
        return list(experiment.function(Batch(pairs, **settings), pairs, config))
    return [experiment.function(Trial(arm, seed, **settings), arm, config) for arm, seed in pairs]


@pytest.mark.parametrize("arm", ["digits/7", "sources/dynamics", "sources/rnd"])
def test_a_seed_alone_and_in_company(study, tmp_path, arm):
    company = run_pairs(study, tmp_path, [(arm, seed) for seed in (103, 107, 111)])
    (alone,) = run_pairs(study, tmp_path, [(arm, 107)])
    assert alone == pytest.approx(company[1], rel=1e-3)
    assert company[1] != company[0]


@pytest.mark.parametrize("arm", ["rooms/rnd", "tv/dynamics-on", "traps/one-head", "suite/catch-rnd"])
def test_the_same_trial_twice_is_the_same(study, tmp_path, arm):
    assert run_pairs(study, tmp_path, [(arm, 101)]) == run_pairs(study, tmp_path, [(arm, 101)])


def test_more_training_on_zeros_alone_does_not_teach_other_digits(study, tmp_path):
    """With 150 steps the order is already there: unseen ones are newer than zeros, and examples help."""
    changes = {"digits.examples": (0, 100), "digits.steps": 150}
    (metrics,) = run_pairs(study, tmp_path, [("digits/1", 100)], changes)
    assert metrics["novelty_100"] < 0.8 * metrics["novelty_0"]
    assert metrics["ratio"] == pytest.approx(metrics["novelty_0"] / metrics["novelty_100"])
    assert metrics["rho"] == pytest.approx(-1)


def test_only_noise_and_complexity_separate_the_forward_model_from_rnd(study, tmp_path):
    changes = {"sources.data": 2048, "sources.steps": 250, "sources.few": 32, "sources.short": 10}
    (rnd,) = run_pairs(study, tmp_path, [("sources/rnd", 100)], changes)
    (forward,) = run_pairs(study, tmp_path, [("sources/dynamics", 100)], changes)
    for name in ("noise", "complex"):
        assert forward[name] > 0.4
        assert rnd[name] < 0.4 * forward[name]
    for metrics in (rnd, forward):
        assert metrics["few"] > 2 * metrics["none"]
        assert metrics["short"] > 2 * metrics["none"]


def test_the_path_leads_through_all_rooms_in_order(study):
    from assay.studies.random_network_distillation.rooms import coordinates, shortest_path

    world = RoomsGrid(2, 4, max_steps=200, generator=_g())
    path = shortest_path(world)
    assert len(path) == 95, "94 steps from the corner to the goal"
    layout = world.layouts[0]
    assert not layout.walls.flatten()[path].any()
    rooms = layout.room.flatten()[path]
    assert (rooms.diff() >= 0).all()
    assert rooms.unique().tolist() == list(range(16))
    obs, _ = world.reset()
    torch.testing.assert_close(coordinates(world, path[:1])[0], obs[0])
    # Walked by the world itself it gives the same observations and ends at the goal.
    moves = {-world.width: None, -1: None, 1: None, world.width: None}
    for action in range(4):
        world.reset()
        step = world.step(torch.full((2,), action))
        state = step.info["state"][0, :2]
        moves[int(state[0] - 1) * world.width + int(state[1] - 1)] = action
    right, down = moves[1], moves[world.width]
    assert right is not None
    assert down is not None
    trap = RoomsGrid(2, 4, traps=2, reward="none", generator=_g())
    way = shortest_path(trap)
    assert not trap.layouts[0].trap.flatten()[way].any()


def test_the_tally_counts_rooms_cells_and_presses(study):
    from assay.studies.random_network_distillation.rooms import Tally

    world = RoomsGrid(16, 2, max_steps=30, generator=_g())
    env = NoisyTV(world, "noise_action", bits=4)
    rollout = random_rollout(env, 100, _g(), info=("room", "state", "success", "tv"))
    tally = Tally(world, 4)
    tally.add(3, rollout)
    metrics = tally.metrics()
    assert metrics["rooms"] == len(set(rollout.info["room"].flatten().tolist()) | {0})
    cells = {tuple(p) for p in rollout.info["state"][..., :2].flatten(0, 1).tolist()}
    assert metrics["cells"] == len(cells)
    assert tally.visits.sum() == rollout.transitions
    assert (tally.visits[:3] == 0).all(), "the last quarter"
    assert metrics["tv_share"] == pytest.approx(float((rollout.action == 4).float().mean()))
    assert metrics["goals"] == float(rollout.info["success"].sum())


class _Seven(IntrinsicReward):
    def reward(self, rollout):
        return torch.full(rollout.valid.shape, 7.0)


def test_one_head_gets_the_weighted_sum(study):
    from assay.studies.random_network_distillation.agents import SummedMixer

    rollout = random_rollout(Line(4, length=3, max_steps=6), 40, _g())
    world = rollout.reward[..., 0].clone()
    assert world.sum() > 0
    normalizer = ReturnNormalizer(0.9, 4)
    mixer = SummedMixer(_Seven(), normalizer, (2.0, 1.0))
    assert mixer.streams == 1
    mixer.fill(rollout)
    expected = 2 * world + 7 / normalizer.std.float()
    torch.testing.assert_close(rollout.reward[..., 0], expected)


def test_each_arm_changes_what_its_name_says(study, tmp_path, monkeypatch):
    """The flags that a loop of one's own gets wrong: discounts, ends, weights, and who sees the world's reward."""
    from assay.studies.random_network_distillation import agents

    seen = {}

    class Spy(agents.PPO):
        def __init__(self, model, optimizer, **options):
            super().__init__(model, optimizer, **options)
            seen["ppo"] = self
            seen["learnt"] = {id(p) for group in optimizer.param_groups for p in group["params"]}
            seen["mixer"] = options["aux_losses"][0].__self__ if options.get("aux_losses") else None

    monkeypatch.setattr(agents, "PPO", Spy)

    def options(arm):
        run_pairs(study, tmp_path, [(arm, 100)])
        ppo = seen["ppo"]
        return ppo.model.streams, ppo.gamma, ppo.episodic, tuple(ppo.weights)

    assert options("rooms/ppo") == (1, 0.999, True, (1.0,))
    assert seen["mixer"] is None
    assert options("rooms/rnd") == (2, (0.999, 0.99), (True, False), (2.0, 1.0))
    rnd = seen["mixer"].modules[0]
    # The predictor does learn, the target does not.
    assert {id(p) for p in rnd.predictor.parameters()} <= seen["learnt"]
    assert not list(rnd.target.parameters())
    assert int(rnd.obs_norm.count) > 0
    assert seen["mixer"].normalizers[0].gamma == 0.99
    assert options("rooms/count") == (2, (0.999, 0.99), (True, False), (2.0, 1.0))
    assert options("tv/dynamics-on") == (2, (0.999, 0.99), (True, False), (2.0, 1.0))
    forward = seen["mixer"].modules[0]
    assert {id(p) for p in forward.model.parameters()} <= seen["learnt"]
    assert options("traps/non-episodic") == (1, 0.99, False, (1.0,))
    assert seen["mixer"].offset == 0, "the world's reward is not seen"
    assert options("traps/episodic") == (1, 0.99, True, (1.0,))
    assert options("traps/two-heads") == (2, (0.999, 0.99), (True, False), (2.0, 1.0))
    assert options("traps/one-head") == (1, 0.99, True, (1.0,))


def test_a_bonus_of_the_first_frame_after_death_is_a_constant_of_the_start(study):
    """What the mistake would look like: in a world of traps the wrong successor is always the start."""
    world = RoomsGrid(32, 4, traps=2, reward="none", max_steps=60, generator=_g())
    rnd = make_rnd(world.obs_shape, 8, 16, normalize=False, generator=_g(1))
    rollout = random_rollout(world, 120, _g(2))
    assert rollout.ended.sum() > 20
    right, wrong = rnd.reward(rollout)[rollout.ended], rnd.bonus(rollout.obs[1:])[rollout.ended]
    assert wrong.std() < 1e-6
    assert right.std() > 1e-3


def test_the_filter_runs_through_time_not_through_copies():
    """The axis bug of a popular copy: the order of the copies must not matter, the order of the steps must."""
    reward = torch.rand(20, 6, generator=_g())
    stds = []
    for x in (reward, reward[:, torch.randperm(6, generator=_g(1))], reward.sort(0).values):
        normalizer = ReturnNormalizer(0.9, 6)
        normalizer(x)
        stds.append(float(normalizer.std))
    assert stds[1] == pytest.approx(stds[0], rel=1e-9)
    assert stds[2] != pytest.approx(stds[0], rel=0.05)


def test_raw_errors_agree_with_torchrl():
    peer = pytest.importorskip("torchrl.envs.transforms", reason="the peer torchrl is not installed")
    tensordict = pytest.importorskip("tensordict", reason="the peer torchrl is not installed")
    target, predictor = mlp((5, 16, 8), final_gain=1.0, generator=_g()), mlp((5, 16, 8), final_gain=1.0)
    transform = peer.RNDTransform(target, predictor, normalize_obs=False, normalize_reward=False)
    x = torch.randn(7, 5)
    out = transform._step(tensordict.TensorDict({}, [7]), tensordict.TensorDict({"observation": x}, [7]))
    theirs = out["intrinsic_reward"].squeeze(-1)
    torch.testing.assert_close(RND(target, predictor).bonus(x), theirs, rtol=1e-6, atol=1e-7)


def test_scores_are_zero_for_chance_and_one_for_the_best(study, tmp_path):
    from assay.studies.random_network_distillation.suite import TASKS, make_task

    for name, (_, best) in TASKS.items():
        env = make_task(name, 8, generator=_g())
        rollout = random_rollout(env, 220, _g(1))
        assert rollout.reward.sum() <= best * (int(rollout.ended.sum()) + 8)
    car = make_task("car", 4, generator=_g())
    assert (random_rollout(car, 60, _g()).reward == 0).all(), "no hints on the way"
    (metrics,) = run_pairs(study, tmp_path, [("suite/catch-ppo", 100)], {"suite.episodes": 256})
    span = 1 - metrics["random_return"]
    assert metrics["score"] == pytest.approx((metrics["final_return"] - metrics["random_return"]) / span)
    assert -0.8 < metrics["random_return"] < -0.2, "a paddle at random catches one ball in five"


def test_the_claim_about_six_tasks_is_an_interquartile_mean(study):
    from assay.studies.random_network_distillation import TASKS, interquartile_gain

    table = {}
    for k, task in enumerate(TASKS):
        table[f"suite/{task}-ppo"] = {"score": np.full(4, 0.1 * k)}
        table[f"suite/{task}-rnd"] = {"score": np.full(4, 0.1 * k + (5.0 if k == 5 else 0.2))}
    # One task with an absurd gain does not carry the mean: the middle half does.
    assert interquartile_gain(table) == pytest.approx(0.2)


def test_figures_need_only_what_is_there(study):
    from assay.lab import Results

    empty = Results(study, "laptop", study.config, [])
    assert [spec.name for spec in study.figures if spec.function(empty) is not None] == []


def test_missing_simulators_are_one_clear_error(study, monkeypatch):
    from assay.studies.random_network_distillation import atari, packages_are_there

    monkeypatch.setattr(atari, "missing", lambda extra: ("ale_py",))
    with pytest.raises(MissingExtra, match="the games need ale_py"):
        packages_are_there(study.configure("paper"))
    packages_are_there(study.configure("laptop"))


@pytest.mark.parametrize("kind", ["rnd", "dynamics", "ppo"])
def test_one_tiny_update_of_the_papers_game(study, tmp_path, kind):
    for module in ("gymnasium", "ale_py", "cv2"):
        pytest.importorskip(module, reason="the extra atari")
    changes = {
        "atari.copies": 2, "atari.steps": 4, "atari.updates": 2, "atari.features": 8, "atari.hidden": 16,
        "atari.warmup": 3, "atari.minibatches": 2, "atari.epochs": 1, "atari.vector": "sync",
        "atari.lstm": 8 if kind == "dynamics" else None,
    }  # fmt: skip
    arm = f"atari/MontezumaRevenge-{kind}"
    (metrics,) = run_pairs(study, tmp_path, [(arm, 100)], changes, "paper")
    assert metrics["rooms"] == 1
    (path,) = tmp_path.rglob("checkpoint.pt")
    state = torch.load(path, weights_only=True)
    assert "model" in state
    if kind == "rnd":
        names = set(state["bonus"])
        assert any(n.startswith("target") for n in names)
        assert any(n.startswith("predictor") for n in names)
        assert int(state["bonus"]["obs_norm.count"]) == 2 * 3 + 2 * 2 * 4
        assert tuple(state["bonus"]["obs_norm.mean"].shape) == (1, 84, 84), "the newest frame alone"
        assert float(state["normalizer"]["stats.count"]) == 2 * 2 * 4
