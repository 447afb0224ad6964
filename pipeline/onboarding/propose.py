"""A proposed config for an unknown dataset folder: every value guessed, commented, ready to run.

    proposal = propose(root)                    what to write, and why
    write_proposal(proposal, Path("my.toml"))   writes it, and a table of splits beside it if needed

Lists all files, reads all labels (up to `MAX_LABELS`) and some files of each sensor. Every guess
stands in the TOML with its reason, to be corrected there. `DatasetError` if labels or sensors cannot
be recognised; `ConfigError` if an output file exists.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.core.progress import progress_bar
from pipeline.core.random_stream import RandomStream
from pipeline.core.splits import SPLIT_ORDER
from pipeline.datasets import CARDS
from pipeline.datasets.card import DatasetCard
from pipeline.datasets.label_sets import CITYSCAPES_CLASSES
from pipeline.datasets.patterns import find_files
from pipeline.errors import ConfigError, DatasetError
from pipeline.modalities import LABEL
from pipeline.onboarding.config_text import (
    PLACEHOLDERS,
    Tree,
    folder_lines,
    published_lines,
    to_hex,
)
from pipeline.onboarding.guess_labels import Labels, guess_labels
from pipeline.onboarding.guess_splits import guess_splits
from pipeline.onboarding.guess_streams import Stream, find_streams
from pipeline.onboarding.guess_values import guess_modality
from pipeline.storage.files import write_bytes

MAX_LABELS = 4000
FILES_PER_SENSOR = 16
CLASS_FILES = ("classes.txt", "labels.txt", "class_names.txt", "names.txt")


@dataclass(frozen=True, slots=True)
class Proposal:
    """Text of a config; `{SPLITS}` in it stands for the table's file name."""

    toml: str
    table: Sequence[tuple[str, str]] = field(default_factory=tuple)
    """(sample, split) rows of a CSV, if the config needs one."""

    def text(self, table: Path) -> str:
        """The TOML, with the path of its table of splits."""
        return self.toml.replace("{SPLITS}", f"./{table.name}")


def write_proposal(proposal: Proposal, path: Path, *, force: bool = False) -> list[Path]:
    """Write the TOML and, beside it, the table; returns the files. `ConfigError` if one exists."""
    table = path.with_name(f"{path.stem}-splits.csv")
    files = [path, *([table] if proposal.table else [])]
    for file in files:
        if file.exists() and not force:
            raise ConfigError(f"{file} already exists. Use --force to overwrite it, or -o FILE.")
    if proposal.table:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("key", "split"), *proposal.table])
        write_bytes(table, text.getvalue().encode())
    write_bytes(path, proposal.text(table).encode())
    return files


def config_for(root: Path, dataset: str = "", *, progress: bool = True) -> Config:
    """The proposed config itself, loaded from a temporary file."""
    proposal = propose(root, dataset, progress=progress)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "proposal.toml"
        write_proposal(proposal, path)
        return load_config(path)


def propose(root: Path, dataset: str = "", *, progress: bool = True) -> Proposal:
    """A config for the dataset folder `root`.

    `dataset` names an adapter; empty: a published data set if its folders exist, else `folder`.
    A published data set that is named explicitly is configured with all of its folders.
    """
    root = root.absolute()
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder")
    for name, card in CARDS.items():
        if dataset == name or (not dataset and _is_published(root, card)):
            lines = published_lines(root, name, card, whole=dataset == name)
            return Proposal("\n".join(lines) + "\n")
    if dataset not in ("", "folder"):
        names = ", ".join(("folder", *CARDS))
        raise ConfigError(f"--dataset {dataset}: expected one of {names}")
    tree = inspect_folder(root, progress=progress)
    return Proposal("\n".join(folder_lines(tree)) + "\n", _table(tree))


def _is_published(root: Path, card: DatasetCard) -> bool:
    return all(
        (root / folder).is_dir() for folder in {card.folders["rgb"], card.folders[LABEL]}
    ) and (sum((root / folder).is_dir() for folder in set(card.folders.values())) > 2)


def inspect_folder(root: Path, *, progress: bool) -> Tree:
    """Labels, sensors, splits and classes under `root`. `DatasetError` if they are not recognised."""
    (label, *streams), left_out = find_streams(root)
    label_files, sensor_files = label.files(root), {s.pattern: s.files(root) for s in streams}
    usable = sorted(n for n in label_files if any(n in files for files in sensor_files.values()))
    everything = set(label_files).union(*sensor_files.values())
    labels = _read_labels([label_files[name][0] for name in usable], progress)
    sensors = [(s, guess_modality(s, _some(sensor_files[s.pattern]))) for s in streams]
    classes, reason = _class_names(root, label, labels)
    splits = guess_splits(root, usable, clean=len(everything) == len(usable))
    if splits.by_folder:
        counts = Counter(name.split("/")[0] for name in usable)
        sizes = {split: counts[split] for split in SPLIT_ORDER if split in counts}
    else:
        sizes = {split: len(names) for split, names in splits.names.items()}
    incomplete = sum(1 for name in usable if any(name not in f for f in sensor_files.values()))
    return Tree(
        *(root, label, labels, sensors, splits, sizes, incomplete, left_out, classes, reason)
    )


def _read_labels(paths: Sequence[Path], progress: bool) -> Labels:
    if len(paths) > MAX_LABELS:
        rng = np.random.default_rng([0, RandomStream.PROPOSAL_SAMPLES])
        paths = [paths[i] for i in np.sort(rng.choice(len(paths), MAX_LABELS, replace=False))]

    def counted() -> Iterator[Path]:
        with progress_bar("read labels", len(paths), "files", progress) as advance:
            for path in paths:
                yield path
                advance(1)

    return guess_labels(counted())


def _some(files: Mapping[str, Sequence[Path]]) -> list[Path]:
    names = sorted(files)
    step = max(1, len(names) // FILES_PER_SENSOR)
    return [files[name][0] for name in names[::step]]


def _class_names(root: Path, label: Stream, labels: Labels) -> tuple[list[str], str]:
    """Class names from a file, from a known label set, or numbered; and their origin."""
    count = labels.num_classes
    for file in CLASS_FILES:
        try:
            lines = (root / file).read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError):
            continue
        names = [line.strip() for line in lines if line.strip()]
        if len(names) == len(set(names)) >= count:
            return names[:count], f"names from {file}"
    if "trainids" in label.pattern.lower() and count <= len(CITYSCAPES_CLASSES):
        return list(
            CITYSCAPES_CLASSES[:count]
        ), "Cityscapes's train ids, according to the file names"
    if labels.colours:
        names = [f"colour_{to_hex(c)[1:]}" for c in sorted(labels.colours)]
        return names, f"one a colour; {PLACEHOLDERS}"
    names = [f"class_{index}" for index in range(count)]
    return names, f"numbers; {PLACEHOLDERS}"


def _table(tree: Tree) -> list[tuple[str, str]]:
    """(sample, split) rows, with the sample names that the adapter gives when a table has the splits."""
    matches = find_files(tree.root, tree.label.pattern.replace("{split}", "*"))
    names = {paths[0]: match.name for match, paths in matches.files.items()}
    files = tree.label.files(tree.root)
    return [
        (names[files[sample][0]], split)
        for split, samples in tree.splits.names.items()
        for sample in samples
    ]
