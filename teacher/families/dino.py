"""DINOv2 (with and without registers) and DINOv3 in transformers' form. They have no text tower.

`embedding` is the class token after the last norm (`pooler_output`), unit norm; `patch` are the patch
tokens after it, unit norm, without class token and registers. The grid follows the image processor:
DINOv2 interpolates its positions, DINOv3 has rotary ones.
"""

from __future__ import annotations

from typing import Any

from teacher.checkpoints.config_fields import field_error
from teacher.contract import VitShape
from teacher.families.checkpoint import Checkpoint, Fields
from teacher.families.pretrained import ImageTeacher, PretrainedTower
from teacher.families.processing import processing_of

_DINOV2: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "patch_size": 14,
    "use_swiglu_ffn": False,
    "num_register_tokens": 0,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "dinov2": _DINOV2,
    "dinov2_with_registers": {**_DINOV2, "patch_size": 16, "num_register_tokens": 4},
    "dinov3_vit": {
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "patch_size": 16,
        "rope_theta": 100.0,
        "use_gated_mlp": False,
        "num_register_tokens": 0,
    },
}
"""transformers' class defaults by `model_type`."""
_FORWARD = ("num_attention_heads", "hidden_act", "layer_norm_eps", "rope_theta")


def dino_teacher(checkpoint: Checkpoint) -> ImageTeacher:
    """The teacher of a DINO checkpoint. Raises `CheckpointError`."""
    model = str(checkpoint.config["model_type"])
    family = "DINOv3" if model == "dinov3_vit" else "DINOv2"
    fields = checkpoint.fields(DEFAULTS[model])
    processing = processing_of(checkpoint.processor_settings(), str(checkpoint.folder))
    width, patch = fields.integer("hidden_size"), fields.side("patch_size")
    side = processing.size_px // patch
    if side * patch != processing.size_px:
        raise field_error(
            fields.where, "patch_size", f"a divisor of the processor's {processing.size_px}", patch
        )
    registers = fields.count("num_register_tokens")
    image = PretrainedTower(
        checkpoint,
        family=family,
        model=model,
        shape=VitShape(
            hidden_size=width,
            intermediate_size=_mlp_width(fields),
            num_layers=fields.integer("num_hidden_layers"),
            patch_px=patch,
            grid=(side, side),
            num_prefix=1 + registers,
            num_mlp_inputs=1 + int(_is_gated(fields)),
        ),
        processing=processing,
        architecture={**fields.pick(*_FORWARD), "num_register_tokens": registers},
        embedding_dim=width,
        patch_dim=width,
    )
    return ImageTeacher(checkpoint.name, family, image)


def _is_gated(fields: Fields) -> bool:
    return bool(fields.values.get("use_swiglu_ffn") or fields.values.get("use_gated_mlp"))


def _mlp_width(fields: Fields) -> int:
    if "intermediate_size" in fields.values:
        return fields.integer("intermediate_size")
    width = fields.integer("hidden_size") * fields.integer("mlp_ratio")
    # DINOv2's SwiGLU: two thirds, rounded up to a multiple of 8.
    return (width * 2 // 3 + 7) // 8 * 8 if _is_gated(fields) else width
