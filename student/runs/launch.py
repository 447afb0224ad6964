"""A stage in several processes of this machine: `torchrun`, started by the command.

    launch(train, config, progress=True) -> StageReport

Every process is a `student.worker`, which calls the stage. They print their progress where this
process prints, and end with it. Rank 0 leaves the report in a temporary file, a failing rank its error.

Raises what the stage raises, and `Any2SegError` for a process that exited without a report.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline import errors
from pipeline.config.config import Config
from pipeline.config.load import dump_config
from pipeline.core.child import death_text, run_module
from pipeline.core.stage_report import StageReport
from pipeline.errors import Any2SegError
from pipeline.storage.files import read_json

TORCHRUN = ("torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1")
"""The module that starts the processes, and its options for one machine.

Not `elastic_launch` in this process: it replaces the signal handlers for good (Ctrl-C is no longer
`KeyboardInterrupt`), wants `if __name__ == "__main__":` in the user's script, and may report a rank whose
connection broke in place of the one whose error broke it.
"""
WORKER = ("-m", "pipeline.core.child", "student.worker")
"""What `torchrun` starts; it ends with `torchrun`, which ends with this process."""
_RESUME = {
    "train": "it resumes from the last checkpoint",
    "evaluate": "with a smaller `evaluate.batch_size` if memory ran out",
}


def is_launched() -> bool:
    """Whether `torchrun` started this process."""
    return "WORLD_SIZE" in os.environ


def launch(stage: Callable[..., StageReport], config: Config, *, progress: bool) -> StageReport:
    """Run `train` or `evaluate` in `train.processes` processes on this machine."""
    with TemporaryDirectory() as folder:
        path, answer = Path(folder) / "config.toml", Path(folder) / "answer.json"
        path.write_text(dump_config(config), encoding="utf-8")
        options = [*TORCHRUN[1:], f"--nproc-per-node={config.train.processes}"]
        name = f"{stage.__module__}:{stage.__name__}"
        worker = [*WORKER, name, str(path), str(answer), str(int(progress))]
        environment = {**_loopback(), **os.environ}
        ended = run_module(TORCHRUN[0], [*options, *worker], environment=environment)
        content = read_json(answer) if answer.exists() else {}
    if "error" in content:
        raise error_from_json(content["error"])
    if ended.code or not content:
        what = f"torchrun, with train.processes = {config.train.processes} for {stage.__name__},"
        resume = f"Run `any2seg {stage.__name__} CONFIG` again: {_RESUME[stage.__name__]}."
        raise Any2SegError(death_text(what, ended, "printed above", resume))
    return StageReport.from_json(content["report"])


def error_as_json(error: Any2SegError) -> dict[str, Any]:
    """The error for another process: as its own class if `pipeline.errors` has it, else as a base."""
    if getattr(errors, type(error).__name__, None) is type(error):
        return {"kind": type(error).__name__, "args": [str(value) for value in error.args]}
    known = (base.__name__ for base in type(error).__mro__ if base in vars(errors).values())
    return {"kind": next(known), "args": [str(error)]}


def error_from_json(value: dict[str, Any]) -> Any2SegError:
    """The error that a process reported."""
    error: Any2SegError = getattr(errors, value["kind"])(*value["args"])
    return error


def _loopback() -> dict[str, str]:
    """Keep what the processes of one machine send each other on its loopback interface."""
    names = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    return {"GLOO_SOCKET_IFNAME": names[0]} if names else {}
