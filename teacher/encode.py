"""Stage `precompute`: the teacher looks once at every shard and class prompt; the store keeps it.

    precompute(config, workspace) -> StageReport

Writes one committed object per (shard, modality, output) to the target stores, the class prompts to
the prompt store, and an index entry for each, so that training finds them without any weights.

It can be killed at any instruction and called again: what is committed is not made again, and a run
with nothing to do loads neither torch nor weights. The modalities of a shard that share a tower go
through it in common batches whose composition depends on the shard and the batch size alone, so a
resumed pass gives the bytes of an uninterrupted one.

Fails with `ConfigError` (a tower that cannot read a modality), `CheckpointError` (weights),
`CorruptShard`, or `CorruptTarget` naming the sample whose embedding is not finite.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.codecs import decode_picture
from pipeline.config import Config
from pipeline.manifest import Manifest, ShardInfo
from pipeline.modalities import TowerName
from pipeline.progress import Advance, progress_bar
from pipeline.shards import read_shard, stored_member
from pipeline.stage import StageReport
from pipeline.targets import PATCH, TargetStore
from pipeline.workspace import Workspace
from teacher.class_prompts import embed_prompts
from teacher.device import choose_device
from teacher.plan import TowerPlan, plan_towers, tower_options

if TYPE_CHECKING:
    from teacher.towers import Tower

Arrays = dict[str, NDArray[np.float32]]
"""Output to the rows of one shard and modality."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One stored picture on its way through a tower."""

    modality: str
    row: int
    data: bytes


def precompute(
    config: Config, workspace: Workspace, *, device: str | None = None, progress: bool = True
) -> StageReport:
    """Bring the targets and prompts of `config` up to date with its dataset. See the module's text.

    `device` overrides `teacher.device`.
    """
    started = time.perf_counter()
    manifest = Manifest.load(workspace.dataset(config))
    shards = manifest.all_shards
    plans = plan_towers(config, workspace)
    work = [(shard, plan) for shard in shards for plan in plans if plan.missing(shard)]
    num_missing = sum(len(plan.missing(shard)) for shard, plan in work)
    chosen = choose_device(device or config.teacher.device) if work else "none"
    new_prompts = embed_prompts(config, workspace, manifest.classes, device)
    if work:
        _encode(config, work, chosen, progress)
    return StageReport(
        stage="precompute",
        done=num_missing + int(new_prompts),
        skipped=len(shards) * len(config.modalities) - num_missing + int(not new_prompts),
        seconds=time.perf_counter() - started,
        details={
            "device": chosen,
            "targets": [str(s.path) for plan in plans for s in plan.stores.values()],
        },
    )


def _encode(
    config: Config, work: Sequence[tuple[ShardInfo, TowerPlan]], device: str, progress: bool
) -> None:
    towers: dict[TowerName, Tower] = {}
    total = sum(sum(shard.present[m]) for shard, plan in work for m in plan.missing(shard))
    with (
        progress_bar("precompute", total, "pictures", progress) as advance,
        ThreadPoolExecutor(max_workers=2) as decoders,
    ):
        for _, todo in groupby(work, key=lambda item: item[0].name):
            members: dict[str, dict[str, bytes]] = {}
            for shard, plan in todo:
                members = members or dict(read_shard(shard.path, shard.sha256))
                name = plan.preprocessing.tower
                if name not in towers:
                    towers[name] = _load(config, name, device)
                encode_shard(plan, towers[name], shard, members, config, decoders, advance)


def _load(config: Config, tower: TowerName, device: str) -> Tower:
    from teacher.towers import load_tower

    return load_tower(
        config.teacher.name,
        tower,
        revision=config.teacher.revision,
        dtype=config.teacher.dtype,
        device=device,
        **tower_options(config, tower),
    )


def encode_shard(
    plan: TowerPlan,
    tower: Tower,
    shard: ShardInfo,
    members: Mapping[str, Mapping[str, bytes]],
    config: Config,
    decoders: ThreadPoolExecutor,
    advance: Advance,
) -> None:
    """Encode and commit the missing modalities of one shard that go through one tower."""
    wanted = plan.missing(shard)
    arrays = {name: _empty_rows(plan.stores[name], shard) for name in wanted}
    seconds = dict.fromkeys(wanted, 0.0)
    outputs: tuple[str, ...] = config.teacher.outputs
    last = time.perf_counter()
    for batch, pictures in _decoded(plan, shard, members, wanted, config, decoders):
        output = tower.encode(tower.preprocess(pictures), patch=PATCH in outputs)
        for name in outputs:
            _scatter(batch, getattr(output, name).cpu().numpy(), name, arrays)
        counts = Counter(p.modality for p in batch if p.modality in arrays)
        now = time.perf_counter()
        for name, count in counts.items():
            seconds[name] += (now - last) * count / counts.total()
        last = now
        advance(counts.total(), shard.name)
    for name in wanted:
        cost = {
            "seconds": seconds[name],
            "num_pictures": sum(shard.present[name]),
            "device": str(tower.device),
        }
        plan.stores[name].commit(shard, arrays[name], cost)


def batches(
    plan: TowerPlan, shard: ShardInfo, members: Mapping[str, Mapping[str, bytes]], size: int
) -> list[list[Picture]]:
    """The shard's pictures for this tower, modality after modality, cut into batches.

    The same for every pass over the shard, whatever is missing.
    """
    pictures = [
        Picture(name, row, members[key][stored_member(name, members[key])])
        for name in plan.specs
        for row, (key, present) in enumerate(zip(shard.keys, shard.present[name], strict=True))
        if present
    ]
    edges = [*range(0, len(pictures), size), len(pictures)]
    return [pictures[start:end] for start, end in pairwise(edges)]


def _decoded(
    plan: TowerPlan,
    shard: ShardInfo,
    members: Mapping[str, Mapping[str, bytes]],
    wanted: Sequence[str],
    config: Config,
    decoders: ThreadPoolExecutor,
) -> Iterator[tuple[list[Picture], list[NDArray[Any]]]]:
    """The batches that hold a wanted modality, decoded one ahead of the tower."""

    def decode(picture: Picture) -> NDArray[Any]:
        where = f"{shard.path}: {shard.keys[picture.row]}.{picture.modality}"
        return decode_picture(picture.data, plan.specs[picture.modality], where)

    todo = [
        batch
        for batch in batches(plan, shard, members, config.teacher.batch_size)
        if any(picture.modality in wanted for picture in batch)
    ]
    ahead = [decoders.map(decode, batch) for batch in todo[:1]]
    for batch, following in zip(todo, [*todo[1:], None], strict=True):
        current = list(ahead.pop())
        if following is not None:
            ahead.append(decoders.map(decode, following))
        yield batch, current


def _empty_rows(store: TargetStore, shard: ShardInfo) -> Arrays:
    """NaN rows of every output: what an absent picture keeps."""
    return {
        output: np.full((shard.num_rows, *shape), np.nan, dtype=np.float32)
        for output, shape in store.provenance.outputs.items()
    }


def _scatter(
    batch: Sequence[Picture],
    rows: NDArray[np.float32],
    output: str,
    arrays: Mapping[str, Arrays],
) -> None:
    for picture, row in zip(batch, rows, strict=True):
        if picture.modality in arrays:
            arrays[picture.modality][output][picture.row] = row
