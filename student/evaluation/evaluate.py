"""The evaluation stage: `evaluate(config, workspace)` scores every non-empty subset of modalities.

Writes `runs/<run-id>/evaluation.json` and, for some samples, class ids as PNG:
`pictures/<key>/label.png` and `pictures/<key>/<subset>.png` (modalities joined by `+`). Skipped,
without importing torch, if that file was made from the same checkpoint with the same config. Absent
modalities are skipped, not filled with zeros (`evaluate.robustness` adds that and more, see
docs/evaluation.md); a sample without any of a subset's modalities does not count for that subset.
With several processes (`train.processes`, or started by `torchrun`) each predicts its part; the main
process writes the same scores as a single process would. Raises `CheckpointError` (nothing trained
yet), `DatasetError` (no such split, no labelled pixel), `CorruptShard`, `FingerprintMismatch`.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from pipeline.config.config import Config
from pipeline.core.device import choose_device
from pipeline.core.stage_report import StageReport
from pipeline.errors import CheckpointError
from pipeline.schemas import EVALUATION_SCHEMA
from pipeline.storage.files import read_json, write_json
from pipeline.workspace import Workspace
from student.evaluation.batch_halving import halve_batch_on_oom
from student.runs.inputs import RunInputs, open_inputs
from student.runs.launch import is_launched, launch
from student.runs.preflight import check_evaluation
from student.runs.run import Run


def evaluate(config: Config, workspace: Workspace, *, progress: bool = True) -> StageReport:
    """Score the run's last checkpoint. Units of the report are subsets of the modalities."""
    started = time.perf_counter()
    inputs = open_inputs(config, workspace)
    run = inputs.run
    if not run.checkpoint.exists():
        raise CheckpointError(
            f"{run.checkpoint}: expected a trained student, found none. Run `any2seg train CONFIG`."
        )
    check_evaluation(config, inputs.manifest)
    scores = current_scores(run, config)
    num_subsets = 2 ** len(config.modalities) - 1
    if scores is None and config.train.processes > 1 and not is_launched():
        return launch(evaluate, config, progress=progress)
    if scores is None:
        scores = halve_batch_on_oom(
            lambda smaller: _score(replace(inputs, config=smaller), progress),
            config,
            alone=not is_launched(),
        )
        done, skipped = num_subsets, 0
    else:
        done, skipped = 0, num_subsets
    details = {"run_id": run.id} | {key: scores[key] for key in ("all", "mean", "worst", "step")}
    seconds = time.perf_counter() - started
    return StageReport("evaluate", done=done, skipped=skipped, seconds=seconds, details=details)


def _score(inputs: RunInputs, progress: bool) -> dict[str, Any]:
    # Here, so that a stage with nothing to do does not import torch.
    from student.evaluation.count import score
    from student.runs.distributed import join_world

    config = inputs.config
    with join_world(choose_device(config.train.device)) as world:
        scores = {"schema": EVALUATION_SCHEMA, "settings": scoring_config(config)}
        scores |= score(inputs, progress=progress, world=world)
        if world.is_main_process:
            write_json(inputs.run.evaluation, scores)
        world.barrier()
    return scores


def scoring_config(config: Config) -> dict[str, Any]:
    """The fields of `[evaluate]` that the scores depend on, as `evaluation.json` keeps them."""
    names = {"split", "num_pictures", "window_px"}
    names |= {"window_overlap"} if config.evaluate.window_px else set()
    names |= {"robustness", "seed"} if config.evaluate.robustness else set()
    return config.evaluate.model_dump(mode="json", include=names)


def current_scores(run: Run, config: Config) -> dict[str, Any] | None:
    """The scores of the present checkpoint with this config; None if they were never computed.

    Scores with robustness also serve a config without it.
    """
    try:
        scores: dict[str, Any] = read_json(run.evaluation)
        digest = read_json(run.checkpoint_state)["sha256"]
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    same = (scores["schema"], scores["checkpoint_sha256"]) == (EVALUATION_SCHEMA, digest)
    expected = scoring_config(config).items()
    # A subset suffices: scores with robustness have its fields on top.
    return scores if same and expected <= scores["settings"].items() else None
