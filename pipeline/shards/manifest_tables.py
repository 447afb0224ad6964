"""Manifest rows cut into shards, as Arrow tables. Reads nothing and writes nothing.

Also what the members' spans say: how long a shard's tar must be at least.
"""

from __future__ import annotations

from tarfile import BLOCKSIZE
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Place = tuple[str, int]
"""Split and number of a shard."""


def split_by_shard(table: pa.Table) -> dict[Place, pa.Table]:
    """Rows of each shard, in the table's order.

    Raises `ValueError` naming the shard whose rows are not 0, 1, 2, ... one after the other with one
    sha256.
    """
    if table.num_rows == 0:
        return {}
    table = table.combine_chunks()
    splits = np.array(table["split"].to_pylist(), dtype=object)
    shards: NDArray[Any] = table["shard"].to_numpy()
    changes = (splits[1:] != splits[:-1]) | (shards[1:] != shards[:-1])
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), table.num_rows]
    tables: dict[Place, pa.Table] = {}
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        place = (str(splits[start]), int(shards[start]))
        part = table.slice(start, end - start)
        if place in tables or not _is_whole(part):
            raise ValueError(f"rows of {place[0]} shard {place[1]} are not one run from 0 on")
        tables[place] = part
    return tables


def _is_whole(part: pa.Table) -> bool:
    rows: NDArray[Any] = part["row"].to_numpy()
    digests = set(part["shard_sha256"].to_pylist())
    return bool((rows == np.arange(len(rows))).all()) and len(digests) == 1


def shard_sha256(rows: pa.Table) -> str:
    """The digest that a shard's rows name."""
    return str(rows["shard_sha256"][0].as_py())


def least_tar_bytes(rows: pa.Table) -> int:
    """Bytes that a tar with these members has at least: the last member and the end's first block."""
    members = rows["members"].combine_chunks().flatten()
    ends = members.field("offset").to_numpy() + members.field("num_bytes").to_numpy()
    last = int(ends.max()) if len(ends) else 0
    return -(-last // BLOCKSIZE) * BLOCKSIZE + BLOCKSIZE
