"""What holds for every study: its smoke profile repeats, its mechanisms exist, its text and usage are there."""

import importlib
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assay.lab import registry, runner
from assay.lab.config import flat
from assay.lab.fingerprint import reachable
from assay.lab.results import Results

STUDIES = sorted(registry.modules())
TESTS = Path(__file__).resolve().parents[1]
MEASURED = re.compile(r"seconds|_per_s$|_time$|memory")
"""Metrics that measure the machine do not repeat."""


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory):
    """Results and seconds of the smoke profile, run once a study."""
    done: dict[str, tuple[Results, float]] = {}

    def run(study_id: str) -> tuple[Results, float]:
        if study_id not in done:
            study = registry.load(study_id)
            begun = time.monotonic()
            folder = tmp_path_factory.mktemp(study_id)
            done[study_id] = (
                runner.run(study, "smoke", executor="inline", results=folder),
                time.monotonic() - begun,
            )
        return done[study_id]

    return run


@pytest.mark.parametrize("study_id", STUDIES)
def test_smoke_runs_and_repeats_to_the_bit(study_id: str, smoke, tmp_path: Path) -> None:
    first, seconds = smoke(study_id)
    assert [t.error for t in first.failed] == []
    # 10 s is the aim on an idle machine, with shapes unchecked; both cost here.
    assert seconds < 45
    second = runner.run(registry.load(study_id), "smoke", executor="inline", results=tmp_path)
    for one, other in zip(first.trials, second.trials, strict=True):
        for name, value in one.metrics.items():
            if not MEASURED.search(name):
                assert value == other.metrics[name] or value != value, f"{one.arm} seed {one.seed}: {name}"


@pytest.mark.parametrize("study_id", STUDIES)
def test_claims_and_figures_work_on_the_smoke_results(study_id: str, smoke) -> None:
    """At this scale nothing is decided; but no claim may ask for a metric that its arms do not report."""
    results, _ = smoke(study_id)
    for verdict in results.verdicts:
        assert "no metric" not in verdict.decision.reason, verdict.claim
    for spec in results.study.figures:
        spec.function(results)


@pytest.mark.parametrize("study_id", STUDIES)
def test_mechanisms_exist_are_documented_and_exercised(study_id: str) -> None:
    study = registry.load(study_id)
    assert study.mechanisms, "name what the contract says must exist"
    reached = set().union(*(reachable(study, arm) for arm in study.all_arms))
    tests = "\n".join(p.read_text(encoding="utf-8") for p in TESTS.rglob("test_*.py"))
    for item, targets in study.mechanisms.items():
        for target in (targets,) if isinstance(targets, str) else targets:
            if target.startswith("arm:"):
                assert target[4:] in study.all_arms, f"{item}: no arm {target[4:]!r}"
                continue
            thing = resolve(target)
            assert (thing.__doc__ or "").strip(), f"{item}: {target} has no docstring"
            name = target.rpartition(".")[2]
            # Figures are drawn by the test above.
            drawn = any(target == f"{f.function.__module__}.{f.function.__name__}" for f in study.figures)
            used = drawn or any(r == target or r.endswith(f".{name}") for r in reached)
            assert used or re.search(rf"\b{name}\b", tests), f"{item}: nothing exercises {target}"


def resolve(target: str):
    """The object that a dotted name stands for."""
    parts = target.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            thing = getattr(thing, part)
        return thing
    raise AssertionError(f"{target} does not exist")


@pytest.mark.parametrize("study_id", STUDIES)
def test_usage_runs(study_id: str) -> None:
    study = registry.load(study_id)
    assert study.usage.strip()
    done = subprocess.run([sys.executable, "-c", study.usage], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("study_id", STUDIES)
def test_contract_of_a_study(study_id: str) -> None:
    study = registry.load(study_id)
    assert study.number > 0
    assert study.title
    assert {"smoke", "paper"} <= set(study.profile_names)
    assert len(registry.page_text(study)) > 600, "the docstring is the page"
    for claim in study.claims:
        assert claim.paper.strip()
        for arm in claim.arms:
            assert not study.all_arms[arm].extra, f"claim {claim.id} rests on the extra arm {arm}"
            assert len(study.seeds_of(arm)) >= 5
    for question in study.questions:
        assert question.ask.strip()
        assert question.answer.strip()
    assert flat(study.configure("paper")) != flat(study.config)
