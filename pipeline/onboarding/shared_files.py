"""Files that two splits have in common: what a student has seen in training, it is scored on.

    shared_files(listing) -> list[SharedFiles]

Compared are bytes, not pixels. Lengths are compared first, then the first bytes, so that few files are read
whole. A file that cannot be read is left out: `doctor` reports it as a refusal.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from pipeline.core.splits import SPLIT_ORDER
from pipeline.datasets.base import SourceSample
from pipeline.modalities import LABEL

HEAD_BYTES = 4096
"""First bytes of a file, which tell most files of one length apart."""


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes of one modality of a sample: a file, or a member of a tar."""

    sample: SourceSample
    name: str
    """The modality, or the ending of the member."""
    path: str
    offset: int = 0
    num_bytes: int | None = None
    """None: all of the file."""


@dataclass(frozen=True, slots=True)
class SharedFiles:
    """Two splits, and how many samples of the second have a file of the first."""

    splits: tuple[str, str]
    count: int
    name: str
    """Modality of the first example."""
    keys: tuple[str, str]
    """Of the first example's two samples."""

    def __str__(self) -> str:
        first, second = self.splits
        files = "file" if self.count == 1 else "files"
        return (
            f"{self.count} {self.name} {files} of {second} equal to one of {first} (first: {self.keys[1]} "
            f"and {self.keys[0]}): scores on {second} would be too good. Remove them from one of the two"
        )


def shared_files(listing: Mapping[str, Sequence[SourceSample]]) -> list[SharedFiles]:
    """Equal files of different splits; labels are left out, since equal ones are common."""
    groups = [[part for samples in listing.values() for s in samples for part in _parts(s)]]
    for property_of in (_length, _head, _digest):
        groups = [sub for group in groups for sub in _divided(group, property_of)]
    return list(_by_splits(groups))


def _parts(sample: SourceSample) -> Iterator[Part]:
    if sample.shard:
        for ending, offset, num_bytes in sample.ranges:
            if ending.partition(".")[0] in sample.files:
                yield Part(sample, ending, sample.shard, offset, num_bytes)
        return
    for name, path in sample.files.items():
        if name != LABEL:
            yield Part(sample, name, path)


def _divided(group: Sequence[Part], property_of: Callable[[Part], object]) -> list[list[Part]]:
    """The parts with the same property, where more than one split has it."""
    divided: dict[tuple[str, object], list[Part]] = defaultdict(list)
    for part in group:
        try:
            divided[part.name, property_of(part)].append(part)
        except OSError:
            continue
    return [same for same in divided.values() if len({part.sample.split for part in same}) > 1]


def _length(part: Part) -> int:
    return os.stat(part.path).st_size if part.num_bytes is None else part.num_bytes


def _head(part: Part) -> bytes:
    return _read(part, HEAD_BYTES)


def _digest(part: Part) -> bytes:
    return hashlib.sha256(_read(part, _length(part))).digest()


def _read(part: Part, at_most: int) -> bytes:
    with open(part.path, "rb") as file:
        file.seek(part.offset)
        return file.read(min(at_most, _length(part)))


def _by_splits(groups: Sequence[Sequence[Part]]) -> Iterator[SharedFiles]:
    """One finding for each two splits and modality, in the order of the splits."""
    equal: dict[tuple[str, str, str], list[tuple[Part, Part]]] = defaultdict(list)
    for group in groups:
        firsts: dict[str, Part] = {}
        for part in group:
            firsts.setdefault(part.sample.split, part)
        for first, second in combinations(sorted(firsts, key=_rank), 2):
            pairs = [(firsts[first], part) for part in group if part.sample.split == second]
            equal[first, second, group[0].name] += pairs
    for (first, second, name), pairs in equal.items():
        keys = (pairs[0][0].sample.key, pairs[0][1].sample.key)
        yield SharedFiles((first, second), len(pairs), name, keys)


def _rank(split: str) -> tuple[int, str]:
    return (SPLIT_ORDER.index(split) if split in SPLIT_ORDER else len(SPLIT_ORDER), split)
