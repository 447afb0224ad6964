"""The training stream: shuffled batches of decoded samples, joined by key with the teacher's
outputs.

The order is a pure function of (seed, position): every epoch shuffles the shards, takes them in
windows of `WINDOW_SHARDS` and shuffles the samples of a window. Step n takes the positions from n
times the batch of a step on, cut into `parts` equal batches; a training process takes its own of
them, and a loader process makes every W-th of those, whole. So the sequence of samples is the same
for any number of processes, starting at step n costs nothing, and no process starves, however few
shards there are. A process reads the targets of a window's shards once, and joins by key.
Augmentation (`student.data.augment`) moves all modalities and the label alike, seeded per position: zoom,
a square crop and a horizontal flip, or, where the teacher has stored views (`pipeline.targets.views`), one of
the sample's views, resized, with the teacher's outputs of that very view.

Legend: B samples, M modalities, C channels, H W space, K views. Writes nothing;
what can fail: `CorruptShard` (see `pipeline.shards.sample_reader`), `MissingTarget` and what the
teacher source raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from pipeline.core.random_stream import RandomStream
from pipeline.datasets.base import IGNORE_ID
from pipeline.modalities import ModalitySpec, to_unit_range
from pipeline.shards.sample_reader import Decoded, SampleReader, SampleRef, start_method
from pipeline.targets.views import ViewSettings, cut, draw_boxes
from student.data.augment import Augment, Placement, fit, recoloured, zoomed
from student.data.target_join import WINDOW_SHARDS, TargetJoin, taught

_WHOLE = (0.0, 0.0, 1.0, 1.0, 0.0)
"""A stored view, as `Batch.view` has it: all of what the teacher saw, as the teacher saw it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """B samples of one size; pictures are padded at the bottom and right with 0, labels with
    255."""

    index: int
    """Its samples have the positions from index * B on in the endless sequence."""
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
    """Teacher output to (B, M, ...) float32; 0 where there is none."""
    taught: Tensor
    """(B, M) bool: present, and with teacher outputs."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        return replace(
            self,
            inputs={name: value.to(device) for name, value in self.inputs.items()},
            present=self.present.to(device),
            label=self.label.to(device),
            view=self.view.to(device),
            targets={name: value.to(device) for name, value in self.targets.items()},
            taught=self.taught.to(device),
        )


@dataclass(eq=False)
class TrainStream(IterableDataset[Batch]):
    """The batches of steps `start` to `stop` - 1 of the endless shuffled sequence."""

    refs: Sequence[SampleRef]
    specs: Mapping[str, ModalitySpec]
    batch_size: int
    seed: int
    start: int
    stop: int
    augment: Augment = Augment()
    join: TargetJoin | None = None
    views: ViewSettings | None = None
    """Set: samples show one of their stored views; of `augment`, only crop and colours are used."""
    parts: int = 1
    """Batches that all processes together make of a step."""
    mine: Sequence[int] = (0,)
    """Which of a step's parts come from this stream."""
    _epoch: int = field(default=-1, init=False)
    _order: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64), init=False)

    def __post_init__(self) -> None:
        self._reader = SampleReader(self.specs)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        first, every = (worker.id, worker.num_workers) if worker else (0, 1)
        steps = range(self.start, self.stop)
        indices = (step * self.parts + part for step in steps for part in self.mine)
        for index in islice(indices, first, None, every):
            yield self.batch(index)

    def batch(self, index: int) -> Batch:
        """Batch `index` of the sequence, whoever asks and whatever came before."""
        positions = range(index * self.batch_size, (index + 1) * self.batch_size)
        refs = [self._ref(position) for position in positions]
        decoded = [
            recoloured(self._reader.read(ref), self.augment, self.specs, self.seed, position)
            for position, ref in zip(positions, refs, strict=True)
        ]
        if self.views is not None:
            return self._view_batch(index, refs, decoded, self.views)
        size = common_size(decoded, self.augment.crop_px)
        shown = [
            zoomed(sample, self.augment, self.specs, self.seed, position)
            for position, sample in zip(positions, decoded, strict=True)
        ]
        places = [
            self._place(position, ref, sample, size)
            for position, ref, sample in zip(positions, refs, shown, strict=True)
        ]
        targets = self.join.rows(refs) if self.join else {}
        return assemble(index, refs, shown, places, size, self.specs, targets)

    def _view_batch(
        self, index: int, refs: list[SampleRef], decoded: list[Decoded], views: ViewSettings
    ) -> Batch:
        """The batch with every sample cut to the view that is drawn for its position."""
        first = index * self.batch_size
        drawn = [drawn_view(self.seed, first + b, views) for b in range(len(refs))]
        boxes = [self._boxes(ref, views)[view] for ref, view in zip(refs, drawn, strict=True)]
        shown = [cut_sample(sample, box) for sample, box in zip(decoded, boxes, strict=True)]
        size = common_size(shown, self.augment.crop_px)
        fitted = [fit(sample, size, self.specs) for sample in shown]
        targets = self.join.rows(refs, drawn) if self.join else {}
        places = [Placement()] * len(refs)
        batch = assemble(index, refs, fitted, places, size, self.specs, targets)
        return replace(batch, view=torch.tensor([_WHOLE] * len(refs)))

    def _boxes(self, ref: SampleRef, views: ViewSettings) -> NDArray[np.float32]:
        """The sample's boxes: those that its teacher was shown, else drawn here."""
        stored = self.join.boxes(ref) if self.join else None
        return draw_boxes(ref.key, ref.height, ref.width, views) if stored is None else stored

    def _ref(self, position: int) -> SampleRef:
        """The sample at a position of the endless sequence."""
        epoch, place = divmod(position, len(self.refs))
        if epoch != self._epoch:
            self._order = epoch_order([ref.shard.index for ref in self.refs], self.seed, epoch)
            self._epoch = epoch
        return self.refs[int(self._order[place])]

    def _place(
        self, position: int, ref: SampleRef, sample: Decoded, size: tuple[int, int]
    ) -> Placement:
        rng = np.random.default_rng([self.seed, RandomStream.CROPS, position])
        mirrored = bool(rng.random() < self.augment.flip)
        spare_y, spare_x = (
            max(0, have - want) for have, want in zip(sample.label.shape, size, strict=True)
        )
        zoom = sample.label.shape[0] / ref.height, sample.label.shape[1] / ref.width
        top, left = int(rng.integers(spare_y + 1)), int(rng.integers(spare_x + 1))
        return Placement(top, left, mirrored, zoom)


def epoch_order(shard_of_N: Sequence[int], seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of N samples: shards shuffled, then the samples of each window of shards."""
    rng = np.random.default_rng([seed, RandomStream.SAMPLE_ORDER, epoch])
    shard_N = np.asarray(shard_of_N)
    shards = rng.permutation(np.unique(shard_N))
    windows = [
        rng.permutation(np.flatnonzero(np.isin(shard_N, shards[first : first + WINDOW_SHARDS])))
        for first in range(0, len(shards), WINDOW_SHARDS)
    ]
    return np.concatenate(windows).astype(np.int64)


def drawn_view(seed: int, position: int, views: ViewSettings) -> int:
    """Which of its views the sample at a position of the sequence shows."""
    return int(np.random.default_rng([seed, RandomStream.CROPS, position]).integers(views.number))


def cut_sample(sample: Decoded, box: NDArray[np.float32]) -> Decoded:
    """The sample's stored pixels within a view: what its teacher was shown."""
    arrays = {name: cut(array, box) for name, array in sample.arrays.items()}
    return Decoded(arrays, cut(sample.label, box))


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
    targets: Mapping[str, Tensor] | None = None,
) -> Batch:
    """Cut, pad, mirror and stack samples to a batch of one size, with their joined targets."""
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
        targets=targets or {},
        taught=taught(refs),
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
    down, across = place.zoom
    top = (place.top / down - (ref.height - side) / 2) / side
    left = (place.left / across - (ref.width - side) / 2) / side
    height, width = size[0] / down / side, size[1] / across / side
    return top, left, height, width, float(place.mirrored)


def loader(stream: TrainStream, workers: int) -> DataLoader[Batch]:
    """The stream's batches in order, made by `workers` processes (0: in this one)."""
    # Its own generator: a loader must not advance the one that training draws from.
    own = torch.Generator()
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        generator=own,
        multiprocessing_context=start_method(workers),
    )
