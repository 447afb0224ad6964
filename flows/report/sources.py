"""Inputs of the report: scores, curves, samples, costs and refusals, read from the workspace.

Reads run folders, the manifest, single members of shards (by byte offset) and cost journals of the target
stores. `Any2SegError` names the stage to run when the main run is not scored yet.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.config.config import Config
from pipeline.config.load import dump_config
from pipeline.config.load import rows as configured_rows
from pipeline.core.fingerprint import fingerprint
from pipeline.datasets.base import RGB
from pipeline.errors import Any2SegError, MissingTarget
from pipeline.formats.image_codec import decode_label, decode_picture
from pipeline.formats.shard_tar import stored_member
from pipeline.modalities import LABEL, ModalitySpec
from pipeline.schemas import EVALUATION_SCHEMA
from pipeline.shards.manifest import (
    DATASET,
    MANIFEST,
    QUARANTINE,
    Manifest,
    ShardInfo,
    read_rows,
    read_table,
    shard_path,
)
from pipeline.shards.statistics import SplitStatistics
from pipeline.storage.files import AnyPath, read_json
from pipeline.targets.lookup import resolve
from pipeline.targets.store import TargetStore
from pipeline.workspace import Workspace
from student.runs.run import Run, identify


@dataclass(frozen=True, slots=True)
class RunRow:
    """One scored run: the main one or a comparison row."""

    name: str
    config: Config
    run: Run
    overrides: tuple[str, ...]
    """What makes a comparison row differ from the main config."""
    evaluation: Mapping[str, Any]
    """evaluation.json."""
    metrics: Mapping[str, NDArray[np.float64]]
    """Columns of metrics.parquet, one value a step; NaN where none was recorded."""


@dataclass(frozen=True, slots=True)
class SampleInputs:
    """One sample as the student sees it, and its predictions."""

    key: str
    condition: str
    corner_case: str
    arrays: Mapping[str, NDArray[Any]]
    """Stored form of each modality that the sample has."""
    label: NDArray[np.uint8]
    """(H, W) class ids."""
    predictions: Mapping[frozenset[str], NDArray[np.uint8]]
    """(H, W) class ids from a subset of the modalities."""


@dataclass(frozen=True, slots=True)
class PassCost:
    """The teacher pass over one modality."""

    modality: str
    tower: str
    num_samples: int
    seconds: float
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that the page is made from."""

    rows: Sequence[RunRow]
    """The main run first."""
    unfinished: Sequence[str]
    """Comparison rows that are not scored yet."""
    palette: Sequence[RGB]
    samples: Sequence[SampleInputs]
    passes: Sequence[PassCost]
    refused: Sequence[Mapping[str, Any]]
    """Rows of quarantine.parquet."""
    num_samples: int
    """Samples in the manifest."""
    statistics: Mapping[str, SplitStatistics]
    """Split to what `prepare` measured of it."""
    specs: Mapping[str, ModalitySpec]
    fingerprints: Sequence[Mapping[str, str]]
    config_text: str


def scored_rows(
    config: Config, workspace: Workspace, manifest: Manifest
) -> tuple[list[RunRow], list[str]]:
    """The main run and the comparison rows that are scored, and the names of the rows that are not.

    Raises `Any2SegError` if the main run is not scored.
    """
    rows: list[RunRow] = []
    unfinished: list[str] = []
    for name, row_config in configured_rows(config).items():
        try:
            run = identify(row_config, workspace, manifest)
        except MissingTarget:
            if not rows:
                raise
            unfinished.append(name)
            continue
        if is_scored(run):
            overrides = config.compare.get(name, ()) if rows else ()
            rows.append(_read_row(name, row_config, run, overrides))
        elif not rows:
            raise Any2SegError(
                f"{run.folder}: expected a scored run, found no {run.evaluation.name} of schema "
                f"{EVALUATION_SCHEMA}. "
                "Run `any2seg train CONFIG`, then `any2seg evaluate CONFIG`."
            )
        else:
            unfinished.append(name)
    return rows, unfinished


def is_scored(run: Run) -> bool:
    """Whether the run has scores of the current schema; older ones are computed again."""
    return run.evaluation.is_file() and read_json(run.evaluation)["schema"] == EVALUATION_SCHEMA


def input_files(
    rows: Sequence[RunRow], config: Config, workspace: Workspace, manifest: Manifest
) -> list[AnyPath]:
    """Every file that the page is made from, except shards, whose digests are in the manifest."""
    files = [manifest.folder / name for name in (DATASET, MANIFEST, QUARANTINE)]
    for row in rows:
        files += [row.run.evaluation, row.run.metrics]
    files += rows[0].run.pictures.rglob("*.png")
    for store in _stores(config, workspace).values():
        files += (store.path / "cost").rglob("*.json")
    return [file for file in files if file.is_file()]


def read_sources(
    rows: Sequence[RunRow],
    unfinished: Sequence[str],
    config: Config,
    workspace: Workspace,
    manifest: Manifest,
) -> Sources:
    """Everything that the page is made from. `CorruptShard` if a shown sample cannot be decoded."""
    return Sources(
        rows=rows,
        unfinished=unfinished,
        palette=[tuple(colour) for colour in manifest.description["palette"]],
        samples=list(read_samples(rows[0], manifest)),
        passes=list(read_passes(config, workspace, manifest)),
        refused=read_refused(manifest.folder),
        num_samples=manifest.num_samples,
        statistics={split: manifest.statistics(split) for split in manifest.splits},
        specs=manifest.specs,
        fingerprints=list(fingerprints(rows[0])),
        config_text=dump_config(config),
    )


def _read_row(name: str, config: Config, run: Run, overrides: tuple[str, ...]) -> RunRow:
    return RunRow(name, config, run, overrides, read_json(run.evaluation), read_metrics(run))


def read_metrics(run: Run) -> dict[str, NDArray[np.float64]]:
    """Columns of the run's metrics.parquet; empty if there is none."""
    if not run.metrics.is_file():
        return {}
    table = read_table(run.metrics)
    return {
        name: np.array(table[name].to_numpy(zero_copy_only=False), dtype=np.float64)
        for name in table.column_names
    }


def fingerprints(main: RunRow) -> Iterator[dict[str, str]]:
    """Fingerprints of everything the main run's numbers depend on, by name."""
    identity = main.run.identity
    yield {"name": "run", "value": fingerprint(identity)}
    yield {"name": "checkpoint", "value": main.evaluation["checkpoint_sha256"]}
    yield {"name": "dataset", "value": identity["dataset"]}
    yield {"name": "manifest", "value": identity["manifest"]}
    for modality, tower in identity["towers"].items():
        yield {"name": f"tower of {modality}", "value": tower}
    yield {"name": "prompts", "value": identity["prompts"] or "not used by any loss"}
    yield {"name": "code version", "value": identity["code"]}


def read_passes(config: Config, workspace: Workspace, manifest: Manifest) -> Iterator[PassCost]:
    """Time and bytes of the teacher pass over each modality, for the shards that are committed."""
    for modality, store in _stores(config, workspace).items():
        missing = {shard.name for shard in store.missing(manifest.all_shards)}
        shards = [shard for shard in manifest.all_shards if shard.name not in missing]
        if shards:
            yield PassCost(
                modality=modality,
                tower=config.specs()[modality].tower,
                num_samples=sum(sum(shard.present[modality]) for shard in shards),
                seconds=sum(float(store.cost(shard).get("seconds", 0.0)) for shard in shards),
                num_bytes=sum(path.stat().st_size for path in _objects(store, shards)),
            )


def _stores(config: Config, workspace: Workspace) -> dict[str, TargetStore]:
    """The target store of each modality that has one."""
    stores = {}
    for modality in config.modalities:
        with contextlib.suppress(MissingTarget):
            stores[modality] = resolve(config, workspace, modality)
    return stores


def _objects(store: TargetStore, shards: Iterable[ShardInfo]) -> Iterator[AnyPath]:
    for shard in shards:
        for output in store.provenance.outputs:
            yield store.array(shard.split, output).object_path(shard.index)


def read_refused(dataset: AnyPath) -> list[dict[str, Any]]:
    """Rows of the quarantine; none if no sample was ever refused."""
    return read_rows(dataset / QUARANTINE) if (dataset / QUARANTINE).is_file() else []


def read_samples(main: RunRow, manifest: Manifest) -> Iterator[SampleInputs]:
    """Inputs and predictions of the samples whose predictions the evaluation kept.

    Raises `CorruptShard` naming the member if an image cannot be decoded.
    """
    rows = {row["key"]: row for row in manifest.rows(main.evaluation["split"])}
    for kept in main.evaluation["pictures"]:
        row = rows[kept["key"]]
        folder = main.run.pictures / kept["key"]
        yield SampleInputs(
            key=kept["key"],
            condition=row["condition"],
            corner_case=row["corner_case"],
            predictions=read_predictions(folder, tuple(main.config.modalities)),
            **read_inputs(row, manifest.folder, main.config),
        )


def read_inputs(row: Mapping[str, Any], dataset: AnyPath, config: Config) -> dict[str, Any]:
    """`arrays` and `label` of one manifest row, read from its shard by byte offset."""
    spans = {m["name"]: (m["offset"], m["num_bytes"]) for m in row["members"]}
    path = shard_path(dataset, row["split"], row["shard"])
    arrays: dict[str, NDArray[Any]] = {}
    with path.open("rb") as tar:

        def member(name: str) -> bytes:
            offset, num_bytes = spans[name]
            tar.seek(offset)
            return tar.read(num_bytes)

        for modality, spec in config.specs().items():
            name = stored_member(modality, spans)
            if name in spans:
                arrays[modality] = decode_picture(
                    member(name), spec, f"{path}: {row['key']}.{name}"
                )
        name = stored_member(LABEL, spans)
        label = decode_label(member(name), f"{path}: {row['key']}.{name}")
    return {"arrays": arrays, "label": label}


def read_predictions(
    folder: AnyPath, modalities: tuple[str, ...]
) -> dict[frozenset[str], NDArray[np.uint8]]:
    """The kept class maps of every single modality and of all of them, where present."""
    subsets = {(name,) for name in modalities} | {modalities}
    predictions = {}
    for subset in subsets:
        path = folder / f"{'+'.join(subset)}.png"
        if path.is_file():
            with Image.open(io.BytesIO(path.read_bytes())) as image:
                predictions[frozenset(subset)] = np.array(image)
    return predictions
