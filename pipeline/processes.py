"""Child processes that end with their parent, and locks that end with their process.

A killed run must leave nobody behind who still writes to the workspace.
"""

from __future__ import annotations

import ctypes
import fcntl
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import WorkspaceBusy

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Call in a child: on Linux the kernel ends it when the thread that started it ends, however it ends.

    Elsewhere it does nothing. Use as `subprocess.Popen(preexec_fn=...)` or a pool's initializer.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold an advisory lock on `path` for the block. Raises `WorkspaceBusy` if another process holds it.

    The lock is the kernel's (flock): it dies with its process, so no stale lock blocks a later run.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkspaceBusy(
                f"{path.parent}: another process is at work on {what}. Wait for it to end, or stop it; "
                "then run the same command again."
            ) from None
        yield
