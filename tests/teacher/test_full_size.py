"""The released size: a random ViT-L/14 checkpoint of 1.7 GB is loaded strictly and encodes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"(\w+) +load .* peak +([\d.]+) GB +least cosine to float32 ([\d.]+)")


@pytest.mark.slow
def test_a_full_size_tower_loads_and_encodes_in_fp32_and_bf16(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < 4e9:
        pytest.skip("less than 4 GB free in the temporary folder")
    done = subprocess.run(
        [sys.executable, "benchmarks/towers.py", "cpu", "float32", "bfloat16", "--count", "1"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "checkpoint: 1.71 GB" in done.stdout
    rows = {dtype: (float(peak), float(cosine)) for dtype, peak, cosine in ROW.findall(done.stdout)}
    assert rows.keys() == {"float32", "bfloat16"}
    assert max(peak for peak, _ in rows.values()) < 5.0
    assert rows["bfloat16"][1] > 0.999
