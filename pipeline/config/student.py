"""Settings of the student: model, distillation, training, evaluation.

Plain validated values; `pipeline.config.config` puts them together and checks across them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from pipeline.config.data import Device
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


class TrainConfig(Frozen):
    """The training loop."""

    steps: PositiveInt = 20_000
    batch_size: PositiveInt = 8
    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.01
    ema: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Decay of an average of the weights, steadier than the last ones, e.g. 0.999; 0: off. On, it is
    what is scored, predicts and is exported, and what `consistency_weight` holds subsets to."""
    warmup_steps: NonNegativeInt = 50
    decay: Literal["poly", "cosine"] = "poly"
    """How the rate falls to 0 after the warm-up: (1 - t) ** 0.9, or half a cosine."""
    clip_norm: NonNegativeFloat = 0.0
    """Largest norm of the gradient of all weights together, against a rare batch that undoes many
    others; 0: as it is."""
    accumulate: PositiveInt = 1
    """Pieces of a batch that go through the model one after the other, for a batch that memory does
    not hold; batch norms see pieces."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """What convolutions and products compute in; weights, losses and sums stay float32."""
    crop_px: PositiveInt | None = None
    """Side of the random square crop; default: whole pictures. With `teacher.views`: the side that
    views are resized to."""
    flip: float = Field(default=0.5, ge=0.0, le=1.0)
    """Probability of a horizontal flip of all modalities and the label; with `teacher.views` the
    views have theirs."""
    scale: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    """Smallest and largest factor that all modalities and the label are resized by before the crop;
    depth keeps its metres. Not with `teacher.views`."""
    jitter: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Colour pictures get brightness, contrast and saturation times a factor in 1 -+ this."""
    blur: float = Field(default=0.0, ge=0.0, le=1.0)
    """Probability that colour pictures are blurred (standard deviation 0.1 to 1.5 px)."""
    missing_targets: Literal["error", "skip", "mask"] = "error"
    """A sample that lacks teacher outputs: stop and name it, leave it out of training, or train its
    segmentation alone."""
    subset_weight: NonNegativeFloat = 1.0
    """Weight of the second pass on a random subset of the modalities; 0 switches it off."""
    subset_draw: Literal["uniform", "weak_first"] = "weak_first"
    """How that subset is drawn: all alike, or weak sensors oftener, by their running IoU."""
    consistency_weight: NonNegativeFloat = 0.0
    """Weight of the subset's distance to the logits of all modalities."""
    consistency_tau: PositiveFloat = 1.0
    """Temperature of both logits there."""
    auxiliary_weight: NonNegativeFloat = 0.5
    """Weight of the cross-entropy of each modality alone, through the shared head at stride 4."""
    ohem_threshold: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Set, cross-entropy counts only pixels whose class gets less probability (DELIVER: 0.7)."""
    ohem_keep: float = Field(default=1 / 16, ge=0.0, le=1.0)
    """Share of the labelled pixels that `ohem_threshold` keeps at least, the hardest."""
    class_weight_power: float = Field(default=-0.5, ge=-1.0, le=0.0)
    """Class weights are frequency ** power, normalised to mean 1 over pixels; 0: unweighted."""
    checkpoint_every: PositiveInt = 100
    keep_every: NonNegativeInt = 0
    """Steps between checkpoints that stay, as `step-N`; 0: none but the last."""
    validate_every: NonNegativeInt = 0
    """Steps between scores of all subsets on `evaluate.split`; the checkpoint of the best mean stays as
    `best`. 0: never."""
    tracker: Literal["auto", "none", "tensorboard", "wandb", "mlflow"] = "auto"
    """Where curves go beside `metrics.parquet`; `auto`: TensorBoard if it is installed."""
    compile: bool = False
    """Let torch compile backbone and head: minutes at the start, faster steps on a GPU."""
    processes: PositiveInt = 1
    """Training processes on this machine, one a GPU; they share every batch. Several machines: start
    `torchrun ... -m flows.cli train CONFIG` on each."""
    workers: NonNegativeInt = 0
    """Loader processes; 0 decodes in the training process."""
    threads: NonNegativeInt = 0
    """Threads of one training process; 0: PyTorch's default."""
    device: Device = "auto"

    @model_validator(mode="after")
    def _check_scale(self) -> TrainConfig:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: expected [smallest, largest], found {list(self.scale)}")
        return self


class EvaluateConfig(Frozen):
    """Scoring every non-empty subset of the modalities."""

    split: str = "val"
    batch_size: PositiveInt = 16
    num_pictures: NonNegativeInt = 5
    """Samples whose predictions are kept for the report."""
    window_px: NonNegativeInt = 0
    """Side of a square window that slides over the pictures; 0: whole pictures."""
    window_overlap: float = Field(default=1 / 3, ge=0.0, lt=1.0)
    """Share of the side that neighbouring windows have in common, at least."""
    robustness: bool = False
    """Also score damaged readings (EMM, RMM, NM: see docs/evaluation.md); six to seven times the work."""
    seed: NonNegativeInt = 0
    """Of the damage; its own, so that students of several training seeds meet the very same."""
