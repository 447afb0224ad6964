"""The training stream: shuffled batches of decoded samples, joined by key with the teacher's
outputs.

The order is a pure function of (seed, batch index): every epoch shuffles the shards, takes them in
windows of `WINDOW_SHARDS` and shuffles the samples of a window. A loader process makes every W-th
batch, whole. So the sequence of batches is the same for any number of processes, starting at batch
n costs nothing, and no process starves, however few shards there are. A process reads the targets
of a window's shards once, and joins by key. Augmentation (square crop, horizontal flip) moves all
modalities and the label alike, seeded per sample.

Legend: B samples, M modalities, C channels, H W space, D teacher width, P patches. Writes nothing;
what can fail: `CorruptShard` (see `student.samples`), `MissingTarget` and what the teacher source
raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pipeline.datasets.base import IGNORE_ID
from pipeline.errors import MissingTarget
from pipeline.modalities import ModalitySpec, to_unit_range
from pipeline.teacher_source import TeacherSource
from student.samples import Decoded, SampleReader, SampleRef

WINDOW_SHARDS = 4
"""Shards whose samples are shuffled together; their targets are in memory at once."""
_ORDER, _AUGMENT = 1, 2
"""Streams of random numbers, told apart by the second word of their seed."""

Targets = Mapping[str, Mapping[str, NDArray[Any]]]


@dataclass(frozen=True, slots=True)
class Batch:
    """B samples of one size; pictures are padded at the bottom and right with 0, labels with
    255."""

    index: int
    refs: tuple[SampleRef, ...]
    inputs: Mapping[str, Tensor]
    """Modality to (B, 1 or 3, H, W) float32 in [0, 1]; 0 where it is absent."""
    present: Tensor
    """(B, M) bool."""
    label: Tensor
    """(B, H, W) int64 class ids, 255 where ignored."""
    view: Tensor
    """(B, 5) float32: see `student.lscd.TeacherBatch`."""
    targets: Mapping[str, Tensor]
    """Teacher output to (B, M, ...) float32; 0 where a modality is absent."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        return replace(
            self,
            inputs={name: value.to(device) for name, value in self.inputs.items()},
            present=self.present.to(device),
            label=self.label.to(device),
            view=self.view.to(device),
            targets={name: value.to(device) for name, value in self.targets.items()},
        )


@dataclass(frozen=True, slots=True)
class Augment:
    """Square crop and horizontal flip."""

    crop_px: int | None = None
    flip: float = 0.0


@dataclass(frozen=True, slots=True)
class Placement:
    """Which window of the source picture a sample shows: corner in pixels, and mirrored or not."""

    top: int = 0
    left: int = 0
    mirrored: bool = False


class TargetJoin:
    """Teacher outputs by key; keeps the chunks of the shards in use, one read each."""

    def __init__(
        self, source: TeacherSource, modalities: Sequence[str], outputs: Sequence[str]
    ) -> None:
        self.source = source
        self.modalities = tuple(modalities)
        self.outputs = tuple(outputs)
        self._chunks: dict[str, tuple[Mapping[str, int], Targets]] = {}

    def rows(self, refs: Sequence[SampleRef]) -> dict[str, Tensor]:
        """Output to (B, M, ...) float32 of the samples. `MissingTarget` names a hole."""
        return {output: self._stack(output, refs) for output in self.outputs}

    def _stack(self, output: str, refs: Sequence[SampleRef]) -> Tensor:
        found = [[self._row(output, ref, m) for m in range(len(self.modalities))] for ref in refs]
        shape = next(row.shape for rows in found for row in rows if row is not None)
        stacked = np.zeros((len(refs), len(self.modalities), *shape), dtype=np.float32)
        for b, rows in enumerate(found):
            for m, row in enumerate(rows):
                if row is not None:
                    stacked[b, m] = row
        return torch.from_numpy(stacked)

    def _row(self, output: str, ref: SampleRef, m: int) -> NDArray[Any] | None:
        if not ref.present[m]:
            return None
        index, chunks = self._chunk(ref)
        modality = self.modalities[m]
        row: NDArray[Any] | None = None
        if ref.key in index:
            row = chunks[modality][output][index[ref.key]]
        if row is None or not np.isfinite(row).all():
            raise MissingTarget(
                f"{ref.shard.name}: no {modality} {output} of sample {ref.key}. "
                f"Run `any2seg precompute CONFIG`."
            )
        return row

    def _chunk(self, ref: SampleRef) -> tuple[Mapping[str, int], Targets]:
        shard = ref.shard
        if shard.name not in self._chunks:
            # A batch can straddle two windows.
            while len(self._chunks) >= 2 * WINDOW_SHARDS:
                self._chunks.pop(next(iter(self._chunks)))
            index = {key: row for row, key in enumerate(shard.keys)}
            self._chunks[shard.name] = (index, self.source.targets(shard))
        return self._chunks[shard.name]


@dataclass(eq=False)
class TrainStream(IterableDataset[Batch]):
    """Batches `start` to `stop` - 1 of the endless shuffled sequence."""

    refs: Sequence[SampleRef]
    specs: Mapping[str, ModalitySpec]
    batch_size: int
    seed: int
    start: int
    stop: int
    augment: Augment = Augment()
    join: TargetJoin | None = None
    _epoch: int = field(default=-1, init=False)
    _order: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64), init=False)

    def __post_init__(self) -> None:
        self._reader = SampleReader(self.specs)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for index in range(self.start + first, self.stop, step):
            yield self.batch(index)

    def batch(self, index: int) -> Batch:
        """Batch `index` of the sequence, whoever asks and whatever came before."""
        positions = range(index * self.batch_size, (index + 1) * self.batch_size)
        refs = [self._ref(position) for position in positions]
        decoded = [self._reader.read(ref) for ref in refs]
        size = common_size(decoded, self.augment.crop_px)
        places = [
            self._place(position, sample, size)
            for position, sample in zip(positions, decoded, strict=True)
        ]
        return assemble(index, refs, decoded, places, size, self.specs, self.join)

    def _ref(self, position: int) -> SampleRef:
        """The sample at a position of the endless sequence."""
        epoch, place = divmod(position, len(self.refs))
        if epoch != self._epoch:
            self._order = epoch_order([ref.shard.index for ref in self.refs], self.seed, epoch)
            self._epoch = epoch
        return self.refs[int(self._order[place])]

    def _place(self, position: int, sample: Decoded, size: tuple[int, int]) -> Placement:
        rng = np.random.default_rng([self.seed, _AUGMENT, position])
        mirrored = bool(rng.random() < self.augment.flip)
        spare_y, spare_x = (
            max(0, have - want) for have, want in zip(sample.label.shape, size, strict=True)
        )
        return Placement(int(rng.integers(spare_y + 1)), int(rng.integers(spare_x + 1)), mirrored)


def epoch_order(shard_of_N: Sequence[int], seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of N samples: shards shuffled, then the samples of each window of shards."""
    rng = np.random.default_rng([seed, _ORDER, epoch])
    shard_N = np.asarray(shard_of_N)
    shards = rng.permutation(np.unique(shard_N))
    windows = [
        rng.permutation(np.flatnonzero(np.isin(shard_N, shards[first : first + WINDOW_SHARDS])))
        for first in range(0, len(shards), WINDOW_SHARDS)
    ]
    return np.concatenate(windows).astype(np.int64)


def common_size(decoded: Sequence[Decoded], crop_px: int | None = None) -> tuple[int, int]:
    """Height and width of a batch: the crop's, else the largest picture's."""
    if crop_px:
        return crop_px, crop_px
    shapes = [sample.label.shape for sample in decoded]
    return max(shape[0] for shape in shapes), max(shape[1] for shape in shapes)


def assemble(
    index: int,
    refs: Sequence[SampleRef],
    decoded: Sequence[Decoded],
    places: Sequence[Placement],
    size: tuple[int, int],
    specs: Mapping[str, ModalitySpec],
    join: TargetJoin | None = None,
) -> Batch:
    """Cut, pad, mirror and stack samples to a batch of one size, with their targets."""
    label = np.full((len(refs), *size), IGNORE_ID, dtype=np.int64)
    for b, (sample, place) in enumerate(zip(decoded, places, strict=True)):
        _put(label[b], sample.label, place)
    inputs = {}
    for name, spec in specs.items():
        shape = (len(refs), *size) if spec.channels == 1 else (len(refs), *size, 3)
        stored = np.zeros(shape, dtype=spec.dtype)
        for b, (sample, place) in enumerate(zip(decoded, places, strict=True)):
            if name in sample.arrays:
                _put(stored[b], sample.arrays[name], place)
        unit = torch.from_numpy(to_unit_range(stored, spec))
        inputs[name] = unit[:, None] if spec.channels == 1 else unit.permute(0, 3, 1, 2)
    return Batch(
        index=index,
        refs=tuple(refs),
        inputs=inputs,
        present=torch.tensor([ref.present for ref in refs]),
        label=torch.from_numpy(label),
        view=torch.tensor(
            [_view(ref, place, size) for ref, place in zip(refs, places, strict=True)]
        ),
        targets=join.rows(refs) if join else {},
    )


def _put(canvas: NDArray[Any], picture: NDArray[Any], place: Placement) -> None:
    """Copy the placed window of `picture` into `canvas`, then mirror the canvas."""
    window = picture[place.top :, place.left :][: canvas.shape[0], : canvas.shape[1]]
    canvas[: window.shape[0], : window.shape[1]] = window
    if place.mirrored:
        canvas[:] = canvas[:, ::-1].copy()


def _view(ref: SampleRef, place: Placement, size: tuple[int, int]) -> tuple[float, ...]:
    """The placed window in shares of the side of the picture's centred square, which the teacher
    saw."""
    side = min(ref.height, ref.width)
    top = (place.top - (ref.height - side) / 2) / side
    left = (place.left - (ref.width - side) / 2) / side
    return top, left, size[0] / side, size[1] / side, float(place.mirrored)


def loader(stream: TrainStream, workers: int) -> DataLoader[Batch]:
    """The stream's batches in order, made by `workers` processes (0: in this one)."""
    # Its own generator: a loader must not advance the one that training draws from.
    own = torch.Generator()
    return DataLoader(stream, batch_size=None, num_workers=workers, generator=own)
