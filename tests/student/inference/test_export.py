"""Exported graphs against the student, in their own runtimes, for any subset and size."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.student import StudentConfig
from pipeline.errors import CheckpointError
from pipeline.modalities import KINDS
from student.inference import export
from student.inference.export import STRIDE, example, export_onnx, export_program, input_names
from student.inference.segmenter import Description, Segmenter
from student.model.student import Student

SENSORS = {"rgb": KINDS["rgb"], "depth": KINDS["depth"], "nir": KINDS["nir"]}


def build(fusion: str, stems: str = "shared") -> Segmenter:
    torch.manual_seed(0)
    config = StudentConfig(
        backbone="test_efficientnet", weights="none", head_channels=8, fusion=fusion, stems=stems
    )
    model = Student(config, SENSORS, 5)
    description = Description(
        name="toy",
        student=config,
        modalities={name: asdict(spec) for name, spec in SENSORS.items()},
        classes=tuple("abcde"),
        palette=((0, 0, 0),) * 5,
        dataset={"adapter": "synthetic"},
        trained_on={},
        step=0,
    )
    return Segmenter(model, description)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fusion", "stems"),
    [("mff", "shared"), pytest.param("concat", "per_modality", marks=pytest.mark.proof)],
)
def test_a_program_serves_any_subset_and_size(fusion: str, stems: str, tmp_path: Path) -> None:
    segmenter = build(fusion, stems)
    export_program(segmenter, tmp_path / "student.pt2")
    program = torch.export.load(tmp_path / "student.pt2").module()
    present, *images = example(segmenter, 5, 2 * STRIDE, 4 * STRIDE)
    with torch.inference_mode():
        actual = program(present, *images)
        expected = segmenter.model(dict(zip(SENSORS, images, strict=True)), present)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.proof
def test_onnx_serves_any_subset_and_size(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    segmenter = build("mff")
    export_onnx(segmenter, tmp_path / "student.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "student.onnx")
    names = [value.name for value in session.get_inputs()]
    assert names == input_names(segmenter.model)
    for batch, rows, columns in ((1, 3, 2), (4, 2, 2)):
        present, *images = example(segmenter, batch, rows * STRIDE, columns * STRIDE)
        feed = dict(zip(names, (present.numpy(), *(p.numpy() for p in images)), strict=True))
        (actual,) = session.run(["logits"], feed)
        with torch.inference_mode():
            expected = segmenter.model(dict(zip(SENSORS, images, strict=True)), present).numpy()
        np.testing.assert_allclose(actual, expected, atol=1e-3 * np.abs(expected).max())


def test_what_an_absent_sensor_shows_does_not_count(tmp_path: Path) -> None:
    segmenter = build("mff")
    module = export.AnySubset(segmenter.model)
    present, *images = example(segmenter, 2, STRIDE, STRIDE)
    present[:, 1] = False
    with torch.inference_mode():
        first = module(present, *images)
        images[1] = torch.full_like(images[1], torch.nan)
        assert torch.equal(first, module(present, *images))


def test_a_graph_that_differs_is_refused(tmp_path: Path) -> None:
    segmenter = build("mff")

    def run(inputs: list[torch.Tensor]) -> np.ndarray:
        present, *images = inputs
        with torch.inference_mode():
            return segmenter.model(dict(zip(SENSORS, images, strict=True)), present).numpy()

    export.check_graph(segmenter, run, tmp_path)
    with pytest.raises(CheckpointError, match="differs from the student"):
        export.check_graph(segmenter, lambda inputs: 1.01 * run(inputs), tmp_path)
