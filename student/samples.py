"""Samples of a split, found in the manifest and read from their shard by key.

The manifest says where a member's bytes lie, so one sample costs one short read per member:
nothing else of the shard is touched, parsed or kept, whatever the number of loader processes. The
tar header before the bytes has to name the very key and member that were asked for, and a shard's
sha256 is checked when a process first opens it; anything else is a `CorruptShard`. Only the
modalities asked for are read and decoded. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.codecs import decode_label, decode_picture
from pipeline.errors import CorruptShard, DatasetError
from pipeline.files import AnyPath
from pipeline.manifest import Manifest, ShardInfo
from pipeline.modalities import ModalitySpec
from pipeline.remote import RemotePath
from pipeline.shards import LABEL, local_shard, stored_member

TAR_BLOCK_BYTES = 512
TAR_NAME_BYTES = 100


@dataclass(frozen=True, slots=True)
class SampleRef:
    """One sample of a split: what it is and where its bytes lie; nothing is read yet."""

    key: str
    shard: ShardInfo
    height: int
    width: int
    condition: str
    corner_case: str
    present: tuple[bool, ...]
    """For each modality asked for, whether the sample has it."""
    spans: Mapping[str, tuple[int, int]]
    """Member name without the key, to (offset, number of bytes) in the tar."""
    untaught: tuple[int, ...] = ()
    """Places in `present` that have no teacher outputs and are trained without."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Stored forms of one sample; absent modalities are left out."""

    arrays: Mapping[str, NDArray[Any]]
    label: NDArray[np.uint8]


def list_samples(manifest: Manifest, split: str, modalities: Sequence[str]) -> list[SampleRef]:
    """Samples that have at least one of the modalities, in manifest order. `DatasetError` if
    none."""
    shards = {shard.index: shard for shard in manifest.shards(split)}
    refs = [
        SampleRef(
            key=row["key"],
            shard=shards[row["shard"]],
            height=row["height"],
            width=row["width"],
            condition=row["condition"],
            corner_case=row["corner_case"],
            present=tuple(name in row["modalities"] for name in modalities),
            spans={m["name"]: (m["offset"], m["num_bytes"]) for m in row["members"]},
        )
        for row in manifest.rows(split)
    ]
    usable = [ref for ref in refs if any(ref.present)]
    if not usable:
        raise DatasetError(
            f"{manifest.folder}: no sample of split {split!r} has any of {', '.join(modalities)}. "
            f"Check [modalities] and run `any2seg prepare CONFIG`."
        )
    return usable


def start_method(refs: Sequence[SampleRef], workers: int) -> str | None:
    """How loader processes start; None: as usual. Connections to an object store do not survive a
    fork."""
    remote = any(isinstance(ref.shard.path, RemotePath) for ref in refs[:1])
    return "spawn" if workers and remote else None


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
                    data = read_member(file, ref, member)
                    arrays[name] = decode_picture(data, spec, f"{path}: {ref.key}.{member}")
            member = stored_member(LABEL, ref.spans)
            data = read_member(file, ref, member)
        label = decode_label(data, f"{path}: {ref.key}.{member}")
        return Decoded(arrays, label)

    def _open(self, shard: ShardInfo) -> BinaryIO:
        """The shard, verified when this process first opens it."""
        if shard.path in self._copies:
            with suppress(FileNotFoundError):  # a copy that left the bounded cache since
                return self._copies[shard.path].open("rb", buffering=0)
        self._copies[shard.path] = local_shard(shard.path, shard.sha256)
        return self._copies[shard.path].open("rb", buffering=0)


def read_member(file: BinaryIO, ref: SampleRef, member: str) -> bytes:
    """Bytes of a member, if the tar has them under that name where the manifest says."""
    wanted = f"{ref.key}.{member}"
    offset, num_bytes = ref.spans.get(member, (0, 0))
    file.seek(max(0, offset - TAR_BLOCK_BYTES))
    block = file.read(TAR_BLOCK_BYTES + num_bytes)
    found = block[:TAR_NAME_BYTES].rstrip(b"\0").decode(errors="replace")
    if found != wanted or len(block) != TAR_BLOCK_BYTES + num_bytes:
        raise CorruptShard(
            f"{ref.shard.path}: expected member {wanted} at byte {offset}, "
            f"found {found or 'nothing'!r}. "
            f"Delete the dataset's manifest.parquet and run `any2seg prepare CONFIG`."
        )
    return block[TAR_BLOCK_BYTES:]
