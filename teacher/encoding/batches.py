"""The pictures of planned units on their way to a tower: read a shard ahead, decoded a batch ahead.

    for batch in decoded_batches(plans, shards, units, batch_size): ...

Two shards' picture bytes and two batches of decoded pictures are in memory at most. Which pictures
share a batch depends on the shard, the tower and the batch size alone. Writes nothing; `CorruptShard`
and the decoder's errors pass through when the batch is used.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from numpy.typing import NDArray

from pipeline.formats.image_codec import decode_picture
from pipeline.formats.shard_tar import read_shard, stored_member
from pipeline.modalities import TowerName
from pipeline.shards.manifest import ShardInfo
from teacher.encoding.units import TowerPlan, Unit

Members = Mapping[str, Mapping[str, bytes]]
"""Key to modality to the stored picture's bytes."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One stored picture on its way through a tower."""

    modality: str
    row: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures of one shard that go through one tower together."""

    plan: TowerPlan
    shard: ShardInfo
    wanted: tuple[str, ...]
    """Modalities whose numbers are missing; others may be in the batch and are encoded for nothing."""
    pictures: Sequence[Picture]
    arrays: Iterator[NDArray[Any]]
    """The decoded pictures, to be used once."""
    finished: tuple[str, ...]
    """Wanted modalities that have no picture in later batches."""
    ends_shard: bool


def decoded_batches(
    plans: Sequence[TowerPlan],
    shards: Iterable[ShardInfo],
    units: Sequence[Unit],
    batch_size: int,
) -> Generator[Batch]:
    """The batches of `units`, in their order, which keeps the units of a shard together."""
    by_tower = {plan.tower: plan for plan in plans}
    by_place = {(shard.split, shard.index): shard for shard in shards}
    groups = [list(run) for _, run in groupby(units, key=lambda unit: (unit.split, unit.index))]
    todo = [(by_place[group[0].split, group[0].index], group) for group in groups]
    with (
        ThreadPoolExecutor(max_workers=1) as reader,
        ThreadPoolExecutor(max_workers=num_decoders()) as decoders,
    ):
        yield from _one_ahead(
            _batches(by_tower, _read(todo, by_tower, reader), batch_size, decoders)
        )


def num_decoders() -> int:
    """Threads that decode pictures: enough to keep up with an accelerator, where there are cores."""
    return max(2, min(8, len(os.sched_getaffinity(0))))


def batches(plan: TowerPlan, shard: ShardInfo, members: Members, size: int) -> list[list[Picture]]:
    """The shard's pictures for this tower, modality after modality, cut into batches.

    The same for every pass over the shard, whatever is missing.
    """
    pictures = [
        Picture(name, row, members[key][name])
        for name in plan.specs
        for row, (key, present) in enumerate(zip(shard.keys, shard.present[name], strict=True))
        if present
    ]
    edges = [*range(0, len(pictures), size), len(pictures)]
    return [pictures[start:end] for start, end in pairwise(edges)]


def read_pictures(shard: ShardInfo, modalities: Iterable[str]) -> Members:
    """The stored pictures of a verified shard, without labels and other members. `CorruptShard`."""
    wanted = {name: shard.present[name] for name in modalities}
    rows = {key: row for row, key in enumerate(shard.keys)}
    return {
        key: {
            name: members[stored_member(name, members)]
            for name, present in wanted.items()
            if present[rows[key]]
        }
        for key, members in read_shard(shard.path, shard.sha256)
    }


def _read(
    todo: Sequence[tuple[ShardInfo, list[Unit]]],
    plans: Mapping[TowerName, TowerPlan],
    reader: ThreadPoolExecutor,
) -> Iterator[tuple[ShardInfo, list[Unit], Members]]:
    """Shards with their units and pictures; the next is read while one is worked on."""

    def read(shard: ShardInfo, units: list[Unit]) -> Members:
        return read_pictures(shard, [name for unit in units for name in plans[unit.tower].specs])

    ahead = [reader.submit(read, *item) for item in todo[:1]]
    for item, following in zip(todo, [*todo[1:], None], strict=True):
        members = ahead.pop().result()
        if following is not None:
            ahead.append(reader.submit(read, *following))
        yield *item, members


def _batches(
    plans: Mapping[TowerName, TowerPlan],
    work: Iterable[tuple[ShardInfo, list[Unit], Members]],
    batch_size: int,
    decoders: ThreadPoolExecutor,
) -> Iterator[Batch]:
    for shard, units, members in work:
        for unit in units:
            plan = plans[unit.tower]
            wanted = [
                batch
                for batch in batches(plan, shard, members, batch_size)
                if any(picture.modality in unit.modalities for picture in batch)
            ] or [[]]
            last = {picture.modality: i for i, batch in enumerate(wanted) for picture in batch}
            for i, batch in enumerate(wanted):
                yield Batch(
                    plan=plan,
                    shard=shard,
                    wanted=unit.modalities,
                    pictures=batch,
                    arrays=decoders.map(_decoder(plan, shard), batch),
                    finished=tuple(name for name in unit.modalities if last.get(name, 0) == i),
                    ends_shard=unit is units[-1] and i == len(wanted) - 1,
                )


def _decoder(plan: TowerPlan, shard: ShardInfo) -> Any:
    def decode(picture: Picture) -> NDArray[Any]:
        where = f"{shard.path}: {shard.keys[picture.row]}.{picture.modality}"
        return decode_picture(picture.data, plan.specs[picture.modality], where)

    return decode


def _one_ahead(items: Iterator[Batch]) -> Iterator[Batch]:
    """Each batch once the next one's decoding has begun."""
    current = next(items, None)
    for following in items:
        if current is not None:
            yield current
        current = following
    if current is not None:
        yield current
