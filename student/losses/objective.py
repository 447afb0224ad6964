"""What a training step minimises: every term of a batch's loss, from one run of the backbone.

- `ce`, weight 1: all present modalities. Always on, so that robustness is not paid for in accuracy
  (as in CHARM; arXiv 2508.03060).
- `subset_ce`, `train.subset_weight`: a drawn subset of each sample's modalities, so that the student
  can do without any of them (`student.losses.modality_subsets`).
- `consistency`, `train.consistency_weight`: the subset's logits to those of all modalities, of the
  averaged student if the caller has one, else of the student itself (as AnySeg's full-modality
  teacher; the losses are in `student.losses.segmentation`).
- `auxiliary`, `train.auxiliary_weight`: each modality alone through the shared head, at stride 4, so
  that no sensor is left untrained (deep supervision; Lee et al., 2015).
- `inter`, `intra`, `dense`, `student.lscd.*`: distillation (`student.losses.lscd`).

Head and fusion run once for all passes. Everything random is a function of (seed, position in the
stream) and of the running IoU. An `Objective` is one module, so that what trains in several processes
has one `forward`, and its state (`model.*`, `lscd.*`, `running.*`) is what a checkpoint keeps. Under
`train.precision` the model computes in 16 bits, the terms in float32.

Legend: B samples, M modalities, K classes, H W space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config.config import Config
from pipeline.core.random_stream import RandomStream
from student.data.train_stream import Batch
from student.losses.lscd import TERMS as DISTILLATION
from student.losses.lscd import Lscd, TeacherBatch
from student.losses.modality_subsets import RunningIou, draw_subsets, draw_weak_first
from student.losses.segmentation import consistency_loss, hard_pixel_loss, segmentation_loss
from student.model.fusion import StageFeatures
from student.model.student import Student
from student.model.upsample import resize

TERMS = ("ce", "subset_ce", "consistency", "auxiliary", *DISTILLATION)

Reference = Callable[[Batch], Tensor]
"""A batch to the logits (B, K, h, w) of all its modalities that a subset's are held to."""


class Objective(nn.Module):
    """The terms of the loss of `model` on a batch, and their weighted sum."""

    def __init__(
        self,
        config: Config,
        model: Student,
        lscd: Lscd,
        class_weights: Tensor,
        reference: Reference | None = None,
    ) -> None:
        """`reference`: the averaged student's logits; default: the student's own full pass."""
        super().__init__()
        self.seed = config.seed
        self.train_config, self.lscd_config = config.train, config.student.lscd
        self.model, self.lscd, self.class_weights = model, lscd, class_weights
        self.reference = reference
        num_classes = model.head.classify.out_channels
        self.running = RunningIou(len(model.modalities), num_classes)
        self.running.to(class_weights.device)

    @property
    def two_passes(self) -> bool:
        """Whether a subset of the modalities is trained beside all of them."""
        has_weight = self.train_config.subset_weight > 0 or self.train_config.consistency_weight > 0
        return has_weight and len(self.model.modalities) > 1

    @property
    def watches_modalities(self) -> bool:
        """Whether anything depends on the running IoU of single modalities."""
        weighs_rows = self.lscd_config.active and self.lscd_config.weak_power > 0
        return self._draws_weak_first or weighs_rows

    @property
    def _draws_weak_first(self) -> bool:
        return self.two_passes and self.train_config.subset_draw == "weak_first"

    def weight(self, term: str) -> float:
        """A term's factor in the sum."""
        if term in DISTILLATION:
            return float(getattr(self.lscd_config, term))
        if term == "ce":
            return 1.0
        name = "subset_weight" if term == "subset_ce" else f"{term}_weight"
        return float(getattr(self.train_config, name))

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its terms detached."""
        terms = self.terms(batch)
        return self.total(terms), {name: value.detach() for name, value in terms.items()}

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum."""
        return sum((self.weight(name) * value for name, value in terms.items()), torch.zeros(()))

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The terms that have weight, unweighted."""
        with self._autocast(batch):
            features = self.model.features(batch.inputs, batch.present)
            pyramids = [self.model.fuse(features, batch.present)]
            if self.two_passes:
                pyramids.append(self.model.fuse(features, self.draw_subset(batch)))
            singles, rows = self._singles(features, batch.present)
            # One run of the head: its batch norm sees all passes of a step together.
            logits = self.model.decode(*pyramids, *singles).float()
        num_fused = len(pyramids) * len(batch.refs)
        terms = self._passes(logits[:num_fused], batch)
        if singles:
            terms["auxiliary"] = self._auxiliary(logits[num_fused:], rows, batch.label)
        elif self.watches_modalities:
            self._watch_one(features, batch)
        return terms | self._distillation(features, batch)

    def _passes(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the full pass, and the terms of the subset pass."""
        full, *subset = resize(logits, *batch.label.shape[1:]).chunk(2 if self.two_passes else 1)
        terms = {"ce": self._cross_entropy(full, batch.label)}
        if subset and self.train_config.subset_weight:
            terms["subset_ce"] = self._cross_entropy(subset[0], batch.label)
        if subset and self.train_config.consistency_weight:
            own, student = logits.chunk(2)
            teacher = own if self.reference is None else self._reference_logits(batch)
            terms["consistency"] = consistency_loss(student, teacher)
        return terms

    def _autocast(self, batch: Batch) -> AbstractContextManager[object]:
        """Where the model computes in `train.precision`."""
        if self.train_config.precision == "float32":
            return nullcontext()
        return torch.autocast(batch.label.device.type, getattr(torch, self.train_config.precision))

    def _reference_logits(self, batch: Batch) -> Tensor:
        assert self.reference is not None
        with torch.no_grad(), self._autocast(batch):
            return self.reference(batch).float()

    def draw_subset(self, batch: Batch) -> Tensor:
        """(B, M) bool: the subset that each sample keeps in the second pass.

        Drawn by the sample's position in the stream, so that cutting a batch into micro-batches
        changes nothing, and by the running IoU.
        """
        present, first = batch.present.cpu().numpy(), batch.index * len(batch.refs)
        iou = self.running.iou().cpu().double().numpy() if self._draws_weak_first else None
        drawn = []
        for b in range(len(present)):
            rng = np.random.default_rng([self.seed, RandomStream.SUBSETS, first + b])
            row = present[b : b + 1]
            drawn.append(draw_subsets(row, rng) if iou is None else draw_weak_first(row, iou, rng))
        return torch.from_numpy(np.concatenate(drawn)).to(batch.present.device)

    def _singles(
        self, features: StageFeatures, present_BM: Tensor
    ) -> tuple[list[list[Tensor]], list[Tensor]]:
        """Each modality's fused pyramid by itself and the samples in it; none without weight."""
        if not self.train_config.auxiliary_weight:
            return [], []
        pyramids, rows = [], []
        for m in range(present_BM.shape[1]):
            row = present_BM[:, m].nonzero().squeeze(1)
            pyramids.append([stage[row] for stage in self._alone(features, present_BM, m)])
            rows.append(row)
        return pyramids, rows

    def _alone(self, features: StageFeatures, present_BM: Tensor, m: int) -> list[Tensor]:
        """The pyramid of modality m alone; undefined for samples without m."""
        only = torch.zeros_like(present_BM)
        only[:, m] = present_BM[:, m]
        return self.model.fuse(features, only)

    def _auxiliary(self, logits: Tensor, rows: Sequence[Tensor], label_BHW: Tensor) -> Tensor:
        """Cross-entropy of the modalities alone against the label at stride 4."""
        small = _small_label(label_BHW, logits.shape[-2:])
        if self.watches_modalities:
            by_modality = torch.split(logits.detach(), [len(row) for row in rows])
            for m, own in enumerate(by_modality):
                self.running.update(m, own.argmax(1), small[rows[m]])
        return self._cross_entropy(logits, small[torch.cat(list(rows))])

    @torch.no_grad()
    def _watch_one(self, features: StageFeatures, batch: Batch) -> None:
        """Score one modality by itself, the next one at each batch, as evaluation would."""
        m = batch.index % len(self.model.modalities)
        present_B = batch.present[:, m]
        # In evaluation mode: these logits must not move the statistics of the head's batch norm.
        head = self.model.head.eval()
        with self._autocast(batch):
            logits = head(self._alone(features, batch.present, m))[present_B]
        head.train()
        small = _small_label(batch.label, logits.shape[-2:])
        self.running.update(m, logits.argmax(1), small[present_B])

    def _cross_entropy(self, logits: Tensor, label_BHW: Tensor) -> Tensor:
        threshold = self.train_config.ohem_threshold
        if threshold is None:
            return segmentation_loss(logits, label_BHW, self.class_weights)
        keep = self.train_config.ohem_keep
        return hard_pixel_loss(logits, label_BHW, self.class_weights, threshold, keep)

    def _distillation(self, features: StageFeatures, batch: Batch) -> dict[str, Tensor]:
        """The terms of `student.lscd`, from each modality's features before fusion."""
        teacher = TeacherBatch(
            view=batch.view,
            embedding=batch.targets.get("embedding"),
            patch=batch.targets.get("patch"),
            has_target=batch.has_target,
            scene=batch.targets.get("scene"),
        )
        power = self.lscd_config.weak_power if self.lscd_config.active else 0.0
        weights_M = self.running.weights(power) if power else None
        maps = [stage.float() for stage in features.maps]
        terms: dict[str, Tensor] = self.lscd(maps, batch.present, batch.label, teacher, weights_M)
        return terms


def _small_label(label_BHW: Tensor, size: Sequence[int]) -> Tensor:
    """Labels at the nearest pixel of a coarser grid."""
    small = functional.interpolate(label_BHW[:, None].float(), size=tuple(size), mode="nearest")
    return small[:, 0].long()
