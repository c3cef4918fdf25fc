"""Trouble: every way in which a trial can go wrong."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from assay.lab import Claim, Level, Paper, Study, Trial

ARMS = (
    "good", "raises", "hangs", "sleeps", "nan", "stranger", "object", "empty", "text-key",
    "dies-once", "dies-twice", "prints", "big", "pickle",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Laptop values."""

    folder: str = ""  # where "dies-once" leaves a note
    megabytes: int = 4
    seconds: float = 0.2


study = Study(
    number=902,
    id="trouble",
    paper=Paper("Trouble", "Nobody", 2020),
    domain="test",
    arms=ARMS,
    config=Config(),
    seeds=2,
    claims=(
        Claim("good-is-good", "Good is good.", "1.0", Level("y", arm="good", at_least=0.5)),
        Claim("nan-is-good", "NaN is good.", "1.0", Level("y", arm="nan", at_least=0.5)),
        Claim("raises-is-good", "Raising is good.", "1.0", Level("y", arm="raises", at_least=0.5)),
        Claim("stranger-is-good", "Strangers are good.", "1.0", Level("y", arm="stranger", at_least=0.5)),
    ),
)


@study.trial
def trial(run: Trial, arm: str, config: Config) -> dict:
    if arm == "raises":
        raise RuntimeError("the network exploded")
    if arm == "hangs":
        for _ in run.steps(10_000):
            time.sleep(0.01)
    if arm == "sleeps":  # never asks run.steps: only its process can be ended
        time.sleep(600)
    if arm == "nan":
        return {"y": float("nan")}
    if arm == "stranger":
        return {"z": 1.0}
    if arm == "object":
        return {"y": lambda: 1}
    if arm == "empty":
        return {}
    if arm == "text-key":
        return {1: 2.0}
    if arm == "dies-once":
        note = Path(config.folder) / f"{run.seed}"
        if not note.exists():
            note.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if arm == "dies-twice":
        os.kill(os.getpid(), signal.SIGKILL)
    if arm == "prints":
        print("this must not reach the messages")
        os.write(1, b"nor this\n")
    if arm == "big":
        run.save("noise", np.random.default_rng(0).random((config.megabytes, 131072)))
    if arm == "pickle":
        run.save("objects", np.array([object()]))
    if arm == "good":
        time.sleep(config.seconds)
        (Path(config.folder) / f"ran-{run.seed}-{time.time_ns()}").touch() if config.folder else None
    return {"y": 1.0}
