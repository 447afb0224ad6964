"""`any2seg export`: a trained student as a folder to share. Imports torch when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, runs/<run-id>.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")],
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Also write model.onnx (needs the extra `export`).")
    ] = False,
    program: Annotated[
        bool, typer.Option("--program", help="Also write model.pt2, a torch.export program.")
    ] = False,
    checkpoint: Annotated[
        str, typer.Option(help="last, best (train.validate_every) or step-N (train.keep_every).")
    ] = "last",
    push: Annotated[
        str, typer.Option("--push", metavar="ORG/NAME", help="Also upload the folder to the hub.")
    ] = "",
) -> None:
    """Write a student with its model card, ready for `Segmenter.from_pretrained` and `any2seg predict`.

    Graphs (`--onnx`, `--program`) take any subset of the sensors and image sides that are multiples of 32,
    from 64 px; their output is compared with the student's before they are kept.
    """
    from student.inference.export import export_onnx, export_program
    from student.inference.segmenter import Segmenter

    segmenter = Segmenter.from_run(run.resolve(), "cpu", checkpoint)
    segmenter.save_pretrained(output)
    if onnx:
        export_onnx(segmenter, output / "model.onnx")
    if program:
        export_program(segmenter, output / "model.pt2")
    print(f"Written to {output}: {', '.join(sorted(p.name for p in output.iterdir()))}")
    if push:
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo(push, exist_ok=True)
        print(f"Uploaded: {api.upload_folder(repo_id=push, folder_path=output)}")
