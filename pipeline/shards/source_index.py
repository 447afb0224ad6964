"""Checks whether the source files of committed samples are still those that their shards hold.

A manifest row has the digest of its source files' bytes. Reading them all to compare would take as
long as preparing, so, like git's index, a `SourceIndex` remembers the sizes and times under which a
sample's files were last read, and their digest: usually a sample costs only the `stat` of its files.
A file with a new time and the same bytes is not altered. The index is a cache
(`cache/sources-<dataset>.parquet`): without it everything is read again, and nothing else changes.
Only `prepare` writes it. No shard is rewritten here.
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
"""Hides the latency of `stat` on network file systems; on a local disk it makes no difference."""
SAMPLES_AT_ONCE = 32_768
"""Samples whose rows are in memory as dicts at a time."""

NAMED = 3
_REBUILD = (
    "To rebuild a shard from the present source, delete its tar and run `any2seg prepare CONFIG`."
)

Seen = tuple[str, str, str]
"""Key, version of its files (sizes and times), digest of their bytes."""


@dataclass(frozen=True, slots=True, order=True)
class ChangedSample:
    """A committed sample whose source was removed or altered."""

    key: str
    shard: str
    """Name of the shard that holds it."""

    def __str__(self) -> str:
        return f"{self.key} in {self.shard}"


@dataclass(frozen=True, slots=True)
class SourceChanges:
    """Changes of the source of a split's committed samples; the shards keep what they have."""

    removed: tuple[ChangedSample, ...] = ()
    """The source no longer lists them in this split."""
    altered: tuple[ChangedSample, ...] = ()
    """Their files hold other bytes."""
    touched: int = 0
    """Samples whose files have other times, or could not be read, and were not compared."""
    unknown: int = 0
    """Samples of shards from before schema 2, which recorded no source digest."""

    def __str__(self) -> str:
        counts = {
            "removed": len(self.removed),
            "altered": len(self.altered),
            "touched": self.touched,
            "of unknown source": self.unknown,
        }
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count)

    def advice(self, split: str) -> list[str]:
        """One line for each kind of change, with the first keys and what to do."""
        lines = []
        if self.removed:
            lines.append(
                f"{split}: the source no longer has {_named(self.removed)}. Their shards keep them. "
                f"{_REBUILD}"
            )
        if self.altered:
            lines.append(
                f"{split}: the source files have other contents now: {_named(self.altered)}. Their "
                f"shards keep the old ones. {_REBUILD}"
            )
        if self.touched:
            lines.append(
                f"{split}: {self.touched} samples have files with other times, which were not "
                "compared. `any2seg prepare CONFIG` reads them and updates the index."
            )
        return lines


@dataclass
class SourceIndex:
    """For each key, the version under which its files were last read, and their digest."""

    path: AnyPath
    table: pa.Table = field(init=False)
    _fresh: list[Seen] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        try:
            self.table = read_table(self.path)
        except (pa.ArrowException, OSError):
            self.table = INDEX_SCHEMA.empty_table()  # a cache: all files are read again

    def note(self, seen: Iterable[Seen]) -> None:
        """Remember what was just read; rendered samples have no files."""
        self._fresh += [one for one in seen if one[1]]

    def save(self) -> None:
        """Write the index if anything was noted."""
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
    """A sample whose files have another version than when they were last read."""

    sample: SourceSample
    shard: str
    version: str
    recorded: str
    """Digest of the files that its shard was made from."""


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

    At most `limit` samples whose files have another version are read again (None: all); their digests
    are noted in the index.
    """
    committed = _committed(samples, manifest, split, index)
    removed = committed.filter(pc.is_null(committed["position"])).to_pylist()
    listed = committed.filter(pc.is_valid(committed["position"]))
    untracked = listed.filter(pc.is_null(listed["source_sha256"]))["position"].to_pylist()
    altered, doubts = _by_version(listed.filter(pc.not_equal(listed["source_sha256"], "")), samples)
    chosen = doubts[:limit]
    altered_since, num_unread = _read_again(chosen, index, progress)
    return SourceChanges(
        removed=tuple(_changed(row) for row in removed),
        altered=tuple(sorted(altered + altered_since)),
        touched=len(doubts) - len(chosen) + num_unread,
        unknown=sum(samples[position].has_files for position in untracked),
    )


def _committed(
    samples: Sequence[SourceSample], manifest: Manifest, split: str, index: SourceIndex
) -> pa.Table:
    """The split's committed samples: `key`, `split`, `shard`, `source_sha256`, the `position`
    in `samples` (null: not listed), and the index's `version` and `seen_sha256` (null: not in it)."""
    table = manifest.table(split, ("key", "split", "shard", "source_sha256"))
    position = pc.index_in(table["key"], pa.array([sample.key for sample in samples], pa.string()))
    seen = index.table.take(pc.index_in(table["key"], index.table["key"]))
    columns = {"position": position, "version": seen["version"], "seen_sha256": seen["sha256"]}
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def _by_version(
    tracked: pa.Table, samples: Sequence[SourceSample]
) -> tuple[list[ChangedSample], list[_Doubt]]:
    """Samples that the index alone shows to be altered, and those to be read again."""
    altered, doubts = [], []

    def versions(rows: list[dict[str, Any]]) -> list[str]:
        return [samples[row["position"]].version() for row in rows]

    with ThreadPoolExecutor(STAT_THREADS) as threads:
        for start in range(0, len(tracked), SAMPLES_AT_ONCE):
            rows = tracked.slice(start, SAMPLES_AT_ONCE).to_pylist()
            tasks = [rows[first::STAT_THREADS] for first in range(STAT_THREADS)]
            for task, current in zip(tasks, threads.map(versions, tasks), strict=True):
                for row, version in zip(task, current, strict=True):
                    if version != row["version"]:
                        sample = samples[row["position"]]
                        shard = shard_name(row["split"], row["shard"])
                        doubts.append(_Doubt(sample, shard, version, row["source_sha256"]))
                    elif row["seen_sha256"] != row["source_sha256"]:
                        altered.append(_changed(row))
    return altered, doubts


def _changed(row: Mapping[str, Any]) -> ChangedSample:
    return ChangedSample(row["key"], shard_name(row["split"], row["shard"]))


def _read_again(
    doubts: Sequence[_Doubt], index: SourceIndex, progress: bool
) -> tuple[list[ChangedSample], int]:
    """Samples whose files have other bytes, and the number of those that cannot be read."""
    altered, num_unread = [], 0
    with progress_bar("compare sources", len(doubts), "samples", progress) as advance:
        for doubt in doubts:
            key = doubt.sample.key
            try:
                digest = doubt.sample.content_sha256()
            except OSError:
                num_unread += 1
            else:
                index.note([(key, doubt.version, digest)])
                if digest != doubt.recorded:
                    altered.append(ChangedSample(key, doubt.shard))
            advance(1)
    return altered, num_unread


def source_index_path(config: Config, workspace: Workspace) -> AnyPath:
    """Path of the index of the config's dataset."""
    return workspace.cache / f"sources-{dataset_slug(config)}.parquet"


def _named(changed: Sequence[ChangedSample]) -> str:
    more = ", ..." if len(changed) > NAMED else ""
    number = f"{len(changed)} sample{'s' if len(changed) > 1 else ''}"
    return f"{number} ({', '.join(map(str, changed[:NAMED]))}{more})"
