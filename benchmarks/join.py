"""What joining cached targets costs a training step.

    python -m benchmarks.join [steps]

First table, one modality, shards of 256 rows (dense: of 64), the same numbers stored in four ways:

- store: ours. Opened by shard: record read, sha256 of the object compared, pooled rows decoded; then
  joined by key in a shuffled order (`student.data.target_join`), dense rows read and checked one by one;
- store, known: the same if the process has compared the dense object's sha256 before;
- memmap: one `.npy` of all rows, memory-mapped; the caller knows every row number;
- npy in tar: one `.npy` per sample in a tar per shard, read in the tar's order.

Only the first two find a row by its key and detect a corrupted or foreign one. Second table: the join of
a training batch of four modalities beside a training step that uses it (rendered scenes, random
targets, a small backbone with random weights). Processor time, medians; wall time for the step. Two
minutes, 0.4 GB of temporary disk.
"""

from __future__ import annotations

import argparse
import io
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow.parquet as pq
import torch

from pipeline.config.config import Config
from pipeline.shards.manifest import Manifest, ShardInfo
from pipeline.shards.prepare import prepare
from pipeline.shards.sample_reader import SampleRef, list_samples
from pipeline.targets.lookup import point_to_store
from pipeline.targets.prompts import PromptStore, point_to_prompts
from pipeline.targets.provenance import TargetProvenance
from pipeline.targets.reader import CachedTeacher
from pipeline.targets.store import TargetStore
from pipeline.workspace import Workspace
from student.data.target_join import TargetJoin, open_join
from student.runs.inputs import open_inputs
from student.training.train import train

DIM, PATCHES, BATCH = 768, 256, 8
REPEATS = 5
SHAPES = {"embedding": (DIM,), "patch": (PATCHES, DIM)}
Rows = np.ndarray


def processor_ms(action: Callable[[], object]) -> float:
    """Median processor time of one call."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        action()
        times.append(1000 * (time.process_time() - start))
    return median(times)


def made_up_shards(num_shards: int, num_rows: int) -> list[ShardInfo]:
    """Shards that exist by name only: targets need no more."""
    blank = ("",) * num_rows
    return [
        ShardInfo(
            split="train",
            index=index,
            path=Path("none.tar"),
            sha256=f"{index:064d}",
            keys=tuple(f"scene_{index:03d}_{row:03d}" for row in range(num_rows)),
            present={"rgb": (True,) * num_rows},
            conditions=blank,
            corner_cases=blank,
        )
        for index in range(num_shards)
    ]


def refs_of(shards: list[ShardInfo]) -> list[SampleRef]:
    """The samples of the shards in a shuffled order."""
    refs = [
        SampleRef(key, shard, 1, 1, "", "", (True,), {}) for shard in shards for key in shard.keys
    ]
    order = np.random.default_rng(0).permutation(len(refs))
    return [refs[index] for index in order]


def batches(refs: list[SampleRef]) -> Iterator[list[SampleRef]]:
    """The samples in batches."""
    return (refs[first : first + BATCH] for first in range(0, len(refs), BATCH))


def unit_rows(*shape: int) -> Rows:
    """Random float16 vectors of length 1."""
    rows = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float16)


def measure_layouts(folder: Path, output: str, num_shards: int, num_rows: int) -> None:
    """Print the rows of the first table for one output."""
    shards = made_up_shards(num_shards, num_rows)
    rows = unit_rows(num_shards * num_rows, *SHAPES[output])
    source = write_store(folder, shards, rows, output)
    refs = refs_of(shards)
    known: dict = {}

    def opened(fresh: bool) -> float:
        def open_all() -> None:
            teacher = CachedTeacher(source.stores, (output,), {} if fresh else known)
            for shard in shards:
                teacher.targets(shard)

        open_all()
        return processor_ms(open_all) / num_shards

    def joined() -> float:
        join = TargetJoin(source, ("rgb",), (output,))
        join.rows(refs[:1] + refs)
        return processor_ms(lambda: [join.rows(batch) for batch in batches(refs)]) / len(refs)

    per_sample = joined()
    show(output, "store", opened(fresh=True), per_sample, num_rows)
    if output == "patch":
        show(output, "store, known", opened(fresh=False), per_sample, num_rows)
    show(output, "memmap", *measure_memmap(folder, rows, refs, shards), num_rows)
    show(output, "npy in tar", *measure_tar(folder, rows, num_shards, num_rows), num_rows)


def show(output: str, layout: str, opening: float, per_sample: float, num_rows: int) -> None:
    """One line of the first table."""
    total = per_sample + opening / num_rows
    print(
        f"{output:10s} {layout:13s} {opening:10.2f} {1000 * per_sample:10.1f} {1000 * total:10.1f}"
    )


def write_store(folder: Path, shards: list[ShardInfo], rows: Rows, output: str) -> CachedTeacher:
    """A target store of the rows."""
    outputs = {"embedding": (DIM,)} | {output: SHAPES[output]}
    size = shards[0].num_rows
    provenance = TargetProvenance(
        modality="rgb", teacher="random", spec={}, tower={}, outputs=outputs, shard_size=size
    )
    store = TargetStore.create(folder / f"store-{output}", provenance)
    for shard in shards:
        block = rows[shard.index * size : (shard.index + 1) * size]
        pooled = block if output == "embedding" else block[:, 0]
        store.commit(shard, {"embedding": pooled, output: block}, {})
    return CachedTeacher({"rgb": store}, (output,))


def measure_memmap(
    folder: Path, rows: Rows, refs: list[SampleRef], shards: list[ShardInfo]
) -> tuple[float, float]:
    """ms to open, ms a sample in the shuffled order."""
    np.save(folder / "all.npy", rows)
    opening = processor_ms(lambda: np.load(folder / "all.npy", mmap_mode="r")) / len(shards)
    mapped = np.load(folder / "all.npy", mmap_mode="r")
    size = shards[0].num_rows
    row_numbers = [ref.shard.index * size + ref.shard.keys.index(ref.key) for ref in refs]

    def read() -> None:
        for first in range(0, len(row_numbers), BATCH):
            part = np.stack([mapped[row] for row in row_numbers[first : first + BATCH]])
            torch.from_numpy(part.astype(np.float32))

    return opening, processor_ms(read) / len(refs)


def measure_tar(folder: Path, rows: Rows, num_shards: int, num_rows: int) -> tuple[float, float]:
    """ms to open a shard (nothing is read), ms a sample in the tar's order."""
    for shard in range(num_shards):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for row in range(num_rows):
                file = io.BytesIO()
                np.save(file, rows[shard * num_rows + row])
                info = tarfile.TarInfo(f"{row}.npy")
                info.size = file.tell()
                file.seek(0)
                tar.addfile(info, file)

    def read() -> None:
        for shard in range(num_shards):
            with tarfile.open(folder / f"{shard}.tar") as tar:
                arrays = [np.load(io.BytesIO(tar.extractfile(m).read())) for m in tar]
            for first in range(0, num_rows, BATCH):
                torch.from_numpy(np.stack(arrays[first : first + BATCH]).astype(np.float32))

    return 0.0, processor_ms(read) / (num_shards * num_rows)


def step_config(folder: Path, steps: int) -> Config:
    """A student on 64 rendered scenes of 128 px with every term on."""
    return Config.model_validate(
        {
            "name": "join",
            "workspace": str(folder / "workspace"),
            "dataset": {
                "adapter": "synthetic",
                "num_train": 64,
                "num_val": 1,
                "num_test": 1,
                "size_px": 128,
            },
            "modalities": {"rgb": {}, "depth": {}, "event": {}, "lidar": {}},
            "store": {"shard_size": 32},
            "teacher": {"outputs": ["embedding", "patch"]},
            "student": {
                "weights": "none",
                "lscd": {"inter": 0.05, "intra": 0.1, "dense": 0.1},
            },
            "train": {"steps": steps, "batch_size": BATCH, "threads": 1, "device": "cpu"},
        }
    )


def fill(config: Config, workspace: Workspace) -> Manifest:
    """Prepare the scenes and give them random targets."""
    prepare(config, workspace)
    manifest = Manifest.load(workspace.dataset(config))
    for name, spec in config.specs().items():
        provenance = TargetProvenance(
            modality=name,
            teacher="random",
            spec=spec.identity(),
            tower={},
            outputs=SHAPES,
            shard_size=config.store.shard_size,
        )
        store = TargetStore.create(workspace.targets(config), provenance)
        for shard in manifest.all_shards:
            arrays = {output: unit_rows(shard.num_rows, *SHAPES[output]) for output in SHAPES}
            store.commit(shard, arrays, {})
        point_to_store(config, workspace, store)
    prompts = unit_rows(len(manifest.classes), 1, DIM).astype(np.float32)
    made = PromptStore.create(workspace.prompts, "random", {}, prompts[:, 0], prompts)
    point_to_prompts(config, workspace, made)
    return manifest


def measure_step(folder: Path, steps: int) -> None:
    """Print the second table."""
    config = step_config(folder, steps)
    workspace = Workspace.of(config)
    manifest = fill(config, workspace)
    train(config, workspace)
    inputs = open_inputs(config, workspace, manifest)
    metrics = pq.read_table(inputs.run.metrics).to_pydict()
    step_ms = 1000 * median(metrics["step_s"][1:])
    data_ms = 1000 * median(metrics["data_s"][1:])
    refs = list_samples(manifest, "train", tuple(config.modalities))
    join, *_ = open_join(inputs, refs)
    assert join is not None
    print(f"step {step_ms:.0f} ms, and {data_ms:.0f} ms to read, decode and join its batch (wall)")
    for outputs in (("embedding",), ("embedding", "patch")):
        part = TargetJoin(join.source, join.modalities, outputs)
        part.rows(refs)
        joining = processor_ms(lambda part=part: [part.rows(batch) for batch in batches(refs)])
        batch_ms = joining / (len(refs) / BATCH)
        print(
            f"join of {' and '.join(outputs)}: {batch_ms:.1f} ms, {batch_ms / step_ms:.1%} of a step"
        )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="?", type=int, default=12, help="default: 12")
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    print("output     layout        open, ms   us/sample   us/sample")
    print("                          a shard     to join      in all")
    with tempfile.TemporaryDirectory() as folder:
        for output, num_shards, num_rows in (("embedding", 8, 256), ("patch", 2, 64)):
            measure_layouts(Path(folder), output, num_shards, num_rows)
    with tempfile.TemporaryDirectory() as folder:
        measure_step(Path(folder), steps)


if __name__ == "__main__":
    main()
