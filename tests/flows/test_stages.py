"""Stages by name."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows import stages
from pipeline.config.load import load_config
from pipeline.core.stage_report import StageReport
from pipeline.workspace import Workspace


@pytest.mark.parametrize("name", stages.STAGES)
def test_every_stage_of_the_table_loads(name: str) -> None:
    stage = stages.load_stage(name)
    assert stage.__name__ in (name, f"precompute_{name}")


def test_a_config_with_workers_selects_the_dask_pass(
    field: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(name: str):
        return lambda config, workspace: StageReport(name)

    monkeypatch.setattr("teacher.encoding.precompute.precompute", fake("here"))
    monkeypatch.setattr("teacher.encoding.dask_cluster.precompute_spread", fake("spread"))
    for overrides, expected in (([], "here"), (["scale.workers=2"], "spread")):
        config = load_config(field, overrides)
        assert stages.precompute(config, Workspace.of(config)).stage == expected


def test_student_stages_import_no_teacher() -> None:
    code = (
        "import sys; from flows.stages import load_stage; load_stage('train'); load_stage('evaluate'); "
        "print([name for name in sys.modules if name.split('.')[0] == 'teacher'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
