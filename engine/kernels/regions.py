"""Removal of small islands and filling of small holes, as in the original code's clean-up ("Segment Anything", app. B).

A region is a set of pixels connected over sides and corners; an island is a region of foreground, a hole a region of
background. The generator cleans only masks that passed every filter, about a hundred per image. Each mask is decoded
only within its box and a margin.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from storage import rle
from storage.rle import Rle


@dataclass(frozen=True, kw_only=True)
class CleanedMask:
    """Mask after clean-up, with what clean-up did."""

    rle: Rle
    """Run lengths of the mask."""
    is_changed: bool
    """True if clean-up changed at least one pixel."""
    largest_island_px: int
    """Area of the largest foreground region after hole filling, in pixels; 0 for an empty mask or no clean-up."""


def clean_small_regions(runs: Rle, min_region_px: int) -> CleanedMask:
    """Fill the small background regions of a mask, then remove its small foreground regions.

    A region is small if it has fewer than `min_region_px` pixels. As in the original code, a small background region
    at the image's border is filled as well. If every foreground region is small, the largest region stays. The
    caller reads the area of this region from `largest_island_px` and decides whether to keep the mask.
    """
    if min_region_px < 1 or rle.area(runs) == 0:
        return CleanedMask(rle=runs, is_changed=False, largest_island_px=0)
    mask_HW, (x0, y0, x1, y1) = _surroundings(runs, min_region_px)
    filled_HW = mask_HW | _small_regions(~mask_HW, min_region_px)[0]
    small_HW, largest_px, largest_HW = _small_regions(filled_HW, min_region_px)
    cleaned_HW = largest_HW if largest_px < min_region_px else filled_HW & ~small_HW
    if np.array_equal(cleaned_HW, mask_HW):
        return CleanedMask(rle=runs, is_changed=False, largest_island_px=largest_px)
    whole_HW = np.zeros((runs.height, runs.width), dtype=bool)
    whole_HW[y0:y1, x0:x1] = cleaned_HW
    return CleanedMask(rle=rle.encode(whole_HW), is_changed=True, largest_island_px=largest_px)


def _surroundings(runs: Rle, margin_px: int) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Decode a mask within its box and a margin; return these pixels and their window (x0, y0, x1, y1).

    With a margin of `min_region_px`, a background region that leaves the window is never small. Clean-up of the window
    is therefore the same as clean-up of the whole image.
    """
    x0, y0, x1, y1 = rle.box_xyxy(runs)
    x0, y0 = max(0, x0 - margin_px), max(0, y0 - margin_px)
    x1, y1 = min(runs.width, x1 + margin_px), min(runs.height, y1 + margin_px)
    return rle.decode(runs)[y0:y1, x0:x1], (x0, y0, x1, y1)


def _small_regions(mask_HW: np.ndarray, min_region_px: int) -> tuple[np.ndarray, int, np.ndarray]:
    """Find the pixels of all regions below `min_region_px`, the area of the largest region, and its pixels."""
    _, labels_HW, stats, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8), connectivity=8)
    sizes = stats[1:, cv2.CC_STAT_AREA]  # row 0 is everything outside the mask
    if not len(sizes):
        return np.zeros_like(mask_HW), 0, np.zeros_like(mask_HW)
    is_small = np.concatenate([[False], sizes < min_region_px])
    largest = int(np.argmax(sizes)) + 1
    return is_small[labels_HW], int(sizes[largest - 1]), labels_HW == largest
