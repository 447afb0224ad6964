"""How fast this machine is at the teacher pass: a few seconds of the real thing.

    probe = measure(config, workspace, plans, source, encoder)

Each part is measured by the code that does it in the pass: pictures of a real shard are read and
decoded, a tower encodes two batches of them (after one that is thrown away), and real-size objects
are committed to a store of their own under `<workspace>/cache`, which is deleted again. Fails as
`precompute` does. Timings of a machine that does other work at the same time are worth little.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.planning.estimate import Probe, TowerRate
from pipeline.config.config import Config
from pipeline.formats.image_codec import decode_picture
from pipeline.formats.shard_tar import stored_member
from pipeline.modalities import ModalitySpec
from pipeline.shards.manifest import ShardInfo
from pipeline.shards.prepare_plan import SampleProbe
from pipeline.storage.files import AnyPath
from pipeline.targets.provenance import TargetProvenance
from pipeline.targets.store import TargetStore
from pipeline.targets.views import ViewSettings, cut, draw_boxes
from pipeline.workspace import Workspace
from teacher.encoding.batches import num_decoders, read_pictures
from teacher.encoding.encoder import Encoder
from teacher.encoding.units import TowerPlan

BATCH_S = 4.0
"""A probed batch is cut to take about this long, where one picture takes long (big tower, no GPU)."""
WRITING_S = 1.5
MAX_COMMITS = 64
NUM_DECODED = 32
"""Pictures of a modality that are decoded."""

Pictures = list[NDArray[Any]]


@dataclass(frozen=True, slots=True)
class ProbeSource:
    """Stored pictures to measure with."""

    pictures: Mapping[str, Sequence[bytes]]
    """Modality to picture members as they lie in a shard."""
    read_s_per_byte: float = 0.0

    @classmethod
    def of_shard(cls, shard: ShardInfo, modalities: Sequence[str]) -> ProbeSource:
        """Read a shard as the pass does."""
        import webdataset.tariterators  # noqa: F401  importing it takes longer than reading

        started = time.perf_counter()
        members = read_pictures(shard, modalities)
        seconds = time.perf_counter() - started
        pictures = {
            name: [found[name] for found in members.values() if name in found]
            for name in modalities
        }
        return cls(pictures, seconds / shard.path.stat().st_size)

    @classmethod
    def of_samples(cls, probed: SampleProbe, modalities: Sequence[str]) -> ProbeSource:
        """Samples that were encoded but not written."""
        found: dict[str, list[bytes]] = {name: [] for name in modalities}
        for sample in probed.samples:
            for name in modalities:
                data = sample.members.get(stored_member(name, sample.members))
                if data is not None:
                    found[name].append(data)
        return cls(found)


def measure(
    config: Config,
    workspace: Workspace,
    plans: Sequence[TowerPlan],
    source: ProbeSource,
    encoder: Encoder,
) -> Probe:
    """Measure reading, decoding, every tower and committing. See the module's text."""
    decoded: dict[str, Pictures] = {}
    decode_s: dict[str, float] = {}
    for name, spec in config.specs().items():
        decoded[name], decode_s[name] = _decode(source.pictures[name], spec)
    rates = {plan.tower: _rate(config, plan, decoded, encoder) for plan in plans}
    written: dict[str, float] = {}
    for plan in plans:
        provenance = next(iter(plan.stores.values())).provenance
        written[plan.tower] = commit_seconds(workspace, provenance)
    return Probe(
        device=encoder.device,
        overlaps=_overlaps(encoder.device),
        towers=rates,
        decode_s=decode_s,
        read_s_per_byte=source.read_s_per_byte,
        commit_s={plan.tower: written[plan.tower] for plan in plans},
    )


def commit_seconds(workspace: Workspace, provenance: TargetProvenance) -> float:
    """Seconds to commit one shard's rows of `provenance`, sustained for a second or two."""
    folder = workspace.root / "cache" / f"probe-{os.getpid()}"
    rng = np.random.default_rng([2026])
    rows = {
        output: np.broadcast_to(
            rng.standard_normal(shape, dtype=np.float32), (provenance.shard_size, *shape)
        )
        for output, shape in provenance.outputs.items()
    }
    try:
        store = TargetStore.create(folder, provenance)
        store.commit(_empty_shard(provenance, 0), rows, {})  # makes the arrays too
        started = time.perf_counter()
        for count in range(1, MAX_COMMITS + 1):
            store.commit(_empty_shard(provenance, count), rows, {})
            elapsed = time.perf_counter() - started
            if elapsed >= WRITING_S:
                break
        return elapsed / count
    finally:
        _delete(folder)


def _empty_shard(provenance: TargetProvenance, index: int) -> ShardInfo:
    """A shard of full size that names no file."""
    size = provenance.shard_size
    return ShardInfo(
        split="probe",
        index=index,
        path=Path("probe"),
        sha256="",
        keys=("",) * size,
        present={provenance.modality: (True,) * size},
        conditions=("",) * size,
        corner_cases=("",) * size,
    )


def _delete(folder: AnyPath) -> None:
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.rglob("*"):
        path.unlink(missing_ok=True)


def _decode(members: Sequence[bytes], spec: ModalitySpec) -> tuple[Pictures, float]:
    """Some decoded pictures, and the seconds for one with all threads at work."""
    some = members[:NUM_DECODED]
    if not some:
        return [], 0.0

    def decode(data: bytes) -> NDArray[Any]:
        return decode_picture(data, spec, "probe")

    with ThreadPoolExecutor(num_decoders()) as pool:
        decode(some[0])
        started = time.perf_counter()
        pictures = list(pool.map(decode, some))
        return pictures, (time.perf_counter() - started) / len(some)


def _rate(
    config: Config, plan: TowerPlan, decoded: Mapping[str, Pictures], encoder: Encoder
) -> TowerRate:
    started = time.perf_counter()
    tower = encoder.tower(plan, config.teacher.dtype)
    load_s = time.perf_counter() - started
    views = ViewSettings.of(config)
    stored = [picture for name in plan.specs for picture in decoded[name]]
    if not stored:
        return TowerRate(load_s, 0.0)
    if views is not None:
        height, width = stored[0].shape[:2]
        boxes = draw_boxes("probe", height, width, views)
        stored = [cut(picture, box) for picture in stored for box in boxes]

    def seconds(size: int) -> float:
        batch = list(islice(cycle(stored), size))
        began = time.perf_counter()
        encoder.encode(tower, batch, config.teacher.outputs)
        return time.perf_counter() - began

    seconds(1)
    size = max(1, min(config.teacher.batch_size, int(BATCH_S / seconds(1))))
    seconds(size)
    both = seconds(size) + seconds(size)
    return TowerRate(load_s, both / (2 * size) * max(1, config.teacher.views))


def _overlaps(device: str) -> bool:
    import torch

    return device != "cpu" or torch.get_num_threads() < len(os.sched_getaffinity(0))
