"""Which masks the automatic generator keeps ("Segment Anything", appendix B): pure decisions over arrays, True is keep.

N masks.
"""

from __future__ import annotations

import numpy as np

CROP_EDGE_TOLERANCE_PX = 20.0
"""The reference code's: a box that ends this near a crop's edge counts as cut by it."""


def is_confident(predicted_iou: np.ndarray, threshold: float) -> np.ndarray:
    """Predicted IoU above the threshold; a threshold of 0 or less keeps everything, as in the reference code."""
    return predicted_iou > np.float32(threshold) if threshold > 0 else np.ones(predicted_iou.shape, dtype=bool)


def is_stable(stability: np.ndarray, threshold: float) -> np.ndarray:
    """Stability at or above the threshold; a threshold of 0 or less keeps everything, as in the reference code."""
    return stability >= np.float32(threshold) if threshold > 0 else np.ones(stability.shape, dtype=bool)


def is_whole(boxes_N4: np.ndarray, crop_xyxy: tuple[int, int, int, int], image_hw: tuple[int, int]) -> np.ndarray:
    """Masks that the crop's inner edges do not cut.

    A box side within 20 px of the crop's edge is cut, unless the photograph ends there too. Boxes are the reference's,
    with inclusive maxima and in the photograph's pixels.
    """
    height, width = image_hw
    near_crop_N4 = np.abs(boxes_N4 - np.array(crop_xyxy)) <= CROP_EDGE_TOLERANCE_PX
    near_image_N4 = np.abs(boxes_N4 - np.array([0, 0, width, height])) <= CROP_EDGE_TOLERANCE_PX
    return ~(near_crop_N4 & ~near_image_N4).any(axis=1)
