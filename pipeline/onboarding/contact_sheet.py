"""A contact sheet: random samples with every modality and the coloured label, as one PNG.

    write_contact_sheet(path, config, samples, seed=0)

One row a sample, one column a modality, then the coloured label; the classes below. The same
samples and seed give the same image. Refused samples are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.config.config import Config
from pipeline.core.random_stream import RandomStream
from pipeline.datasets import open_dataset
from pipeline.datasets.base import IGNORE_ID, RGB, LoadedSample, SourceSample
from pipeline.errors import SampleRefused
from pipeline.modalities import LABEL, ModalitySpec, to_unit_range
from pipeline.shards.sample_encoder import SampleEncoder
from pipeline.storage.files import write_atomic

NUM_SAMPLES = 6
CELL_PX = 220
GAP_PX = 8
TEXT_PX = 16
_PAPER, _INK, _UNMEASURED = (255, 255, 255), (30, 30, 30), (12, 14, 17)
_IGNORED = (0, 0, 0)
_STRETCH = (2, 98)
"""Percentiles of the values that become black and white."""

U8 = NDArray[np.uint8]


def write_contact_sheet(
    path: Path, config: Config, samples: Sequence[SourceSample], seed: int = 0
) -> int:
    """Draw up to `NUM_SAMPLES` of `samples`; returns how many. No file if none loads."""
    specs = config.specs()
    adapter = open_dataset(config.dataset, specs)
    encoder = SampleEncoder(adapter, specs)
    rows: list[tuple[SourceSample, LoadedSample]] = []
    for sample in _shuffled(samples, seed):
        if len(rows) == NUM_SAMPLES:
            break
        try:
            rows.append((sample, encoder.load(sample)))
        except SampleRefused:
            continue
    if rows:
        sheet = _draw(rows, specs, adapter.classes, adapter.palette)

        def write(file: BinaryIO) -> None:
            sheet.save(file, "PNG", optimize=True)

        write_atomic(path, write)
    return len(rows)


def _shuffled(samples: Sequence[SourceSample], seed: int) -> Iterator[SourceSample]:
    order = np.random.default_rng([seed, RandomStream.CONTACT_SHEET_SAMPLES]).permutation(
        len(samples)
    )
    return (samples[i] for i in order)


def _draw(
    rows: Sequence[tuple[SourceSample, LoadedSample]],
    specs: Mapping[str, ModalitySpec],
    classes: Sequence[str],
    palette: Sequence[RGB],
) -> Image.Image:
    height = max(_cell_size(loaded.label)[1] for _, loaded in rows)
    step_x, step_y = CELL_PX + GAP_PX, height + TEXT_PX + GAP_PX
    columns = len(specs) + 1
    width = GAP_PX + columns * step_x
    names = [(f"{i} {name}", palette[i]) for i, name in enumerate(classes)]
    per_line = max(1, width // step_x)
    legend_lines = -(-(len(names) + 1) // per_line)
    top = TEXT_PX + GAP_PX
    total = top + len(rows) * step_y + legend_lines * (TEXT_PX + 2) + GAP_PX
    sheet = Image.new("RGB", (width, total), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate((*specs, LABEL)):
        _write(draw, GAP_PX + column * step_x, 4, title)
    for row, (sample, loaded) in enumerate(rows):
        y = top + row * step_y
        about = " ".join(filter(None, (sample.key, sample.condition, sample.corner_case)))
        _write(draw, GAP_PX, y, about)
        for column, cell in enumerate(_cells(loaded, specs, palette)):
            if cell is not None:
                sheet.paste(cell, (GAP_PX + column * step_x, y + TEXT_PX))
    for index, (name, colour) in enumerate((*names, ("255 ignored", _IGNORED))):
        x = GAP_PX + index % per_line * step_x
        y = top + len(rows) * step_y + index // per_line * (TEXT_PX + 2)
        draw.rectangle((x, y, x + 22, y + TEXT_PX - 3), fill=colour)
        _write(draw, x + 28, y, name)
    return sheet


def _write(draw: ImageDraw.ImageDraw, x: int, y: int, text: str) -> None:
    font = ImageFont.load_default()
    draw.text((x, y), text.encode("ascii", "replace").decode(), fill=_INK, font=font)


def _cells(
    loaded: LoadedSample, specs: Mapping[str, ModalitySpec], palette: Sequence[RGB]
) -> Iterator[Image.Image | None]:
    """One image a modality, None where it is absent, then the label."""
    size = _cell_size(loaded.label)
    for name, spec in specs.items():
        array = loaded.arrays.get(name)
        yield _resized(visible_colours(array, spec), size, spec) if array is not None else None
    colours = np.full((256, 3), _IGNORED, np.uint8)
    colours[: len(palette)] = palette
    colours[IGNORE_ID] = _IGNORED
    yield Image.fromarray(colours[loaded.label]).resize(size, Image.Resampling.NEAREST)


def _cell_size(label: U8) -> tuple[int, int]:
    height, width = label.shape
    return CELL_PX, max(1, round(CELL_PX * height / width))


def _resized(colours: U8, size: tuple[int, int], spec: ModalitySpec) -> Image.Image:
    image = Image.fromarray(colours)
    if spec.interpolation == "nearest":
        return image.resize(size, Image.Resampling.NEAREST)
    return image.resize(size, Image.Resampling.BILINEAR)


def visible_colours(array: NDArray[Any], spec: ModalitySpec) -> U8:
    """A stored form as (H, W, 3) colours: three channels as they are, one channel stretched.

    Distances: near is bright, pixels without a measurement are nearly black.
    """
    if spec.channels == 3:
        return array.astype(np.uint8)
    unit = to_unit_range(array, spec)
    measured = unit[array > 0]
    low, high = np.percentile(measured, _STRETCH) if measured.size else (0.0, 1.0)
    grey = np.clip((unit - low) / max(float(high - low), 1e-6), 0.0, 1.0)
    if spec.unit == "mm":
        grey = 1.0 - 0.85 * grey
    colours = np.repeat(np.rint(255 * grey).astype(np.uint8)[:, :, None], 3, axis=2)
    if spec.unit == "mm":
        colours[array == 0] = _UNMEASURED
    return colours
