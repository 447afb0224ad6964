"""What distillation costs a training step, from the cache and with the live teacher.

    OMP_NUM_THREADS=1 python -m benchmarks.live_teacher [--rounds N] [--device cuda]

Renders scenes to a temporary workspace, encodes them once with the packaged teacher, and then, in one
process, takes a step of each of several students in turn: plain cross-entropy, each set of terms from
the cache, all of them. A step is `Trainer.step`; the join (reading the batch's targets) is timed beside
it. The live teacher's part is one pass of the towers over as many images as a batch has: what it
encodes per step at best, if it never encodes a shard twice.

Prints medians, and the median over rounds of the ratio to the plain step of the same round. On a CPU
the time is the process's own, so that other load favours none. Some minutes on one core.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pipeline.config.config import Config
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare import prepare
from pipeline.workspace import Workspace
from student.runs.inputs import open_inputs
from student.training.trainer import Trainer
from teacher.encoding.live import LiveTeacher
from teacher.encoding.precompute import precompute

OFF = {"inter": 0.0, "intra": 0.0, "dense": 0.0}
POOLED = {"inter": 0.05, "intra": 0.1}
VARIANTS = {
    "plain cross-entropy": {},
    "inter": {"inter": 0.05},
    "intra": {"intra": 0.1},
    "inter and intra": POOLED,
    "dense": {"dense": 0.05},
    "pooled and dense": {**POOLED, "dense": 0.05},
}


def config_of(folder: Path, lscd: dict[str, float], arguments: argparse.Namespace) -> Config:
    """Rendered scenes, the packaged teacher, a student with these terms."""
    return Config.model_validate(
        {
            "name": "benchmark",
            "workspace": str(folder),
            "dataset": {
                "adapter": "synthetic",
                "num_train": arguments.batch * 4,
                "num_val": 1,
                "num_test": 1,
                "size_px": arguments.size,
            },
            "modalities": {"rgb": {}, "depth": {}, "event": {}, "lidar": {}},
            "store": {"shard_size": arguments.batch},
            "prepare": {"workers": 1},
            "teacher": {"outputs": ["embedding", "patch"], "device": arguments.device},
            "student": {"backbone": arguments.backbone, "weights": "none", "lscd": {**OFF, **lscd}},
            "train": {
                "steps": 10_000,
                "batch_size": arguments.batch,
                "flip": 0.0,
                "subset_weight": arguments.subset_weight,
                "device": arguments.device,
            },
        }
    )


def timed(function: Callable[[], object], device: str) -> float:
    """Seconds that `function` takes: of the processor, or with the device's work."""
    if device == "cpu":
        started = time.process_time()
        function()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(folder: Path, arguments: argparse.Namespace) -> None:
    """Step every student once a round; print the table."""
    trainers = {}
    for name, lscd in VARIANTS.items():
        config = config_of(folder, lscd, arguments)
        workspace = Workspace.of(config)
        trainers[name] = Trainer(open_inputs(config, workspace))
    micro_batches = next(trainers["pooled and dense"].batches(0))
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for turn in range(arguments.rounds + 2):
        for name, trainer in trainers.items():
            spent = timed(lambda one=trainer: one.step(micro_batches, 0.0), arguments.device)
            if turn >= 2:
                seconds[name].append(spent)
    plain = seconds["plain cross-entropy"]
    print(f"{'step':24} {'median ms':>10} {'ratio to plain':>15}")
    for name, values in seconds.items():
        ratio = statistics.median(v / p for v, p in zip(values, plain, strict=True))
        print(f"{name:24} {1e3 * statistics.median(values):10.1f} {ratio:15.3f}")
    join = trainers["pooled and dense"].join
    assert join is not None
    for outputs in (("embedding",), ("embedding", "patch")):
        join.outputs = outputs
        spent = [timed(lambda: join.rows(micro_batches[0].refs), "cpu") for _ in range(20)]
        ms = 1e3 * statistics.median(spent)
        print(
            f"{'join: ' + ' and '.join(outputs):24} {ms:10.2f} {ms / 1e3 / statistics.median(plain):15.3f}"
        )


def measure_live(folder: Path, arguments: argparse.Namespace) -> None:
    """The towers over one batch's images (a shard holds as many samples as a batch)."""
    config = config_of(folder, POOLED, arguments)
    workspace = Workspace.of(config)
    source = LiveTeacher.open(config, workspace)
    shard = Manifest.load(workspace.dataset(config)).shards("train")[0]
    source.targets(shard)
    spent = [timed(lambda: source.targets(shard), arguments.device) for _ in range(5)]
    print(f"{'live teacher, a batch':24} {1e3 * statistics.median(spent):10.1f}")


def main() -> None:
    """Prepare, encode, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="steps of each student")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=128, help="side of the scenes, px")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--subset-weight", type=float, default=0.0, help="1: with the second pass")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        config = config_of(Path(name), POOLED, arguments)
        prepare(config, Workspace.of(config), progress=False)
        precompute(config, Workspace.of(config), progress=False)
        print(
            f"{arguments.backbone}, {arguments.batch} samples of {arguments.size} px, 4 modalities"
        )
        measure(Path(name), arguments)
        measure_live(Path(name), arguments)


if __name__ == "__main__":
    main()
