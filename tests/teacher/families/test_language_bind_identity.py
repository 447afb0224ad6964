"""What LanguageBind's fingerprints cover."""

from __future__ import annotations

import hashlib
from pathlib import Path

from teacher.checkpoints.locate import find_tower
from teacher.families.language_bind_identity import tower_identity
from teacher.preprocessing.config import preprocessing_for


def test_the_tower_identity_covers_weights_and_preprocessing(goldens: Path, tmp_path: Path) -> None:
    files = find_tower(str(goldens), "depth")

    def identity(dtype: str = "float32", **options: object) -> dict[str, object]:
        settings = preprocessing_for(files.config, **options)
        return tower_identity(files, settings, compute_dtype=dtype, cache=tmp_path)

    base = identity()
    digest = hashlib.sha256(files.weights[0].read_bytes()).hexdigest()
    assert base["weights"] == digest
    assert base == identity(max_depth_m=10.0)
    others = [identity("bfloat16"), identity(antialias=True), identity(holes="far")]
    assert all(other != base for other in others)
