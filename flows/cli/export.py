"""`any2seg export`: a trained student as files of its own. Imports torch when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, runs/<run-id>.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder that it is written to.")],
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Write model.onnx too (extra `export`).")
    ] = False,
    program: Annotated[
        bool, typer.Option("--program", help="Write model.pt2 too, a torch.export program.")
    ] = False,
    checkpoint: Annotated[
        str, typer.Option(help="last, best (train.validate_every) or step-N (train.keep_every).")
    ] = "last",
    push: Annotated[
        str, typer.Option("--push", metavar="ORG/NAME", help="Upload the folder to the hub too.")
    ] = "",
) -> None:
    """Write a student with its model card, ready for `Segmenter.from_pretrained` and `any2seg predict`.

    Graphs (`--onnx`, `--program`) take any subset of the sensors and any size in multiples of 32 from
    64 on, and are compared with the student in their own runtime before they are kept.
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
