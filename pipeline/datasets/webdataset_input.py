"""The `webdataset` adapter: existing shards are the input.

    root/<split>/*.tar      or      root/<split>-*.tar, root/<split>_*.tar

A sample is the adjacent members `KEY.<ending>` of one tar. A modality is the member `<modality>.npy.zst`,
`.png`, `.jpg`, `.tif` or `.npy`, unless `members` names its ending; so is `label`. `condition` and
`corner_case` are read from `meta.json` or `json`, if there is one. A tar that is in the stored form as it is,
with at most `store.shard_size` samples, is not written anew (see `pipeline.shards.adopt`); anything
else is. Members are read into memory, their names never become paths, and nothing is unpickled.
A root without shards, or a corrupted tar, is a `DatasetError`; a bad sample is `SampleRefused`.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.base import RGB, LoadedSample, SourceSample, StoredSample
from pipeline.datasets.labels import LabelOptions, LabelReader
from pipeline.datasets.patterns import visible
from pipeline.datasets.resize import resize_sample
from pipeline.datasets.tree import TreeOptions, make_key, max_key_bytes, ordered
from pipeline.datasets.values import ValueRule, read_values
from pipeline.errors import ConfigError, CorruptShard, DatasetError, SampleRefused
from pipeline.formats.image_codec import decode_image, unpack
from pipeline.formats.image_file import BadImageError, File
from pipeline.formats.shard_tar import ACCEPTED, WRITTEN, image_member, stored_member
from pipeline.formats.tar_index import TarMember, TarSample, list_tar
from pipeline.modalities import LABEL, LABEL_SPEC, ModalitySpec

ENDINGS = (WRITTEN, ACCEPTED, "jpg", "jpeg", "tif", "tiff", "npy")
META_ENDINGS = ("meta.json", "json")
FLAT_NAME = re.compile(r"([A-Za-z0-9]+)[-_].*")


class WebdatasetOptions(LabelOptions, TreeOptions):
    """Locations of the shards, and their members."""

    adapter: Literal["webdataset"] = "webdataset"
    members: dict[str, str] = {}
    """Modality, or `label`, to the ending of its members, e.g. `left.png`."""
    values: dict[str, ValueRule] = {}
    """Modality to the meaning of its values, where they are not the stored values."""
    keys: Literal["as_is", "with_split"] = "as_is"
    """Keep the keys of the shards, or put the split before them (for splits that count alike)."""

    optional_fields: ClassVar[frozenset[str]] = (
        TreeOptions.optional_fields | LabelOptions.optional_fields
    )


class WebdatasetAdapter:
    """`DatasetAdapter` and `ShardSource` over tars; reads their headers once, on first use."""

    def __init__(self, options: WebdatasetOptions, modalities: Mapping[str, ModalitySpec]) -> None:
        self._options = options
        self._specs = dict(modalities)
        self._read_label = LabelReader(options)
        for field, names in (("members", options.members), ("values", options.values)):
            unknown = sorted(set(names) - {*modalities, LABEL})
            if unknown:
                raise ConfigError(
                    f"dataset.{field}.{unknown[0]}: no such modality; expected one of "
                    f"{', '.join(sorted(modalities))}. Declare it under [modalities.{unknown[0]}]."
                )

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names as configured."""
        return self._options.classes

    @property
    def palette(self) -> tuple[RGB, ...]:
        """Configured colours, those of the labels, or evenly spread hues."""
        return self._options.colours()

    def splits(self) -> tuple[str, ...]:
        """Names of the splits; train, val and test first."""
        return tuple(self._samples)

    def samples(self, split: str) -> Sequence[SourceSample]:
        """Samples in the order of the tars' names and within them. `DatasetError` if none."""
        if not self._samples.get(split):
            raise DatasetError(
                f"{self._options.root}: no samples in split {split!r}; found "
                f"{', '.join(self._samples) or 'none'}. Put {split}-*.tar or {split}/*.tar there."
            )
        return self._samples[split]

    def load(self, sample: SourceSample) -> LoadedSample:
        """Decode a sample. `SampleRefused` names the member, what was expected and found."""
        if sample.key in self._refusals:
            raise SampleRefused(sample.key, self._refusals[sample.key])
        try:
            loaded = self._decode(sample)
        except BadImageError as error:
            raise SampleRefused(sample.key, str(error)) from None
        return resize_sample(loaded, self._options.size_px, self._specs)

    def stored(self, sample: SourceSample, loaded: LoadedSample) -> StoredSample | None:
        """The tar's own bytes, if every image is stored under our names as it would be by us."""
        source = self._sources[sample.key]
        if source.key != sample.key:
            return None
        arrays = {**loaded.arrays, LABEL: loaded.label}
        members = {}
        for name, array in arrays.items():
            member = source.by_ending.get(stored_member(name, source.by_ending))
            twice = {f"{name}.{ACCEPTED}", image_member(name)} <= source.by_ending.keys()
            if member is None or twice or not self._is_stored(member, name, array):
                return None
            members[member.ending] = member.read_bytes()
        return StoredSample(members, sample.shard)

    def _is_stored(self, member: TarMember, name: str, array: NDArray[Any]) -> bool:
        try:
            decoded = decode_image(member.read_bytes(), self._spec(name), str(member))
        except CorruptShard:
            return False
        return np.array_equal(decoded, array)

    def _spec(self, name: str) -> ModalitySpec:
        return LABEL_SPEC if name == LABEL else self._specs[name]

    def _decode(self, sample: SourceSample) -> LoadedSample:
        source = self._sources[sample.key]
        members = {name: self._member(source, name) for name in self._specs}
        label_member = self._member(source, LABEL)
        if label_member is None:
            raise BadImageError(f"{sample.shard}: {source.key} has no {self._endings(LABEL)}")
        absent = [name for name in self._specs if members[name] is None]
        if absent and (self._options.missing == "refuse" or len(absent) == len(self._specs)):
            raise BadImageError(f"{sample.shard}: {source.key} has no {self._endings(absent[0])}")
        label = self._read_label(_opened(label_member))
        arrays = {}
        for name, member in members.items():
            if member is not None:
                arrays[name] = self._read(name, member)
                if arrays[name].shape[:2] != label.shape:
                    raise BadImageError(
                        f"{member}: expected the label's size {label.shape}, found "
                        f"{arrays[name].shape[:2]}"
                    )
        return LoadedSample(arrays, label)

    def _endings(self, name: str) -> str:
        ending = self._options.members.get(name)
        return ending or f"{name}.{{{','.join(ENDINGS)}}}"

    def _member(self, source: TarSample, name: str) -> TarMember | None:
        configured = self._options.members.get(name)
        endings = [configured] if configured else [f"{name}.{ending}" for ending in ENDINGS]
        present = [source.by_ending[ending] for ending in endings if ending in source.by_ending]
        if len(present) > 1:
            raise BadImageError(
                f"expected one {name} member, found {', '.join(map(str, present))}; name one with "
                f"dataset.members.{name}"
            )
        return present[0] if present else None

    def _read(self, name: str, member: TarMember) -> NDArray[Any]:
        rule = self._options.values.get(name, ValueRule())
        return read_values(_opened(member), self._specs[name], rule)

    @property
    def _samples(self) -> dict[str, list[SourceSample]]:
        return self._index[0]

    @property
    def _sources(self) -> dict[str, TarSample]:
        return self._index[1]

    @property
    def _refusals(self) -> dict[str, str]:
        return self._index[2]

    @cached_property
    def _index(
        self,
    ) -> tuple[dict[str, list[SourceSample]], dict[str, TarSample], dict[str, str]]:
        """Samples by split, their members by key, and for each unusable key the reason."""
        samples: dict[str, list[SourceSample]] = {}
        sources: dict[str, TarSample] = {}
        refusals: dict[str, str] = {}
        tars = self._tars()
        longest = max_key_bytes(self._specs)
        for split in ordered(tars):
            samples[split] = []
            for tar in tars[split]:
                for source in list_tar(tar):
                    prefix = split if self._options.keys == "with_split" else ""
                    key = make_key(prefix, source.key, max_bytes=longest)
                    if key in sources:
                        refusals[key] = (
                            f"{_named(sources[key])} and {_named(source)} have one key; rename one, "
                            'or set dataset.keys = "with_split" if splits count alike'
                        )
                        continue
                    sources[key] = source
                    samples[split].append(self._sample(key, split, tar, source))
        return samples, sources, refusals

    def _sample(self, key: str, split: str, tar: Path, source: TarSample) -> SourceSample:
        path = str(tar)
        attributes = _attributes(source)
        return SourceSample(
            key,
            split,
            files=dict.fromkeys(self._specs, path),
            label=path,
            condition=attributes.get("condition", ""),
            corner_case=attributes.get("corner_case", ""),
            shard=path,
            ranges=tuple((m.ending, m.offset, m.num_bytes) for m in source.members),
        )

    def _tars(self) -> dict[str, list[Path]]:
        root = self._options.root
        if not root.is_dir():
            raise DatasetError(
                f"dataset.root: no such folder {root}. Use --set dataset.root=FOLDER."
            )
        tars: dict[str, list[Path]] = defaultdict(list)
        for entry in visible(root):
            if entry.is_dir():
                in_folder = [path for path in visible(entry) if path.suffix == ".tar"]
                if in_folder:
                    tars[entry.name] += in_folder
            elif entry.suffix == ".tar" and (match := FLAT_NAME.fullmatch(entry.stem)):
                tars[match[1]].append(entry)
        if not tars:
            raise DatasetError(
                f"{root}: expected <split>/*.tar or <split>-*.tar, found none. Name the folder that "
                "holds them with --set dataset.root=FOLDER."
            )
        return {split: [path.absolute() for path in paths] for split, paths in tars.items()}


class _Unpacked:
    """A `.npy.zst` member as the `.npy` file inside it."""

    suffix = ".npy"

    def __init__(self, member: TarMember) -> None:
        self._member = member

    def __str__(self) -> str:
        return str(self._member)

    def read_bytes(self) -> bytes:
        """The array file. `BadImageError` if the frame is corrupted."""
        try:
            return unpack(self._member.read_bytes(), str(self))
        except CorruptShard as error:
            raise BadImageError(str(error)) from None


def _opened(member: TarMember) -> File:
    return _Unpacked(member) if member.ending.endswith(f".{WRITTEN}") else member


def _named(source: TarSample) -> str:
    return f"{source.members[0].tar}: {source.key}"


def _attributes(source: TarSample) -> dict[str, str]:
    """`condition` and `corner_case` from the sample's own metadata; text only."""
    for ending in META_ENDINGS:
        if ending in source.by_ending:
            try:
                metadata = json.loads(source.by_ending[ending].read_bytes())
            except ValueError:
                return {}
            if isinstance(metadata, dict):
                return {k: v for k, v in metadata.items() if isinstance(v, str)}
    return {}
