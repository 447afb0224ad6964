"""One of the processes in which `student.runs.launch` trains or scores: `torchrun` runs it.

    python -m pipeline.core.child student.worker MODULE:FUNCTION CONFIG ANSWER PROGRESS

The stage is imported by the name that it is given, so launcher and stages do not import each other.
Rank 0 writes the stage's report to the file ANSWER; a rank that fails writes its error there.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

from pipeline.config.load import load_config
from pipeline.errors import Any2SegError
from pipeline.storage.files import write_json
from pipeline.workspace import Workspace
from student.runs.launch import error_as_json


def main(stage: str, config_path: str, answer: str, progress: str) -> int:
    """Run the stage `module:function`; returns the exit code."""
    module, _, function = stage.partition(":")
    run = getattr(import_module(module), function)
    config = load_config(Path(config_path))
    try:
        report = run(config, Workspace.of(config), progress=progress == "1")
    except Any2SegError as error:
        write_json(Path(answer), {"error": error_as_json(error)})
        return 1
    if os.environ["RANK"] == "0":
        write_json(Path(answer), {"report": report.as_json()})
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
