"""Where things lie in a workspace, and the identity of a dataset (see storage_layout.md).

Paths only: nothing here reads or writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.fingerprint import SHORT, fingerprint
from pipeline.shards import WRITTEN

SCHEMA_VERSION = 1
"""Version of the on-disk format."""


def dataset_identity(config: Config) -> dict[str, Any]:
    """What the dataset fingerprint covers: adapter and options, stored forms, shard size, schema."""
    return {
        "schema": SCHEMA_VERSION,
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
    """The folder that holds every artefact."""

    root: Path

    @classmethod
    def of(cls, config: Config) -> Workspace:
        """The config's workspace. Raises `ConfigError` for a URL: only local paths are supported."""
        if "://" in str(config.workspace) or ":/" in str(config.workspace):
            raise ConfigError(f"workspace: expected a local path, found {config.workspace}")
        return cls(config.workspace.resolve())

    def dataset(self, config: Config) -> Path:
        """`datasets/<adapter>-<fp>`: dataset.json, shards, manifest.parquet, quarantine.parquet."""
        return self.root / "datasets" / dataset_slug(config)

    def targets(self, config: Config) -> Path:
        """`targets/<adapter>-<fp>`: one store per modality and tower fingerprint."""
        return self.root / "targets" / dataset_slug(config)

    @property
    def prompts(self) -> Path:
        """`prompts`: one store per prompt fingerprint."""
        return self.root / "prompts"

    @property
    def runs(self) -> Path:
        """`runs`: one folder per run id."""
        return self.root / "runs"

    @property
    def cache(self) -> Path:
        """`cache`: what may be deleted at any time (weight digests)."""
        return self.root / "cache"
