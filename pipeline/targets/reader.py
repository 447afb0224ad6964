"""Where a student gets its teacher's answers: by shard, and from there by key.

`CachedTeacher` reads the target stores; another source (a live teacher) satisfies the same
protocol. `KeyedTargets` is the one join: it finds a row by the sample's key and by nothing else, so
a missing, repeated or shuffled key never shifts a row. Pooled outputs of a shard are read whole;
dense ones row by row, so that memory stays bounded.

What becomes of a sample without an answer is the caller's policy: `error` names the hole, `skip`
leaves the sample out, `mask` keeps it without the answer. Nothing is written and no teacher code is
imported. Raises `MissingTarget`, `CorruptTarget` and `CorruptShard`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.config.config import Config
from pipeline.core.fingerprint import fingerprint
from pipeline.errors import CorruptShard, FingerprintMismatch, MissingTarget
from pipeline.shards.manifest import ShardInfo
from pipeline.targets.lookup import resolve
from pipeline.targets.provenance import EMBEDDING, PATCH, REMEDY
from pipeline.targets.store import TargetStore
from pipeline.workspace import Workspace

Policy = Literal["error", "skip", "mask"]
"""What becomes of a sample that lacks an answer."""

SampleT = TypeVar("SampleT")
_FLOAT16_EXPONENT = np.uint16(0x7C00)


class Rows(Protocol):
    """Rows of one output of a shard: an array, or rows that are read when asked for."""

    def __getitem__(self, place: Any, /) -> NDArray[Any]:
        """Row `place`, or (row, view): one view of a row."""


Targets = Mapping[str, Mapping[str, Rows]]
"""Modality to output (`embedding`, `patch`, `view_box`) to its rows."""
Answers = dict[str, dict[str, NDArray[Any]]]
"""Modality to output to one row."""


class TeacherSource(Protocol):
    """Gives the teacher's answers for the samples of a shard."""

    @property
    def dim(self) -> int:
        """D, the width of an embedding."""

    def targets(self, shard: ShardInfo) -> Targets:
        """Rows in the order of `shard.keys`; NaN where the sample lacks the modality. A modality
        without answers for these very shard bytes has no outputs."""

    def holes(self, shard: ShardInfo) -> Mapping[str, frozenset[str]]:
        """Modality to the keys of the samples that have it and no answer."""


@dataclass(frozen=True, slots=True)
class CachedTeacher:
    """Answers from the target stores; picklable, so that loader processes can have it."""

    stores: Mapping[str, TargetStore]
    """One store a modality."""
    outputs: tuple[str, ...] = (EMBEDDING,)
    _checked: dict[tuple[str, str], Path] = field(default_factory=dict, compare=False, repr=False)
    """(Store, digest) of the dense objects that this process has checked whole."""

    @classmethod
    def open(
        cls, config: Config, workspace: Workspace, outputs: tuple[str, ...] = (EMBEDDING,)
    ) -> CachedTeacher:
        """The stores that serve a config. Raises `MissingTarget`, `FingerprintMismatch`."""
        stores = {name: resolve(config, workspace, name) for name in config.modalities}
        dims = {name: store.provenance.dim for name, store in stores.items()}
        if len(set(dims.values())) > 1:
            raise FingerprintMismatch(f"expected embeddings of one width, found {dims}. {REMEDY}")
        return cls(stores, outputs)

    @property
    def dim(self) -> int:
        """D, the width of an embedding."""
        return next(iter(self.stores.values())).provenance.dim

    @property
    def fingerprints(self) -> dict[str, str]:
        """Modality to the fingerprint of its tower."""
        return {name: store.provenance.tower_fingerprint for name, store in self.stores.items()}

    def require_complete(self, shards: Sequence[ShardInfo]) -> None:
        """Raise `MissingTarget` unless every shard is there, before a long run starts."""
        for modality, store in self.stores.items():
            missing = store.missing(shards)
            if missing:
                raise MissingTarget(
                    f"{store.path}: {len(missing)} of {len(shards)} shards have no {modality} "
                    f"targets (first: {missing[0].name}). {REMEDY}"
                )

    def targets(self, shard: ShardInfo) -> Targets:
        """See `TeacherSource`. An object's digest is checked when it is read whole; a dense one's,
        once a process."""
        return {
            modality: self._outputs(store, shard) if store.is_committed(shard) else {}
            for modality, store in self.stores.items()
        }

    def _outputs(self, store: TargetStore, shard: ShardInfo) -> dict[str, Rows]:
        return {
            output: self._dense(store, shard) if output == PATCH else store.read(shard, output)
            for output in self.outputs
        }

    def _dense(self, store: TargetStore, shard: ShardInfo) -> Rows:
        place = (str(store.path), (store.objects(shard) or {}).get(PATCH, ""))
        array = store.array(shard.split, PATCH)
        if place in self._checked:
            with suppress(FileNotFoundError):  # a copy that left the bounded cache since
                return array.open_rows(self._checked[place])
        self._checked[place] = store.local_object(shard, PATCH)
        return array.open_rows(self._checked[place])

    def holes(self, shard: ShardInfo) -> Mapping[str, frozenset[str]]:
        """See `TeacherSource`. A sample's answer is missing if its shard's is, or if its embedding
        is not finite."""
        return {name: _holes(store, shard) for name, store in self.stores.items()}

    def content(self, shards: Sequence[ShardInfo]) -> str:
        """Hex sha256 over which objects are there: holes depend on nothing else."""
        stores = sorted(self.stores.items())
        return fingerprint(
            [
                [name, shard.name, objects]
                for name, store in stores
                for shard, objects in zip(shards, store.objects_of(shards), strict=True)
            ]
        )


def _holes(store: TargetStore, shard: ShardInfo) -> frozenset[str]:
    present = np.array(shard.present[store.provenance.modality])
    there = np.zeros_like(present)
    if store.is_committed(shard):
        rows = store.read(shard, EMBEDDING)
        there = np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
    return frozenset(np.array(shard.keys)[present & ~there].tolist())


class KeyedTargets:
    """One shard's targets, found by key."""

    def __init__(self, shard: ShardInfo, targets: Targets) -> None:
        """Raises `CorruptShard` if the manifest lists a key twice: either row could be the one."""
        self.shard = shard
        self.targets = targets
        self._places = {key: place for place, key in enumerate(shard.keys)}
        if len(self._places) != shard.num_rows:
            raise CorruptShard(
                f"{shard.path}: the manifest lists {shard.num_rows} samples with "
                f"{len(self._places)} keys. Delete the shard's record and run "
                "`any2seg prepare CONFIG`."
            )

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def row(
        self, key: str, modality: str, output: str, view: int | None = None
    ) -> NDArray[Any] | None:
        """The sample's row (or one view of it); None if it has none or one that is not finite."""
        rows, place = self.targets.get(modality, {}).get(output), self._places.get(key)
        if rows is None or place is None:
            return None
        row = rows[place] if view is None else rows[place, view]
        return row if _all_finite(row) else None

    def has_modality(self, key: str, modality: str) -> bool:
        """Whether the sample has the modality, so that an answer is due."""
        return self.shard.present[modality][self._places[key]]

    def missing(self, key: str, modality: str, output: str) -> MissingTarget:
        """The error that names this hole."""
        return MissingTarget(
            f"{self.shard.name}: no {modality} {output} of sample {key} for shard bytes "
            f"{self.shard.sha256[:12]}. {REMEDY} Or train without: train.missing_targets = "
            '"skip" or "mask".'
        )


def _all_finite(row: NDArray[Any]) -> bool:
    """Whether no number of a row is infinite or NaN."""
    if row.dtype != np.float16:
        return bool(np.isfinite(row).all())
    # By the exponent's bits: numpy's own test of float16 takes twenty times as long.
    return bool((row.view(np.uint16) & _FLOAT16_EXPONENT != _FLOAT16_EXPONENT).all())


@dataclass(slots=True)
class JoinCounts:
    """What a join met."""

    joined: int = 0
    """Samples that were given out."""
    skipped: int = 0
    """Samples left out."""
    masked: int = 0
    """Samples given out with an answer missing."""
    holes: dict[str, int] = field(default_factory=dict)
    """Modality to samples without its answer."""


def join(
    shard: ShardInfo,
    targets: Targets,
    samples: Iterable[tuple[str, SampleT]],
    policy: Policy = "error",
    counts: JoinCounts | None = None,
) -> Iterator[tuple[str, SampleT, Answers]]:
    """Give each `(key, sample)` the rows of its key, whatever the samples' order or number.

    Yields (key, sample, answers); a modality that the sample lacks, or whose answer is masked, is
    left out of the answers. `counts` is filled. Raises `CorruptShard` for a key that the manifest
    does not have in this shard and `MissingTarget` under `error`.
    """
    keyed, counts = KeyedTargets(shard, targets), counts or JoinCounts()
    for key, sample in samples:
        if key not in keyed:
            raise CorruptShard(
                f"{shard.path}: holds sample {key!r}, which the manifest does not list there. "
                "Delete the file and run `any2seg prepare CONFIG`."
            )
        answers, lacking = _answers(keyed, key, policy)
        for modality in lacking:
            counts.holes[modality] = counts.holes.get(modality, 0) + 1
        if lacking and policy == "skip":
            counts.skipped += 1
            continue
        counts.joined += 1
        counts.masked += bool(lacking)
        yield key, sample, answers


def _answers(keyed: KeyedTargets, key: str, policy: Policy) -> tuple[Answers, list[str]]:
    """The rows of a key, and the modalities that it has but no rows for."""
    answers: Answers = {}
    lacking = []
    for modality, outputs in keyed.targets.items():
        if not keyed.has_modality(key, modality):
            continue
        found = {output: keyed.row(key, modality, output) for output in outputs}
        whole = {output: row for output, row in found.items() if row is not None}
        if whole and len(whole) == len(found):
            answers[modality] = whole
        elif policy == "error":
            absent = next((o for o in found if o not in whole), EMBEDDING)
            raise keyed.missing(key, modality, absent)
        else:
            lacking.append(modality)
    return answers, lacking
