"""Which files a prediction writes, checked before the first one: never over an input, never over another's.

    planned = plan_outputs(scenes, folder, outputs)
    reserve(folder, planned)

A prediction has a folder of its own, with a record of it, `predictions.json`: each file's name to the inputs
that it was predicted from. So a repeated command, or one with another student or a further sensor, replaces
its own results, and nothing else is ever replaced. Raises `ConfigError` that names the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.storage.files import read_json, write_json

RECORD = "predictions.json"
IDS, OVERLAY, LOGITS = ".png", "_overlay.png", ".npy"
"""What follows a scene's name in the names of its files."""
ELSEWHERE = "Name another folder with -o"


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is written beside the class ids."""

    overlay: bool = True
    logits: bool = False

    @property
    def endings(self) -> tuple[str, ...]:
        """Of the files of a scene."""
        return (IDS, *([OVERLAY] if self.overlay else []), *([LOGITS] if self.logits else []))


@dataclass(frozen=True, slots=True)
class Scene:
    """Files of one scene by modality."""

    name: str
    files: Mapping[str, Path]

    @property
    def inputs(self) -> list[str]:
        """Absolute paths of its files, links resolved."""
        return sorted(str(path.resolve()) for path in self.files.values())


Planned = Mapping[str, Sequence[str]]
"""Name of a file to the inputs that it is predicted from."""


def plan_outputs(scenes: Sequence[Scene], folder: Path, outputs: Outputs) -> Planned:
    """The files that will be written. Raises `ConfigError` if one would replace anything else."""
    _require_own_folder(scenes, folder)
    planned: dict[str, list[str]] = {}
    for scene in scenes:
        for ending in outputs.endings:
            name = f"{scene.name}{ending}"
            if name in planned:
                raise ConfigError(
                    f"{name}: two scenes would write it, one of them {scene.name!r} with its {ending}. "
                    "Rename one, or leave overlays out with --no-overlay."
                )
            planned[name] = scene.inputs
    recorded = read_record(folder)
    for name, inputs in planned.items():
        if (folder / name).exists() and not set(recorded.get(name, ())) & set(inputs):
            origin = ", ".join(recorded.get(name, ())) or "something that is no prediction"
            raise ConfigError(f"{folder / name} exists already, made from {origin}. {ELSEWHERE}.")
    return planned


def reserve(folder: Path, planned: Planned) -> None:
    """Note in the folder's record what is about to be written. `ConfigError` if it cannot be."""
    try:
        write_json(folder / RECORD, {**read_record(folder), **planned})
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written: {error.strerror}. {ELSEWHERE}.") from None


def read_record(folder: Path) -> dict[str, list[str]]:
    """What earlier predictions wrote there. `ConfigError` if the file is not such a record."""
    path = folder / RECORD
    try:
        recorded = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, json.JSONDecodeError):
        recorded = None
    if not isinstance(recorded, dict) or not all(isinstance(v, list) for v in recorded.values()):
        raise ConfigError(f"{path}: not a record of predictions. {ELSEWHERE}.")
    return recorded


def _require_own_folder(scenes: Sequence[Scene], folder: Path) -> None:
    """Refuse a folder that holds an input: results would lie among the images, or replace them."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(
            f"{folder}: expected a folder for the results, found a file. {ELSEWHERE}."
        )
    for scene in scenes:
        for modality, path in scene.files.items():
            if folder.exists() and path.parent.resolve() == folder.resolve():
                raise ConfigError(
                    f"{folder}: holds the input {path.name} of {modality}; results need a folder of their "
                    f"own. {ELSEWHERE}."
                )
