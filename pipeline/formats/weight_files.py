"""Files of pretrained weights, as flat tensors. Nothing is ever unpickled, nothing is written.

`CheckpointError` for a file that is absent, damaged, or holds more than tensors.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import CheckpointError


def read_state(path: Path) -> dict[str, Tensor]:
    """A flat state dict from safetensors or a torch file; nothing is ever unpickled."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Check student.weights.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise CheckpointError(
            f"{path}: not a readable file of tensors: {first_line(error)}"
        ) from None
    except Exception as error:  # pickle.UnpicklingError: naming it would import pickle
        if type(error).__name__ != "UnpicklingError":
            raise
        raise CheckpointError(
            f"{path}: holds more than tensors; convert it to safetensors first"
        ) from None
    return dict(state)


def first_line(error: Exception) -> str:
    """Class and first line of an error."""
    return (
        f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
    )
