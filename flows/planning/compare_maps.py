"""Two teachers' patch classes beside image and label, as PNG files.

    write_maps(folder, config, drawn, (first, second))

One file a sample and sensor, `<key>.<modality>.png`: the centre square that the teachers see, its label,
one map a teacher, and the colours of the classes that occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from flows.planning.compare import Drawn, SensorReport, TeacherReport
from flows.planning.patch_scores import centre_square
from pipeline.config.config import Config
from pipeline.datasets import open_dataset
from pipeline.datasets.base import IGNORE_ID, RGB, LoadedSample
from pipeline.errors import SampleRefused
from pipeline.onboarding.contact_sheet import visible_colours
from pipeline.shards.sample_encoder import SampleEncoder
from pipeline.storage.files import write_bytes

NUM_SAMPLES = 8
PANEL_PX = 256
GAP_PX = 8
LINE_PX = 16
MAX_TITLE = 42
"""Characters that fit above a panel."""
_PAPER, _INK, _IGNORED = (255, 255, 255), (30, 30, 30), (0, 0, 0)

U8 = NDArray[np.uint8]


def write_maps(
    folder: Path, config: Config, drawn: Drawn, reports: tuple[TeacherReport, TeacherReport]
) -> list[Path]:
    """Write up to `NUM_SAMPLES` held-out samples, every sensor that all reports have; the files."""
    specs = config.specs()
    adapter = open_dataset(config.dataset, specs)
    reader = SampleEncoder(adapter, specs)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for sample in drawn.held_out[:NUM_SAMPLES]:
        try:
            loaded = reader.load(sample)
        except SampleRefused:
            continue
        for name in loaded.arrays:
            maps = [_panel(r.sensors[name], sample.key) for r in reports if name in r.sensors]
            if len(maps) == len(reports):
                image = visible_colours(centre_square(loaded.arrays[name]), specs[name])
                titles = [f"{n} {_title(r, name)}" for n, r in zip("AB", reports, strict=True)]
                sheet = _draw(image, loaded, maps, titles, adapter.classes, adapter.palette)
                files.append(folder / f"{sample.key}.{name}.png")
                _save(sheet, files[-1])
    return files


def _panel(sensor: SensorReport, key: str) -> U8:
    """(PANEL_PX, PANEL_PX) classes of a map at its position in the panel; not labelled around it."""
    side = round(PANEL_PX * sensor.field)
    classes = Image.fromarray(sensor.maps[key]).resize((side, side), Image.Resampling.NEAREST)
    panel = np.full((PANEL_PX, PANEL_PX), IGNORE_ID, np.uint8)
    edge = (PANEL_PX - side) // 2
    panel[edge : edge + side, edge : edge + side] = np.asarray(classes)
    return panel


def _title(report: TeacherReport, modality: str) -> str:
    how = "neighbours" if report.sensors[modality].zero_shot is None else "zero-shot"
    return f"{how}: {report.name}"


def _draw(
    image: U8,
    loaded: LoadedSample,
    maps: Sequence[U8],
    titles: Sequence[str],
    classes: Sequence[str],
    palette: Sequence[RGB],
) -> Image.Image:
    label = centre_square(loaded.label)
    colours = np.full((IGNORE_ID + 1, 3), _IGNORED, np.uint8)
    colours[: len(palette)] = palette
    panels = [image, colours[label], *(colours[one] for one in maps)]
    occurring = np.unique(np.concatenate([one.ravel() for one in (label, *maps)]))
    names = [(classes[i] if i < len(classes) else "not labelled", colours[i]) for i in occurring]
    step = PANEL_PX + GAP_PX
    lines = -(-len(names) // len(panels))
    height = LINE_PX + step + lines * LINE_PX
    sheet = Image.new("RGB", (GAP_PX + len(panels) * step, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, (panel, title) in enumerate(zip(panels, ("image", "label", *titles), strict=True)):
        x = GAP_PX + column * step
        sheet.paste(
            Image.fromarray(panel).resize((PANEL_PX, PANEL_PX), Image.Resampling.NEAREST),
            (x, LINE_PX),
        )
        _write(draw, x, 2, title)
    for index, (name, colour) in enumerate(names):
        x = GAP_PX + index % len(panels) * step
        y = LINE_PX + step + index // len(panels) * LINE_PX
        draw.rectangle((x, y, x + 20, y + LINE_PX - 4), fill=tuple(map(int, colour)))
        _write(draw, x + 26, y, name)
    return sheet


def _write(draw: ImageDraw.ImageDraw, x: int, y: int, text: str) -> None:
    kept = text.encode("ascii", "replace").decode()[:MAX_TITLE]
    draw.text((x, y), kept, fill=_INK, font=ImageFont.load_default())


def _save(sheet: Image.Image, path: Path) -> None:
    data = BytesIO()
    sheet.save(data, "PNG", optimize=True)
    write_bytes(path, data.getvalue())
