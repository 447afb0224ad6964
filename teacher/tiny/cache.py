"""Scenes for the tiny teacher, rendered once into memory-mapped arrays.

`render_cache` writes one .npy file per sensor, then scenes.json, into a directory; a directory that
already holds the same scenes is reused. No torch, so that worker processes start quickly.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.synthetic.render import RENDERER_VERSION, render_scene
from pipeline.storage.files import read_json, write_json

_ARRAYS = {"rgb": "uint8", "event": "uint8", "depth": "uint16", "lidar": "uint16", "label": "uint8"}


@dataclass(frozen=True, slots=True)
class Scenes:
    """N rendered scenes: arrays by sensor and "label", with conditions and captions."""

    arrays: Mapping[str, NDArray[np.generic]]
    conditions: tuple[str, ...]
    captions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.conditions)


def render_cache(directory: Path, seed: int, num: int, size_px: int, processes: int = 2) -> Scenes:
    """Render scenes (seed, 0..num-1) into `directory`, or reuse those that it holds."""
    sizes = {"seed": seed, "num": num, "size_px": size_px}
    identity = {"renderer_version": RENDERER_VERSION, **sizes}
    record = directory / "scenes.json"
    if not record.is_file() or read_json(record)["identity"] != identity:
        directory.mkdir(parents=True, exist_ok=True)
        record.unlink(missing_ok=True)
        _allocate(directory, num, size_px)
        work = partial(_render_range, directory, seed, size_px)
        bounds = np.linspace(0, num, min(num, 8 * processes) + 1).astype(int).tolist()
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            texts = pool.starmap(work, zip(bounds[:-1], bounds[1:], strict=True))
        write_json(record, {"identity": identity, "texts": [row for part in texts for row in part]})
    return open_cache(directory)


def open_cache(directory: Path) -> Scenes:
    """The scenes that `render_cache` wrote there, memory-mapped."""
    rows = read_json(directory / "scenes.json")["texts"]
    arrays = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    return Scenes(arrays, tuple(row[0] for row in rows), tuple(row[1] for row in rows))


def _allocate(directory: Path, num: int, size_px: int) -> None:
    for name, dtype in _ARRAYS.items():
        tail = (3,) if name in ("rgb", "event") else ()
        np.lib.format.open_memmap(
            directory / f"{name}.npy", "w+", dtype, (num, size_px, size_px, *tail)
        )


def _render_range(
    directory: Path, seed: int, size_px: int, start: int, stop: int
) -> list[tuple[str, str]]:
    files = {name: np.load(directory / f"{name}.npy", mmap_mode="r+") for name in _ARRAYS}
    texts = []
    for index in range(start, stop):
        scene = render_scene(seed, index, size_px)
        for name, file in files.items():
            file[index] = getattr(scene, name)
        texts.append((scene.condition, scene.caption))
    for file in files.values():
        file.flush()
    return texts
