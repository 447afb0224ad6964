"""Settings of training and evaluation.

Plain validated values; `pipeline.config.config` puts them together and checks across them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from pipeline.core.device import DeviceName
from pipeline.core.frozen_model import Frozen
from pipeline.core.splits import VAL_SPLIT


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
    device: DeviceName = "auto"

    @model_validator(mode="after")
    def _check_scale(self) -> TrainConfig:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: expected [smallest, largest], found {list(self.scale)}")
        return self


class EvaluateConfig(Frozen):
    """Scoring every non-empty subset of the modalities."""

    split: str = VAL_SPLIT
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
