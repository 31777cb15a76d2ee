"""Boundary IoU: a metric of how well two masks agree along their edges, which the IoU of large masks hardly measures.

The inner band of a mask holds the pixels of the mask within a tolerance of its own edge. The Boundary IoU is the IoU of
the inner bands of two masks. Source: Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation
Evaluation", CVPR 2021. Shape letters: H/W the image.
"""

from __future__ import annotations

import cv2
import numpy as np

TOLERANCE = 0.02
"""Distance from a mask's edge up to which Boundary IoU compares pixels, as a fraction of the image's diagonal. The
paper chose this value for COCO (16 px at 640x480)."""


def boundary_iou(mask_HW: np.ndarray, truth_HW: np.ndarray) -> float:
    """Compute the Boundary IoU of two bool masks of one image, in [0, 1]; 0 when both are empty.

    Boundary IoU compares only the pixels of each mask within a tolerance (`TOLERANCE`) of the mask's own edge. The
    image's border counts as an edge, as in the authors' code. A mask thinner than twice the tolerance is compared as a
    whole; for two such masks, the Boundary IoU is the plain IoU.
    """
    height, width = truth_HW.shape
    band_px = max(1, round(TOLERANCE * float(np.hypot(height, width))))
    mask_band_HW, truth_band_HW = inner_band(mask_HW, band_px), inner_band(truth_HW, band_px)
    both = np.count_nonzero(mask_band_HW & truth_band_HW)
    either = np.count_nonzero(mask_band_HW) + np.count_nonzero(truth_band_HW) - both
    return both / either if either else 0.0


def inner_band(mask_HW: np.ndarray, band_px: int) -> np.ndarray:
    """Select the pixels of a mask that are at most `band_px` pixels from the outside of the mask; bool [H, W].

    The distance is the chessboard distance. The result holds the pixels that `band_px` erosions with a 3x3 square
    remove, but one distance transform of the mask's bounding box is faster than these erosions.
    """
    band_HW = np.zeros(mask_HW.shape, dtype=bool)
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if len(rows):
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        padded = np.pad(mask_HW[window].astype(np.uint8), 1)
        depth = cv2.distanceTransform(padded, cv2.DIST_C, cv2.DIST_MASK_3)[1:-1, 1:-1]
        band_HW[window] = mask_HW[window] & (depth <= band_px)
    return band_HW
