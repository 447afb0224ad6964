"""Which errors are worth retrying, and the error that says which stage failed. Imports no Prefect.

Worth retrying are transient errors: I/O, a store that does not answer, a killed worker process. A wrong
config, refused data, a full or read-only disk and a missing file are permanent.
"""

from __future__ import annotations

import errno

from pipeline.errors import Any2SegError, WorkerLost

TRY_AGAIN = 75
"""Exit code of a command that failed with a transient error (EX_TEMPFAIL of sysexits.h)."""
KILLED = frozenset({-9, 137})
"""Exit codes of a process that was killed by SIGKILL, most likely out of memory."""
_PERMANENT = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.ENAMETOOLONG,
    }
)


class StageFailed(Any2SegError):
    """A stage of a flow failed; the message names stage, unit, cause and the command that resumes."""

    def __init__(self, stage: str, unit: str, cause: str, resume: str) -> None:
        super().__init__(
            f"{stage} {unit}: {cause}\nWhat is finished is kept. Resume with `{resume}`."
        )
        self.stage, self.unit, self.cause, self.resume = stage, unit, cause, resume


class ProcessFailed(Any2SegError):
    """A process of the flow ended with an error; the message is the last line of its output."""


class TryAgain(WorkerLost):
    """A process of the flow ended with a transient error: killed, or a store that did not answer."""


def worth_retrying(error: object) -> bool:
    """Whether the same call may succeed a little later."""
    if isinstance(error, WorkerLost):
        return True
    # `StorageUnavailable` is an OSError without errno, so it is retried. `WorkspaceBusy` is none: the
    # other process may write for days.
    if not isinstance(error, OSError):
        return False
    return error.errno not in _PERMANENT
