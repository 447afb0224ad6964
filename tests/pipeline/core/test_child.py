"""Children: they end with a killed parent, leave nothing behind, and their deaths read well."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.core import child
from pipeline.core.child import Exit, death_text, run_module, start_function, start_module, stop

LIMIT_S = 2.0
"""Seconds within which a child ends once its parent was killed."""

MODULE = """
import time
from pipeline.core.child import start_module
inner = start_module("sleeper")
print(inner.pid, flush=True)
time.sleep(600)
"""
FUNCTION = """
import time
from pipeline.core.child import start_function
if __name__ == "__main__":
    inner = start_function(time.sleep, 600)
    time.sleep(1.5)
    print(inner.pid, flush=True)
    time.sleep(600)
"""
POOL = """
import operator, os, time
from pipeline.core.parallel_map import map_in_order
from sleeper import pid_and_sleep
if __name__ == "__main__":
    for pid in map_in_order(pid_and_sleep, range(64), 2):
        print(pid, flush=True)
"""
SLEEPER = """
import os, time
def pid_and_sleep(number):
    if number:
        time.sleep(600)
    return os.getpid()
if __name__ == "__main__":
    time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules children can run."""
    root = str(Path(__file__).parents[3])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), root]))
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    return tmp_path


@pytest.mark.parametrize("script", [MODULE, FUNCTION, POOL], ids=["module", "function", "pool"])
def test_a_child_ends_when_its_parent_is_killed(modules: Path, script: str) -> None:
    path = modules / "parent.py"
    path.write_text(script)
    with subprocess.Popen(
        [sys.executable, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        family = psutil.Process(parent.pid).children(recursive=True)
        assert pid in [process.pid for process in family]
        parent.send_signal(signal.SIGKILL)
        wait_until(lambda: not any(is_alive(process.pid) for process in family), LIMIT_S)


def test_a_child_ends_if_its_parent_died_during_its_start(modules: Path) -> None:
    """Its parent is another process than the one that it was started for: it must not live on."""
    environment = {**os.environ, child._PARENT: str(os.getppid())}
    command = [sys.executable, "-m", "pipeline.core.child", "sleeper"]
    orphan = subprocess.run(command, env=environment, check=False, timeout=60)
    assert orphan.returncode == -signal.SIGTERM


def test_off_linux_a_thread_watches_the_parent(
    modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = modules / "watched.py"
    script.write_text(
        "import sys\nsys.platform = 'darwin'\nfrom pipeline.core.child import main\nmain('sleeper')"
    )
    code = "import subprocess, sys, time\n" + (
        f"print(subprocess.Popen([sys.executable, {str(script)!r}]).pid, flush=True)\ntime.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_until(lambda: psutil.Process(pid).num_threads() > 1, 60)
        parent.send_signal(signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), LIMIT_S)


def test_a_module_runs_as_with_python_m(modules: Path) -> None:
    (modules / "echo.py").write_text(
        "import sys\nprint(__name__, sys.argv[1:], sys.argv[0].endswith('echo.py'))\nsys.exit(3)"
    )
    lines: list[str] = []
    ended = run_module("echo", ["a", "--b"], log=lines.append)
    assert lines == ["__main__ ['a', '--b'] True"]
    assert ended == Exit(3, tuple(lines))
    assert run_module("echo") == Exit(3)


def test_only_the_last_lines_are_kept(modules: Path) -> None:
    (modules / "long.py").write_text("for n in range(50): print(n)")
    ended = run_module("long", log=lambda _: None)
    assert ended == Exit(0, tuple(str(n) for n in range(30, 50)))


def test_an_interrupted_wait_leaves_no_child(modules: Path) -> None:
    (modules / "speaks.py").write_text(
        "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)"
    )
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_module("speaks", log=interrupt)
    assert not psutil.pid_exists(pids[0])


def test_a_child_that_ignores_sigterm_is_killed_and_leaves_no_zombie(
    modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "GRACE_S", 0.2)
    (modules / "deaf.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True)\ntime.sleep(600)"
    )
    with start_module("deaf", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        stop(process)
        assert process.returncode == -signal.SIGKILL
    assert not psutil.pid_exists(process.pid)


def test_exit_text_names_the_signal(modules: Path) -> None:
    (modules / "dies.py").write_text(
        "import os, signal, sys\nprint('one')\nprint('error: two', flush=True)\n"
        "os.kill(os.getpid(), getattr(signal, sys.argv[1]))"
    )
    killed = run_module("dies", ["SIGKILL"], log=lambda _: None)
    assert killed.killed
    assert (killed.error_text, killed.last_lines) == ("two", ("one", "error: two"))
    text = death_text("the trainer", killed, "printed above", "Run it again.")
    assert text == (
        "the trainer was killed by SIGKILL, most likely out of memory; its output is printed above. "
        "Run it again."
    )
    assert str(run_module("dies", ["SIGSEGV"], log=lambda _: None)) == "was killed by SIGSEGV"


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ((), ""),
        (("a", "b"), "b"),
        (("a", "error: b", "c"), "b\nc"),
        (("error: a", "error: b"), "b"),
    ],
)
def test_the_error_of_a_child_is_its_last_error_line(lines: tuple[str, ...], text: str) -> None:
    assert Exit(1, lines).error_text == text
    assert str(Exit(1, lines)) == "exited with code 1"


def _set(pipe: Any) -> None:
    pipe.send(os.getppid())


def test_a_function_runs_in_a_child(modules: Path) -> None:
    ours, theirs = child.SPAWN.Pipe()
    process = start_function(_set, theirs)
    assert ours.recv() == os.getpid()
    process.join()
    assert process.exitcode == 0


def test_the_end_of_another_thread_does_not_end_a_child(modules: Path) -> None:
    """The kernel's parent is the thread; other threads of it may end meanwhile."""
    (modules / "slow.py").write_text("import time\ntime.sleep(0.5)")
    ended: list[Exit] = []
    threads = [
        threading.Thread(target=lambda: ended.append(run_module("slow"))),
        threading.Thread(target=time.sleep, args=(0.1,)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == [Exit(0)]
