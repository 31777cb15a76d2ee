"""Prompts of a network (points, boxes and masks), and the point grids and crop windows of the automatic generator.

Shape letters: P prompts, K points of a prompt, L side of the decoder's low-resolution masks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """P prompts of a network, in model-input pixels.

    All prompts have K points. Either all of them have a box or none has one, and likewise for mask logits.
    """

    points_PK2: Tensor
    """Points (x, y) in model-input pixels, floating point; K may be 0."""
    labels_PK: Tensor
    """Labels of the points, whole numbers: 1 foreground, 0 background, -1 padding (the point is ignored)."""
    boxes_P4: Tensor | None = None
    """Boxes (xyxy) in model-input pixels, floating point; None means no boxes."""
    mask_logits_P1LL: Tensor | None = None
    """Low-resolution logits of an earlier prediction, floating point; None means no earlier prediction."""

    def __post_init__(self) -> None:
        count, points = len(self.points_PK2), tuple(self.points_PK2.shape)
        if len(points) != 3 or points[2] != 2 or tuple(self.labels_PK.shape) != points[:2]:
            raise ValueError(
                f"got points {list(points)} and labels {list(self.labels_PK.shape)}, expected [P, K, 2] and [P, K]"
            )
        if self.boxes_P4 is not None and tuple(self.boxes_P4.shape) != (count, 4):
            raise ValueError(f"got boxes {list(self.boxes_P4.shape)}, expected [{count}, 4]: one for each prompt")
        if self.mask_logits_P1LL is not None and tuple(self.mask_logits_P1LL.shape[:2]) != (count, 1):
            raise ValueError(
                f"got mask logits {list(self.mask_logits_P1LL.shape)}, expected [{count}, 1, L, L]: one for each prompt"
            )
        # on a GPU this check would wait for everything queued before it
        if self.labels_PK.device.type == "cpu" and not torch.isin(self.labels_PK, torch.tensor([-1, 0, 1])).all():
            raise ValueError(f"got labels {self.labels_PK.unique().tolist()}, expected only 1, 0 and -1")

    def __len__(self) -> int:
        return len(self.points_PK2)

    def to(self, device: torch.device | str) -> Prompts:
        """Copy the prompts to another device."""
        return Prompts(
            points_PK2=self.points_PK2.to(device),
            labels_PK=self.labels_PK.to(device),
            boxes_P4=None if self.boxes_P4 is None else self.boxes_P4.to(device),
            mask_logits_P1LL=None if self.mask_logits_P1LL is None else self.mask_logits_P1LL.to(device),
        )


def point_grid(points_per_side: int) -> np.ndarray:
    """Compute the centres of a regular grid's cells, float64 [n * n, 2] as (x, y) in (0, 1), row by row.

    Raises:
        ValueError: The number of points per side is less than 1.
    """
    if points_per_side < 1:
        raise ValueError(f"got {points_per_side} points per side, expected at least 1")
    half_cell = 1 / (2 * points_per_side)
    centres_n = np.linspace(half_cell, 1 - half_cell, points_per_side)
    columns_nn, rows_nn = np.meshgrid(centres_n, centres_n)
    return np.stack([columns_nn, rows_nn], axis=-1).reshape(-1, 2)


@dataclass(frozen=True, kw_only=True)
class CropWindow:
    """A window of an image, which the network encodes separately from other windows."""

    xyxy: tuple[int, int, int, int]
    """Edges of the window in the image, half-open, in pixels."""
    layer: int
    """Crop layer of the window: layer 0 is the whole image, layer i has 2^i windows along a side."""


def crop_windows(image_hw: tuple[int, int], layers: int, overlap_ratio: float) -> list[CropWindow]:
    """List the window of the whole image, followed by the overlapping windows of the crop layers 1 to `layers`.

    Layer i has 2^i x 2^i windows, listed column by column. In layer 1, neighbouring windows overlap by `overlap_ratio`
    of the image's shorter side. In each further layer, they overlap by half as much as in the layer before ("Segment
    Anything", appendix B). Windows for which a very small image has no room are left out.

    Raises:
        ValueError: The number of layers is negative, or the overlap is outside [0, 1).
    """
    if layers < 0 or not 0 <= overlap_ratio < 1:
        raise ValueError(
            f"got {layers} crop layers with overlap {overlap_ratio}, expected >= 0 layers, overlap in [0, 1)"
        )
    height, width = image_hw
    windows = [CropWindow(xyxy=(0, 0, width, height), layer=0)]
    for layer in range(1, layers + 1):
        per_side = 2**layer
        overlap = int(overlap_ratio * min(height, width) * (2 / per_side))
        crop_width = math.ceil((overlap * (per_side - 1) + width) / per_side)
        crop_height = math.ceil((overlap * (per_side - 1) + height) / per_side)
        for column, row in product(range(per_side), range(per_side)):
            x0, y0 = (crop_width - overlap) * column, (crop_height - overlap) * row
            x1, y1 = min(x0 + crop_width, width), min(y0 + crop_height, height)
            if x0 < x1 and y0 < y1:
                windows.append(CropWindow(xyxy=(x0, y0, x1, y1), layer=layer))
    return windows
