"""What a config asks of the towers: which modalities go through which, and where the results lie.

Writes the (empty) target stores and the index entries that lead to them; looks at no picture and
loads no model. Fails with `ConfigError` (a tower that cannot read a modality) or `CheckpointError`
(weights that are not there).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.manifest import ShardInfo
from pipeline.modalities import ModalitySpec, TowerName
from pipeline.targets import EMBEDDING, PATCH, TargetProvenance, TargetStore, point_to_store
from pipeline.workspace import Workspace
from teacher.identity import tower_identity
from teacher.settings import Preprocessing, preprocessing_for
from teacher.source import TowerFiles, find_tower

PICTURE_TOWERS: tuple[TowerName, ...] = ("image", "depth", "thermal")
"""Towers that read what shards hold; clips and sounds are not stored in shards."""


@dataclass(frozen=True, slots=True)
class TowerPlan:
    """One tower and the modalities that go through it, in the config's order."""

    files: TowerFiles
    preprocessing: Preprocessing
    specs: Mapping[str, ModalitySpec]
    stores: Mapping[str, TargetStore]

    def missing(self, shard: ShardInfo) -> tuple[str, ...]:
        """Modalities whose targets of the shard are not committed."""
        return tuple(name for name, store in self.stores.items() if not store.is_committed(shard))


def plan_towers(config: Config, workspace: Workspace) -> list[TowerPlan]:
    """The towers that a config needs, with an open store per modality and its index entry.

    Looks at files only. Raises `ConfigError`, `CheckpointError` or `FingerprintMismatch`.
    """
    groups: dict[TowerName, dict[str, ModalitySpec]] = {}
    for name, spec in config.specs().items():
        _require_readable(name, spec)
        groups.setdefault(spec.tower, {})[name] = spec
    return [_plan_tower(config, workspace, tower, specs) for tower, specs in groups.items()]


def _plan_tower(
    config: Config, workspace: Workspace, tower: TowerName, specs: Mapping[str, ModalitySpec]
) -> TowerPlan:
    files = find_tower(config.teacher.name, tower, config.teacher.revision)
    preprocessing = preprocessing_for(files.config, **tower_options(config, tower))
    identity = tower_identity(
        files, preprocessing, compute_dtype=config.teacher.dtype, cache=workspace.cache
    )
    shapes = _output_shapes(config, files)
    stores = {
        name: TargetStore.create(
            workspace.targets(config),
            TargetProvenance(
                modality=name,
                teacher=config.teacher.name,
                spec=spec.identity(),
                tower=identity,
                outputs=shapes,
                dtype=config.store.dtype,
                shard_size=config.store.shard_size,
            ),
        )
        for name, spec in specs.items()
    }
    for store in stores.values():
        point_to_store(config, workspace, store)
    return TowerPlan(files, preprocessing, specs, stores)


def tower_options(config: Config, tower: TowerName) -> dict[str, bool | float | str | None]:
    """What a config says about the preprocessing of a tower."""
    asked = config.teacher
    if tower == "depth":
        return {
            "antialias": asked.antialias,
            "max_depth_m": asked.max_depth_m,
            "holes": asked.depth_holes,
        }
    return {"antialias": asked.antialias}


def _output_shapes(config: Config, files: TowerFiles) -> dict[str, tuple[int, ...]]:
    dim = files.config.projection_dim
    rows, columns = files.config.grid
    shapes = {EMBEDDING: (dim,), PATCH: (rows * columns, dim)}
    return {output: shapes[output] for output in config.teacher.outputs}


def _require_readable(name: str, spec: ModalitySpec) -> None:
    if spec.tower not in PICTURE_TOWERS:
        raise ConfigError(
            f"modalities.{name}.tower: expected one of {', '.join(PICTURE_TOWERS)}, found "
            f"{spec.tower!r}: shards hold pictures, not clips or sound"
        )
    if spec.tower == "depth" and spec.unit != "mm":
        raise ConfigError(
            f"modalities.{name}.tower: the depth tower reads millimetres, kind {spec.kind!r} holds "
            f"{spec.unit}s; expected tower 'image' or a kind in mm"
        )
