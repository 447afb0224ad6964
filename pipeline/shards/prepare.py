"""Stage `prepare`: source samples become immutable shards and a manifest.

    prepare(config, workspace) -> StageReport

Writes `dataset.json`, then shard by shard (see `commit`), then `quarantine.parquet` and
`manifest.parquet`. It can be killed at any instruction: the next run resumes and writes the same
bytes. New source samples are appended as new shards, and only they are decoded: an existing shard
never changes, even if it is not full. Source samples that were removed or altered since are reported
(see `source_index`), never rewritten. A bad sample is quarantined by name and tried again only if its
files change. Raises `DatasetError` if there is nothing to read or if more than `prepare.max_refused` of
a split is refused, `NotEnoughSpace` before any shard is written if they would not fit on the disk, and
`WorkspaceBusy` if another process prepares the same dataset.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from typing import Any

from pipeline.config.config import Config
from pipeline.core.fingerprint import fingerprint
from pipeline.core.parallel_map import map_in_order
from pipeline.core.progress import progress_bar
from pipeline.core.stage_report import Failure, StageReport
from pipeline.datasets import open_dataset
from pipeline.datasets.base import DatasetAdapter, SourceSample
from pipeline.errors import DatasetError
from pipeline.schemas import DATASET_SCHEMA
from pipeline.shards.commit import DatasetRecords
from pipeline.shards.manifest import DATASET, Manifest
from pipeline.shards.prepare_plan import require_room_for_shards
from pipeline.shards.sample_encoder import EncodedSample, Refused, SampleEncoder
from pipeline.shards.source_index import (
    Seen,
    SourceChanges,
    SourceIndex,
    compare_sources,
    source_index_path,
)
from pipeline.storage.files import AnyPath, sweep_partials, write_json
from pipeline.storage.lease import LOCK, locked
from pipeline.workspace import Workspace, dataset_identity

NAMED_IN_ERRORS = 3

Listing = Mapping[str, Sequence[SourceSample]]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Source samples that become one shard."""

    split: str
    index: int
    samples: Sequence[SourceSample]


def prepare(config: Config, workspace: Workspace, *, progress: bool = True) -> StageReport:
    """Bring the dataset of `config` up to date with its source. See the module's text."""
    started = time.perf_counter()
    folder = workspace.dataset(config)
    adapter = open_dataset(config.dataset, config.specs())
    listing = {split: adapter.samples(split) for split in adapter.splits()}
    _require_unique_keys(listing)
    index = SourceIndex(source_index_path(config, workspace))
    with locked(folder / LOCK, wait=False):
        sweep_partials(folder)
        write_description(config, adapter, folder)
        records = DatasetRecords(folder)
        num_before = records.num_shards
        chunks = plan(listing, records, config.store.shard_size)
        quota = _RefusalQuota(config, listing, records)
        samples = [sample for chunk in chunks for sample in chunk.samples]
        require_room_for_shards(config, adapter, folder, samples)
        _write(config, adapter, chunks, records, quota, index, progress)
        _require_some_good(listing, records)
        records.merge(list(listing))
        changes = _compare(listing, Manifest.load(folder), index, progress)
    return StageReport(
        stage="prepare",
        done=records.num_shards - num_before,
        skipped=num_before,
        failed=tuple({f.unit: f for f in [*quota.met, *_failures(listing, records)]}.values()),
        seconds=time.perf_counter() - started,
        details=_details(folder, listing, records, changes),
    )


def plan(listing: Listing, records: DatasetRecords, shard_size: int) -> list[Chunk]:
    """The chunks still to write: `shard_size` unknown samples each, in the listing's order.

    A chunk never spans two source shards, so that a source shard can be adopted as it is.
    """
    chunks = []
    for split, samples in listing.items():
        unknown = [sample for sample in samples if not records.is_known(sample)]
        groups = [
            group[start : start + shard_size]
            for group in _by_source_shard(unknown)
            for start in range(0, len(group), shard_size)
        ]
        for index, group in zip(records.free_indices(split), groups, strict=False):
            chunks.append(Chunk(split, index, group))
    return chunks


def _by_source_shard(samples: Sequence[SourceSample]) -> list[list[SourceSample]]:
    """Runs of samples from one source shard; a single run where there are no source shards."""
    return [list(run) for _, run in groupby(samples, key=lambda sample: sample.shard)]


def _write(
    config: Config,
    adapter: DatasetAdapter,
    chunks: Sequence[Chunk],
    records: DatasetRecords,
    quota: _RefusalQuota,
    index: SourceIndex,
    progress: bool,
) -> None:
    samples = [sample for chunk in chunks for sample in chunk.samples]
    encoder = SampleEncoder(adapter, config.specs())
    results = map_in_order(encoder, samples, config.prepare.workers)
    with progress_bar("prepare", len(samples), "samples", progress) as advance:
        for chunk in chunks:
            chunk_results = []
            for result in islice(results, len(chunk.samples)):
                chunk_results.append(result)
                advance(1)
            records.commit(chunk.split, chunk.index, chunk_results)
            index.note(map(_seen, chunk_results))
            quota.add(chunk.split, chunk_results)


def _seen(result: EncodedSample | Refused) -> Seen:
    """What the source index remembers of a sample; without a version, as of a refused one, nothing."""
    if isinstance(result, Refused):
        return (result.key, "", "")
    return (result.key, result.version, result.facts["source_sha256"])


def _compare(
    listing: Listing, manifest: Manifest, index: SourceIndex, progress: bool
) -> dict[str, SourceChanges]:
    """Changes of the source of every committed sample, by split; updates the source index."""
    changes = {
        split: compare_sources(listing.get(split, ()), manifest, split, index, progress=progress)
        for split in dict.fromkeys([*listing, *manifest.splits])
    }
    index.save()
    return changes


def write_description(config: Config, adapter: DatasetAdapter, folder: AnyPath) -> None:
    """Write `dataset.json`; once it exists only the palette and the schema can change."""
    identity = dataset_identity(config)
    description = {
        "schema": DATASET_SCHEMA,
        "fingerprint": fingerprint(identity),
        "identity": identity,
        "classes": list(adapter.classes),
        "palette": [list(colour) for colour in adapter.palette],
        "modalities": {name: asdict(spec) for name, spec in config.specs().items()},
        "shard_size": config.store.shard_size,
    }
    write_json(folder / DATASET, description)


def _failures(listing: Listing, records: DatasetRecords) -> Iterator[Failure]:
    for samples in listing.values():
        for sample in samples:
            reason = records.refusal(sample)
            if reason is not None:
                yield Failure(sample.key, reason)


def _details(
    folder: AnyPath, listing: Listing, records: DatasetRecords, changes: Mapping[str, SourceChanges]
) -> dict[str, Any]:
    return {
        "dataset": str(folder),
        "samples": {
            split: sum(sample.key in records.keys for sample in samples)
            for split, samples in listing.items()
        },
        "source": {
            split: {
                "removed": len(changed.removed),
                "altered": len(changed.altered),
                "unknown": changed.unknown,
                "unreadable": changed.touched,
            }
            for split, changed in changes.items()
        },
        "advice": [line for split, changed in changes.items() for line in changed.advice(split)],
    }


def _require_unique_keys(listing: Listing) -> None:
    counts = Counter(sample.key for samples in listing.values() for sample in samples)
    twice = [key for key, number in counts.items() if number > 1]
    if twice:
        raise DatasetError(f"key {twice[0]!r} is listed {counts[twice[0]]} times; expected once")


class _RefusalQuota:
    """Raises `DatasetError` as soon as more than `prepare.max_refused` of a split is refused.

    The quarantine, with all reasons, is written first.
    """

    def __init__(self, config: Config, listing: Listing, records: DatasetRecords) -> None:
        self._share = config.prepare.max_refused
        self._listing = listing
        self._records = records
        self.met: list[Failure] = []
        """Samples that this run refused."""
        self._counts = {
            split: sum(1 for _ in _failures({split: samples}, records))
            for split, samples in listing.items()
        }
        for split in listing:
            self._require_few(split)

    def add(self, split: str, results: Sequence[EncodedSample | Refused]) -> None:
        """Count the refusals of a committed chunk."""
        met = [Failure(r.key, r.reason) for r in results if isinstance(r, Refused)]
        self.met += met
        self._counts[split] += len(met)
        self._require_few(split)

    def _require_few(self, split: str) -> None:
        samples, number = self._listing[split], self._counts[split]
        if number <= self._share * len(samples):
            return
        quarantine = self._records.merge_quarantine()
        failures = islice(_failures({split: samples}, self._records), NAMED_IN_ERRORS)
        named = "; ".join(f"{f.unit}: {f.reason}" for f in failures)
        raise DatasetError(
            f"split {split!r}: {number} of {len(samples)} samples refused, "
            f"prepare.max_refused = {self._share:g} ({named}; all in {quarantine}). "
            "Fix them, or continue without them: --set prepare.max_refused=SHARE."
        )


def _require_some_good(listing: Listing, records: DatasetRecords) -> None:
    for split, samples in listing.items():
        if not any(sample.key in records.keys for sample in samples):
            raise DatasetError(f"split {split!r}: every sample was refused; fix the source")
