"""`any2seg predict`: a trained student on files. Imports torch when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import ConfigError

Model = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A run's folder, a folder written by `export`, or a model on the hub."
    ),
]
EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Typer's settings for options that are named after the student's modalities."""


def predict(
    context: typer.Context,
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")] = Path(
        "predictions"
    ),
    overlay: Annotated[bool, typer.Option(help="Also write NAME_overlay.png.")] = True,
    logits: Annotated[
        bool, typer.Option(help="Also write NAME.npy (classes, height, width).")
    ] = False,
    window: Annotated[
        int, typer.Option(min=0, help="Side in pixels of a sliding window; 0: whole images.")
    ] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    checkpoint: Annotated[str, typer.Option(help="Of a run: last, best or step-N.")] = "last",
) -> None:
    """Segment images with a trained student, from files or folders of any subset of its sensors.

    Name each available sensor: `any2seg predict RUN --rgb a.png --depth b.png -o out/`. In folders, files
    of the same name form one scene; a scene without one of the sensors is predicted from the others.
    The results need a folder of their own; nothing but an earlier result of the same scene is replaced.
    """
    from pipeline.datasets.patterns import hidden_text
    from student.evaluation.sliding_window import Window
    from student.inference.output_files import Outputs
    from student.inference.predict import predict as run
    from student.inference.segmenter import Segmenter
    from student.runs.layout import RECORD

    sources = _sources(context.args)
    folder = Path(model).expanduser()
    if (folder / RECORD).exists():
        segmenter = Segmenter.from_run(folder, device, checkpoint)
    else:
        segmenter = Segmenter.from_pretrained(model, device=device)
    unknown = [name for name in sources if name not in segmenter.specs]
    if unknown or not sources:
        given = f"--{unknown[0]}" if unknown else "none"
        sensors = ", ".join(f"--{name}" for name in segmenter.specs)
        raise ConfigError(f"expected some of {sensors}, found {given}")
    tiles = Window(side_px=window) if window else None
    report = run(segmenter, sources, output, Outputs(overlay, logits), tiles)
    print(report)
    for names, count in report.details["scenes"].items():
        print(f"  {count} from {names}")
    for failure in report.failed:
        print(f"  refused {failure.unit}: {failure.reason}")
    if report.details["hidden"]:
        print(f"  {hidden_text(report.details['hidden'])}")
    print(f"Written to {output}")
    if report.failed:
        raise typer.Exit(1)


def _sources(args: Sequence[str]) -> dict[str, Path]:
    """`--rgb a.png --depth=b.png` as modality to path. Raises `ConfigError`."""
    sources: dict[str, Path] = {}
    rest = list(args)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not name.startswith("--") or not (equals or rest):
            raise ConfigError(f"{name}: expected --MODALITY PATH, e.g. --rgb a.png")
        sources[name.removeprefix("--")] = Path(value if equals else rest.pop(0)).expanduser()
    return sources
