"""`gc`: what nothing refers to any more. Lists it; deletes it only when asked to.

    collect(workspace, configs) -> Collection        delete(workspace, item)

A dataset, target store, prompt store or description folder is kept if a given configuration (or one of its
comparison rows) or a run refers to it: `runs/*/run.json` by fingerprint, `runs/*/config.toml` by what it
asks for. Runs are never deleted; unfinished ones can be listed. A run whose `run.json` cannot be read might
refer to anything: then deleting is refused with `CheckpointError`.

What vouches for an artefact is deleted first (records, provenance, manifest), then the rest. So a kill in
between, on a disk or in an object store, leaves holes that no reader takes for data; the next call goes on.
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

VOUCHERS = (MANIFEST, DATASET, PROVENANCE, f"{LEDGER}/", RECORD_SUFFIX)
"""Names or parts of names of the files that make others count; deleted in this order."""


@dataclass(frozen=True, slots=True)
class Item:
    """Something that nothing refers to."""

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
    """What could be deleted, and what keeps the rest."""

    items: tuple[Item, ...]
    num_referrers: int
    """Configurations (with their rows) and runs that were asked."""
    unreadable_runs: tuple[str, ...] = ()


@dataclass
class _Kept:
    """What is referred to."""

    slugs: set[str] = field(default_factory=set)
    """Names of datasets' folders; `*-<fp12>` of datasets known by their fingerprint only."""
    fingerprints: set[str] = field(default_factory=set)
    """Ends of folder names of datasets, target stores and prompt stores."""
    paths: set[str] = field(default_factory=set)

    def has(self, path: AnyPath) -> bool:
        """Whether a folder is referred to, by its place or by the fingerprint in its name."""
        return str(path) in self.paths or path.name[-SHORT:] in self.fingerprints


def collect(workspace: Workspace, configs: Sequence[Config]) -> Collection:
    """What neither `configs` nor the workspace's runs refer to. Changes nothing."""
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
    gone = {str(item.path) for item in items}
    items = [*_indices(workspace, gone), *items]
    items += [Item("temporary file", p, _size(p)) for p in _partials(workspace)]
    return Collection(tuple(items), len(configs) + len(runs), tuple(unreadable))


def delete(workspace: Workspace, collection: Collection) -> list[Item]:
    """Delete the items; returns those that were left because their writer is alive.

    Raises `CheckpointError` if a run cannot be read, `Any2SegError` if nothing refers to anything.
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
    named = [identity["dataset"], *identity["towers"].values(), identity["prompts"]]
    kept.fingerprints |= {str(fingerprint)[:SHORT] for fingerprint in named if fingerprint}
    try:
        config = Config.model_validate(tomllib.loads((run / CONFIG).read_bytes().decode()))
    except (OSError, ValueError):
        return  # of another version, perhaps: its identity names what it was trained on
    _keep_config(workspace, config, kept)


def _keep_config(workspace: Workspace, config: Config, kept: _Kept) -> None:
    """Every store that the configuration would read, where it lies now."""
    slug = dataset_slug(config)
    kept.slugs.add(slug)
    kept.paths.add(str(workspace.dataset(config)))
    requests = [
        (workspace.targets(config), name, target_request(config, name))
        for name in config.modalities
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
        # Texts are small, cannot be told apart by a run's identity, and outlive their embeddings.
        if root.name not in kept.slugs and root.name[-SHORT:] not in kept.fingerprints:
            yield Item("descriptions", root, _size(root))


def _indices(workspace: Workspace, gone: set[str]) -> Iterator[Item]:
    """Index entries that lead to what goes; they go first."""
    roots = [workspace.prompts]
    roots += [r for name in ("targets", "descriptions") for r in folders(workspace.root / name)]
    for root in roots:
        for path in find_paths(root / INDEX, "*.json"):
            try:
                store = root / str(read_json(path)["store"])
            except (OSError, ValueError, KeyError, TypeError):
                continue  # `verify` names it
            if str(store) in gone:
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
    """Place in the order of deletion: what vouches goes first, the lock goes last."""
    name = str(file)[len(str(root)) + 1 :]
    if file.name == LOCK:
        return len(VOUCHERS) + 1
    matches = [rank for rank, part in enumerate(VOUCHERS) if part in name]
    return matches[0] if matches else len(VOUCHERS)
