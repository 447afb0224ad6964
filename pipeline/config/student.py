"""Settings of the student: model and distillation.

Plain validated values; `pipeline.config.config` puts them together and checks across them.
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
    """Language-guided semantic correlation distillation: a weight for each term; weight 0 is off."""

    inter: NonNegativeFloat = 0.05
    """Inter-modal correlation. Above about 0.1 it pulls the modalities together and costs accuracy."""
    intra: NonNegativeFloat = 0.1
    """Class-wise pixel features to class prompts."""
    dense: NonNegativeFloat = 0.0
    """Projected features to the teacher's patch embeddings; needs `patch` in `teacher.outputs`, or
    a `[dense_teacher]`."""
    tau: PositiveFloat = 0.1
    """Temperature of all correlation rows."""
    distance: Literal["kl", "mse"] = "kl"
    """Of the correlation rows of `inter` and `intra`: KL of their softmax, or mean squared difference."""
    dense_distance: Literal["cosine", "kl"] = "cosine"
    """Of `dense`: 1 - cosine to the patch embedding, or KL between the rows of cosines to the class
    prompts that pixel and patch have."""
    prompts: Literal["text", "one_hot"] = "text"
    """What `intra` compares classes with: the teacher's prompts, or one-hot class targets (control without
    language)."""
    scene_column: bool = False
    """`inter` gets one more column: the cosine to the scene description; needs `[descriptions]`."""
    weak_power: NonNegativeFloat = 1.0
    """Rows of a modality are weighted by (1 - its running IoU) ** power; 0: equally."""

    @property
    def active(self) -> bool:
        """Whether any term has weight."""
        return bool(self.inter or self.intra or self.dense)

    @model_validator(mode="after")
    def _check_prompts(self) -> LscdConfig:
        if self.prompts == "one_hot" and self.dense:
            raise ValueError("prompts = 'one_hot' are not in the teacher's space; set dense to 0")
        return self


class StudentConfig(Frozen):
    """The model that is trained."""

    backbone: str = "tf_efficientnet_lite0"
    """Any timm model with features at strides 4, 8, 16 and 32, or `mit_b0` to `mit_b5` (SegFormer)."""
    weights: str = "hub"
    """`hub` (pretrained), `package` (ImageNet weights of the `demo` extra), `none`, a file, or for
    mit_b* a hub repository `ORG/REPO`."""
    stems: Literal["shared", "per_modality"] = "shared"
    """The backbone's first convolution: one for all modalities, or one each (all start pretrained)."""
    fusion: Literal["mff", "mean", "concat", "rgb_only", "cmnext"] = "concat"
    """How the features of the modalities become one map (see `student.model.fusion`); the paper's: `mff`."""
    primary: str | None = None
    """The modality that `rgb_only` and `cmnext` are built around; default: the config's first."""
    head_channels: PositiveInt = 128
    normalise: Literal["registry", "dataset"] = "registry"
    """Mean and std of the sensors other than colour: the registry's, or the training split's own."""
    lscd: LscdConfig = LscdConfig()
