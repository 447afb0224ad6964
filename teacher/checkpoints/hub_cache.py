"""Find the checkpoint in a folder of the Hugging Face cache, at whatever level a user points to.

    HUB/models--ORG--NAME/refs/main                   a commit
    HUB/models--ORG--NAME/snapshots/<commit>/...      the files, as links into blobs/

The folder of a model or its `snapshots` stand for a snapshot; other levels are refused with the one to
give. No request is made.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import CheckpointError

_MODEL = "models--"
_SNAPSHOTS = "snapshots"
_LISTED = 3


def resolve_snapshot(folder: Path, revision: str | None = None) -> tuple[Path, str | None]:
    """(folder with a checkpoint's files, its commit): any folder outside of a cache is its own, None.

    Of several snapshots, the one of `revision` (a commit, or a name in refs/), else that of refs/main.
    Raises `CheckpointError` naming the folder to give when there is no such snapshot.
    """
    absolute = folder.absolute()
    if absolute.parent.name == _SNAPSHOTS and absolute.parents[1].name.startswith(_MODEL):
        return folder, absolute.name
    if absolute.name == _SNAPSHOTS and absolute.parent.name.startswith(_MODEL):
        return _snapshot(folder, absolute.parent / "refs", revision)
    if absolute.name.startswith(_MODEL):
        return _snapshot(folder / _SNAPSHOTS, folder / "refs", revision)
    _refuse_other_levels(folder, absolute)
    return folder, None


def _snapshot(snapshots: Path, refs: Path, revision: str | None) -> tuple[Path, str]:
    commits = (
        sorted(p.name for p in snapshots.iterdir() if p.is_dir()) if snapshots.is_dir() else []
    )
    if not commits:
        raise CheckpointError(
            f"{snapshots}: expected a snapshot of the hub's cache, found none: its download did not "
            "finish. Fetch the checkpoint again."
        )
    commit = _commit_of(refs, revision or "main")
    if commit not in commits:
        if revision is not None:
            raise CheckpointError(
                f"{snapshots}: expected revision {revision}, found {_some(commits)}. Fetch that revision, "
                "or name one of these."
            )
        if len(commits) > 1:
            raise CheckpointError(
                f"{snapshots}: expected one snapshot, or refs/main to choose one, found {len(commits)}. "
                f"Give one of them: {_some([str(snapshots / name) for name in commits])}."
            )
        commit = commits[0]
    return snapshots / commit, commit


def _commit_of(refs: Path, revision: str) -> str:
    """The commit that a name in refs/ stands for; else the name, which may be a commit."""
    ref = refs / revision
    # A revision may hold slashes (refs/pr/1), but must not lead out of the folder.
    if ".." in ref.parts or not ref.is_file():
        return revision
    return ref.read_text(encoding="utf-8", errors="replace").strip()


def _refuse_other_levels(folder: Path, absolute: Path) -> None:
    model = next((path for path in absolute.parents if path.name.startswith(_MODEL)), None)
    if model is not None and absolute.name in ("blobs", "refs"):
        raise CheckpointError(
            f"{folder}: expected a snapshot, found the {absolute.name} of a folder of the hub's cache. "
            f"Give {model}."
        )
    models = sorted(str(path) for path in folder.glob(f"{_MODEL}*") if path.is_dir())
    below = sorted(str(path) for path in folder.glob(f"hub/{_MODEL}*") if path.is_dir())
    if models or below:
        raise CheckpointError(
            f"{folder}: expected the folder of one checkpoint, found the hub's cache of "
            f"{len(models or below)}. Give one of them: {_some(models or below)}."
        )


def _some(names: list[str]) -> str:
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
