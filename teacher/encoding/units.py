"""The work of a teacher pass: which tower encodes which modalities, and which targets are missing.

`plan_towers` maps modalities to towers and target stores; `plan_units` lists the missing targets, one
`Unit` per shard and tower. `any2seg plan` counts that list, `precompute` works through it, and
`split_units` divides it among workers. No image is read and no model is loaded.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.config.config import Config
from pipeline.errors import CheckpointError, ConfigError
from pipeline.formats.shard_tar import shard_name
from pipeline.modalities import ModalitySpec, TowerName
from pipeline.shards.manifest import ShardInfo
from pipeline.targets.lookup import point_to_store, resolve
from pipeline.targets.provenance import EMBEDDING, PATCH, TargetProvenance
from pipeline.targets.store import TargetStore, object_bytes
from pipeline.targets.views import ViewConfig, view_identity, view_shapes
from pipeline.workspace import Workspace
from teacher.checkpoints.locate import TowerFiles, find_tower
from teacher.encoding.identity import tower_identity
from teacher.preprocessing.config import Preprocessing, preprocessing_for


@dataclass(frozen=True, slots=True)
class TowerPlan:
    """One tower and the modalities that it encodes, in the config's order."""

    files: TowerFiles
    preprocessing: Preprocessing
    specs: Mapping[str, ModalitySpec]
    stores: Mapping[str, TargetStore]
    """Modality to its target store, which need not exist yet."""

    @property
    def tower(self) -> TowerName:
        """Name of the tower."""
        return self.preprocessing.tower

    def create_stores(self, config: Config, workspace: Workspace) -> None:
        """Create the stores that do not exist, and the index entries that refer to them.

        Raises `FingerprintMismatch` if a different store has the same path.
        """
        for store in self.stores.values():
            TargetStore.create(workspace.targets(config), store.provenance)
            point_to_store(config, workspace, store)


@dataclass(frozen=True, slots=True)
class Unit:
    """The missing targets of one tower on one shard: the smallest work item, and the unit of retry.

    Plain values only: units are sent to other processes and machines.
    """

    split: str
    index: int
    """Number of the shard in its split."""
    tower: TowerName
    modalities: tuple[str, ...]
    """Those whose targets are missing, in the config's order."""
    num_pictures: int
    """Images of these modalities."""

    @property
    def shard(self) -> str:
        """`<split>-000000`."""
        return shard_name(self.split, self.index)

    def __str__(self) -> str:
        return f"{self.shard} {self.tower} ({', '.join(self.modalities)})"

    def only(self, modalities: Container[str], shard: ShardInfo) -> Unit | None:
        """The unit restricted to these modalities; None if none is left."""
        kept = tuple(name for name in self.modalities if name in modalities)
        return _unit(shard, self.tower, kept) if kept else None


def plan_towers(
    config: Config, workspace: Workspace, *, local_only: bool = False
) -> list[TowerPlan]:
    """The towers that a config needs, with the target store of each modality.

    `local_only` makes no request to a hub. Raises `ConfigError` (a tower that cannot read a modality)
    or `CheckpointError` (weights that cannot be located).
    """
    groups: dict[TowerName, dict[str, ModalitySpec]] = {}
    for name, spec in config.specs().items():
        _require_readable(name, spec)
        groups.setdefault(spec.tower, {})[name] = spec
    return [
        _plan_tower(config, workspace, tower, specs, local_only) for tower, specs in groups.items()
    ]


def plan_units(plans: Sequence[TowerPlan], shards: Sequence[ShardInfo]) -> list[Unit]:
    """The targets that are not committed, in the order of `shards`, the towers of a shard together."""
    missing = {
        name: {(shard.split, shard.index) for shard in store.missing(shards)}
        for plan in plans
        for name, store in plan.stores.items()
    }
    units = []
    for shard in shards:
        for plan in plans:
            names = tuple(n for n in plan.stores if (shard.split, shard.index) in missing[n])
            if names:
                units.append(_unit(shard, plan.tower, names))
    return units


def _unit(shard: ShardInfo, tower: TowerName, modalities: tuple[str, ...]) -> Unit:
    num_pictures = sum(sum(shard.present[name]) for name in modalities)
    return Unit(shard.split, shard.index, tower, modalities, num_pictures)


def outdated_modalities(config: Config, workspace: Workspace) -> tuple[str, ...]:
    """Modalities whose teacher's weights changed since their targets were computed.

    Compares digests and makes no request to a hub: a teacher that is not on this machine counts as
    unchanged. Raises `MissingTarget` for a modality without targets.
    """
    try:
        plans = plan_towers(config, workspace, local_only=True)
    except CheckpointError:
        return ()
    planned = {name: store for plan in plans for name, store in plan.stores.items()}
    return tuple(n for n, s in planned.items() if resolve(config, workspace, n).path != s.path)


def split_units(units: Sequence[Unit], num_parts: int) -> list[list[Unit]]:
    """Contiguous ranges, at most `num_parts` and none empty, of about equal numbers of images.

    No range exceeds its even share by more than one unit. Raises `ValueError` for `num_parts` < 1.
    """
    if num_parts < 1:
        raise ValueError(f"num_parts: expected at least 1, found {num_parts}")
    weights = [max(unit.num_pictures, 1) for unit in units]
    parts: list[list[Unit]] = [[] for _ in range(num_parts)]
    before, total = 0, sum(weights)
    for unit, weight in zip(units, weights, strict=True):
        # By the middle of the unit, so that it goes to the part that holds most of it.
        parts[(2 * before + weight) * num_parts // (2 * total)].append(unit)
        before += weight
    return [part for part in parts if part]


def num_targets(units: Iterable[Unit]) -> int:
    """Pairs of a shard and a modality in `units`, as stage reports count them."""
    return sum(len(unit.modalities) for unit in units)


def bytes_to_write(plans: Sequence[TowerPlan], units: Sequence[Unit]) -> int:
    """Exact bytes of the objects that the units will commit."""
    sizes = {
        name: sum(object_bytes(store.provenance).values())
        for plan in plans
        for name, store in plan.stores.items()
    }
    return sum(sizes[name] for unit in units for name in unit.modalities)


def _plan_tower(
    config: Config,
    workspace: Workspace,
    tower: TowerName,
    specs: Mapping[str, ModalitySpec],
    local_only: bool,
) -> TowerPlan:
    files = find_tower(config.teacher.name, tower, config.teacher.revision, local_only=local_only)
    preprocessing = preprocessing_for(files.config, **tower_options(config, tower))
    identity = tower_identity(
        files, preprocessing, compute_dtype=config.teacher.dtype, cache=workspace.cache
    )
    views = ViewConfig.of(config)
    shapes = view_shapes(_output_shapes(config, files), views)
    stores = {
        name: TargetStore.planned(
            workspace.targets(config),
            TargetProvenance(
                modality=name,
                teacher=config.teacher.name,
                spec=spec.identity(),
                tower=identity | view_identity(views),
                outputs=shapes,
                dtype=config.store.dtype,
                shard_size=config.store.shard_size,
            ),
        )
        for name, spec in specs.items()
    }
    return TowerPlan(files, preprocessing, specs, stores)


def tower_options(config: Config, tower: TowerName) -> dict[str, bool | float | str | None]:
    """The preprocessing options that a config sets for a tower."""
    teacher = config.teacher
    if tower == "depth":
        return {
            "antialias": teacher.antialias,
            "max_depth_m": teacher.max_depth_m,
            "holes": teacher.depth_holes,
        }
    return {"antialias": teacher.antialias}


def _output_shapes(config: Config, files: TowerFiles) -> dict[str, tuple[int, ...]]:
    dim = files.config.projection_dim
    rows, columns = files.config.grid
    shapes = {EMBEDDING: (dim,), PATCH: (rows * columns, dim)}
    return {output: shapes[output] for output in config.teacher.outputs}


def _require_readable(name: str, spec: ModalitySpec) -> None:
    if spec.tower == "depth" and spec.unit != "mm":
        raise ConfigError(
            f"modalities.{name}.tower: the depth tower reads millimetres, kind {spec.kind!r} holds "
            f"{spec.unit}s; expected tower 'image' or a kind in mm"
        )
