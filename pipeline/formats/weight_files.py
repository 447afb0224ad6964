"""Weight files as flat dicts of tensors: safetensors, or a torch pickle that holds tensors only."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import CheckpointError
from pipeline.formats.foreign_file import file_form, file_problem
from pipeline.formats.safetensors_header import header_problem

StateDict = dict[str, Tensor]
"""Tensor name to tensor."""
FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_REMEDY = "Fetch it again from a source you trust."
_GLOBAL = re.compile(r"GLOBAL (\S+)")
_CODE = "more than tensors, which could run code when read"


def read_tensors(path: Path, remedy: str = _REMEDY) -> StateDict:
    """All tensors of a file, on the CPU, in their stored dtype.

    Raises `CheckpointError`, ending with `remedy`, for a file that is missing, corrupted, holds
    anything but a flat dict of tensors, or a number that is not finite.
    """
    problem = file_problem(path)
    if problem == "no such file":
        raise CheckpointError(f"{path}: no such file. {remedy}")
    if problem:
        raise CheckpointError(f"{path}: expected a file of weights, found {problem}. {remedy}")
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else _load_pickle(path)
    # A corrupted pickle makes the unpickler raise anything: IndexError, struct.error, TypeError, ...
    except Exception as error:
        raise CheckpointError(
            f"{path}: expected a checkpoint of tensors only, found {_reason(path, error)}. {remedy}"
        ) from error
    content = _foreign_content(state) or _unusable_tensor(state)
    if content:
        raise CheckpointError(f"{path}: expected a flat dict of tensors, found {content}. {remedy}")
    return {**state}


def _load_pickle(path: Path) -> Any:
    """What a pickle holds. Refuses every object that is not a tensor, so no code in the file can run."""
    with warnings.catch_warnings():
        # About tensors that are refused below; a caller reads one line.
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def first_line(error: Exception) -> str:
    """Class and first line of an error."""
    lines = str(error).strip().splitlines() or ["no reason given"]
    return f"{type(error).__name__}: {lines[0]}"


def _reason(path: Path, error: Exception) -> str:
    """What a file is that safetensors or torch could not read."""
    if path.suffix == ".safetensors":
        return header_problem(path) or first_line(error)
    form = file_form(path)
    if form and "zip" not in form:
        return form
    if form and not zipfile.is_zipfile(path):
        return "a zip archive that is cut short"
    if isinstance(error, pickle.UnpicklingError):
        # The message's first line advises to read the file with its code.
        name = _GLOBAL.search(str(error))
        return f"{_CODE} ({name[1]})" if name else f"{_CODE}, or a corrupted pickle"
    return first_line(error)


def _foreign_content(state: object) -> str | None:
    """What a file holds that is no flat dict of tensors; None if it is one."""
    if not isinstance(state, dict):
        return f"a {type(state).__name__}"
    if not state:
        return "no tensor"
    for name, value in state.items():
        if isinstance(value, dict):
            return (
                f"a dict under {name!r} (save that one alone: `torch.save(state[{name!r}], FILE)`)"
            )
        if not isinstance(value, Tensor) or not isinstance(name, str):
            return f"a {type(value).__name__} under {name!r}"
    return None


def _unusable_tensor(state: StateDict) -> str | None:
    """The first tensor that is not plain or holds NaN or infinity; None if there is none."""
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            return f"a sparse, quantised or empty tensor: {name}"
        if tensor.dtype in FLOAT_DTYPES and tensor.numel():
            # Both are NaN if any number is.
            low, high = tensor.aminmax()
            if not (low.isfinite() and high.isfinite()):
                return f"NaN or infinity in {name}"
    return None
