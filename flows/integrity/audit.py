"""Audit: recompute a seeded share of the cached targets and compare them with the cache.

    audit(config, workspace, share=0.001, seed=0) -> AuditReport

Rows are drawn by shard (a random order of the shards, some rows of each), so that few objects are read;
of the shards' tars only the drawn images' headers and bytes. They go through decoding, preprocessing, tower
and views by the same code as the teacher pass. A digest proves that bytes are those that were written; the
audit proves that they are what the towers compute, whatever happened between the tower and the store.

Writes `audits/<dataset>/<fp12>.json`, named after what was audited and how. Missing targets are not audited;
if nothing is cached at all, that is a `MissingTarget`. Also raises `CorruptShard`, `CorruptTarget`,
`CheckpointError` and the decoder's errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.config import Config
from pipeline.config.teacher import of_teacher
from pipeline.core.fingerprint import SHORT, fingerprint
from pipeline.core.progress import progress_bar
from pipeline.errors import MissingTarget
from pipeline.schemas import AUDIT_SCHEMA
from pipeline.shards.manifest import MANIFEST, Manifest, ShardInfo, read_table
from pipeline.shards.manifest_tables import ShardId, split_by_shard
from pipeline.shards.sample_reader import read_stored
from pipeline.storage.files import write_json
from pipeline.targets.provenance import REMEDY
from pipeline.targets.store import TargetStore
from pipeline.targets.views import VIEW_BOX, ViewConfig
from pipeline.workspace import Workspace, dataset_slug
from teacher.encoding.batches import Batch, StoredImage, decode_rendered
from teacher.encoding.encoder import Encoder, Rows
from teacher.encoding.units import TowerPlan, plan_towers
from teacher.encoding.views import encode_views, stored_images_per_batch

LEAST_ROWS = 8
"""Least number of audited rows of a modality."""
ROWS_A_SHARD = 4
"""Rows taken from a drawn shard; more if there are few shards."""
NAMED = 10
"""Worst samples of each modality and output that the report names."""
STORED_ROUNDING = {"float16": 2.0**-11, "float32": 2.0**-24}
ARITHMETIC_ROUNDING = {"float32": 2.0**-24, "bfloat16": 2.0**-9, "float16": 2.0**-11}
AMPLIFICATION = 8
"""Error of a tower's output in units of its arithmetic's rounding: cos(float32, bfloat16) of a ViT-L/14 is
0.9999, an error of 0.014 = 7.2 * 2^-9."""
MARGIN = 2
"""Twice the expected error: batches of other images and other devices sum in another order."""
LEAST_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Drawn:
    """One row to be recomputed."""

    shard: ShardInfo
    row: int

    @property
    def key(self) -> str:
        """The sample's key."""
        return self.shard.keys[self.row]


@dataclass(frozen=True, slots=True)
class Drift:
    """How far one sample's cached targets are from the recomputed ones."""

    key: str
    cosine: float
    """Least cosine over the sample's vectors (views, patches); -1 if a number is not finite."""
    max_abs: float
    """Largest absolute difference; 2 if a number is not finite."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One modality and output."""

    modality: str
    output: str
    """After `dense_teacher`: the second teacher's."""
    num_rows: int
    cosine_min: float
    cosine_median: float
    max_abs: float
    alarms: tuple[Drift, ...]
    """Samples beyond the tolerance, worst first; at most `NAMED` of them are kept."""
    num_alarms: int


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The result of an audit."""

    rows: tuple[AuditRow, ...]
    tolerance: float
    """Largest 1 - cosine that raises no alarm; of two teachers, the larger one."""
    record: str
    """Path of the report as JSON."""

    @property
    def passed(self) -> bool:
        """Whether no sample is beyond the tolerance."""
        return not any(row.num_alarms for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        return {"rows": [asdict(row) for row in self.rows], "tolerance": self.tolerance}


def default_tolerance(stored: str, arithmetic: str) -> float:
    """Largest 1 - cosine that rounding explains, for a stored type and the towers' arithmetic.

    Rounding moves a unit vector by at most e = (rounding of the store) + AMPLIFICATION * (rounding of the
    arithmetic), which costs e^2 / 2 of cosine; allowed is MARGIN * e. For float16 and float32: 4.8e-7.
    """
    error = STORED_ROUNDING[stored] + AMPLIFICATION * ARITHMETIC_ROUNDING[arithmetic]
    return max((MARGIN * error) ** 2 / 2, LEAST_TOLERANCE)


def audit(
    config: Config,
    workspace: Workspace,
    *,
    share: float = 0.001,
    tolerance: float | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> AuditReport:
    """Recompute a `share` of the cached rows and compare. See the module's text."""
    manifest = Manifest.load(workspace.dataset(config))
    plans = plan_towers(config, workspace)
    drawn = {
        which: draw(store, manifest.all_shards, share, [seed, number])
        for number, (which, store) in enumerate(_stores(config, plans).items())
    }
    if not any(drawn.values()):
        raise MissingTarget(f"{workspace.targets(config)}: nothing is cached to audit. {REMEDY}")
    allowed = {
        name: tolerance or default_tolerance(config.store.dtype, own.teacher.dtype)
        for name, own in config.teachers().items()
    }
    work = _Audit(config, workspace, Encoder(device or config.teacher.device))
    rows: list[AuditRow] = []
    with progress_bar("audit", sum(map(len, drawn.values())), "images", progress) as advance:
        for plan in plans:
            for name in plan.specs:
                one = drawn[plan.teacher, name]
                rows += work.modality(plan, name, one, allowed[plan.teacher])
                advance(len(one), of_teacher(plan.teacher, name))
    settings = {"share": share, "seed": seed, "tolerance": max(allowed.values())}
    return _recorded(config, workspace, manifest, plans, rows, settings)


def draw(
    store: TargetStore, shards: Sequence[ShardInfo], share: float, seed: Sequence[int]
) -> list[Drawn]:
    """A seeded share of the committed rows whose sample has the modality; at least `LEAST_ROWS`."""
    missing = {shard.name for shard in store.missing(shards)}
    modality = store.provenance.modality
    cached = [s for s in shards if s.name not in missing and any(s.present[modality])]
    total = sum(sum(shard.present[modality]) for shard in cached)
    num_rows = min(total, max(LEAST_ROWS, int(np.ceil(share * total))))
    generator = np.random.default_rng(list(seed))
    per_shard = max(ROWS_A_SHARD, -(-num_rows // max(1, len(cached))))
    drawn: list[Drawn] = []
    order = generator.permutation(len(cached))
    pools = [generator.permutation(np.flatnonzero(cached[i].present[modality])) for i in order]
    # Several rounds: some shards may have fewer than `per_shard` rows with the modality.
    for start in range(0, max(map(len, pools), default=0), per_shard):
        for position, pool in zip(order, pools, strict=True):
            rows = pool[start : start + per_shard][: num_rows - len(drawn)]
            drawn += [Drawn(cached[position], int(row)) for row in sorted(rows)]
    return drawn


class _Audit:
    """Recomputes drawn rows, batch by batch, and compares them with the store."""

    def __init__(self, config: Config, workspace: Workspace, encoder: Encoder) -> None:
        self._config, self._encoder = config, encoder
        table = read_table(workspace.dataset(config) / MANIFEST)
        self._members: Mapping[ShardId, Any] = split_by_shard(table)

    def modality(
        self, plan: TowerPlan, name: str, drawn: Sequence[Drawn], tolerance: float
    ) -> Iterator[AuditRow]:
        """One report row per output."""
        outputs = [output for output in plan.stores[name].provenance.outputs if output != VIEW_BOX]
        drifts: dict[str, list[Drift]] = {output: [] for output in outputs}
        size = stored_images_per_batch(self._config)
        for start in range(0, len(drawn), size):
            batch = drawn[start : start + size]
            recomputed = self._encode(plan, name, batch)
            for output in outputs:
                cached = _cached(plan.stores[name], output, batch)
                drifts[output] += map(drift, [d.key for d in batch], cached, recomputed[output])
        if drawn:
            for output, of_output in drifts.items():
                yield _row(name, of_teacher(plan.teacher, output), of_output, tolerance)

    def _encode(self, plan: TowerPlan, name: str, drawn: Sequence[Drawn]) -> Rows:
        """Output to one row for each of `drawn`, computed as in the teacher pass."""
        images = [StoredImage(name, row, self._bytes(d, name)) for row, d in enumerate(drawn)]
        arrays = (
            decode_rendered(plan, name, p.data, f"{d.shard.path}: {d.key}.{name}")
            for p, d in zip(images, drawn, strict=True)
        )
        teacher = self._config.for_teacher(plan.teacher).teacher
        tower = self._encoder.tower(plan, teacher.dtype)
        outputs, views = teacher.outputs, ViewConfig.of(self._config)
        if views is None:
            return self._encoder.encode(tower, list(arrays), outputs)
        # A stand-in shard of the drawn samples: view boxes depend on keys and sizes alone.
        shard = replace(drawn[0].shard, keys=tuple(d.key for d in drawn))
        batch = Batch(plan, shard, (name,), images, arrays, (name,), ends_shard=True)
        return encode_views(self._encoder, tower, batch, views, outputs)

    def _bytes(self, drawn: Drawn, name: str) -> bytes:
        """The stored image's bytes; nothing else of the tar is read. Raises `CorruptShard`."""
        table = self._members[drawn.shard.split, drawn.shard.index]
        members = table["members"][drawn.row].as_py()
        spans = {m["name"]: (m["offset"], m["num_bytes"]) for m in members}
        return read_stored(drawn.shard, drawn.key, name, spans)


def _cached(store: TargetStore, output: str, drawn: Sequence[Drawn]) -> Iterator[NDArray[Any]]:
    """The cached rows; adjacent rows of one shard take one read of its object."""
    shard_name, block = "", np.empty(0)
    for one in drawn:
        if one.shard.name != shard_name:
            shard_name, block = one.shard.name, store.read(one.shard, output)
        yield block[one.row]


def drift(key: str, cached: NDArray[Any], recomputed: NDArray[Any]) -> Drift:
    """Compare one sample's (..., D) vectors."""
    old, new = cached.astype(np.float64), recomputed.astype(np.float64)
    if not (np.isfinite(old).all() and np.isfinite(new).all()):
        return Drift(key, -1.0, 2.0)
    norms = np.linalg.norm(old, axis=-1) * np.linalg.norm(new, axis=-1)
    cosine = (old * new).sum(axis=-1) / np.maximum(norms, np.finfo(np.float64).tiny)
    return Drift(key, float(cosine.min()), float(np.abs(old - new).max()))


def _row(modality: str, output: str, drifts: Sequence[Drift], tolerance: float) -> AuditRow:
    ordered = sorted(drifts, key=lambda one: one.cosine)
    alarms = [one for one in ordered if 1 - one.cosine > tolerance]
    return AuditRow(
        modality=modality,
        output=output,
        num_rows=len(drifts),
        cosine_min=ordered[0].cosine,
        cosine_median=float(np.median([one.cosine for one in drifts])),
        max_abs=max(one.max_abs for one in drifts),
        alarms=tuple(alarms[:NAMED]),
        num_alarms=len(alarms),
    )


def _stores(config: Config, plans: Sequence[TowerPlan]) -> dict[tuple[str, str], TargetStore]:
    """(Teacher, modality) to its store, in the config's order."""
    stores = {(plan.teacher, name): store for plan in plans for name, store in plan.stores.items()}
    return {(t, name): stores[t, name] for t in config.teachers() for name in config.modalities}


def _recorded(
    config: Config,
    workspace: Workspace,
    manifest: Manifest,
    plans: Sequence[TowerPlan],
    rows: Sequence[AuditRow],
    settings: Mapping[str, Any],
) -> AuditReport:
    """Write the report where its name says what was audited and how."""
    towers = {
        of_teacher(*which): store.provenance.tower_fingerprint
        for which, store in _stores(config, plans).items()
    }
    audited = {**settings, "manifest": manifest.digest(), "towers": towers}
    name = f"{fingerprint(audited)[:SHORT]}.json"
    path = workspace.root / "audits" / dataset_slug(config) / name
    report = AuditReport(tuple(rows), settings["tolerance"], str(path))
    write_json(path, {"schema": AUDIT_SCHEMA, "audited": audited, **report.as_json()})
    return report
