"""The command: it teaches, answers at once, and turns a user's mistake into one line."""

import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = """
name = "t"
workspace = "./workspace"
dataset = { adapter = "synthetic", num_train = 4, num_val = 2, num_test = 2, size_px = 64 }
modalities = { rgb = {}, depth = {} }
"""


def any2seg(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "t.toml"
    path.write_text(CONFIG)
    return path


def test_help_names_every_command() -> None:
    shown = any2seg("--help").stdout
    for name in ("demo", "run", "prepare", "precompute", "train", "evaluate", "report", "status"):
        assert name in shown


@pytest.mark.parametrize("arguments", [["--help"], ["kinds"], ["--version"]])
def test_quick_answers_import_neither_torch_nor_prefect(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['prefect'] = sys.modules['transformers'] = None\n"
        "from flows.cli import main\n"
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
