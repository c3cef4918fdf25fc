"""The command line: bad input is one line and exit code 2, good input is machine-readable."""

import json
import os
import subprocess
import sys
import time

import pytest

BAD = [
    ("run", "toyy", "did you mean 'toy'"),
    ("run", "zzzzzzzz", "choose from"),
    ("run", "", "which study"),
    ("run", "toy --all", "not both"),
    ("run", "toy --profile lap", "unknown profile 'lap'"),
    ("run", "toy --profile nonsense", "unknown profile"),
    ("run", "toy --seeds 0", "seeds must be at least 1"),
    ("run", "toy --seeds -3", "seeds must be at least 1"),
    ("run", "toy --seeds five", "invalid int value"),
    ("run", "toy --first-seed -1", "at least 0"),
    ("run", "toy --arms plian", "did you mean 'plain'"),
    ("run", "toy --arms nothing*", "unknown arm"),
    ("run", "toy --arms ,", "no arms given"),
    ("run", "toy --set stepz=1", "did you mean 'steps'"),
    ("run", "toy --set steps", "key=value"),
    ("run", "toy --set =3", "key=value"),
    ("run", "toy --set steps=many", "steps must be int"),
    ("run", "toy --set gain=high", "gain must be float"),
    ("run", "toy --set inner=3", "group of settings"),
    ("run", "toy --set inner.shfit=3", "did you mean 'inner.shift'"),
    ("run", "toy --executor threads", "unknown executor"),
    ("run", "toy --executor proceses", "did you mean 'processes'"),
    ("run", "toy --workers 0", "workers must be at least 1"),
    ("run", "toy --address 1.2.3.4:5", "--address goes with --executor ray"),
    ("run", "toy --device gpu", "unknown device"),
    ("run", "toy --device cuda:99", "--device cpu"),
    ("run", "toy --time-limit 0", "time limit must be positive"),
    ("run", "toy --log wandb", "unknown log"),
    ("run", "toy --results /dev/null/x", "cannot write results"),
    ("run", "toy --nonsense", "unrecognized arguments"),
    ("show", "toyy", "did you mean 'toy'"),
    ("show", "", "arguments are required"),
    ("verdicts", "nope", "unknown study"),
    ("status", "nope", "unknown study"),
    ("publish", "nope", "unknown study"),
    ("publish", "", "arguments are required"),
    ("list", "--domain tset", "did you mean 'test'"),
    ("new", "Bad_Name", "lower-case words"),
    ("new", "toy", "exists"),
    ("new", "1-2", "begin with a letter"),
    ("new", "fine --domain Not/Good", "domain"),
    ("clean", "", "clean what"),
    ("clean", "nope", "unknown study"),
    ("rnu", "toy", "invalid choice"),
]


@pytest.mark.parametrize(("command", "arguments", "message"), BAD, ids=[f"{c} {a}" for c, a, _ in BAD])
def test_bad_input_is_one_clear_line(command: str, arguments: str, message: str, capsys) -> None:
    from assay.cli import main

    with pytest.raises(SystemExit) as end:
        main([command, *arguments.split()])
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("assay: ")
    assert message in err


def test_a_missing_package_names_the_pip_command(capsys, monkeypatch) -> None:
    from assay.cli import main
    from assay.lab import registry

    monkeypatch.setattr(registry.load("toy"), "needs", ("music",))
    monkeypatch.setattr("assay._extras.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as end:
        main(["run", "toy"])
    assert end.value.code == 2
    assert "pip install music21" in capsys.readouterr().err


def test_run_json(cli) -> None:
    done = cli("run", "toy", "--profile", "smoke", "--json", "--workers", "1")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["study"], answer["profile"]) == ("toy", "smoke")
    assert {"arm", "seed", "status", "metrics", "seconds"} <= set(answer["trials"][0])
    assert answer["claims"][0]["verdict"] == "supported"
    assert "[2/" in done.stderr or "trials" in done.stderr


def test_list_show_status_verdicts_json(cli) -> None:
    listed = json.loads(cli("list", "--json").stdout)
    toy = next(entry for entry in listed if entry["id"] == "toy")
    assert {"number", "id", "domain", "title", "arms", "claims", "mechanisms"} <= set(toy)
    assert toy["extras"] == ["more"]
    assert json.loads(cli("show", "toy", "--json").stdout)["config"]["inner.shift"] == 1.0
    assert json.loads(cli("status", "toy", "--json").stdout) == [
        {"study": "toy", "status": "missing", "reason": "no evidence: assay publish toy"}
    ]
    rows = json.loads(cli("verdicts", "toy", "--json").stdout)
    assert [row["verdict"] for row in rows] == ["not decided"] * 2


@pytest.mark.parametrize(
    "arguments", [("list",), ("show", "toy"), ("status", "toy"), ("verdicts", "toy"), ("--version",), ()]
)
def test_text_for_people(cli, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert done.returncode == 0
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr


def test_clean(cli, toys) -> None:
    assert cli("run", "toy", "--profile", "smoke", "--executor", "inline").returncode == 0
    assert list((toys / "results" / "toy").iterdir())
    assert "freed" in cli("clean", "toy").stdout
    assert not (toys / "results" / "toy").exists()


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    best = min(_seconds("--help") for _ in range(5))
    code = (
        "import sys, assay.cli as c; c.build_parser(); print({'torch', 'numpy', 'rich'} & set(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "set()"
    assert best < 0.6  # 0.12 s on an idle machine; the bound allows for a busy one


def test_list_does_not_import_torch() -> None:
    code = "import sys, assay; assay.catalogue(); print('torch' in sys.modules)"
    environment = {k: v for k, v in os.environ.items() if k != "ASSAY_STUDIES"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "False", (
        "run `make catalogue`: a study changed since catalogue.json was written"
    )


def _seconds(*arguments: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "assay.cli", *arguments], capture_output=True, check=True)
    return time.perf_counter() - begun
