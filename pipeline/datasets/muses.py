"""The `muses` adapter: MUSES with its sensors projected to the frame camera (Broedermann et al., ECCV
2024).

    root/<folder>/<split>/{clear,fog,rain,snow}/{day,night}/<recording>_<suffix>.png

`rgb` is frame_camera, `event` event_camera, `lidar` and `lidar_image` lidar; events and LiDAR are
read from `projected_to_rgb/` (where the MUSES SDK writes them) and then beside frame_camera.
`lidar` is metric: the range channel of the SDK's 16-bit PNG (metres = value / 150 - 100) or of its
`.npz`. `lidar_image` takes 8-bit images as they are. As downloaded, both sensors are `.h5` and
`.bin`: that is refused with the command that projects them. Labels are the 19 Cityscapes train
ids, 255 ignored. The condition is `<weather>-<time of day>`. A split without labels (test, whose
labels are not published) is not listed. Errors: see `pipeline.datasets.tree`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.base import IGNORE_ID, RGB, SourceSample
from pipeline.datasets.card import DatasetCard
from pipeline.datasets.label_images import label_table, read_label
from pipeline.datasets.label_sets import CITYSCAPES_CLASSES, CITYSCAPES_PALETTE
from pipeline.datasets.patterns import Match, Matches, find_files
from pipeline.datasets.tree import Entry, TreeAdapter, TreeOptions, entries_by_split
from pipeline.errors import ConfigError, DatasetError
from pipeline.formats.image_file import BadImageError, read_image, read_raw
from pipeline.modalities import LABEL, ModalitySpec

MUSES_CARD = DatasetCard(
    title="MUSES",
    expected={"train": 1500, "val": 250, "test": 750},
    size_px=(1080, 1920),
    folders={
        "rgb": "frame_camera",
        "event": "event_camera",
        "lidar": "lidar",
        "lidar_image": "lidar",
        LABEL: "gt_semantic",
    },
    conditions=tuple(
        f"{w}-{t}" for w in ("clear", "fog", "rain", "snow") for t in ("day", "night")
    ),
    corner_cases=(),
    provenance=(
        "Real drives in Switzerland: Broedermann et al., MUSES: The Multi-Sensor Semantic Perception "
        "Dataset for Driving under Uncertainty, ECCV 2024; muses.ethz.ch."
    ),
    licence="Registration at muses.ethz.ch, whose terms of use apply.",
)
PROJECTED = "projected_to_rgb"
LABEL_SUFFIX = "gt_labelTrainIds"
RAW_ENDINGS = {"event_camera": ".h5", "lidar": ".bin"}
STEPS_PER_METRE, SHIFT_M = 150.0, 100.0
"""The SDK's 16-bit code of a value: (metres + 100) * 150."""


class MusesOptions(TreeOptions):
    """MUSES's directory layout, projected."""

    adapter: Literal["muses"] = "muses"


class MusesAdapter(TreeAdapter):
    """`DatasetAdapter` over MUSES's tree."""

    def __init__(self, options: MusesOptions, modalities: Mapping[str, ModalitySpec]) -> None:
        super().__init__(options, modalities)
        for name, spec in modalities.items():
            if spec.kind not in MUSES_CARD.folders:
                allowed = ", ".join(kind for kind in MUSES_CARD.folders if kind != LABEL)
                raise ConfigError(
                    f"modalities.{name}: the muses adapter has no kind {spec.kind!r}; expected one of "
                    f"{allowed}. Set modalities.{name}.kind."
                )
        self._label_table = label_table(len(CITYSCAPES_CLASSES), (IGNORE_ID,), {})

    @property
    def classes(self) -> tuple[str, ...]:
        """The 19 classes that Cityscapes trains on."""
        return CITYSCAPES_CLASSES

    @property
    def palette(self) -> tuple[RGB, ...]:
        """Cityscapes's colours."""
        return CITYSCAPES_PALETTE

    @cached_property
    def _patterns(self) -> dict[str, tuple[str, ...]]:
        """Modality and label to the patterns of its files."""
        patterns = {name: self._patterns_of(spec.kind) for name, spec in self._specs.items()}
        return {**patterns, LABEL: (_pattern("gt_semantic", LABEL_SUFFIX, ".png"),)}

    def _patterns_of(self, kind: str) -> tuple[str, ...]:
        sensor = MUSES_CARD.folders[kind]
        projected = f"{PROJECTED}/{sensor}"
        folder = projected if (self._tree.root / projected).is_dir() else sensor
        endings = (".png", ".npz") if kind == "lidar" else (".png",)
        return tuple(_pattern(folder, sensor, ending) for ending in endings)

    def _require_tree(self) -> None:
        super()._require_tree()
        for name, patterns in self._patterns.items():
            folder = self._tree.root / patterns[0].split("/{split}")[0]
            if not folder.is_dir():
                raise DatasetError(
                    f"{folder}: no such folder, expected MUSES's {name}. Unpack that part of the "
                    "download, or name the folder that holds frame_camera/ with --set dataset.root=FOLDER."
                )

    def _entries(self) -> dict[str, list[Entry]]:
        root = self._tree.root
        by_modality = {name: _find_all(root, patterns) for name, patterns in self._patterns.items()}
        for name, matches in by_modality.items():
            if name != LABEL and not matches.files:
                self._explain_raw(name)
        labelled = {match.split for match in by_modality[LABEL].files}
        if not labelled:
            raise DatasetError(
                f"{root}: found no {self._patterns[LABEL][0]}. Unpack MUSES's semantic annotations "
                "there, or name the folder that holds gt_semantic/ with --set dataset.root=FOLDER."
            )
        listed = entries_by_split(by_modality)
        return {split: entries for split, entries in listed.items() if split in labelled}

    def _explain_raw(self, name: str) -> None:
        """`DatasetError` for a sensor without images; for raw files, with the command that projects them."""
        root, sensor = self._tree.root, MUSES_CARD.folders[self._specs[name].kind]
        ending = RAW_ENDINGS.get(sensor)
        raw = _find_all(root, (_pattern(sensor, sensor, ending),)) if ending else Matches()
        if not raw.files:
            raise DatasetError(f"{root}: found no {' or '.join(self._patterns[name])}")
        first = min(paths[0] for paths in raw.files.values())
        raise DatasetError(
            f"{first}: {name} is in MUSES's raw {ending} form, which has no pixels of the frame camera. "
            "Project it with the MUSES SDK (github.com/timbroed/MUSES):\n"
            f"  python scripts/project_sensors_to_rgb.py --muses_root {root} --event_camera --lidar "
            f"--motion_compensation --output_file_type .png\n"
            f"That writes {root / PROJECTED}, which the adapter then finds without further options."
        )

    def _condition(self, match: Match) -> str:
        return f"{match.condition}-{match.name.split('/')[0]}"

    def _expected(self, name: str, sample: SourceSample) -> str:
        patterns = [pattern.replace("{split}", sample.split) for pattern in self._patterns[name]]
        return f"a file like {self._tree.root / ' or '.join(patterns)} for key {sample.key}"

    def _read(self, name: str, path: Path) -> NDArray[Any]:
        spec = self._specs[name]
        return range_image(path) if spec.kind == "lidar" else read_image(path, spec)

    def _read_label(self, path: Path) -> NDArray[np.uint8]:
        return read_label(path, self._label_table)


def range_image(path: Path) -> NDArray[np.uint16]:
    """(H, W) millimetres of the SDK's projected LiDAR, 0 where no point fell. `BadImageError`."""
    raw = read_raw(path)
    if raw.values.ndim != 3 or raw.values.dtype == np.uint8:
        raise BadImageError(
            f"{path}: expected the SDK's three channels of 16 bits or floats, found {raw.mode}; "
            'for 8-bit images use kind "lidar_image"'
        )
    metres = raw.values[:, :, 0].astype(np.float64)
    if raw.values.dtype == np.uint16:
        metres = metres / STEPS_PER_METRE - SHIFT_M
    measured = np.isfinite(metres) & (metres > 0)
    millimetres = np.minimum(np.where(measured, metres, 0) * 1000, 65_535)
    return np.asarray(np.rint(millimetres), np.uint16)


def _pattern(folder: str, suffix: str, ending: str) -> str:
    return f"{folder}/{{split}}/{{condition}}/*/*_{suffix}{ending}"


def _find_all(root: Path, patterns: tuple[str, ...]) -> Matches:
    matches = Matches()
    for pattern in patterns:
        one = find_files(root, pattern)
        matches.splits.update(one.splits)
        for match, paths in one.files.items():
            matches.files[match] += paths
    return matches
