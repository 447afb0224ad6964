"""Manifest rows split by shard, as Arrow tables, and what they say about a shard's tar."""

from __future__ import annotations

from tarfile import BLOCKSIZE
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

ShardId = tuple[str, int]
"""Split and index of a shard."""


def split_by_shard(table: pa.Table) -> dict[ShardId, pa.Table]:
    """Rows of each shard, in the table's order.

    Raises `ValueError` naming the shard whose rows are not adjacent, numbered 0, 1, 2, ... and of one
    sha256.
    """
    if table.num_rows == 0:
        return {}
    table = table.combine_chunks()
    splits = np.array(table["split"].to_pylist(), dtype=object)
    shards: NDArray[Any] = table["shard"].to_numpy()
    changes = (splits[1:] != splits[:-1]) | (shards[1:] != shards[:-1])
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), table.num_rows]
    tables: dict[ShardId, pa.Table] = {}
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        shard = (str(splits[start]), int(shards[start]))
        rows = table.slice(start, end - start)
        if shard in tables or not _is_whole(rows):
            raise ValueError(f"rows of {shard[0]} shard {shard[1]} are not one run from 0 on")
        tables[shard] = rows
    return tables


def _is_whole(rows: pa.Table) -> bool:
    numbers: NDArray[Any] = rows["row"].to_numpy()
    digests = set(rows["shard_sha256"].to_pylist())
    return bool((numbers == np.arange(len(numbers))).all()) and len(digests) == 1


def shard_sha256(rows: pa.Table) -> str:
    """The digest that a shard's rows name."""
    return str(rows["shard_sha256"][0].as_py())


def least_tar_bytes(rows: pa.Table) -> int:
    """Least length of a tar with these members: up to the last one, and one block of the end mark."""
    members = rows["members"].combine_chunks().flatten()
    ends = members.field("offset").to_numpy() + members.field("num_bytes").to_numpy()
    last = int(ends.max()) if len(ends) else 0
    return -(-last // BLOCKSIZE) * BLOCKSIZE + BLOCKSIZE
