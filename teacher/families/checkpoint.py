"""One checkpoint in transformers' form: config.json read, other files located (or fetched) on demand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.core.hub import fetch_optional
from pipeline.errors import CheckpointError
from pipeline.storage.files import sha256_file
from teacher.checkpoints.config_fields import field_error, require_integer, require_section
from teacher.checkpoints.digest import weights_digest
from teacher.checkpoints.hub_config import effective
from teacher.checkpoints.json_file import JsonDict, read_json_object
from teacher.checkpoints.locate import CONFIG, fetch_weights, find_checkpoint
from teacher.checkpoints.weight_index import weight_files

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
)
"""Files that transformers' tokenizers read."""
_PROCESSOR = ("preprocessor_config.json", "processor_config.json")
_LARGEST = 1 << 16


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's folder and its config.json."""

    name: str
    """As the user gave it; a hub repository if `commit` is not None and it is no folder."""
    folder: Path
    config: JsonDict
    commit: str | None = None
    local_only: bool = False

    @property
    def where(self) -> str:
        """What error messages name."""
        return str(self.folder / CONFIG)

    @cached_property
    def weights(self) -> tuple[Path, ...]:
        """The weights file, or its shards. Raises `CheckpointError`."""
        if self._remote:
            assert self.commit is not None
            fetch_weights(self.name, self.commit, local_only=self.local_only)
        return weight_files(self.folder)

    def require_weights(self) -> None:
        """Fetch the weights if they are the hub's. Raises `CheckpointError` if they cannot be had."""
        assert self.weights

    def digest(self, cache: Path) -> str:
        """Hex sha256 of the weights."""
        return weights_digest(self.weights, cache)

    def file(self, name: str) -> Path | None:
        """A file of the checkpoint; None if it has none of that name."""
        if self._remote:
            fetch_optional(self.name, name, revision=self.commit, local_only=self.local_only)
        path = self.folder / name
        return path if os.path.lexists(path) else None

    def processor_settings(self) -> JsonDict:
        """The image processor's settings as stored. Raises `CheckpointError` if there are none."""
        for name in _PROCESSOR:
            path = self.file(name)
            if path is not None:
                settings = read_json_object(path)
                return require_section(settings, "image_processor", str(path)) or settings
        raise CheckpointError(
            f"{self.folder}: expected {_PROCESSOR[0]}, which says how images are resized and "
            "normalised; found none. Fetch the checkpoint again."
        )

    def tokenizer_digests(self) -> dict[str, str]:
        """File name to hex sha256 of each tokenizer file. Raises `CheckpointError` if there is none."""
        paths = {name: self.file(name) for name in TOKENIZER_FILES}
        digests = {name: sha256_file(path) for name, path in paths.items() if path is not None}
        if not digests.keys() & {"tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model"}:
            raise CheckpointError(
                f"{self.folder}: expected tokenizer files (tokenizer.json, ...), found none. Copy the "
                "tokenizer files of the checkpoint beside its config.json."
            )
        return digests

    def section(self, name: str, defaults: Mapping[str, Any]) -> Fields:
        """The sub-config `name`, completed; `<name>_dict` overrides it as transformers has it."""
        stated = require_section(self.config, name, self.where) or {}
        override = require_section(self.config, f"{name}_dict", self.where)
        return Fields(effective(defaults, stated, override), f"{self.where}: {name}")

    def fields(self, defaults: Mapping[str, Any]) -> Fields:
        """The top-level fields, completed."""
        return Fields({**defaults, **self.config}, self.where)

    @property
    def _remote(self) -> bool:
        return self.commit is not None and not Path(self.name).is_dir()


@dataclass(frozen=True, slots=True)
class Fields:
    """Checked access to one section of a config.json; `where` names it in errors."""

    values: JsonDict
    where: str

    def integer(self, name: str) -> int:
        """A whole number of at least 1. `CheckpointError` for anything else."""
        return require_integer(self.values, name, self.where, _LARGEST)

    def count(self, name: str) -> int:
        """A whole number of at least 0."""
        return 0 if self.values.get(name) == 0 else self.integer(name)

    def side(self, name: str) -> int:
        """The side of a square that is given as a number or as two equal ones."""
        value = self.values.get(name)
        if isinstance(value, list):
            if len(value) != 2 or value[0] != value[1]:
                raise field_error(self.where, name, "a square", value)
            return require_integer({name: value[0]}, name, self.where, _LARGEST)
        return self.integer(name)

    def pick(self, *names: str) -> dict[str, Any]:
        """Some fields, JSON-ready, for a fingerprint."""
        return {name: self.values.get(name) for name in names}


def open_checkpoint(
    name: str, revision: str | None = None, *, local_only: bool = False
) -> Checkpoint | None:
    """The checkpoint of a folder or a hub name; None for a source of several towers.

    Raises `CheckpointError` for a config.json that cannot be had or read.
    """
    located = find_checkpoint(name, revision, local_only=local_only)
    if located is None:
        return None
    folder, commit = located
    return Checkpoint(name, folder, read_json_object(folder / CONFIG), commit, local_only)
