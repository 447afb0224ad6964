"""The probe measures the real parts and leaves nothing behind."""

from __future__ import annotations

import pytest

from flows.planning import probe as module
from flows.planning.estimate import Probe
from flows.planning.probe import ProbeSource, commit_seconds, measure
from pipeline.config.config import Config
from pipeline.datasets import open_dataset
from pipeline.shards.manifest import Manifest
from pipeline.shards.prepare_plan import probe_samples
from pipeline.workspace import Workspace
from teacher.encoding.encoder import Encoder
from teacher.encoding.units import plan_towers
from tests.teacher.conftest import config, prepared, root, source

__all__ = ["config", "prepared", "root", "source"]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITING_S", 0.05)
    monkeypatch.setattr(module, "BATCH_S", 0.05)


def measured(config: Config, source: ProbeSource) -> Probe:
    workspace = Workspace.of(config)
    return measure(config, workspace, plan_towers(config, workspace), source, Encoder("cpu"))


@pytest.mark.parametrize("views", [0, 2])
def test_every_part_is_measured_on_a_real_shard(config: Config, views: int) -> None:
    config = config.model_copy(
        update={"teacher": config.teacher.model_copy(update={"views": views})}
    )
    workspace = Workspace.of(config)
    before = {p for p in workspace.root.rglob("*") if p.is_file()}
    shard = Manifest.load(workspace.dataset(config)).all_shards[0]
    source = ProbeSource.of_shard(shard, tuple(config.modalities))
    assert {name: len(found) for name, found in source.images.items()} == {
        "rgb": 4,
        "nir": 4,
        "depth": 3,
    }
    found = measured(config, source)
    assert found.device == "cpu"
    assert set(found.towers) == set(found.commit_s) == {"image", "depth"}
    assert all(rate.image_s > 0 and rate.load_s > 0 for rate in found.towers.values())
    assert all(value > 0 for value in (*found.decode_s.values(), *found.commit_s.values()))
    assert found.read_s_per_byte > 0
    new = {p for p in workspace.root.rglob("*") if p.is_file()} - before
    assert {p.name for p in new} <= {"weights.json"}


def test_the_probe_works_before_prepare(config: Config) -> None:
    adapter = open_dataset(config.dataset, config.specs())
    probed = probe_samples(config, adapter, adapter.samples("train"))
    source = ProbeSource.of_samples(probed, tuple(config.modalities))
    assert source.read_s_per_byte == 0
    assert all(source.images.values())
    assert all(value > 0 for value in measured(config, source).decode_s.values())


def test_a_modality_without_images_costs_nothing(config: Config) -> None:
    source = ProbeSource({"rgb": [], "nir": [], "depth": []})
    found = measured(config, source)
    assert {rate.image_s for rate in found.towers.values()} == {0.0}
    assert set(found.decode_s.values()) == {0.0}


def test_a_failed_write_probe_leaves_nothing(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("pipeline.targets.store.TargetStore.commit", fail)
    workspace = Workspace.of(config)
    provenance = next(iter(plan_towers(config, workspace)[0].stores.values())).provenance
    with pytest.raises(OSError, match="disk full"):
        commit_seconds(workspace, provenance)
    assert not list(workspace.root.glob("cache/probe-*"))
