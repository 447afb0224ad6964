"""The common part of every adapter over a dataset folder: listing, refusing, decoding, sizes.

An adapter gives the files of each sample (`_entries`) and reads a file (`_read`, `_read_label`).
A folder that cannot be listed is a `DatasetError`; a sample that is ambiguous, incomplete or broken
raises `SampleRefused`, with its name, when it is loaded.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from pipeline.core.splits import SPLIT_ORDER
from pipeline.datasets.base import DatasetOptions, LoadedSample, SourceSample
from pipeline.datasets.patterns import Match, Matches
from pipeline.datasets.resize import resize_sample
from pipeline.errors import DatasetError, SampleRefused
from pipeline.formats.image_file import EXTENSIONS, BadImageError
from pipeline.formats.shard_tar import MAX_MEMBER_NAME, META_MEMBER, image_member
from pipeline.modalities import LABEL, ModalitySpec

DIGEST_CHARS = 16
"""Of the digest at the end of a shortened key."""
MIN_KEY_BYTES = 32
"""No key is made shorter than this; with a modality whose name leaves less room, it is refused."""
SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class TreeOptions(DatasetOptions):
    """Options of every adapter that reads a dataset folder."""

    root: Path
    """Folder that holds the data set."""
    missing: Literal["refuse", "allow"] = "refuse"
    """Whether a sample may lack some of its modalities."""
    size_px: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    """Resize all modalities and labels in `prepare`: the shorter side, or [height, width]."""

    optional_fields: ClassVar[frozenset[str]] = frozenset({"size_px"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One sample as listed: what its paths say of it, and every file that claims a part of it."""

    match: Match
    files: Mapping[str, Sequence[Path]]
    """Modality, and `label`, to its files; more than one is a refusal."""
    corner_case: str = ""
    companions: tuple[Path, ...] = ()
    """Further files that `_read` opens for this sample."""


class TreeAdapter(ABC):
    """`DatasetAdapter` over files, listed once on first use. Subclasses implement the abstract methods."""

    def __init__(self, options: TreeOptions, modalities: Mapping[str, ModalitySpec]) -> None:
        self._tree = options
        self._specs = dict(modalities)

    def splits(self) -> tuple[str, ...]:
        """Names of the splits; train, val and test first."""
        return tuple(self._samples)

    def samples(self, split: str) -> Sequence[SourceSample]:
        """Samples in the order of their names (or list rows). `DatasetError` if there are none."""
        samples = self._samples.get(split, [])
        if not samples:
            others = ", ".join(s for s in self._samples if self._samples[s]) or "none"
            raise DatasetError(
                f"{self._tree.root}: split {split!r} is empty (splits with samples: {others}). "
                f"Put images ({', '.join(sorted(EXTENSIONS))}) there, or remove the directories."
            )
        return samples

    def load(self, sample: SourceSample) -> LoadedSample:
        """Decode a sample. `SampleRefused` names the file, what was expected and what was found."""
        if sample.key in self._refusals:
            raise SampleRefused(sample.key, self._refusals[sample.key])
        try:
            decoded = self._decode(sample)
        except BadImageError as error:
            raise SampleRefused(sample.key, str(error)) from None
        return resize_sample(decoded, self._tree.size_px, self._specs)

    def read(self, modality: str, path: Path) -> NDArray[Any]:
        """Stored form of one modality's file. Raises `BadImageError`."""
        return self._read(modality, path)

    def _decode(self, sample: SourceSample) -> LoadedSample:
        if sample.label is None:
            raise BadImageError(f"no label: expected {self._expected(LABEL, sample)}")
        absent = [name for name in self._specs if name not in sample.files]
        if absent and (self._tree.missing == "refuse" or not sample.files):
            raise BadImageError(f"no {absent[0]}: expected {self._expected(absent[0], sample)}")
        label = self._read_label(Path(sample.label))
        arrays = {}
        for name, file in sample.files.items():
            arrays[name] = self._fitted(name, self._read(name, Path(file)), label.shape)
            if arrays[name].shape[:2] != label.shape:
                raise BadImageError(
                    f"{file}: expected the label's size {_size(label)}, found {_size(arrays[name])}"
                )
        return LoadedSample(arrays, label)

    @property
    def _samples(self) -> dict[str, list[SourceSample]]:
        return self._index[0]

    @property
    def _refusals(self) -> dict[str, str]:
        return self._index[1]

    @cached_property
    def _index(self) -> tuple[dict[str, list[SourceSample]], dict[str, str]]:
        """Samples by split, and for each key that cannot be used the reason."""
        self._require_tree()
        samples: dict[str, list[SourceSample]] = {}
        refusals: dict[str, str] = {}
        name_of_key: dict[str, str] = {}
        longest = max_key_bytes(self._specs)
        for split, entries in self._entries().items():
            samples[split] = []
            for entry in entries:
                match = entry.match
                key = make_key(split, match.condition, match.name, max_bytes=longest)
                name = "/".join(filter(None, (split, match.condition, match.name)))
                if key in name_of_key:
                    # The first of the two is in `samples` already and must be refused as well.
                    refusals[key] = f"{name_of_key[key]} and {name} give the same key; rename one"
                    _blank(samples, key)
                    continue
                name_of_key[key] = name
                samples[split].append(self._sample(key, split, entry, refusals))
        return samples, refusals

    def _sample(self, key: str, split: str, entry: Entry, refusals: dict[str, str]) -> SourceSample:
        """The sample of an entry; an ambiguous file is left out and noted in `refusals`."""
        files: dict[str, str] = {}
        for name, paths in entry.files.items():
            if len(paths) == 1:
                files[name] = str(paths[0].absolute())
            elif paths:
                listed = ", ".join(str(path) for path in paths)
                refusals[key] = f"expected one {name} image, found {listed}; keep one"
        label = files.pop(LABEL, None)
        return SourceSample(
            key,
            split,
            files,
            label,
            condition=self._condition(entry.match),
            corner_case=entry.corner_case,
            companions=tuple(str(path.absolute()) for path in entry.companions),
        )

    def _require_tree(self) -> None:
        """`DatasetError` naming the missing folder."""
        root = self._tree.root
        if not root.is_dir():
            raise DatasetError(
                f"dataset.root: no such folder {root}. Use --set dataset.root=FOLDER."
            )

    def _condition(self, match: Match) -> str:
        return match.condition

    def _fitted(self, name: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """The array at the label's (H, W) `shape`, for modalities that may come at another size."""
        del name, shape
        return array

    @abstractmethod
    def _entries(self) -> Mapping[str, Iterable[Entry]]:
        """Entries by split, in the order of the data set. `DatasetError` if there are none."""

    @abstractmethod
    def _expected(self, name: str, sample: SourceSample) -> str:
        """Where the file of a modality or the label should lie; ends a refusal."""

    @abstractmethod
    def _read(self, name: str, path: Path) -> NDArray[Any]:
        """Stored form of one modality. Raises `BadImageError`."""

    @abstractmethod
    def _read_label(self, path: Path) -> NDArray[np.uint8]:
        """(H, W) class ids. Raises `BadImageError`."""


def entries_by_split(by_modality: Mapping[str, Matches]) -> dict[str, list[Entry]]:
    """A sample for each match of any modality's pattern, by split, sorted by condition and name."""
    samples = sorted({match for one in by_modality.values() for match in one.files}, key=_order)
    splits = {split for one in by_modality.values() for split in one.splits}
    entries: dict[str, list[Entry]] = {split: [] for split in ordered(splits)}
    for match in samples:
        entries[match.split].append(
            Entry(match, {name: one.files.get(match, []) for name, one in by_modality.items()})
        )
    return entries


# Tuples are compared several times as fast as `Match` objects.
_order = attrgetter("split", "condition", "name")


def entries_by_table(
    by_modality: Mapping[str, Matches], table: Mapping[str, Sequence[str]]
) -> dict[str, list[Entry]]:
    """Entries of the samples that a table of splits names, in its order, with or without files."""
    by_name: dict[str, dict[str, list[Path]]] = {}
    conditions: dict[str, str] = {}
    for modality, one in by_modality.items():
        files: dict[str, list[Path]] = defaultdict(list)
        for match, paths in sorted(one.files.items()):
            files[match.name] += paths
            conditions.setdefault(match.name, match.condition)
        by_name[modality] = files
    return {
        split: [
            Entry(
                Match(split, conditions.get(name, ""), name),
                {modality: files.get(name, []) for modality, files in by_name.items()},
            )
            for name in names
        ]
        for split, names in table.items()
    }


def ordered(splits: Iterable[str]) -> list[str]:
    """Split names, train, val and test first. `DatasetError` on a name that cannot be one."""
    names = sorted(splits)
    for split in names:
        if not SPLIT_NAME.fullmatch(split):
            raise DatasetError(f"split {split!r}: expected letters, digits, _ and -. Rename it.")
    return [s for s in SPLIT_ORDER if s in names] + [s for s in names if s not in SPLIT_ORDER]


def make_key(*parts: str, max_bytes: int | None = None) -> str:
    """Parts joined by `_`, in letters, digits, `_`, `-`; other ASCII becomes `_`, the rest `u<hex>`.

    A key of more than `max_bytes` is cut and ends in a digest of the parts, so that two never become one.
    """

    def safe(char: str) -> str:
        if char.isascii():
            return char if char.isalnum() or char in "_-" else "_"
        return f"u{ord(char):04x}"

    key = "_".join("".join(map(safe, part)) for part in parts if part)
    if max_bytes is None or len(key) <= max_bytes:
        return key
    digest = hashlib.sha256("/".join(parts).encode(errors="surrogateescape")).hexdigest()
    return f"{key[: max_bytes - DIGEST_CHARS - 1]}-{digest[:DIGEST_CHARS]}"


def max_key_bytes(modalities: Iterable[str]) -> int:
    """Length of the longest key with which every member of a sample has a name that a shard can hold."""
    endings = [META_MEMBER, *map(image_member, (LABEL, *modalities))]
    return max(MIN_KEY_BYTES, MAX_MEMBER_NAME - 1 - max(len(e.encode()) for e in endings))


def _blank(samples: dict[str, list[SourceSample]], key: str) -> None:
    """Forget the files of a refused key, so that its version changes once it is unique."""
    for split, listed in samples.items():
        samples[split] = [SourceSample(key, s.split) if s.key == key else s for s in listed]


def _size(array: NDArray[Any]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
