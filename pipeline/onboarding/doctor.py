"""Check a dataset folder before anything is written: is it complete, and does it match the config?

    examine(config) -> Diagnosis

All files are listed; a bounded number of samples, drawn from a seed, is decoded exactly as `prepare`
would. A source that cannot be listed or read is a finding, not an error; a config that does not fit
the adapter is a `ConfigError`.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.config import Config
from pipeline.core.parallel_map import count_workers, map_in_order
from pipeline.core.progress import progress_bar
from pipeline.core.random_stream import RandomStream
from pipeline.datasets import CARDS, open_dataset
from pipeline.datasets.base import SourceSample
from pipeline.datasets.patterns import hidden
from pipeline.errors import DatasetError, SampleRefused
from pipeline.formats.image_file import ARRAY_EXTENSIONS, EXTENSIONS
from pipeline.modalities import LABEL
from pipeline.onboarding.file_header import FileForm, file_form
from pipeline.onboarding.shared_files import SharedFiles, shared_files
from pipeline.shards.sample_encoder import SampleEncoder
from pipeline.shards.statistics import SplitStatistics, facts_table, summarise

DEFAULT_LIMIT = 200
"""Samples that are decoded unless all are asked for."""
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Samples that were refused for the same reason."""

    count: int
    key: str
    """The first of them."""
    reason: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to fix before `prepare`."""

    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.what}. {self.fix}" if self.fix else f"{self.what}."


@dataclass(frozen=True, slots=True)
class DecodedSample:
    """One sample, decoded as `prepare` would decode it."""

    sample: SourceSample
    seconds: float
    """CPU time of decoding."""
    forms: Mapping[str, FileForm]
    """Modality, and `label`, to the form of its file."""
    facts: Mapping[str, Any] | None
    """Manifest columns; None if the sample was refused."""
    refused: str = ""
    packed: tuple[str, ...] = ()
    """Modalities of kind `hha` that look like a number packed into colour channels."""


@dataclass(frozen=True)
class Diagnosis:
    """Everything observed; `doctor_rules` derives problems from it, `doctor_text` prints it."""

    config: Config
    listing: Mapping[str, Sequence[SourceSample]] = field(default_factory=dict)
    unmatched: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    """Modality, `label` or top folder to image files that belong to no sample."""
    decoded: Sequence[DecodedSample] = ()
    statistics: SplitStatistics | None = None
    """Of the decoded samples, all splits together."""
    refusals: Sequence[Refusal] = ()
    seconds: float = 0.0
    """Wall time of decoding."""
    workers: int = 1
    shared: Sequence[SharedFiles] = ()
    """Files that two splits have in common."""
    hidden: Sequence[str] = ()
    """Names of hidden image files under the root, e.g. the `._*` of macOS; none is a sample's."""
    published: Mapping[str, int] = field(default_factory=dict)
    """Split to its published number of samples, for data sets that have a card."""
    error: str = ""
    """Why the source could not be listed."""

    @property
    def num_samples(self) -> int:
        """Samples listed."""
        return sum(map(len, self.listing.values()))

    @property
    def decoding_s_per_thousand(self) -> float:
        """CPU time of decoding a thousand samples."""
        return 1000 * sum(d.seconds for d in self.decoded) / max(1, len(self.decoded))

    def forms(self, name: str) -> Counter[FileForm]:
        """Forms of the files of a modality, or of the labels."""
        return Counter(d.forms[name] for d in self.decoded if name in d.forms)

    def without(self, name: str) -> list[SourceSample]:
        """Listed samples that lack a modality or the label."""
        samples = [s for listed in self.listing.values() for s in listed]
        if not any(s.label or s.files for s in samples):
            return []  # rendered data has no files
        return [s for s in samples if not (s.label if name == LABEL else name in s.files)]


@dataclass(frozen=True, slots=True)
class Examiner:
    """Decodes one sample; picklable, for worker processes."""

    encoder: SampleEncoder

    def __call__(self, sample: SourceSample) -> DecodedSample:
        """Decode and measure. Never raises `SampleRefused`."""
        files = {**sample.files, **({LABEL: sample.label} if sample.label else {})}
        forms = {name: file_form(Path(path)) for name, path in files.items()}
        started = time.process_time()
        try:
            loaded = self.encoder.load(sample)
        except SampleRefused as error:
            spent = time.process_time() - started
            return DecodedSample(sample, spent, forms, None, _without_paths(error.reason, sample))
        spent = time.process_time() - started
        packed = tuple(
            name
            for name, array in loaded.arrays.items()
            if self.encoder.specs[name].kind == "hha" and looks_packed(array)
        )
        facts = self.encoder.facts(sample, loaded)
        return DecodedSample(sample, spent, forms, facts, packed=packed)


def examine(
    config: Config, *, limit: int | None = DEFAULT_LIMIT, seed: int = 0, progress: bool = True
) -> Diagnosis:
    """List the source of `config` and decode at most `limit` samples (None: all)."""
    adapter = open_dataset(config.dataset, config.specs())
    try:
        listing = {split: adapter.samples(split) for split in adapter.splits()}
    except DatasetError as error:
        return Diagnosis(config, error=str(error))
    picked = pick([s for samples in listing.values() for s in samples], limit, seed)
    examiner = Examiner(SampleEncoder(adapter, config.specs()))
    started = time.perf_counter()
    decoded = []
    with progress_bar("doctor", len(picked), "samples", progress) as advance:
        for sample in map_in_order(examiner, picked, config.prepare.workers):
            decoded.append(sample)
            advance(1)
    seconds = time.perf_counter() - started
    facts = [d.facts for d in decoded if d.facts is not None]
    return Diagnosis(
        config,
        listing,
        unmatched_files(config, listing),
        decoded,
        summarise(facts_table(facts), config.specs(), adapter.classes),
        group_refusals(decoded),
        seconds,
        count_workers(len(picked), config.prepare.workers),
        shared_files(listing),
        hidden_files(config),
        _published(config),
    )


def _published(config: Config) -> Mapping[str, int]:
    card = CARDS.get(config.dataset.adapter)
    return card.expected if card else {}


def pick(samples: Sequence[SourceSample], limit: int | None, seed: int) -> list[SourceSample]:
    """At most `limit` samples in their order, the same ones for the same seed and listing."""
    if limit is None or limit >= len(samples):
        return list(samples)
    rng = np.random.default_rng([seed, RandomStream.DOCTOR_SAMPLES])
    return [samples[i] for i in np.sort(rng.choice(len(samples), limit, replace=False))]


def group_refusals(decoded: Sequence[DecodedSample]) -> list[Refusal]:
    """Refusals, grouped if they differ in numbers and file names only; the most frequent first."""
    groups: dict[str, list[DecodedSample]] = defaultdict(list)
    for one in decoded:
        if one.facts is None:
            groups[_DIGITS.sub("#", one.refused)].append(one)
    ordered = sorted(groups.values(), key=len, reverse=True)
    return [Refusal(len(g), g[0].sample.key, g[0].refused) for g in ordered]


def _without_paths(reason: str, sample: SourceSample) -> str:
    """A refusal with `rgb` for the path of the sample's rgb file, so that equal reasons compare equal."""
    for name, path in (*sample.files.items(), (LABEL, sample.label)):
        reason = reason.replace(f"{path}: ", f"{name}: ") if path else reason
    return reason.replace(sample.key, "KEY")


def looks_packed(image_HW3: NDArray[np.uint8]) -> bool:
    """Whether channel 0 changes from pixel to pixel like the low byte of a packed number.

    Disparity, the first channel of HHA, is smooth; the low byte of 24-bit depth wraps constantly.
    """
    steps = np.abs(np.diff(image_HW3.astype(np.int16), axis=1)).mean(axis=(0, 1))
    return bool(steps[0] > 20.0 and steps[0] > 4.0 * steps[2])


def unmatched_files(
    config: Config, listing: Mapping[str, Sequence[SourceSample]]
) -> dict[str, list[Path]]:
    """Image files under the root that belong to no sample, by the modality whose folder it is."""
    root = getattr(config.dataset, "root", None)
    if root is None:
        return {}
    listed: set[str] = set()
    owners: dict[Path, set[str]] = defaultdict(set)
    for sample in (s for samples in listing.values() for s in samples):
        files = {**sample.files, **({LABEL: sample.label} if sample.label else {})}
        listed.update((*files.values(), *sample.companions))
        for name, file in files.items():
            for folder in Path(file).parents:
                if name in owners[folder]:
                    break
                owners[folder].add(name)
    unmatched: dict[str, list[Path]] = defaultdict(list)
    for path in image_files(root.absolute()):
        if str(path) not in listed:
            unmatched[_owner(path, root.absolute(), owners)].append(path)
    return dict(unmatched)


def _owner(path: Path, root: Path, owners: Mapping[Path, set[str]]) -> str:
    """The modality if only one uses the nearest used folder above `path`, else the top folder."""
    for folder in path.parents:
        names = owners.get(folder, set())
        if len(names) == 1:
            return next(iter(names))
        if names or folder == root:
            break
    top = path.relative_to(root).parts[0]
    return f"{top}/" if top != path.name else path.name


def hidden_files(config: Config) -> list[str]:
    """Names of the hidden image files in the visible folders of the source."""
    root = getattr(config.dataset, "root", None)
    folders = _folders(root.absolute()) if root is not None else ()
    return [path.name for folder, _ in folders for path in hidden(folder)]


def image_files(root: Path) -> Iterator[Path]:
    """Every visible image or array file under `root`, by name; a linked folder is entered once."""
    for folder, files in _folders(root):
        for name in sorted(files):
            if Path(name).suffix.lower() in EXTENSIONS | ARRAY_EXTENSIONS and name[0] != ".":
                yield folder / name


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every visible folder under `root` with the names of its files; a linked one is entered once."""
    seen = set()  # symbolic links may form a circle
    for folder, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        names[:] = sorted(n for n in names if n[0] != ".") if real not in seen else []
        if real in seen:
            continue
        seen.add(real)
        yield Path(folder), files
