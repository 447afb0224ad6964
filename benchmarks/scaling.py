"""The teacher pass by one process and by two workers.

    python -m benchmarks.scaling [--samples 512]

The same rendered scenes through the packaged towers, one run after the other in fresh processes, one
thread each. Prints seconds, images a second, the part that is not encoding (starting, planning,
dispatching), and the efficiency of two; checks that both stores hold the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = """
name = "scaling"
dataset = { adapter = "synthetic", num_train = SAMPLES, num_val = 0, num_test = 0, size_px = 128 }
modalities = { rgb = {}, depth = {}, event = {}, lidar = {} }
store = { shard_size = 32 }
"""


def any2seg(config: Path, workspace: Path, command: str, *words: str) -> float:
    """Seconds that `any2seg COMMAND` takes in a process of its own."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "flows.cli", command, str(config)]
        + ["--set", f"workspace={workspace}", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - started


def encoding_seconds(workspace: Path) -> float:
    """Seconds that the units took, by the stores' cost journals."""
    return sum(
        json.loads(path.read_text())["seconds"]
        for path in workspace.glob("targets/*/*/cost/*/*.json")
    )


def numbers(workspace: Path) -> dict[str, bytes]:
    """Objects and records."""
    return {
        str(path.relative_to(workspace)): path.read_bytes()
        for path in (workspace / "targets").rglob("*")
        if path.is_file() and "cost" not in path.parts
    }


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=512)
    samples = parser.parse_args().samples
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "scaling.toml"
        config.write_text(CONFIG.replace("SAMPLES", str(samples)))
        any2seg(config, folder / "prepared", "prepare")
        ways = {"one process": (), "2 workers": ("--workers", "2")}
        seconds = {}
        for way, words in ways.items():
            workspace = folder / way.replace(" ", "-")
            shutil.copytree(folder / "prepared", workspace)
            seconds[way] = any2seg(config, workspace, "precompute", *words)
            workers = 2 if "2" in way else 1
            other = seconds[way] - encoding_seconds(workspace) / workers
            print(
                f"{way:12} {seconds[way]:6.1f} s  {4 * samples / seconds[way]:6.1f} images/s  "
                f"{other:5.1f} s not encoding  efficiency "
                f"{seconds['one process'] / seconds[way] / workers:4.0%}",
                flush=True,
            )
        same = numbers(folder / "one-process") == numbers(folder / "2-workers")
        print(f"bytes of the stores: {'equal' if same else 'DIFFERENT'}")
        idle = any2seg(config, folder / "2-workers", "precompute", "--workers", "2")
        print(f"again, nothing to do: {idle:.1f} s")


if __name__ == "__main__":
    main()
