"""Showing a run: live bars on a terminal, plain lines elsewhere. Always on standard error."""

import sys
import time
from typing import Any

from assay.lab.study import Study


class Lines:
    """One line for each unit that ends."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._total = self._ended = 0

    def begin(self, study: Study, profile: str, total: int, reused: int) -> None:
        self._begun = time.monotonic()
        self._total, self._ended = total, reused
        kept = f" ({reused} finished before)" if reused else ""
        self._say(f"{study.id}: {total} trials, profile {profile}{kept}")

    def progress(self, label: str, fraction: float) -> None:
        return

    def end(self, label: str, status: str, error: str, trials: int) -> None:
        self._ended += trials
        spent = time.monotonic() - self._begun
        self._say(
            f"[{self._ended}/{self._total}] {label}: {status}{f' ({error})' if error else ''}  {spent:.0f} s"
        )

    def note(self, text: str) -> None:
        self._say(f"assay: {text}")

    def finish(self) -> None:
        return

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class Bars:
    """A bar for the study and one for each unit that is running."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
            transient=True,
        )
        self._study: Any = None
        self._running: dict[str, Any] = {}

    def begin(self, study: Study, profile: str, total: int, reused: int) -> None:
        self._bars.start()
        self._study = self._bars.add_task(f"[bold]{study.id}[/] ({profile})", total=total, completed=reused)

    def progress(self, label: str, fraction: float) -> None:
        if label not in self._running:
            self._running[label] = self._bars.add_task(f"  {label}", total=1.0)
        self._bars.update(self._running[label], completed=fraction)

    def end(self, label: str, status: str, error: str, trials: int) -> None:
        if label in self._running:
            self._bars.remove_task(self._running.pop(label))
        self._bars.advance(self._study, trials)
        if status != "ok":
            self._console.print(f"[red]{label}: {status}[/] {error}", highlight=False)

    def note(self, text: str) -> None:
        self._console.print(f"assay: {text}", highlight=False)

    def finish(self) -> None:
        self._bars.stop()


def display() -> Lines | Bars:
    """Bars if standard error is a terminal, else lines."""
    return Bars() if sys.stderr.isatty() else Lines()
