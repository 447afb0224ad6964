"""The cost of the planned units of the teacher pass: images, tokens, FLOPs, bytes, seconds.

Counts are exact for shards that exist, since they come from the list that `precompute` works through;
for shards still to be prepared they follow the source's listing. Times come from a `Probe` and model how
the pass overlaps its parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from flows.planning.flops import flops_per_image, num_tokens
from pipeline.config.config import Config
from pipeline.modalities import TowerName
from pipeline.shards.manifest import ShardInfo
from pipeline.shards.prepare_plan import FutureShard
from pipeline.targets.store import object_bytes
from teacher.encoding.units import TowerPlan, Unit

ShardId = tuple[str, int]
"""Split and index of a shard; negative for one still to be prepared."""


@dataclass(frozen=True, slots=True)
class TowerWork:
    """The missing work of one tower for one modality."""

    tower: TowerName
    modality: str
    num_shards: int
    num_images: int
    """Stored images; with K views each is encoded K times."""
    num_tokens: int
    flops: int
    num_bytes: int
    """Size of the objects to write, all outputs together."""


@dataclass(frozen=True, slots=True)
class TowerRate:
    """Measured speed of one tower."""

    load_s: float
    image_s: float
    """Seconds to preprocess and encode one image, all its views together."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Measurements of this machine, in seconds."""

    device: str
    overlaps: bool
    """Whether decoding and writing have CPU cores to themselves while a tower computes."""
    towers: Mapping[TowerName, TowerRate]
    decode_s: Mapping[str, float]
    """Modality to seconds per image, with all decoding threads at work."""
    read_s_per_byte: float
    """0 if there is no shard to read."""
    commit_s: Mapping[TowerName, float]
    """Seconds to write, sync, read back and record one modality of one shard."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds of the whole pass, and of each part if it ran alone."""

    seconds: float
    load_s: float
    read_s: float
    decode_s: float
    compute_s: float
    write_s: float

    @property
    def bottleneck(self) -> str:
        """The part that takes longest: `compute`, `write`, `decode` or `read`."""
        parts = {
            "compute": self.compute_s,
            "write": self.write_s,
            "decode": self.decode_s,
            "read": self.read_s,
        }
        return max(parts, key=lambda name: parts[name])


def images_by_shard(
    shards: Sequence[ShardInfo], future: Sequence[FutureShard]
) -> dict[ShardId, Mapping[str, int]]:
    """Modality to number of images, for existing shards and those still to be prepared."""
    prepared = {
        (s.split, s.index): {name: sum(row) for name, row in s.present.items()} for s in shards
    }
    return {**prepared, **{(s.split, -1 - i): s.num_images for i, s in enumerate(future)}}


def future_units(plans: Sequence[TowerPlan], future: Sequence[FutureShard]) -> list[Unit]:
    """Units of shards that `prepare` has still to write, numbered from -1 downwards."""
    return [
        Unit(
            split=shard.split,
            index=-1 - i,
            tower=plan.tower,
            modalities=tuple(plan.stores),
            num_pictures=sum(shard.num_images[name] for name in plan.stores),
        )
        for i, shard in enumerate(future)
        for plan in plans
    ]


def count_work(
    config: Config,
    plans: Sequence[TowerPlan],
    units: Sequence[Unit],
    num_images: Mapping[ShardId, Mapping[str, int]],
) -> list[TowerWork]:
    """One entry per tower and modality, in the config's order; zeros where nothing is missing."""
    return [_work(config, plan, name, units, num_images) for plan in plans for name in plan.stores]


def estimate_time(units: Sequence[Unit], probe: Probe, shard_bytes: float) -> Prediction:
    """Time of the pass over the units: see `teacher.encoding.batches` and `teacher.encoding.precompute`.

    The next shard is read while the current one is encoded, batches are decoded one ahead, a modality is
    written while the next is encoded, and no shard starts before the last is committed. Without overlap
    (a tower that keeps every core busy) the parts run one after the other.
    """
    by_shard = [list(run) for _, run in groupby(units, key=lambda unit: (unit.split, unit.index))]
    read_s = shard_bytes * probe.read_s_per_byte
    compute_s = sum(unit.num_pictures * probe.towers[unit.tower].image_s for unit in units)
    decode_s = sum(_decode_s(unit, probe) for unit in units)
    write_s = sum(len(unit.modalities) * probe.commit_s[unit.tower] for unit in units)
    load_s = sum(probe.towers[tower].load_s for tower in {unit.tower for unit in units})
    if probe.overlaps:
        each = [max(_shard_s(shard, probe), read_s) for shard in by_shard]
        busy = sum(each) + (read_s if by_shard else 0.0)
    else:
        busy = compute_s + decode_s + write_s + read_s * len(by_shard)
    return Prediction(load_s + busy, load_s, read_s * len(by_shard), decode_s, compute_s, write_s)


def _work(
    config: Config,
    plan: TowerPlan,
    name: str,
    units: Sequence[Unit],
    num_images: Mapping[ShardId, Mapping[str, int]],
) -> TowerWork:
    mine = [unit for unit in units if name in unit.modalities]
    count = sum(num_images[unit.split, unit.index][name] for unit in mine)
    encoded = count * max(1, config.teacher.views)
    patch = "patch" in config.teacher.outputs
    return TowerWork(
        tower=plan.tower,
        modality=name,
        num_shards=len(mine),
        num_images=count,
        num_tokens=encoded * num_tokens(plan.files.config),
        flops=encoded * flops_per_image(plan.files.config, patch=patch),
        num_bytes=len(mine) * sum(object_bytes(plan.stores[name].provenance).values()),
    )


def _decode_s(unit: Unit, probe: Probe) -> float:
    each = [probe.decode_s.get(name, 0.0) for name in unit.modalities]
    return unit.num_pictures * sum(each) / len(each)


def _shard_s(units: Sequence[Unit], probe: Probe) -> float:
    """Seconds from the first batch of a shard to its last commit."""
    encoded = written = 0.0
    for unit in units:
        compute = unit.num_pictures * probe.towers[unit.tower].image_s
        step = max(compute, _decode_s(unit, probe)) / len(unit.modalities)
        for _ in unit.modalities:
            encoded += step
            # Commits are serial: the next one waits for the last, and encoding waits with it.
            encoded = max(encoded, written)
            written = encoded + probe.commit_s[unit.tower]
    return written
