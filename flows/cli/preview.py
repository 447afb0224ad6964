"""`any2seg teacher NAME --preview IMAGE`: a PNG of what the teacher's tower will see."""

from __future__ import annotations

from pathlib import Path

from flows.cli.console import print_line


def write_preview(
    name: str, image: Path, kind: str, output: Path | None, revision: str | None
) -> None:
    """Write the PNG and print which tower sees the kind, and as what."""
    from PIL import Image

    from teacher.preview import preview

    pixels, seen = preview(name, image, kind, revision=revision)
    path = output or Path(f"{image.stem}-{kind}.png")
    Image.fromarray(pixels).save(path, format="PNG")
    height, width = pixels.shape[:2]
    print_line(str(seen))
    print_line(f"Wrote {path} ({width} x {height})")
