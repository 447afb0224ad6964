"""Splits of an unknown dataset folder: from its folders, a table in it, or a random draw.

    splits = guess_splits(root, names)

`names` are samples as `split/condition/name` (see `pipeline.onboarding.guess_streams`). Raises
`DatasetError` if there are fewer than three samples and no folder or table assigns them.
"""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline.core.random_stream import RandomStream
from pipeline.core.splits import SPLIT_ORDER, TEST_SPLIT, TRAIN_SPLIT, VAL_SPLIT
from pipeline.errors import DatasetError
from pipeline.formats.image_file import ARRAY_EXTENSIONS, EXTENSIONS
from pipeline.onboarding.guess_streams import SPLIT_WORDS, affixes

HELD_OUT = 0.15
"""Share of the samples that a drawn validation set gets, and a drawn test set."""
_MATCHING = 0.8
"""Share of a table's rows that must name a sample and a split."""
_MAX_TABLE_BYTES = 2**24
_MAX_DEPTH = 3


@dataclass(frozen=True, slots=True)
class Splits:
    """Split to its samples, and the origin of that assignment."""

    reason: str
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Empty: the folders are named after splits exactly as a config names them."""

    @property
    def by_folder(self) -> bool:
        """Whether `{split}` in the patterns is enough."""
        return not self.names


def guess_splits(root: Path, names: Sequence[str], *, clean: bool, seed: int = 0) -> Splits:
    """Splits of the usable samples `names`. `clean`: the folder has no other samples."""
    in_folders = {name: name.split("/")[0] for name in names}
    folders = set(in_folders.values()) - {""}
    if folders:
        if clean and TRAIN_SPLIT in folders and folders <= set(SPLIT_ORDER) and len(folders) > 1:
            return Splits("from the folders")
        table = {name: SPLIT_WORDS.get(folder.lower()) for name, folder in in_folders.items()}
        if TRAIN_SPLIT in table.values():
            return _held_out(Splits("from the folders", _grouped(table)), seed)
    for path in _tables(root):
        split_of = _read_table(path, names)
        if TRAIN_SPLIT in split_of.values():
            reason = f"from {path.relative_to(root)}"
            return _held_out(Splits(reason, _grouped(split_of)), seed)
    return _held_out(Splits("", {TRAIN_SPLIT: sorted(names)}), seed)


def _grouped(split_of: Mapping[str, str | None]) -> dict[str, list[str]]:
    return {
        split: sorted(name for name, own in split_of.items() if own == split)
        for split in SPLIT_ORDER
        if split in split_of.values()
    }


def _held_out(splits: Splits, seed: int) -> Splits:
    """The splits with validation and test samples: drawn from the training samples if there are none."""
    if len(splits.names) > 1:
        return splits
    names = splits.names[TRAIN_SPLIT]
    if len(names) < 3:
        raise DatasetError(
            f"found {len(names)} labelled samples and no folders or table of splits; expected at "
            "least 3. Put the samples into folders train/ and val/."
        )
    count = max(1, round(HELD_OUT * len(names)))
    order = np.random.default_rng([seed, RandomStream.SPLIT_GUESS]).permutation(len(names))
    val, test, train = order[:count], order[count : 2 * count], order[2 * count :]
    drawn = {TRAIN_SPLIT: train, VAL_SPLIT: val, TEST_SPLIT: test}
    reason = "drawn at random, because no folder or table gives them"
    return Splits(
        f"{splits.reason}; val and test {reason}" if splits.reason else reason,
        {split: [names[i] for i in sorted(part)] for split, part in drawn.items()},
    )


def _tables(root: Path) -> Iterator[Path]:
    """CSV files, then every `train.txt`, down to `_MAX_DEPTH` folders."""
    paths: list[Path] = []
    for folder, names, files in os.walk(root):
        if len(Path(folder).relative_to(root).parts) >= _MAX_DEPTH:
            names.clear()
        # Not hidden ones: macOS writes a `._splits.csv` beside each `splits.csv` that it copies.
        paths += [Path(folder, name) for name in files if name[0] != "."]
    small = [p for p in sorted(paths) if p.is_file() and p.stat().st_size <= _MAX_TABLE_BYTES]
    yield from (p for p in small if p.suffix.lower() in (".csv", ".tsv"))
    yield from (p for p in small if p.suffix == ".txt" and SPLIT_WORDS.get(p.stem) == TRAIN_SPLIT)


def _read_table(path: Path, names: Sequence[str]) -> dict[str, str | None]:
    """Sample to split if the file is a table of splits, else an empty dict."""
    try:
        if path.suffix == ".txt":
            return _read_lists(path, names)
        with path.open(newline="", encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError):
        return {}
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if row]
    match = _Matcher(names)
    # Any two columns may be sample and split, whatever the header calls them.
    for key in range(len(rows[0]) if rows else 0):
        for split in range(len(rows[0])):
            pairs = [
                (match(row[key]), SPLIT_WORDS.get(row[split].strip().lower()))
                for row in rows[1:]
                if len(row) > max(key, split)
            ]
            good = [(name, word) for name, word in pairs if name and word]
            if key != split and good and len(good) >= _MATCHING * len(pairs):
                return dict(good)
    return {}


def _read_lists(train: Path, names: Sequence[str]) -> dict[str, str | None]:
    """Sample to split from `train.txt` and its neighbours, one name a line."""
    match = _Matcher(names)
    split_of: dict[str, str | None] = {}
    for path in sorted(train.parent.glob("[!.]*.txt")):
        split = SPLIT_WORDS.get(path.stem)
        lines = path.read_text(encoding="utf-8-sig").split() if split else []
        matched = [name for name in map(match, lines) if name]
        if len(matched) >= _MATCHING * len(lines):
            split_of |= dict.fromkeys(matched, split)
    return split_of


class _Matcher:
    """Finds the sample that a table refers to, by any ending of its name that no other sample has."""

    def __init__(self, names: Sequence[str]) -> None:
        endings: dict[str, set[str]] = defaultdict(set)
        for name in names:
            parts = [part for part in name.split("/") if part]
            for start in range(len(parts)):
                endings["/".join(parts[start:])].add(name)
        self._by_ending = {end: named.pop() for end, named in endings.items() if len(named) == 1}

    def __call__(self, written: str) -> str | None:
        """The sample, or None; file endings and a sensor's affixes are ignored."""
        *folders, last = PurePosixPath(written.strip().replace("\\", "/")).parts or ("",)
        stem = PurePosixPath(last)
        last = stem.stem if stem.suffix.lower() in EXTENSIONS | ARRAY_EXTENSIONS else last
        prefix, suffix = affixes(last)
        for name in (last, last.removeprefix(prefix).removesuffix(suffix)):
            for start in range(len(folders) + 1):
                sample = self._by_ending.get("/".join([*folders[start:], name]))
                if sample:
                    return sample
        return None
