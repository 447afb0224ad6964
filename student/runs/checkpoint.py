"""Checkpoints: one safetensors file that holds tensors and state, replaced atomically.

`checkpoints/last.safetensors` (or `best`, or `step-N`, of the same form) carries its JSON state in
the file's own metadata, so tensors and state can never come from different moments. `last.json`
repeats the state with the file's sha256, for readers that want no tensors; it is written after and
may lag one checkpoint behind a killed run. A file that is damaged, of another schema or of another
run is refused: `CheckpointError`, `FingerprintMismatch`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from pipeline.core.fingerprint import require_same
from pipeline.errors import CheckpointError
from pipeline.formats.safetensors_header import METADATA_KEY, state_in
from pipeline.schemas import CHECKPOINT_SCHEMA, READABLE_CHECKPOINTS
from pipeline.storage.files import write_bytes, write_json
from student.model.weight_average import Ema
from student.runs.layout import LAST
from student.runs.run import Run

EMA = "ema"
"""Part that `Ema.tensors` fills; the averaged weights are its part `weights`."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Tensors by `<part>.<name>` (parts: model, lscd, running, optimizer; where they are on, ema and
    scaler) and the JSON state."""

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Training steps done."""
        return int(self.state["step"])

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of one part, without its prefix."""
        prefix = f"{name}."
        return {
            key.removeprefix(prefix): value
            for key, value in self.tensors.items()
            if key.startswith(prefix)
        }


def save_checkpoint(
    run: Run, step: int, tensors: Mapping[str, Tensor], name: str = LAST, **figures: float
) -> None:
    """Replace the run's checkpoint of that name by this one, durably; `figures` go to its state."""
    state = {"schema": CHECKPOINT_SCHEMA, "step": step, "identity": run.identity, **figures}
    # A plain contiguous copy: channels-last strides are the model's business, not the file's.
    plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    data = save(plain, metadata={METADATA_KEY: json.dumps(state, sort_keys=True)})
    write_bytes(run.tensors_of(name), data)
    write_json(run.state_of(name), {**state, "sha256": hashlib.sha256(data).hexdigest()})


def load_checkpoint(run: Run, name: str = LAST) -> Checkpoint | None:
    """The run's checkpoint of that name, or None if there is none yet."""
    path = run.tensors_of(name)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        tensors, state = load(data), state_in(data)
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a readable checkpoint: {error}. Delete it to train this run from the start."
        ) from None
    if state.get("schema") not in READABLE_CHECKPOINTS:
        raise CheckpointError(
            f"{path}: expected checkpoint schema {CHECKPOINT_SCHEMA}, found {state.get('schema')}. "
            f"Delete it to train this run from the start."
        )
    require_same(
        str(path), state["identity"], run.identity, "Train again, or delete the checkpoint."
    )
    return Checkpoint(tensors, state)


def prefixed(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under `<part>.`."""
    return {f"{part}.{key}": value for key, value in tensors.items()}


def load_module(run: Run, part: str, module: nn.Module, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's part into a module, strictly. `CheckpointError` names what does not
    fit."""
    try:
        module.load_state_dict(checkpoint.part(part), strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{run.checkpoint}: {part} does not fit this configuration: {error}"
        ) from None


def load_average(run: Run, ema: Ema[Any], checkpoint: Checkpoint) -> None:
    """Put back an average of the weights. `CheckpointError` names what does not fit."""
    try:
        ema.load(checkpoint.part(EMA))
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{run.checkpoint}: {EMA} does not fit this configuration: {error}"
        ) from None


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """The optimiser's tensors by parameter name: `optimizer.<slot>.<parameter>`."""
    return {
        f"optimizer.{slot}.{name}": value
        for name, parameter in names.items()
        for slot, value in optimizer.state[parameter].items()
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    names: Mapping[str, nn.Parameter],
    checkpoint: Checkpoint,
) -> None:
    """Put back what `optimizer_tensors` saved, in each parameter's own memory layout."""
    for key, value in checkpoint.part("optimizer").items():
        slot, name = key.split(".", 1)
        parameter = names[name]
        target = torch.empty_like(parameter) if value.shape == parameter.shape else value.clone()
        optimizer.state[parameter][slot] = target.copy_(value)
