"""Stage `precompute`: encode every shard and class prompt once, and cache the targets.

    precompute(config, workspace) -> StageReport
    precompute(config, workspace, units=some) -> StageReport     one worker's part, without prompts
    precompute_prompts(config, workspace) -> StageReport         the class prompts only

Writes one committed object per (shard, modality, output) to the target stores, the class prompts to
the prompt store, and an index entry for each, so that training finds them without any weights.

It can be killed at any instruction and called again: committed targets are skipped, and a run with
nothing to do loads neither torch nor weights. The modalities of a shard that share a tower go through
it in common batches whose composition depends on the shard and the batch size alone, so a resumed
pass, or one divided among workers, writes the bytes of an uninterrupted one.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Container, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.config import Config
from pipeline.core.device import choose_device
from pipeline.core.progress import Advance, progress_bar
from pipeline.core.stage_report import StageReport
from pipeline.errors import ConfigError, DatasetError
from pipeline.shards.manifest import Manifest, ShardInfo
from pipeline.storage.disk_space import require_space
from pipeline.targets.prompts import PromptStore, point_to_prompts
from pipeline.targets.store import TargetStore
from pipeline.targets.views import ViewConfig
from pipeline.workspace import Workspace
from teacher.encoding.batches import Batch, decoded_batches
from teacher.encoding.class_prompts import embed_classes, templates
from teacher.encoding.encoder import Encoder, Rows
from teacher.encoding.identity import prompt_identity
from teacher.encoding.units import (
    TowerPlan,
    Unit,
    bytes_to_write,
    num_targets,
    plan_towers,
    plan_units,
)
from teacher.encoding.views import encode_views, stored_images_per_batch
from teacher.open import open_teacher


def precompute(
    config: Config,
    workspace: Workspace,
    *,
    units: Sequence[Unit] | None = None,
    encoder: Encoder | None = None,
    device: str | None = None,
    progress: bool = True,
) -> StageReport:
    """Bring the targets and prompts of `config` up to date with its dataset.

    `units` (see `teacher.encoding.units.plan_units`): only these, and no class prompts. `encoder`:
    towers kept from an earlier call. `device` overrides `teacher.device`. Raises `ConfigError` (a
    tower that cannot read a modality), `CheckpointError` (weights), `NotEnoughSpace`, `CorruptShard`,
    `OutOfMemory`, or `CorruptTarget` naming the sample whose embedding is not finite.
    """
    started = time.perf_counter()
    manifest = Manifest.load(workspace.dataset(config))
    plans = plan_towers(config, workspace)
    todo = _missing(config, plans, manifest.all_shards, units)
    require_space(workspace.root, bytes_to_write(plans, todo), f"targets of {len(todo)} units")
    for plan in plans:
        plan.create_stores(config, workspace)
    new_prompts = units is None and _embed_prompts(config, workspace, manifest.classes, device)
    encoder = encoder or Encoder(device or config.teacher.device)
    if todo:
        _encode(config, plans, manifest.all_shards, todo, encoder, progress)
    requested = num_targets(units) if units is not None else num_all_targets(config, manifest)
    done = num_targets(todo) + int(new_prompts)
    return StageReport(
        stage="precompute",
        done=done,
        skipped=requested - done,
        seconds=time.perf_counter() - started,
        details={
            "device": encoder.device if todo else "none",
            "batch_size": min(config.teacher.batch_size, encoder.largest_batch or 2**31),
            "units": [str(unit) for unit in (*todo[:1], *todo[1:][-1:])],
            "targets": [str(s.path) for plan in plans for s in plan.stores.values()],
        },
    )


def precompute_prompts(
    config: Config, workspace: Workspace, *, device: str | None = None
) -> StageReport:
    """Embed the class prompts if they are missing; loads the text tower and no other.

    A teacher without a text tower has none to embed.
    """
    started = time.perf_counter()
    manifest = Manifest.load(workspace.dataset(config))
    embedded = _embed_prompts(config, workspace, manifest.classes, device)
    seconds = time.perf_counter() - started
    return StageReport("prompts", done=int(embedded), skipped=int(not embedded), seconds=seconds)


def num_all_targets(config: Config, manifest: Manifest) -> int:
    """Targets of all shards and teachers, and one for class prompts if the first has a text tower."""
    text = open_teacher(config.teacher.name, config.teacher.revision).text
    images = len(manifest.all_shards) * len(config.modalities) * len(config.teachers())
    return images + int(text is not None)


def _missing(
    config: Config,
    plans: Sequence[TowerPlan],
    shards: Sequence[ShardInfo],
    units: Sequence[Unit] | None,
) -> list[Unit]:
    """All missing units, or those of them that `units` name."""
    if units is None:
        return plan_units(plans, shards)
    requested: dict[tuple[str, str], set[str]] = defaultdict(set)
    for unit in units:
        requested[unit.shard, unit.teacher].update(unit.modalities)
    asked_shards = {unit.shard for unit in units}
    named = {shard.name: shard for shard in shards if shard.name in asked_shards}
    _require_known(config, units, named)
    parts = [
        unit.only(requested[unit.shard, unit.teacher], named[unit.shard])
        for unit in plan_units(plans, list(named.values()))
    ]
    return [part for part in parts if part is not None]


def _require_known(config: Config, units: Sequence[Unit], shards: Container[str]) -> None:
    for unit in units:
        if unit.shard not in shards:
            raise DatasetError(
                f"unit {unit}: the manifest has no shard {unit.shard}. The units belong to "
                "another dataset; plan them again."
            )
        if not set(unit.modalities) <= set(config.modalities):
            raise ConfigError(
                f"unit {unit}: expected modalities among {', '.join(config.modalities)}. The units "
                "belong to another config; plan them again."
            )
        if unit.teacher not in config.teachers():
            raise ConfigError(
                f"unit {unit}: the config has no table [{unit.teacher}]. The units belong to another "
                "config; plan them again."
            )


def _embed_prompts(
    config: Config, workspace: Workspace, classes: Sequence[str], device: str | None
) -> bool:
    """Embed the class prompts if they are missing; True if they were.

    False, writing nothing, for a teacher without a text tower.
    """
    teacher = config.teacher
    source = open_teacher(teacher.name, teacher.revision).text
    if source is None:
        return False
    identity = prompt_identity(
        source,
        classes,
        templates(teacher.templates),
        compute_dtype=teacher.dtype,
        cache=workspace.cache,
    )
    store = PromptStore.find(workspace.prompts, teacher.name, identity)
    missing = store is None
    if store is None:
        text = source.load(teacher.dtype, choose_device(device or teacher.device))
        prompts = embed_classes(text, classes, teacher.templates)
        store = PromptStore.create(
            workspace.prompts,
            teacher.name,
            identity,
            prompts.class_embedding,
            prompts.prompt_embedding,
        )
    point_to_prompts(config, workspace, store)
    return missing


def _encode(
    config: Config,
    plans: Sequence[TowerPlan],
    shards: Sequence[ShardInfo],
    units: Sequence[Unit],
    encoder: Encoder,
    progress: bool,
) -> None:
    total = sum(unit.num_pictures for unit in units)
    with (
        progress_bar("precompute", total, "images", progress) as advance,
        _Writer() as writer,
        closing(decoded_batches(plans, shards, units, stored_images_per_batch(config))) as batches,
    ):
        work = _EncodingPass(config, encoder, writer, advance)
        for batch in batches:
            work.do(batch)


class _EncodingPass:
    """Takes batches in order, collects their rows by modality, commits each modality once complete."""

    def __init__(self, config: Config, encoder: Encoder, writer: _Writer, advance: Advance) -> None:
        self._config, self._encoder = config, encoder
        self._writer, self._advance = writer, advance
        self._rows: dict[str, dict[str, NDArray[Any]]] = {}
        self._seconds: dict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def do(self, batch: Batch) -> None:
        """Encode one batch; after the last of a shard, wait until the whole shard is committed."""
        if batch.images:
            present = {picture.modality for picture in batch.images} & set(batch.modalities)
            rows = {name: self._rows_of(batch, name) for name in present}
            scatter(batch, encode_batch(self._config, self._encoder, batch), rows)
        self._account(batch)
        for name in batch.finished:
            self._commit(batch, name)
        if batch.ends_shard:
            # No shard begins before the last one is committed: a kill loses one shard at most.
            self._writer.wait()

    def _rows_of(self, batch: Batch, name: str) -> dict[str, NDArray[Any]]:
        if name not in self._rows:
            self._rows[name] = empty_rows(batch.plan.stores[name], batch.shard)
        return self._rows[name]

    def _account(self, batch: Batch) -> None:
        """Divide the time since the last batch among its modalities, by images."""
        now = time.perf_counter()
        counts = Counter(p.modality for p in batch.images if p.modality in batch.modalities)
        for name, count in counts.items():
            self._seconds[name] += (now - self._last) * count / counts.total()
        self._last = now
        self._advance(counts.total(), f"{batch.shard.name} {batch.plan.label}")

    def _commit(self, batch: Batch, name: str) -> None:
        rows = self._rows_of(batch, name)
        del self._rows[name]
        cost = {
            "seconds": self._seconds.pop(name, 0.0),
            "num_pictures": sum(batch.shard.present[name]),
            "device": self._encoder.device,
        }
        self._writer.submit(batch.plan.stores[name], batch.shard, rows, cost)


class _Writer:
    """Commits one modality of a shard in the background while the next is encoded."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending: Future[bool] | None = None

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True)

    def submit(self, store: TargetStore, *arguments: Any) -> None:
        """Commit in the background, after the previous submission has been committed."""
        self.wait()
        self._pending = self._pool.submit(store.commit, *arguments)

    def wait(self) -> None:
        """Return when everything submitted is committed; raises the errors of committing."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()


def encode_batch(config: Config, encoder: Encoder, batch: Batch) -> Rows:
    """Output to one row per image of the batch, with all its views if the config has views."""
    teacher, views = config.for_teacher(batch.plan.teacher).teacher, ViewConfig.of(config)
    tower, outputs = encoder.tower(batch.plan, teacher.dtype), teacher.outputs
    if views is None:
        return encoder.encode(tower, list(batch.arrays), outputs)
    return encode_views(encoder, tower, batch, views, outputs)


def scatter(batch: Batch, encoded: Rows, rows: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
    """Copy the batch's rows of its modalities to their samples' rows in the shard."""
    for name in batch.modalities:
        picked = [i for i, picture in enumerate(batch.images) if picture.modality == name]
        if not picked:
            continue
        shard_rows = [batch.images[i].row for i in picked]
        for output, values in encoded.items():
            # A value that overflows the stored dtype is reported, with its sample, at the commit.
            with np.errstate(over="ignore"):
                rows[name][output][shard_rows] = values[picked]


def empty_rows(store: TargetStore, shard: ShardInfo) -> dict[str, NDArray[Any]]:
    """NaN rows of every output in its stored dtype; rows of absent images stay NaN."""
    provenance = store.provenance
    return {
        output: np.full((shard.num_rows, *shape), np.nan, dtype=provenance.dtype_of(output))
        for output, shape in provenance.outputs.items()
    }
