"""One writing flow per workspace: a second one names the holder, a killed one leaves it free."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.flow_context import only_writer
from pipeline.errors import WorkspaceBusy
from pipeline.workspace import Workspace

HOLD = """
import sys, time
from pathlib import Path
from flows.flow_context import only_writer
from pipeline.workspace import Workspace
with only_writer(Workspace(Path(sys.argv[1])), "night-owl"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_busy_workspace_names_its_holder_and_a_killed_holder_does_not_block(
    tmp_path: Path,
) -> None:
    workspace = Workspace(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(WorkspaceBusy, match="night-owl") as caught, only_writer(workspace, "b"):
        pass
    assert str(process.pid) in str(caught.value)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with only_writer(workspace, "early-bird"):
        assert "early-bird" in (tmp_path / "flow.json").read_text()
    with only_writer(workspace, "b"):
        pass
