"""Examination of class prompts, description texts, index entries and temporary files of killed writers.

They are small, so a shallow examination reads them as a deep one does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from flows.integrity.finding import REPAIR, Finding, Kind
from pipeline.config.config import Config
from pipeline.core.fingerprint import SHORT, fingerprint
from pipeline.datasets import open_dataset
from pipeline.errors import Any2SegError, CorruptTarget, MissingTarget
from pipeline.shards.manifest import ShardInfo
from pipeline.storage.files import PARTIAL_SUFFIX, AnyPath, find_paths, read_json
from pipeline.storage.lease import LOCK
from pipeline.targets.descriptions import TEXTS, TextStore
from pipeline.targets.lookup import INDEX, look_up
from pipeline.targets.prompts import WHAT, PromptStore, prompt_request
from pipeline.targets.provenance import PROVENANCE
from pipeline.workspace import Workspace


def examine_prompts(config: Config, workspace: Workspace) -> Iterator[Finding]:
    """Findings about every prompt store; those of other configurations are not repairable here."""
    ours = own_prompts(config, workspace)
    for path in folders(workspace.prompts):
        problem = _prompts_problem(path)
        if problem:
            mine = path == ours
            yield Finding(
                Kind.PROVENANCE,
                str(path),
                problem,
                REPAIR
                if mine
                else "any2seg gc CONFIG, or repair with the configuration that made it",
                stage="precompute" if mine else "",
                drop=_files(path) if mine else (),
            )


def own_prompts(config: Config, workspace: Workspace) -> AnyPath | None:
    """The configuration's store by the index; None: there is none, or the source cannot be opened."""
    try:
        classes = open_dataset(config.dataset, config.specs()).classes
        return look_up(workspace.prompts, WHAT, prompt_request(config, classes))
    except Any2SegError:
        return None


def _prompts_problem(path: AnyPath) -> str:
    try:
        store = PromptStore.open(path)
        if not path.name.endswith(f"-{fingerprint(store.described['identity'])[:SHORT]}"):
            return "expected the settings that the folder is named after, found others"
        store.class_embedding()
        store.prompt_embedding()
    except (CorruptTarget, MissingTarget) as error:
        return str(error)
    except (KeyError, TypeError) as error:
        return f"{PROVENANCE}: expected the field {error}"
    return ""


def _files(folder: AnyPath) -> tuple[AnyPath, ...]:
    """Every file of a store except the lock, its provenance first."""
    rest = [p for p in below(folder, "*") if not p.is_dir() and not p.name.startswith(".")]
    first = folder / PROVENANCE
    return (first, *(path for path in rest if path != first))


def examine_texts(
    root: AnyPath, slots: Mapping[str, Sequence[ShardInfo]], stage: str
) -> Iterator[Finding]:
    """Findings about the description texts under `root`; `slots` maps a slot to its shards."""
    for folder in folders(root / TEXTS):
        provenance = folder / PROVENANCE
        problem = _texts_provenance_problem(provenance)
        if problem:
            yield _text_finding(provenance, problem, stage)
            continue
        slot = folder.name[: -SHORT - 1]
        for shard in slots.get(slot, ()):
            path = folder / shard.split / f"{shard.name}.parquet"
            if path.exists() and not _has_texts(folder, shard):
                problem = f"expected a text for each key of shard {shard.sha256[:SHORT]}"
                yield _text_finding(path, problem, stage)


def _text_finding(path: AnyPath, problem: str, stage: str) -> Finding:
    return Finding(Kind.TEXTS, str(path), problem, stage=stage, drop=(path,) if stage else ())


def _texts_provenance_problem(path: AnyPath) -> str:
    try:
        identity = read_json(path)
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"
    if path.parent.name.endswith(f"-{fingerprint(identity)[:SHORT]}"):
        return ""
    return "expected the settings that the folder is named after, found others"


def _has_texts(folder: AnyPath, shard: ShardInfo) -> bool:
    try:
        return TextStore(folder).read(shard) is not None
    except (pa.ArrowException, OSError, KeyError):
        return False


def examine_index(root: AnyPath, stage: str) -> Iterator[Finding]:
    """Findings about the index entries of `root`: each must refer to a store of its modality."""
    folder = root / INDEX
    for path in find_paths(folder, "*.json"):
        problem = _index_problem(root, path)
        if problem:
            yield Finding(Kind.INDEX, str(path), problem, stage=stage, drop=(path,))


def _index_problem(root: AnyPath, path: AnyPath) -> str:
    try:
        entry = read_json(path)
        request, store = entry["request"], str(entry["store"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"expected a request and its store, found: {error!r}"
    if not path.stem.endswith(f"-{fingerprint(request)[:SHORT]}"):
        return "expected the request that the file is named after, found another"
    if "/" in store or store.startswith(".") or not (root / store).is_dir():
        return f"expected the store {store}, found no such folder"
    what, holds = path.stem[: -SHORT - 1], _modality(root / store)
    if holds not in ("", what):
        return f"expected a store of {what}, found that {store} holds {holds}"
    return ""


def _modality(store: AnyPath) -> str:
    """The modality of a store's targets; empty: a prompt store, or the provenance is itself a finding."""
    try:
        return str(read_json(store / PROVENANCE)["modality"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def examine_partials(root: AnyPath) -> Iterator[Finding]:
    """Temporary files of killed (or running) writers anywhere in the workspace."""
    for path in below(root, f"*{PARTIAL_SUFFIX}"):
        problem = "a temporary file that nothing reads"
        remedy = "any2seg repair CONFIG, or any2seg gc CONFIG --delete"
        yield Finding(Kind.PARTIAL, str(path), problem, remedy, drop=(path,))


def folders(root: AnyPath) -> list[AnyPath]:
    """The folders in `root` that are stores or runs; empty if it does not exist."""
    if not root.is_dir():
        return []
    return [p for p in find_paths(root, "*") if p.name not in {INDEX, TEXTS} and p.is_dir()]


def below(folder: AnyPath, pattern: str) -> list[AnyPath]:
    """The matching paths anywhere below a folder, sorted by name."""
    paths: list[AnyPath] = [*folder.rglob(pattern)]
    return sorted(paths, key=str)


def lock_of(path: AnyPath, root: AnyPath) -> AnyPath | None:
    """The lock of the dataset, store or run that a file below `root` belongs to; None: there is none."""
    folder = path.parent
    while folder not in (root, folder.parent):
        if (folder / LOCK).exists():
            return folder / LOCK
        folder = folder.parent
    return None
