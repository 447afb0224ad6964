"""The files of a run folder, `runs/<name>-<fp12>/`, and the fields that other stages read from them.

    run.json        identity, number of samples         config.toml     the resolved config
    checkpoints/{last,best,step-N}.safetensors           tensors and state
    checkpoints/{last,best,step-N}.json                  the state again, with the file's sha256

Shared by training, `verify`, `gc` and `retrain`. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import CheckpointError
from pipeline.storage.files import AnyPath, read_json

RECORD, CONFIG = "run.json", "config.toml"
LAST, BEST = "last", "best"
"""Names of checkpoints; those of `train.keep_every` are `step-N`."""
CHECKPOINTS = "checkpoints"
TENSORS, STATE = ".safetensors", ".json"
"""Endings of a checkpoint's two files."""


def tensors_path(folder: AnyPath, name: str) -> AnyPath:
    """A checkpoint's tensors and state, in a run's folder."""
    return folder / CHECKPOINTS / f"{name}{TENSORS}"


def state_path(folder: AnyPath, name: str) -> AnyPath:
    """A copy of its state with the file's sha256, readable without tensors; written after it."""
    return folder / CHECKPOINTS / f"{name}{STATE}"


def checkpoint_names(folder: AnyPath) -> list[str]:
    """Names of the checkpoints of which at least one file exists."""
    names = {p.stem for end in (TENSORS, STATE) for p in (folder / CHECKPOINTS).glob(f"*{end}")}
    return sorted(names)


def read_record(folder: AnyPath) -> dict[str, Any]:
    """`run.json`. Raises `OSError`, or `ValueError` if it is none."""
    try:
        record = dict(read_json(folder / RECORD))
        return {**record, "identity": dict(record["identity"])}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / RECORD}: expected a run's record, found: {error!r}") from None


def read_identity(folder: AnyPath) -> dict[str, Any]:
    """Everything that the run's weights depend on. Raises `OSError`, `ValueError`."""
    identity: dict[str, Any] = read_record(folder)["identity"]
    return identity


def planned_steps(identity: Mapping[str, Any]) -> int:
    """Steps that a run of this identity trains for."""
    return int(identity["train"]["steps"])


def last_step(folder: AnyPath) -> int:
    """Steps of the last checkpoint; 0 if there is none. `CheckpointError` if its state is corrupted."""
    path = state_path(folder, LAST)
    try:
        return int(read_json(path)["step"])
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: cannot be read: {error!r}. Delete it and run `any2seg train CONFIG`: the "
            "checkpoint beside it holds the same state."
        ) from None
