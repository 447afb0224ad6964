"""Progress of long work: a bar with rate and ETA in a terminal, a plain line every few seconds elsewhere.

Plain lines go to the log of whatever runs us (a scheduler, a CI job), where a redrawn bar is noise.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

PLAIN_LINE_EVERY_S = 10.0


class _Rate(ProgressColumn):
    """Units per second since the start."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {self._unit}/s" if speed else f"- {self._unit}/s")


class ProgressReporter:
    """Counts finished units of one stage; use as a context manager and call `advance`."""

    def __init__(self, title: str, total: int, unit: str, *, enabled: bool = True) -> None:
        self._title, self._total, self._unit = title, total, unit
        self._enabled = enabled and total > 0
        self._done = 0
        self._started = self._last_line = time.monotonic()
        console = Console(stderr=True)
        self._bar: Progress | None = None
        if self._enabled and console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                _Rate(unit),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
            self._task = self._bar.add_task(title, total=total, note="")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif self._enabled and error is None:
            self._print_line("")

    def advance(self, count: int = 1, note: str = "") -> None:
        """Report `count` more units done; `note` is shown behind (a loss, a shard name)."""
        self._done += count
        if self._bar:
            self._bar.update(self._task, advance=count, note=note)
        elif self._enabled and time.monotonic() - self._last_line >= PLAIN_LINE_EVERY_S:
            self._print_line(note)

    def _print_line(self, note: str) -> None:
        self._last_line = time.monotonic()
        seconds = max(self._last_line - self._started, 1e-9)
        rate = self._done / seconds
        left = (self._total - self._done) / rate if rate else float("nan")
        line = f"{self._title}: {self._done}/{self._total} {self._unit}, {rate:.1f}/s, {left:.0f} s left"
        print(f"{line}  {note}".rstrip(), file=sys.stderr, flush=True)
