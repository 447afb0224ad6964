"""The dataset adapter: it lists samples cheaply and loads one sample into its stored form.

A new data set is one file that satisfies `DatasetAdapter` and one line in `pipeline.datasets.ADAPTERS`.
Adapters are picklable (they are sent to worker processes) and never write.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pipeline.core.frozen_model import Frozen
from pipeline.modalities import LABEL, ModalitySpec

IGNORE_ID = 255
"""Label value of pixels that no loss and no score counts."""

RGB = tuple[int, int, int]
ABSENT = "absent"
"""Stands for the version and the digest of a file that does not exist."""


@dataclass(frozen=True, slots=True)
class SourceSample:
    """One sample as listed: nothing is decoded yet.

    `key` is unique in the data set and has no dot, slash or white space (webdataset ends keys at the
    first dot).
    """

    key: str
    split: str
    files: Mapping[str, str] = field(default_factory=dict)
    """Modality name to absolute path; empty for rendered data."""
    label: str | None = None
    """Absolute path of the label image; None for rendered data."""
    condition: str = ""
    corner_case: str = ""
    companions: tuple[str, ...] = ()
    """Absolute paths of further files that the sample is made of (masks, second halves)."""
    shard: str = ""
    """Absolute path of the source shard that holds it; a new shard never mixes two source shards."""

    ranges: tuple[tuple[str, int, int], ...] = ()
    """Its members in `shard`: name without the key, offset and number of bytes."""

    @property
    def has_files(self) -> bool:
        """Whether it is made of files; rendered data is not."""
        return bool(self.files or self.label or self.companions)

    def version(self) -> str:
        """Changes when a source file changes (size and mtime); empty for rendered data."""
        if self.shard:
            return _file_version(self.shard)
        paths = [*self.files.values(), *([self.label] if self.label else []), *self.companions]
        return ";".join(map(_file_version, sorted(paths)))

    def content_sha256(self) -> str:
        """Digest of the source files' content, whatever their names and times; empty for rendered
        data.

        Hex sha256 over a line `<part>:<sha256 of its bytes>` for each part in sorted order. Parts are
        the modalities, `label` and `companion0`, ..., or the members of a sample in a shard. A file
        that no longer exists is `absent`. `OSError` if one cannot be read.
        """
        digests = self._range_digests() if self.shard else self._file_digests()
        lines = "".join(f"{part}:{digests[part]}\n" for part in sorted(digests))
        return hashlib.sha256(lines.encode()).hexdigest() if digests else ""

    def _file_digests(self) -> dict[str, str]:
        parts = {f"companion{n}": path for n, path in enumerate(self.companions)}
        parts.update(self.files)
        if self.label:
            parts[LABEL] = self.label
        return {part: _file_digest(path) for part, path in parts.items()}

    def _range_digests(self) -> dict[str, str]:
        digests = {}
        try:
            with open(self.shard, "rb") as file:
                for name, offset, num_bytes in self.ranges:
                    file.seek(offset)
                    digests[name] = hashlib.sha256(file.read(num_bytes)).hexdigest()
        except FileNotFoundError:
            return {name: ABSENT for name, _, _ in self.ranges}
        return digests


def _file_version(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return ABSENT
    return f"{status.st_size}:{status.st_mtime_ns}"


def _file_digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ABSENT


@dataclass(frozen=True, slots=True)
class LoadedSample:
    """A decoded sample: every array has the height and width of the label."""

    arrays: Mapping[str, NDArray[Any]]
    """Modality name to its stored form (see `pipeline.modalities`); absent modalities are left out."""
    label: NDArray[np.uint8]
    """(H, W) class ids 0..K-1, `IGNORE_ID` elsewhere."""


@dataclass(frozen=True, slots=True)
class StoredSample:
    """A sample whose source is a shard and in the stored form already."""

    members: Mapping[str, bytes]
    """Name as in our shards, without the key, to the bytes as they are."""
    shard: str
    """Absolute path of the source shard."""


class DatasetOptions(Frozen):
    """Options of one adapter: the `[dataset]` table of a config, discriminated by `adapter`."""

    adapter: str
    """Name of the adapter, a key of `pipeline.datasets.ADAPTERS`."""

    growth_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that only say which samples exist; they stay out of the dataset fingerprint."""
    optional_fields: ClassVar[frozenset[str]] = frozenset()
    """Fields that stay out of it at their default, so that adding one invalidates no old data."""

    def identity(self) -> dict[str, Any]:
        """What the dataset fingerprint covers: all but growth fields and unused optional ones."""
        fields = type(self).model_fields
        unused = {f for f in self.optional_fields if getattr(self, f) == fields[f].default}
        return self.model_dump(mode="json", exclude={*self.growth_fields, *unused})


class DatasetAdapter(Protocol):
    """Access to one data set."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the index is the label id."""

    @property
    def palette(self) -> tuple[RGB, ...]:
        """One colour a class, for display."""

    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have samples, e.g. ("train", "val", "test")."""

    def samples(self, split: str) -> Sequence[SourceSample]:
        """Samples of a split in a fixed order; nothing is decoded. `DatasetError` if none."""

    def load(self, sample: SourceSample) -> LoadedSample:
        """Decode one sample. `SampleRefused` names the file, what was expected and found."""


@runtime_checkable
class ShardSource(Protocol):
    """Optional part of an adapter whose source may be shards that need no change."""

    def stored(self, sample: SourceSample, loaded: LoadedSample) -> StoredSample | None:
        """The source's own bytes, if they are exactly what `loaded` would be stored as."""


@runtime_checkable
class FileReader(Protocol):
    """Optional part of an adapter whose samples are files that can be read one by one."""

    def read(self, modality: str, path: Path) -> NDArray[Any]:
        """A file in its modality's stored form, by the adapter's options. `BadImageError`."""


class AdapterFactory(Protocol):
    """Builds an adapter from its options and the modalities that a config asks for."""

    def __call__(self, options: Any, modalities: Mapping[str, ModalitySpec]) -> DatasetAdapter:
        """`ConfigError` if the options cannot serve the modalities."""
