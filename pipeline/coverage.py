"""What a workspace has of what a config asks for: the rows of `any2seg status`.

Reads the manifest, the commit records and the source's listing; decodes nothing, writes nothing and
imports neither torch nor zarr.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.config import Config
from pipeline.datasets import open_dataset
from pipeline.errors import DatasetError, MissingTarget
from pipeline.manifest import QUARANTINE, Manifest, read_rows
from pipeline.prompts_store import resolve_prompts
from pipeline.store_index import INDEX
from pipeline.targets import resolve
from pipeline.workspace import Workspace


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """One line of the table; counts are of `unit`s."""

    stage: str
    what: str
    """Split, modality, or `class prompts`."""
    unit: str
    there: int = 0
    missing: int = 0
    stale: int = 0
    """Made from other bytes than the shard has now."""
    note: str = ""

    @property
    def complete(self) -> bool:
        """Whether the stage has nothing left to do here."""
        return self.missing == 0 and self.stale == 0


def coverage_rows(config: Config, workspace: Workspace) -> list[CoverageRow]:
    """Rows for `prepare` (per split) and `precompute` (per modality, then the prompts)."""
    try:
        manifest = Manifest.load(workspace.dataset(config))
    except DatasetError:
        manifest = None
    return [
        *_prepare_rows(config, workspace, manifest),
        *(_target_row(config, workspace, manifest, name) for name in config.modalities),
        _prompt_row(config, workspace),
    ]


def _prepare_rows(
    config: Config, workspace: Workspace, manifest: Manifest | None
) -> Iterator[CoverageRow]:
    quarantine = workspace.dataset(config) / QUARANTINE
    refused = {row["key"] for row in read_rows(quarantine)} if quarantine.exists() else set()
    try:
        adapter = open_dataset(config.dataset, config.specs())
        listed = {s: {x.key for x in adapter.samples(s)} for s in adapter.splits()}
        note = ""
    except DatasetError as error:
        listed, note = {}, f"source: {error}"
    held: dict[str, set[str]] = {}
    for shard in manifest.all_shards if manifest else ():
        held.setdefault(shard.split, set()).update(shard.keys)
    for split in dict.fromkeys([*listed, *held]) or ["-"]:
        there, wanted = held.get(split, set()), listed.get(split, set())
        bad = len(wanted & refused - there)
        yield CoverageRow(
            "prepare",
            split,
            "samples",
            there=len(there),
            missing=len(wanted - there - refused),
            note=note or (f"{bad} in quarantine" if bad else ""),
        )


def _target_row(
    config: Config, workspace: Workspace, manifest: Manifest | None, modality: str
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
        return CoverageRow("precompute", modality, "shards", missing=len(shards), note=note)
    counts = store.coverage(shards)
    return CoverageRow(
        "precompute",
        modality,
        "shards",
        there=counts.there,
        missing=counts.missing,
        stale=counts.stale,
        note=store.path.name,
    )


def _prompt_row(config: Config, workspace: Workspace) -> CoverageRow:
    try:
        store = resolve_prompts(config, workspace)
    except MissingTarget:
        return CoverageRow("precompute", "class prompts", "sets", missing=1)
    return CoverageRow("precompute", "class prompts", "sets", there=1, note=store.path.name)
