"""What `prepare` would do: samples to read, shards to write, bytes that they take.

Reads the source's listing and the manifest. Only `probe_samples` decodes: it encodes a few samples
where no shard shows yet how large one is. `DatasetError` if there is nothing to read. The plan cannot
know which samples will be refused, nor which shards a killed `prepare` has already committed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tarfile import BLOCKSIZE

from pipeline.config.config import Config
from pipeline.datasets import open_dataset
from pipeline.datasets.base import DatasetAdapter, ShardSource, SourceSample
from pipeline.errors import DatasetError
from pipeline.shards.manifest import QUARANTINE, Manifest, ShardInfo, read_rows
from pipeline.shards.sample_encoder import EncodedSample, SampleEncoder
from pipeline.storage.disk_space import require_space
from pipeline.storage.files import AnyPath
from pipeline.workspace import Workspace

NUM_PROBED = 4
"""Samples that are encoded to measure the size and the time of one."""
NUM_MEASURED = 32
"""Shards whose length is read."""
_TAR_END = 6144
"""Bytes at the end of a tar, on average: the end mark, filled up to a multiple of 10,240."""


@dataclass(frozen=True, slots=True)
class FutureShard:
    """A shard that `prepare` would write."""

    split: str
    num_samples: int
    num_images: Mapping[str, int]
    """Modality to number of images, according to the source's listing."""


@dataclass(frozen=True, slots=True)
class SampleProbe:
    """A few samples, encoded as they would be stored."""

    samples: tuple[EncodedSample, ...]
    seconds: float
    """For one sample, on one core."""


@dataclass(frozen=True, slots=True)
class PreparePlan:
    """What `prepare` has to read and to write."""

    samples: Mapping[str, int]
    """Split to samples that are in no shard and not in quarantine; only splits that have some."""
    shards: tuple[FutureShard, ...]
    num_bytes: int
    """Of the tars, estimated from existing ones or from a few encoded samples."""
    seconds: float | None
    """On one core, estimated from those few samples; None if none was encoded."""
    probe: SampleProbe | None


def plan_prepare(config: Config, workspace: Workspace, *, probe: bool = True) -> PreparePlan:
    """Count what `prepare` has to do. Without `probe` no sample is decoded."""
    folder = workspace.dataset(config)
    adapter = open_dataset(config.dataset, config.specs())
    manifest = load_if_prepared(folder)
    known = _known_keys(manifest, folder)
    unknown = {
        split: [s for s in adapter.samples(split) if not _is_known(s, known)]
        for split in adapter.splits()
    }
    unknown = {split: samples for split, samples in unknown.items() if samples}
    every = [sample for samples in unknown.values() for sample in samples]
    probed = probe_samples(config, adapter, every) if every and probe else None
    size = _sample_bytes(manifest, probed, folder)
    shards = _future_shards(config, unknown)
    return PreparePlan(
        samples={split: len(samples) for split, samples in unknown.items()},
        shards=tuple(shards),
        num_bytes=round(size * len(every)) + (len(shards) * _TAR_END if size else 0),
        seconds=probed.seconds * len(every) if probed else None,
        probe=probed,
    )


def require_room_for_shards(
    config: Config, adapter: DatasetAdapter, folder: AnyPath, samples: Sequence[SourceSample]
) -> None:
    """Raise `NotEnoughSpace` if the shards of `samples` would not fit on the dataset's disk."""
    if not samples or not isinstance(folder, Path):
        return
    manifest = load_if_prepared(folder)
    measured = manifest is not None and not isinstance(adapter, ShardSource)
    probed = None if measured else probe_samples(config, adapter, samples)
    needed = round(_sample_bytes(manifest, probed, folder) * len(samples))
    require_space(folder, needed, f"shards of {len(samples)} samples")


def probe_samples(
    config: Config, adapter: DatasetAdapter, samples: Sequence[SourceSample]
) -> SampleProbe:
    """Encode a few of `samples`, evenly spread; refused ones are left out."""
    step = max(1, len(samples) // NUM_PROBED)
    encoder = SampleEncoder(adapter, config.specs())
    chosen = samples[::step][:NUM_PROBED]
    started = time.perf_counter()
    results = [encoder(sample) for sample in chosen]
    seconds = (time.perf_counter() - started) / len(chosen)
    return SampleProbe(tuple(r for r in results if isinstance(r, EncodedSample)), seconds)


def load_if_prepared(folder: AnyPath) -> Manifest | None:
    """The manifest of a prepared dataset, or None."""
    try:
        return Manifest.load(folder)
    except DatasetError:
        return None


def measured_bytes(shards: Sequence[ShardInfo]) -> float:
    """Mean bytes of a sample in its shard, from the length of some shards; 0 if there are none."""
    some = [s for s in shards[:: max(1, len(shards) // NUM_MEASURED)] if s.path.exists()]
    return sum(s.path.stat().st_size for s in some) / max(1, sum(s.num_rows for s in some))


def _known_keys(manifest: Manifest | None, folder: AnyPath) -> dict[str, str]:
    """Keys in shards (to an empty string) and in quarantine (to the version that was refused)."""
    path = folder / QUARANTINE
    refused = {row["key"]: row["version"] for row in read_rows(path)} if path.exists() else {}
    shards = manifest.all_shards if manifest else ()
    return {**refused, **{key: "" for shard in shards for key in shard.keys}}


def _is_known(sample: SourceSample, known: Mapping[str, str]) -> bool:
    version = known.get(sample.key)
    return version == "" or (version is not None and version == sample.version())


def _future_shards(
    config: Config, unknown: Mapping[str, Sequence[SourceSample]]
) -> list[FutureShard]:
    """Split into shards as `prepare.plan` does: none mixes samples of two source shards."""
    size = config.store.shard_size
    return [
        _future_shard(config, split, group[start : start + size])
        for split, samples in unknown.items()
        for group in (list(run) for _, run in groupby(samples, key=lambda s: s.shard))
        for start in range(0, len(group), size)
    ]


def _future_shard(config: Config, split: str, samples: Sequence[SourceSample]) -> FutureShard:
    # Rendered samples name no files and have every modality.
    num_images = {
        name: sum(not sample.files or name in sample.files for sample in samples)
        for name in config.modalities
    }
    return FutureShard(split, len(samples), num_images)


def _sample_bytes(manifest: Manifest | None, probed: SampleProbe | None, folder: AnyPath) -> float:
    """Estimated bytes on disk of one more sample: from the shards, or from a few encoded samples."""
    samples = probed.samples if probed else ()
    if samples and (manifest is None or any(sample.shard for sample in samples)):
        return sum(_stored_bytes(sample, folder) for sample in samples) / len(samples)
    return measured_bytes(manifest.all_shards) if manifest else 0.0


def _stored_bytes(sample: EncodedSample, folder: AnyPath) -> int:
    if sample.shard and _can_link(Path(sample.shard), folder):
        return 0  # the source shard is hard-linked, not copied
    return sum(BLOCKSIZE * (2 + (len(data) - 1) // BLOCKSIZE) for data in sample.members.values())


def _can_link(source: Path, folder: AnyPath) -> bool:
    if not isinstance(folder, Path):
        return False
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return os.stat(source).st_dev == os.stat(existing).st_dev
