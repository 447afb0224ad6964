"""Weight files as flat dicts of tensors: safetensors, or a torch pickle that holds tensors only."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import CheckpointError

StateDict = dict[str, Tensor]
"""Tensor name to tensor."""
UNREADABLE = (
    SafetensorError,
    pickle.UnpicklingError,
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    KeyError,
)
"""What safetensors and torch raise for truncated, corrupted or foreign files."""
_REMEDY = "Fetch it again from a source you trust."


def read_tensors(path: Path, remedy: str = _REMEDY) -> StateDict:
    """All tensors of a file, on the CPU, in their stored dtype.

    Raises `CheckpointError`, ending with `remedy`, for a file that is missing, corrupted, or holds
    anything but a flat dict of tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. {remedy}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # `weights_only` refuses every pickled object that is no tensor, so no code in the file can run.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        excess = "more than tensors: " if isinstance(error, pickle.UnpicklingError) else ""
        raise CheckpointError(
            f"{path}: expected a checkpoint of tensors only, found {excess}{first_line(error)}. {remedy}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(
            f"{path}: expected a flat dict of tensors, found something else. {remedy}"
        )
    return dict(state)


def first_line(error: Exception) -> str:
    """Class and first line of an error."""
    lines = str(error).strip().splitlines() or ["no reason given"]
    return f"{type(error).__name__}: {lines[0]}"
