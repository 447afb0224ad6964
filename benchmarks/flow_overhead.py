"""What a flow costs over calling its stages directly: seconds per run and per unit.

    python -m benchmarks.flow_overhead [--runs 3] [--units 48]

Starts a Prefect server of its own on loopback and works in a temporary folder. In one process, taking
turns: (a) the stages prepare, prompts and precompute as plain calls, (b) the same with the flow's encoding
process but without Prefect, (c) the flow `refresh-teacher`; on a workspace where nothing is to do, and on
ones where `units` shards are to be encoded by the packaged teacher. Prints medians: (b) - (a) is the
price of a process of its own (it imports torch once a run), (c) - (b) is Prefect's.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from flows.stages import load_stage
from flows.temporary_server import prefect_api
from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.shards.manifest import Manifest
from pipeline.workspace import Workspace
from teacher.encoding.child_process import EncodingProcess
from teacher.encoding.units import plan_towers, plan_units

CONFIG = """
name = "overhead"
workspace = "./workspace"
dataset = {{ adapter = "synthetic", num_train = {train}, num_val = 2, num_test = 2, size_px = 64 }}
modalities = {{ rgb = {{}} }}
store = {{ shard_size = 2 }}
prepare = {{ workers = 1 }}
"""
STAGES = ("prepare", "prompts", "precompute")


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def write(folder: Path, units: int) -> Path:
    """A config of `units` shards."""
    folder.mkdir(parents=True)
    path = folder / "overhead.toml"
    path.write_text(CONFIG.format(train=2 * (units - 2)))
    return path


def directly(config: Config) -> None:
    """The stages as plain calls."""
    for name in STAGES:
        load_stage(name)(config, Workspace.of(config))


def in_a_process(config: Config) -> None:
    """The same with the encoding process, all units as one range."""
    workspace = Workspace.of(config)
    for name in ("prepare", "prompts"):
        load_stage(name)(config, workspace)
    plans = plan_towers(config, workspace)
    for plan in plans:
        plan.create_stores(config, workspace)
    units = plan_units(plans, Manifest.load(workspace.dataset(config)).all_shards)
    with EncodingProcess(config) as process:
        process.encode(units, lambda _: None)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--units", type=int, default=48)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, prefect_api():
        root = Path(name)
        from flows.flows import refresh_teacher

        warm = write(root / "warm", 4)
        directly(load_config(warm))
        refresh_teacher(str(warm))
        idle = load_config(warm)
        times: dict[str, list[float]] = {}
        for run in range(asked.runs):
            paths = [write(root / f"{run}{kind}", asked.units) for kind in ("a", "b", "c")]
            calls: dict[str, Callable[[], object]] = {
                "nothing to do, stages": partial(directly, idle),
                "nothing to do, flow": partial(refresh_teacher, str(warm)),
                "all units, stages": partial(directly, load_config(paths[0])),
                "all units, process": partial(in_a_process, load_config(paths[1])),
                "all units, flow": partial(refresh_teacher, str(paths[2])),
            }
            for what, call in calls.items():
                times.setdefault(what, []).append(seconds(call))
    medians = {what: statistics.median(values) for what, values in times.items()}
    print(f"| median of {asked.runs} runs | s |\n|---|---|")
    for what, value in medians.items():
        print(f"| {what} | {value:.2f} |")
    idle_cost = medians["nothing to do, flow"] - medians["nothing to do, stages"]
    process = medians["all units, process"] - medians["all units, stages"]
    prefect = medians["all units, flow"] - medians["all units, process"]
    print(f"\nPrefect, a run with nothing to do: {idle_cost:.2f} s")
    print(f"Prefect, a run of {asked.units} units: {prefect:.2f} s")
    print(f"Prefect, a unit: {1000 * (prefect - idle_cost) / asked.units:.0f} ms")
    print(f"process of its own: {process:.2f} s a run")


if __name__ == "__main__":
    main()
