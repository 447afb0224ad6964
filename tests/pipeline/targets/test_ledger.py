"""Commit records in an object store: whatever two machines do to one store, it ends consistent."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.core.fingerprint import fingerprint
from pipeline.errors import MissingTarget
from pipeline.formats.zarr_array import RowArray
from pipeline.shards.manifest import ShardInfo
from pipeline.storage.files import AnyPath
from pipeline.storage.publish import Published
from pipeline.storage.remote_path import RemotePath
from pipeline.targets.ledger import Ledger
from pipeline.targets.provenance import TargetProvenance
from pipeline.targets.store import Coverage, TargetStore

if TYPE_CHECKING:  # the processes that this file starts need no server of their own
    from tests.support.object_server import ObjectServer

pytestmark = pytest.mark.server
DIM, SHARD_SIZE = 6, 16
PROVENANCE = TargetProvenance(
    modality="rgb",
    teacher="t",
    spec={},
    tower={"weights": "abc"},
    outputs={"embedding": (DIM,), "patch": (2, DIM)},
    shard_size=SHARD_SIZE,
)


def shard(index: int, version: int = 0) -> ShardInfo:
    keys = tuple(f"{index}_{row}" for row in range(SHARD_SIZE))
    nothing, sha256 = ("",) * SHARD_SIZE, fingerprint([index, version])
    present = {"rgb": (True,) * SHARD_SIZE}
    return ShardInfo("train", index, Path("x"), sha256, keys, present, nothing, nothing)


def rows(of: ShardInfo, bits: int = 0) -> dict[str, np.ndarray]:
    """Numbers of a shard; `bits` stands for the machine that made them."""
    rng = np.random.default_rng([int(of.sha256[:8], 16), bits])
    outputs = PROVENANCE.outputs.items()
    return {name: rng.random((SHARD_SIZE, *shape)).astype("f2") for name, shape in outputs}


def opened(root: AnyPath) -> TargetStore:
    return TargetStore.create(root, PROVENANCE)


def is_one_of(store: TargetStore, of: ShardInfo, *makers: int) -> bool:
    """Whether every output reads as what one of the machines made."""
    found = {name: store.read(of, name) for name in PROVENANCE.outputs}
    return all(
        any(np.array_equal(found[name], rows(of, bits)[name]) for bits in makers) for name in found
    )


def test_the_files_are_those_of_a_local_store(prefix: RemotePath, tmp_path: Path) -> None:
    for index in (2, 0, 1):
        for root in (prefix, tmp_path):
            opened(root).commit(shard(index), rows(shard(index)), {"seconds": 1.0})
    found = {name: (prefix / name).read_bytes() for name in prefix.entries()}
    local = {p.relative_to(tmp_path).as_posix(): p for p in tmp_path.rglob("*") if p.is_file()}
    wanted = {
        n: p.read_bytes() for n, p in local.items() if p.name != ".lock" and "copies" not in n
    }
    assert found == wanted


def test_committed_missing_and_stale_shards_are_counted(prefix: RemotePath) -> None:
    store = opened(prefix)
    shards = [shard(index) for index in range(4)]
    for one in shards[:3]:
        assert store.commit(one, rows(one), {})
        assert not store.commit(one, rows(one), {})
    newer = [*shards[:2], shard(2, version=1), shards[3]]
    assert store.missing(newer) == newer[2:]
    assert store.coverage(newer) == Coverage(committed=2, missing=1, stale=1)
    assert [store.is_committed(one) for one in newer] == [True, True, False, False]
    assert [found is not None for found in store.objects_of(newer)] == [True, True, False, False]
    with pytest.raises(MissingTarget):
        store.read(newer[3], "embedding")


def test_the_status_of_many_shards_takes_few_requests_each(
    prefix: RemotePath, object_server: ObjectServer
) -> None:
    store, shards = opened(prefix), [shard(index) for index in range(20)]
    for one in shards:
        store.commit(one, rows(one), {})
    before = object_server.requests.total()
    assert store.missing(shards) == []
    assert object_server.requests.total() - before <= len(shards) + 2


@pytest.mark.parametrize("stage", ["objects", "record"])
def test_a_second_machine_between_any_two_steps_leaves_a_consistent_commit(
    prefix: RemotePath, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """B comes in after A's objects and before A's record, or before A's objects."""
    store, of = opened(prefix), shard(0)
    owner, name = (RowArray, "write_object") if stage == "objects" else (Ledger, "write")
    step = getattr(owner, name)

    def interrupted(*arguments: object) -> object:
        monkeypatch.setattr(owner, name, step)
        store.commit(of, rows(of, bits=2), {})
        return step(*arguments)

    monkeypatch.setattr(owner, name, interrupted)
    store.commit(of, rows(of, bits=1), {})
    assert store.is_committed(of)
    assert is_one_of(store, of, 1, 2)


def test_a_shard_whose_object_was_replaced_is_missing_until_recomputed(prefix: RemotePath) -> None:
    """A machine with older shards replaces the object and is killed before its record."""
    store, of = opened(prefix), shard(0)
    store.commit(of, rows(of), {})
    older = shard(0, version=1)
    store.array("train", "embedding").write_object(0, rows(older)["embedding"], older.sha256)
    assert not store.is_committed(of)
    assert store.coverage([of]) == Coverage(missing=1)
    assert store.commit(of, rows(of), {})
    assert is_one_of(store, of, 0)


def test_an_equal_object_with_another_version_counts(prefix: RemotePath) -> None:
    """A bucket that was copied object by object: versions differ, bytes do not."""
    store, of = opened(prefix), shard(0)
    store.commit(of, rows(of), {})
    path = store.path / "ledger/train/train-000000.json"
    assert isinstance(path, RemotePath)
    path.write(path.read_bytes(), {"versions": json.dumps({"embedding": "x", "patch": "y"})})
    assert store.is_committed(of)
    path.write(path.read_bytes())
    assert store.is_committed(of)


def test_a_shard_whose_object_was_deleted_is_missing(prefix: RemotePath) -> None:
    store, of = opened(prefix), shard(0)
    store.commit(of, rows(of), {})
    store.array("train", "patch").object_path(0).unlink()
    assert store.missing([of]) == [of]
    assert not store.is_committed(of)


def test_versions_are_tags_and_not_in_the_record(prefix: RemotePath) -> None:
    ledger = Ledger(prefix / "ledger", prefix / "a.zarr", "tower", lambda _: {"e": prefix / "o"})
    ledger.write(shard(0), {"e": Published("d", '"v"')})
    tagged = (prefix / "ledger/train/train-000000.json").read_tagged()
    assert json.loads(tagged.tags["versions"]) == {"e": '"v"'}
    assert b'"v"' not in tagged.data


COMMIT = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.pipeline.targets.test_ledger import opened, rows, shard
from pipeline.storage.remote_path import RemotePath
store = opened(RemotePath.of(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
made = sum(store.commit(shard(i), rows(shard(i), int(sys.argv[3])), {}) for i in range(int(sys.argv[4])))
print(made)
"""


def start(prefix: RemotePath, bits: int, num_shards: int) -> subprocess.Popen[str]:
    root = Path(__file__).parents[3]
    return subprocess.Popen(
        [sys.executable, "-c", COMMIT, str(root), str(prefix), str(bits), str(num_shards)],
        cwd=root,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


@pytest.mark.parametrize(("bits", "fail"), [((1, 1), 0.05), ((1, 2), 0.0)])
def test_two_processes_fill_one_store_consistently(
    prefix: RemotePath, object_server: ObjectServer, bits: tuple[int, int], fail: float
) -> None:
    num_shards = 8
    processes = [start(prefix, maker, num_shards) for maker in bits]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    object_server.fail_from(0, fail)
    outputs = [process.communicate("go\n", timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert num_shards <= sum(map(int, outputs)) <= 2 * num_shards
    object_server.fail_from(0, 0)
    store = opened(prefix)
    assert store.missing([shard(index) for index in range(num_shards)]) == []
    assert all(is_one_of(store, shard(index), *bits) for index in range(num_shards))


def test_a_killed_process_leaves_a_resumable_store(prefix: RemotePath) -> None:
    num_shards = 8
    for delay_s in (0.1, 0.3):
        with start(prefix, 1, num_shards) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            process.stdout.readline()
            process.stdin.write("go\n")
            process.stdin.flush()
            time.sleep(delay_s)
            process.kill()
    store = opened(prefix)
    for index in range(num_shards):
        store.commit(shard(index), rows(shard(index), 1), {})
    assert all(is_one_of(store, shard(index), 1) for index in range(num_shards))
