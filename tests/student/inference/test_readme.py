"""The README's Python example, run as it stands."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config.config import Config

README = Path(__file__).parents[3] / "README.md"


def test_the_example_works(
    trained_field: tuple[Config, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run, tree = trained_field
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert len(code.splitlines()) <= 15
    # The example's names for the sensors and the run that are here.
    code = code.replace("workspace/runs/RUN-ID", str(run)).replace(
        '"red": "red.png"', '"rgb": "rgb.png"'
    )
    for name in ("nir", "rgb"):
        shutil.copy(tree / name / "val" / "0.png", tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(README), "exec"), {})
    assert np.asarray(Image.open("ids.png")).shape == (40, 56)
    names = {path.name for path in Path("field-robot-student").iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors"}
