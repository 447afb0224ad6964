"""The training stage: `train(config, workspace)` starts, resumes or skips one run.

Writes `runs/<run-id>/{config.toml, run.json, metrics.parquet, checkpoints/}`. Killed at any
instruction and called again, it resumes from the last checkpoint with the same losses as an
uninterrupted run (bit for bit on a CPU). A finished run is skipped without importing torch. One that
cannot work (no split to score, a student that does not take the images) is refused before its folder
exists. With several processes (`train.processes`, or started by `torchrun` on any number of machines
that share the workspace) only the main process locks and writes. Raises `DatasetError`, `MissingTarget`,
`CheckpointError`, `FingerprintMismatch`, `ConfigError` (what `student.runs.preflight` refuses), and
`WorkspaceBusy` while another process trains the same run.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from pipeline.config.config import Config
from pipeline.core.device import choose_device
from pipeline.core.stage_report import StageReport
from pipeline.storage.lease import LOCK, locked
from pipeline.targets.reader import TeacherSource
from pipeline.workspace import Workspace
from student.runs.inputs import open_inputs, start_run
from student.runs.launch import is_launched, launch
from student.runs.preflight import check_training
from student.runs.run import is_finished


def train(
    config: Config,
    workspace: Workspace,
    *,
    progress: bool = True,
    live: TeacherSource | None = None,
) -> StageReport:
    """Train the config's student to its last step. Units of the report are steps.

    `live`: a teacher that encodes on demand, in place of the cached targets. It lives in this
    process, which then loads the data as well.
    """
    started = time.perf_counter()
    if live is not None:
        in_process = {"workers": 0, "processes": 1}
        config = config.model_copy(update={"train": config.train.model_copy(update=in_process)})
    inputs = open_inputs(config, workspace)
    run, steps = inputs.run, config.train.steps
    details: dict[str, object] = {"run_id": run.id, "folder": str(run.folder)}
    if is_finished(run):
        seconds = time.perf_counter() - started
        return StageReport("train", skipped=steps, seconds=seconds, details=details)
    check_training(config, inputs.manifest)
    if config.train.processes > 1 and not is_launched():
        return launch(train, config, progress=progress)
    # Here, so that a finished run is skipped without importing torch.
    from student.runs.distributed import join_world
    from student.training.trainer import run_loop

    with ExitStack() as stack:
        world = stack.enter_context(join_world(choose_device(config.train.device)))
        if world.is_main_process:
            stack.enter_context(locked(run.folder / LOCK, wait=False))
            start_run(inputs)
        world.barrier()
        first, metrics = run_loop(inputs, progress=progress, live=live, world=world)
    return StageReport(
        "train",
        done=steps - first,
        skipped=first,
        seconds=time.perf_counter() - started,
        details=details | metrics,
    )
