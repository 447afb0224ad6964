"""gc: what a run or a config refers to stays, whatever else happens; deleting can be killed anywhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows.integrity.gc import collect, delete, unfinished_runs
from pipeline.config.config import Config
from pipeline.config.load import dump_config
from pipeline.core.fingerprint import fingerprint
from pipeline.errors import Any2SegError, CheckpointError
from pipeline.shards.manifest import Manifest
from pipeline.storage.files import write_json
from pipeline.storage.lease import locked
from pipeline.targets.lookup import point_to_store
from pipeline.targets.provenance import TargetProvenance
from pipeline.targets.store import TargetStore
from pipeline.workspace import Workspace, dataset_identity
from tests.pipeline.conftest import kill_at_step, make_config, make_source, prepared

__all__ = ["kill_at_step", "make_config", "make_source", "prepared"]


def add_store(config: Config, modality: str, weights: str, *, point: bool = True) -> TargetStore:
    """A store with provenance and some bytes; `point` lets the index lead to it."""
    workspace = Workspace.of(config)
    provenance = TargetProvenance(
        modality=modality,
        teacher=config.teacher.name,
        spec={},
        tower={"weights": weights},
        outputs={"embedding": (4,)},
        shard_size=4,
    )
    store = TargetStore.create(workspace.targets(config), provenance)
    (Path(str(store.path)) / "ledger").mkdir(exist_ok=True)
    (Path(str(store.path)) / "ledger" / "some.json").write_text("{}")
    if point:
        point_to_store(config, workspace, store)
    return store


def add_run(config: Config, towers: dict[str, str], step: int = 0) -> Path:
    """A run's folder with the identity that `student.runs.run` writes."""
    workspace = Workspace.of(config)
    identity = {
        "dataset": fingerprint(dataset_identity(config)),
        "towers": towers,
        "prompts": "",
        "train": {"steps": 10},
    }
    run = Path(str(workspace.runs)) / f"{config.name}-{fingerprint(identity)[:12]}"
    write_json(run / "run.json", {"run_id": run.name, "identity": identity})
    (run / "config.toml").write_text(dump_config(config))
    write_json(run / "checkpoints" / "last.json", {"step": step})
    return run


Prepared = tuple[Config, Workspace, Manifest]


def unused_paths(workspace: Workspace, configs: list[Config]) -> set[str]:
    root = Path(str(workspace.root))
    return {
        str(Path(str(item.path)).relative_to(root)) for item in collect(workspace, configs).items
    }


def test_stores_that_a_config_reads_are_kept(prepared: Prepared) -> None:
    config, workspace, _ = prepared
    kept = add_store(config, "rgb", "new")
    other = add_store(config, "rgb", "old", point=False)
    assert unused_paths(workspace, [config]) == {
        f"targets/{other.path.parent.name}/{other.path.name}"
    }
    assert delete(workspace, collect(workspace, [config])) == []
    assert Path(str(kept.path)).is_dir()
    assert not Path(str(other.path)).exists()
    assert Manifest.load(workspace.dataset(config)).num_samples == 13
    assert unused_paths(workspace, [config]) == set()


def test_stores_that_a_run_was_trained_on_are_kept(prepared: Prepared) -> None:
    """Even a store that the index no longer leads to, and without its config."""
    config, workspace, _ = prepared
    old = add_store(config, "rgb", "old")
    run = add_run(config, {"rgb": old.provenance.tower_fingerprint})
    add_store(config, "rgb", "new")
    assert unused_paths(workspace, []) == set()
    (run / "config.toml").write_text("of = 'another version'")
    assert all(
        "new" not in path and str(old.path.name) not in path for path in unused_paths(workspace, [])
    )


def test_delete_refuses_if_a_run_cannot_be_read(prepared: Prepared) -> None:
    config, workspace, _ = prepared
    run = add_run(config, {})
    add_store(config, "rgb", "old", point=False)
    (run / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match="what it refers to is not known"):
        delete(workspace, collect(workspace, [config]))


def test_delete_refuses_without_any_config_or_run(prepared: Prepared) -> None:
    config, workspace, _ = prepared
    with pytest.raises(Any2SegError, match="everything would be deleted"):
        delete(workspace, collect(workspace, []))
    assert Manifest.load(workspace.dataset(config)).num_samples == 13


def test_an_unused_dataset_is_deleted_with_its_index_entries(
    prepared: Prepared, make_config
) -> None:
    config, workspace, _ = prepared
    other = make_config("store.shard_size=2")
    source = Path(str(workspace.dataset(config)))
    shutil.copytree(source, Path(str(workspace.dataset(other))))
    add_store(other, "rgb", "its own")
    unused = unused_paths(workspace, [config])
    assert {path.split("/")[0] for path in unused} == {"datasets", "targets"}
    assert any("/index/" in path for path in unused)
    delete(workspace, collect(workspace, [config]))
    assert unused_paths(workspace, [config]) == set()
    assert source.is_dir()


def test_temporary_files_are_deleted_unless_their_lock_is_held(prepared: Prepared) -> None:
    config, workspace, _ = prepared
    partial = Path(str(workspace.dataset(config))) / "shards" / "train" / "x.tar.1.partial"
    partial.write_bytes(b"half")
    with locked(workspace.dataset(config) / ".lock", wait=False):
        assert [item.kind for item in delete(workspace, collect(workspace, [config]))] == [
            "temporary file"
        ]
    assert partial.exists()
    assert delete(workspace, collect(workspace, [config])) == []
    assert not partial.exists()


def test_a_kill_while_deleting_leaves_nothing_that_looks_complete(
    prepared: Prepared, make_config, kill_at_step
) -> None:
    """Killed at every file: the rest does not count, and the next call finishes."""
    config, workspace, _ = prepared
    other = make_config("store.shard_size=2")
    for step in range(0, 12, 2):
        copy = Path(str(workspace.dataset(other)))
        shutil.copytree(Path(str(workspace.dataset(config))), copy, dirs_exist_ok=True)
        died = kill_at_step(lambda: delete(workspace, collect(workspace, [config])), step)
        records = len(list(copy.rglob("*-000*.parquet")))
        tars = len(list(copy.rglob("*.tar")))
        assert not died or step == 0 or not (copy / "manifest.parquet").exists()
        assert tars == 4 or records == 0
        delete(workspace, collect(workspace, [config]))
        assert not copy.exists()


def test_unfinished_runs_are_listed(prepared: Prepared) -> None:
    config, workspace, _ = prepared
    add_run(config, {}, step=10)
    add_run(config.model_copy(update={"name": "other"}), {"rgb": "x"}, step=4)
    [run] = unfinished_runs(workspace)
    assert (run.steps_done, run.steps) == (4, 10)
    assert unused_paths(workspace, []) == set()
