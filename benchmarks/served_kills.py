"""`kill -9` of served runs.

    python -m benchmarks.served_kills

A real server and `any2seg serve`. Kills, each in a fresh workspace: the process of a run during
precompute and during train while its runner lives; run and runner together during precompute. Prints
the state afterwards, the seconds until the server knew, and what the next run redid. Takes some minutes.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.served import (
    kill_group,
    runs,
    serve,
    server,
    wait_for,
    write_config,
    write_scenes,
)

INTERVAL_S = 45
MILESTONE = {
    "precompute": "targets/*/*/ledger/train/*.json",
    "train": "runs/*/checkpoints/last.json",
}


def descendants(pid: int) -> Iterator[psutil.Process]:
    """Live processes below a runner: its runs and theirs."""
    yield from psutil.Process(pid).children(recursive=True)


def kill_runs(pid: int) -> None:
    """`kill -9` of everything below the runner, which itself lives on."""
    for process in descendants(pid):
        process.send_signal(signal.SIGKILL)


def fresh(folder: Path, steps: int) -> Path:
    """The config of a new workspace with 80 training scenes."""
    folder.mkdir()
    write_scenes(folder / "tree", "train", range(80))
    write_scenes(folder / "tree", "val", range(1000, 1004))
    return write_config(folder, steps)


def kill_in(url: str, folder: Path, stage: str, *, runner_too: bool) -> None:
    """One kill and the run after it; prints how both ended."""
    config, workspace = fresh(folder, steps=60), folder / "workspace"
    known = {run["id"] for run in runs(url, "COMPLETED", "CRASHED", "FAILED", "CANCELLED")}
    runner = serve(url, config, INTERVAL_S)
    try:
        wait_for(lambda: len(list(workspace.glob(MILESTONE[stage]))) >= 2 - (stage == "train"), 900)
        before = {p: p.stat().st_mtime_ns for p in workspace.glob("targets/*/*/ledger/*/*.json")}
        if runner_too:
            kill_group(runner)
        else:
            kill_runs(runner.pid)
        killed = time.monotonic()
        after_the_kill = [run["state"]["name"] for run in runs(url, "RUNNING")]
        dead = wait_for(lambda: _new(url, known, "CRASHED", "FAILED"), 600)
        noticed = time.monotonic() - killed
        if runner_too:
            runner = serve(url, config, INTERVAL_S)
        last = wait_for(lambda: _new(url, known, "COMPLETED"), 900)[0]
        redone = sum(p.stat().st_mtime_ns != when for p, when in before.items())
        print(
            f"{stage}, runner {'killed too' if runner_too else 'alive'}: right after "
            f"{after_the_kill or 'no run Running'}, {dead[0]['state']['name']} after {noticed:.0f} s; "
            f"{len(before)} units were committed, {redone} of them redone; the next run "
            f"{last['state']['name']!r} in {last['total_run_time']:.0f} s",
            flush=True,
        )
        for line in (folder / "serve.log").read_text().splitlines():
            if "resum" in line.lower() or "from step" in line.lower():
                print("   ", line)
    finally:
        if runner.poll() is None:
            os.killpg(runner.pid, signal.SIGTERM)
            runner.wait()


def _new(url: str, known: set[str], *states: str) -> list[dict[str, Any]]:
    return [run for run in runs(url, *states) if run["id"] not in known]


def main() -> None:
    """Every kill once."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as name, server(Path(name)) as url:
        kill_in(url, Path(name) / "a", "precompute", runner_too=False)
        kill_in(url, Path(name) / "b", "train", runner_too=False)
        kill_in(url, Path(name) / "c", "precompute", runner_too=True)


if __name__ == "__main__":
    main()
