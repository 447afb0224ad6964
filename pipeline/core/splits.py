"""Names of the splits that the pipeline itself knows; a data set may have others besides."""

from __future__ import annotations

TRAIN_SPLIT = "train"
"""What students are trained on."""
VAL_SPLIT = "val"
TEST_SPLIT = "test"
SPLIT_ORDER = (TRAIN_SPLIT, VAL_SPLIT, TEST_SPLIT)
"""The order in which splits are listed."""
