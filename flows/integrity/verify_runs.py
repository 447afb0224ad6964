"""Examination of training runs: identity, settings, checkpoint. Writes nothing and reads no tensor.

A checkpoint is read by its format alone (safetensors: length of the header, header, numbers), so no training
code is imported. A damaged run is never repaired by itself: training again is the owner's decision.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any

from flows.integrity.finding import Finding, Kind
from pipeline.core.fingerprint import SHORT, fingerprint
from pipeline.storage.files import AnyPath, read_json, sha256_file

RUN, CONFIG = "run.json", "config.toml"
LAST = "last"
TENSORS, STATE = ".safetensors", ".json"
"""Endings of a checkpoint's two files; its name is `last`, `best` or `step-N`."""
LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100 << 20
METADATA_KEY = "any2seg"


def examine_run(folder: AnyPath, *, deep: bool) -> Iterator[Finding]:
    """Findings about one folder of `runs/`."""
    for name, problem in ((RUN, _run_problem(folder)), (CONFIG, _config_problem(folder))):
        if problem:
            yield _finding(Kind.RUN, folder / name, problem)
    checkpoints = folder / "checkpoints"
    stems = {path.stem for end in (TENSORS, STATE) for path in checkpoints.glob(f"*{end}")}
    for stem in sorted(stems):
        if (checkpoints / f"{stem}{TENSORS}").exists():
            yield from _checkpoint(checkpoints, stem, deep)
        else:
            missing = checkpoints / f"{stem}{TENSORS}"
            yield _finding(Kind.CHECKPOINT, missing, "expected a file, found none")


def _run_problem(folder: AnyPath) -> str:
    try:
        described = read_json(folder / RUN)
        identity = described["identity"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"cannot be read: {error}"
    if folder.name.endswith(f"-{fingerprint(identity)[:SHORT]}"):
        return ""
    return "expected the identity that the folder is named after, found another"


def _config_problem(folder: AnyPath) -> str:
    try:
        tomllib.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"
    return ""


def _checkpoint(folder: AnyPath, stem: str, deep: bool) -> Iterator[Finding]:
    path, state = folder / f"{stem}{TENSORS}", f"{stem}{STATE}"
    try:
        inside = read_state(path)
        outside = read_json(folder / state)
        steps = int(inside["step"]), int(outside["step"])
        same = outside["identity"] == inside["identity"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield _finding(Kind.CHECKPOINT, path, f"cannot be read: {error}")
        return
    if not same:
        problem = f"expected the identity that {state} names, found another"
        yield _finding(Kind.CHECKPOINT, path, problem)
    elif steps[0] > steps[1] and stem == LAST:
        problem = (
            f"step {steps[0]} against {steps[1]} in {state}: killed between the two; its digest cannot "
            "be compared until the run goes on"
        )
        yield Finding(Kind.CHECKPOINT_NEWER, str(path), problem, "any2seg train CONFIG")
    elif steps[0] != steps[1]:
        yield _finding(Kind.CHECKPOINT, path, f"expected step {steps[1]}, found step {steps[0]}")
    elif deep and sha256_file(path) != outside.get("sha256"):
        found = sha256_file(path)[:SHORT]
        problem = (
            f"expected sha256 {str(outside.get('sha256'))[:SHORT]} as in {state}, found {found}"
        )
        yield _finding(Kind.CHECKPOINT, path, problem)


def read_state(path: AnyPath) -> dict[str, Any]:
    """The JSON state in a checkpoint's metadata. Raises `ValueError` if the file is not whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if not 0 < length <= min(size, MAX_HEADER_BYTES):
            raise ValueError(f"expected a safetensors header, found {length} bytes of it")
        header = json.loads(file.read(length))
    metadata = header.pop("__metadata__", {})
    ends = [entry["data_offsets"][1] for entry in header.values()]
    whole = LENGTH_BYTES + length + max(ends, default=0)
    if size != whole:
        raise ValueError(f"expected {whole} bytes, found {size}")
    return dict(json.loads(metadata[METADATA_KEY]))


def _finding(kind: Kind, path: AnyPath, problem: str) -> Finding:
    # A copy beside the last checkpoint is not made again: without it the run is as good.
    copied = kind == Kind.CHECKPOINT and path.stem != LAST
    remedy = f"delete {path.parent}, then any2seg train CONFIG"
    if copied:
        remedy = f"delete {path.with_suffix(TENSORS)} and {path.with_suffix(STATE)}"
    return Finding(kind, str(path), problem, remedy)
