"""Encoding of stored views: every image goes through its tower once per view.

A view's pixels (`pipeline.targets.views.cut`) go through the tower's own preprocessing as any image
does; a view is square, so the centre crop removes nothing. A mirrored view is mirrored before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config.config import Config
from pipeline.targets.views import VIEW_BOX, ViewConfig, cut, draw_boxes
from teacher.encoding.batches import Batch
from teacher.encoding.encoder import Encoder, Rows

if TYPE_CHECKING:
    from teacher.contract import LoadedTower


def stored_images_per_batch(config: Config) -> int:
    """Images decoded together, so that their views fill the tower's batch."""
    return max(1, config.teacher.batch_size // max(1, config.teacher.views))


def encode_views(
    encoder: Encoder,
    tower: LoadedTower,
    batch: Batch,
    settings: ViewConfig,
    outputs: Sequence[str],
) -> Rows:
    """Output to (N, K, ...) of the batch's N images and K views, and `view_box` (N, K, 5)."""
    arrays = list(batch.arrays)
    keys = [batch.shard.keys[picture.row] for picture in batch.images]
    boxes = [
        draw_boxes(key, array.shape[0], array.shape[1], settings)
        for key, array in zip(keys, arrays, strict=True)
    ]
    views = [cut(array, box) for array, own in zip(arrays, boxes, strict=True) for box in own]
    rows = encoder.encode(tower, views, outputs)
    stacked = {
        name: values.reshape(len(arrays), settings.number, *values.shape[1:])
        for name, values in rows.items()
    }
    return stacked | {VIEW_BOX: np.stack(boxes)}
