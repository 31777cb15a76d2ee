"""Masks inside the automatic generator: an array for each property, so that one index filters them all.

N masks. `boxes_incl_N4` are xyxy boxes with inclusive maxima, as in the reference code, so that NMS and the filter on
crop edges decide as that code does. All other boxes are half-open, including those of `GeneratedMask`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from storage.rle import Rle


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskBatch:
    """N masks of one image, in the image's coordinates."""

    rles: list[Rle]
    boxes_incl_N4: np.ndarray
    """Boxes of the masks, xyxy in pixels with inclusive maxima, int64; 0 for an empty mask."""
    areas_N: np.ndarray
    """Areas of the masks in pixels, int64."""
    predicted_iou_N: np.ndarray
    """Predicted IoU of the masks, float32: the network's own estimate."""
    stability_N: np.ndarray
    """Stability of the masks in [0, 1], float32."""
    points_N2: np.ndarray
    """Points (x, y) that prompted the masks, in image pixels, float64."""
    crops_N4: np.ndarray
    """Windows of the image in which the masks were made, half-open xyxy in pixels, int64."""

    def __len__(self) -> int:
        return len(self.rles)

    def __getitem__(self, index_K: np.ndarray) -> MaskBatch:
        """Select the masks given by a bool [N] or an int [K] array, in the order of the array."""
        index_K = np.flatnonzero(index_K) if index_K.dtype == bool else index_K
        arrays = {name: getattr(self, name)[index_K] for name in _ARRAYS}
        return MaskBatch(rles=[self.rles[i] for i in index_K], **arrays)

    @staticmethod
    def concatenate(batches: Sequence[MaskBatch]) -> MaskBatch:
        """Join batches in the order given; no batches give a batch without masks."""
        batches = [_EMPTY, *batches]
        arrays = {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in _ARRAYS}
        return MaskBatch(rles=[runs for batch in batches for runs in batch.rles], **arrays)


_ARRAYS = [field.name for field in fields(MaskBatch) if field.name != "rles"]
_EMPTY = MaskBatch(
    rles=[],
    boxes_incl_N4=np.empty((0, 4), np.int64),
    areas_N=np.empty(0, np.int64),
    predicted_iou_N=np.empty(0, np.float32),
    stability_N=np.empty(0, np.float32),
    points_N2=np.empty((0, 2)),
    crops_N4=np.empty((0, 4), np.int64),
)
