"""`any2seg plan`: what a run would do, how long the teacher takes, and whether it fits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flows.cli.console import ConfigPath, Overrides, out
from pipeline.config.load import load_config
from pipeline.core.units_text import as_duration, as_size
from pipeline.storage.disk_space import required_bytes
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from flows.planning.estimate import Prediction, Probe
    from flows.planning.plan_run import RunPlan


def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    probe: Annotated[
        bool,
        typer.Option(help="Measure: load the towers, encode two batches, write for a second."),
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print all numbers as JSON.")] = False,
) -> None:
    """Show what a run of CONFIG would do: samples, pictures, operations, bytes, time, room.

    Exit code 1 if the disk has no room for it. Makes nothing; what is there already is not counted.
    """
    from flows.planning.plan_run import plan_run

    loaded = load_config(config, overrides or ())
    found = plan_run(loaded, Workspace.of(loaded), probe=probe)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        _show(found)
    if not found.fits:
        raise typer.Exit(1)


def _show(found: RunPlan) -> None:
    for line in _prepare_lines(found):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    if found.num_units:
        out.print(_table(found))
    for line in (*_precompute_lines(found), *_student_lines(found), *_room_lines(found)):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _prepare_lines(found: RunPlan) -> Iterator[str]:
    todo = found.prepare
    if not todo.samples:
        yield "prepare: nothing to do"
        return
    splits = ", ".join(f"{name} {count}" for name, count in todo.samples.items())
    time = f", {as_duration(todo.seconds)} of one core" if todo.seconds is not None else ""
    yield (
        f"prepare: {sum(todo.samples.values())} samples ({splits}) into {len(todo.shards)} shards, "
        f"about {as_size(todo.num_bytes)}{time}"
    )


def _table(found: RunPlan) -> Table:
    table = Table("tower", "modality", "shards", "pictures", "tokens", "GFLOP", "bytes")
    for work in found.towers:
        table.add_row(
            *(work.tower, work.modality, str(work.num_shards), str(work.num_pictures)),
            *(str(work.num_tokens), f"{work.flops / 1e9:.1f}", as_size(work.num_bytes)),
        )
    return table


def _precompute_lines(found: RunPlan) -> Iterator[str]:
    if not found.num_units and not found.prompts:
        yield "precompute: nothing to do"
        return
    pictures = sum(work.num_pictures for work in found.towers)
    expected = "; shards still to be prepared as their listing says" if found.prepare.shards else ""
    yield (
        f"precompute: {found.num_units} units of a shard and a tower, {pictures} pictures, "
        f"{found.prompts} class prompts{expected}"
    )
    if found.prediction and found.probe:
        yield from _time_lines(found.prediction, found.probe)


def _time_lines(times: Prediction, probe: Probe) -> Iterator[str]:
    yield (
        f"  about {as_duration(times.seconds)} on {probe.device}, bound by {times.bottleneck} "
        f"(arithmetic {as_duration(times.compute_s)}, decoding {as_duration(times.decode_s)}, writing "
        f"{as_duration(times.write_s)}, reading {as_duration(times.read_s)}, loading towers "
        f"{as_duration(times.load_s)}; {'side by side' if probe.overlaps else 'one after the other'})"
    )


def _student_lines(found: RunPlan) -> Iterator[str]:
    for student in found.students:
        yield f"train {student.row}: {student.steps} steps, {student.samples} samples"
        count = student.scored_subsets
        what = f"{count} subsets of {student.scored_samples} samples" if count else "nothing to do"
        yield f"evaluate {student.row}: {what}"


def _room_lines(found: RunPlan) -> Iterator[str]:
    if found.free is None:
        yield f"writes {as_size(found.num_bytes)} to the object store"
        return
    needed = required_bytes(found.num_bytes)
    verdict = (
        "fits" if found.fits else "DOES NOT FIT: make room, or set `workspace` to another disk"
    )
    yield (
        f"writes {as_size(found.num_bytes)}; needs {as_size(needed)} free with a margin, "
        f"{as_size(found.free)} are: {verdict}"
    )
