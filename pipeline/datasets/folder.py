"""The `folder` adapter: any dataset folder, its files matched across modalities by name.

    root/<modality directory>/<split>/<stem>.png      root/label/<split>/<stem>.png

is the default. `sources` gives a modality another pattern (`images/{split}/*_left.png`, see
`pipeline.datasets.patterns`) and gives the meaning of the values in its files (see
`pipeline.datasets.values`). Splits come from `{split}` in the patterns, from `split_csv` (header
`key,split`) or from `split_lists`. Labels are ids (`remap`, `ignore_ids`) or colours
(`label_colours`). Errors: see `pipeline.datasets.tree`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator, model_validator

from pipeline.datasets.base import RGB, SourceSample
from pipeline.datasets.labels import LabelOptions, LabelReader
from pipeline.datasets.patterns import Matches, check_pattern, find_files, visible
from pipeline.datasets.resize import resize
from pipeline.datasets.split_tables import read_split_csv, read_split_lists
from pipeline.datasets.tree import (
    Entry,
    TreeAdapter,
    TreeOptions,
    entries_by_split,
    entries_by_table,
)
from pipeline.datasets.values import CHANNEL_INDEX, ValueRule, read_values
from pipeline.errors import ConfigError, DatasetError
from pipeline.formats.image_file import read_image
from pipeline.modalities import LABEL, ModalitySpec


class SourceOptions(ValueRule):
    """Where the files of one modality (or `label`) lie, and what their values mean."""

    glob: str | None = None
    """Pattern under `root`, e.g. `depth/{split}/*_depth.png`; default: the modality's directory."""
    fit: Literal["refuse", "resize"] = "refuse"
    """A file of another size than the label: refuse the sample, or resize to the label's size."""

    @field_validator("glob")
    @classmethod
    def _is_a_pattern(cls, value: str | None) -> str | None:
        return value if value is None else check_pattern(value)


class FolderOptions(LabelOptions, TreeOptions):
    """Locations of the images, and the meaning of the label ids."""

    adapter: Literal["folder"] = "folder"
    label: str = LABEL
    """Directory of the label images."""
    directories: dict[str, str] = {}
    """Modality to its directory under `root`; default: the modality's own name."""
    sources: dict[str, SourceOptions] = {}
    """Modality, or `label`, to its pattern and the meaning of its values."""
    split_csv: Path | None = None
    """CSV with the header `key,split` (key: a file stem); default: one sub-directory per split."""
    split_lists: dict[str, Path] = {}
    """Split to a text file that names one sample a line."""

    optional_fields: ClassVar[frozenset[str]] = (
        TreeOptions.optional_fields | LabelOptions.optional_fields | {"sources", "split_lists"}
    )

    @model_validator(mode="after")
    def _one_way_each(self) -> FolderOptions:
        """Each fact is given in one way only."""
        if self.split_csv and self.split_lists:
            raise ValueError("split_csv and split_lists: give one of the two")
        label = self.sources.get(LABEL)
        if label is not None and (not label.is_plain or label.bits or label.fit != "refuse"):
            raise ValueError("sources.label: only glob and channel make sense for labels")
        twice = sorted(name for name in self.directories if self._glob(name))
        if twice:
            raise ValueError(f"directories.{twice[0]}: sources.{twice[0]}.glob gives it as well")
        return self

    def pattern(self, name: str) -> str:
        """Pattern of the files of a modality, or of the label."""
        directory = self.label if name == LABEL else self.directories.get(name, name)
        split = "" if self.has_table else "{split}/"
        return self._glob(name) or f"{directory}/{split}*"

    def has_pattern(self, name: str) -> bool:
        """Whether `sources` gives the pattern."""
        return self._glob(name) is not None

    def _glob(self, name: str) -> str | None:
        return self.sources[name].glob if name in self.sources else None

    @property
    def has_table(self) -> bool:
        """Whether a CSV or list files, not folders, assign samples to splits."""
        return self.split_csv is not None or bool(self.split_lists)


class FolderAdapter(TreeAdapter):
    """`DatasetAdapter` over directories of images, listed once on first use."""

    def __init__(self, options: FolderOptions, modalities: Mapping[str, ModalitySpec]) -> None:
        super().__init__(options, modalities)
        self._options = options
        for table in ("directories", "sources"):
            self._require_known(table, getattr(options, table))
        for name, source in options.sources.items():
            problem = source.problem(modalities[name]) if name in modalities else None
            if problem:
                raise ConfigError(f"dataset.sources.{name}.{problem}")
        for name in (LABEL, *modalities):
            self._require_split_source(name)
        label = options.sources.get(LABEL, SourceOptions())
        self._labels = LabelReader(options, CHANNEL_INDEX.get(label.channel))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names as configured."""
        return self._options.classes

    @property
    def palette(self) -> tuple[RGB, ...]:
        """Configured colours, those of the labels, or evenly spread hues."""
        return self._options.colours()

    def _require_known(self, table: str, names: Iterable[str]) -> None:
        allowed = {*self._specs, LABEL} if table == "sources" else set(self._specs)
        unknown = sorted(set(names) - allowed)
        if unknown:
            raise ConfigError(
                f"dataset.{table}.{unknown[0]}: no such modality; expected one of "
                f"{', '.join(sorted(allowed))}. Declare it under [modalities.{unknown[0]}]."
            )

    def _require_split_source(self, name: str) -> None:
        pattern, table = self._options.pattern(name), self._options.has_table
        if ("{split}" in pattern) == table:
            given = "both" if table else "neither"
            raise ConfigError(
                f"dataset.sources.{name}.glob = {pattern!r}: expected the split from {{split}} in the "
                f"pattern, or from split_csv or split_lists; found {given}."
            )

    def _require_tree(self) -> None:
        super()._require_tree()
        root = self._options.root
        for name in (LABEL, *self._specs):
            pattern = self._options.pattern(name)
            first = pattern.split("/")[0]
            if "*" in first or "{" in first or (root / first).is_dir():
                continue
            field = "dataset.label" if name == LABEL else f"dataset.directories.{name}"
            if self._options.has_pattern(name):
                field = f"dataset.sources.{name}.glob"
            folders = ", ".join(p.name for p in visible(root) if p.is_dir()) or "none"
            raise DatasetError(
                f"{field}: no such directory {root / first}; found {folders}. "
                f"Name one with --set {field}=..."
            )

    def _entries(self) -> dict[str, list[Entry]]:
        options = self._options
        matches = {
            name: find_files(options.root, options.pattern(name)) for name in (*self._specs, LABEL)
        }
        self._require_equal_stars(matches)
        if options.split_csv is not None:
            return entries_by_table(matches, read_split_csv(options.split_csv))
        if options.split_lists:
            return entries_by_table(matches, read_split_lists(options.split_lists))
        entries = entries_by_split(matches)
        if not entries:
            raise DatasetError(
                f"{options.root / options.pattern(LABEL).split('/')[0]}: expected one sub-directory "
                "per split (train, val, ...), found none. Make them, or name a CSV with "
                "--set dataset.split_csv=FILE."
            )
        return entries

    def _require_equal_stars(self, matches: Mapping[str, Matches]) -> None:
        """Names are compared across modalities, so all patterns need the same number of `*`."""
        stars = {name: self._options.pattern(name).count("*") for name in matches}
        odd = [name for name, number in stars.items() if number != stars[LABEL]]
        if odd:
            raise DatasetError(
                f"dataset.sources.{odd[0]}.glob: expected as many * as the label's pattern "
                f"({stars[LABEL]}), found {stars[odd[0]]}: what they match is the sample's name."
            )

    def _expected(self, name: str, sample: SourceSample) -> str:
        pattern = self._options.pattern(name).replace("{split}", sample.split)
        folder, _, last = pattern.rpartition("/")
        ending = "" if last == "*" else f" like {last}"
        return f"an image{ending} in {self._options.root / folder} with the stem that gives key {sample.key}"

    def _read(self, name: str, path: Path) -> NDArray[Any]:
        source = self._options.sources.get(name)
        if source is None:
            return read_image(path, self._specs[name])
        return read_values(path, self._specs[name], source)

    def _read_label(self, path: Path) -> NDArray[np.uint8]:
        return self._labels(path)

    def _fitted(self, name: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        source = self._options.sources.get(name)
        if source is None or source.fit == "refuse" or array.shape[:2] == shape:
            return array
        return resize(array, (shape[0], shape[1]), self._specs[name])
