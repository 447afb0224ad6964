"""The audit: the same numbers pass, others are named; what is drawn is seeded and has the modality."""

from __future__ import annotations

import numpy as np
import pytest

from flows.integrity.audit import LEAST_ROWS, audit, default_tolerance, draw, drift
from pipeline.config.config import Config
from pipeline.errors import CorruptShard, MissingTarget
from pipeline.shards.manifest import Manifest
from pipeline.storage.files import read_json, sha256_file, write_bytes, write_json
from pipeline.targets.lookup import resolve
from pipeline.workspace import Workspace
from teacher.encoding.precompute import precompute
from tests.teacher.conftest import config, prepared, root, source

__all__ = ["config", "prepared", "root", "source"]


def run(config: Config, **settings):
    return audit(config, Workspace.of(config), progress=False, **settings)


def done(config: Config, **teacher) -> Config:
    data = config.model_dump(mode="json", exclude_none=True)
    data["teacher"] |= teacher
    changed = Config.model_validate(data)
    precompute(changed, Workspace.of(changed), progress=False)
    return changed


def falsify(config: Config, modality: str, key: str, change: float) -> None:
    """Other numbers for one sample, with a record that names their digest."""
    workspace = Workspace.of(config)
    store = resolve(config, workspace, modality)
    shard = next(s for s in Manifest.load(workspace.dataset(config)).all_shards if key in s.keys)
    rows = store.read(shard, "embedding").copy()
    rows[shard.keys.index(key), 0] += np.float16(change)
    array = store.array(shard.split, "embedding")
    path = array.object_path(shard.index)
    write_bytes(path, array.encode(rows))
    ledger = store.path / "ledger" / shard.split / f"{shard.name}.json"
    record = read_json(ledger)
    write_json(ledger, record | {"objects": record["objects"] | {"embedding": sha256_file(path)}})


def test_targets_of_the_teacher_pass_raise_no_alarm(config: Config) -> None:
    report = run(done(config), share=1.0)
    assert report.passed
    assert {(row.modality, row.output) for row in report.rows} == {
        (m, o) for m in ("rgb", "nir", "depth") for o in ("embedding", "patch")
    }
    assert {row.modality: row.num_rows for row in report.rows} == {
        "rgb": 13,
        "nir": 12,
        "depth": 12,
    }
    assert all(1 - row.cosine_min <= report.tolerance for row in report.rows)
    record = read_json(Workspace.of(config).root / report.record)
    assert record["audited"]["seed"] == 0
    assert record["rows"][0]["cosine_min"] == report.rows[0].cosine_min


def test_targets_of_views_raise_no_alarm(config: Config) -> None:
    assert run(done(config, views=2, batch_size=6), share=1.0).passed


def test_a_sample_with_altered_targets_raises_an_alarm_by_key(config: Config) -> None:
    config = done(config)
    falsify(config, "rgb", "train_004", 0.05)
    report = run(config, share=1.0)
    assert not report.passed
    [row] = [row for row in report.rows if row.num_alarms]
    assert (row.modality, row.output) == ("rgb", "embedding")
    assert [alarm.key for alarm in row.alarms] == ["train_004"]
    assert run(config, share=1.0, tolerance=0.5).passed


def test_a_shard_whose_members_moved_raises_corrupt_shard(config: Config) -> None:
    config = done(config)
    shard = Manifest.load(Workspace.of(config).dataset(config)).all_shards[0]
    shard.path.chmod(0o644)
    shard.path.write_bytes(bytes(512) + shard.path.read_bytes())
    with pytest.raises(CorruptShard, match=rf"{shard.path.name}: expected member train_.*prepare"):
        run(config, share=1.0)


def test_rows_are_drawn_by_seed_and_share(config: Config) -> None:
    config = done(config)
    workspace = Workspace.of(config)
    shards = Manifest.load(workspace.dataset(config)).all_shards
    store = resolve(config, workspace, "depth")
    draws = [
        [(d.shard.name, d.row) for d in draw(store, shards, 0.0, [seed])] for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == LEAST_ROWS
    everything = draw(store, shards, 1.0, [3])
    assert len({d.key for d in everything}) == len(everything) == 12
    assert "train_002" not in {d.key for d in everything}


def test_missing_targets_are_not_drawn(config: Config) -> None:
    config = done(config)
    workspace = Workspace.of(config)
    store = resolve(config, workspace, "rgb")
    (store.path / "ledger" / "train" / "train-000000.json").unlink()
    shards = Manifest.load(workspace.dataset(config)).all_shards
    assert {d.shard.name for d in draw(store, shards, 1.0, [0])} == {
        "train-000001",
        "train-000002",
        "val-000000",
    }


def test_an_empty_cache_raises_missing_target(config: Config) -> None:
    with pytest.raises(MissingTarget, match="nothing is cached"):
        run(config)


def test_drift_is_the_least_cosine_and_the_largest_difference() -> None:
    one = np.array([[1.0, 0.0], [0.0, 1.0]])
    turned = np.array([[1.0, 0.0], [0.6, 0.8]])
    measured = drift("a", one, turned)
    assert (measured.cosine, measured.max_abs) == (pytest.approx(0.8), pytest.approx(0.6))
    assert drift("a", one, np.full_like(one, np.nan)).cosine == -1.0


@pytest.mark.parametrize("stored", ["float16", "float32"])
def test_rounding_errors_stay_below_the_default_tolerance(stored: str) -> None:
    """Random unit vectors rounded to the stored type drift by less than the default allows."""
    rng = np.random.default_rng([4])
    vectors = rng.normal(size=(2000, 768))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    worst = drift("", vectors.astype(stored), vectors).cosine
    assert 1 - worst < default_tolerance(stored, "float32") < 1e-6
