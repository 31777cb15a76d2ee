"""Removal of small islands and filling of small holes, as in the original code's clean-up ("Segment Anything", app. B).

A region is a set of pixels connected over sides and corners; an island is a region of foreground, a hole a region of
background. The generator cleans only masks that passed every filter, about a hundred per image. The numba backend
works on the runs; the reference, OpenCV, on the pixels of a mask's box and a margin. Both give the same runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np

from storage import rle
from storage.rle import Rle

Backend = Literal["auto", "reference", "numba"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CleanedMask:
    """Mask after clean-up, with what clean-up did."""

    rle: Rle
    """Run lengths of the mask."""
    is_changed: bool
    """True if clean-up changed at least one pixel."""
    largest_island_px: int
    """Area of the largest foreground region after hole filling, in pixels; 0 for an empty mask or no clean-up."""


def clean_small_regions(runs: Rle, min_region_px: int, *, backend: Backend = "auto") -> CleanedMask:
    """Fill the small background regions of a mask, then remove its small foreground regions.

    A region is small if it has fewer than `min_region_px` pixels. As in the original code, a small background region
    at the image's border is filled as well. If every foreground region is small, the largest region stays. The
    caller reads the area of this region from `largest_island_px` and decides whether to keep the mask.

    Args:
        runs: The mask.
        min_region_px: Area below which a region is small, in pixels; below 1, nothing is cleaned.
        backend: "numba" is fast; "reference" decodes the mask and is slower; "auto" is numba if it can be imported.

    Raises:
        ValueError: The runs do not add up to height * width, or the backend is unknown.
        RuntimeError: The backend cannot run here.
    """
    clean = _cleaner(backend)
    if min_region_px < 1 or rle.area(runs) == 0:
        return CleanedMask(rle=runs, is_changed=False, largest_island_px=0)
    rle.validate(runs)
    return clean(runs, min_region_px)


def clean_reference(runs: Rle, min_region_px: int) -> CleanedMask:
    """Clean the pixels of a mask that is not empty, within its window."""
    x0, y0, x1, y1 = window_xyxy(runs, min_region_px)
    mask_HW = rle.decode(runs)[y0:y1, x0:x1]
    filled_HW = mask_HW | _small_regions(~mask_HW, min_region_px)[0]
    small_HW, largest_px, largest_HW = _small_regions(filled_HW, min_region_px)
    cleaned_HW = largest_HW if largest_px < min_region_px else filled_HW & ~small_HW
    if np.array_equal(cleaned_HW, mask_HW):
        return CleanedMask(rle=runs, is_changed=False, largest_island_px=largest_px)
    whole_HW = np.zeros((runs.height, runs.width), dtype=bool)
    whole_HW[y0:y1, x0:x1] = cleaned_HW
    return CleanedMask(rle=rle.encode(whole_HW), is_changed=True, largest_island_px=largest_px)


def window_xyxy(runs: Rle, margin_px: int) -> tuple[int, int, int, int]:
    """Return the half-open window of a mask's box and a margin.

    With a margin of `min_region_px`, a background region that leaves the window is never small. Clean-up of the window
    is therefore the same as clean-up of the whole image.
    """
    x0, y0, x1, y1 = rle.box_xyxy(runs)
    x0, y0 = max(0, x0 - margin_px), max(0, y0 - margin_px)
    return (x0, y0, min(runs.width, x1 + margin_px), min(runs.height, y1 + margin_px))


def _small_regions(mask_HW: np.ndarray, min_region_px: int) -> tuple[np.ndarray, int, np.ndarray]:
    """Find the pixels of all regions below `min_region_px`, the area of the largest region, and its pixels."""
    _, labels_HW, stats, _ = cv2.connectedComponentsWithStats(mask_HW.astype(np.uint8), connectivity=8)
    sizes = stats[1:, cv2.CC_STAT_AREA]  # row 0 is everything outside the mask
    if not len(sizes):
        return np.zeros_like(mask_HW), 0, np.zeros_like(mask_HW)
    is_small = np.concatenate([[False], sizes < min_region_px])
    largest = int(np.argmax(sizes)) + 1
    return is_small[labels_HW], int(sizes[largest - 1]), labels_HW == largest


_Clean = Callable[[Rle, int], CleanedMask]
"""Function that cleans one mask that is not empty."""


def _cleaner(backend: Backend) -> _Clean:
    if backend == "auto":
        backend = fastest_backend()
    if backend == "numba":
        return _numba_clean()
    if backend == "reference":
        return clean_reference
    raise ValueError(f"got backend {backend!r}, expected 'auto', 'reference' or 'numba'")


@lru_cache(maxsize=1)
def fastest_backend() -> Literal["reference", "numba"]:
    """Choose the fastest backend that can be imported. The choice is logged once."""
    try:
        _numba_clean()
    except RuntimeError as error:
        logger.warning("clean_small_regions: OpenCV on decoded masks, many times slower (%s)", error)
        return "reference"
    logger.info("clean_small_regions: numba")
    return "numba"


def _numba_clean() -> _Clean:
    try:
        from engine.kernels.regions_numba import clean_numba
    except ImportError as error:
        raise RuntimeError(f"the numba backend of clean_small_regions cannot run: {error}; install numba") from error
    return clean_numba
