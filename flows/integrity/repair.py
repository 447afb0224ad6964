"""`repair`: make again exactly what `verify` found broken. Called again it goes on with what is left.

    repair(config, workspace, makers) -> RepairReport

The dataset first, since everything else is measured against its manifest; then records and objects, prompts,
descriptions: what vouches for a broken piece is deleted, and the stage that made it (`makers`) makes these
units and no others. A piece that is made again is deleted, not kept aside: its bytes are known to be wrong,
and until the new ones are verified nothing vouches for them. What cannot be made again is left as it is and
named. `WorkspaceBusy` if the dataset is being prepared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from flows.integrity.finding import Finding, Kind
from flows.integrity.repair_dataset import DatasetRepair
from flows.integrity.verify import Examination, verify
from flows.integrity.verify_arrays import array_problem, restore_description
from flows.integrity.verify_dataset import STAGE as PREPARE
from flows.integrity.verify_stores import folders
from pipeline.config.config import Config
from pipeline.errors import Any2SegError, WorkspaceBusy
from pipeline.shards.manifest import Manifest
from pipeline.storage.files import AnyPath
from pipeline.storage.lease import LOCK, locked
from pipeline.targets.descriptions import descriptions_root
from pipeline.targets.store import TargetStore
from pipeline.workspace import Workspace

_MEASURES = {Kind.MANIFEST_UNREADABLE, Kind.MANIFEST_DIFFERS, Kind.DESCRIPTION}
"""What targets are held against."""
_TARS = {Kind.SHARD_MISSING, Kind.SHARD_TRUNCATED, Kind.SHARD_ALTERED, Kind.SHARD_LEFTOVER}
"""Findings about a tar alone; mending them changes no record."""

Maker = Callable[[Sequence[Finding]], None]
"""Makes the units of these findings again; what vouched for them is gone already."""


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
    makers: Mapping[str, Maker],
    *,
    deep: bool = True,
    dry_run: bool = False,
    progress: bool = True,
) -> RepairReport:
    """Mend what can be mended. See the module's text.

    `makers` has `precompute` and `describe`. Without `deep` only what a shallow examination sees is mended.
    """
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
    for stage, make in makers.items():
        wanted = [finding for finding in rest if finding.stage == stage]
        if wanted:
            make(wanted)
    after = verify(config, workspace, progress=progress)
    remaining = {(finding.kind, finding.place) for finding in after.findings}
    left += [Left(f, "is still there") for f in rest if (f.kind, f.place) in remaining]
    mended += [finding for finding in rest if (finding.kind, finding.place) not in remaining]
    return RepairReport(tuple(mended), (*left, *unable), after)


def _parted(found: Examination) -> tuple[list[Finding], list[Left]]:
    """What can be mended, and what must be left with its own remedy."""
    able = [finding for finding in found.findings if finding.repairable]
    return able, [Left(f, f.remedy) for f in found.findings if not f.repairable]


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


def lock_of(path: AnyPath, root: AnyPath) -> AnyPath | None:
    """The lock of the dataset, store or run that a file belongs to."""
    folder = path.parent
    while folder not in (root, folder.parent):
        if (folder / LOCK).exists():
            return folder / LOCK
        folder = folder.parent
    return None


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
