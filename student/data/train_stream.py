"""The training stream: shuffled batches of decoded samples, joined by key with the teacher's
targets.

The order is a pure function of (seed, position): every epoch shuffles the shards, takes them in
windows of `WINDOW_SHARDS` and shuffles the samples of a window. Step n takes the positions from n
times the step's batch size on, cut into `parts` equal micro-batches; a training process takes its
own of them, and each of its W loader processes makes every W-th of those, whole. So the sequence of
samples is the same for any number of processes, starting at step n costs nothing, and no process
starves, however few shards there are. A process reads the targets of a window's shards once, and
joins by key. Augmentation (`student.data.augment`) moves all modalities and the label alike, seeded
per position: zoom, a square crop and a horizontal flip, or, where the teacher has stored views
(`pipeline.targets.views`), one of the sample's views, resized, with the teacher's targets of exactly
that view.

Legend: B samples, M modalities, C channels, H W space, K views. Raises `CorruptShard` (see
`pipeline.shards.sample_reader`), `MissingTarget` and what the teacher source raises.
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
from pipeline.shards.sample_reader import Decoded, SampleReader, SampleRef
from pipeline.targets.views import ViewConfig, cut, draw_boxes
from student.data.augment import Augment, Crop, fit, recoloured, zoomed
from student.data.target_join import WINDOW_SHARDS, TargetJoin, has_target

_WHOLE = (0.0, 0.0, 1.0, 1.0, 0.0)
"""`Batch.view` of a stored view: exactly what the teacher saw."""


@dataclass(frozen=True, slots=True)
class Batch:
    """B samples of one size; images are padded at the bottom and right with 0, labels with 255."""

    index: int
    """Its samples are at positions index * B onwards of the endless sequence."""
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
    has_target: Tensor
    """(B, M) bool: present, and with teacher targets."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        return replace(
            self,
            inputs={name: value.to(device) for name, value in self.inputs.items()},
            present=self.present.to(device),
            label=self.label.to(device),
            view=self.view.to(device),
            targets={name: value.to(device) for name, value in self.targets.items()},
            has_target=self.has_target.to(device),
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
    views: ViewConfig | None = None
    """Set: samples show one of their stored views; of `augment`, only crop and colours are used."""
    parts: int = 1
    """Micro-batches that all processes together make of a step."""
    mine: Sequence[int] = (0,)
    """Which of a step's micro-batches come from this stream."""
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
        """Batch `index` of the sequence, in any process and whatever came before."""
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
        crops = [
            self._crop(position, ref, sample, size)
            for position, ref, sample in zip(positions, refs, shown, strict=True)
        ]
        targets = self.join.rows(refs) if self.join else {}
        return assemble(index, refs, shown, crops, size, self.specs, targets)

    def _view_batch(
        self, index: int, refs: list[SampleRef], decoded: list[Decoded], views: ViewConfig
    ) -> Batch:
        """The batch with every sample cropped to the view that is drawn for its position."""
        first = index * self.batch_size
        drawn = [drawn_view(self.seed, first + b, views) for b in range(len(refs))]
        boxes = [self._boxes(ref, views)[view] for ref, view in zip(refs, drawn, strict=True)]
        shown = [cut_sample(sample, box) for sample, box in zip(decoded, boxes, strict=True)]
        size = common_size(shown, self.augment.crop_px)
        fitted = [fit(sample, size, self.specs) for sample in shown]
        targets = self.join.rows(refs, drawn) if self.join else {}
        crops = [Crop()] * len(refs)
        batch = assemble(index, refs, fitted, crops, size, self.specs, targets)
        return replace(batch, view=torch.tensor([_WHOLE] * len(refs)))

    def _boxes(self, ref: SampleRef, views: ViewConfig) -> NDArray[np.float32]:
        """The boxes of the sample's views: as stored with its targets, else drawn here."""
        stored = self.join.boxes(ref) if self.join else None
        return draw_boxes(ref.key, ref.height, ref.width, views) if stored is None else stored

    def _ref(self, position: int) -> SampleRef:
        """The sample at a position of the endless sequence."""
        epoch, rank = divmod(position, len(self.refs))
        if epoch != self._epoch:
            self._order = epoch_order([ref.shard.index for ref in self.refs], self.seed, epoch)
            self._epoch = epoch
        return self.refs[int(self._order[rank])]

    def _crop(self, position: int, ref: SampleRef, sample: Decoded, size: tuple[int, int]) -> Crop:
        rng = np.random.default_rng([self.seed, RandomStream.CROPS, position])
        mirrored = bool(rng.random() < self.augment.flip)
        spare_y, spare_x = (
            max(0, have - want) for have, want in zip(sample.label.shape, size, strict=True)
        )
        zoom = sample.label.shape[0] / ref.height, sample.label.shape[1] / ref.width
        top, left = int(rng.integers(spare_y + 1)), int(rng.integers(spare_x + 1))
        return Crop(top, left, mirrored, zoom)


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


def drawn_view(seed: int, position: int, views: ViewConfig) -> int:
    """Which of its views the sample at a position of the sequence shows."""
    return int(np.random.default_rng([seed, RandomStream.CROPS, position]).integers(views.number))


def cut_sample(sample: Decoded, box: NDArray[np.float32]) -> Decoded:
    """The sample's stored pixels within a view: what its teacher saw."""
    arrays = {name: cut(array, box) for name, array in sample.arrays.items()}
    return Decoded(arrays, cut(sample.label, box))


def common_size(decoded: Sequence[Decoded], crop_px: int | None = None) -> tuple[int, int]:
    """Height and width of a batch: the crop's, else the largest image's."""
    if crop_px:
        return crop_px, crop_px
    shapes = [sample.label.shape for sample in decoded]
    return max(shape[0] for shape in shapes), max(shape[1] for shape in shapes)


def assemble(
    index: int,
    refs: Sequence[SampleRef],
    decoded: Sequence[Decoded],
    crops: Sequence[Crop],
    size: tuple[int, int],
    specs: Mapping[str, ModalitySpec],
    targets: Mapping[str, Tensor] | None = None,
) -> Batch:
    """Crop, pad, mirror and stack samples to a batch of one size, with their joined targets."""
    label = np.full((len(refs), *size), IGNORE_ID, dtype=np.int64)
    for b, (sample, crop) in enumerate(zip(decoded, crops, strict=True)):
        _put(label[b], sample.label, crop)
    inputs = {}
    for name, spec in specs.items():
        shape = (len(refs), *size) if spec.channels == 1 else (len(refs), *size, 3)
        stored = np.zeros(shape, dtype=spec.dtype)
        for b, (sample, crop) in enumerate(zip(decoded, crops, strict=True)):
            if name in sample.arrays:
                _put(stored[b], sample.arrays[name], crop)
        unit = torch.from_numpy(to_unit_range(stored, spec))
        inputs[name] = unit[:, None] if spec.channels == 1 else unit.permute(0, 3, 1, 2)
    return Batch(
        index=index,
        refs=tuple(refs),
        inputs=inputs,
        present=torch.tensor([ref.present for ref in refs]),
        label=torch.from_numpy(label),
        view=torch.tensor([_view(ref, crop, size) for ref, crop in zip(refs, crops, strict=True)]),
        targets=targets or {},
        has_target=has_target(refs),
    )


def _put(canvas: NDArray[Any], image: NDArray[Any], crop: Crop) -> None:
    """Copy the cropped part of `image` into `canvas`, then mirror the canvas."""
    part = image[crop.top :, crop.left :][: canvas.shape[0], : canvas.shape[1]]
    canvas[: part.shape[0], : part.shape[1]] = part
    if crop.mirrored:
        canvas[:] = canvas[:, ::-1].copy()


def _view(ref: SampleRef, crop: Crop, size: tuple[int, int]) -> tuple[float, ...]:
    """The crop in units of the side of the image's centred square, which is what the teacher
    saw."""
    side = min(ref.height, ref.width)
    zoom_y, zoom_x = crop.zoom
    top = (crop.top / zoom_y - (ref.height - side) / 2) / side
    left = (crop.left / zoom_x - (ref.width - side) / 2) / side
    height, width = size[0] / zoom_y / side, size[1] / zoom_x / side
    return top, left, height, width, float(crop.mirrored)


def start_method(workers: int) -> str | None:
    """How loader processes start; None: there are none.

    Not by a fork: neither connections to an object store nor the threads of a flow or a progress bar
    survive one (a forked child of a process that ran a flow dies in the exit hooks that it inherits).
    """
    return "spawn" if workers else None


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
