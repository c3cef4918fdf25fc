"""`assay new`: what it writes runs as it stands."""

import json
import subprocess
import sys
from pathlib import Path


def test_a_new_study_runs_and_its_test_passes(cli, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    made = cli("new", "my-study", "--into", str(folder), "--domain", "toys")
    assert made.returncode == 0, made.stderr
    assert len(made.stdout.split()) == 3
    here = {"ASSAY_STUDIES": str(folder)}
    done = cli("run", "my-study", "--json", **here)
    assert done.returncode == 0, done.stderr
    claims = json.loads(done.stdout)["claims"]
    assert [c["verdict"] for c in claims] == ["supported"]
    listed = json.loads(cli("list", "--json", **here).stdout)
    assert any(e["id"] == "my-study" and e["domain"] == "toys" for e in listed)
    test = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(folder / "tests"), "-p", "no:cacheprovider"],
        env={**__import__("os").environ, **here}, capture_output=True, text=True,
    )  # fmt: skip
    assert test.returncode == 0, test.stdout
    assert cli("new", "my-study", "--into", str(folder), **here).returncode == 2


def test_a_broken_study_does_not_hide_the_others(cli, tmp_path: Path) -> None:
    (tmp_path / "broken_one.py").write_text("import nothing_of_that_name\n")
    here = {"ASSAY_STUDIES": str(tmp_path)}
    listed = cli("list", "--json", **here)
    entry = next(e for e in json.loads(listed.stdout) if e["id"] == "broken-one")
    assert entry["domain"] == "broken"
    run = cli("run", "broken-one", **here)
    assert run.returncode == 2
    assert "nothing_of_that_name" in run.stderr
