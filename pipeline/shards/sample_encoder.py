"""Source samples to shard members: decoding, checking and encoding one sample.

A sample that the adapter refuses, or whose arrays do not have the stored form, is returned as
`Refused` in its position; anything else an adapter raises is a defect and is not caught.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.fingerprint import canonical_json
from pipeline.datasets.base import (
    IGNORE_ID,
    DatasetAdapter,
    LoadedSample,
    ShardSource,
    SourceSample,
)
from pipeline.errors import SampleRefused
from pipeline.formats.image_codec import encode_array
from pipeline.formats.shard_tar import MAX_MEMBER_NAME, META_MEMBER, image_member
from pipeline.modalities import LABEL, ModalitySpec, check_array
from pipeline.shards.statistics import measure


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """A sample as it goes into a shard."""

    key: str
    members: Mapping[str, bytes]
    facts: Mapping[str, Any]
    """Manifest columns that come from the sample itself."""
    shard: str = ""
    """Source shard whose members are stored unchanged; empty: the images were encoded."""
    version: str = ""
    """`SourceSample.version()` of what was read."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A sample that goes into quarantine."""

    key: str
    reason: str
    version: str
    """`SourceSample.version()` at the time of the attempt."""


@dataclass(frozen=True, slots=True)
class SampleEncoder:
    """Loads and encodes one sample; picklable, for worker processes."""

    adapter: DatasetAdapter
    specs: Mapping[str, ModalitySpec]

    def __call__(self, sample: SourceSample) -> EncodedSample | Refused:
        """Decode, check and encode. Never raises `SampleRefused`."""
        version = sample.version()
        try:
            loaded = self.load(sample)
            # The files are still in the page cache: reading them twice costs only the hashing.
            source = {"source_sha256": _content_sha256(sample, version)}
        except SampleRefused as error:
            return Refused(sample.key, error.reason, version)
        facts = {**self.facts(sample, loaded), **source}
        adapter = self.adapter
        stored = adapter.stored(sample, loaded) if isinstance(adapter, ShardSource) else None
        images = stored.members if stored else self._encoded(loaded)
        meta = canonical_json(self._identity(sample, loaded)).encode()
        members = {**images, META_MEMBER: meta}
        return EncodedSample(sample.key, members, facts, stored.shard if stored else "", version)

    def load(self, sample: SourceSample) -> LoadedSample:
        """Decode and check. `SampleRefused` if it cannot be read or lacks the stored form."""
        loaded = self.adapter.load(sample)
        self._check(sample, loaded)
        return loaded

    def facts(self, sample: SourceSample, loaded: LoadedSample) -> dict[str, Any]:
        """The manifest columns that come from the sample itself."""
        counts = np.bincount(loaded.label.ravel(), minlength=IGNORE_ID + 1)
        return {
            **self._identity(sample, loaded),
            "class_pixels": counts[: len(self.adapter.classes)].tolist(),
            "ignored_pixels": int(counts[IGNORE_ID]),
            "statistics": [
                measure(name, array, self.specs[name]) for name, array in self._ordered(loaded)
            ],
        }

    def _check(self, sample: SourceSample, loaded: LoadedSample) -> None:
        label = loaded.label
        if label.ndim != 2 or label.dtype != np.uint8 or 0 in label.shape:
            raise SampleRefused(
                sample.key, f"label: expected (H, W) uint8, found {label.shape} {label.dtype}"
            )
        bad = np.unique(label[(label >= len(self.adapter.classes)) & (label != IGNORE_ID)])
        if bad.size:
            raise SampleRefused(sample.key, f"label id {bad[0]} is out of range")
        if not loaded.arrays:
            raise SampleRefused(sample.key, "no modality is present")
        for name, array in loaded.arrays.items():
            problem = check_array(array, self.specs[name])
            if problem is None and array.shape[:2] != label.shape:
                problem = f"expected the label's size {label.shape}, found {array.shape[:2]}"
            if problem:
                raise SampleRefused(sample.key, f"{name}: {problem}")
        # Adapters over files shorten their keys; one from elsewhere may not.
        longest = max(map(image_member, (LABEL, *loaded.arrays)), key=len)
        if len(f"{sample.key}.{longest}".encode()) > MAX_MEMBER_NAME:
            raise SampleRefused(
                sample.key,
                f"the key is too long: expected at most {MAX_MEMBER_NAME - len(longest) - 1} bytes, "
                f"found {len(sample.key.encode())}; rename the sample",
            )

    def _identity(self, sample: SourceSample, loaded: LoadedSample) -> dict[str, Any]:
        """The sample's `meta.json`: what the shard itself says about it."""
        return {
            "key": sample.key,
            "split": sample.split,
            "condition": sample.condition,
            "corner_case": sample.corner_case,
            "modalities": [name for name, _ in self._ordered(loaded)],
            "height": loaded.label.shape[0],
            "width": loaded.label.shape[1],
        }

    def _encoded(self, loaded: LoadedSample) -> dict[str, bytes]:
        arrays = [*self._ordered(loaded), (LABEL, loaded.label)]
        return {image_member(name): encode_array(array) for name, array in arrays}

    def _ordered(self, loaded: LoadedSample) -> list[tuple[str, NDArray[Any]]]:
        """The arrays in the order of the config."""
        return [(name, loaded.arrays[name]) for name in self.specs if name in loaded.arrays]


def _content_sha256(sample: SourceSample, version: str) -> str:
    """Digest of the files just read. `SampleRefused` if they changed meanwhile."""
    try:
        digest = sample.content_sha256()
    except OSError as error:
        raise SampleRefused(sample.key, f"cannot be read: {error}") from None
    if sample.version() != version:
        raise SampleRefused(
            sample.key,
            "its files changed while they were read; it is tried again by the next `any2seg prepare`",
        )
    return digest
