"""Writes synthetic scenes as DELIVER's own directory tree, a true-to-format source for its loader.

    <root>/img/<condition>/<split>/<scene>/<frame>_rgb_front.png        RGBA
    <root>/hha/...                         <frame>_depth_front.png      RGB: disparity, height, angle
    <root>/depth/...                       <frame>_depth_front.png      RGBA: metres in CARLA's 24-bit packing
    <root>/event/...                       <frame>_event_front.png      RGB
    <root>/lidar/...                       <frame>_lidar_front.png      8-bit range, near bright, 0: no return
    <root>/semantic/...                    <frame>_semantic_front.png   RGBA, channel 0: id + 1, 0: ignore

<scene> is MAP_<n>_point<k>, followed by _<corner case> where there is one. Layout, names and label ids are
those of DELIVER's loader; how its `depth` and `lidar` images encode range is not public, so those two
codes are ours. Raises `DatasetError` for a root whose own path would confuse the loader.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.base import IGNORE_ID
from pipeline.datasets.deliver_classes import RAW_IGNORE_ID
from pipeline.datasets.synthetic.adapter import scene_index
from pipeline.datasets.synthetic.render import Scene, render_scene, scene_world
from pipeline.errors import DatasetError
from tests.support.hha import hha_image

U8 = NDArray[np.uint8]

_NUM_MAPS = 12
_SUFFIX = {
    "img": "rgb",
    "hha": "depth",
    "depth": "depth",
    "event": "event",
    "lidar": "lidar",
    "semantic": "semantic",
}
_CARLA_FAR_M = 1000.0
_LIDAR_FAR_M = 100.0


def write_deliver(
    root: str | Path, seed: int, counts_per_split: Mapping[str, int], size_px: int = 128
) -> int:
    """Write `counts_per_split` scenes (splits train, val, test) and return how many were written.

    Scene `number` of a split is the one that the `synthetic` adapter gives for the same seed. Raises
    `DatasetError` on an unknown split or a root that the loader's text replacement would break.
    """
    root = Path(root)
    for word in ("/img", "_rgb"):
        if word in root.resolve().as_posix():
            raise DatasetError(
                f"{root}: DELIVER's loader replaces {word!r} anywhere in a path, so a root must not "
                "contain it. Choose another folder."
            )
    for split, count in counts_per_split.items():
        for number in range(count):
            _write_scene(root, split, seed, scene_index(split, number), size_px)
    return sum(counts_per_split.values())


def _write_scene(root: Path, split: str, seed: int, index: int, size_px: int) -> None:
    scene, world = render_scene(seed, index, size_px), scene_world(seed, index)
    name = f"MAP_{index % _NUM_MAPS + 1}_point{index // _NUM_MAPS + 1}"
    if scene.corner_case:
        name += f"_{scene.corner_case}"
    images = _images(scene)
    images["hha"] = hha_image(scene.depth, world.lens(size_px), world.camera.z)
    for folder, suffix in _SUFFIX.items():
        path = root / folder / scene.condition / split / name / f"{index:06d}_{suffix}_front.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[folder]).save(path, compress_level=1)


def _images(scene: Scene) -> dict[str, U8]:
    """Every image but HHA, in DELIVER's encoding."""
    raw = np.where(scene.label == IGNORE_ID, RAW_IGNORE_ID, scene.label + 1).astype(np.uint8)
    blank = np.zeros_like(raw)
    near = 255 * (1 - scene.lidar.astype(np.float32) / np.float32(1000 * _LIDAR_FAR_M))
    return {
        "img": _opaque(scene.rgb),
        "depth": _opaque(_carla_depth(scene.depth)),
        "event": scene.event,
        "lidar": np.where(scene.lidar > 0, np.clip(near, 1, 255), 0).astype(np.uint8),
        "semantic": _opaque(np.stack([raw, blank, blank], axis=-1)),
    }


def _opaque(image: U8) -> U8:
    """RGB to RGBA."""
    return np.concatenate([image, np.full_like(image[..., :1], 255)], axis=-1)


def _carla_depth(depth: NDArray[np.uint16]) -> U8:
    """Metres / 1000 as a 24-bit number, low byte first; the sky lies on the far plane."""
    share = np.where(depth > 0, depth / (1000 * _CARLA_FAR_M), 1.0)
    code = np.round(share * (256**3 - 1)).astype(np.uint32)
    return np.stack([code >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)
