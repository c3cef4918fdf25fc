"""Nothing is lost, nothing is run twice, nothing broken is believed: each with real processes."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assay.lab import registry, runner
from assay.lab.results import Results
from assay.lab.store import Store, StoreError
from assay.lab.verdict import clean


def trouble(**options) -> Results:
    options = {"executor": "processes", "workers": 2} | options
    return runner.run(registry.load("trouble"), **options)


def start(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "assay.cli", "run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        start_new_session=True,
        # A shell that starts the tests in the background has its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def runs(folder: Path) -> dict[int, int]:
    """How often each seed of the arm "good" really ran."""
    count: dict[int, int] = {}
    for note in folder.glob("ran-*"):
        seed = int(note.name.split("-")[1])
        count[seed] = count.get(seed, 0) + 1
    return count


def records(root: Path) -> list[Path]:
    return list(root.glob("trouble/*/good@*/record.json"))


def test_a_worker_that_is_killed_costs_its_trial_only_and_is_retried(tmp_path: Path) -> None:
    results = trouble(arms=["dies-once", "good"], changes={"folder": str(tmp_path)})
    assert [t.status for t in results.trials] == ["ok"] * 4
    results = trouble(arms=["dies-twice", "good"], changes={"folder": str(tmp_path)})
    died = [t for t in results.trials if t.arm == "dies-twice"]
    assert [t.status for t in died] == ["died", "died"]
    assert "SIGKILL" in died[0].error
    assert [t.status for t in results.trials if t.arm == "good"] == ["ok", "ok"]


def test_kill_9_of_the_parent_then_resume(tmp_path: Path, toys: Path) -> None:
    root = toys / "results"
    command = [
        "trouble",
        "--arms",
        "good",
        "--seeds",
        "8",
        "--set",
        f"folder={tmp_path}",
        "--set",
        "seconds=0.4",
    ]
    parent = start(*command, "--workers", "2")
    wait_for(lambda: len(records(root)) >= 2)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    time.sleep(1.0)  # orphans notice that nobody listens
    kept = len(records(root))
    assert 2 <= kept < 8
    before = runs(tmp_path)
    again = start(*command, "--json")
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert [t["status"] for t in json.loads(out)["trials"]] == ["ok"] * 8
    after = runs(tmp_path)
    finished_before = {int(p.parent.name.split("@")[1]) for p in records(root)} & set(before)
    assert sum(after.values()) - sum(before.values()) == 8 - kept
    assert len(finished_before) >= kept
    assert not list(root.glob("trouble/.scratch-*"))


def test_orphaned_workers_end(tmp_path: Path) -> None:
    parent = start("trouble", "--arms", "sleeps", "--seeds", "2", "--workers", "2")
    group = parent.pid

    def workers() -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                line = (entry / "cmdline").read_text()
                parent_id = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if "assay.lab.worker" in line and parent_id == group:
                found.append(int(entry.name))
        return found

    wait_for(lambda: len(workers()) == 2)
    alive = workers()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in alive), 30)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_keeps_what_is_finished(tmp_path: Path, toys: Path, number: int, code: int) -> None:
    root = toys / "results"
    parent = start("trouble", "--arms", "good", "--seeds", "20", "--set", "seconds=0.3", "--workers", "2")
    wait_for(lambda: len(records(root)) >= 1)
    os.kill(parent.pid, number)
    _, err = parent.communicate(timeout=30)
    assert parent.returncode == code
    assert "Traceback" not in err
    if code == 130:
        assert "finished trials are kept" in err
    kept = len(records(root))
    results = trouble(arms=["good"], seeds=kept + 1, changes={"seconds": 0.3})
    assert sum(t.reused for t in results.trials) >= 1


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "artifact", "not-json"])
def test_a_damaged_result_is_reported_and_run_again(toys: Path, damage: str) -> None:
    notes: list[str] = []

    class Display(runner.Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    options = {"arms": ["big"], "seeds": 2, "changes": {"megabytes": 1}, "executor": "inline"}
    good = trouble(**options)
    unit = next(iter((toys / "results").glob("trouble/*/big@1")))
    target = unit / ("big@1/noise.npz" if damage == "artifact" else "record.json")
    content = target.read_bytes()
    if damage == "truncate":
        target.write_bytes(content[: len(content) // 2])
    elif damage in ("flip", "artifact"):
        middle = content.rindex(b"1.0") if damage == "flip" else len(content) // 2
        target.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "empty":
        target.write_bytes(b"")
    else:
        target.write_text('{"sha256": 3}')
    again = trouble(**options, display=Display())
    assert len(notes) == 1
    assert "damaged" in notes[0]
    assert [t.reused for t in again.trials] == [True, False]
    assert [t.metrics for t in again.trials] == [t.metrics for t in good.trials]
    assert list((toys / "results").glob("trouble/*/*.damaged-*"))


def test_a_full_disk_is_one_line_and_loses_nothing(toys: Path) -> None:
    """A file-size limit of 1 MB stands for the full disk."""
    assert not trouble(arms=["good"], executor="inline").failed
    limited = subprocess.run(
        [sys.executable, "-m", "assay.cli", "run", "trouble", "--arms", "big,good", "--workers", "1"],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
    )
    assert limited.returncode == 1
    lines = [line for line in limited.stderr.splitlines() if line.startswith("assay:")]
    assert len(lines) == 1
    assert "cannot write results" in lines[0]
    assert "Traceback" not in limited.stderr
    after = trouble(arms=["big", "good"], executor="inline", changes={"megabytes": 4})
    assert [t.status for t in after.trials] == ["ok"] * 4
    assert [t.reused for t in after.trials if t.arm == "good"] == [True, True]


def test_the_store_says_when_it_cannot_write(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(StoreError, match="cannot write results"):
        Store(blocked).scratch("toy")


def test_a_read_only_results_folder_is_bad_input(tmp_path: Path, cli) -> None:
    """A folder below a plain file cannot be made, not even by root, whom permissions don't stop."""
    (tmp_path / "file").write_text("")
    done = cli("run", "toy", "--results", str(tmp_path / "file" / "below"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "--results" in done.stderr
    if os.geteuid() != 0:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
        assert cli("run", "toy", "--results", str(closed)).returncode == 2


def test_two_runs_at_once_share_the_work(tmp_path: Path, toys: Path) -> None:
    command = [
        "trouble",
        "--arms",
        "good",
        "--seeds",
        "10",
        "--set",
        f"folder={tmp_path}",
        "--json",
        "--workers",
        "1",
    ]
    both = [start(*command), start(*command)]
    answers = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    first, second = (json.loads(out) for out, _ in answers)
    assert [t["metrics"] for t in first["trials"]] == [t["metrics"] for t in second["trials"]]
    assert runs(tmp_path) == dict.fromkeys(range(10), 1)
    assert not list((toys / "results").glob("trouble/*/*.damaged*"))


def test_what_goes_wrong_in_a_trial(toys: Path) -> None:
    results = trouble(
        arms=[
            "good",
            "raises",
            "hangs",
            "sleeps",
            "nan",
            "stranger",
            "object",
            "empty",
            "text-key",
            "prints",
            "pickle",
        ],
        seeds=2,
        time_limit=1.0,
    )
    status = {arm: [t.status for t in results.trials if t.arm == arm] for arm in results.arms}
    error = {t.arm: t.error for t in results.trials}
    assert status["good"] == status["nan"] == status["stranger"] == status["prints"] == ["ok", "ok"]
    assert status["raises"] == ["failed", "failed"]
    assert error["raises"] == "RuntimeError: the network exploded"
    assert "trial" in (toys / "results" / "trouble" / "failures" / "raises@0.txt").read_text()
    assert status["hangs"] == status["sleeps"] == ["timeout", "timeout"]
    assert "time limit of 1 s" in error["hangs"]
    assert "time limit of 1 s" in error["sleeps"]
    assert "metric 'y' must be a number, not function" in error["object"]
    assert "non-empty dict" in error["empty"]
    assert "metric names are text" in error["text-key"]
    assert "array of Python objects" in error["pickle"]
    verdict = {v.claim: v for v in results.verdicts}
    assert verdict["good-is-good"].outcome == "supported"
    assert {verdict[f"{name}-is-good"].outcome for name in ("nan", "raises", "stranger")} == {"not decided"}
    assert "NaN" in verdict["nan-is-good"].decision.reason
    assert "no metric 'y'" in verdict["stranger-is-good"].decision.reason
    assert json.dumps(clean(results.record()), allow_nan=False)


def test_a_failed_trial_is_run_again_and_the_exit_code_says_so(cli) -> None:
    done = cli("run", "trouble", "--arms", "raises,good", "--json", "--executor", "inline")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert [t["status"] for t in answer["trials"]] == ["ok", "ok", "failed", "failed"]
    again = json.loads(
        cli("run", "trouble", "--arms", "raises,good", "--json", "--executor", "inline").stdout
    )
    assert again["trials"][2]["status"] == "failed"


def test_no_pickle_is_ever_read() -> None:
    """No module of the lab can load one, whatever a results folder holds."""
    source = Path(runner.__file__).parent
    for path in source.rglob("*.py"):
        text = path.read_text()
        assert "import pickle" not in text
        assert "torch.load" not in text
        assert text.count("np.load(") == text.count("allow_pickle=False")
