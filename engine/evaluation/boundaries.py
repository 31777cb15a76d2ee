"""How well two masks agree along their edges, where the IoU of large masks hardly looks.

Boundary IoU of Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021: the IoU
of the two masks' inner bands, the pixels of each mask that lie within a tolerance of its own edge. Letters: H/W the
image.
"""

from __future__ import annotations

import cv2
import numpy as np

TOLERANCE = 0.02
"""Width of the band as a fraction of the image's diagonal, the paper's choice for COCO (16 px at 640x480)."""


def boundary_iou(mask_HW: np.ndarray, truth_HW: np.ndarray) -> float:
    """Compute the Boundary IoU of two bool masks of one image, in [0, 1]; 0 when both are empty.

    The image's border counts as an edge, as in the authors' code. Masks thinner than twice the tolerance
    are all band: for two of them it is the plain IoU.
    """
    height, width = truth_HW.shape
    band_px = max(1, round(TOLERANCE * float(np.hypot(height, width))))
    mask_band_HW, truth_band_HW = inner_band(mask_HW, band_px), inner_band(truth_HW, band_px)
    both = np.count_nonzero(mask_band_HW & truth_band_HW)
    either = np.count_nonzero(mask_band_HW) + np.count_nonzero(truth_band_HW) - both
    return both / either if either else 0.0


def inner_band(mask_HW: np.ndarray, band_px: int) -> np.ndarray:
    """Find the mask's pixels that `band_px` erosions with a 3x3 square take away; bool [H, W].

    A pixel goes with the k-th erosion when its chessboard distance to the outside is k: one distance transform of the
    mask's own window instead of `band_px` erosions of the image.
    """
    band_HW = np.zeros(mask_HW.shape, dtype=bool)
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if len(rows):
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        padded = np.pad(mask_HW[window].astype(np.uint8), 1)
        depth = cv2.distanceTransform(padded, cv2.DIST_C, cv2.DIST_MASK_3)[1:-1, 1:-1]
        band_HW[window] = mask_HW[window] & (depth <= band_px)
    return band_HW
