"""Detection: from an opened image to scored boxes of objects, the most certain first.

The detector looks at the whole image and, where the SAM is prompted in windows of it (`engine.interactive.zoom`), at
the same windows; the embeddings are those that box prompts use afterwards. A box that the border of a window cuts is
left to the other windows.

Shape suffixes: V views of the image, K cells, N boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.detector.config import DetectConfig
from engine.detector.weights import Detector
from engine.images import Frame
from engine.interactive.segment import SamImage
from engine.interactive.zoom import SamOpened
from engine.kernels.nms import box_nms

BOXES_PER_VIEW = 200
"""Largest number of boxes of a view that take part in the removal of duplicates; the best ones."""
CUT_CELLS = 1.0
"""Distance of a box's side from a border of the window inside the image, in embedding cells, below which the border
counts as cutting the box."""
MIN_SIDE_PX = 2.0
"""Smallest side of a box, in image pixels."""


@dataclass(frozen=True, kw_only=True)
class DetectedBoxes:
    """Boxes of one image, the highest score first."""

    boxes_N4: np.ndarray
    """Boxes (x0, y0, x1, y1), half-open, inside the image, float32 in image pixels."""
    scores_N: np.ndarray
    """Score of each box, float32: the probability that the box has an IoU of at least .5 with an object's box."""

    def __len__(self) -> int:
        return len(self.scores_N)


def detect(detector: Detector, opened: SamOpened, config: DetectConfig | None = None) -> DetectedBoxes:
    """Detect the objects of an image that the detector's SAM has opened."""
    config = config or DetectConfig()
    views = _views(opened, config.crop_layers)
    with torch.inference_mode():
        predictions = detector.head(torch.cat([view.embeddings_1CEE for view in views]).float())
        scores_VK = predictions.logits_BK.sigmoid().cpu().numpy()
        boxes_VK4 = predictions.boxes_BK4.cpu().numpy()
    per_view = [
        _of_view(view.frame, scores_K, boxes_K4, detector.card.config.stride_px)
        for view, scores_K, boxes_K4 in zip(views, scores_VK, boxes_VK4, strict=True)
    ]
    boxes_N4 = np.concatenate([boxes for boxes, _ in per_view])
    scores_N = np.concatenate([scores for _, scores in per_view])
    enough_N = scores_N >= config.min_score
    boxes_N4, scores_N = boxes_N4[enough_N], scores_N[enough_N]
    kept = box_nms(boxes_N4, scores_N, config.nms_threshold)[: config.max_boxes]
    return DetectedBoxes(boxes_N4=boxes_N4[kept].astype(np.float32), scores_N=scores_N[kept].astype(np.float32))


def _views(opened: SamOpened, crop_layers: int) -> Sequence[SamImage]:
    """Return the whole image and its windows up to a crop layer; an image without windows is one view."""
    if isinstance(opened, SamImage):
        return [opened]
    return [opened.view(window.xyxy) for window in opened.windows if window.layer <= crop_layers]


def _of_view(frame: Frame, scores_K: np.ndarray, boxes_K4: np.ndarray, stride_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the best boxes of a view in image pixels, and their scores: inside the view, and not cut by its border."""
    best = np.argsort(-scores_K, kind="stable")[: 2 * BOXES_PER_VIEW]
    scaled_height, scaled_width = frame.scaled_hw
    limits = np.array([scaled_width, scaled_height, scaled_width, scaled_height], dtype=np.float64)
    boxes_N4 = boxes_K4[best].astype(np.float64).clip(0, limits)

    height, width = frame.image_hw
    x0, y0, x1, y1 = frame.crop_xyxy
    margin = CUT_CELLS * stride_px
    is_inner = np.array([x0 > 0, y0 > 0, x1 < width, y1 < height])
    near_border_N4 = np.concatenate([boxes_N4[:, :2] < margin, boxes_N4[:, 2:] > limits[2:] - margin], axis=1)
    whole_N = ~(near_border_N4 & is_inner).any(axis=1)

    boxes_N4 = frame.boxes_to_image(boxes_N4).clip([x0, y0, x0, y0], [x1, y1, x1, y1])
    large_N = (boxes_N4[:, 2:] - boxes_N4[:, :2]).min(axis=1) >= MIN_SIDE_PX
    kept = np.flatnonzero(whole_N & large_N)[:BOXES_PER_VIEW]
    return boxes_N4[kept], scores_K[best][kept]
