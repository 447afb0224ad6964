"""Folders of sensors that the packaged teacher has no tower for: init, prepare, precompute, train."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from flows.cli.main import app
from pipeline.config.load import load_config
from pipeline.errors import CheckpointError
from pipeline.shards.manifest import Manifest
from pipeline.targets.lookup import resolve
from pipeline.workspace import Workspace
from teacher.checkpoints.locate import ASSETS, TINY

SENSORS = {
    "thermal": ("thermal", np.uint8, 90, 140),
    "thermal16": ("thermal", np.uint16, 28_000, 31_000),
    "nir": ("nir", np.uint8, 10, 240),
    "sar": ("sar", np.uint8, 0, 60),
    "depth": ("depth", np.uint16, 900, 30_000),
}
"""Kind or sensor to folder, stored type, and the range of values."""
GREY = ("thermal", "thermal16", "nir", "sar")


def write_folder(root: Path, sensor: str) -> None:
    """Six images with labels of three classes; each class has its own brightness."""
    folder, dtype, low, high = SENSORS[sensor]
    rng = np.random.default_rng([7, len(sensor)])
    for split, index in itertools.product(("train", "val"), range(3)):
        label = np.repeat(rng.permutation(3), 8).astype(np.uint8)[:, None].repeat(32, axis=1)
        values = low + (high - low) * (label + rng.random(label.shape)) / 3
        for name, array in ((folder, values.astype(dtype)), ("label", label)):
            path = root / name / split / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)


def any2seg(*arguments: str) -> str:
    """What the command prints; raises what it raises."""
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The config that `init` writes for a folder of the sensor, in the current folder."""
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "images", request.param)
    any2seg("init", "images", "-o", "made.toml")
    return "made.toml"


@pytest.mark.parametrize(("made", "sensor"), [(s, s) for s in GREY], indirect=["made"])
def test_init_s_config_is_prepared_and_embedded_unedited(made: str, sensor: str) -> None:
    name = SENSORS[sensor][0]
    stated = f"{name}: image tower, grey_stretched"
    assert "sees it grey_stretched" in Path(made).read_text()
    assert stated in any2seg("doctor", "images", "--config", made)
    assert stated in any2seg("plan", made, "--no-probe")
    any2seg("prepare", made)
    any2seg("precompute", made)
    assert stated in any2seg("plan", made, "--no-probe")
    config = load_config(Path(made))
    workspace = Workspace.of(config)
    store = resolve(config, workspace, name)
    assert store.provenance.tower["rendering"]["name"] == "grey_stretched"
    shards = Manifest.load(workspace.dataset(config)).all_shards
    rows = np.concatenate([store.read(shard, "embedding") for shard in shards]).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-2)
    assert len(np.unique(rows.round(3), axis=0)) == len(rows) == 6


@pytest.mark.parametrize("made", ["depth"], indirect=True)
def test_depth_is_embedded_by_a_teacher_that_only_knows_images(made: str) -> None:
    any2seg("prepare", made)
    image_only = ("--set", f"teacher.name={ASSETS / TINY / 'LanguageBind_Image'}")
    assert "depth: image tower, inverse_depth" in any2seg("plan", made, "--no-probe", *image_only)
    any2seg("precompute", made, *image_only)
    any2seg("precompute", made)
    stores = list(Path("workspace").rglob("depth-*/provenance.json"))
    assert len(stores) == 2
    assert sum("inverse_depth" in store.read_text() for store in stores) == 1


@pytest.mark.parametrize("made", ["thermal16"], indirect=True)
def test_a_student_of_16_bit_thermal_images_trains(made: str) -> None:
    any2seg("prepare", made)
    any2seg("precompute", made)
    assert "2 done" in any2seg("train", made, "--set", "train.steps=2")


@pytest.mark.parametrize("made", ["thermal"], indirect=True)
@pytest.mark.parametrize("command", ["run", "refresh-teacher", "prepare"])
def test_a_tower_that_the_teacher_lacks_is_refused_before_the_first_byte(
    made: str, command: str
) -> None:
    before = sorted(Path().rglob("*"))
    with pytest.raises(CheckpointError, match=r'modalities\.thermal\.tower = "thermal".*Remove it'):
        any2seg(command, made, "--set", "modalities.thermal.tower=thermal")
    assert sorted(Path().rglob("*")) == before
