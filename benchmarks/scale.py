"""A million samples in 4,000 shards: do `status`, `plan`, `precompute` and `prepare` stay in seconds?

    python -m benchmarks.scale [FOLDER] [--samples N]

Makes workspaces of N/16, N/4 and N samples (N: a million) in shards of 250 with four modalities, and
runs each command in a process of its own. Records, manifest, ledger and prompts are what the pipeline
would write; of tars and target objects only existence and length matter here, so they are sparse files.
The source is an adapter that lists rendered samples by number: what a real tree costs to list is
measured beside it, on empty files. Prints wall time, processor time and peak memory, and how they grow
from N/4 to N (4 is linear). Takes about ten minutes and 2 GB for a million.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.datasets import ADAPTERS, open_dataset
from pipeline.datasets.base import DatasetOptions, SourceSample
from pipeline.formats.parquet import write_tables
from pipeline.modalities import ModalitySpec
from pipeline.shards.commit import DatasetRecords
from pipeline.shards.manifest import MANIFEST_SCHEMA, Manifest, record_path, shard_path
from pipeline.shards.prepare import write_description
from pipeline.shards.statistics import STATISTICS
from pipeline.storage.publish import Published
from pipeline.workspace import Workspace

SHARD_SIZE = 250
CLASSES = tuple(f"class{n}" for n in range(19))
KINDS = {"rgb": 3, "depth": 1, "event": 3, "lidar": 1}
"""Modalities and their channels."""
BLOCK = 512
CONFIG = f"""
name = "scale"
[dataset]
adapter = "numbered"
num_train = 0
[store]
shard_size = {SHARD_SIZE}
""" + "".join(f"[modalities.{name}]\n" for name in KINDS)
COMMANDS = ("status", "status --coverage", "plan --no-probe", "precompute", "prepare")
CALLS = {
    "Manifest.digest": "manifest.digest()",
    "Manifest.all_shards": "manifest.all_shards",
    "Manifest.statistics": "manifest.statistics('train')",
    "Manifest.class_pixels": "manifest.class_pixels('train')",
    "list_samples": "list_samples(manifest, 'train', tuple(config.modalities))",
    "a new shard merged": "append(config, workspace, manifest)",
}


class NumberedOptions(DatasetOptions):
    """Rendered samples that are only listed."""

    adapter: Literal["numbered"] = "numbered"
    num_train: int

    growth_fields: ClassVar[frozenset[str]] = frozenset({"num_train"})


class NumberedAdapter:
    """Lists `num_train` samples and loads none."""

    classes = CLASSES
    palette = tuple((n, n, n) for n in range(len(CLASSES)))

    def __init__(self, options: NumberedOptions, modalities: Mapping[str, ModalitySpec]) -> None:
        del modalities
        self._num = options.num_train

    def splits(self) -> tuple[str, ...]:
        return ("train",)

    def samples(self, split: str) -> Sequence[SourceSample]:
        return [SourceSample(f"{split}_{number:09d}", split) for number in range(self._num)]

    def load(self, sample: SourceSample) -> None:
        raise AssertionError(f"{sample.key}: nothing is to be decoded here")


ADAPTERS["numbered"] = (NumberedOptions, NumberedAdapter)  # type: ignore[assignment]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, help="default: a temporary one")
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(*options.child)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        measure_all(folder, [options.samples // 16, options.samples // 4, options.samples])


def measure_all(folder: Path, sizes: Sequence[int]) -> None:
    """Make the workspaces and print a line for every command."""
    (folder / "scale.toml").write_text(CONFIG)
    for size in sizes:
        # In a process of its own: a process starts with the peak memory of the one that started it.
        wall, _, _ = measure(child(folder, size, "make"))
        print(f"{size} samples made in {wall:.0f} s", flush=True)
    heads = "".join(f"{f'{size:,}':>28}" for size in sizes)
    print(f"{'wall s, cpu s, peak MB':24}{heads}   growth of the last step (cpu, MB)")
    measure_line("python alone", [["-c", "pass"]] * len(sizes))
    for name in COMMANDS:
        measure_line(name, [child(folder, size, "command", *name.split()) for size in sizes])
    for name, code in CALLS.items():
        measure_line(name, [child(folder, size, "call", code) for size in sizes])


def child(folder: Path, size: int, *what: str) -> list[str]:
    """Arguments of a process that does one thing on one workspace."""
    return ["-m", "benchmarks.scale", "--child", str(folder), str(size), *what]


def measure_line(name: str, calls: Sequence[list[str]]) -> None:
    costs = [measure(arguments) for arguments in calls]
    cells = "".join(f"{wall:9.2f}{cpu:9.2f}{peak:10.0f}" for wall, cpu, peak in costs)
    growth = [after / before for before, after in zip(costs[-2], costs[-1], strict=True)]
    print(f"{name:24}{cells}   {growth[1]:6.1f}{growth[2]:6.1f}", flush=True)


def measure(arguments: Sequence[str]) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and peak MB of `python ARGUMENTS`."""
    started = time.perf_counter()
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, *arguments],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(arguments)}")
    wall = time.perf_counter() - started
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def run_child(folder: str, size: str, what: str, *rest: str) -> None:
    """One command or one call, in this process."""
    if what == "command":
        from flows.cli.main import app

        options = [
            f"--set=dataset.num_train={size}",
            f"--set=workspace={workspace_of(folder, size)}",
        ]
        name, *flags = rest
        with suppress(SystemExit):
            app([name, str(Path(folder) / "scale.toml"), *flags, *options], standalone_mode=True)
        return
    config = open_config(Path(folder), int(size))
    if what == "make":
        make_workspace(config)
        return
    from pipeline.shards.sample_reader import list_samples

    workspace = Workspace.of(config)
    scope = {
        "config": config,
        "workspace": workspace,
        "manifest": Manifest.load(workspace.dataset(config)),
        "list_samples": list_samples,
        "append": append,
    }
    eval(rest[0], scope)  # noqa: S307 (one of CALLS)


def workspace_of(folder: str | Path, size: object) -> str:
    return json.dumps(str(Path(folder) / f"of-{size}"))


def open_config(folder: Path, size: int) -> Config:
    where = f"workspace={workspace_of(folder, size)}"
    return load_config(folder / "scale.toml", [f"dataset.num_train={size}", where])


def make_workspace(config: Config) -> None:
    """Everything that the commands look at, as complete as after a whole pass."""
    os.fsync = lambda handle: None  # nothing here has to survive a power cut
    workspace = Workspace.of(config)
    folder = workspace.dataset(config)
    adapter = open_dataset(config.dataset, config.specs())
    write_description(config, adapter, folder)
    samples = adapter.samples("train")
    for index, start in enumerate(range(0, len(samples), SHARD_SIZE)):
        write_record(folder, index, [s.key for s in samples[start : start + SHARD_SIZE]])
    DatasetRecords(folder).merge(["train"])
    make_targets(config, workspace)


def write_record(folder: Path, index: int, keys: Sequence[str]) -> None:
    """A sparse tar and its record."""
    rows = rows_of(index, keys)
    tar = shard_path(folder, "train", index)
    tar.parent.mkdir(parents=True, exist_ok=True)
    last = rows["members"][-1].as_py()[-1]
    with tar.open("wb") as file:
        file.truncate(last["offset"] + last["num_bytes"] + 2 * BLOCK)
    write_tables(record_path(tar), [rows], MANIFEST_SCHEMA)


def rows_of(index: int, keys: Sequence[str]) -> pa.Table:
    """Manifest rows of one shard: plausible figures, seeded by its number."""
    rng = np.random.default_rng([5, index])
    num = len(keys)
    columns = {
        "key": keys,
        "split": ["train"] * num,
        "shard": [index] * num,
        "row": range(num),
        "shard_sha256": [rng.bytes(32).hex()] * num,
        "height": [1024] * num,
        "width": [2048] * num,
        "condition": rng.choice(["cloud", "fog", "night", "rain", "sun"], num),
        "corner_case": rng.choice(["", "motionblur"], num),
        "modalities": [list(KINDS)] * num,
        "class_pixels": list(rng.integers(0, 200_000, (num, len(CLASSES)))),
        "ignored_pixels": rng.integers(0, 9_000, num),
        "statistics": statistics(rng, num),
        "members": members(rng, num),
        "source_sha256": [""] * num,
    }
    arrays = [pa.array(columns[field.name], field.type) for field in MANIFEST_SCHEMA]
    return pa.Table.from_arrays(arrays, schema=MANIFEST_SCHEMA)


def statistics(rng: np.random.Generator, num: int) -> pa.Array:
    """`measure` records of every modality."""
    channels = np.tile(list(KINDS.values()), num)
    edges = pa.array(np.concatenate([[0], np.cumsum(channels)]), pa.int32())
    valid = rng.integers(1, 2**21, len(channels))
    sums = np.repeat(valid, channels) * rng.integers(1, 40_000, channels.sum())
    fields = [
        pa.array(list(KINDS) * num),
        pa.array(valid),
        pa.array(rng.integers(0, valid)),
        *(pa.array(rng.integers(low, low + 2**14, len(valid)), pa.int32()) for low in (1, 2**15)),
        pa.ListArray.from_arrays(edges, pa.array(sums)),
        pa.ListArray.from_arrays(edges, pa.array(sums * 50_000)),
    ]
    records = pa.StructArray.from_arrays(fields, fields=list(STATISTICS))
    return pa.ListArray.from_arrays(pa.array(np.arange(num + 1) * len(KINDS), pa.int32()), records)


def members(rng: np.random.Generator, num: int) -> pa.Array:
    """Names and byte ranges of the members in the tar."""
    names = sorted([*(f"{name}.npy.zst" for name in KINDS), "label.npy.zst", "meta.json"])
    sizes = rng.integers(10_000, 900_000, num * len(names))
    blocks = BLOCK * (1 + -(-sizes // BLOCK))
    offsets = np.cumsum(blocks) - blocks + BLOCK
    fields = [pa.array(names * num), pa.array(offsets), pa.array(sizes)]
    structs = pa.StructArray.from_arrays(fields, ["name", "offset", "num_bytes"])
    return pa.ListArray.from_arrays(pa.array(np.arange(num + 1) * len(names), pa.int32()), structs)


def make_targets(config: Config, workspace: Workspace) -> None:
    """Stores with a ledger record and a sparse object for every shard, and the class prompts."""
    from teacher.encoding.precompute import precompute_prompts
    from teacher.encoding.units import plan_towers

    manifest = Manifest.load(workspace.dataset(config))
    precompute_prompts(config, workspace)
    for plan in plan_towers(config, workspace):
        plan.create_stores(config, workspace)
        for store in plan.stores.values():
            for shard in manifest.all_shards:
                array = store.array(shard.split, "embedding")
                path = array.object_path(shard.index)
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    file.truncate(array.object_bytes)
                store._ledger.write(shard, {"embedding": Published(shard.sha256)})


def append(config: Config, workspace: Workspace, manifest: Manifest) -> None:
    """Commit one more shard beside the manifest and merge: what a night adds to the encoding."""
    index = len(manifest.places)
    keys = [f"train_{10**9 + n}" for n in range(SHARD_SIZE)]
    folder = workspace.dataset(config)
    write_record(folder, index, keys)
    DatasetRecords(folder).merge(["train"])


if __name__ == "__main__":
    main()
