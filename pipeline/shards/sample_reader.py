"""Samples of a split, listed from the manifest and read from their shard by key.

The only module that reads a single sample's bytes from a shard. The manifest says where a
member's bytes lie, so a sample takes one short read per member, and no tar index is parsed or kept
in any loader process. The tar header before the bytes must name exactly the requested key and
member; anything else is a `CorruptShard`. `SampleReader` also checks a shard's sha256 when a process
first opens it; `read_stored`, for a few members of many large shards, does not. Only the requested
modalities are read and decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import CorruptShard, DatasetError
from pipeline.formats.image_codec import decode_image, decode_label
from pipeline.formats.shard_tar import local_shard, stored_member
from pipeline.modalities import LABEL, ModalitySpec
from pipeline.shards.manifest import Manifest, ShardInfo, holds, strings
from pipeline.storage.files import AnyPath, read_range

TAR_BLOCK_BYTES = 512
TAR_NAME_BYTES = 100
_SPAN = Struct("=qq")


@dataclass(frozen=True, slots=True)
class SampleRef:
    """One sample of a split: its manifest row and where its bytes lie."""

    key: str
    shard: ShardInfo
    height: int
    width: int
    condition: str
    corner_case: str
    present: tuple[bool, ...]
    """For each requested modality, whether the sample has it."""
    spans: Mapping[str, tuple[int, int]]
    """Member name without the key, to (offset, number of bytes) in the tar."""
    missing_targets: tuple[int, ...] = ()
    """Indices into `present` of modalities that are trained on without teacher targets."""


@dataclass(frozen=True, slots=True)
class Spans(Mapping[str, tuple[int, int]]):
    """Member names to spans, packed: of a million samples these take most of the memory."""

    names: tuple[str, ...]
    """One object for all samples that have the same members."""
    packed: bytes
    """(offset, number of bytes) of each, as int64."""

    def __getitem__(self, name: str) -> tuple[int, int]:
        if name not in self.names:
            raise KeyError(name)
        span: tuple[int, int] = _SPAN.unpack_from(self.packed, self.names.index(name) * _SPAN.size)
        return span

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True)
class Decoded:
    """Stored forms of one sample; absent modalities have no entry."""

    arrays: Mapping[str, NDArray[Any]]
    label: NDArray[np.uint8]


def list_samples(manifest: Manifest, split: str, modalities: Sequence[str]) -> list[SampleRef]:
    """Samples with at least one of the modalities, in manifest order. `DatasetError` if none."""
    shards = [shard for shard in manifest.shards(split) for _ in shard.keys]
    names = ("key", "height", "width", "condition", "corner_case", "modalities")
    table = manifest.table(split, (*names, "members"))
    present = np.stack([holds(table["modalities"], name) for name in modalities], axis=1)
    columns = (
        strings(table["key"]),
        shards,
        table["height"].to_pylist(),
        table["width"].to_pylist(),
        strings(table["condition"]),
        strings(table["corner_case"]),
        map(tuple, present.tolist()),
        _spans(table["members"]),
    )
    refs = [SampleRef(*fields) for fields in zip(*columns, strict=True)]
    usable = [ref for ref in refs if any(ref.present)]
    if not usable:
        raise DatasetError(
            f"{manifest.folder}: no sample of split {split!r} has any of {', '.join(modalities)}. "
            f"Check [modalities] and run `any2seg prepare CONFIG`."
        )
    return usable


def _spans(members: pa.ChunkedArray) -> Iterator[Spans]:
    """The `members` column, row by row."""
    flat = pc.list_flatten(members).combine_chunks()
    # Not `.field()`: on a slice it gives the whole column.
    names = pc.struct_field(flat, "name").dictionary_encode()
    dictionary = names.dictionary.to_pylist()
    codes = names.indices.to_numpy()
    spans = [pc.struct_field(flat, name).to_numpy() for name in ("offset", "num_bytes")]
    packed = np.stack(spans, axis=1)
    ends = np.cumsum(pc.list_value_length(members).to_numpy())
    shared: dict[bytes, tuple[str, ...]] = {}
    for start, end in pairwise([0, *ends.tolist()]):
        row = codes[start:end]
        if (code := row.tobytes()) not in shared:
            shared[code] = tuple(dictionary[index] for index in row)
        yield Spans(shared[code], packed[start:end].tobytes())


@dataclass
class SampleReader:
    """Reads and decodes samples; remembers the verified local file of each shard."""

    specs: Mapping[str, ModalitySpec]
    _copies: dict[AnyPath, Path] = field(default_factory=dict)

    def read(self, ref: SampleRef) -> Decoded:
        """The present modalities and the label of one sample. Raises `CorruptShard`."""
        path = ref.shard.path
        arrays = {}
        with self._open(ref.shard) as file:
            for (name, spec), present in zip(self.specs.items(), ref.present, strict=True):
                if present:
                    member = stored_member(name, ref.spans)
                    data = _read_member(file, ref, member)
                    arrays[name] = decode_image(data, spec, f"{path}: {ref.key}.{member}")
            member = stored_member(LABEL, ref.spans)
            data = _read_member(file, ref, member)
        label = decode_label(data, f"{path}: {ref.key}.{member}")
        return Decoded(arrays, label)

    def _open(self, shard: ShardInfo) -> BinaryIO:
        """The shard, verified when this process first opens it."""
        while True:
            if shard.path not in self._copies:
                self._copies[shard.path] = local_shard(shard.path, shard.sha256)
            try:
                return self._copies[shard.path].open("rb", buffering=0)
            except FileNotFoundError:  # the bounded cache has evicted the copy: fetch it again
                del self._copies[shard.path]


def read_stored(
    shard: ShardInfo, key: str, modality: str, spans: Mapping[str, tuple[int, int]]
) -> bytes:
    """The stored bytes of one modality of a sample, by one ranged read, not decoded.

    Checks the member's tar header but not the shard's sha256, which would take reading all of it.
    Raises `CorruptShard`.
    """
    member = stored_member(modality, spans)
    offset, num_bytes = spans.get(member, (0, 0))
    start = max(0, offset - TAR_BLOCK_BYTES)
    block = read_range(shard.path, start, TAR_BLOCK_BYTES + num_bytes)
    return _member_bytes(block, shard.path, f"{key}.{member}", offset, num_bytes)


def _read_member(file: BinaryIO, ref: SampleRef, member: str) -> bytes:
    offset, num_bytes = ref.spans.get(member, (0, 0))
    file.seek(max(0, offset - TAR_BLOCK_BYTES))
    block = file.read(TAR_BLOCK_BYTES + num_bytes)
    return _member_bytes(block, ref.shard.path, f"{ref.key}.{member}", offset, num_bytes)


def _member_bytes(block: bytes, path: AnyPath, name: str, offset: int, num_bytes: int) -> bytes:
    """The bytes after the tar header in `block`, which must be the header of the member `name`."""
    header_name = block[:TAR_NAME_BYTES].rstrip(b"\0").decode(errors="replace")
    if header_name != name or len(block) != TAR_BLOCK_BYTES + num_bytes:
        raise CorruptShard(
            f"{path}: expected member {name} at byte {offset}, found {header_name or 'nothing'!r}. "
            f"Delete the dataset's manifest.parquet and run `any2seg prepare CONFIG`."
        )
    return block[TAR_BLOCK_BYTES:]
