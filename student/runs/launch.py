"""Several processes on this machine that train or score: `torchrun`, started by the command.

    launch("train", config, progress=True) -> StageReport

Every process runs `python -m student.runs.launch STAGE CONFIG ANSWER ...`, which is
`student.training.train.train` or `student.evaluation.evaluate.evaluate`; the first of them leaves
its report in a file for the command, one that fails its error. They show their progress on standard
error, and end when the command is gone. Writes nothing that lasts beside what the stage writes;
what can fail: what the stage raises, and `Any2SegError` for a process that ended without a word.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from pipeline import errors
from pipeline.config.config import Config
from pipeline.config.load import dump_config, load_config
from pipeline.core.stage_report import StageReport
from pipeline.errors import Any2SegError
from pipeline.storage.files import read_json, write_json
from pipeline.workspace import Workspace

Stage = Literal["train", "evaluate"]
LOOK_EVERY_S = 1.0
_AGAIN = {
    "train": "it goes on from the last checkpoint",
    "evaluate": "with a smaller `evaluate.batch_size` if memory ran out",
}
TORCHRUN = (
    *(sys.executable, "-m", "torch.distributed.run"),
    *("--standalone", "--local-addr", "127.0.0.1"),
)


def is_launched() -> bool:
    """Whether `torchrun` started this process."""
    return "WORLD_SIZE" in os.environ


def launch(stage: Stage, config: Config, *, progress: bool) -> StageReport:
    """Run a stage in `train.processes` processes on this machine."""
    with TemporaryDirectory() as folder:
        path, answer = Path(folder) / "config.toml", Path(folder) / "answer.json"
        path.write_text(dump_config(config))
        arguments = [stage, str(path), str(answer), str(os.getpid()), str(int(progress))]
        number = f"--nproc-per-node={config.train.processes}"
        done = subprocess.run(
            [*TORCHRUN, number, "-m", "student.runs.launch", *arguments],
            env={**_loopback(), **os.environ},
            check=False,
        ).returncode
        told = read_json(answer) if answer.exists() else {}
    if "error" in told:
        raise getattr(errors, told["kind"])(told["error"])
    if done or not told:
        raise Any2SegError(
            f"train.processes: expected {config.train.processes} processes that {stage} to the end, "
            f"torchrun ended with {done}; the reason is printed above. Then run `any2seg {stage} "
            f"CONFIG` again: {_AGAIN[stage]}."
        )
    return StageReport(stage, **told)


def _loopback() -> dict[str, str]:
    """Keep what the processes of one machine tell each other on its loopback interface."""
    names = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    return {"GLOO_SOCKET_IFNAME": names[0]} if names else {}


def main(stage: Stage, path: str, answer: str, launcher: str, progress: str) -> int:
    """One process: train or score. The first tells how it went, and whoever meets an error tells it."""
    from student.evaluation.evaluate import evaluate
    from student.training.train import train

    run = {"train": train, "evaluate": evaluate}[stage]
    threading.Thread(target=_end_with, args=(int(launcher),), daemon=True).start()
    config = load_config(Path(path))
    told: dict[str, Any]
    try:
        report = run(config, Workspace.of(config), progress=bool(int(progress)))
        told = {"done": report.done, "skipped": report.skipped, "seconds": report.seconds}
        told["details"] = dict(report.details)
    except Any2SegError as error:
        told = {"error": str(error), "kind": type(error).__name__}
    if os.environ["RANK"] == "0" or "error" in told:
        write_json(Path(answer), told)
    return 1 if "error" in told else 0


def _end_with(launcher: int) -> None:
    """End this process once the command that wanted it was killed: it would hold the run's lock."""
    while True:
        try:
            os.kill(launcher, 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(LOOK_EVERY_S)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))  # type: ignore[arg-type]
