"""Publishing, loading, and whether evidence still speaks of the code."""

import json
from pathlib import Path

import pytest

from assay.lab import InputError, evidence, registry, runner
from assay.lab.study import Study


@pytest.fixture
def toy() -> Study:
    return registry.load("toy")


@pytest.fixture
def published(toy: Study, toys: Path) -> evidence.Evidence:
    return evidence.publish(toy, executor="inline", allow_dirty=True)


def test_what_is_published_comes_back(toy: Study, toys: Path, published: evidence.Evidence) -> None:
    results = runner.run(toy, executor="inline")
    assert published.results.metric("many", "y") == pytest.approx(results.metric("many", "y"), rel=1e-8)
    assert [v.outcome for v in published.results.verdicts] == [v.outcome for v in results.verdicts]
    assert [f.title for f in published.figures] == ["The gain"]
    assert "<svg" in (published.folder / published.figures[0].file).read_text()
    assert "tune.mid" in published.media
    assert published.folder == toys / "evidence" / "toy"
    assert published.environment["torch"]
    assert published.core_seconds > 0
    assert "more" not in published.results.arms


def test_extras_are_published_with_their_figures(toy: Study) -> None:
    full = evidence.publish(toy, extras=True, executor="inline", allow_dirty=True)
    assert "more" in full.results.arms
    assert [f.question for f in full.figures] == [None, "more"]
    # Later runs keep them without being asked, as long as their results are there.
    assert "more" in evidence.publish(toy, executor="inline", allow_dirty=True).results.arms


def test_freshness(toy: Study, published: evidence.Evidence, monkeypatch) -> None:
    assert evidence.freshness(toy).status == "fresh"
    path = published.folder / "evidence.json"
    record = json.loads(path.read_text())
    monkeypatch.setattr(runner, "key", lambda *_: "0" * 16)
    assert evidence.freshness(toy) == evidence.Freshness(
        "toy", "stale", "code or config of arm 'plain' changed since it ran"
    )
    monkeypatch.undo()
    monkeypatch.setenv("ASSAY_EVIDENCE", str(published.folder.parent))
    monkeypatch.setenv("ASSAY_STUDIES", str(Path(__file__).parent / "studies"))
    record["arms"]["gain"]["seeds"] = [0, 1]
    path.write_text(json.dumps(record))
    assert "lacks 3 of its seeds" in evidence.freshness(toy).reason
    del record["arms"]["gain"]
    path.write_text(json.dumps(record))
    assert "not in the evidence" in evidence.freshness(toy).reason
    path.write_text("{")
    assert evidence.freshness(toy).status == "stale"
    with pytest.raises(InputError, match="damaged"):
        evidence.load(toy)
    path.unlink()
    assert evidence.freshness(toy).status == "missing"


def test_rows(toy: Study, published: evidence.Evidence) -> None:
    rows = evidence.verdict_rows(["toy"])
    wanted = {
        "study",
        "number",
        "claim",
        "statement",
        "paper",
        "verdict",
        "effect",
        "interval",
        "threshold",
        "seeds",
    }
    assert wanted | {"fresh", "seconds"} <= set(rows[0])
    assert rows[0]["fresh"] is True
    assert rows[0]["seeds"] == 5
    assert rows[1]["seeds"] == 30


def test_uncommitted_source_is_refused(toy: Study, monkeypatch) -> None:
    monkeypatch.setattr(evidence, "_uncommitted", lambda: "src/assay/x.py")
    with pytest.raises(InputError, match=r"commit \S+ first"):
        evidence.publish(toy, executor="inline")


def test_too_much_evidence_is_refused_and_the_old_one_stays(toy: Study, published, monkeypatch) -> None:
    monkeypatch.setattr(evidence, "LIMIT", 100)
    with pytest.raises(InputError, match="above 100"):
        evidence.publish(toy, executor="inline", allow_dirty=True)
    assert (published.folder / "evidence.json").is_file()
    assert [p.name for p in published.folder.parent.iterdir()] == ["toy"]


def test_failed_trials_are_published_as_such(toys: Path) -> None:
    trouble = registry.load("trouble")
    study = Study(
        id="trouble", paper=trouble.paper, domain="test", arms=("good", "raises"), config=trouble.config, seeds=2,
        claims=(trouble.claims[0], trouble.claims[2]),
    )  # fmt: skip
    study.module = trouble.module
    study.experiments = trouble.experiments
    shown = evidence.publish(study, executor="inline", allow_dirty=True)
    assert [v.outcome for v in shown.results.verdicts] == ["supported", "not decided"]
    assert "exploded" in shown.results.verdicts[1].decision.reason


def test_the_paper_profile_may_name_extra_arms(toy: Study) -> None:
    extra = next(arm.name for arm in toy.all_arms.values() if arm.extra)
    profiles = {**toy.profiles, "paper": {**toy.profiles.get("paper", {}), "arms": (extra,)}}
    toy.profiles = profiles
    assert toy.select_arms(profile="paper") == (extra,)
    assert extra not in toy.select_arms()
    toy.profiles = {**profiles, "paper": {k: v for k, v in profiles["paper"].items() if k != "arms"}}
    assert extra not in toy.select_arms(profile="paper")
