"""Batches of decoded images for the planned units: shards read one ahead, batches decoded one ahead.

    for batch in decoded_batches(plans, shards, units, batch_size): ...

At most two shards' encoded images and two batches of decoded ones are in memory. Which images share
a batch depends on the shard, the tower and the batch size alone. `CorruptShard` and the decoder's
errors are raised when the batch is used.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from numpy.typing import NDArray

from pipeline.formats.image_codec import decode_image
from pipeline.formats.shard_tar import read_shard, stored_member
from pipeline.shards.manifest import ShardInfo
from teacher.encoding.units import TowerPlan, Unit
from teacher.preprocessing.rendering import render

Members = Mapping[str, Mapping[str, bytes]]
"""Key to modality to the stored image's bytes."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One stored image: its modality, its row in the shard, its encoded bytes."""

    modality: str
    row: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of one shard that go through one tower together."""

    plan: TowerPlan
    shard: ShardInfo
    modalities: tuple[str, ...]
    """Modalities whose targets are missing. The batch may hold others: see `batches`."""
    images: Sequence[StoredImage]
    arrays: Iterator[NDArray[Any]]
    """The decoded images; can be iterated once."""
    finished: tuple[str, ...]
    """Those of `modalities` without an image in later batches."""
    ends_shard: bool


def decoded_batches(
    plans: Sequence[TowerPlan],
    shards: Iterable[ShardInfo],
    units: Sequence[Unit],
    batch_size: int,
) -> Generator[Batch]:
    """The batches of `units`, in their order, which keeps the units of a shard together."""
    by_label = {plan.label: plan for plan in plans}
    by_id = {(shard.split, shard.index): shard for shard in shards}
    groups = [list(run) for _, run in groupby(units, key=lambda unit: (unit.split, unit.index))]
    todo = [(by_id[group[0].split, group[0].index], group) for group in groups]
    with (
        ThreadPoolExecutor(max_workers=1) as reader,
        ThreadPoolExecutor(max_workers=num_decoders()) as decoders,
    ):
        yield from _one_ahead(
            _batches(by_label, _read(todo, by_label, reader), batch_size, decoders)
        )


def num_decoders() -> int:
    """Decoding threads: one a core, between 2 and 8."""
    return max(2, min(8, len(os.sched_getaffinity(0))))


def batches(
    plan: TowerPlan, shard: ShardInfo, members: Members, size: int
) -> list[list[StoredImage]]:
    """The shard's images for this tower, modality after modality, cut into batches."""
    # All present images are batched, also those whose targets exist: rounding depends on the batch, and
    # a resumed pass has to write the bytes of an uninterrupted one.
    images = [
        StoredImage(name, row, members[key][name])
        for name in plan.specs
        for row, (key, present) in enumerate(zip(shard.keys, shard.present[name], strict=True))
        if present
    ]
    edges = [*range(0, len(images), size), len(images)]
    return [images[start:end] for start, end in pairwise(edges)]


def read_image_bytes(shard: ShardInfo, modalities: Iterable[str]) -> Members:
    """The stored images of a shard, without labels and other members. Raises `CorruptShard`."""
    present_rows = {name: shard.present[name] for name in modalities}
    rows = {key: row for row, key in enumerate(shard.keys)}
    return {
        key: {
            name: members[stored_member(name, members)]
            for name, present in present_rows.items()
            if present[rows[key]]
        }
        for key, members in read_shard(shard.path, shard.sha256)
    }


def _read(
    todo: Sequence[tuple[ShardInfo, list[Unit]]],
    plans: Mapping[str, TowerPlan],
    reader: ThreadPoolExecutor,
) -> Iterator[tuple[ShardInfo, list[Unit], Members]]:
    """Shards with their units and images; the next shard is read while one is encoded."""

    def read(shard: ShardInfo, units: list[Unit]) -> Members:
        return read_image_bytes(shard, [name for unit in units for name in plans[unit.label].specs])

    ahead = [reader.submit(read, *item) for item in todo[:1]]
    for item, following in zip(todo, [*todo[1:], None], strict=True):
        members = ahead.pop().result()
        if following is not None:
            ahead.append(reader.submit(read, *following))
        yield *item, members


def _batches(
    plans: Mapping[str, TowerPlan],
    work: Iterable[tuple[ShardInfo, list[Unit], Members]],
    batch_size: int,
    decoders: ThreadPoolExecutor,
) -> Iterator[Batch]:
    for shard, units, members in work:
        for unit in units:
            plan = plans[unit.label]
            needed = [
                batch
                for batch in batches(plan, shard, members, batch_size)
                if any(image.modality in unit.modalities for image in batch)
            ] or [[]]
            last = {image.modality: i for i, batch in enumerate(needed) for image in batch}
            for i, batch in enumerate(needed):
                yield Batch(
                    plan=plan,
                    shard=shard,
                    modalities=unit.modalities,
                    images=batch,
                    arrays=decoders.map(_decoder(plan, shard), batch),
                    finished=tuple(name for name in unit.modalities if last.get(name, 0) == i),
                    ends_shard=unit is units[-1] and i == len(needed) - 1,
                )


def _decoder(plan: TowerPlan, shard: ShardInfo) -> Any:
    def decode(image: StoredImage) -> NDArray[Any]:
        where = f"{shard.path}: {shard.keys[image.row]}.{image.modality}"
        return decode_rendered(plan, image.modality, image.data, where)

    return decode


def decode_rendered(plan: TowerPlan, modality: str, data: bytes, where: str) -> NDArray[Any]:
    """A stored image, decoded and rendered for its tower. Raises as `decode_image` does."""
    seen = plan.inputs[modality]
    return render(decode_image(data, seen.spec, where), seen.spec, seen.rendering)


def _one_ahead(items: Iterator[Batch]) -> Iterator[Batch]:
    """Yield each batch after the decoding of the next one has started."""
    current = next(items, None)
    for following in items:
        if current is not None:
            yield current
        current = following
    if current is not None:
        yield current
