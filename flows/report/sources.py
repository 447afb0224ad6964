"""Inputs of the report: scores, curves, samples, costs and quarantine, read from the workspace.

Reads run folders, the manifest, single samples of shards and the target stores' cost journals.
`Any2SegError` names the stage to run if the main run is not scored.
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
from pipeline.modalities import ModalitySpec
from pipeline.schemas import EVALUATION_SCHEMA
from pipeline.shards.manifest import (
    DATASET,
    MANIFEST,
    QUARANTINE,
    Manifest,
    ShardInfo,
    read_rows,
    read_table,
)
from pipeline.shards.sample_reader import SampleReader, list_samples
from pipeline.shards.statistics import SplitStatistics
from pipeline.storage.files import AnyPath, read_json
from pipeline.targets.lookup import resolve
from pipeline.targets.store import TargetStore
from student.runs.inputs import RunInputs, open_inputs
from student.runs.run import Run


@dataclass(frozen=True, slots=True)
class RunRow:
    """One scored run: the main one or a comparison row."""

    name: str
    config: Config
    run: Run
    overrides: tuple[str, ...]
    """How a comparison row differs from the main config."""
    evaluation: Mapping[str, Any]
    """evaluation.json."""
    metrics: Mapping[str, NDArray[np.float64]]
    """Columns of metrics.parquet, one value a step; NaN where none was recorded."""


@dataclass(frozen=True, slots=True)
class SampleInputs:
    """The inputs of one sample, its label and the student's predictions."""

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
    """All content of the page."""

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
    """Split to the statistics that `prepare` measured."""
    specs: Mapping[str, ModalitySpec]
    fingerprints: Sequence[Mapping[str, str]]
    config_text: str


def scored_rows(main: RunInputs) -> tuple[list[RunRow], list[str]]:
    """The main run and the scored comparison rows; then the names of the rows that are not scored.

    Raises `Any2SegError` if the main run is not scored.
    """
    if not is_scored(main.run):
        raise Any2SegError(
            f"{main.run.folder}: expected a scored run, found no {main.run.evaluation.name} of "
            f"schema {EVALUATION_SCHEMA}. "
            "Run `any2seg train CONFIG`, then `any2seg evaluate CONFIG`."
        )
    (main_name, config), *others = configured_rows(main.config).items()
    rows = [_read_row(main_name, config, main.run, ())]
    unfinished: list[str] = []
    for name, row_config in others:
        try:
            run = open_inputs(row_config, main.workspace, main.manifest).run
        except MissingTarget:
            unfinished.append(name)
            continue
        if is_scored(run):
            rows.append(_read_row(name, row_config, run, config.compare[name]))
        else:
            unfinished.append(name)
    return rows, unfinished


def is_scored(run: Run) -> bool:
    """Whether the run has scores of the current schema; older ones are computed again."""
    return run.evaluation.is_file() and read_json(run.evaluation)["schema"] == EVALUATION_SCHEMA


def input_files(
    rows: Sequence[RunRow], inputs: RunInputs, stores: Mapping[str, TargetStore]
) -> list[AnyPath]:
    """Every file that the page depends on, except the shards, whose digests are in the manifest."""
    files = [inputs.manifest.folder / name for name in (DATASET, MANIFEST, QUARANTINE)]
    for row in rows:
        files += [row.run.evaluation, row.run.metrics]
    files += rows[0].run.pictures.rglob("*.png")
    for store in stores.values():
        files += (store.path / "cost").rglob("*.json")
    return [file for file in files if file.is_file()]


def read_sources(
    rows: Sequence[RunRow],
    unfinished: Sequence[str],
    inputs: RunInputs,
    stores: Mapping[str, TargetStore],
) -> Sources:
    """All content of the page. `CorruptShard` if a shown sample cannot be read."""
    manifest = inputs.manifest
    return Sources(
        rows=rows,
        unfinished=unfinished,
        palette=[tuple(colour) for colour in manifest.description["palette"]],
        samples=list(read_samples(rows[0], manifest)),
        passes=list(read_passes(inputs.config, manifest, stores)),
        refused=read_refused(manifest.folder),
        num_samples=manifest.num_samples,
        statistics={split: manifest.statistics(split) for split in manifest.splits},
        specs=manifest.specs,
        fingerprints=list(fingerprints(rows[0])),
        config_text=dump_config(inputs.config),
    )


def _read_row(name: str, config: Config, run: Run, overrides: tuple[str, ...]) -> RunRow:
    return RunRow(name, config, run, overrides, read_json(run.evaluation), read_metrics(run))


def read_metrics(run: Run) -> dict[str, NDArray[np.float64]]:
    """Columns of the run's metrics.parquet; empty if there is no such file."""
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


def read_passes(
    config: Config, manifest: Manifest, stores: Mapping[str, TargetStore]
) -> Iterator[PassCost]:
    """Time and bytes of the teacher pass over each modality, for the shards that are committed."""
    for modality, store in stores.items():
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


def target_stores(inputs: RunInputs) -> Mapping[str, TargetStore]:
    """The target store of each modality that has one, whether or not the losses read it."""
    if inputs.teacher is not None:
        return inputs.teacher.stores
    stores = {}
    for modality in inputs.config.modalities:
        with contextlib.suppress(MissingTarget):
            stores[modality] = resolve(inputs.config, inputs.workspace, modality)
    return stores


def _objects(store: TargetStore, shards: Iterable[ShardInfo]) -> Iterator[AnyPath]:
    for shard in shards:
        for output in store.provenance.outputs:
            yield store.array(shard.split, output).object_path(shard.index)


def read_refused(dataset: AnyPath) -> list[dict[str, Any]]:
    """Rows of the quarantine; empty if no sample was ever refused."""
    return read_rows(dataset / QUARANTINE) if (dataset / QUARANTINE).is_file() else []


def read_samples(main: RunRow, manifest: Manifest) -> Iterator[SampleInputs]:
    """Inputs and predictions of the samples whose images the evaluation kept.

    Raises `CorruptShard` naming the shard if it is corrupted or does not hold the sample.
    """
    shown = main.evaluation["pictures"]
    if not shown:
        return
    specs = main.config.specs()
    refs = {ref.key: ref for ref in list_samples(manifest, main.evaluation["split"], tuple(specs))}
    reader = SampleReader(specs)
    for entry in shown:
        ref = refs[entry["key"]]
        sample = reader.read(ref)
        yield SampleInputs(
            key=ref.key,
            condition=ref.condition,
            corner_case=ref.corner_case,
            arrays=sample.arrays,
            label=sample.label,
            predictions=read_predictions(main.run.pictures / ref.key, tuple(specs)),
        )


def read_predictions(
    folder: AnyPath, modalities: tuple[str, ...]
) -> dict[frozenset[str], NDArray[np.uint8]]:
    """The kept class maps, from each modality alone and from all of them, where they exist."""
    subsets = {(name,) for name in modalities} | {modalities}
    predictions = {}
    for subset in subsets:
        path = folder / f"{'+'.join(subset)}.png"
        if path.is_file():
            with Image.open(io.BytesIO(path.read_bytes())) as image:
                predictions[frozenset(subset)] = np.array(image)
    return predictions
