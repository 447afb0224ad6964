"""The weight files of a checkpoint folder: one file, or the shards that an index file names. No torch.

An index (`model.safetensors.index.json`, `pytorch_model.bin.index.json`) maps each tensor to its shard
under `weight_map`, as `save_pretrained(max_shard_size=...)` writes it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pipeline.errors import CheckpointError
from pipeline.formats.foreign_file import file_problem
from teacher.checkpoints.json_file import AGAIN, JsonDict, Pairs, read_json_object

INDEX_SUFFIX = ".index.json"
WEIGHTS = (
    "model.safetensors",
    f"model.safetensors{INDEX_SUFFIX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX_SUFFIX}",
)
"""In order of preference; the last two are pickles that are read as tensors only."""
_LISTED = 8
"""Files of a folder that an error lists."""


def weights_entry(folder: Path) -> Path:
    """The weights file of a folder, or the index of its shards. Raises `CheckpointError`."""
    for name in WEIGHTS:
        path = folder / name
        # A dangling link counts: what it should point at is better named than a second choice read.
        if os.path.lexists(path):
            problem = file_problem(path)
            if problem:
                raise CheckpointError(
                    f"{path}: expected a file of weights, found {problem}. {AGAIN}"
                )
            return path
    raise CheckpointError(
        f"{folder}: expected {', '.join(WEIGHTS[:-1])} or {WEIGHTS[-1]}, found {_listing(folder)}. {AGAIN}"
    )


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold a folder's weights: one, or the shards in the order of their names.

    Raises `CheckpointError` for a shard that is missing, or in the folder but not in the index.
    """
    entry = weights_entry(folder)
    if not entry.name.endswith(INDEX_SUFFIX):
        return (entry,)
    names = sorted(set(read_weight_map(entry).values()))
    for name in names:
        problem = file_problem(folder / name)
        if problem:
            raise CheckpointError(
                f"{folder / name}: expected a shard, as {entry.name} says, found {problem}. {AGAIN}"
            )
    extra = [path.name for path in shard_like(entry) if path.name not in names]
    if extra:
        raise CheckpointError(
            f"{folder / extra[0]}: expected the {len(names)} shards that {entry.name} names, found a "
            "shard that it does not name. Remove it, or fetch the checkpoint again."
        )
    return tuple(folder / name for name in names)


def read_weight_map(index: Path) -> dict[str, str]:
    """Tensor name to the name of its shard. Raises `CheckpointError`."""
    weight_map = read_json_object(index, _without_duplicates).get("weight_map")
    if isinstance(weight_map, _Duplicate):
        raise CheckpointError(f"{index}: tensor {weight_map.name} is listed twice. {AGAIN}")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{index}: expected a weight_map from tensor names to shards, found "
            f"{'none' if not weight_map else f'a {type(weight_map).__name__}'}. {AGAIN}"
        )
    stem, suffix = _base(index)
    shard = re.compile(rf"{re.escape(stem)}[\w.-]*{re.escape(suffix)}")
    for tensor, name in weight_map.items():
        # Names of files beside the index only: an index must not lead out of its folder.
        if not isinstance(name, str) or not shard.fullmatch(name):
            raise CheckpointError(
                f"{index}: {tensor}: expected the name of a shard like {stem}-00001-of-00002{suffix}, "
                f"found {str(name)[:80]!r}. {AGAIN}"
            )
    return weight_map


def shard_like(index: Path) -> list[Path]:
    """The files beside an index that are named like its shards."""
    stem, suffix = _base(index)
    shard = re.compile(rf"{re.escape(stem)}-\d+-of-\d+.*{re.escape(suffix)}")
    return sorted(path for path in index.parent.iterdir() if shard.fullmatch(path.name))


def _base(index: Path) -> tuple[str, str]:
    """(`model`, `.safetensors`) of `model.safetensors.index.json`."""
    base = Path(index.name.removesuffix(INDEX_SUFFIX))
    return base.stem, base.suffix


class _Duplicate:
    def __init__(self, name: str) -> None:
        self.name = name


def _without_duplicates(pairs: Pairs) -> JsonDict | Any:
    """A JSON object, or its first name that occurs twice: Python would keep the last in silence."""
    names: JsonDict = {}
    for name, value in pairs:
        if name in names:
            return _Duplicate(name)
        names[name] = value
    return names


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more if names else "an empty folder"
