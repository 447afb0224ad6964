"""The command: its help, quick answers, and a one-line error for a mistake of the user."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.modalities import RENDERINGS

CONFIG = """
name = "t"
workspace = "./workspace"
dataset = { adapter = "synthetic", num_train = 4, num_val = 2, num_test = 2, size_px = 64 }
modalities = { rgb = {}, depth = {} }
"""


def any2seg(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "t.toml"
    path.write_text(CONFIG)
    return path


def test_help_names_every_command() -> None:
    shown = any2seg("--help").stdout
    stages = ("prepare", "precompute", "train", "evaluate", "report")
    for name in ("demo", "run", *stages, "status", "init", "doctor"):
        assert name in shown


@pytest.mark.parametrize("arguments", [["--help"], ["kinds"], ["--version"]])
def test_help_and_status_import_neither_torch_nor_prefect(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['prefect'] = sys.modules['transformers'] = None\n"
        "from flows.cli.main import main\n"
        f"sys.argv = ['any2seg', *{arguments!r}]\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_status_before_anything_was_made_lists_what_is_missing(config: Path) -> None:
    done = any2seg("status", str(config))
    assert done.returncode == 0, done.stderr
    assert "prepare" in done.stdout
    assert not (config.parent / "workspace").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.step=3", ["train.step", "did you mean steps"]),
        ("train.steps=-1", ["train.steps", "greater than 0", "-1"]),
        ("student.fusion=max", ["student.fusion", "'mff'", "'mean'", "max"]),
        ("modalities.x.kind=sonar", ["modalities.x.kind", "sonar", "thermal"]),
        ("dataset.adapter=coco", ["coco", "folder", "synthetic"]),
        ("student.lscd.dense=1", ["teacher.outputs", "patch"]),
        ("steps", ["FIELD=VALUE"]),
    ],
)
def test_a_wrong_field_is_named_with_the_allowed_values(
    config: Path, override: str, words: list[str]
) -> None:
    done = any2seg("status", str(config), "--set", override)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_missing_config_names_the_next_step(tmp_path: Path) -> None:
    done = any2seg("run", str(tmp_path / "none.toml"))
    assert done.returncode == 1
    assert "no such file" in done.stderr
    assert "configs/" in done.stderr


def test_train_before_precompute_says_what_to_run(config: Path) -> None:
    done = any2seg("train", str(config))
    assert done.returncode == 1
    assert "any2seg prepare" in done.stderr or "any2seg run" in done.stderr


def test_an_unknown_row_lists_the_rows(config: Path) -> None:
    done = any2seg("train", str(config), "--row", "best")
    assert done.returncode == 1
    assert "main" in done.stderr


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Eight pictures with labels, in a folder whose name needs quoting."""
    root = tmp_path / "my set"
    rng = np.random.default_rng(3)
    for split, index in itertools.product(("train", "val"), range(4)):
        for name, top in (("nir", 256), ("label", 3)):
            path = root / name / split / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, top, (20, 30), dtype=np.uint8)).save(path)
    return root


def test_init_writes_a_config_that_doctor_finds_ready(tree: Path, tmp_path: Path) -> None:
    made, sheet = tmp_path / "made.toml", tmp_path / "sheet.png"
    done = any2seg("init", str(tree), "-o", str(made))
    assert done.returncode == 0, done.stderr
    assert "any2seg doctor '" in done.stdout
    for config in ([], ["--config", str(made)]):
        checked = any2seg("doctor", str(tree), "--sheet", str(sheet), *config)
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert checked.stdout.rstrip().endswith("ready")
        assert sheet.exists()
        sheet.unlink()
    again = any2seg("init", str(tree), "-o", str(made))
    assert again.returncode == 1
    assert "--force" in again.stderr
    assert any2seg("prepare", str(made), "--set", f"workspace={tmp_path / 'ws'}").returncode == 0


def test_doctor_ends_with_what_to_fix_and_writes_no_other_file(tree: Path, tmp_path: Path) -> None:
    (tree / "nir/val/2.png").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    sheet = tmp_path / "sheet.png"
    done = any2seg("doctor", str(tree), "--dataset", "folder", "--all", "--sheet", str(sheet))
    assert done.returncode == 1
    assert "Fix:" in done.stdout
    assert "empty file" in done.stdout.splitlines()[-1]
    assert sorted(tmp_path.rglob("*")) == sorted([*before, sheet])


def test_doctor_of_a_published_data_set_names_the_folder_that_is_missing(tree: Path) -> None:
    done = any2seg("doctor", str(tree), "--dataset", "deliver", "--sheet", str(tree / "s.png"))
    assert done.returncode == 1
    assert "img" in done.stdout
    assert "Traceback" not in done.stderr


def test_teacher_examines_the_packaged_towers() -> None:
    done = any2seg("teacher", "languagebind-tiny")
    assert done.returncode == 0, done.stderr
    assert "image tower" in done.stdout
    assert "depth tower" in done.stdout
    assert "text tower" in done.stdout
    assert "FAIL" not in done.stdout


def test_an_unknown_teacher_is_a_one_line_error() -> None:
    done = any2seg("teacher", "no such teacher")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "no such teacher" in done.stderr


def test_describe_without_a_table_says_what_to_add(config: Path) -> None:
    done = any2seg("describe", str(config))
    assert done.returncode == 1
    assert "from_labels" in done.stderr


def test_descriptions_are_a_stage_of_a_config_that_asks_for_them(config: Path) -> None:
    wanted = ("--set", 'descriptions={source="from_labels"}')
    assert any2seg("prepare", str(config)).returncode == 0
    before = any2seg("status", str(config), *wanted).stdout
    assert "describe" in before
    done = any2seg("describe", str(config), *wanted)
    assert done.returncode == 0, done.stderr
    assert "1 done" in done.stdout
    assert "0 done" in any2seg("describe", str(config), *wanted).stdout


def test_kinds_names_every_kind_and_rendering_in_full() -> None:
    shown = any2seg("kinds").stdout
    for name in (*RENDERINGS, *RENDERINGS.values()):
        assert name in shown
