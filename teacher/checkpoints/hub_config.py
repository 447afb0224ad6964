"""Parse a released config.json: LanguageBind's class defaults and override rule. No torch.

Upstream's rule (its composite config classes): a `vision_config_dict` (or `text_config_dict`) is
completed with the class defaults and overwrites all of `vision_config`; so for the Huge checkpoint
the dict is authoritative, and fields it lacks fall back to defaults, not to `vision_config`.
The joint width is the top-level `projection_dim` (768); the sub-configs' 512 is never used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pipeline.errors import CheckpointError
from pipeline.modalities import TowerName
from teacher.checkpoints.config_fields import (
    field_error,
    require_integer,
    require_number,
    require_section,
    shown,
)
from teacher.checkpoints.json_file import JsonDict, read_json_object

TOWERS: tuple[TowerName, ...] = get_args(TowerName)
PREFIX = "LanguageBind"

CLIP_VISION_DEFAULTS: JsonDict = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "patch_size": 32,
    "image_size": 224,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "attention_dropout": 0.0,
}
LANGUAGEBIND_VISION_DEFAULTS: JsonDict = {
    "add_time_attn": False,
    "num_frames": 1,
    "force_patch_dropout": 0.0,
    "lora_r": 2,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "num_mel_bins": 0,
    "target_length": 0,
    "video_decode_backend": "decord",
}
MODALITY_DEFAULTS: dict[str, JsonDict] = {
    "depth": {"max_depth": 10},
}
TEXT_DEFAULTS: JsonDict = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 1,
    "add_time_attn": False,
}
ACTIVATIONS = ("gelu", "quick_gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")
_LARGEST: dict[str, int] = {
    "hidden_size": 1 << 16,
    "intermediate_size": 1 << 20,
    "num_hidden_layers": 1 << 10,
    "num_attention_heads": 1 << 12,
    "patch_size": 1 << 12,
    "vocab_size": 1 << 24,
    "max_position_embeddings": 1 << 20,
}
"""Beyond these a field is damage: modules of that size would be built before any tensor is compared."""
_LARGEST_WIDTH, _LARGEST_SIDE = 1 << 16, 1 << 14
"""Of the joint space; of the input in pixels."""
_NUMBERS = ("layer_norm_eps", "lora_alpha")


@dataclass(frozen=True, slots=True)
class HubConfig:
    """One parsed config.json; `vision` and `text` hold upstream's effective values."""

    modality: TowerName
    projection_dim: int
    logit_scale_init: float
    vision: JsonDict
    text: JsonDict
    stated: JsonDict
    """Vision fields of the file itself, without defaults: those that tensors may contradict."""

    @property
    def grid(self) -> tuple[int, int]:
        """Patches (rows, columns)."""
        rows, columns = self.input_px
        patch = int(self.vision["patch_size"])
        return rows // patch, columns // patch

    @property
    def input_px(self) -> tuple[int, int]:
        """Height and width of the input; `image_size` may be a number or a pair."""
        size = self.vision["image_size"]
        height, width = size if isinstance(size, list) else (size, size)
        return int(height), int(width)


def effective(
    defaults: Mapping[str, Any], section: Mapping[str, Any], override: Mapping[str, Any] | None
) -> JsonDict:
    """A sub-config by upstream's precedence: defaults < section < (defaults < override)."""
    merged = {**defaults, **section}
    return {**merged, **defaults, **override} if override is not None else merged


def parse_config(raw: Mapping[str, Any], where: str) -> HubConfig:
    """Upstream's effective configuration of a config.json's content.

    `where` names the file in errors. Raises `CheckpointError` for any model type but the towers', and
    for a field of the wrong type or size.
    """
    modality = _modality_of(raw, where)
    defaults = {
        **CLIP_VISION_DEFAULTS,
        **LANGUAGEBIND_VISION_DEFAULTS,
        **MODALITY_DEFAULTS.get(modality, {}),
    }
    section = require_section(raw, "vision_config", where) or {}
    override = require_section(raw, "vision_config_dict", where)
    text = require_section(raw, "text_config", where) or {}
    text_override = require_section(raw, "text_config_dict", where)
    config = HubConfig(
        modality=modality,
        projection_dim=require_integer(raw, "projection_dim", where, _LARGEST_WIDTH, 512),
        logit_scale_init=require_number(raw, "logit_scale_init_value", where, 2.6592),
        vision=effective(defaults, section, override),
        text=effective(TEXT_DEFAULTS, text, text_override),
        stated={**section, **(override or {})},
    )
    _require_fields(config.vision, f"{where}: vision_config")
    _require_fields(config.text, f"{where}: text_config")
    _require_grid(config, where)
    if modality == "depth":
        require_number(config.vision, "max_depth", f"{where}: vision_config")
    return config


def _require_fields(section: JsonDict, where: str) -> None:
    for name, largest in _LARGEST.items():
        if name in section:
            require_integer(section, name, where, largest)
    for name in _NUMBERS:
        if name in section:
            require_number(section, name, where)
    if section["hidden_act"] not in ACTIVATIONS:
        raise field_error(
            where, "hidden_act", f"one of {', '.join(ACTIVATIONS)}", section["hidden_act"]
        )


def _require_grid(config: HubConfig, where: str) -> None:
    size = config.vision["image_size"]
    sides = size if isinstance(size, list) and len(size) == 2 else [size]
    for value in sides:
        require_integer({"image_size": value}, "image_size", where, _LARGEST_SIDE)
    if min(config.grid) < 1:
        patch = config.vision["patch_size"]
        raise field_error(where, "image_size", f"at least one patch of {patch} pixels", size)


def _modality_of(raw: Mapping[str, Any], where: str) -> TowerName:
    model_type = raw.get("model_type")
    for tower in TOWERS:
        if model_type == f"{PREFIX}{tower.capitalize()}":
            return tower
    known = ", ".join(f"{PREFIX}{tower.capitalize()}" for tower in TOWERS)
    raise CheckpointError(
        f"{where}: model_type: expected a supported one ({known}), found {shown(model_type)}. "
        "Give teacher.name a checkpoint of one of these; examples/ loads LanguageBind's video and "
        "audio ones."
    )


def read_config(path: Path) -> HubConfig:
    """Read and parse a config.json. `CheckpointError` if it is not there or not JSON."""
    return parse_config(read_json_object(path), str(path))
