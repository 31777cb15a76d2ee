"""Masks on their way through the automatic generator: one struct of arrays, so that every filter is one index.

N masks. `boxes_incl_N4` are xyxy boxes with inclusive maxima as in the reference code, whose decisions in NMS and at
crop edges are reproduced; all other boxes, those of records included, are half-open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from storage.rle import Rle


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskBatch:
    """N masks of one image, in its coordinates."""

    rles: list[Rle]
    boxes_incl_N4: np.ndarray
    """int64, inclusive maxima; 0 for an empty mask."""
    areas_N: np.ndarray
    """int64, pixels."""
    predicted_iou_N: np.ndarray
    """float32, the network's estimate of the mask's IoU."""
    stability_N: np.ndarray
    """float32 in [0, 1]."""
    points_N2: np.ndarray
    """float64 (x, y): the prompt."""
    crops_N4: np.ndarray
    """int64, half-open: window of the image that the mask was made in."""

    def __len__(self) -> int:
        return len(self.rles)

    def __getitem__(self, index_K: np.ndarray) -> MaskBatch:
        """Select the masks that a bool [N] or an int [K] array names, in its order."""
        index_K = np.flatnonzero(index_K) if index_K.dtype == bool else index_K
        arrays = {name: getattr(self, name)[index_K] for name in _ARRAYS}
        return MaskBatch(rles=[self.rles[i] for i in index_K], **arrays)

    @staticmethod
    def concatenate(batches: Sequence[MaskBatch]) -> MaskBatch:
        """Join batches in order; none give the empty batch."""
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
