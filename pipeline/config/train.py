"""`[train]` and `[evaluate]` of the configuration.

Checks across tables are in `pipeline.config.config`.
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
    """Decay of an exponential moving average of the weights, e.g. 0.999; 0: off. If on, the averaged
    student is scored, predicts, is exported, and is the reference of `consistency_weight`."""
    warmup_steps: NonNegativeInt = 50
    decay: Literal["poly", "cosine"] = "poly"
    """How the learning rate falls to 0 after the warm-up: (1 - t) ** 0.9, or half a cosine."""
    clip_norm: NonNegativeFloat = 0.0
    """Largest norm of the whole gradient, against a rare batch that undoes many others; 0: no
    clipping."""
    accumulate: PositiveInt = 1
    """Micro-batches per batch, run one after the other, for a batch that does not fit in memory; batch
    norms see micro-batches."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Compute dtype of convolutions and matrix products; weights, losses and sums stay float32."""
    crop_px: PositiveInt | None = None
    """Side of the random square crop; default: whole images. With `teacher.views`: the side that
    views are resized to."""
    flip: float = Field(default=0.5, ge=0.0, le=1.0)
    """Probability of a horizontal flip of all modalities and the label; with `teacher.views`, the
    flips of the views are used instead."""
    scale: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    """Range of the random factor that resizes all modalities and the label before the crop; depth
    values stay as they are. Not with `teacher.views`."""
    jitter: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Brightness, contrast and saturation of colour images are each multiplied by a factor in 1 ± this."""
    blur: float = Field(default=0.0, ge=0.0, le=1.0)
    """Probability that colour images are blurred (standard deviation 0.1 to 1.5 px)."""
    missing_targets: Literal["error", "skip", "mask"] = "error"
    """For a sample without all its targets: stop and name it, leave it out of training, or train it
    with the segmentation loss alone."""
    subset_weight: NonNegativeFloat = 1.0
    """Weight of the second pass, on a random subset of the modalities; 0 turns it off."""
    subset_draw: Literal["uniform", "weak_first"] = "weak_first"
    """How that subset is drawn: uniformly, or weak modalities more often, by their running IoU."""
    consistency_weight: NonNegativeFloat = 0.0
    """Weight of the distance between the subset's logits and those of all modalities."""
    auxiliary_weight: NonNegativeFloat = 0.5
    """Weight of the cross-entropy of each modality alone, through the shared head at stride 4."""
    ohem_threshold: float | None = Field(default=None, gt=0.0, lt=1.0)
    """If set, cross-entropy counts only pixels whose class has a lower probability (DELIVER: 0.7)."""
    ohem_keep: float = Field(default=1 / 16, ge=0.0, le=1.0)
    """Smallest share of the labelled pixels, the hardest, that `ohem_threshold` keeps."""
    class_weight_power: float = Field(default=-0.5, ge=-1.0, le=0.0)
    """Class weights are frequency ** power, normalised to mean 1 over pixels; 0: unweighted."""
    checkpoint_every: PositiveInt = 100
    keep_every: NonNegativeInt = 0
    """Steps between checkpoints that are kept as `step-N`; 0: only the last one is."""
    validate_every: NonNegativeInt = 0
    """Steps between validations of all subsets on `evaluate.split`; the checkpoint with the best mean
    is kept as `best`. 0: never."""
    tracker: Literal["auto", "none", "tensorboard", "wandb", "mlflow"] = "auto"
    """Experiment tracker, beside `metrics.parquet`; `auto`: TensorBoard if it is installed."""
    compile: bool = False
    """Run backbone and head through `torch.compile`: minutes at the start, faster steps on a GPU."""
    processes: PositiveInt = 1
    """Training processes on this machine, one per GPU; they split every batch. On several machines,
    start `torchrun ... -m flows.cli train CONFIG` on each."""
    workers: NonNegativeInt = 0
    """Loader processes; 0: the training process decodes."""
    threads: NonNegativeInt = 0
    """Threads per training process; 0: PyTorch's default."""
    device: DeviceName = "auto"

    @model_validator(mode="after")
    def _check_scale(self) -> TrainConfig:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: expected [smallest, largest], found {list(self.scale)}")
        return self


class EvaluateConfig(Frozen):
    """Evaluation of every non-empty subset of the modalities."""

    split: str = VAL_SPLIT
    batch_size: PositiveInt = 16
    num_pictures: NonNegativeInt = 5
    """Number of samples whose predictions are kept for the report."""
    window_px: NonNegativeInt = 0
    """Side of the square sliding window; 0: whole images."""
    window_overlap: float = Field(default=1 / 3, ge=0.0, lt=1.0)
    """Smallest overlap of neighbouring windows, as a share of the side."""
    robustness: bool = False
    """Also score corrupted inputs (EMM, RMM, NM: see docs/evaluation.md); six to seven times the work."""
    seed: NonNegativeInt = 0
    """Seed of the corruptions; its own, so that students of all training seeds get the same ones."""
