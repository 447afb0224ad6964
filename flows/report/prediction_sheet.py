"""One small PNG of predictions: per sample a row with the first modality, the label, the prediction.

Made from the predictions that the evaluation kept. Raises what `flows.report.sources` raises and, for
depth and LiDAR, `ConfigError` if matplotlib is missing.
"""

from __future__ import annotations

import base64
import io

from PIL import Image

from flows.report.images import EmbeddedImage, class_image, modality_image
from flows.report.sources import SampleInputs, read_samples, scored_rows
from pipeline.config.config import Config
from pipeline.datasets.base import RGB
from pipeline.workspace import Workspace
from student.runs.inputs import open_inputs

NUM_SAMPLES = 3
SIDE_PX = 160
"""Longest side of a cell; keeps the whole sheet at about ten kilobytes."""


def prediction_sheet(config: Config, workspace: Workspace) -> bytes | None:
    """The PNG's bytes, or None if the evaluation kept no predictions."""
    inputs = open_inputs(config, workspace)
    main, manifest = scored_rows(inputs)[0][0], inputs.manifest
    palette: list[RGB] = [tuple(colour) for colour in manifest.description["palette"]]
    samples = zip(read_samples(main, manifest), range(NUM_SAMPLES), strict=False)
    cells = [_cells(sample, config, palette) for sample, _ in samples]
    return _sheet(cells) if cells else None


def _cells(sample: SampleInputs, config: Config, palette: list[RGB]) -> list[Image.Image]:
    images = []
    for name, spec in config.specs().items():
        if name in sample.arrays:
            images.append(modality_image(sample.arrays[name], spec))
            break
    images.append(class_image(sample.label, palette))
    predicted = sample.predictions.get(frozenset(config.modalities))
    if predicted is not None:
        images.append(class_image(predicted, palette))
    return [_decoded(image) for image in images]


def _decoded(embedded: EmbeddedImage) -> Image.Image:
    data = base64.b64decode(embedded.uri.partition(",")[2])
    with Image.open(io.BytesIO(data)) as image:
        cell = image.convert("RGB")
    cell.thumbnail((SIDE_PX, SIDE_PX))
    return cell


def _sheet(cells: list[list[Image.Image]]) -> bytes:
    width = max(cell.width for row in cells for cell in row)
    height = max(cell.height for row in cells for cell in row)
    columns = max(map(len, cells))
    sheet = Image.new("RGB", (columns * width, len(cells) * height), "white")
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            sheet.paste(cell, (x * width, y * height))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
