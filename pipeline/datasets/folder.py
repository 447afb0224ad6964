"""The `folder` adapter: one directory of pictures per modality, matched by file stem.

    root/<modality directory>/<split>/<stem>.png      root/label/<split>/<stem>.png

or, with `split_csv` (header `key,split`), flat directories `root/<modality directory>/<stem>.png`.
Nothing is written. A data set that cannot be listed is a `DatasetError`; a sample that is
ambiguous, incomplete or broken is `SampleRefused` when it is loaded, by name.
"""

from __future__ import annotations

import colorsys
import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from pipeline.datasets.base import (
    IGNORE_ID,
    RGB,
    DatasetOptions,
    LoadedSample,
    SourceSample,
)
from pipeline.datasets.pictures import (
    EXTENSIONS,
    BadPictureError,
    label_table,
    read_label,
    read_picture,
)
from pipeline.errors import ConfigError, DatasetError, SampleRefused
from pipeline.modalities import ModalitySpec

SPLIT_ORDER = ("train", "val", "test")
SPLIT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
LABEL = "label"

Stems = dict[str, list[Path]]
"""File stem to the files that have it."""


class FolderOptions(DatasetOptions):
    """Where the pictures lie and what the label ids mean."""

    adapter: Literal["folder"] = "folder"
    root: Path
    """Folder that holds one directory per modality and one of labels."""
    classes: tuple[str, ...] = Field(min_length=1, max_length=255)
    """Class names; the index is the class id."""
    palette: tuple[RGB, ...] | None = None
    """One colour a class; default: evenly spread hues."""
    label: str = LABEL
    """Directory of the label pictures."""
    directories: dict[str, str] = {}
    """Modality to its directory under `root`; default: the modality's own name."""
    split_csv: Path | None = None
    """CSV with the header `key,split` (key: a file stem); default: one sub-directory per split."""
    ignore_ids: tuple[int, ...] = (IGNORE_ID,)
    """Raw label ids of pixels that count nowhere."""
    remap: dict[int, int] = {}
    """Raw label id to class id; if given, ids in neither it nor `ignore_ids` are refused."""
    missing: Literal["refuse", "allow"] = "refuse"
    """Whether a sample may lack some of its modalities."""

    growth_fields: ClassVar[frozenset[str]] = frozenset({"palette"})

    @field_validator("classes")
    @classmethod
    def _names_are_distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name, count in Counter(value).items() if count > 1]
        if twice:
            raise ValueError(f"class {twice[0]!r} is listed twice; expected distinct names")
        return value

    @field_validator("palette")
    @classmethod
    def _colours_are_8_bit(cls, value: tuple[RGB, ...] | None) -> tuple[RGB, ...] | None:
        if any(not 0 <= channel <= 255 for colour in value or () for channel in colour):
            raise ValueError("expected channels from 0 to 255")
        return value

    @model_validator(mode="after")
    def _ids_fit_classes(self) -> FolderOptions:
        num_classes = len(self.classes)
        if self.palette is not None and len(self.palette) != num_classes:
            raise ValueError(f"palette: expected {num_classes} colours, found {len(self.palette)}")
        for raw in (*self.ignore_ids, *self.remap):
            if not 0 <= raw < 2**16:
                raise ValueError(f"label id {raw}: expected 0..65535")
        for raw, target in self.remap.items():
            if not (0 <= target < num_classes or target == IGNORE_ID):
                raise ValueError(
                    f"remap.{raw} = {target}: expected a class id 0..{num_classes - 1} "
                    f"or {IGNORE_ID}"
                )
            if raw in self.ignore_ids and target != IGNORE_ID:
                raise ValueError(f"remap.{raw}: the id is also in ignore_ids; list it once")
        return self


class FolderAdapter:
    """`DatasetAdapter` over directories of pictures; lists the directories once, on first use."""

    def __init__(self, options: FolderOptions, modalities: Mapping[str, ModalitySpec]) -> None:
        unknown = sorted(set(options.directories) - set(modalities))
        if unknown:
            raise ConfigError(
                f"dataset.directories.{unknown[0]}: no such modality; expected one of "
                f"{', '.join(sorted(modalities))}. Declare it under [modalities.{unknown[0]}]."
            )
        self._options = options
        self._specs = dict(modalities)
        self._label_table = label_table(len(options.classes), options.ignore_ids, options.remap)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names as configured."""
        return self._options.classes

    @property
    def palette(self) -> tuple[RGB, ...]:
        """Configured colours, or evenly spread hues."""
        return self._options.palette or spread_palette(len(self.classes))

    def splits(self) -> tuple[str, ...]:
        """Splits found, train, val and test first."""
        return tuple(self._samples)

    def samples(self, split: str) -> Sequence[SourceSample]:
        """Samples in the order of their stems (or CSV rows). `DatasetError` if there are none."""
        found = self._samples.get(split, [])
        if not found:
            others = ", ".join(s for s in self._samples if self._samples[s]) or "none"
            raise DatasetError(
                f"{self._options.root}: split {split!r} is empty (splits with samples: {others}). "
                f"Put pictures ({', '.join(sorted(EXTENSIONS))}) there, or remove the directories."
            )
        return found

    def load(self, sample: SourceSample) -> LoadedSample:
        """Decode a sample. `SampleRefused` names the file, what was expected and what was found."""
        if sample.key in self._refusals:
            raise SampleRefused(sample.key, self._refusals[sample.key])
        try:
            return self._decode(sample)
        except BadPictureError as error:
            raise SampleRefused(sample.key, str(error)) from None

    def _decode(self, sample: SourceSample) -> LoadedSample:
        if sample.label is None:
            raise BadPictureError(f"no label: expected {self._expected(LABEL, sample)}")
        absent = [name for name in self._specs if name not in sample.files]
        if absent and (self._options.missing == "refuse" or not sample.files):
            raise BadPictureError(f"no {absent[0]}: expected {self._expected(absent[0], sample)}")
        label = read_label(Path(sample.label), self._label_table)
        arrays = {}
        for name, file in sample.files.items():
            arrays[name] = read_picture(Path(file), self._specs[name])
            if arrays[name].shape[:2] != label.shape:
                raise BadPictureError(
                    f"{file}: expected the label's size {_size(label)}, found {_size(arrays[name])}"
                )
        return LoadedSample(arrays, label)

    def _directory(self, name: str) -> Path:
        if name == LABEL:
            return self._options.root / self._options.label
        return self._options.root / self._options.directories.get(name, name)

    def _expected(self, name: str, sample: SourceSample) -> str:
        folder = self._directory(name)
        if self._options.split_csv is None:
            folder = folder / sample.split
        return f"a picture in {folder} with the stem that gives key {sample.key}"

    @cached_property
    def _index(self) -> tuple[dict[str, list[SourceSample]], dict[str, str]]:
        """Samples by split, and for each key that cannot be used the reason."""
        for name in (LABEL, *self._specs):
            self._require_directory(name)
        samples: dict[str, list[SourceSample]] = {}
        refusals: dict[str, str] = {}
        stem_of_key: dict[str, str] = {}
        for split, (stems, found) in self._listing().items():
            samples[split] = []
            for stem in stems:
                key = make_key(split, stem)
                if key in stem_of_key:
                    # One of the two was listed already: it must not pass as the only one.
                    refusals[key] = (
                        f"{stem_of_key[key]} and {split}/{stem} give the same key; rename one"
                    )
                    self._blank(samples, key)
                    continue
                stem_of_key[key] = f"{split}/{stem}"
                samples[split].append(_sample(key, split, stem, found, refusals))
        return samples, refusals

    @staticmethod
    def _blank(samples: dict[str, list[SourceSample]], key: str) -> None:
        """Forget the files of a refused key, so that its version changes once it is unique."""
        for split, listed in samples.items():
            samples[split] = [SourceSample(key, s.split) if s.key == key else s for s in listed]

    @property
    def _samples(self) -> dict[str, list[SourceSample]]:
        return self._index[0]

    @property
    def _refusals(self) -> dict[str, str]:
        return self._index[1]

    def _require_directory(self, name: str) -> None:
        root, folder = self._options.root, self._directory(name)
        if not root.is_dir():
            raise DatasetError(
                f"dataset.root: no such folder {root}. Use --set dataset.root=FOLDER."
            )
        if not folder.is_dir():
            field = "dataset.label" if name == LABEL else f"dataset.directories.{name}"
            there = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] != ".")
            raise DatasetError(
                f"{field}: no such directory {folder}; found {', '.join(there) or 'none'}. "
                f"Name one with --set {field}=DIRECTORY."
            )

    def _listing(self) -> dict[str, tuple[Iterable[str], dict[str, Stems]]]:
        """Split to its stems in order and, for each modality and the label, the files by stem."""
        names = (*self._specs, LABEL)
        if self._options.split_csv is not None:
            flat = {name: _stems(self._directory(name)) for name in names}
            return {s: (k, flat) for s, k in _read_split_csv(self._options.split_csv).items()}
        splits = {p.name for name in names for p in _visible(self._directory(name)) if p.is_dir()}
        if not splits:
            raise DatasetError(
                f"{self._directory(LABEL)}: expected one sub-directory per split (train, val, ...),"
                " found none. Make them, or name a CSV with --set dataset.split_csv=FILE."
            )
        listing: dict[str, tuple[Iterable[str], dict[str, Stems]]] = {}
        for split in _ordered(splits):
            found = {name: _stems(self._directory(name) / split) for name in names}
            listing[split] = (sorted(set().union(*found.values())), found)
        return listing


def _sample(
    key: str, split: str, stem: str, found: Mapping[str, Stems], refusals: dict[str, str]
) -> SourceSample:
    """The sample of a stem; an ambiguous file is left out and noted in `refusals`."""
    files: dict[str, str] = {}
    for name, stems in found.items():
        paths = stems.get(stem, [])
        if len(paths) == 1:
            files[name] = str(paths[0].absolute())
        elif paths:
            listed = ", ".join(str(path) for path in paths)
            refusals[key] = f"expected one {name} picture, found {listed}; keep one"
    label = files.pop(LABEL, None)
    return SourceSample(key, split, files, label)


def _size(array: NDArray[Any]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"


def make_key(split: str, stem: str) -> str:
    """`<split>_<stem>` in letters, digits, `_`, `-`; other ASCII becomes `_`, the rest `u<hex>`."""

    def safe(char: str) -> str:
        if char.isascii():
            return char if char.isalnum() or char in "_-" else "_"
        return f"u{ord(char):04x}"

    return f"{split}_{''.join(map(safe, stem))}"


def spread_palette(num_classes: int) -> tuple[RGB, ...]:
    """Distinct colours: hues by the golden ratio, brightness alternating."""
    colours = []
    for index in range(num_classes):
        hue, value = (index * 0.618034) % 1.0, 0.95 if index % 2 == 0 else 0.65
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
        colours.append((round(red * 255), round(green * 255), round(blue * 255)))
    return tuple(colours)


def _visible(folder: Path) -> list[Path]:
    """Entries of a folder that are not hidden; none if there is no such folder."""
    return sorted(p for p in folder.iterdir() if p.name[0] != ".") if folder.is_dir() else []


def _stems(folder: Path) -> Stems:
    stems: Stems = defaultdict(list)
    for path in _visible(folder):
        if path.suffix.lower() in EXTENSIONS and path.is_file():
            stems[path.stem].append(path)
    return dict(stems)


def _ordered(splits: set[str]) -> list[str]:
    for split in sorted(splits):
        if not SPLIT_NAME.fullmatch(split):
            raise DatasetError(f"split {split!r}: expected letters, digits, _ and -. Rename it.")
    return [s for s in SPLIT_ORDER if s in splits] + sorted(splits - set(SPLIT_ORDER))


def _read_split_csv(path: Path) -> dict[str, list[str]]:
    """Split to stems in file order. `DatasetError` names the line that is wrong."""
    splits: dict[str, list[str]] = defaultdict(list)
    seen: dict[str, int] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows: Any = csv.DictReader(file)
            if not {"key", "split"} <= set(rows.fieldnames or ()):
                raise DatasetError(
                    f"{path}: expected the header key,split; found {rows.fieldnames}"
                )
            for row in rows:
                key, split = row["key"], row["split"]
                if not key or not split:
                    raise DatasetError(f"{path}:{rows.line_num}: expected a key and a split")
                if key in seen:
                    raise DatasetError(
                        f"{path}:{rows.line_num}: key {key!r} is on line {seen[key]} already; "
                        "a sample belongs to one split. Remove one."
                    )
                seen[key] = rows.line_num
                splits[split].append(key)
    except FileNotFoundError:
        raise DatasetError(f"dataset.split_csv: no such file {path}. Correct the path.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: not a CSV file in UTF-8: {error}") from None
    if not splits:
        raise DatasetError(f"{path}: lists no samples. Add rows `key,split`.")
    return {split: splits[split] for split in _ordered(set(splits))}
