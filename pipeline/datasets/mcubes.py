"""The `mcubes` adapter: MCubeS as downloaded (Liang et al., CVPR 2022).

    root/polL_color/<name>.png                            rgb    8 or 16 bits, stored as 8
    root/polL_aolp_sin/<name>.npy, polL_aolp_cos/...      aolp   [sin, cos, sin], -1..1 stored as 0..255
    root/polL_dolp/<name>.npy                             dolp   0..1 stored as 0..65535
    root/NIR_warped/<name>.png, NIR_warped_mask/...       nir, nir16   8 or 16 bits; 0 where masked
    root/GT/<name>.png                                    ids 0..19, 255 ignored
    root/list_folder/{train,val,test}.txt                 one name a line

The first 192 columns, which the NIR camera does not see, are cut from everything, as upstream.
`root` may also be the folder above `multimodal_dataset/`. Published results are of the split
`test`: the loader of CMNeXt calls it "val". Errors: see `pipeline.datasets.tree`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.core.splits import SPLIT_ORDER
from pipeline.datasets.base import IGNORE_ID, RGB, SourceSample
from pipeline.datasets.card import DatasetCard
from pipeline.datasets.label_images import label_table, read_label
from pipeline.datasets.patterns import find_files
from pipeline.datasets.split_tables import read_split_lists
from pipeline.datasets.tree import Entry, TreeAdapter, TreeOptions, entries_by_table
from pipeline.errors import ConfigError, DatasetError
from pipeline.formats.image_file import BadImageError, one_channel, read_raw
from pipeline.modalities import LABEL, ModalitySpec

MCUBES_CLASSES: tuple[str, ...] = (
    "asphalt", "concrete", "metal", "road_marking", "fabric", "glass", "plaster", "plastic", "rubber",
    "sand", "gravel", "ceramic", "cobblestone", "brick", "grass", "wood", "leaf", "water", "human", "sky",
)  # fmt: skip
MCUBES_PALETTE: tuple[RGB, ...] = (
    (44, 160, 44), (31, 119, 180), (255, 127, 14), (214, 39, 40), (140, 86, 75), (127, 127, 127),
    (188, 189, 34), (255, 152, 150), (23, 190, 207), (174, 199, 232), (196, 156, 148), (197, 176, 213),
    (247, 182, 210), (199, 199, 199), (219, 219, 141), (158, 218, 229), (57, 59, 121), (107, 110, 207),
    (156, 158, 222), (99, 121, 57),
)  # fmt: skip
MCUBES_CARD = DatasetCard(
    title="MCubeS",
    expected={"train": 302, "val": 96, "test": 102},
    size_px=(1024, 1224),
    folders={
        "rgb": "polL_color",
        "aolp": "polL_aolp_sin",
        "dolp": "polL_dolp",
        "nir": "NIR_warped",
        "nir16": "NIR_warped",
        LABEL: "GT",
    },
    conditions=(),
    corner_cases=(),
    provenance=(
        "Real street scenes from one rig of RGB, polarisation and near-infrared cameras: Liang et al., "
        "Multimodal Material Segmentation, CVPR 2022; "
        "github.com/kyotovision-public/multimodal-material-segmentation."
    ),
    licence="The download states no terms of its own: ask its authors (Kyoto University).",
)
CUT_COLUMNS = 192
COSINES, NIR_MASKS = "polL_aolp_cos", "NIR_warped_mask"
ARRAYS = frozenset({"aolp", "dolp"})
COMPANIONS = {"aolp": COSINES, "nir": NIR_MASKS, "nir16": NIR_MASKS}


class McubesOptions(TreeOptions):
    """MCubeS's own directory layout."""

    adapter: Literal["mcubes"] = "mcubes"
    nir_mask_white: Literal["invalid", "valid"] = "invalid"
    """What white means in `NIR_warped_mask/`; its authors' README calls it the illegal region."""

    optional_fields: ClassVar[frozenset[str]] = TreeOptions.optional_fields | {"nir_mask_white"}


class McubesAdapter(TreeAdapter):
    """`DatasetAdapter` over MCubeS's tree."""

    def __init__(self, options: McubesOptions, modalities: Mapping[str, ModalitySpec]) -> None:
        super().__init__(options, modalities)
        self._white_is_invalid = options.nir_mask_white == "invalid"
        for name, spec in modalities.items():
            if spec.kind not in MCUBES_CARD.folders:
                allowed = ", ".join(kind for kind in MCUBES_CARD.folders if kind != LABEL)
                raise ConfigError(
                    f"modalities.{name}: MCubeS has no kind {spec.kind!r}; expected one of {allowed}. "
                    f"Set modalities.{name}.kind."
                )
        self._kinds = {**{name: spec.kind for name, spec in modalities.items()}, LABEL: LABEL}
        self._label_table = label_table(len(MCUBES_CLASSES), (IGNORE_ID,), {})

    @property
    def classes(self) -> tuple[str, ...]:
        """The 20 materials."""
        return MCUBES_CLASSES

    @property
    def palette(self) -> tuple[RGB, ...]:
        """The colours of CMNeXt's loader."""
        return MCUBES_PALETTE

    @cached_property
    def _root(self) -> Path:
        inner = self._tree.root / "multimodal_dataset"
        return inner if inner.is_dir() else self._tree.root

    def _require_tree(self) -> None:
        super()._require_tree()
        kinds = self._kinds.values()
        companions = {COMPANIONS[kind] for kind in kinds if kind in COMPANIONS}
        for folder in sorted({MCUBES_CARD.folders[kind] for kind in kinds} | companions):
            if not (self._root / folder).is_dir():
                raise DatasetError(
                    f"{self._root / folder}: no such folder, expected a part of MCubeS. Unpack it "
                    "there, drop the modality, or name the folder that holds polL_color/ with "
                    "--set dataset.root=FOLDER."
                )

    def _entries(self) -> dict[str, list[Entry]]:
        matches = {
            name: find_files(self._root, f"{MCUBES_CARD.folders[kind]}/*{_ending(kind)}")
            for name, kind in self._kinds.items()
        }
        listed = entries_by_table(matches, read_split_lists(self._lists()))
        return {
            split: [Entry(e.match, e.files, companions=self._companions(e)) for e in entries]
            for split, entries in listed.items()
        }

    def _lists(self) -> dict[str, Path]:
        for folder in (self._root / "list_folder", self._root.parent / "list_folder"):
            lists = {split: folder / f"{split}.txt" for split in SPLIT_ORDER}
            present = {split: path for split, path in lists.items() if path.is_file()}
            if present:
                return present
        raise DatasetError(
            f"{self._root / 'list_folder'}: expected train.txt, val.txt or test.txt with one name a "
            "line, found none. Unpack that part of the download there."
        )

    def _companions(self, entry: Entry) -> tuple[Path, ...]:
        return tuple(
            _companion(path, COMPANIONS[kind])
            for name, kind in self._kinds.items()
            if kind in COMPANIONS
            for path in entry.files[name]
        )

    def _expected(self, name: str, sample: SourceSample) -> str:
        kind = self._kinds[name]
        folder = self._root / MCUBES_CARD.folders[kind]
        return f"{folder}/*{_ending(kind)} with the name that gives key {sample.key}"

    def _read(self, name: str, path: Path) -> NDArray[Any]:
        spec = self._specs[name]
        if spec.kind == "rgb":
            return _covered(path, _whole(path, channels=3, dtype="uint8"))
        if spec.kind == "aolp":
            cosine = _companion(path, COSINES)
            return _covered(path, aolp_image(_share(path, -1.0), _share(cosine, -1.0)))
        if spec.kind == "dolp":
            return _covered(path, np.rint(_share(path, 0.0) * 65_535).astype(np.uint16))
        return _covered(path, self._near_infrared(path, spec.dtype))

    def _near_infrared(self, path: Path, dtype: str) -> NDArray[Any]:
        """(H, W) of the warped NIR image, 0 where its mask marks the pixel as invalid."""
        values = _whole(path, channels=1, dtype=dtype)
        mask_path = _companion(path, NIR_MASKS)
        white = one_channel(mask_path, read_raw(mask_path)) > 0
        if white.shape != values.shape:
            raise BadImageError(
                f"{mask_path}: expected the image's size {values.shape}, found {white.shape}"
            )
        return np.where(white == self._white_is_invalid, 0, values).astype(dtype)

    def _read_label(self, path: Path) -> NDArray[np.uint8]:
        return _covered(path, read_label(path, self._label_table))


def aolp_image(sine: NDArray[np.float64], cosine: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(H, W, 3) [sin, cos, sin] of the angle of polarisation, -1..1 as 0..255 (0.45 degrees a step)."""
    stacked = np.stack([sine, cosine, sine], axis=-1)
    return np.rint((stacked + 1) * 127.5).astype(np.uint8)


def _ending(kind: str) -> str:
    return ".npy" if kind in ARRAYS else ".png"


def _companion(path: Path, folder: str) -> Path:
    return path.parent.parent / folder / path.name


def _covered(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """The columns that the near-infrared camera covers."""
    if array.shape[1] <= CUT_COLUMNS:
        raise BadImageError(
            f"{path}: expected more than {CUT_COLUMNS} columns, found {array.shape[1]}"
        )
    return np.ascontiguousarray(array[:, CUT_COLUMNS:])


def _whole(path: Path, channels: int, dtype: str) -> NDArray[Any]:
    """An image of 8 or 16 bits at the depth asked for, full range to full range."""
    raw = read_raw(path)
    values = raw.values if channels == 3 else one_channel(path, raw)
    if values.ndim != (3 if channels == 3 else 2) or values.dtype not in (np.uint8, np.uint16):
        raise BadImageError(
            f"{path}: expected 8 or 16 bits and {channels} channels, found {raw.mode}"
        )
    if values.dtype == dtype:
        return values
    factor = np.iinfo(dtype).max / np.iinfo(values.dtype).max
    return np.rint(values * factor).astype(dtype)


def _share(path: Path, low: float) -> NDArray[np.float64]:
    """(H, W) float64 array of numbers from `low` to 1; a hair beyond is rounding and clipped."""
    raw = read_raw(path)
    values = raw.values.astype(np.float64)
    slack = 1e-3
    if values.ndim != 2 or not ((values >= low - slack) & (values <= 1 + slack)).all():
        raise BadImageError(
            f"{path}: expected (H, W) numbers from {low:g} to 1, found {values.shape} from "
            f"{values.min():g} to {values.max():g}"
        )
    return np.clip(values, low, 1.0)
