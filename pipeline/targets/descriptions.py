"""Scene descriptions as stored: texts in Parquet, their embeddings in target stores.

    descriptions/<dataset>/
        texts/<slot>-<fp12>/provenance.json                 what the texts depend on
        texts/<slot>-<fp12>/<split>/<shard>.parquet         key, text; atomic, names the shard's sha256
        <slot>-<teacher>-<fp12>/...                         a target store of the texts' embeddings
        index/<slot>-<request-fp12>.json                    from a request to its store

A slot is `scene` (one description per sample) or a modality (one per image). Texts do not depend on
the text tower: other weights embed the same texts. `MissingTarget` if nothing was described.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.config import Config
from pipeline.config.teacher import DescriptionsConfig
from pipeline.core.fingerprint import SHORT, fingerprint
from pipeline.core.splits import TRAIN_SPLIT
from pipeline.shards.manifest import Manifest, ShardInfo, read_table
from pipeline.storage.files import AnyPath, write_atomic, write_json
from pipeline.targets.lookup import open_store, point_to
from pipeline.targets.provenance import PROVENANCE
from pipeline.targets.store import TargetStore
from pipeline.workspace import Workspace, dataset_slug

SCENE = "scene"
"""The slot of descriptions that belong to a sample as a whole."""
TEXTS = "texts"
_SHA256 = b"shard_sha256"


@dataclass(frozen=True, slots=True)
class TextStore:
    """The texts of one slot. Stateless: every call reads the files."""

    path: AnyPath

    @classmethod
    def create(cls, root: AnyPath, slot: str, identity: Mapping[str, Any]) -> TextStore:
        """Create or open the store of `identity` under `root` (`descriptions_root`)."""
        store = cls(root / TEXTS / f"{slot}-{fingerprint(identity)[:SHORT]}")
        if not (store.path / PROVENANCE).exists():
            write_json(store.path / PROVENANCE, dict(identity))
        return store

    def read(self, shard: ShardInfo) -> list[str] | None:
        """The texts in the order of `shard.keys`; None if there are none for the shard's present bytes."""
        try:
            table = read_table(self._file(shard))
        except (FileNotFoundError, pa.ArrowInvalid):
            return None
        current = (table.schema.metadata or {}).get(_SHA256) == shard.sha256.encode()
        if not current or tuple(table["key"].to_pylist()) != shard.keys:
            return None
        texts: list[str] = table["text"].to_pylist()
        return texts

    def write(self, shard: ShardInfo, texts: Sequence[str]) -> None:
        """Write one text per row of the shard (empty: the sample has none), durably and atomically."""
        table = pa.table({"key": list(shard.keys), "text": list(texts)})
        table = table.replace_schema_metadata({_SHA256: shard.sha256})

        def write(file: BinaryIO) -> None:
            pq.write_table(table, file, compression="zstd", write_page_checksum=True)

        write_atomic(self._file(shard), write)

    def _file(self, shard: ShardInfo) -> AnyPath:
        return self.path / shard.split / f"{shard.name}.parquet"


def descriptions_root(config: Config, workspace: Workspace) -> AnyPath:
    """`descriptions/<dataset>`."""
    return workspace.root / "descriptions" / dataset_slug(config)


def in_slot(shard: ShardInfo, slot: str) -> ShardInfo:
    """The shard as a target store of the slot sees it: every sample has a scene."""
    if slot == SCENE:
        return replace(shard, present={SCENE: (True,) * shard.num_rows})
    return shard


def description_request(config: Config, options: DescriptionsConfig) -> dict[str, Any]:
    """Everything that a config says about its descriptions; no weights are read."""
    return {
        "options": options.model_dump(mode="json", exclude={"modalities"}),
        "teacher": config.teacher.name,
        "revision": config.teacher.revision,
        "arithmetic": config.teacher.dtype,
        "dtype": config.store.dtype,
    }


def point_to_descriptions(
    config: Config, workspace: Workspace, options: DescriptionsConfig, store: TargetStore
) -> None:
    """Remember that this request is served by `store`."""
    root = descriptions_root(config, workspace)
    request = description_request(config, options)
    point_to(root, store.provenance.modality, request, store.path)


def resolve_descriptions(
    config: Config, workspace: Workspace, options: DescriptionsConfig, slot: str
) -> TargetStore:
    """The store of a slot's embedded descriptions. Raises `MissingTarget`."""
    root = descriptions_root(config, workspace)
    return open_store(root, slot, description_request(config, options))


def description_slots(options: DescriptionsConfig, modalities: Sequence[str]) -> tuple[str, ...]:
    """What is described: the scene, or each modality that is captioned."""
    if options.source == "from_labels":
        return (SCENE,)
    return options.modalities or tuple(modalities)


def described_shards(options: DescriptionsConfig, manifest: Manifest) -> tuple[ShardInfo, ...]:
    """The shards that get descriptions; from labels only those of the training split."""
    if options.source == "from_labels":
        return tuple(manifest.shards(TRAIN_SPLIT))
    return manifest.all_shards
