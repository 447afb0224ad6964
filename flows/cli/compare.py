"""`any2seg teacher A --compare B CONFIG`: two teachers on labelled samples of the user's own data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.console import print_line
from pipeline.config.config import Config
from pipeline.config.load import load_config
from pipeline.core.units_text import as_percent
from pipeline.errors import ConfigError
from pipeline.onboarding.doctor_text import table
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from flows.planning.compare import Drawn, SensorReport, TeacherReport
    from flows.planning.patch_scores import Accuracy

HEAD = ("sensor", "teacher", "patches", "zero-shot", "class mean", "neighbours", "class mean")
CHANCE = ("chance", "class mean")


def compare_teachers(
    first: Config, second: Config, *, num_samples: int, folder: Path | None = None
) -> None:
    """Print one table for the teachers of two configs of the same data; maps go to `folder`.

    Only the teacher's numbers are measured: no shard is read, no target written.
    """
    from flows.planning.compare import draw_samples, measure_teacher
    from flows.planning.compare_maps import write_maps

    drawn = draw_samples(first, num_samples, first.seed)
    workspace = Workspace.of(first)
    reports = (
        measure_teacher(first, workspace, drawn),
        measure_teacher(second, workspace, drawn),
    )
    for line in lines(drawn, reports):
        print_line(line)
    if folder is not None:
        files = write_maps(folder, first, drawn, reports)
        print_line(f"{len(files)} maps: {folder}")


def with_teacher(
    path: Path, overrides: Sequence[str], name: str, settings: dict[str, str | None]
) -> Config:
    """The config of `path` with the teacher `name`; of `settings`, those that are not None.

    Raises `ConfigError`; a revision that the file gives its own teacher is not taken over.
    """
    misplaced = [override for override in overrides if override.startswith("teacher.name")]
    if misplaced:
        raise ConfigError(f"--set {misplaced[0]}: the command names the teachers; leave it out")
    config = load_config(path, overrides)
    own = name == config.teacher.name or any(o.startswith("teacher.revision") for o in overrides)
    changes: dict[str, str | None] = {"name": name} | ({} if own else {"revision": None})
    changes |= {key: value for key, value in settings.items() if value is not None}
    # Copied, not validated again: losses that this teacher could not serve play no part here.
    teacher = config.teacher.model_copy(update=changes)
    return config.model_copy(update={"teacher": teacher})


def lines(drawn: Drawn, reports: tuple[TeacherReport, TeacherReport]) -> Iterator[str]:
    """The table of both reports, what it counts, and what was not possible."""
    named = [f"{letter} {report.name}" for letter, report in zip("AB", reports, strict=True)]
    rows: list[Sequence[str]] = [(*HEAD, *CHANCE)]
    for modality in dict.fromkeys(name for report in reports for name in report.sensors):
        for name, report in zip(named, reports, strict=True):
            if modality in report.sensors:
                rows.append(_row(name, report.sensors[modality]))
    yield from table(rows)
    yield ""
    yield (
        f"Per cent of the patches that one class fills by half, in {len(drawn.held_out)} samples of "
        f"{drawn.split}; neighbours: of the {len(drawn.known)} of train. Chance: the most frequent class."
    )
    for name, report in zip(named, reports, strict=True):
        yield from (f"{name}: {note}" for note in report.notes)


def _row(teacher: str, sensor: SensorReport) -> tuple[str, ...]:
    return (
        *(sensor.modality, teacher, str(sensor.num_patches)),
        *_cells(sensor.zero_shot),
        *_cells(sensor.neighbours),
        *_cells(sensor.chance),
    )


def _cells(accuracy: Accuracy | None) -> tuple[str, str]:
    if accuracy is None:
        return "-", "-"
    return as_percent(accuracy.overall), as_percent(accuracy.class_mean)
