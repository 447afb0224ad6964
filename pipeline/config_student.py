"""Settings of the student: model, distillation, training, evaluation.

Plain validated values; `pipeline.config` puts them together and checks across them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from pipeline.config_data import Device
from pipeline.frozen import Frozen


class LscdConfig(Frozen):
    """Weights and temperatures of language-guided semantic correlation distillation; weight 0 is off."""

    inter: NonNegativeFloat = 0.05
    """Inter-modal correlation. Above about 0.1 it pulls the modalities together and costs accuracy."""
    language: NonNegativeFloat = 0.0
    """Modality to class-prompt correlation."""
    intra: NonNegativeFloat = 0.1
    """Class-wise pixel features to class prompts."""
    dense: NonNegativeFloat = 0.0
    """Cosine to the teacher's patch embeddings; needs `patch` in `teacher.outputs`."""
    tau: PositiveFloat = 0.1
    """Temperature of all correlation rows."""

    @property
    def active(self) -> bool:
        """Whether any term has weight."""
        return bool(self.inter or self.language or self.intra or self.dense)


class StudentConfig(Frozen):
    """The model that is trained."""

    backbone: str = "tf_efficientnet_lite0"
    """Any timm model with features at strides 4, 8, 16 and 32."""
    weights: str = "hub"
    """`hub` (timm's pretrained), `package` (ImageNet weights of the `demo` extra), `none`, or a file."""
    fusion: Literal["mff", "mean"] = "mff"
    """How the features of the modalities become one map."""
    head_channels: PositiveInt = 128
    normalise: Literal["registry", "dataset"] = "registry"
    """Mean and std of the sensors other than colour: the registry's, or the training split's own."""
    lscd: LscdConfig = LscdConfig()


class TrainConfig(Frozen):
    """The training loop."""

    steps: PositiveInt = 20_000
    batch_size: PositiveInt = 8
    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.01
    warmup_steps: NonNegativeInt = 50
    crop_px: PositiveInt | None = None
    """Side of the random square crop; default: whole pictures."""
    flip: float = Field(default=0.5, ge=0.0, le=1.0)
    """Probability of a horizontal flip of all modalities and the label."""
    subset_weight: NonNegativeFloat = 1.0
    """Weight of the second pass on a random subset of the modalities; 0 switches it off."""
    class_weight_power: float = Field(default=-0.5, ge=-1.0, le=0.0)
    """Class weights are frequency ** power, normalised to mean 1 over pixels; 0: unweighted."""
    checkpoint_every: PositiveInt = 100
    workers: NonNegativeInt = 0
    """Loader processes; 0 decodes in the training process."""
    threads: NonNegativeInt = 0
    """Threads of one training process; 0: PyTorch's default."""
    device: Device = "auto"


class EvaluateConfig(Frozen):
    """Scoring every non-empty subset of the modalities."""

    split: str = "val"
    batch_size: PositiveInt = 16
    num_pictures: NonNegativeInt = 5
    """Samples whose predictions are kept for the report."""
