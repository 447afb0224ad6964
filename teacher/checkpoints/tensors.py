"""A released checkpoint's tensors in CLIP's own naming: LoRA merged, every tensor accounted for.

Layouts: plain; LoRA pairs under `encoder.base_model.model.layers` in both peft spellings (the frozen
weight as `.weight` or `.base_layer.weight`); Conv3d patch kernels of depth one. `CheckpointError`
names the tensor that is missing, unexpected, mis-shaped or contradicts config.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.errors import CheckpointError, ConfigError
from pipeline.formats.weight_files import FLOAT_DTYPES, StateDict
from teacher.checkpoints.hub_config import HubConfig

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


def plain_state(raw: Mapping[str, Tensor], config: HubConfig, where: str) -> StateDict:
    """The checkpoint in CLIP's own naming, with LoRA merged in fp32 and position ids dropped.

    W += (alpha / r) * B @ A, r from the tensors, alpha from the config (Hu et al. 2021, eq. 3).
    """
    state = rename_lora_keys(raw)
    require_floats(state, where)
    check_stated(state, config, where)
    state = merge_lora(state, float(config.vision["lora_alpha"]), where)
    if _PATCH in state and state[_PATCH].ndim == 5:
        state[_PATCH] = _flatten_tube(state[_PATCH], where)
    return state


def rename_lora_keys(raw: Mapping[str, Tensor]) -> StateDict:
    """Undo peft's prefixes and both its spellings of a frozen weight; position ids are dropped."""
    return {
        name.replace(".base_layer.", ".").replace(_PEFT_ENCODER, ".encoder.layers."): tensor
        for name, tensor in raw.items()
        # Constants 0, 1, 2, ...: some releases store them, others do not.
        if not name.endswith(".position_ids")
    }


def merge_lora(state: Mapping[str, Tensor], alpha: float, where: str) -> StateDict:
    """Fold every lora_A / lora_B pair into its frozen weight, in fp32; other tensors unchanged."""
    merged = {name: tensor for name, tensor in state.items() if not _LORA.search(name)}
    for stem, update in lora_updates(state, alpha, where).items():
        merged[f"{stem}.weight"] = merged[f"{stem}.weight"].float() + update
    return merged


def lora_updates(state: Mapping[str, Tensor], alpha: float, where: str) -> StateDict:
    """(alpha / r) * B @ A of every pair, in fp32, by the name of its layer.

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
    """Refuse a config.json that contradicts the tensors about LoRA rank, frames or layout."""
    lora_r = next((t.shape[0] for n, t in state.items() if ".lora_A." in n), 0)
    frames = next((t.shape[1] for n, t in state.items() if n.endswith(_TEMPORAL)), None)
    patch = state.get(_PATCH)
    tubes = patch is not None and patch.ndim == 5
    in_tensors = {
        "lora_r": lora_r,
        "num_frames": frames or 1,
        "add_time_attn": frames is not None,
        "clip_type": "vl_new" if tubes else config.stated.get("clip_type"),
    }
    if config.stated.get("clip_type") == "vl_new" and not tubes:
        in_tensors["clip_type"] = "2-D patch kernel"
    for field, value in in_tensors.items():
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


def require_floats(state: Mapping[str, Tensor], where: str) -> None:
    """Raise `CheckpointError` naming the first tensors that are no floating-point numbers."""
    _refuse([_dtype_problem(n, t) for n, t in state.items() if t.dtype not in FLOAT_DTYPES], where)


def require_exact(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """Raise `CheckpointError` naming the first missing, unexpected, mis-shaped or mis-typed tensors.

    `expected` may lie on the meta device. Where it has floats, any floating-point dtype will do;
    elsewhere (position ids, counters) the dtype is free.
    """
    both = sorted(expected.keys() & state.keys())
    problems = [f"missing {name}" for name in sorted(expected.keys() - state.keys())]
    problems += [f"unexpected {name}" for name in sorted(state.keys() - expected.keys())]
    problems += [
        f"{name}: expected {tuple(expected[name].shape)}, found {tuple(state[name].shape)}"
        for name in both
        if expected[name].shape != state[name].shape
    ]
    problems += [
        _dtype_problem(name, state[name])
        for name in both
        if expected[name].is_floating_point() and state[name].dtype not in FLOAT_DTYPES
    ]
    _refuse(problems, where)


def _dtype_problem(name: str, tensor: Tensor) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return (
        f"{name}: expected floating-point numbers, found {dtype} (quantised weights are not read)"
    )


def _refuse(problems: list[str], where: str) -> None:
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
