"""Examination of training runs: identity, config, checkpoints.

Only the header of a checkpoint is read, so torch is not imported. A damaged run is never repaired: whether
to train it again is the user's decision.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

from flows.integrity.finding import Finding, Kind
from pipeline.core.fingerprint import SHORT, fingerprint
from pipeline.formats.safetensors_header import read_state
from pipeline.storage.files import AnyPath, read_json, sha256_file
from student.runs.layout import (
    CONFIG,
    LAST,
    RECORD,
    STATE,
    TENSORS,
    checkpoint_names,
    read_identity,
    state_path,
    tensors_path,
)


def examine_run(folder: AnyPath, *, deep: bool) -> Iterator[Finding]:
    """Findings about one folder of `runs/`."""
    for name, problem in ((RECORD, _run_problem(folder)), (CONFIG, _config_problem(folder))):
        if problem:
            yield _finding(Kind.RUN, folder / name, problem)
    for name in checkpoint_names(folder):
        if tensors_path(folder, name).exists():
            yield from _checkpoint(folder, name, deep)
        else:
            missing = tensors_path(folder, name)
            yield _finding(Kind.CHECKPOINT, missing, "expected a file, found none")


def _run_problem(folder: AnyPath) -> str:
    try:
        identity = read_identity(folder)
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"
    if folder.name.endswith(f"-{fingerprint(identity)[:SHORT]}"):
        return ""
    return "expected the identity that the folder is named after, found another"


def _config_problem(folder: AnyPath) -> str:
    try:
        tomllib.loads((folder / CONFIG).read_bytes().decode())
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"
    return ""


def _checkpoint(folder: AnyPath, name: str, deep: bool) -> Iterator[Finding]:
    path, state = tensors_path(folder, name), state_path(folder, name).name
    try:
        inside = read_state(path)
        outside = read_json(state_path(folder, name))
        steps = int(inside["step"]), int(outside["step"])
        same = outside["identity"] == inside["identity"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield _finding(Kind.CHECKPOINT, path, f"cannot be read: {error}")
        return
    if not same:
        problem = f"expected the identity that {state} names, found another"
        yield _finding(Kind.CHECKPOINT, path, problem)
    elif steps[0] > steps[1] and name == LAST:
        problem = (
            f"step {steps[0]} against {steps[1]} in {state}: killed between the two; its digest cannot "
            "be compared until the run is resumed"
        )
        yield Finding(Kind.CHECKPOINT_NEWER, str(path), problem, "any2seg train CONFIG")
    elif steps[0] != steps[1]:
        yield _finding(Kind.CHECKPOINT, path, f"expected step {steps[1]}, found step {steps[0]}")
    elif deep and sha256_file(path) != outside.get("sha256"):
        digest = sha256_file(path)[:SHORT]
        problem = (
            f"expected sha256 {str(outside.get('sha256'))[:SHORT]} as in {state}, found {digest}"
        )
        yield _finding(Kind.CHECKPOINT, path, problem)


def _finding(kind: Kind, path: AnyPath, problem: str) -> Finding:
    # `best` and `step-N` are extras beside `last`: the run resumes without them, so they are not rebuilt.
    copied = kind == Kind.CHECKPOINT and path.stem != LAST
    remedy = f"delete {path.parent}, then any2seg train CONFIG"
    if copied:
        remedy = f"delete {path.with_suffix(TENSORS)} and {path.with_suffix(STATE)}"
    return Finding(kind, str(path), problem, remedy)
