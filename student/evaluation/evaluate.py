"""The evaluation stage: `evaluate(config, workspace)` scores every non-empty subset of the
modalities.

Writes `runs/<run-id>/evaluation.json` and, for some samples, `pictures/<key>/{label,
<subset>}.png` with class ids (`<subset>`: modalities joined by `+`). Skipped, without importing
torch, if that file is there for the same checkpoint and settings. Absent modalities are skipped,
not filled with zeros (`evaluate.robustness` adds that and more, see docs/evaluation.md); a sample
that has none of a subset's modalities does not count for that subset. In several processes
(`train.processes`, or started by `torchrun`) each predicts its part; the first one writes the same
scores as one process would. What can fail: `CheckpointError` (nothing trained yet), `DatasetError`
(no such split, no labelled pixel), `CorruptShard`, `FingerprintMismatch`.
"""

from __future__ import annotations

import json
import time
from functools import partial
from typing import Any

from pipeline.config.config import Config
from pipeline.core.stage_report import StageReport
from pipeline.errors import CheckpointError
from pipeline.shards.manifest import Manifest
from pipeline.storage.files import read_json, write_json
from pipeline.workspace import Workspace
from student.evaluation.batch_halving import halve_batch_on_oom
from student.runs.launch import is_launched, launch
from student.runs.run import Run, identify

EVALUATION_SCHEMA = 2
"""Schema 1 (no corner cases, no robustness) is not read: such a run is scored anew."""


def evaluate(config: Config, workspace: Workspace, *, progress: bool = True) -> StageReport:
    """Score the run's last checkpoint. Units of the report are subsets of the modalities."""
    started = time.perf_counter()
    manifest = Manifest.load(workspace.dataset(config))
    run = identify(config, workspace, manifest)
    if not run.checkpoint.exists():
        raise CheckpointError(
            f"{run.checkpoint}: expected a trained student, found none. Run `any2seg train CONFIG`."
        )
    found = current_scores(run, config)
    num_subsets = 2 ** len(config.modalities) - 1
    if found is None and config.train.processes > 1 and not is_launched():
        return launch("evaluate", config, progress=progress)
    if found is None:
        score = partial(_score, manifest=manifest, run=run, progress=progress)
        found = halve_batch_on_oom(score, config, alone=not is_launched())
        done, skipped = num_subsets, 0
    else:
        done, skipped = 0, num_subsets
    details = {"run_id": run.id} | {key: found[key] for key in ("all", "mean", "worst", "step")}
    seconds = time.perf_counter() - started
    return StageReport("evaluate", done=done, skipped=skipped, seconds=seconds, details=details)


def _score(config: Config, manifest: Manifest, run: Run, progress: bool) -> dict[str, Any]:
    from pipeline.core.device import pick_device
    from student.evaluation.count import score
    from student.runs.distributed import world

    with world(pick_device(config.train.device).type) as processes:
        found = {"schema": EVALUATION_SCHEMA, "settings": settings(config)}
        found |= score(config, manifest, run, progress=progress, world=processes)
        if processes.leads:
            write_json(run.evaluation, found)
        processes.wait()
    return found


def settings(config: Config) -> dict[str, Any]:
    """What the scores depend on, beside the checkpoint."""
    names = {"split", "num_pictures", "window_px"}
    names |= {"window_overlap"} if config.evaluate.window_px else set()
    names |= {"robustness", "seed"} if config.evaluate.robustness else set()
    return config.evaluate.model_dump(mode="json", include=names)


def current_scores(run: Run, config: Config) -> dict[str, Any] | None:
    """The scores of this very checkpoint with these settings, if they are there.

    Those with robustness serve a config without it.
    """
    try:
        found: dict[str, Any] = read_json(run.evaluation)
        digest = read_json(run.checkpoint_state)["sha256"]
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    same = (found["schema"], found["checkpoint_sha256"]) == (EVALUATION_SCHEMA, digest)
    return found if same and settings(config).items() <= found["settings"].items() else None
