"""Small studies to test the lab with, found through ASSAY_STUDIES as a user's own are."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from assay.lab import Arm, Claim, Paper, Results, Study, TrialResult
from assay.lab.claim import Test

TOYS = Path(__file__).parent / "studies"


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The toy studies are there; results and evidence go to a temporary folder."""
    monkeypatch.setenv("ASSAY_STUDIES", str(TOYS))
    monkeypatch.setenv("ASSAY_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("ASSAY_EVIDENCE", str(tmp_path / "evidence"))
    return tmp_path


@pytest.fixture
def cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line as a real process."""

    def call(*arguments: str, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "assay.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=os.environ | environment,
        )

    return call


def make_results(table: dict[str, list[dict[str, float] | str]], *tests: Test) -> Results:
    """Results with given metrics: `{arm: [metrics of seed 0, ...]}`; a text instead of metrics is a failure."""
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Config:
        steps: int = 1

    claims = tuple(Claim(f"claim-{i}", "It is so.", "1.0", test) for i, test in enumerate(tests))
    arms = dict.fromkeys([*table, *(arm for claim in claims for arm in claim.arms)])
    study = Study(
        id="made", paper=Paper("Made", "Nobody", 2020), domain="test", arms=tuple(Arm(a) for a in arms),
        config=Config(), claims=claims,
    )  # fmt: skip
    trials = [
        TrialResult(arm, seed, "failed", error=value)
        if isinstance(value, str)
        else TrialResult(arm, seed, "ok", value, seconds=1.0)
        for arm, column in table.items()
        for seed, value in enumerate(column)
    ]
    return Results(study, "laptop", study.config, trials)
