"""Paths of a workspace's artefacts, and the identity of a dataset (see storage_layout.md).

Makes paths only; touches no file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from pipeline.config.config import Config
from pipeline.core.fingerprint import SHORT, fingerprint
from pipeline.formats.shard_tar import WRITTEN
from pipeline.schemas import DATASET_IDENTITY_SCHEMA
from pipeline.storage.files import AnyPath
from pipeline.storage.pure_remote_path import CacheConfig
from pipeline.storage.remote_path import RemotePath


def dataset_identity(config: Config) -> dict[str, Any]:
    """Everything that the dataset fingerprint covers: adapter options, stored forms, shard size, schema."""
    return {
        "schema": DATASET_IDENTITY_SCHEMA,
        "options": config.dataset.identity(),
        "modalities": {name: spec.identity() for name, spec in config.specs().items()},
        "encoding": {"pictures": WRITTEN, "label": WRITTEN},
        "shard_size": config.store.shard_size,
    }


def dataset_slug(config: Config) -> str:
    """`<adapter>-<12 hex digits>` of the config's dataset."""
    return f"{config.dataset.adapter}-{fingerprint(dataset_identity(config))[:SHORT]}"


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder or object store prefix that holds every artefact."""

    root: AnyPath

    @classmethod
    def of(cls, config: Config) -> Workspace:
        """The config's workspace. Raises `ConfigError` for a URL that is not an object store's."""
        if isinstance(config.workspace, Path):
            return cls(config.workspace.resolve())
        folder = config.store.cache_dir or _platform_cache()
        cache = CacheConfig(folder.resolve(), int(config.store.cache_gb * 1e9))
        return cls(RemotePath.of(config.workspace, cache))

    def dataset(self, config: Config) -> AnyPath:
        """`datasets/<adapter>-<fp>`: dataset.json, shards, manifest.parquet, quarantine.parquet."""
        return self.root / "datasets" / dataset_slug(config)

    def targets(self, config: Config) -> AnyPath:
        """`targets/<adapter>-<fp>`: one store per modality and tower fingerprint."""
        return self.root / "targets" / dataset_slug(config)

    @property
    def prompts(self) -> AnyPath:
        """`prompts`: one store per prompt fingerprint."""
        return self.root / "prompts"

    @property
    def runs(self) -> AnyPath:
        """`runs`: one folder per run id."""
        return self.root / "runs"

    @property
    def cache(self) -> Path:
        """`cache`: files that may be deleted at any time (weight digests); always a local folder."""
        return self.root / "cache" if isinstance(self.root, Path) else _platform_cache()


def _platform_cache() -> Path:
    return user_cache_path("any2seg")
