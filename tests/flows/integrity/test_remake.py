"""Exactly the units of findings are encoded again; other holes stay holes."""

from __future__ import annotations

from pathlib import Path

from flows.integrity.finding import Finding, Kind
from flows.integrity.remake import remake_targets
from pipeline.config.config import Config
from pipeline.shards.manifest import Manifest
from pipeline.targets.store import resolve
from pipeline.workspace import Workspace
from teacher.encoding.precompute import precompute
from tests.teacher.conftest import config, prepared, root, source

__all__ = ["config", "prepared", "root", "source"]


def test_only_what_was_found_is_made_again(config: Config) -> None:
    workspace = Workspace.of(config)
    precompute(config, workspace, progress=False)
    shards = Manifest.load(workspace.dataset(config)).all_shards
    stores = {name: resolve(config, workspace, name) for name in config.modalities}
    for name, index in (("rgb", 0), ("rgb", 1), ("nir", 1)):
        ledger = Path(str(stores[name].path)) / "ledger" / "train" / f"train-{index:06d}.json"
        ledger.unlink()
    finding = Finding(
        Kind.LEDGER_MISSING,
        str(stores["rgb"].path),
        "",
        shard="train-000001",
        modality="rgb",
        stage="precompute",
    )
    remake_targets(config, workspace, [finding], progress=False)
    missing = {name: [s.name for s in store.missing(shards)] for name, store in stores.items()}
    assert missing == {"rgb": ["train-000000"], "nir": ["train-000001"], "depth": []}
