"""`repair`: rebuild exactly what `verify` found broken. Called again it resumes with what is left.

    repair(config, workspace) -> RepairReport

The dataset first, since everything else is measured against its manifest; then records and objects, prompts,
descriptions: what vouches for a broken piece is deleted, and the stage that made it rebuilds these units and
no others. A broken piece is deleted, not kept aside: its bytes are known to be wrong, and until the new ones
are verified nothing vouches for them. What cannot be rebuilt is left as it is and named. `WorkspaceBusy` if
the dataset is being prepared; otherwise fails as `precompute` and `describe` do.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from flows.integrity.finding import Finding, Kind
from flows.integrity.repair_dataset import DatasetRepair
from flows.integrity.verify import DESCRIBE, PRECOMPUTE, Examination, verify
from flows.integrity.verify_arrays import array_problem, restore_description
from flows.integrity.verify_dataset import STAGE as PREPARE
from flows.integrity.verify_stores import folders, lock_of
from pipeline.config.config import Config
from pipeline.errors import Any2SegError, WorkspaceBusy
from pipeline.shards.manifest import Manifest
from pipeline.storage.lease import LOCK, locked
from pipeline.targets.descriptions import descriptions_root
from pipeline.targets.store import TargetStore
from pipeline.workspace import Workspace
from teacher.encoding.describe import describe
from teacher.encoding.precompute import precompute, precompute_prompts
from teacher.encoding.units import plan_towers, plan_units

_MEASURES = {Kind.MANIFEST_UNREADABLE, Kind.MANIFEST_DIFFERS, Kind.DESCRIPTION}
"""What targets are held against."""
_TARS = {Kind.SHARD_MISSING, Kind.SHARD_TRUNCATED, Kind.SHARD_ALTERED, Kind.SHARD_LEFTOVER}
"""Findings about a tar alone; mending them changes no record."""


@dataclass(frozen=True, slots=True)
class Left:
    """A finding that was not mended."""

    finding: Finding
    reason: str


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What was done; `left` names what was not."""

    mended: tuple[Finding, ...]
    left: tuple[Left, ...]
    examined: Examination
    """The examination after the repair; of a dry run, the one before."""


def repair(
    config: Config,
    workspace: Workspace,
    *,
    deep: bool = True,
    dry_run: bool = False,
    progress: bool = True,
) -> RepairReport:
    """Fix what can be fixed: without `deep`, only what a shallow examination sees."""
    found = verify(config, workspace, deep=deep, progress=progress)
    if dry_run:
        able, unable = _parted(found)
        return RepairReport(tuple(able), tuple(unable), found)
    mended, left = _repair_dataset(config, workspace, found)
    if any(finding.kind in _MEASURES for finding in mended):
        # Targets were held against a manifest that was wrong.
        found = verify(config, workspace, deep=deep, progress=progress)
    able, unable = _parted(found)
    rest = [finding for finding in able if not _of_dataset(finding)]
    if left:
        left += [Left(f, "waits for the dataset") for f in rest if f.kind != Kind.PARTIAL]
        rest = [finding for finding in rest if finding.kind == Kind.PARTIAL]
    _drop(workspace, rest)
    _restore_arrays(config, workspace, rest)
    _rebuild(config, workspace, rest, progress)
    after = verify(config, workspace, progress=progress)
    remaining = {(finding.kind, finding.place) for finding in after.findings}
    known = {(finding.kind, finding.place) for finding in found.findings}
    left += [Left(f, "is still there") for f in rest if (f.kind, f.place) in remaining]
    left += [Left(f, f"was hidden by another: {f.remedy}") for f in _new(after, known)]
    mended += [finding for finding in rest if (finding.kind, finding.place) not in remaining]
    return RepairReport(tuple(mended), (*left, *unable), after)


def _parted(found: Examination) -> tuple[list[Finding], list[Left]]:
    """What can be mended, and what must be left with its own remedy."""
    able = [finding for finding in found.findings if finding.repairable]
    return able, [Left(f, f.remedy) for f in found.findings if not f.repairable]


def _new(after: Examination, known: Container[tuple[Kind, str]]) -> list[Finding]:
    """What the repair brought to light, e.g. records that a damaged provenance had kept from being read.

    Temporary files are those of writers at work.
    """
    seen = [f for f in after.findings if f.repairable and f.kind != Kind.PARTIAL]
    return [finding for finding in seen if (finding.kind, finding.place) not in known]


def _of_dataset(finding: Finding) -> bool:
    return finding.stage == PREPARE or finding.kind == Kind.SHARD_LEFTOVER


def _repair_dataset(
    config: Config, workspace: Workspace, found: Examination
) -> tuple[list[Finding], list[Left]]:
    findings = [f for f in found.findings if f.repairable and _of_dataset(f)]
    if not findings:
        return [], []
    folder = workspace.dataset(config)
    mended: list[Finding] = []
    left: list[Left] = []
    with locked(folder / LOCK, wait=False):
        work = DatasetRepair(config, folder)
        for finding in findings:
            try:
                work.repair(finding)
                mended.append(finding)
            except Any2SegError as error:
                left.append(Left(finding, str(error)))
        try:
            if not all(finding.kind in _TARS for finding in mended):
                work.merge()
        except Any2SegError as error:
            left += [Left(finding, str(error)) for finding in mended if not finding.shard]
            mended = [finding for finding in mended if finding.shard]
    return mended, left


def _drop(workspace: Workspace, findings: Iterable[Finding]) -> None:
    """Delete what vouches for broken pieces. Temporary files go only if their writer is dead."""
    for finding in findings:
        if finding.kind == Kind.PARTIAL:
            _drop_partial(workspace, finding)
        else:
            for path in finding.drop:
                path.unlink(missing_ok=True)


def _drop_partial(workspace: Workspace, finding: Finding) -> None:
    for path in finding.drop:
        lock = lock_of(path, workspace.root)
        try:
            if lock is None:
                path.unlink(missing_ok=True)
            else:
                with locked(lock, wait=False):
                    path.unlink(missing_ok=True)
        except WorkspaceBusy:
            continue  # its writer is alive; the next examination says so


def _rebuild(
    config: Config, workspace: Workspace, findings: Sequence[Finding], progress: bool
) -> None:
    """Let the stages make what the findings name; their commit records have been deleted."""
    targets = [finding for finding in findings if finding.stage == PRECOMPUTE]
    if targets:
        _rebuild_targets(config, workspace, targets, progress)
    if config.descriptions and any(finding.stage == DESCRIBE for finding in findings):
        describe(config, workspace, progress=progress)


def _rebuild_targets(
    config: Config, workspace: Workspace, findings: Sequence[Finding], progress: bool
) -> None:
    """Encode the shards and modalities of `findings`; restore stores, index entries and prompts."""
    wanted = {finding.shard for finding in findings if finding.shard}
    dropped = {path for finding in findings if finding.shard for path in finding.drop}
    manifest = Manifest.load(workspace.dataset(config))
    shards = {shard.name: shard for shard in manifest.all_shards if shard.name in wanted}
    plans = plan_towers(config, workspace)
    parts = []
    for hole in plan_units(plans, list(shards.values())):
        stores = next(plan.stores for plan in plans if plan.label == hole.label)
        records = {name: store.record_path(shards[hole.shard]) for name, store in stores.items()}
        names = [name for name, record in records.items() if record in dropped]
        parts.append(hole.only(names, shards[hole.shard]))
    units = [part for part in parts if part is not None]
    precompute(config, workspace, units=units, progress=progress)
    if any(finding.place.startswith(str(workspace.prompts)) for finding in findings):
        precompute_prompts(config, workspace)


def _restore_arrays(config: Config, workspace: Workspace, findings: Sequence[Finding]) -> None:
    """Write damaged array descriptions anew; the objects stay as they are."""
    if not any(finding.kind == Kind.ARRAY for finding in findings):
        return
    shards = Manifest.load(workspace.dataset(config)).all_shards
    sizes: dict[str, int] = {}
    for shard in shards:
        sizes[shard.split] = max(sizes.get(shard.split, 0), shard.index + 1)
    roots = (workspace.targets(config), descriptions_root(config, workspace))
    damaged = {f.place for f in findings if f.kind == Kind.ARRAY}
    for path in (store for root in roots for store in folders(root)):
        if not any(place.startswith(f"{path}/") for place in damaged):
            continue
        store = TargetStore.open(path)
        for split, num_objects in sizes.items():
            for output in store.provenance.outputs:
                array = store.array(split, output)
                if (array.folder / array.name).is_dir() and array_problem(array):
                    restore_description(array, num_objects)
