"""Where a student gets its teacher's answers: by shard, and from there by key.

`CachedTeacher` reads the target stores; another source (a live teacher) satisfies the same
protocol. Nothing is written and no teacher code is imported. `MissingTarget` and `CorruptTarget`
pass through.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.errors import CorruptShard, FingerprintMismatch, MissingTarget
from pipeline.manifest import ShardInfo
from pipeline.store_index import REMEDY
from pipeline.targets import EMBEDDING, TargetStore, resolve
from pipeline.workspace import Workspace

Targets = Mapping[str, Mapping[str, NDArray[Any]]]
"""Modality to output (`embedding`, `patch`) to an array."""

SampleT = TypeVar("SampleT")


class TeacherSource(Protocol):
    """Gives the teacher's answers for the samples of a shard."""

    @property
    def dim(self) -> int:
        """D, the width of an embedding."""

    def targets(self, shard: ShardInfo) -> Targets:
        """Arrays of (num_rows, ...), rows in the order of `shard.keys`; NaN rows where absent."""


@dataclass(frozen=True, slots=True)
class CachedTeacher:
    """Answers from the target stores; picklable, so that loader processes can have it."""

    stores: Mapping[str, TargetStore]
    """One store a modality."""
    outputs: tuple[str, ...] = (EMBEDDING,)

    @classmethod
    def open(
        cls, config: Config, workspace: Workspace, outputs: tuple[str, ...] = (EMBEDDING,)
    ) -> CachedTeacher:
        """The stores that serve a config. Raises `MissingTarget`, `FingerprintMismatch`."""
        stores = {name: resolve(config, workspace, name) for name in config.modalities}
        dims = {name: store.provenance.dim for name, store in stores.items()}
        if len(set(dims.values())) > 1:
            raise FingerprintMismatch(f"expected embeddings of one width, found {dims}. {REMEDY}")
        return cls(stores, outputs)

    @property
    def dim(self) -> int:
        """D, the width of an embedding."""
        return next(iter(self.stores.values())).provenance.dim

    @property
    def fingerprints(self) -> dict[str, str]:
        """Modality to the fingerprint of its tower."""
        return {name: store.provenance.tower_fingerprint for name, store in self.stores.items()}

    def require_complete(self, shards: Sequence[ShardInfo]) -> None:
        """Raise `MissingTarget` unless every shard is there, before a long run starts."""
        for modality, store in self.stores.items():
            missing = store.missing(shards)
            if missing:
                raise MissingTarget(
                    f"{store.path}: {len(missing)} of {len(shards)} shards have no {modality} "
                    f"targets (first: {missing[0].name}). {REMEDY}"
                )

    def targets(self, shard: ShardInfo) -> Targets:
        """Arrays of (num_rows, ...), rows in the order of `shard.keys`; NaN rows where absent."""
        return {
            modality: {output: store.read(shard, output) for output in self.outputs}
            for modality, store in self.stores.items()
        }


def join(
    shard: ShardInfo, targets: Targets, samples: Iterable[tuple[str, SampleT]]
) -> Iterator[tuple[str, SampleT, Targets]]:
    """Give each `(key, sample)` the rows of its key, whatever the samples' order or number.

    Yields (key, sample, modality -> output -> one row). Raises `CorruptShard` for a key that the
    manifest does not have in this shard.
    """
    rows = {key: row for row, key in enumerate(shard.keys)}
    for key, sample in samples:
        if key not in rows:
            raise CorruptShard(
                f"{shard.path}: holds sample {key!r}, which the manifest does not list there. "
                "Delete the file and run `any2seg prepare CONFIG`."
            )
        row = rows[key]
        yield key, sample, {m: {o: a[row] for o, a in outs.items()} for m, outs in targets.items()}
