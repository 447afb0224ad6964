"""Child processes: how they start, how they end, and the one text about a child that died.

    start_module("uvicorn", ["--port", "1"])       `python -m` in a child            -> Popen
    run_module("flows.cli", words, log=...)        the same, waited for              -> Exit
    start_function(function, argument)             a function in a spawned child     -> Process
    python -m pipeline.core.child MODULE ...       what the first two run; see `main`

Every child ends with its parent, however the parent ends: a killed run must leave no process behind
that still writes to the workspace. The first instruction of a child sees to it. A `preexec_fn` could
too, but Python between fork and exec can deadlock if the parent has threads, as a flow has.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from typing import Any

from pipeline.core.retryable import KILLED

SPAWN = multiprocessing.get_context("spawn")
"""Starts processes. Forking one that has threads (a flow, a progress bar) can hang."""
LAST_LINES = 20
"""Lines of a child's output that are kept for its error."""
GRACE_S = 10.0
"""Seconds that a child has to end by itself before it is killed."""
WATCH_EVERY_S = 0.5
OUT_OF_MEMORY = "most likely out of memory"
_PARENT = "ANY2SEG_PARENT_PID"
"""Environment variable by which a child knows its parent, even one that died before it could ask."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended."""

    code: int
    """Its exit code; minus the number of the signal that killed it."""
    last_lines: tuple[str, ...] = ()
    """The end of its output, if that was read."""

    @property
    def killed(self) -> bool:
        """Whether it was killed by SIGKILL, as the operating system does when memory is short."""
        return self.code in KILLED

    @property
    def error_text(self) -> str:
        """From its last line that begins with `error: ` on; else its last line; else nothing."""
        for index in range(len(self.last_lines) - 1, -1, -1):
            if self.last_lines[index].startswith("error: "):
                return "\n".join(self.last_lines[index:]).removeprefix("error: ")
        return self.last_lines[-1] if self.last_lines else ""

    def __str__(self) -> str:
        if self.killed:
            return f"was killed by SIGKILL, {OUT_OF_MEMORY}"
        if self.code < 0:
            names = {number.value: number.name for number in signal.Signals}
            return f"was killed by {names.get(-self.code, f'signal {-self.code}')}"
        return f"exited with code {self.code}"


def death_text(what: str, how: Exit | str, output: str, resume: str) -> str:
    """The error for a child that died, in one line: what, how, where its output is, how to resume."""
    return f"{what} {how}; its output is {output}. {resume}"


def end_with_parent() -> None:
    """Call first in a child: from then on it is sent SIGTERM when its parent ends, however that ends.

    On Linux by the kernel (PR_SET_PDEATHSIG), which also reaches a child that is stuck in native code.
    For the kernel the parent is the thread that started the child: let that one wait for it. Elsewhere
    a daemon thread watches the parent.
    """
    own = multiprocessing.parent_process()
    # `os.getppid()` alone would name init if the parent died while this child was starting.
    parent = own.pid if own else int(os.environ.get(_PARENT, os.getppid()))
    assert parent is not None
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before the call above, which then never signals
            os.kill(os.getpid(), signal.SIGTERM)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)


def start_module(
    module: str,
    arguments: Sequence[str] = (),
    *,
    environment: Mapping[str, str] | None = None,
    **streams: Any,
) -> subprocess.Popen[str]:
    """`python -m module arguments` in a child that ends with this process. See `stop`.

    `environment` is this process's if not given; `streams` are those of `Popen`, inherited if not given.
    """
    inherited = os.environ if environment is None else environment
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.core.child", module, *arguments],
        env={**inherited, _PARENT: str(os.getpid())},
        encoding="utf-8",
        errors="replace",  # output is for logs: bytes that are no UTF-8 must not end the parent
        **streams,
    )


def stop(process: subprocess.Popen[str]) -> None:
    """End a child if it has not ended: SIGTERM, and SIGKILL after `GRACE_S`. It leaves no zombie."""
    process.terminate()
    try:
        process.wait(timeout=GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_module(
    module: str,
    arguments: Sequence[str] = (),
    *,
    environment: Mapping[str, str] | None = None,
    log: Callable[[str], None] | None = None,
) -> Exit:
    """Run `python -m module arguments` to its end. An exception during the wait kills the child.

    `log` is handed every line of its output; without it the child prints where this process prints.
    """
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if log else {}
    last: deque[str] = deque(maxlen=LAST_LINES)
    with start_module(module, arguments, environment=environment, **streams) as process:
        try:
            if log and process.stdout:
                for line in process.stdout:
                    last.append(line.rstrip())
                    log(last[-1])
            return Exit(process.wait(), tuple(last))
        finally:
            process.kill()  # its own children end with it; nothing happens if it has ended


def start_function(function: Callable[..., None], *arguments: Any) -> SpawnProcess:
    """Start `function(*arguments)` in a spawned child that ends with this process."""
    process = SPAWN.Process(target=_run_function, args=(function, arguments), daemon=True)
    process.start()
    return process


def _run_function(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    end_with_parent()
    function(*arguments)


def main(module: str, *arguments: str) -> None:
    """Become `python -m module arguments`, and end with the parent.

    A child that it starts as `python -m pipeline.core.child` (as `torchrun` does) ends with it in turn.
    """
    end_with_parent()
    # For its own children, which inherit the environment: their parent is this process.
    os.environ[_PARENT] = str(os.getpid())
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
