"""A trained student as a graph of its own: ONNX and torch.export, for any subset and any size.

    export_onnx(segmenter, path)       export_program(segmenter, path)

The graph's inputs are `present` (B, M) bool and one image for each modality, (B, 1 or 3, H, W) float32
in [0, 1] (`pipeline.modalities.to_unit_range` of the stored form); an absent modality's image is
ignored. Its output is `logits` (B, K, H, W). B, H and W are free; H and W are multiples of the
backbone's largest stride, 32, and at least 64 (pad other sizes). Each graph is checked against the
student itself on random inputs before its file is written: `CheckpointError` if it differs by more
than `TOLERANCE`. `ConfigError` if the packages of the extra `export` are not installed.

Legend: B samples, M modalities, K classes, H W space.
"""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.functional import interpolate

from pipeline.errors import CheckpointError, ConfigError
from pipeline.storage.files import write_bytes
from student.inference.segmenter import Segmenter
from student.model.fusion import StageFeatures
from student.model.student import Student

STRIDE = 32
TOLERANCE = 1e-3
"""Largest difference of a logit in another runtime, relative to the largest logit."""
CHECKED = ((1, 2, 2), (3, 2, 4))
"""Batch size, height and width (in strides) of the inputs that are compared."""

Runner = Callable[[list[Tensor]], NDArray[np.float32]]


class AnySubset(nn.Module):
    """The student without a branch that depends on data: every modality goes through the backbone,
    absent ones as zeros whose features are masked."""

    def __init__(self, model: Student) -> None:
        super().__init__()
        self.model = model

    def forward(self, present_BM: Tensor, *images: Tensor) -> Tensor:
        """Logits (B, K, H, W) from images (B, 1 or 3, H, W) in the model's order."""
        model = self.model
        inputs = model.normalise(dict(zip(model.modalities, images, strict=True)))
        absent_MB111 = ~present_BM.T[:, :, None, None, None]
        inputs = inputs.masked_fill(absent_MB111, 0)
        M, B = inputs.shape[:2]
        maps = model.backbone(inputs.flatten(0, 1), [B] * M)
        features = model.staged(maps, M)
        # Zeros do not come out of the backbone as zeros, which is what fusion expects of absent rows.
        masked = tuple(stage.masked_fill(absent_MB111, 0) for stage in features.maps)
        logits = model.logits(StageFeatures(masked, model.fusion.grams(masked)), present_BM)
        return interpolate(logits, size=images[0].shape[-2:], mode="bilinear")


def export_program(segmenter: Segmenter, path: Path) -> None:
    """Write a `torch.export` program (`.pt2`)."""
    program = _program(segmenter)
    file = io.BytesIO()
    torch.export.save(program, file)
    runner = torch.export.load(io.BytesIO(file.getvalue())).module()

    def run(inputs: list[Tensor]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = runner(*inputs).numpy()
        return logits

    check_graph(segmenter, run, path)
    write_bytes(path, file.getvalue())


def export_onnx(segmenter: Segmenter, path: Path) -> None:
    """Write an ONNX model and run it once in onnxruntime. Raises `ConfigError`, `CheckpointError`."""
    missing = [p for p in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(p)]
    if missing:
        raise ConfigError(
            f'ONNX needs {", ".join(missing)}, not installed. Run `pip install "any2seg[export]"`.'
        )
    import onnxruntime

    with _quiet():
        converted = torch.onnx.export(
            _program(segmenter),
            input_names=input_names(segmenter.model),
            output_names=["logits"],
            dynamo=True,
            verbose=False,
        )
    assert converted is not None
    data = converted.model_proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(inputs: list[Tensor]) -> NDArray[np.float32]:
        names = input_names(segmenter.model)
        feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        logits: NDArray[np.float32] = session.run(["logits"], feed)[0]
        return logits

    check_graph(segmenter, run, path)
    write_bytes(path, data)


def input_names(model: Student) -> list[str]:
    """Names of the graph's inputs, in order."""
    return ["present", *model.modalities]


def _program(segmenter: Segmenter) -> ExportedProgram:
    module = AnySubset(segmenter.model.cpu()).eval()
    batch = Dim("batch", min=1, max=1024)
    # At least 2: resizing a map of one pixel is broadcasting, which would be traced as another graph.
    rows, columns = Dim("rows", min=2, max=512), Dim("columns", min=2, max=512)
    size = {0: batch, 2: STRIDE * rows, 3: STRIDE * columns}
    inputs = example(segmenter, 2, 2 * STRIDE, 3 * STRIDE)
    shapes: Any = {"present_BM": {0: batch}, "images": tuple(size for _ in inputs[1:])}
    with _quiet(), torch.inference_mode():
        return torch.export.export(module, tuple(inputs), dynamic_shapes=shapes)


def example(segmenter: Segmenter, batch: int, height: int, width: int) -> list[Tensor]:
    """Random inputs; the first sample has all modalities, the others a random subset."""
    generator = torch.Generator().manual_seed(batch * 1_000_003 + height * 1009 + width)
    specs = list(segmenter.specs.values())
    images = [torch.rand(batch, s.channels, height, width, generator=generator) for s in specs]
    present = torch.rand(batch, len(specs), generator=generator) < 0.5
    present[0] = True
    present[:, 0] |= ~present.any(1)
    return [present, *images]


def check_graph(segmenter: Segmenter, run: Runner, path: Path) -> None:
    """Compare a runtime with the student itself, at sizes that the graph was not traced with.

    `CheckpointError` if they differ.
    """
    model = segmenter.model
    for batch, rows, columns in CHECKED:
        present, *images = example(segmenter, batch, rows * STRIDE, columns * STRIDE)
        with torch.inference_mode():
            expected = model(dict(zip(model.modalities, images, strict=True)), present).numpy()
        actual = run([present, *images])
        difference = float(np.abs(actual - expected).max() / np.abs(expected).max())
        if not difference <= TOLERANCE:  # also if it is NaN
            raise CheckpointError(
                f"{path}: the exported graph differs from the student by {difference:.2g} of its "
                f"largest logit; expected at most {TOLERANCE:g}. Nothing was written."
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' warnings about their own internals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
