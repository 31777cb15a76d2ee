"""Masks without a model: subtract, split, fill holes, remove islands, fill polygons, and the wand for flat regions."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from engine.images import check_image
from storage import rle
from storage.errors import InvalidInput
from storage.rle import Rle

MAX_PARTS = 256
"""Largest number of parts that `split` returns."""
MAX_CORNERS = 10_000
"""Largest number of corners of a polygon, over all rings."""
MAX_TOLERANCE = 128
"""Largest tolerance of the wand, in grey levels of each channel."""


def subtract(mask: Rle, other: Rle) -> Rle:
    """Remove the pixels of another mask from a mask.

    Raises:
        ValueError: The masks differ in size.
    """
    if (mask.height, mask.width) != (other.height, other.width):
        raise InvalidInput(
            f"got masks of {mask.width}x{mask.height} and {other.width}x{other.height} pixels, expected one size"
        )
    return rle.encode(rle.decode(mask) & ~rle.decode(other))


def split(mask: Rle) -> list[Rle]:
    """Split a mask into its regions, the largest first; pixels that touch at a corner are connected.

    Raises:
        ValueError: The mask is empty or has more than `MAX_PARTS` regions.
    """
    regions, labels_HW, stats, _ = cv2.connectedComponentsWithStats(rle.decode(mask).astype(np.uint8), connectivity=8)
    if not 1 <= regions - 1 <= MAX_PARTS:
        raise InvalidInput(
            f"got a mask of {regions - 1} regions, expected 1 to {MAX_PARTS}; remove small islands before splitting"
        )
    order = np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable") + 1
    return [rle.encode(labels_HW == label) for label in order]


def fill_holes(mask: Rle, max_px: int) -> Rle:
    """Fill the background regions of at most `max_px` pixels that do not touch the image's border."""
    mask_HW = rle.decode(mask)
    is_small, labels_HW, stats = _small_regions(~mask_HW, max_px, connectivity=4)
    left, top = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_TOP]
    right, bottom = left + stats[:, cv2.CC_STAT_WIDTH], top + stats[:, cv2.CC_STAT_HEIGHT]
    is_inside = (left > 0) & (top > 0) & (right < mask.width) & (bottom < mask.height)
    return rle.encode(mask_HW | (is_small & is_inside)[labels_HW])


def remove_islands(mask: Rle, max_px: int) -> Rle:
    """Remove the regions of at most `max_px` pixels; the largest region stays, however small it is."""
    mask_HW = rle.decode(mask)
    is_small, labels_HW, stats = _small_regions(mask_HW, max_px, connectivity=8)
    if len(stats) > 1:
        is_small[1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())] = False
    return rle.encode(mask_HW & ~is_small[labels_HW])


def polygon(rings: Sequence[Sequence[tuple[float, float]]], image_hw: tuple[int, int]) -> Rle:
    """Fill the rings of a polygon: a pixel is inside where an odd number of rings holds its middle.

    Raises:
        ValueError: A ring has fewer than three corners, a corner lies outside the image, or there are too many corners.
    """
    height, width = image_hw
    corners = sum(len(ring) for ring in rings)
    if corners > MAX_CORNERS or not rings or min(len(ring) for ring in rings) < 3:
        raise InvalidInput(f"got rings of {corners} corners, expected at least 3 in each and {MAX_CORNERS} together")
    crossings_HW = np.zeros((height, width + 1), dtype=np.int32)
    for ring in rings:
        ring_N2 = np.asarray(ring, dtype=np.float64)
        is_inside = (ring_N2 >= 0).all() and (ring_N2 <= (width, height)).all()
        if not is_inside:
            raise InvalidInput(f"got a polygon with a corner outside the {width}x{height} image; clip it to the image")
        for (x0, y0), (x1, y1) in zip(ring_N2, np.roll(ring_N2, -1, axis=0), strict=True):
            # Rows whose middle the edge crosses, and the first pixel of each whose middle lies right of the edge
            top, bottom = np.ceil(np.sort([y0, y1]) - 0.5).astype(int)
            rows_K = np.arange(top, bottom)
            xs_K = x0 + (rows_K + 0.5 - y0) * (x1 - x0) / ((y1 - y0) or 1.0)
            columns_K = np.clip(np.ceil(xs_K - 0.5).astype(int), 0, width)
            crossings_HW[rows_K, columns_K] += 1
    return rle.encode(np.cumsum(crossings_HW[:, :width], axis=1) % 2 == 1)


def wand(image_HW3: np.ndarray, x: float, y: float, tolerance: int) -> Rle:
    """Select the flat region around a point: connected pixels whose colour is near the point's.

    The point's colour is the median of the 3 x 3 pixels around it. Holes of at most 16 pixels, which noise makes, are
    filled.

    Args:
        image_HW3: uint8 RGB image.
        x: Column of the point, in pixels.
        y: Row of the point, in pixels.
        tolerance: Largest difference of each channel from the point's colour, in [0, `MAX_TOLERANCE`].

    Raises:
        ValueError: The point lies outside the image, or the tolerance outside its range.
    """
    check_image(image_HW3)
    height, width = image_HW3.shape[:2]
    if not (0 <= x <= width and 0 <= y <= height):
        raise InvalidInput(f"got a point at x {x}, y {y}, expected it inside the {width}x{height} image")
    if not 0 <= tolerance <= MAX_TOLERANCE:
        raise InvalidInput(f"got a tolerance of {tolerance}, expected 0 to {MAX_TOLERANCE} grey levels")
    column, row = min(int(x), width - 1), min(int(y), height - 1)
    around_K3 = image_HW3[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].reshape(-1, 3)
    colour_3 = np.median(around_K3, axis=0)
    near_HW = (np.abs(image_HW3.astype(np.int16) - colour_3.astype(np.int16)) <= tolerance).all(axis=2)
    near_HW[row, column] = True
    _, labels_HW = cv2.connectedComponents(near_HW.astype(np.uint8), connectivity=4)
    return fill_holes(rle.encode(labels_HW == labels_HW[row, column]), max_px=16)


def _small_regions(mask_HW: np.ndarray, max_px: int, *, connectivity: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which regions are small, the region of each pixel (0: none) and OpenCV's figures of each region."""
    _, labels_HW, stats, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8), connectivity=connectivity)
    is_small = stats[:, cv2.CC_STAT_AREA] <= max_px
    is_small[0] = False
    return is_small, labels_HW, stats
