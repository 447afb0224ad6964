"""Whether the source files of committed samples are still what their shards were made of.

A manifest row holds the digest of its source files' bytes. Reading them all to compare would take as
long as preparing, so, as git does with its index, a `SourceIndex` remembers under which sizes and
times a sample's files were last read and what they held: in the common case a sample costs only the
`stat` of its files. A file that was touched but holds the same is no alteration. The index is a cache
(`cache/sources-<dataset>.parquet`): without it everything is read again, and nothing else changes.
Only `prepare` writes it; nothing here rewrites a shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.config import Config
from pipeline.core.progress import progress_bar
from pipeline.datasets.base import SourceSample
from pipeline.formats.parquet import read_table, write_tables
from pipeline.formats.shard_tar import shard_name
from pipeline.shards.manifest import Manifest
from pipeline.storage.files import AnyPath
from pipeline.workspace import Workspace, dataset_slug

INDEX_SCHEMA = pa.schema([("key", pa.string()), ("version", pa.string()), ("sha256", pa.string())])
STAT_THREADS = 8
"""A `stat` on a network file system waits; on a local disk it makes no difference."""
SAMPLES_AT_ONCE = 32_768
"""Samples whose rows are in memory as dicts."""

NAMED = 3
_REMAKE = "To make a shard anew from the source as it is, delete its tar and run `any2seg prepare CONFIG`."

Seen = tuple[str, str, str]
"""Key, version of its files, digest of their bytes."""


@dataclass(frozen=True, slots=True, order=True)
class ChangedSample:
    """A committed sample whose source is not what it was."""

    key: str
    shard: str
    """Name of the shard that holds it."""

    def __str__(self) -> str:
        return f"{self.key} in {self.shard}"


@dataclass(frozen=True, slots=True)
class SourceChanges:
    """What became of the source of a split's committed samples. Shards keep what they have."""

    removed: tuple[ChangedSample, ...] = ()
    """The source no longer lists them in this split."""
    altered: tuple[ChangedSample, ...] = ()
    """Their files hold other bytes."""
    touched: int = 0
    """Samples whose files have other times, or could not be read, and were not compared."""
    unknown: int = 0
    """Samples of shards that were made before sources were remembered."""

    def __str__(self) -> str:
        counts = {
            "removed": len(self.removed),
            "altered": len(self.altered),
            "touched": self.touched,
            "of unknown source": self.unknown,
        }
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count)

    def advice(self, split: str) -> list[str]:
        """A line for everything that somebody should know or decide, with the first names."""
        lines = []
        if self.removed:
            lines.append(
                f"{split}: the source no longer has {_named(self.removed)}. Their shards keep them. "
                f"{_REMAKE}"
            )
        if self.altered:
            lines.append(
                f"{split}: the source files have other contents now: {_named(self.altered)}. Their "
                f"shards keep the old ones. {_REMAKE}"
            )
        if self.touched:
            lines.append(
                f"{split}: {self.touched} samples have files with other times, which were not "
                "compared. `any2seg prepare CONFIG` reads them again and remembers."
            )
        return lines


@dataclass
class SourceIndex:
    """Key to the version under which a sample's files were last read, and what they held."""

    path: AnyPath
    table: pa.Table = field(init=False)
    _fresh: list[Seen] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        try:
            self.table = read_table(self.path)
        except (pa.ArrowException, OSError):
            self.table = INDEX_SCHEMA.empty_table()  # it only saves reading

    def note(self, seen: Iterable[Seen]) -> None:
        """Remember what was just read; rendered data has nothing to remember."""
        self._fresh += [one for one in seen if one[1]]

    def save(self) -> None:
        """Write what was noted, if anything was."""
        if not self._fresh:
            return
        columns = list(zip(*dict((one[0], one) for one in self._fresh).values(), strict=True))
        fresh = pa.table(columns, schema=INDEX_SCHEMA)
        kept = self.table.filter(pc.invert(pc.is_in(self.table["key"], fresh["key"])))
        rows = pa.concat_tables([kept, fresh])
        self.table = rows.take(pc.sort_indices(rows["key"]))
        write_tables(self.path, [self.table], INDEX_SCHEMA)
        self._fresh = []


@dataclass(frozen=True, slots=True)
class _Doubt:
    """A sample whose files are not as they were last read."""

    sample: SourceSample
    shard: str
    version: str
    recorded: str
    """Digest of the files that its shard was made of."""


def compare_sources(
    samples: Sequence[SourceSample],
    manifest: Manifest,
    split: str,
    index: SourceIndex,
    *,
    limit: int | None = None,
    progress: bool = False,
) -> SourceChanges:
    """Compare a split's committed samples with `samples`, the source's listing of it.

    At most `limit` samples whose files have other times are read again (None: all); what was read
    is noted in the index.
    """
    held = _held(samples, manifest, split, index)
    removed = held.filter(pc.is_null(held["place"])).to_pylist()
    listed = held.filter(pc.is_valid(held["place"]))
    untracked = listed.filter(pc.is_null(listed["source_sha256"]))["place"].to_pylist()
    altered, doubts = _by_version(listed.filter(pc.not_equal(listed["source_sha256"], "")), samples)
    chosen = doubts[:limit]
    found, num_unread = _read_again(chosen, index, progress)
    return SourceChanges(
        removed=tuple(_changed(row) for row in removed),
        altered=tuple(sorted(altered + found)),
        touched=len(doubts) - len(chosen) + num_unread,
        unknown=sum(samples[place].has_files for place in untracked),
    )


def _held(
    samples: Sequence[SourceSample], manifest: Manifest, split: str, index: SourceIndex
) -> pa.Table:
    """The split's committed samples: `key`, `split`, `shard`, `source_sha256`, the `place`
    in `samples` (null: not listed), and what the index has of them."""
    held = manifest.table(split, ("key", "split", "shard", "source_sha256"))
    place = pc.index_in(held["key"], pa.array([sample.key for sample in samples], pa.string()))
    seen = index.table.take(pc.index_in(held["key"], index.table["key"]))
    columns = {"place": place, "version": seen["version"], "seen_sha256": seen["sha256"]}
    for name, column in columns.items():
        held = held.append_column(name, column)
    return held


def _by_version(
    tracked: pa.Table, samples: Sequence[SourceSample]
) -> tuple[list[ChangedSample], list[_Doubt]]:
    """Samples known to be altered from their versions alone, and those to be read again."""
    altered, doubts = [], []

    def versions(rows: list[dict[str, Any]]) -> list[str]:
        return [samples[row["place"]].version() for row in rows]

    with ThreadPoolExecutor(STAT_THREADS) as threads:
        for start in range(0, len(tracked), SAMPLES_AT_ONCE):
            rows = tracked.slice(start, SAMPLES_AT_ONCE).to_pylist()
            tasks = [rows[first::STAT_THREADS] for first in range(STAT_THREADS)]
            for task, found in zip(tasks, threads.map(versions, tasks), strict=True):
                for row, version in zip(task, found, strict=True):
                    if version != row["version"]:
                        place = (samples[row["place"]], shard_name(row["split"], row["shard"]))
                        doubts.append(_Doubt(*place, version, row["source_sha256"]))
                    elif row["seen_sha256"] != row["source_sha256"]:
                        altered.append(_changed(row))
    return altered, doubts


def _changed(row: Mapping[str, Any]) -> ChangedSample:
    return ChangedSample(row["key"], shard_name(row["split"], row["shard"]))


def _read_again(
    doubts: Sequence[_Doubt], index: SourceIndex, progress: bool
) -> tuple[list[ChangedSample], int]:
    """Samples whose files hold other bytes, and the number of those that cannot be read."""
    altered, num_unread = [], 0
    with progress_bar("compare sources", len(doubts), "samples", progress) as advance:
        for doubt in doubts:
            key = doubt.sample.key
            try:
                found = doubt.sample.content_sha256()
            except OSError:
                num_unread += 1
            else:
                index.note([(key, doubt.version, found)])
                if found != doubt.recorded:
                    altered.append(ChangedSample(key, doubt.shard))
            advance(1)
    return altered, num_unread


def source_index_path(config: Config, workspace: Workspace) -> AnyPath:
    """Where the index of the config's dataset lies."""
    return workspace.cache / f"sources-{dataset_slug(config)}.parquet"


def _named(changed: Sequence[ChangedSample]) -> str:
    more = ", ..." if len(changed) > NAMED else ""
    number = f"{len(changed)} sample{'s' if len(changed) > 1 else ''}"
    return f"{number} ({', '.join(map(str, changed[:NAMED]))}{more})"
