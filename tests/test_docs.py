"""The listings of the documentation run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ("training-dynamics", "reinforcement-learning")


def listings(page: str) -> list[tuple[str, str]]:
    """(section, code) of every Python listing of a page."""
    found, section = [], ""
    for part in re.split(
        r"^(## [^\n]*|```python\n.*?^```)", (DOCS / f"{page}.md").read_text(), flags=re.M | re.S
    ):
        if part.startswith("## "):
            section = part[3:]
        elif part.startswith("```python"):
            found.append((section, part.removeprefix("```python\n").removesuffix("```")))
    return found


CASES = [pytest.param(code, id=f"{page}: {section}") for page in PAGES for section, code in listings(page)]


def test_there_are_listings():
    assert len(CASES) >= 5


@pytest.mark.parametrize("code", CASES)
def test_a_listing_runs_as_it_stands(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
