"""`gc`: garbage collection of artefacts that nothing refers to. Deletes only when asked to.

    collect(workspace, configs) -> Collection        delete(workspace, item)

A dataset, target store, prompt store or description folder is kept if a given configuration (or one of its
comparison rows) or a run refers to it: `runs/*/run.json` by fingerprint, `runs/*/config.toml` by its
requests. Runs are never deleted; unfinished ones can be listed. A run whose `run.json` cannot be read might
refer to anything: then deleting is refused with `CheckpointError`.

The files that make an artefact count (manifest, provenance, records) are deleted first, then the rest. So
after a kill in between, on a disk or in an object store, no reader takes the rest for data, and the next
call resumes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flows.integrity.verify_stores import below, examine_partials, folders, lock_of, own_prompts
from pipeline.config.config import Config
from pipeline.core.fingerprint import SHORT
from pipeline.errors import Any2SegError, CheckpointError, WorkspaceBusy
from pipeline.shards.commit import RECORD_SUFFIX
from pipeline.shards.manifest import DATASET, MANIFEST
from pipeline.storage.files import AnyPath, find_paths, read_json
from pipeline.storage.lease import LOCK, locked
from pipeline.targets.descriptions import description_request, description_slots
from pipeline.targets.lookup import INDEX, look_up, target_request
from pipeline.targets.provenance import PROVENANCE
from pipeline.targets.store import LEDGER
from pipeline.workspace import Workspace, dataset_slug
from student.runs.layout import CONFIG, RECORD, last_step, planned_steps, read_identity

DELETED_FIRST = (MANIFEST, DATASET, PROVENANCE, f"{LEDGER}/", RECORD_SUFFIX)
"""Names, or parts of paths, of the files that make others count; deleted in this order."""


@dataclass(frozen=True, slots=True)
class Item:
    """An artefact that nothing refers to."""

    kind: str
    """`dataset`, `target store`, `prompt store`, `descriptions`, `index entry`, `temporary file`."""
    path: AnyPath
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A run that has not reached its last step; listed, never deleted."""

    path: AnyPath
    steps_done: int
    steps: int


@dataclass(frozen=True, slots=True)
class Collection:
    """What can be deleted, and what refers to the rest."""

    items: tuple[Item, ...]
    num_referrers: int
    """Configurations (with their rows) and runs that were checked for references."""
    unreadable_runs: tuple[str, ...] = ()


@dataclass
class _Kept:
    """What a configuration or a run refers to."""

    slugs: set[str] = field(default_factory=set)
    """Folder names of datasets; of a dataset known only by its fingerprint see `fingerprints`."""
    fingerprints: set[str] = field(default_factory=set)
    """Last part (`<fp12>`) of folder names of datasets, target stores and prompt stores."""
    paths: set[str] = field(default_factory=set)

    def has(self, path: AnyPath) -> bool:
        """Whether a folder is referred to, by its path or by the fingerprint in its name."""
        return str(path) in self.paths or path.name[-SHORT:] in self.fingerprints


def collect(workspace: Workspace, configs: Sequence[Config]) -> Collection:
    """List what neither `configs` nor the workspace's runs refer to."""
    kept = _Kept()
    unreadable = []
    runs = folders(workspace.runs)
    for run in runs:
        try:
            _keep_run(workspace, run, kept)
        except (OSError, ValueError, KeyError, TypeError):
            unreadable.append(str(run))
    for config in configs:
        _keep_config(workspace, config, kept)
    items = [*_unused(workspace, kept)]
    unused = {str(item.path) for item in items}
    items = [*_indices(workspace, unused), *items]
    items += [Item("temporary file", p, _size(p)) for p in _partials(workspace)]
    return Collection(tuple(items), len(configs) + len(runs), tuple(unreadable))


def delete(workspace: Workspace, collection: Collection) -> list[Item]:
    """Delete the items; returns those that a running process is writing, which stay.

    Raises `CheckpointError` if a run cannot be read, `Any2SegError` without any configuration or run.
    """
    if collection.unreadable_runs:
        raise CheckpointError(
            f"{collection.unreadable_runs[0]}: {RECORD} cannot be read, so what it refers to is not known. "
            "Fix it or delete the run's folder; then run again."
        )
    if not collection.num_referrers:
        raise Any2SegError(
            f"{workspace.root}: has no run, so everything would be deleted. Name the configurations "
            "that you still use: `any2seg gc CONFIG...`, or delete the folder yourself."
        )
    busy = []
    for item in collection.items:
        try:
            _delete(workspace, item)
        except WorkspaceBusy:
            busy.append(item)
    return busy


def unfinished_runs(workspace: Workspace) -> Iterator[Unfinished]:
    """Runs that have not reached their last step."""
    for run in folders(workspace.runs):
        try:
            steps = planned_steps(read_identity(run))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        try:
            done = last_step(run)
        except CheckpointError:
            done = 0
        if done < steps:
            yield Unfinished(run, done, steps)


def _keep_run(workspace: Workspace, run: AnyPath, kept: _Kept) -> None:
    identity = read_identity(run)
    towers = [*identity["towers"].values(), *identity.get("dense_towers", {}).values()]
    named = [identity["dataset"], *towers, identity["prompts"]]
    kept.fingerprints |= {str(fingerprint)[:SHORT] for fingerprint in named if fingerprint}
    try:
        config = Config.model_validate(tomllib.loads((run / CONFIG).read_bytes().decode()))
    except (OSError, ValueError):
        return  # perhaps of another version: the identity names what it was trained on
    _keep_config(workspace, config, kept)


def _keep_config(workspace: Workspace, config: Config, kept: _Kept) -> None:
    """Keep every store that the configuration reads now."""
    slug = dataset_slug(config)
    kept.slugs.add(slug)
    kept.paths.add(str(workspace.dataset(config)))
    requests = [
        (workspace.targets(config), name, target_request(own, name))
        for own in config.teachers().values()
        for name in own.modalities
    ]
    if config.descriptions is not None:
        root = workspace.root / "descriptions" / slug
        request = description_request(config, config.descriptions)
        slots = description_slots(config.descriptions, tuple(config.modalities))
        requests += [(root, slot, request) for slot in slots]
    for root, what, request in requests:
        try:
            kept.paths.add(str(look_up(root, what, request)))
        except Any2SegError:
            continue
    prompts = own_prompts(config, workspace)
    if prompts is not None:
        kept.paths.add(str(prompts))


def _unused(workspace: Workspace, kept: _Kept) -> Iterator[Item]:
    for dataset in folders(workspace.root / "datasets"):
        if not kept.has(dataset):
            yield Item("dataset", dataset, _size(dataset))
    for root in folders(workspace.root / "targets"):
        for store in folders(root):
            if not kept.has(store):
                yield Item("target store", store, _size(store))
    for store in folders(workspace.prompts):
        if not kept.has(store):
            yield Item("prompt store", store, _size(store))
    for root in folders(workspace.root / "descriptions"):
        # By dataset only: a run's identity does not name texts, and texts do not depend on embeddings.
        if root.name not in kept.slugs and root.name[-SHORT:] not in kept.fingerprints:
            yield Item("descriptions", root, _size(root))


def _indices(workspace: Workspace, unused: set[str]) -> Iterator[Item]:
    """Index entries of unused stores; they are deleted first."""
    roots = [workspace.prompts]
    roots += [r for name in ("targets", "descriptions") for r in folders(workspace.root / name)]
    for root in roots:
        for path in find_paths(root / INDEX, "*.json"):
            try:
                store = root / str(read_json(path)["store"])
            except (OSError, ValueError, KeyError, TypeError):
                continue  # `verify` reports it
            if str(store) in unused:
                yield Item("index entry", path, _size(path))


def _partials(workspace: Workspace) -> Iterator[AnyPath]:
    return (path for finding in examine_partials(workspace.root) for path in finding.drop)


def _size(path: AnyPath) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(p.stat().st_size for p in below(path, "*") if not p.is_dir())


def _delete(workspace: Workspace, item: Item) -> None:
    lock = item.path / LOCK if item.path.is_dir() else lock_of(item.path, workspace.root)
    if lock is None or not lock.exists():
        _delete_files(item.path)
        return
    with locked(lock, wait=False):
        _delete_files(item.path)


def _delete_files(path: AnyPath) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    files = [file for file in below(path, "*") if not file.is_dir()]
    for file in sorted(files, key=lambda file: (_rank(file, path), str(file))):
        file.unlink(missing_ok=True)
    if isinstance(path, Path):
        for folder in sorted((p for p in path.rglob("*") if p.is_dir()), reverse=True):
            folder.rmdir()
        path.rmdir()


def _rank(file: AnyPath, root: AnyPath) -> int:
    """Position in the order of deletion: what makes others count first, the lock last."""
    name = str(file)[len(str(root)) + 1 :]
    if file.name == LOCK:
        return len(DELETED_FIRST) + 1
    matches = [rank for rank, part in enumerate(DELETED_FIRST) if part in name]
    return matches[0] if matches else len(DELETED_FIRST)
