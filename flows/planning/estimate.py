"""What the planned units of the teacher pass amount to: pictures, tokens, operations, bytes, seconds.

Counts are exact for shards that are there, since they come from the very list that `precompute`
works through; for shards still to be prepared they are what the source's listing promises. Times
come from a `Probe` and follow the pass as it overlaps its work. Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from flows.planning.flops import flops_per_picture, num_tokens
from pipeline.config.config import Config
from pipeline.modalities import TowerName
from pipeline.shards.manifest import ShardInfo
from pipeline.shards.prepare_plan import FutureShard
from pipeline.targets.store import object_bytes
from teacher.encoding.units import TowerPlan, Unit

Place = tuple[str, int]
"""Split and number of a shard."""


@dataclass(frozen=True, slots=True)
class TowerWork:
    """What one tower has to do for one modality."""

    tower: TowerName
    modality: str
    num_shards: int
    num_pictures: int
    """Stored pictures; with K views each goes through the tower K times."""
    num_tokens: int
    flops: int
    num_bytes: int
    """Of the objects that will be written, all outputs together."""


@dataclass(frozen=True, slots=True)
class TowerRate:
    """How fast one tower is."""

    load_s: float
    picture_s: float
    """Seconds to preprocess and encode one picture, all its views together."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What was measured on this machine, in seconds."""

    device: str
    overlaps: bool
    """Whether decoding and writing have processor cores to themselves while a tower computes."""
    towers: Mapping[TowerName, TowerRate]
    decode_s: Mapping[str, float]
    """Modality to seconds a picture, with all decoding threads at work."""
    read_s_per_byte: float
    """0 if no shard is there to read."""
    commit_s: Mapping[TowerName, float]
    """Seconds to write, sync, read back and record one modality of one shard."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds of the whole pass, and of its parts if each had the machine alone."""

    seconds: float
    load_s: float
    read_s: float
    decode_s: float
    compute_s: float
    write_s: float

    @property
    def bottleneck(self) -> str:
        """The part that takes longest: `reading`, `decoding`, `arithmetic` or `writing`."""
        parts = {
            "arithmetic": self.compute_s,
            "writing": self.write_s,
            "decoding": self.decode_s,
            "reading": self.read_s,
        }
        return max(parts, key=lambda name: parts[name])


def pictures_by_place(
    shards: Sequence[ShardInfo], future: Sequence[FutureShard]
) -> dict[Place, Mapping[str, int]]:
    """Modality to pictures, of shards that are there and of those to come."""
    there = {
        (s.split, s.index): {name: sum(row) for name, row in s.present.items()} for s in shards
    }
    return {**there, **{(s.split, -1 - i): s.pictures for i, s in enumerate(future)}}


def future_units(plans: Sequence[TowerPlan], future: Sequence[FutureShard]) -> list[Unit]:
    """Units of shards that `prepare` is still to write, numbered from -1 downwards."""
    return [
        Unit(
            split=shard.split,
            index=-1 - i,
            tower=plan.tower,
            modalities=tuple(plan.stores),
            num_pictures=sum(shard.pictures[name] for name in plan.stores),
        )
        for i, shard in enumerate(future)
        for plan in plans
    ]


def count_work(
    config: Config,
    plans: Sequence[TowerPlan],
    units: Sequence[Unit],
    pictures: Mapping[Place, Mapping[str, int]],
) -> list[TowerWork]:
    """One entry a tower and modality, in the config's order; zeros where nothing is missing."""
    return [_work(config, plan, name, units, pictures) for plan in plans for name in plan.stores]


def predict(units: Sequence[Unit], probe: Probe, shard_bytes: float) -> Prediction:
    """Follow the pass through the units: see `teacher.encoding.batches` and `teacher.encoding.precompute`.

    The next shard is read while one is worked on, batches are decoded one ahead, a modality is
    written while the next is encoded, and no shard begins before the last is committed. Where a
    tower keeps every core busy these take turns instead.
    """
    places = [list(run) for _, run in groupby(units, key=lambda unit: (unit.split, unit.index))]
    read_s = shard_bytes * probe.read_s_per_byte
    compute_s = sum(unit.num_pictures * probe.towers[unit.tower].picture_s for unit in units)
    decode_s = sum(_decode_s(unit, probe) for unit in units)
    write_s = sum(len(unit.modalities) * probe.commit_s[unit.tower] for unit in units)
    load_s = sum(probe.towers[tower].load_s for tower in {unit.tower for unit in units})
    if probe.overlaps:
        each = [max(_shard_s(place, probe), read_s) for place in places]
        busy = sum(each) + (read_s if places else 0.0)
    else:
        busy = compute_s + decode_s + write_s + read_s * len(places)
    return Prediction(load_s + busy, load_s, read_s * len(places), decode_s, compute_s, write_s)


def _work(
    config: Config,
    plan: TowerPlan,
    name: str,
    units: Sequence[Unit],
    pictures: Mapping[Place, Mapping[str, int]],
) -> TowerWork:
    mine = [unit for unit in units if name in unit.modalities]
    count = sum(pictures[unit.split, unit.index][name] for unit in mine)
    encoded = count * max(1, config.teacher.views)
    patch = "patch" in config.teacher.outputs
    return TowerWork(
        tower=plan.tower,
        modality=name,
        num_shards=len(mine),
        num_pictures=count,
        num_tokens=encoded * num_tokens(plan.files.config),
        flops=encoded * flops_per_picture(plan.files.config, patch=patch),
        num_bytes=len(mine) * sum(object_bytes(plan.stores[name].provenance).values()),
    )


def _decode_s(unit: Unit, probe: Probe) -> float:
    each = [probe.decode_s.get(name, 0.0) for name in unit.modalities]
    return unit.num_pictures * sum(each) / len(each)


def _shard_s(units: Sequence[Unit], probe: Probe) -> float:
    """Seconds from the first batch of a shard to its last commit."""
    encoded = written = 0.0
    for unit in units:
        compute = unit.num_pictures * probe.towers[unit.tower].picture_s
        step = max(compute, _decode_s(unit, probe)) / len(unit.modalities)
        for _ in unit.modalities:
            encoded += step
            # One commit is under way at a time: the next one waits, and encoding with it.
            encoded = max(encoded, written)
            written = encoded + probe.commit_s[unit.tower]
    return written
