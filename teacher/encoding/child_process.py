"""The process in which a flow's teacher pass runs: towers loaded once, memory of its own.

The flow sends it ranges of units; it prints nothing, but sends its progress lines back for the flow's
log. If it is killed (most likely out of memory) the flow lives, and the next try starts a new one with
half the batch. A unit with corrupted inputs is reported as failed, and the others of its range are
still done. It ends with the flow, however the flow ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pipeline.config.config import Config
from pipeline.core.child import GRACE_S, SPAWN, Exit, death_text, start_function
from pipeline.core.progress import progress_lines_to
from pipeline.core.retryable import TryAgain
from pipeline.core.stage_report import Failure, StageReport
from pipeline.errors import Any2SegError, CorruptShard, CorruptTarget
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from teacher.encoding.encoder import Encoder
    from teacher.encoding.units import Unit

LINE, REPORT, ERROR = "line", "report", "error"
"""Kinds of message that the process sends."""


class EncodingProcess:
    """Encodes ranges of units, one at a time; a context manager that ends the process."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._num_deaths = 0
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> EncodingProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    @property
    def batch_size(self) -> int:
        """Images a batch: the config's, halved for every time that the process died."""
        return max(1, self._config.teacher.batch_size >> self._num_deaths)

    @property
    def pid(self) -> int | None:
        """The process's, if there is one."""
        return self._process.pid if self._process else None

    def encode(self, units: Sequence[Unit], log: Callable[[str], None]) -> StageReport:
        """Encode and commit `units`; every progress line goes to `log`.

        Raises what the pass raises, and `TryAgain` if the process died.
        """
        pipe = self._pipe or self._start()
        try:
            pipe.send(list(units))
            while True:
                kind, value = pipe.recv()
                if kind == REPORT:
                    return StageReport.from_json(value)
                if kind == ERROR:
                    raise value
                log(value)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise self._lost() from None

    def _lost(self) -> TryAgain:
        """The error for the process that has died; the next one takes half the batch."""
        how, before = self._end(), self.batch_size
        self._num_deaths += 1
        change = f"teacher.batch_size goes from {before} to {self.batch_size} for the next try."
        return worker_lost("the encoding process", how, "in the flow's log", change)

    def _start(self) -> Connection:
        ours, theirs = SPAWN.Pipe()
        teacher = self._config.teacher.model_copy(update={"batch_size": self.batch_size})
        config = self._config.model_copy(update={"teacher": teacher})
        self._process = start_function(_serve, theirs, config)
        theirs.close()
        self._pipe = ours
        return ours

    def _end(self) -> Exit:
        """Close the pipe, on which the process ends; how it ended."""
        if self._pipe is None or self._process is None:
            return Exit(0)
        self._pipe.close()
        self._process.join(timeout=GRACE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        code = self._process.exitcode
        assert code is not None
        self._pipe = self._process = None
        return Exit(code)


def worker_lost(what: str, how: Exit | str, output: str, resume: str) -> TryAgain:
    """The error for workers of the teacher pass that died, here or in a cluster."""
    return TryAgain(death_text(what, how, output, f"Committed targets stay. {resume}"))


def _serve(pipe: Connection, config: Config) -> None:
    """Body of the process: encode ranges until the pipe closes."""
    from teacher.encoding.encoder import Encoder

    encoder = Encoder(config.teacher.device)
    while True:
        try:
            units = pipe.recv()
        except EOFError:
            return
        with progress_lines_to(lambda line: pipe.send((LINE, line))):
            pipe.send(_answer(config, encoder, units))


def _answer(config: Config, encoder: Encoder, units: Sequence[Unit]) -> tuple[str, Any]:
    try:
        return REPORT, encode_units(config, encoder, units).as_json()
    except (Any2SegError, OSError) as error:
        return ERROR, error
    except Exception as error:
        return ERROR, RuntimeError(f"{type(error).__name__}: {error}")


def encode_units(config: Config, encoder: Encoder, units: Sequence[Unit]) -> StageReport:
    """`precompute` these units; one with corrupted inputs is reported as failed, the others are done."""
    from teacher.encoding.precompute import precompute

    workspace = Workspace.of(config)
    try:
        return precompute(config, workspace, units=units, encoder=encoder)
    except (CorruptShard, CorruptTarget) as error:
        if len(units) == 1:
            return StageReport("precompute", failed=(Failure(str(units[0]), str(error)),))
    reports = [encode_units(config, encoder, [unit]) for unit in units]
    return StageReport(
        "precompute",
        done=sum(report.done for report in reports),
        skipped=sum(report.skipped for report in reports),
        failed=tuple(failure for report in reports for failure in report.failed),
        seconds=sum(report.seconds for report in reports),
    )
