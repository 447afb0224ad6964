"""Confusion matrices of every subset of the modalities, from one run of the backbone per batch.

The backbone sees each picture once; fusion, head and upsampling run for each of the 2^M - 1
subsets. Scores are at label resolution, in exact integers per condition. Writes prediction
pictures of a few samples; what can fail: see `student.evaluate`.

Legend: B samples, M modalities, S subsets, G conditions, K classes, H W space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset

from pipeline.codecs import encode_png
from pipeline.config import Config
from pipeline.datasets.base import IGNORE_ID
from pipeline.errors import CheckpointError, DatasetError
from pipeline.files import AnyPath, sha256_file, write_bytes
from pipeline.manifest import Manifest
from pipeline.modalities import ModalitySpec
from pipeline.progress import progress_bar
from student.augment import Placement
from student.checkpoint import EMA, load_checkpoint, load_module
from student.device import pick_device, threads
from student.metrics import class_iou, confusion, majority_miou, miou, miou_absent_zero
from student.model import Student
from student.normalise import input_specs
from student.run import BEST, LAST, Run
from student.samples import SampleReader, SampleRef, list_samples, start_method
from student.stream import Batch, assemble, common_size

PROTOCOL = "absent modalities are skipped"

_MADE_BY = {BEST: " with `train.validate_every`"}

Subset = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scores:
    """Counts over a split."""

    subsets: tuple[Subset, ...]
    conditions: tuple[str, ...]
    confusion: NDArray[np.int64]
    """(S, G, K, K) pixels, rows by label."""
    num_samples: NDArray[np.int64]
    """(S,) samples that have a modality of the subset."""


def score(config: Config, manifest: Manifest, run: Run, *, progress: bool) -> dict[str, Any]:
    """Evaluate the run's last checkpoint; the scores as JSON (see storage_layout.md)."""
    split = config.evaluate.split
    refs = list_samples(manifest, split, tuple(config.modalities))
    with threads(config.train.threads):
        model, step = load_student(config, manifest, run)
        chosen = pick_pictures(refs, config.evaluate.num_pictures)
        scores = count_subsets(config, run, model, refs, chosen, progress)
    if not scores.confusion.any():
        raise DatasetError(f"{manifest.folder}: split {split!r} has no labelled pixel to score")
    pictures = [
        {"key": ref.key, "condition": ref.condition, "corner_case": ref.corner_case}
        for ref in chosen
    ]
    return {
        "run_id": run.id,
        "split": split,
        "protocol": PROTOCOL,
        "step": step,
        "checkpoint_sha256": sha256_file(run.checkpoint),
        "num_samples": len(refs),
        "classes": list(manifest.classes),
        "pictures": pictures,
        **summarise(scores),
    }


def load_student(
    config: Config, manifest: Manifest, run: Run, name: str = LAST
) -> tuple[Student, int]:
    """The run's student on its device, ready to predict, and the steps it was trained.

    `name`: which of its checkpoints. With `train.ema`, its averaged weights.
    """
    checkpoint = load_checkpoint(run, name)
    if checkpoint is None:
        path, asked = run.tensors_of(name), _MADE_BY.get(name, "")
        raise CheckpointError(f"{path}: no checkpoint. Run `any2seg train CONFIG`{asked}.")
    # The checkpoint holds every weight: the pretrained ones need not be there any more.
    untrained = config.student.model_copy(update={"weights": "none"})
    model = Student(untrained, input_specs(config, manifest), len(manifest.classes))
    load_module(run, f"{EMA}.weights" if config.train.ema else "model", model, checkpoint)
    model.to(pick_device(config.train.device)).to(memory_format=torch.channels_last)
    return model.eval(), checkpoint.step


def all_subsets(modalities: Sequence[str]) -> tuple[Subset, ...]:
    """The 2^M - 1 non-empty subsets, small ones first, in the config's order."""
    sizes = range(1, len(modalities) + 1)
    return tuple(subset for size in sizes for subset in combinations(modalities, size))


def pick_pictures(refs: Sequence[SampleRef], count: int) -> list[SampleRef]:
    """Samples spread over the conditions in turn, and evenly within each."""
    conditions = sorted({ref.condition for ref in refs})
    groups = [[ref for ref in refs if ref.condition == condition] for condition in conditions]
    rounds = -(-count // len(groups))
    spread = [
        group[place * len(group) // rounds]
        for place in range(rounds)
        for group in groups
        if place < len(group)
    ]
    return list({ref.key: ref for ref in spread}.values())[:count]


class EvaluationBatches(Dataset[Batch]):
    """The split in manifest order, in batches of pictures of one size: nothing is padded."""

    def __init__(
        self, refs: Sequence[SampleRef], specs: Mapping[str, ModalitySpec], batch_size: int
    ) -> None:
        self.specs = specs
        self.reader = SampleReader(specs)
        runs = [list(group) for _, group in groupby(refs, lambda ref: (ref.height, ref.width))]
        self.parts = [
            same[first : first + batch_size]
            for same in runs
            for first in range(0, len(same), batch_size)
        ]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Batch:
        refs = self.parts[index]
        decoded = [self.reader.read(ref) for ref in refs]
        size = common_size(decoded)
        return assemble(index, refs, decoded, [Placement()] * len(refs), size, self.specs)


@torch.inference_mode()
def predict_subsets(
    model: Student, batch: Batch, subsets: Sequence[Subset]
) -> list[tuple[Tensor, Tensor]]:
    """For each subset the predicted ids (B, H, W) and which samples have a modality of it (B,)."""
    features = model.features(batch.inputs, batch.present)
    size = batch.label.shape[1:]
    found = []
    for subset in subsets:
        wanted = torch.tensor([name in subset for name in model.modalities])
        there_BM = batch.present & wanted.to(batch.present.device)
        logits = interpolate(model.logits(features, there_BM), size=size, mode="bilinear")
        # max is several times faster than argmax on a CPU and gives the same ids.
        found.append((logits.max(dim=1).indices, there_BM.any(dim=1)))
    return found


def count_subsets(
    config: Config,
    run: Run,
    model: Student,
    refs: Sequence[SampleRef],
    chosen: Sequence[SampleRef],
    progress: bool,
) -> Scores:
    """Predict every batch, count, and write the chosen samples' pictures."""
    subsets = all_subsets(model.modalities)
    conditions = tuple(sorted({ref.condition for ref in refs}))
    num_classes = model.head.classify.out_channels
    device = model.statistics_M23.device
    shape = (len(subsets), len(conditions), num_classes, num_classes)
    counts = torch.zeros(shape, dtype=torch.int64, device=device)
    num_samples = torch.zeros(len(subsets), dtype=torch.int64, device=device)
    shown = {ref.key for ref in chosen}
    batches = EvaluationBatches(refs, config.specs(), config.evaluate.batch_size)
    workers = config.train.workers
    loader = DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=start_method(workers),
    )
    with progress_bar(f"evaluate {run.id}", len(refs), "sample", progress) as advance:
        for host_batch in loader:
            batch = host_batch.to(device)
            group_B = torch.tensor([conditions.index(ref.condition) for ref in batch.refs])
            predictions = predict_subsets(model, batch, subsets)
            for s, (ids, there_B) in enumerate(predictions):
                label = batch.label.masked_fill(~there_B[:, None, None], IGNORE_ID)
                counts[s] += confusion(ids, label, group_B.to(device), len(conditions), num_classes)
                num_samples[s] += there_B.sum()
            _write_pictures(run.pictures, batch, shown, subsets, predictions)
            advance(len(batch.refs))
    return Scores(subsets, conditions, counts.cpu().numpy(), num_samples.cpu().numpy())


def _write_pictures(
    folder: AnyPath,
    batch: Batch,
    shown: set[str],
    subsets: Sequence[Subset],
    predictions: Sequence[tuple[Tensor, Tensor]],
) -> None:
    """Label and predictions of the shown samples, from each modality alone and from all, as class
    ids."""
    wanted = [s for s, subset in enumerate(subsets) if len(subset) == 1 or s == len(subsets) - 1]
    for b, ref in enumerate(batch.refs):
        if ref.key not in shown:
            continue
        write_bytes(folder / ref.key / "label.png", _png(batch.label[b]))
        for s in wanted:
            ids, there_B = predictions[s]
            if there_B[b]:
                write_bytes(folder / ref.key / f"{'+'.join(subsets[s])}.png", _png(ids[b]))


def _png(ids_HW: Tensor) -> bytes:
    return encode_png(ids_HW.to("cpu", torch.uint8).numpy())


def summarise(scores: Scores) -> dict[str, Any]:
    """mIoU of every subset, all together and per condition, and the figures that stand for them."""
    rows = [_subset_row(scores, s) for s in range(len(scores.subsets))]
    support = scores.confusion[-1].sum(axis=(0, 2))
    figures = [row["miou"] for row in rows if row["miou"] is not None]
    singles = [r["miou"] for r in rows if len(r["modalities"]) == 1 and r["miou"] is not None]
    worst = min((row for row in rows if row["miou"] is not None), key=lambda row: row["miou"])
    return {
        "support": support.tolist(),
        "subsets": rows,
        "all": rows[-1]["miou"],
        "mean": float(np.mean(figures)),
        "singles_mean": float(np.mean(singles)),
        "worst": {"modalities": worst["modalities"], "miou": worst["miou"]},
        "majority_class_miou": majority_miou(support),
    }


def _subset_row(scores: Scores, s: int) -> dict[str, Any]:
    iou_K = class_iou(scores.confusion[s].sum(axis=0))
    by_condition = {
        condition: _or_none(miou(class_iou(scores.confusion[s, g])))
        for g, condition in enumerate(scores.conditions)
        if condition
    }
    return {
        "modalities": list(scores.subsets[s]),
        "num_samples": int(scores.num_samples[s]),
        "miou": _or_none(miou(iou_K)),
        "miou_absent_zero": miou_absent_zero(iou_K),
        "per_class": [_or_none(float(iou)) for iou in iou_K],
        "per_condition": by_condition,
    }


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
