"""Examination of a target store: provenance, arrays, commit records, objects. Writes nothing.

    examine_store(path, shards, makes, deep, advance) -> findings

Shallow: every record is read and compared with the manifest and the provenance, every object is there and as
long as its array's description says; many shards are looked at at once. Deep: every object's sha256, its
crc32c, NaN exactly in the rows of absent pictures, unit norm; one object after the other, as they are large.
Pictures (`targets/`) and descriptions (`descriptions/`) have the same stores.
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
LOOKED_AT_ONCE = 256
"""Shards whose records and lengths are fetched before any of them is judged."""
NORM_TOLERANCE = {"float16": 2.0**-10, "float32": 1e-5}
"""Largest |norm - 1|: f16 moves each number by at most 2^-11 of itself, so the norm too; twice that."""


def examine_store(
    path: AnyPath, shards: Sequence[ShardInfo], stage: str, *, deep: bool, advance: Advance
) -> Iterator[Finding]:
    """Findings about the store at `path`.

    `stage` makes its numbers again; empty: the configuration does not ask for this store, so its holes are
    none, and what is broken in it is for the configuration that made it.
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
    holes = []
    for seen in _looks(store, shards):
        found = list(examination.shard(seen))
        if not found and seen.record is None:
            holes.append(seen.shard.name)
        yield from found
        advance(1, f"{store.provenance.modality} {seen.shard.name}")
    if holes and stage:
        yield _holes(store, holes, len(shards), stage)


def _provenance_finding(path: AnyPath, problem: str, stage: str) -> Finding:
    file = path / PROVENANCE
    drop = (file,) if stage else ()
    return Finding(Kind.PROVENANCE, str(file), problem, _remedy(stage), stage=stage, drop=drop)


def _holes(store: TargetStore, holes: Sequence[str], total: int, stage: str) -> Finding:
    more = ", ..." if len(holes) > NAMED else ""
    problem = f"{len(holes)} of {total} shards ({', '.join(holes[:NAMED])}{more})"
    return Finding(Kind.HOLE, str(store.path), problem, f"any2seg {stage} CONFIG")


def _remedy(stage: str) -> str:
    if stage:
        return "any2seg repair CONFIG"
    return "any2seg repair with the configuration that made this store, or any2seg gc CONFIG"


@dataclass(frozen=True, slots=True)
class _Seen:
    """What lies in a store of one shard, not judged yet."""

    shard: ShardInfo
    record: bytes | None
    """The commit record's bytes; None: no file."""
    sizes: Mapping[str, int | None]
    """Output to the bytes of its object; None: no file."""


def _looks(store: TargetStore, shards: Sequence[ShardInfo]) -> Iterator[_Seen]:
    """A look at each shard, in order."""
    for start in range(0, len(shards), LOOKED_AT_ONCE):
        yield from map_paths(partial(_look, store), shards[start : start + LOOKED_AT_ONCE])


def _look(store: TargetStore, shard: ShardInfo) -> _Seen:
    try:
        record = store.record_path(shard).read_bytes()
    except FileNotFoundError:
        record = None
    arrays = {output: store.array(shard.split, output) for output in store.provenance.outputs}
    sizes = {name: length_of(array.object_path(shard.index)) for name, array in arrays.items()}
    return _Seen(shard, record, sizes)


def _lengths(store: TargetStore, shards: Sequence[ShardInfo]) -> dict[tuple[str, str], int | None]:
    """(split, output) to the bytes that its objects must have; None if its description does not tell."""
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
                place = str(array.folder / array.name / "zarr.json")
                yield Finding(Kind.ARRAY, place, problem, _remedy(self.stage), stage=self.stage)

    def orphans(self, shards: Sequence[ShardInfo]) -> Iterator[Finding]:
        """Records of shards that the manifest does not have."""
        known = {shard.name for shard in shards}
        for path in self.store.record_paths():
            if path.stem not in known:
                problem = "the manifest has no such shard"
                drop = (path,) if self.stage else ()
                yield Finding(
                    Kind.LEDGER_ORPHAN, str(path), problem, _remedy(self.stage), drop=drop
                )

    def shard(self, seen: _Seen) -> Iterator[Finding]:
        """At most one finding about a shard's record, or else those about its objects."""
        shard, path = seen.shard, self.store.record_path(seen.shard)
        if seen.record is None:
            yield from self._unrecorded(seen)
            return
        try:
            record = json.loads(seen.record.decode())
        except ValueError as error:
            yield self._finding(Kind.LEDGER_UNREADABLE, path, f"cannot be read: {error}", shard)
            return
        kind, problem = self._record_problem(record, shard)
        if kind is not None:
            yield self._finding(kind, path, problem, shard)
            return
        for output in self.store.provenance.outputs:
            yield from self._object(seen, output, record["objects"][output])

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

    def _unrecorded(self, seen: _Seen) -> Iterator[Finding]:
        there = [output for output, size in seen.sizes.items() if size is not None]
        if there:
            problem = (
                f"expected {self.store.record_path(seen.shard)}, which vouches for them; found no "
                "file: it was deleted, or a killed run left the numbers"
            )
            path = self.store.array(seen.shard.split, there[0]).object_path(seen.shard.index)
            yield self._finding(Kind.LEDGER_MISSING, path, problem, seen.shard)

    def _object(self, seen: _Seen, output: str, digest: str) -> Iterator[Finding]:
        shard, size = seen.shard, seen.sizes[output]
        path = self.store.array(shard.split, output).object_path(shard.index)
        wanted = self.lengths[shard.split, output]
        if size is None:
            problem = "expected the object that its record names, found no file"
            yield self._finding(Kind.OBJECT_MISSING, path, problem, shard)
        elif wanted is not None and size != wanted:
            problem = f"expected {wanted} bytes, found {size}"
            yield self._finding(Kind.OBJECT_SIZE, path, problem, shard)
        elif self.deep:
            kind, problem = self._content_problem(shard, output, digest)
            if kind is not None:
                yield self._finding(kind, path, problem, shard)

    def _content_problem(
        self, shard: ShardInfo, output: str, digest: str
    ) -> tuple[Kind | None, str]:
        array = self.store.array(shard.split, output)
        found = sha256_file(array.object_path(shard.index))
        if found != digest:
            return Kind.OBJECT_ALTERED, _other("object", digest, found)
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
                f"sample {key}: expected numbers if it has the picture, else NaN",
            )
        if output in {EMBEDDING, PATCH}:
            worst = _norm_error(block[present])
            if worst > NORM_TOLERANCE[str(block.dtype)]:
                return Kind.OBJECT_NORM, f"expected unit norm, found one that is off by {worst:.2g}"
        return None, ""

    def _finding(self, kind: Kind, place: AnyPath, problem: str, shard: ShardInfo) -> Finding:
        """A finding about a shard's numbers; its record is dropped first, so that nothing vouches."""
        drop = (self.store.record_path(shard),) if self.stage else ()
        name = self.store.provenance.modality
        remedy = _remedy(self.stage)
        return Finding(kind, str(place), problem, remedy, shard.name, name, self.stage, drop)


def _malformed(record: Any) -> str:
    if not isinstance(record, Mapping):
        return "expected a JSON object"
    for field, kind in FIELDS.items():
        if not isinstance(record.get(field), kind):
            return f"expected the field {field}, found {record.get(field)!r}"
    if record.get("schema") not in range(1, LEDGER_SCHEMA + 1):
        return f"expected schema {LEDGER_SCHEMA} or older, found {record.get('schema')!r}"
    return ""


def _other(what: str, wanted: str, found: str) -> str:
    return f"expected {what} {wanted[:SHORT]}, found {found[:SHORT]}"


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
