"""Teacher targets of a batch, joined by sample key, and which samples are trained on without some.

`apply_policy` decides once, before the first batch, from what the stores hold: the sequence of
batches of a run never depends on what is added to a store while it trains. Afterwards every target
that was counted on must exist. A process keeps the pooled rows of the shards in use in memory and
reads dense rows one by one.

Legend: B samples, M modalities, K views. Raises `MissingTarget`, `CorruptTarget`, and what the
teacher source raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import CorruptTarget, MissingTarget
from pipeline.shards.sample_reader import SampleRef
from pipeline.targets.provenance import EMBEDDING, REMEDY
from pipeline.targets.reader import JoinCounts, KeyedTargets, Policy, TeacherSource
from pipeline.targets.views import VIEW_BOX
from student.data.scene_targets import SceneDescriptions
from student.runs.inputs import RunInputs
from student.runs.run import reads_targets

WINDOW_SHARDS = 4
"""Shards whose samples are shuffled together; their pooled targets are in memory at once."""


def apply_policy(
    source: TeacherSource, refs: Sequence[SampleRef], modalities: Sequence[str], policy: Policy
) -> tuple[list[SampleRef], JoinCounts]:
    """The samples to train on, in the same order, and how many lack targets.

    Under `mask` they carry the modalities without a target in `SampleRef.missing_targets`. Raises
    `MissingTarget` if `skip` leaves no sample.
    """
    counts = JoinCounts()
    if policy == "error":
        # Nothing is read ahead: the first missing target is an error of the join itself.
        counts.joined = len(refs)
        return list(refs), counts
    shards = {ref.shard.name: ref.shard for ref in refs}
    missing_keys = {name: source.missing_targets(shard) for name, shard in shards.items()}
    kept = []
    for ref in refs:
        keys_of = missing_keys[ref.shard.name]
        missing = tuple(
            m for m, name in enumerate(modalities) if ref.present[m] and ref.key in keys_of[name]
        )
        for m in missing:
            counts.missing[modalities[m]] = counts.missing.get(modalities[m], 0) + 1
        if missing and policy == "skip":
            counts.skipped += 1
            continue
        counts.joined += 1
        counts.masked += bool(missing)
        kept.append(replace(ref, missing_targets=missing))
    if not kept:
        raise MissingTarget(f"none of {len(refs)} training samples has its targets. {REMEDY}")
    return kept, counts


def open_join(
    inputs: RunInputs, samples: Sequence[SampleRef], live: TeacherSource | None = None
) -> tuple[TargetJoin | None, list[SampleRef], JoinCounts]:
    """The join that the losses with weight need, the samples to train on, and what is missing.

    `live`: a teacher that encodes on demand, in place of the cached targets. Raises `MissingTarget`
    if the training split lacks a target under the policy `error`, and `FingerprintMismatch` if an
    output differs in width among the modalities.
    """
    config, cached = inputs.config, inputs.teacher
    if cached is None:
        return None, list(samples), JoinCounts(joined=len(samples))
    modalities, outputs = tuple(config.modalities), reads_targets(config)
    scene = SceneDescriptions(inputs.descriptions) if inputs.descriptions else None
    if live is not None:
        join = TargetJoin(live, modalities, outputs, scene)
        return join, list(samples), JoinCounts(joined=len(samples))
    cached.require_one_width()
    policy = config.train.missing_targets
    if policy == "error":
        cached.require_complete(list({ref.shard.name: ref.shard for ref in samples}.values()))
    refs, counts = apply_policy(cached, samples, modalities, policy)
    return TargetJoin(cached, modalities, outputs, scene), refs, counts


class TargetJoin:
    """Teacher targets by sample key; keeps the targets of the shards in use."""

    def __init__(
        self,
        source: TeacherSource,
        modalities: Sequence[str],
        outputs: Sequence[str],
        scene: SceneDescriptions | None = None,
    ) -> None:
        self.source = source
        self.scene = scene
        self.modalities = tuple(modalities)
        self.outputs = tuple(outputs)
        self._shards: dict[str, KeyedTargets] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without open files: a loader process opens its own."""
        return {**self.__dict__, "_shards": {}}

    def rows(
        self, refs: Sequence[SampleRef], views: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Output to (B, M, ...) float32 of the samples, 0 where there is none to join; `scene` to
        (B, D) where descriptions are joined, of whole images.

        `views`: which view of each sample. `MissingTarget` names the first missing target.
        """
        rows = {output: self._stack(output, refs, views) for output in self.outputs}
        return rows if self.scene is None else rows | {"scene": self.scene.rows(refs)}

    def boxes(self, ref: SampleRef) -> NDArray[np.float32] | None:
        """(K, 5) boxes of the sample's views, as stored; None if it has no target at all.

        Raises `CorruptTarget` if its modalities were not shown the same views.
        """
        boxes_of = {
            self.modalities[m]: self._row(VIEW_BOX, ref, m, None)
            for m in range(len(self.modalities))
            if _has_target(ref, m)
        }
        boxes: NDArray[np.float32] | None = next(iter(boxes_of.values()), None)
        for modality, other in boxes_of.items():
            if not np.array_equal(other, boxes):  # type: ignore[arg-type]
                raise CorruptTarget(
                    f"{ref.shard.name}: sample {ref.key}: {modality} was shown other views than "
                    f"{next(iter(boxes_of))}. Delete the {modality} store and run "
                    "`any2seg precompute CONFIG`."
                )
        return boxes

    def _stack(self, output: str, refs: Sequence[SampleRef], views: Sequence[int] | None) -> Tensor:
        row_of = {
            (b, m): self._row(output, ref, m, views[b] if views is not None else None)
            for b, ref in enumerate(refs)
            for m in range(len(self.modalities))
            if _has_target(ref, m)
        }
        # Nothing in the batch has a target: any shape of the right width, all of it masked.
        width = self.source.width(output)
        empty = (width,) if output == EMBEDDING else (1, width)
        first = next(iter(row_of.values()), np.zeros(empty, np.float32))
        stacked = np.zeros((len(refs), len(self.modalities), *first.shape), first.dtype)
        for index, row in row_of.items():
            stacked[index] = row
        # torch widens float16 some thirty times faster than numpy.
        return torch.from_numpy(stacked).float()

    def _row(self, output: str, ref: SampleRef, m: int, view: int | None) -> NDArray[Any]:
        keyed = self._keyed(ref)
        row = keyed.row(ref.key, self.modalities[m], output, view)
        if row is None:
            raise keyed.missing(ref.key, self.modalities[m], output)
        return row

    def _keyed(self, ref: SampleRef) -> KeyedTargets:
        shard = ref.shard
        if shard.name not in self._shards:
            # A batch can straddle two windows.
            while len(self._shards) >= 2 * WINDOW_SHARDS:
                self._shards.pop(next(iter(self._shards)))
            self._shards[shard.name] = KeyedTargets(shard, self.source.targets(shard))
        return self._shards[shard.name]


def has_target(refs: Sequence[SampleRef]) -> Tensor:
    """(B, M) bool: which modalities of the samples have teacher targets to learn from."""
    return torch.tensor([[_has_target(ref, m) for m in range(len(ref.present))] for ref in refs])


def _has_target(ref: SampleRef, m: int) -> bool:
    return ref.present[m] and m not in ref.missing_targets
