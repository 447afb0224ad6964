"""Locate a tower's files: the packaged default, a local directory, or a hub repository. No torch.

- `languagebind-tiny` is the root shipped with this package.
- A local root holds one sub-directory a tower (LanguageBind_Image, LanguageBind_Depth, ...); a
  directory with a config.json is one tower by itself, and so is a folder of the hub's cache.
- `ORG/REPO` is one tower on the hub, `ORG` stands for `ORG/LanguageBind_<Tower>`. HF_HUB_OFFLINE is
  honoured; a revision pins what is fetched.

Files fetched from the hub go into its own cache.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.hub import fetch_first, fetch_optional
from pipeline.errors import CheckpointError
from pipeline.formats.foreign_file import file_problem
from pipeline.modalities import TowerName
from teacher.checkpoints.hub_cache import resolve_snapshot
from teacher.checkpoints.hub_config import PREFIX, TOWERS, HubConfig, read_config
from teacher.checkpoints.json_file import AGAIN
from teacher.checkpoints.weight_index import (
    INDEX_SUFFIX,
    WEIGHTS,
    read_weight_map,
    weight_files,
)

TINY = "languagebind-tiny"
ASSETS = Path(__file__).parents[1] / "assets"
CONFIG = "config.json"
TOKENIZER = ("tokenizer.json", "vocab.json", "merges.txt")
_SETTING = "teacher.name"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class TowerFiles:
    """The local files of one tower."""

    name: str
    """The name that a user would give to load this tower."""
    directory: Path
    weights: tuple[Path, ...]
    """One file, or its shards."""
    config: HubConfig
    revision: str | None
    """Commit of a hub snapshot; None for other local files."""

    @property
    def where(self) -> str:
        """What error messages name as the place of the weights: their file, or the shards' folder."""
        return str(self.weights[0] if len(self.weights) == 1 else self.directory)

    def tokenizer_files(self) -> tuple[Path, ...]:
        """tokenizer.json alone if there, else vocab.json and merges.txt.

        Raises `CheckpointError` if neither is complete, or for one that is no readable file.
        """
        present = [name for name in TOKENIZER if os.path.lexists(self.directory / name)]
        chosen = TOKENIZER[:1] if TOKENIZER[0] in present else TOKENIZER[1:]
        if not set(chosen) <= set(present):
            raise CheckpointError(
                f"{self.directory}: expected tokenizer.json, or vocab.json and merges.txt; found "
                f"{' and '.join(present) or 'neither'}. Copy the tokenizer files of the checkpoint beside "
                "its config.json."
            )
        files = tuple(self.directory / name for name in chosen)
        for file in files:
            problem = file_problem(file)
            if problem:
                raise CheckpointError(
                    f"{file}: expected a tokenizer file, found {problem}. {AGAIN}"
                )
        return files


def find_tower(
    name: str, modality: TowerName, revision: str | None = None, *, local_only: bool = False
) -> TowerFiles:
    """Locate (and, for a hub name, fetch) the tower of `modality` in the source `name`.

    `local_only` looks for a hub name in the hub's cache alone. Raises `CheckpointError` when the
    source has no such tower or lacks files.
    """
    root, commit = _local_root(name, revision)
    if root is not None:
        return _local(root, name, modality, commit)
    if _HUB_NAME.fullmatch(name):
        repo = name if "/" in name else f"{name}/{tower_folder(modality)}"
        return _fetched(repo, modality, revision, local_only)
    raise CheckpointError(
        f"teacher source {name!r}: expected {TINY!r}, an existing directory, or a hub name like "
        f"{PREFIX}/{PREFIX}_Image; found no such directory. Correct teacher.name."
    )


def find_text_tower(name: str, revision: str | None = None) -> TowerFiles:
    """The checkpoint whose text half is used: the source itself, its Image tower, or its first tower.

    The text towers of all released L/14 checkpoints are the same frozen weights upstream.
    Raises `CheckpointError` as `find_tower` does.
    """
    root, commit = _local_root(name, revision)
    if root is not None:
        if os.path.lexists(root / CONFIG):
            return _single(root, name, commit)
        return _local(root, name, towers_in(name)[0])
    if "/" in name and _HUB_NAME.fullmatch(name):
        return _fetched(name, None, revision)
    return find_tower(name, "image", revision)


def towers_in(
    name: str, revision: str | None = None, *, local_only: bool = False
) -> tuple[TowerName, ...]:
    """The towers of a source; all three for a hub organisation, whose repositories are not listed.

    `local_only` looks for a hub name in the hub's cache alone. Raises `CheckpointError` as `find_tower`
    does, and for a directory without towers.
    """
    root, _ = _local_root(name, revision)
    if root is None:
        if "/" in name and _HUB_NAME.fullmatch(name):
            return (_fetched(name, None, revision, local_only).config.modality,)
        return TOWERS
    if os.path.lexists(root / CONFIG):
        return (_single(root, name).config.modality,)
    towers = tuple(t for t in TOWERS if os.path.lexists(root / tower_folder(t) / CONFIG))
    if not towers:
        raise CheckpointError(
            f"{root}: expected {CONFIG} or {PREFIX}_<Tower>/{CONFIG}, found none. Give teacher.name the "
            "folder that holds them."
        )
    return towers


def find_checkpoint(
    name: str, revision: str | None = None, *, local_only: bool = False
) -> tuple[Path, str | None] | None:
    """(folder with the config.json of one checkpoint, commit if it is the hub's) for a source.

    None for a source of several towers. Of a hub repository only config.json is fetched: see
    `fetch_weights` and `pipeline.core.hub`. Raises `CheckpointError`.
    """
    root, commit = _local_root(name, revision)
    if root is not None:
        return (root, commit) if os.path.lexists(root / CONFIG) else None
    if "/" not in name or not _HUB_NAME.fullmatch(name):
        return None
    config = fetch_first(name, (CONFIG,), _SETTING, revision=revision, local_only=local_only)
    return config.parent, config.parent.name


def fetch_weights(repo: str, commit: str, *, local_only: bool = False) -> None:
    """Fetch the weights of a hub repository, all shards of them. Raises `CheckpointError`."""
    weights = fetch_first(repo, WEIGHTS, _SETTING, revision=commit, local_only=local_only)
    if weights.name.endswith(INDEX_SUFFIX):
        for shard in sorted(set(read_weight_map(weights).values())):
            fetch_first(repo, (shard,), _SETTING, revision=commit, local_only=local_only)


def tower_folder(modality: TowerName) -> str:
    """Name of a tower's sub-directory or repository: LanguageBind_Depth for depth."""
    return f"{PREFIX}_{modality.capitalize()}"


def _local_root(name: str, revision: str | None) -> tuple[Path | None, str | None]:
    """(folder of a local source, its commit in the hub's cache); (None, None) for a hub name."""
    if name == TINY:
        return ASSETS / TINY, None
    folder = Path(name)
    if folder.is_dir():
        if not os.access(folder, os.R_OK | os.X_OK):
            raise CheckpointError(f"{folder}: expected a folder that can be read; change its mode.")
        return resolve_snapshot(folder, revision)
    if os.path.lexists(folder):
        raise CheckpointError(
            f"{folder}: expected the folder of a checkpoint, found {file_problem(folder) or 'a file'}. "
            "Give teacher.name the folder that holds it."
        )
    return None, None


def _local(root: Path, name: str, modality: TowerName, commit: str | None = None) -> TowerFiles:
    if os.path.lexists(root / CONFIG):
        return _require_modality(_single(root, name, commit), modality)
    folder = root / tower_folder(modality)
    if not os.path.lexists(folder / CONFIG):
        others = sorted(path.parent.name for path in root.glob(f"*/{CONFIG}"))
        raise CheckpointError(
            f"{root}: expected {CONFIG}, or {tower_folder(modality)}/{CONFIG} for the {modality} "
            f"tower; found towers: {', '.join(others) or 'none'}. Correct teacher.name or add it."
        )
    return _require_modality(_single(folder, f"{name}/{folder.name}"), modality)


def _single(folder: Path, name: str, revision: str | None = None) -> TowerFiles:
    config = read_config(folder / CONFIG)
    return TowerFiles(name, folder, weight_files(folder), config, revision)


def _require_modality(files: TowerFiles, modality: TowerName) -> TowerFiles:
    _require_same(files.name, files.config, modality)
    return files


def _require_same(name: str, config: HubConfig, modality: TowerName | None) -> None:
    if modality is not None and config.modality != modality:
        raise CheckpointError(
            f"{name}: expected the {modality} tower, found the {config.modality} tower. "
            "Give teacher.name a source that has both, or change the modality's tower."
        )


def _fetched(
    repo: str, modality: TowerName | None, revision: str | None, local_only: bool = False
) -> TowerFiles:
    config = fetch_first(repo, (CONFIG,), _SETTING, revision=revision, local_only=local_only)
    _require_same(repo, read_config(config), modality)
    # The commit that the configuration came from: a branch may move between two files.
    commit = config.parent.name
    fetch_weights(repo, commit, local_only=local_only)
    for file in TOKENIZER:
        fetch_optional(repo, file, revision=commit, local_only=local_only)
    return _single(config.parent, repo, commit)
