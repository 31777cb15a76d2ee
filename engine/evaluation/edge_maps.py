"""Edge maps: a SAM's by the protocol of "Segment Anything" (section 7.2, appendix D.2), and a plain gradient's.

A grid of 16 x 16 points gives 768 masks, three of each point, without any filter on predicted IoU or stability. Box NMS
removes duplicates. The Sobel gradient of each mask's probabilities counts at the mask's outer boundary pixels (those
outside the mask that touch it) and is 0 elsewhere. The edge map is the maximum over all masks, scaled linearly to
[0, 1], and thinned by edge NMS. The authors have not published their code; where the paper leaves room (the threshold
of box NMS, the meaning of "intersect with the outer boundary pixels"), this file says what it does.

Edge NMS deviates from the paper, which cites Canny 1986: it is that of Dollar and Zitnick 2013, "Structured forests for
fast edge detection". A pixel stays where it, times 1.01, is not lower than either neighbour across the edge, and edges
fade to 0 within 5 pixels of the image's border. Shape letters: H/W the image, N masks, P points, M = 3 masks of a
point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from engine.images import Frame
from engine.interactive.segment import NamedByModel
from engine.kernels.nms import box_nms
from engine.kernels.upsample_runs import upsample_runs
from engine.model.grid_decoder import make_point_decoder
from engine.prompts import point_grid

POINTS_PER_BATCH = 32
MASKS_AT_ONCE = 16
"""Number of masks whose probabilities are held at the image's resolution at a time."""
BOX_NMS_THRESHOLD = 0.7
"""Highest IoU of the boxes of two masks that both count; that of the paper's mask generator (appendix B)."""
GRADIENT_SIGMA_PX = 2.0
"""Width of the Gaussian that smooths the image before the plain gradient."""
ORIENTATION_RADIUS = 4
"""Radius in pixels of the triangle filter that smooths an edge map before its orientation is measured."""
NMS_MARGIN = 1.01
"""Factor by which a pixel is multiplied before it is compared with its neighbours across the edge."""
BORDER_PX = 5
"""Distance from the image's border, in pixels, within which edges fade to 0."""


class EdgeDetector(Protocol):
    """Anything that makes an edge map of an image."""

    @property
    def name(self) -> str:
        """Name of the detector in reports."""

    @property
    def model_id(self) -> str:
        """Id of the exact detector."""

    def detect(self, image_HW3: np.ndarray) -> np.ndarray:
        """Return the edge map of an image (uint8 RGB [H, W, 3]): float32 [H, W] in [0, 1], thinned by edge NMS."""


@dataclass(frozen=True, kw_only=True)
class SamEdges(NamedByModel):
    """Edges of a loaded SAM."""

    points_per_side: int = 16
    """Number of points along each side of the grid."""

    @torch.inference_mode()
    def detect(self, image_HW3: np.ndarray) -> np.ndarray:
        """Detect edges of an image, uint8 RGB [H, W, 3]; float32 [H, W] in [0, 1]."""
        frame = Frame.whole((image_HW3.shape[0], image_HW3.shape[1]), self.model.sam.config.input_side)
        logits_NLL = self._distinct_logits(image_HW3, frame)
        edges_HW = np.zeros(image_HW3.shape[:2], dtype=np.float32)
        for start in range(0, len(logits_NLL), MASKS_AT_ONCE):
            for probability_HW in _probabilities(logits_NLL[start : start + MASKS_AT_ONCE], frame):
                np.maximum(edges_HW, outline_strength(probability_HW), out=edges_HW)
        return thin_edges(scale_to_one(edges_HW))

    def _distinct_logits(self, image_HW3: np.ndarray, frame: Frame) -> torch.Tensor:
        """Decode the grid of points; return the low-resolution logits of the masks that box NMS keeps, [N, L, L]."""
        sam, (height, width) = self.model.sam, frame.image_hw
        decoder = make_point_decoder("auto", sam, sam.encode(sam.preprocess(image_HW3)[None]))
        points_P2 = point_grid(self.points_per_side) * [width, height]
        whole = (decoder.low_side, decoder.low_side)
        logits, boxes, ious = [], [], []
        for start in range(0, len(points_P2), POINTS_PER_BATCH):
            points = frame.points_to_model(points_P2[start : start + POINTS_PER_BATCH])
            prediction = decoder.predict(torch.from_numpy(points))
            iou_PM = prediction.iou_PM.float().cpu()
            logits_NLL = decoder.mask_logits(prediction, torch.ones_like(iou_PM, dtype=torch.bool), whole).float()
            masks = upsample_runs(logits_NLL, frame, low_side=decoder.low_side, stability_offset=1.0)
            seen_N = masks.areas_N > 0
            logits.append(logits_NLL[torch.from_numpy(seen_N)])
            boxes.append(masks.boxes_incl_N4[seen_N])
            ious.append(iou_PM.flatten().numpy()[seen_N])
        kept = box_nms(np.concatenate(boxes), np.concatenate(ious), BOX_NMS_THRESHOLD)
        return torch.cat(logits)[torch.from_numpy(kept)]


@dataclass(frozen=True, kw_only=True)
class GradientEdges:
    """A classical baseline without learning: the gradient of the smoothed brightness, thinned by the same edge NMS."""

    name: str = "gradient"
    model_id: str = f"gradient-{GRADIENT_SIGMA_PX:g}px"

    def detect(self, image_HW3: np.ndarray) -> np.ndarray:
        """Detect edges of an image, uint8 RGB [H, W, 3]; float32 [H, W] in [0, 1]."""
        grey_HW = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY).astype(np.float32)
        smooth_HW = cv2.GaussianBlur(grey_HW, (0, 0), GRADIENT_SIGMA_PX, borderType=cv2.BORDER_REFLECT)
        return thin_edges(scale_to_one(_sobel(smooth_HW)))


def outline_strength(probability_HW: np.ndarray) -> np.ndarray:
    """Compute the Sobel gradient of a mask's probabilities at the mask's outer boundary pixels; 0 elsewhere.

    Outer boundary pixels are the pixels outside the mask (probability at most .5) with one of their 8 neighbours in it.

    Args:
        probability_HW: float32 in [0, 1].
    """
    mask_HW = (probability_HW > 0.5).astype(np.uint8)
    outer_HW = (cv2.dilate(mask_HW, np.ones((3, 3), np.uint8)) - mask_HW).astype(bool)
    return np.where(outer_HW, _sobel(probability_HW), np.float32(0))


def scale_to_one(edges_HW: np.ndarray) -> np.ndarray:
    """Scale an edge map linearly, so that its lowest value becomes 0 and its highest 1; zeros where it is constant."""
    low, high = float(edges_HW.min()), float(edges_HW.max())
    if high <= low:
        return np.zeros_like(edges_HW)
    return (edges_HW - low) / (high - low)


def thin_edges(edges_HW: np.ndarray) -> np.ndarray:
    """Set to 0 every pixel that is lower than a neighbour across the edge, and let edges fade towards the border.

    Args:
        edges_HW: float32 edge map.
    """
    angle_HW = _across(edges_HW)
    rows, columns = np.indices(edges_HW.shape, dtype=np.float32)
    thin_HW = edges_HW.copy()
    for side in (-1.0, 1.0):
        x, y = columns + side * np.cos(angle_HW), rows + side * np.sin(angle_HW)
        beside_HW = cv2.remap(edges_HW, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        thin_HW[edges_HW * NMS_MARGIN < beside_HW] = 0
    height, width = edges_HW.shape
    from_border_HW = np.minimum(np.minimum(rows, height - 1 - rows), np.minimum(columns, width - 1 - columns))
    return thin_HW * np.minimum(from_border_HW / BORDER_PX, 1).astype(np.float32)


def _across(edges_HW: np.ndarray) -> np.ndarray:
    """Measure the direction across the edge at each pixel, in radians from the x axis, by second derivatives."""
    ramp = np.arange(1, ORIENTATION_RADIUS + 2, dtype=np.float64)
    triangle = np.concatenate([ramp, ramp[-2::-1]]) / (ORIENTATION_RADIUS + 1) ** 2
    smooth_HW = cv2.sepFilter2D(edges_HW, cv2.CV_32F, triangle, triangle, borderType=cv2.BORDER_REFLECT)
    along_y, along_x = np.gradient(smooth_HW)
    xy, xx = np.gradient(along_x)
    yy, _ = np.gradient(along_y)
    slope = yy * np.where(xy > 0, -1, 1) / (xx + 1e-5)
    return np.mod(np.arctan(slope), np.pi).astype(np.float32)


def _sobel(values_HW: np.ndarray) -> np.ndarray:
    along_x, along_y = (cv2.Sobel(values_HW, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    return np.hypot(along_x, along_y)


def _probabilities(logits_NLL: torch.Tensor, frame: Frame) -> np.ndarray:
    """Upsample logits bilinearly as SAM does and turn them into probabilities, float32 [N, H, W]."""
    side, (height, width) = (frame.model_side, frame.model_side), frame.scaled_hw
    padded = F.interpolate(logits_NLL[None], side, mode="bilinear", align_corners=False)
    full = F.interpolate(padded[..., :height, :width], frame.crop_hw, mode="bilinear", align_corners=False)
    return full[0].sigmoid().cpu().numpy()
