"""Features of a mask that the verifier judges it by.

The network's own scores, the size and shape of the mask, the edges of the image along its contour, and whether the SAM
gives the same mask again: prompted otherwise (with the mask's box, with a click at its deepest point), and at another
zoom. A mask that hangs on one lucky prompt is seldom a good one.

Shape letters: N masks, F features, H/W the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np

from engine.evaluation.annotator import centre_click, iou
from engine.interactive.segment import Candidates, Click, ObjectPrompt, OpenedImage, SamImage
from engine.interactive.zoom import SamOpened
from storage import rle
from storage.rle import Rle

FEATURES = (
    "predicted_iou",
    "stability",
    "log_area",
    "log_components",
    "largest_component",
    "compactness",
    "border",
    "contour_gradient",
    "box_agreement",
    "box_predicted_iou",
    "click_agreement",
    "zoom_agreement",
)
"""Names of the features, in the order of the columns."""
SMOOTHING_SIGMA = 1.0
"""Standard deviation, in pixels, of the blur before gradients are taken."""
BYTES_AT_ONCE = 64_000_000
"""Limit of the candidate masks at image resolution held at a time, in bytes."""


class ScoredMask(Protocol):
    """A mask with the scores of the network that made it, such as a `MaskRecord` or a `GeneratedMask`."""

    @property
    def rle(self) -> Rle:
        """Pixels of the mask."""

    @property
    def predicted_iou(self) -> float:
        """The network's own estimate of the mask's IoU with the object, in [0, 1]."""

    @property
    def stability_score(self) -> float:
        """Stability of the mask, in [0, 1]."""


def mask_features(opened: SamOpened, image_HW3: np.ndarray, masks: Sequence[ScoredMask]) -> np.ndarray:
    """Compute the features of an image's masks; float64 [N, F], the columns of `FEATURES`.

    Args:
        opened: the image, opened by the SAM that judges; it need not be the SAM that made the masks.
        image_HW3: the image's pixels, uint8 RGB.

    Raises:
        ValueError: A mask is empty, has another size than the image, or has no scores.
    """
    for mask in masks:
        _check(mask, image_HW3)
    gradient_HW = _gradient(image_HW3)
    at_once = max(1, BYTES_AT_ONCE // (4 * gradient_HW.size))
    rows: list[list[float]] = []
    for start in range(0, len(masks), at_once):
        part = masks[start : start + at_once]
        pixels = [rle.decode(mask.rle) for mask in part]
        again = _agreements(opened, pixels, [rle.box_xyxy(mask.rle) for mask in part])
        rows += [
            [
                mask.predicted_iou,
                mask.stability_score,
                *_shape(mask_HW),
                _contour_gradient(mask_HW, gradient_HW),
                *agreed,
            ]
            for mask, mask_HW, agreed in zip(part, pixels, again, strict=True)
        ]
    return np.array(rows, dtype=np.float64).reshape(-1, len(FEATURES))


def _check(mask: ScoredMask, image_HW3: np.ndarray) -> None:
    if (mask.rle.height, mask.rle.width) != image_HW3.shape[:2]:
        raise ValueError(
            f"got a mask of {mask.rle.width}x{mask.rle.height} and an image of "
            f"{image_HW3.shape[1]}x{image_HW3.shape[0]}, expected equal sizes"
        )
    if rle.area(mask.rle) == 0:
        raise ValueError("got an empty mask, expected at least one pixel to verify")
    if not (np.isfinite(mask.predicted_iou) and np.isfinite(mask.stability_score)):
        raise ValueError(
            f"got predicted IoU {mask.predicted_iou} and stability {mask.stability_score}, expected numbers: the "
            "verifier judges masks that a model made"
        )


def _shape(mask_HW: np.ndarray) -> list[float]:
    """Describe the size and shape of a mask.

    The values are the log of the area fraction, the log of the number of components, the fraction of the largest
    component, the compactness in (0, 1] and the fraction of the contour that lies on the image's border.
    """
    area_px = int(np.count_nonzero(mask_HW))
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8), connectivity=8)
    largest_px = int(stats[1:, cv2.CC_STAT_AREA].max())
    contour_HW = _contour(mask_HW)
    contour_px = int(np.count_nonzero(contour_HW))
    edge = np.concatenate([contour_HW[0], contour_HW[-1], contour_HW[1:-1, 0], contour_HW[1:-1, -1]])
    return [
        float(np.log(area_px / mask_HW.size)),
        float(np.log(count - 1)),
        largest_px / area_px,
        min(1.0, 4 * np.pi * area_px / contour_px**2),
        np.count_nonzero(edge) / contour_px,
    ]


def _contour(mask_HW: np.ndarray) -> np.ndarray:
    """Find the mask's pixels that touch a pixel outside the mask or the image; bool [H, W]."""
    padded = np.pad(mask_HW.astype(np.uint8), 1)
    inner = cv2.erode(padded, np.ones((3, 3), np.uint8))[1:-1, 1:-1]
    return mask_HW & (inner == 0)


def _gradient(image_HW3: np.ndarray) -> np.ndarray:
    """Compute the strength of the image's edges relative to the image's mean, float32 [H, W]."""
    lab_HW3 = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2LAB)
    smooth_HW3 = cv2.GaussianBlur(lab_HW3.astype(np.float32), (0, 0), SMOOTHING_SIGMA)
    dx, dy = cv2.Sobel(smooth_HW3, cv2.CV_32F, 1, 0), cv2.Sobel(smooth_HW3, cv2.CV_32F, 0, 1)
    strength_HW: np.ndarray = np.sqrt((dx * dx + dy * dy).sum(axis=2))
    return strength_HW / max(float(strength_HW.mean()), 1e-6)


def _contour_gradient(mask_HW: np.ndarray, gradient_HW: np.ndarray) -> float:
    """Compute the log of the mean edge strength on the contour, where 0 is the image's mean."""
    return float(np.log(gradient_HW[_contour(mask_HW)].mean() + 1e-3))


def _agreements(
    opened: SamOpened, masks: Sequence[np.ndarray], boxes: Sequence[tuple[int, int, int, int]]
) -> list[list[float]]:
    """Prompt the SAM again for each mask; return box agreement, box predicted IoU, click and zoom agreement.

    An agreement is the IoU of two masks: of the mask with that of its own box; of the mask with the best candidate of a
    click at its deepest point; and of the box's masks on the whole image and on the window nearest to it.
    """
    rng = np.random.default_rng(0)  # the centre of a mask is not drawn
    box_prompts = [ObjectPrompt(box_xyxy=box) for box in boxes]
    clicks = [Click(x=x, y=y) for x, y in (centre_click(mask_HW, rng) for mask_HW in masks)]
    by_box = opened.segment(box_prompts)
    by_click = opened.segment([ObjectPrompt(clicks=(click,)) for click in clicks])
    whole: OpenedImage = opened if isinstance(opened, SamImage) else opened.whole
    by_box_on_whole = by_box if isinstance(opened, SamImage) else whole.segment(box_prompts)
    return [
        [
            iou(_chosen(of_box), mask_HW),
            float(of_box.predicted_iou_M[of_box.chosen]),
            max(iou(candidate_HW, mask_HW) for candidate_HW in of_click.masks_MHW),
            iou(_chosen(of_box), _chosen(on_whole)),
        ]
        for mask_HW, of_box, of_click, on_whole in zip(masks, by_box, by_click, by_box_on_whole, strict=True)
    ]


def _chosen(candidates: Candidates) -> np.ndarray:
    return candidates.masks_MHW[candidates.chosen]
