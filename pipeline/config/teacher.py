"""`[teacher]`, `[dense_teacher]` and `[descriptions]` of the configuration.

Checks across tables are in `pipeline.config.config`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from pipeline.core.device import DeviceName
from pipeline.core.frozen_model import Frozen

TOY_TEACHER = "languagebind-tiny"
"""The packaged teacher, trained on rendered street scenes."""
TEACHER, DENSE_TEACHER = "teacher", "dense_teacher"
"""The config's tables that name a teacher, and so the teachers' names in units, plans and reports."""


def of_teacher(name: str, what: str) -> str:
    """`what`, after the teacher's name where that is the second one: `patch`, `dense_teacher patch`."""
    return what if name == TEACHER else f"{name} {what}"


class TeacherConfig(Frozen):
    """The teacher's checkpoint, outputs and preprocessing."""

    name: str = TOY_TEACHER
    """`languagebind-tiny` (packaged, for rendered scenes), a hub name (`LanguageBind` for the released
    towers) or folder of a LanguageBind, CLIP, SigLIP or DINO checkpoint, `timm/NAME`, `module:Class`, or
    the name of an installed teacher (docs/teacher.md)."""
    revision: str | None = None
    """Git revision of a hub checkpoint."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Compute dtype of the towers."""
    device: DeviceName = "auto"
    batch_size: PositiveInt = 64
    outputs: tuple[Literal["embedding", "patch"], ...] = ("embedding",)
    """`embedding`: one vector per sample and modality; `patch`: also one per patch."""
    templates: str = "photo"
    """Name of the set of templates for the class prompts."""
    max_depth_m: NonNegativeFloat | None = None
    """Metres at which the depth tower saturates; default: the checkpoint's own."""
    depth_holes: Literal["upstream", "far"] = "upstream"
    """Depth that the tower gets where nothing was measured: 0.01 m as upstream, or the largest depth."""
    antialias: bool = False
    """Antialiased resizing. Off as upstream; with it, embeddings deviate from upstream's."""
    views: NonNegativeInt = 0
    """Number of seeded square crops and flips of each sample that the teacher embeds and the student
    trains on; 0: the whole image, once."""
    view_seed: NonNegativeInt = 0
    """Seed of the views."""
    view_scale: tuple[PositiveFloat, PositiveFloat] = (0.5, 1.0)
    """Smallest and largest side of a view, as a share of the image's shorter side."""

    @field_validator("outputs")
    @classmethod
    def _embedding_is_always_made(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "embedding" not in value or len(set(value)) != len(value):
            raise ValueError('expected ["embedding"] or ["embedding", "patch"]')
        return tuple(sorted(value))

    @field_validator("view_scale")
    @classmethod
    def _views_lie_in_the_image(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] <= value[1] <= 1.0:
            raise ValueError("expected [least, largest] with 0 < least <= largest <= 1")
        return value


class DenseTeacherConfig(Frozen):
    """A second teacher, whose patch embeddings `student.lscd.dense` reads in place of the first's.

    Fields as in `[teacher]`. Device, batch size and views are the first's: both teachers see the same
    views, in one pass. Of its text nothing is read. Its stores hold `embedding` beside `patch`, as
    every store with patches does.
    """

    name: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_depth_m: NonNegativeFloat | None = None
    depth_holes: Literal["upstream", "far"] = "upstream"
    antialias: bool = False

    def beside(self, first: TeacherConfig) -> TeacherConfig:
        """This teacher in the form of a `[teacher]` table, with what it shares with the first."""
        return first.model_copy(update=dict(self) | {"outputs": ("embedding", "patch")})


class DescriptionsConfig(Frozen):
    """Where scene descriptions come from."""

    source: Literal["from_labels", "captioner"]
    """`from_labels`: composed from label content and condition, training split only."""
    model: str = ""
    """Captioning model of the `captioner`: a hub name or a folder with safetensors weights."""
    revision: str | None = None
    """Git revision of a hub model."""
    prompt: str = "Describe the scene."
    """Prompt of the captioning model."""
    modalities: tuple[str, ...] = ()
    """Modalities that are captioned; empty: all."""
    max_new_tokens: PositiveInt = 40
    """Maximum length of a caption."""

    @model_validator(mode="after")
    def _captioner_has_a_model(self) -> DescriptionsConfig:
        if (self.source == "captioner") != bool(self.model):
            raise ValueError("model: expected one with source = captioner, and only then")
        return self
