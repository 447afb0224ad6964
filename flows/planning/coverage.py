"""Coverage of a config by its workspace: the rows of `any2seg status`, and the map behind them.

A `CoverageMap` has the state of the teacher's targets for every split, modality, output and shard. It is
read from the manifest, the commit records and the source's listing, without torch or zarr.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.config.config import Config
from pipeline.config.teacher import of_teacher
from pipeline.datasets import open_dataset
from pipeline.datasets.base import SourceSample
from pipeline.errors import DatasetError, MissingTarget
from pipeline.shards.manifest import QUARANTINE, Manifest, ShardInfo, read_rows
from pipeline.shards.source_index import (
    SourceChanges,
    SourceIndex,
    compare_sources,
    source_index_path,
)
from pipeline.targets.lookup import INDEX, resolve
from pipeline.targets.prompts import resolve_prompts
from pipeline.targets.store import State
from pipeline.workspace import Workspace

READ_AGAIN = 256
"""Samples with new file times that `status` reads again at most; `prepare` reads the others."""
COVERAGE_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("split", "modality", "output", "shard", "state")]
)


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """One line of the table; counts are in `unit`s."""

    stage: str
    what: str
    """Split, modality (after `dense_teacher`: the second teacher's), or `class prompts`."""
    unit: str
    committed: int = 0
    missing: int = 0
    stale: int = 0
    """Computed from other bytes than the shard has now."""
    note: str = ""
    advice: tuple[str, ...] = ()
    """Hints for the user, e.g. about removed sources; they do not make a stage incomplete."""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing or stale."""
        return self.missing == 0 and self.stale == 0

    def as_json(self) -> dict[str, Any]:
        """The fields by name; `committed` is `there`, as in the states of `CoverageMap`."""
        return {"there" if key == "committed" else key: v for key, v in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class CoverageMap:
    """The state of every (split, modality, output, shard) that a config asks for."""

    table: pa.Table
    """`COVERAGE_SCHEMA`; `state` is a `pipeline.targets.store.State`."""

    @property
    def counts(self) -> Mapping[tuple[str, str, str], Counter[str]]:
        """(split, modality, output) to the number of shards in each state."""
        counts: dict[tuple[str, str, str], Counter[str]] = {}
        columns = (
            self.table[name].to_pylist() for name in ("split", "modality", "output", "state")
        )
        for split, modality, output, state in zip(*columns, strict=True):
            counts.setdefault((split, modality, output), Counter())[state] += 1
        return counts

    def as_json(self) -> list[dict[str, Any]]:
        """All rows, as dicts of the table's columns."""
        rows: list[dict[str, Any]] = self.table.to_pylist()
        return rows


def coverage_map(config: Config, workspace: Workspace, manifest: Manifest) -> CoverageMap:
    """Check every commit record and the length of every object that it names.

    An output of the second teacher is named `dense_teacher patch`.
    """
    shards = manifest.all_shards
    fields = [
        (shard.split, modality, of_teacher(teacher, output), shard.name, state)
        for teacher, own in config.teachers().items()
        for modality in config.modalities
        for shard, states in zip(shards, _states(own, workspace, modality, shards), strict=True)
        for output, state in states.items()
    ]
    columns = zip(*fields, strict=True) if fields else [[] for _ in COVERAGE_SCHEMA.names]
    return CoverageMap(pa.table([*map(list, columns)], schema=COVERAGE_SCHEMA))


def _states(
    config: Config, workspace: Workspace, modality: str, shards: Sequence[ShardInfo]
) -> Sequence[Mapping[str, State]]:
    """Output to state, for each shard; all `missing` if there is no store."""
    try:
        return resolve(config, workspace, modality).states(shards)
    except MissingTarget:
        return [dict.fromkeys(config.teacher.outputs, "missing")] * len(shards)


def coverage_rows(
    config: Config, workspace: Workspace, manifest: Manifest | None
) -> list[CoverageRow]:
    """Rows for `prepare` (per split) and `precompute` (per modality, then the prompts).

    `manifest` is None if the dataset was never prepared.
    """
    return [
        *_prepare_rows(config, workspace, manifest),
        *(
            _target_row(own, workspace, manifest, name, of_teacher(teacher, name))
            for teacher, own in config.teachers().items()
            for name in config.modalities
        ),
        *_prompt_rows(config, workspace),
    ]


@dataclass(frozen=True, slots=True)
class _Source:
    """The source's listing, or the reason why it cannot be read."""

    samples: Mapping[str, Sequence[SourceSample]] = field(default_factory=dict)
    error: str = ""


def _prepare_rows(
    config: Config, workspace: Workspace, manifest: Manifest | None
) -> Iterator[CoverageRow]:
    quarantine = workspace.dataset(config) / QUARANTINE
    rows = read_rows(quarantine) if quarantine.exists() else []
    refused = {row["key"]: row["version"] for row in rows}
    source = _source(config)
    index = SourceIndex(source_index_path(config, workspace))
    keys = {split: manifest.keys(split) for split in manifest.splits} if manifest else {}
    splits = dict.fromkeys([*source.samples, *keys])
    for split in splits or ["-"]:
        samples = source.samples.get(split, ())
        # In any split: a sample that moved to another split was committed under its old one.
        new = [s for s in samples if not any(s.key in known for known in keys.values())]
        num_refused = sum(s.key in refused and refused[s.key] == s.version() for s in new)
        changes = SourceChanges()
        if manifest and not source.error:
            changes = compare_sources(samples, manifest, split, index, limit=READ_AGAIN)
        notes = (source.error, f"{num_refused} in quarantine" if num_refused else "", str(changes))
        yield CoverageRow(
            "prepare",
            split,
            "samples",
            committed=len(keys.get(split, ())),
            missing=len(new) - num_refused,
            note=", ".join(filter(None, notes)),
            advice=tuple(changes.advice(split)),
        )


def _source(config: Config) -> _Source:
    try:
        adapter = open_dataset(config.dataset, config.specs())
        return _Source({split: adapter.samples(split) for split in adapter.splits()})
    except DatasetError as error:
        return _Source(error=f"source: {error}")


def _target_row(
    config: Config, workspace: Workspace, manifest: Manifest | None, modality: str, what: str
) -> CoverageRow:
    shards = manifest.all_shards if manifest else ()
    try:
        store = resolve(config, workspace, modality)
    except MissingTarget:
        root = workspace.targets(config)
        others = root.is_dir() and any(
            p.name.startswith(f"{modality}-") for p in root.iterdir() if p.name != INDEX
        )
        note = "computed with other settings only" if others else ""
        return CoverageRow("precompute", what, "shards", missing=len(shards), note=note)
    counts = store.coverage(shards)
    return CoverageRow(
        "precompute",
        what,
        "shards",
        committed=counts.committed,
        missing=counts.missing,
        stale=counts.stale,
        note=store.path.name,
    )


def _prompt_rows(config: Config, workspace: Workspace) -> Iterator[CoverageRow]:
    """One row; none for a teacher without a text tower."""
    try:
        store = resolve_prompts(config, workspace)
    except MissingTarget:
        # Here: `any2seg train` registers this command where no teacher's code is installed.
        from teacher.requirements import lacks_text

        if not lacks_text(config):
            yield CoverageRow("precompute", "class prompts", "sets", missing=1)
        return
    yield CoverageRow("precompute", "class prompts", "sets", committed=1, note=store.path.name)
