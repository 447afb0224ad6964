"""How far the teacher pass is compute-bound, and how accurate its plan is.

    OMP_NUM_THREADS=1 python -m benchmarks.teacher_pass [--samples 96] [--repeats 5] [--device cpu]

Renders scenes into a temporary workspace and runs, alternating in one process: the pass; its parts
one after the other (reading, decoding, compute, committing) as a pass without overlap would; and
`any2seg plan`'s probe. Prints the medians of the ratios. Then encodes the same images in batches
of other sizes and counts the stored numbers that differ. One thread for the tower leaves a second
core for the rest, as an accelerator does; where no core is free, `--elsewhere-ms 5` simulates an
accelerator: it waits that long for every image and computes nothing. A few minutes on two cores.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flows.planning.estimate import estimate_time
from flows.planning.probe import ProbeSource, commit_seconds, measure
from pipeline.config.config import Config
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.shards.prepare_plan import measured_bytes
from pipeline.workspace import Workspace
from teacher.encoding.batches import decoded_batches, read_image_bytes
from teacher.encoding.encoder import Encoder, Rows
from teacher.encoding.precompute import precompute
from teacher.encoding.units import bytes_to_write, plan_towers, plan_units
from teacher.preprocessing.config import Sample
from teacher.towers.vision_tower import Tower

SEED = 5


@dataclass
class Times:
    """Seconds of every repetition."""

    passed: list[float] = field(default_factory=list)
    predicted: list[float] = field(default_factory=list)
    arithmetic: list[float] = field(default_factory=list)
    one_by_one: list[float] = field(default_factory=list)


class Elsewhere(Encoder):
    """Simulates an accelerator: waits, keeps no core busy, returns the same rows each time."""

    def __init__(self, image_s: float, num_patches: int, dim: int) -> None:
        super().__init__("cpu")
        self._image_s, self._shapes = (
            image_s,
            {"embedding": (dim,), "patch": (num_patches, dim)},
        )

    def encode(self, tower: Tower, images: Sequence[Sample], outputs: Sequence[str]) -> Rows:
        """Ones, after the time that the images take."""
        time.sleep(self._image_s * len(images))
        return {name: np.ones((len(images), *self._shapes[name]), np.float32) for name in outputs}


def make_config(folder: Path, arguments: argparse.Namespace) -> Config:
    """Four modalities, two towers, pooled and dense outputs."""
    return Config.model_validate(
        {
            "name": "bench",
            "workspace": str(folder / "workspace"),
            "seed": SEED,
            "dataset": {
                "adapter": "synthetic",
                "num_train": arguments.samples,
                "num_val": 1,
                "num_test": 1,
                "size_px": arguments.size,
            },
            "modalities": {"rgb": {}, "depth": {}, "event": {}, "lidar": {}},
            "store": {"shard_size": 32},
            "teacher": {
                "name": arguments.teacher,
                "dtype": arguments.dtype,
                "device": arguments.device,
                "batch_size": arguments.batch_size,
                "outputs": ["embedding", "patch"],
            },
        }
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--size", type=int, default=192, help="side of a scene in pixels")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--teacher", default="languagebind-tiny")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--elsewhere-ms", type=float, help="wait this long per image instead")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        config = make_config(Path(name), arguments)
        prepare(config, Workspace.of(config))
        plans = plan_towers(config, Workspace.of(config))
        (num_patches, dim) = next(iter(plans[0].stores.values())).provenance.outputs["patch"]
        encoder = Encoder(arguments.device)
        if arguments.elsewhere_ms is not None:
            encoder = Elsewhere(arguments.elsewhere_ms / 1e3, num_patches, dim)
        times = Times()
        for _ in range(arguments.repeats):
            repeat(config, encoder, times)
        show(times)
        if arguments.elsewhere_ms is None:
            compare_batch_sizes(config, encoder)


def repeat(config: Config, encoder: Encoder, times: Times) -> None:
    """One prediction, one pass, its parts one by one."""
    workspace = Workspace.of(config)
    shards = Manifest.load(workspace.dataset(config)).all_shards
    plans = plan_towers(config, workspace)
    units = plan_units(plans, shards)
    source = ProbeSource.of_shard(shards[0], tuple(config.modalities))
    probe = measure(config, workspace, plans, source, encoder)
    size = measured_bytes(shards) * config.store.shard_size
    prediction = estimate_time(units, probe, size)
    times.predicted.append(prediction.seconds - prediction.load_s)
    expected = bytes_to_write(plans, units)

    started = time.perf_counter()
    report = precompute(config, workspace, units=units, encoder=encoder, progress=False)
    times.passed.append(time.perf_counter() - started)
    root = workspace.targets(config)
    written = sum(p.stat().st_size for p in root.rglob("c/**/0") if p.is_file())
    print(f"  {report}; bytes planned {expected}, written {written}; {prediction.bottleneck}-bound")

    started = time.perf_counter()
    for shard in shards:
        read_image_bytes(shard, config.modalities)
    read_s = time.perf_counter() - started
    decode_s = arithmetic_s = 0.0
    for batch in decoded_batches(plans, shards, units, config.teacher.batch_size):
        started = time.perf_counter()
        arrays = list(batch.arrays)
        decode_s += time.perf_counter() - started
        if not arrays:
            continue
        tower = encoder.tower(batch.plan, config.teacher.dtype)
        started = time.perf_counter()
        encoder.encode(tower, arrays, config.teacher.outputs)
        arithmetic_s += time.perf_counter() - started
    provenance = next(iter(plans[0].stores.values())).provenance
    write_s = commit_seconds(workspace, provenance) * sum(len(u.modalities) for u in units)
    times.arithmetic.append(arithmetic_s)
    times.one_by_one.append(read_s + decode_s + arithmetic_s + write_s)
    shutil.rmtree(root)


def show(times: Times) -> None:
    """Medians of the ratios within a repetition."""

    def median(above: list[float], below: list[float]) -> str:
        ratios = [a / b for a, b in zip(above, below, strict=True)]
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"

    print(f"pass {statistics.median(times.passed):.2f} s")
    print(f"pass / arithmetic alone:          {median(times.passed, times.arithmetic)}")
    print(f"parts one by one / arithmetic:    {median(times.one_by_one, times.arithmetic)}")
    print(f"predicted / pass:                 {median(times.predicted, times.passed)}")


def compare_batch_sizes(config: Config, encoder: Encoder) -> None:
    """Stored numbers that change with the batch size."""
    workspace = Workspace.of(config)
    shard = Manifest.load(workspace.dataset(config)).all_shards[0]
    plans = plan_towers(config, workspace)
    batch = next(iter(decoded_batches(plans, [shard], plan_units(plans, [shard]), 32)))
    images, tower = list(batch.arrays), encoder.tower(batch.plan, config.teacher.dtype)
    whole = encoder.encode(tower, images, ("embedding", "patch"))
    for size in (16, 8, 4, 2, 1):
        parts = [
            encoder.encode(tower, images[start : start + size], ("embedding", "patch"))
            for start in range(0, len(images), size)
        ]
        for name, rows in whole.items():
            joined = np.concatenate([part[name] for part in parts])
            wide = int((joined != rows).sum())
            narrow = int((joined.astype(np.float16) != rows.astype(np.float16)).sum())
            print(
                f"batches of {size:2}: {name:9} differs in {wide} of {rows.size} float32, {narrow} "
                f"float16; largest {np.abs(joined - rows).max():.1e}"
            )


if __name__ == "__main__":
    main()
