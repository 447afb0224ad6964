"""Loads are counted by tower, for the whole process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import sys
from teacher.towers.load_count import tower_loads
assert tower_loads() == {}
assert "torch" not in sys.modules
from teacher import load_text_tower, load_tower
load_tower("languagebind-tiny", "depth")
load_tower("languagebind-tiny", "depth")
load_text_tower("languagebind-tiny")
print(tower_loads())
"""


def test_loads_are_counted_and_counting_needs_no_torch() -> None:
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "{'depth': 2, 'text': 1}", done.stderr
