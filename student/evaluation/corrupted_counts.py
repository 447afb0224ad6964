"""Counts from corrupted inputs: the robustness benchmark of Liao et al. (arXiv 2503.18445).

    EMM  the modalities outside a subset are 0 after normalisation, and count as present
    RMM  of those a share of the elements is 0
    NM   all modalities carry noise

The backbone sees each set of corrupted inputs once (one for each share and level), and an image of
zeros once per stem and batch; a subset takes the features of its own modalities from the clean
inputs, those of the others from the corrupted ones. So RMM does the same to a modality in every
subset. A modality that a sample lacks by itself is 0 in EMM and RMM, and skipped in NM. Strengths:
`student.evaluation.corruptions`.

Legend: B samples, M modalities, S subsets, T tables (EMM, then RMM by share), L noise levels,
K classes, C channels, H W space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.datasets.base import IGNORE_ID
from pipeline.modalities import ModalitySpec
from student.data.train_stream import Batch
from student.evaluation.corruptions import (
    LOST_SHARES,
    NOISE_LEVELS,
    NoiseLevel,
    add_noise,
    generator,
    lose_elements,
)
from student.evaluation.iou import confusion
from student.evaluation.predictions import WindowFeatures, members, predict_ids, run_backbone
from student.evaluation.score_tables import Subset
from student.evaluation.sliding_window import WindowSlice
from student.model.fusion import StageFeatures
from student.model.student import Student

QUIET_KIND = "event"
"""The kind of modality that the benchmark gives no Gaussian noise."""

Maps = Sequence[Tensor]
"""(M, B, C_i, H_i, W_i) a stage."""
Corruption = Callable[[Tensor, str, np.random.Generator], Tensor]
"""From an input (C, H, W) and its modality's name to the corrupted input."""


class CorruptionCounter:
    """Confusion matrices (int64, rows by label) of everything that `add` was given."""

    def __init__(
        self,
        model: Student,
        subsets: Sequence[Subset],
        specs: Mapping[str, ModalitySpec],
        seed: int,
    ) -> None:
        self.model, self.subsets, self.specs, self.seed = model, subsets, specs, seed
        self.num_classes = K = model.head.classify.out_channels
        none = torch.zeros(K, K, dtype=torch.int64, device=model.device)
        self.missing_TSKK = none.repeat(1 + len(LOST_SHARES), len(subsets), 1, 1)
        self.noisy_LKK = none.repeat(len(NOISE_LEVELS), 1, 1)

    def add(self, batch: Batch, clean: WindowFeatures) -> None:
        """Count a batch; `clean`: features of its clean inputs, window by window."""
        windows = [window for window, _ in clean]
        present_MB111 = batch.present.T[:, :, None, None, None]
        inputs = self.model.normalise(batch.inputs).masked_fill(~present_MB111, 0)
        zeros = self._zeros(clean, len(batch.refs))
        kept = [
            [torch.where(present_MB111, *pair) for pair in zip(features.maps, zeros, strict=True)]
            for _, features in clean
        ]
        self._count_missing(0, batch, windows, kept, [zeros] * len(kept))
        for table, share in enumerate(LOST_SHARES, 1):
            lossy = self._corrupted(inputs, batch, f"RMM {share:g}", _losing(share))
            everything = torch.ones_like(batch.present)
            corrupted = run_backbone(self.model, lossy, everything, windows)
            others = [features.maps for _, features in corrupted]
            self._count_missing(table, batch, windows, kept, others)
        for row, level in enumerate(NOISE_LEVELS):
            noisy = self._corrupted(inputs, batch, f"NM {level.name}", self._noise(level))
            corrupted = run_backbone(self.model, noisy, batch.present, windows)
            self.noisy_LKK[row] += self._count(corrupted, batch.present, batch.label)

    def _zeros(self, clean: WindowFeatures, num_samples: int) -> Maps:
        """The maps of an image of zeros as large as a window, for every modality and sample."""
        rows, columns = clean[0][0]
        model, num_modalities = self.model, len(self.model.modalities)
        stems = num_modalities if model.backbone.has_own_stems else 1
        shape = (stems, 1, 3, rows.stop - rows.start, columns.stop - columns.start)
        device = model.device
        present = torch.ones(1, stems, dtype=torch.bool, device=device)
        features = model.features_of(torch.zeros(shape, device=device), present)
        return [maps.expand(num_modalities, num_samples, -1, -1, -1) for maps in features.maps]

    def _corrupted(
        self, inputs_MBCHW: Tensor, batch: Batch, kind: str, corruption: Corruption
    ) -> Tensor:
        """Every input corrupted independently, drawn from (seed, kind, sample key, modality)."""
        corrupted = torch.empty_like(inputs_MBCHW)
        for m, name in enumerate(self.model.modalities):
            for b, ref in enumerate(batch.refs):
                rng = generator(self.seed, kind, ref.key, name)
                corrupted[m, b] = corruption(inputs_MBCHW[m, b], name, rng)
        return corrupted

    def _noise(self, level: NoiseLevel) -> Corruption:
        return lambda clean, name, rng: add_noise(
            clean, level, self.specs[name].kind != QUIET_KIND, rng
        )

    def _count_missing(
        self,
        table: int,
        batch: Batch,
        windows: Sequence[WindowSlice],
        kept: Sequence[Maps],
        others: Sequence[Maps],
    ) -> None:
        """Every subset: its modalities' maps from `kept`, window by window, the rest from `others`."""
        pairs = [self._paired(*both) for both in zip(kept, others, strict=True)]
        everything = torch.ones_like(batch.present)
        for s, subset in enumerate(self.subsets):
            chosen_M = members(self.model, subset, batch.present)
            parts = [(w, _picked(pair, chosen_M)) for w, pair in zip(windows, pairs, strict=True)]
            scored_B = (batch.present & chosen_M).any(dim=1)
            label = batch.label.masked_fill(~scored_B[:, None, None], IGNORE_ID)
            self.missing_TSKK[table, s] += self._count(parts, everything, label)

    def _paired(self, kept: Maps, others: Maps) -> StageFeatures:
        """Both, concatenated along M: dot products are then shared by all subsets."""
        maps = tuple(torch.cat(both) for both in zip(kept, others, strict=True))
        return StageFeatures(maps, self.model.fusion.grams(maps))

    def _count(self, windows: WindowFeatures, present_BM: Tensor, label_BHW: Tensor) -> Tensor:
        ids = predict_ids(self.model, windows, present_BM, label_BHW.shape[1:])
        one_group_B = label_BHW.new_zeros(len(label_BHW))
        return confusion(ids, label_BHW, one_group_B, 1, self.num_classes)[0]


def _losing(share: float) -> Corruption:
    return lambda clean, _, rng: lose_elements(clean, share, rng)


def _picked(pair: StageFeatures, chosen_M: Tensor) -> StageFeatures:
    """Of 2 M maps the first of each modality that is chosen, the second of each that is not."""
    M = len(chosen_M)
    rows = torch.arange(M, device=chosen_M.device) + M * (~chosen_M)
    return StageFeatures(
        tuple(maps[rows] for maps in pair.maps), tuple(gram[rows][:, rows] for gram in pair.grams)
    )
