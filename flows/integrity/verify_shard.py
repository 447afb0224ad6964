"""Examination of one shard against its manifest rows.

Shallow: the tar exists and is long enough for the members that the rows name. Deep: its sha256, and whether
its headers list exactly the rows' keys and members at the rows' spans.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from flows.integrity.finding import Finding, Kind
from pipeline.core.fingerprint import SHORT
from pipeline.errors import DatasetError
from pipeline.formats.tar_index import TarSample, list_tar
from pipeline.shards.manifest_tables import least_tar_bytes, shard_sha256
from pipeline.storage.files import AnyPath, sha256_file
from pipeline.storage.local_copies import local_copy

STAGE = "prepare"


def examine_shard(path: AnyPath, rows: pa.Table, *, deep: bool) -> Iterator[Finding]:
    """At most one finding about the tar at `path`, whose manifest rows are `rows`."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        yield _finding(Kind.SHARD_MISSING, path, f"expected {rows.num_rows} samples, found no file")
        return
    least = least_tar_bytes(rows)
    if size < least:
        problem = f"expected at least {least} bytes, found {size}"
        yield _finding(Kind.SHARD_TRUNCATED, path, problem)
    elif deep:
        yield from _examine_bytes(path, rows)


def _examine_bytes(path: AnyPath, rows: pa.Table) -> Iterator[Finding]:
    recorded, digest = shard_sha256(rows), sha256_file(path)
    if digest != recorded:
        problem = f"expected sha256 {recorded[:SHORT]} as in its record, found {digest[:SHORT]}"
        yield _finding(Kind.SHARD_ALTERED, path, problem)
        return
    problem = _structure_problem(path, rows)
    if problem:
        yield _finding(Kind.SHARD_MEMBERS, path, problem)


def _structure_problem(path: AnyPath, rows: pa.Table) -> str:
    """Where the tar's headers differ from the rows; empty if they agree."""
    try:
        samples = list_tar(local_copy(path, shard_sha256(rows)))
    except DatasetError as error:
        return str(error)
    keys = rows["key"].to_pylist()
    if [sample.key for sample in samples] != keys:
        return f"expected the {len(keys)} keys of its record in order, found others"
    for sample, members in zip(samples, rows["members"].to_pylist(), strict=True):
        named = {m["name"]: (m["offset"], m["num_bytes"]) for m in members}
        if _spans(sample) != named:
            return f"sample {sample.key}: expected the members that its record names, found others"
    return ""


def _spans(sample: TarSample) -> dict[str, tuple[int, int]]:
    return {member.ending: (member.offset, member.num_bytes) for member in sample.members}


def _finding(kind: Kind, path: AnyPath, problem: str) -> Finding:
    return Finding(kind, str(path), problem, stage=STAGE)
