"""Filters of the automatic generator ("Segment Anything", appendix B): their names, and functions that select masks.

N masks. `boxes_incl_N4` are xyxy boxes with inclusive maxima, as in the reference code.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np

CROP_EDGE_TOLERANCE_PX = 20.0
"""Largest distance, in pixels, between a side of a box and a crop's edge at which the edge counts as cutting the mask;
the value of the reference code."""


class Filter(StrEnum):
    """Filters of the mask generator, in the order in which the generator applies them.

    The value of a member is the filter's name in JSON documents.
    """

    label: str
    """Name of the filter in reports."""
    loss: str
    """Description of the masks that the filter removes, to be read after their number."""
    meaning: str
    """Reason for which the filter removes a mask."""
    advice: str
    """Change of settings that makes the filter remove fewer masks."""

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
    """Select the values above `threshold`; a threshold of 0 or less selects all, as in the reference code."""
    return predicted_iou > np.float32(threshold) if threshold > 0 else np.ones(predicted_iou.shape, dtype=bool)


def is_stable(stability: np.ndarray, threshold: float) -> np.ndarray:
    """Select the values of at least `threshold`; a threshold of 0 or less selects all, as in the reference code."""
    return stability >= np.float32(threshold) if threshold > 0 else np.ones(stability.shape, dtype=bool)


def is_whole(boxes_incl_N4: np.ndarray, crop_xyxy: tuple[int, int, int, int], image_hw: tuple[int, int]) -> np.ndarray:
    """Select the masks that no edge of the crop cuts; bool [N]. The boxes are in image pixels.

    An edge of the crop cuts a mask if a side of the mask's box lies within 20 px of that edge. A side of the box that
    lies within 20 px of the image's edge does not count as cut.
    """
    height, width = image_hw
    near_crop_N4 = np.abs(boxes_incl_N4 - np.array(crop_xyxy)) <= CROP_EDGE_TOLERANCE_PX
    near_image_N4 = np.abs(boxes_incl_N4 - np.array([0, 0, width, height])) <= CROP_EDGE_TOLERANCE_PX
    return ~(near_crop_N4 & ~near_image_N4).any(axis=1)
