"""The work of a teacher pass: which tower encodes which modalities, and which targets are missing.

`plan_towers` maps modalities to towers and target stores; `plan_units` lists the missing targets, one
`Unit` per shard and tower. `any2seg plan` counts that list, `precompute` works through it, and
`split_units` divides it among workers. No image is read and no model is loaded.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.config.config import Config
from pipeline.config.teacher import TEACHER, of_teacher
from pipeline.errors import CheckpointError
from pipeline.formats.shard_tar import shard_name
from pipeline.modalities import ModalitySpec, TowerName
from pipeline.shards.manifest import ShardInfo
from pipeline.targets.lookup import point_to_store, resolve
from pipeline.targets.provenance import TargetProvenance
from pipeline.targets.store import TargetStore, object_bytes
from pipeline.targets.views import ViewConfig, view_identity, view_shapes
from pipeline.workspace import Workspace
from teacher.contract import Teacher, TeacherTower
from teacher.encoding.tower_inputs import TowerInput, tower_inputs
from teacher.open import open_teacher
from teacher.preprocessing.rendering import rendering_identity


@dataclass(frozen=True, slots=True)
class TowerPlan:
    """One tower and the modalities that it encodes, in the config's order."""

    source: TeacherTower
    inputs: Mapping[str, TowerInput]
    """Modality to what the tower sees of it."""
    stores: Mapping[str, TargetStore]
    """Modality to its target store, which need not exist yet."""
    teacher: str = TEACHER
    """Whose tower it is: the name of the config's table."""

    @property
    def label(self) -> str:
        """A name for the tower among those of all teachers."""
        return of_teacher(self.teacher, self.tower)

    @property
    def tower(self) -> TowerName:
        """Name of the tower."""
        return self.source.name

    @property
    def specs(self) -> dict[str, ModalitySpec]:
        """Modality to its stored form."""
        return {name: seen.spec for name, seen in self.inputs.items()}

    def create_stores(self, config: Config, workspace: Workspace) -> None:
        """Create the stores that do not exist, and the index entries that refer to them.

        Raises `FingerprintMismatch` if a different store has the same path.
        """
        for store in self.stores.values():
            TargetStore.create(workspace.targets(config), store.provenance)
            point_to_store(config.for_teacher(self.teacher), workspace, store)


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
    teacher: str = TEACHER
    """Whose tower it is: the name of the config's table."""

    @property
    def label(self) -> str:
        """As `TowerPlan.label`."""
        return of_teacher(self.teacher, self.tower)

    @property
    def shard(self) -> str:
        """`<split>-000000`."""
        return shard_name(self.split, self.index)

    def __str__(self) -> str:
        return f"{self.shard} {self.label} ({', '.join(self.modalities)})"

    def only(self, modalities: Container[str], shard: ShardInfo) -> Unit | None:
        """The unit restricted to these modalities; None if none is left."""
        kept = tuple(name for name in self.modalities if name in modalities)
        return _unit(shard, self.teacher, self.tower, kept) if kept else None


def plan_towers(
    config: Config, workspace: Workspace, *, local_only: bool = False
) -> list[TowerPlan]:
    """The towers that a config needs, with the target store of each modality; teacher by teacher.

    `local_only` makes no request to a hub. Raises `ConfigError` (a tower that cannot read a modality)
    or `CheckpointError` (weights that cannot be located).
    """
    return [
        replace(plan, teacher=name)
        for name, own in config.teachers().items()
        for plan in _plan_teacher(own, workspace, local_only, is_first=name == TEACHER)
    ]


def _plan_teacher(
    config: Config, workspace: Workspace, local_only: bool, *, is_first: bool
) -> list[TowerPlan]:
    """The towers of one teacher, which is the only one in `config`."""
    teacher = open_teacher(config.teacher.name, config.teacher.revision, local_only=local_only)
    groups: dict[TowerName, dict[str, TowerInput]] = {}
    for name, seen in tower_inputs(config, teacher.towers, is_first=is_first).items():
        groups.setdefault(seen.tower, {})[name] = seen
    return [
        _plan_tower(config, workspace, teacher, tower, inputs) for tower, inputs in groups.items()
    ]


def plan_units(plans: Sequence[TowerPlan], shards: Sequence[ShardInfo]) -> list[Unit]:
    """The targets that are not committed, in the order of `shards`, the towers of a shard together."""
    missing = {
        (plan.teacher, name): {(shard.split, shard.index) for shard in store.missing(shards)}
        for plan in plans
        for name, store in plan.stores.items()
    }
    units = []
    for shard in shards:
        for plan in plans:
            here = (shard.split, shard.index)
            names = tuple(n for n in plan.stores if here in missing[plan.teacher, n])
            if names:
                units.append(_unit(shard, plan.teacher, plan.tower, names))
    return units


def _unit(shard: ShardInfo, teacher: str, tower: TowerName, modalities: tuple[str, ...]) -> Unit:
    num_pictures = sum(sum(shard.present[name]) for name in modalities)
    return Unit(shard.split, shard.index, tower, modalities, num_pictures, teacher)


def outdated_modalities(config: Config, workspace: Workspace) -> tuple[str, ...]:
    """Modalities of which a teacher's weights changed since their targets were computed.

    Compares digests and makes no request to a hub: a teacher that is not on this machine counts as
    unchanged. Raises `MissingTarget` for a modality without targets.
    """
    try:
        plans = plan_towers(config, workspace, local_only=True)
    except CheckpointError:
        return ()
    changed = [
        name
        for plan in plans
        for name, store in plan.stores.items()
        if resolve(config.for_teacher(plan.teacher), workspace, name).path != store.path
    ]
    return tuple(dict.fromkeys(changed))


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
    """Pairs of a shard and a modality in `units`, of each teacher, as stage reports count them."""
    return sum(len(unit.modalities) for unit in units)


def bytes_to_write(plans: Sequence[TowerPlan], units: Sequence[Unit]) -> int:
    """Exact bytes of the objects that the units will commit."""
    sizes = {
        (plan.teacher, name): sum(object_bytes(store.provenance).values())
        for plan in plans
        for name, store in plan.stores.items()
    }
    return sum(sizes[unit.teacher, name] for unit in units for name in unit.modalities)


def _plan_tower(
    config: Config,
    workspace: Workspace,
    teacher: Teacher,
    tower: TowerName,
    inputs: Mapping[str, TowerInput],
) -> TowerPlan:
    source = teacher.tower(tower, **tower_options(config, tower))
    identity = source.identity(compute_dtype=config.teacher.dtype, cache=workspace.cache)
    views = ViewConfig.of(config)
    shapes = view_shapes(_output_shapes(config, source), views)
    stores = {
        name: TargetStore.planned(
            workspace.targets(config),
            TargetProvenance(
                modality=name,
                teacher=config.teacher.name,
                spec=seen.spec.identity(),
                tower=identity | rendering_identity(seen.rendering) | view_identity(views),
                outputs=shapes,
                dtype=config.store.dtype,
                shard_size=config.store.shard_size,
            ),
        )
        for name, seen in inputs.items()
    }
    return TowerPlan(source, inputs, stores)


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


def _output_shapes(config: Config, source: TeacherTower) -> dict[str, tuple[int, ...]]:
    shapes = source.output_shapes()
    return {output: shapes[output] for output in config.teacher.outputs}
