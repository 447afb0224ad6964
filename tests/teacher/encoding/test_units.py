"""Which modalities go through which tower, and how the missing pieces are dealt out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.config.teacher import DenseTeacherConfig
from pipeline.errors import CheckpointError, ConfigError, MissingTarget
from pipeline.shards.manifest import Manifest
from pipeline.targets.lookup import resolve
from pipeline.workspace import Workspace
from teacher.encoding.units import (
    Unit,
    bytes_to_write,
    num_targets,
    outdated_modalities,
    plan_towers,
    plan_units,
    split_units,
)
from tests.teacher.conftest import SECOND_DIM


def make_config(folder: Path, source: Path, modalities: dict[str, Any]) -> Config:
    return Config.model_validate(
        {
            "name": "plan",
            "workspace": str(folder),
            "dataset": {"adapter": "synthetic", "num_train": 1, "num_val": 1, "num_test": 1},
            "modalities": modalities,
            "teacher": {"name": str(source), "outputs": ["embedding", "patch"]},
        }
    )


def test_modalities_share_towers_and_every_request_leads_to_a_store(
    tmp_path: Path, source: Path
) -> None:
    modalities: dict[str, Any] = {"rgb": {}, "depth": {}, "event": {}, "lidar": {}}
    config = make_config(tmp_path, source, modalities)
    plans = plan_towers(config, Workspace.of(config))
    assert [tuple(plan.specs) for plan in plans] == [("rgb", "event"), ("depth", "lidar")]
    assert not Workspace.of(config).targets(config).exists()
    for plan in plans:
        plan.create_stores(config, Workspace.of(config))
        for name, store in plan.stores.items():
            assert resolve(config, Workspace.of(config), name) == store
            assert store.provenance.outputs == {"embedding": (12,), "patch": (4, 12)}


def test_a_tower_that_cannot_read_a_modality_is_refused(tmp_path: Path, source: Path) -> None:
    config = make_config(tmp_path, source, {"rgb": {"tower": "depth"}})
    with pytest.raises(ConfigError, match=r"modalities\.rgb\.tower: the depth tower reads millim"):
        plan_towers(config, Workspace.of(config))


@pytest.mark.parametrize("tower", ["video", "audio"])
def test_a_tower_of_what_shards_do_not_hold_is_refused(tmp_path: Path, tower: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        f'name = "plan"\nmodalities = {{ rgb = {{ tower = "{tower}" }} }}\n'
        'dataset = { adapter = "synthetic", num_train = 1, num_val = 1, num_test = 1 }\n'
    )
    with pytest.raises(
        ConfigError, match=r"modalities\.rgb\.tower: .*'image', 'depth' or 'thermal'"
    ):
        load_config(path)


def test_a_tower_that_the_source_lacks_is_named(tmp_path: Path, source: Path) -> None:
    config = make_config(tmp_path, source, {"rgb": {"tower": "thermal"}})
    with pytest.raises(CheckpointError, match=r"modalities\.rgb\.tower = .*no thermal tower"):
        plan_towers(config, Workspace.of(config))


def test_two_teachers_are_planned_side_by_side(config: Config, second_source: Path) -> None:
    alone = plan_towers(config, Workspace.of(config))
    both = config.model_copy(
        update={"dense_teacher": DenseTeacherConfig(name=str(second_source), dtype="bfloat16")}
    )
    workspace = Workspace.of(both)
    plans = plan_towers(both, workspace)
    assert plans[: len(alone)] == alone
    labels = ["image", "depth", "dense_teacher image", "dense_teacher depth"]
    assert [plan.label for plan in plans] == labels
    for plan in plans:
        plan.create_stores(both, workspace)
        for name, store in plan.stores.items():
            assert resolve(both.for_teacher(plan.teacher), workspace, name) == store
    assert [set(plan.stores["rgb"].provenance.outputs) for plan in plans[::2]] == [
        {"embedding", "patch"}
    ] * 2
    assert plans[2].stores["rgb"].provenance.dim == SECOND_DIM
    assert plans[2].stores["rgb"].provenance.tower["compute_dtype"] == "bfloat16"
    stores = [store.path for plan in plans for store in plan.stores.values()]
    assert len(set(stores)) == len(stores) == 6
    shards = Manifest.load(workspace.dataset(both)).all_shards
    units = plan_units(plans, shards)
    assert [u for u in units if u.teacher == "teacher"] == plan_units(alone, shards)
    assert num_targets(units) == 2 * len(shards) * 3
    sizes = [bytes_to_write(p, plan_units(p, shards)) for p in (plans, alone, plans[2:])]
    assert sizes[0] == sizes[1] + sizes[2] > sizes[1]


def test_a_rendering_is_part_of_the_store_and_stored_values_are_not(
    tmp_path: Path, source: Path
) -> None:
    modalities = {"nir": {}, "plain": {"kind": "nir", "rendering": "as_stored"}, "thermal": {}}
    config = make_config(tmp_path, source, modalities)
    [plan] = plan_towers(config, Workspace.of(config))
    assert (plan.tower, plan.specs["thermal"].tower) == ("image", "thermal")
    towers = {name: store.provenance.tower for name, store in plan.stores.items()}
    assert towers["nir"] == towers["thermal"]
    assert towers["nir"]["rendering"] == {"name": "grey_stretched", "version": 1}
    assert towers["plain"] == {k: v for k, v in towers["nir"].items() if k != "rendering"}


def test_a_teacher_of_images_alone_embeds_every_sensor(tmp_path: Path, source: Path) -> None:
    modalities: dict[str, Any] = {"rgb": {}, "depth": {}, "lidar": {}}
    config = make_config(tmp_path, source / "LanguageBind_Image", modalities)
    [plan] = plan_towers(config, Workspace.of(config))
    assert [str(seen) for seen in plan.inputs.values()] == [
        "rgb: image tower, as_stored",
        "depth: image tower, inverse_depth",
        "lidar: image tower, sparse_range",
    ]
    assert len({store.provenance.tower_fingerprint for store in plan.stores.values()}) == 3


def unit(index: int, num_pictures: int) -> Unit:
    return Unit("train", index, "image", ("rgb",), num_pictures)


@given(
    counts=st.lists(st.integers(0, 300), max_size=40),
    num_parts=st.integers(1, 12),
)
def test_ranges_are_contiguous_complete_and_even(counts: list[int], num_parts: int) -> None:
    units = [unit(index, count) for index, count in enumerate(counts)]
    parts = split_units(units, num_parts)
    assert [u for part in parts for u in part] == units
    assert len(parts) <= num_parts
    assert all(parts)
    weights = [max(count, 1) for count in counts]
    for part in parts:
        share = sum(max(u.num_pictures, 1) for u in part)
        assert share <= sum(weights) / num_parts + max(weights)


def test_no_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 1, found 0"):
        split_units([unit(0, 1)], 0)


def test_a_unit_names_its_shard_tower_and_modalities() -> None:
    assert str(unit(3, 7)) == "train-000003 image (rgb)"


def test_a_teacher_that_changed_on_this_machine_is_seen_without_a_hub(
    config: Config, source: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(source, tmp_path / "teacher")
    ours = config.teacher.model_copy(update={"name": str(copy)})
    config = config.model_copy(update={"teacher": ours})
    workspace = Workspace.of(config)
    with pytest.raises(MissingTarget):
        outdated_modalities(config, workspace)
    for plan in plan_towers(config, workspace):
        plan.create_stores(config, workspace)
    assert outdated_modalities(config, workspace) == ()
    weights = copy / "LanguageBind_Depth" / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert outdated_modalities(config, workspace) == ("depth",)
    shutil.rmtree(copy)
    assert outdated_modalities(config, workspace) == ()
