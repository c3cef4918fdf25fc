"""The MAX study: seeds do not depend on their companions, planners explore, the paper profile is real code."""

from pathlib import Path

import pytest
import torch

from assay._extras import MissingExtra, missing
from assay.lab import Results, registry
from assay.lab.trial import Batch, Trial
from assay.studies.max_exploration import control, robots
from assay.studies.max_exploration.chain import Model, Tables
from assay.studies.max_exploration.config import ChainConfig, ControlConfig, RobotConfig


@pytest.fixture(scope="module")
def study():
    return registry.load("max-exploration")


def run_pairs(study, folder: Path, pairs, changes=None, profile="smoke"):
    experiment = study.experiment(pairs[0][0])
    config = study.part(pairs[0][0], study.configure(profile, changes or {}))
    settings = {
        "study": "max-exploration", "profile": profile, "device": "cpu", "folder": folder, "time_limit": 600.0,
        "report": None,
    }  # fmt: skip
    if experiment.batch:
        return list(experiment.function(Batch(pairs, **settings), pairs, config))
    return [experiment.function(Trial(arm, seed, **settings), arm, config) for arm, seed in pairs]


@pytest.mark.parametrize(
    "arm",
    [
        "chain/max", "chain/jdr-reactive", "chain/boot-dqn", "chain/eb-dqn", "chain/icm", "chain/rnd",
        "chain/dirichlet", "chain/count-optimism", "horizon/5", "noise/error", "noise/error-reactive",
        "utility/network", "planner/mcts", "planner/cem", "control/maze-max", "control/car-perx", "control/car-random",
    ],
)  # fmt: skip
def test_a_seed_alone_and_in_company(study, tmp_path, arm):
    company = run_pairs(study, tmp_path, [(arm, seed) for seed in (103, 107, 111)])
    (alone,) = run_pairs(study, tmp_path, [(arm, 107)])
    assert alone == pytest.approx(company[1], abs=1e-4)


def test_planning_explores_and_random_does_not(study, tmp_path):
    changes = {"chain.length": 20, "chain.episodes": 10, "chain.share_at": 10}
    pairs = [
        [(f"chain/{kind}", seed) for seed in (100, 101)] for kind in ("dirichlet", "count-optimism", "random")
    ]
    shares = [[m["share15"] for m in run_pairs(study, tmp_path, p, changes, "laptop")] for p in pairs]
    assert min(shares[0] + shares[1]) > 0.95
    assert max(shares[2]) < 0.75


def test_all_planners_explore_a_short_chain(study, tmp_path):
    for kind in ("exact", "mcts", "cem", "shooting"):
        (metrics,) = run_pairs(study, tmp_path, [(f"planner/{kind}", 100)], None, "laptop")
        assert metrics["episodes90"] <= 12, kind


def test_noise_is_worth_nothing_once_known(study, tmp_path):
    for kind in ("network", "dirichlet"):
        pairs = [(f"utility/{kind}", seed) for seed in (100, 101)]
        for metrics in run_pairs(study, tmp_path, pairs, None, "laptop"):
            assert metrics["ratio"] < 0.3, kind
            assert metrics["entropy_tv"] > 1.5, "the noise itself is still there"
            assert metrics["entropy_trap"] > 0.6


def test_utilities_differ_where_they_should():
    """A known coin: disagreement near 0, entropy and expected surprise near log 2; a pair never met: all high."""
    config = ChainConfig(length=4, fit_steps=150)
    for kind, coin in (("jsd", 0.05), ("entropy", 0.6), ("error", 0.6)):
        tables = Tables(1, 4, 2)
        tables.counts[0, :2, 0] = torch.eye(4)[1:3]
        tables.counts[0, 3, 0, 0] = 1  # state 2 was never acted in
        tables.counts[0, 0, 0] = torch.tensor([20.0, 20, 0, 0])
        model = Model(kind, config, tables, [torch.Generator().manual_seed(0)])
        model.fit()
        value = float(model.u[0, 0, 0])
        assert value < coin if kind == "jsd" else value > coin
        assert float(model.u[0, 2, 0]) > 0.05
        assert float(model.u[0, 3, 0]) < 0.1
        assert torch.allclose(model.P.sum(-1), torch.ones(1, 4, 2))


def test_rows_count_alike_however_often_they_were_met():
    tables = Tables(1, 3, 2)
    for _ in range(50):
        tables.add(torch.tensor([0]), torch.tensor([0]), torch.tensor([1]))
    tables.add(torch.tensor([2]), torch.tensor([1]), torch.tensor([2]))
    data = tables.data()
    assert data.weight.tolist() == [[1, 0, 0, 0, 0, 1]]
    assert data.target[0, 0].tolist() == [0, 1, 0]
    assert tables.data(by_visits=True).weight.tolist() == [[50, 0, 0, 0, 0, 1]]


@pytest.mark.parametrize("place", ["car", "maze"])
def test_the_task_is_solved_where_the_dynamics_are_known(place):
    """The planner suffices: with the world's own dynamics in place of the model every start succeeds."""
    config = ControlConfig()
    world = control.worlds(place, config)
    true = world.make(1, autoreset=False, validate=False)

    class Truth:
        groups, members = 1, 1

        def __call__(self, state, hot):
            return hot.argmax(-1)

        def next_state(self, prediction, state, member=None, noise=None):
            rows = state.shape[1]
            true.num_envs, true.max_steps = rows, None
            zeros = torch.zeros(rows, 2)
            if place == "car":
                true.state = state[0].double()
            else:
                true.position, true.velocity = state[0], zeros
            true._step(prediction[0])
            return (true.state.float() if place == "car" else true.position)[None]

    task = control.Task(world, Truth(), config)
    env = world.make(20, generator=torch.Generator().manual_seed(100))
    share = task.success(env, 0.1, [torch.Generator().manual_seed(1)])
    assert float(share) >= 0.95


def test_coverage_counts_cells():
    world = control.worlds("maze", ControlConfig())
    states = torch.tensor([[[-0.99, -0.99], [-0.98, -0.98], [0.99, 0.99]]])
    assert float(control.coverage(world, states)) == pytest.approx(2 / 256)


def test_figures_need_only_what_is_there(study):
    empty = Results(study, "laptop", study.config, [])
    drawn = [spec.name for spec in study.figures if spec.function(empty) is not None]
    assert drawn == ["three-pairs"]


def test_profiles(study):
    assert not any(arm.startswith(("robot/", "ant/")) for arm in study.select_arms())
    assert "robot/max" in study.select_arms(profile="paper")
    assert "ant/max" in study.select_arms(profile="paper")
    paper = study.configure("paper")
    assert (paper.robot.members, paper.robot.steps, paper.ant.env) == (32, 20_000, "AntMaze_UMaze-v5")


TINY = {
    "steps": 8, "warmup": 3, "refit_every": 3, "members": 2, "hidden": (8,), "batch": 4, "epochs": 1,
    "final_epochs": 1, "actors": 3, "horizon": 2, "plan_iterations": 1, "task_horizon": 2, "task_iterations": 1,
    "policy_hidden": (8,), "policy_batch": 4, "candidates": 4, "cem_horizon": 2, "cem_iterations": 1, "eval_every": 8,
    "task_episodes": 1, "task_steps": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("arm", "planner"),
    [("max", "sac"), ("max", "cem"), ("tvax", "cem"), ("jdrx", "sac"), ("perx", "sac"), ("random", "cem")],
)
def test_the_half_cheetah_explores(study, tmp_path, arm, planner):
    pytest.importorskip("mujoco", reason="the half-cheetah needs MuJoCo")
    if planner == "sac":
        pytest.importorskip("torchrl", reason="the policy in imagination is torchrl's")
    before = torch.get_rng_state()
    changes = {f"robot.{name}": value for name, value in TINY.items()} | {"robot.planner": planner}
    (metrics,) = run_pairs(study, tmp_path, [(f"robot/{arm}", 100)], changes)
    assert set(metrics) == {"return_run", "return_flip", "places"}
    assert all(value == value for value in metrics.values())
    assert torch.equal(before, torch.get_rng_state()), "the global generator was used"


def test_what_is_missing_is_said_at_once(study, monkeypatch):
    if missing("mujoco"):
        with pytest.raises(MissingExtra, match="MuJoCo"):
            robots.check(RobotConfig())
        return
    with pytest.raises(ValueError, match="planner"):
        robots.check(RobotConfig(planner="ppo"))
    monkeypatch.setattr(robots, "missing", lambda extra: ("torchrl",) if extra == "torchrl" else ())
    with pytest.raises(MissingExtra, match="planner=cem"):
        robots.check(RobotConfig())
    robots.check(RobotConfig(planner="cem"))
    try:
        import gymnasium_robotics  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtra, match="gymnasium-robotics"):
            robots.check(RobotConfig(env="AntMaze_UMaze-v5", planner="cem"))
