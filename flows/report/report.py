"""The report stage: one self-contained HTML page about a run and its comparison rows.

Writes `runs/<run-id>/report/index.html` (no script, no request: images are data URIs, charts are inline
SVG) and then `report.json`, which holds the digest of everything that the page was made from; with the
same inputs nothing is done. `Any2SegError` if the main run is not scored yet, `ConfigError` if
matplotlib (extra `report`) is missing, `CorruptShard` if a sample of the page is corrupted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.report.sources import (
    RunRow,
    Sources,
    input_files,
    is_scored,
    read_sources,
    scored_rows,
    target_stores,
)
from pipeline import VERSION
from pipeline.config.config import Config
from pipeline.core.fingerprint import fingerprint
from pipeline.core.stage_report import StageReport
from pipeline.schemas import REPORT_SCHEMA
from pipeline.storage.files import (
    AnyPath,
    read_json,
    relative,
    sha256_file,
    write_bytes,
    write_json,
)
from pipeline.workspace import Workspace
from student.runs.inputs import RunInputs, open_inputs

FOLDER, PAGE, RECORD = "report", "index.html", "report.json"
ROOM = Path(__file__).parent


def report(config: Config, workspace: Workspace) -> StageReport:
    """Write the page of the config's main run, with the finished comparison rows beside it.

    `details["page"]` is its path. Skipped if the existing page was made from the same inputs.
    """
    started = time.perf_counter()
    inputs = open_inputs(config, workspace)
    rows, unfinished = scored_rows(inputs)
    stores = target_stores(inputs)
    folder = inputs.run.folder / FOLDER
    record = _record(rows, inputs, input_files(rows, inputs, stores))
    current = _is_current(folder, record)
    if not current:
        sources = read_sources(rows, unfinished, inputs, stores)
        write_bytes(folder / PAGE, render(sources).encode())
        write_json(folder / RECORD, record)
    return StageReport(
        "report",
        done=int(not current),
        skipped=int(current),
        seconds=time.perf_counter() - started,
        details={"page": str(folder / PAGE)},
    )


def report_is_current(config: Config, workspace: Workspace) -> bool:
    """Whether the page exists and its inputs are unchanged; False before scoring.

    Raises `DatasetError` or `MissingTarget` if `prepare` or `precompute` has not run.
    """
    inputs = open_inputs(config, workspace)
    if not is_scored(inputs.run):
        return False
    rows, _ = scored_rows(inputs)
    record = _record(rows, inputs, input_files(rows, inputs, target_stores(inputs)))
    return _is_current(inputs.run.folder / FOLDER, record)


def _record(rows: Sequence[RunRow], inputs: RunInputs, files: Sequence[AnyPath]) -> dict[str, Any]:
    """What the page is made from: config, rows, files by content, and the code that draws it."""
    code = [*ROOM.glob("*.j2"), *ROOM.glob("*.py")]
    made_from = {
        "config": inputs.config.model_dump(mode="json"),
        "rows": [row.run.id for row in rows],
        "files": {relative(file, inputs.workspace.root): sha256_file(file) for file in files},
        "code": {file.name: sha256_file(file) for file in code},
    }
    return {"schema": REPORT_SCHEMA, "code_version": VERSION, "inputs": fingerprint(made_from)}


def _is_current(folder: AnyPath, record: Mapping[str, Any]) -> bool:
    exists = (folder / PAGE).is_file() and (folder / RECORD).is_file()
    return exists and read_json(folder / RECORD) == record


def render(sources: Sources) -> str:
    """The page's HTML. `ConfigError` if matplotlib is missing."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from flows.report.page import page_values

    environment = Environment(
        loader=FileSystemLoader(ROOM), autoescape=True, undefined=StrictUndefined
    )
    template = environment.get_template("report.html.j2")
    return template.render(page_values(sources), version=VERSION)
