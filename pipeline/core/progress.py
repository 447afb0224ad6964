"""Progress of long work: a bar in a terminal, elsewhere a plain line every few seconds.

Plain lines are for logs (of a scheduler, a CI job), where a redrawn bar is noise. They go to standard
error, or to the function given to `progress_lines_to`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

PLAIN_LINE_EVERY_S = 10.0

_take_line: ContextVar[Callable[[str], None] | None] = ContextVar("take_line", default=None)


class Advance(Protocol):
    """Call it for every finished unit of work."""

    def __call__(self, count: int = 1, note: str = "") -> None:
        """`count` more units are done; `note` (a loss, a shard) is shown after the counts."""


@contextmanager
def progress_lines_to(take_line: Callable[[str], None]) -> Iterator[None]:
    """Inside the block, progress of this thread is plain lines for `take_line`, in a terminal too."""
    token = _take_line.set(take_line)
    try:
        yield
    finally:
        _take_line.reset(token)


@contextmanager
def progress_bar(title: str, total: int, unit: str, enabled: bool = True) -> Iterator[Advance]:
    """Yields `advance(count, note)`. Shows done, total, `unit`s per second and the time left."""
    if not enabled or total == 0:
        yield _silent
    elif _take_line.get() is None and sys.stderr.isatty():
        with _bar(title, total, unit) as advance:
            yield advance
    else:
        lines = _PlainLines(title, total, unit, _take_line.get() or _to_standard_error)
        yield lines
        lines.finish()


def _silent(count: int = 1, note: str = "") -> None:
    del count, note


def _to_standard_error(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _PlainLines:
    def __init__(self, title: str, total: int, unit: str, take_line: Callable[[str], None]) -> None:
        self._take_line = take_line
        self._title, self._total, self._unit = title, total, unit
        self._done = 0
        self._printed = -1
        self._note = ""
        self._started = self._last = time.monotonic()

    def __call__(self, count: int = 1, note: str = "") -> None:
        self._done += count
        self._note = note
        if time.monotonic() - self._last >= PLAIN_LINE_EVERY_S:
            self.print_line()

    def finish(self) -> None:
        """Print the last count, unless it was printed already."""
        if self._printed != self._done:
            self.print_line()

    def print_line(self) -> None:
        """Print what is done and how long the rest will take."""
        self._last, self._printed = time.monotonic(), self._done
        rate = self._done / max(self._last - self._started, 1e-9)
        left = f"{(self._total - self._done) / rate:.0f} s left" if rate else "no rate yet"
        counted = f"{self._done}/{self._total} {self._unit}, {rate:.1f}/s, {left}"
        self._take_line(f"{self._title}: {counted}  {self._note}".rstrip())


@contextmanager
def _bar(title: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0.0:.1f} {unit}/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total, note="")

        def advance(count: int = 1, note: str = "") -> None:
            progress.update(task, advance=count, note=note)

        yield advance
