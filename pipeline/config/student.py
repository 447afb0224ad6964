"""Settings of the student: model and distillation.

Plain validated values; `pipeline.config.config` puts them together and checks across them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from pipeline.core.frozen_model import Frozen

Stage = Annotated[int, Field(ge=1, le=4)]
"""1 to 4: strides 4, 8, 16, 32."""


class TermForm(Frozen):
    """How one distillation term compares student and teacher."""

    tau: PositiveFloat | None = None
    """Temperature of the rows under `kl`; default: `lscd.tau`."""
    distance: Literal["kl", "mse", "cosine"] = "kl"
    """Between correlation rows: KL of their softmax, mean square of the cosines, or 1 - cosine."""
    level: Literal["modality", "fused"] = "modality"
    """Each modality's own features, or the fused ones against the modalities' mean embedding."""
    stages: tuple[Stage, ...] = Field(default=(4,), min_length=1)
    """Backbone stages whose features are compared; the term is their mean."""


class IntraForm(TermForm):
    """The same, from stage 3."""

    stages: tuple[Stage, ...] = Field(default=(3,), min_length=1)


class DenseForm(TermForm):
    """The same; `cosine` and `mse` compare embeddings, `kl` their rows of class prompts."""

    distance: Literal["kl", "mse", "cosine"] = "cosine"


class LscdConfig(Frozen):
    """Language-guided semantic correlation distillation: a weight and a form a term; weight 0 is off."""

    inter: NonNegativeFloat = 0.05
    """Inter-modal correlation. Above about 0.1 it pulls the modalities together and costs accuracy."""
    language: NonNegativeFloat = 0.0
    """Modality to class-prompt correlation."""
    intra: NonNegativeFloat = 0.1
    """Class-wise pixel features to class prompts."""
    dense: NonNegativeFloat = 0.0
    """Cosine to the teacher's patch embeddings; needs `patch` in `teacher.outputs`."""
    tau: PositiveFloat = 0.1
    """Temperature of all correlation rows whose term has none of its own."""
    prompts: Literal["text", "one_hot"] = "text"
    """What `intra` compares classes with: the teacher's prompts, or, as a control that knows no language,
    classes that are all equally unlike each other."""
    inter_form: TermForm = TermForm()
    language_form: TermForm = TermForm()
    intra_form: IntraForm = IntraForm()
    dense_form: DenseForm = DenseForm()
    centre: bool = False
    """Subtract each modality's mean teacher embedding of the training split, in `inter` and `language`."""
    cross_scene: bool = False
    """`inter` correlates every (sample, modality) of a batch with every other, not those of one sample."""
    scene_column: bool = False
    """`inter` gets a column more: the cosine to the scene description; needs `[descriptions]`."""
    weak_power: NonNegativeFloat = 1.0
    """Rows of a modality weigh (1 - its running IoU) ** power; 0: all alike."""

    @property
    def active(self) -> bool:
        """Whether any term has weight."""
        return bool(self.inter or self.language or self.intra or self.dense)

    @model_validator(mode="after")
    def _check_rows(self) -> LscdConfig:
        if self.inter and self.inter_form.level == "fused" and not self.cross_scene:
            raise ValueError(
                "inter_form.level = 'fused' leaves one row a sample, with nothing to correlate; "
                "set cross_scene = true"
            )
        if self.prompts == "one_hot" and (self.language or self.dense):
            raise ValueError(
                "prompts = 'one_hot' are not in the teacher's space; set language and dense to 0"
            )
        if self.scene_column and self.cross_scene:
            raise ValueError(
                "scene_column belongs to the rows of one sample; set cross_scene = false"
            )
        return self


class StudentConfig(Frozen):
    """The model that is trained."""

    backbone: str = "tf_efficientnet_lite0"
    """Any timm model with features at strides 4, 8, 16 and 32, or `mit_b0` to `mit_b5` (SegFormer)."""
    weights: str = "hub"
    """`hub` (pretrained), `package` (ImageNet weights of the `demo` extra), `none`, a file, or for
    mit_b* a hub repository `ORG/REPO`."""
    stems: Literal["shared", "per_modality"] = "shared"
    """The backbone's first convolution: one for all, or one a modality (each starts pretrained)."""
    fusion: Literal["mff", "mean", "concat", "rgb_only", "cmnext"] = "concat"
    """How the features of the modalities become one map (see `student.fusion`); the paper's: `mff`."""
    primary: str | None = None
    """The modality that `rgb_only` and `cmnext` are built around; default: the config's first."""
    mff_carry: bool = False
    """MFF's reference takes up the fused map of the stage before, through a learned 1 x 1 convolution."""
    head_channels: PositiveInt = 128
    normalise: Literal["registry", "dataset"] = "registry"
    """Mean and std of the sensors other than colour: the registry's, or the training split's own."""
    lscd: LscdConfig = LscdConfig()
