"""Exactly the units of findings are encoded again; other holes stay holes."""

from __future__ import annotations

from pathlib import Path

from flows.integrity.finding import Kind
from flows.integrity.repair import repair
from pipeline.config.config import Config
from pipeline.shards.manifest import Manifest
from pipeline.targets.lookup import resolve
from pipeline.workspace import Workspace
from teacher.encoding.precompute import precompute
from tests.teacher.conftest import config, prepared, root, source

__all__ = ["config", "prepared", "root", "source"]


def test_only_reported_units_are_rebuilt(config: Config) -> None:
    workspace = Workspace.of(config)
    precompute(config, workspace, progress=False)
    shards = Manifest.load(workspace.dataset(config)).all_shards
    stores = {name: resolve(config, workspace, name) for name in config.modalities}
    broken, holes = ("rgb", 1), (("rgb", 0), ("nir", 1))
    for name, index in (broken, *holes):
        Path(str(stores[name].record_path(shards[index]))).unlink()
    for name, index in holes:
        for output in stores[name].provenance.outputs:
            stores[name].array("train", output).object_path(index).unlink()
    report = repair(config, workspace, progress=False)
    assert {finding.shard for finding in report.fixed} == {"train-000001"}
    assert {(left.finding.kind, Path(left.finding.location).name[:3]) for left in report.left} == {
        (Kind.HOLE, "rgb"),
        (Kind.HOLE, "nir"),
    }
    missing = {name: [s.name for s in store.missing(shards)] for name, store in stores.items()}
    assert missing == {"rgb": ["train-000000"], "nir": ["train-000001"], "depth": []}
