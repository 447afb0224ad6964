"""Read a released checkpoint into plain tensors: LoRA merged, names unified, nothing left over.

Layouts read: plain; LoRA pairs under `encoder.base_model.model.layers` in both peft spellings (the
frozen weight as `.weight` or `.base_layer.weight`); temporal towers; Conv3d patch kernels of depth
one. Safetensors are preferred; a .bin is read with `weights_only=True`: no code in it can run.

Writes nothing. Fails with `CheckpointError` naming the tensor that is missing, unexpected,
mis-shaped or contradicts config.json.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import CheckpointError, ConfigError
from teacher.checkpoints.hub_config import HubConfig

UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    pickle.UnpicklingError,
    SafetensorError,
)
StateDict = dict[str, Tensor]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LORA = re.compile(r"\.lora_(?P<side>[AB])\.default\.weight$")
_PEFT_ENCODER = ".encoder.base_model.model.layers."
_PATCH = "vision_model.embeddings.patch_embedding.weight"
_TEMPORAL = ".temporal_embedding"


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype called `name`, or `ConfigError`."""
    if name not in DTYPES:
        raise ConfigError(f"teacher.dtype: expected one of {', '.join(DTYPES)}, found {name!r}")
    return DTYPES[name]


def read_tensors(path: Path) -> StateDict:
    """All tensors of a safetensors or .bin file, on the CPU, as stored."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{path}: expected a checkpoint of tensors only, found: {reason}. Fetch it again from "
            "a source you trust."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path}: expected a flat dict of tensors, found something else.")
    return state


def normalise(raw: Mapping[str, Tensor], config: HubConfig, where: str) -> StateDict:
    """The checkpoint in plain CLIP naming, with LoRA merged in fp32 and position ids dropped.

    W += (alpha / r) * B @ A, r from the tensors, alpha from the config (Hu et al. 2021, eq. 3).
    """
    state = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in raw.items()
        if not name.endswith(".position_ids")
    }
    check_stated(state, config, where)
    state = merge_lora(state, float(config.vision["lora_alpha"]), where)
    state = {name.replace(_PEFT_ENCODER, ".encoder.layers."): t for name, t in state.items()}
    if _PATCH in state and state[_PATCH].ndim == 5:
        state[_PATCH] = _flatten_tube(state[_PATCH], where)
    return state


def merge_lora(state: Mapping[str, Tensor], alpha: float, where: str) -> StateDict:
    """Fold every lora_A / lora_B pair into its frozen weight, in fp32; other tensors unchanged."""
    merged = {name: tensor for name, tensor in state.items() if not _LORA.search(name)}
    for stem, update in lora_updates(state, alpha, where).items():
        merged[f"{stem}.weight"] = merged[f"{stem}.weight"].float() + update
    return merged


def lora_updates(state: Mapping[str, Tensor], alpha: float, where: str) -> StateDict:
    """(alpha / r) * B @ A of every pair, in fp32, by the name of the layer that it belongs to.

    Raises `CheckpointError` for half a pair or shapes that do not fit the frozen weight.
    """
    updates = {}
    for stem in sorted({_LORA.sub("", name) for name in state if _LORA.search(name)}):
        down, up = (state.get(f"{stem}.lora_{side}.default.weight") for side in "AB")
        weight = state.get(f"{stem}.weight", state.get(f"{stem}.base_layer.weight"))
        if down is None or up is None or weight is None:
            raise CheckpointError(
                f"{where}: expected {stem}.weight with both lora_A and lora_B, found an incomplete "
                "set. Fetch the checkpoint again."
            )
        if weight.shape != (up.shape[0], down.shape[1]) or up.shape[1] != down.shape[0]:
            raise CheckpointError(
                f"{where}: {stem}: expected lora_B @ lora_A of shape {tuple(weight.shape)}, found "
                f"{tuple(up.shape)} @ {tuple(down.shape)}."
            )
        updates[stem] = alpha / down.shape[0] * (up.float() @ down.float())
    return updates


def check_stated(state: Mapping[str, Tensor], config: HubConfig, where: str) -> None:
    """Refuse a config.json that says otherwise than the tensors about rank, frames or layout."""
    lora_r = next((t.shape[0] for n, t in state.items() if ".lora_A." in n), 0)
    frames = next((t.shape[1] for n, t in state.items() if n.endswith(_TEMPORAL)), None)
    patch = state.get(_PATCH)
    tubes = patch is not None and patch.ndim == 5
    found = {
        "lora_r": lora_r,
        "num_frames": frames or 1,
        "add_time_attn": frames is not None,
        "clip_type": "vl_new" if tubes else config.stated.get("clip_type"),
    }
    if config.stated.get("clip_type") == "vl_new" and not tubes:
        found["clip_type"] = "2-D patch kernel"
    for field, value in found.items():
        if field in config.stated and config.stated[field] != value:
            raise CheckpointError(
                f"{where}: config.json says {field} = {config.stated[field]}, the tensors say "
                f"{value}. Use the config.json that belongs to these weights."
            )


def _flatten_tube(kernel: Tensor, where: str) -> Tensor:
    """A (D, 3, 1, p, p) Conv3d kernel is exactly the 2-D one."""
    if kernel.shape[2] != 1:
        raise CheckpointError(
            f"{where}: {_PATCH}: expected a patch kernel of depth 1, found {tuple(kernel.shape)}."
        )
    return kernel[:, :, 0].contiguous()


def require_exact(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """Raise `CheckpointError` naming the first missing, unexpected or mis-shaped tensors."""
    problems = [f"missing {name}" for name in sorted(expected.keys() - state.keys())]
    problems += [f"unexpected {name}" for name in sorted(state.keys() - expected.keys())]
    problems += [
        f"{name}: expected {tuple(expected[name].shape)}, found {tuple(state[name].shape)}"
        for name in sorted(expected.keys() & state.keys())
        if expected[name].shape != state[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(
            f"{where}: tensors do not match config.json: {'; '.join(problems[:5])}{more}. "
            "Use the config.json that belongs to these weights."
        )


def split_halves(state: Mapping[str, Tensor]) -> tuple[StateDict, StateDict]:
    """(vision half with the logit scale and anything unknown, text half)."""
    text = {n: t for n, t in state.items() if n.startswith(("text_model.", "text_projection."))}
    return {n: t for n, t in state.items() if n not in text}, text
