"""Masks of detected boxes: each box prompts the SAM, and the mask's stability is measured as in the mask generator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.images import Frame
from engine.interactive.segment import Candidates, CropXyxy, ObjectPrompt, SamImage
from engine.interactive.zoom import SamOpened
from engine.kernels.upsample_runs import upsample_runs
from storage import rle
from storage.rle import Rle

STABILITY_OFFSET = 1.0
"""Distance of the two thresholds from 0, in logits, between which stability is measured, as in the mask generator."""
BYTES_AT_ONCE = 64_000_000
"""Limit of the masks at image resolution held at a time, in bytes."""


@dataclass(frozen=True, kw_only=True)
class BoxMask:
    """Mask that a box prompt gave."""

    rle: Rle
    prompt_box_xyxy: tuple[float, float, float, float]
    """Box that prompted the mask, in image pixels."""
    predicted_iou: float
    """SAM's own estimate of the mask's IoU with the object."""
    stability_score: float
    """Stability in [0, 1]: IoU of the mask cut at a higher and at a lower threshold."""
    crop_xyxy: CropXyxy
    """Window of the image in which the mask was made, half-open, in pixels."""


def masks_of_boxes(opened: SamOpened, boxes_N4: np.ndarray) -> list[BoxMask]:
    """Prompt the SAM with each box (half-open xyxy in image pixels) and return one mask for each, in the same order.

    Raises:
        ValueError: A box is empty or not inside the image.
    """
    whole = opened if isinstance(opened, SamImage) else opened.whole
    height, width = whole.frame.image_hw
    at_once = max(1, BYTES_AT_ONCE // (height * width))
    masks: list[BoxMask] = []
    for start in range(0, len(boxes_N4), at_once):
        boxes = [(float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in boxes_N4[start : start + at_once]]
        answers = opened.segment([ObjectPrompt(box_xyxy=box) for box in boxes])
        masks += [_box_mask(whole.frame, box, answer) for box, answer in zip(boxes, answers, strict=True)]
    return masks


def _box_mask(whole: Frame, box_xyxy: tuple[float, float, float, float], answer: Candidates) -> BoxMask:
    chosen = answer.chosen
    crop_xyxy = answer.crop_of(chosen) or whole.crop_xyxy
    frame = Frame(crop_xyxy=crop_xyxy, image_hw=whole.image_hw, model_side=whole.model_side)
    logits_1LL = answer.logits_MLL[chosen : chosen + 1].float()
    upsampled = upsample_runs(logits_1LL, frame, low_side=logits_1LL.shape[-1], stability_offset=STABILITY_OFFSET)
    return BoxMask(
        rle=rle.encode(answer.masks_MHW[chosen]),
        prompt_box_xyxy=box_xyxy,
        predicted_iou=float(answer.predicted_iou_M[chosen]),
        stability_score=float(upsampled.stability_N[0]),
        crop_xyxy=crop_xyxy,
    )
