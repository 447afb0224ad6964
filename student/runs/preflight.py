"""What can be known of a run before it starts: its splits exist, and its student takes the images.

    check_before_run(config, workspace)         before anything is prepared: every row of the config
    check_training(config, manifest)            before the first step
    check_evaluation(config, manifest)          before the first prediction

Sizes come from the manifest; where nothing is prepared yet, from a few samples of the source. Torch is
imported only for a student that is still to be trained or scored. Raises `ConfigError` and `DatasetError`
with what to set.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config.config import Config
from pipeline.config.load import rows
from pipeline.core.device import choose_device
from pipeline.core.splits import TRAIN_SPLIT
from pipeline.datasets import open_dataset
from pipeline.datasets.base import DatasetAdapter, SourceSample
from pipeline.errors import ConfigError, DatasetError, MissingTarget, SampleRefused
from pipeline.shards.manifest import Manifest, holds
from pipeline.targets.views import ViewConfig
from pipeline.workspace import Workspace
from student.runs.inputs import identify
from student.runs.run import is_finished

if TYPE_CHECKING:
    from student.model.trial_pass import TrialShapes

Size = tuple[int, int]
"""Height and width."""
MAX_SIZES = 8
"""Different sizes that are tried: the smallest, the largest, and some between."""
NUM_LOADED = 3
"""Samples of a split that are decoded where no manifest gives the sizes."""


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What the checks need of a data set."""

    num_classes: int
    train: tuple[Size, ...]
    """Sizes of the training images, without repetition."""
    scored: tuple[Size, ...]
    """Sizes of the images of `evaluate.split`."""
    min_present: int
    """Fewest modalities that a training sample has."""


def check_before_run(config: Config, workspace: Workspace) -> None:
    """Check the config and its comparison rows, finished ones excepted."""
    manifest = _complete_manifest(config, workspace)
    # The same for all rows: they differ in student and training only.
    facts = prepared_facts(config, manifest) if manifest else source_facts(config)
    for row in rows(config).values():
        _require_divisible(row)
        if facts and not (manifest and _is_finished(row, workspace, manifest)):
            _check_student(row, facts)


def check_training(config: Config, manifest: Manifest) -> None:
    """Check that the splits exist and that the student takes the images of both."""
    _require_divisible(config)
    require_splits(config, manifest.splits)
    require_labelled(config, manifest)
    _check_student(config, prepared_facts(config, manifest))


def check_evaluation(config: Config, manifest: Manifest) -> None:
    """Check that `evaluate.split` exists and has something to score."""
    require_splits(config, manifest.splits, (config.evaluate.split,))
    require_labelled(config, manifest)


def require_splits(config: Config, splits: Sequence[str], needed: Iterable[str] = ()) -> None:
    """Raise `DatasetError` unless the training split and `evaluate.split` (or `needed`) are there."""
    for split in needed or (TRAIN_SPLIT, config.evaluate.split):
        if split not in splits:
            others = ", ".join(splits) or "none"
            remedy = "Add samples for it and run `any2seg prepare CONFIG`"
            if split == config.evaluate.split:
                remedy = f"Set evaluate.split to a split with samples; or a{remedy[1:]}"
            raise DatasetError(
                f"{config.dataset.adapter} data set: no split {split!r}; splits with samples: {others}. "
                f"{remedy}."
            )


def require_labelled(config: Config, manifest: Manifest) -> None:
    """Raise `DatasetError` if no pixel of `evaluate.split` has a class."""
    split = config.evaluate.split
    if not manifest.class_pixels(split).any():
        raise DatasetError(
            f"{manifest.folder}: split {split!r} has no labelled pixel to score. Check "
            "dataset.ignore_ids and its labels, or set evaluate.split to another split."
        )


def prepared_facts(config: Config, manifest: Manifest) -> DataFacts:
    """The facts of a prepared dataset, from its manifest."""
    require_splits(config, manifest.splits)
    lists = manifest.table(TRAIN_SPLIT, ("modalities",))["modalities"]
    present_N = np.sum([holds(lists, name) for name in config.modalities], axis=0)
    return DataFacts(
        num_classes=len(manifest.classes),
        train=_sizes(manifest, TRAIN_SPLIT),
        scored=_sizes(manifest, config.evaluate.split),
        min_present=int(present_N[present_N > 0].min(initial=len(config.modalities))),
    )


def source_facts(config: Config) -> DataFacts | None:
    """The facts of a source that is not prepared yet, from its listing and a few samples.

    None if it cannot be listed: `prepare`, which comes first, says so with its stage and command.
    """
    adapter = open_dataset(config.dataset, config.specs())
    try:
        listing = {split: adapter.samples(split) for split in adapter.splits()}
    except DatasetError:
        return None
    require_splits(config, tuple(listing))
    incomplete = getattr(config.dataset, "missing", "refuse") == "allow"
    return DataFacts(
        num_classes=len(adapter.classes),
        train=_loaded_sizes(adapter, listing[TRAIN_SPLIT]),
        scored=_loaded_sizes(adapter, listing[config.evaluate.split]),
        min_present=1 if incomplete else len(config.modalities),
    )


def trial_shapes(config: Config, facts: DataFacts) -> TrialShapes:
    """The sizes and the smallest batch that the config's student meets."""
    from student.model.trial_pass import TrialShapes

    return TrialShapes(
        train=frozenset(_training_sizes(config, facts.train)),
        scored=frozenset(_scored_sizes(config, facts.scored)),
        num_images=max(1, _samples_together(config) * facts.min_present),
    )


def _check_student(config: Config, facts: DataFacts) -> None:
    # Here, so that a finished run is skipped without importing torch.
    from student.model.trial_pass import require_student_fits

    require_student_fits(config, facts.num_classes, trial_shapes(config, facts))


def _training_sizes(config: Config, stored: Sequence[Size]) -> list[Size]:
    """Sizes of the batches that are cut, zoomed or taken whole from images of the `stored` sizes."""
    train, views = config.train, ViewConfig.of(config)
    if train.crop_px:
        return [(train.crop_px, train.crop_px)] if stored else []
    if views is not None:
        sides = [max(1, round(share * min(size))) for size in stored for share in views.scale]
        return _few([(side, side) for side in sides])
    zoomed = [
        (max(1, round(height * factor)), max(1, round(width * factor)))
        for height, width in stored
        for factor in train.scale
    ]
    return _few(zoomed)


def _scored_sizes(config: Config, stored: Sequence[Size]) -> list[Size]:
    side = config.evaluate.window_px
    return _few([(min(h, side or h), min(w, side or w)) for h, w in stored])


def _few(sizes: Iterable[Size]) -> list[Size]:
    """At most `MAX_SIZES` of them: the smallest, the largest, and some between."""
    by_area = sorted(set(sizes), key=lambda size: (size[0] * size[1], size))
    chosen = np.linspace(0, len(by_area) - 1, min(MAX_SIZES, len(by_area))).round().astype(int)
    return [by_area[index] for index in chosen]


def _samples_together(config: Config) -> int:
    """Samples whose images one batch norm of the backbone sees together."""
    micro_batch = config.train.batch_size // config.train.accumulate
    processes = _processes(config)
    # Processes on CUDA share their statistics (SyncBatchNorm); others have each their own.
    shared = processes == 1 or choose_device(config.train.device) == "cuda"
    return micro_batch if shared else micro_batch // processes


def _processes(config: Config) -> int:
    return int(os.environ.get("WORLD_SIZE", config.train.processes))


def _require_divisible(config: Config) -> None:
    train, processes = config.train, _processes(config)
    parts = processes * train.accumulate
    if train.batch_size % parts:
        raise ConfigError(
            f"train.batch_size = {train.batch_size}: expected a multiple of {parts} "
            f"({processes} processes x train.accumulate = {train.accumulate})"
        )


def _sizes(manifest: Manifest, split: str) -> tuple[Size, ...]:
    pairs = manifest.table(split, ("height", "width")).group_by(["height", "width"]).aggregate([])
    return tuple(sorted(zip(pairs["height"].to_pylist(), pairs["width"].to_pylist(), strict=True)))


def _loaded_sizes(adapter: DatasetAdapter, samples: Sequence[SourceSample]) -> tuple[Size, ...]:
    sizes = set()
    for sample in samples[:: max(1, len(samples) // NUM_LOADED)][:NUM_LOADED]:
        try:
            height, width = adapter.load(sample).label.shape
        except SampleRefused:
            continue  # `prepare` counts and names it
        sizes.add((int(height), int(width)))
    return tuple(sorted(sizes))


def _complete_manifest(config: Config, workspace: Workspace) -> Manifest | None:
    """The manifest, if it has the splits that a run needs; the source may have more by now."""
    try:
        manifest = Manifest.load(workspace.dataset(config))
    except DatasetError:
        return None
    return manifest if {TRAIN_SPLIT, config.evaluate.split} <= set(manifest.splits) else None


def _is_finished(config: Config, workspace: Workspace, manifest: Manifest) -> bool:
    try:
        return is_finished(identify(config, workspace, manifest))
    except (DatasetError, MissingTarget):
        return False
