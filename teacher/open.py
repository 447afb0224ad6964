"""Open a teacher by name: the family is chosen by what the name or the checkpoint's config.json says.

    teacher = open_teacher("languagebind-tiny")

- `languagebind-tiny`: shipped with this package.
- `timm/NAME`, `timm/NAME@FILE`: a vision transformer of timm, with its published weights or those of FILE.
- A folder with a config.json, or a hub repository `ORG/REPO`: the family of its `model_type`.
- `module:Class`, or a name in the entry-point group `any2seg.teachers`: see `teacher.own`.
- A folder of LanguageBind towers, or a hub organisation that has them.

No torch, except for timm's models: weights are read when a tower is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.errors import CheckpointError
from teacher.checkpoints.config_fields import shown
from teacher.checkpoints.hub_config import PREFIX
from teacher.checkpoints.locate import TINY
from teacher.contract import Teacher
from teacher.families.checkpoint import Checkpoint, open_checkpoint
from teacher.families.clip import clip_teacher
from teacher.families.dino import dino_teacher
from teacher.families.language_bind import LanguageBind
from teacher.families.siglip import siglip_teacher
from teacher.families.timm_vit import TIMM, timm_teacher
from teacher.own import open_own

FAMILIES: Mapping[str, Callable[[Checkpoint], Teacher]] = {
    "clip": clip_teacher,
    "siglip": siglip_teacher,
    "dinov2": dino_teacher,
    "dinov2_with_registers": dino_teacher,
    "dinov3_vit": dino_teacher,
}
"""`model_type` of a config.json to the family that reads it, beside `LanguageBind...`."""
REFUSED: Mapping[str, str] = {
    "siglip2": "the NaFlex form of SigLIP 2, whose images have no common patch grid; use a "
    "fixed-resolution one, e.g. google/siglip2-base-patch16-224",
}
"""`model_type` to what it is and what to use instead."""


def open_teacher(name: str, revision: str | None = None, *, local_only: bool = False) -> Teacher:
    """The teacher called `name`. `local_only` makes no request to a hub.

    Raises `CheckpointError` for a source of no known family, or one that cannot be had, and `ConfigError`
    for a class that is no teacher.
    """
    own = None if name == TINY or Path(name).is_dir() else open_own(name, revision)
    if own is not None:
        return own
    if name.startswith(TIMM):
        return timm_teacher(name, revision, local_only=local_only)
    if name.startswith(f"{PREFIX}/"):
        return LanguageBind(name, revision, local_only)
    checkpoint = open_checkpoint(name, revision, local_only=local_only)
    if checkpoint is None:
        return LanguageBind(name, revision, local_only)
    model_type = checkpoint.config.get("model_type")
    if isinstance(model_type, str) and model_type.startswith(PREFIX):
        return LanguageBind(name, revision, local_only)
    if model_type in FAMILIES:
        return FAMILIES[model_type](checkpoint)
    raise _unknown(checkpoint, model_type)


def _unknown(checkpoint: Checkpoint, model_type: object) -> CheckpointError:
    reason = REFUSED.get(str(model_type))
    if reason:
        return CheckpointError(f"{checkpoint.where}: model_type {model_type}: {reason}.")
    known = ", ".join([*FAMILIES, *(f"{PREFIX}{tower}" for tower in ("Image", "Depth", "Thermal"))])
    return CheckpointError(
        f"{checkpoint.where}: model_type: expected a supported one ({known}), found "
        f"{shown(model_type)}. Give teacher.name a checkpoint of one of these; examples/ loads "
        "LanguageBind's video and audio ones."
    )
