"""How well a teacher's patches tell the classes of the user's own data apart, before anything is cached.

    report = measure_teacher(config, workspace, draw_samples(config, num_samples=50))

Two measures, each on the patches that one class fills by half or more:

- zero-shot: the class prompt nearest to the dense embedding of a patch; needs a text tower.
- neighbours: the majority class of the nearest patches of other labelled samples; needs no text, so it
  compares teachers of any family.

Samples are read from the source by the adapter, as `prepare` would. Of the workspace, only `cache/`
(digests of weights) is written. Raises what the adapter and the teacher raise, and `DatasetError`
without labelled samples.

Legend: P patches, F width of a dense embedding, N counted patches, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from flows.planning.patch_scores import (
    Accuracy,
    Classes,
    Features,
    accuracy,
    nearest_prompts,
    patch_labels,
    vote_of_neighbours,
)
from pipeline.config.config import Config
from pipeline.config.teacher import TEACHER
from pipeline.core.random_stream import RandomStream
from pipeline.core.splits import TRAIN_SPLIT, VAL_SPLIT
from pipeline.datasets import open_dataset
from pipeline.datasets.base import IGNORE_ID, LoadedSample, SourceSample
from pipeline.errors import DatasetError, SampleRefused
from pipeline.shards.sample_encoder import SampleEncoder
from pipeline.targets.provenance import PATCH
from pipeline.workspace import Workspace
from teacher.encoding.class_prompts import embed_classes
from teacher.encoding.encoder import Encoder
from teacher.encoding.units import TowerPlan, plan_towers
from teacher.open import open_teacher
from teacher.preprocessing.rendering import render

MAX_KNOWN = 20_000
"""Patches among which neighbours are looked for; a seeded draw of more."""
DECODED_AT_ONCE = 8
"""Samples in memory, at full resolution with all sensors."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Labelled samples of the source."""

    known: Sequence[SourceSample]
    """Those whose labelled patches are the neighbours."""
    held_out: Sequence[SourceSample]
    """Those that are scored."""
    split: str
    """Split of the held-out samples."""


@dataclass(frozen=True, slots=True)
class SensorReport:
    """One sensor through one teacher."""

    modality: str
    num_patches: int
    """Held-out patches that count."""
    zero_shot: Accuracy | None
    """None: the teacher has no text, or its patches do not lie in the text's space."""
    neighbours: Accuracy
    chance: Accuracy
    """Of the most frequent class, given everywhere."""
    maps: Mapping[str, NDArray[np.uint8]]
    """Key of a held-out sample to its (rows, columns) classes: zero-shot, else the neighbours'."""
    field: float
    """Side of the square that a map covers, as a share of the image's shorter side."""


@dataclass(frozen=True, slots=True)
class TeacherReport:
    """One teacher on the drawn samples."""

    name: str
    sensors: Mapping[str, SensorReport]
    notes: Sequence[str]
    """What was not possible, and why."""


@dataclass(slots=True)
class _Patches:
    """Dense embeddings of some samples, and the class of each patch."""

    field: float
    """See `SensorReport`."""
    keys: list[str] = dataclasses.field(default_factory=list)
    features: list[Features] = dataclasses.field(default_factory=list)
    """(P, F) each."""
    labels: list[Classes] = dataclasses.field(default_factory=list)
    """(P,) each; `IGNORE_ID` where no class fills the patch."""

    def counted(self) -> tuple[Features, Classes]:
        """(N, F) and (N,) of the patches that count."""
        labels = np.concatenate(self.labels)
        counts = labels != IGNORE_ID
        return np.concatenate(self.features)[counts], labels[counts]


def draw_samples(config: Config, num_samples: int, seed: int = 0) -> Drawn:
    """Up to `num_samples` held-out samples and as many known ones, the same for the same seed.

    Held out is the split `val`; without one, half of the training split. Raises `DatasetError` when
    one of the two is empty.
    """
    adapter = open_dataset(config.dataset, config.specs())
    train = _shuffled(adapter.samples(TRAIN_SPLIT), seed)
    split = VAL_SPLIT if VAL_SPLIT in adapter.splits() else TRAIN_SPLIT
    if split == VAL_SPLIT:
        held_out = _shuffled(adapter.samples(VAL_SPLIT), seed)
    else:
        num_samples = min(num_samples, len(train) // 2)
        held_out = train[num_samples:]
    drawn = Drawn(train[:num_samples], held_out[:num_samples], split)
    if not drawn.known or not drawn.held_out:
        raise DatasetError(
            f"{config.dataset.adapter}: expected a labelled sample in train and one in val, or two in "
            f"train; found {len(train)} in train. Check with `any2seg doctor`."
        )
    return drawn


def measure_teacher(config: Config, workspace: Workspace, drawn: Drawn) -> TeacherReport:
    """Encode the samples with the config's teacher, tower by tower, and score their patches."""
    encoder = Encoder(config.teacher.device)
    prompts, notes = _class_embeddings(config, encoder.device)
    sensors: dict[str, SensorReport] = {}
    for plan in plan_towers(config.for_teacher(TEACHER), workspace):
        if PATCH not in plan.source.output_shapes():
            notes.append(f"{', '.join(plan.specs)}: no dense output, nothing to compare")
            continue
        known = _encode(config, encoder, plan, drawn.known)
        held_out = _encode(config, encoder, plan, drawn.held_out)
        for name in plan.specs:
            sensors[name] = _sensor_report(name, known[name], held_out[name], prompts)
    if prompts is not None and any(sensor.zero_shot is None for sensor in sensors.values()):
        notes.append("patches outside the text's space: zero-shot not possible")
    ordered = {name: sensors[name] for name in config.modalities if name in sensors}
    return TeacherReport(config.teacher.name, ordered, notes)


def _class_embeddings(config: Config, device: str) -> tuple[Features | None, list[str]]:
    """(K, F) of the class names in the config's templates, or None and why."""
    text = open_teacher(config.teacher.name, config.teacher.revision).text
    if text is None:
        return None, ["no text: zero-shot not possible"]
    classes = open_dataset(config.dataset, config.specs()).classes
    loaded = text.load(config.teacher.dtype, device)
    return embed_classes(loaded, classes, config.teacher.templates).class_embedding, []


def _encode(
    config: Config, encoder: Encoder, plan: TowerPlan, samples: Sequence[SourceSample]
) -> dict[str, _Patches]:
    """Modality of the plan to the patches of the samples that have it."""
    tower = encoder.tower(plan, config.teacher.dtype)
    side = round(plan.source.output_shapes()[PATCH][0] ** 0.5)
    field = next(iter(plan.stores.values())).provenance.field
    patches = {name: _Patches(field) for name in plan.specs}
    for batch in _decoded(config, samples):
        for name, entry in patches.items():
            present = {key: loaded for key, loaded in batch.items() if name in loaded.arrays}
            if present:
                seen = plan.inputs[name]
                images = [
                    render(one.arrays[name], seen.spec, seen.rendering) for one in present.values()
                ]
                entry.keys.extend(present)
                entry.features.extend(encoder.encode(tower, images, (PATCH,))[PATCH])
                entry.labels.extend(
                    patch_labels(one.label, side, field) for one in present.values()
                )
    return patches


def _decoded(config: Config, samples: Sequence[SourceSample]) -> Iterator[dict[str, LoadedSample]]:
    """Key to decoded sample, some at a time; those that `prepare` would refuse are left out."""
    specs = config.specs()
    reader = SampleEncoder(open_dataset(config.dataset, specs), specs)
    size = min(DECODED_AT_ONCE, config.teacher.batch_size)
    for start in range(0, len(samples), size):
        batch = {}
        for sample in samples[start : start + size]:
            try:
                batch[sample.key] = reader.load(sample)
            except SampleRefused:
                continue
        yield batch


def _sensor_report(
    modality: str, known: _Patches, held_out: _Patches, prompts: Features | None
) -> SensorReport:
    if not known.keys or not held_out.keys:
        raise DatasetError(f"{modality}: no sample of the draw has it. Raise --samples.")
    known_NF, known_N = _at_most(*known.counted(), MAX_KNOWN)
    features_NF, label_N = held_out.counted()
    if not len(label_N) or not len(known_N):
        raise DatasetError(f"{modality}: no class fills a patch of the draw. Raise --samples.")

    neighbours = partial(vote_of_neighbours, known_NF=known_NF, known_label_N=known_N)
    classify: Callable[[Features], Classes] = neighbours
    zero_shot = None
    if prompts is not None and prompts.shape[1] == features_NF.shape[1]:
        classify = partial(nearest_prompts, prompts_KF=prompts)
        zero_shot = accuracy(classify(features_NF), label_N)
    frequent = np.bincount(label_N).argmax().astype(np.uint8)
    return SensorReport(
        modality=modality,
        num_patches=len(label_N),
        zero_shot=zero_shot,
        neighbours=accuracy(neighbours(features_NF), label_N),
        chance=accuracy(np.full_like(label_N, frequent), label_N),
        maps={
            key: _as_map(classify(rows))
            for key, rows in zip(held_out.keys, held_out.features, strict=True)
        },
        field=held_out.field,
    )


def _as_map(classes_P: Classes) -> Classes:
    side = round(len(classes_P) ** 0.5)
    return classes_P.reshape(side, side)


def _at_most(features_NF: Features, label_N: Classes, limit: int) -> tuple[Features, Classes]:
    if len(label_N) <= limit:
        return features_NF, label_N
    rng = np.random.default_rng([0, RandomStream.COMPARED_SAMPLES])
    chosen = np.sort(rng.choice(len(label_N), limit, replace=False))
    return features_NF[chosen], label_N[chosen]


def _shuffled(samples: Sequence[SourceSample], seed: int) -> list[SourceSample]:
    rng = np.random.default_rng([seed, RandomStream.COMPARED_SAMPLES])
    return [samples[i] for i in rng.permutation(len(samples))]
