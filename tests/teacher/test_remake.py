"""Exactly the units of findings are encoded again; other holes stay holes."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import Config
from pipeline.manifest import Manifest
from pipeline.targets import resolve
from pipeline.verify_finding import Finding, Kind
from pipeline.workspace import Workspace
from teacher.encode import precompute
from teacher.remake import remake_targets


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
