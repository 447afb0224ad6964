"""The target store: teacher embeddings of one modality of one dataset, computed by one tower.

    targets/<dataset>/<modality>-<teacher>-<fp12>/
        provenance.json                           everything the fingerprint covers
        targets.zarr/<split>/{embedding,patch}    row r of shard s at s * shard_size + r; one object a shard
        ledger/<split>/<shard>.json               the commit record, written last
        cost/<split>/<shard>.json                 seconds, device, host: nothing depends on it

An object counts only if its record exists and names the sha256 that the manifest gives for the
shard; anything else is missing and is computed by the next pass. Reading checks the object's sha256
against the record. `MissingTarget` and `CorruptTarget` name the command to run. No embedding is
computed here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.core.fingerprint import SHORT, require_same
from pipeline.errors import CorruptTarget, DigestMismatch, MissingTarget
from pipeline.formats.zarr_array import RowArray
from pipeline.shards.manifest import ShardInfo
from pipeline.storage.files import (
    AnyPath,
    find_paths,
    map_paths,
    read_json,
    sweep_partials,
    write_json,
)
from pipeline.storage.lease import LOCK, locked
from pipeline.storage.local_copies import local_copy
from pipeline.storage.remote_path import RemotePath
from pipeline.targets.ledger import CommitStatus, Ledger
from pipeline.targets.provenance import PATCH, PROVENANCE, REMEDY, TargetProvenance, slug

ARRAYS = "targets.zarr"
LEDGER = "ledger"

State = Literal["there", "missing", "stale", "damaged"]
"""Of an output's targets of a shard: `stale` ones were computed from other shard bytes, `damaged` ones
have the wrong length."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many shards of a list are committed, missing, or stale (computed from other shard bytes)."""

    committed: int = 0
    missing: int = 0
    stale: int = 0


@dataclass(frozen=True, slots=True)
class TargetStore:
    """One store. Stateless and picklable: every call reads the files."""

    path: AnyPath
    provenance: TargetProvenance

    @classmethod
    def planned(cls, root: AnyPath, provenance: TargetProvenance) -> TargetStore:
        """The store of `provenance` under `root`, whether it exists or not."""
        name = f"{provenance.modality}-{slug(provenance.teacher)}"
        return cls(root / f"{name}-{provenance.tower_fingerprint[:SHORT]}", provenance)

    @classmethod
    def create(cls, root: AnyPath, provenance: TargetProvenance) -> TargetStore:
        """Create or open the store of `provenance` under `root` (`Workspace.targets`).

        Deletes temporary files of killed writers. Raises `FingerprintMismatch` if the folder holds
        another store.
        """
        path = cls.planned(root, provenance).path
        with cls._alone(path):
            sweep_partials(path)
            if not (path / PROVENANCE).exists():
                described = provenance.model_dump(mode="json")
                described["tower_fingerprint"] = provenance.tower_fingerprint
                write_json(path / PROVENANCE, described)
        store = cls.open(path)
        require_same(
            str(path),
            store.provenance.model_dump(mode="json", exclude={"teacher"}),
            provenance.model_dump(mode="json", exclude={"teacher"}),
            "Delete the folder, or use another workspace.",
        )
        return store

    @classmethod
    def open(cls, path: AnyPath) -> TargetStore:
        """Open a store. Raises `MissingTarget` if there is none, `CorruptTarget` if damaged."""
        try:
            described = dict(read_json(path / PROVENANCE))
            described.pop("tower_fingerprint", None)
            provenance = TargetProvenance.model_validate(described)
        except FileNotFoundError:
            raise MissingTarget(f"{path}: expected a target store, found none. {REMEDY}") from None
        except (ValueError, TypeError) as error:
            raise CorruptTarget(
                f"{path / PROVENANCE}: cannot be read: {str(error).splitlines()[0]}. Delete it and run "
                "`any2seg precompute CONFIG` to rewrite it."
            ) from None
        return cls(path, provenance)

    def array(self, split: str, output: str) -> RowArray:
        """The array of an output's rows of a split."""
        return RowArray(
            folder=self.path / ARRAYS,
            name=f"{split}/{output}",
            row_shape=self.provenance.outputs[output],
            dtype=self.provenance.dtype_of(output),
            object_rows=self.provenance.shard_size,
            dims=self.provenance.dims(output),
            by_row=output == PATCH,
        )

    def commit(
        self, shard: ShardInfo, arrays: Mapping[str, NDArray[Any]], cost: Mapping[str, Any]
    ) -> bool:
        """Write a shard's rows of every output, in the order of `shard.keys`, and last the record.

        Arrays are (num_rows, *row shape); a row is NaN exactly where the sample lacks the modality.
        Returns False and leaves the files unchanged if the shard is already committed. Raises
        `CorruptTarget` naming a sample whose numbers are not finite, `ValueError` for wrong shapes.
        """
        stored = {name: self._stored(shard, name, arrays) for name in self.provenance.outputs}
        with self._alone(self.path):
            status = self._ledger.status(shard)
            if status.is_committed:
                return False
            if status.record is not None:
                # First: after a kill in between, the old record must not commit the new object.
                self._ledger.path(shard).unlink(missing_ok=True)
            # Written, read back and compared: only what is on the disk is committed below.
            placed = {
                name: self.array(shard.split, name).write_object(shard.index, rows, shard.sha256)
                for name, rows in stored.items()
            }
            write_json(self._cost_path(shard), dict(cost))
            self._ledger.write(shard, placed)  # last: the record makes the objects count
        return True

    def record_path(self, shard: ShardInfo) -> AnyPath:
        """Path of the shard's commit record, whether it exists or not."""
        return self._ledger.path(shard)

    def record_paths(self) -> list[AnyPath]:
        """Every existing commit record, of whatever shard."""
        return find_paths(self.path / LEDGER, "*/*.json")

    def is_committed(self, shard: ShardInfo) -> bool:
        """Whether the shard's targets exist and were computed from the shard's present bytes."""
        return self._ledger.status(shard).is_committed

    def missing(self, shards: Iterable[ShardInfo]) -> list[ShardInfo]:
        """The shards that are not committed, in order."""
        shards = list(shards)
        statuses = self._ledger.statuses(shards)
        return [shard for shard, s in zip(shards, statuses, strict=True) if not s.is_committed]

    def coverage(self, shards: Iterable[ShardInfo]) -> Coverage:
        """Counts of committed, missing and stale shards."""
        counts = {"committed": 0, "missing": 0, "stale": 0}
        for status in self._ledger.statuses(shards):
            if status.is_whole:
                counts["committed" if status.is_current else "stale"] += 1
            else:
                counts["missing"] += 1
        return Coverage(**counts)

    def states(self, shards: Sequence[ShardInfo]) -> list[dict[str, State]]:
        """For each shard, output to its state, judged by the record and the object's length."""
        arrays = [
            {output: self.array(shard.split, output) for output in self.provenance.outputs}
            for shard in shards
        ]
        paths = [
            array.object_path(shard.index)
            for shard, of_shard in zip(shards, arrays, strict=True)
            for array in of_shard.values()
        ]
        lengths = iter(map_paths(length_of, paths) if self._is_remote else map(length_of, paths))
        return [
            {name: _state(status, array, next(lengths)) for name, array in of_shard.items()}
            for status, of_shard in zip(self._ledger.statuses(shards), arrays, strict=True)
        ]

    @property
    def _is_remote(self) -> bool:
        return isinstance(self.path, RemotePath)

    def read(self, shard: ShardInfo, output: str) -> NDArray[Any]:
        """(num_rows, *row shape) in the store's dtype, in the order of `shard.keys`.

        NaN rows belong to samples that lack the modality. Raises `MissingTarget` or `CorruptTarget`.
        """
        while True:
            file = self.local_object(shard, output)
            with suppress(FileNotFoundError):  # the bounded cache has evicted the copy: try again
                data = file.read_bytes()
                return self.array(shard.split, output).decode(data, str(file))[: shard.num_rows]

    def objects(self, shard: ShardInfo) -> dict[str, str] | None:
        """Output to sha256 of its committed object; None: the shard's targets are missing."""
        return _objects(self._ledger.status(shard))

    def objects_of(self, shards: Iterable[ShardInfo]) -> list[dict[str, str] | None]:
        """`objects` of each shard; in an object store one listing instead of a request for each."""
        return [_objects(status) for status in self._ledger.statuses(shards)]

    def local_object(self, shard: ShardInfo, output: str) -> Path:
        """A local file with an output's committed object, after comparing its sha256.

        In an object store it is a copy that the bounded cache may evict later. Raises
        `MissingTarget` or `CorruptTarget`.
        """
        objects = self.objects(shard)
        if objects is None:
            raise MissingTarget(
                f"{self.path}: no {self.provenance.modality} {output} of shard {shard.name} with "
                f"sha256 {shard.sha256[:SHORT]}. {REMEDY}"
            )
        path = self.array(shard.split, output).object_path(shard.index)
        try:
            # The array's own crc32c finds flipped bits, but not a whole object of another shard or tower
            # in its stead: only the digest in the record does.
            return local_copy(path, objects[output])
        except DigestMismatch as error:
            raise CorruptTarget(
                f"{path}: expected sha256 {error.expected[:SHORT]} as in the commit record, found "
                f"{error.actual[:SHORT]}. Delete {self._ledger.path(shard)} and run "
                "`any2seg precompute CONFIG` to rebuild it."
            ) from None

    def cost(self, shard: ShardInfo) -> dict[str, Any]:
        """The shard's `cost` as given to `commit`; empty if not known."""
        try:
            return dict(read_json(self._cost_path(shard)))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def _stored(
        self, shard: ShardInfo, output: str, arrays: Mapping[str, NDArray[Any]]
    ) -> NDArray[Any]:
        """The rows of an output, checked and in the stored type."""
        expected = (shard.num_rows, *self.provenance.outputs[output])
        if output not in arrays or arrays[output].shape != expected:
            shape = arrays[output].shape if output in arrays else "nothing"
            raise ValueError(f"{shard.name}: {output}: expected {expected}, found {shape}")
        # A number beyond float16 becomes infinite here and is refused below, naming the sample.
        with np.errstate(over="ignore"):
            rows = arrays[output].astype(self.provenance.dtype_of(output))
        axes = tuple(range(1, rows.ndim))
        present = np.array(shard.present[self.provenance.modality])
        fine = np.where(present, np.isfinite(rows).all(axis=axes), np.isnan(rows).all(axis=axes))
        if not fine.all():
            key = shard.keys[int(np.argmin(fine))]
            rule = "finite numbers" if present[np.argmin(fine)] else "NaN (it has no such image)"
            raise CorruptTarget(
                f"sample {key}: {self.provenance.modality} {output}: expected {rule} in "
                f"{self.provenance.dtype}, found others. Check the image and the tower."
            )
        return rows

    @property
    def _ledger(self) -> Ledger:
        return Ledger(
            self.path / LEDGER,
            self.path / ARRAYS,
            self.provenance.tower_fingerprint,
            self._object_paths,
        )

    def _object_paths(self, shard: ShardInfo) -> dict[str, AnyPath]:
        return {
            output: self.array(shard.split, output).object_path(shard.index)
            for output in self.provenance.outputs
        }

    @staticmethod
    def _alone(path: AnyPath) -> AbstractContextManager[None]:
        """On disk one writer at a time, by a lock; in an object store conditional puts need none."""
        return nullcontext() if isinstance(path, RemotePath) else locked(path / LOCK, wait=True)

    def _cost_path(self, shard: ShardInfo) -> AnyPath:
        return self.path / "cost" / shard.split / f"{shard.name}.json"


def _objects(status: CommitStatus) -> dict[str, str] | None:
    record = status.record
    return dict(record["objects"]) if record is not None and status.is_committed else None


def length_of(path: AnyPath) -> int | None:
    """Length of a file in bytes; None if it does not exist."""
    try:
        return int(path.stat().st_size)
    except FileNotFoundError:
        return None


def _state(status: CommitStatus, array: RowArray, length: int | None) -> State:
    if status.record is None or length is None:
        return "missing"
    if length != array.object_bytes:
        return "damaged"
    return "there" if status.is_current else "stale"


def object_bytes(provenance: TargetProvenance) -> dict[str, int]:
    """Output to the exact length in bytes of one of its objects (the rows of one shard)."""
    store = TargetStore(Path(), provenance)
    return {output: store.array("", output).object_bytes for output in provenance.outputs}
