"""The automatic generator's filters ("Segment Anything", appendix B): their names, and pure decisions over arrays.

N masks. `boxes_incl_N4` are xyxy boxes with inclusive maxima, as the reference code has them.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np

CROP_EDGE_TOLERANCE_PX = 20.0
"""Distance from a crop's edge, in pixels, within which a box counts as cut by it; the reference code's."""


class Filter(StrEnum):
    """The filters in the pipeline's order; the value is the filter's name in JSON documents."""

    label: str
    """Name on a report."""
    loss: str
    """What the masks are that it takes, to be read after their number."""
    meaning: str
    """Why it takes a mask."""
    advice: str
    """What to change so that it takes fewer."""

    def __new__(cls, value: str, label: str, loss: str, meaning: str, advice: str) -> Filter:
        """Create a member from its value and its texts."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.label, member.loss, member.meaning, member.advice = label, loss, meaning, advice
        return member

    FAILED_PREDICTED_IOU = (
        "failed_predicted_iou",
        "predicted IoU",
        "predicted IoU too low",
        "the model itself expects a poor mask",
        "lower generate.predicted_iou_threshold",
    )
    FAILED_STABILITY = (
        "failed_stability",
        "stability",
        "unstable",
        "a slightly tighter and a slightly looser cut differ too much",
        "lower generate.stability_threshold",
    )
    CUT_BY_CROP_EDGE = (
        "cut_by_crop_edge",
        "crop edge",
        "cut by a crop's edge",
        "the mask touches the border of a crop inside the image",
        "raise generate.crop_overlap_ratio",
    )
    EMPTY = (
        "empty",
        "empty",
        "without a pixel",
        "no pixel in it",
        "try another model: this one finds nothing here",
    )
    COVERS_IMAGE = (
        "covers_image",
        "covers the image",
        "covering the whole image",
        "nearly the whole image",
        "raise generate.max_area_fraction",
    )
    TOO_SMALL = (
        "too_small",
        "too small",
        "below the smallest area",
        "below the area asked for",
        "lower generate.min_mask_area_px",
    )
    TOO_LARGE = (
        "too_large",
        "too large",
        "above the largest area",
        "above the area asked for",
        "raise generate.max_mask_area_px",
    )
    DUPLICATE_IN_CROP = (
        "duplicate_in_crop",
        "NMS in a crop",
        "duplicates within a crop",
        "a better mask with nearly the same box",
        "raise generate.box_nms_threshold",
    )
    DUPLICATE_ACROSS_CROPS = (
        "duplicate_across_crops",
        "NMS across crops",
        "duplicates across crops",
        "a mask from a closer crop with nearly the same box",
        "raise generate.crop_nms_threshold",
    )
    DISSOLVED = (
        "dissolved",
        "clean-up",
        "of small islands alone",
        "nothing but specks",
        "lower generate.min_region_px",
    )
    DUPLICATE_AFTER_CLEANUP = (
        "duplicate_after_cleanup",
        "NMS after clean-up",
        "duplicates after clean-up",
        "the same box as another once cleaned",
        "raise generate.crop_nms_threshold",
    )


def is_confident(predicted_iou: np.ndarray, threshold: float) -> np.ndarray:
    """Keep what is above the threshold; a threshold of 0 or less keeps everything, as in the reference code."""
    return predicted_iou > np.float32(threshold) if threshold > 0 else np.ones(predicted_iou.shape, dtype=bool)


def is_stable(stability: np.ndarray, threshold: float) -> np.ndarray:
    """Keep what reaches the threshold; a threshold of 0 or less keeps everything, as in the reference code."""
    return stability >= np.float32(threshold) if threshold > 0 else np.ones(stability.shape, dtype=bool)


def is_whole(boxes_incl_N4: np.ndarray, crop_xyxy: tuple[int, int, int, int], image_hw: tuple[int, int]) -> np.ndarray:
    """Keep the masks that the crop's inner edges do not cut; boxes are in image pixels.

    A box side within 20 px of the crop's edge is cut, unless the image ends there too.
    """
    height, width = image_hw
    near_crop_N4 = np.abs(boxes_incl_N4 - np.array(crop_xyxy)) <= CROP_EDGE_TOLERANCE_PX
    near_image_N4 = np.abs(boxes_incl_N4 - np.array([0, 0, width, height])) <= CROP_EDGE_TOLERANCE_PX
    return ~(near_crop_N4 & ~near_image_N4).any(axis=1)
