"""`any2seg teacher`: what a teacher consists of, whether it works, and how it compares to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from platformdirs import user_cache_dir

from flows.cli.console import SetOption, print_line
from pipeline.errors import ConfigError


def teacher(
    name: Annotated[
        str, typer.Argument(help="`languagebind-tiny`, a hub name, a folder, or `module:Class`.")
    ],
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="With --compare: the data to use.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Git revision of a hub name.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32 (default), bfloat16 or float16.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu (default), cuda, cuda:1, ...")] = None,
    other: Annotated[
        str | None,
        typer.Option(
            "--compare", metavar="OTHER", help="Measure NAME and OTHER on samples of CONFIG's data."
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Samples to compare on.")] = 50,
    image: Annotated[
        Path | None,
        typer.Option("--preview", metavar="IMAGE", help="Write what the tower will see of it."),
    ] = None,
    kind: Annotated[str, typer.Option(help="With --preview: the image's kind.")] = "rgb",
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="With --compare: a folder for maps; with --preview: the PNG."
        ),
    ] = None,
    overrides: SetOption = None,
    other_overrides: Annotated[
        list[str] | None,
        typer.Option("--compare-set", metavar="FIELD=VALUE", help="As --set, for OTHER alone."),
    ] = None,
) -> None:
    """Show the towers of a teacher and run its self-tests. Exit code 1 if one fails.

    With `--compare OTHER CONFIG` instead: how well the patches of two teachers tell the classes of the
    config's data apart, zero-shot and by neighbours, before anything is cached. With `--preview IMAGE
    --kind KIND`: a PNG of what the tower sees of that image.
    """
    if image is not None:
        from flows.cli.preview import write_preview

        if other or config or overrides or other_overrides:
            raise ConfigError("--preview: without CONFIG, --compare, --set and --compare-set")
        write_preview(name, image, kind, output, revision)
        return
    if other is None:
        if config or output or overrides or other_overrides:
            raise ConfigError(
                "CONFIG, --output, --set and --compare-set: only with --compare OTHER"
            )
        _check(name, revision, dtype or "float32", device or "cpu")
        return
    if config is None:
        raise ConfigError(f"--compare {other}: expected a CONFIG after the teacher's name")
    from flows.cli.compare import compare_teachers, with_teacher

    settings = {"dtype": dtype, "device": device}
    compare_teachers(
        with_teacher(config, overrides or (), name, settings | {"revision": revision}),
        with_teacher(config, [*(overrides or ()), *(other_overrides or ())], other, settings),
        num_samples=samples,
        folder=output,
    )


def _check(name: str, revision: str | None, dtype: str, device: str) -> None:
    """Print every tower with its checks. Raises `typer.Exit` if one fails."""
    from teacher.check_tower import as_lines, check_towers

    cache = Path(user_cache_dir("any2seg"))
    passed = True
    for check in check_towers(name, cache=cache, revision=revision, dtype=dtype, device=device):
        passed = passed and check.passed
        for line in as_lines(check):
            print_line(line)
    if not passed:
        raise typer.Exit(1)
