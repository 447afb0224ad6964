"""`any2seg run`, `demo`, `refresh-teacher` and `retrain`: flows called from the command line.

The config file is read here once, for checks and for the report's path, and once more by the flow: its
parameters are a path and overrides, since Prefect stores them and a retry starts from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.cli.console import ConfigArgument, SetOption, print_line, print_teacher_note
from flows.parameters import checked
from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.errors import WorkspaceBusy
from pipeline.workspace import Workspace
from student.runs.preflight import check_before_run

DEMO_CONFIG = Path(__file__).parents[1] / "demo.toml"


def demo(overrides: SetOption = None) -> None:
    """Run the whole pipeline on rendered street scenes: teach, train, score all 15 sensor subsets, report.

    Takes some minutes on two processor cores. A second call recomputes nothing.
    """
    run(DEMO_CONFIG, overrides)


def run(config: ConfigArgument, overrides: SetOption = None) -> None:
    """Run every stage that CONFIG needs, as a Prefect flow. Call it again to resume after a stop.

    Splits, batch size, student and the teacher's weights are checked before anything is prepared or
    embedded.
    """
    from flows.planning.status import first_missing
    from teacher.encoding.units import plan_towers
    from teacher.requirements import require_capable

    loaded = load_config(config, checked(overrides))
    require_capable(loaded)
    print_teacher_note(loaded)
    missing = first_missing(loaded, Workspace.of(loaded))
    if missing is None:
        print_line("Nothing to do: every stage is complete.")
    else:
        print_line(f"First missing: {missing}")
        check_before_run(loaded, Workspace.of(loaded))
        # As the flow does once more: here it is one line, there a failed flow run.
        plan_towers(loaded, Workspace.of(loaded))
        _run_flow("any2seg", config, overrides)
    _print_report_path(loaded)


def refresh_teacher(config: ConfigArgument, overrides: SetOption = None) -> None:
    """Prepare new source data and embed what has no embeddings yet, as a Prefect flow."""
    from teacher.encoding.units import plan_towers
    from teacher.requirements import require_capable

    loaded = load_config(config, checked(overrides))
    require_capable(loaded)
    plan_towers(loaded, Workspace.of(loaded))
    _run_flow("refresh-teacher", config, overrides)


def retrain(config: ConfigArgument, overrides: SetOption = None) -> None:
    """Train, score and report students from the cache, as a Prefect flow. Encodes no image.

    E.g. `any2seg retrain CONFIG --set student.backbone=pvt_v2_b0`. New class prompts are embedded.
    """
    loaded = load_config(config, checked(overrides))
    check_before_run(loaded, Workspace.of(loaded))
    _run_flow("retrain", config, overrides)
    _print_report_path(loaded)


def _run_flow(name: str, path: Path, overrides: list[str] | None) -> None:
    """Run a flow to its end. Raises what it failed with, or `WorkspaceBusy` if it was skipped."""
    from flows.temporary_server import prefect_api

    with prefect_api():
        from flows.serve import load_flow

        state: Any = load_flow(name)(str(path.resolve()), overrides or [], return_state=True)
        if state.is_cancelled():
            raise WorkspaceBusy(str(state.message))
        state.result()


def _print_report_path(config: Config) -> None:
    from flows.planning.status import report_path

    print_line(f"Report: {report_path(config, Workspace.of(config))}")
