"""Source samples to shard members: decoding and encoding, in order, in several processes.

Nothing is written. A sample that the adapter refuses, or whose arrays do not have the stored form,
comes back as `Refused` in its place; anything else an adapter raises is a defect and passes
through.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import numpy as np

from pipeline.codecs import encode_png
from pipeline.datasets.base import IGNORE_ID, DatasetAdapter, LoadedSample, SourceSample
from pipeline.errors import Any2SegError, SampleRefused
from pipeline.fingerprint import canonical_json
from pipeline.modalities import ModalitySpec, check_array
from pipeline.shards import LABEL_MEMBER, MAX_MEMBER_NAME, META_MEMBER, picture_member
from pipeline.statistics import measure

WINDOW_PER_WORKER = 4
"""Samples in flight for each process: bounds the memory."""
MIN_SAMPLES_PER_WORKER = 16
"""Starting a process costs about as much as encoding this many samples."""


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """A sample as it goes into a shard."""

    key: str
    members: Mapping[str, bytes]
    facts: Mapping[str, Any]
    """Manifest columns that come from the sample itself."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A sample that goes into quarantine."""

    key: str
    reason: str
    version: str
    """`SourceSample.version()` as of the attempt."""


@dataclass(frozen=True, slots=True)
class SampleEncoder:
    """Loads and encodes one sample; crosses to worker processes."""

    adapter: DatasetAdapter
    specs: Mapping[str, ModalitySpec]

    def __call__(self, sample: SourceSample) -> EncodedSample | Refused:
        """Decode, check and encode. Never raises `SampleRefused`."""
        version = sample.version()
        try:
            loaded = self.adapter.load(sample)
            self._check(sample, loaded)
        except SampleRefused as error:
            return Refused(sample.key, error.reason, version)
        return self._encode(sample, loaded)

    def _check(self, sample: SourceSample, loaded: LoadedSample) -> None:
        label = loaded.label
        if label.ndim != 2 or label.dtype != np.uint8 or 0 in label.shape:
            raise SampleRefused(
                sample.key, f"label: expected (H, W) uint8, found {label.shape} {label.dtype}"
            )
        bad = np.unique(label[(label >= len(self.adapter.classes)) & (label != IGNORE_ID)])
        if bad.size:
            raise SampleRefused(sample.key, f"label id {bad[0]} is out of range")
        if not loaded.arrays:
            raise SampleRefused(sample.key, "no modality is present")
        for name, array in loaded.arrays.items():
            problem = check_array(array, self.specs[name])
            if problem is None and array.shape[:2] != label.shape:
                problem = f"expected the label's size {label.shape}, found {array.shape[:2]}"
            if problem:
                raise SampleRefused(sample.key, f"{name}: {problem}")
            if len(f"{sample.key}.{picture_member(name)}".encode()) > MAX_MEMBER_NAME:
                raise SampleRefused(
                    sample.key, f"the key is too long: {MAX_MEMBER_NAME} bytes with .{name}.png"
                )

    def _encode(self, sample: SourceSample, loaded: LoadedSample) -> EncodedSample:
        modalities = [name for name in self.specs if name in loaded.arrays]
        counts = np.bincount(loaded.label.ravel(), minlength=IGNORE_ID + 1)
        facts = {
            "key": sample.key,
            "split": sample.split,
            "condition": sample.condition,
            "corner_case": sample.corner_case,
            "modalities": modalities,
            "height": loaded.label.shape[0],
            "width": loaded.label.shape[1],
        }
        members = {picture_member(name): encode_png(loaded.arrays[name]) for name in modalities}
        members[LABEL_MEMBER] = encode_png(loaded.label)
        members[META_MEMBER] = canonical_json(facts).encode()
        pixels = {
            "class_pixels": counts[: len(self.adapter.classes)].tolist(),
            "ignored_pixels": int(counts[IGNORE_ID]),
        }
        statistics = [measure(name, loaded.arrays[name], self.specs[name]) for name in modalities]
        return EncodedSample(sample.key, members, {**facts, **pixels, "statistics": statistics})


def encode_in_order(
    encoder: SampleEncoder, samples: list[SourceSample], workers: int
) -> Iterator[EncodedSample | Refused]:
    """Encode samples in their order; `workers` 0 means one process per available processor.

    Raises `Any2SegError` if a worker process dies.
    """
    wanted = workers or len(os.sched_getaffinity(0))
    num_workers = min(wanted, len(samples) // MIN_SAMPLES_PER_WORKER)
    if num_workers <= 1:
        yield from map(encoder, samples)
        return
    # spawn: forking a process that has threads (a flow, a progress bar) can hang.
    pool = ProcessPoolExecutor(
        num_workers, multiprocessing.get_context("spawn"), _start_worker, (encoder,)
    )
    try:
        yield from _windowed(pool, samples, num_workers * WINDOW_PER_WORKER)
    except BrokenProcessPool as error:
        raise Any2SegError(
            "a process that encodes samples died (out of memory?). Run again; it goes on where it "
            "stopped. `--set prepare.workers=1` needs the least memory."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _windowed(
    pool: ProcessPoolExecutor, samples: Iterable[SourceSample], window: int
) -> Iterator[EncodedSample | Refused]:
    futures: deque[Future[EncodedSample | Refused]] = deque()
    for sample in samples:
        futures.append(pool.submit(_work, sample))
        if len(futures) >= window:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()


_encoder: SampleEncoder | None = None
"""The encoder of this worker process, so that it crosses once and not with every sample."""


def _start_worker(encoder: SampleEncoder) -> None:
    global _encoder
    _encoder = encoder
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this, workers of a parent that was killed wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _work(sample: SourceSample) -> EncodedSample | Refused:
    assert _encoder is not None
    return _encoder(sample)
