"""`[student]` of the configuration: model and distillation.

Checks across tables are in `pipeline.config.config`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from pipeline.core.frozen_model import Frozen


class LscdConfig(Frozen):
    """Language-guided semantic correlation distillation: a weight for each term; 0 turns it off."""

    inter: NonNegativeFloat = 0.05
    """Inter-modal correlation. Above about 0.1 it pulls the modalities together and costs accuracy."""
    intra: NonNegativeFloat = 0.1
    """Class-wise pixel features against class prompts."""
    dense: NonNegativeFloat = 0.0
    """Projected features against the teacher's patch embeddings; needs `patch` in `teacher.outputs`."""
    tau: PositiveFloat = 0.1
    """Temperature of all correlation rows."""
    distance: Literal["kl", "mse"] = "kl"
    """Between correlation rows in `inter` and `intra`: KL of their softmax, or mean squared error."""
    dense_distance: Literal["cosine", "kl"] = "cosine"
    """In `dense`: 1 - cosine to the patch embedding, or KL between the cosines of pixel and patch to
    the class prompts."""
    prompts: Literal["text", "one_hot"] = "text"
    """What `intra` compares classes with: the teacher's prompts, or one-hot class targets (control without
    language)."""
    scene_column: bool = False
    """Add a column to `inter`: the cosine to the scene description; needs `[descriptions]`."""
    weak_power: NonNegativeFloat = 1.0
    """Rows of a modality are weighted by (1 - its running IoU) ** power; 0: equally."""

    @property
    def active(self) -> bool:
        """Whether any term is on."""
        return bool(self.inter or self.intra or self.dense)

    @model_validator(mode="after")
    def _check_prompts(self) -> LscdConfig:
        if self.prompts == "one_hot" and self.dense:
            raise ValueError("prompts = 'one_hot' are not in the teacher's space; set dense to 0")
        return self


class StudentConfig(Frozen):
    """The model and its distillation."""

    backbone: str = "tf_efficientnet_lite0"
    """Any timm model with features at strides 4, 8, 16 and 32, or `mit_b0` to `mit_b5` (SegFormer)."""
    weights: str = "hub"
    """`hub` (pretrained), `package` (ImageNet weights of the `demo` extra), `none`, a file, or for
    mit_b* a hub repository `ORG/REPO`."""
    stems: Literal["shared", "per_modality"] = "shared"
    """The backbone's first convolution: one for all modalities, or one per modality (all pretrained)."""
    fusion: Literal["mff", "mean", "concat", "rgb_only", "cmnext"] = "concat"
    """How the modalities' features become one map (see `student.model.fusion`); the paper's: `mff`."""
    primary: str | None = None
    """The modality that `rgb_only` and `cmnext` are built around; default: the config's first."""
    head_channels: PositiveInt = 128
    normalise: Literal["registry", "dataset"] = "registry"
    """Mean and std of the sensors other than colour: the registry's, or the training split's own."""
    lscd: LscdConfig = LscdConfig()
