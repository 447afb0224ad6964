"""Confusion matrices of every subset of the modalities, from one run of the backbone per batch.

The backbone sees each image once; fusion, head and upsampling run for each of the 2^M - 1
subsets. Scores are at label resolution, in exact integers per condition and corner case. Several
processes take disjoint batches and add up their counts: the same integers as from one. Writes
prediction images of a few samples. Raises what `student.evaluation.evaluate` lists.

Legend: B samples, M modalities, S subsets, G conditions and corner cases, K classes, H W space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.config.config import Config
from pipeline.core.device import choose_device, threads
from pipeline.core.progress import progress_bar
from pipeline.datasets.base import IGNORE_ID
from pipeline.errors import CheckpointError, DatasetError
from pipeline.formats.image_codec import encode_png
from pipeline.modalities import ModalitySpec
from pipeline.shards.manifest import Manifest
from pipeline.shards.sample_reader import SampleReader, SampleRef, list_samples
from pipeline.storage.files import AnyPath, sha256_file, write_bytes
from student.data.augment import Crop
from student.data.train_stream import Batch, assemble, common_size, start_method
from student.evaluation.corrupted_counts import CorruptionCounter
from student.evaluation.iou import confusion
from student.evaluation.predictions import predict_subsets, run_backbone
from student.evaluation.score_tables import (
    SKIPPED,
    CorruptedCounts,
    Counts,
    Scores,
    Subset,
    all_subsets,
    summarise,
)
from student.evaluation.sliding_window import Window, window_slices
from student.model.input_statistics import input_specs
from student.model.student import Student
from student.runs.checkpoint import EMA, load_checkpoint, load_module
from student.runs.distributed import World
from student.runs.inputs import RunInputs
from student.runs.layout import BEST, LAST
from student.runs.run import Run

_MADE_BY = {BEST: " with `train.validate_every`"}


def score(
    inputs: RunInputs,
    *,
    progress: bool,
    world: World = World(),  # noqa: B008 immutable
) -> dict[str, Any]:
    """Evaluate the run's last checkpoint; the scores as JSON (see storage_layout.md).

    All processes of `world` return the same.
    """
    config, manifest, run = inputs.config, inputs.manifest, inputs.run
    split = config.evaluate.split
    refs = list_samples(manifest, split, tuple(config.modalities))
    with threads(config.train.threads):
        model, step = load_student(config, manifest, run)
        shown = pick_shown(refs, config.evaluate.num_pictures)
        scores = count_subsets(
            inputs,
            model,
            refs,
            shown,
            world=world,
            robustness=config.evaluate.robustness,
            progress=progress,
        )
    if not scores.confusion.any():
        raise DatasetError(
            f"{manifest.folder}: no sample of split {split!r} has both a labelled pixel and one of "
            f"{', '.join(config.modalities)}. Set evaluate.split to another split."
        )
    return {
        "run_id": run.id,
        "split": split,
        "protocol": SKIPPED,
        "step": step,
        "seed": config.seed,
        "checkpoint_sha256": sha256_file(run.checkpoint),
        "num_samples": len(refs),
        "classes": list(manifest.classes),
        "pictures": [
            {"key": ref.key, "condition": ref.condition, "corner_case": ref.corner_case}
            for ref in shown
        ],
        **summarise(scores),
    }


def load_student(
    config: Config, manifest: Manifest, run: Run, name: str = LAST
) -> tuple[Student, int]:
    """The run's student on its device, in eval mode, and the number of steps it was trained.

    `name`: which of its checkpoints. With `train.ema`, the averaged weights.
    """
    checkpoint = load_checkpoint(run, name)
    if checkpoint is None:
        path, asked = run.tensors_of(name), _MADE_BY.get(name, "")
        raise CheckpointError(f"{path}: no checkpoint. Run `any2seg train CONFIG`{asked}.")
    # The checkpoint holds every weight: the pretrained ones need not exist any more.
    student_config = config.student.model_copy(update={"weights": "none"})
    model = Student(student_config, input_specs(config, manifest), len(manifest.classes))
    load_module(run, f"{EMA}.weights" if config.train.ema else "model", model, checkpoint)
    model.to(choose_device(config.train.device)).to(memory_format=torch.channels_last)
    return model.eval(), checkpoint.step


def pick_shown(refs: Sequence[SampleRef], count: int) -> list[SampleRef]:
    """Samples spread over the conditions in turn, and evenly within each."""
    conditions = sorted({ref.condition for ref in refs})
    groups = [[ref for ref in refs if ref.condition == condition] for condition in conditions]
    rounds = -(-count // len(groups))
    spread = [
        group[turn * len(group) // rounds]
        for turn in range(rounds)
        for group in groups
        if turn < len(group)
    ]
    return list({ref.key: ref for ref in spread}.values())[:count]


class EvaluationBatches(Dataset[Batch]):
    """The split in manifest order, in batches of images of one size: nothing is padded.

    Of several processes each takes every `world.size`-th batch.
    """

    def __init__(
        self,
        refs: Sequence[SampleRef],
        specs: Mapping[str, ModalitySpec],
        batch_size: int,
        world: World = World(),  # noqa: B008 immutable
    ) -> None:
        self.specs = specs
        self.reader = SampleReader(specs)
        runs = [list(group) for _, group in groupby(refs, lambda ref: (ref.height, ref.width))]
        batches = [
            same_size[first : first + batch_size]
            for same_size in runs
            for first in range(0, len(same_size), batch_size)
        ]
        self.batches = batches[world.rank :: world.size]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        refs = self.batches[index]
        decoded = [self.reader.read(ref) for ref in refs]
        size = common_size(decoded)
        return assemble(index, refs, decoded, [Crop()] * len(refs), size, self.specs)


class SubsetCounts:
    """Pixel and sample counts of everything that `add` was given."""

    def __init__(
        self, model: Student, subsets: Sequence[Subset], groups: Sequence[tuple[str, str]]
    ) -> None:
        self.groups = groups
        self.num_classes = K = model.head.classify.out_channels
        none = torch.zeros(K, K, dtype=torch.int64, device=model.device)
        self.confusion_SGKK = none.repeat(len(subsets), len(groups), 1, 1)
        self.samples_SG = self.confusion_SGKK[..., 0, 0].clone()

    def add(self, batch: Batch, predictions: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Count a batch's ids of every subset (see `predict_subsets`)."""
        num_groups = len(self.groups)
        groups = [self.groups.index((ref.condition, ref.corner_case)) for ref in batch.refs]
        group_B = torch.tensor(groups, device=batch.label.device)
        for s, (ids, scored_B) in enumerate(predictions):
            label = batch.label.masked_fill(~scored_B[:, None, None], IGNORE_ID)
            counts = confusion(ids, label, group_B, num_groups, self.num_classes)
            self.confusion_SGKK[s] += counts
            self.samples_SG[s] += torch.bincount(group_B[scored_B], minlength=num_groups)


@torch.inference_mode()
def count_subsets(
    inputs: RunInputs,
    model: Student,
    refs: Sequence[SampleRef],
    shown: Sequence[SampleRef] = (),
    *,
    world: World = World(),  # noqa: B008 immutable
    robustness: bool = False,
    progress: bool = False,
) -> Scores:
    """Predict every batch, count, and write the images of the `shown` samples.

    Every process of `world` has to call it; each predicts its batches, all return the sums.
    """
    config, run = inputs.config, inputs.run
    subsets = all_subsets(model.modalities)
    groups = tuple(sorted({(ref.condition, ref.corner_case) for ref in refs}))
    seed, shown_keys = config.evaluate.seed, {ref.key for ref in shown}
    counts = SubsetCounts(model, subsets, groups)
    corrupted = CorruptionCounter(model, subsets, config.specs(), seed) if robustness else None
    batches = EvaluationBatches(refs, config.specs(), config.evaluate.batch_size, world)
    total, visible = sum(map(len, batches.batches)), progress and world.is_main_process
    with progress_bar(f"evaluate {run.id}", total, "sample", visible) as advance:
        for batch in _loaded(batches, config.train.workers, model.device):
            height, width = batch.label.shape[1:]
            windows = window_slices(height, width, _window(config))
            clean = run_backbone(model, model.normalise(batch.inputs), batch.present, windows)
            predictions = predict_subsets(model, clean, batch.present, subsets, (height, width))
            counts.add(batch, predictions)
            _write_predictions(run.pictures, batch, shown_keys, subsets, predictions)
            if corrupted is not None:
                corrupted.add(batch, clean)
            advance(len(batch.refs))
    pixels, samples = _sum(world, counts.confusion_SGKK), _sum(world, counts.samples_SG)
    if corrupted is None:
        return Scores(subsets, groups, pixels, samples)
    missing, noisy = _sum(world, corrupted.missing_TSKK), _sum(world, corrupted.noisy_LKK)
    return Scores(subsets, groups, pixels, samples, CorruptedCounts(missing, noisy, seed))


def _sum(world: World, counts: Tensor) -> Counts:
    total: Counts = world.total(counts).cpu().numpy()
    return total


def _window(config: Config) -> Window | None:
    side, overlap = config.evaluate.window_px, config.evaluate.window_overlap
    return Window(side_px=side, overlap=overlap) if side else None


def _loaded(batches: EvaluationBatches, workers: int, device: torch.device) -> Iterator[Batch]:
    loader = DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=start_method(workers),
    )
    for batch in loader:
        yield batch.to(device)


def _write_predictions(
    folder: AnyPath,
    batch: Batch,
    shown_keys: set[str],
    subsets: Sequence[Subset],
    predictions: Sequence[tuple[Tensor, Tensor]],
) -> None:
    """Label and predictions of the shown samples, from each modality alone and from all, as class
    ids."""
    single_or_all = [
        s for s, subset in enumerate(subsets) if len(subset) == 1 or s == len(subsets) - 1
    ]
    for b, ref in enumerate(batch.refs):
        if ref.key not in shown_keys:
            continue
        write_bytes(folder / ref.key / "label.png", _png(batch.label[b]))
        for s in single_or_all:
            ids, scored_B = predictions[s]
            if scored_B[b]:
                write_bytes(folder / ref.key / f"{'+'.join(subsets[s])}.png", _png(ids[b]))


def _png(ids_HW: Tensor) -> bytes:
    return encode_png(ids_HW.to("cpu", torch.uint8).numpy())
