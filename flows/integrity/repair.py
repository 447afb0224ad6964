"""`repair`: rebuild exactly what `verify` reports as corrupt. A second call resumes.

    repair(config, workspace) -> RepairReport

The dataset comes first, since everything else is compared with its manifest; then records and objects,
prompts, descriptions: the record of corrupt data is deleted, and the stage that computed it rebuilds these
units and no others. Corrupt data are deleted, not kept aside: their bytes are known to be wrong, and new ones
are committed only after verification. What cannot be rebuilt is left unchanged and reported. Raises
`WorkspaceBusy` if the dataset is being prepared, and what `precompute` and `describe` raise.
"""

from __future__ import annotations

from collections import defaultdict
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

_REFERENCE = {Kind.MANIFEST_UNREADABLE, Kind.MANIFEST_DIFFERS, Kind.DESCRIPTION}
"""Findings about what targets are compared with."""
_TARS = {Kind.SHARD_MISSING, Kind.SHARD_TRUNCATED, Kind.SHARD_ALTERED, Kind.SHARD_LEFTOVER}
"""Findings about a tar alone; fixing them changes no record."""


@dataclass(frozen=True, slots=True)
class Left:
    """A finding that was not fixed, and why."""

    finding: Finding
    reason: str


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What was fixed and what was left."""

    fixed: tuple[Finding, ...]
    left: tuple[Left, ...]
    examined: Examination
    """The examination after the repair; in a dry run, the one before it."""


def repair(
    config: Config,
    workspace: Workspace,
    *,
    deep: bool = True,
    dry_run: bool = False,
    progress: bool = True,
) -> RepairReport:
    """Fix what can be fixed: without `deep`, only what a shallow examination sees."""
    before = verify(config, workspace, deep=deep, progress=progress)
    if dry_run:
        repairable, unrepairable = _split(before)
        return RepairReport(tuple(repairable), tuple(unrepairable), before)
    fixed, left = _repair_dataset(config, workspace, before)
    if any(finding.kind in _REFERENCE for finding in fixed):
        # Again: targets were compared with a manifest or description that was wrong.
        before = verify(config, workspace, deep=deep, progress=progress)
    repairable, unrepairable = _split(before)
    rest = [finding for finding in repairable if not _of_dataset(finding)]
    if left:
        # Targets of a shard that is still wrong would have to be rebuilt once more.
        left += [Left(f, "waits for the dataset") for f in rest if f.kind != Kind.PARTIAL]
        rest = [finding for finding in rest if finding.kind == Kind.PARTIAL]
    _drop(workspace, rest)
    _restore_arrays(config, workspace, rest)
    _rebuild(config, workspace, rest, progress)
    after = verify(config, workspace, progress=progress)
    remaining = {(finding.kind, finding.location) for finding in after.findings}
    reported = {(finding.kind, finding.location) for finding in before.findings}
    left += [Left(f, "still exists") for f in rest if (f.kind, f.location) in remaining]
    left += [Left(f, f"was hidden by another: {f.remedy}") for f in _new(after, reported)]
    fixed += [finding for finding in rest if (finding.kind, finding.location) not in remaining]
    return RepairReport(tuple(fixed), (*left, *unrepairable), after)


def _split(examination: Examination) -> tuple[list[Finding], list[Left]]:
    """The repairable findings, and the others with their remedies as reasons."""
    findings = examination.findings
    repairable = [finding for finding in findings if finding.repairable]
    return repairable, [Left(f, f.remedy) for f in findings if not f.repairable]


def _new(after: Examination, reported: Container[tuple[Kind, str]]) -> list[Finding]:
    """Findings that the repair revealed, e.g. about records that a damaged provenance had hidden.

    New temporary files are left out: they belong to running writers.
    """
    repairable = [f for f in after.findings if f.repairable and f.kind != Kind.PARTIAL]
    return [finding for finding in repairable if (finding.kind, finding.location) not in reported]


def _of_dataset(finding: Finding) -> bool:
    return finding.stage == PREPARE or finding.kind == Kind.SHARD_LEFTOVER


def _repair_dataset(
    config: Config, workspace: Workspace, examination: Examination
) -> tuple[list[Finding], list[Left]]:
    findings = [f for f in examination.findings if f.repairable and _of_dataset(f)]
    if not findings:
        return [], []
    folder = workspace.dataset(config)
    fixed: list[Finding] = []
    left: list[Left] = []
    with locked(folder / LOCK, wait=False):
        work = DatasetRepair(config, folder)
        for finding in findings:
            try:
                work.repair(finding)
                fixed.append(finding)
            except Any2SegError as error:
                left.append(Left(finding, str(error)))
        try:
            if not all(finding.kind in _TARS for finding in fixed):
                work.merge()
        except Any2SegError as error:
            # Without a shard: findings about manifest or quarantine, which only the merge fixes.
            left += [Left(finding, str(error)) for finding in fixed if not finding.shard]
            fixed = [finding for finding in fixed if finding.shard]
    return fixed, left


def _drop(workspace: Workspace, findings: Iterable[Finding]) -> None:
    """Delete the records of corrupt data, and temporary files whose writer no longer runs."""
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
            continue  # its writer is running; the next examination reports it


def _rebuild(
    config: Config, workspace: Workspace, findings: Sequence[Finding], progress: bool
) -> None:
    """Let the stages rebuild what the findings name; its commit records have been deleted."""
    targets = [finding for finding in findings if finding.stage == PRECOMPUTE]
    if targets:
        _rebuild_targets(config, workspace, targets, progress)
    if config.descriptions and any(finding.stage == DESCRIBE for finding in findings):
        describe(config, workspace, progress=progress)


def _rebuild_targets(
    config: Config, workspace: Workspace, findings: Sequence[Finding], progress: bool
) -> None:
    """Encode the shards and modalities of `findings`; restore stores, index entries and prompts."""
    modalities: dict[str, set[str]] = defaultdict(set)  # by shard
    for finding in findings:
        if finding.shard:
            modalities[finding.shard].add(finding.modality)
    manifest = Manifest.load(workspace.dataset(config))
    shards = {shard.name: shard for shard in manifest.all_shards if shard.name in modalities}
    missing = plan_units(plan_towers(config, workspace), list(shards.values()))
    narrowed = [unit.only(modalities[unit.shard], shards[unit.shard]) for unit in missing]
    units = [unit for unit in narrowed if unit is not None]
    precompute(config, workspace, units=units, progress=progress)
    if any(finding.location.startswith(str(workspace.prompts)) for finding in findings):
        precompute_prompts(config, workspace)


def _restore_arrays(config: Config, workspace: Workspace, findings: Sequence[Finding]) -> None:
    """Rewrite damaged array descriptions; the objects stay unchanged."""
    if not any(finding.kind == Kind.ARRAY for finding in findings):
        return
    shards = Manifest.load(workspace.dataset(config)).all_shards
    sizes: dict[str, int] = {}
    for shard in shards:
        sizes[shard.split] = max(sizes.get(shard.split, 0), shard.index + 1)
    roots = (workspace.targets(config), descriptions_root(config, workspace))
    damaged = {f.location for f in findings if f.kind == Kind.ARRAY}
    for path in (store for root in roots for store in folders(root)):
        if not any(location.startswith(f"{path}/") for location in damaged):
            continue
        store = TargetStore.open(path)
        for split, num_objects in sizes.items():
            for output in store.provenance.outputs:
                array = store.array(split, output)
                if (array.folder / array.name).is_dir() and array_problem(array):
                    restore_description(array, num_objects)
