"""The released size: a random ViT-L/14 checkpoint of 1.7 GB is loaded strictly and encodes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
HAS_BF16 = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
ROW = re.compile(r"(\w+) +load .* peak +([\d.]+) GB +least cosine to float32 ([\d.]+)")


def measure(folder: Path, *dtypes: str) -> dict[str, tuple[float, float]]:
    """dtype to (peak memory in GB, least cosine to float32) of one encoded picture."""
    if shutil.disk_usage(folder).free < 4e9:
        pytest.skip("less than 4 GB free in the temporary folder")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.teachers", "--dtypes", *dtypes, "--count", "1"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "checkpoint: 1.71 GB" in done.stdout
    return {dtype: (float(peak), float(cosine)) for dtype, peak, cosine in ROW.findall(done.stdout)}


@pytest.mark.proof
def test_a_full_size_tower_loads_and_encodes(tmp_path: Path) -> None:
    rows = measure(tmp_path, "float32")
    assert rows["float32"][0] < 5.0


@pytest.mark.proof
@pytest.mark.skipif(
    not HAS_BF16(),
    reason="this processor emulates bfloat16: minutes a picture",
)
def test_a_full_size_tower_encodes_in_bf16(tmp_path: Path) -> None:
    rows = measure(tmp_path, "float32", "bfloat16")
    assert rows["bfloat16"][0] < 5.0
    assert rows["bfloat16"][1] > 0.999
