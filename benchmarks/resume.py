"""Training killed at random steps, against uninterrupted training.

    python -m benchmarks.resume [kills] [steps] [seed]        default: 5 60 0

One student is trained with everything that a checkpoint must carry: averaged weights, micro-batches, clipped
gradients, subsets drawn weak first, consistency to the averaged student, augmentation, validation. The same
training, in a process of its own, is then killed (`SIGKILL`) at random steps and started again each time.
Printed: the step of each kill and the step that training resumed from; the tensors and the metrics that
differ at the end (none may); then what averaging, micro-batches and clipping cost a step, medians of
interleaved steps in this process.

Float32 on a CPU, one training process, one thread. Needs the repository's `tests` (for random targets). Exit
code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config.config import Config
from pipeline.config.load import dump_config
from pipeline.workspace import Workspace
from student.runs.checkpoint import load_checkpoint
from student.runs.inputs import identify, open_inputs
from student.runs.layout import BEST
from student.runs.run import Run, is_finished, steps_done
from student.training.metrics_log import Row, read_rows
from student.training.train import train
from student.training.trainer import Trainer
from tests.student.conftest import build_config, fill_workspace

DEFAULTS = (5, 60, 0)
TRAIN: dict[str, Any] = {
    "batch_size": 4,
    "accumulate": 2,
    "decay": "cosine",
    "clip_norm": 1.0,
    "ema": 0.95,
    "subset_draw": "weak_first",
    "consistency_weight": 0.5,
    "ohem_threshold": 0.7,
    "scale": [0.75, 1.5],
    "jitter": 0.3,
    "blur": 0.2,
    "crop_px": 48,
    "checkpoint_every": 4,
    "validate_every": 10,
    "tracker": "none",
    "threads": 1,
    "device": "cpu",
}
STUDENT = {
    "backbone": "test_efficientnet",
    "weights": "none",
    "head_channels": 8,
    "lscd": {"inter": 0.0, "intra": 0.1, "weak_power": 1.0},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ema": {"ema": 0.99},
    "ema and consistency": {"ema": 0.99, "consistency_weight": 0.5},
    "accumulate = 2": {"accumulate": 2},
    "clip_norm": {"clip_norm": 1.0},
}
ROUNDS = 15


def main(kills: int, steps: int, seed: int) -> int:
    """Print the results; 1 if anything differs."""
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / part for part in ("alone", "killed")]
        configs = [config_of(folder, {**TRAIN, "steps": steps}) for folder in folders]
        for config in configs:
            fill_workspace(config)
        runs = [identify(config, Workspace.of(config)) for config in configs]
        started = time.perf_counter()
        finish(configs[0], folders[0])
        seconds = time.perf_counter() - started
        print(f"uninterrupted: {steps} steps, {seconds:.1f} s with its start", flush=True)
        killed_training(configs[1], folders[1], runs[1], kills, seconds, seed)
        different = compare(*runs)
        costs(folders[0])
    return 1 if different else 0


def config_of(folder: Path, train_fields: dict[str, Any]) -> Config:
    """Rendered scenes of 64 px with random targets."""
    return build_config(folder, train=train_fields, student=STUDENT)


def start(config: Config, folder: Path) -> subprocess.Popen[bytes]:
    """Train in a process of its own."""
    path = folder / "config.toml"
    path.write_text(dump_config(config))
    return subprocess.Popen([sys.executable, "-m", "benchmarks.resume", "--train", str(path)])


def finish(config: Config, folder: Path) -> None:
    """Train to the end."""
    if start(config, folder).wait():
        raise SystemExit("the training failed; see above")


def killed_training(
    config: Config, folder: Path, run: Run, kills: int, seconds: float, seed: int
) -> None:
    """Kill `kills` times, each time some steps later, then let it finish."""
    rng = np.random.default_rng(seed)
    steps = config.train.steps
    targets = np.sort(rng.choice(np.arange(1, steps - 4), kills, replace=False))
    for target in targets:
        begun = steps_done(run)
        child = start(config, folder)
        wait_for(child, run, int(target), 60 * seconds)
        # Somewhere between two checkpoints, or inside the writing of one.
        time.sleep(float(rng.uniform(0, 0.3)))
        if child.poll() is not None:
            raise SystemExit("the training ended before it could be killed; take more steps")
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        print(f"  killed: began at step {begun}, left a checkpoint of step {steps_done(run)}")
    finish(config, folder)
    assert is_finished(run)


def wait_for(child: subprocess.Popen[bytes], run: Run, step: int, patience_s: float) -> None:
    """Until the checkpoint before `step` exists."""
    until = time.monotonic() + patience_s
    every = TRAIN["checkpoint_every"]
    while steps_done(run) < step // every * every and child.poll() is None:
        if time.monotonic() > until:
            raise SystemExit(f"no step {step} after {patience_s:.0f} s")
        time.sleep(0.01)


def compare(alone: Run, killed: Run) -> int:
    """Count tensors of `last` and `best`, and steps whose metrics differ, in any bit."""
    different = 0
    for name in ("last", BEST):
        one, other = (load_checkpoint(run, name) for run in (alone, killed))
        assert one is not None
        assert other is not None
        wrong = [k for k, v in one.tensors.items() if not torch.equal(v, other.tensors[k])]
        same_steps = one.step == other.step and one.tensors.keys() == other.tensors.keys()
        print(
            f"{name}: step {one.step}, {len(one.tensors)} tensors, {len(wrong)} differ: {wrong[:3]}"
        )
        different += len(wrong) + (not same_steps)
    rows = [[without_times(row) for row in read_rows(run)] for run in (alone, killed)]
    wrong_rows = sum(one != other for one, other in zip(*rows, strict=True))
    print(f"metrics: {len(rows[0])} steps of {len(rows[0][0])} metrics, {wrong_rows} steps differ")
    return different + wrong_rows


def without_times(row: Row) -> Row:
    """A row without its times."""
    return {name: value for name, value in row.items() if not name.endswith("_s")}


def costs(folder: Path) -> None:
    """Medians of interleaved steps."""
    trainers, micro_batches = {}, {}
    basic = {"steps": 1000, "batch_size": 8, "threads": 1, "device": "cpu", "tracker": "none"}
    for name, extra in OPTIONS.items():
        config = config_of(folder, basic | extra)
        workspace = Workspace.of(config)
        trainers[name] = Trainer(open_inputs(config, workspace))
        micro_batches[name] = next(trainers[name].batches(0))
    seconds: dict[str, list[float]] = {name: [] for name in OPTIONS}
    for _ in range(ROUNDS):
        for name, trainer in trainers.items():
            started = time.perf_counter()
            trainer.step(micro_batches[name], 0.0)
            seconds[name].append(time.perf_counter() - started)
    for name, spent in seconds.items():
        ratio = statistics.median(s / p for s, p in zip(spent, seconds["plain"], strict=True))
        print(
            f"{name:22} {1e3 * statistics.median(spent[2:]):8.1f} ms a step, {ratio:.2f} of plain"
        )


def train_here(path: Path) -> None:
    """The body of the killed process."""
    from pipeline.config.load import load_config

    config = load_config(path)
    train(config, Workspace.of(config), progress=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for argument, default in zip(("kills", "steps", "seed"), DEFAULTS, strict=True):
        parser.add_argument(argument, nargs="?", type=int, default=default)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train_here(options.train)
        raise SystemExit(0)
    raise SystemExit(main(options.kills, options.steps, options.seed))
