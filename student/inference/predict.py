"""Predict files: one scene, or folders of images matched by name; any subset of the modalities.

    predict(segmenter, {"rgb": Path("rgb/"), "depth": Path("depth/")}, Path("out")) -> StageReport

Writes for each scene `NAME.png` (class ids with the classes' colours as palette), on request
`NAME_overlay.png` (colours over the image) and `NAME.npy` (logits (K, H, W) float32), and
`predictions.json` (see `student.inference.output_files`). A scene that cannot be read is a failure in the
report, by name; the others are predicted. Hidden files are not scenes. Raises `ConfigError` if the folders
have no scene in common, and before anything is written if a file would replace an input or another's result.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.progress import progress_bar
from pipeline.core.stage_report import Failure, StageReport
from pipeline.datasets.base import RGB
from pipeline.datasets.patterns import hidden, visible
from pipeline.errors import ConfigError, DatasetError
from pipeline.formats.image_file import ARRAY_EXTENSIONS, EXTENSIONS
from pipeline.modalities import ModalitySpec, to_unit_range
from pipeline.storage.files import write_bytes
from student.evaluation.sliding_window import Window
from student.inference.output_files import (
    IDS,
    LOGITS,
    OVERLAY,
    Outputs,
    Scene,
    plan_outputs,
    reserve,
)
from student.inference.segmenter import Segmentation, Segmenter

OVERLAY_OPACITY = 0.5
"""Opacity of the class colours in an overlay."""


def predict(
    segmenter: Segmenter,
    sources: Mapping[str, Path],
    folder: Path,
    outputs: Outputs = Outputs(),  # noqa: B008 immutable
    window: Window | None = None,
    *,
    progress: bool = True,
) -> StageReport:
    """Predict every scene of `sources` (modality to a file or a folder) into `folder`."""
    started = time.perf_counter()
    scenes = list_scenes(sources)
    reserve(folder, plan_outputs(scenes, folder, outputs))
    predicted: Counter[str] = Counter()
    failed = []
    with progress_bar("predict", len(scenes), "scenes", progress) as advance:
        for scene in scenes:
            try:
                inputs = {name: segmenter.read(name, path) for name, path in scene.files.items()}
                segmentation = segmenter.segment(inputs, window)
            except DatasetError as error:
                failed.append(Failure(scene.name, str(error)))
            else:
                _write(segmenter, scene, inputs, segmentation, folder, outputs)
                predicted["+".join(segmentation.modalities)] += 1
            advance(1, scene.name)
    return StageReport(
        stage="predict",
        done=predicted.total(),
        failed=tuple(failed),
        seconds=time.perf_counter() - started,
        details={
            "folder": str(folder),
            "scenes": dict(predicted),
            "hidden": [path.name for source in sources.values() for path in hidden(source)],
        },
    )


def list_scenes(sources: Mapping[str, Path]) -> list[Scene]:
    """The scenes of one file, or of one folder, for each modality. Raises `ConfigError`."""
    missing = [path for path in sources.values() if not path.exists()]
    if missing or not sources:
        raise ConfigError(f"{missing[0]}: no such file or folder" if missing else "no image given")
    if all(path.is_file() for path in sources.values()):
        return [Scene(next(iter(sources.values())).stem, dict(sources))]
    if any(path.is_file() for path in sources.values()):
        raise ConfigError(f"expected files only or folders only, found {_listed(sources)}")
    files = {name: _images(path) for name, path in sources.items()}
    stems = sorted(set().union(*files.values()))
    scenes = [Scene(s, {n: paths[s] for n, paths in files.items() if s in paths}) for s in stems]
    if not any(len(scene.files) == len(sources) for scene in scenes):
        firsts = {name: next(iter(paths), "no image") for name, paths in files.items()}
        raise ConfigError(
            "expected images of the same name, extensions aside, in all folders; found none "
            f"(first: {', '.join(f'{name} {stem}' for name, stem in firsts.items())})"
        )
    return scenes


def _images(folder: Path) -> dict[str, Path]:
    """Image files by name without extension."""
    images: dict[str, Path] = {}
    for path in visible(folder):
        if path.suffix.lower() in EXTENSIONS | ARRAY_EXTENSIONS:
            if path.stem in images:
                raise ConfigError(
                    f"{path} and {images[path.stem].name}: the same name twice; keep one"
                )
            images[path.stem] = path
    return images


def _listed(sources: Mapping[str, Path]) -> str:
    return ", ".join(f"{name} {path}" for name, path in sources.items())


def _write(
    segmenter: Segmenter,
    scene: Scene,
    inputs: Mapping[str, NDArray[Any]],
    segmentation: Segmentation,
    folder: Path,
    outputs: Outputs,
) -> None:
    palette = segmenter.description.palette
    write_bytes(folder / f"{scene.name}{IDS}", palette_png(segmentation.ids, palette))
    if outputs.overlay:
        shown = next((n for n in inputs if segmenter.specs[n].kind == "rgb"), next(iter(inputs)))
        image = overlay(inputs[shown], segmenter.specs[shown], segmentation.ids, palette)
        write_bytes(folder / f"{scene.name}{OVERLAY}", _png(Image.fromarray(image)))
    if outputs.logits:
        file = BytesIO()
        np.save(file, segmentation.logits, allow_pickle=False)
        write_bytes(folder / f"{scene.name}{LOGITS}", file.getvalue())


def palette_png(ids_HW: NDArray[np.uint8], palette: Sequence[RGB]) -> bytes:
    """A palette PNG whose values are the class ids and whose colours are the classes'."""
    image = Image.fromarray(ids_HW)
    colours = [channel for colour in palette for channel in colour]
    image.putpalette(colours + [0] * (768 - len(colours)))
    return _png(image)


def overlay(
    image: NDArray[Any], spec: ModalitySpec, ids_HW: NDArray[np.uint8], palette: Sequence[RGB]
) -> NDArray[np.uint8]:
    """(H, W, 3): the classes' colours over an image in its stored form."""
    unit = to_unit_range(image, spec)
    background = 255 * (unit if unit.ndim == 3 else np.repeat(unit[:, :, None], 3, axis=2))
    colours = np.array(palette, np.float32)[ids_HW]
    mixed: NDArray[np.float32] = OVERLAY_OPACITY * colours + (1 - OVERLAY_OPACITY) * background
    return np.rint(mixed).astype(np.uint8)


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
