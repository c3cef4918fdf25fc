"""What makes a finished trial stale, and what does not."""

import importlib
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from assay.lab import registry
from assay.lab.fingerprint import fingerprint

BASE = '''
"""A study."""
from dataclasses import dataclass
from assay.lab import Claim, Level, Paper, Study, Trial
from assay.studies import helper_{n}
from assay.studies.helper_{n} import used

@dataclass(frozen=True)
class Config:
    """Values."""
    steps: int = 3

    @property
    def double(self):
        return 2 * self.steps

GAIN = 2.0

def inner(x):
    """Inner."""
    return x * GAIN

def unused(x):
    return x

study = Study(id="{id}", paper=Paper("T", "N", 2020), domain="test", arms=("a", "b"), config=Config(),
              claims=(Claim("c", "Statement.", "1", Level("y", arm="a", at_least=0.5)),))

@study.trial("a")
def trial(run: Trial, arm: str, config: Config) -> dict[str, float]:
    """Trial."""
    return {{"y": inner(used(1.0)) + helper_{n}.module_level(0.0)}}

@study.trial("b")
def other(run: Trial, arm: str, config: Config) -> dict[str, float]:
    return {{"y": 1.0}}

@study.figure("Figure")
def figure(results):
    return None
'''
HELPER = '''
"""Helpers."""
from assay.studies.deep_{n} import deepest as renamed

FACTOR = 1.0

def used(x):
    return renamed(x) * FACTOR

def module_level(x):
    return x

def not_used(x):
    return x
'''
DEEP = """
def deepest(x):
    return x + 1

def beside(x):
    return x
"""
counter = iter(range(10_000))


@pytest.fixture
def prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """(arm -> fingerprint) of the study after edits `(file, old, new)`."""
    number = next(counter)
    names = {"study": f"edited{number}.py", "helper": f"helper_{number}.py", "deep": f"deep_{number}.py"}
    texts = {"study": BASE, "helper": HELPER, "deep": DEEP}
    monkeypatch.setenv("ASSAY_STUDIES", str(tmp_path))
    package = importlib.import_module("assay.studies")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])

    def write_and_print(*edits: tuple[str, str, str], config: dict | None = None) -> dict[str, str]:
        for key, name in names.items():
            text = texts[key].format(n=number, id=f"edited{number}")
            for where, old, new in edits:
                if where == key:
                    assert old in text
                    text = text.replace(old, new)
            (tmp_path / name).write_text(textwrap.dedent(text))
        for module in [m for m in sys.modules if m.endswith((f"edited{number}", f"_{number}"))]:
            del sys.modules[module]
        importlib.invalidate_caches()
        study = registry.load(f"edited{number}")
        values = replace(study.config, **(config or {}))
        return {arm: fingerprint(study, arm, values) for arm in study.all_arms}

    return write_and_print


def test_text_and_claims_make_nothing_stale(prints) -> None:
    before = prints()
    assert prints() == before
    assert (
        prints(
            ("study", '"""A study."""', '"""Another text."""'),
            ("study", '"""Inner."""', '"""Says more."""'),
            ("study", "return x * GAIN", "# a comment\n    return (x  *  GAIN)"),
            ("study", "def inner(x):", "def inner(x: float) -> float:"),
            ("study", "at_least=0.5", "at_least=0.7"),
            ("study", "return None", "return 1 and None"),
            ("study", "def unused(x):\n    return x", "def unused(x):\n    return -x"),
            ("helper", "def not_used(x):\n    return x", "def not_used(x):\n    return -x"),
            ("deep", "def beside(x):\n    return x", "def beside(x):\n    return -x"),
        )
        == before
    )


@pytest.mark.parametrize(
    "edit",
    [
        ("study", "inner(used(1.0))", "inner(used(1.5))"),
        ("study", "GAIN = 2.0", "GAIN = 3.0"),
        ("study", "return x * GAIN", "return x / GAIN"),
        ("helper", "FACTOR = 1.0", "FACTOR = 2.0"),
        ("helper", "def module_level(x):\n    return x", "def module_level(x):\n    return -x"),
        ("deep", "return x + 1", "return x + 2"),
    ],
)
def test_code_that_the_trial_reaches_makes_it_stale_and_only_it(prints, edit) -> None:
    before, after = prints(), prints(edit)
    assert before["a"] != after["a"]
    assert before["b"] == after["b"]


def test_config_values_and_methods_count(prints) -> None:
    before = prints()
    assert prints(config={"steps": 4}) != before
    assert prints(("study", "2 * self.steps", "3 * self.steps")) != before
    # A new default counts by value only.
    assert prints(("study", "steps: int = 3", "steps: int = 4"), config={"steps": 3}) == before


def test_only_the_part_that_an_experiment_gets() -> None:
    study = registry.load("toy")
    config = study.config
    changed = study.configure("laptop", {"inner.shift": 5.0})
    assert fingerprint(study, "many", config) != fingerprint(study, "many", changed)
    steps = study.configure("laptop", {"steps": 9})
    assert fingerprint(study, "many", config) == fingerprint(study, "many", steps)
    assert fingerprint(study, "plain", config) != fingerprint(study, "plain", steps)
