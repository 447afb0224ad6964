"""Which sample belongs to which split, where no folder says so: a CSV, or one list file per split.

A file that is missing, malformed or names a sample twice is a `DatasetError` that names the line.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pipeline.datasets.tree import ordered
from pipeline.errors import DatasetError
from pipeline.formats.image_file import ARRAY_EXTENSIONS, EXTENSIONS

_ENDINGS = EXTENSIONS | ARRAY_EXTENSIONS
Row = tuple[Path, int, str, str]
"""File, line, split, sample."""


def read_split_csv(path: Path) -> dict[str, list[str]]:
    """Split to the names of its samples, from a CSV with the header `key,split`."""
    return _collected(_csv_rows(path), f"{path}: lists no samples. Add rows `key,split`.")


def read_split_lists(paths: Mapping[str, Path]) -> dict[str, list[str]]:
    """Split to the names of its samples, from one text file per split with a name a line."""
    rows = (row for split, path in paths.items() for row in _list_rows(split, path))
    files = ", ".join(map(str, paths.values()))
    return _collected(rows, f"{files}: list no samples. Write one name a line.")


def _csv_rows(path: Path) -> Iterator[Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {"key", "split"} <= set(rows.fieldnames or ()):
                raise DatasetError(
                    f"{path}: expected the header key,split; found {rows.fieldnames}"
                )
            for row in rows:
                if not row["key"] or not row["split"]:
                    raise DatasetError(f"{path}:{rows.line_num}: expected a key and a split")
                yield path, rows.line_num, row["split"], row["key"]
    except FileNotFoundError:
        raise DatasetError(f"dataset.split_csv: no such file {path}. Correct the path.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: not a CSV file in UTF-8: {error}") from None


def _list_rows(split: str, path: Path) -> Iterator[Row]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DatasetError(
            f"dataset.split_lists.{split}: no such file {path}. Correct the path."
        ) from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not a text file in UTF-8: {error}") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield path, number, split, line.strip()


def _collected(rows: Iterable[Row], if_empty: str) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = defaultdict(list)
    seen: dict[str, tuple[Path, int]] = {}
    for path, line, split, written in rows:
        name = _without_ending(written)
        if name in seen:
            first, first_line = seen[name]
            of_file = "" if first == path else f" of {first}"
            raise DatasetError(
                f"{path}:{line}: key {name!r} is on line {first_line}{of_file} already; "
                "a sample belongs to one split. Remove one."
            )
        seen[name] = (path, line)
        splits[split].append(name)
    if not splits:
        raise DatasetError(if_empty)
    return {split: splits[split] for split in ordered(splits)}


def _without_ending(name: str) -> str:
    """A name without the ending of an image file, which some lists write and others do not."""
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in _ENDINGS else name
