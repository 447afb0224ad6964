"""Read the weights of a checkpoint folder, whatever form they have on disk."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import CheckpointError
from pipeline.formats.weight_files import StateDict, read_tensors
from teacher.checkpoints.json_file import AGAIN
from teacher.checkpoints.weight_index import (
    INDEX_SUFFIX,
    read_weight_map,
    weight_files,
    weights_entry,
)


def read_checkpoint(folder: Path) -> tuple[StateDict, tuple[Path, ...]]:
    """(tensors on the CPU as stored, files that hold them) of any transformers checkpoint folder.

    Forms, in order of preference: `model.safetensors`, its shards with `model.safetensors.index.json`,
    `pytorch_model.bin`, its shards with their index. Pickles are read as tensors only, so no code in
    them runs. Names are the file's own; nothing is renamed, merged or cast. All numbers are finite;
    whether names, shapes and dtypes fit a model is for `teacher.checkpoints.tensors.require_exact`.

    Raises `CheckpointError`, in one line that names the file: absent, not of its format, cut short,
    holding more than tensors, or shards and index that contradict each other.
    """
    files = weight_files(folder)
    entry = weights_entry(folder)
    if not entry.name.endswith(INDEX_SUFFIX):
        return read_tensors(files[0]), files
    state: StateDict = {}
    shard_of: dict[str, str] = {}
    for path in files:
        for name, tensor in read_tensors(path).items():
            if name in state:
                raise CheckpointError(
                    f"{path}: expected each tensor in one shard, found {name} in {shard_of[name]} too. "
                    f"{AGAIN}"
                )
            state[name], shard_of[name] = tensor, path.name
    _require_same(shard_of, read_weight_map(entry), entry)
    return state, files


def _require_same(shard_of: dict[str, str], weight_map: dict[str, str], index: Path) -> None:
    """Raise `CheckpointError` for the first tensor that is not in the shard that the index names."""
    for name in sorted(shard_of.keys() | weight_map.keys()):
        actual, stated = shard_of.get(name), weight_map.get(name)
        if actual != stated:
            raise CheckpointError(
                f"{index}: {name}: expected it in {stated or 'no shard'}, found it in "
                f"{actual or 'none'}. {AGAIN}"
            )
