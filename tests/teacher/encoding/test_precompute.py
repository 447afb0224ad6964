"""The precompute stage: right rows, nothing twice, byte-identical after a kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import teacher
from pipeline.config.config import Config
from pipeline.config.load import dump_config
from pipeline.config.teacher import DenseTeacherConfig
from pipeline.errors import ConfigError, CorruptTarget, DatasetError
from pipeline.formats.image_codec import decode_image
from pipeline.formats.shard_tar import image_member, read_shard
from pipeline.shards.manifest import Manifest
from pipeline.targets.lookup import resolve
from pipeline.targets.prompts import resolve_prompts
from pipeline.workspace import Workspace
from teacher.encoding.encoder import Encoder
from teacher.encoding.precompute import precompute, precompute_prompts
from teacher.encoding.units import Unit, num_targets, plan_towers, plan_units, split_units
from teacher.preprocessing.rendering import render
from tests.teacher.conftest import DIM, SECOND_DIM, make_config


def run(config: Config) -> Any:
    return precompute(config, Workspace.of(config), progress=False)


def stored_bytes(config: Config) -> dict[str, bytes]:
    """Every file under targets and prompts but the cost journal and locks."""
    root = Workspace.of(config).root
    files = [p for name in ("targets", "prompts") for p in (root / name).rglob("*") if p.is_file()]
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in files
        if "cost" not in path.parts and path.name != ".lock"
    }


def test_every_row_is_the_embedding_of_its_own_picture(config: Config, source: Path) -> None:
    report = run(config)
    assert (report.done, report.skipped, report.failed) == (4 * 3 + 1, 0, ())
    workspace = Workspace.of(config)
    rows = 0
    for name, spec in config.specs().items():
        tower = teacher.load_tower(str(source), spec.tower)
        store = resolve(config, workspace, name)
        for shard in Manifest.load(workspace.dataset(config)).all_shards:
            members = dict(read_shard(shard.path, shard.sha256))
            found = {o: store.read(shard, o) for o in ("embedding", "patch")}
            for row, key in enumerate(shard.keys):
                if not shard.present[name][row]:
                    assert all(np.isnan(array[row]).all() for array in found.values())
                    continue
                picture = decode_image(members[key][image_member(name)], spec, key)
                shown = render(picture, spec, "grey_stretched" if name == "nir" else "as_stored")
                output = tower.encode(tower.preprocess([shown]), patch=True)
                for out, array in found.items():
                    expected = getattr(output, out)[0].numpy()
                    np.testing.assert_allclose(array[row], expected, atol=6e-4)
                rows += 1
            assert store.cost(shard)["num_pictures"] == sum(shard.present[name])
            assert store.cost(shard)["seconds"] > 0
    assert rows == 3 * (10 + 3) - 2


def test_prompts_are_kept_with_their_mean(config: Config, source: Path) -> None:
    run(config)
    store = resolve_prompts(config, Workspace.of(config))
    expected = teacher.load_text_tower(str(source)).encode(["a photo of a road."]).numpy()[0]
    np.testing.assert_allclose(store.class_embedding()[0], expected, atol=1e-6)
    assert store.prompt_embedding().shape == (3, 1, 12)


def test_a_second_run_needs_no_torch(config: Config, root: Path) -> None:
    run(config)
    (root / "config.toml").write_text(dump_config(config))
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from pipeline.config.load import load_config\n"
        "from pipeline.workspace import Workspace\n"
        "from teacher.encoding.precompute import precompute\n"
        f"config = load_config({str(root / 'config.toml')!r})\n"
        "report = precompute(config, Workspace.of(config))\n"
        "assert (report.done, report.skipped) == (0, 13), report\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_a_hole_is_filled_with_the_very_same_bytes(config: Config) -> None:
    run(config)
    whole = stored_bytes(config)
    store = resolve(config, Workspace.of(config), "nir")
    (store.path / "ledger" / "train" / "train-000001.json").unlink()
    store.array("train", "patch").object_path(1).unlink()
    assert run(config).done == 1
    assert stored_bytes(config) == whole


def test_killed_and_called_again_gives_the_same_bytes(config: Config, root: Path) -> None:
    whole_config = Config.model_validate(
        {**config.model_dump(mode="json", exclude_none=True), "workspace": str(root / "whole")}
    )
    shutil.copytree(root / "workspace", root / "whole")
    run(whole_config)
    (root / "config.toml").write_text(dump_config(config))
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from pipeline.config.load import load_config\n"
        "from pipeline.workspace import Workspace\n"
        "from teacher.encoding.precompute import precompute\n"
        f"config = load_config({str(root / 'config.toml')!r})\n"
        "precompute(config, Workspace.of(config), progress=False)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    ledgers = root / "workspace" / "targets"
    deadline = time.monotonic() + 200
    while not list(ledgers.rglob("ledger/*/*.json")) and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    report = run(config)
    assert report.skipped > 0
    assert stored_bytes(config) == stored_bytes(whole_config)


@pytest.fixture(scope="module")
def whole(prepared: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An uninterrupted pass: its config and its bytes."""
    config = in_copy(prepared, source, tmp_path_factory.mktemp("whole"))
    run(config)
    return config, stored_bytes(config)


def in_copy(prepared: Path, source: Path, folder: Path) -> Config:
    """The config with a copy of the prepared workspace."""
    shutil.copytree(prepared / "workspace", folder / "workspace")
    data = make_config(prepared, source).model_dump(mode="json", exclude_none=True)
    return Config.model_validate({**data, "workspace": str(folder / "workspace")})


@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_any_ranges_in_any_order_give_the_same_bytes_and_nothing_twice(
    data: st.DataObject, whole: Any, prepared: Path, source: Path
) -> None:
    encoder = kept_encoder()
    with tempfile.TemporaryDirectory() as folder:
        config = in_copy(prepared, source, Path(folder))
        workspace = Workspace.of(config)

        def make(units: list[Unit]) -> int:
            report = precompute(config, workspace, units=units, encoder=encoder, progress=False)
            return int(report.done)

        manifest = Manifest.load(workspace.dataset(config))
        units = plan_units(plan_towers(config, workspace), manifest.all_shards)
        before = data.draw(st.lists(st.sampled_from(units), max_size=3), "already done")
        parts = split_units(units, data.draw(st.integers(1, 6), "ranges"))
        parts += data.draw(st.lists(st.sampled_from(parts), max_size=2), "given out twice")
        done = make(before) + sum(map(make, data.draw(st.permutations(parts), "order")))
        assert done == num_targets(units) == 12
        assert precompute_prompts(config, workspace).done == 1
        assert stored_bytes(config) == whole[1]
        assert run(config).done == 0


@cache
def kept_encoder() -> Encoder:
    return Encoder("cpu")


@pytest.fixture
def two_teachers(config: Config, second_source: Path) -> Config:
    """The config with a second teacher for the patches."""
    second = DenseTeacherConfig(name=str(second_source))
    return config.model_copy(update={"dense_teacher": second})


class Counting(Encoder):
    """Counts the images that went through each tower of each teacher's width."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.num_images: Counter[int] = Counter()

    def encode(self, tower: Any, images: Any, outputs: Any) -> Any:
        self.num_images[tower.embedding_dim] += len(images)
        return super().encode(tower, images, outputs)


def test_a_second_teacher_is_encoded_beside_the_first(
    two_teachers: Config, whole: Any, prepared: Path, source: Path, tmp_path: Path
) -> None:
    encoder = Counting()
    workspace = Workspace.of(two_teachers)
    report = precompute(two_teachers, workspace, encoder=encoder, progress=False)
    assert (report.done, report.skipped) == (2 * 12 + 1, 0)
    assert encoder.num_images == {DIM: 3 * 13 - 2, SECOND_DIM: 3 * 13 - 2}
    both = stored_bytes(two_teachers)
    # The first teacher's files are those of a pass without a second one.
    assert {name: both[name] for name in whole[1]} == whole[1]
    second = two_teachers.for_teacher("dense_teacher")
    alone = in_copy(prepared, source, tmp_path / "alone")
    alone = alone.model_copy(update={"teacher": second.teacher})
    run(alone)
    theirs = {name: data for name, data in stored_bytes(alone).items() if "targets" in name}
    assert {name: both[name] for name in theirs} == theirs
    again = precompute(two_teachers, workspace, progress=False)
    assert (again.done, again.skipped) == (0, 25)


KILLED_BETWEEN = """
import os, signal, sys, time
from pathlib import Path
import torch; torch.set_num_threads(1)
from pipeline.config.load import load_config
from pipeline.workspace import Workspace
from teacher.encoding.encoder import Encoder
from teacher.encoding.precompute import precompute

targets = Path(sys.argv[2])
encode = Encoder.encode
def killed(self, tower, images, outputs):
    if tower.embedding_dim == 8:
        while len(list(targets.rglob("ledger/*/*.json"))) < 3:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(self, tower, images, outputs)
Encoder.encode = killed
config = load_config(sys.argv[1])
precompute(config, Workspace.of(config), progress=False)
"""


def test_killed_between_the_two_teachers_it_encodes_nothing_twice(
    two_teachers: Config, root: Path
) -> None:
    (root / "config.toml").write_text(dump_config(two_teachers))
    arguments = [str(root / "config.toml"), str(root / "workspace" / "targets")]
    process = subprocess.run(
        [sys.executable, "-c", KILLED_BETWEEN, *arguments],
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert process.returncode == -signal.SIGKILL
    # Of the first shard the first teacher's three modalities; of the second teacher nothing.
    workspace = Workspace.of(two_teachers)
    shards = Manifest.load(workspace.dataset(two_teachers)).all_shards
    done = sum(sum(shards[0].present[name]) for name in two_teachers.modalities)
    encoder = Counting()
    report = precompute(two_teachers, workspace, encoder=encoder, progress=False)
    assert (report.done, report.skipped) == (24 + 1 - 3 - 1, 3 + 1)
    assert encoder.num_images == {DIM: 3 * 13 - 2 - done, SECOND_DIM: 3 * 13 - 2}


def test_units_belong_to_one_teacher(two_teachers: Config, config: Config) -> None:
    workspace = Workspace.of(two_teachers)
    asked = Unit("train", 1, "image", ("nir",), 3, "dense_teacher")
    report = precompute(two_teachers, workspace, units=[asked], progress=False)
    assert (report.done, report.skipped) == (1, 0)
    assert report.details["units"] == ["train-000001 dense_teacher image (nir)"]
    first = Unit("train", 1, "image", ("nir",), 3)
    assert precompute(two_teachers, workspace, units=[first], progress=False).done == 1
    with pytest.raises(ConfigError, match=r"has no table \[dense_teacher\]"):
        precompute(config, workspace, units=[asked])


def test_units_of_another_dataset_or_config_are_refused(config: Config) -> None:
    workspace = Workspace.of(config)
    gone = Unit("train", 99, "image", ("rgb",), 4)
    with pytest.raises(DatasetError, match="has no shard train-000099"):
        precompute(config, workspace, units=[gone])
    other = Unit("train", 0, "image", ("thermal",), 4)
    with pytest.raises(ConfigError, match="expected modalities among rgb, nir, depth"):
        precompute(config, workspace, units=[other])


def test_a_part_of_a_unit_is_done_alone(config: Config) -> None:
    workspace = Workspace.of(config)
    asked = Unit("train", 1, "image", ("nir",), 3)
    report = precompute(config, workspace, units=[asked], progress=False)
    assert (report.done, report.skipped) == (1, 0)
    assert report.details["units"] == ["train-000001 image (nir)"]
    report = precompute(config, workspace, units=[asked], progress=False)
    assert (report.done, report.skipped) == (0, 1)


def test_new_templates_leave_the_pictures_alone(config: Config) -> None:
    run(config)
    teacher_settings = config.teacher.model_copy(update={"templates": "driving"})
    report = run(config.model_copy(update={"teacher": teacher_settings}))
    assert (report.done, report.skipped) == (1, 12)


@pytest.mark.parametrize(
    ("field", "value", "recorded", "done"),
    [
        ("max_depth_m", 80.0, "max_depth_m", 4),
        ("depth_holes", "far", "holes", 4),
        ("antialias", True, "antialias", 12),
    ],
)
def test_new_preprocessing_is_another_store(
    config: Config, field: str, value: object, recorded: str, done: int
) -> None:
    run(config)
    before = resolve(config, Workspace.of(config), "depth").provenance
    other = config.model_copy(update={"teacher": config.teacher.model_copy(update={field: value})})
    report = run(other)
    assert (report.done, report.skipped) == (done, 13 - done)
    after = resolve(other, Workspace.of(other), "depth").provenance
    assert before.tower_fingerprint != after.tower_fingerprint
    assert after.tower["preprocessing"][recorded] == value
    assert resolve(config, Workspace.of(config), "depth").provenance == before


@pytest.fixture
def broken_source(source: Path, tmp_path: Path) -> Callable[[float], Path]:
    def make(value: float) -> Path:
        copy = shutil.copytree(source, tmp_path / "broken")
        weights = copy / "LanguageBind_Depth" / "model.safetensors"
        state = {name: tensor.clone() for name, tensor in load_file(weights).items()}
        state["visual_projection.weight"][:] = value
        weights.unlink()
        save_file(state, weights)
        return copy

    return make


def test_a_number_that_is_not_finite_names_the_sample(
    config: Config, broken_source: Callable[[float], Path]
) -> None:
    name = str(broken_source(3e38))  # finite weights whose products are not
    broken = config.model_copy(update={"teacher": config.teacher.model_copy(update={"name": name})})
    with pytest.raises(CorruptTarget, match="sample train_000: depth embedding"):
        run(broken)
