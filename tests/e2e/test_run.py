"""The whole chain through the command and a real Prefect server, on small rendered data."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import command, environment, files_of

pytestmark = [pytest.mark.slow, pytest.mark.server]


def run_dirs(config: Path) -> dict[str, Path]:
    """Run folders by experiment name."""
    return {p.name.rpartition("-")[0]: p for p in (config.parent / "workspace/runs").iterdir()}


def test_every_subset_of_both_rows_is_scored(finished: Path) -> None:
    runs = run_dirs(finished)
    assert set(runs) == {"small", "small-mean-fusion"}
    for run in runs.values():
        scores = json.loads((run / "evaluation.json").read_text())
        subsets = {tuple(s["modalities"]) for s in scores["subsets"]}
        assert len(scores["subsets"]) == len(subsets) == 15
        assert scores["split"] == "test"
        assert scores["num_samples"] == 8
        assert all(0.0 <= s["miou"] <= 1.0 for s in scores["subsets"])


def test_the_report_is_one_self_contained_page(finished: Path) -> None:
    page = (run_dirs(finished)["small"] / "report" / "index.html").read_text()
    assert "small-mean-fusion" in page or "mean-fusion" in page
    assert "http-equiv" not in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_a_second_run_changes_no_file(finished: Path, prefect_home: Path) -> None:
    workspace = finished.parent / "workspace"
    before = {p: p.stat().st_mtime_ns for p in workspace.rglob("*") if p.is_file()}
    again = subprocess.run(
        command("run", str(finished)),
        env=environment(prefect_home),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Nothing to do" in again.stdout
    assert {p: p.stat().st_mtime_ns for p in workspace.rglob("*") if p.is_file()} == before


def test_status_of_a_finished_run_has_nothing_missing(finished: Path, prefect_home: Path) -> None:
    from flows.planning.status import first_missing, status_rows
    from pipeline.config.load import load_config
    from pipeline.workspace import Workspace

    config = load_config(finished)
    assert first_missing(config, Workspace.of(config)) is None
    assert {r.stage for r in status_rows(config, Workspace.of(config))} >= {
        "prepare",
        "precompute",
        "train",
        "evaluate",
        "report",
    }
    shown = subprocess.run(
        command("status", str(finished)),
        env=environment(prefect_home),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "lidar" in shown.stdout


def test_wiping_prefect_recomputes_nothing(finished: Path, tmp_path: Path) -> None:
    again = subprocess.run(
        command("run", str(finished)),
        env=environment(tmp_path / "another-prefect"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Nothing to do" in again.stdout


def test_a_student_is_retrained_without_teacher_code_or_weights(
    finished: Path, tmp_path: Path
) -> None:
    """`transformers` and `teacher` cannot be imported; the packaged weights are not there."""
    config = tmp_path / "small.toml"
    shutil.copy(finished, config)
    shutil.copytree(finished.parent / "workspace", tmp_path / "workspace")
    script = (
        "import sys\n"
        "sys.modules['transformers'] = None\n"
        "sys.modules['teacher'] = None\n"
        "from flows.cli.main import main\n"
        f"sys.argv = ['any2seg', 'train', {str(config)!r}, '--set', 'train.steps=2',"
        " '--set', 'name=again']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert any(p.name.startswith("again-") for p in (tmp_path / "workspace/runs").iterdir())


def test_a_new_class_prompt_re_embeds_text_only(finished: Path, tmp_path: Path) -> None:
    shutil.copy(finished, tmp_path / "small.toml")
    shutil.copytree(finished.parent / "workspace", tmp_path / "workspace")
    before = files_of(tmp_path / "workspace/targets")
    subprocess.run(
        command("precompute", str(tmp_path / "small.toml"), "--set", "teacher.templates=driving"),
        env=environment(tmp_path),
        check=True,
        capture_output=True,
    )
    assert files_of(tmp_path / "workspace/targets") == before
    stores = [p for p in (tmp_path / "workspace/prompts").iterdir() if p.name != "index"]
    assert len(stores) == 2
