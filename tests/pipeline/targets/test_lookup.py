"""The index from requests to stores."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import MissingTarget
from pipeline.targets.lookup import look_up, point_to, point_to_store, resolve, target_request
from pipeline.targets.provenance import TargetProvenance
from pipeline.targets.store import TargetStore
from pipeline.workspace import Workspace


def test_a_request_finds_its_store_and_only_that(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        point_to(tmp_path, "rgb", {"teacher": name}, tmp_path / name)
    assert look_up(tmp_path, "rgb", {"teacher": "one"}) == tmp_path / "one"
    assert look_up(tmp_path, "rgb", {"teacher": "two"}) == tmp_path / "two"
    for what, teacher in (("nir", "one"), ("rgb", "three")):
        with pytest.raises(MissingTarget, match=f"{what} as configured. Run `any2seg precompute"):
            look_up(tmp_path, what, {"teacher": teacher})


def test_the_last_pass_wins_and_writing_again_changes_nothing(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        point_to(tmp_path, "rgb", {"teacher": "x"}, tmp_path / name)
    assert look_up(tmp_path, "rgb", {"teacher": "x"}) == tmp_path / "two"
    (entry,) = (tmp_path / "index").iterdir()
    before = entry.stat().st_mtime_ns
    point_to(tmp_path, "rgb", {"teacher": "x"}, tmp_path / "two")
    assert entry.stat().st_mtime_ns == before


def test_a_moved_workspace_still_finds_its_stores(tmp_path: Path) -> None:
    root = tmp_path / "a"
    (root / "one").mkdir(parents=True)
    point_to(root, "rgb", {}, root / "one")
    moved = root.rename(tmp_path / "b")
    assert look_up(moved, "rgb", {}) == moved / "one"


def test_a_garbled_entry_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    point_to(tmp_path, "rgb", {}, tmp_path / "one")
    (entry,) = (tmp_path / "index").iterdir()
    for data in (b"{", b"null", b"[]", b"{}", b'{"store": "\xff"}'):
        entry.write_bytes(data)
        with pytest.raises(MissingTarget, match="nothing was computed for rgb"):
            look_up(tmp_path, "rgb", {})
    point_to(tmp_path, "rgb", {}, tmp_path / "one")
    assert look_up(tmp_path, "rgb", {}) == tmp_path / "one"


def store_of(modality: str) -> TargetProvenance:
    return TargetProvenance(
        modality=modality,
        teacher="t",
        spec={"kind": modality},
        tower={},
        outputs={"embedding": (6,)},
        shard_size=32,
    )


def test_a_config_finds_its_store_without_weights(
    make_source: Callable, make_config: Callable, tmp_path: Path
) -> None:
    make_source(train=1)
    config = make_config()
    workspace = Workspace.of(config)
    with pytest.raises(MissingTarget, match="nothing was computed for rgb as configured"):
        resolve(config, workspace, "rgb")
    store = TargetStore.create(workspace.targets(config), store_of("rgb"))
    point_to_store(config, workspace, store)
    assert resolve(config, workspace, "rgb").path == store.path
    for override in ("teacher.antialias=true", "teacher.revision=v1", "store.dtype=float32"):
        with pytest.raises(MissingTarget):
            resolve(make_config(override), workspace, "rgb")
    shutil.rmtree(store.path)
    with pytest.raises(MissingTarget, match="which no longer exists"):
        resolve(config, workspace, "rgb")


def test_a_request_holds_only_what_concerns_the_tower(make_config: Callable) -> None:
    plain, deeper = make_config(), make_config("teacher.max_depth_m=20.0")
    assert target_request(plain, "rgb") == target_request(deeper, "rgb")
    assert target_request(plain, "depth") != target_request(deeper, "depth")
    for irrelevant in ("teacher.batch_size=1", "teacher.templates=driving", "train.steps=3"):
        assert target_request(make_config(irrelevant), "depth") == target_request(plain, "depth")


def test_a_request_names_a_rendering_only_where_it_changes_something(make_config: Callable) -> None:
    plain = target_request(make_config(), "rgb")
    assert "rendering" not in plain
    assert target_request(make_config("modalities.rgb.rendering=as_stored"), "rgb") == plain
    thermal = "modalities.t.kind=thermal"
    own = target_request(make_config(thermal), "t")
    assert "rendering" not in own
    for chosen in ("as_stored", "grey_stretched"):
        request = target_request(make_config(thermal, f"modalities.t.rendering={chosen}"), "t")
        assert request == own | {"rendering": chosen}
    image = "modalities.t={kind='nir'}"
    assert target_request(make_config(image), "t")["rendering"] == "grey_stretched"
    stored = make_config(image, "modalities.t.rendering=as_stored")
    assert "rendering" not in target_request(stored, "t")


def test_an_entry_that_leads_to_another_modality_serves_nothing(
    make_source: Callable, make_config: Callable
) -> None:
    """Its folder is whole and named rightly; taking it would teach depth by the embeddings of RGB."""
    make_source(train=1)
    config = make_config()
    workspace = Workspace.of(config)
    root = workspace.targets(config)
    stores = {name: TargetStore.create(root, store_of(name)) for name in ("rgb", "depth")}
    point_to(root, "depth", target_request(config, "depth"), stores["rgb"].path)
    with pytest.raises(MissingTarget, match=r"targets of depth.*those of rgb.*precompute"):
        resolve(config, workspace, "depth")
    point_to_store(config, workspace, stores["depth"])
    assert resolve(config, workspace, "depth") == stores["depth"]
