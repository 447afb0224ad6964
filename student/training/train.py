"""The training stage: `train(config, workspace)` writes or completes one run.

Writes `runs/<run-id>/{config.toml, run.json, metrics.parquet, checkpoints/}`. Killed at any
instruction and called again it goes on from the last checkpoint, with the same losses as if it had
never stopped (bit for bit on a CPU). A finished run is skipped without importing torch. In several
processes (`train.processes`, or started by `torchrun` on any number of machines with one workspace)
only the first one locks and writes. What can fail: `DatasetError`, `MissingTarget`, `CheckpointError`,
`FingerprintMismatch`, `ConfigError` (a batch that does not divide), and `WorkspaceBusy` while another
process trains the same run.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from pipeline.config.config import Config
from pipeline.core.stage_report import StageReport
from pipeline.shards.manifest import Manifest
from pipeline.storage.files import locked
from pipeline.targets.reader import TeacherSource
from pipeline.workspace import LOCK, Workspace
from student.runs.launch import is_launched, launch
from student.runs.run import identify, is_finished, open_run


def train(
    config: Config,
    workspace: Workspace,
    *,
    progress: bool = True,
    live: TeacherSource | None = None,
) -> StageReport:
    """Train the config's student to its last step. Units of the report are steps.

    `live`: a teacher that answers on demand, in place of the cached answers; then this process
    loads the data as well, since the teacher is here.
    """
    started = time.perf_counter()
    if live is not None:
        alone = {"workers": 0, "processes": 1}
        config = config.model_copy(update={"train": config.train.model_copy(update=alone)})
    manifest = Manifest.load(workspace.dataset(config))
    run = identify(config, workspace, manifest)
    details: dict[str, object] = {"run_id": run.id, "folder": str(run.folder)}
    steps = config.train.steps
    if is_finished(run):
        seconds = time.perf_counter() - started
        return StageReport("train", skipped=steps, seconds=seconds, details=details)
    if config.train.processes > 1 and not is_launched():
        return launch("train", config, progress=progress)
    from pipeline.core.device import pick_device
    from student.runs.distributed import world
    from student.training.trainer import run_loop

    with ExitStack() as stack:
        found = stack.enter_context(world(pick_device(config.train.device).type))
        if found.leads:
            stack.enter_context(locked(run.folder / LOCK, wait=False))
            open_run(config, workspace, manifest)
        found.wait()
        first, figures = run_loop(
            config, workspace, manifest, run, progress=progress, live=live, world=found
        )
    return StageReport(
        "train",
        done=steps - first,
        skipped=first,
        seconds=time.perf_counter() - started,
        details=details | figures,
    )
