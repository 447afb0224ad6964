"""Reads a student's teacher targets: by shard, and within a shard by sample key.

`CachedTeacher` reads the target stores; another source (a live teacher) satisfies the same
protocol, `TeacherSource`. `KeyedTargets` finds a row by the sample's key and by nothing else, so
a missing, repeated or shuffled key never shifts a row. Pooled outputs of a shard are read whole;
dense ones row by row, so that memory stays bounded.

What happens to a sample without a target is decided in `student.data.target_join`. No teacher code
is imported. Raises `MissingTarget`, `CorruptTarget` and `CorruptShard`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.config.config import Config
from pipeline.config.teacher import DENSE_TEACHER, TEACHER
from pipeline.core.fingerprint import fingerprint
from pipeline.errors import CorruptShard, FingerprintMismatch, MissingTarget
from pipeline.shards.manifest import ShardInfo
from pipeline.targets.lookup import resolve
from pipeline.targets.provenance import EMBEDDING, PATCH, REMEDY
from pipeline.targets.store import TargetStore
from pipeline.workspace import Workspace

Policy = Literal["error", "skip", "mask"]
"""What happens to a training sample that lacks a target."""

_FLOAT16_EXPONENT = np.uint16(0x7C00)


class Rows(Protocol):
    """Rows of one output of a shard: an array, or rows that are read when asked for."""

    def __getitem__(self, index: Any, /) -> NDArray[Any]:
        """A row by its number, or (row, view): one view of a row."""


Targets = Mapping[str, Mapping[str, Rows]]
"""Modality to output (`embedding`, `patch`, `view_box`) to its rows."""


class TeacherSource(Protocol):
    """Gives the teacher targets of the samples of a shard."""

    def width(self, output: str) -> int:
        """Width of one vector of an output (`embedding`, `patch`)."""

    def field(self, output: str) -> float:
        """Side of the square that the tower saw, as a share of the centred square's."""

    def targets(self, shard: ShardInfo) -> Targets:
        """Rows in the order of `shard.keys`; NaN where the sample lacks the modality. A modality
        without targets for exactly these shard bytes has no outputs."""

    def missing_targets(self, shard: ShardInfo) -> Mapping[str, frozenset[str]]:
        """Modality to the keys of the samples that have it but no target for it."""


@dataclass(frozen=True, slots=True)
class CachedTeacher:
    """Targets from the stores on disk; picklable, so that loader processes can have it."""

    stores: Mapping[str, TargetStore]
    """One store a modality."""
    outputs: tuple[str, ...] = (EMBEDDING,)
    _checked: dict[tuple[str, str], Path] = field(default_factory=dict, compare=False, repr=False)
    """(Store, digest) of the dense objects that this process has checked whole."""
    dense_stores: Mapping[str, TargetStore] = field(default_factory=dict)
    """A second teacher's stores, one a modality, from which `patch` is read; empty: there is none."""

    @classmethod
    def open(
        cls, config: Config, workspace: Workspace, outputs: tuple[str, ...] = (EMBEDDING,)
    ) -> CachedTeacher:
        """The stores that serve a config. Raises `MissingTarget`, `FingerprintMismatch`."""
        teacher = cls.find(config, workspace, outputs)
        teacher.require_one_width()
        return teacher

    @classmethod
    def find(cls, config: Config, workspace: Workspace, outputs: tuple[str, ...]) -> CachedTeacher:
        """As `open`, whatever the widths. Of two teachers, those of which an output is read."""

        def stores_of(teacher: str) -> dict[str, TargetStore]:
            own = config.for_teacher(teacher)
            return {name: resolve(own, workspace, name) for name in config.modalities}

        if config.dense_teacher is None or PATCH not in outputs:
            return cls(stores_of(TEACHER), outputs)
        first = stores_of(TEACHER) if EMBEDDING in outputs else {}
        return cls(first, outputs, dense_stores=stores_of(DENSE_TEACHER))

    @property
    def all_stores(self) -> tuple[TargetStore, ...]:
        """Every store that is read, the first teacher's first."""
        return (*self.stores.values(), *self.dense_stores.values())

    def width(self, output: str) -> int:
        """See `TeacherSource`."""
        store = next(iter(self._stores_of(output).values()))
        return store.provenance.outputs[output][-1]

    def field(self, output: str) -> float:
        """See `TeacherSource`."""
        return next(iter(self._stores_of(output).values())).provenance.field

    def _stores_of(self, output: str) -> Mapping[str, TargetStore]:
        """Modality to the store that an output is read from."""
        # Without an embedding to read there are no stores of the first teacher; the views' boxes
        # are the same in both.
        if self.dense_stores and (output == PATCH or not self.stores):
            return self.dense_stores
        return self.stores

    def require_one_width(self) -> None:
        """Raise `FingerprintMismatch` unless an output has one width and one field in all modalities."""
        for output in self.outputs:
            stores = self._stores_of(output)
            dims = {name: it.provenance.outputs[output][-1] for name, it in stores.items()}
            if len(set(dims.values())) > 1:
                raise FingerprintMismatch(
                    f"expected {output} targets of one width, found {dims}. {REMEDY}"
                )
            fields = {name: it.provenance.field for name, it in stores.items()}
            if len(set(fields.values())) > 1:
                raise FingerprintMismatch(
                    f"expected {output} targets of one part of the image, found shares {fields} of the "
                    f"centred square's side. {REMEDY}"
                )

    def require_complete(self, shards: Sequence[ShardInfo]) -> None:
        """Raise `MissingTarget` unless every shard has its targets, before a long run starts."""
        for store in self.all_stores:
            missing = store.missing(shards)
            if missing:
                raise MissingTarget(
                    f"{store.path}: {len(missing)} of {len(shards)} shards have no "
                    f"{store.provenance.modality} targets (first: {missing[0].name}). {REMEDY}"
                )

    def targets(self, shard: ShardInfo) -> Targets:
        """See `TeacherSource`. An object's digest is checked when it is read whole; a dense one's,
        once a process."""
        committed = {store.path for store in self.all_stores if store.is_committed(shard)}
        rows: dict[str, dict[str, Rows]] = {it.provenance.modality: {} for it in self.all_stores}
        for output in self.outputs:
            for modality, store in self._stores_of(output).items():
                if store.path in committed:
                    rows[modality][output] = self._read(store, shard, output)
        return rows

    def _read(self, store: TargetStore, shard: ShardInfo, output: str) -> Rows:
        return self._dense(store, shard) if output == PATCH else store.read(shard, output)

    def _dense(self, store: TargetStore, shard: ShardInfo) -> Rows:
        checked = (str(store.path), (store.objects(shard) or {}).get(PATCH, ""))
        array = store.array(shard.split, PATCH)
        if checked in self._checked:
            with suppress(FileNotFoundError):  # a copy that left the bounded cache since
                return array.open_rows(self._checked[checked])
        self._checked[checked] = store.local_object(shard, PATCH)
        return array.open_rows(self._checked[checked])

    def missing_targets(self, shard: ShardInfo) -> Mapping[str, frozenset[str]]:
        """See `TeacherSource`. A sample's target is missing if its shard's object is, or if its
        embedding is not finite; of two teachers, if either's is."""
        missing: dict[str, frozenset[str]] = {}
        for store in self.all_stores:
            name = store.provenance.modality
            missing[name] = missing.get(name, frozenset()) | _missing_keys(store, shard)
        return missing

    def content(self, shards: Sequence[ShardInfo]) -> str:
        """Hex sha256 over which objects exist: missing targets depend on nothing else."""
        stores = [*sorted(self.stores.items()), *sorted(self.dense_stores.items())]
        return fingerprint(
            [
                [name, shard.name, objects]
                for name, store in stores
                for shard, objects in zip(shards, store.objects_of(shards), strict=True)
            ]
        )


def _missing_keys(store: TargetStore, shard: ShardInfo) -> frozenset[str]:
    present = np.array(shard.present[store.provenance.modality])
    has_target = np.zeros_like(present)
    if store.is_committed(shard):
        rows = store.read(shard, EMBEDDING)
        has_target = np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
    return frozenset(np.array(shard.keys)[present & ~has_target].tolist())


class KeyedTargets:
    """One shard's targets, found by key."""

    def __init__(self, shard: ShardInfo, targets: Targets) -> None:
        """Raises `CorruptShard` if the manifest lists a key twice: its row would be ambiguous."""
        self.shard = shard
        self.targets = targets
        self._row_of = {key: row for row, key in enumerate(shard.keys)}
        if len(self._row_of) != shard.num_rows:
            raise CorruptShard(
                f"{shard.path}: the manifest lists {shard.num_rows} samples with "
                f"{len(self._row_of)} keys. Delete the shard's record and run "
                "`any2seg prepare CONFIG`."
            )

    def row(
        self, key: str, modality: str, output: str, view: int | None = None
    ) -> NDArray[Any] | None:
        """The sample's row (or one view of it); None if it has none or one that is not finite."""
        rows, index = self.targets.get(modality, {}).get(output), self._row_of.get(key)
        if rows is None or index is None:
            return None
        row = rows[index] if view is None else rows[index, view]
        return row if _all_finite(row) else None

    def missing(self, key: str, modality: str, output: str) -> MissingTarget:
        """The error that names the missing target."""
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
    """How many training samples have their targets, and what happened to the others."""

    joined: int = 0
    """Samples to train on."""
    skipped: int = 0
    """Samples left out because a target is missing."""
    masked: int = 0
    """Samples trained on without a target that is missing."""
    missing: dict[str, int] = field(default_factory=dict)
    """Modality to the number of samples without a target for it."""
