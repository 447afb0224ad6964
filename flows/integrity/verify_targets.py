"""Examination of a target store: provenance, arrays, commit records, objects.

    examine_store(path, shards, stage, deep, advance) -> findings

Shallow: every record is read and compared with the manifest and the provenance; every object exists and is as
long as its array's description says. Many shards are read at once. Deep: every object's sha256, its crc32c,
NaN exactly in the rows of absent images, unit norm; one object after the other, as they are large. Targets of
images (`targets/`) and of descriptions (`descriptions/`) have the same stores.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.integrity.finding import Finding, Kind
from flows.integrity.verify_arrays import array_problem, object_bytes
from pipeline.core.fingerprint import SHORT
from pipeline.core.progress import Advance
from pipeline.errors import CorruptTarget, MissingTarget
from pipeline.schemas import LEDGER_SCHEMA
from pipeline.shards.manifest import ShardInfo
from pipeline.storage.files import AnyPath, map_paths, sha256_file
from pipeline.targets.ledger import FIELDS
from pipeline.targets.provenance import EMBEDDING, PATCH, PROVENANCE
from pipeline.targets.store import TargetStore, length_of

NAMED = 3
"""Shards that a finding about many of them names."""
SHARDS_AT_ONCE = 256
"""Shards whose records and object lengths are fetched before any of them is examined."""
NORM_TOLERANCE = {"float16": 2.0**-10, "float32": 1e-5}
"""Largest |norm - 1|: float16 changes a number, so also a norm, by at most 2^-11 of itself; twice that."""


def examine_store(
    path: AnyPath, shards: Sequence[ShardInfo], stage: str, *, deep: bool, advance: Advance
) -> Iterator[Finding]:
    """Findings about the store at `path`.

    `stage` rebuilds its targets. If it is empty, the configuration does not read this store: then missing
    targets are no finding, and corrupt ones are left to the configuration that does.
    """
    try:
        store = TargetStore.open(path)
    except (CorruptTarget, MissingTarget) as error:
        yield _provenance_finding(path, str(error), stage)
        return
    if not path.name.endswith(f"-{store.provenance.tower_fingerprint[:SHORT]}"):
        problem = "expected the settings that the folder is named after, found others"
        yield _provenance_finding(path, problem, stage)
        return
    examination = _Examination(store, stage, deep, _lengths(store, shards))
    yield from examination.arrays()
    yield from examination.orphans(shards)
    missing = []
    for files in _read_shards(store, shards):
        findings = list(examination.shard(files))
        if not findings and files.record is None:
            missing.append(files.shard.name)
        yield from findings
        advance(1, f"{store.provenance.modality} {files.shard.name}")
    if missing and stage:
        yield _missing_finding(store, missing, len(shards), stage)


def _provenance_finding(path: AnyPath, problem: str, stage: str) -> Finding:
    file = path / PROVENANCE
    drop = (file,) if stage else ()
    return Finding(Kind.PROVENANCE, str(file), problem, _remedy(stage), stage=stage, drop=drop)


def _missing_finding(store: TargetStore, missing: Sequence[str], total: int, stage: str) -> Finding:
    more = ", ..." if len(missing) > NAMED else ""
    problem = f"{len(missing)} of {total} shards ({', '.join(missing[:NAMED])}{more})"
    return Finding(Kind.HOLE, str(store.path), problem, f"any2seg {stage} CONFIG")


def _remedy(stage: str) -> str:
    if stage:
        return "any2seg repair CONFIG"
    return "any2seg repair with the configuration that made this store, or any2seg gc CONFIG"


@dataclass(frozen=True, slots=True)
class _ShardFiles:
    """The files of one shard in a store, read but not yet examined."""

    shard: ShardInfo
    record: bytes | None
    """The commit record's bytes; None: no file."""
    sizes: Mapping[str, int | None]
    """Output to the length of its object in bytes; None: no file."""


def _read_shards(store: TargetStore, shards: Sequence[ShardInfo]) -> Iterator[_ShardFiles]:
    """The files of each shard, in order."""
    for start in range(0, len(shards), SHARDS_AT_ONCE):
        yield from map_paths(partial(_read_shard, store), shards[start : start + SHARDS_AT_ONCE])


def _read_shard(store: TargetStore, shard: ShardInfo) -> _ShardFiles:
    try:
        record = store.record_path(shard).read_bytes()
    except FileNotFoundError:
        record = None
    arrays = {output: store.array(shard.split, output) for output in store.provenance.outputs}
    sizes = {name: length_of(array.object_path(shard.index)) for name, array in arrays.items()}
    return _ShardFiles(shard, record, sizes)


def _lengths(store: TargetStore, shards: Sequence[ShardInfo]) -> dict[tuple[str, str], int | None]:
    """(split, output) to the expected length of its objects; None if the description gives none."""
    splits = dict.fromkeys(shard.split for shard in shards)
    names = [(split, output) for split in splits for output in store.provenance.outputs]
    return {name: object_bytes(store.array(*name)) for name in names}


@dataclass(frozen=True, slots=True)
class _Examination:
    """One store under examination."""

    store: TargetStore
    stage: str
    deep: bool
    lengths: Mapping[tuple[str, str], int | None]

    def arrays(self) -> Iterator[Finding]:
        """The `zarr.json` of every array that has objects."""
        for split, output in self.lengths:
            array = self.store.array(split, output)
            if not (array.folder / array.name).is_dir():
                continue
            problem = array_problem(array)
            if problem:
                path = array.folder / array.name / "zarr.json"
                remedy = _remedy(self.stage)
                yield Finding(Kind.ARRAY, str(path), problem, remedy, stage=self.stage)

    def orphans(self, shards: Sequence[ShardInfo]) -> Iterator[Finding]:
        """Records of shards that the manifest does not have."""
        names = {shard.name for shard in shards}
        for path in self.store.record_paths():
            if path.stem not in names:
                problem = "the manifest has no such shard"
                drop = (path,) if self.stage else ()
                yield Finding(
                    Kind.LEDGER_ORPHAN, str(path), problem, _remedy(self.stage), drop=drop
                )

    def shard(self, files: _ShardFiles) -> Iterator[Finding]:
        """At most one finding about a shard's record, or else those about its objects."""
        shard, path = files.shard, self.store.record_path(files.shard)
        if files.record is None:
            yield from self._unrecorded(files)
            return
        try:
            record = json.loads(files.record.decode())
        except ValueError as error:
            yield self._finding(Kind.LEDGER_UNREADABLE, path, f"cannot be read: {error}", shard)
            return
        kind, problem = self._record_problem(record, shard)
        if kind is not None:
            yield self._finding(kind, path, problem, shard)
            return
        for output in self.store.provenance.outputs:
            yield from self._object(files, output, record["objects"][output])

    def _record_problem(self, record: Any, shard: ShardInfo) -> tuple[Kind | None, str]:
        problem = _malformed(record)
        if problem:
            return Kind.LEDGER_UNREADABLE, problem
        tower = self.store.provenance.tower_fingerprint
        if record["tower_fingerprint"] != tower:
            return Kind.LEDGER_FOREIGN, _other("tower", tower, record["tower_fingerprint"])
        if record["shard_sha256"] != shard.sha256:
            return Kind.LEDGER_STALE, _other("shard", shard.sha256, record["shard_sha256"])
        if record["num_rows"] != shard.num_rows:
            return Kind.LEDGER_WRONG, f"expected {shard.num_rows} rows, found {record['num_rows']}"
        outputs = set(self.store.provenance.outputs)
        if set(record["objects"]) != outputs:
            return Kind.LEDGER_WRONG, (
                f"expected objects of {', '.join(sorted(outputs))}, found "
                f"{', '.join(sorted(record['objects'])) or 'none'}"
            )
        return None, ""

    def _unrecorded(self, files: _ShardFiles) -> Iterator[Finding]:
        shard = files.shard
        present = [output for output, size in files.sizes.items() if size is not None]
        if present:
            problem = (
                f"expected their record {self.store.record_path(shard)}, found no file: it was "
                "deleted, or a killed run left the numbers"
            )
            path = self.store.array(shard.split, present[0]).object_path(shard.index)
            yield self._finding(Kind.LEDGER_MISSING, path, problem, shard)

    def _object(self, files: _ShardFiles, output: str, digest: str) -> Iterator[Finding]:
        shard, size = files.shard, files.sizes[output]
        path = self.store.array(shard.split, output).object_path(shard.index)
        expected = self.lengths[shard.split, output]
        if size is None:
            problem = "expected the object that its record names, found no file"
            yield self._finding(Kind.OBJECT_MISSING, path, problem, shard)
        elif expected is not None and size != expected:
            problem = f"expected {expected} bytes, found {size}"
            yield self._finding(Kind.OBJECT_SIZE, path, problem, shard)
        elif self.deep:
            kind, problem = self._content_problem(shard, output, digest)
            if kind is not None:
                yield self._finding(kind, path, problem, shard)

    def _content_problem(
        self, shard: ShardInfo, output: str, digest: str
    ) -> tuple[Kind | None, str]:
        array = self.store.array(shard.split, output)
        # The digest first: only it finds a whole object of another shard, whose checksums are valid.
        actual = sha256_file(array.object_path(shard.index))
        if actual != digest:
            return Kind.OBJECT_ALTERED, _other("object", digest, actual)
        try:
            block = array.read_object(shard.index)
        except CorruptTarget as error:
            return Kind.OBJECT_UNREADABLE, str(error)
        present = np.zeros(len(block), dtype=bool)
        present[: shard.num_rows] = shard.present[self.store.provenance.modality]
        key = _wrong_row(block, present, shard)
        if key:
            return (
                Kind.OBJECT_ROWS,
                f"sample {key}: expected numbers if it has the image, else NaN",
            )
        if output in {EMBEDDING, PATCH}:
            worst = _norm_error(block[present])
            if worst > NORM_TOLERANCE[str(block.dtype)]:
                return Kind.OBJECT_NORM, f"expected unit norm, found one that is off by {worst:.2g}"
        return None, ""

    def _finding(self, kind: Kind, path: AnyPath, problem: str, shard: ShardInfo) -> Finding:
        """A finding about a shard's targets; repairing it deletes the record, which uncommits them."""
        drop = (self.store.record_path(shard),) if self.stage else ()
        name = self.store.provenance.modality
        remedy = _remedy(self.stage)
        return Finding(kind, str(path), problem, remedy, shard.name, name, self.stage, drop)


def _malformed(record: Any) -> str:
    if not isinstance(record, Mapping):
        return "expected a JSON object"
    for field, kind in FIELDS.items():
        if not isinstance(record.get(field), kind):
            return f"expected the field {field}, found {record.get(field)!r}"
    if record.get("schema") not in range(1, LEDGER_SCHEMA + 1):
        return f"expected schema {LEDGER_SCHEMA} or older, found {record.get('schema')!r}"
    return ""


def _other(what: str, expected: str, actual: str) -> str:
    return f"expected {what} {expected[:SHORT]}, found {actual[:SHORT]}"


def _wrong_row(block: NDArray[Any], present: NDArray[np.bool_], shard: ShardInfo) -> str:
    """The first sample whose row is not finite though present, or not NaN though absent."""
    axes = tuple(range(1, block.ndim))
    fine = np.where(present, np.isfinite(block).all(axis=axes), np.isnan(block).all(axis=axes))
    if fine.all():
        return ""
    row = int(np.argmin(fine))
    return shard.keys[row] if row < shard.num_rows else f"(row {row}, which no sample has)"


def _norm_error(rows: NDArray[Any]) -> float:
    """Largest |norm - 1| over the last axis; 0 for no rows."""
    if not rows.size:
        return 0.0
    norms = np.sqrt(np.square(rows, dtype=np.float32).sum(axis=-1))
    return float(np.abs(norms - 1).max())
