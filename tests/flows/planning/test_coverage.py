"""The rows of `any2seg status`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from flows.planning.coverage import CoverageRow, coverage_map, coverage_rows
from pipeline.config.config import Config
from pipeline.shards.manifest import MANIFEST, Manifest
from pipeline.shards.prepare import prepare
from pipeline.targets.lookup import point_to_store
from pipeline.targets.prompts import PromptStore, point_to_prompts
from pipeline.targets.provenance import TargetProvenance
from pipeline.targets.store import TargetStore
from pipeline.workspace import Workspace
from tests.pipeline.conftest import make_config, make_source, prepared

__all__ = ["make_config", "make_source", "prepared"]

Prepared = tuple[Config, Workspace, Manifest]


def table(config: Config) -> dict[tuple[str, str], CoverageRow]:
    workspace = Workspace.of(config)
    manifest = load_if_there(workspace.dataset(config))
    return {(r.stage, r.what): r for r in coverage_rows(config, workspace, manifest)}


def load_if_there(folder: Path) -> Manifest | None:
    return Manifest.load(folder) if (folder / MANIFEST).exists() else None


def counts(row: CoverageRow) -> tuple[int, int, int]:
    return row.committed, row.missing, row.stale


def teach(prepared: Prepared, modality: str, num_shards: int) -> TargetStore:
    config, workspace, manifest = prepared
    provenance = TargetProvenance(
        modality=modality,
        teacher="t",
        spec={},
        tower={},
        outputs={"embedding": (2,)},
        shard_size=config.store.shard_size,
    )
    store = TargetStore.create(workspace.targets(config), provenance)
    for shard in manifest.all_shards[:num_shards]:
        store.commit(shard, {"embedding": np.zeros((shard.num_rows, 2))}, {})
    point_to_store(config, workspace, store)
    return store


def test_an_empty_workspace_misses_everything(
    make_source: Callable, make_config: Callable[..., Config]
) -> None:
    make_source(train=5, val=2)
    rows = table(make_config())
    assert counts(rows["prepare", "train"]) == (0, 5, 0)
    assert counts(rows["prepare", "val"]) == (0, 2, 0)
    assert counts(rows["precompute", "class prompts"]) == (0, 1, 0)
    assert not rows["prepare", "train"].complete


def test_a_row_as_json_keeps_the_names_of_the_states() -> None:
    row = CoverageRow("prepare", "train", "samples", committed=2, missing=1)
    assert list(row.as_json()) == [
        "stage",
        "what",
        "unit",
        "there",
        "missing",
        "stale",
        "note",
        "advice",
    ]
    assert (row.as_json()["there"], row.as_json()["missing"]) == (2, 1)


def test_counts_of_samples_shards_and_prompts(prepared: Prepared) -> None:
    config, workspace, _ = prepared
    store = teach(prepared, "rgb", num_shards=3)
    prompts = PromptStore.create(
        workspace.prompts, "t", {}, np.ones((3, 2), np.float32), np.ones((3, 1, 2), np.float32)
    )
    point_to_prompts(config, workspace, prompts)
    rows = table(config)
    assert counts(rows["prepare", "train"]) == (10, 0, 0)
    assert rows["prepare", "train"].complete
    assert counts(rows["precompute", "rgb"]) == (3, 1, 0)
    assert rows["precompute", "rgb"].note == store.path.name
    assert counts(rows["precompute", "depth"]) == (0, 4, 0)
    assert counts(rows["precompute", "class prompts"]) == (1, 0, 0)


def test_new_and_refused_samples_are_counted(prepared: Prepared, make_source: Callable) -> None:
    config, workspace, _ = prepared
    root = make_source(train=12, val=3)
    assert counts(table(config)["prepare", "train"]) == (10, 2, 0)
    (root / "rgb/train/011.png").write_bytes(b"")
    config = config.model_copy(
        update={"prepare": config.prepare.model_copy(update={"max_refused": 0.5})}
    )
    prepare(config, workspace, progress=False)
    row = table(config)["prepare", "train"]
    assert counts(row) == (11, 0, 0)
    assert row.note == "1 in quarantine"


def test_other_settings_and_a_lost_source_are_noted(
    prepared: Prepared, make_config: Callable[..., Config]
) -> None:
    teach(prepared, "rgb", num_shards=4)
    other = table(make_config("teacher.antialias=true"))["precompute", "rgb"]
    assert counts(other) == (0, 4, 0)
    assert other.note == "computed with other settings only"
    shutil.rmtree(Path(prepared[0].dataset.root))  # type: ignore[attr-defined]
    row = table(prepared[0])["prepare", "train"]
    assert counts(row) == (10, 0, 0)
    assert "no such folder" in row.note


def test_the_map_names_every_missing_stale_or_damaged_shard(prepared: Prepared) -> None:
    config, workspace, manifest = prepared
    store = teach(prepared, "rgb", num_shards=4)
    train = store.array("train", "embedding")
    train.object_path(0).unlink()
    train.object_path(1).write_bytes(b"short")
    (store.path / "ledger/train/train-000002.json").unlink()
    record = store.path / "ledger/val/val-000000.json"
    record.write_text(record.read_text().replace('"shard_sha256": "', '"shard_sha256": "0'))
    found = coverage_map(config, workspace, manifest)
    assert found.counts == {
        ("train", "rgb", "embedding"): {"missing": 2, "damaged": 1},
        ("val", "rgb", "embedding"): {"stale": 1},
        ("train", "depth", "embedding"): {"missing": 3},
        ("val", "depth", "embedding"): {"missing": 1},
    }
    assert found.as_json()[1] == {
        "split": "train",
        "modality": "rgb",
        "output": "embedding",
        "shard": "train-000001",
        "state": "damaged",
    }


def test_changed_shards_are_stale(prepared: Prepared) -> None:
    store = teach(prepared, "rgb", num_shards=4)
    record = store.path / "ledger/train/train-000001.json"
    record.write_text(record.read_text().replace('"shard_sha256": "', '"shard_sha256": "0'))
    row = table(prepared[0])["precompute", "rgb"]
    assert counts(row) == (3, 0, 1)
    assert not row.complete
