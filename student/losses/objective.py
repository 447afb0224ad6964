"""What a training step minimises: every term of a batch's loss, from one run of the backbone.

- `ce`, weight 1: all present modalities. Always on, so that robustness is not paid for in accuracy
  (as CHARM does; arXiv 2508.03060).
- `subset_ce`, `train.subset_weight`: a drawn subset of each sample's modalities, so that the student
  can do without any of them (`student.losses.modality_subsets`).
- `consistency`, `train.consistency_weight`: the subset's logits to those of all modalities, of the
  averaged student if the caller has one, else of the student itself (as AnySeg's full-modality
  teacher; the losses are in `student.losses.segmentation`).
- `auxiliary`, `train.auxiliary_weight`: each modality alone through the shared head, at stride 4, so
  that no sensor is left untrained (deep supervision; Lee et al., 2015).
- `inter`, `language`, `intra`, `dense`, `student.lscd.*`: distillation (`student.lscd`).

Head and fusion run once for all passes. Everything random is a function of (seed, position in the
stream) and of the running IoU. An `Objective` is one module, so that what trains in several processes
has one `forward`, and its state (`model.*`, `lscd.*`, `running.*`) is what a checkpoint keeps. Under
`train.precision` the model computes in 16 bits, the terms in float32. Writes nothing, raises nothing.

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
from student.data.train_stream import Batch
from student.losses.lscd import TERMS as DISTILLATION
from student.losses.lscd import Lscd, TeacherBatch
from student.losses.modality_subsets import RunningIou, draw_subsets, draw_weak_first
from student.losses.segmentation import consistency_loss, hard_pixel_loss, segmentation_loss
from student.model.fusion import StageFeatures
from student.model.student import Student
from student.model.upsample import resize

_SUBSETS = 3
"""Stream of random numbers, as in `student.data.train_stream`."""
TERMS = ("ce", "subset_ce", "consistency", "auxiliary", *DISTILLATION)

Reference = Callable[[Batch], Tensor]
"""A batch to the logits (B, K, h, w) of all its modalities that a subset's are held to."""


class Objective(nn.Module):
    """The terms of the loss of `model` on a batch, and their weights."""

    def __init__(
        self,
        config: Config,
        model: Student,
        lscd: Lscd,
        class_weights: Tensor,
        reference: Reference | None = None,
    ) -> None:
        """`reference`: the averaged student's answer; default: the student's own full pass."""
        super().__init__()
        self.seed, self.settings, self.weights = config.seed, config.train, config.student.lscd
        self.model, self.lscd, self.class_weights = model, lscd, class_weights
        self.reference = reference
        num_classes = model.head.classify.out_channels
        self.running = RunningIou(len(model.modalities), num_classes)
        self.running.to(class_weights.device)

    @property
    def two_passes(self) -> bool:
        """Whether a subset of the modalities is trained beside all of them."""
        wanted = self.settings.subset_weight > 0 or self.settings.consistency_weight > 0
        return wanted and len(self.model.modalities) > 1

    @property
    def watches_modalities(self) -> bool:
        """Whether anything depends on the running IoU of single modalities."""
        return self._draws_weak_first or (self.weights.active and self.weights.weak_power > 0)

    @property
    def _draws_weak_first(self) -> bool:
        return self.two_passes and self.settings.subset_draw == "weak_first"

    def weight(self, term: str) -> float:
        """What a term counts in the sum."""
        if term in DISTILLATION:
            return float(getattr(self.weights, term))
        if term == "ce":
            return 1.0
        name = {"subset_ce": "subset_weight"}.get(term, f"{term}_weight")
        return float(getattr(self.settings, name))

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """What is minimised, and its terms without their gradients."""
        terms = self.terms(batch)
        return self.total(terms), {name: value.detach() for name, value in terms.items()}

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum."""
        return sum((self.weight(name) * value for name, value in terms.items()), torch.zeros(()))

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The terms that have weight, unweighted."""
        with self._autocast(batch):
            features = self.model.features(batch.inputs, batch.present)
            whole = self.model.fuse(features, batch.present)
            pyramids = [whole]
            if self.two_passes:
                pyramids.append(self.model.fuse(features, self._draw(batch)))
            singles, rows = self._singles(features, batch.present)
            logits = self.model.decode(*pyramids, *singles).float()
        num_passes = len(pyramids) * len(batch.refs)
        passes, alone = logits[:num_passes], logits[num_passes:]
        terms = self._passes(passes, batch)
        if singles:
            terms["auxiliary"] = self._auxiliary(alone, rows, batch.label)
        elif self.watches_modalities:
            self._watch_one(features, batch)
        return terms | self._distilled(features, whole, batch)

    def _passes(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the full pass, and what the subset pass is trained on."""
        upsampled = resize(logits, *batch.label.shape[1:])
        terms = {
            name: self._cross_entropy(part, batch.label)
            for name, part in zip(TERMS, upsampled.chunk(2 if self.two_passes else 1), strict=False)
        }
        if not self.settings.subset_weight:
            terms.pop("subset_ce", None)
        if self.settings.consistency_weight and self.two_passes:
            own, subset = logits.chunk(2)
            wanted = own if self.reference is None else self._asked(self.reference, batch)
            terms["consistency"] = consistency_loss(subset, wanted, self.settings.consistency_tau)
        return terms

    def _autocast(self, batch: Batch) -> AbstractContextManager[object]:
        """Where the model computes in `train.precision`."""
        if self.settings.precision == "float32":
            return nullcontext()
        return torch.autocast(batch.label.device.type, getattr(torch, self.settings.precision))

    def _asked(self, reference: Reference, batch: Batch) -> Tensor:
        with torch.no_grad(), self._autocast(batch):
            return reference(batch).float()

    def _draw(self, batch: Batch) -> Tensor:
        """(B, M) bool: the subset that each sample keeps in the second pass."""
        present, first = batch.present.cpu().numpy(), batch.index * len(batch.refs)
        iou = self.running.iou().cpu().double().numpy() if self._draws_weak_first else None
        drawn = []
        for b in range(len(present)):
            rng = np.random.default_rng([self.seed, _SUBSETS, first + b])
            row = present[b : b + 1]
            drawn.append(draw_subsets(row, rng) if iou is None else draw_weak_first(row, iou, rng))
        return torch.from_numpy(np.concatenate(drawn)).to(batch.present.device)

    def _singles(
        self, features: StageFeatures, present_BM: Tensor
    ) -> tuple[list[list[Tensor]], list[Tensor]]:
        """Each modality's fused pyramid by itself and the samples in it; none without weight."""
        if not self.settings.auxiliary_weight:
            return [], []
        pyramids, rows = [], []
        for m in range(present_BM.shape[1]):
            there = present_BM[:, m].nonzero().squeeze(1)
            pyramids.append([stage[there] for stage in self._alone(features, present_BM, m)])
            rows.append(there)
        return pyramids, rows

    def _alone(self, features: StageFeatures, present_BM: Tensor, m: int) -> list[Tensor]:
        """The pyramid of modality m; what it holds for samples without m means nothing."""
        only = torch.zeros_like(present_BM)
        only[:, m] = present_BM[:, m]
        return self.model.fuse(features, only)

    def _auxiliary(self, logits: Tensor, rows: Sequence[Tensor], label_BHW: Tensor) -> Tensor:
        """Cross-entropy of the modalities alone against the label at stride 4."""
        small = _small_label(label_BHW, logits.shape[-2:])
        if self.watches_modalities:
            parts = torch.split(logits.detach(), [len(there) for there in rows])
            for m, part in enumerate(parts):
                self.running.update(m, part.argmax(1), small[rows[m]])
        return self._cross_entropy(logits, small[torch.cat(list(rows))])

    @torch.no_grad()
    def _watch_one(self, features: StageFeatures, batch: Batch) -> None:
        """Score one modality by itself, another at each batch, as evaluation would."""
        m = batch.index % len(self.model.modalities)
        there = batch.present[:, m]
        head = self.model.head.eval()
        with self._autocast(batch):
            logits = head(self._alone(features, batch.present, m))[there]
        head.train()
        small = _small_label(batch.label, logits.shape[-2:])
        self.running.update(m, logits.argmax(1), small[there])

    def _cross_entropy(self, logits: Tensor, label_BHW: Tensor) -> Tensor:
        threshold = self.settings.ohem_threshold
        if threshold is None:
            return segmentation_loss(logits, label_BHW, self.class_weights)
        keep = self.settings.ohem_keep
        return hard_pixel_loss(logits, label_BHW, self.class_weights, threshold, keep)

    def _distilled(
        self, features: StageFeatures, fused: Sequence[Tensor], batch: Batch
    ) -> dict[str, Tensor]:
        targets = batch.targets
        teacher = TeacherBatch(
            batch.view,
            targets.get("embedding"),
            targets.get("patch"),
            batch.has_target,
            targets.get("scene"),
        )
        power = self.weights.weak_power if self.weights.active else 0.0
        weights_M = self.running.weights(power) if power else None
        maps = [found.float() for found in features.maps]
        fused = [found.float() for found in fused]
        found: dict[str, Tensor] = self.lscd(
            maps, batch.present, batch.label, teacher, fused, weights_M
        )
        return found


def _small_label(label_BHW: Tensor, size: Sequence[int]) -> Tensor:
    """Labels at the nearest pixel of a coarser grid."""
    small = functional.interpolate(label_BHW[:, None].float(), size=tuple(size), mode="nearest")
    return small[:, 0].long()
