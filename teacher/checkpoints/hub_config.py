"""Parse a released config.json: LanguageBind's class defaults and override rule. No torch.

Upstream's rule (its composite config classes): a `vision_config_dict` (or `text_config_dict`) is
completed with the class defaults and overwrites all of `vision_config`; so for the Huge checkpoint
the dict is authoritative, and fields it lacks fall back to defaults, not to `vision_config`.
The joint width is the top-level `projection_dim` (768); the sub-configs' 512 is never used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pipeline.errors import CheckpointError
from pipeline.modalities import TowerName

TOWERS: tuple[TowerName, ...] = get_args(TowerName)
PREFIX = "LanguageBind"
JsonDict = dict[str, Any]

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

    `where` names the file in errors. Raises `CheckpointError` for any model type but the towers'.
    """
    modality = _modality_of(raw, where)
    defaults = {
        **CLIP_VISION_DEFAULTS,
        **LANGUAGEBIND_VISION_DEFAULTS,
        **MODALITY_DEFAULTS.get(modality, {}),
    }
    section = raw.get("vision_config") or {}
    override = raw.get("vision_config_dict")
    return HubConfig(
        modality=modality,
        projection_dim=int(raw.get("projection_dim", 512)),
        logit_scale_init=float(raw.get("logit_scale_init_value", 2.6592)),
        vision=effective(defaults, section, override),
        text=effective(TEXT_DEFAULTS, raw.get("text_config") or {}, raw.get("text_config_dict")),
        stated={**section, **(override or {})},
    )


def _modality_of(raw: Mapping[str, Any], where: str) -> TowerName:
    model_type = str(raw.get("model_type", ""))
    for tower in TOWERS:
        if model_type == f"{PREFIX}{tower.capitalize()}":
            return tower
    known = ", ".join(f"{PREFIX}{tower.capitalize()}" for tower in TOWERS)
    raise CheckpointError(
        f"{where}: expected a model_type of {known}, found {model_type!r}. "
        "Point teacher.name at a LanguageBind checkpoint of one of these; examples/ loads video and "
        "audio ones."
    )


def read_config(path: Path) -> HubConfig:
    """Read and parse a config.json. `CheckpointError` if it is not there or not JSON."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected a readable config.json, found: {error}. Fetch the checkpoint again."
        ) from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(raw).__name__}.")
    return parse_config(raw, str(path))
