"""Teacher outputs of a batch, joined by key, and which samples are trained without some.

`apply_policy` decides once, before the first batch, from what the stores hold: a run's sequence of
batches never depends on what a store becomes while it trains. Afterwards every answer that was
counted on must be there. A process keeps the pooled rows of the shards in use in memory and reads
dense rows when they are asked for.

Legend: B samples, M modalities, K views. Writes nothing; what can fail: `MissingTarget` for a hole,
`CorruptTarget`, and what the teacher source raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.config.config import Config
from pipeline.errors import CorruptTarget, MissingTarget
from pipeline.shards.sample_reader import SampleRef
from pipeline.targets.provenance import EMBEDDING, REMEDY
from pipeline.targets.reader import (
    CachedTeacher,
    JoinCounts,
    KeyedTargets,
    Policy,
    TeacherSource,
)
from pipeline.targets.views import VIEW_BOX
from pipeline.workspace import Workspace
from student.data.scene_targets import SceneDescriptions
from student.runs.run import reads_targets, scene_store

WINDOW_SHARDS = 4
"""Shards whose samples are shuffled together; their pooled targets are in memory at once."""


def apply_policy(
    source: TeacherSource, refs: Sequence[SampleRef], modalities: Sequence[str], policy: Policy
) -> tuple[list[SampleRef], JoinCounts]:
    """The samples to train on, in the same order, and how many lack answers.

    Under `mask` they carry the modalities they lack in `SampleRef.untaught`. Raises `MissingTarget`
    if `skip` leaves nothing.
    """
    counts = JoinCounts()
    if policy == "error":
        counts.joined = len(refs)
        return list(refs), counts
    shards = {ref.shard.name: ref.shard for ref in refs}
    holes = {name: source.holes(shard) for name, shard in shards.items()}
    kept = []
    for ref in refs:
        there = holes[ref.shard.name]
        lacking = tuple(
            m for m, name in enumerate(modalities) if ref.present[m] and ref.key in there[name]
        )
        for m in lacking:
            counts.holes[modalities[m]] = counts.holes.get(modalities[m], 0) + 1
        if lacking and policy == "skip":
            counts.skipped += 1
            continue
        counts.joined += 1
        counts.masked += bool(lacking)
        kept.append(replace(ref, untaught=lacking))
    if not kept:
        raise MissingTarget(f"none of {len(refs)} training samples has its targets. {REMEDY}")
    return kept, counts


def open_join(
    config: Config,
    workspace: Workspace,
    samples: Sequence[SampleRef],
    live: TeacherSource | None = None,
) -> tuple[TargetJoin | None, list[SampleRef], JoinCounts]:
    """The join that the losses with weight need, the samples to train on, and how many lack what.

    `live`: answers that are made on demand, in place of the cached ones. Raises `MissingTarget` for
    a hole in the training split under the policy `error`.
    """
    outputs, policy = reads_targets(config), config.train.missing_targets
    if not outputs:
        return None, list(samples), JoinCounts(joined=len(samples))
    modalities, described = tuple(config.modalities), scene_store(config, workspace)
    scene = None if described is None else SceneDescriptions(described)
    if live is not None:
        join = TargetJoin(live, modalities, outputs, scene)
        return join, list(samples), JoinCounts(joined=len(samples))
    stored = (*outputs, VIEW_BOX) if config.teacher.views else outputs
    source = CachedTeacher.open(config, workspace, stored)
    if policy == "error":
        source.require_complete(list({ref.shard.name: ref.shard for ref in samples}.values()))
    refs, counts = apply_policy(source, samples, modalities, policy)
    return TargetJoin(source, modalities, outputs, scene), refs, counts


class TargetJoin:
    """Teacher outputs by key; keeps the targets of the shards in use."""

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
        """What crosses to a loader process: open files stay here, it opens its own."""
        return {**self.__dict__, "_shards": {}}

    def rows(
        self, refs: Sequence[SampleRef], views: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Output to (B, M, ...) float32 of the samples, 0 where there is none to join; `scene` to
        (B, D) where descriptions are joined, of whole pictures.

        `views`: which view of each sample. `MissingTarget` names a hole.
        """
        rows = {output: self._stack(output, refs, views) for output in self.outputs}
        return rows if self.scene is None else rows | {"scene": self.scene.rows(refs)}

    def boxes(self, ref: SampleRef) -> NDArray[np.float32] | None:
        """(K, 5) boxes of the sample's views, as stored; None if it has no answer at all.

        Raises `CorruptTarget` if its modalities were not shown the same views.
        """
        found = {
            self.modalities[m]: self._row(VIEW_BOX, ref, m, None)
            for m in range(len(self.modalities))
            if _is_taught(ref, m)
        }
        boxes: NDArray[np.float32] | None = next(iter(found.values()), None)
        for modality, other in found.items():
            if not np.array_equal(other, boxes):  # type: ignore[arg-type]
                raise CorruptTarget(
                    f"{ref.shard.name}: sample {ref.key}: {modality} was shown other views than "
                    f"{next(iter(found))}. Delete the {modality} store and run "
                    "`any2seg precompute CONFIG`."
                )
        return boxes

    def _stack(self, output: str, refs: Sequence[SampleRef], views: Sequence[int] | None) -> Tensor:
        found = {
            (b, m): self._row(output, ref, m, views[b] if views is not None else None)
            for b, ref in enumerate(refs)
            for m in range(len(self.modalities))
            if _is_taught(ref, m)
        }
        # Nothing in the batch has an answer: any shape of the right width, all of it masked.
        empty = (self.source.dim,) if output == EMBEDDING else (1, self.source.dim)
        first = next(iter(found.values()), np.zeros(empty, np.float32))
        stacked = np.zeros((len(refs), len(self.modalities), *first.shape), first.dtype)
        for place, row in found.items():
            stacked[place] = row
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


def taught(refs: Sequence[SampleRef]) -> Tensor:
    """(B, M) bool: which modalities of the samples have teacher outputs to learn from."""
    return torch.tensor([[_is_taught(ref, m) for m in range(len(ref.present))] for ref in refs])


def _is_taught(ref: SampleRef, m: int) -> bool:
    return ref.present[m] and m not in ref.untaught
