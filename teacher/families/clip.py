"""CLIP in transformers' form (`model_type` clip): OpenAI's, LAION's and MetaCLIP's checkpoints.

`embedding` is the projected class token (`image_embeds`); `patch` is MaskCLIP's value path (Zhou et al.
2022, sec. 3.2), as for LanguageBind. Both lie in the space of the text tower.
"""

from __future__ import annotations

from teacher.checkpoints.config_fields import field_error
from teacher.checkpoints.hub_config import CLIP_VISION_DEFAULTS, TEXT_DEFAULTS
from teacher.contract import VitShape
from teacher.families.checkpoint import Checkpoint, Fields
from teacher.families.pretrained import ImageTeacher, PretrainedText, PretrainedTower
from teacher.families.processing import Processing, processing_of

_FORWARD = ("num_attention_heads", "hidden_act", "layer_norm_eps")


def clip_teacher(checkpoint: Checkpoint) -> ImageTeacher:
    """The teacher of a CLIP checkpoint. Raises `CheckpointError`."""
    vision = checkpoint.section("vision_config", CLIP_VISION_DEFAULTS)
    text = checkpoint.section("text_config", TEXT_DEFAULTS)
    joint = checkpoint.fields({"projection_dim": 512}).integer("projection_dim")
    processing = processing_of(checkpoint.processor_settings(), str(checkpoint.folder))
    image = PretrainedTower(
        checkpoint,
        family="CLIP",
        model="clip",
        shape=VitShape(
            hidden_size=vision.integer("hidden_size"),
            intermediate_size=vision.integer("intermediate_size"),
            num_layers=vision.integer("num_hidden_layers"),
            patch_px=vision.side("patch_size"),
            grid=fixed_grid(vision, processing),
            projection_dim=joint,
        ),
        processing=processing,
        architecture={**vision.pick(*_FORWARD), "projection_dim": joint},
        embedding_dim=joint,
        patch_dim=joint,
    )
    words = PretrainedText(
        checkpoint,
        family="CLIP",
        model="clip",
        architecture={**text.pick(*_FORWARD, "eos_token_id"), "projection_dim": joint},
        embedding_dim=joint,
        context_length=text.integer("max_position_embeddings"),
    )
    return ImageTeacher(checkpoint.name, "CLIP", image, words)


def fixed_grid(vision: Fields, processing: Processing) -> tuple[int, int]:
    """The patch grid of a tower with positions for one image size.

    Raises `CheckpointError` if the processor gives images of another size.
    """
    size, patch = vision.side("image_size"), vision.side("patch_size")
    if size != processing.size_px:
        raise field_error(
            vision.where, "image_size", f"{processing.size_px} as the image processor gives", size
        )
    return size // patch, size // patch
