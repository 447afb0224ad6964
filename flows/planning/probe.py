"""Measures the speed of the teacher pass on this machine, with a few seconds of it.

    probe = measure(config, workspace, plans, source, encoder)

Each part is measured by the code that does it in the pass: images of a real shard are read and
decoded, a tower encodes two batches of them (after a warm-up), and objects of the real size are committed
to a temporary store under `<workspace>/cache`, which is deleted afterwards. Raises what `precompute`
raises. Timings of a machine that does other work at the same time are worth little.
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
from pipeline.formats.shard_tar import stored_member
from pipeline.shards.manifest import ShardInfo
from pipeline.shards.prepare_plan import SampleProbe
from pipeline.storage.files import AnyPath
from pipeline.targets.provenance import TargetProvenance
from pipeline.targets.store import TargetStore
from pipeline.targets.views import ViewConfig, cut, draw_boxes
from pipeline.workspace import Workspace
from teacher.encoding.batches import decode_rendered, num_decoders, read_image_bytes
from teacher.encoding.encoder import Encoder
from teacher.encoding.units import TowerPlan

BATCH_S = 4.0
"""Where one image takes long (large tower, no GPU), a probed batch is cut to about this time."""
WRITING_S = 1.5
MAX_COMMITS = 64
NUM_DECODED = 32
"""Images decoded for each modality."""

Images = list[NDArray[Any]]


@dataclass(frozen=True, slots=True)
class ProbeSource:
    """Stored images to measure with."""

    images: Mapping[str, Sequence[bytes]]
    """Modality to image members as stored in a shard."""
    read_s_per_byte: float = 0.0

    @classmethod
    def of_shard(cls, shard: ShardInfo, modalities: Sequence[str]) -> ProbeSource:
        """Read a shard as the pass does."""
        import webdataset.tariterators  # noqa: F401  so that the import is not timed

        started = time.perf_counter()
        members = read_image_bytes(shard, modalities)
        seconds = time.perf_counter() - started
        images = {
            name: [stored[name] for stored in members.values() if name in stored]
            for name in modalities
        }
        return cls(images, seconds / shard.path.stat().st_size)

    @classmethod
    def of_samples(cls, probed: SampleProbe, modalities: Sequence[str]) -> ProbeSource:
        """Samples that were encoded but not written."""
        images: dict[str, list[bytes]] = {name: [] for name in modalities}
        for sample in probed.samples:
            for name in modalities:
                data = sample.members.get(stored_member(name, sample.members))
                if data is not None:
                    images[name].append(data)
        return cls(images)


def measure(
    config: Config,
    workspace: Workspace,
    plans: Sequence[TowerPlan],
    source: ProbeSource,
    encoder: Encoder,
) -> Probe:
    """Measure reading, decoding, every tower and committing; see the module's text."""
    decoded: dict[str, Images] = {}
    decode_s: dict[str, float] = {}
    for plan in plans:
        for name in plan.specs:
            decoded[name], decode_s[name] = _decode(plan, name, source.images[name])
    rates = {plan.label: _rate(config, plan, decoded, encoder) for plan in plans}
    written: dict[str, float] = {}
    for plan in plans:
        provenance = next(iter(plan.stores.values())).provenance
        written[plan.label] = commit_seconds(workspace, provenance)
    return Probe(
        device=encoder.device,
        overlaps=_overlaps(encoder.device),
        towers=rates,
        decode_s=decode_s,
        read_s_per_byte=source.read_s_per_byte,
        commit_s=written,
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
        store.commit(
            _empty_shard(provenance, 0), rows, {}
        )  # Not timed: it also creates the arrays.
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
    """A full-size shard without a file."""
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


def _decode(plan: TowerPlan, modality: str, members: Sequence[bytes]) -> tuple[Images, float]:
    """Some decoded and rendered images, and the seconds for one with all threads at work."""
    some = members[:NUM_DECODED]
    if not some:
        return [], 0.0

    def decode(data: bytes) -> NDArray[Any]:
        return decode_rendered(plan, modality, data, "probe")

    with ThreadPoolExecutor(num_decoders()) as pool:
        decode(some[0])
        started = time.perf_counter()
        images = list(pool.map(decode, some))
        return images, (time.perf_counter() - started) / len(some)


def _rate(
    config: Config, plan: TowerPlan, decoded: Mapping[str, Images], encoder: Encoder
) -> TowerRate:
    started = time.perf_counter()
    teacher = config.for_teacher(plan.teacher).teacher
    tower = encoder.tower(plan, teacher.dtype)
    load_s = time.perf_counter() - started
    views = ViewConfig.of(config)
    stored = [image for name in plan.specs for image in decoded[name]]
    if not stored:
        return TowerRate(load_s, 0.0)
    if views is not None:
        height, width = stored[0].shape[:2]
        boxes = draw_boxes("probe", height, width, views)
        stored = [cut(image, box) for image in stored for box in boxes]

    def seconds(size: int) -> float:
        batch = list(islice(cycle(stored), size))
        began = time.perf_counter()
        encoder.encode(tower, batch, teacher.outputs)
        return time.perf_counter() - began

    seconds(1)
    size = max(1, min(config.teacher.batch_size, int(BATCH_S / seconds(1))))
    seconds(size)
    both = seconds(size) + seconds(size)
    return TowerRate(load_s, both / (2 * size) * max(1, config.teacher.views))


def _overlaps(device: str) -> bool:
    import torch

    return device != "cpu" or torch.get_num_threads() < len(os.sched_getaffinity(0))
