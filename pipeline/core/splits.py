"""Names of the splits that the pipeline refers to; a data set may have more."""

from __future__ import annotations

TRAIN_SPLIT = "train"
"""The split that students are trained on."""
VAL_SPLIT = "val"
TEST_SPLIT = "test"
SPLIT_ORDER = (TRAIN_SPLIT, VAL_SPLIT, TEST_SPLIT)
"""The order in which splits are listed."""
