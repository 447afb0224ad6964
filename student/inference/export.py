"""A trained student as a graph of its own: ONNX and torch.export, for any subset and any size.

    export_onnx(segmenter, path)       export_program(segmenter, path)

The graph's inputs are `present` (B, M) bool and one picture a modality, (B, 1 or 3, H, W) float32 in
[0, 1] (`pipeline.modalities.to_unit_range` of the stored form); what an absent modality's picture holds
does not count. Its output is `logits` (B, K, H, W). B, H and W are free; H and W are multiples of the
backbone's largest stride, 32, and at least 64 (pad what is not). Each file is checked
against the student itself on random readings before it is left in place: `CheckpointError` if it
differs by more than `TOLERANCE`.
`ConfigError` if the packages of the extra `export` are not installed.

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
from student.model.student import Student

STRIDE = 32
TOLERANCE = 1e-3
"""Largest difference of a logit, beside the largest logit, that another runtime may have."""
CHECKED = ((1, 2, 2), (3, 2, 4))
"""Batch size, height and width in strides of the readings that are compared."""

Runner = Callable[[list[Tensor]], NDArray[np.float32]]


class AnySubset(nn.Module):
    """The student without a branch that depends on data: every modality goes through the backbone,
    absent ones as zeros whose features never count."""

    def __init__(self, model: Student) -> None:
        super().__init__()
        self.model = model

    def forward(self, present_BM: Tensor, *pictures: Tensor) -> Tensor:
        """Logits (B, K, H, W) from pictures (B, 1 or 3, H, W) in the model's order."""
        model = self.model
        readings = model.normalise(dict(zip(model.modalities, pictures, strict=True)))
        absent_MB1111 = ~present_BM.T[:, :, None, None, None]
        readings = readings.masked_fill(absent_MB1111, 0)
        M, B = readings.shape[:2]
        maps = model.backbone(readings.flatten(0, 1), [B] * M)
        features = model.staged(maps, M)
        kept = tuple(found.masked_fill(absent_MB1111, 0) for found in features.maps)
        logits = model.logits(type(features)(kept, model.fusion.grams(kept)), present_BM)
        return interpolate(logits, size=pictures[0].shape[-2:], mode="bilinear")


def export_program(segmenter: Segmenter, path: Path) -> None:
    """Write a `torch.export` program (`.pt2`)."""
    program = _program(segmenter)
    file = io.BytesIO()
    torch.export.save(program, file)
    runner = torch.export.load(io.BytesIO(file.getvalue())).module()

    def run(inputs: list[Tensor]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = runner(*inputs).numpy()
        return found

    check_graph(segmenter, run, path)
    write_bytes(path, file.getvalue())


def export_onnx(segmenter: Segmenter, path: Path) -> None:
    """Write an ONNX model and run it once in onnxruntime. Raises `ConfigError`, `CheckpointError`."""
    absent = [p for p in ("onnx", "onnxscript", "onnxruntime") if not importlib.util.find_spec(p)]
    if absent:
        raise ConfigError(
            f'ONNX needs {", ".join(absent)}, not installed. Run `pip install "any2seg[export]"`.'
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
        found: NDArray[np.float32] = session.run(["logits"], feed)[0]
        return found

    check_graph(segmenter, run, path)
    write_bytes(path, data)


def input_names(model: Student) -> list[str]:
    """Names of the graph's inputs, in order."""
    return ["present", *model.modalities]


def _program(segmenter: Segmenter) -> ExportedProgram:
    module = AnySubset(segmenter.model.cpu()).eval()
    batch = Dim("batch", min=1, max=1024)
    # A map of one pixel would be another graph: resizing it is broadcasting.
    rows, columns = Dim("rows", min=2, max=512), Dim("columns", min=2, max=512)
    size = {0: batch, 2: STRIDE * rows, 3: STRIDE * columns}
    inputs = example(segmenter, 2, 2 * STRIDE, 3 * STRIDE)
    shapes: Any = {"present_BM": {0: batch}, "pictures": tuple(size for _ in inputs[1:])}
    with _quiet(), torch.inference_mode():
        return torch.export.export(module, tuple(inputs), dynamic_shapes=shapes)


def example(segmenter: Segmenter, batch: int, height: int, width: int) -> list[Tensor]:
    """Random readings; the first sample has all modalities, the others a random subset."""
    generator = torch.Generator().manual_seed(batch * 1_000_003 + height * 1009 + width)
    specs = list(segmenter.specs.values())
    pictures = [torch.rand(batch, s.channels, height, width, generator=generator) for s in specs]
    present = torch.rand(batch, len(specs), generator=generator) < 0.5
    present[0] = True
    present[:, 0] |= ~present.any(1)
    return [present, *pictures]


def check_graph(segmenter: Segmenter, run: Runner, path: Path) -> None:
    """Compare a runtime with the student itself, at sizes that the graph was not traced with.

    `CheckpointError` if they differ.
    """
    model = segmenter.model
    for batch, rows, columns in CHECKED:
        present, *pictures = example(segmenter, batch, rows * STRIDE, columns * STRIDE)
        with torch.inference_mode():
            wanted = model(dict(zip(model.modalities, pictures, strict=True)), present).numpy()
        found = run([present, *pictures])
        difference = float(np.abs(found - wanted).max() / np.abs(wanted).max())
        if not difference <= TOLERANCE:
            raise CheckpointError(
                f"{path}: the exported graph differs from the student by {difference:.2g} of its "
                f"largest logit; expected at most {TOLERANCE:g}. Nothing was written."
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn about their own internals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
