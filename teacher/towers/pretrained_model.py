"""A transformers model from a checkpoint folder: weights read by our reader, placed by the library.

The library renames tensors of older files and drops head prefixes; a tensor that the model needs and
the file lacks is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig
from transformers.utils import logging

from pipeline.errors import CheckpointError
from pipeline.formats.weight_files import first_line
from teacher.checkpoints.read import read_checkpoint
from teacher.checkpoints.tensors import torch_dtype

_UNUSED = ("mask_token", "position_ids")
"""Ends of tensor names that inference does not need."""


def read_config(folder: Path) -> Any:
    """The library's own configuration of a folder. Raises `CheckpointError`."""
    try:
        with _quiet():
            return AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # its validators raise errors of several kinds
        raise CheckpointError(
            f"{folder}: expected a config.json that transformers can read, found: {first_line(error)}. "
            "Fetch the checkpoint again."
        ) from error


def load_model(
    folder: Path, model_class: Any, config: Any, skip: tuple[str, ...], dtype: str, device: str
) -> nn.Module:
    """A model in evaluation mode with the folder's weights; tensors named `skip...` are left out.

    Raises `CheckpointError` for tensors that are missing or of another shape.
    """
    state, files = read_checkpoint(folder)
    where = files[0] if len(files) == 1 else folder
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(skip)}
    with _quiet():
        try:
            model, report = model_class.from_pretrained(
                None, config=config, state_dict=kept, dtype="float32", output_loading_info=True
            )
        except RuntimeError as error:
            raise _misfit(where, first_line(error)) from error
    missing = sorted(k for k in report["missing_keys"] if not k.endswith(_UNUSED))
    if missing or report["mismatched_keys"]:
        names = missing or sorted(str(key) for key in report["mismatched_keys"])
        raise _misfit(where, f"no usable {', '.join(names[:3])}")
    network: nn.Module = model.eval().requires_grad_(False)
    return network.to(device=device, dtype=torch_dtype(dtype))


def _misfit(where: Path, problem: str) -> CheckpointError:
    return CheckpointError(
        f"{where}: expected the tensors that config.json describes, found {problem}. Use the "
        "config.json that belongs to these weights."
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar, no warnings: heads are left out on purpose, defaults of the library are not ours."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
