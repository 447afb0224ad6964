"""What a task makes of a command that failed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows import tasks
from pipeline.core.child import Exit
from pipeline.core.retryable import TRY_AGAIN, ProcessFailed, TryAgain


def test_the_error_of_a_command_is_its_last_line_and_every_line_is_logged(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(ProcessFailed, match=r"missing\.toml") as failed:
        tasks.run_command(["train", str(tmp_path / "missing.toml")], {}, lines.append)
    assert lines[-1] == f"error: {failed.value}"


@pytest.mark.parametrize(
    ("ended", "kind", "text"),
    [
        (
            Exit(-9, ("step 3",)),
            TryAgain,
            r"`any2seg train` was killed by SIGKILL, most likely out",
        ),
        (Exit(137, ("step 3",)), TryAgain, r"most likely out of memory; .* It resumes from"),
        (Exit(TRY_AGAIN, ("error: bucket",)), TryAgain, "^bucket$"),
        (Exit(1, ("error: bad", "more")), ProcessFailed, "^bad\nmore$"),
        (Exit(-11), ProcessFailed, "`any2seg train` was killed by SIGSEGV; its output"),
    ],
)
def test_a_killed_command_or_exit_code_try_again_raises_try_again(
    ended: Exit, kind: type[Exception], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "run_module", lambda *_, **__: ended)
    with pytest.raises(kind, match=text) as raised:
        tasks.run_command(["train"], {}, lambda _: None)
    assert type(raised.value) is kind


def test_the_process_environment_overrides_the_given_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}

    def run(*_: object, environment: dict[str, str], **__: object) -> Exit:
        seen.update(environment)
        return Exit(0)

    monkeypatch.setattr(tasks, "run_module", run)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    tasks.run_command(["train"], {"OMP_NUM_THREADS": "1", "ANY2SEG_TEST": "x"}, lambda _: None)
    assert (seen["OMP_NUM_THREADS"], seen["ANY2SEG_TEST"]) == ("3", "x")
    assert seen["PATH"] == os.environ["PATH"]
