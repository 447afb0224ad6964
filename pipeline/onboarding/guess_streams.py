"""Which files of an unknown dataset folder belong to which sensor: patterns guessed from names.

    streams, left_out = find_streams(root)

A stream is one pattern of the `folder` adapter (see `pipeline.datasets.patterns`) and the sensor that
its words name. Folders called train, val, night, ... become `{split}` and `{condition}`; folders that
name no sensor and vary become `*`. Only names are read. `DatasetError`, which lists the patterns, if
no label or no sensor is recognised.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.splits import TEST_SPLIT, TRAIN_SPLIT, VAL_SPLIT
from pipeline.datasets.patterns import find_files
from pipeline.errors import DatasetError
from pipeline.modalities import LABEL
from pipeline.onboarding.doctor import image_files

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), TRAIN_SPLIT),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VAL_SPLIT),
    **dict.fromkeys(("test", "testing", "tst"), TEST_SPLIT),
}
"""Names of splits in folders and tables, to the name of the split here."""
CONDITIONS = frozenset(
    {
        *("clear", "sun", "sunny", "cloud", "cloudy", "overcast", "fog", "foggy", "rain", "rainy"),
        *("snow", "snowy", "day", "night", "dawn", "dusk"),
    }
)
SENSOR_WORDS: dict[str, tuple[str, ...]] = {
    LABEL: (
        *("labeltrainids", "trainids", "labelids", "label", "labels", "gt", "groundtruth"),
        *("semantic", "annotation", "annotations", "segmentation", "segmentationclass", "seg"),
        *("mask", "masks", "gtfine", "target", "targets", "classes"),
    ),
    "hha": ("hha",),
    "disparity": ("disparity", "disparities", "disp"),
    "lidar": ("lidar", "velodyne", "pointcloud", "laser"),
    "depth": ("depth", "depths", "range", "distance", "zmap", "dsm"),
    "event": ("event", "events", "dvs"),
    "thermal": ("thermal", "tir", "lwir", "infrared", "ir", "flir"),
    "nir": ("nir", "nearinfrared"),
    "aolp": ("aolp",),
    "dolp": ("dolp",),
    "gray": (
        *("red", "green", "blue", "rededge", "swir", "gray", "grey", "mono", "pan", "band"),
        *("sar", "vv", "vh"),
    ),
    "rgb": (
        *("rgb", "img", "imgs", "image", "images", "color", "colour", "camera", "photo", "photos"),
        *("leftimg8bit", "left", "cam", "framecamera", "vis", "visible"),
    ),
}
"""Family of modalities to the words that name it; earlier families, and earlier words, win."""
_FAMILY = {word: family for family, words in reversed(SENSOR_WORDS.items()) for word in words}
_RANK = {word: i for i, word in enumerate(w for words in SENSOR_WORDS.values() for w in words)}
_WORDS = re.compile(r"[A-Za-z]+|\d+")
_COVERAGE = 0.5
"""A stream is a modality if it has a file for this share of the labelled samples."""

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stream:
    """Files of one kind: a pattern, and the family that its words name."""

    pattern: str
    family: str
    """Row of `SENSOR_WORDS`, or "" if no word is known."""
    name: str
    """Name of the modality: a Python identifier."""
    rank: int = 0
    """Of several streams of one family the lowest wins."""

    def files(self, root: Path) -> dict[str, list[Path]]:
        """`split/condition/name` of each sample to its files."""
        files = find_files(root, self.pattern).files
        return {"/".join((m.split, m.condition, m.name)): paths for m, paths in files.items()}


def find_streams(root: Path) -> tuple[list[Stream], list[Stream]]:
    """The label's stream, then the sensors'; and the streams that are left out."""
    files = [path.relative_to(root) for path in image_files(root)]
    if not files:
        raise DatasetError(f"{root}: found no images. Name the folder that holds them.")
    streams = _streams(files)
    labels = sorted((s for s in streams if s.family == LABEL), key=lambda s: (s.rank, s.pattern))
    if not labels:
        raise DatasetError(
            f"{root}: found no labels among {_listed(streams)}. Call their folder `label`."
        )
    label = labels[0]
    labelled = set(label.files(root))
    sensors = [
        stream
        for stream in streams
        if stream.family != LABEL
        and len(labelled & set(stream.files(root))) >= _COVERAGE * len(labelled)
    ]
    if not sensors:
        raise DatasetError(
            f"{root}: no other image has the name of a label in {label.pattern}; found "
            f"{_listed(streams)}. All files of a sample need the same name."
        )
    kept = [label, *_renamed(sensors)]
    patterns = {stream.pattern for stream in kept}
    return kept, [stream for stream in streams if stream.pattern not in patterns]


def words(text: str) -> list[str]:
    """Lower-case words of a name: `NIR_warped` gives nir, warped; `labelTrainIds` also as one."""
    parts = [part.lower() for part in re.split(r"[^A-Za-z0-9]+", text)]
    return [*parts, *(word.lower() for word in _WORDS.findall(text))]


def sensor_word(text: str) -> str | None:
    """The highest-ranking sensor word in a name, if there is one."""
    return min((w for w in words(text) if w in _FAMILY), key=_RANK.__getitem__, default=None)


def _listed(streams: Iterable[Stream]) -> str:
    return ", ".join(stream.pattern for stream in streams)


def _streams(files: Sequence[Path]) -> list[Stream]:
    """One stream per pattern that the files follow, by name."""
    constant = _constant_folders(files)
    groups: dict[str, Path] = {}
    for file in files:
        groups.setdefault(_pattern(file, constant), file)
    return [_stream(pattern) for pattern in sorted(groups)]


def _constant_folders(files: Sequence[Path]) -> Mapping[int, str]:
    """Folders that all files share, by depth."""
    by_depth: dict[int, Counter[str]] = defaultdict(Counter)
    for file in files:
        for depth, part in enumerate(file.parts[:-1]):
            by_depth[depth][part] += 1
    total = len(files)
    return {d: next(iter(c)) for d, c in by_depth.items() if len(c) == 1 and c.total() == total}


def _pattern(file: Path, constant: Mapping[int, str]) -> str:
    *folders, _ = file.parts
    prefix, suffix = affixes(file.stem)
    tokens = [_token(folder, constant.get(depth)) for depth, folder in enumerate(folders)]
    named = any(sensor_word(text) for text in (*folders, prefix, suffix))
    for depth, token in enumerate(tokens):
        if token == "" and not named:
            tokens[depth], named = folders[depth], True
    return "/".join([*(token or "*" for token in tokens), f"{prefix}*{suffix}"])


def _token(folder: str, constant: str | None) -> str:
    """A folder's token in a pattern; "" where the rest of the path decides."""
    if folder.lower() in SPLIT_WORDS:
        return "{split}"
    if folder.lower() in CONDITIONS:
        return "{condition}"
    return folder if folder == constant or sensor_word(folder) else ""


def affixes(stem: str) -> tuple[str, str]:
    """The parts before and after a file's number that name its sensor, with their separators."""
    parts = re.split(r"([^A-Za-z0-9]+)", stem)
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    if numbers:
        before, after = "".join(parts[: numbers[0]]), "".join(parts[numbers[-1] + 1 :])
        return (before if sensor_word(before) else ""), (after if sensor_word(after) else "")
    if len(parts) > 2 and sensor_word(parts[-1]):
        return "", "".join(parts[-2:])
    if len(parts) > 2 and sensor_word(parts[0]):
        return "".join(parts[:2]), ""
    return "", ""


def _stream(pattern: str) -> Stream:
    """File affixes take precedence over folders, inner folders over outer ones."""
    *folders, last = pattern.split("/")
    for text in (last, *reversed(folders)):
        word = sensor_word(text)
        if word:
            family = _FAMILY[word]
            return Stream(
                pattern, family, _plain(text if family == "gray" else family), _RANK[word]
            )
    literal = [f for f in folders if not re.search(r"[*{]", f)]
    return Stream(pattern, "", _plain(literal[-1] if literal else "image"))


def _renamed(streams: Sequence[Stream]) -> list[Stream]:
    """Sensors with distinct names: several of one family are named after their patterns."""
    twice = {name for name, count in Counter(s.name for s in streams).items() if count > 1}
    renamed: list[Stream] = []
    for stream in sorted(streams, key=lambda s: (s.name, s.pattern)):
        name = stream.name
        if name in twice:
            name = _plain(re.sub(r"\{\w+\}", "", stream.pattern))
        taken = {other.name for other in renamed}
        numbered = (f"{name}_{n}" for n in range(2, len(streams) + 2))
        unique = name if name not in taken else next(n for n in numbered if n not in taken)
        renamed.append(Stream(stream.pattern, stream.family, unique, stream.rank))
    return renamed


def _plain(text: str) -> str:
    """A Python identifier made of `text`."""
    word = "_".join(re.findall(r"[A-Za-z0-9]+", text.replace("*", " "))).lower() or "image"
    return f"m_{word}" if word[0].isdigit() or word in (LABEL, "meta") else word
