"""`kill -9` of a flow during precompute and during train: what is left, who notices when, what is redone.

    python -m benchmarks.flow_kills

Starts a Prefect server of its own on loopback, with the automation for silent runs, and works in a
temporary folder on rendered scenes. The killed process is `any2seg run` itself, which nothing supervises:
the worst case. Prints a table. Takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.served import answers, free_port

CONFIG = """
name = "kills"
workspace = "./workspace"
dataset = { adapter = "synthetic", num_train = 120, num_val = 2, num_test = 2, size_px = 64 }
modalities = { rgb = {}, depth = {} }
store = { shard_size = 2 }
prepare = { workers = 1 }
student = { weights = "none", head_channels = 8 }
train = { steps = 60, batch_size = 2, checkpoint_every = 5, warmup_steps = 1 }
"""
TIMEOUT_S = 600
MARK = f"STARTED_BY_FLOW_KILLS={os.getpid()}"


@contextmanager
def server(home: Path) -> Iterator[dict[str, str]]:
    """A plain Prefect server; yields the environment of processes that use it."""
    port = free_port()
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    clean |= {"PREFECT_HOME": str(home), "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--analytics-off"],
        env=clean,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/api"
    try:
        wait_until(lambda: answers(f"{url}/health"))
        yield clean | {"PREFECT_API_URL": url, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
    finally:
        process.terminate()
        process.wait()


def wait_until(condition, process: subprocess.Popen[bytes] | None = None) -> float:
    """Seconds until the condition holds."""
    started = time.monotonic()
    while not condition():
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"the run ended first, with {process.poll()}")
        if time.monotonic() - started > TIMEOUT_S:
            raise TimeoutError
        time.sleep(0.05)
    return time.monotonic() - started


def start(config: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """`any2seg run`."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run", str(config)],
        env=environment | dict([MARK.split("=")]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def last_state(environment: dict[str, str]) -> tuple[str, str, str]:
    """Id, name of the state, and message of the flow run that began last."""
    request = urllib.request.Request(
        f"{environment['PREFECT_API_URL']}/flow_runs/filter",
        data=b'{"sort": "START_TIME_DESC", "limit": 1}',
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        run = json.load(answer)[0]
    return run["id"], run["state"]["name"], run["state"]["message"]


def state_of(run_id: str, environment: dict[str, str]) -> str:
    """Name of a flow run's state."""
    with urllib.request.urlopen(
        f"{environment['PREFECT_API_URL']}/flow_runs/{run_id}", timeout=30
    ) as answer:
        return str(json.load(answer)["state"]["name"])


def times_of(folder: Path, pattern: str) -> dict[Path, int]:
    """Files and when they were written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob(pattern)}


def steps_at(workspace: Path) -> int:
    """Steps of the last checkpoint."""
    states = list(workspace.glob("runs/*/checkpoints/last.json"))
    return int(json.loads(states[0].read_text())["step"]) if states else 0


def alive() -> int:
    """Number of live processes of started runs: all inherit `MARK` in their environment."""
    count = 0
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            count += MARK.encode() in path.read_bytes()
        except OSError:
            continue
    return count


def main() -> None:
    """Kill twice, let the next run finish, and print a table."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as name, server(Path(name) / "home") as environment:
        root = Path(name)
        workspace = root / "workspace"
        (config := root / "kills.toml").write_text(CONFIG)
        os.environ.update({k: v for k, v in environment.items() if k.startswith("PREFECT_")})
        from prefect.client.orchestration import get_client

        from flows.crash_automation import ensure_crash_automation

        with get_client(sync_client=True) as client:
            ensure_crash_automation(client)
        moments = {
            "precompute": lambda: len(times_of(workspace, "ledger/*/*.json")) >= 20,
            "train": lambda: steps_at(workspace) >= 10,
        }
        for stage, moment in moments.items():
            process = start(config, environment)
            wait_until(moment, process)
            run_id, before, _ = last_state(environment)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            killed = time.monotonic()
            wait_until(lambda: alive() == 0)
            ended_s = time.monotonic() - killed
            units = times_of(workspace, "ledger/*/*.json")
            steps = steps_at(workspace)
            print(
                f"killed in {stage}: state {before}; children ended after {ended_s:.1f} s; "
                f"{len(units)} unit records, {steps} steps checkpointed",
                flush=True,
            )
            wait_until(lambda run_id=run_id: state_of(run_id, environment) != "Running")
            noticed = time.monotonic() - killed
            print(f"  {state_of(run_id, environment)} after {noticed:.0f} s", flush=True)
            later = start(config, environment)
            if stage == "precompute":
                wait_until(lambda: steps_at(workspace) > 0, later)
                os.kill(later.pid, signal.SIGKILL)
            later.wait()
            after = times_of(workspace, "ledger/*/*.json")
            redone = sum(after[path] != written for path, written in units.items())
            print(
                f"  next run: {len(after) - len(units)} units made, {redone} of the committed ones redone, "
                f"training now at step {steps_at(workspace)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
