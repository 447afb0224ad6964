"""`any2seg plan`: what a run would do, how long the teacher pass takes, and whether the disk has room."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flows.cli.console import ConfigArgument, SetOption, out, print_line, print_teacher_note
from pipeline.config.load import load_config
from pipeline.core.units_text import as_duration, as_size
from pipeline.storage.disk_space import required_bytes
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from flows.planning.estimate import Prediction, Probe
    from flows.planning.plan_run import RunPlan
    from pipeline.shards.prepare_plan import PreparePlan


def plan(
    config: ConfigArgument,
    overrides: SetOption = None,
    probe: Annotated[
        bool,
        typer.Option(
            help="Load the towers and time encoding, reading and writing for some seconds."
        ),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print all numbers as JSON.")] = False,
) -> None:
    """Show what a run of CONFIG would do: samples, images, FLOPs, bytes, time, disk space.

    Counts what is missing only, and runs no stage. Exit code 1 if the disk has no room for it.
    """
    from flows.planning.plan_run import plan_run
    from teacher.requirements import require_capable

    loaded = load_config(config, overrides or ())
    require_capable(loaded)
    todo = plan_run(loaded, Workspace.of(loaded), probe=probe)
    if as_json:
        typer.echo(json.dumps(todo.as_json(), indent=2))
    else:
        print_teacher_note(loaded)
        _show(todo)
    if not todo.fits:
        raise typer.Exit(1)


def _show(todo: RunPlan) -> None:
    for line in (*_prepare_lines(todo.prepare), *todo.rendered):
        print_line(line)
    if todo.num_units:
        out.print(_table(todo))
    for line in (*_precompute_lines(todo), *_student_lines(todo), *_space_lines(todo)):
        print_line(line)


def _prepare_lines(todo: PreparePlan) -> Iterator[str]:
    if not todo.samples:
        yield "prepare: nothing to do"
        return
    splits = ", ".join(f"{name} {count}" for name, count in todo.samples.items())
    size = (
        f"about {as_size(todo.num_bytes)}" if todo.num_bytes else "of unknown size without a probe"
    )
    time = f", {as_duration(todo.seconds)} of one core" if todo.seconds is not None else ""
    yield (
        f"prepare: {sum(todo.samples.values())} samples ({splits}) into {len(todo.shards)} shards, "
        f"{size}{time}"
    )


def _table(todo: RunPlan) -> Table:
    table = Table("tower", "modality", "shards", "images", "tokens", "GFLOP", "bytes")
    for work in todo.towers:
        flops = "unknown" if work.flops is None else f"{work.flops / 1e9:.1f}"
        tokens = "unknown" if work.num_tokens is None else str(work.num_tokens)
        table.add_row(
            *(work.tower, work.modality, str(work.num_shards), str(work.num_images)),
            *(tokens, flops, as_size(work.num_bytes)),
        )
    return table


def _precompute_lines(todo: RunPlan) -> Iterator[str]:
    if not todo.num_units and not todo.prompts:
        yield "precompute: nothing to do"
        return
    num_images = sum(work.num_images for work in todo.towers)
    expected = "; unprepared shards are estimated from the listing" if todo.prepare.shards else ""
    yield (
        f"precompute: {todo.num_units} units of a shard and a tower, {num_images} images, "
        f"{todo.prompts} class prompts{expected}"
    )
    if todo.prediction and todo.probe:
        yield from _time_lines(todo.prediction, todo.probe)


def _time_lines(times: Prediction, probe: Probe) -> Iterator[str]:
    yield (
        f"  about {as_duration(times.seconds)} on {probe.device}, {times.bottleneck}-bound "
        f"(compute {as_duration(times.compute_s)}, decode {as_duration(times.decode_s)}, write "
        f"{as_duration(times.write_s)}, read {as_duration(times.read_s)}, load towers "
        f"{as_duration(times.load_s)}; {'overlapping' if probe.overlaps else 'one after the other'})"
    )


def _student_lines(todo: RunPlan) -> Iterator[str]:
    for student in todo.students:
        yield f"train {student.row}: {student.steps} steps, {student.samples} samples"
        count = student.scored_subsets
        what = f"{count} subsets of {student.scored_samples} samples" if count else "nothing to do"
        yield f"evaluate {student.row}: {what}"


def _space_lines(todo: RunPlan) -> Iterator[str]:
    if todo.free is None:
        yield f"writes {as_size(todo.num_bytes)} to the object store"
        return
    needed = required_bytes(todo.num_bytes)
    without = " besides the shards" if todo.prepare.samples and not todo.prepare.num_bytes else ""
    verdict = (
        "fits" if todo.fits else "DOES NOT FIT: free space, or set `workspace` to another disk"
    )
    yield (
        f"writes {as_size(todo.num_bytes)}{without}; needs {as_size(needed)} free with a margin, has "
        f"{as_size(todo.free)}: {verdict}"
    )
