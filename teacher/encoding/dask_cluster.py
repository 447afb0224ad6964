"""The teacher pass in several processes of this machine, or on the workers of a Dask cluster.

    precompute_spread(config, workspace) -> StageReport     as `config.scale` says

The missing units are cut into contiguous ranges, several per worker; a worker takes one at a time, keeps
its towers from range to range, and commits straight to the workspace, which all of them share. A range
whose worker died goes to another one, which does what the dead one had not committed: at most the
shard that was being encoded is encoded twice. A range that fails does not stop the others; its error is
raised at the end. The bytes are those of a pass in one process, on equal devices with equal threads.

Dask itself restarts its workers, hands their ranges on, and ends them with this process: they are not
started by `pipeline.core.child`. Its messages are pickles, so anyone who reaches a scheduler can run
code on its workers: our own cluster listens on loopback only; see docs/operations.md for TLS.

Raises what a range failed with, `TryAgain` (ranges whose workers died), `NoCluster`, or `MissingTarget`
if units are missing although every range is done.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline import VERSION
from pipeline.config.config import Config
from pipeline.core.child import OUT_OF_MEMORY
from pipeline.core.device import choose_device
from pipeline.core.progress import Advance, progress_bar
from pipeline.core.stage_report import StageReport
from pipeline.errors import Any2SegError, ConfigError, FingerprintMismatch, MissingTarget
from pipeline.shards.manifest import Manifest
from pipeline.workspace import Workspace
from teacher.encoding.child_process import worker_lost
from teacher.encoding.encoder import process_encoder
from teacher.encoding.precompute import num_all_targets, precompute, precompute_prompts
from teacher.encoding.units import Unit, num_targets, plan_towers, plan_units, split_units

if TYPE_CHECKING:
    from distributed import Client, Future

RANGES_PER_WORKER = 8
"""Enough that a slow or restarted worker delays the others by an eighth of their work at most."""
CONNECT_TIMEOUT_S = 60
LOOK_EVERY_S = 60.0
"""Seconds without news after which the workers are counted."""
SMALLER_BATCH = "Run again, with a smaller teacher.batch_size if memory ran out."
WORKER_LOGS = "in the workers' logs"
QUIET = {"logging": {"distributed": "error"}}


class NoCluster(Any2SegError):
    """The Dask scheduler does not respond, or has no workers."""


def precompute_spread(
    config: Config, workspace: Workspace, *, progress: bool = True
) -> StageReport:
    """Bring targets and prompts up to date with workers as `config.scale` says. See the module docstring."""
    started = time.perf_counter()
    manifest = Manifest.load(workspace.dataset(config))
    shards = manifest.all_shards
    plans = plan_towers(config, workspace)
    units = plan_units(plans, shards)
    for plan in plans:
        plan.create_stores(config, workspace)
    num_new_prompts = precompute_prompts(config, workspace).done
    details: dict[str, Any] = {}
    if units:
        with _cluster(config, len(units)) as client:
            details = _run_ranges(client, config, units, progress)
        _require_done(plan_units(plans, shards))
    done = num_targets(units) + num_new_prompts
    return StageReport(
        stage="precompute",
        done=done,
        skipped=num_all_targets(config, manifest) - done,
        seconds=time.perf_counter() - started,
        details=details | {"targets": [str(s.path) for p in plans for s in p.stores.values()]},
    )


@contextmanager
def _cluster(config: Config, num_units: int) -> Iterator[Client]:
    """A client of the configured scheduler, or of a cluster of our own for the length of the block."""
    try:
        import dask
        from distributed import Client
    except ImportError:
        raise ConfigError(
            "scale: expected the package `distributed`. Install it: pip install 'any2seg[dask]'"
        ) from None
    if config.scale.dask:
        with _connected(config.scale.dask) as client:
            yield client
        return
    with (
        dask.config.set(QUIET),
        _local(min(config.scale.workers, num_units)) as own,
        Client(own) as client,
    ):
        yield client


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_TIMEOUT_S)
        client.wait_for_workers(1, timeout=CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError) as error:
        raise NoCluster(
            f"{address}: expected a Dask scheduler with workers, found: {error}. Start them with "
            f"`dask scheduler` and `dask worker {address} --nthreads 1`."
        ) from None
    with client:
        yield client


def _local(num_workers: int) -> Any:
    """Worker processes on loopback that share this machine's threads and end with this process."""
    from distributed import LocalCluster

    threads = str(max(1, len(os.sched_getaffinity(0)) // num_workers))
    inherited = os.environ.get("OMP_NUM_THREADS", threads)
    return LocalCluster(
        n_workers=num_workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        # Any free port: without an address it takes 8787, and warns where another cluster has it.
        dashboard_address="127.0.0.1:0",
        memory_limit=0,  # the operating system's limit holds; Dask's would kill at 95 % of it
        silence_logs=40,
        env={name: inherited for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")},
    )


def _run_ranges(
    client: Client, config: Config, units: Sequence[Unit], progress: bool
) -> dict[str, Any]:
    """Hand out the ranges, wait for all, raise the first failure. Returns details for the report."""
    num_workers = _num_workers(client)
    ranges = split_units(units, num_workers * RANGES_PER_WORKER)
    parts = {client.submit(_do_range, VERSION, config, part, pure=False): part for part in ranges}
    failures: list[BaseException] = []
    sizes: list[int] = []
    with progress_bar(
        "precompute", sum(u.num_pictures for u in units), "pictures", progress
    ) as bar:
        while parts:
            for future in _ended(client, parts):
                part = parts.pop(future)
                error = future.exception()
                if error is None:
                    sizes.append(future.result().details["batch_size"])
                else:
                    failures.append(_failure(error, part))
                future.release()
                _advance(bar, part)
    if failures:
        raise failures[0]
    return {"workers": num_workers, "ranges": len(ranges), "batch_size": min(sizes)}


def _num_workers(client: Client) -> int:
    return len(client.scheduler_info(n_workers=-1)["workers"])


def _ended(client: Client, futures: Iterable[Future[StageReport]]) -> set[Future[StageReport]]:
    """Those that have ended, at least one. Raises `TryAgain` if no worker is left."""
    from distributed import wait

    while True:
        try:
            ended: set[Future[StageReport]] = wait(
                list(futures), timeout=LOOK_EVERY_S, return_when="FIRST_COMPLETED"
            ).done
        except TimeoutError:
            if not _num_workers(client):
                how = f"were lost and none reconnected, {OUT_OF_MEMORY}"
                raise worker_lost("all workers", how, WORKER_LOGS, SMALLER_BATCH) from None
        else:
            return ended


def _advance(bar: Advance, part: Sequence[Unit]) -> None:
    bar(sum(unit.num_pictures for unit in part), f"{part[0].shard} .. {part[-1].shard}")


def _failure(error: BaseException, part: Sequence[Unit]) -> BaseException:
    from distributed.scheduler import KilledWorker

    if not isinstance(error, KilledWorker):
        return error
    what = f"units {part[0]} .. {part[-1]}: all workers that took them"
    return worker_lost(what, f"were lost, {OUT_OF_MEMORY}", WORKER_LOGS, SMALLER_BATCH)


def _require_done(missing: Sequence[Unit]) -> None:
    if missing:
        raise MissingTarget(
            f"unit {missing[0]} and {len(missing) - 1} more: every range is done, but these are "
            "missing. Do all workers see the same workspace and the same teacher weights?"
        )


_one_at_a_time = threading.Lock()


def _do_range(version: str, config: Config, units: Sequence[Unit]) -> StageReport:
    """Runs in a worker. Towers stay in the process; two ranges at once would share them."""
    if version != VERSION:
        raise FingerprintMismatch(
            f"worker: runs any2seg {VERSION}, the caller {version}. Install the same on all machines."
        )
    with _one_at_a_time:
        encoder = process_encoder(_device(config.teacher.device))
        return precompute(
            config, Workspace.of(config), units=units, encoder=encoder, progress=False
        )


def _device(asked: str) -> str:
    """The device of this worker: accelerators are dealt out in turn to the workers of our cluster."""
    from distributed import get_worker

    device, name = choose_device(asked), get_worker().name
    if device != "cuda" or not isinstance(name, int):
        return device
    import torch

    return f"cuda:{name % torch.cuda.device_count()}"
