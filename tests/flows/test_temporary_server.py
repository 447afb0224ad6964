"""The temporary Prefect server lives exactly as long as its run."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.server]

HOLD = """
import sys, time
from flows.temporary_server import prefect_api
with prefect_api() as url:
    print(url, flush=True)
    if sys.argv[1] == "hold":
        time.sleep(600)
"""


def start(home: Path, mode: str, **extra: str) -> subprocess.Popen[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, mode],
        env=inherited | {"PREFECT_HOME": str(home)} | extra,
        stdout=subprocess.PIPE,
        text=True,
    )


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.proof
def test_a_killed_run_leaves_no_server(tmp_path: Path) -> None:
    process = start(tmp_path, "hold")
    url = url_of(process)
    assert answers(url)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 20
    while answers(url) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not answers(url)


def test_a_configured_server_is_used_and_none_is_started(tmp_path: Path) -> None:
    process = start(tmp_path, "leave", PREFECT_API_URL="http://127.0.0.1:1/api")
    assert url_of(process) == "http://127.0.0.1:1/api"
    assert process.wait(timeout=60) == 0
    process.stdout.close()
