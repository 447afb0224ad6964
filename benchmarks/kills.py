"""`kill -9` at random instants of prepare and precompute.

    python -m benchmarks.kills [num_prepare] [num_precompute] [seed]        default: 40 60 0

Each chain works on one workspace: it is killed several times, at instants drawn uniformly from the working
time of an uninterrupted run (from the first file that appears to the end), then left to finish. After each
chain every file but the cost journal and the locks must equal the uninterrupted run's, byte for byte.

- `prepare` runs with two worker processes in every third chain, where the main process is killed or one of
  the workers, and by itself in the others (a start of workers is ten seconds on a busy machine).
- `precompute` runs as two processes that share the stores, each with half of the plan; one of them is
  killed, or both.

Printed per stage: kills, by victim; commits redone (records, tars and objects that were committed at a kill
and are another file at the end: none may be); the most shards that were half-written after a kill, per
killed process; time from the last commit (or the run's first file) to the kill in units of one shard's
time, median and largest; files compared and different.

Runs are forked from a process that has imported the package: what is tested is the work, not the import.
Needs the repository's `tests` (small random towers). Exit code 1 if a file differs or a commit was redone.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

DEFAULTS = (40, 60, 0)
KILLS_A_CHAIN = 5
NUM_TRAIN, NUM_VAL, SHARD_SIZE = 88, 8, 8
SIZE_PX = 40
POLL_S = 0.004
GIVE_UP_S = 300.0
WORKSPACE_PARTS = ("datasets", "targets", "prompts")

Files = dict[str, bytes]


@dataclass
class Tally:
    """The results of one stage."""

    stage: str
    kills: dict[str, int] = field(default_factory=dict)
    chains: int = 0
    redone: int = 0
    half_written: int = 0
    since_commit: list[float] = field(default_factory=list)
    compared: int = 0
    different: list[str] = field(default_factory=list)

    @property
    def num_kills(self) -> int:
        """Processes that were killed."""
        return sum(self.kills.values())


def write_images(root: Path) -> None:
    """Colour, near infrared and depth of random pixels, with labels; every tenth sample lacks its depth."""
    from PIL import Image

    rng = np.random.default_rng([20261122])
    for split, count in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        for index in range(count):
            side = (SIZE_PX, SIZE_PX)
            arrays = {
                "rgb": rng.integers(0, 256, (*side, 3), dtype=np.uint8),
                "nir": rng.integers(0, 256, side, dtype=np.uint8),
                "depth": rng.integers(0, 9000, side, dtype=np.uint16),
                "label": rng.integers(0, 3, side, dtype=np.uint8),
            }
            for name, array in arrays.items():
                if name == "depth" and index % 10 == 3:
                    continue
                path = root / name / split / f"{index:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)


def config_of(root: Path, workspace: str, workers: int = 1):
    """The config of the images and small towers in `root`; `prepare` has `workers` processes."""
    from pipeline.config.config import Config

    return Config.model_validate(
        {
            "name": "kills",
            "workspace": str(root / workspace),
            "dataset": {
                "adapter": "folder",
                "root": str(root / "images"),
                "classes": ["road", "car", "tree"],
                "missing": "allow",
            },
            "modalities": {"rgb": {}, "nir": {}, "depth": {}},
            "store": {"shard_size": SHARD_SIZE},
            "prepare": {"workers": workers},
            "teacher": {
                "name": str(root / "towers"),
                "batch_size": 5,
                "device": "cpu",
                "outputs": ["embedding", "patch"],
            },
        }
    )


def run_prepare(config, part: int) -> None:
    """The whole stage; `part` plays no role."""
    from pipeline.shards.prepare import prepare
    from pipeline.workspace import Workspace

    del part
    prepare(config, Workspace.of(config), progress=False)


def run_precompute(config, part: int) -> None:
    """One of two halves of what is missing, and the prompts; part -1: everything."""
    from pipeline.shards.manifest import Manifest
    from pipeline.workspace import Workspace
    from teacher.encoding.precompute import precompute, precompute_prompts
    from teacher.encoding.units import plan_towers, plan_units, split_units

    workspace = Workspace.of(config)
    if part < 0:
        precompute(config, workspace, progress=False)
        return
    shards = Manifest.load(workspace.dataset(config)).all_shards
    halves = split_units(plan_units(plan_towers(config, workspace), shards), 2)
    if part < len(halves):
        precompute(config, workspace, units=halves[part], progress=False)
    precompute_prompts(config, workspace)


def start(run: Callable, config, part: int) -> int:
    """Fork a process that runs the stage; returns its pid. Its output is dropped."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        if not os.environ.get("KILLS_SHOW_ERRORS"):
            os.dup2(null, 2)
        run(config, part)
        code = 0
    finally:
        os._exit(code)


def workers_of(pid: int) -> list[int]:
    """Spawned worker processes of a process."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        lines = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    except OSError:
        return []
    return [child for child, line in lines.items() if b"spawn_main" in line]


def is_running(pid: int) -> bool:
    """Whether the process has not ended; reaps nothing."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def files_of(workspace: Path) -> Files:
    """Every file that a run must reproduce, by its path in the workspace."""
    paths = [p for part in WORKSPACE_PARTS for p in (workspace / part).rglob("*") if p.is_file()]
    return {
        str(p.relative_to(workspace)): p.read_bytes()
        for p in paths
        if "cost" not in p.parts and p.name != ".lock"
    }


def work_of(workspace: Path) -> set[str]:
    """Files and temporary files of shards and objects: the first trace of new work."""
    return {
        f"{folder}/{file}"
        for part in ("datasets", "targets")
        for folder, _, files in os.walk(workspace / part)
        if "/shards/" in folder or "/c/" in folder
        for file in files
    }


def commits(workspace: Path) -> dict[str, tuple[int, int]]:
    """Commit records, and the tars and objects that they name, with inode and time of change."""
    records = [*workspace.glob("datasets/*/shards/*/*.parquet")]
    paths = [*records, *(record.with_suffix(".tar") for record in records)]
    for ledger in workspace.glob("targets/*/*/ledger/*/*.json"):
        store, split = ledger.parents[2], ledger.parent.name
        index = str(int(ledger.stem.rpartition("-")[2]))
        arrays = (store / "targets.zarr" / split).glob(f"*/c/{index}/**/*")
        paths += [ledger, *(path for path in arrays if path.is_file())]
    stats = {str(path): path.stat() for path in paths if path.exists()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def half_written(workspace: Path) -> int:
    """Shards (in prepare) or shards of a store's split (in precompute) that have files but no record."""
    tars = workspace.glob("datasets/*/shards/*/*.tar")
    begun = {str(tar) for tar in tars if not tar.with_suffix(".parquet").exists()}
    shards: set[str] = set()
    for store in workspace.glob("targets/*/*"):
        for path in (store / "targets.zarr").glob("*/*/c/*"):
            split, name = path.parts[-4], f"{path.parts[-4]}-{int(path.name):06d}"
            if not (store / "ledger" / split / f"{name}.json").exists():
                shards.add(name)
    return len(begun) + len(shards)


def wait_for_work(workspace: Path, pids: list[int], before: set[str]) -> None:
    """Return when a file has appeared since `before`, or when all processes have ended."""
    deadline = time.monotonic() + GIVE_UP_S
    while work_of(workspace) <= before and any(map(is_running, pids)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no file in {workspace} after {GIVE_UP_S:.0f} s")
        time.sleep(POLL_S)


def end_of(pid: int) -> int:
    """Wait for a process and reap it; returns its exit code. `TimeoutError` if it hangs."""
    deadline = time.monotonic() + GIVE_UP_S
    while is_running(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            raise TimeoutError(f"a run did not end in {GIVE_UP_S:.0f} s")
        time.sleep(POLL_S)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def measure(run: Callable, config, workspace: Path) -> float:
    """Seconds from the first new file to the end of an uninterrupted run."""
    before = work_of(workspace)
    pid = start(run, config, -1)
    wait_for_work(workspace, [pid], before)
    began = time.monotonic()
    if end_of(pid):
        raise RuntimeError("the uninterrupted run failed; KILLS_SHOW_ERRORS=1 shows why")
    return time.monotonic() - began


def strike(pids: list[int], rng: np.random.Generator, tally: Tally) -> int:
    """Kill one process, one of its workers, or all; returns how many died of it."""
    alive = [pid for pid in pids if is_running(pid)]
    if not alive:
        return 0
    workers = workers_of(alive[0])
    if workers and rng.random() < 0.3:
        victims, what = [int(rng.choice(workers))], "a worker"
    elif len(alive) > 1 and rng.random() < 0.5:
        victims, what = alive, "both at once"
    elif len(alive) > 1:
        victims, what = [int(rng.choice(alive))], "one of two"
    else:
        victims, what = alive, "the main process" if len(pids) == 1 else "the last of two"
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    tally.kills[what] = tally.kills.get(what, 0) + len(victims)
    return len(victims)


def chain(
    run: Callable,
    config,
    num_processes: int,
    span_s: float,
    kills: int,
    seed: list[int],
    tally: Tally,
) -> None:
    """Kill a workspace's runs `kills` times (fewer if they finish before), then finish it."""
    workspace = Path(config.workspace)
    rng = np.random.default_rng(seed)
    instants = np.sort(rng.uniform(0.0, span_s, kills))
    shard_s = span_s / ((NUM_TRAIN + NUM_VAL) / SHARD_SIZE)
    committed: dict[str, tuple[int, int]] = {}
    for delay in np.diff(instants, prepend=0.0):
        before = work_of(workspace)
        pids = [start(run, config, part) for part in range(num_processes)]
        wait_for_work(workspace, pids, before)
        began = time.time_ns()
        time.sleep(float(delay))
        num_killed = strike(pids, rng, tally)
        moment = time.time_ns()
        for pid in pids:
            end_of(pid)
        if num_killed:
            committed |= commits(workspace)
            times = [changed for _, changed in committed.values() if changed <= moment]
            tally.since_commit.append((moment - max([began, *times])) / 1e9 / shard_s)
            tally.half_written = max(tally.half_written, half_written(workspace) // num_killed)
    pid = start(run, config, -1)
    if end_of(pid):
        raise RuntimeError(
            f"{workspace}: the run after the kills failed; KILLS_SHOW_ERRORS=1 shows why"
        )
    after = commits(workspace)
    tally.redone += sum(after.get(name) != identity for name, identity in committed.items())
    tally.chains += 1


def compare(workspace: Path, whole: Files, tally: Tally) -> None:
    """Count files that are not those of the uninterrupted run."""
    actual = files_of(workspace)
    tally.compared += len(whole)
    tally.different += [
        name for name in sorted({*actual, *whole}) if actual.get(name) != whole.get(name)
    ]


def run_stage(
    stage: str,
    run: Callable,
    num_processes: int,
    root: Path,
    base: Path | None,
    kills: int,
    seed: int,
) -> Tally:
    """An uninterrupted run, then chains until enough processes were killed."""
    whole = root / f"whole-{stage}"
    fresh = (lambda to: shutil.copytree(base, to)) if base else (lambda to: to.mkdir())
    fresh(whole)
    span_s = measure(run, config_of(root, whole.name), whole)
    expected = files_of(whole)
    tally = Tally(stage)
    print(f"{stage}: {span_s:.1f} s of work, {len(expected)} files", file=sys.stderr, flush=True)
    while tally.num_kills < kills:
        workspace = root / f"{stage}-{tally.chains}"
        fresh(workspace)
        planned = min(KILLS_A_CHAIN, kills - tally.num_kills)
        config = config_of(root, workspace.name, 1 if tally.chains % 3 else 2)
        chain(run, config, num_processes, span_s, planned, [seed, len(stage), tally.chains], tally)
        compare(workspace, expected, tally)
        shutil.rmtree(workspace)
        done = f"{tally.num_kills}/{kills} kills, {len(tally.different)} files differ"
        print(f"{stage}: {done}", file=sys.stderr, flush=True)
    return tally


def table(tallies: list[Tally]) -> str:
    """One line a stage."""
    lines = [
        "stage       kills  chains  redone  half-written  since commit  compared  different  killed"
    ]
    for t in tallies:
        median, worst = np.median(t.since_commit or [0.0]), max(t.since_commit, default=0.0)
        who = ", ".join(f"{count} {what}" for what, count in sorted(t.kills.items()))
        lines.append(
            f"{t.stage:10s} {t.num_kills:6d} {t.chains:7d} {t.redone:7d} {t.half_written:13d}"
            f"  {median:5.2f} / {worst:4.2f} {t.compared:9d} {len(t.different):10d}  {who}"
        )
    return "\n".join(lines)


def main() -> int:
    """Both stages; 1 if a file differs or a commit was redone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in zip(("num_prepare", "num_precompute", "seed"), DEFAULTS, strict=True):
        parser.add_argument(name, nargs="?", type=int, default=default, help=f"default: {default}")
    options = parser.parse_args()
    num_prepare, num_precompute, seed = options.num_prepare, options.num_precompute, options.seed
    import torch

    from tests.teacher.conftest import write_source

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root / "images")
        write_source(root / "towers")
        _import_all()
        tallies = [run_stage("prepare", run_prepare, 1, root, None, num_prepare, seed)]
        base = root / "whole-prepare"
        tallies.append(run_stage("precompute", run_precompute, 2, root, base, num_precompute, seed))
    print(table(tallies))
    for tally in tallies:
        for name in tally.different[:5]:
            print(f"{tally.stage}: differs: {name}")
    return int(any(t.different or t.redone for t in tallies))


def _import_all() -> None:
    """Everything that the forked runs import, so that they start working at once."""
    for name in (
        "zarr",
        "pipeline.shards.prepare",
        "teacher.encoding.precompute",
        "teacher.towers.text_tower",
        "teacher.towers.vision_tower",
    ):
        importlib.import_module(name)


if __name__ == "__main__":
    sys.exit(main())
