"""SigLIP and the fixed-resolution SigLIP 2 (both have `model_type` siglip) in transformers' form.

`embedding` is the output of the attention pooling head (`pooler_output`), unit norm. `patch` is that
head applied to each patch alone: of one token its attention is the value path (v and output projection),
so a dense embedding is what the pooled one would be if all attention lay on that patch. Both lie in the
space of the text tower. The NaFlex form of SigLIP 2 (`model_type` siglip2) is refused: its images have
no common patch grid.
"""

from __future__ import annotations

from typing import Any

from teacher.checkpoints.config_fields import field_error
from teacher.contract import VitShape
from teacher.families.checkpoint import Checkpoint
from teacher.families.clip import fixed_grid
from teacher.families.pretrained import ImageTeacher, PretrainedText, PretrainedTower
from teacher.families.processing import processing_of

VISION_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "vision_use_head": True,
}
TEXT_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_attention_heads": 12,
    "max_position_embeddings": 64,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "projection_size": None,
}
_FORWARD = ("num_attention_heads", "hidden_act", "layer_norm_eps")


def siglip_teacher(checkpoint: Checkpoint) -> ImageTeacher:
    """The teacher of a SigLIP checkpoint. Raises `CheckpointError`."""
    vision = checkpoint.section("vision_config", VISION_DEFAULTS)
    text = checkpoint.section("text_config", TEXT_DEFAULTS)
    if not vision.values["vision_use_head"]:
        raise field_error(vision.where, "vision_use_head", "true (the head pools)", False)
    processing = processing_of(checkpoint.processor_settings(), str(checkpoint.folder))
    width = vision.integer("hidden_size")
    image = PretrainedTower(
        checkpoint,
        family="SigLIP",
        model="siglip",
        shape=VitShape(
            hidden_size=width,
            intermediate_size=vision.integer("intermediate_size"),
            num_layers=vision.integer("num_hidden_layers"),
            patch_px=vision.side("patch_size"),
            grid=fixed_grid(vision, processing),
            num_prefix=0,
        ),
        processing=processing,
        architecture=vision.pick(*_FORWARD),
        embedding_dim=width,
        patch_dim=width,
    )
    joint = text.integer("projection_size" if text.values["projection_size"] else "hidden_size")
    words = PretrainedText(
        checkpoint,
        family="SigLIP",
        model="siglip",
        architecture=text.pick(*_FORWARD),
        embedding_dim=joint,
        context_length=text.integer("max_position_embeddings"),
    )
    if joint != width:
        raise field_error(text.where, "projection_size", f"{width} as the image tower's", joint)
    return ImageTeacher(checkpoint.name, "SigLIP", image, words)
