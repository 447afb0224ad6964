"""The `deliver` adapter: DELIVER as downloaded (Zhang et al., CVPR 2023).

    root/<folder>/<condition>/<split>/<scene>/<frame>_<suffix>_front.png

A modality's kind says which folder it is: `rgb` img, `hha` hha, `depth` depth (raw), `event`
event, `lidar_image` lidar. So `depth = { kind = "hha" }` is what the published models call depth,
and `depth = {}` is metric. Files are matched by the parts of their paths below the root, never by
replacing text, so a root called `img_rgb_sun` is as good as any. The condition is the folder's,
the corner case is read from the scene's name alone. Raw ids 1..25 become 0..24; 0 and 255 are
ignored. Low-resolution events are brought to the label's size by nearest neighbour, as upstream.
Errors: see `pipeline.datasets.tree`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.base import IGNORE_ID, RGB, SourceSample
from pipeline.datasets.card import DatasetCard
from pipeline.datasets.deliver_classes import DELIVER_CLASSES, DELIVER_PALETTE, RAW_IGNORE_ID
from pipeline.datasets.label_images import label_table, read_label
from pipeline.datasets.patterns import find_files
from pipeline.datasets.resize import nearest
from pipeline.datasets.tree import Entry, TreeAdapter, TreeOptions, entries_by_split
from pipeline.errors import ConfigError, DatasetError
from pipeline.formats.image_file import BadImageError, read_image, read_raw
from pipeline.modalities import LABEL, ModalitySpec

DELIVER_CARD = DatasetCard(
    title="DELIVER",
    expected={"train": 3983, "val": 2005, "test": 1897},
    size_px=(1042, 1042),
    folders={
        "rgb": "img",
        "hha": "hha",
        "depth": "depth",
        "event": "event",
        "lidar_image": "lidar",
        LABEL: "semantic",
    },
    conditions=("cloud", "fog", "night", "rain", "sun"),
    corner_cases=("motionblur", "overexposure", "underexposure", "lidarjitter", "eventlowres"),
    provenance=(
        "Rendered in the CARLA simulator for CMNeXt: Zhang et al., Delivering Arbitrary-Modal "
        "Semantic Segmentation, CVPR 2023; front view of github.com/jamycheung/DELIVER."
    ),
    licence="The code beside it is Apache-2.0; the download states no terms of its own: ask its authors.",
)

SUFFIX = {
    "img": "rgb",
    "hha": "depth",
    "depth": "depth",
    "event": "event",
    "lidar": "lidar",
    "semantic": "semantic",
}
CARLA_FAR_MM = 1_000_000.0
CARLA_STEPS = 256**3 - 1
"""CARLA's depth camera: metres / 1000 as a 24-bit number; the far plane is "nothing hit"."""


class DeliverOptions(TreeOptions):
    """DELIVER's own directory layout."""

    adapter: Literal["deliver"] = "deliver"
    raw_depth: Literal["carla24", "mm16"] = "carla24"
    """How `depth/` encodes range: CARLA's 24 bits over R, G, B (assumed), or 16-bit millimetres."""

    optional_fields: ClassVar[frozenset[str]] = TreeOptions.optional_fields


class DeliverAdapter(TreeAdapter):
    """`DatasetAdapter` over DELIVER's tree."""

    def __init__(self, options: DeliverOptions, modalities: Mapping[str, ModalitySpec]) -> None:
        super().__init__(options, modalities)
        self._options = options
        kinds = {name: spec.kind for name, spec in modalities.items()}
        for name, kind in kinds.items():
            if kind not in DELIVER_CARD.folders:
                hint = "lidar_image" if kind == "lidar" else "one of those"
                raise ConfigError(
                    f"modalities.{name}: DELIVER has no kind {kind!r}; expected one of "
                    f"{', '.join(k for k in DELIVER_CARD.folders if k != LABEL)}. "
                    f"Set modalities.{name}.kind to {hint}."
                )
        self._folders = {name: DELIVER_CARD.folders[kind] for name, kind in kinds.items()}
        self._folders[LABEL] = DELIVER_CARD.folders[LABEL]
        ids = {raw: raw - 1 for raw in range(1, len(DELIVER_CLASSES) + 1)}
        self._label_table = label_table(len(DELIVER_CLASSES), (RAW_IGNORE_ID, IGNORE_ID), ids)

    @property
    def classes(self) -> tuple[str, ...]:
        """DELIVER's 25 names."""
        return DELIVER_CLASSES

    @property
    def palette(self) -> tuple[RGB, ...]:
        """DELIVER's colours."""
        return DELIVER_PALETTE

    def _require_tree(self) -> None:
        super()._require_tree()
        for name, folder in self._folders.items():
            if not (self._options.root / folder).is_dir():
                raise DatasetError(
                    f"{self._options.root / folder}: no such folder, expected DELIVER's {name} "
                    "images. Unpack that part of the download there, drop the modality from the "
                    "config, or name the folder that holds img/ with --set dataset.root=FOLDER."
                )

    def _entries(self) -> dict[str, list[Entry]]:
        root = self._options.root
        matches = {name: find_files(root, pattern(f)) for name, f in self._folders.items()}
        listed = entries_by_split(matches)
        if not listed:
            raise DatasetError(
                f"{root}: found no {pattern('img')}. Name the folder that holds img/ with "
                "--set dataset.root=FOLDER."
            )
        return {
            split: [Entry(e.match, e.files, corner_case(e.match.name)) for e in entries]
            for split, entries in listed.items()
        }

    def _expected(self, name: str, sample: SourceSample) -> str:
        folder = self._folders[name]
        others = (p for f, p in self._listed_files(sample) if f != folder)
        other = next(others, None)
        if other is None:
            return f"a file like {self._options.root / pattern(folder)}"
        frame = other.name.split("_")[0]
        scene = Path(*other.parts[-4:-1])
        return str(self._options.root / folder / scene / f"{frame}_{SUFFIX[folder]}_front.png")

    def _listed_files(self, sample: SourceSample) -> list[tuple[str, Path]]:
        files = {**sample.files, **({LABEL: sample.label} if sample.label else {})}
        return [(self._folders[name], Path(path)) for name, path in files.items()]

    def _read(self, name: str, path: Path) -> NDArray[Any]:
        spec = self._specs[name]
        if spec.kind != "depth" or self._options.raw_depth == "mm16":
            return read_image(path, spec)
        return carla_depth(path)

    def _read_label(self, path: Path) -> NDArray[np.uint8]:
        return read_label(path, self._label_table, channel=0)

    def _fitted(self, name: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        if self._specs[name].kind != "event" or array.shape[:2] == shape:
            return array
        return nearest(array, (shape[0], shape[1]))


def pattern(folder: str) -> str:
    """Pattern of the images of one of DELIVER's folders."""
    return f"{folder}/{{condition}}/{{split}}/*/*_{SUFFIX[folder]}_front.png"


def corner_case(name: str) -> str:
    """The corner case that a sample's `<scene>/<frame>` names, or the empty text."""
    scene = name.split("/")[0].lower().replace("_", "")
    return next((case for case in DELIVER_CARD.corner_cases if case in scene), "")


def carla_depth(path: Path) -> NDArray[np.uint16]:
    """(H, W) millimetres of a CARLA depth image; 0 where nothing was hit, 65535 beyond 65 m.

    Raises `BadImageError` for anything but an 8-bit colour image.
    """
    raw = read_raw(path)
    if raw.values.ndim != 3 or raw.values.dtype != np.uint8:
        raise BadImageError(
            f"{path}: expected CARLA's 24-bit depth in an RGB image, found {raw.mode}; "
            'for 16-bit millimetres set dataset.raw_depth = "mm16", for HHA use kind "hha"'
        )
    code = raw.values.astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)
    millimetres = np.rint(code * (CARLA_FAR_MM / CARLA_STEPS))
    return np.where(code == CARLA_STEPS, 0, np.minimum(millimetres, 65_535)).astype(np.uint16)
