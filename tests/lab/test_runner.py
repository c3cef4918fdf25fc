"""Running: trials and batches, reuse, seeds, executors, curves and artifacts."""

import numpy as np
import pytest
import torch

import assay
from assay.lab import InputError, registry, runner
from assay.lab.study import Arm, Paper, Study
from assay.lab.trial import stream_seed


@pytest.fixture
def toy() -> Study:
    return registry.load("toy")


def test_inline_run_decides_the_claims(toy: Study) -> None:
    results = runner.run(toy, executor="inline")
    assert [v.outcome for v in results.verdicts] == ["supported", "supported"]
    assert results.seeds("plain") == (0, 1, 2, 3, 4)
    assert len(results.seeds("many")) == 30
    assert "more" not in results.arms
    # Paired: the same noise in both arms.
    assert results.metric("gain", "y") - results.metric("plain", "y") == pytest.approx(np.ones(5))
    steps, values = results.curve("plain", "loss")
    assert steps.tolist() == [0, 1, 2, 3, 4]
    assert values.shape == (5, 5)
    assert values[:, 0] == pytest.approx(results.metric("plain", "y"), abs=1e-6)
    assert results.artifact("plain", 2, "noise") == pytest.approx(results.metric("plain", "y")[2])
    assert results.artifact("plain", 2, "tune.mid") == b"MThd"
    assert results.artifact("plain", 2, "nothing") is None
    assert results.curve("many", "y")[1].shape == (30, 1)
    trial = results.trials[0]
    assert trial.environment["threads"] == 1
    assert trial.peak_memory > 50
    assert {"python", "torch", "assay", "commit", "cpu", "cores"} <= set(trial.environment)


def test_what_is_finished_is_reused(toy: Study) -> None:
    first = runner.run(toy, executor="inline", arms=["plain"], seeds=2)
    again = runner.run(toy, executor="inline", arms=["plain"], seeds=3)
    assert [t.reused for t in again.trials] == [True, True, False]
    assert again.metric("plain", "y")[:2].tolist() == first.metric("plain", "y").tolist()
    other = runner.run(toy, executor="inline", arms=["plain"], seeds=3, changes={"steps": 6})
    assert not any(t.reused for t in other.trials)


def test_executors_give_the_same_numbers_to_the_bit(toy: Study, tmp_path) -> None:
    inline = runner.run(toy, executor="inline", results=tmp_path / "a")
    processes = runner.run(toy, executor="processes", workers=2, results=tmp_path / "b")
    again = runner.run(toy, executor="inline", results=tmp_path / "c")
    for arm in inline.arms:
        assert (
            inline.metric(arm, "y").tolist()
            == processes.metric(arm, "y").tolist()
            == again.metric(arm, "y").tolist()
        )


@pytest.mark.slow
def test_ray_gives_the_same_numbers_to_the_bit(toy: Study, tmp_path) -> None:
    pytest.importorskip("ray", reason="the ray executor needs: pip install ray")
    inline = runner.run(toy, executor="inline", results=tmp_path / "a")
    ray = runner.run(toy, executor="ray", workers=2, results=tmp_path / "b")
    assert not ray.failed
    for arm in inline.arms:
        assert inline.metric(arm, "y").tolist() == ray.metric(arm, "y").tolist()
    assert ray.curve("plain", "loss")[1].tolist() == inline.curve("plain", "loss")[1].tolist()
    assert ray.artifact("plain", 2, "tune.mid") == b"MThd"
    trouble = runner.run(
        registry.load("trouble"),
        arms=["raises", "dies-twice", "good"],
        executor="ray",
        results=tmp_path / "c",
    )
    assert [t.status for t in trouble.trials] == ["ok", "ok", "failed", "failed", "died", "died"]


def test_a_pair_does_not_depend_on_its_companions(toy: Study, tmp_path) -> None:
    company = runner.run(toy, executor="inline", arms=["many"], results=tmp_path / "a")
    alone = runner.run(toy, executor="inline", arms=["many"], seeds=1, first_seed=7, results=tmp_path / "b")
    assert alone.metric("many", "y")[0] == pytest.approx(company.metric("many", "y")[7], abs=1e-6)


def test_units_do_not_depend_on_workers(toy: Study) -> None:
    keys = {arm: arm for arm in toy.all_arms}
    pairs = [("many", seed) for seed in range(30)] + [("plain", 0)]
    assert [len(unit) for unit in runner.units(toy, pairs, keys)] == [16, 14, 1]


def test_profiles_and_selection(toy: Study) -> None:
    smoke = runner.run(toy, "smoke", executor="inline")
    assert {len(smoke.seeds(arm)) for arm in smoke.arms} == {2}
    assert smoke.config.steps == 2
    assert toy.configure("paper").inner.shift == 2.0
    assert toy.select_arms(["*a*"]) == ("plain", "gain", "many")
    assert toy.select_arms(extras=True) == ("plain", "gain", "many", "more")
    extras = runner.run(toy, "smoke", executor="inline", extras=True)
    assert "more" in extras.arms


def test_streams() -> None:
    assert stream_seed("a", "x", 0) == stream_seed("a", "x", 0)
    assert (
        len({stream_seed(*key) for key in [("a", "x", 0), ("b", "x", 0), ("a", "y", 0), ("a", "x", 1)]}) == 4
    )
    assert 0 <= stream_seed("a", "x", 0) < 2**63


def test_global_generators_are_seeded_too(tmp_path) -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Config:
        steps: int = 1

    study = Study(id="toy", paper=Paper("T", "N", 2020), domain="t", arms=(Arm("a"),), config=Config())
    seen = []

    @study.trial
    def trial(run, arm, config):
        seen.append((torch.rand(()).item(), np.random.rand()))  # noqa: NPY002
        return {"y": 0.0}

    from assay.lab import store, work

    for folder in "ab":
        order = work.Order("toy", "laptop", {}, (("a", 3),), "f" * 16, results=str(tmp_path / folder))
        work._perform(study, order, store.Store(order.results), None, [])
    assert seen[0] == seen[1]


def test_the_python_face(tmp_path) -> None:
    results = assay.run("toy", "smoke", seeds=2, executor="inline", results=tmp_path)
    assert results.verdicts[0].claim == "gain-helps"
    rows = results.table()
    assert len(rows) == len(results.trials)
    assert results.plot().axes
    assert any(entry["id"] == "toy" for entry in assay.catalogue())
    assert assay.load("toy").id == "toy"


def test_studies_that_make_no_sense_are_refused() -> None:
    toy = registry.load("toy")
    paper = Paper("T", "N", 2020)
    for arguments, message in [
        ({"id": "Bad_Id"}, "lower-case"),
        ({"arms": ("a", "a")}, "twice"),
        ({"arms": ()}, "at least one arm"),
        ({"config": dict}, "frozen dataclass"),
        ({"needs": ("nonsense",)}, "unknown extra"),
        ({"profiles": {"smoke": {"stepz": 1}}}, "did you mean 'steps'"),
        ({"claims": toy.claims}, "unknown arm"),
    ]:
        values = {"id": "x", "paper": paper, "domain": "d", "arms": ("z",), "config": toy.config} | arguments
        with pytest.raises((ValueError, TypeError), match=message):
            Study(**values)
    study = Study(id="x", paper=paper, domain="d", arms=("a", "b"), config=toy.config)
    with pytest.raises(ValueError, match="no arm matches"):
        study.trial("c")(lambda: None)
    with pytest.raises(ValueError, match="no part"):
        study.trial("a", config="nope")(lambda: None)
    study.trial("a")(lambda: None)
    with pytest.raises(ValueError, match="0 trial functions run arm 'b'"):
        study.experiment("b")


def test_a_check_runs_before_anything_else(toy: Study, monkeypatch) -> None:
    def no_data(config) -> None:
        raise FileNotFoundError("no folder of images at /nowhere")

    monkeypatch.setattr(toy, "checks", [no_data])
    with pytest.raises(InputError, match="no folder of images"):
        runner.run(toy, executor="inline")


def test_tensorboard(toy: Study, tmp_path) -> None:
    pytest.importorskip("tensorboard", reason="live logging needs: pip install tensorboard")
    runner.run(toy, executor="inline", arms=["plain"], seeds=1, board=str(tmp_path / "tb"))
    assert list((tmp_path / "tb" / "plain" / "seed-0").glob("events*"))


def test_the_time_of_a_batch_is_shared_by_its_pairs(tmp_path) -> None:
    """Whether it yields or returns its answers; the sum is the time of the call."""
    import time
    from dataclasses import dataclass

    from assay.lab import store, work

    @dataclass(frozen=True)
    class Config:
        steps: int = 1

    study = Study(id="toy", paper=Paper("T", "N", 2020), domain="t", arms=("a", "b"), config=Config())

    @study.batch("a")
    def returns(run, pairs, config):
        time.sleep(0.4)
        return [{"y": 0.0} for _ in pairs]

    @study.batch("b")
    def yields(run, pairs, config):
        for _ in pairs:
            time.sleep(0.1)
            yield {"y": 0.0}

    for arm in "ab":
        pairs = tuple((arm, seed) for seed in range(4))
        order = work.Order("toy", "laptop", {}, pairs, "f" * 16, results=str(tmp_path))
        work._perform(study, order, store.Store(order.results), None, [])
        trials = [t for pair, t in store.Store(tmp_path).read("toy", "f" * 16).items() if pair[0] == arm]
        assert 0.4 <= sum(t.seconds for t in trials) < 0.7
        assert trials[0].ended - trials[0].started >= 0.4
