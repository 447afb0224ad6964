"""`any2seg run`, `demo`, `refresh-teacher` and `retrain`: flows called from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.console import ConfigPath, Overrides, out
from flows.parameters import checked
from pipeline.config.load import load_config
from pipeline.errors import WorkspaceBusy
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from prefect import Flow

DEMO_CONFIG = Path(__file__).parents[1] / "demo.toml"


def demo(overrides: Overrides = None) -> None:
    """Render street scenes, teach, train, score all 15 sensor subsets and write the report.

    Takes some minutes on two processor cores; a second call recomputes nothing.
    """
    run(DEMO_CONFIG, overrides)


def run(config: ConfigPath, overrides: Overrides = None) -> None:
    """Run every stage that CONFIG needs, as a Prefect flow; call it again to go on after a stop."""
    from flows.planning.status import first_missing

    loaded = load_config(config, checked(overrides))
    missing = first_missing(loaded, Workspace.of(loaded))
    if missing is None:
        _say("Nothing to do: every stage is complete.")
    else:
        _say(f"First missing: {missing}")
        _call(_any2seg, config, overrides)
    _say_report(config, overrides)


def refresh_teacher(config: ConfigPath, overrides: Overrides = None) -> None:
    """Prepare new source data and embed what has no embeddings yet, as a Prefect flow."""
    _call(_refresh_teacher, config, overrides)


def retrain(config: ConfigPath, overrides: Overrides = None) -> None:
    """Train, score and report students from the cache, as a Prefect flow. Encodes no picture.

    E.g. `any2seg retrain CONFIG --set student.backbone=pvt_v2_b0`. New class prompts are embedded.
    """
    _call(_retrain, config, overrides)
    _say_report(config, overrides)


def _any2seg() -> Flow[..., Any]:
    from flows.flows import any2seg

    return any2seg


def _refresh_teacher() -> Flow[..., Any]:
    from flows.refresh_teacher import refresh_teacher

    return refresh_teacher


def _retrain() -> Flow[..., Any]:
    from flows.retrain import retrain

    return retrain


def _call(find_flow: Callable[[], Flow[..., Any]], path: Path, overrides: list[str] | None) -> None:
    """Run a flow to its end. Raises what it failed with, or `WorkspaceBusy` if it was skipped."""
    from flows.temporary_server import prefect_api

    load_config(path, checked(overrides))
    with prefect_api():
        state: Any = find_flow()(str(path.resolve()), overrides or [], return_state=True)
        if state.is_cancelled():
            raise WorkspaceBusy(str(state.message))
        state.result()


def _say_report(path: Path, overrides: list[str] | None) -> None:
    from flows.planning.status import report_path

    config = load_config(path, overrides or ())
    _say(f"Report: {report_path(config, Workspace.of(config))}")


def _say(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)
